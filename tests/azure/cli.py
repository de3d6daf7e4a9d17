"""The real `az`, led to an emulator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.azure.emulator import Emulator
from tests.azure.login import without_azure
from tests.database import ENV


def find_az() -> str:
    """The program that AZ names, else the one on PATH. Raises LookupError, which says what to do."""
    program = os.environ.get("AZ") or shutil.which("az")
    if program is None or not Path(program).is_file():
        where = f"AZ={program} is no file" if program else "there is none on PATH"
        raise LookupError(
            f"these tests need the real az, and {where}: python3 -m venv DIR, DIR/bin/pip install --require-hashes "
            "-r requirements/azure.txt, then AZ=DIR/bin/az"
        )
    return program


@dataclass(frozen=True)
class Ran:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass
class Az:
    """`az` with a folder of its own, run where no folder is called `azure`."""

    program: str
    emulator: Emulator
    home: Path
    logged_in: bool = True

    def __post_init__(self) -> None:
        self.cwd = self.home / "cwd"
        self.cwd.mkdir(parents=True, exist_ok=True)
        self.env = {**without_azure(ENV), **self.emulator.env(self.home / "az", logged_in=self.logged_in)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`az WORDS`, not waited for. Words are split at blanks."""
        argv = [self.program, *" ".join(words).split()]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=self.env, cwd=self.cwd, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __call__(self, *words: str, stdin: str = "") -> Ran:
        """The same, waited for."""
        return ended(self.start(*words), stdin)


def ended(process: subprocess.Popen[str], stdin: str = "") -> Ran:
    """Waits for a call; two minutes at most."""
    out, err = process.communicate(stdin, timeout=120)
    return Ran(process.returncode, out, err)
