"""Applies migrations: observe -> plan -> apply -> re-check, in one psql session.

The plan is made twice: before the lock, so that nothing is written when a file is wrong and nothing is locked when
nothing is pending; and again under the lock, from the ledger as the runner before us left it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import ledger, lexer, lock, psql, safety, shell, sql
from scripts.console import Console
from scripts.dsn import clean_env
from scripts.errors import Interrupted, OpsError, counted
from scripts.ledger import Facts
from scripts.plan import Plan, State, make_plan
from scripts.psql import NOT_ALLOWED, Message, PsqlError, Session, Step
from scripts.safety import Checked
from scripts.settings import MIGRATIONS
from scripts.shell import quoted
from scripts.sql import Folder
from scripts.target import Target

_NEEDS_NO_TRANSACTION = "25001"  # SQLSTATE active_sql_transaction


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags of `invoke migrate` say; times in seconds."""

    folder: Path = MIGRATIONS
    to: str | None = None
    plan_only: bool = False
    wait: float = 0.0
    lock_wait: float = 300.0
    allow_out_of_order: bool = False
    resume: bool = False


def run(target: Target, options: Options, console: Console) -> None:
    """Applies what is pending. Raises OpsError; what was applied before stays, and running it again goes on from there."""
    _Runner(target, options, console).run()


class _Runner:
    """One run: what it was asked, and what it has found so far."""

    def __init__(self, target: Target, options: Options, console: Console) -> None:
        self.target = target
        self.options = options
        self.console = console
        self.folder = Folder(options.folder, (), ())
        self.again = " ".join(filter(None, ["invoke migrate", target.flags, *_flags(options)]))
        self.checked: dict[str, Checked] = {}
        self.current: Checked | None = None
        self.group: str | None = None  # the role that the files run as, unless it is the user's own

    def run(self) -> None:
        self.console.say(f"target: {self.target.dsn}")
        try:
            self.target.ask(
                self._work,
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
            if self.current is None:
                raise
            raise Interrupted(
                f"interrupted in {self.current.migration.file}: {self._fate(self.current, in_doubt=True)}", f"go on: {self.again}"
            ) from None

    def _work(self, session: Session) -> None:
        self.folder = sql.read_folder(self.options.folder)  # while psql connects
        facts = ledger.facts(session.query(ledger.FACTS))
        self.group = facts.group
        plan = self._plan(session, facts.ledger)
        if facts.group and not facts.member and not self.options.plan_only:
            options = " WITH SET TRUE" if facts.number >= 160000 else ""
            raise OpsError(
                f"{facts.user} is no member of {facts.group} who may become it, and it owns the ledger of {facts.database}; "
                "nothing was applied",
                self.target.without_rights(f"an administrator runs: GRANT {facts.group} TO {facts.user}{options};", self.again),
            )
        if not plan.pending:
            self._say_nothing_pending(facts, plan)
        elif self.options.plan_only:
            self._show_plan(plan)
        else:
            lock.acquire(session, wait=self.options.lock_wait, again=self.again, note=self.console.note)
            facts = ledger.facts(session.query(ledger.FACTS))
            plan = self._plan(session, facts.ledger)
            self._refuse_started(session, plan)
            if not plan.pending:  # another runner did it while we waited
                self._say_nothing_pending(facts, plan)
                return
            self._apply(session, facts, plan)

    def _plan(self, session: Session, ledger_exists: bool) -> Plan:
        rows = ledger.rows(session.query(ledger.ROWS)) if ledger_exists else []
        plan = make_plan(self.folder, rows, to=self.options.to, allow_out_of_order=self.options.allow_out_of_order)
        problems = list(plan.problems)
        for migration in plan.pending:
            if migration.file not in self.checked:
                self.checked[migration.file] = safety.check(migration, self.folder.path)
            problems += self.checked[migration.file].problems
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems)
            raise OpsError(
                f"{counted(len(problems), 'problem')} in {self.folder.path}; nothing was applied:\n{listed}",
                f"mend the files (rules: migrations/README.md), then: {self.again}",
            )
        return plan

    def _refuse_started(self, session: Session, plan: Plan) -> None:
        """A row that still says `started` under the lock is of a run that was cut off: no one else is at work."""
        if not plan.started:
            return
        again = [entry.migration for entry in plan.started if entry.migration in plan.pending]
        indexes = self._broken_indexes(session, [self.checked[migration.file] for migration in again if migration])
        if self.options.resume or not again:
            for name in indexes:
                statement = f"DROP INDEX CONCURRENTLY {name}"
                self.console.say(f"{statement};  -- INVALID, left by the run that was cut off")
                session.query(statement)
            return
        first = plan.started[0]
        row = first.row
        assert row is not None  # `started` is what its row says
        left = f"\n  it left INVALID indexes, which --resume drops first: {', '.join(indexes)}" if indexes else ""
        raise OpsError(
            f"{first.file} was started at {row.applied_at} by {row.applied_by} and has not ended: its statements ran outside a "
            f"transaction, and some of them may stand{left}",
            f"run it again from its beginning: {self.again} --resume",
        )

    @staticmethod
    def _broken_indexes(session: Session, started: Sequence[Checked]) -> list[str]:
        """The INVALID indexes that these files name, qualified and quoted; REINDEX CONCURRENTLY leaves NAME_ccnew."""
        found = [json.loads(line) for line in session.query(ledger.INVALID_INDEXES)]
        texts = [text for item in started for text in (item.script, *item.includes.values())]
        words = {word.strip('"').lower() for text in texts for word in re.findall(r'"[^"]+"|[\w$]+', text)}
        return [index["qualified"] for index in found if re.sub(r"_cc(new|old)\d*$", "", index["name"].lower()) in words]

    def _apply(self, session: Session, facts: Facts, plan: Plan) -> None:
        revision = _git_revision(self.folder.path, self.target.env)
        checked = [self.checked[migration.file] for migration in plan.pending]
        if not facts.current:
            name = ledger.DEFINITION.name
            definition = Step(file=name, needs=frozenset({name}), uses_metas=True, variables=frozenset({"ledger_is_missing"}))
            list(session.run([definition], {name: ledger.DEFINITION}))
        files = {path: content for item in checked for path, content in item.files.items()}
        steps = _steps(checked, revision, facts.group)
        done: list[dict[str, Any]] = []
        began = time.monotonic()
        width = max(len(item.migration.file) for item in checked)
        try:
            with self.console.progress(len(steps)) as advance:
                self.current = checked[0]
                advance("", self.current.migration.file)
                for index, _ in enumerate(session.run(steps, files)):
                    migration, now = checked[index].migration, time.monotonic()
                    milliseconds = round((now - began) * 1000)
                    done.append({"version": migration.version, "name": migration.name, "duration_ms": milliseconds})
                    self.current = checked[index + 1] if index + 1 < len(checked) else None
                    following = self.current.migration.file if self.current else ""
                    advance(f"  {migration.file.ljust(width)}  {milliseconds:>6} ms", following)
                    began = now
        except PsqlError as error:
            raise self._explain(error, checked[len(done)], done, len(checked)) from None
        self._recheck(session, checked)
        self.console.say(
            f"applied {len(done)} of {len(self.folder.migrations)} migrations; {facts.database} is up to date" + self._until()
        )
        self._document(done)

    def _recheck(self, session: Session, checked: Sequence[Checked]) -> None:
        """Reads the ledger once more: a file may have written to it itself, or put a rule or trigger on it."""
        rows = {row.version: row for row in ledger.rows(session.query(ledger.ROWS))}
        wrong = []
        for migration in (item.migration for item in checked):
            row = rows.get(migration.version)
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

    def _explain(self, error: PsqlError, failed: Checked, applied: list[dict[str, Any]], total: int) -> OpsError:
        """What happened, where, what was kept, and what to do next."""
        migration, done = failed.migration, len(applied)
        message = error.error
        fate = self._fate(failed)
        hint = f"mend {migration.file}, then: {self.again}"
        vanished = message is None or (not message.sqlstate and not message.file)  # it went without a word of the server
        if message is None or vanished:
            what = f"{migration.file}: psql was ended from outside or lost the server ({error.message}; exit code {error.code})"
        elif psql.GUARD_FAILED in message.text:
            done_by_it = "ended the transaction in which it ran" if migration.transactional else "left a transaction open"
            what = f"{migration.file} {done_by_it}, in a way that could not be seen beforehand (\\gexec)"
        else:
            what = _located(message, failed)
            if message.sqlstate == _NEEDS_NO_TRANSACTION and migration.transactional:
                hint = f"put `-- migrate: no-transaction` into the first comment of {migration.file}, then: {self.again}"
            elif message.sqlstate == NOT_ALLOWED and message.server_hint:
                hint = f"{message.server_hint} Then: {self.again}"
            elif message.sqlstate == NOT_ALLOWED and self.group:
                hint = (
                    f"files run as {self.group}; if this one needs the rights of the user in the DSN, begin it with RESET ROLE;"
                    f" then: {self.again}"
                )
        if error.lost_server or vanished:
            hint = f"see that the server is up, then: {self.again}"
            if migration.transactional and (message is None or not message.file):
                fate = f"{migration.file} was rolled back, unless its COMMIT had come through: the next run sees"
        if not migration.transactional:
            hint += " --resume"
        kept = (
            "nothing was applied before it"
            if not done
            else f"{done} files before it stay applied"
            if done > 1
            else "the file before it stays applied"
        )
        later = total - done - 1
        rest = f"; {later} after it {'was' if later == 1 else 'were'} not started" if later else ""
        facts = {"target": str(self.target.dsn), "applied": applied, "failed": migration.file}
        return OpsError(f"{what}\n  kept: {fate}; {kept}{rest}", hint, facts)

    @staticmethod
    def _fate(checked: Checked, *, in_doubt: bool = False) -> str:
        file = checked.migration.file
        if not checked.migration.transactional:
            return f"{file} runs outside a transaction: what it did before stays, and its row says `started`"
        metas = (meta for text in (checked.script, *checked.includes.values()) for meta in lexer.lex(text).metas)
        if any(meta.name == "gexec" for meta in metas):
            return f"{file} was rolled back, except for what it may have committed itself by \\gexec"
        return f"{file} was rolled back whole" + (", unless its COMMIT had come through already" if in_doubt else "")

    def _show_message(self, message: Message) -> None:
        place = f"{message.file}:{message.line}: " if message.file else ""
        severity = f"{message.severity}: " if message.severity else ""
        self.console.note("\n    ".join([f"  {place}{severity}{message.text}", *message.details]))

    def _show_plan(self, plan: Plan) -> None:
        started = [entry.migration for entry in plan.started]
        for migration in plan.pending:
            how = "" if migration.transactional else "  (outside a transaction)"
            if migration in started:
                how = "  (again from its beginning)" if self.options.resume else "  (it was cut off: only with --resume)"
            self.console.say(f"  would apply {migration.file}{how}")
        self.console.say(f"{len(plan.pending)} pending; nothing was written")
        self._document([])

    def _say_nothing_pending(self, facts: Facts, plan: Plan) -> None:
        count = plan.count(State.APPLIED)
        self.console.say(f"nothing to do: {facts.database} has all {count} migrations{self._until()}")
        self._document([])

    def _until(self) -> str:
        return f" up to {self.options.to}" if self.options.to else ""

    def _document(self, done: list[dict[str, Any]]) -> None:
        applied = {item["version"] for item in done}
        pending = [] if not self.options.plan_only else [name for name in self.checked if name not in applied]
        self.console.document({"target": str(self.target.dsn), "applied": done, "pending": pending})


def _steps(checked: Sequence[Checked], revision: str | None, group: str | None) -> list[Step]:
    """The files for psql, each with the role that it runs as.

    Who owns the ledger is asked again only behind a file that may have changed it: the question costs 0.2 ms a file.
    """
    run_as = ledger.literal(group) if group else ""
    steps = []
    for item in checked:
        steps.append(_step(item, revision, run_as))
        if any(re.search(r"schema_migrations|\bowned\b", text, re.IGNORECASE) for text in (item.script, *item.includes.values())):
            run_as = ledger.RUN_AS
    return steps


def _step(checked: Checked, revision: str | None, run_as: str) -> Step:
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
    )


def _located(message: Message, failed: Checked) -> str:
    """`file:line: ERROR: text (SQLSTATE)`, the line's text, and what the server added."""
    text = failed.script if message.file == failed.migration.file else failed.includes.get(message.file, "")
    line, lines = _line(message, text), text.split("\n")
    state = f" (SQLSTATE {message.sqlstate})" if message.sqlstate else ""
    shown = f"\n  {line} | {lines[line - 1].rstrip()}" if 0 < line <= len(lines) else ""
    if message.file:
        place = f"{message.file}:{line}"
    else:  # a line of the runner's own, which writes the ledger row or commits
        place = f"{failed.migration.file}: {'at its end' if failed.migration.transactional else 'before or after it'}"
    return "\n  ".join([f"{place}: {message.severity}: {message.text}{state}{shown}", *message.details])


def _line(message: Message, text: str) -> int:
    """The line of a file that a message is about. psql names the one on which the statement ended."""
    lines = text.split("\n")
    begin, joined = 0, False
    starts: list[int] = []  # of the statements that may be meant: several can share a line
    for statement in lexer.lex(text).statements:
        if statement.sent_line > message.line:
            break
        begin = begin if joined else statement.sent_line  # the server counts from the first of those that \\; joins
        joined = text[: statement.end].endswith("\\;")
        if message.line <= statement.end_line:
            starts.append(begin)
        elif statement.copies_stdin and message.data_line:
            return statement.end_line + message.data_line
    if message.pointer is None or not starts:
        return message.line
    count, shown = message.pointer
    found = [start + count - 1 for start in starts]
    for line in found:
        if line <= message.line and shown in lines[line - 1].replace("\t", " "):
            return line
    return min(found[-1], message.line)  # a variable's value, or SQL made by \gexec


def _git_revision(folder: Path, env: Mapping[str, str]) -> str | None:
    """The commit that the files came from, where that can be known."""
    if shell.which("git", env) is None:
        return None
    try:
        result = shell.run(["git", "rev-parse", "HEAD"], env=clean_env(env), cwd=folder, timeout=10)
    except OpsError:  # it hangs, or can't be started: the migration goes on without knowing
        return None
    return result.out.strip() if result.code == 0 else None


def _flags(options: Options) -> Iterator[str]:
    """The flags that ask for the same again, as a shell takes them."""
    if options.folder != MIGRATIONS:
        yield f"--migrations-dir {quoted(options.folder)}"
    if options.to is not None:
        yield f"--to {options.to}"
    if options.allow_out_of_order:
        yield "--allow-out-of-order"
