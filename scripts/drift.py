"""Says where a database is otherwise than its migration files make it, and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scripts import comparison, ledger, safety
from scripts.comparison import Files
from scripts.console import Console, one_line
from scripts.errors import ExitCode, counted
from scripts.plan import Entry, State, make_plan
from scripts.settings import MIGRATIONS, folder_flag, shown
from scripts.target import Target


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags of `invoke migrations.drift` say."""

    folder: Path = MIGRATIONS
    to: str | None = None
    all_roles: bool = False
    wait: float = 0.0  # seconds


def run(goal: Target, options: Options, console: Console) -> ExitCode:
    """Shows every difference; PENDING when there is one.

    The files that the ledger has count; all of them, when there is no ledger; those up to a version, when one is named.
    """
    found, _ = safety.read_folder(options.folder)

    def command(words: str) -> str:
        return goal.command(words, options.folder)

    live = goal.ask(comparison.look, wait=options.wait)
    facts = live.facts
    plan = make_plan(found, live.rows, command=command, to=options.to)
    console.say(f"target: {goal.dsn} (PostgreSQL {facts.version})")
    files = [entry for entry in plan.entries if entry.migration is not None]
    left_out = [entry for entry in files if not _counts(entry, facts, options.to)]
    if not facts.ledger:
        console.note("the database has no ledger: it is compared with all files" + (f" up to {options.to}" if options.to else ""))
    elif left_out:
        console.say(f"{len(left_out)} pending, not counted: {', '.join(one_line(entry.file) for entry in left_out)}")
    for entry in plan.entries:
        if entry not in left_out and entry.state not in (State.APPLIED, State.PENDING, State.OUT_OF_ORDER, State.RETIRED):
            console.note(f"{one_line(entry.file)} is {entry.state.value} (`{command('status')}`), and counts as it is now")
    counting = Files(folder=options.folder, left_out=[entry.file for entry in left_out], none=len(left_out) == len(files))
    again = " ".join(filter(None, ["invoke migrations.drift", goal.flags, *_flags(options)]))
    differences = comparison.compare(goal, live, counting, all_roles=options.all_roles, again=again, console=console)
    comparison.show(differences, console)
    what = f"the {counted(len(files) - len(left_out), 'file')} of {shown(options.folder)}"
    if differences:
        legend = "+ is how the database has it, - how the files make it"
        console.say(f"{counted(len(differences), 'difference')} between {facts.database} and {what} ({legend})")
    else:
        console.say(f"no drift: {facts.database} is as {what} make it")
    console.document(
        {
            "target": str(goal.dsn),
            "server_version": facts.version,
            "files": [entry.file for entry in files if entry not in left_out],
            "pending": [entry.file for entry in left_out],
            "differences": comparison.document(differences),
        }
    )
    return ExitCode.PENDING if differences else ExitCode.OK


def _counts(entry: Entry, facts: ledger.Facts, to: str | None) -> bool:
    assert entry.migration is not None  # it has a file
    if to is not None:
        return not entry.migration.repeatable and entry.migration.number <= int(to)
    return entry.row is not None or not facts.ledger


def _flags(options: Options) -> list[str]:
    """The flags that ask for the same again, as a shell takes them."""
    return [
        *folder_flag(options.folder),
        *([f"--to {options.to}"] if options.to else []),
        *(["--roles"] if options.all_roles else []),
    ]
