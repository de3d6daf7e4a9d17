"""Throwaway servers out of the wheel, for comparisons and proofs: private, quick to make, and gone afterwards.

initdb runs once a command and version; each server is a copy of what it made. All of them stand in one folder, which is
locked as long as the command lives: the lock of one that was killed is free, and the next command clears up after it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts import PRODUCT, clients, settings, shell
from scripts.dsn import Dsn
from scripts.embedded import Embedded
from scripts.errors import OpsError

PREFIX = f"{PRODUCT}-scratch-"  # of the folders, in the temp folder
_ROOM = 1 << 30  # bytes that a folder in memory has to have for them: one takes 50 MB, and a few run at once
# Nothing of them has to survive a crash of the machine, and nothing runs in them that wasn't asked for.
_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


@dataclass(frozen=True)
class Server:
    """A server of one's own, running until it is stopped, with an empty database and a superuser."""

    embedded: Embedded
    servers: Servers

    @property
    def version(self) -> int:
        """Its major version."""
        return self.embedded.version

    @property
    def dsn(self) -> Dsn:
        """The superuser's DSN. The port is another one after each start."""
        return self.embedded.dsn()

    def start(self) -> None:
        """Starts it again."""
        with shell.uninterrupted():
            self.embedded.start(is_copy=True)

    def stop(self) -> None:
        """Stops it; its data stay for a copy, or for another start."""
        with shell.uninterrupted():
            self.embedded.stop()

    @contextlib.contextmanager
    def copy(self) -> Iterator[Server]:
        """Another server with what this one holds now. One that runs is stopped for it, without its sessions' leave."""
        with shell.uninterrupted():
            ran = self.embedded.stop()
        with self.servers._copy(self.embedded, restart=ran) as other:
            yield other


class Servers:
    """The servers of one command; may be used by several threads at once."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._originals: dict[int, Embedded] = {}  # by version: what initdb made, with an empty database; not running
        self._originals_lock = threading.Lock()
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def server(self, version: int = settings.DEFAULT_VERSION) -> Iterator[Server]:
        """A running server, gone afterwards however the block ends. Raises OpsError, UsageError for another version."""
        with self._copy(self._original(version)) as server:
            yield server

    def _original(self, version: int) -> Embedded:
        with self._originals_lock:
            if version not in self._originals:
                original = Embedded(self._folder / f"original-{version}", version, self._env, conf=_SETTINGS)
                with shell.uninterrupted():  # a server that Ctrl-C came upon while it starts might be missed, and left
                    original.start()
                    original.stop()
                self._originals[version] = original
            return self._originals[version]

    @contextlib.contextmanager
    def _copy(self, original: Embedded, *, restart: bool = False) -> Iterator[Server]:
        home = self._folder / str(next(self._numbers))
        server = Server(Embedded(home, original.version, self._env, conf=_SETTINGS), self)
        try:
            with shell.uninterrupted():
                try:
                    original.copy(home)
                except OSError as error:  # a full disk, say
                    raise OpsError(
                        f"a scratch server can't be made in {self._folder}: {error.strerror or error}",
                        "make room there, or have TMPDIR name another folder",
                    ) from None
                finally:
                    if restart:
                        original.start(is_copy=True)
                server.embedded.start(is_copy=True)
            yield server
        finally:
            with shell.uninterrupted():
                _end(server.embedded)

    def close(self) -> None:
        """Ends whatever is left of them."""
        for home in self._folder.iterdir():
            _end(_found(home, self._env))


@contextlib.contextmanager
def servers(env: Mapping[str, str]) -> Iterator[Servers]:
    """Servers for the length of a command, in a folder of their own that is gone with them, and with what it was killed over."""
    from filelock import FileLock

    _sweep(env)
    # A server is a thousand files: on a disk, they take ten times as long as all the rest of making it.
    place = clients.memory(_ROOM, env) or tempfile.gettempdir()
    folder = Path(place).resolve() / f"{PREFIX}{secrets.token_hex(6)}"
    lock = FileLock(_lock_file(folder))
    lock.acquire()  # before the folder is there, so that nobody ever finds it unlocked
    try:
        folder.mkdir(mode=0o700)
        made = Servers(folder, env)
        try:
            yield made
        finally:
            with shell.uninterrupted():
                made.close()
    finally:
        with shell.uninterrupted():
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            _lock_file(folder).unlink(missing_ok=True)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _end(server: Embedded) -> None:
    """Stops a server that is ours, and deletes it."""
    if server.data.is_dir():
        with contextlib.suppress(OpsError):  # its data are half gone already, say; a server without data ends by itself
            server.stop(mode="immediate")
    server.purge()


def _sweep(env: Mapping[str, str]) -> None:
    """Clears up after commands that were killed: their folders, and the servers in them that still run."""
    from filelock import FileLock, Timeout

    places = {Path(place).resolve() for place in (tempfile.gettempdir(), clients.memory(0, env)) if place}
    for folder in (folder for place in places for folder in place.glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError, OpsError):  # gone meanwhile; what can't be deleted is left to the next command
            if folder.suffix == ".lock" or folder.is_symlink() or not _is_mine(folder):
                continue
            lock = FileLock(_lock_file(folder), timeout=0)
            try:
                lock.acquire()
            except Timeout:  # its command is at work
                continue
            try:
                for home in folder.iterdir():
                    left = _found(home, env)
                    if _answers(left):
                        _end(left)
                # A server that didn't answer, and isn't dead, ends by itself: it looks for its files every minute.
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                lock.release()
            if not folder.exists():
                _lock_file(folder).unlink(missing_ok=True)


def _is_mine(folder: Path) -> bool:
    return shell.WINDOWS or folder.stat().st_uid == os.geteuid()


def _found(home: Path, env: Mapping[str, str]) -> Embedded:
    """The server in a folder; what has no data yet is of any version."""
    try:
        version = int((home / "data" / "PG_VERSION").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        version = settings.DEFAULT_VERSION
    return Embedded(home, version, env)


def _answers(server: Embedded) -> bool:
    """Whether the very server of these data runs: the PID in its file may be another program's by now."""
    import psycopg

    try:
        with psycopg.connect(server.dsn().uri().reveal(), connect_timeout=2) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
            return row is not None and Path(row[0]).samefile(server.data)
    except (psycopg.Error, OSError, ValueError):
        return False
