"""Where psql, and pg_dump with it, comes from: PATH, a Docker image, or the embedded wheel. One `Client` each, all with the
same face.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from shutil import copyfile, disk_usage, rmtree
from typing import Protocol, cast

from scripts import PRODUCT, embedded, engine, shell
from scripts import dsn as dsns
from scripts.dsn import Dsn, clean_env, pgpass
from scripts.errors import OpsError, UsageError

ARGUMENTS = ("--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
CONNECT_TIMEOUT = "10"  # seconds, unless the DSN has its own
PREFIX = f"{PRODUCT}-"  # of temporary folders
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  (only private folders are made in it)
_STALE = 3600  # seconds; nobody takes that long to connect
_BLOCK = 4096  # bytes that a small file takes
_WORK = PurePosixPath("/work")  # the container's folder for everything that it is given
_ENGINE_TIMEOUT = 60.0  # seconds for one answer of the Docker engine, an image pull excepted
_ANSWER_TIMEOUT = 20.0  # seconds for the question whether there is one
# As docker and Podman say it, which may be called docker.
_NO_IMAGE = re.compile("(?i)no such image|image not known")
_NO_ENGINE = re.compile("Cannot connect|error during connect|trying to connect|Is the docker daemon running")
_PSQL_HINT = "install psql (Debian: postgresql-client; macOS: brew install libpq; Windows: the PostgreSQL installer)"
DOCKER_PAGE = "https://docs.docker.com/get-started/get-docker/"
INSTALL_HINT = f"{_PSQL_HINT}, or start Docker and use --docker"


AT_TERMINAL = ("--no-password",)  # what somebody's own psql is given; it reads its psqlrc
Started = shell.Process | shell.Attached | shell.Finished
_NO_VARIABLES: Mapping[str, str] = {}
Spawn = Callable[..., Started]


class Mode(Enum):
    """Where psql comes from."""

    AUTO = "auto"
    LOCAL = "local"
    DOCKER = "docker"
    EMBEDDED = "embedded"


Content = bytes | Path  # of a file that psql is to find: what is in it, or which file of this machine it is a copy of


class Client(Protocol):
    """A psql that is about to run, is running, or has run."""

    mode: Mode

    def start(self, dsn: Dsn) -> shell.Process:
        """Starts psql with the DSN; it connects at once."""
        ...

    def attach(self, dsn: Dsn) -> int:
        """Gives the terminal to a psql with the DSN, and returns its exit code when somebody has left it."""
        ...

    def finish(self, dsn: Dsn, arguments: Sequence[str], variables: Mapping[str, str]) -> shell.Result:
        """Runs the program, which need not be psql, with the DSN and more variables in its environment to its end."""
        ...

    def stage(self, files: Mapping[str, Content]) -> str:
        """Names the files that psql will read, by relative path with forward slashes; returns the folder they are in."""
        ...

    def provide(self, paths: Iterable[str]) -> None:
        """Sees to it that these staged files are there; psql is about to read them."""

    def connected(self) -> None:
        """The connection stands, so that the password file is needed no longer."""

    def interrupt(self) -> None:
        """As Ctrl-C at psql: the statement under way is cancelled."""

    def close(self) -> int:
        """Ends psql and removes everything that was made for it; returns its exit code. May be called twice."""


@dataclass
class ProgramClient:
    """A psql of this machine, from PATH or from the wheel."""

    program: str
    env: Mapping[str, str]
    mode: Mode
    spawn: Spawn = shell.Process
    _process: Started | None = None
    _folder: Path | None = None
    _staging: Path | None = None  # psql's working folder for the files of a run
    _staged: dict[str, Content] = field(default_factory=dict)  # those that aren't in it yet
    _code: int | None = None

    def start(self, dsn: Dsn) -> shell.Process:
        return cast("shell.Process", self._start(dsn, ARGUMENTS, self.spawn))

    def attach(self, dsn: Dsn) -> int:
        try:
            self._start(dsn, AT_TERMINAL, shell.Attached)
        finally:
            code = self.close()
        return code

    def finish(self, dsn: Dsn, arguments: Sequence[str], variables: Mapping[str, str]) -> shell.Result:
        try:
            return cast("shell.Finished", self._start(dsn, arguments, shell.Finished, variables=variables)).result
        finally:
            with shell.uninterrupted():
                self.close()

    def _start(self, dsn: Dsn, arguments: Sequence[str], spawn: Spawn, variables: Mapping[str, str] = _NO_VARIABLES) -> Started:
        params = {key: str(Path(dsn.params[key]).resolve()) for key in dsns.FILES if dsn.params.get(key, "system") != "system"}
        argv = [self.program, *arguments, "--dbname", dsn.with_params(**params).without_password()]
        _sweep()
        try:
            with _written():
                self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # entered by its owner alone
                passfile = self._folder / "pgpass"
                shell.write_private(passfile, pgpass(dsn))
            env = {**clean_env(self.env), **psql_env(str(passfile)), **variables}
            self._process = spawn(argv, env=env, cwd=self._folder)
        except BaseException:
            with shell.uninterrupted():
                self.close()
            raise
        return self._process

    def stage(self, files: Mapping[str, Content]) -> str:
        # Copies, so that what was checked is what runs, whatever happens to the folder meanwhile.
        assert self._folder is not None  # since `start`
        size = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files.values())
        before = self._staging or self._folder  # where psql is
        if self._staging is not None and self._staging.parent != self._folder:  # one in the folder goes with it: psql is in it
            rmtree(self._staging, ignore_errors=True)
        in_memory = memory(size + _BLOCK * len(files), self.env)
        with _written():
            self._staging = Path(tempfile.mkdtemp(prefix=PREFIX, dir=in_memory or self._folder))
        self._staged = dict(files)
        if in_memory or self._folder not in (before, before.parent):
            return str(self._staging)
        # On Windows, psql takes the name of a folder for text in the system's code page, and finds none below C:\Users\Jürgen.
        return os.path.relpath(self._staging, before)

    def provide(self, paths: Iterable[str]) -> None:
        # One by one, while psql is busy with earlier ones: writing a thousand files beforehand takes 0.3 s.
        assert self._staging is not None  # since `stage`
        with _written():
            for path in paths:
                content = self._staged.pop(path, None)
                if content is None:  # there already
                    continue
                target = f"{self._staging}/{path}"  # a string: a Path for each of a thousand files costs as much as writing it
                if "/" in path:
                    Path(target).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    copyfile(content, target)
                else:
                    with open(target, "wb", buffering=0) as file:
                        if file.write(content) < len(content):  # without a word, on a disk that is nearly full
                            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def connected(self) -> None:
        if self._folder is not None:
            (self._folder / "pgpass").unlink(missing_ok=True)

    def interrupt(self) -> None:
        if isinstance(self._process, shell.Process):
            self._process.interrupt()

    def close(self) -> int:
        if self._code is None and self._process is not None:
            self._code = self._process.close(timeout=10)
        for folder in (self._staging, self._folder):
            if folder is not None:
                rmtree(folder, ignore_errors=True)
        return self._code or 0


@dataclass
class DockerClient:
    """psql in a container of its own. Files are copied in, so that a remote engine, which mounts nothing, does too."""

    image: str
    env: Mapping[str, str]
    run: shell.Run = shell.run
    mode: Mode = Mode.DOCKER
    platform: str = sys.platform
    spawn: Spawn = shell.Process
    program: str = "psql"
    _container: str = ""
    _process: Started | None = None
    _code: int | None = None

    def start(self, dsn: Dsn) -> shell.Process:
        return cast("shell.Process", self._start(dsn, ARGUMENTS, self.spawn))

    def attach(self, dsn: Dsn) -> int:
        try:
            self._start(dsn, AT_TERMINAL, shell.Attached, *(("--tty", "--env", "PSQL_PAGER=cat") if sys.stdin.isatty() else ()))
        finally:
            code = self.close()
        return code

    def finish(self, dsn: Dsn, arguments: Sequence[str], variables: Mapping[str, str]) -> shell.Result:
        try:
            return cast("shell.Finished", self._start(dsn, arguments, shell.Finished, variables=variables)).result
        finally:
            with shell.uninterrupted():
                self.close()

    def _start(
        self,
        dsn: Dsn,
        arguments: Sequence[str],
        spawn: Spawn,
        *options: str,
        variables: Mapping[str, str] = _NO_VARIABLES,
    ) -> Started:
        dsn, network = self._reachable(dsn)
        files: dict[str, Content] = {".pgpass": pgpass(dsn).encode("utf-8")}
        for key in dsns.FILES:
            if dsn.params.get(key, "system") != "system":
                try:
                    files[f".tls/{key}"] = Path(dsn.params[key]).read_bytes()
                except OSError as error:
                    problem = f"{key} of the DSN can't be read: {dsn.params[key]}: {error.strerror}"
                    raise UsageError(problem, "name a file that you may read, or leave it out of the DSN") from None
                dsn = dsn.with_params(**{key: str(_WORK / ".tls" / key)})
        known = {**psql_env(str(_WORK / ".pgpass")), **variables}
        environment = [word for name, value in known.items() for word in ("--env", f"{name}={value}")]
        try:
            self._create(
                *("--interactive", *options, "--rm", "--label", f"{PRODUCT}=psql", *network, "--user", "0:0"),
                *("--workdir", str(_WORK), *environment, "--entrypoint", self.program),
                *(self.image, *arguments, "--dbname", dsn.without_password()),
            )
            self.stage(files)
            argv = ["docker", "start", "--attach", "--interactive", self._container]
            self._process = spawn(argv, env=clean_env(self.env))
        except BaseException:
            with shell.uninterrupted():
                if self._container and spawn is shell.Attached:
                    self.interrupt()  # with a terminal, docker passes no signal on, and the statement would go on
                    self._call("stop", "-t", "1", self._container)
                self.close()
            raise
        return self._process

    def _create(self, *words: str) -> None:
        """Makes the container. Ctrl-C can end the pull, but doesn't come between the container and our knowing its id."""
        create = ("create", "--pull", "never", *words)
        with shell.uninterrupted():
            result = self._call(*create)
            self._container = result.out.strip()
        if _NO_IMAGE.search(result.err):
            self._docker("pull", "--quiet", self.image, timeout=None)
            with shell.uninterrupted():
                self._container = self._docker(*create).strip()
        elif result.code != 0:
            raise self._refused("create", result)

    def _reachable(self, dsn: Dsn) -> tuple[Dsn, list[str]]:
        """The DSN as the container must have it, and its network: this machine is not the container's localhost."""
        if not dsn.is_local:
            return dsn, []
        if dsn.is_socket:
            raise UsageError("a container can't reach a unix socket", "use --psql local, or a DSN with host and port")
        return engine.look(self._docker, self.env).route(dsn, platform=self.platform, ask=self._docker)

    def reaches(self, dsn: Dsn) -> bool:
        """Whether an engine answers whose containers come to the server."""
        try:
            self._reachable(dsn) if dsn.is_local else self._docker("ps", "--quiet", timeout=_ANSWER_TIMEOUT)
        except OpsError:
            return False
        return True

    def stage(self, files: Mapping[str, Content]) -> str:
        from scripts.archive import tar

        contents = {path: data.read_bytes() if isinstance(data, Path) else data for path, data in files.items()}
        archive = tar({f"{_WORK.name}/{path}": data for path, data in contents.items()})
        self._docker("cp", "-", f"{self._container}:/", stdin=archive)
        return str(_WORK)

    def provide(self, paths: Iterable[str]) -> None:
        """Nothing to do: staging copied all of them at once."""

    def connected(self) -> None:
        """Nothing to do: the password file goes with the container."""

    def interrupt(self) -> None:
        self._call("kill", "--signal", "INT", self._container)

    def close(self) -> int:
        if self._code is None and self._process is not None:
            self._code = self._process.close(timeout=10)
        if self._container:
            self._call("rm", "--force", "--volumes", self._container)
            # A runner that was killed between making its container and starting it left one with a password file in it.
            self._call("container", "prune", "--force", "--filter", f"label={PRODUCT}=psql", "--filter", "until=1h")
            self._container = ""
        return self._code or 0

    def _call(self, *words: str, stdin: bytes = b"", timeout: float | None = _ENGINE_TIMEOUT) -> shell.Result:
        return self.run(["docker", *words], env=clean_env(self.env), stdin=stdin, timeout=timeout)

    def _docker(self, *words: str, stdin: bytes = b"", timeout: float | None = _ENGINE_TIMEOUT) -> str:
        result = self._call(*words, stdin=stdin, timeout=timeout)
        if result.code != 0:
            raise self._refused(words[0], result)
        return result.out

    def _refused(self, word: str, result: shell.Result) -> OpsError:
        no_engine = _NO_ENGINE.search(result.err)
        hint = (
            "is Docker running, and may you use it? `docker info` says"
            if no_engine
            else f"have POSTGRES_IMAGE name an image that is here (`docker images`), instead of {self.image}; or {_PSQL_HINT}"
        )
        return OpsError(f"docker {word} failed: {result.err.strip()}", hint)


@contextlib.contextmanager
def _written() -> Iterator[None]:
    """Turns what keeps psql's files from being written, a full disk say, into an OpsError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OpsError(
            f"the files that psql reads can't be written: {reason}", "make room for them, or have TMPDIR name another folder"
        ) from None


def _sweep() -> None:
    """Deletes the password files of runners that were killed before they were connected, an hour ago or more."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/pgpass"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


def memory(size: int, env: Mapping[str, str]) -> str | None:
    """A folder in memory with room for `size` bytes, where the system has one (Linux) and TMPDIR names no other."""
    # A thousand new files on a disk take 0.3 s, and cost the server too where its fsync shares the disk's journal.
    if shell.WINDOWS or env.get("TMPDIR"):
        return None
    with contextlib.suppress(OSError):
        if os.access(_SHARED_MEMORY, os.W_OK) and disk_usage(_SHARED_MEMORY).free > 2 * size:
            return _SHARED_MEMORY
    return None


def choose(
    mode: Mode,
    dsn: Dsn,
    *,
    image: str,
    env: Mapping[str, str],
    program: str = "psql",
    run: shell.Run = shell.run,
    which: Callable[[str, Mapping[str, str]], str | None] = shell.which,
) -> Client:
    """The client for a mode; `auto` is the first of `available`.

    Raises UsageError when the mode can't work, with the way out.
    """
    if mode is Mode.AUTO:
        mode = next(available(dsn, env, program, run, which))
    embeddable = dsn.is_local and not dsn.needs_tls
    without = f"or leave the flag away: {'the embedded one will do' if embeddable else 'whichever is there is taken'}"
    if mode is Mode.DOCKER:
        if which("docker", env) is None:
            raise UsageError(
                "--docker needs the docker command, which is not on PATH", f"install Docker ({DOCKER_PAGE}), {without}"
            )
        return DockerClient(image, env, run, program=program)
    if mode is Mode.LOCAL:
        path = which(program, env)
        if path is None:
            raise UsageError(f"--psql local needs {program} on PATH", f"{_PSQL_HINT}, {without}")
        return ProgramClient(path, env, Mode.LOCAL)
    if dsn.needs_tls:
        raise UsageError(
            f"the embedded {program} has no TLS, and the DSN asks for sslmode={dsn.params['sslmode']}",
            f"use --psql local or --docker ({INSTALL_HINT})",
        )
    return ProgramClient(str(embedded.program(program, max(embedded.VERSIONS))), env, Mode.EMBEDDED)


def available(
    dsn: Dsn,
    env: Mapping[str, str],
    program: str = "psql",
    run: shell.Run = shell.run,
    which: Callable[[str, Mapping[str, str]], str | None] = shell.which,
) -> Iterator[Mode]:
    """What could work, in the order of `auto`: local, docker, and embedded when the DSN is this machine's.

    Raises UsageError in the place of the first when there is none.
    """
    at_hand = False
    if which(program, env):
        at_hand = True
        yield Mode.LOCAL
    if which("docker", env) and DockerClient("", env, run).reaches(dsn):
        at_hand = True
        yield Mode.DOCKER
    if dsn.is_local and not dsn.needs_tls:
        at_hand = True
        yield Mode.EMBEDDED
    if not at_hand:
        problem = f"no {program} is at hand that could reach this server: none on PATH, and no Docker engine answers"
        raise UsageError(problem, INSTALL_HINT)


def psql_env(passfile: str) -> dict[str, str]:
    """What psql's environment does hold."""
    return {
        "PGPASSFILE": passfile,
        "PGCLIENTENCODING": "UTF8",
        "PGAPPNAME": PRODUCT,
        "PGCONNECT_TIMEOUT": CONNECT_TIMEOUT,
        "LC_MESSAGES": "C",  # psql's own words are parsed
        "PERL_BADLANG": "0",  # Debian's psql is a Perl script, which complains of locales that aren't there
    }
