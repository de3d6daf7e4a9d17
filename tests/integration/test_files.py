"""Every shape that a file may have comes out the same through each psql, and as bare psql would have it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scripts.dsn import Dsn
from scripts.ledger import DEFINITION
from scripts.sql import normalise
from tests.database import ENV, MODES, ROOT, Database, invoke, invoke_argv, new_database, require_docker, small_files
from tests.proofs import migrate


@dataclass(frozen=True)
class Shape:
    """One migration: its text, the files beside it, and what a query says when it was applied."""

    text: str | bytes
    query: str
    rows: list[tuple[Any, ...]]
    beside: dict[str, str | bytes] = field(default_factory=dict)
    name: str = ""  # of the file behind its version, if that is what matters


SHAPES = {
    "CRLF": Shape(
        b"CREATE TABLE crlf (\r\n  id int,\r\n  body text\r\n);\r\nINSERT INTO crlf VALUES (1, 'two\r\nlines');\r\n"
        b"COPY crlf FROM stdin;\r\n2\tdata\r\n\\.\r\n\\echo from CRLF\r\n",
        "SELECT * FROM crlf ORDER BY 1",
        [(1, "two\nlines"), (2, "data")],
    ),
    "a BOM": Shape(b"\xef\xbb\xbfCREATE TABLE bom AS SELECT 1 AS id;\n", "SELECT id FROM bom", [(1,)]),
    "a BOM before a comment, with CRLF": Shape(
        b"\xef\xbb\xbf-- windows\r\nCREATE TABLE bom_crlf AS SELECT 1 AS id;\r\n", "SELECT id FROM bom_crlf", [(1,)]
    ),
    "a BOM in an include": Shape(
        "\\i parts/bom.sql\n",
        "SELECT id FROM bom_include",
        [(1,)],
        {"parts/bom.sql": b"\xef\xbb\xbfCREATE TABLE bom_include AS SELECT 1 AS id;\r\n"},
    ),
    "no final newline": Shape("CREATE TABLE no_newline AS SELECT 1 AS id;", "SELECT id FROM no_newline", [(1,)]),
    "no final newline behind a comment": Shape(
        "CREATE TABLE comment_last AS SELECT 1 AS id; -- the end", "SELECT id FROM comment_last", [(1,)]
    ),
    "no final newline behind a meta-command": Shape(
        "CREATE TABLE meta_last AS SELECT 1 AS id;\n\\echo the end", "SELECT id FROM meta_last", [(1,)]
    ),
    "no final semicolon": Shape(
        "CREATE TABLE no_semicolon (id int);\nINSERT INTO no_semicolon\nVALUES (1)\n", "SELECT id FROM no_semicolon", [(1,)]
    ),
    "no final semicolon, and a comment behind": Shape(
        "CREATE TABLE no_end (id int);\nINSERT INTO no_end VALUES (1) -- the end\n/* really */", "SELECT id FROM no_end", [(1,)]
    ),
    "no final newline in an include": Shape(
        "\\i parts/open.sql\nCREATE TABLE behind_open (id int);\n",
        "SELECT (SELECT count(*) FROM open_end), (SELECT count(*) FROM behind_open)",
        [(1, 0)],
        {"parts/open.sql": "CREATE TABLE open_end AS SELECT 1 AS id;"},
    ),
    "empty statements": Shape(";;\n;CREATE TABLE empties (id int);;\n;", "SELECT count(*) FROM empties", [(0,)]),
    "dollar quotes": Shape(
        "CREATE FUNCTION dollar() RETURNS text LANGUAGE plpgsql AS $body$\nBEGIN\n  -- COMMIT;\n"
        "  RETURN $$it's; \\q $x$ COMMIT; $x$ $$;\nEND\n$body$;\n",
        "SELECT dollar()",
        [("it's; \\q $x$ COMMIT; $x$ ",)],
    ),
    "nested comments": Shape(
        "/* one /* two ; COMMIT; */ ' \" $$ \\q */ CREATE TABLE nested (id /* int); */ int);\n-- it's \\q; COMMIT;\n"
        "INSERT INTO nested VALUES (1 /*/**/*/);\n",
        "SELECT id FROM nested",
        [(1,)],
    ),
    "strings": Shape(
        "CREATE TABLE strings AS SELECT\n"
        "ARRAY['a''b;\n-- c', E'd\\'; \\\\e', U&'\\0066', '\\', 'g'\n'h', ':name '':name''', $t$i$t$] AS parts;\n",
        "SELECT parts FROM strings",
        [(["a'b;\n-- c", "d'; \\e", "f", "\\", "gh", ":name ':name'", "i"],)],
    ),
    "colons": Shape(
        "CREATE TABLE colons AS SELECT ('{1,2,3}'::int[])[2:3] AS part, '12:30'::time AS half_past;\n",
        "SELECT part, half_past::text FROM colons",
        [([2, 3], "12:30:00")],
    ),
    "several statements in one message": Shape(
        "CREATE TABLE message (id int) \\; INSERT INTO message VALUES (1) \\;\nINSERT INTO message VALUES (2);\n",
        "SELECT id FROM message ORDER BY 1",
        [(1,), (2,)],
    ),
    "a routine with a body of statements": Shape(
        "CREATE TABLE atomic (id int);\nCREATE PROCEDURE atomic_fill() LANGUAGE sql BEGIN ATOMIC\n"
        "  INSERT INTO atomic VALUES (1);\n  INSERT INTO atomic SELECT CASE WHEN true THEN 2 END;\nEND;\nCALL atomic_fill();\n",
        "SELECT id FROM atomic ORDER BY 1",
        [(1,), (2,)],
    ),
    "non-ASCII": Shape(
        'CREATE TABLE "naïve → 表" (größe text);\nINSERT INTO "naïve → 表" VALUES (\'Grüße, 世界 🐘\');\n',
        'SELECT größe FROM "naïve → 表"',
        [("Grüße, 世界 🐘",)],
    ),
    "one long line": Shape(
        f"CREATE TABLE long_line AS SELECT length('{'x' * 300_000}') AS n;\n", "SELECT n FROM long_line", [(300_000,)]
    ),
    "COPY data that looks like SQL": Shape(
        "CREATE TABLE data (id int, body text);\nCOPY data FROM stdin;\n1\tDROP TABLE data;\n2\t'open \" $$ /* (\n"
        "3\tROLLBACK;\n\\N\tCOMMIT;\n4\t\\\\q\n\\.\nINSERT INTO data VALUES (5, 'behind');\n",
        "SELECT * FROM data ORDER BY 1",
        [(1, "DROP TABLE data;"), (2, "'open \" $$ /* ("), (3, "ROLLBACK;"), (4, "\\q"), (5, "behind"), (None, "COMMIT;")],
    ),
    "COPY data with a line of SQL": Shape(
        "CREATE TABLE raw_lines (body text);\nCOPY raw_lines FROM stdin;\nCOMMIT;\nit's\n$$\n/*\n--\n\"\n\\.\n"
        "COPY raw_lines FROM stdin WITH (DELIMITER '|', NULL 'ROLLBACK;');\nROLLBACK;\n(\n\\.\n",
        'SELECT body FROM raw_lines ORDER BY body COLLATE "C"',
        [('"',), ("$$",), ("(",), ("--",), ("/*",), ("COMMIT;",), ("it's",), (None,)],
    ),
    "\\copy from stdin": Shape(
        "CREATE TABLE copy_stdin (id int, body text);\n\\copy copy_stdin FROM stdin\n1\tCOMMIT;\n2\t\\\\.\n\\.\n",
        "SELECT * FROM copy_stdin ORDER BY 1",
        [(1, "COMMIT;"), (2, "\\.")],
    ),
    "\\copy from a file": Shape(
        "CREATE TABLE copy_file (id int, body text);\n\\copy copy_file FROM 'data/rows.csv' WITH (FORMAT csv, HEADER)\n"
        "\\copy copy_file (id, body) from data/more.tsv\n",
        "SELECT * FROM copy_file ORDER BY 1",
        [(1, "one;\nCOMMIT;"), (2, "zwei → 二"), (3, "three")],
        {"data/rows.csv": 'id,body\n1,"one;\nCOMMIT;"\n2,zwei → 二\n', "data/more.tsv": "3\tthree\n"},
    ),
    "\\copy of bytes that are no text": Shape(
        "CREATE TABLE copy_bytes (body text);\n\\copy copy_bytes FROM 'data/latin1.tsv' WITH (ENCODING 'latin1')\n",
        "SELECT body FROM copy_bytes",
        [("Größe",)],
        {"data/latin1.tsv": "Größe\r\n".encode("latin1")},
    ),
    "\\i": Shape(
        "\\i parts/one.sql\n\\i 'parts/it''s two.sql'\n",
        "SELECT id FROM included ORDER BY 1",
        [(1,), (2,)],
        {
            "parts/one.sql": "CREATE TABLE included AS SELECT 1 AS id;\n",
            "parts/it's two.sql": "INSERT INTO included VALUES (2);\n",
        },
    ),
    "\\ir in sub-folders": Shape(
        "\\ir deep/er/one.sql\nINSERT INTO relative VALUES (4);\n",
        "SELECT id FROM relative ORDER BY 1",
        [(1,), (2,), (3,), (4,)],
        {
            "deep/er/one.sql": "CREATE TABLE relative AS SELECT 1 AS id;\n\\ir two.sql\n\\include_relative ../three.sql\n",
            "deep/er/two.sql": "INSERT INTO relative VALUES (2);\n",
            "deep/three.sql": "INSERT INTO relative VALUES (3);\n",
        },
    ),
    "one include twice": Shape(
        "CREATE TABLE twice (id serial);\n\\i parts/again.sql\n\\i parts/again.sql\n",
        "SELECT id FROM twice ORDER BY 1",
        [(1,), (2,)],
        {"parts/again.sql": "INSERT INTO twice DEFAULT VALUES;\n"},
    ),
    "\\gexec": Shape(
        "SELECT format('CREATE TABLE gexec_%s AS SELECT %s AS id', n, n) FROM generate_series(1, 3) AS n\n\\gexec\n",
        "SELECT a.id, b.id, c.id FROM gexec_1 AS a, gexec_2 AS b, gexec_3 AS c",
        [(1, 2, 3)],
    ),
    "\\gset": Shape(
        "SELECT 6 * 7 AS answer, 'it''s' AS word \\gset\n"
        "CREATE TABLE gset AS SELECT :'answer'::int AS answer, :'word' AS word;\n",
        "SELECT * FROM gset",
        [(42, "it's")],
    ),
    "\\if, \\elif and \\else": Shape(
        "SELECT current_setting('server_version_num')::int > 999999 AS future \\gset\n\\set chosen 0\n"
        "\\if :future\n  CREATE TABLE if_future (id int);\n\\elif true\n  CREATE TABLE if_now (id int);\n"
        "  \\if false\n    CREATE TABLE if_never (id int);\n  \\else\n    CREATE TABLE if_else (id int);\n  \\endif\n"
        "\\else\n  CREATE TABLE if_past (id int);\n\\endif\n\\if :{?nothing}\n  CREATE TABLE if_defined (id int);\n\\endif\n",
        "SELECT relname FROM pg_class WHERE relname LIKE 'if\\_%' ORDER BY 1",
        [("if_else",), ("if_now",)],
    ),
    "\\set with its three ways to put in": Shape(
        "\\set who 'O''Brien; COMMIT;'\n\\set place 'set place'\n\\set number 7\n\\set kind int\n"
        'CREATE TABLE :"place" (who text, number :kind);\nINSERT INTO :"place" VALUES (:\'who\', :number);\n',
        'SELECT * FROM "set place"',
        [("O'Brien; COMMIT;", 7)],
    ),
    "psql told to print otherwise": Shape(
        "\\pset format html\n\\pset tuples_only off\n\\x on\n\\timing on\n\\set VERBOSITY terse\n"
        "\\set ECHO all\n\\set FETCH_COUNT 1\nCREATE TABLE printed AS SELECT 1 AS id;\nSELECT * FROM printed;\n",
        "SELECT id FROM printed",
        [(1,)],
    ),
    "wrapped in BEGIN and COMMIT": Shape(
        "-- as the earlier scripts have it\nBEGIN;\nCREATE TABLE wrapped AS SELECT 1 AS id;\nCOMMIT;\n",
        "SELECT id FROM wrapped",
        [(1,)],
    ),
    "wrapped in other words": Shape(
        "start transaction;\nCREATE TABLE wrapped_too AS SELECT 1 AS id;\n/* the */ end /* of */ work -- it\n",
        "SELECT id FROM wrapped_too",
        [(1,)],
    ),
    "CREATE INDEX CONCURRENTLY and VACUUM": Shape(
        "-- A long table.\n-- migrate: no-transaction\nCREATE TABLE apart AS SELECT 1 AS id;\n"
        "CREATE INDEX CONCURRENTLY apart_id ON apart (id);\nVACUUM ANALYZE apart;\n",
        "SELECT indisvalid, reltuples::int FROM pg_index JOIN pg_class ON pg_class.oid = indrelid"
        " WHERE indexrelid = 'apart_id'::regclass",
        [(True, 1)],
    ),
    "no transaction, with includes": Shape(
        "/* migrate all of it:\n-- migrate: no-transaction\n*/\n\\ir parts/vacuum.sql\n",
        "SELECT reltuples::int FROM pg_class WHERE oid = 'vacuumed'::regclass",
        [(1,)],
        {"parts/vacuum.sql": "CREATE TABLE vacuumed AS SELECT 1 AS id;\nVACUUM vacuumed"},
    ),
    "a name of 255 bytes": Shape(
        "CREATE TABLE long_name AS SELECT 1 AS id;\n", "SELECT id FROM long_name", [(1,)], name="ü" * 123
    ),
    "a name of many characters": Shape(
        "CREATE TABLE odd_name AS SELECT 1 AS id;\n",
        "SELECT id FROM odd_name",
        [(1,)],
        name=r"""it's a "file" → $HOME %s {x} [1] & :name `x` #1""",
    ),
    "a hyphen behind the version": Shape("CREATE TABLE hyphen (id int);\n", "SELECT count(*) FROM hyphen", [(0,)], name="-"),
}


def write(folder: Path, name: str, number: int) -> Path:
    """Writes a shape and what belongs to it; returns the migration."""
    shape = SHAPES[name]
    behind = "-hyphen" if shape.name == "-" else f"_{shape.name or 'shape'}"
    path = folder / f"{number:04}{behind}.sql"
    for file, content in {path.name: shape.text, **shape.beside}.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_all(folder: Path) -> list[Path]:
    return [write(folder, name, number) for number, name in enumerate(SHAPES, 1)]


@dataclass
class Built:
    """A database to which all shapes were applied, and what the run said."""

    database: Database
    result: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module", params=MODES)
def built(request: pytest.FixtureRequest, server: Dsn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """All shapes in one folder, applied in one run, by each psql."""
    if request.param == "docker":
        require_docker()
    folder = tmp_path_factory.mktemp("shapes")
    write_all(folder)
    with contextlib.contextmanager(new_database)(server) as database:
        result = migrate(database, folder, request.param)
        assert result.returncode == 0, result.stderr
        yield Built(database, result)


@pytest.fixture(scope="module")
def by_bare_psql(server: Dsn, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dump that bare psql comes to, given the text as the runner normalises it."""
    folder = tmp_path_factory.mktemp("bare")
    with contextlib.contextmanager(new_database)(server) as database:
        assert database.psql("-f", str(DEFINITION)).returncode == 0
        files = write_all(folder)
        for path in folder.rglob("*.sql"):
            path.write_bytes(normalise(path.read_bytes()).encode())
        for file in files:
            applied = database.psql("-c", f"\\cd '{folder}'", "-f", str(file))
            assert applied.returncode == 0, applied.stderr
        return database.dump()


def test_all_shapes_are_applied(built: Built) -> None:
    assert f"applied {len(SHAPES)} of {len(SHAPES)}" in built.result.stdout
    assert built.database.ledger() == {f"{number:04}": "applied" for number in range(1, len(SHAPES) + 1)}


def test_the_schema_is_the_one_of_bare_psql(built: Built, by_bare_psql: str) -> None:
    assert built.database.dump() == by_bare_psql


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_does_what_it_says(built: Built, name: str) -> None:
    assert built.database.execute(SHAPES[name].query) == SHAPES[name].rows


def test_what_files_print_is_shown(built: Built) -> None:
    lines = built.result.stdout.splitlines()
    assert "  from CRLF" in lines
    assert lines.count("  the end") == 1


def test_the_ledger_has_the_names_of_the_files(built: Built) -> None:
    names = {row[0] for row in built.database.execute("SELECT name FROM public.schema_migrations")}
    assert names == {"hyphen" if shape.name == "-" else shape.name or "shape" for shape in SHAPES.values()}


@pytest.mark.once
@pytest.mark.parametrize("changed", [False, True], ids=["as they stand", "with a BOM"])
def test_a_folder_may_have_any_name(database: Database, tmp_path: Path, mode: str, changed: bool) -> None:
    """psql reads files where they stand, or, when a text has to change, in a folder of the runner's."""
    folder = tmp_path / """it's a "folder" → ünï $HOME %s `x` \\ :name"""
    folder.mkdir()
    bom = b"\xef\xbb\xbf" if changed else b""
    (folder / "0001_it's → ü.sql").write_bytes(bom + b"CREATE TABLE odd (id int);\n\\i 'sub folder''s/part.sql'\n")
    (folder / "sub folder's").mkdir()
    (folder / "sub folder's" / "part.sql").write_text("\\copy odd FROM 'sub folder''s/rows → ü.tsv'\n\\ir next.sql\n")
    (folder / "sub folder's" / "next.sql").write_text("INSERT INTO odd VALUES (2);\n")
    (folder / "sub folder's" / "rows → ü.tsv").write_text("1\n")
    result = migrate(database, folder, mode)
    assert result.returncode == 0, result.stderr
    assert database.execute("SELECT id FROM odd ORDER BY 1") == [(1,), (2,)]
    assert [path.name for path in sorted(folder.iterdir())] == ["0001_it's → ü.sql", "sub folder's"]


@pytest.mark.once
@pytest.mark.parametrize("program", ["local", "embedded"])
def test_without_a_folder_in_memory_files_are_read_in_a_temp_folder_of_any_name(
    database: Database, folder: Path, tmp_path: Path, program: str
) -> None:
    """The ledger's own file, the numbered ones and the repeatable ones that they change are three lots of files to psql."""
    temp = tmp_path / "it's Jürgen's → 密"
    temp.mkdir()
    (folder / "parts").mkdir()
    (folder / "parts" / "rows.tsv").write_text("1\n2\n")
    (folder / "0001_table.sql").write_text("CREATE TABLE odd (id int);\n\\copy odd FROM 'parts/rows.tsv'\n")
    (folder / "R__view.sql").write_text("CREATE OR REPLACE VIEW all_odd AS SELECT id FROM odd;\n")
    words = ("--dsn", "-", "--psql", program, "--migrations-dir", str(folder))
    result = invoke("migrate", *words, stdin=database.uri, env={"TMPDIR": str(temp)})
    assert result.returncode == 0, result.stderr
    assert database.execute("SELECT id FROM all_odd ORDER BY 1") == [(1,), (2,)]
    (folder / "0002_wrong.sql").write_text("\n\nSELECT 1 / 0;\n")
    wrong = invoke("migrate", *words, stdin=database.uri, env={"TMPDIR": str(temp)})
    assert "0002_wrong.sql:3" in wrong.stderr
    assert list(temp.iterdir()) == []


@pytest.mark.once
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_file_that_a_full_disk_cuts_short_does_not_run(
    database: Database, folder: Path, tmp_path: Path, in_memory: bool
) -> None:
    rows = "".join(f"INSERT INTO a VALUES ({number});\n" for number in range(5_000))
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    (folder / "0002_rows.sql").write_text(rows)
    result = subprocess.run(
        invoke_argv("migrate", "--dsn", "-", "--psql", "local", "--migrations-dir", str(folder)),
        env=ENV | ({} if in_memory else {"TMPDIR": str(tmp_path)}),
        cwd=ROOT,
        input=database.uri,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_files,
    )
    assert result.returncode == 1, result.stdout
    assert "error: the files that psql reads can't be written: No space left on device\nnext:  make room" in result.stderr
    assert "Traceback" not in result.stderr
    assert "0002" not in database.ledger()
    if "0001" in database.ledger():
        assert database.execute("SELECT count(*) FROM a") == [(0,)]


# (what one file leaves behind, what the next one finds): the second fails when the first one's state reaches it
STATES = {
    "search_path": (
        "CREATE SCHEMA other;\nSET search_path = other;\n",
        "CREATE TABLE here (id int);\nSELECT 'public.here'::regclass;\n",
    ),
    "a role": ("SET ROLE pg_monitor;\n", "CREATE TABLE mine (id int);\nSELECT 1 / (current_user = session_user)::int;\n"),
    "a session's user": (
        "SET SESSION AUTHORIZATION pg_monitor;\n",
        "CREATE TABLE mine (id int);\nSELECT 1 / (session_user <> 'pg_monitor')::int;\n",
    ),
    "a setting": (
        "SET statement_timeout = '1h';\nSET work_mem = '64kB';\n",
        "SELECT 1 / (current_setting('statement_timeout') <> '1h' AND current_setting('work_mem') <> '64kB')::int;\n",
    ),
    "a setting of its own": (
        "SET app.tenant = 'one';\n",
        "SELECT 1 / (coalesce(current_setting('app.tenant', true), '') = '')::int;\n",
    ),
    "transactions to come": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE;\n",
        "CREATE TABLE written (id int);\nSELECT 1 / (current_setting('transaction_isolation') = 'read committed')::int;\n",
    ),
    "a temporary table": (
        "CREATE TEMP TABLE scratch (id int);\n",
        "CREATE TEMP TABLE scratch (id int);\nCREATE TABLE scratch_too (id int);\n",
    ),
    "a prepared statement": ("PREPARE question AS SELECT 1;\n", "PREPARE question AS SELECT 2;\n"),
    "a cursor": (
        "DECLARE finger CURSOR WITH HOLD FOR SELECT 1;\n",
        "SELECT 1 / (NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'finger'))::int;\n",
    ),
    "a channel": ("LISTEN news;\n", "SELECT 1 / (NOT EXISTS (SELECT FROM pg_listening_channels()))::int;\n"),
    "a psql variable": ("\\set leak 1\n", "\\if :{?leak}\n  SELECT 1 / 0;\n\\endif\n"),
    "a psql variable by gset": ("SELECT 1 AS leak \\gset\n", "\\if :{?leak}\n  SELECT 1 / 0;\n\\endif\n"),
}


# Behind each pair: what makes the next one find an empty database, outside a transaction.
LAST = (
    "-- migrate: no-transaction\nCREATE TABLE public.last (id int);\n"
    "DROP TABLE IF EXISTS public.last, public.here, public.mine, public.written, public.scratch_too;\n"
    "DROP SCHEMA IF EXISTS other;\n"
)


@pytest.mark.parametrize("apart", [False, True], ids=["in its transaction", "outside one"])
def test_no_state_reaches_the_next_file(database: Database, folder: Path, apart: bool) -> None:
    """All pairs in one run: the more one session has been through, the more it could hand on."""
    directive = "-- migrate: no-transaction\n" if apart else ""
    for number, (name, (before, after)) in enumerate(STATES.items()):
        texts = {f"before {name}": f"{directive}SELECT 1;\n{before}", f"after {name}": after, f"last of {name}": LAST}
        for place, (what, text) in enumerate(texts.items(), 1):
            (folder / f"{3 * number + place:04}_{what}.sql").write_text(text)
    result = migrate(database, folder, "embedded")
    assert result.returncode == 0, result.stderr
    assert database.ledger() == {f"{number:04}": "applied" for number in range(1, 3 * len(STATES) + 1)}


def test_the_second_files_of_those_pairs_would_notice(database: Database) -> None:
    """Bare psql in one session lets every state through."""
    for name, (before, after) in STATES.items():
        assert database.psql(text=f"{before}{after}").returncode != 0, name


def test_copy_data_that_end_with_the_file(database: Database, folder: Path, mode: str) -> None:
    """The last line has no end of its own, as some editors leave it."""
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n\\i part.inc\nCOPY a FROM stdin;\n2\n\\.")
    (folder / "part.inc").write_text("COPY a FROM stdin;\n1\n\\.")
    result = migrate(database, folder, mode)
    assert result.returncode == 0, result.stderr
    assert database.execute("SELECT id FROM a ORDER BY id") == [(1,), (2,)]
