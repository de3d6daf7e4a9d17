"""Every check of `invoke doctor`: what each looks at, which questions they share, and which rests on which."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts import az, checkup, database, dotfile, github, hygiene, logins, machine, request, server, settings, shell, workflow
from scripts import dsn as dsns
from scripts import git as git_words
from scripts import subscription as azure
from scripts import target as targets
from scripts.az import Az, Question
from scripts.checkup import Check, Once, Verdict
from scripts.clients import Mode
from scripts.console import Console
from scripts.database import Seen
from scripts.dsn import Dsn
from scripts.errors import OpsError, UsageError
from scripts.flexible import Server, Wanted
from scripts.gh import Gh
from scripts.machine import Programs
from scripts.request import Reader, variable
from scripts.settings import ADMIN_DSN, APP_DSN, DEPLOY, LOCAL, MIGRATIONS, ROOT, Sources, Value
from scripts.target import Target

_ANY_ADDRESS = "203.0.113.1"  # stands for this machine's, which nothing here needs
_ASK_FOR_DOCKER = ("docker", "use_docker_psql")
_LIST = "az postgres flexible-server list"
_NO_AZURE = "no server in Azure is named"


class Checklist:
    """The checks of one run. Use it as a context manager.

    Programs get no more time than a check has, which is `seconds`; so none is left behind.
    """

    def __init__(self, found: Sources, path: Path, seconds: float, console: Console, flags: Sequence[str] = ()) -> None:
        self._found = found
        self._flags = flags  # that name the settings again, for the next command in a message
        self._same_settings = " ".join(flags)
        self._path = path
        self._seconds = seconds
        self._console = console
        self._together = limited(shell.run_together, seconds)
        self._gh = Gh(found.env, run_together=limited(shell.run_together, seconds, cwd=ROOT))
        self._stack = contextlib.ExitStack()
        self._client: Az | None = None
        self._goal = Once(self._resolve)
        self._docker = Once(lambda: machine.docker(found.env, self._together, needed=self._asks_for_docker()))
        self._programs: Once[Programs] = Once(lambda: machine.programs(found.env, self._together))
        self._host = Once(lambda: database.host(self._goal(), seconds / 3))
        self._seen: Once[Seen] = Once(self._observe)
        self._server: Once[Server | None] = Once(lambda: self._ask(az.server(self._wanted())))
        self._registered = Once(lambda: azure.is_registered(self._ask, self._wanted().subscription, self._server))
        self._repository = Once(lambda: self._gh.repository(None))
        self._environment = Once(lambda: self._gh.environment(self._repository()[0], github.ENVIRONMENT))

    def __enter__(self) -> Checklist:
        with contextlib.suppress(UsageError):  # there is no az
            client = Az(self._found.env, redact=self._console.redact, run_together=self._together)
            self._client = self._stack.enter_context(client)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def checks(self) -> list[Check]:
        """In the order in which they are shown; one that rests on another stands behind it."""
        return [*self._machine(), *self._files(), *self._database(), *self._azure(), *self._github()]

    # This machine.

    def _machine(self) -> list[Check]:
        return [
            Check(name="python", look=lambda: machine.python(ROOT / "requirements" / "runtime.txt")),
            Check(name="disk", look=lambda: machine.disk(ROOT, LOCAL, needed=not any(self._dsns()))),
            Check(name="docker", look=self._docker, by_hand="docker info"),
            Check(
                name="psql",
                look=lambda: machine.psql(self._dsn(), self._programs(), self._engine_answers),
                by_hand="psql --version",
            ),
        ]

    def _asks_for_docker(self) -> str:
        """The setting that asks for it, where one does."""
        reader = Reader({}, self._found)
        return next((reader.origin(flag) for flag in _ASK_FOR_DOCKER if reader.switch(flag)), "")

    def _engine_answers(self) -> bool:
        return self._docker().state is checkup.State.OK

    def _dsn(self) -> Dsn | None:
        with contextlib.suppress(OpsError):  # which the database's own check tells
            return self._goal().dsn
        return None

    # Files.

    def _files(self) -> list[Check]:
        path, env = self._path, self._found.env
        return [
            Check(name=".env keys", look=lambda: dotfile.keys(path, self._known())),
            Check(name=".env rights", look=lambda: dotfile.rights(path)),
            Check(name=".env in git", look=lambda: dotfile.in_git(path, env, dotfile.ignore)),
            Check(name="tracked files", look=lambda: hygiene.tracked(ROOT, env, but=path), by_hand="git grep -c ."),
        ]

    @staticmethod
    def _known() -> set[str]:
        example = ROOT / ".env.example"
        try:
            text = example.read_text(encoding="utf-8") if example.exists() else ""
            # Of a template in another encoding, the names are to be read here; `render` says what is wrong with it.
            templates = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(DEPLOY.glob("*.yaml"))]
        except OSError as error:
            raise OpsError(f"{error.filename} can't be read: {error.strerror}", "let yourself read it") from None
        return dotfile.known(text, templates, [entry.name for entry in github.EVERYTHING])

    # The database.

    def _database(self) -> list[Check]:
        seen, goal = self._seen, self._goal
        local = [] if any(self._dsns()) else ["--local"]  # by the settings alone: here, no time is limited yet
        return [
            Check(name="database", look=self._named),
            Check(name="host", look=self._host, after=("database",)),
            Check(
                name="login",
                look=lambda: database.login(seen(), goal()),
                after=("database", "psql", "host"),
                by_hand=" ".join(["invoke psql", *local, *self._flags]),
            ),
            Check(name="pooler", look=lambda: database.locks(seen()), after=("login",)),
            Check(name="clock", look=lambda: database.clock(seen()), after=("login",)),
            Check(name="migrations", look=lambda: database.migrations(seen(), MIGRATIONS, goal().command), after=("login",)),
            Check(name="connections", look=lambda: database.connections(seen(), goal().flags), after=("login",)),
            Check(name="pg_dump", look=self._pg_dump, after=("login",)),
            Check(name="app dsn", look=self._application),
            Check(name="app login", look=self._app_login, after=("psql", "host", "app dsn")),
        ]

    def _dsns(self) -> tuple[Value | None, Value | None]:
        """The administrator's and the application's, as they stand in the settings."""
        return self._found.get(ADMIN_DSN), self._found.get(APP_DSN)

    def _resolve(self) -> Target:
        """The database that commands would mean; without a DSN, the server of `invoke up`, where that runs. Raises OpsError."""
        found = self._found
        if any(self._dsns()):
            address, origin = settings.resolve_dsn(None, found)
            return targets.at(address, origin, mode=Mode.AUTO, flags=self._flags, found=found)
        up = server.standing(found)
        if up is None:
            raise OpsError("no database is named, and no server of `invoke up` runs")
        self._console.conceal(up.dsn.password, up.dsn.uri())
        return targets.at(
            up.dsn, "invoke up", mode=Mode.AUTO, flags=["--local", *self._flags], found=found, app_file=Path(up.app_file)
        )

    def _named(self) -> Verdict:
        administrator, application = self._dsns()
        value = administrator or application
        if value is not None:
            return database.text(value, Path.home())
        try:
            return checkup.ok(f"no DSN is set: the server of `invoke up`, {self._goal().dsn}")
        except OpsError as error:
            if error.hint:  # a server runs, and can't be used
                return checkup.failed(error)
            return checkup.unset(error.message, f"invoke quickstart; for another server, {ADMIN_DSN} in {self._found.file_name}")

    def _observe(self) -> Seen:
        if not self._host().is_fine:
            raise OpsError("see host")
        return database.observe(self._goal(), self._seconds)

    def _pg_dump(self) -> Verdict:
        major = self._seen().facts.number // 10000
        return machine.pg_dump(major, self._goal().dsn, self._programs(), self._engine_answers)

    def _app(self) -> tuple[Value | None, bool]:
        """The application's DSN, and whether another one is the administrator's. A server of `invoke up` keeps it itself."""
        administrator, value = self._dsns()
        if administrator or value:
            return value, administrator is not None
        with contextlib.suppress(OpsError):  # there is none
            file = self._goal().app_file
            if file is not None and (kept := settings.kept(APP_DSN, file)):
                return kept, True
        return None, False

    def _application(self) -> Verdict:
        value, is_another = self._app()
        if value is None:
            return checkup.unset(f"{APP_DSN} isn't set", self._making_of_app())
        self._console.conceal(*dsns.to_conceal(value.text))
        names = logins.wanted(settings.app_user(None, self._found), None, {}).names
        making = self._making_of_app()
        return database.application(value, names if is_another else None, self._dsns()[0], Path.home(), making)

    def _making_of_app(self) -> str:
        """The command that makes the application's role, and keeps its DSN where it is looked for."""
        try:
            is_kept = self._goal().app_file is not None
        except OpsError:
            is_kept = False  # the database's own check tells it
            if not any(self._dsns()):
                return f"invoke quickstart makes it; for another server, {ADMIN_DSN} in {self._found.file_name} comes first"
        goes = "" if is_kept else f"--secrets-file {shell.quoted(self._found.file_name)}"
        return " ".join(filter(None, ["invoke roles", self._again(), goes]))

    def _again(self) -> str:
        """The flags that mean this database in the next command."""
        with contextlib.suppress(OpsError):  # the database's own check tells it
            return self._goal().flags
        return self._same_settings

    def _app_login(self) -> Verdict:
        value, is_another = self._app()
        if value is None or not is_another:
            return checkup.skipped("see app dsn" if value is None else "it is the only DSN: see login")
        goal = self._goal().as_role(dsns.parse(value.text, value.origin), value.origin)
        host = database.host(goal, self._seconds / 3)
        return database.let_in(goal, self._seconds) if host.is_fine else host

    # Azure.

    def _azure(self) -> list[Check]:
        reader = Reader({}, self._found)
        named = reader.text("subscription_id"), reader.text("server_name")
        subscription, needed = named[0], all(named)
        ask, wanted, standing, flags = self._ask, self._wanted, self._server, self._same_settings

        def itself() -> Verdict:
            return azure.missing(needed=needed) if self._client is None else azure.version(ask, needed=needed)

        def asked() -> Verdict:
            if not needed:
                lacking = [
                    variable(flag) for flag, value in zip(("subscription_id", "server_name"), named, strict=True) if not value
                ]
                what = _NO_AZURE if len(lacking) == 2 else f"{lacking[0]} isn't set"
                return checkup.unset(what, f"{' and '.join(lacking)} in {self._found.file_name}; .env.example has them")
            request.with_settings({}, self._found)  # `invoke provision` stops at these as well
            goal = wanted()
            return checkup.ok(f"{goal.server} in the group {goal.group}, {goal.new_sku}")

        def is_clear() -> bool:
            """Whether there is a server to ask about; what is wrong with its settings is told of them."""
            with contextlib.suppress(UsageError):
                return needed and wanted() is not None
            return False

        def login() -> Verdict:
            return (
                azure.login(ask, subscription, standing)
                if is_clear()
                else azure.login(ask, None if needed else subscription, None)
            )

        def check(name: str, look: Callable[[], Verdict], by_hand: str) -> Check:
            def look_where_it_is_clear() -> Verdict:
                return look() if is_clear() else checkup.skipped("see azure")

            return Check(name=name, look=look_where_it_is_clear, after=("az login",), by_hand=by_hand)

        registered = self._registered
        return [
            Check(name="azure", look=asked),
            Check(name="az", look=itself, by_hand="az version"),
            Check(name="az login", look=login, after=("az",), by_hand="az account get-access-token"),
            check("provider", lambda: azure.provider(registered, wanted().subscription), "az provider list"),
            check("server name", lambda: azure.server_name(ask, wanted(), standing, registered, flags), _LIST),
            check("region", lambda: azure.region(ask, wanted(), standing, registered), f"{_LIST}-skus --location NAME"),
            check("rights", lambda: azure.rights(ask, wanted(), standing, flags), "az role assignment list"),
        ]

    def _wanted(self) -> Wanted:
        """What the settings ask `invoke provision` for. Raises UsageError."""
        return request.read({}, self._found, lambda _: _ANY_ADDRESS).wanted

    def _ask(self, question: Question[Any]) -> Any:
        if self._client is None:
            raise OpsError("there is no az")
        return self._client.ask(question)[0]

    # GitHub.

    def _github(self) -> list[Check]:
        return [
            Check(name="gh", look=self._gh_login, by_hand="gh auth status"),
            Check(name="environment", look=lambda: workflow.environment(self._environment(), self._same_settings), after=("gh",)),
            Check(name="subject", look=self._subject, after=("az login", "environment")),
        ]

    def _gh_login(self) -> Verdict:
        env = self._found.env
        hosts = {"github.com", env.get("GH_HOST", "github.com")}
        remotes = git_words.remotes(ROOT, env)
        leads = bool(env.get("GH_REPO")) or any(host in remote for host in hosts for remote in remotes)
        return workflow.login(self._gh, self._repository, leads_to_github=leads, flags=self._same_settings)

    def _subject(self) -> Verdict:
        if self._client is None:
            return checkup.skipped("see az")
        given = {name: value.text for name in workflow.PLACE if (value := self._found.get(name))}
        return workflow.subject(self._repository()[1], workflow.place(given, self._environment()), self._ask, self._same_settings)


def limited(start: Callable[..., Any], seconds: float, **more: Any) -> Callable[..., Any]:
    """What starts programs, with a limit to the time that they get, whatever is asked for."""

    def start_limited(*words: Any, timeout: float | None = None, **rest: Any) -> Any:
        return start(*words, timeout=min(timeout or seconds, seconds), **{**rest, **more})

    return start_limited
