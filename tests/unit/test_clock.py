"""Files that ask for the time by functions alone."""

from __future__ import annotations

import pytest

from scripts import clock

DATE, STAMP = 'pg_catalog."current_date"()', 'pg_catalog."current_timestamp"()'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT current_date, Current_Timestamp(3) ;", f"SELECT {DATE}, {STAMP} ;"),
        ("SELECT CURRENT_TIMESTAMP\n(\n3);\nSELECT 1;", f"SELECT {STAMP}\n\n;\nSELECT 1;"),
        ("CREATE TABLE a (b date DEFAULT CURRENT_DATE);", f"CREATE TABLE a (b date DEFAULT {DATE});"),
        ("DO $x$BEGIN EXECUTE 'SELECT current_date'; END$x$;", f"DO $x$BEGIN EXECUTE 'SELECT {DATE}'; END$x$;"),
    ],
)
def test_the_keywords_are_functions(text: str, expected: str) -> None:
    assert clock.asking_functions(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "SELECT now()::date AS current_date;",
        "SELECT 'current_date', \"current_date\", t.current_date /* current_date */ FROM t; -- current_date",
        "CREATE TABLE a (kind text CHECK (kind IN ('current_date')));",
        "DO $$BEGIN PERFORM 1 WHERE 'x' = 'current_date'; END$$;",
        "\\i current_date.sql\nSELECT :'current_date';\n",
        "COPY a FROM stdin;\ncurrent_date\n\\.\nSELECT 1;\n",
        "SELECT E'it\\'s current_date';",
    ],
)
def test_what_is_no_keyword_stays(text: str) -> None:
    assert clock.asking_functions(text) == text
