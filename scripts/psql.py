"""The only module that knows psql's words: one psql, local, dockerized or embedded (`clients.py`), driven over its pipes.

All three get the same arguments, the same empty environment and the same files under the same names, so that the same
migrations come to the same result. The password travels in a PGPASSFILE that only its owner can read: never in an
argv, in the environment, or in what `docker inspect` shows.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import NoReturn

from scripts.clients import Client, Content
from scripts.dsn import Dsn
from scripts.errors import OpsError
from scripts.shell import uninterrupted

# What psql writes on stderr: the file and line it is at, the severity (in the server's language), the SQLSTATE.
_MESSAGE = re.compile(
    r"(?:psql:(?P<file>.*?):(?P<line>\d+): )?(?P<severity>[^\s:]+):\s+(?:(?P<sqlstate>[0-9A-Z]{5}): )?(?P<text>.*)"
)
_CONTINUED = re.compile(r"(?:LINE \d+:|DETAIL:|HINT:|QUERY:|CONTEXT:|LOCATION:|STATEMENT:|\s)")
_LABEL = re.compile(r"(?:(?P<shown>DETAIL|HINT|CONTEXT|QUERY)|LINE \d+|(?:SCHEMA|TABLE|COLUMN|DATATYPE|CONSTRAINT) NAME):")
_ALREADY_THERE = frozenset({"42P06", "42P07", "42710", "42701", "42723"})  # "... already exists, skipping"
NOT_ALLOWED = "42501"  # SQLSTATE insufficient_privilege
_NOT_READY = re.compile(
    "refused|timeout expired|could not translate host name|starting up|shutting down|No such file or directory"
    "|closed the connection unexpectedly|recovery mode|not yet accepting|Network is unreachable|No route to host"
)
# A session as a file may expect to find it, whatever the one before did. Not DISCARD ALL: it gives up the lock.
_UNBECOME = ("RESET SESSION AUTHORIZATION", "RESET ROLE")
_CLEAN_SESSION = (
    "RESET SESSION AUTHORIZATION",
    "RESET ROLE",
    "RESET ALL",
    "SET standard_conforming_strings = on",
    "DISCARD TEMP",
    "DEALLOCATE ALL",
    "CLOSE ALL",
    "UNLISTEN *",
)
# What COMMIT would check, by name: ALL would also hold for constraints that later files make. A name is a schema's, and those of
# all its tables are meant: one that another table has for what is never deferred can't be deferred again.
_CONSTRAINTS = """SELECT pg_catalog.concat('SET CONSTRAINTS ',
  pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, c.conname), ', '), ' {mode}')
  FROM pg_catalog.pg_constraint AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.connamespace
  WHERE {which} AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') HAVING pg_catalog.count(*) > 0 \\gexec"""
_CHECK_NOW = _CONSTRAINTS.format(mode="IMMEDIATE", which="c.condeferrable")
_DEFERRED_AGAIN = _CONSTRAINTS.format(
    mode="DEFERRED",
    which="""c.condeferred AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS s
    WHERE s.connamespace = c.connamespace AND s.conname = c.conname AND NOT s.condeferrable)""",
)
# psql's own state as the runner needs it, after a file that used meta-commands.
_CLEAN_PSQL = (
    "\\set VERBOSITY verbose\n\\set ON_ERROR_STOP 1\n\\unset ECHO\n\\unset FETCH_COUNT\n\\unset SHOW_ALL_RESULTS\n"
    "\\pset format unaligned\n\\pset tuples_only on\n\\pset expanded off\n"
    "\\pset recordsep '\\n'\n\\set QUIET 1\n\\timing off\n\\o\n"
)
LOOK_AHEAD = 8  # files that psql is told of before the first of them is done: it never waits for us


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of psql or its server."""

    severity: str  # empty: a line that is no message
    text: str
    sqlstate: str = ""
    file: str = ""  # as psql was given it, relative to the migrations folder
    line: int = 0  # the line on which the statement ended
    extra: tuple[str, ...] = ()  # more lines of the text, DETAIL, HINT, LINE n and the caret below it

    @property
    def details(self) -> list[str]:
        """The lines that a reader needs beside the first: the text's others, DETAIL, HINT, CONTEXT and QUERY."""
        shown, lines = True, []
        for line in self.extra:
            label = _LABEL.match(line)
            shown = label["shown"] is not None if label else shown
            if shown:
                lines.append(line.rstrip())
        return lines

    @property
    def server_hint(self) -> str:
        """The server's HINT, or nothing."""
        return next((line.removeprefix("HINT:").strip() for line in self.extra if line.startswith("HINT:")), "")

    @property
    def pointer(self) -> tuple[int, str] | None:
        """The line that the server points at, counted from 1 in what it was sent, and its text as far as psql shows it."""
        for extra in self.extra:
            match = re.match(r"LINE (\d+): (.*)", extra)
            if match:
                return int(match[1]), match[2].removeprefix("...").removesuffix("...").strip()
        return None

    @property
    def data_line(self) -> int | None:
        """The line of COPY's data, counted from 1, that the server complains of."""
        match = re.search(r"^CONTEXT:  COPY .*?, line (\d+)", "\n".join(self.extra), re.MULTILINE)
        return int(match[1]) if match else None


class PsqlError(OpsError):
    """psql ended before its work was done. `error` is what the server, else psql, said last; `code` its exit code."""

    def __init__(self, message: str, *, error: Message | None, code: int, connected: bool) -> None:
        super().__init__(message)
        self.error = error
        self.code = code
        self.connected = connected

    @property
    def lost_server(self) -> bool:
        """Whether psql ended because the connection broke: its exit code 2 (EXIT_BADCONN in psql's settings.h)."""
        return self.code == 2

    @property
    def may_pass(self) -> bool:
        """Whether the server may just not be there yet, so that waiting makes sense."""
        return not self.connected and _NOT_READY.search(self.message) is not None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One file for psql to run, with the SQL that keeps the books around it."""

    file: str  # its path in psql's working folder
    needs: frozenset[str] = frozenset()  # the paths of all that psql reads for it
    before: Sequence[str] = ()  # committed before the file begins
    after: Sequence[str] = ()  # in the file's own transaction, or committed after it
    transactional: bool = True
    variables: frozenset[str] = frozenset()  # psql variables the file mentions: it must not see another file's
    uses_metas: bool = False
    run_as: str = ""  # SQL for the name of the role that the file runs as, if it isn't the user's own
    settings: Sequence[str] = ()  # statements that set what the file's session begins with beyond the defaults
    guard: str = field(default_factory=lambda: f"guard_{secrets.token_hex(8)}_")


def _argument(value: str) -> str:
    """A value as an argument of a meta-command."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _message(statements: Iterable[str]) -> str:
    """Several statements as one message to the server: one round trip, one implicit transaction."""
    return " \\; ".join(statements)


def _raise(what: str, condition: str) -> str:
    """SQL that fails with `what` when the condition holds, whatever search_path says."""
    text = f"pg_catalog.concat('{what}', pg_catalog.pg_backend_pid())"
    return f"SELECT CAST({text} AS pg_catalog.int4) WHERE {condition}"


GUARD_FAILED = "migrate: the transaction of the runner is gone "


def script(step: Step, following: Step | None) -> str:
    """What psql reads for one file, from the file itself to the beginning of the `following` one.

    The transaction's id and the backend's PID are noted before the file and compared after it, in the transaction
    that writes the ledger row: whatever the file did, the row stands if and only if the file's own work does. One
    file's end and the next one's beginning go to the server as one message, because round trips are what costs time.
    """
    lines = [f"\\i {_argument(step.file)}"]
    if step.transactional:
        end = [*_UNBECOME, *_guarded(step), *step.after, "COMMIT"]
    else:
        # Whatever the file made the default, its row is to be written.
        guard = _raise(GUARD_FAILED, _pid_moved(step))
        end = ["SET TRANSACTION READ WRITE", *_UNBECOME, "SET search_path = pg_catalog", guard, *step.after]
        lines.append(_message(end) + ";")
        # Had the file left a transaction open, its row would still be in it.
        end = [_raise(GUARD_FAILED, "pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL")]
    if step.uses_metas:
        lines += [_message(end) + ";", _CLEAN_PSQL.rstrip()]
        end = []
    lines.append(prologue(following, end) if following else _message([*end, "BEGIN", *_CLEAN_SESSION, "COMMIT"]) + ";")
    if following:  # psql looks through a list to find a variable: what each file left there would slow down the next
        lines += [f"\\unset {step.guard}{name}" for name in ("xid", "pid", "role")]
    return "\n".join(lines) + "\n"


def prologue(step: Step, end: Sequence[str] = ()) -> str:
    """What comes before a file, behind what ends the one before it: a clean session, and the guard's notes."""
    unset = [f"\\unset {name}" for name in sorted(step.variables)]
    # In a transaction of its own: the next one begins as the defaults say that stand when it begins, READ ONLY for one.
    clean = ["BEGIN", *_CLEAN_SESSION, *step.settings, "COMMIT"]
    if step.transactional:
        return "\n".join([*unset, _message([*end, *clean, "BEGIN", _note(step)]) + f" \\gset {step.guard}"])
    # Each of its own: what is recorded before a no-transaction file must be committed before it begins.
    begin = [_message([*end, *clean]) + ";", *(f"{statement};" for statement in step.before)]
    return "\n".join([*unset, *begin, f"{_note(step)} \\gset {step.guard}"])


def _note(step: Step) -> str:
    """What the guard compares with; and the session becomes the role that the file runs as."""
    become = f", pg_catalog.set_config('role', {step.run_as}, false) AS role" if step.run_as else ""
    return f"SELECT pg_catalog.pg_current_xact_id() AS xid, pg_catalog.pg_backend_pid() AS pid{become}"


def rehearsal(steps: Sequence[Step]) -> Iterator[str]:
    """What psql reads to run files, all transactional, in one transaction that is rolled back: one text for each file.

    What COMMIT would check is checked at each file's end; constraints that were deferred until then are so again for the next.
    """
    for index, step in enumerate(steps):
        unset = [f"\\unset {name}" for name in sorted(step.variables)]
        clean = [*_CLEAN_SESSION, *step.settings]
        start = _message(["BEGIN", *clean] if index == 0 else clean) + ";"
        end = [*_UNBECOME, *_guarded(step), *step.after]
        lines = [start, *unset, f"{_note(step)} \\gset {step.guard}", f"\\i {_argument(step.file)}", _message(end) + ";"]
        lines += [_CLEAN_PSQL.rstrip()] if step.uses_metas else []
        lines += [_CHECK_NOW, "ROLLBACK;" if index + 1 == len(steps) else _DEFERRED_AGAIN]
        yield "\n".join(lines) + "\n"


def _pid_moved(step: Step) -> str:
    return f"pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) :{step.guard}pid"


def _guarded(step: Step) -> list[str]:
    """What fails unless the transaction is still the one in which the file began."""
    xid_moved = f"pg_catalog.pg_current_xact_id()::pg_catalog.text OPERATOR(pg_catalog.<>) :'{step.guard}xid'"
    return ["SET LOCAL search_path = pg_catalog", _raise(GUARD_FAILED, f"{xid_moved} OR {_pid_moved(step)}")]


class Session:
    """One psql process, connected once. Use it as a context manager: leaving it ends psql, whatever happened.

    `on_message` gets what the server says on the way (notices, warnings) and `on_output` what files print.
    """

    def __init__(
        self,
        client: Client,
        dsn: Dsn,
        *,
        on_message: Callable[[Message], None] = lambda message: None,
        on_output: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._client = client
        self._dsn = dsn
        self._on_message = on_message
        self._on_output = on_output
        self._nonce = secrets.token_hex(16)
        self._asked = 0
        self._reached = {"out": 0, "err": 0}  # the last mark that was seen on each output
        self._held: dict[str, list[tuple[int, str]]] = {"out": [], "err": []}  # (the mark that follows, line)
        self._connected = False

    def __enter__(self) -> Session:
        self._began = time.monotonic()
        try:
            self._process = self._client.start(self._dsn)
            self._lines = self._process.lines()
            self._process.send("\\set VERBOSITY verbose\n")
        except BaseException:
            with uninterrupted():
                self._client.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with uninterrupted():
            if kind is not None and not isinstance(error, PsqlError):
                self._client.interrupt()  # cancels the statement under way, on the server too
            self._client.close()

    def query(self, sql: str) -> list[str]:
        """Runs statements outside any transaction and returns the lines of their results, unaligned."""
        output: list[str] = []
        self._await(self._send(sql.rstrip().rstrip(";") + ";\n"), output.append)
        return output

    def read(self, sql: str) -> list[str]:
        """As `query`, in a transaction in which the server refuses to write."""
        return self.query(f"BEGIN READ ONLY;\n{sql.rstrip().rstrip(';')};\nCOMMIT")

    @property
    def age(self) -> float:
        """Seconds since psql was started, which is a little more than the server's session can be old."""
        return time.monotonic() - self._began

    def query_within(self, seconds: float, sql: str) -> list[str] | None:
        """As `query`; but None, and psql is ended, when the server's answer takes longer than so many seconds."""
        self._await(self._send(""), lambda line: None)  # it is connected; that may take its time
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.close(timeout=0)

        watch = threading.Timer(seconds, end)
        watch.start()
        answer = None
        try:
            answer = self.query(sql)
        except PsqlError:
            if not late.is_set():
                raise
        finally:
            watch.cancel()
            watch.join()
        return None if late.is_set() else answer

    def attempt(self, statements: Iterable[str]) -> list[str]:
        """Tries statements, each in a transaction of its own that is rolled back; returns their SQLSTATEs ("00000": it worked).

        What the server says to them is left out: that they fail may be what is hoped for.
        """
        mark = f"sqlstate {secrets.token_hex(8)} "
        tries = [f"BEGIN;\n{statement};\n\\echo {mark}:SQLSTATE\nROLLBACK;\n" for statement in statements]
        output: list[str] = []
        on_message, self._on_message = self._on_message, lambda message: None
        try:
            self._await(self._send("\\set ON_ERROR_STOP 0\n" + "".join(tries) + "\\set ON_ERROR_STOP 1\n"), output.append)
        finally:
            self._on_message = on_message
        return [line.removeprefix(mark) for line in output if line.startswith(mark)]

    def run(self, steps: Sequence[Step], files: Mapping[str, Content]) -> Iterator[Step]:
        """Runs files one after another; yields each as soon as it and its ledger row are committed.

        `files` are the steps' own files and what they need, by path in psql's working folder. Raises PsqlError at the
        first step that fails. psql is always told of a few files more than the one it is at, so that it doesn't wait
        for us between two of them.
        """
        self._process.send(f"\\cd {_argument(self._client.stage(files))}\n{prologue(steps[0])}\n" if steps else "")
        marks: list[int] = []
        for index, step in enumerate(steps):
            while len(marks) < min(index + LOOK_AHEAD, len(steps)):
                ahead = len(marks)
                self._client.provide(steps[ahead].needs)
                following = steps[ahead + 1] if ahead + 1 < len(steps) else None
                marks.append(self._send(script(steps[ahead], following)))
            self._await(marks[index], self._on_output)
            yield step

    def rehearse(self, steps: Sequence[Step], files: Mapping[str, Content]) -> Iterator[Step]:
        """As `run`, in one transaction that is rolled back at the end, or when psql ends before that."""
        self._process.send(f"\\cd {_argument(self._client.stage(files))}\n")
        for step, text in zip(steps, rehearsal(steps), strict=True):
            self._client.provide(step.needs)
            self._await(self._send(text), self._on_output)
            yield step

    def _send(self, text: str) -> int:
        """Sends lines to psql and asks it to say on both outputs when it came to their end, in words no file can know."""
        self._asked += 1
        mark = f"{self._nonce}:{self._asked}"
        self._process.send(f"{text}\\echo {mark}\n\\warn {mark}\n")
        return self._asked

    def _await(self, mark: int, on_output: Callable[[str], None]) -> None:
        """Reads until psql reached the mark on both outputs, and hands on what came before it.

        The two come through threads of their own, so that one may run ahead of the other: lines are kept by the mark
        that they stand before.
        """
        while min(self._reached.values()) < mark:
            stream, line = next(self._lines, ("", ""))
            if not stream:
                self._fail()
            text, found, number = line.rpartition(f"{self._nonce}:")
            if found and number.isdigit():
                line = text
            if line:
                self._held[stream].append((self._reached[stream] + 1, line))
            if found and number.isdigit():
                self._reached[stream] = int(number)
        if not self._connected:
            self._connected = True
            self._client.connected()
        for line in self._take("out", mark):
            on_output(line)
        for message in parse_messages(self._take("err", mark)):
            if not _is_noise(message):
                self._on_message(message)

    def _take(self, stream: str, mark: int) -> list[str]:
        """The lines of one output that stand before a mark; they are kept no longer."""
        taken = [line for before, line in self._held[stream] if before <= mark]
        self._held[stream] = self._held[stream][len(taken) :]
        return taken

    def _fail(self) -> NoReturn:
        code = self._client.close()
        said = self._take("err", self._asked)
        messages = parse_messages(said)
        harmless = ("notice", "warning", *([""] if self._connected else []))
        errors = [message for message in messages if message.severity.lower() not in harmless]
        for message in messages:
            if message not in errors and not _is_noise(message):
                self._on_message(message)
        # What the server said last, before psql's own "connection to server was lost".
        error = next((error for error in reversed(errors) if error.sqlstate), errors[-1] if errors else None)
        self._connected |= error is not None and error.sqlstate != ""  # an answer of the server to what it was asked
        text = " ".join([error.text, *(line.strip() for line in error.extra)]) if error else f"psql ended with exit code {code}"
        if not self._connected:
            text = "\n".join(line.removeprefix("psql: error: ").strip() for line in said) or text
        raise PsqlError(text, error=error, code=code, connected=self._connected)


def parse_messages(lines: Iterable[str]) -> list[Message]:
    """psql's stderr as messages, at VERBOSITY verbose; the lines that name the server's source code are left out."""
    messages: list[Message] = []
    ended = True  # the last one, by its LOCATION
    for line in lines:
        match = None if _CONTINUED.match(line) else _MESSAGE.fullmatch(line)
        if match:
            messages.append(
                Message(
                    severity=match["severity"],
                    text=match["text"],
                    sqlstate=match["sqlstate"] or "",
                    file=match["file"] or "",
                    line=int(match["line"] or 0),
                )
            )
            ended = False
        elif ended:
            messages.append(Message(severity="", text=line))  # of \\warn, or of another program
        elif line.startswith("LOCATION:"):
            ended = True
        else:
            last = messages[-1]
            messages[-1] = replace(last, extra=(*last.extra, line))
    return messages


def _is_noise(message: Message) -> bool:
    """IF NOT EXISTS and IF EXISTS say that they had nothing to do."""
    return message.severity == "NOTICE" and (message.sqlstate in _ALREADY_THERE or message.text.endswith(", skipping"))
