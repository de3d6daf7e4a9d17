"""Databases for tests: one server a session, one database a test, and psql in each of its three ways."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from filelock import FileLock

from scripts import embedded, settings
from scripts.container import Container, connect
from scripts.dsn import Dsn
from scripts.embedded import Embedded
from scripts.errors import OpsError
from scripts.settings import Sources

ROOT = Path(__file__).resolve().parent.parent
MODES = ["local", "docker", "embedded"]
# The project's own settings and libpq's don't reach a test; PATH always leads to some psql.
ENV = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "POSTGRES_"))}
if shutil.which("psql") is None:
    ENV["PATH"] = f"{embedded.program('psql').parent}{os.pathsep}{ENV['PATH']}"
if "POSTGRES_IMAGE" in os.environ:
    ENV["POSTGRES_IMAGE"] = os.environ["POSTGRES_IMAGE"]
IMAGE = settings.image(Sources(ENV, {}, ".env"))


def require_docker() -> None:
    """Skips the test, or fails it under REQUIRE_DOCKER=1, when no engine answers."""
    try:
        connect(ENV)
    except OpsError as error:
        if os.environ.get("REQUIRE_DOCKER") == "1":
            pytest.fail(f"REQUIRE_DOCKER=1, and {error.message}")
        pytest.skip(f"needs Docker: {error.message}")


@dataclass
class Database:
    """A database of the test's own."""

    dsn: Dsn
    made_roles: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return self.dsn.uri().reveal()

    def execute(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs one statement by itself and returns its rows."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def ledger(self) -> dict[str, str]:
        """version -> state; empty when there is no ledger."""
        if not self.execute("SELECT to_regclass('public.schema_migrations')")[0][0]:
            return {}
        return dict(self.execute("SELECT version, state FROM public.schema_migrations ORDER BY version"))

    def dump(self) -> str:
        """The schema as pg_dump has it, without the lines that differ from run to run."""
        major = int(self.execute("SHOW server_version_num")[0][0]) // 10000
        version = min(version for version in embedded.VERSIONS if version >= major)
        argv = [str(embedded.program("pg_dump", version)), "--schema-only", "--no-owner", "--dbname", self.uri]
        result = subprocess.run(argv, env=ENV, capture_output=True, text=True, check=True)
        return "\n".join(line for line in result.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))

    def psql(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Bare psql, as a user would run it, stopping at the first error."""
        program = shutil.which("psql", path=ENV["PATH"])
        assert program is not None
        argv = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", *words, self.uri]
        return subprocess.run(argv, env=ENV, capture_output=True, text=True, input=text, check=False)


def invoke(
    *words: str, env: Mapping[str, str] | None = None, stdin: str = "", cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """`invoke WORDS` as a user would run it, with its output as text."""
    return subprocess.run(
        invoke_argv(*words), env={**ENV, **(env or {})}, input=stdin, capture_output=True, text=True, cwd=cwd, check=False
    )


def invoke_argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "invoke", "--search-root", str(ROOT), *words]


def start_server(name: str, home: Path) -> Embedded | Container:
    """The server that --server names, started; its data stand in `home`."""
    if name == "docker":
        require_docker()
        server: Embedded | Container = Container(home / "docker", IMAGE, ENV)
    else:
        server = Embedded(home / name, int(name.removeprefix("embedded-")), ENV)
    server.start()
    return server


def shared_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dsn]:
    """One server for all workers of a run: the first starts it, the last stops it."""
    name = str(request.config.getoption("--server"))
    parallel = hasattr(request.config, "workerinput")
    run = tmp_path_factory.getbasetemp().parent if parallel else tmp_path_factory.getbasetemp()
    # Not below pytest's own folder: every pytest that starts closes that to other accounts, and root's server runs as one.
    home = Path(tempfile.gettempdir()) / f"serving-{hashlib.sha256(os.fsencode(run)).hexdigest()[:12]}"
    home.mkdir(exist_ok=True)
    users = run / "users"
    with FileLock(run / "server.lock"):
        server = start_server(name, home)
        users.write_text(str(int(users.read_text()) + 1 if users.exists() else 1))
    yield server.dsn()
    with FileLock(run / "server.lock"):
        left = int(users.read_text()) - 1
        users.write_text(str(left))
        if left == 0:
            server.stop()
            server.purge()
            shutil.rmtree(home)


def new_database(server: Dsn) -> Iterator[Database]:
    """A fresh database, dropped afterwards with every connection to it."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.with_params(dbname="postgres").uri().reveal(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        database = Database(server.with_params(dbname=name))
        try:
            yield database
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            for role in database.made_roles:
                admin.execute(f'DROP ROLE IF EXISTS "{role}"'.encode())
