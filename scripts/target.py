"""Which database, and by which psql: what every command that talks to a server begins with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from scripts import clients, logins, pooler, server, settings
from scripts.clients import Mode
from scripts.console import Console
from scripts.dsn import SHAPE, Dsn
from scripts.errors import OpsError, UsageError
from scripts.psql import Message, PsqlError, Session
from scripts.settings import Sources
from scripts.shell import quoted

_RETRY_EVERY = 0.5  # seconds, while waiting for a server to come up
Answer = TypeVar("Answer")


class Unreachable(OpsError):
    """No connection came about; `refused`: a server answered and didn't let us in; `may_pass`: it may just not be there yet."""

    def __init__(self, message: str, hint: str, *, refused: bool, may_pass: bool = False) -> None:
        super().__init__(message, hint)
        self.refused = refused
        self.may_pass = may_pass


@dataclass(frozen=True, kw_only=True)
class Target:
    """A database and the psql that talks to it."""

    dsn: Dsn
    origin: str  # where the DSN came from
    mode: Mode
    image: str
    env: Mapping[str, str]
    flags: str  # the flags that lead here again, for the next command in a message; none holds a secret
    found: Sources
    app_file: Path | None = None  # where the application's DSN of a server of this machine is kept

    def command(self, words: str, folder: Path = settings.MIGRATIONS) -> str:
        """A command for the same database, and for the same migrations folder."""
        return " ".join(filter(None, [f"invoke {words}", self.flags, *settings.folder_flag(folder)]))

    def as_role(self, dsn: Dsn, origin: str) -> Target:
        """The same server by the same psql, with another DSN."""
        return replace(self, dsn=dsn, origin=origin)

    def app(self) -> tuple[Dsn, str] | None:
        """The application's DSN and where it came from, where one is at hand. Raises UsageError when it can't be meant."""
        if self.app_file is None:
            return settings.app_dsn(self.found)
        return settings.app_dsn(settings.sources(str(self.app_file), env={})) if self.app_file.exists() else None

    def as_app(self, names: Sequence[str], console: Console) -> Target:
        """The same server as the application sees it, whose login roles have these names.

        Raises UsageError when its DSN isn't at hand, or is somebody else's.
        """
        found = self.app()
        if found is None:
            raise _no_app(self.app_file, self.flags, self.found)
        console.conceal(*found[0].secrets)
        check_app(*found, names)
        return self.as_role(*found)

    def without_rights(self, hint: str, again: str) -> str:
        """What to do when the user lacks rights: the `hint`, but never to give the application an administrator's."""
        names: tuple[str, ...] = ()
        with contextlib.suppress(UsageError):  # a name that no login role may have
            names = logins.wanted(settings.app_user(None, self.found), None, {}).names
        if not self.origin.startswith(settings.APP_DSN) and self.dsn.params.get("user") not in names:
            return hint
        return f"{self.origin} is the application's DSN: put an administrator's into {settings.ADMIN_DSN}, then: {again}"

    def attach(self) -> int:
        """Gives the terminal to a psql; returns its exit code."""
        return clients.choose(self.mode, self.dsn, image=self.image, env=self.env).attach(self.dsn)

    @property
    def has_tls(self) -> bool:
        """Whether the psql that this leads to can speak TLS: the embedded one can't."""
        return clients.choose(self.mode, self.dsn, image=self.image, env=self.env).mode is not Mode.EMBEDDED

    def ask(
        self,
        work: Callable[[Session], Answer],
        *,
        wait: float = 0.0,
        on_message: Callable[[Message], None] = lambda message: None,
        on_output: Callable[[str], None] = lambda line: None,
    ) -> Answer:
        """Connects one psql and does the work with it; within `wait` seconds, a server that isn't there yet is retried.

        Raises OpsError when the server can't be reached. PsqlError is what the work itself ran into.
        """
        deadline = time.monotonic() + wait
        while True:
            try:
                client = clients.choose(self.mode, self.dsn, image=self.image, env=self.env)
                with Session(client, self.dsn, on_message=on_message, on_output=on_output) as session:
                    return work(session)
            except PsqlError as error:
                if error.connected:
                    error.hint = self._hint(error.message) or f"the DSN came from {self.origin}"
                    raise
                if not error.may_pass or time.monotonic() > deadline:
                    raise self._unreachable(error, wait) from None
            time.sleep(_RETRY_EVERY)

    def refuse_pooler(self, session: Session, again: str) -> None:
        """Raises OpsError when this leads through a pooler in which no lock holds; `again` is the command to repeat."""
        pooler.refuse(session, dsn=self.dsn, origin=self.origin, ask=self.ask, again=again)

    def _hint(self, text: str) -> str | None:
        hint = pooler.hint(text)
        return hint and f"{hint}; it came from {self.origin}"

    def _unreachable(self, error: PsqlError, wait: float) -> Unreachable:
        # Without the line that names our own password file, which is gone.
        text = "\n".join(line for line in error.message.splitlines() if "password retrieved from file" not in line)
        if "no password supplied" in text:
            way = f"put it into {self.origin}, percent-encoded; the shape: {SHAPE}"
            return Unreachable(f"{self.dsn} holds no password, and the server asks for one", way, refused=True)
        if not error.may_pass and "FATAL" in text:
            hint = self._hint(text) or f"check the DSN; it came from {self.origin}"
            return Unreachable(f"{self.dsn} refuses the connection:\n{text}", hint, refused=True)
        waited = f" (waited {wait:g} s)" if wait else ""
        if "could not translate host name" in text:
            hint = unknown_name(self.origin, offline="Temporary failure" in text)
        elif "does not support SSL" in text:
            way = "take sslmode out of the DSN" if self.dsn.is_local else "turn its TLS on (ssl = on in postgresql.conf)"
            hint = f"the server speaks no TLS: {way}, or mend host and port; the DSN came from {self.origin}"
        else:
            hint = f"the DSN came from {self.origin}"
            if error.may_pass and not wait:
                hint += "; --wait SECONDS waits for a server that is starting"
        return Unreachable(f"{self.dsn} can't be reached{waited}:\n{text}", hint, refused=False, may_pass=error.may_pass)


def unknown_name(origin: str, *, offline: bool) -> str:
    """What to do about a host's name that isn't known here; `offline`: no name server answers, so the name may be right."""
    mend = f"mend the host's name in {origin}; a private name is known in its own network alone"
    return f"see that this machine is on the network, where a name server answers; or {mend}" if offline else mend


def check_app(dsn: Dsn, origin: str, names: Sequence[str]) -> None:
    """Refuses a DSN of somebody else than the application, an administrator's above all. Raises UsageError."""
    if dsn.params["user"] not in names:
        raise UsageError(
            f"{origin} is {dsn}, and the application's login roles are {' and '.join(names)}; nothing was done with it",
            "give the application's DSN, or its role's name: --backtest-service-user NAME, or POSTGRES_BACKTEST_SERVICE_USER",
        )


def resolve(
    *,
    dsn: str | None,
    env_file: str | None,
    local: bool,
    psql: str | None,
    docker: bool,
    console: Console,
    as_app: bool = False,
) -> Target:
    """The target that the flags and settings name; `as_app` wants the application's DSN. Raises UsageError."""
    for flag, value in (("--dsn", dsn), ("--psql", psql)):
        if value == "":  # an unset variable in a script, say: the next source may be another database
            raise UsageError(f"{flag} is empty", "give it a value, or leave it away")
    if local and dsn:
        raise UsageError("--local and --dsn both name a database", "leave one of them away")
    mode = psql_mode(psql, docker)
    found = settings.sources(env_file)
    named = [f"--env-file {quoted(env_file)}"] if env_file else []
    app_file = None
    if local:
        running = server.local(found, say=console.note)
        address, origin, flags = running.dsn, "--local", ["--local"]
        app_file = Path(running.app_file)
    else:
        if as_app and not dsn and found.get(settings.APP_DSN) is None:  # an administrator's would be asked for in vain
            raise _no_app(None, _joined(named, mode), found)
        address, origin = settings.resolve_dsn(dsn, found)
        flags = ["--dsn -"] if dsn else []
    console.conceal(*address.secrets)
    if dsn and dsn != "-":
        console.note("warning: other users of this machine can read the DSN in --dsn; `--dsn -` reads it from stdin")
    return at(address, origin, mode=mode, flags=[*flags, *named], found=found, app_file=app_file)


def at(dsn: Dsn, origin: str, *, mode: Mode, flags: Sequence[str], found: Sources, app_file: Path | None = None) -> Target:
    """The target that a DSN leads to; `flags` are those that name it again."""
    return Target(
        dsn=dsn,
        origin=origin,
        mode=mode,
        image=settings.image(found),
        env=found.env,
        flags=_joined(flags, mode),
        found=found,
        app_file=app_file,
    )


def _joined(flags: Sequence[str], mode: Mode) -> str:
    return " ".join([*flags, *([f"--psql {mode.value}"] if mode is not Mode.AUTO else [])])


def _no_app(app_file: Path | None, flags: str, found: Sources) -> UsageError:
    """The application's DSN isn't where it is looked for: in a file of a server of this machine, or in the settings."""
    where = app_file or f"POSTGRES_DSN, in the environment or in {found.file_name}"
    goes = [] if app_file else [f"--secrets-file {quoted(found.file_name)}"]
    roles = " ".join(filter(None, ["invoke roles", flags, *goes]))
    hint = f"put it there; or, for a new password: {roles}"
    if app_file is None and "--dsn" not in flags and found.get(settings.ADMIN_DSN) is None:  # for roles, no database is named
        admin = f"put {settings.ADMIN_DSN} into {found.file_name}, then: {roles}"
        hint = f"the server of `invoke up` keeps its own: add --local; of another one, put it there, or to make it: {admin}"
    return UsageError(f"the application's DSN is not at hand: {where} holds none", hint)


def psql_mode(psql: str | None, docker: bool) -> Mode:
    """Where psql comes from, as the flags say. Raises UsageError."""
    if docker and psql not in (None, "docker"):
        raise UsageError(f"--docker means --psql docker, and --psql is {psql}", "leave one of them away")
    try:
        return Mode("docker" if docker else psql or "auto")
    except ValueError:
        names = ", ".join(mode.value for mode in Mode)
        raise UsageError(f"--psql {psql}: there is no such way to run psql", f"one of: {names}") from None
