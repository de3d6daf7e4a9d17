"""What this machine has: the Python with its packages, Docker, room on the disk, psql and pg_dump. One check each."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts import checkup, clients, embedded, engine, shell
from scripts.checkup import Verdict
from scripts.dsn import Dsn, clean_env
from scripts.errors import OpsError, some
from scripts.shell import Result, quoted

RunTogether = Callable[..., list[Result]]
INSTALL_DOCKER = f"install Docker, {clients.DOCKER_PAGE}, for what takes --docker"
_LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)(?:[ ]*;[ ]*([^\\\n]+))?", re.MULTILINE)
_SHOWN = 3  # packages that are named; of more, the number
_MIB = 1024 * 1024
_TIGHT, _FULL = 1024 * _MIB, 200 * _MIB  # bytes: a server's data begin with 40 MiB, a scratch server takes as much again
_NO_TLS = "SSL support is not compiled in"
# Asks for TLS where no server is: a psql without TLS refuses before it looks. Nothing is connected to.
_TLS_PROBE = "postgresql:///probe?host=/nonexistent-postgres-serving-split&sslmode=require"


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The psql and the pg_dump on PATH, by their major versions; None: there is none, or it doesn't run."""

    psql: int | None
    pg_dump: int | None
    has_tls: bool = True  # psql
    broken: Mapping[str, str] = field(default_factory=dict)  # those that don't run: what they say instead of their version


def installed(name: str) -> str | None:
    """The version of a package in the Python that runs this."""
    from importlib import metadata  # takes as long as all the rest of this module

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def python(lock: Path, version_of: Callable[[str], str | None] = installed, run: shell.Run = shell.run) -> Verdict:
    """Whether the Python that runs this has what the lock file says. What a marker excepts may be missing."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(lock)]
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        return checkup.problem(f"{lock} can't be read: {error.strerror}", f"git restore {quoted(lock)}")
    wrong = []
    wanted = _LOCKED.findall(text)
    for name, version, marker in wanted:
        have = version_of(name)
        if have != version and (have is not None or not marker):
            wrong.append(f"{name} {have} ({version} is locked)" if have else f"{name} is missing")
    number = ".".join(map(str, sys.version_info[:3]))
    if not wrong:
        return checkup.ok(f"Python {number}, {len(wanted)} packages as {lock.name} locks them")

    by_hand = " ".join(map(quoted, install))

    def mend() -> str:
        result = run(install)
        if result.code != 0:
            raise OpsError(f"pip failed: {result.err.strip()}", by_hand)
        return f"installed what {lock.name} locks"

    said = f"Python {number} is not in step with {lock.name}: {some(wrong, _SHOWN)}"
    return checkup.problem(said, by_hand, mend)


def docker(env: Mapping[str, str], run_together: RunTogether = shell.run_together, *, needed: str = "") -> Verdict:
    """Whether an engine answers the docker command, and where that runs. `needed` is the setting that asks for it."""
    if shell.which("docker", env) is None:
        if needed:
            return checkup.problem(f"{needed} asks for Docker, and no docker command is on PATH", INSTALL_DOCKER)
        return checkup.unset("no docker command on PATH, and nothing set needs it", INSTALL_DOCKER)
    argvs = [
        ["docker", "info", "--format", "{{.ServerVersion}}"],
        ["docker", "context", "inspect", "--format", "{{.Name}}\t{{.Endpoints.docker.Host}}"],
    ]
    info, context = run_together(argvs, env=clean_env(env))
    name, _, endpoint = context.out.strip().partition("\t")
    # An engine that is named in the environment wins over the context, as it does for the docker command.
    endpoint = env.get("DOCKER_HOST") or endpoint
    named = f"DOCKER_HOST {endpoint}" if env.get("DOCKER_HOST") else f"the context {name}" if name else "its context"
    version = info.out.strip()
    if info.code != 0 or not version:
        start = "start Docker; `docker info` says whether it runs, `docker context ls` which engine is meant"
        what = f"no Docker engine answers at {named}"
        return checkup.problem(f"{what}, and {needed} asks for it", start) if needed else checkup.warning(what, start)
    machine = engine.elsewhere(endpoint)
    if machine:
        return checkup.ok(f"engine {version} of {named}, on another machine ({machine}): for psql, and not for `invoke up`")
    return checkup.ok(f"engine {version} of {named}")


def may_write(folder: Path) -> bool:
    """Whether this user can make files in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def disk(
    folder: Path,
    local: Path,
    usage: Callable[[Path], Any] = shutil.disk_usage,
    may_write: Callable[[Path], bool] = may_write,
    *,
    needed: bool = True,
) -> Verdict:
    """Whether there is room for a server's data, and leave to write them.

    `local` is the folder in which `invoke up` keeps them. `needed`: no other server is named, so it is the one to be used.
    """
    try:
        places = [local, *sorted(path for path in local.iterdir() if path.is_dir())]
    except FileNotFoundError:
        places = [folder]
    except OSError:
        places = [local]
    closed = next((place for place in places if not may_write(place)), None)
    if closed is not None:
        own = "let your user write there" if shell.WINDOWS else shell.take_over(closed)
        said = f"you may not write into {closed}, where `invoke up` keeps its server"
        return (checkup.problem if needed else checkup.warning)(said, f"{own}; or use a copy of the project that is yours")
    free = usage(folder).free
    room = f"{free / _MIB / 1024:.1f} GiB free" if free >= _TIGHT else f"{free // _MIB} MiB free"
    way = "make room: invoke down --purge (the servers of `invoke up`), docker system prune (what Docker no longer needs)"
    if free < _FULL:
        return checkup.problem(f"{room} on the disk of {folder}", way)
    return checkup.warning(f"only {room} on the disk of {folder}", way) if free < _TIGHT else checkup.ok(f"{room} for {folder}")


def programs(env: Mapping[str, str], run_together: RunTogether = shell.run_together) -> Programs:
    """What is on PATH, asked side by side."""
    psql, dump = (shell.which(name, env) for name in ("psql", "pg_dump"))
    argvs = [[psql, "--version"], [psql, "--no-psqlrc", "--no-password", "--dbname", _TLS_PROBE]] if psql else []
    argvs += [[dump, "--version"]] if dump else []
    results = run_together(argvs, env=clean_env(env)) if argvs else []
    said = {**({"psql": results[0]} if psql else {}), **({"pg_dump": results[-1]} if dump else {})}
    return Programs(
        psql=_major(results[0]) if psql else None,
        pg_dump=_major(results[-1]) if dump else None,
        has_tls=not (psql and _NO_TLS in results[1].err),
        broken={name: result.err.strip() or f"exit code {result.code}" for name, result in said.items() if result.code != 0},
    )


def psql(dsn: Dsn | None, found: Programs, docker_answers: Callable[[], bool]) -> Verdict:
    """Which psql `--psql auto` comes to, and whether it can reach the database. Docker is asked only where there is no other."""
    if "psql" in found.broken:  # and is taken all the same: Debian has one that asks for a package
        return checkup.problem(f"the psql on PATH doesn't run: {found.broken['psql']}", f"mend it, or {clients.INSTALL_HINT}")
    if found.psql is not None:
        if dsn is not None and dsn.needs_tls and not found.has_tls:
            what = f"the psql on PATH ({found.psql}) has no TLS, and the DSN asks for sslmode={dsn.params['sslmode']}"
            return checkup.problem(what, clients.INSTALL_HINT)
        if dsn is not None and dsn.params.get("sslrootcert") == "system" and found.psql < _SYSTEM_ROOTS:
            what = f"psql {found.psql} doesn't know sslrootcert=system, which {_SYSTEM_ROOTS} and newer do"
            return checkup.problem(what, "install a newer psql, or have sslrootcert name a file of roots")
        return checkup.ok(f"psql {found.psql} on PATH, {'with' if found.has_tls else 'without'} TLS")
    if docker_answers():
        return checkup.ok("none on PATH: Docker's is taken")
    if dsn is None or (dsn.is_local and not dsn.needs_tls):
        return checkup.ok(f"none on PATH: the embedded one is taken ({max(embedded.VERSIONS)}), which has no TLS")
    what = (
        "no psql on PATH, no Docker engine, and the embedded one has no TLS"
        if dsn.needs_tls
        else "no psql on PATH, and no Docker engine"
    )
    return checkup.problem(f"{what}: nothing reaches {dsn.hosts[0]}", clients.INSTALL_HINT)


_SYSTEM_ROOTS = 16  # libpq's version: https://www.postgresql.org/docs/16/release-16.html


def pg_dump(server: int, dsn: Dsn, found: Programs, docker_answers: Callable[[], bool]) -> Verdict:
    """Whether some pg_dump is as new as the server (a major version), which pg_dump itself insists on."""
    also = f"; psql {found.psql} is older, and may not show all of it" if found.psql is not None and found.psql < server else ""
    newer = f"install the client of PostgreSQL {server} or newer (Debian: postgresql-client-{server})"
    if "pg_dump" in found.broken:
        return checkup.problem(f"the pg_dump on PATH doesn't run: {found.broken['pg_dump']}", f"mend it, or {newer}")
    if found.pg_dump is not None and found.pg_dump >= server:
        said = f"pg_dump {found.pg_dump}, for a server {server}"
        return checkup.warning(said + also, newer) if also else checkup.ok(said)
    own = f"pg_dump {found.pg_dump} on PATH is older than the server ({server})" if found.pg_dump else "no pg_dump on PATH"
    if dsn.is_local and not dsn.needs_tls and max(embedded.VERSIONS) >= server:
        said = f"{own}: the embedded one is taken ({max(embedded.VERSIONS)})"
        return checkup.warning(said + also, newer) if also else checkup.ok(said)
    if docker_answers():
        return checkup.ok(f"{own}: that of the image is taken (POSTGRES_IMAGE)")
    return checkup.problem(f"{own}: migrations.dump and migrations.drift can't read it", f"{newer}, or start Docker")


def _major(result: Result) -> int | None:
    match = re.search(r"\(PostgreSQL\)\s+(\d+)", result.out)
    return int(match[1]) if match else None
