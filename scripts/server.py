"""The Postgres of this machine: one at a time, embedded or in Docker, remembered under `.local/`.

`up` and `down` hold a lock, so that twenty of them at once make one server.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import dsn as dsns
from scripts import settings, shell
from scripts.console import Console
from scripts.container import Container
from scripts.dsn import Dsn
from scripts.embedded import VERSIONS, Embedded, program
from scripts.errors import OpsError, UsageError
from scripts.settings import Sources

Say = Callable[[str], None]
_LOCK_TIMEOUT = 180.0  # seconds; a first start with an image pull may take that long


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which server: kept in `.local/server.json` and holding no secret."""

    kind: str  # "embedded" or "docker"
    version: int
    image: str = ""

    def __str__(self) -> str:
        return f"PostgreSQL {self.version}, embedded" if self.kind == "embedded" else f"Docker, {self.image}"

    def facts(self) -> dict[str, Any]:
        """It for a JSON document."""
        version = None if self.kind == "docker" else self.version  # the image says it
        return {"kind": self.kind, "version": version, "image": self.image or None}


@dataclass(frozen=True, kw_only=True)
class Up:
    """A server that runs."""

    choice: Choice
    dsn: Dsn
    started: bool  # by this call
    socket: str  # the DSN by unix socket, where there is one
    password_file: str  # the owner-only file that holds the password
    app_file: str  # the owner-only dotenv file for the application's DSN; made by `invoke roles`

    def facts(self) -> dict[str, Any]:
        """It for a JSON document."""
        return {**vars(self), "choice": self.choice.facts(), "dsn": str(self.dsn), "socket": self.socket or None}


@dataclass(frozen=True, kw_only=True)
class Down:
    """What `down` has come to."""

    choice: Choice | None  # the server that was up last
    stopped: bool  # whether it ran
    purged: tuple[Choice, ...] = ()  # those whose data were deleted

    def facts(self) -> dict[str, Any]:
        """It for a JSON document."""
        choice = self.choice.facts() if self.choice else None
        return {"choice": choice, "stopped": self.stopped, "purged": [str(one) for one in self.purged]}


def up(
    found: Sources,
    *,
    docker: bool = False,
    version: int | None = None,
    home: Path = settings.LOCAL,
    say: Say = lambda text: None,
    command: str = "up",
) -> Up:
    """Makes the server run: the one asked for, else the one that was up last, else embedded PostgreSQL 16.

    `command` is the one that was given, for what is to be run next.
    Raises UsageError when another one is up, OpsError when it can't be started.
    """
    with _lock(home):
        before = _remembered(home)
        choice = _wanted(found, docker, version, before)
        if before is not None and before != choice and _server(before, found, home, say).running():
            if choice.kind == "docker":
                Container(_home(choice, home), choice.image, found.env, say).engine()  # without one, `down` would be for nothing
            raise UsageError(f"another server is up here: {before}", f"invoke down, then: {_again(command, docker, version)}")
        server = _server(choice, found, home, say)
        _remember(choice, home)  # before it is started, so that `down` finds it if this is interrupted
        try:
            started = server.start()
        except OpsError:
            _remember(before, home)  # what can't be started is not what plain `up` means from now on
            raise
        running = _up(choice, server, started)
        if started:
            _lead_app_to(running)
        return running


def _again(command: str, docker: bool, version: int | None) -> str:
    flags = [*(["--docker"] if docker else []), *([] if version is None else [f"--postgres-version {version}"])]
    return " ".join([f"invoke {command}", *flags])


def local(found: Sources, *, home: Path = settings.LOCAL, say: Say = lambda text: None) -> Up:
    """The server of `up`, started when it isn't running."""
    choice = _remembered(home)
    if choice is not None and choice.kind == "embedded":  # the usual case, without waiting for the lock
        server = _server(choice, found, home, say)
        with _usable(home):
            if server.running():
                return _up(choice, server, False)
    running = up(found, home=home, say=say)
    if running.started:  # also when what it was started for goes wrong
        say(f"started {running.choice}; invoke down stops it")
    return running


def standing(found: Sources, *, home: Path = settings.LOCAL) -> Up | None:
    """The server of `up` when it runs; it isn't started."""
    choice = _remembered(home)
    if choice is None:
        return None
    server = _server(choice, found, home, lambda text: None)
    with _usable(home):
        return _up(choice, server, False) if server.running() else None


def down(found: Sources, *, purge: bool = False, home: Path = settings.LOCAL, say: Say = lambda text: None) -> Down:
    """Stops the server; with `purge`, deletes the data of all that were ever up here."""
    with _lock(home):
        choice = _remembered(home)
        stopped = _server(choice, found, home, say).stop() if choice else False
        say(f"{choice or 'no server'}: {'stopped' if stopped else 'was not running'}")
        purged = _kept(home) if purge else []
        for kept in purged:
            server = _server(kept, found, home, say)
            try:
                server.stop()
                server.purge()
            except OpsError as error:
                raise OpsError(
                    f"the data of {kept} are still there: {error.message}", "once that is mended: invoke down --purge"
                ) from None
            say(f"deleted the data of {kept}")
        if purge:
            (home / "server.json").unlink(missing_ok=True)
        return Down(choice=choice, stopped=stopped, purged=tuple(purged))


def describe(home: Path = settings.LOCAL) -> str:
    """The servers whose data `down --purge` would delete, for the question before it. Raises OpsError."""
    with _usable(home):
        return " and ".join(f"{choice} ({_home(choice, home)})" for choice in _kept(home))


def _kept(home: Path) -> list[Choice]:
    """Every server that has data here, whichever of them was up last."""
    embedded = [Choice(kind="embedded", version=version) for version in VERSIONS]
    remembered = _remembered(home)
    docker = (
        remembered
        if remembered and remembered.kind == "docker"
        else Choice(kind="docker", version=0, image="a container's volume")
    )
    return [choice for choice in (*embedded, docker) if (_home(choice, home)).is_dir()]


def _wanted(found: Sources, docker: bool, version: int | None, before: Choice | None) -> Choice:
    named = found.get("POSTGRES_IMAGE")
    if not docker and version is None and before is not None:
        return before
    if docker:
        if named and version is not None:
            raise UsageError(
                f"--postgres-version {version} and {named.origin} both say which PostgreSQL", "leave one of them away"
            )
        number = version or settings.DEFAULT_VERSION
        return Choice(kind="docker", version=number, image=settings.image(found, number))
    number = version or settings.DEFAULT_VERSION
    program("postgres", number)  # raises for a version that there isn't, before it is remembered
    return Choice(kind="embedded", version=number)


def _server(choice: Choice, found: Sources, home: Path, say: Say) -> Embedded | Container:
    if choice.kind == "docker":
        return Container(_home(choice, home), choice.image, found.env, say)
    return Embedded(_home(choice, home), choice.version, found.env, say)


def _home(choice: Choice, home: Path) -> Path:
    return home / ("docker" if choice.kind == "docker" else f"embedded-{choice.version}")


def _up(choice: Choice, server: Embedded | Container, started: bool) -> Up:
    by_socket = ""
    if isinstance(server, Embedded) and server.socket_folder is not None:
        by_socket = str(server.dsn(by_socket=True))
    return Up(
        choice=choice,
        dsn=server.dsn(),
        started=started,
        socket=by_socket,
        password_file=str(server.password_file),
        app_file=str(server.home / "app.env"),
    )


def _lead_app_to(running: Up) -> None:
    """The application's DSN follows the server to the port that it has now; its password stays."""
    path = Path(running.app_file)
    kept = settings.kept(settings.APP_DSN, path)
    if kept is None:
        return
    before = dsns.parse(kept.text, kept.origin)
    now = before.with_params(host=running.dsn.params["host"], port=running.dsn.params["port"])
    if now != before:
        shell.write_private(path, path.read_text(encoding="utf-8").replace(kept.text, now.uri().reveal()))


def _remember(choice: Choice | None, home: Path) -> None:
    path = home / "server.json"
    if choice is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(json.dumps(vars(choice)) + "\n", encoding="utf-8")


def _remembered(home: Path) -> Choice | None:
    try:
        return Choice(**json.loads((home / "server.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    with _usable(home):
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / "server.lock", timeout=_LOCK_TIMEOUT):
                yield
        except Timeout:  # an OSError, too
            raise OpsError(
                f"another `invoke up` or `invoke down` has been at work for {_LOCK_TIMEOUT:g} s", "wait, or end it"
            ) from None


@contextlib.contextmanager
def _usable(home: Path) -> Iterator[None]:
    """Says of a folder that belongs to somebody else, or is full, what mends it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = shell.let_in(home)
        elif error.errno == errno.ENOSPC:
            hint = "make room on that disk"
        else:
            hint = "make it a folder that you may write, or run this in a copy of the project"
        where = f": {error.filename}" if error.filename else ""
        raise OpsError(f"{home} can't be used: {error.strerror}{where}", hint) from None


def show(running: Up, console: Console) -> None:
    """Prints a running server: where it is, and which file holds its password."""
    console.say(f"{running.choice}: {'started' if running.started else 'running already'}")
    rows = [
        ["dsn", str(running.dsn)],
        *([["by socket", running.socket]] if running.socket else []),
        ["password", running.password_file],
    ]
    console.table(rows)
    console.document(running.facts())
