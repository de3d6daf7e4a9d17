"""What the self-test tries, and over which DSN."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast

import pytest

from scripts import catalogs, lexer, probe
from scripts import dsn as dsns
from scripts.catalogs import GROUPS, SCHEMAS, Rights
from scripts.dsn import Dsn
from scripts.probe import Attempt, Outcome
from scripts.secret import Secret
from scripts.target import Target, Unreachable
from tests.unit.test_grants import READ, WRITTEN, answer, converged

ADMIN = "postgresql://azadmin:hers@db.example.com:5432/serving"


def app_dsn(query: str = "sslmode=require", admin: str = ADMIN, *, tls: bool = True) -> Dsn:
    return probe.app_dsn(dsns.parse(f"{admin}?{query}", "--dsn"), "app", Secret("its own"), tls=tls)


def attempts(seen: Rights) -> dict[str, Attempt]:
    found = list(probe.attempts(seen))
    assert len({attempt.what for attempt in found}) == len(found)
    return {attempt.what: attempt for attempt in found}


def test_the_applications_dsn_leads_to_the_same_database_as_somebody_else() -> None:
    dsn = app_dsn()
    assert dsn.same_database(dsns.parse(f"{ADMIN}?sslmode=require", "--dsn"))
    assert dsn.uri().reveal() == "postgresql://app:its%20own@db.example.com:5432/serving?sslmode=require"


@pytest.mark.parametrize(
    ("query", "tls", "mode"),
    [
        ("", True, "require"),
        ("", False, None),
        ("sslmode=disable", True, "require"),
        ("sslmode=prefer", True, "require"),
        ("sslmode=prefer", False, "prefer"),
        ("sslmode=require", False, "require"),
        ("sslmode=verify-ca", True, "verify-ca"),
        ("sslmode=verify-full", True, "verify-full"),
    ],
)
def test_the_applications_dsn_insists_on_tls_where_the_server_has_it(query: str, tls: bool, mode: str | None) -> None:
    assert app_dsn(query, "postgresql://me:p@localhost/serving", tls=tls).params.get("sslmode") == mode


@pytest.mark.parametrize(
    ("parameter", "kept"),
    [
        ("sslrootcert=system", True),
        ("sslrootcert=/home/me/root.pem", False),
        ("sslcert=/home/me/my.pem", False),
        ("sslkey=/home/me/my.key", False),
        ("channel_binding=require", True),
        ("target_session_attrs=read-write", True),
        ("hostaddr=10.0.0.1", True),
        ("application_name=mine", False),
        ("options=-crole%3Dserving_owner", False),
        ("connect_timeout=3", False),
    ],
)
def test_what_is_of_the_administrators_machine_or_session_stays_there(parameter: str, kept: bool) -> None:
    name, value = parameter.split("=", 1)
    assert app_dsn(f"sslmode=verify-full&{parameter}").params.get(name) == (value if kept else None)


def test_several_hosts_are_kept() -> None:
    dsn = app_dsn(admin="postgresql://azadmin:hers@one:5432,two:5433/serving")
    assert (dsn.params["host"], dsn.params["port"]) == ("one,two", "5432,5433")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_is_read_and_only_some_are_written(schema: str) -> None:
    tried = attempts(converged())
    assert (schema in WRITTEN) != (schema in READ)
    for what in ("insert into", "update", "delete from"):
        assert tried[f"{what} {schema}.things"].allowed == (schema in WRITTEN)
    assert tried[f"read {schema}.things"].allowed
    for what in ("alter the table", "drop the table", "truncate the table"):
        assert not tried[f"{what} {schema}.things"].allowed
    assert not tried[f"create a table in {schema}"].allowed


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_schema_without_a_table_is_tried_for_making_one(schema: str) -> None:
    tried = attempts(converged(samples={}))
    assert not tried[f"create a table in {schema}"].allowed
    assert f"read {schema}.things" not in tried


def test_a_schema_that_is_not_there_is_not_tried() -> None:
    document = answer()
    document["objects"] = [kept for kept in document["objects"] if kept["schema"] != "gold"]
    del document["samples"]["gold"]
    tried = attempts(catalogs.rights([json.dumps(document)]))
    assert not [what for what in tried if "gold" in what]


def test_the_ledger_is_read_and_never_written() -> None:
    tried = attempts(converged())
    assert tried["read the ledger"].allowed
    for what in ("insert into the ledger", "update the ledger", "delete from the ledger"):
        assert not tried[what].allowed
    for what in ("alter", "drop", "truncate"):
        assert not tried[f"{what} the table public.schema_migrations"].allowed


@pytest.mark.parametrize(
    "what",
    [
        "create a table in public",
        "create a schema",
        "create a temporary table",
        "create a role",
        "read pg_authid",
        "read a file of the server",
        "switch triggers off",
        *(f"SET ROLE {name}" for name in (*GROUPS, "azadmin")),
    ],
)
def test_what_no_application_may_do_is_tried(what: str) -> None:
    assert not attempts(converged())[what].allowed


def test_a_table_with_a_strange_name_is_tried_by_its_quoted_name() -> None:
    assert attempts(converged(samples={"gold": 'gold."we ird"'}))['drop the table gold."we ird"'].statement == (
        'DROP TABLE gold."we ird"'
    )


def test_an_administrator_with_a_strange_name_is_no_way_out_of_the_statement() -> None:
    tried = attempts(converged(user='me"; DROP TABLE x; --'))
    assert tried['SET ROLE me"; DROP TABLE x; --'].statement == 'SET ROLE "me""; DROP TABLE x; --"'


def test_every_attempt_is_one_statement() -> None:
    for attempt in attempts(converged()).values():
        assert len(lexer.lex(attempt.statement).items) == 1


@dataclass
class Server:
    """Stands for a target: whoever asks is answered so."""

    states: dict[str, str]
    refusal: str = ""
    has_tls: bool = True

    def as_role(self, *_: object) -> Server:
        return self

    def ask(self, _: object) -> tuple[list[str], bool]:
        if self.refusal:
            raise Unreachable(f"it refuses the connection:\n{self.refusal}", "", refused=True)
        return [self.states.get(attempt.what, "00000" if attempt.allowed else "42501") for attempt in ALL], False


ALL = list(probe.attempts(converged()))


def outcome(dsn: Dsn, refusal: str = "", **states: str) -> Outcome:
    return probe.run(
        cast("Target", Server({what.replace("_", " "): state for what, state in states.items()}, refusal)), SEEN, dsn
    )


SEEN = converged()


def test_a_unix_socket_is_no_connection_without_tls() -> None:
    assert outcome(app_dsn("host=/run/postgresql", "postgresql://me:p@/serving")).problems == ()
    assert outcome(app_dsn()).problems == ("app connects without TLS, which the server has",)


def test_what_is_locked_is_not_tried() -> None:
    found = outcome(app_dsn("host=/run/postgresql", "postgresql://me:p@/serving"), read_the_ledger="55P03")
    assert (found.problems, found.notes) == ((), ("not tried, as somebody has it locked: read the ledger",))
    assert found.tried == len(ALL)


def test_a_refusal_is_a_finding() -> None:
    found = outcome(app_dsn(), 'FATAL:  too many connections for role "app"')
    assert found.refused
    assert found.problems == ('app can\'t connect with its DSN: FATAL:  too many connections for role "app"',)
