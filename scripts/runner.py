"""The migration runner: observe -> plan -> apply -> re-check, in one psql session.

The plan is made twice: before the lock, so that nothing is written when a file is wrong and nothing is locked when
nothing is pending; and again under the lock, from the ledger as the runner before us left it. A file that waited for a
lock in vain was rolled back, and is tried again in a new session.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from scripts import blockers, catalogs, explain, git, ledger, lock, preflight, safety
from scripts.blockers import Blocker
from scripts.console import Console
from scripts.errors import Interrupted, OpsError, counted
from scripts.explain import Run
from scripts.ledger import Facts, Row
from scripts.plan import Plan, make_plan
from scripts.psql import NOT_ALLOWED, Message, PsqlError, Session, Step
from scripts.safety import Checked
from scripts.settings import MIGRATIONS, folder_flag
from scripts.sql import Folder, Migration
from scripts.target import Target

LOCK_TIMEOUT, LOCK_RETRIES, LOCK_WAIT = 5000, 4, 300.0
_LONG = 1.0  # seconds after which it is looked at what a file waits for
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to apply, and how; times in seconds, but those that PostgreSQL gets."""

    folder: Path = MIGRATIONS
    to: str | None = None
    wait: float = 0.0  # for a server that isn't up yet
    lock_wait: float = LOCK_WAIT  # for another runner
    lock_timeout: int = LOCK_TIMEOUT  # milliseconds for a lock on a table, in a transactional file; 0: as long as it takes
    lock_retries: int = LOCK_RETRIES  # times that a file is tried again after that
    statement_timeout: int | None = None  # milliseconds for one statement; None: as the role or the server has it
    allow_out_of_order: bool = False
    resume: bool = False

    @property
    def flags(self) -> Iterator[str]:
        """The flags that ask for the same again, as a shell takes them; --resume is asked for each time."""
        yield from folder_flag(self.folder)
        if self.to is not None:
            yield f"--to {self.to}"
        if self.lock_timeout != LOCK_TIMEOUT:
            yield f"--lock-timeout {self.lock_timeout}ms"
        if self.lock_retries != LOCK_RETRIES:
            yield f"--lock-retries {self.lock_retries}"
        if self.statement_timeout is not None:
            yield f"--statement-timeout {self.statement_timeout}ms"
        if self.allow_out_of_order:
            yield "--allow-out-of-order"


@dataclass(frozen=True, kw_only=True)
class Applied:
    """A file that a run has applied, or rehearsed."""

    version: str
    name: str
    duration_ms: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run found and did."""

    facts: Facts
    plan: Plan  # as it was before anything was applied
    applied: tuple[Applied, ...]


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What a rehearsal came to."""

    facts: Facts
    done: tuple[Applied, ...]
    left_out: Mapping[str, str]  # file -> why it could not be rehearsed


class _Blocked(OpsError):
    """A file waited for a lock in vain, and was rolled back."""

    def __init__(self, file: str, error: OpsError) -> None:
        super().__init__(error.message, error.hint, error.facts)
        self.file = file


@dataclass
class Runner:
    """One run: what it was asked, and what it has found so far."""

    target: Target
    options: Options
    console: Console
    sleep: Callable[[float], None] = time.sleep
    folder: Folder = field(init=False, default=Folder(Path(), (), ()))
    checked: dict[str, Checked] = field(init=False, default_factory=dict)  # what was read through, by file
    left: list[str] = field(init=False, default_factory=list)  # INVALID indexes that --resume drops first, for a plan
    _applied: list[Applied] = field(init=False, default_factory=list)
    _current: Checked | None = field(init=False, default=None)
    _plans: bool = field(init=False, default=False)
    _rehearses: bool = field(init=False, default=False)

    @property
    def again(self) -> str:
        """The command that goes on; after a plan or a rehearsal, with another one."""
        flags = [self.target.flags, *self.options.flags, "--plan" if self._plans else "", "--rehearse" if self._rehearses else ""]
        return " ".join(filter(None, ["invoke migrate", *flags]))

    def plan(self) -> tuple[Facts, Plan]:
        """What a run would do. Nothing is written: the server is only asked in transactions in which it would refuse to."""
        self._plans = True
        return self._connected(self._looked)

    def apply(self) -> Outcome:
        """Applies what is pending. Raises OpsError; what was applied before stays, and another run goes on from there."""
        tries = 0
        while True:
            before = len(self._applied)
            try:
                return self._connected(self._work)
            except _Blocked as blocked:
                tries = 1 if len(self._applied) > before else tries + 1
                if tries > self.options.lock_retries:
                    raise OpsError(blocked.message, blocked.hint, blocked.facts) from None
                pause = min(2.0 ** (tries - 1), 15.0) * random.uniform(0.5, 1.5)
                of = f"try {tries + 1} of {self.options.lock_retries + 1}"
                self.console.note(f"  {blocked.file} got no lock and was rolled back; {of} in {pause:.1f} s")
                self._wait(pause)

    def rehearse(self) -> Rehearsed:
        """Runs the pending transactional files for real, in one transaction that is rolled back. Raises OpsError."""
        self._rehearses = True
        return self._connected(self._rehearse)

    def _wait(self, seconds: float) -> None:
        try:
            self.sleep(seconds)
        except KeyboardInterrupt:
            raise Interrupted("interrupted while nothing was under way", f"go on: {self.again}") from None

    def _connected(self, work: Callable[[Session], Answer]) -> Answer:
        try:
            return self.target.ask(
                work,
                wait=self.options.wait,
                on_message=self._show_message,
                on_output=lambda line: self.console.say(f"  {line}"),
            )
        except PsqlError as error:  # before or after the files: their own failures are explained where they run
            denied = error.error is not None and error.error.sqlstate == NOT_ALLOWED
            first = (
                f"use the DSN of a role that may do this (it came from {self.target.origin})"
                if denied
                else "see that the server is up"
            )
            raise OpsError(f"psql stopped: {error.message} (exit code {error.code})", f"{first}, then: {self.again}") from None
        except KeyboardInterrupt:
            if self._current is None:
                raise
            fate = explain.REHEARSED if self._rehearses else explain.fate(self._current, in_doubt=True)
            raise Interrupted(
                f"interrupted in {self._current.migration.file}: {fate}", f"go on: {self._resuming(self._current)}"
            ) from None

    def _resuming(self, cut_off: Checked) -> str:
        """The command that goes on behind a file that was cut off."""
        return self.again if cut_off.migration.transactional or self._rehearses else f"{self.again} --resume"

    def _looked(self, session: Session) -> tuple[Facts, Plan]:
        facts, plan = self._observe(session)
        again = [self.checked[entry.file] for entry in plan.started if entry.file in self.checked]
        self.left = self._broken_indexes(session, again) if again else []
        return facts, plan

    def _observe(self, session: Session) -> tuple[Facts, Plan]:
        self.folder, self.checked = safety.read_folder(self.options.folder)  # while psql connects
        self.target.refuse_pooler(session, self.again)
        facts, rows = ledger.observe(session.read)
        plan = self._planned(rows)
        pending = [self.checked[migration.file] for migration in plan.pending]
        preflight.check(session, self.target, facts.user, facts.group, pending, self.again)
        return facts, plan

    def _may_run(self, facts: Facts) -> None:
        if facts.group and not facts.member:
            grant = catalogs.let_become(facts.user, facts.group, direct=facts.number < catalogs.SET_OPTION)
            raise OpsError(
                f"{facts.user} is no member of {facts.group} who may become it, and it owns the ledger of {facts.database}; "
                "nothing was applied",
                self.target.without_rights(f"an administrator runs: {grant} then: {self.again}", self.again),
            )

    def _work(self, session: Session) -> Outcome:
        facts, plan = self._observe(session)
        self._may_run(facts)
        first = plan
        if plan.pending:
            facts, plan = self._locked(session)
            self._refuse_started(session, plan)
        for _ in range(2):  # a numbered file may have a repeatable one run again, by its row in the ledger
            if plan.pending:
                plan = self._apply(session, facts, plan.pending)
        return Outcome(facts=facts, plan=first, applied=tuple(self._applied))

    def _locked(self, session: Session) -> tuple[Facts, Plan]:
        """Takes the lock, and looks again: another runner may have done it while we waited."""
        lock.acquire(session, wait=self.options.lock_wait, again=self.again, note=self.console.note)
        facts, rows = ledger.observe(session.read)
        return facts, self._planned(rows)

    def _compared(self, rows: Sequence[Row]) -> Plan:
        return make_plan(
            self.folder,
            rows,
            command=lambda words: self.target.command(words, self.options.folder),
            to=self.options.to,
            allow_out_of_order=self.options.allow_out_of_order,
        )

    def _planned(self, rows: Sequence[Row]) -> Plan:
        plan = self._compared(rows)
        problems = [*plan.problems, *safety.check_all(plan.pending, self.folder.path, self.checked)]
        if problems:
            raise safety.refusal(problems, self.folder.path, self.again)
        return plan

    def _refuse_started(self, session: Session, plan: Plan, *, drop: bool = True) -> None:
        """A row that still says `started` under the lock is of a run that was cut off: no one else is at work.

        With --resume, what it left is dropped, unless `drop` is false.
        """
        if not plan.started:
            return
        again = [entry.migration for entry in plan.started if entry.migration in plan.pending]
        indexes = self._broken_indexes(session, [self.checked[migration.file] for migration in again if migration])
        drops = [f"DROP INDEX CONCURRENTLY {name};" for name in indexes]
        if self.options.resume or not again:
            for statement in drops if drop else ():
                self.console.say(f"{statement}  -- INVALID, left by the run that was cut off")
                session.query(statement)
            return
        first = plan.started[0]
        row = first.row
        assert row is not None  # `started` is what its row says
        left = "".join(f"\n  --resume first runs: {statement}  -- INVALID, left by that run" for statement in drops)
        raise OpsError(
            f"{first.file} was started at {row.applied_at} by {row.applied_by} and has not ended: its statements ran outside a "
            f"transaction, and some of them may stand{left}",
            f"run it again from its beginning: {self.again} --resume",
        )

    @staticmethod
    def _broken_indexes(session: Session, started: Sequence[Checked]) -> list[str]:
        """The INVALID indexes that these files have left, qualified and quoted."""
        from scripts import locks

        found = [json.loads(line) for line in session.read(ledger.INVALID_INDEXES)]
        ours = [item for checked in started for item in locks.concurrent(checked)]
        return [index["qualified"] for index in found if any(item.is_left(index["name"], index["table"]) for item in ours)]

    def _apply(self, session: Session, facts: Facts, pending: Sequence[Migration]) -> Plan:
        """Applies files, and returns what is left to do."""
        checked = [self.checked[migration.file] for migration in pending]
        make_ledger(session, facts)
        steps = self._steps(checked, facts.group)
        files = {path: content for item in checked for path, content in item.files.items()}
        before = len(self._applied)
        with self._watching(session) as watch:
            try:
                for migration, milliseconds in self._timed(checked, session.run(steps, files), watch):
                    self._applied.append(Applied(version=migration.version, name=migration.name, duration_ms=milliseconds))
            except PsqlError as error:
                raise self._failure(error, checked, len(self._applied) - before, facts.group, watch.seen) from None
        return self._recheck(session, checked)

    def _watching(self, session: Session) -> blockers.Watch:
        timeout = self.options.lock_timeout / 1000
        after = min(_LONG, timeout / 2) if timeout else _LONG
        return blockers.Watch(self.target, int(session.query(ledger.BACKEND)[0]), after=after, note=self.console.note)

    def _timed(self, checked: Sequence[Checked], done: Iterator[Step], watch: blockers.Watch) -> Iterator[tuple[Migration, int]]:
        """Each file with its milliseconds as soon as it is through, and what is shown meanwhile."""
        width = max(len(item.migration.file) for item in checked)
        with self.console.progress(len(checked)) as advance:
            self._current = checked[0]
            advance("", checked[0].migration.file)
            watch.begins(checked[0].migration.file)
            began = time.monotonic()
            for index, _ in enumerate(done):
                migration, now = checked[index].migration, time.monotonic()
                milliseconds, began = round((now - began) * 1000), now
                self._current = checked[index + 1] if index + 1 < len(checked) else None
                following = self._current.migration.file if self._current else ""
                advance(f"  {migration.file.ljust(width)}  {milliseconds:>6} ms", following)
                watch.begins(following)
                yield migration, milliseconds

    def _failure(
        self, error: PsqlError, checked: Sequence[Checked], done: int, group: str | None, blocked_by: Sequence[Blocker]
    ) -> OpsError:
        failed = checked[done]
        facts = [vars(item) for item in self._applied]
        total = len(self._applied) - done + len(checked)
        run = Run(again=self.again, target=str(self.target.dsn), group=group, applied=facts, total=total)
        explained = explain.failure(error, failed, run, blocked_by)
        no_lock = error.error is not None and error.error.sqlstate in explain.NO_LOCK
        again = no_lock and failed.migration.transactional and not explain.uses_gexec(failed)  # which may have committed
        return _Blocked(failed.migration.file, explained) if again else explained

    def _recheck(self, session: Session, checked: Sequence[Checked]) -> Plan:
        """Reads the ledger once more: a file may have written to it itself, or put a rule or trigger on it."""
        rows = ledger.rows(session.query(ledger.ROWS))
        by_version = {row.version: row for row in rows}
        wrong = []
        for migration in (item.migration for item in checked):
            row = by_version.get(migration.version)
            if row is None or row.state != "applied" or row.checksum != migration.checksum:
                wrong.append(migration.file)
        outside = [item for item in checked if not item.migration.transactional]
        broken = self._broken_indexes(session, outside) if outside else []
        if broken:
            raise OpsError(
                f"applied, but these indexes are INVALID: {', '.join(broken)}",
                "; ".join(f"REINDEX INDEX CONCURRENTLY {name}" for name in broken) + "; by psql",
            )
        if wrong:
            raise OpsError(
                f"the ledger does not hold what was applied: {', '.join(wrong)}."
                f" One of the files changed {ledger.TABLE}, its rules or its triggers",
                "find the file that names schema_migrations, and put the ledger right by hand",
            )
        plan = self._compared(rows)
        if plan.problems:
            listed = "\n".join(f"  {problem}" for problem in plan.problems)
            raise OpsError(
                f"applied {counted(len(self._applied), 'file')}, of which one has changed {ledger.TABLE}:\n{listed}",
                "find the file that names schema_migrations, and put the ledger right by hand",
                {"target": str(self.target.dsn), "applied": [vars(item) for item in self._applied]},
            )
        return plan

    def _rehearse(self, session: Session) -> Rehearsed:
        facts, plan = self._observe(session)
        self._may_run(facts)
        if not plan.pending:
            return Rehearsed(facts=facts, done=(), left_out={})
        facts, plan = self._locked(session)
        self._refuse_started(session, plan, drop=False)
        left_out, checked = {}, []
        for item in (self.checked[migration.file] for migration in plan.pending):
            if not item.migration.transactional:
                left_out[item.migration.file] = "runs outside a transaction"
            elif explain.uses_gexec(item):
                left_out[item.migration.file] = "runs SQL by \\gexec, which may commit"
            else:
                checked.append(item)
        done: list[Applied] = []
        if checked:
            definition = [] if facts.current else [_definition()]
            steps = [*definition, *self._steps(checked, facts.group)]
            files = {path: content for item in checked for path, content in item.files.items()}
            with self._watching(session) as watch:
                running = session.rehearse(steps, {ledger.DEFINITION.name: ledger.DEFINITION, **files})
                try:
                    if definition:
                        next(running)
                    for migration, milliseconds in self._timed(checked, running, watch):
                        done.append(Applied(version=migration.version, name=migration.name, duration_ms=milliseconds))
                except PsqlError as error:
                    failed, *behind = checked[len(done) :]
                    if error.error is None or error.error.sqlstate != explain.ENUM_VALUE_NOT_YET or not done:
                        raise explain.failed_rehearsal(
                            error, failed, left_out, self.again, str(self.target.dsn), watch.seen
                        ) from None
                    left_out[failed.migration.file] = "uses an enum's value that a file before it adds, which takes a COMMIT"
                    left_out.update({item.migration.file: "comes behind it" for item in behind})
        return Rehearsed(facts=facts, done=tuple(done), left_out=left_out)

    def _steps(self, checked: Sequence[Checked], group: str | None) -> list[Step]:
        """The files for psql, each with the role that it runs as.

        Who owns the ledger is asked again only behind a file that may have changed it: the question costs 0.2 ms a file.
        """
        revision = git.revision(self.folder.path, self.target.env)
        run_as = ledger.literal(group) if group else ""
        steps = []
        for item in checked:
            steps.append(_step(item, revision, run_as, self._settings(item.migration)))
            if any(_may_change_owner(text.lower(), group) for text in item.texts.values()):
                run_as = ledger.RUN_AS
        return steps

    def _settings(self, migration: Migration) -> list[str]:
        """What a file's session begins with.

        No lock timeout outside a transaction: an index that is built concurrently waits for others' transactions and keeps
        nobody from anything meanwhile, and one that gave up would leave an INVALID index.
        """
        statement = self.options.statement_timeout
        timeout = [f"SET statement_timeout = {statement}"] if statement is not None else []
        return [*timeout, *([f"SET lock_timeout = {self.options.lock_timeout}"] if migration.transactional else [])]

    def _show_message(self, message: Message) -> None:
        place = f"{message.file}:{message.line}: " if message.file else ""
        severity = f"{message.severity}: " if message.severity else ""
        self.console.note("\n    ".join([f"  {place}{severity}{message.text}", *message.details]))


def _may_change_owner(text: str, group: str | None) -> bool:
    """Whether a file, in lower case, may change who owns the ledger: by its name, by REASSIGN OWNED, or with the group itself.

    A group that was renamed, or left, is none that the next file could run as.
    """
    return "schema_migrations" in text or "owned" in text or (group is not None and group.lower() in text)


def make_ledger(session: Session, facts: Facts) -> None:
    """Makes the ledger, or brings an older one to its present shape."""
    if not facts.current:
        list(session.run([_definition()], {ledger.DEFINITION.name: ledger.DEFINITION}))


def _definition() -> Step:
    """The file that makes the ledger, which is recorded when it comes up among the others."""
    name = ledger.DEFINITION.name
    return Step(file=name, needs=frozenset({name}), uses_metas=True, variables=frozenset({"ledger_is_missing"}))


def _step(checked: Checked, revision: str | None, run_as: str, settings: Sequence[str]) -> Step:
    migration = checked.migration
    transactional = migration.transactional
    return Step(
        file=migration.file,
        needs=frozenset(checked.files),
        before=() if transactional else (ledger.started(migration, revision),),
        after=(ledger.applied(migration, revision) if transactional else ledger.finished(migration),),
        transactional=transactional,
        variables=checked.variables,
        uses_metas=checked.uses_metas,
        run_as=run_as,
        settings=settings,
    )
