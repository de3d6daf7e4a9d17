"""Databases for tests: one server a session, one database a test, and psql in each of its three ways."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from filelock import FileLock

from scripts import embedded, settings
from scripts.container import Container, connect
from scripts.dsn import Dsn
from scripts.embedded import Embedded
from scripts.errors import OpsError
from scripts.secret import Secret
from scripts.settings import MIGRATIONS, Sources
from tests import shapes, warm

ROOT = Path(__file__).resolve().parent.parent
# The first server has every psql; each of the others the one that comes with it, so that each version of psql is used.
MODES = [
    pytest.param("local", marks=pytest.mark.once),
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("embedded", marks=pytest.mark.embedded),
]
# The project's own settings and libpq's don't reach a test, nor what says that this is a job of CI, which the commands treat
# otherwise, nor what makes Python compile every module anew, as images of CI often have it; PATH always leads to some psql.
FOREIGN = ("PG", "POSTGRES_", "GITHUB_", "GH_")
UNWANTED = ("CI", "PYTHONDONTWRITEBYTECODE")
ENV = {key: value for key, value in os.environ.items() if key not in UNWANTED and not key.startswith(FOREIGN)}
if shutil.which("psql") is None:
    ENV["PATH"] = f"{embedded.program('psql').parent}{os.pathsep}{ENV['PATH']}"
if "POSTGRES_IMAGE" in os.environ:
    ENV["POSTGRES_IMAGE"] = os.environ["POSTGRES_IMAGE"]
USERS_ENV = dict(ENV)
IMAGE = settings.image(Sources(ENV, {}, ".env"))


def call_psql_itself() -> None:
    """Leads PATH to the psql that Debian's would start: that is a Perl script, which takes longer than most sessions do."""
    psql = shutil.which("psql", path=ENV["PATH"])
    if psql is None or Path(psql).resolve().name != "pg_wrapper":
        return
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/psql"), key=lambda path: float(path.parts[-3]))
    if versions:  # without a server of Debian's, it starts the newest
        ENV["PATH"] = f"{versions[-1].parent}{os.pathsep}{ENV['PATH']}"


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
    superuser: Dsn | None = None  # the same database, for what its administrator may not do

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
        return self._dump("--schema-only", "--no-owner")

    def _dump(self, *flags: str) -> str:
        major = int(self.execute("SHOW server_version_num")[0][0]) // 10000
        version = min(version for version in embedded.VERSIONS if version >= major)
        argv = [str(embedded.program("pg_dump", version)), *flags, "--dbname", (self.superuser or self.dsn).uri().reveal()]
        result = subprocess.run(argv, env=ENV, capture_output=True, text=True, check=True)
        # A server 17.12 numbers its columns' versions, which an older pg_dump takes for an option that somebody set.
        differing = re.compile(r"\\(un)?restrict |ALTER TABLE .* SET \(pg_attver=\d+\);")
        return "\n".join(line for line in result.stdout.splitlines() if not differing.match(line))

    def whole_dump(self) -> str:
        """All that pg_dump knows of the database, its rows too."""
        return self._dump()

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
    return run_invoke(invoke_argv(*words), env={**ENV, **(env or {})}, stdin=stdin, cwd=cwd)


def run_invoke(
    argv: Sequence[str], *, env: Mapping[str, str], stdin: str, cwd: Path = ROOT, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Warm, unless it has to begin in another way than this process's other commands. Its output is as docs/schemas says."""
    if warm.POSSIBLE and warm.at_start(env) == warm.at_start(ENV):
        result = _warm().run(argv, env=env, stdin=stdin, cwd=cwd, timeout=timeout)
    else:
        result = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False)
    shapes.check(argv, result.returncode, result.stdout, result.stderr)
    return result


@functools.cache
def _warm() -> warm.Warm:
    return warm.Warm(ENV)


def invoke_argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "invoke", "--search-root", str(ROOT), *words]


def small_files() -> None:
    """In the process that is about to be: no file gets larger than this, as on a disk that is full."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


@dataclass
class Machine:
    """A copy of the project, so that its `.local/` is its own. Nothing is warm in it: what is imported is the copy.

    Its programs are those that a user of this machine would have.
    """

    project: Path

    def __enter__(self) -> Self:
        shutil.copy(ROOT / "tasks.py", self.project)
        for name in ("scripts", "migrations"):
            shutil.copytree(ROOT / name, self.project / name)
        return self

    def __exit__(self, *_: object) -> None:
        self.invoke("down", "--purge", "--yes")
        shutil.rmtree(self.project, ignore_errors=True)

    def invoke(self, *words: str, env: Mapping[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`invoke WORDS` there."""
        argv = [sys.executable, "-m", "invoke", "--search-root", str(self.project), *words]
        whole = {**USERS_ENV, **(env or {})}
        result = subprocess.run(argv, env=whole, input=stdin, capture_output=True, text=True, cwd=self.project, check=False)
        shapes.check(argv, result.returncode, result.stdout, result.stderr)
        return result


def start_server(name: str, home: Path) -> Embedded | Container:
    """The server that --server names, started; its data stand in `home`."""
    if name == "docker":
        require_docker()
        server: Embedded | Container = Container(home / "docker", IMAGE, ENV)
    else:
        server = Embedded(home / name, int(name.removeprefix("embedded-")), ENV)
    server.start()
    return server


def shared_server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    prepare: Callable[[Dsn], None],
    label: str = "",
) -> Iterator[Dsn]:
    """One server for all workers of a run: the first starts and prepares it, the last stops it. `label` tells two apart."""
    name = str(request.config.getoption("--server"))
    parallel = hasattr(request.config, "workerinput")
    run = tmp_path_factory.getbasetemp().parent if parallel else tmp_path_factory.getbasetemp()
    # Not below pytest's own folder: every pytest that starts closes that to other accounts, and root's server runs as one.
    home = Path(tempfile.gettempdir()) / f"serving-{hashlib.sha256(os.fsencode(run)).hexdigest()[:12]}{label}"
    home.mkdir(exist_ok=True)
    users = run / f"users{label}"
    with FileLock(run / f"server{label}.lock"):
        server = start_server(name, home)
        if not users.exists():
            without_fsync(server.dsn())
            prepare(server.dsn())
        users.write_text(str(int(users.read_text()) + 1 if users.exists() else 1))
    yield server.dsn()
    with FileLock(run / f"server{label}.lock"):
        left = int(users.read_text()) - 1
        users.write_text(str(left))
        if left == 0:
            server.stop()
            server.purge()
            shutil.rmtree(home)
            users.unlink()  # a worker that comes later makes, and prepares, a new one


def without_fsync(server: Dsn) -> None:
    """The server itself is never killed, and its data are deleted: what each dropped database waits for is no use to a test."""
    with psycopg.connect(server.uri().reveal(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET fsync = off")
        admin.execute("SELECT pg_reload_conf()")


def of_a_superuser(server: Dsn) -> None:
    """A server as its superuser has it, with a migrated database to copy."""
    closed_to_public(server)
    keep_a_migrated_database(server, azure=False)


def closed_to_public(server: Dsn) -> None:
    """No database of the server lets everybody in: what one test's role can reach is no matter of the other tests."""
    with psycopg.connect(server.with_params(dbname="postgres").uri().reveal(), autocommit=True) as admin:
        for name in ("postgres", "template1", server.database):
            admin.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC".encode())


# Where the rights of the administrator make no difference, the one with fewer has to do.
as_azure = pytest.mark.parametrize("serving", ["azure"], indirect=True)
ADMIN_PASSWORD = "of the administrator: 1%"


def like_azure(server: Dsn) -> None:
    """An administrator as Azure makes one: no superuser, CREATEROLE, and owner of the databases through a group."""
    with_azure_group(server)
    with psycopg.connect(server.with_params(dbname="postgres").uri().reveal(), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE azadmin LOGIN CREATEROLE CREATEDB PASSWORD '{ADMIN_PASSWORD}'".encode())
        admin.execute("GRANT azure_pg_admin TO azadmin")
    keep_a_migrated_database(server, azure=True)


def with_azure_group(server: Dsn) -> None:
    """The group of Azure's administrators, which owns the databases; they have none of its members yet."""
    closed_to_public(server)
    with psycopg.connect(server.with_params(dbname="postgres").uri().reveal(), autocommit=True) as admin:
        admin.execute("CREATE ROLE azure_pg_admin")
        for name in ("postgres", "template1"):
            admin.execute(f"ALTER DATABASE {name} OWNER TO azure_pg_admin".encode())
    with psycopg.connect(server.with_params(dbname="template1").uri().reveal(), autocommit=True) as admin:
        # On Azure, the schema public is this group's on every version: https://github.com/frappe/frappe/issues/39145
        admin.execute("ALTER SCHEMA public OWNER TO azure_pg_admin")


def make_database(
    admin: psycopg.Connection[Any], server: Dsn, name: str, *, azure: bool, template: str = "template1"
) -> Database:
    """A database into which nobody gets before it is closed to PUBLIC."""
    admin.execute(f"CREATE DATABASE {name} ALLOW_CONNECTIONS false TEMPLATE {template}".encode())
    admin.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC".encode())
    if azure:
        admin.execute(f"ALTER DATABASE {name} OWNER TO azure_pg_admin".encode())
    admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    dsn = server.with_params(dbname=name)
    return Database(replace(dsn.with_params(user="azadmin"), password=Secret(ADMIN_PASSWORD)) if azure else dsn, superuser=dsn)


MIGRATED = "migrated"  # the database that a test's own is a copy of, where it begins with a migrated one


def keep_a_migrated_database(server: Dsn, *, azure: bool) -> None:
    """Migrates once what the tests get copies of: a copy takes a tenth of the time."""
    with psycopg.connect(server.with_params(dbname="postgres").uri().reveal(), autocommit=True) as admin:
        result = invoke("migrate", "--dsn", "-", stdin=make_database(admin, server, MIGRATED, azure=azure).uri)
        assert result.returncode == 0, result.stderr
        admin.execute(f"ALTER DATABASE {MIGRATED} ALLOW_CONNECTIONS false".encode())  # nobody in it may hold a copy up


def new_database(server: Dsn, *, azure: bool = False, migrated: bool = False) -> Iterator[Database]:
    """A fresh database, dropped afterwards with every connection to it; `azure`: as Azure's kind of administrator sees it."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.with_params(dbname="postgres").uri().reveal(), autocommit=True) as admin:
        database = make_database(admin, server, name, azure=azure, template=MIGRATED if migrated else "template1")
        try:
            if migrated:  # a copy has all but the privileges on the database itself, which this file grants
                database.execute((MIGRATIONS / "0003_roles_and_grants.sql").read_text(encoding="utf-8"))
            yield database
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            for role in database.made_roles:
                admin.execute(f'DROP ROLE IF EXISTS "{role}"'.encode())
