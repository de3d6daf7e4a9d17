"""A user's machine for tests of provisioning: `invoke`, the real az led to an emulator, and every process on record."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests import database as databases
from tests.azure.emulator import Emulator
from tests.azure.login import without_azure
from tests.azure.resources import SUBSCRIPTION
from tests.database import ENV

# Writes its arguments and its environment down and becomes the real program.
RECORDER = """#!/bin/sh
{{ printf '%s\\n' {name} "$@"; echo; env; }} >"{log}/{name}.$$"
exec {program} "$@"
"""


@dataclass
class World:
    """One user with one server's name; settings are in `env`."""

    emulator: Emulator
    home: Path
    az_program: str
    server: str
    env: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log, programs = self.home / "log", self.home / "bin"
        self.log.mkdir()
        programs.mkdir()
        for name in ("az", "psql", "docker", "gh"):
            real = self.az_program if name == "az" else shutil.which(name, path=ENV["PATH"])
            if real is not None:
                script = programs / name
                script.write_text(RECORDER.format(name=name, log=self.log, program=real))
                script.chmod(0o755)
        self.secrets_file = self.home / "secrets.env"
        path = f"{programs}{os.pathsep}{ENV['PATH']}"
        self.env = {
            **without_azure(ENV),
            **self.emulator.env(self.home / "az"),
            "PATH": path,
            "TMPDIR": str(self.home / "tmp"),
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "POSTGRES_SERVER_NAME": self.server,
            "POSTGRES_CURRENT_IP": "203.0.113.7",
            **self.env,
        }
        (self.home / "tmp").mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:  # the test failed before it ended
                process.kill()
                process.communicate()

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """`invoke WORDS`, not waited for."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            databases.invoke_argv(*words), env={**self.env, **(env or {})}, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        self.processes.append(process)
        return process

    def invoke(self, *words: str, env: Mapping[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`invoke WORDS`, to its end."""
        argv = databases.invoke_argv(*words)
        return databases.run_invoke(argv, env={**self.env, **(env or {})}, stdin=stdin, timeout=240)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command that a message said to run."""
        return subprocess.run(words, env=self.env, capture_output=True, text=True, check=False, timeout=240)

    def provision(self, *words: str, env: Mapping[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`invoke provision WORDS`; what is made is kept in this test's own file."""
        return self.invoke("provision", "--secrets-file", str(self.secrets_file), *words, env=env, stdin=stdin)

    def made(self, *words: str) -> dict[str, Any]:
        """The document of a run that went well."""
        result = self.provision("--json", *words)
        assert result.returncode == 0, result.stderr
        document = json.loads(result.stdout)
        assert isinstance(document, dict)
        return document

    def calls(self, program: str = "az") -> list[list[str]]:
        """The arguments of every call of a program so far."""
        return [path.read_text().split("\n\n")[0].split("\n") for path in sorted(self.log.glob(f"{program}.*"))]

    def forget_calls(self) -> None:
        for path in self.log.iterdir():
            path.unlink()

    def traces(self) -> dict[str, str]:
        """All that could hold a secret and may not: each process's arguments and environment, and what lies about."""
        found = {path.name: path.read_text() for path in self.log.iterdir()}
        left = [path for folder in (self.home / "tmp", self.home / "az") for path in folder.rglob("*") if path.is_file()]
        return found | {str(path): path.read_bytes().decode("utf-8", "replace") for path in left}


def writes(emulator: Emulator) -> list[str]:
    """What was written, in its order, as `PUT flexibleServers/NAME`."""
    return [f"{method} " + "/".join(re.split(r"/", path)[-2:]) for method, path in emulator.writes()]


def failed(result: Any, code: int, *texts: str) -> None:
    """A failure as users are to see one: its exit code, what happened, the next command, and no traceback."""
    assert result.returncode == code, result.stdout + result.stderr
    for text in texts:
        assert text in result.stderr, result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.02)
