"""Puts one row of the ledger right: the checksum of a file that was changed on purpose, or a `started` that nobody ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scripts import explain, ledger, lock, runner, safety
from scripts.console import Console
from scripts.errors import OpsError, UsageError
from scripts.plan import Entry, State, make_plan
from scripts.psql import Session
from scripts.settings import MIGRATIONS
from scripts.shell import quoted
from scripts.target import Target


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags of `invoke migrations.repair` say; times in seconds."""

    version: str
    folder: Path = MIGRATIONS
    target: str | None = None  # HOST/DATABASE, which else has to be typed
    plan_only: bool = False
    wait: float = 0.0
    lock_wait: float = runner.LOCK_WAIT

    def again(self, target: Target) -> str:
        """The command that was given."""
        return target.command(f"migrations.repair {quoted(self.version)}", self.folder)


def run(goal: Target, options: Options, console: Console) -> None:
    """Shows what it will do to the row, asks for the database, and does it. Raises UsageError and OpsError."""
    again = options.again(goal)
    name = f"{goal.dsn.hosts[0]}/{goal.dsn.database}"
    if options.target not in (None, name):
        raise UsageError(
            f"--target {options.target}: the database is {name} (it came from {goal.origin})", f"{again} --target {quoted(name)}"
        )
    console.say(f"target: {goal.dsn}")
    entry = goal.ask(lambda session: _entry(session, goal, options, again), wait=options.wait)
    what, statement = _repair(entry, goal, options)
    console.say(what)
    document = {
        "target": str(goal.dsn),
        "version": entry.version,
        "file": entry.file,
        "state": entry.state.value,
        "checksum_in_ledger": entry.row.checksum if entry.row else None,
        "checksum_of_file": entry.migration.checksum if entry.migration else None,
        "written": False,
    }
    if options.plan_only:
        console.say("nothing was written")
        console.document(document)
        return
    question = f"This changes the ledger of {name}, and nothing else."
    console.confirm_by_name(question, name, yes=options.target == name, again=again, flag=f"--target {quoted(name)}")
    with explain.refusals(goal, again):
        goal.ask(lambda session: _write(session, entry, statement, goal, options, again, console))
    console.say(f"{entry.file}: done; shown by: {goal.command('status', options.folder)}")
    console.document({**document, "written": True})


def _entry(session: Session, goal: Target, options: Options, again: str) -> Entry:
    """What the ledger and the folder say of the version."""
    folder, _ = safety.read_folder(options.folder)
    facts, rows = ledger.observe(session.read)
    if not facts.ledger:
        raise OpsError(f"{facts.database} has no ledger", f"{goal.command('migrate', options.folder)} makes it")
    plan = make_plan(folder, rows, command=lambda words: goal.command(words, options.folder))
    if plan.folder.problems:
        raise safety.refusal(plan.folder.problems, options.folder, again)
    found = [entry for entry in plan.entries if options.version in (entry.version, entry.file) or _same(entry, options.version)]
    if not found:
        raise UsageError(
            f"{options.version}: neither a file nor a row has this version",
            f"{goal.command('status', options.folder)} lists them",
        )
    return found[0]


def _same(entry: Entry, version: str) -> bool:
    return entry.version.isdigit() and version.isascii() and version.isdigit() and int(entry.version) == int(version)


def _repair(entry: Entry, goal: Target, options: Options) -> tuple[str, str]:
    """What will be done, for a reader and for the server. Raises OpsError, when there is nothing that a row could mend."""
    row = entry.row
    then = f"at {row.applied_at} by {row.applied_by}" if row else ""
    if entry.state is State.CHANGED and entry.migration is not None and row is not None:
        what = (
            f"{entry.file} was changed after it was applied {then}.\n"
            f"  recorded: {row.checksum}\n  the file: {entry.migration.checksum}\n"
            "The file's is recorded; it is not run: what its change means for this database is yours to see to."
        )
        return what, ledger.recorded_anew(row, entry.migration)
    if entry.state is State.STARTED and row is not None:
        what = (
            f"{entry.file} was started {then} and has not ended.\n"
            "Its row is deleted, so that it counts as never run; what it has done so far stays."
        )
        return what, ledger.forgotten(row)
    way = {
        State.MISSING: "put the file back (git log finds it)",
        State.APPLIED: goal.command("status", options.folder),
    }.get(entry.state, goal.command("migrate", options.folder))
    raise OpsError(f"{entry.file} is {entry.state.value}: only what is changed or started can be repaired", way)


def _write(session: Session, entry: Entry, statement: str, goal: Target, options: Options, again: str, console: Console) -> None:
    """Under the lock, and only if the row still is what was shown."""
    goal.refuse_pooler(session, again)
    lock.acquire(session, wait=options.lock_wait, again=again, note=console.note)
    if _entry(session, goal, options, again).row != entry.row:
        raise OpsError(f"another runner has changed the row of {entry.file} meanwhile; nothing was written", again)
    session.query(statement)
