"""From nothing to a tested DSN: the server (`foundation`), its migrations, the application's role, and the result as JSON.

The same pipeline runs against Azure and on this machine.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from scripts import caller, foundation, handover, logins, migrate, opening, request, roles, runner, server, settings, target
from scripts.az import Az
from scripts.blueprint import Action, Kind, Plan, Step
from scripts.clients import Mode
from scripts.console import Console
from scripts.dsn import Dsn
from scripts.embedded import DATABASE
from scripts.errors import ExitCode, Interrupted, OpsError, UsageError
from scripts.foundation import Foundation, Standing
from scripts.handover import Destinations
from scripts.request import Request
from scripts.settings import ADMIN_DSN, APP_DSN, Sources
from scripts.shell import quoted
from scripts.target import Target, Unreachable

# Flags that say something of a server of Azure's alone.
_OF_AZURE = (
    "subscription_id",
    "location",
    "resource_group",
    "server_name",
    "database_name",
    "open_firewall",
    "reset_admin_password",
)
Answer = TypeVar("Answer")


def command(flags: Mapping[str, Any], again: str, console: Console) -> ExitCode:
    """What `invoke provision` does with its flags. PENDING when the application's role differs from the design.

    Raises UsageError, with every problem of the flags, and OpsError; running it again goes on from there.
    """
    found = settings.sources(flags["env_file"])
    flags = request.with_settings(flags, found)
    if flags["emit_secrets"] and settings.in_ci(found.env) and not console.is_terminal:
        if not flags["secrets_file"]:
            raise UsageError("--emit-secrets would put the secrets into the log of this CI run", "--secrets-file PATH instead")
        console.note(f"note: the secrets go into {flags['secrets_file']}, and not into the log of this CI run")
        flags["emit_secrets"] = False
    passwords = [flags["admin_password"], flags["backtest_service_password"]]
    if passwords == ["-", "-"]:
        raise UsageError("two passwords can't both be read from stdin", "put one of them into the environment or a file")
    problems: list[str] = []
    filling = _filling(flags, found, problems)
    asked = None
    client = None
    if flags["local"]:
        request.Reader(flags, found, problems).finish()
    else:
        client = Az(found.env, redact=console.redact)  # before all that is asked for, which would be for nothing without it
        asked = request.read(flags, found, functools.partial(caller.address, takes_ranges=True), problems)
    for password in (asked.password if asked else None, filling.roles.password if filling.roles else None):
        if password is not None:
            console.conceal(password[0])
    if any(password not in (None, "-") for password in passwords):
        console.note("warning: other users of this machine can read a password in an argument; `-` reads it from stdin")
    if not flags["plan"]:
        filling.destinations.check()
    if asked is None or client is None:
        return _local(flags, filling, console)
    return _azure(client, flags, asked, again, filling, console)


@dataclass(frozen=True, kw_only=True)
class _Filling:
    """What is to be done with a database that answers."""

    found: Sources
    mode: Mode
    migrate: bool
    roles: roles.Options | None
    destinations: Destinations
    emit: bool


def _filling(flags: Mapping[str, Any], found: Sources, problems: list[str]) -> _Filling:
    """What the flags say of it; `problems` gets what is wrong with them."""

    def tried(make: Callable[[], Answer], otherwise: Answer) -> Answer:
        try:
            return make()
        except UsageError as error:
            problems.append(error.message)
            return otherwise

    # The document has the secrets that are to be printed.
    none = Destinations(env=found.env)
    destinations = tried(lambda: handover.destinations({**flags, "emit_secrets": False}, env=found.env), none)
    if (destinations.github_secret or destinations.key_vault) and not flags["create_app_users"]:
        problems.append("what is handed over is the DSN of the application's role: add --create-app-users")
    if flags["local"]:
        named = [name for name in _OF_AZURE if flags[name]]
        problems += [f"--{name.replace('_', '-')} is of Azure, and --local is this machine" for name in named]
    user = settings.app_user(flags["backtest_service_user"], found)
    wanted = tried(lambda: logins.wanted(user, None, {}), logins.wanted(settings.DEFAULT_APP_USER, None, {}))
    password = tried(
        lambda: settings.password(
            "backtest-service-password",
            flags["backtest_service_password"],
            flags["backtest_service_password_file"],
            found,
            keep=flags["keep_password"],
        ),
        None,
    )
    options = roles.Options(wanted=wanted, destinations=destinations, password=password, keep_password=flags["keep_password"])
    return _Filling(
        found=found,
        mode=tried(lambda: target.psql_mode(flags["psql"], flags["docker"]), Mode.AUTO),
        migrate=flags["apply_migrations"],
        roles=options if flags["create_app_users"] else None,
        destinations=destinations,
        emit=flags["emit_secrets"],
    )


def _azure(client: Az, flags: Mapping[str, Any], asked: Request, again: str, filling: _Filling, console: Console) -> ExitCode:
    store = request.as_path(flags["secrets_file"]) or settings.LOCAL / f"{asked.wanted.server}.env"
    with client:
        site = Foundation(
            client=client,
            request=asked,
            found=filling.found,
            store=store,
            store_is_named=bool(flags["secrets_file"]),
            console=console,
            again=again,
            yes=flags["yes"],
            reset_password=flags["reset_admin_password"],
        )
        if flags["plan"]:
            return _end_plan(site.plan(), filling, console)
        standing = site.stand()
        goal = target.at(
            standing.admin,
            "the server that was provisioned",
            mode=filling.mode,
            flags=[f"--env-file {quoted(store)}"] if standing.is_kept else [],
            found=filling.found,
            app_file=None if flags["secrets_file"] else store,
        )
        way_in: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if flags["open_firewall"] and asked.address:
            way_in = opening.opened(client, asked.wanted, asked.address, console)
        filled = _Filled({}, None, ExitCode.OK)
        if filling.migrate or filling.roles:
            try:
                with way_in:
                    _await_answer(goal, standing, asked.deadline, again, console)
                    if flags["secrets_file"] and not standing.is_kept:
                        site.keep(standing.admin)
                    filled = _fill(goal, filling, console)
            except KeyboardInterrupt:
                raise Interrupted(f"interrupted; {standing.server.name} stands as asked for", f"go on: {again}") from None
    place = {
        "subscriptionId": asked.wanted.subscription,
        "location": standing.server.location,
        "resourceGroup": asked.wanted.group,
        "serverName": standing.server.name,
        "serverFqdn": standing.server.host,
    }
    more = {"changed": bool(standing.plan.writes), "keptIn": str(store) if standing.is_kept else None, **standing.plan.facts()}
    _document(console, place, standing.admin, filled, more, emit=filling.emit)
    return filled.code


def _await_answer(goal: Target, standing: Standing, deadline: float, again: str, console: Console) -> None:
    name = standing.server.name
    try:
        opening.until_it_answers(goal, deadline, console)
    except Unreachable as error:
        if "password authentication failed" in error.message:
            raise OpsError(
                f"{name} stands, and the password at hand is not its administrator's:\n{error.message}",
                f"give the right one (POSTGRES_ADMIN_PASSWORD), or set a new one: {again} --reset-admin-password",
            ) from None
        raise OpsError(
            f"{name} stands as asked for, and its database doesn't answer:\n{error.message}",
            f"see that its name can be resolved here, and let this machine in: {again} --allow-current-ip; or for the length of "
            f"a run: {again} --open-firewall",
        ) from None
    console.say(f"{name} answers")


def _local(flags: Mapping[str, Any], filling: _Filling, console: Console) -> ExitCode:
    """The same on the server of `invoke up`: it is there, or is started, and nothing has to be let in."""
    is_up = server.standing(filling.found) is not None
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
    foundation.show(plan, console)
    if flags["plan"]:
        return _end_plan(plan, filling, console)
    running = server.local(filling.found, say=console.note)
    app_file = Path(running.app_file)
    goal = target.at(running.dsn, "--local", mode=filling.mode, flags=["--local"], found=filling.found, app_file=app_file)
    console.conceal(goal.dsn.password, goal.dsn.uri())
    filled = _fill(goal, filling, console)
    place = {
        "subscriptionId": None,
        "location": "local",
        "resourceGroup": None,
        "serverName": str(running.choice),
        "serverFqdn": running.dsn.hosts[0],
    }
    more = {"changed": running.started, "keptIn": running.password_file, **plan.facts()}
    _document(console, place, running.dsn, filled, more, emit=filling.emit)
    return filled.code


@dataclass(frozen=True)
class _Filled:
    """What migrations and roles came to: their documents, the application's DSN, and how it ended."""

    parts: Mapping[str, Any]
    app: Dsn | None
    code: ExitCode


def _fill(goal: Target, filling: _Filling, console: Console) -> _Filled:
    parts: dict[str, Any] = {}
    app, code = None, ExitCode.OK
    with console.gathering() as documents:
        if filling.migrate:
            migrate.run(goal, runner.Options(), console)
            parts["migrations"] = documents.pop()
        if filling.roles:
            destinations = replace(filling.roles.destinations, app_file=goal.app_file)
            ended = roles.run(goal, replace(filling.roles, destinations=destinations), console)
            parts["roles"], app, code = documents.pop(), ended.dsn, ended.code
    return _Filled(parts, app, code)


def _document(
    console: Console, place: Mapping[str, Any], admin: Dsn, filled: _Filled, more: Mapping[str, Any], *, emit: bool
) -> None:
    """Prints the result as JSON, with `--json` or without; its secrets only when that was asked for."""

    def password(dsn: Dsn) -> str:
        return dsn.password.reveal() if emit else str(dsn.password)

    def uri(dsn: Dsn) -> str:
        return dsn.uri().reveal() if emit else str(dsn)

    app = filled.app
    dsns = {ADMIN_DSN: admin, **({APP_DSN: app} if app else {})}
    console.print_json(
        {
            **place,
            "databaseName": admin.database,
            "adminUser": admin.params["user"],
            "adminPassword": password(admin),
            "appUsers": [{"user": app.params["user"], "password": password(app)}] if app else [],
            "connectionStrings": {name: uri(dsn) for name, dsn in dsns.items()},
            **({**more, **filled.parts} if console.as_json else {}),  # the sentences before have said it
        }
    )


def _end_plan(plan: Plan, filling: _Filling, console: Console) -> ExitCode:
    then = ["the pending migrations would be applied (`invoke migrate --plan` shows which)"] if filling.migrate else []
    if filling.roles:
        user, keeps = filling.roles.wanted.user, filling.roles.keep_password or filling.roles.password
        then.append(f"the role {user} would be made or converged{'' if keeps else ', with a new password'}, and tested")
    for line in then:
        console.say(f"  then: {line}")
    console.say(f"{len(plan.writes) or 'nothing'} to change{' before that' if then else ''}; nothing was written")
    console.document({**plan.facts(), "changes": len(plan.writes), "then": then})
    return ExitCode.OK
