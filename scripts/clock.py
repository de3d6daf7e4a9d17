"""A clock that stands still, for a database of a proof: what files make of the time is then the same in each build, or not
by their doing. Pure.

SQL asks for the time by functions, which a superuser can replace, and by keywords, which can't be replaced but written otherwise.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

# 401 days, 5 hours and some apart: another year, month, day, weekday, hour, minute and second.
TODAY = datetime(2031, 5, 17, 3, 4, 5, tzinfo=UTC)
ANOTHER_DAY = datetime(2032, 6, 21, 8, 15, 26, tzinfo=UTC)

_KEYWORD = re.compile(
    r"""(?<![\w$."])(?P<word>current_date|current_timestamp|current_time|localtimestamp|localtime)(?:\s*\(\s*\d+\s*\))?(?![\w$."])""",
    re.IGNORECASE,
)
# What each keyword says, by its function.
_TYPES = {
    "current_date": "date",
    "current_timestamp": "timestamptz",
    "current_time": "timetz",
    "localtimestamp": "timestamp",
    "localtime": "time",
}
_STANDS = ("now", "transaction_timestamp", "statement_timestamp")
_GOES_ON = "clock_timestamp"  # a file may wait for it
_OPTIONS = "LANGUAGE sql STABLE PARALLEL SAFE"


def stopped_at(moment: datetime) -> str:
    """SQL by which a superuser stops the clock of the database that he is connected to."""
    literal = f"pg_catalog.timestamptz '{moment.isoformat()}'"
    statements = [f"ALTER FUNCTION pg_catalog.{name}() RENAME TO {name}_of_the_machine" for name in (*_STANDS, _GOES_ON)]
    statements += [
        f"CREATE FUNCTION pg_catalog.{name}() RETURNS timestamptz {_OPTIONS} AS $$SELECT {literal}$$" for name in _STANDS
    ]
    statements.append(
        f"CREATE FUNCTION pg_catalog.{_GOES_ON}() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS "
        f"$$SELECT {literal} + (pg_catalog.{_GOES_ON}_of_the_machine() - pg_catalog.pg_postmaster_start_time())$$"
    )
    statements += [
        f"CREATE FUNCTION pg_catalog.{_function(word)}() RETURNS {kind} {_OPTIONS} AS $$SELECT {literal}::pg_catalog.{kind}$$"
        for word, kind in _TYPES.items()
    ]
    return ";\n".join(statements)


def asking_functions(text: str) -> str:
    """A file's text that asks for the time by functions alone; lines stay where they are."""
    return _KEYWORD.sub(lambda found: f"pg_catalog.{_function(found['word'].lower())}(){_line_ends(found.group())}", text)


def _function(word: str) -> str:
    """Named as the keyword, for a column that is called by it."""
    return f'"{word}"'


def _line_ends(text: str) -> str:
    return "\n" * text.count("\n")
