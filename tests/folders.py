"""Migration folders that nobody wrote by hand, and a model of what has to come of them, which knows none of the product's code.

Every part of a file leaves a mark: a row of `marks`, whose number tells the order, or a relation of a known name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.database import Database
from tests.proofs import migrate

MARKS = """CREATE TABLE public.marks (mark text NOT NULL, body text, at bigserial);
GRANT ALL ON public.marks, public.marks_at_seq TO PUBLIC"""
# What would hold if the session were a new one; it divides by zero where a file before has left something.
CLEAN = """SELECT 1 / (current_user = session_user AND session_user <> 'pg_monitor'
  AND current_setting('search_path') = '"$user", public' AND current_setting('statement_timeout') = '0'
  AND current_setting('transaction_read_only') = 'off' AND coalesce(current_setting('app.leak', true), '') = ''
  AND to_regclass('pg_temp.leak') IS NULL AND NOT EXISTS (SELECT FROM pg_prepared_statements)
  AND NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'leak') AND NOT EXISTS (SELECT FROM pg_listening_channels()))::int;"""
NO_VARIABLE = "\\if :{?leak}\nSELECT 1 / 0;\n\\endif"
# What a file may leave behind, in an order in which none keeps another from its work.
LEAKS = (
    "CREATE TEMP TABLE leak (id int);",
    "PREPARE leak AS SELECT 1;",
    "DECLARE leak CURSOR WITH HOLD FOR SELECT 1;",
    "LISTEN leak;",
    "SET statement_timeout = '1h';",
    "SET app.leak = 'on';",
    "SET search_path = nowhere;",
    "SET ROLE pg_monitor;",
    "SET SESSION AUTHORIZATION pg_monitor;",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY;",
    "\\set leak 1",
    "SELECT 1 AS ak \\gset le",
    "\\pset format html\n\\pset tuples_only off\n\\x on\n\\timing on",
    "\\set VERBOSITY terse\n\\set ECHO all\n\\set FETCH_COUNT 1",
)
COMMENTS = ("-- it's; COMMIT;\n", "/* ; ' \" $$ /* COMMIT; */ */ ", "-- $q$ (\n", ";\n", "\n\n", "/**/--\n")
# Letters are few, so that no text spells a command of psql's; those are refused where they could come to be read as one.
TEXT = st.text("xZ0 ;'\"\\$:/*-(){}[]%,.?ü世🐘\t\n", max_size=12)
NAME = st.text("ab zA0_-.:'\"$%ü世é;{}()[]", min_size=1, max_size=10)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A few statements, and what they leave."""

    text: str
    marks: tuple[tuple[str, str], ...] = ()  # (mark, body)
    relations: tuple[str, ...] = ()
    beside: dict[str, bytes] = field(default_factory=dict)  # files that they read
    inline: bool = True  # whether something may stand before and behind them on a line


def _row(key: str, literal: str) -> str:
    return f"INSERT INTO public.marks (mark, body) VALUES ('{key}', {literal})"


def _quoted(body: str) -> str:
    return "'" + body.replace("'", "''") + "'"


def _escaped(body: str) -> str:
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t"}
    return "E'" + "".join(escapes.get(letter, letter) for letter in body) + "'"


def _data(body: str) -> str:
    return body.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def plain(key: str, body: str) -> Part:
    return Part(text=f"{_row(key, _quoted(body))};", marks=((key, body),))


def escaped(key: str, body: str) -> Part:
    return Part(text=f"{_row(key, _escaped(body))};", marks=((key, body),))


def dollar_quoted(key: str, body: str) -> Part:
    return Part(text=f"{_row(key, f'$q${body}$q$')};", marks=((key, body),))


def joined(key: str, body: str) -> Part:
    """Several statements as one message."""
    rows = [_row(f"{key}_{number}", _quoted(body)) for number in range(2)]
    return Part(text=" \\; ".join(rows) + ";", marks=((f"{key}_0", body), (f"{key}_1", body)))


def block(key: str, body: str) -> Part:
    text = f"DO $do$BEGIN -- it's; $$ COMMIT;\n  {_row(key, f'$q${body}$q$')}; /* ; */\nEND$do$;"
    return Part(text=text, marks=((key, body),))


def function(key: str, body: str) -> Part:
    text = (
        f"CREATE OR REPLACE FUNCTION public.f_{key}() RETURNS void LANGUAGE plpgsql AS $$BEGIN\n  {_row(key, _quoted(body))};\n"
        f"END$$; SELECT public.f_{key}();"
    )
    return plain(key, body) if "$$" in body else Part(text=text, marks=((key, body),))


def procedure(key: str, body: str) -> Part:
    text = (
        f"CREATE OR REPLACE PROCEDURE public.p_{key}() LANGUAGE sql BEGIN ATOMIC\n  {_row(key, _quoted(body))};\n"
        f"  SELECT CASE WHEN true THEN 1 END;\nEND;\nCALL public.p_{key}();"
    )
    return Part(text=text, marks=((key, body),))


def table(key: str, _: str) -> Part:
    return Part(text=f"CREATE TABLE IF NOT EXISTS public.t_{key} (id int, body text);", relations=(f"t_{key}",))


def copied(key: str, body: str) -> Part:
    text = f"COPY public.marks (mark, body) FROM stdin;\n{key}_0\t{_data(body)}\n{key}_1\tCOMMIT; -- '\n\\."
    return Part(text=text, marks=((f"{key}_0", body), (f"{key}_1", "COMMIT; -- '")), inline=False)


def copied_from_a_file(key: str, body: str) -> Part:
    body = body.replace("\n", " ")  # before 18, psql takes a line \. for the end of the data
    row = '{},"{}"\n'.format(key, body.replace('"', '""'))
    text = f"\\copy public.marks (mark, body) FROM 'data/of {key}.csv' WITH (FORMAT csv)"
    return Part(text=text, marks=((key, body),), beside={f"data/of {key}.csv": row.encode()}, inline=False)


def executed(key: str, body: str) -> Part:
    text = f"SELECT format('{_row(key, '%L')}', {_quoted(body)})\n\\gexec".replace(f"('{key}'", f"(''{key}''")
    return Part(text=text, marks=((key, body),), inline=False)


def conditional(key: str, body: str) -> Part:
    text = (
        f"\\if true\n  {_row(key, _quoted(body))};\n  \\if false\n    SELECT 1 / 0;\n    COMMENT ON nothing;\n  \\endif\n"
        "\\else\n  SELECT 1 / 0;\n\\endif"
    )
    return Part(text=text, marks=((key, body),), inline=False)


def variable(key: str, body: str) -> Part:
    body = body.replace("\\", "/").replace("\n", " ")  # which \set would read as an escape
    value = f":'v_{key}'"
    return Part(text=f"\\set v_{key} {_quoted(body)}\n{_row(key, value)};", marks=((key, body),), inline=False)


def asked_for(key: str, body: str) -> Part:
    value = f":'g_{key}_body'"
    text = f"SELECT {_quoted(body)} AS body \\gset g_{key}_\n{_row(key, value)};"
    return Part(text=text, marks=((key, body),), inline=False)


def deferred(key: str, _: str) -> Part:
    """A row that wants another, which comes later in the transaction."""
    text = (
        f"CREATE TABLE public.t_{key} (id int PRIMARY KEY, up int REFERENCES public.t_{key} DEFERRABLE INITIALLY DEFERRED);"
        f" INSERT INTO public.t_{key} VALUES (1, 2); INSERT INTO public.t_{key} VALUES (2, 1);"
    )
    return Part(text=text, relations=(f"t_{key}",))


def index(key: str, _: str) -> Part:
    text = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS i_{key} ON public.marks (mark);"
    return Part(text=text, relations=(f"i_{key}",))


def vacuum(key: str, body: str) -> Part:
    return Part(text=f"VACUUM public.marks;\n{_row(key, _quoted(body))};", marks=((key, body),))


Kind = Callable[[str, str], Part]
ANYWHERE: tuple[Kind, ...] = (
    *(plain, escaped, dollar_quoted, joined, block, function, procedure, table, copied, copied_from_a_file, executed),
    *(conditional, variable, asked_for),
)


class Fate(Enum):
    """What becomes of a file that fails."""

    REFUSED = "nothing runs, of no file"
    UNDONE = "nothing of it stays"
    STAYS = "outside a transaction: what was before the failure stays"
    ALL = "it has committed by itself: all but its row stays"
    BEFORE = "the same, and it began anew: what was before that stays"
    BEHIND = "it has rolled back by itself: what came behind that stays"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What makes a file fail, what becomes of it, and what mends it."""

    text: str
    fate: Fate
    leaves: Part = Part(text="")  # outside a transaction
    mended: Part = Part(text="")


ERRORS = (
    "SELEC 1;",
    "SELECT 1 / 0;",
    "INSERT INTO public.marks (mark) VALUES (NULL);",
    "SELECT * FROM public.nowhere;",
    "DO $$BEGIN\n  RAISE 'it''s; wrong';\nEND$$;",
    "COPY public.marks (mark, at) FROM stdin;\nx\t1\nx\tno number\n\\.",
    "SELECT 'SELECT 1 / 0' \\gexec",
    "SELECT pg_terminate_backend(pg_backend_pid());",
)
_LATE = "CREATE TABLE public.t_late (id int PRIMARY KEY, up int REFERENCES public.t_late DEFERRABLE INITIALLY DEFERRED);"
AT_COMMIT = f"{_LATE}\nINSERT INTO public.t_late VALUES (1, 2);"
_TWICE = "CREATE TABLE IF NOT EXISTS public.t_twice AS SELECT 1 AS id FROM generate_series(1, 2);"
INVALID = Part(
    text=f"{_TWICE}\nCREATE UNIQUE INDEX CONCURRENTLY i_twice ON public.t_twice (id);", relations=("i_twice", "t_twice")
)
MENDED = Part(text=f"{_TWICE}\nCREATE INDEX CONCURRENTLY i_twice ON public.t_twice (id);", relations=("i_twice", "t_twice"))
FAILURES = {
    True: (
        *(Failure(text=text, fate=Fate.UNDONE) for text in (*ERRORS, AT_COMMIT)),
        *(Failure(text=text, fate=Fate.REFUSED) for text in ("COMMIT;", "\\! ls", "\\q", "SELECT '\udcff';")),
        Failure(text="SELECT 'COMMIT' \\gexec", fate=Fate.ALL),
        Failure(text="SELECT unnest(ARRAY['COMMIT', 'BEGIN']) \\gexec", fate=Fate.BEFORE),
        Failure(text="SELECT 'ROLLBACK' \\gexec", fate=Fate.BEHIND),
    ),
    False: (
        *(Failure(text=text, fate=Fate.STAYS) for text in ERRORS),
        Failure(text=INVALID.text, fate=Fate.STAYS, leaves=INVALID, mended=MENDED),
        *(Failure(text=text, fate=Fate.REFUSED) for text in ("COMMIT;", "\\! ls", "DISCARD ALL;")),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Script:
    """Parts as a file has them, in one of the ways to write them down."""

    parts: tuple[Part, ...]
    between: tuple[str, ...]  # before each part
    ends: str = "\n"  # of lines
    bom: bool = False
    last: str = "\n"  # what the file ends with: a newline, nothing, or not even a semicolon

    def content(self, head: str = "", tail: str = "") -> bytes:
        text, inline = head, True
        for before, part in zip(self.between, self.parts, strict=True):
            text += ("" if inline and part.inline else "\n") + before + ("" if part.inline else "\n") + part.text
            inline = part.inline
            text += " " if inline else "\n"
        text = text.rstrip(" \n") + tail
        data = text.endswith("\n\\.")  # whose end psql knows by the newline behind it
        text = text.removesuffix(";") if self.last == ";" and not data else text + ("\n" if data else self.last)
        return ("\ufeff" if self.bom else "").encode() + text.replace("\n", self.ends).encode("utf-8", "surrogateescape")


@dataclass(frozen=True, kw_only=True)
class File:
    """A migration, or a repeatable file."""

    name: str
    version: str
    script: Script
    transactional: bool = True
    wrapped: bool = False

    @property
    def marks(self) -> list[tuple[str, str]]:
        return [mark for part in self.script.parts for mark in part.marks]

    @property
    def relations(self) -> list[str]:
        return [relation for part in self.script.parts for relation in part.relations]

    def write(self, folder: Path) -> None:
        head = "" if self.transactional else "-- A long one.\n-- migrate: no-transaction\n"
        begin, commit = ("BEGIN;\n", "\nCOMMIT;") if self.wrapped else ("", "")
        files = {self.name: self.script.content(head + begin, commit)}
        for part in self.script.parts:
            files.update(part.beside)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A folder: its files in the order in which they have to run, and in which they are written; and what fails."""

    files: tuple[File, ...]
    written: tuple[int, ...]
    failing: int = -1
    at: int = 0  # the part before which it fails
    failure: Failure | None = None
    included: bool = False  # whether what fails stands in a file that is included

    def write(self, folder: Path) -> None:
        (folder / "_no_migration.sql").write_text("SELECT 1 / 0;\n")
        for number in self.written:
            if self.failure is not None and number == self.failing:
                self._with(self._broken).write(folder)
            else:
                self.files[number].write(folder)

    @property
    def _broken(self) -> Part:
        assert self.failure is not None
        if not self.included:
            return Part(text=self.failure.text, inline=False)
        content = self.failure.text.encode("utf-8", "surrogateescape")
        return Part(text="\\ir 'parts/is broken.sql'", beside={"parts/is broken.sql": content}, inline=False)

    def _with(self, part: Part) -> File:
        """The file that fails, with this in the place of its failure."""
        file, at = self.files[self.failing], self.at
        script = replace(
            file.script,
            parts=(*file.script.parts[:at], part, *file.script.parts[at:]),
            between=(*file.script.between[:at], "", *file.script.between[at:]),
        )
        return replace(file, script=script)

    @property
    def mended(self) -> tuple[File, ...]:
        """The files when nothing fails any more."""
        if self.failure is None or not self.failure.mended.text:
            return self.files
        return (*self.files[: self.failing], self._with(self.failure.mended), *self.files[self.failing + 1 :])

    @property
    def left(self) -> tuple[Part, ...]:
        """The parts of the failing file that stay."""
        assert self.failure is not None
        parts = self.files[self.failing].script.parts
        before, behind = parts[: self.at], parts[self.at :]
        return {
            Fate.STAYS: (*before, self.failure.leaves),
            Fate.ALL: parts,
            Fate.BEFORE: before,
            Fate.BEHIND: behind,
        }.get(self.failure.fate, ())


# --- how they are made ---


@st.composite
def scripts(draw: st.DrawFn, parts: tuple[Part, ...]) -> Script:
    """One of the ways to write parts down."""
    between = draw(st.lists(st.sampled_from(["", "", "", *COMMENTS]), min_size=len(parts), max_size=len(parts)))
    return Script(
        parts=parts,
        between=tuple(between),
        ends=draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])),
        bom=draw(st.booleans()),
        last=draw(st.sampled_from(["\n", "", ";"])),
    )


@st.composite
def parts(draw: st.DrawFn, key: str, kinds: tuple[Kind, ...], depth: int) -> Part:
    """A part of one of these kinds, or an include, which may have others in it."""
    if depth and draw(st.integers(0, 4)) == 0:
        inner = tuple(draw(parts(f"{key}_{number}", ANYWHERE, depth - 1)) for number in range(draw(st.integers(1, 2))))
        path = draw(st.sampled_from([f"parts/{key}.sql", f"parts/it's ü/{key}.sql"]))
        beside = {path: draw(scripts(inner)).content()}
        for part in inner:
            beside.update(part.beside)
        return Part(
            text="\\i '{}'".format(path.replace("'", "''")),
            marks=tuple(mark for part in inner for mark in part.marks),
            relations=tuple(relation for part in inner for relation in part.relations),
            beside=beside,
            inline=False,
        )
    return draw(st.sampled_from(kinds))(key, draw(TEXT))


@st.composite
def files(draw: st.DrawFn, number: int, version: str, name: str) -> File:
    """A file that begins by looking whether the one before has left something, and may end by leaving something."""
    repeatable = version.startswith("R__")
    transactional = repeatable or draw(st.integers(0, 3)) > 0
    kinds = (*ANYWHERE, deferred) if transactional else (*ANYWHERE, index, vacuum)
    mark = f"f{number}"
    clean = f"{NO_VARIABLE}\n{CLEAN}" if draw(st.booleans()) else CLEAN
    body = [Part(text=f"{clean}\n{_row(mark, 'NULL')};", marks=((mark, ""),), inline=False)]
    body += [draw(parts(f"{mark}_{place}", kinds, 2)) for place in range(draw(st.integers(0, 4)))]
    leaks = draw(st.sets(st.integers(0, len(LEAKS) - 1), max_size=5))
    body += [Part(text=LEAKS[leak], inline=False) for leak in sorted(leaks)]
    script = draw(scripts(tuple(body)))
    return File(
        name=name, version=version, script=script, transactional=transactional, wrapped=transactional and draw(st.booleans())
    )


@st.composite
def folders(draw: st.DrawFn) -> Made:
    """A folder, of which a file may fail."""
    numbers = draw(st.lists(st.integers(0, 120) | st.integers(0, 10**17), min_size=1, max_size=5, unique=True))
    names = []
    for number in sorted(numbers):
        version = "0" * draw(st.integers(0, 4)) + str(number)
        names.append((version, f"{version}{draw(st.sampled_from('_-'))}{draw(NAME)}.sql"))
    repeatable = draw(st.lists(NAME, max_size=2, unique=True))
    names += sorted(((f"R__{name}", f"R__{name}.sql") for name in repeatable), key=lambda item: item[1])
    made = tuple(draw(files(number, version, name)) for number, (version, name) in enumerate(names))
    written = tuple(draw(st.permutations(range(len(made)))))
    if draw(st.integers(0, 3)) == 0:
        return Made(files=made, written=written)
    failing = draw(st.integers(0, len(made) - 1))
    file = made[failing]
    possible = FAILURES[file.transactional]
    if any("DEFERRABLE" in part.text for part in file.script.parts):  # which no transaction of its own bears
        possible = tuple(failure for failure in possible if failure.fate in (Fate.UNDONE, Fate.REFUSED))
    fate = draw(st.sampled_from([fate for fate in Fate if any(failure.fate is fate for failure in possible)]))
    return Made(
        files=made,
        written=written,
        failing=failing,
        at=draw(st.integers(1, len(file.script.parts))),
        failure=draw(st.sampled_from([failure for failure in possible if failure.fate is fate])),
        included=draw(st.booleans()),
    )


# --- what has to come of them ---


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a database has."""

    marks: list[tuple[str, str]]
    relations: list[str]
    ledger: dict[str, str]  # version -> state
    exactly: str  # all of it, to compare with

    @classmethod
    def in_database(cls, database: Database) -> Found:
        there = database.execute("SELECT to_regclass('public.schema_migrations') IS NOT NULL")[0][0]
        rows = database.execute("SELECT to_jsonb(m) FROM public.schema_migrations AS m ORDER BY version") if there else []
        marks = database.execute("SELECT mark, coalesce(body, ''), at, xmin::text FROM public.marks ORDER BY at")
        relations = database.execute(
            "SELECT relname, oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname ~ '^[ti]_'"
            " AND relname !~ '_pkey$' ORDER BY 1"
        )
        return cls(
            marks=[(mark, body) for mark, body, *_ in marks],
            relations=[name for name, _ in relations],
            ledger={row["version"]: row["state"] for (row,) in rows},
            exactly=repr((rows, marks, relations)),
        )


def _marks(made: Sequence[Part]) -> list[tuple[str, str]]:
    return [mark for part in made for mark in part.marks]


def _relations(made: Sequence[Part]) -> set[str]:
    return {relation for part in made for relation in part.relations}


def _all_parts(made: Sequence[File]) -> list[Part]:
    return [part for file in made for part in file.script.parts]


def _run(database: Database, folder: Path, *flags: str) -> tuple[int, dict[str, Any], str]:
    result = migrate(database, folder, "embedded", "--json", *flags)
    assert "Traceback" not in result.stdout + result.stderr
    return result.returncode, json.loads(result.stdout), result.stderr


def _check(found: Found, made: Sequence[Part], ledger: dict[str, str]) -> None:
    assert found.ledger == ledger
    assert found.marks == _marks(made)
    assert set(found.relations) == _relations(made)


def prove(database: Database, folder: Path, made: Made) -> None:
    """Applies a folder to a new database, mends what fails, and compares each step with the model."""
    database.execute(MARKS)
    made.write(folder)
    before: tuple[File, ...] = ()
    left: tuple[Part, ...] = ()
    flags: tuple[str, ...] = ()
    if made.failure is not None:
        before, left, flags = _fails(database, folder, made, made.failure)
    code, document, err = _run(database, folder, *flags)
    assert code == 0, err
    assert [item["version"] for item in document["applied"]] == [file.version for file in made.files[len(before) :]]
    found = Found.in_database(database)
    whole = [*_all_parts(before), *left, *_all_parts(made.mended[len(before) :])]
    _check(found, whole, dict.fromkeys([file.version for file in made.files], "applied"))
    assert database.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid") == []

    code, document, err = _run(database, folder)
    assert (code, document["applied"]) == (0, []), err
    assert Found.in_database(database).exactly == found.exactly


def _fails(
    database: Database, folder: Path, made: Made, failure: Failure
) -> tuple[tuple[File, ...], tuple[Part, ...], tuple[str, ...]]:
    """Runs into the failure, twice, and mends it. Returns the files that are applied, what else stays, and the flags to go on."""
    failing = made.files[made.failing]
    applied = () if failure.fate is Fate.REFUSED else made.files[: made.failing]
    code, document, err = _run(database, folder)
    assert code == 1, err
    assert failing.name in err or made.included, err
    if failure.fate is not Fate.REFUSED:
        assert document["failed"] == failing.name
        assert [item["version"] for item in document["applied"]] == [file.version for file in applied]
    found = Found.in_database(database)
    ledger = dict.fromkeys([file.version for file in applied], "applied")
    if failure.fate is Fate.STAYS:
        ledger[failing.version] = "started"
    _check(found, [*_all_parts(applied), *made.left], ledger)

    left, by_itself = made.left, failure.fate in (Fate.ALL, Fate.BEFORE, Fate.BEHIND)
    if by_itself:  # whoever commits behind the runner's back puts that right himself
        marks = [mark for mark, _ in _marks(left)]
        database.execute("DELETE FROM public.marks WHERE mark = ANY (%s)", marks)
        for relation in _relations(left):
            database.execute(f"DROP TABLE public.{relation}")
        left = ()
    else:
        assert _run(database, folder)[0] == 1
        assert Found.in_database(database).exactly == found.exactly
    for file in made.mended:
        file.write(folder)
    return applied, left, ("--resume",) if failure.fate is Fate.STAYS else ()
