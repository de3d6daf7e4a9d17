"""The self-test of an application's login role: over its own DSN it tries what it may do, and what it must not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from scripts import secret
from scripts.catalogs import GROUPS, OWNER, SCHEMAS, Rights, identifier
from scripts.console import Console
from scripts.dsn import TLS_MODES, Dsn
from scripts.ledger import TABLE, literal
from scripts.logins import Wanted
from scripts.psql import NOT_ALLOWED, Session
from scripts.secret import Secret
from scripts.target import Target, Unreachable

_WORKED = "00000"
_LOCKED = "55P03"  # SQLSTATE lock_not_available
_NAME = "roles_self_test"  # of what is tried to be made; nothing of it stays
_OTHERS = 3  # other databases that are tried, each by a psql of its own
# What an administrator's DSN says that is of use to an application too; files are of the administrator's machine.
_KEPT = ("host", "hostaddr", "port", "dbname", "sslmode", "channel_binding", "target_session_attrs")


@dataclass(frozen=True)
class Attempt:
    """One thing that the role tries."""

    what: str
    statement: str
    allowed: bool


@dataclass(frozen=True)
class Outcome:
    """How a self-test ended."""

    tried: int
    problems: tuple[str, ...]
    tls: bool = False  # whether the connection was encrypted
    notes: tuple[str, ...] = ()  # what could not be tried
    refused: bool = False  # whether the server didn't let the role in at all

    def told(self, name: str) -> str:
        """It as a sentence about the role of this name."""
        how = "" if self.refused else ", over TLS" if self.tls else ", without TLS"
        return f"self-test as {name}{how}: {self.tried - len(self.problems)} of {self.tried} as designed"

    def facts(self) -> dict[str, int | bool]:
        """It for a JSON document."""
        return {"tried": self.tried, "tls": self.tls}


def app_dsn(admin: Dsn, user: str, password: Secret, *, tls: bool) -> Dsn:
    """The application's DSN on the administrator's server; it insists on TLS where the server has it."""
    params = {key: admin.params[key] for key in _KEPT if key in admin.params}
    if admin.params.get("sslrootcert") == "system":
        params["sslrootcert"] = "system"
    if tls and params.get("sslmode") not in TLS_MODES:
        params["sslmode"] = "require"
    return Dsn({"user": user, **params}, password)


def conceal(console: Console, target: Target, wanted: Wanted, password: Secret) -> None:
    """Has the console keep back what an application's DSN of this run can be, new or at hand, before anything is printed."""
    found = target.app()
    at_hand = [found[0]] if found else []
    new = [app_dsn(target.dsn, name, password, tls=tls) for name in wanted.names for tls in (True, False)]
    console.conceal(*(secret for dsn in (*new, *at_hand) for secret in (dsn.password, dsn.uri())))


def attempts(seen: Rights) -> Iterator[Attempt]:
    """All that is tried in the database itself; what is made or changed is rolled back."""
    for schema, written in SCHEMAS.items():
        table = seen.samples.get(schema)
        if table:
            yield Attempt(f"read {table}", f"SELECT FROM {table} LIMIT 0", True)
            # EXPLAIN asks for the same privileges as the statement, and fires no trigger.
            yield Attempt(f"insert into {table}", f"EXPLAIN INSERT INTO {table} DEFAULT VALUES", written)
            yield Attempt(f"update {table}", f"EXPLAIN SELECT FROM {table} FOR UPDATE", written)
            yield Attempt(f"delete from {table}", f"EXPLAIN DELETE FROM {table}", written)
    yield Attempt("read the ledger", f"SELECT FROM {TABLE} LIMIT 0", True)
    yield Attempt("insert into the ledger", f"INSERT INTO {TABLE} (version) VALUES ('{_NAME}')", False)
    yield Attempt("update the ledger", f"UPDATE {TABLE} SET version = version WHERE false", False)
    yield Attempt("delete from the ledger", f"DELETE FROM {TABLE} WHERE false", False)
    for table in (TABLE, *seen.samples.values()):
        yield Attempt(f"alter the table {table}", f"ALTER TABLE {table} ADD COLUMN {_NAME} int", False)
        yield Attempt(f"drop the table {table}", f"DROP TABLE {table}", False)
        yield Attempt(f"truncate the table {table}", f"TRUNCATE {table}", False)
    for schema in (*seen.schemas, "public"):
        yield Attempt(f"create a table in {schema}", f"CREATE TABLE {schema}.{_NAME} ()", False)
    yield Attempt("create a schema", f"CREATE SCHEMA {_NAME}", False)
    yield Attempt("create a temporary table", f"CREATE TEMPORARY TABLE {_NAME} ()", False)
    yield Attempt("create a role", f"CREATE ROLE {_NAME}", False)
    yield Attempt("read pg_authid", "SELECT FROM pg_catalog.pg_authid LIMIT 1", False)
    yield Attempt("read a file of the server", "SELECT pg_catalog.pg_read_file('PG_VERSION')", False)
    yield Attempt("switch triggers off", "SET session_replication_role = replica", False)
    for role in (*GROUPS, seen.user):
        yield Attempt(f"SET ROLE {role}", f"SET ROLE {identifier(role)}", False)


def run(target: Target, seen: Rights, dsn: Dsn) -> Outcome:
    """Tries everything over the role's own DSN. Raises OpsError when the server can't be reached.

    That it refuses the role is a finding like others: its connections may all be in use.
    """
    name, problems = dsn.params["user"], []
    tls_missing = dsn.needs_tls and not target.has_tls
    role = _as_role(target, dsn)
    plan = list(attempts(seen))

    def work(session: Session) -> tuple[list[str], bool]:
        encrypted = session.query("SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()")
        return session.attempt(f"SET LOCAL lock_timeout = '2s'; {attempt.statement}" for attempt in plan), encrypted == ["t"]

    try:
        states, tls = role.ask(work)
    except Unreachable as error:
        if not error.refused:
            raise
        said = " ".join(line.strip() for line in error.message.splitlines()[1:])
        return Outcome(1, (f"{name} can't connect with its DSN: {said}",), refused=True)
    locked = [attempt.what for attempt, state in zip(plan, states, strict=True) if state == _LOCKED]
    for attempt, state in zip(plan, states, strict=True):
        expected = _WORKED if attempt.allowed else NOT_ALLOWED
        if state not in (expected, _LOCKED):
            can = "can't" if attempt.allowed else "can" if state == _WORKED else "has the right to"
            problems.append(f"{name} {can} {attempt.what}" + ("" if state in (_WORKED, NOT_ALLOWED) else f" (SQLSTATE {state})"))
    closed = [database["name"] for database in seen.databases if not database["open"]][:_OTHERS]
    open_ones = [database for database in closed if connects(target, dsn.with_params(dbname=database))]
    problems += [f"{name} can connect to the database {database}" for database in open_ones]
    if seen.tls and not tls and not tls_missing and not dsn.is_socket:  # which TLS isn't for
        problems.append(f"{name} connects without TLS, which the server has")
    notes = ["TLS was not tried: the embedded psql has none"] if seen.tls and tls_missing else []
    notes += [f"not tried, as somebody has it locked: {', '.join(locked)}"] if locked else []
    return Outcome(len(plan) - len(locked) + len(closed) + 1, tuple(problems), tls, tuple(notes))


def connects(target: Target, dsn: Dsn) -> bool:
    """Whether the server lets the DSN in. Raises OpsError when it can't be reached."""
    try:
        _as_role(target, dsn).ask(lambda session: session.query("SELECT 1"))
    except Unreachable as error:
        if not error.refused:
            raise
        return "too many connections for role" in error.message  # which is said to those alone who have the password
    return True


def knows(target: Target, dsn: Dsn) -> bool:
    """Whether the DSN's password is the role's: a rule such as `trust` lets everybody in, whatever it is."""
    return connects(target, dsn) and not connects(target, replace(dsn, password=secret.generate()))


def _as_role(target: Target, dsn: Dsn) -> Target:
    if dsn.needs_tls and not target.has_tls:  # the embedded psql, which reaches this machine alone
        dsn = dsn.with_params(sslmode="disable")
    return target.as_role(dsn, f"the DSN of {dsn.params['user']}")


def later_tables(session: Session, seen: Rights, name: str) -> list[str]:
    """What would be wrong with a table that a migration made now: made by the owners' group and rolled back."""
    checks, texts = [], []
    for schema in seen.schemas:
        table, written = f"{schema}.{_NAME}", SCHEMAS[schema]
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
            wanted = privilege == "SELECT" or (written and privilege in ("INSERT", "UPDATE", "DELETE"))
            texts.append(f"{name} {'lacks' if wanted else 'has'} {privilege} on a table that is made in {schema}")
            has = f"pg_catalog.has_table_privilege({literal(name)}, '{table}', '{privilege}')"
            checks.append(f"{'' if wanted else 'NOT '}{has}")
    make = "; ".join(f"CREATE TABLE {schema}.{_NAME} (id serial)" for schema in seen.schemas)
    answer = " || chr(10) || ".join(f"({check})::text" for check in checks)
    answers = session.query(f"BEGIN; SET LOCAL ROLE {OWNER}; {make}; SELECT {answer}; ROLLBACK")
    return [text for text, answer in zip(texts, answers, strict=True) if answer != "true"]
