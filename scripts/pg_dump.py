"""The only module that knows pg_dump's words. It runs where psql does (`clients.py`), and only reads.

pg_dump takes ACCESS SHARE locks, which nothing but an ALTER or DROP of the very table waits for, in a READ ONLY
transaction. It must not be older than the server, which it sees to itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scripts import clients, ledger
from scripts.clients import Mode
from scripts.errors import OpsError, UsageError
from scripts.shell import WINDOWS
from scripts.target import Target, Unreachable

_LOCK_WAIT = 5  # seconds that it waits, by statement_timeout, for a table which somebody is altering
# Where a table's files lie is the server's matter, and no file of a migration says it.
_ARGUMENTS = ("--no-tablespaces", "--encoding=UTF8", "--no-password", f"--lock-wait-timeout={_LOCK_WAIT}s")
_VARIABLES = {"PGTZ": "UTC"}  # a moment in a view or a default is written in the time zone of whoever asks
_OLDER = re.compile(r"server version: (?P<server>\d+)\S*.*; pg_dump version: (?P<own>\d+)")


@dataclass(frozen=True, kw_only=True)
class Dump:
    """What pg_dump wrote, and where it ran: the other side of a comparison is for the same one."""

    text: str
    mode: Mode


def run(target: Target, *, owners: bool, again: str, rows: bool = False) -> Dump:
    """The schema of a database as SQL, in UTF-8, with or without its owners. `again` is the command that wants it.

    With `rows`, also what is in it, a statement for each row; not in the ledger, which says when.

    Of several pg_dumps, the first that is new enough and reaches the server. Raises OpsError when none does, or
    something can't be read.
    """
    what = ["--inserts", f"--exclude-table-data={ledger.TABLE}"] if rows else ["--schema-only"]
    arguments = [*_ARGUMENTS, *what, *([] if owners else ["--no-owner"])]
    older: list[str] = []
    needed = ""
    failure: OpsError | None = None
    for mode in _modes(target):
        try:
            client = clients.choose(mode, target.dsn, image=target.image, env=target.env, program="pg_dump")
            result = client.finish(target.dsn, arguments, _VARIABLES)
        except OpsError as error:  # of Docker, say, which can't get the image
            failure = failure or error
            continue
        if result.code == 0:
            return Dump(text=_text(target, result.raw), mode=mode)
        if mismatch := _OLDER.search(result.err):
            needed = mismatch["server"]
            older.append(f"{mode.value}: {mismatch['own']}")
            continue
        explained = _explained(target, result.err, again)
        if not isinstance(explained, Unreachable):
            raise explained
        failure = failure or explained
    if needed:
        also = f"; {failure.message}" if failure else ""
        raise UsageError(
            f"the server is PostgreSQL {needed}, and no pg_dump is as new ({', '.join(older)}{also})",
            f"install the client of PostgreSQL {needed} or newer, or have POSTGRES_IMAGE name an image with it and use --docker",
        )
    assert failure is not None  # `available` yields one, or raises
    raise failure


def _text(target: Target, raw: bytes) -> str:
    """The output as the server has it: on Windows, pg_dump ends its lines with CRLF, and those in bodies with it."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        problem = f"the schema of {target.dsn} holds text that isn't UTF-8 (its encoding is SQL_ASCII)"
        raise OpsError(problem, "rename what has such a name, or make the database anew with ENCODING 'UTF8'") from None
    return text.replace("\r\n", "\n") if WINDOWS else text


def _modes(target: Target) -> Iterator[Mode]:
    if target.mode is Mode.AUTO:
        return clients.available(target.dsn, target.env, "pg_dump")
    return iter([target.mode])


def _explained(target: Target, said: str, again: str) -> OpsError:
    """What pg_dump's complaint means; its words, but for the line that names our own password file."""
    lines = [re.sub(r"^pg_dump: (error|detail|hint): ", "", line) for line in said.strip().splitlines()]
    text = "\n".join(line for line in lines if "password retrieved from file" not in line)
    came = f"the DSN came from {target.origin}"
    if "connection to server" in text or "could not translate host name" in text:
        return Unreachable(f"{target.dsn} can't be reached:\n{text}", came, refused="FATAL" in text)
    if "permission denied" in text:
        return OpsError(
            f"pg_dump may not read all of {target.dsn}:\n{text}",
            target.without_rights(f"use the DSN of a role that may read everything ({came}), then: {again}", again),
        )
    if "statement timeout" in text:
        return OpsError(
            f"a table of {target.dsn} is being altered by another session, for more than {_LOCK_WAIT} s:\n{text}",
            f"when that has ended: {again}",
        )
    return OpsError(f"pg_dump of {target.dsn} failed:\n{text}", came)
