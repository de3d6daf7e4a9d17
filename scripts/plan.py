"""The folder against the ledger: the state of every migration, what would run, and what stands in its way. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from scripts import naming
from scripts.errors import UsageError
from scripts.ledger import Row
from scripts.settings import shown
from scripts.shell import quoted
from scripts.sql import Folder, Migration, Problem, duplicates, version_of


class State(Enum):
    """What is to be said of one migration."""

    APPLIED = "applied"
    PENDING = "pending"
    STARTED = "started"  # a no-transaction file whose end the ledger doesn't have
    CHANGED = "changed"  # applied, and the file is another now
    MISSING = "missing"  # applied, and the file is gone
    OUT_OF_ORDER = "out of order"  # pending, and a newer one is applied
    OUTDATED = "outdated"  # a repeatable file that is another now: it will run again
    RETIRED = "retired"  # a repeatable file that is gone; what it made is a numbered file's to drop


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One migration: its file, its row, or both."""

    state: State
    version: str
    file: str
    migration: Migration | None
    row: Row | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All migrations in order, and those that a run would apply."""

    folder: Folder  # with what is wrong with it as the ledger lets it be told
    entries: tuple[Entry, ...]
    pending: tuple[Migration, ...]
    problems: tuple[Problem, ...]

    @property
    def started(self) -> tuple[Entry, ...]:
        """The no-transaction files that began and have not ended."""
        return tuple(entry for entry in self.entries if entry.state is State.STARTED)

    def count(self, state: State) -> int:
        """How many migrations are in a state."""
        return sum(entry.state is state for entry in self.entries)


def _anywhere(words: str) -> str:
    return f"invoke {words}"


def make_plan(
    folder: Folder,
    rows: Sequence[Row],
    *,
    command: Callable[[str], str] = _anywhere,
    to: str | None = None,
    allow_out_of_order: bool = False,
) -> Plan:
    """Compares the folder with the ledger's rows. Raises UsageError when `to` names no file.

    With `to`, no repeatable file is pending: it may rest on a numbered one behind that. `command` makes a command for this
    database and folder out of its words, for what is said of a problem.
    """
    by_number = {row.number: row for row in rows if row.number is not None}
    newest = max((row for row in rows if row.state == "applied" and row.number is not None), key=_number_of, default=None)
    doubles = _second_files(folder, by_number)
    entries = [
        Entry(state=State.PENDING, version=migration.version, file=migration.file, migration=migration, row=None)
        if migration.file in doubles
        else _entry(migration, by_number.get(migration.number), newest)
        for migration in folder.migrations
    ]
    numbers = {migration.number for migration in folder.migrations}
    repeated = {row.version: row for row in rows if row.repeatable}
    for row in rows:
        if row.number not in numbers and not row.repeatable:
            file = f"{row.version}_{row.name}.sql" if row.name else row.version
            entries.append(Entry(state=State.MISSING, version=row.version, file=file, migration=None, row=row))
    entries.sort(key=lambda entry: (_number_of(entry.row) if entry.row else int(entry.version), entry.file))
    entries += [_repeatable(migration, repeated.pop(migration.version, None)) for migration in folder.repeatables]
    for version, row in sorted(repeated.items()):
        entries.append(Entry(state=State.RETIRED, version=version, file=f"{version}.sql", migration=None, row=row))
    last = None if to is None else _last(to, folder, command)
    pending = tuple(
        entry.migration
        for entry in entries
        if entry.migration is not None
        and entry.state in (State.PENDING, State.STARTED, State.OUT_OF_ORDER, State.OUTDATED)
        and (last is None or (not entry.migration.repeatable and entry.migration.number <= last))
    )
    folder = replace(folder, problems=_as_the_ledger_says(folder, doubles))
    problems = [*folder.problems, *_doubles(rows)]
    unread = {int(digits) for problem in folder.problems if (digits := version_of(problem.file))} - numbers
    for entry in entries:
        if entry.state is State.MISSING and entry.row is not None and entry.row.number in unread:
            continue  # the file is there: what it holds can't be told, which is told already
        what = _problem(entry, folder, newest, command, allow_out_of_order=allow_out_of_order)
        if what and (entry.migration is None or entry.migration in pending or entry.state is State.CHANGED):
            problems.append(Problem(entry.file, None, what))
    return Plan(folder=folder, entries=tuple(entries), pending=pending, problems=tuple(problems))


def _entry(migration: Migration, row: Row | None, newest: Row | None) -> Entry:
    if row is None:
        behind = newest is not None and migration.number < _number_of(newest)
        state = State.OUT_OF_ORDER if behind else State.PENDING
    elif row.state == "started":
        state = State.STARTED
    elif row.checksum is not None and row.checksum != migration.checksum:  # an older ledger has no checksums
        state = State.CHANGED
    else:
        state = State.APPLIED
    return Entry(state=state, version=migration.version, file=migration.file, migration=migration, row=row)


def _second_files(folder: Folder, rows: Mapping[int, Row]) -> dict[str, Problem]:
    """The files beside the one of the same number that the ledger has, with what is to be said of each."""
    same: dict[int, list[Migration]] = {}
    for migration in folder.migrations:
        same.setdefault(migration.number, []).append(migration)
    names = [file.file for file in folder.migrations]
    found: dict[str, Problem] = {}
    for number, files in same.items():
        row = rows.get(number)
        if row is None or len(files) == 1:
            continue
        applied = next(
            (file for file in files if file.checksum == row.checksum),
            next((file for file in files if file.name == row.name), files[0]),
        )
        for file in files:
            if file is not applied:
                free = naming.file_name(max(*same, *rows) + 1 + len(found), file.name, names)
                what = f"has the same version as {applied.file}, which the ledger has: rename it, to {free} for instance"
                found[file.file] = Problem(file.file, None, what)
    return found


def _as_the_ledger_says(folder: Folder, doubles: Mapping[str, Problem]) -> tuple[Problem, ...]:
    """What is wrong with the folder; of two files of one number, the one that it has not is the second."""
    undecided = [file for file in folder.migrations if file.file not in doubles]
    told = {*duplicates(folder.migrations)} - {*duplicates(undecided)}
    return (*(problem for problem in folder.problems if problem not in told), *doubles.values())


def _doubles(rows: Sequence[Row]) -> list[Problem]:
    """Rows of one number, of which nobody could tell which one counts."""
    versions: dict[int, list[str]] = {}
    for row in rows:
        if row.number is not None:
            versions.setdefault(row.number, []).append(row.version)
    double = [sorted(same) for same in versions.values() if len(same) > 1]
    return [
        Problem(" and ".join(same), None, "are two rows of the ledger for one number: delete the wrong one") for same in double
    ]


def _repeatable(migration: Migration, row: Row | None) -> Entry:
    state = State.PENDING if row is None else State.APPLIED if row.checksum == migration.checksum else State.OUTDATED
    return Entry(state=state, version=migration.version, file=migration.file, migration=migration, row=row)


def _problem(entry: Entry, folder: Folder, newest: Row | None, command: Callable[[str], str], *, allow_out_of_order: bool) -> str:
    if entry.state is State.CHANGED:
        path, repair = quoted(shown(folder.path / entry.file)), command(f"migrations.repair {entry.version}")
        return f"was changed after it was applied (git restore {path} undoes what isn't committed; if it is meant: {repair})"
    if entry.state is State.MISSING:
        path, started = quoted(shown(folder.path / entry.file)), entry.row is not None and entry.row.state == "started"
        way = f" (git restore {path}, or where that is committed: git log -- {path})" if entry.file.endswith(".sql") else ""
        return f"{'was started and has not ended' if started else 'is applied'}, and its file is gone{way}"
    if entry.state is State.OUT_OF_ORDER and not allow_out_of_order and newest is not None:
        return f"is pending, and the newer {newest.version} is applied already (--allow-out-of-order lets it through)"
    return ""


def _number_of(row: Row) -> int:
    return -1 if row.number is None else row.number


def _last(to: str, folder: Folder, command: Callable[[str], str]) -> int:
    known = [migration.number for migration in folder.migrations]
    if not (to.isascii() and to.isdigit()) or int(to) not in known:
        newest = folder.migrations[-1].version if folder.migrations else "none"
        raise UsageError(f"--to {to}: no migration has that version", f"the newest is {newest}; {command('status')} lists them")
    return int(to)
