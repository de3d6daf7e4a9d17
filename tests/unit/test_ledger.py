"""The ledger's SQL says what was done, and its rows are read whoever wrote them."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import __version__, ledger, lexer
from scripts.ledger import Facts, Row
from scripts.sql import Migration

MIGRATION = Migration("0007", "it's", "0007_it's.sql", "abc", "SELECT 1;")


@pytest.mark.parametrize(("value", "expected"), [(None, "NULL"), ("", "''"), ("it's", "'it''s'"), ("a\\'", "E'a\\\\'''")])
def test_a_value_becomes_a_literal(value: str | None, expected: str) -> None:
    assert ledger.literal(value) == expected


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_value_ends_its_literal(value: str) -> None:
    lexed = lexer.lex(f"SELECT {ledger.literal(value)};SELECT 2;")
    assert lexed.problems == []
    assert len(lexed.items) == 2


def test_the_lock_is_named_by_the_table() -> None:
    assert int.from_bytes(hashlib.sha256(ledger.TABLE.encode()).digest()[:8], signed=True) == ledger.LOCK_KEY


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("0001", 1),
        ("20240131", 20240131),
        ("0002_init", 2),
        ("3-x", 3),
        ("4.1", 4),
        ("1a", None),
        ("12a", None),
        ("v1", None),
        ("", None),
    ],
)
def test_a_version_of_any_tool_has_its_number_or_none(version: str, number: int | None) -> None:
    assert Row(version=version).number == number


def test_rows_are_read_with_whatever_columns_there_are() -> None:
    lines = [
        json.dumps({"version": "0001", "applied_at": "2024-01-02T03:04:05+00:00"}),
        json.dumps({"version": "0002", "state": "started", "checksum": "abc", "duration_ms": None, "colour": "blue"}),
    ]
    assert ledger.rows(lines) == [
        Row(version="0001", state="applied", applied_at="2024-01-02T03:04:05+00:00"),
        Row(version="0002", state="started", checksum="abc"),
    ]


def test_facts_are_one_document_on_however_many_lines() -> None:
    facts = Facts(version="16.4", number=160004, database="d", user="u", ledger=True, current=False, group=None, member=False)
    assert ledger.facts(json.dumps(vars(facts), indent=1).split("\n")) == facts


def test_applied_writes_one_row_and_takes_over_none() -> None:
    statement = ledger.applied(MIGRATION, "1234567")
    for part in ("'0007'", "'it''s'", "'abc'", "'applied'", f"'{__version__}'", "'1234567'", "clock_timestamp()"):
        assert part in statement
    assert statement.startswith(f"INSERT INTO {ledger.TABLE} ")
    assert "ON CONFLICT" not in statement


def test_started_takes_over_a_row_that_says_so_and_no_other() -> None:
    statement = ledger.started(MIGRATION, None)
    assert "'started'" in statement
    assert "clock_timestamp" not in statement
    assert statement.endswith(
        "ON CONFLICT (version) DO UPDATE SET name = excluded.name, checksum = excluded.checksum, "
        "applied_at = excluded.applied_at, applied_by = excluded.applied_by, state = excluded.state, "
        "tool_version = excluded.tool_version, git_revision = excluded.git_revision WHERE schema_migrations.state = 'started'"
    )


def test_finished_changes_the_row_that_was_started() -> None:
    statement = ledger.finished(MIGRATION)
    assert statement.startswith(f"UPDATE {ledger.TABLE} SET state = 'applied'")
    assert statement.endswith("WHERE version = '0007' AND state = 'started'")


@pytest.mark.parametrize(
    "statement", [ledger.applied(MIGRATION, None), ledger.started(MIGRATION, None), ledger.finished(MIGRATION)]
)
def test_what_is_written_is_one_statement_without_an_end(statement: str) -> None:
    (item,) = lexer.lex(statement).items
    assert (item.start, statement[-1] != ";") == (0, True)
