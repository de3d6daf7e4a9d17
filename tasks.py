"""The face: flags in, one call each, and the only place where an error becomes an exit code.

The modules that do the work are imported by the task that needs them, so that `invoke --list` stays fast.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task, task

from scripts import settings, shell
from scripts.console import Console
from scripts.errors import ExitCode, Interrupted, OpsError, UsageError

# Every flag is declared once: what it means is the same wherever it stands.
FLAGS = {
    "abort": "Go back: the new login role is disabled, the old one stays.",
    "as_app": "Use the application's DSN, POSTGRES_DSN.",
    "allow_out_of_order": "Apply a pending file although a newer one is applied.",
    "backtest_service_password": "The password of the application's role; `-` reads it from stdin (a new one).",
    "backtest_service_password_file": "Read that password from this file.",
    "backtest_service_user": "The application's login role (backtest_service); the second one has _b behind it.",
    "check": "Compare with the design and try everything as the role; exit code 3 when something differs.",
    "connection_limit": "Connections of each of the two login roles (fitted to the server).",
    "deadline": "Seconds to wait until the old login role is out of use (300).",
    "docker": "Use Docker: for psql, and for the server of `up` and `quickstart`.",
    "dsn": "The database, as postgresql://USER:PASSWORD@HOST:5432/DB?sslmode=require; `-` reads it from stdin.",
    "emit_secrets": "Print the DSN with its password.",
    "env_file": "Read settings from this file instead of .env.",
    "finish": "Disable the old login role as soon as it is out of use.",
    "github_environment": "The environment of the GitHub secret.",
    "github_secret": "Set this secret of the GitHub repository to the DSN, by gh.",
    "idle_in_transaction_timeout": "How long the role's transactions may wait for their client (60s).",
    "json": "Print the result as one JSON document.",
    "keep_password": "Leave the role's password as it is.",
    "local": "Use the server of `invoke up`; start it when it isn't running.",
    "lock_timeout": "How long the role's statements wait for a lock (5s).",
    "lock_wait": "Seconds to wait for another runner to finish (300).",
    "migrations_dir": "The folder of the migrations (migrations/).",
    "plan": "Show what would be done and write nothing.",
    "postgres_version": "The PostgreSQL of the server: 16 or 18 embedded, any with --docker (16).",
    "psql": "Where psql comes from: local, docker, embedded or auto (auto).",
    "purge": "Delete the server's data as well.",
    "quiet": "Seconds without a connection after which a login role counts as out of use (10).",
    "repo": "The GitHub repository, OWNER/NAME (the one of this folder).",
    "resume": "Run a no-transaction file that was cut off again, from its beginning.",
    "revoke_extra": "Take away what the roles have beyond the design.",
    "secrets_file": "Set POSTGRES_DSN in this dotenv file, which then only you can read.",
    "statement_timeout": "How long one statement of the role may take (60s).",
    "terminate": "Close the connections that are left at the deadline.",
    "to": "Stop after this version.",
    "wait": "Seconds to wait for a server that isn't up yet (0).",
    "yes": "Don't ask.",
}


def command(body: Callable[..., ExitCode | None]) -> Task[Any]:
    """Makes a task: its flags' help from FLAGS, SIGTERM as Ctrl-C, and an OpsError as a message and an exit code."""

    @functools.wraps(body)
    def run(_: Context, **flags: Any) -> None:
        console = Console(as_json=flags.get("json", False), in_actions=settings.in_github_actions())
        try:
            with shell.terminate_as_interrupt():
                code = body(console, **flags) or ExitCode.OK
        except OpsError as error:
            console.failure(error)
            code = error.exit_code
        except KeyboardInterrupt:
            console.failure(Interrupted("interrupted"))
            code = ExitCode.INTERRUPTED
        except BrokenPipeError:  # the reader of our output, `head` say, has gone
            sys.stderr.close()
            code = ExitCode.FAILED
        if code is not ExitCode.OK:
            raise Exit(code=int(code))

    names = list(inspect.signature(body).parameters)[1:]
    return cast("Task[Any]", task(run, help={name: FLAGS[name] for name in names}, auto_shortflags=False))


def seconds(flag: str, value: str | None, default: float) -> float:
    """A flag's value as a number of seconds."""
    try:
        number = default if value is None else float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise UsageError(f"--{flag} {value}: not a number of seconds")
    return number


def folder(value: str | None) -> Path:
    """The migrations folder that a flag names, else the project's."""
    if value == "":
        raise UsageError("--migrations-dir is empty", "give it a value, or leave it away")
    return Path(value).resolve() if value else settings.MIGRATIONS


def major_version(value: str | None) -> int | None:
    """A major version of PostgreSQL as a number."""
    if value is not None and not (value.isascii() and value.isdigit()):
        raise UsageError(f"--postgres-version {value}: a major version is meant, such as 16")
    return None if value is None else int(value)


def confirmed(question: str, yes: bool) -> None:
    """Asks before something is destroyed. Raises UsageError when nobody is there to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is at the terminal to say so", "add --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise OpsError("nothing was deleted")


@command
def quickstart(console: Console, docker: bool = False, postgres_version: str | None = None) -> None:
    """Do the main job on this machine: a Postgres, the migrations, and what stands then."""
    from scripts import quickstart as quickstarting

    quickstarting.run(console, docker=docker, version=major_version(postgres_version))


@command
def up(console: Console, docker: bool = False, postgres_version: str | None = None, json: bool = False) -> None:
    """Start the Postgres of this machine, embedded or in Docker; once is enough."""
    from scripts import server

    found = settings.sources()
    running = server.up(found, docker=docker, version=major_version(postgres_version), say=console.note)
    server.show(running, console)


@command
def down(console: Console, purge: bool = False, yes: bool = False) -> None:
    """Stop the Postgres of this machine; --purge deletes its data."""
    from scripts import server

    if purge and server.describe():
        confirmed(f"Delete the data of {server.describe()}?", yes)
    name, stopped = server.down(settings.sources(), purge=purge, say=console.say)
    console.say(f"{name}: {'stopped' if stopped else 'was not running'}")


@command
def migrate(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    to: str | None = None,
    plan: bool = False,
    allow_out_of_order: bool = False,
    resume: bool = False,
    wait: str | None = None,
    lock_wait: str | None = None,
    json: bool = False,
) -> None:
    """Apply the pending migrations, each in one transaction with its ledger row."""
    from scripts import migrate as migrating
    from scripts import target

    migrating.run(
        target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console),
        migrating.Options(
            folder=folder(migrations_dir),
            to=to,
            plan_only=plan,
            allow_out_of_order=allow_out_of_order,
            resume=resume,
            wait=seconds("wait", wait, 0.0),
            lock_wait=seconds("lock-wait", lock_wait, 300.0),
        ),
        console,
    )


@command
def status(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    wait: str | None = None,
    json: bool = False,
) -> ExitCode:
    """Show the state of every migration; exit code 3 when something is pending or wrong."""
    from scripts import status as stating
    from scripts import target

    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    return stating.run(goal, folder(migrations_dir), seconds("wait", wait, 0.0), console)


@command
def roles(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    backtest_service_user: str | None = None,
    backtest_service_password: str | None = None,
    backtest_service_password_file: str | None = None,
    keep_password: bool = False,
    connection_limit: str | None = None,
    statement_timeout: str | None = None,
    lock_timeout: str | None = None,
    idle_in_transaction_timeout: str | None = None,
    emit_secrets: bool = False,
    secrets_file: str | None = None,
    github_secret: str | None = None,
    github_environment: str | None = None,
    repo: str | None = None,
    plan: bool = False,
    check: bool = False,
    revoke_extra: bool = False,
    wait: str | None = None,
    lock_wait: str | None = None,
    json: bool = False,
) -> ExitCode:
    """Make the application's least-privileged login role, test it, and hand its DSN over."""
    from scripts import handover, logins, target
    from scripts import roles as role_making

    if dsn == "-" and backtest_service_password == "-":
        raise UsageError("--dsn - and --backtest-service-password - both read stdin", "put one of them into the environment")
    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    if backtest_service_password not in (None, "-"):
        console.note("warning: other users of this machine can read a password in an argument; `-` reads it from stdin")
    timeouts = {
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "idle_in_transaction_session_timeout": idle_in_transaction_timeout,
    }
    return role_making.run(
        goal,
        role_making.Options(
            wanted=logins.wanted(settings.app_user(backtest_service_user, goal.found), connection_limit, timeouts),
            destinations=handover.destinations(
                emit=emit_secrets,
                secrets_file=secrets_file,
                github_secret=github_secret,
                github_environment=github_environment,
                repo=repo,
                target=goal,
            ),
            password=None
            if check or plan
            else settings.app_password(backtest_service_password, backtest_service_password_file, goal.found),
            keep_password=keep_password,
            plan_only=plan,
            check_only=check,
            revoke_extra=revoke_extra,
            wait=seconds("wait", wait, 0.0),
            lock_wait=seconds("lock-wait", lock_wait, 300.0),
        ),
        console,
    )


@command
def rotate(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    backtest_service_user: str | None = None,
    emit_secrets: bool = False,
    secrets_file: str | None = None,
    github_secret: str | None = None,
    github_environment: str | None = None,
    repo: str | None = None,
    plan: bool = False,
    finish: bool = False,
    abort: bool = False,
    terminate: bool = False,
    deadline: str | None = None,
    quiet: str | None = None,
    wait: str | None = None,
    lock_wait: str | None = None,
    json: bool = False,
) -> None:
    """Change the application's secret without downtime: begin, deploy the new DSN, then --finish."""
    from scripts import handover, logins, target
    from scripts import rotate as rotating

    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    rotating.run(
        goal,
        rotating.Options(
            wanted=logins.wanted(settings.app_user(backtest_service_user, goal.found), None, {}),
            destinations=handover.destinations(
                emit=emit_secrets,
                secrets_file=secrets_file,
                github_secret=github_secret,
                github_environment=github_environment,
                repo=repo,
                target=goal,
            ),
            finish=finish,
            abort=abort,
            terminate=terminate,
            plan_only=plan,
            deadline=seconds("deadline", deadline, 300.0),
            quiet=seconds("quiet", quiet, 10.0),
            wait=seconds("wait", wait, 0.0),
            lock_wait=seconds("lock-wait", lock_wait, 300.0),
        ),
        console,
    )


@command
def psql(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    as_app: bool = False,
) -> ExitCode:
    """Open a psql on the database, as the administrator or with --as-app as the application."""
    from scripts import target

    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    return ExitCode.OK if (goal.as_app(console) if as_app else goal).attach() == 0 else ExitCode.FAILED


@command
def push(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    emit_secrets: bool = False,
    secrets_file: str | None = None,
    github_secret: str | None = None,
    github_environment: str | None = None,
    repo: str | None = None,
    json: bool = False,
) -> None:
    """Put the application's DSN, POSTGRES_DSN, where it belongs: a dotenv file, a secret of GitHub."""
    from scripts import handover, target

    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=None, docker=False, console=console)
    handover.push(
        (goal if dsn else goal.as_app(console)).dsn,
        handover.destinations(
            emit=emit_secrets,
            secrets_file=secrets_file,
            github_secret=github_secret,
            github_environment=github_environment,
            repo=repo,
            target=goal,
        ),
        console,
    )


namespace = Collection(quickstart, up, down, migrate, status, roles, rotate, psql, secret=Collection(push))
namespace.configure({"tasks": {"dedupe": False}})
