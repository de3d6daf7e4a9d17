"""The only module that knows git's words: which commit this is, and where the repository is.

It only reads, asks nobody, and is no condition for anything: without git, outside a repository, or in one that can't
say, the answer is that nothing is known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from scripts import shell
from scripts.dsn import clean_env
from scripts.errors import OpsError

_DEADLINE = 20.0  # seconds for one answer


def revision(folder: Path, env: Mapping[str, str]) -> str | None:
    """The commit that a folder's files came from, where that can be known."""
    said = _ask(folder, env, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    return said.strip() if said else None


def root(folder: Path, env: Mapping[str, str]) -> Path | None:
    """The top folder of the repository that a folder is in."""
    said = _ask(folder, env, "rev-parse", "--show-toplevel")
    return Path(said.rstrip("\n")) if said else None


def _ask(folder: Path, env: Mapping[str, str], *words: str) -> str | None:
    """What git says, or None where it has nothing to say."""
    if shell.which("git", env) is None:
        return None
    try:
        result = shell.run(["git", "--no-pager", *words], env=_env(env), cwd=folder, timeout=_DEADLINE)
    except OpsError:  # it hangs, or can't be started
        return None
    return result.out if result.code == 0 else None


def _env(env: Mapping[str, str]) -> dict[str, str]:
    """Without what a hook of git sets (its repository, its index) and what could make git ask, fetch or write."""
    own = {name: value for name, value in clean_env(env).items() if not name.upper().startswith("GIT_")}
    return {**own, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ASKPASS": os.devnull}
