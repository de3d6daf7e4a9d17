"""A file that failed, in a reader's words: what happened, where, what was kept, and what to do next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts import lexer, psql, redact, rules
from scripts.blockers import Blocker
from scripts.errors import OpsError
from scripts.psql import NOT_ALLOWED, Message, PsqlError
from scripts.redact import Redactor
from scripts.safety import Checked
from scripts.secret import Secret
from scripts.target import Target

NO_LOCK = ("55P03", "40P01")  # SQLSTATEs lock_not_available and deadlock_detected: another try may get it
ENUM_VALUE_NOT_YET = "55P04"  # SQLSTATE unsafe_new_enum_value_usage
REHEARSED = "nothing is kept, it was a rehearsal"
_NEEDS_NO_TRANSACTION = "25001"  # SQLSTATE active_sql_transaction


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a message has to know of the run in which a file failed."""

    again: str  # the command that goes on
    target: str
    group: str | None  # the role that files run as
    applied: Sequence[Mapping[str, Any]]  # before it, in this run
    total: int  # of the files of this run


def failure(error: PsqlError, failed: Checked, run: Run, blocked_by: Sequence[Blocker] = ()) -> OpsError:
    """The failure of one file; `blocked_by` are those who held the lock that it waited for."""
    migration = failed.migration
    what, hint = _what(error, failed), _hint(error, failed, run)
    fate_of = fate(failed)
    if _vanished(error) or error.lost_server:
        message = error.error
        if migration.transactional and (message is None or not message.file):
            fate_of = f"{migration.file} was rolled back, unless its COMMIT had come through: the next run sees"
    done = len(run.applied)
    kept = (
        "nothing was applied before it"
        if not done
        else f"{done} files before it stay applied"
        if done > 1
        else "the file before it stays applied"
    )
    later = run.total - done - 1
    rest = f"; {later} after it {'was' if later == 1 else 'were'} not started" if later else ""
    facts: dict[str, Any] = {"target": run.target, "applied": list(run.applied), "failed": migration.file}
    what += _held(error, blocked_by, facts)
    return OpsError(f"{what}\n  kept: {fate_of}; {kept}{rest}", hint, facts)


def failed_rehearsal(
    error: PsqlError, failed: Checked, left_out: Mapping[str, str], again: str, target: str, blocked_by: Sequence[Blocker]
) -> OpsError:
    """The failure of a file that was rehearsed; `blocked_by` are those who held the lock that it waited for."""
    before = [file for file in left_out if file < failed.migration.file]
    perhaps = f"\n  {', '.join(before)} could not be rehearsed; it may rest on that" if before else ""
    run = Run(again=again, target=target, group=None, applied=(), total=1)
    facts: dict[str, Any] = {"target": target, "applied": [], "failed": failed.migration.file}
    held = _held(error, blocked_by, facts)
    what = f"{_what(error, failed)}{held}{perhaps}\n  kept: nothing, it was a rehearsal"
    return OpsError(what, _hint(error, failed, run), facts)


def _held(error: PsqlError, blocked_by: Sequence[Blocker], facts: dict[str, Any]) -> str:
    """Who held the lock, where that is why it failed; the facts are told, too."""
    if error.error is None or error.error.sqlstate not in NO_LOCK:
        return ""
    facts["blocked_by"] = [blocker.facts() for blocker in blocked_by]
    return "".join(f"\n  held by {blocker}" for blocker in blocked_by)


@contextlib.contextmanager
def refusals(target: Target, again: str) -> Iterator[None]:
    """For work on the ledger alone: a server that refuses it is an OpsError with the way out."""
    try:
        yield
    except PsqlError as error:
        if error.error is None or error.error.sqlstate != NOT_ALLOWED:
            raise
        hint = f"use the DSN of a role that may write the ledger, as its owner or a member WITH INHERIT TRUE may; then: {again}"
        raise OpsError(
            f"the server refused: {error.error.text}; nothing was written", target.without_rights(hint, again)
        ) from None


def _vanished(error: PsqlError) -> bool:
    """Whether psql went without a word of the server."""
    return error.error is None or (not error.error.sqlstate and not error.error.file)


def _what(error: PsqlError, failed: Checked) -> str:
    migration, message = failed.migration, error.error
    if message is None or _vanished(error):
        return f"{migration.file}: psql was ended from outside or lost the server ({error.message}; exit code {error.code})"
    if psql.GUARD_FAILED in message.text:
        done = "ended the transaction in which it ran" if migration.transactional else "left a transaction open"
        return f"{migration.file} {done}, in a way that could not be seen beforehand (\\gexec)"
    return located(message, failed)


def _hint(error: PsqlError, failed: Checked, run: Run) -> str:
    migration, message = failed.migration, error.error
    hint = f"mend {migration.file}, then: {run.again}"
    if error.lost_server or _vanished(error):
        hint = f"see that the server is up, then: {run.again}"
    elif message is None or psql.GUARD_FAILED in message.text:
        pass
    elif message.sqlstate in NO_LOCK and migration.transactional:
        longer = "--lock-timeout 1min waits longer each time, --lock-retries 20 more often"
        hint = f"when those who hold the lock have ended: {run.again}  ({longer})"
    elif message.sqlstate == _NEEDS_NO_TRANSACTION and migration.transactional:
        hint = f"put `-- migrate: no-transaction` into the first comment of {migration.file}, then: {run.again}"
    elif message.sqlstate == NOT_ALLOWED and message.server_hint:
        hint = f"{message.server_hint} Then: {run.again}"
    elif message.sqlstate == NOT_ALLOWED and run.group:
        hint = (
            f"files run as {run.group}; if this one needs the rights of the user in the DSN, begin it with RESET ROLE;"
            f" then: {run.again}"
        )
    return hint if migration.transactional else f"{hint} --resume"


def fate(checked: Checked, *, in_doubt: bool = False) -> str:
    """What has become of a file's work."""
    file = checked.migration.file
    if not checked.migration.transactional:
        return f"{file} runs outside a transaction: what it did before stays, and its row says `started`"
    if uses_gexec(checked):
        return f"{file} was rolled back, except for what it may have committed itself by \\gexec"
    return f"{file} was rolled back whole" + (", unless its COMMIT had come through already" if in_doubt else "")


def uses_gexec(checked: Checked) -> bool:
    """Whether a file runs SQL that no reading can know."""
    metas = (meta for text in checked.texts.values() for meta in lexer.lex(text).metas)
    return any(meta.name == "gexec" for meta in metas)


def located(message: Message, failed: Checked) -> str:
    """`file:line: ERROR: text (SQLSTATE)`, the line's text, and what the server added."""
    text = failed.script if message.file == failed.migration.file else failed.includes.get(message.file, "")
    line, lines = _line(message, text), text.split("\n")
    state = f" (SQLSTATE {message.sqlstate})" if message.sqlstate else ""
    shown = f"\n  {line} | {lines[line - 1].rstrip()}" if 0 < line <= len(lines) else ""
    if message.file:
        place = f"{message.file}:{line}"
    else:  # a line of the runner's own, which writes the ledger row or commits
        place = f"{failed.migration.file}: {'at its end' if failed.migration.transactional else 'before or after it'}"
    told = "\n  ".join([f"{place}: {message.severity}: {message.text}{state}{shown}", *message.details])
    return _without_passwords(told, failed)


def _without_passwords(told: str, failed: Checked) -> str:
    """What is told of a file, without the passwords in it: this lands in the log of a CI run, which more people read."""
    redactor = Redactor()
    passwords = redact.password_literals(told).union(*map(rules.passwords, (failed.script, *failed.includes.values())))
    for password in passwords:
        redactor.add(Secret(password))
    return redactor.text(redact.without_password_literals(told))


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
