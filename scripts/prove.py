"""`invoke migrations.prove`: whether files come to the same however they are applied, on throwaway servers.

Every verdict is a comparison of whole dumps, schema, rows and roles, with that of one undisturbed build. The clock of all of
them stands still, so that a file which depends on the day is told by a build on another one, and by nothing else.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts import PRODUCT, builds, clock, ledger, lexer, scratch, settings
from scripts.builds import Database, Files
from scripts.clients import Mode
from scripts.console import Console
from scripts.errors import OpsError, counted
from scripts.lexer import Statement
from scripts.schema import Difference, Thing
from scripts.scratch import Server, Servers
from scripts.sql import Migration

_PREFIXES = 24  # from which an upgrade is tried; of a longer folder, so many all over it
_CUTS = 12  # in one file, likewise
_SHOWN = 30  # lines of a difference
_WIDTH = 66  # of the column of checks
_REPLAY, _ANOTHER_DAY = "every file run again by force", "on another day"
_CUT = "DO $$BEGIN RAISE EXCEPTION 'cut off here'; END$$;\n"
# As an interruption leaves the index that was being built.
_BREAK_INDEX = """UPDATE pg_catalog.pg_index SET indisvalid = false
  WHERE indexrelid = (SELECT max(indexrelid) FROM pg_catalog.pg_index WHERE indexrelid >= 16384)"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags of `invoke migrations.prove` say."""

    folder: Path
    version: int = settings.DEFAULT_VERSION  # of the servers
    replay: bool = True
    clock: bool = True
    again: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A check that a folder doesn't bear: which file, and what it did."""

    file: str
    what: str
    diff: str = ""
    not_tried: bool = False  # it could not be tried here, and `what` is why


Task = Callable[[], Failure | None]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the proof: tasks that may run side by side; of what can't be tried here, why."""

    name: str
    tasks: Sequence[Task] = ()
    not_tried: str = ""


def run(options: Options, env: Mapping[str, str], console: Console) -> None:
    """Prints a line for each check, with its time. Raises OpsError with the first difference."""
    files = Files.read(options.folder, options.again)
    if not files.checked:
        raise OpsError(f"{options.folder} holds no migrations", "invoke migrations.new NAME writes the first one")
    console.say(f"{counted(len(files.checked), 'file')} of {settings.shown(options.folder)}, on PostgreSQL {options.version}")
    with (
        tempfile.TemporaryDirectory(prefix=f"{PRODUCT}-prove-") as name,
        scratch.servers(env) as servers,
        _pool(servers) as pool,
    ):
        proof = _Proof(files, options, env, servers, Path(name))
        began = time.monotonic()
        proof.build()
        console.say(f"  built  {'once, as the measure':<{_WIDTH}}{time.monotonic() - began:6.1f} s")
        told = [_tell(check, started, console) for check, started in [(check, _start(pool, check)) for check in proof.checks()]]
    _end(told, options, console)


@contextlib.contextmanager
def _pool(servers: Servers) -> Iterator[ThreadPoolExecutor]:
    """Threads, as many as there are cores. When the block ends early, their servers are taken away first, so that they end."""
    pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(OpsError):  # of a server that a thread is ending at the same moment
            servers.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(pool: ThreadPoolExecutor, check: Check) -> list[Future[tuple[Failure | None, float]]]:
    def timed(task: Task) -> tuple[Failure | None, float]:
        began = time.monotonic()
        try:
            failure = task()
        except OpsError as error:
            failure = _failed(error)
        return failure, time.monotonic() - began

    return [pool.submit(timed, task) for task in check.tasks]


def _tell(check: Check, started: Sequence[Future[tuple[Failure | None, float]]], console: Console) -> dict[str, Any]:
    """Waits for a check and prints its line; returns what the document says of it."""
    results = [future.result() for future in started]
    failure = next((failure for failure, _ in results if failure), None)
    seconds = sum(seconds for _, seconds in results)
    said: dict[str, Any] = {"check": check.name, "verdict": "holds", "seconds": round(seconds, 2)}
    missing = check.not_tried or (failure.what if failure and failure.not_tried else "")
    if missing:
        console.say(f"  -      {check.name}: not tried, {missing}")
        return {**said, "verdict": "not tried", "why": missing}
    if failure is None:
        console.say(f"  holds  {check.name:<{_WIDTH}}{seconds:6.1f} s")
        return said
    console.say(f"  FAILS  {check.name:<{_WIDTH}}{seconds:6.1f} s  {failure.file}")
    console.say("         " + failure.what.partition("\n")[0])
    return {**said, "verdict": "fails", "file": failure.file, "what": failure.what, "diff": failure.diff}


def _end(told: Sequence[dict[str, Any]], options: Options, console: Console) -> None:
    facts = {"folder": str(options.folder), "version": options.version, "checks": list(told)}
    failed = [item for item in told if item["verdict"] == "fails"]
    if failed:
        first = failed[0]
        lines = first["diff"].split("\n") if first["diff"] else []
        rest = [f"... {len(lines) - _SHOWN} lines more (--json has all)"] if len(lines) > _SHOWN else []
        what = "\n  ".join([f"{first['check']}: {first['what']}", *lines[:_SHOWN], *rest])
        flag = {_REPLAY: "--no-replay", _ANOTHER_DAY: "--no-clock"}.get(first["check"])
        instead = f"; or, if it isn't meant to bear that: {options.again} {flag}" if flag else ""
        raise OpsError(what, f"mend {first['file'] or 'the files'}, then: {options.again}{instead}", facts)
    tried = [item for item in told if item["verdict"] != "not tried"]
    console.say(f"{counted(len(tried), 'check')}: all hold")
    console.document(facts)


class _Proof:
    """The checks of one folder."""

    def __init__(self, files: Files, options: Options, env: Mapping[str, str], servers: Servers, place: Path) -> None:
        self.files = files
        self.options = options
        self.env = env
        self.servers = servers
        self.place = place
        self.order = [item.migration for item in files.checked.values()]
        self.whole = self.folder(self.order)
        self.measure: list[Thing] = []

    def folder(self, migrations: Sequence[Migration], *, file: str = "", text: str = "") -> Path:
        """A folder with these files; `text` is what one of them says instead."""
        path = Path(tempfile.mkdtemp(dir=self.place))
        for migration in migrations:
            self.files.write(path, migration.file, text if migration.file == file else None)
        return path

    @contextlib.contextmanager
    def server(self, moment: datetime = clock.TODAY) -> Iterator[tuple[Server, Database]]:
        """A server with an empty database in which the clock stands still."""
        with self.servers.server(self.options.version) as server:
            yield server, self.database(server).stop_clock(moment)

    def database(self, server: Server) -> Database:
        """The database of a server, at the port that it has now."""
        return Database(dsn=server.dsn, env=self.env)

    def build(self) -> None:
        """The undisturbed build that all others are measured by. Raises OpsError with the file that fails."""
        with self.server() as (_, database):
            try:
                database.migrate(self.whole)
            except OpsError as error:
                hint = f"mend {error.facts.get('failed', 'the files')}, then: {self.options.again}"
                raise OpsError(f"the files can't be applied: {error.message}", hint, error.facts) from None
            self.measure = database.snapshot()

    def checks(self) -> Iterator[Check]:
        """All that is tried, in the order in which it is told."""
        yield Check(name="applied, and applied again: nothing is left to do", tasks=[self.twice])
        if self.options.replay:
            yield Check(name=_REPLAY, tasks=[self.replay])
        else:
            yield Check(name=_REPLAY, not_tried="--no-replay")
        if len(self.order) > 1:
            yield Check(name=f"stopped behind each file, and gone on: {counted(len(self.order) - 1, 'stop')}", tasks=[self.stops])
            chosen = _spread(range(1, len(self.order)), _PREFIXES)
            of = "" if len(chosen) == len(self.order) - 1 else f" of {len(self.order) - 1}"
            tasks = [self.upgrades(part) for part in (chosen[0::2], chosen[1::2]) if part]
            yield Check(name=f"upgraded from {len(chosen)}{of} earlier states", tasks=tasks)
        outside = [migration for migration in self.order if not migration.transactional]
        if outside:
            name = "cut off behind each statement outside a transaction, and resumed"
            yield Check(name=name, tasks=[self.cut_off(migration) for migration in outside])
        yield Check(name="two runners at once", tasks=[self.two_runners])
        yield Check(name="a second database on the same server", tasks=[self.second_database])
        if self.options.clock:
            yield Check(name=_ANOTHER_DAY, tasks=[self.another_day])
        else:
            yield Check(name=_ANOTHER_DAY, not_tried="--no-clock")
        for mode, missing in builds.modes(self.env).items():
            yield Check(name=f"by the {mode.value} psql", tasks=[] if missing else [self.by(mode)], not_tried=missing)

    def compared(self, database: Database, file: str = "", what: str = "it comes to something else") -> Failure | None:
        """A failure, when a database isn't what the measure is."""
        return _failure(builds.difference(self.measure, database.snapshot()), file, what)

    def twice(self) -> Failure | None:
        """A second run has nothing to do."""
        with self.server() as (_, database):
            database.migrate(self.whole)
            again = database.migrate(self.whole)
            if again:
                first = next(migration.file for migration in self.order if migration.version == again[0].version)
                return Failure(file=first, what="a second run applies it again")
            return self.compared(database)

    def replay(self) -> Failure | None:
        """All files again, in order, as if the ledger were lost."""
        with self.server() as (_, database), contextlib.suppress(OpsError):
            database.migrate(self.whole)
            database.execute("DELETE FROM public.schema_migrations")
            database.migrate(self.whole)
            if not self.compared(database):
                return None
        with self.server() as (_, database):  # which of them? The last one that brought in what no later one took back
            database.migrate(self.whole)
            failure: Failure | None = None
            for migration in self.order:
                database.execute(f"DELETE FROM {ledger.TABLE} WHERE version = {ledger.literal(migration.version)}")
                try:
                    database.migrate(self.whole, allow_out_of_order=True)
                except OpsError as error:
                    return failure or _failed(error)
                found = self.compared(database, migration.file, "run again, it comes to something else")
                failure = (failure or found) if found else None
            return failure or Failure(file="", what="run again all together, the files come to something else")

    def stops(self) -> Failure | None:
        """A session of its own for each file."""
        with self.server() as (_, database):
            folder = self.folder([])
            for migration in self.order:
                self.files.write(folder, migration.file)
                database.migrate(folder)
            if not self.compared(database):
                return None
        return self.first_otherwise(clock.TODAY, "applied in a session of its own, it comes to something else", at_once=True)

    def upgrades(self, prefixes: Sequence[int]) -> Task:
        """From states in which the first so many files are applied, to the last, in one go."""

        def task() -> Failure | None:
            with self.server() as (server, _):
                for prefix in prefixes:
                    self.database(server).migrate(self.folder(self.order[:prefix]))
                    with server.copy() as copy:
                        database = self.database(copy)
                        database.migrate(self.whole)
                        last, following = self.order[prefix - 1].file, self.order[prefix].file
                        failure = self.compared(database, following, f"upgraded from {last}, the files come to something else")
                    if failure:
                        return failure
            return None

        return task

    def cut_off(self, migration: Migration) -> Task:
        """A file that runs outside a transaction, ended behind each of its statements and run again from its beginning."""

        def task() -> Failure | None:
            index = self.order.index(migration)
            statements = list(lexer.lex(migration.text).statements)
            with self.server() as (server, database):
                database.migrate(self.folder(self.order[:index]))
                for statement in _spread(statements, _CUTS):
                    for is_broken in (False, True) if _builds_index(statement) else (False,):
                        with server.copy() as copy:
                            failure = self.resumed(self.database(copy), migration, statement, break_index=is_broken)
                        if failure:
                            return failure
            return None

        return task

    def resumed(self, database: Database, migration: Migration, last: Statement, *, break_index: bool) -> Failure | None:
        """One such cut."""
        text = f"{migration.text[: last.end]}\n{_CUT}"
        until = self.order[: self.order.index(migration) + 1]
        with contextlib.suppress(OpsError):
            database.migrate(self.folder(until, file=migration.file, text=text))
        if break_index:
            database.execute(_BREAK_INDEX)
        where = f"cut off behind line {last.end_line} and resumed"
        try:
            database.migrate(self.whole, resume=True)
        except OpsError as error:
            return Failure(file=migration.file, what=f"{where}, it fails: {error.message}")
        return self.compared(database, migration.file, f"{where}, it comes to something else")

    def two_runners(self) -> Failure | None:
        """Two at once: each file once, and both come to an end."""
        with self.server() as (_, database), ThreadPoolExecutor(max_workers=2) as pool:
            runs = [pool.submit(database.migrate, self.whole) for _ in range(2)]
            applied = [item.version for run in runs for item in run.result()]
            if sorted(applied) != sorted(migration.version for migration in self.order):
                return Failure(file="", what=f"two runners applied {len(applied)} files of {len(self.order)}")
            return self.compared(database)

    def second_database(self) -> Failure | None:
        """What belongs to the server, its roles for one, is there already."""
        with self.server() as (_, database):
            database.migrate(self.whole)
            database.execute("CREATE DATABASE another")
            other = Database(dsn=database.dsn.with_params(dbname="another"), env=self.env).stop_clock(clock.TODAY)
            other.migrate(self.whole)
            return self.compared(other)

    def by(self, mode: Mode) -> Task:
        """By another psql."""

        def task() -> Failure | None:
            with self.server() as (_, database):
                try:
                    database.by(mode).reach()
                except OpsError as error:
                    return Failure(file="", what=_missing(mode, error), not_tried=True)
                database.by(mode).migrate(self.whole)
                return self.compared(database)

        return task

    def another_day(self) -> Failure | None:
        """What comes to something else in another year, month, day, hour and second, or by chance."""
        with self.server(clock.ANOTHER_DAY) as (_, database):
            database.migrate(self.whole)
            if not self.compared(database):
                return None
        return self.first_otherwise(clock.ANOTHER_DAY, "on another day, or by chance, it comes to something else")

    def first_otherwise(self, moment: datetime, what: str, *, at_once: bool = False) -> Failure | None:
        """The first file behind which two databases aren't alike: one of today, and one of another moment.

        With `at_once`, the second is made in one go for each file.
        """
        with self.server() as (_, today), self.server(moment) as (_, other):
            folder = self.folder([])
            for count, migration in enumerate(self.order, 1):
                self.files.write(folder, migration.file)
                today.migrate(folder)
                if at_once:
                    with self.server() as (_, whole):
                        whole.migrate(self.folder(self.order[:count]))
                        expected = whole.snapshot()
                else:
                    other.migrate(folder)
                    expected = other.snapshot()
                failure = _failure(builds.difference(today.snapshot(), expected), migration.file, what)
                if failure:
                    return failure
        return Failure(file="", what=what)


def _builds_index(statement: Statement) -> bool:
    """Whether an interruption may leave an INVALID index of it; what else is done concurrently leaves those that there are."""
    return statement.words[:1] == ("CREATE",) and "INDEX" in statement.words and "CONCURRENTLY" in statement.words


def _missing(mode: Mode, error: OpsError) -> str:
    return "its image can't be had (POSTGRES_IMAGE)" if mode is Mode.DOCKER else error.message.partition("\n")[0]


def _failed(error: OpsError) -> Failure:
    """What was kept on a throwaway server is nobody's concern."""
    return Failure(file=str(error.facts.get("failed", "")), what=error.message.partition("\n  kept: ")[0])


def _failure(differences: Sequence[Difference], file: str, what: str) -> Failure | None:
    if not differences:
        return None
    diff = "\n".join(line for item in differences for line in [str(item.thing), *item.diff.splitlines()[2:]])
    return Failure(file=file, what=what, diff=diff)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, from all over, the last one included."""
    if len(items) <= most:
        return list(items)
    return [items[round((number + 1) * len(items) / most) - 1] for number in range(most)]
