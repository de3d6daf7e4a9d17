"""A flexible server of Azure's, from nothing to a tested DSN: observe -> plan -> apply -> re-check, then migrate and roles.

Whatever may be made is looked for first, so that a run that was cut off is gone on with by running it again. A password
that is made here is on disk before Azure hears of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts import (
    az,
    blueprint,
    caller,
    flexible,
    handover,
    logins,
    migrate,
    opening,
    request,
    roles,
    secret,
    server,
    settings,
    target,
)
from scripts import dsn as dsns
from scripts.az import Az, AzError
from scripts.blueprint import Action, Kind, NoRegion, Observed, Plan, Step
from scripts.build import Build
from scripts.console import Console
from scripts.dsn import Dsn
from scripts.embedded import DATABASE
from scripts.errors import ExitCode, OpsError, UsageError
from scripts.failures import PROVIDER, Way
from scripts.flexible import Region, Server
from scripts.request import Request
from scripts.secret import Secret
from scripts.settings import Sources
from scripts.shell import quoted
from scripts.target import Target, Unreachable

ADMIN_PASSWORD, ADMIN_DSN = "POSTGRES_ADMIN_PASSWORD", "POSTGRES_ADMIN_DSN"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags of `invoke provision` say."""

    request: Request
    store: Path  # the dotenv file that keeps what is made here
    store_is_named: bool  # by --secrets-file
    found: Sources
    target: Callable[[Dsn], Target]  # how the database is reached
    apply_migrations: bool = False
    roles: roles.Options | None = None  # for --create-app-users
    address: Callable[[], str] | None = None  # of this machine, for --open-firewall
    emit: bool = False
    plan_only: bool = False
    yes: bool = False
    reset_password: bool = False
    again: str = "invoke provision"


def command(flags: Mapping[str, Any], again: str, console: Console) -> ExitCode:
    """What `invoke provision` does with its flags. Raises UsageError, with every problem of them, and OpsError."""
    found = settings.sources(flags["env_file"])
    if flags["emit_secrets"] and settings.in_ci(found.env) and not console.is_terminal and not flags["secrets_file"]:
        raise UsageError(
            "--emit-secrets would put the secrets into the log of this CI run", "--secrets-file PATH instead, or beside it"
        )
    given = [flags["admin_password"], flags["backtest_service_password"]]
    if given == ["-", "-"]:
        raise UsageError("two passwords can't both be read from stdin", "put one of them into the environment or a file")
    if flags["local"]:
        return _local(flags, found, console)
    asked = request.read(flags, found, caller.address)
    if asked.password:
        console.conceal(asked.password[0])
    if any(password not in (None, "-") for password in given):
        console.note("warning: other users of this machine can read a password in an argument; `-` reads it from stdin")
    path = store(asked.wanted.server, request.as_path(flags["secrets_file"]))

    mode = target.psql_mode(flags["psql"], flags["docker"] or flags["use_docker_psql"])

    def reached(dsn: Dsn) -> Target:
        return target.at(
            dsn, "the server that was provisioned", mode=mode, flags=[f"--env-file {quoted(path)}"], found=found, app_file=path
        )

    with Az(found.env, redact=console.redact) as client:
        options = Options(
            request=asked,
            store=path,
            store_is_named=bool(flags["secrets_file"]),
            found=found,
            target=reached,
            apply_migrations=flags["apply_migrations"],
            roles=_role_options(flags, found, path) if flags["create_app_users"] else None,
            address=(lambda: caller.address(found)) if flags["open_firewall"] else None,
            emit=flags["emit_secrets"],
            plan_only=flags["plan"],
            yes=flags["yes"],
            reset_password=flags["reset_admin_password"],
            again=again,
        )
        return run(options, client, console)


def _role_options(flags: Mapping[str, Any], found: Sources, path: Path) -> roles.Options:
    app_file = None if flags["secrets_file"] else path
    # The document has the secrets that are to be printed.
    destinations = handover.destinations({**flags, "emit_secrets": False}, env=found.env, app_file=app_file)
    if not flags["plan"]:
        destinations.check()
    return roles.Options(
        wanted=logins.wanted(settings.app_user(flags["backtest_service_user"], found), None, {}),
        destinations=destinations,
        password=settings.password(
            "backtest-service-password",
            flags["backtest_service_password"],
            flags["backtest_service_password_file"],
            found,
        ),
        keep_password=flags["keep_password"],
    )


def _local(flags: Mapping[str, Any], found: Sources, console: Console) -> ExitCode:
    """The same pipeline on the server of `invoke up`: it is there, or is started, and nothing has to be let in."""
    mode = target.psql_mode(flags["psql"], flags["docker"] or flags["use_docker_psql"])
    is_up = server.is_up(found)
    plan = Plan(
        steps=(
            Step(
                action=Action.KEEP if is_up else Action.CREATE,
                kind=Kind.SERVER,
                name="on this machine",
                reason="it is up" if is_up else "it isn't up; as `invoke up` starts it",
            ),
            Step(action=Action.KEEP, kind=Kind.DATABASE, name=DATABASE, reason="the server's own"),
            Step(action=Action.SKIP, kind=Kind.RULE, name="firewall", reason="the server listens on this machine alone"),
        )
    )
    _show(plan, console)
    if flags["plan"]:
        return _end_plan(plan, console)
    running = server.local(found, say=console.note)
    app_file = Path(running.app_file)
    goal = target.at(running.dsn, "--local", mode=mode, flags=["--local"], found=found, app_file=app_file)
    console.conceal(goal.dsn.password, goal.dsn.uri())
    role_options = _role_options(flags, found, app_file) if flags["create_app_users"] else None
    parts, app, code = _fill(goal, flags["apply_migrations"], role_options, console)
    place = {
        "subscriptionId": None,
        "location": "local",
        "resourceGroup": None,
        "serverName": str(running.choice),
        "serverFqdn": running.dsn.hosts[0],
    }
    more = {"changed": running.started, "keptIn": str(app_file), **plan.facts(), **parts}
    document(console, place, running.dsn, app, emit=flags["emit_secrets"], more=more)
    return code


def _fill(
    goal: Target, apply_migrations: bool, role_options: roles.Options | None, console: Console
) -> tuple[dict[str, Any], Dsn | None, ExitCode]:
    """Migrations and roles, where they are asked for: their documents, the application's DSN, and how it ended."""
    parts: dict[str, Any] = {}
    app, code = None, ExitCode.OK
    with console.gathering() as documents:
        if apply_migrations:
            migrate.run(goal, migrate.Options(), console)
            parts["migrations"] = documents.pop()
        if role_options:
            ended = roles.run(goal, role_options, console)
            parts["roles"], app, code = documents.pop(), ended.dsn, ended.code
    return parts, app, code


def run(options: Options, client: Az, console: Console, sleep: Callable[[float], None] = time.sleep) -> ExitCode:
    """Makes the server as it is asked for. PENDING when the application's role differs from the design.

    Raises OpsError; running it again goes on from there.
    """
    return _Runner(options, client, console, sleep).run()


class _Runner:
    """One run: what it was asked, and what it has found and done so far."""

    def __init__(self, options: Options, client: Az, console: Console, sleep: Callable[[float], None]) -> None:
        self.options = options
        self.wanted = options.request.wanted
        self.client = client
        self.console = console
        self.sleep = sleep
        self.password = Secret("")  # the administrator's
        self.is_kept = False  # whether the store holds it
        self.parts: dict[str, Any] = {}  # the documents of migrate and roles
        self.app: Dsn | None = None

    def run(self) -> ExitCode:
        self.console.say(
            f"target: {self.wanted.server} in the group {self.wanted.group}, subscription {self.wanted.subscription}"
        )
        seen = self._observe()
        try:
            plan = blueprint.plan(self.wanted, seen, datetime.now(UTC), reset_password=self.options.reset_password)
        except NoRegion as error:
            raise NoRegion(error.message, f"{error.hint}; then: {self.options.again}", error.table) from None
        _show(plan, self.console)
        if self.options.plan_only:
            return _end_plan(plan, self.console)
        if not self.options.yes:
            for step in plan.disruptive:
                self.console.confirm(f"{step.action.value} {step.kind.value} {step.name} ({step.reason})?", yes=False)
        self._find_password(seen)
        server = self._make(plan, seen)
        request = self.options.request
        admin = flexible.dsn(server.host, self.wanted.database, server.admin, self.password, request.sslmode, request.sslrootcert)
        self._keep(admin)
        code = self._use(admin, server)
        place = {
            "subscriptionId": self.wanted.subscription,
            "location": server.location,
            "resourceGroup": self.wanted.group,
            "serverName": server.name,
            "serverFqdn": server.host,
        }
        kept = str(self.options.store) if self.is_kept or self.options.store_is_named else None
        more = {"changed": bool(plan.writes), "keptIn": kept, **plan.facts(), **self.parts}
        document(self.console, place, admin, self.app, emit=self.options.emit, more=more)
        return code

    # Observe and plan.

    def _observe(self) -> Observed:
        """All that the plan depends on, in one wave of questions; in two more, what only a new server asks for."""
        wanted = self.wanted
        versions, *answers = self.client.try_ask(
            az.version(), az.login(wanted.subscription), az.server(wanted), az.database(wanted), az.rules(wanted)
        )
        if not isinstance(versions, AzError):
            az.check_version(versions)
        for answer in (versions, *answers):
            if isinstance(answer, AzError):
                raise answer
        _, server, database, rules = answers
        if server is not None:
            return Observed(server=server, database=bool(database), rules=rules or ())
        registered, group = self.client.ask(az.provider(wanted.subscription), az.group(wanted))
        if not registered and not self.options.plan_only:
            # Regions answer to registered subscriptions alone; az would register this one without a word.
            with self.console.working(f"registering the subscription for {PROVIDER} ..."):
                az.register(self.client, wanted)
            registered = True
        offers: list[Any] = [Region(location=name) for name in wanted.locations]
        if registered:
            offers = self.client.try_ask(*(az.region(wanted, name) for name in wanted.locations))
        regions = tuple(_offer(name, offer) for name, offer in zip(wanted.locations, offers, strict=True))
        return Observed(registered=bool(registered), group=group, regions=regions)

    def _make(self, plan: Plan, seen: Observed) -> Server:
        build = Build(
            client=self.client,
            wanted=self.wanted,
            console=self.console,
            password=self.password,
            again=self.options.again,
            sleep=self.sleep,
        )
        server = build.carry_out(plan, seen)
        if not plan.writes:
            self.console.say(f"nothing to change: {server.name} is as asked for")
        return server

    # The administrator's password.

    def _find_password(self, seen: Observed) -> None:
        """The password: given, else kept by an earlier run, else a new one, on disk before Azure hears of it."""
        login = seen.server.admin if seen.server else self.wanted.new_admin
        is_set = seen.server is None or self.options.reset_password
        password, origin = self.options.request.password or self._known(seen) or (None, "")
        if password is None and not is_set:
            raise UsageError(
                f"the password of {login}, the administrator of {self.wanted.server}, is not known here",
                "give it: POSTGRES_ADMIN_PASSWORD, --admin-password-file, or --admin-password - (stdin); or set a new one: "
                f"{self.options.again} --reset-admin-password",
            )
        store = self.options.store
        if password is None:
            password = _generate(login)
            self.console.conceal(password)
            store.parent.mkdir(parents=True, exist_ok=True)
            handover.set_in_file(store, ADMIN_PASSWORD, password)
            self.console.say(f"  a new password of {login} is kept in {store}")
            origin = str(store)
        self.console.conceal(password)
        problem = flexible.password_problem(password, login) if is_set else None
        if problem:
            raise UsageError(f"the password of {origin}: {problem}", "give another one, or none: then one is made")
        self.password, self.is_kept = password, origin.endswith(str(store))

    def _known(self, seen: Observed) -> tuple[Secret, str] | None:
        """The password that an earlier run has kept, or the one in POSTGRES_ADMIN_DSN when it leads to this server."""
        store = self.options.store
        kept = settings.sources(str(store), env={}).get(ADMIN_PASSWORD) if store.is_file() else None
        if kept is not None and not (seen.server and self.options.reset_password):
            return Secret(kept.text), str(store)
        value = self.options.found.get(ADMIN_DSN)
        if value is not None and seen.server is not None and not self.options.reset_password:
            address = dsns.parse(value.text, value.origin)
            if address.params.get("host") == seen.server.host and address.params["user"] == seen.server.admin:
                return address.password, value.origin
        return None

    # The database.

    def _keep(self, admin: Dsn) -> None:
        """The administrator's DSN goes to the file that was named, and to the one that keeps its password."""
        self.console.conceal(admin.uri())
        if self.options.store_is_named or self.is_kept:
            handover.set_in_file(self.options.store, ADMIN_DSN, admin.uri())
            self.console.say(f"{ADMIN_DSN} is in {self.options.store}")

    def _use(self, admin: Dsn, server: Server) -> ExitCode:
        """Waits until the database answers, then migrates it and makes the application's role, where that was asked for."""
        if not (self.options.apply_migrations or self.options.roles):
            return ExitCode.OK
        goal = self.options.target(admin)
        with self._way_in():
            try:
                opening.until_it_answers(goal, self.options.request.deadline, self.console, self.sleep)
            except Unreachable as error:
                raise self._no_answer(error, server) from None
            self.console.say(f"{server.name} answers")
            self.parts, self.app, code = _fill(goal, self.options.apply_migrations, self.options.roles, self.console)
            return code

    def _way_in(self) -> contextlib.AbstractContextManager[None]:
        if self.options.address is None:
            return contextlib.nullcontext()
        return opening.opened(self.client, self.wanted, self.options.address(), self.console, self.sleep)

    def _no_answer(self, error: Unreachable, server: Server) -> OpsError:
        if "password authentication failed" in error.message:
            return OpsError(
                f"{server.name} stands, and the password at hand is not its administrator's:\n{error.message}",
                f"give the right one (POSTGRES_ADMIN_PASSWORD), or set a new one: {self.options.again} --reset-admin-password",
            )
        return OpsError(
            f"{server.name} stands as asked for, and its database doesn't answer:\n{error.message}",
            f"let this machine in: {self.options.again} --allow-current-ip (for good) or --open-firewall (for this run)",
        )


def document(
    console: Console, place: Mapping[str, Any], admin: Dsn, app: Dsn | None, *, emit: bool, more: Mapping[str, Any]
) -> None:
    """Prints the result as JSON, with `--json` or without; its secrets only when that was asked for."""

    def password(dsn: Dsn) -> str:
        return dsn.password.reveal() if emit else str(dsn.password)

    def uri(dsn: Dsn) -> str:
        return dsn.uri().reveal() if emit else str(dsn)

    dsns = {ADMIN_DSN: admin, **({handover.VARIABLE: app} if app else {})}
    console.print_json(
        {
            **place,
            "databaseName": admin.database,
            "adminUser": admin.params["user"],
            "adminPassword": password(admin),
            "appUsers": [{"user": app.params["user"], "password": password(app)}] if app else [],
            "connectionStrings": {name: uri(dsn) for name, dsn in dsns.items()},
            **(more if console.as_json else {}),  # the sentences before have said it
        }
    )


def store(server: str, secrets_file: Path | None) -> Path:
    """The dotenv file that keeps what is made here: the one that was named, else one below `.local/`."""
    return secrets_file or settings.LOCAL / f"{server}.env"


def _show(plan: Plan, console: Console) -> None:
    console.table(plan.rows())
    for location, why in plan.passed_over:
        console.say(f"  passed over: {location}: {why}")
    if len(plan.regions) > 1:
        others = ", ".join(region.location for region in plan.regions[1:])
        console.say(f"  should {plan.regions[0].location} refuse: {others}")
    for note in plan.notes:
        console.note(f"note: {note}")


def _end_plan(plan: Plan, console: Console) -> ExitCode:
    console.say(f"{len(plan.writes) or 'nothing'} to change; nothing was written")
    console.document(plan.facts())
    return ExitCode.OK


def _offer(location: str, answer: Region | AzError | None) -> Region:
    """What a region offers; one that couldn't be asked is tried last, and one that az knows to be closed not at all."""
    if answer is None:
        return Region(location=location, restricted="there is no such region")
    if isinstance(answer, AzError):
        is_closed = answer.failure.way is Way.NEXT_REGION or "location" in answer.failure.text.lower()
        first = answer.failure.text.splitlines()[0] if answer.failure.text else answer.failure.cause
        return Region(location=location, restricted=first if is_closed else None)
    return answer


def _generate(login: str) -> Secret:
    """A password that keeps Azure's rules."""
    while True:
        password = secret.generate()
        if flexible.password_problem(password, login) is None:
            return password
