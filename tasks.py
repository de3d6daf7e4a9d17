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
    "allow_out_of_order": "Apply a pending file although a newer one is applied.",
    "docker": "Use Docker: for psql, and for the server of `up` and `quickstart`.",
    "dsn": "The database, as postgresql://USER:PASSWORD@HOST:5432/DB?sslmode=require; `-` reads it from stdin.",
    "env_file": "Read settings from this file instead of .env.",
    "json": "Print the result as one JSON document.",
    "local": "Use the server of `invoke up`; start it when it isn't running.",
    "lock_wait": "Seconds to wait for another runner to finish (300).",
    "migrations_dir": "The folder of the migrations (migrations/).",
    "plan": "Show what would be done and write nothing.",
    "postgres_version": "The PostgreSQL of the server: 16 or 18 embedded, any with --docker (16).",
    "psql": "Where psql comes from: local, docker, embedded or auto (auto).",
    "purge": "Delete the server's data as well.",
    "resume": "Run a no-transaction file that was cut off again, from its beginning.",
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


namespace = Collection(quickstart, up, down, migrate, status)
namespace.configure({"tasks": {"dedupe": False}})
