"""The text of pg_dump, made stable and taken apart into objects, which can be compared and written down again. Pure.

What belongs to a run, a minor version or a machine is left out: keys, versions, the settings that only some versions
know. Objects are told apart by pg_dump's own headers, and only where they are comments: a line in the body of a
function may look like one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby

from scripts import lexer

_HEADER = re.compile(r"^-- (?:Data for )?Name: (?P<name>.*); Type: (?P<type>.*?); Schema: (?P<schema>.*?); Owner: ", re.MULTILINE)
_STATE = re.compile(r"SET (?P<name>default_tablespace|default_table_access_method) = (?P<value>.*);")
_SESSION = re.compile(r"(?:RE)?SET SESSION AUTHORIZATION\b")  # who granted it; the file is run by one user
# PostgreSQL 17.12 of Debian numbers its columns' versions among their options, which only its own pg_dump leaves out.
_ATTVER = re.compile(r"(?P<before>ALTER (?:FOREIGN )?TABLE .* SET \()(?P<options>[^()]*\bpg_attver=[^()]*)\);", re.DOTALL)
_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_GRANTEE = re.compile(
    rf"(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) .* (?:TO|FROM) (?P<role>{_IDENTIFIER})(?: WITH GRANT OPTION)?;", re.DOTALL
)
_MAKER = re.compile(rf"ALTER DEFAULT PRIVILEGES FOR ROLE (?P<role>{_IDENTIFIER}) ")
_POLICY = re.compile(
    rf"CREATE POLICY {_IDENTIFIER} ON {_IDENTIFIER}(?:\.{_IDENTIFIER})?(?: AS RESTRICTIVE)?(?: FOR [A-Z]+)?"
    rf" TO (?P<roles>{_IDENTIFIER}(?:, {_IDENTIFIER})*)"
)
_RIGHTS = ("ACL", "DEFAULT ACL")
_ABOUT = (*_RIGHTS, "COMMENT", "SECURITY LABEL")  # their names are those of what they are about
_METHOD = "SET default_table_access_method = heap;"
_SETTINGS = f"""SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
{_METHOD}
"""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object of a database, or what is said of one (its rights, its comment), as pg_dump has it."""

    type: str  # "TABLE", "ACL"
    schema: str  # empty of what is in none
    name: str
    statements: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its SQL."""
        return "\n".join(self.statements)

    def __str__(self) -> str:
        if self.type in _ABOUT:
            what = self.name if self.type == "DEFAULT ACL" else f"{self.type} of {self.name}"
            return f"{what} in {self.schema}" if self.schema else what
        return f"{self.type} {self.schema}.{self.name}" if self.schema else f"{self.type} {self.name}"


class Side(Enum):
    """How a database and the files are at odds."""

    DATABASE = "only in the database"
    FILES = "only in the files"
    BOTH = "differs"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One object that the two sides don't have alike."""

    side: Side
    thing: Thing
    diff: str  # unified, from the files to the database

    def __str__(self) -> str:
        return f"{self.side.value}: {self.thing}"


def read(dump: str) -> list[Thing]:
    """The objects of a dump, in its order."""
    things: list[Thing] = []
    current: tuple[str, str, str] | None = None  # none before the first header: the settings of the session
    method, at = _METHOD, 0
    for statement in (item for item in lexer.lex(dump).items if isinstance(item, lexer.Statement)):
        for header in _HEADER.finditer(dump, at, statement.start):
            current = (header["type"], "" if header["schema"] == "-" else header["schema"], header["name"])
            things.append(_thing(current, ()))
        at = statement.end
        text = _plain(dump[statement.start : statement.end])
        if state := _STATE.fullmatch(text):
            method = text if state["name"] == "default_table_access_method" else method
        elif text and current is not None and not _SESSION.match(text):
            added = (text,) if method == _METHOD or not text.startswith("CREATE") else (method, text, _METHOD)
            things[-1] = replace(things[-1], statements=(*things[-1].statements, *added))
    return [_in_order(thing) for thing in things if thing.statements]


def _thing(key: tuple[str, str, str], statements: tuple[str, ...]) -> Thing:
    return Thing(type=key[0], schema=key[1], name=key[2], statements=statements)


def _plain(statement: str) -> str:
    """A statement without what Debian's server adds; empty when it says nothing else."""
    found = _ATTVER.fullmatch(statement)
    if found is None:
        return statement
    options = [option for option in found["options"].split(", ") if not option.startswith("pg_attver=")]
    return f"{found['before']}{', '.join(options)});" if options else ""


def _in_order(thing: Thing) -> Thing:
    """Rights in an order of their own: the catalogs keep them in the order in which they were granted."""
    if thing.type not in _RIGHTS:
        return thing
    return replace(thing, statements=tuple(sorted(thing.statements, key=lambda text: (" REVOKE " not in f" {text}", text))))


def roles(statement: str) -> set[str]:
    """The roles that a statement about rights, or a policy, names; PUBLIC is none."""
    found = [match["role"] for pattern in (_GRANTEE, _MAKER) if (match := pattern.match(statement))]
    if policy := _POLICY.match(statement):
        found += re.findall(_IDENTIFIER, policy["roles"])
    return {_name(identifier) for identifier in found if identifier != "PUBLIC"}


def _name(identifier: str) -> str:
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier


def with_rights_of(things: Iterable[Thing], counts: Callable[[str], bool]) -> list[Thing]:
    """The objects without the rights that name a role which doesn't count."""
    kept = []
    for thing in things:
        if thing.type in _RIGHTS:
            left = tuple(text for text in thing.statements if all(map(counts, roles(text))))
            if left:
                kept.append(replace(thing, statements=left))
        else:
            kept.append(thing)
    return kept


def compare(*, database: Iterable[Thing], files: Iterable[Thing]) -> list[Difference]:
    """What the two don't have alike, by type, schema and name. The order of objects doesn't count."""
    mine, theirs = _by_key(database), _by_key(files)
    differences = []
    for key in sorted(mine.keys() | theirs.keys(), key=lambda key: (key[1], key[0], key[2])):
        live, built = mine.get(key), theirs.get(key)
        if live is None or built is None or live.statements != built.statements:
            side = Side.FILES if live is None else Side.DATABASE if built is None else Side.BOTH
            thing = live or built
            assert thing is not None  # one of the two has it
            differences.append(Difference(side=side, thing=thing, diff=_diff(built, live)))
    return differences


def _by_key(things: Iterable[Thing]) -> dict[tuple[str, str, str], Thing]:
    """By type, schema and name; what pg_dump has under one name several times, such as the defaults of two roles, is one."""

    def key(thing: Thing) -> tuple[str, str, str]:
        return thing.type, thing.schema, thing.name

    grouped = groupby(sorted(things, key=key), key=key)
    return {name: _in_order(_thing(name, tuple(text for thing in same for text in thing.statements))) for name, same in grouped}


def _diff(built: Thing | None, live: Thing | None) -> str:
    before, after = (thing.text.split("\n") if thing else [] for thing in (built, live))
    return "\n".join(difflib.unified_diff(before, after, "the files", "the database", lineterm=""))


def write(things: Sequence[Thing], comment: str) -> str:
    """The objects as a file that psql loads into an empty database, also where their groups aren't yet.

    `comment` says what the file is.
    """
    blocks = [*(f"-- {line}" for line in comment.splitlines()), "", _SETTINGS, *_groups(things)]
    for thing in things:
        blocks += [
            "--",
            f"-- Name: {thing.name}; Type: {thing.type}; Schema: {thing.schema or '-'}; Owner: -",
            "--",
            "",
            thing.text,
            "",
            "",
        ]
    return "\n".join(blocks).rstrip("\n") + "\n"


def _groups(things: Iterable[Thing]) -> Iterator[str]:
    """A block that makes the groups that are missing. Who loads the file has to act for those with default privileges."""
    statements = [text for thing in things if thing.type in (*_RIGHTS, "POLICY") for text in thing.statements]
    named = {name for text in statements for name in roles(text) if not name.startswith("pg_")}
    makers = {_name(match["role"]) for text in statements if (match := _MAKER.match(text))}
    if not named:
        return
    yield f"""DO $$
DECLARE
  has_set_option CONSTANT boolean := current_setting('server_version_num')::int >= 160000;
  name text;
BEGIN
  FOREACH name IN ARRAY {_array(named)} LOOP
    IF pg_catalog.to_regrole(pg_catalog.quote_ident(name)) IS NULL THEN
      EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', name);
    END IF;
  END LOOP;
  FOREACH name IN ARRAY {_array(makers)} LOOP
    IF NOT pg_catalog.pg_has_role(name, 'USAGE') THEN
      EXECUTE pg_catalog.format(
        'GRANT %I TO CURRENT_USER%s', name, CASE WHEN has_set_option THEN ' WITH INHERIT TRUE, SET TRUE' END);
    END IF;
  END LOOP;
END
$$;

"""


def _array(names: Iterable[str]) -> str:
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in sorted(names))
    return f"ARRAY[{quoted}]::text[]"
