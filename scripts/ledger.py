"""The ledger, `public.schema_migrations`: its SQL and its rows. Pure.

What the table looks like is said once, in migrations/0001_schema_migrations.sql.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scripts import __version__
from scripts.settings import MIGRATIONS
from scripts.sql import Migration

TABLE = "public.schema_migrations"
DEFINITION = MIGRATIONS / "0001_schema_migrations.sql"
# The first 8 bytes of sha256("public.schema_migrations") as a signed number: any constant does, if no one else has it.
LOCK_KEY = 249420391889604208

# The group that owns the ledger, once 0003_roles_and_grants.sql has been applied; a ledger that belongs to a login has none.
_OWNING_GROUP = f"""SELECT r.rolname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
  WHERE c.oid = pg_catalog.to_regclass('{TABLE}') AND NOT r.rolcanlogin"""
# From PostgreSQL 16 on, a member may lack the right to become the group, which is what it takes to run files as it.
_MAY_BECOME = "CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END"
_IS_MEMBER = f"pg_catalog.pg_has_role(SESSION_USER, r.oid, {_MAY_BECOME})"
# The role that files run as: that group, so that what they make belongs to it, whichever of its members runs them.
RUN_AS = f"coalesce(({_OWNING_GROUP} AND {_IS_MEMBER}), 'none')"
FACTS = f"""SELECT pg_catalog.json_build_object(
  'version', current_setting('server_version'), 'number', current_setting('server_version_num')::int,
  'database', current_database(), 'user', session_user,
  'group', ({_OWNING_GROUP}), 'member', ({_OWNING_GROUP} AND {_IS_MEMBER}) IS NOT NULL,
  'ledger', to_regclass('{TABLE}') IS NOT NULL,
  'current', EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass('{TABLE}') AND attname = 'state' AND NOT attisdropped))"""
# As JSON, whatever columns there are: an older ledger has but two.
ROWS = f"SELECT pg_catalog.to_jsonb(m) FROM {TABLE} AS m"
BACKEND = "SELECT pg_catalog.pg_backend_pid()"
TRY_LOCK = f"SELECT pg_try_advisory_lock({LOCK_KEY})"
_HOLDS_LOCK = f"""SELECT FROM pg_catalog.pg_locks AS l
  WHERE l.locktype = 'advisory' AND l.granted AND l.pid = pg_catalog.pg_backend_pid() AND l.objsubid = 1
    AND (l.classid::bigint << 32) | l.objid::bigint = {LOCK_KEY}"""
HOLDS_LOCK = f"SELECT pg_catalog.pg_backend_pid(), EXISTS ({_HOLDS_LOCK})"
LOCK_HOLDER = f"""SELECT pg_catalog.json_build_object(
    'pid', a.pid, 'user', a.usename, 'client', coalesce(host(a.client_addr), 'a unix socket'),
    'since', date_trunc('second', a.backend_start))
  FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
  WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32) | l.objid::bigint = {LOCK_KEY} AND l.objsubid = 1"""
# Not partitioned ones (I), which are invalid until all their parts are attached.
INVALID_INDEXES = """SELECT pg_catalog.json_build_object(
    'name', c.relname, 'table', t.relname, 'qualified', pg_catalog.format('%I.%I', n.nspname, c.relname))
  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_class AS t ON t.oid = i.indrelid
  WHERE NOT i.indisvalid AND c.relkind = 'i' ORDER BY 1::text"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a server says of itself and of its ledger."""

    version: str
    number: int  # server_version_num
    database: str
    user: str
    ledger: bool  # whether the table exists
    current: bool  # whether it has today's columns
    group: str | None  # the group that owns the ledger, and as which files run
    member: bool  # whether the user is a member of it, who may become it


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the ledger; what an older ledger doesn't know is None."""

    version: str
    state: str = "applied"
    name: str | None = None
    checksum: str | None = None
    applied_at: str | None = None
    applied_by: str | None = None
    duration_ms: int | None = None

    @property
    def number(self) -> int | None:
        """The version as a number; None for a row that another tool wrote."""
        return _number(self.version)

    @property
    def repeatable(self) -> bool:
        """Whether it is of a repeatable file."""
        return self.version.startswith("R__")


@functools.cache  # each row is asked some ten times
def _number(version: str) -> int | None:
    match = re.match(r"[0-9]+(?![0-9A-Za-z])", version.replace("_", "-"))
    return int(match.group()) if match else None


def literal(value: str | None) -> str:
    """A value as an SQL literal, however the server reads a backslash in a plain one (standard_conforming_strings)."""
    if value is None:
        return "NULL"
    quoted = "'" + value.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in quoted else quoted


def facts(lines: Iterable[str]) -> Facts:
    """The answer to FACTS."""
    return Facts(**json.loads("".join(lines)))


def rows(lines: Iterable[str]) -> list[Row]:
    """The answer to ROWS."""
    known = Row.__dataclass_fields__.keys()
    return [Row(**{key: value for key, value in json.loads(line).items() if key in known}) for line in lines]


def observe(read: Callable[[str], Iterable[str]]) -> tuple[Facts, list[Row]]:
    """What the server says of itself, and the rows of its ledger, none where there is none; `read` asks it."""
    said = facts(read(FACTS))
    return said, rows(read(ROWS)) if said.ledger else []


_RECORDED = ("name", "checksum", "applied_at", "applied_by", "duration_ms", "state", "tool_version", "git_revision")
_STARTED = tuple(column for column in _RECORDED if column != "duration_ms")


def _row(migration: Migration, state: str, revision: str | None, *, timed: bool = True) -> str:
    duration = "(extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp()) * 1000)::pg_catalog.int8"
    values = [
        literal(migration.version),
        literal(migration.name),
        literal(migration.checksum),
        "pg_catalog.now()",
        "SESSION_USER",
        duration if timed and state == "applied" else "NULL",
        literal(state),
        literal(__version__),
        literal(revision),
    ]
    return f"INSERT INTO {TABLE} (version, {', '.join(_RECORDED)}) VALUES ({', '.join(values)})"


def _excluded(columns: Iterable[str]) -> str:
    return ", ".join(f"{column} = excluded.{column}" for column in columns)


def applied(migration: Migration, revision: str | None) -> str:
    """Records a file in the transaction that ran it; the row of a repeatable one is of its last run."""
    row = _row(migration, "applied", revision)
    return f"{row} ON CONFLICT (version) DO UPDATE SET {_excluded(_RECORDED)}" if migration.repeatable else row


def adopted(migration: Migration, revision: str | None) -> str:
    """Records a file whose work was there already: how long it took is nobody's knowledge."""
    return _row(migration, "applied", revision, timed=False)


def recorded_anew(row: Row, migration: Migration) -> str:
    """Records the checksum that a file has now."""
    return f"UPDATE {TABLE} SET checksum = {literal(migration.checksum)} WHERE version = {literal(row.version)}"


def forgotten(row: Row) -> str:
    """Deletes a row that says `started`."""
    return f"DELETE FROM {TABLE} WHERE version = {literal(row.version)} AND state = 'started'"


def started(migration: Migration, revision: str | None) -> str:
    """Records that a no-transaction file begins; a row that says so already is taken over."""
    again = f"ON CONFLICT (version) DO UPDATE SET {_excluded(_STARTED)} WHERE schema_migrations.state = 'started'"
    return f"{_row(migration, 'started', revision)} {again}"


def finished(migration: Migration) -> str:
    """Records that a no-transaction file came to its end; it took from `applied_at` until now."""
    duration = "(extract(epoch FROM pg_catalog.clock_timestamp() - applied_at) * 1000)::pg_catalog.int8"
    version = literal(migration.version)
    return f"UPDATE {TABLE} SET state = 'applied', duration_ms = {duration} WHERE version = {version} AND state = 'started'"
