"""Git repositories of a test's own."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.database import ENV

# The user's and the system's settings don't reach a test.
_ENV = {
    **{name: value for name, value in ENV.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "test@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@dataclass(frozen=True)
class Repository:
    """A repository with the branch `main`, and a folder `migrations` in it."""

    path: Path

    @property
    def folder(self) -> Path:
        return self.path / "migrations"

    def git(self, *words: str) -> str:
        argv = ["git", "-c", "protocol.file.allow=always", *words]
        return subprocess.run(argv, cwd=self.path, env=_ENV, capture_output=True, encoding="utf-8", check=True).stdout

    def commit(self, *files: str, delete: tuple[str, ...] = ()) -> None:
        """Commits files of the folder, each with a text of its own."""
        for file in delete:
            (self.folder / file).unlink()
        for file in files:
            self.write(file)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "x")

    def write(self, file: str) -> None:
        (self.folder / file).write_text(f"-- {file}\nSELECT 1;\n", encoding="utf-8")

    def clone(self, path: Path, *words: str) -> Repository:
        self.git("clone", "--quiet", *words, self.path.as_uri(), str(path))
        return Repository(path)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def make(path: Path) -> Repository:
    repository = Repository(path)
    repository.folder.mkdir(parents=True)
    repository.git("init", "--quiet", "--initial-branch=main")
    return repository


def without_git(path: Path) -> str:
    """A PATH that leads to no git."""
    empty = path / "no programs"
    empty.mkdir(exist_ok=True)
    return str(empty)
