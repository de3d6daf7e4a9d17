"""A clock that stands still, for a database of a proof: what files make of the time is then the same in each build, or not
by their doing. Pure.

SQL asks for the time by functions, which a superuser can replace, and by keywords, which can't be replaced but written otherwise.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from scripts import lexer

# 401 days, 5 hours and some apart: another year, month, day, weekday, hour, minute and second.
TODAY = datetime(2031, 5, 17, 3, 4, 5, tzinfo=UTC)
ANOTHER_DAY = datetime(2032, 6, 21, 8, 15, 26, tzinfo=UTC)

_KEYWORD = re.compile(
    r"""(?<![\w$.":])(?P<word>current_date|current_timestamp|current_time|localtimestamp|localtime)(?:\s*\(\s*\d+\s*\))?(?![\w$."])""",
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
    for kind in ("timestamptz", "timestamp"):  # since today's midnight, when one moment alone is given
        since = f"pg_catalog.age({literal}::pg_catalog.date::pg_catalog.{kind}, $1)"
        statements.append(f"ALTER FUNCTION pg_catalog.age({kind}) RENAME TO age_on_the_machine")
        statements.append(f"CREATE FUNCTION pg_catalog.age({kind}) RETURNS interval {_OPTIONS} AS $$SELECT {since}$$")
    return ";\n".join(statements)


def asking_functions(text: str) -> str:
    """A file's text that asks for the time by functions alone, in its statements and in the bodies of functions; lines stay."""
    if not _KEYWORD.search(text):
        return text
    parts, at = [], 0
    for statement in lexer.lex(text).statements:
        parts += [text[at : statement.start], _statement(text[statement.start : statement.end])]
        at = statement.end
    return "".join([*parts, text[at:]])


def _statement(sql: str) -> str:
    parts, at, before = [], 0, ""
    for kind, token, start in lexer.tokens(sql):
        if kind == "dollar" or (kind == "word" and token.lower() in _TYPES and before not in ("as", ".")):
            found = _KEYWORD.match(sql, start) if kind == "word" else None
            end = start + len(token) if found is None else found.end()
            parts += [sql[at:start], _KEYWORD.sub(_call, sql[start:end])]
            at = end
        before = token.lower() if kind not in ("comment", "block") else before
    return "".join([*parts, sql[at:]])


def _call(found: re.Match[str]) -> str:
    if found.string[: found.start()][-1:] == "'" == found.string[found.end() :][:1]:  # a string in a body that is no code
        return found.group()
    return f"pg_catalog.{_function(found['word'].lower())}(){_line_ends(found.group())}"


def _function(word: str) -> str:
    """Named as the keyword, for a column that is called by it."""
    return f'"{word}"'


def _line_ends(text: str) -> str:
    return "\n" * text.count("\n")
