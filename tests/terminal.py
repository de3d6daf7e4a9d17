"""A machine like a newcomer's, for what the docs show: the project, its environment, a shell, and nothing that was ever up.

It has the psql of the embedded PostgreSQL 16 on PATH, and git; no Docker, az or gh, and no settings. So what is shown there
doesn't depend on whose machine it is.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts import embedded
from tests.database import ENV, ROOT, Machine

HOME = "/home/me/serving"  # where the project stands, as far as a page is concerned
COLUMNS = 100
# What a page types besides our own.
PROGRAMS = (
    "bash",
    "cat",
    "cut",
    "dirname",
    "env",
    "getent",
    "git",
    "grep",
    "head",
    "ls",
    "mkdir",
    "rm",
    "sed",
    "sh",
    "tail",
    "uname",
)
COPIED = ("deploy", "docs", "requirements", ".env.example", ".gitignore", "pyproject.toml")

_DURATION = re.compile(r" *\b\d+(\.\d+)? (ms|s|min)\b")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(UTC|Z|[+-]\d\d(:?\d\d)?))?)?")
_PORT = re.compile(r"\b(127\.0\.0\.1|localhost):\d+")
_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@\s]+@")
_SIZE = re.compile(r"\b\d+\.\d+ (GiB|MiB)\b")
_PYTHON = re.compile(r"\bPython 3\.\d+\.\d+\b")
_PID = re.compile(r"\bPID \d+")


def normalised(text: str) -> str:
    """What a command prints, or a page says that it does, without what differs from run to run. The rules:

    a duration (`1.2 s`, `35 ms`, with the blanks before it), a date or time in ISO 8601, the port behind 127.0.0.1 or localhost,
    the password in a URI, room (`71.1 GiB`), Python's version, a PID, and blanks at the ends of lines.
    """
    text = _DURATION.sub(" # s", text)
    text = _TIME.sub("TIME", text)
    text = _PORT.sub(r"\1:PORT", text)
    text = _PASSWORD.sub(r"\1****@", text)
    text = _SIZE.sub(r"# \1", text)
    text = _PYTHON.sub("Python 3", text)
    text = _PID.sub("PID #", text)
    return "\n".join(line.rstrip() for line in text.splitlines())


class Terminal:
    """A shell in the project of such a machine."""

    def __init__(self, machine: Machine, tools: Path) -> None:
        self.project = machine.project
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.project / name)
        for name in PROGRAMS:
            if program := shutil.which(name):
                (tools / name).symlink_to(program)
        home = tools / "home"
        home.mkdir()
        path = [self._environment(), embedded.program("psql").parent, tools]
        self.env = {
            **{name: value for name, value in ENV.items() if name in ("LANG", "LC_ALL", "TMPDIR")},
            "PATH": os.pathsep.join(map(str, path)),
            "HOME": str(home),
            "COLUMNS": str(COLUMNS),
            "TERM": "xterm-256color",
            "DOCKER_HOST": "unix:///nowhere/docker.sock",
        }

    def _environment(self) -> Path:
        """Has bootstrap.py find the environment that the tests run in, as if it had made it here."""
        bootstrap = runpy.run_path(str(self.project / "scripts" / "bootstrap.py"))
        made: Path = bootstrap["VENV"]
        made.mkdir()
        programs: Path = bootstrap["BIN"]
        programs.symlink_to(Path(sys.executable).parent)
        bootstrap["STAMP"].write_text(bootstrap["fingerprint"](), encoding="utf-8")
        return programs

    def run(self, line: str) -> tuple[int, str]:
        """Exit code and output of what is typed; nobody is there to answer questions."""
        result = subprocess.run(
            ["sh", "-c", line],
            cwd=self.project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        return result.returncode, self.at_home(result.stdout)

    def at_home(self, text: str) -> str:
        """A text that may name the folder of the project."""
        return text.replace(str(self.project), HOME)


@contextmanager
def opened() -> Iterator[Terminal]:
    """A terminal; what was started in it is stopped and deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="serving-tools-") as tools:
        project = Path(tempfile.mkdtemp(prefix="serving-")).resolve()
        project.chmod(0o755)  # root's server runs as another account, and would say that it makes the folder passable
        with Machine(project) as machine:
            yield Terminal(machine, Path(tools))
