"""Adopts a database that has its schema already: files are recorded as applied, and none of them runs."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import comparison, explain, git, ledger, lock, runner, safety
from scripts.comparison import Files
from scripts.console import Console, one_line
from scripts.errors import OpsError, Pending, UsageError, counted
from scripts.plan import make_plan
from scripts.psql import Session
from scripts.settings import MIGRATIONS, shown
from scripts.sql import Migration
from scripts.target import Target


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags of `invoke migrations.baseline` say; times in seconds."""

    folder: Path = MIGRATIONS
    to: str
    accept_drift: bool = False
    plan_only: bool = False
    yes: bool = False
    wait: float = 0.0
    lock_wait: float = runner.LOCK_WAIT

    def again(self, target: Target) -> str:
        """The command that was given, but for what it was allowed."""
        return f"{target.command('migrations.baseline', self.folder)} --to {self.to}"


def run(goal: Target, options: Options, console: Console) -> None:
    """Records the files up to a version, after a comparison of the live schema with what they build on a scratch server.

    Raises Pending, when the two differ and that isn't accepted; OpsError. Nothing but the ledger is written.
    """
    again = options.again(goal)
    folder, _ = safety.read_folder(options.folder)

    live = goal.ask(comparison.look, wait=options.wait)
    facts = live.facts
    plan = make_plan(
        folder, live.rows, command=lambda words: goal.command(words, options.folder), to=options.to, allow_out_of_order=True
    )
    console.say(f"target: {goal.dsn} (PostgreSQL {facts.version})")
    if plan.problems:
        raise safety.refusal(plan.problems, options.folder, again)
    if plan.started:
        first = f"{goal.command('migrate', options.folder)} --resume"
        raise OpsError(f"{plan.started[0].file} was started and has not ended", f"first: {first}")
    wanted = list(plan.pending)
    document: dict[str, Any] = {
        "target": str(goal.dsn),
        "recorded": [],
        "files": [migration.file for migration in wanted],
        "differences": [],
    }
    if not wanted:
        console.say(f"nothing to do: {facts.database} has all files up to {options.to} in its ledger")
        console.document(document)
        return
    last = int(options.to)
    later = [item.file for item in folder.migrations if item.number > last]
    repeated = [item.file for item in folder.repeatables]
    counting = Files(folder=options.folder, left_out=[*later, *repeated])
    compare = functools.partial(comparison.compare, goal, live, all_roles=False, made_roles=True, again=again, console=console)
    differences = compare(counting)
    if differences and repeated:  # whose work may be there as well, unless it takes what a later file makes
        with contextlib.suppress(OpsError):
            differences = min(differences, compare(Files(folder=options.folder, left_out=later)), key=len)
    comparison.show(differences, console)
    document["differences"] = comparison.document(differences)
    what = f"{counted(len(wanted), 'file')} of {shown(options.folder)} up to {options.to}"
    if differences and not options.accept_drift:
        raise Pending(
            f"{facts.database} is not what {what} make of it: {counted(len(differences), 'difference')}; nothing was recorded",
            f"mend the one or the other; or, if that may be so: {again} --accept-drift",
            document,
        )
    console.say(
        f"{facts.database} is as they make it" if not differences else f"{counted(len(differences), 'difference')}, accepted"
    )
    for migration in wanted:
        console.say(f"  {'would record' if options.plan_only else 'record'} {migration.file} as applied")
    if options.plan_only:
        console.say(f"{len(wanted)} to record; nothing was written")
        console.document(document)
        return
    console.confirm(f"Record {what} as applied to {facts.database} on {goal.dsn.hosts[0]}?", yes=options.yes, again=again)
    with explain.refusals(goal, again):
        goal.ask(lambda session: _record(session, goal, wanted, options, again, console))
    console.say(f"recorded {what}; the next `invoke migrate` goes on behind {options.to}")
    console.document({**document, "recorded": document["files"]})


def _record(session: Session, goal: Target, wanted: list[Migration], options: Options, again: str, console: Console) -> None:
    goal.refuse_pooler(session, again)
    lock.acquire(session, wait=options.lock_wait, again=again, note=console.note)
    facts, rows = ledger.observe(session.read)
    taken = {row.number for row in rows}
    meanwhile = [one_line(migration.file) for migration in wanted if migration.number in taken]
    if meanwhile:
        raise OpsError(f"another runner has recorded {', '.join(meanwhile)} meanwhile; nothing was written", again)
    runner.make_ledger(session, facts)
    revision = git.revision(options.folder, goal.env)
    statements = [ledger.adopted(migration, revision) for migration in wanted]
    session.query(";\n".join(["BEGIN", *statements, "COMMIT"]))


def version(value: str | None) -> str:
    """The version that --to names. Raises UsageError when it names none."""
    if value is None or not (value.isascii() and value.isdigit()):
        raise UsageError(
            "--to VERSION: which files does the database have already?" if value is None else f"--to {value}: not a version",
            "the digits of the newest file whose work is there; `invoke status` lists the files",
        )
    return value
