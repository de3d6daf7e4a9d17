"""`invoke migrate` and `invoke status`: what they do, what they say, and the exit code."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.secret import Secret
from scripts.settings import MIGRATIONS
from scripts.shell import quoted
from tests import proofs
from tests.database import Database, invoke
from tests.proofs import migrate


def write(folder: Path, *files: str) -> None:
    """Files that make a table of the same name each: 0001_a.sql makes a."""
    for file in files:
        (folder / file).write_text(f"CREATE TABLE {re.split('[_-]', file, maxsplit=1)[1].removesuffix('.sql')} (id int);\n")


def status(database: Database, folder: Path, *flags: str) -> tuple[int, str]:
    result = invoke("status", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder), *flags, stdin=database.uri)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout


def applied(output: str) -> list[str]:
    """The files that a run says it has applied, in its order."""
    return re.findall(r"^  (\S+\.sql) +\d+ ms$", output, re.MULTILINE)


# --- order and choice ---


@pytest.mark.once
def test_files_run_in_the_order_of_their_numbers(database: Database, folder: Path) -> None:
    write(folder, "0010_ten.sql", "2_two.sql", "1-one.sql", "0003-three.sql", "100_hundred.sql")
    for other in ("README.md", "seed.sql", "_0004_no.sql"):
        (folder / other).write_text("SELECT 1/0;\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 0, result.stderr
    assert applied(result.stdout) == ["1-one.sql", "2_two.sql", "0003-three.sql", "0010_ten.sql", "100_hundred.sql"]
    rows = database.execute("SELECT version, name FROM public.schema_migrations ORDER BY version::int")
    assert rows == [("1", "one"), ("2", "two"), ("0003", "three"), ("0010", "ten"), ("100", "hundred")]


def test_the_ledger_says_what_when_and_by_whom(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql")
    assert migrate(database, folder, "embedded").returncode == 0
    columns = "version, name, length(checksum), applied_by = session_user, duration_ms >= 0, state, tool_version IS NOT NULL"
    fresh = "applied_at BETWEEN now() - interval '1 day' AND now()"
    assert database.execute(f"SELECT {columns}, {fresh} FROM public.schema_migrations") == [
        ("0001", "a", 64, True, True, "applied", True, True)
    ]


@pytest.mark.once
@pytest.mark.parametrize(("to", "count"), [("2", 2), ("0002", 2), ("1", 1), ("3", 3)])
def test_to_stops_behind_that_version(database: Database, folder: Path, to: str, count: int) -> None:
    write(folder, "0001_a.sql", "0002_b.sql", "0003_c.sql")
    assert migrate(database, folder, "embedded", "--to", to).returncode == 0
    assert len(database.ledger()) == count
    again = migrate(database, folder, "embedded", "--to", to)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert len(database.ledger()) == count
    assert migrate(database, folder, "embedded").returncode == 0
    assert len(database.ledger()) == 3


@pytest.mark.once
@pytest.mark.parametrize("to", ["4", "0", "two", "", "-1"])
def test_to_a_version_that_no_file_has_is_bad_usage(database: Database, folder: Path, to: str) -> None:
    write(folder, "0001_a.sql", "0002_b.sql")
    result = migrate(database, folder, "embedded", f"--to={to}")
    assert result.returncode == 2
    assert f"--to {to}: no migration has that version" in result.stderr
    assert database.ledger() == {}


@pytest.mark.once
def test_nothing_to_do_is_said_in_one_line(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql", "0002_b.sql")
    assert migrate(database, folder, "embedded").returncode == 0
    rows = database.execute("SELECT * FROM public.schema_migrations ORDER BY version")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 0
    assert result.stdout.splitlines()[1:] == [f"nothing to do: {database.dsn.database} has all 2 migrations"]
    result = migrate(database, folder, "embedded", "--to", "1")
    assert result.stdout.splitlines()[1:] == [f"nothing to do: {database.dsn.database} has all migrations up to 1"]
    assert result.stderr == ""
    assert database.execute("SELECT * FROM public.schema_migrations ORDER BY version") == rows


@pytest.mark.once
def test_an_empty_folder_is_nothing_to_do(database: Database, folder: Path) -> None:
    result = migrate(database, folder, "embedded")
    assert result.returncode == 0
    assert "nothing to do" in result.stdout


@pytest.mark.once
def test_a_folder_that_is_not_there_is_bad_usage(database: Database, folder: Path) -> None:
    result = migrate(database, folder / "gone", "embedded")
    assert result.returncode == 2
    assert f"the migrations folder {folder / 'gone'} can't be read" in result.stderr


@pytest.mark.once
@pytest.mark.parametrize("begun", [False, True], ids=["without a ledger", "with one applied"])
def test_plan_writes_nothing(database: Database, folder: Path, begun: bool) -> None:
    write(folder, "0001_a.sql", "0002_b.sql")
    (folder / "0003_c.sql").write_text("-- migrate: no-transaction\nCREATE TABLE c (id int);\n")
    if begun:
        assert migrate(database, folder, "embedded", "--to", "1").returncode == 0
    dump, ledger = database.dump(), database.ledger()
    result = migrate(database, folder, "embedded", "--plan")
    assert result.returncode == 0, result.stderr
    expected = [
        "  would apply 0001_a.sql  (25 bytes, in a transaction)",
        "  would apply 0002_b.sql  (25 bytes, in a transaction)",
        "  would apply 0003_c.sql  (52 bytes, outside a transaction)",
        f"{2 if begun else 3} pending; nothing was written",
    ]
    assert result.stdout.splitlines()[1:] == expected[1 if begun else 0 :]
    assert database.dump() == dump
    assert database.ledger() == ledger


# --- JSON ---


@pytest.mark.once
def test_json_is_one_document_with_what_was_applied(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql")
    (folder / "0002_b.sql").write_text("\\echo shown\nDO $$BEGIN RAISE WARNING 'said'; END$$;\n")
    target = str(database.dsn)

    planned = migrate(database, folder, "embedded", "--plan", "--json")
    document = json.loads(planned.stdout)
    assert [item["file"] for item in document.pop("planned")] == document["pending"]
    assert document == {"target": target, "applied": [], "pending": ["0001_a.sql", "0002_b.sql"]}

    result = migrate(database, folder, "embedded", "--json")
    document = json.loads(result.stdout)
    durations = [item.pop("duration_ms") for item in document["applied"]]
    assert document == {
        "target": target,
        "applied": [{"version": "0001", "name": "a"}, {"version": "0002", "name": "b"}],
        "pending": [],
    }
    assert all(isinstance(duration, int) and duration >= 0 for duration in durations)
    assert "WARNING: said" in result.stderr

    nothing = migrate(database, folder, "embedded", "--json")
    assert json.loads(nothing.stdout) == {"target": target, "applied": [], "pending": []}


@pytest.mark.once
def test_json_holds_the_failure(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("SELECT 1;\nSELECT nope;\n")
    result = migrate(database, folder, "embedded", "--json")
    document = json.loads(result.stdout)
    assert result.returncode == document["exit_code"] == 1
    assert document["error"].startswith('0001_a.sql:2: ERROR: column "nope" does not exist (SQLSTATE 42703)')
    assert document["hint"].startswith("mend 0001_a.sql, then: invoke migrate")
    assert set(document) == {"error", "hint", "exit_code", "target", "applied", "failed"}
    assert (document["applied"], document["failed"]) == ([], "0001_a.sql")


# --- what is wrong with the files ---


@pytest.mark.once
def test_everything_that_is_wrong_is_listed_at_once_before_anything_is_written(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql", "0002_b.sql", "0004_d.sql")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id bigint);\n")
    (folder / "0002_b.sql").unlink()
    write(folder, "0003_c.sql", "0005_e.sql", "5_again.sql", "0010_fine.sql")
    (folder / "0006_empty.sql").write_text(" \n\n")
    (folder / "0007_latin1.sql").write_bytes("CREATE TABLE größe (id int);\n".encode("latin1"))
    (folder / "0008_nul.sql").write_bytes(b"SELECT 1;\0\n")
    (folder / "0009_comments.sql").write_text("-- nothing\n/* at all */\n")
    (folder / "0011.sql").write_text("SELECT 1;\n")
    (folder / "0012_quits.sql").write_text("SELECT 1;\n\\q\n")
    (folder / "0013_word.sql").write_text("-- migrate: no-transactions\nSELECT 1;\n")
    (folder / "0014_late.sql").write_text("SELECT 1;\n-- migrate: no-transaction\n")
    dump, ledger = database.dump(), database.ledger()
    result = migrate(database, folder, "embedded")

    assert result.returncode == 1
    assert "nothing was applied" in result.stderr
    assert migrate(database, folder, "embedded", "--plan").stderr == result.stderr.removesuffix("\n") + " --plan\n"
    listed = [line.strip() for line in result.stderr.splitlines() if line.startswith("  ")]
    a, b = (quoted(folder / name) for name in ("0001_a.sql", "0002_b.sql"))
    repair = f"invoke migrations.repair 0001 --dsn - --psql embedded --migrations-dir {quoted(folder)}"
    expected = {
        f"0001_a.sql: was changed after it was applied (git restore {a} undoes what isn't committed; if it is meant: {repair})",
        f"0002_b.sql: is applied, and its file is gone (git restore {b}, or where that is committed: git log -- {b})",
        "0003_c.sql: is pending, and the newer 0004 is applied already (--allow-out-of-order lets it through)",
        "5_again.sql: has the same version as 0005_e.sql",
        "0006_empty.sql: is empty",
        "0007_latin1.sql: isn't UTF-8 text",
        "0008_nul.sql: isn't UTF-8 text",
        "0009_comments.sql: holds nothing to run",
        "0011.sql: isn't named NNNN_name.sql (digits, then _ or -)",
        "0012_quits.sql:2: \\q ends psql half-way, and what follows would count as applied",
        "0013_word.sql:1: unknown directive 'no-transactions'; the one there is: no-transaction",
        "0014_late.sql:2: the directive must stand in the file's first comment",
    }
    assert expected <= set(listed)
    assert {line.split(":")[0] for line in listed} == {line.split(":")[0] for line in expected}
    assert "0010_fine" not in result.stderr
    words = ("status", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder), "--json")
    assert json.loads(invoke(*words, stdin=database.uri).stdout)["problems"] == listed
    assert database.dump() == dump
    assert database.ledger() == ledger

    code, output = status(database, folder)
    assert code == 3
    assert "1 applied, 8 pending, 1 changed, 1 missing, 1 out of order" in output.splitlines()


@pytest.mark.once
def test_an_older_file_goes_through_with_the_flag(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql", "0003_c.sql")
    assert migrate(database, folder, "embedded").returncode == 0
    write(folder, "0002_b.sql")
    refused = migrate(database, folder, "embedded")
    assert refused.returncode == 1
    assert "0002" not in database.ledger()
    assert status(database, folder)[0] == 3
    let = migrate(database, folder, "embedded", "--allow-out-of-order")
    assert let.returncode == 0, let.stderr
    assert applied(let.stdout) == ["0002_b.sql"]
    assert status(database, folder)[0] == 0


@pytest.mark.once
@pytest.mark.parametrize("change", ["CRLF", "BOM", "both"])
def test_other_line_ends_or_a_bom_are_no_change(database: Database, folder: Path, change: str) -> None:
    write(folder, "0001_a.sql")
    assert migrate(database, folder, "embedded").returncode == 0
    data = (folder / "0001_a.sql").read_bytes()
    data = data.replace(b"\n", b"\r\n") if change != "BOM" else data
    (folder / "0001_a.sql").write_bytes((b"\xef\xbb\xbf" if change != "CRLF" else b"") + data)
    again = migrate(database, folder, "embedded")
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert status(database, folder)[0] == 0


@pytest.mark.once
def test_a_blank_more_is_a_change(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0001_a.sql").write_text((folder / "0001_a.sql").read_text() + " ")
    assert migrate(database, folder, "embedded").returncode == 1


# --- a file that fails ---

# (the file, the line that is at fault, the message)
FAULTS = {
    "in a statement of many lines": ("SELECT 1;\n\nSELECT 1,\n  2,\n  nope\nFROM pg_class;\n", 5, 'ERROR: column "nope"'),
    "behind comments": ("-- a\n/* b\n c */\nSELECT 1, -- d\n  nope;\n", 5, 'ERROR: column "nope"'),
    "in the last, without its semicolon": ("SELECT 1;\nSELECT nope", 2, 'ERROR: column "nope"'),
    "in the first of two that share a line": ("SELECT nope,\n2; SELECT 3;\n", 1, 'ERROR: column "nope"'),
    "in the last of two that share a line": ("SELECT 1,\n2; SELECT nope;\n", 2, 'ERROR: column "nope"'),
    "in a message of several": ("SELECT 1 \\;\nSELECT 2 \\;\nSELECT 3,\n nope;\n", 4, 'ERROR: column "nope"'),
    "at the end of a statement, when the server doesn't say": ("SELECT 1;\nSELECT\n1/0\n;\n", 4, "ERROR: division by zero"),
    "in the body of a function": (
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  RETURN 1 +;\nEND$$;\n",
        3,
        "ERROR: syntax error",
    ),
    "in data": (
        "CREATE TABLE d (id int);\nCOPY d FROM stdin;\n1\n2\nthree\n4\n\\.\nSELECT 1;\n",
        5,
        "ERROR: invalid input syntax",
    ),
    "inside a wrapper": ("BEGIN;\nSELECT 1;\nSELECT\nnope;\nCOMMIT;\n", 4, 'ERROR: column "nope"'),
    "with CRLF and a BOM": ("\ufeffSELECT 1;\r\nSELECT\r\n  nope;\r\n", 3, 'ERROR: column "nope"'),
    "behind a tab": ("SELECT 1,\n\tnope\t;\n", 2, 'ERROR: column "nope"'),
    "of SQL made by \\gexec": ("SELECT 1;\nSELECT E'SELECT 1,\\n\\n\\n nope' \\gexec\n", 2, 'ERROR: column "nope"'),
    "in a no-transaction file": ("-- migrate: no-transaction\nSELECT 1;\nSELECT\nnope;\n", 4, 'ERROR: column "nope"'),
}


@pytest.mark.parametrize(("text", "line", "words"), FAULTS.values(), ids=FAULTS)
def test_a_failure_names_file_and_line(database: Database, folder: Path, text: str, line: int, words: str) -> None:
    (folder / "0001_x.sql").write_bytes(text.encode())
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    first, shown = result.stderr.splitlines()[:2]
    assert first.startswith(f"error: 0001_x.sql:{line}: {words}")
    assert re.search(r"\(SQLSTATE [0-9A-Z]{5}\)$", first)
    assert shown == f"  {line} | {text.splitlines()[line - 1]}".rstrip()


@pytest.mark.parametrize("include", ["\\i parts/one.sql", "\\ir parts/one.sql", "\\i parts/../parts/one.sql"])
def test_a_failure_in_an_include_names_that_file(database: Database, folder: Path, mode: str, include: str) -> None:
    (folder / "parts").mkdir()
    (folder / "0001_x.sql").write_text(f"SELECT 1;\n{include}\n")
    (folder / "parts" / "one.sql").write_text("\\ir two.sql\nSELECT 1;\n")
    (folder / "parts" / "two.sql").write_text("SELECT 1;\nSELECT 2,\n  nope;\n")
    result = migrate(database, folder, mode)
    assert result.returncode == 1
    assert 'error: parts/two.sql:3: ERROR: column "nope" does not exist (SQLSTATE 42703)\n  3 |   nope;\n' in result.stderr
    assert "mend 0001_x.sql" in result.stderr


def test_a_failure_says_what_was_kept_and_what_comes_next(database: Database, folder: Path, mode: str) -> None:
    write(folder, "0001_a.sql", "0002_b.sql", "0004_d.sql", "0005_e.sql")
    (folder / "0003_c.sql").write_text(
        "CREATE TABLE c (id int PRIMARY KEY);\nINSERT INTO c VALUES (1);\nINSERT INTO c VALUES (1);\n"
    )
    result = migrate(database, folder, mode)
    assert result.returncode == 1
    assert applied(result.stdout) == ["0001_a.sql", "0002_b.sql"]
    assert result.stderr.splitlines() == [
        'error: 0003_c.sql:3: ERROR: duplicate key value violates unique constraint "c_pkey" (SQLSTATE 23505)',
        "  3 | INSERT INTO c VALUES (1);",
        "  DETAIL:  Key (id)=(1) already exists.",
        "  kept: 0003_c.sql was rolled back whole; 2 files before it stay applied; 2 after it were not started",
        f"next:  mend 0003_c.sql, then: invoke migrate --dsn - --psql {mode} --migrations-dir {folder}",
    ]
    assert database.ledger() == {"0001": "applied", "0002": "applied"}
    assert database.execute("SELECT to_regclass('c') IS NULL, to_regclass('d') IS NULL") == [(True, True)]

    write(folder, "0003_c.sql")
    mended = migrate(database, folder, mode)
    assert mended.returncode == 0, mended.stderr
    assert applied(mended.stdout) == ["0003_c.sql", "0004_d.sql", "0005_e.sql"]


@pytest.mark.parametrize("statement", ["CREATE DATABASE elsewhere", "SELECT 'VACUUM a' \\gexec\n--"])
def test_what_needs_no_transaction_is_told_so(database: Database, folder: Path, statement: str) -> None:
    write(folder, "0001_a.sql")
    (folder / "0002_b.sql").write_text(f"{statement};\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert "put `-- migrate: no-transaction` into the first comment of 0002_b.sql" in result.stderr
    assert database.ledger() == {"0001": "applied"}


def test_a_no_transaction_file_that_failed_is_resumed(database: Database, folder: Path, mode: str) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\nINSERT INTO a VALUES (1), (1);\nCREATE TABLE other (id int);\n")
    (folder / "0002_b.sql").write_text(
        '-- migrate: no-transaction\nCREATE TABLE IF NOT EXISTS b (id int);\nCREATE UNIQUE INDEX CONCURRENTLY "A id" ON a (id);\n'
    )
    write(folder, "0003_c.sql")
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"

    failed = migrate(database, folder, mode)
    assert failed.returncode == 1
    assert '0002_b.sql:3: ERROR: could not create unique index "A id" (SQLSTATE 23505)' in failed.stderr
    assert "what it did before stays, and its row says `started`" in failed.stderr
    assert f"mend 0002_b.sql, then: invoke migrate --dsn - --psql {mode} --migrations-dir {folder} --resume" in failed.stderr
    assert database.ledger() == {"0001": "applied", "0002": "started"}
    assert database.execute(invalid) == [('"A id"',)]
    assert status(database, folder)[0] == 3
    assert "started" in status(database, folder)[1]

    database.execute("DELETE FROM a")
    stopped = migrate(database, folder, mode)
    assert stopped.returncode == 1
    assert "0002_b.sql was started at" in stopped.stderr
    assert '--resume first runs: DROP INDEX CONCURRENTLY public."A id";' in stopped.stderr
    assert f"run it again from its beginning: invoke migrate --dsn - --psql {mode}" in stopped.stderr
    assert stopped.stderr.rstrip().endswith("--resume")
    planned = migrate(database, folder, mode, "--plan")
    assert '  --resume would first run: DROP INDEX CONCURRENTLY public."A id";' in planned.stdout
    assert database.ledger() == {"0001": "applied", "0002": "started"}
    assert database.execute(invalid) == [('"A id"',)]

    resumed = migrate(database, folder, mode, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert 'DROP INDEX CONCURRENTLY public."A id"' in resumed.stdout
    assert applied(resumed.stdout) == ["0002_b.sql", "0003_c.sql"]
    assert database.ledger() == {"0001": "applied", "0002": "applied", "0003": "applied"}
    assert database.execute(invalid) == []
    assert database.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = '\"A id\"'::regclass") == [(True,)]
    assert status(database, folder)[0] == 0


def test_resume_leaves_the_invalid_indexes_of_others_alone(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\nINSERT INTO a VALUES (1), (1);\n")
    assert migrate(database, folder, "embedded").returncode == 0
    assert database.psql("-c", "CREATE UNIQUE INDEX CONCURRENTLY of_somebody_else ON a (id)").returncode != 0
    (folder / "0002_b.sql").write_text("-- migrate: no-transaction\nSELECT 1 / (SELECT count(*) FROM a WHERE id = 2);\n")
    assert migrate(database, folder, "embedded").returncode == 1
    database.execute("INSERT INTO a VALUES (2)")
    assert migrate(database, folder, "embedded", "--resume").returncode == 0
    left = database.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
    assert left == [("of_somebody_else",)]


# --- which database ---


@pytest.mark.once
@pytest.mark.parametrize(
    ("environment", "file"),
    [
        ({"POSTGRES_ADMIN_DSN": "right"}, {}),
        ({"POSTGRES_DSN": "right"}, {}),
        ({"POSTGRES_ADMIN_DSN": "right", "POSTGRES_DSN": "wrong"}, {}),
        ({}, {"POSTGRES_ADMIN_DSN": "right"}),
        ({}, {"POSTGRES_DSN": "right"}),
        ({"POSTGRES_ADMIN_DSN": "right"}, {"POSTGRES_ADMIN_DSN": "wrong"}),
        ({"POSTGRES_DSN": "right"}, {"POSTGRES_DSN": "wrong"}),
        ({"POSTGRES_DSN": "wrong"}, {"POSTGRES_ADMIN_DSN": "right"}),
        ({"POSTGRES_ADMIN_DSN": ""}, {"POSTGRES_ADMIN_DSN": "right"}),
    ],
    ids=str,
)
def test_where_the_dsn_comes_from(
    database: Database, folder: Path, tmp_path: Path, environment: dict[str, str], file: dict[str, str]
) -> None:
    uris = {"right": database.uri, "wrong": database.dsn.with_params(dbname="wrong").uri().reveal(), "": ""}
    (tmp_path / "settings").write_text("".join(f"{name}='{uris[value]}'\n" for name, value in file.items()))
    words = ("migrate", "--psql", "embedded", "--migrations-dir", str(folder), "--env-file", str(tmp_path / "settings"))
    result = invoke(*words, env={name: uris[value] for name, value in environment.items()})
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"target: {database.dsn}\n")


@pytest.mark.once
def test_a_dsn_on_stdin_beats_the_environment(database: Database, folder: Path) -> None:
    words = ("migrate", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder))
    result = invoke(*words, stdin=f"{database.uri}\n", env={"POSTGRES_ADMIN_DSN": "postgresql://nobody@localhost/wrong"})
    assert result.returncode == 0, result.stderr
    assert f"target: {database.dsn}\n" in result.stdout
    assert result.stderr == ""


@pytest.mark.once
def test_a_dsn_as_an_argument_works_with_a_warning(database: Database, folder: Path) -> None:
    result = invoke("migrate", "--dsn", database.uri, "--psql", "embedded", "--migrations-dir", str(folder))
    assert result.returncode == 0, result.stderr
    assert "warning: other users of this machine can read the DSN in --dsn; `--dsn -` reads it from stdin" in result.stderr
    assert database.dsn.password.reveal() not in result.stdout + result.stderr


@pytest.mark.once
def test_no_dsn_at_all_names_every_place(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("# nothing\n")
    result = invoke("migrate", "--migrations-dir", str(folder), "--env-file", str(tmp_path / "settings"))
    assert result.returncode == 2
    for place in ("--dsn", "POSTGRES_ADMIN_DSN", "POSTGRES_DSN", "environment", str(tmp_path / "settings"), "--local"):
        assert place in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error:")]) == 1


# (flags, DSN on stdin, words of the message): bad usage, found before anything is connected to
USAGE = {
    "another host without TLS": ((), "postgresql://me:secret@db.example.com:5432/app", "sslmode=require"),
    "another host that only prefers TLS": ((), "postgresql://me:secret@db.example.com/app?sslmode=prefer", "sslmode=require"),
    "one of two hosts is another": ((), "postgresql://me:secret@localhost,db.example.com/app", "sslmode=require"),
    "an incomplete URI": ((), "postgresql://localhost:5432", "isn't complete: no user, no database"),
    "no URI": ((), "host=localhost dbname=app password=secret", "is not a Postgres URI"),
    "nothing on stdin": ((), "", "reads the DSN from stdin, and that is empty"),
    "the embedded psql and TLS": (
        ("--psql", "embedded"),
        "postgresql://me:secret@db.example.com/app?sslmode=require",
        "use --psql local or --docker",
    ),
    "the embedded psql and TLS here": (
        ("--psql", "embedded"),
        "postgresql://me:secret@localhost/app?sslmode=verify-full",
        "the embedded psql has no TLS",
    ),
    "a psql that isn't there": (("--psql", "remote"), "postgresql://me@localhost/app", "one of: auto, local, docker, embedded"),
    "two ways to run psql": (("--docker", "--psql", "local"), "postgresql://me@localhost/app", "leave one of them away"),
    "two databases": (("--local",), "postgresql://me@localhost/app", "leave one of them away"),
    "no number of seconds": (("--wait", "soon"), "postgresql://me@localhost/app", "--wait soon: not a number of seconds"),
    "more seconds than can be waited": (("--wait", "1e12"), "postgresql://me@localhost/app", "1e12: not a number of seconds"),
    "a negative number": (("--lock-wait=-1",), "postgresql://me@localhost/app", "--lock-wait -1: not a number of seconds"),
    "an env file that isn't there": (("--env-file", "gone"), "postgresql://me@localhost/app", "--env-file gone"),
}


@pytest.mark.once
@pytest.mark.parametrize(("flags", "uri", "words"), USAGE.values(), ids=USAGE)
def test_bad_usage_exits_with_two(folder: Path, flags: tuple[str, ...], uri: str, words: str) -> None:
    result = invoke("migrate", "--dsn", "-", "--migrations-dir", str(folder), *flags, stdin=uri)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stdout + result.stderr


# --- a server that isn't there ---


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port of this machine at which nobody answers, and which nobody else can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.mark.once
@pytest.mark.parametrize("command", ["migrate", "status"])
def test_a_server_that_does_not_answer(database: Database, folder: Path, mode: str, command: str) -> None:
    with closed_port() as port:
        dsn = database.dsn.with_params(port=str(port))
        words = (command, "--dsn", "-", "--psql", mode, "--migrations-dir", str(folder))
        result = invoke(*words, stdin=dsn.uri().reveal())
    assert result.returncode == 1
    assert f"error: {dsn} can't be reached:" in result.stderr
    assert "refused" in result.stderr
    assert "--wait SECONDS" in result.stderr
    assert "Traceback" not in result.stderr
    assert dsn.password.reveal() not in result.stdout + result.stderr


@pytest.mark.once
def test_a_dsn_without_the_password_that_the_server_asks_for(database: Database, folder: Path) -> None:
    dsn = replace(database.dsn, password=Secret(""))
    result = invoke("migrate", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder), stdin=str(dsn))
    assert result.returncode == 1
    assert f"error: {dsn} holds no password, and the server asks for one\n" in result.stderr
    assert "next:  put it into --dsn -, percent-encoded; the shape: postgresql://" in result.stderr


@pytest.mark.once
def test_a_name_that_nobody_knows_is_not_to_be_waited_for(database: Database, folder: Path) -> None:
    dsn = database.dsn.with_params(host="nowhere.invalid", sslmode="require")
    words = ("migrate", "--dsn", "-", "--psql", "local", "--migrations-dir", str(folder))
    result = invoke(*words, stdin=dsn.uri().reveal())
    assert result.returncode == 1
    assert "could not translate host name" in result.stderr
    assert "mend the host's name in --dsn -" in result.stderr
    assert "--wait" not in result.stderr


@pytest.mark.embedded
@pytest.mark.once
def test_a_server_without_tls_is_told_as_that(database: Database, folder: Path) -> None:
    dsn = database.dsn.with_params(sslmode="require")
    words = ("migrate", "--dsn", "-", "--psql", "local", "--migrations-dir", str(folder))
    result = invoke(*words, stdin=dsn.uri().reveal())
    assert result.returncode == 1
    assert "next:  the server speaks no TLS: take sslmode out of the DSN, or mend host and port" in result.stderr


@pytest.mark.once
def test_wait_ends(database: Database, folder: Path) -> None:
    with closed_port() as port:
        dsn = database.dsn.with_params(port=str(port))
        words = ("migrate", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder), "--wait", "1")
        result = invoke(*words, stdin=dsn.uri().reveal())
    assert result.returncode == 1
    assert "can't be reached (waited 1 s):" in result.stderr
    assert "--wait" not in result.stderr


@pytest.mark.once
def test_wait_sees_the_server_come_up(database: Database, folder: Path) -> None:
    """The first connection is dropped, as by a server that is starting; the next ones reach the real one."""
    write(folder, "0001_a.sql")
    refused: list[int] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve(listener: socket.socket) -> None:
        first, _ = listener.accept()
        first.recv(1)
        refused.append(1)
        first.close()
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", int(database.dsn.params["port"]))) as server:
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            pump(client, server)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = threading.Thread(target=serve, args=(listener,), daemon=True)
        relay.start()
        dsn = database.dsn.with_params(port=str(listener.getsockname()[1]), sslmode="disable")
        words = ("migrate", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder), "--wait", "120")
        result = invoke(*words, stdin=dsn.uri().reveal())
    assert result.returncode == 0, result.stderr
    relay.join()
    assert refused == [1]
    assert database.ledger() == {"0001": "applied"}


@pytest.mark.parametrize(
    ("params", "words"), [({"dbname": "gone"}, 'database "gone" does not exist'), ({"user": "nobody"}, "nobody")], ids=str
)
def test_what_will_not_pass_is_not_waited_for(database: Database, folder: Path, params: dict[str, str], words: str) -> None:
    dsn = database.dsn.with_params(**params)
    flags = ("--psql", "embedded", "--migrations-dir", str(folder), "--wait", "100000")
    result = invoke("migrate", "--dsn", "-", *flags, stdin=dsn.uri().reveal())
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


# --- what must not leak in ---


@pytest.mark.once
def test_the_users_psqlrc_and_pg_variables_do_not_leak_in(database: Database, folder: Path, tmp_path: Path, mode: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    broken = "\\set ON_ERROR_STOP 0\n\\set AUTOCOMMIT off\n\\echo leaked\nSELECT 1/0;\n\\q\n"
    for name in (".psqlrc", "rc"):
        (home / name).write_text(broken)
    (home / ".pgpass").write_text("*:*:*:*:wrong\n")
    (home / ".pgpass").chmod(0o600)
    environment = {
        "HOME": str(home),
        "PSQLRC": str(home / "rc"),
        "PGHOST": "nowhere.invalid",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGDATABASE": "wrong",
        "PGUSER": "wrong",
        "PGPASSWORD": "wrong",
        "PGPASSFILE": str(home / ".pgpass"),
        "PGSERVICE": "none",
        "PGSSLMODE": "verify-full",
        "PGCLIENTENCODING": "LATIN1",
        "PGOPTIONS": "-c default_transaction_read_only=on -c search_path=nowhere",
        "PGTZ": "nowhere",
        "PSQL_PAGER": "false",
    }
    (folder / "0001_a.sql").write_text("CREATE TABLE a (größe text);\nINSERT INTO a VALUES ('ü');\nSELECT größe FROM a;\n")
    words = ("migrate", "--dsn", "-", "--psql", mode, "--migrations-dir", str(folder))
    result = invoke(*words, stdin=database.uri, env=environment)
    assert result.returncode == 0, result.stderr
    assert "  ü" in result.stdout.splitlines()
    assert "leaked" not in result.stdout + result.stderr
    assert database.execute("SELECT größe FROM public.a") == [("ü",)]


# --- what the server says ---


def test_what_the_server_says_is_shown_with_its_place(database: Database, folder: Path, mode: str) -> None:
    (folder / "0001_a.sql").write_text(
        "\\warn zero\nCREATE TABLE a (id int);\n\nDO $$BEGIN RAISE NOTICE 'one: %', 1; END$$;\n\\warn two\n"
        "DO $$BEGIN RAISE WARNING E'three\\n  and more' USING HINT = 'a hint'; END$$;\n"
        "CREATE TABLE IF NOT EXISTS a (id int);\nDROP TABLE IF EXISTS gone;\n\\warn four\nSELECT 'five';\n\\echo six\n"
    )
    result = migrate(database, folder, mode)
    assert result.returncode == 0, result.stderr
    # nothing of IF NOT EXISTS and IF EXISTS, which had nothing to do
    assert [line.strip() for line in result.stderr.splitlines()] == [
        "zero",
        "0001_a.sql:4: NOTICE: one: 1",
        "two",
        "0001_a.sql:6: WARNING: three",
        "and more",
        "HINT:  a hint",
        "four",
    ]
    assert [line for line in result.stdout.splitlines() if line in ("  five", "  six")] == ["  five", "  six"]


def test_all_of_an_error_is_shown(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text(
        "\\warn before\nDO $$BEGIN\n"
        "  RAISE EXCEPTION E'one\\ntwo' USING DETAIL = E'three\\nfour', HINT = 'five', ERRCODE = 'P0042';\nEND$$;\n"
    )
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert [line.strip() for line in result.stderr.splitlines()][:8] == [
        "before",
        "error: 0001_a.sql:4: ERROR: one (SQLSTATE P0042)",
        "4 | END$$;",
        "two",
        "DETAIL:  three",
        "four",
        "HINT:  five",
        "CONTEXT:  PL/pgSQL function inline_code_block line 2 at RAISE",
    ]


@pytest.mark.once
@pytest.mark.parametrize(
    "text",
    [
        "CREATE ROLE x LOGIN PASSWORD 'TopSekrit1' IN ROLE no_such_role;",
        "CREATE ROLE x LOGIN PASSWORD\n  'TopSekrit1' IN ROLE no_such_role;",
        "DO $$BEGIN EXECUTE 'CREATE ROLE x PASSWORD ''TopSekrit1'' IN ROLE no_such_role'; END$$;",
        "DO $$BEGIN EXECUTE format('CREATE ROLE x PASSWORD %L IN ROLE no_such_role', 'TopSekrit1'); END$$;",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user 'u', password 'TopSekrit1');",
        "SELECT 'postgresql://u:TopSekrit1@h/d'::integer;",
        "\\i parts/role.sql",
    ],
)
def test_an_error_shows_no_password_of_the_file(database: Database, folder: Path, text: str) -> None:
    (folder / "parts").mkdir()
    (folder / "parts" / "role.sql").write_text("CREATE ROLE x PASSWORD 'TopSekrit1' IN ROLE no_such_role;\n")
    (folder / "0001_a.sql").write_text(f"{text}\n")
    for words in ([], ["--rehearse"], ["--json"]):
        result = migrate(database, folder, "embedded", *words)
        assert result.returncode == 1
        assert "TopSekrit1" not in result.stdout + result.stderr
        assert "ERROR: " in result.stderr


# --- status ---


@pytest.mark.once
def test_status_says_all_and_exits_by_it(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql", "0002_b.sql")
    empty = database.dump()
    code, output = status(database, folder)
    assert code == 3
    assert "2 pending" in output
    assert database.dump() == empty  # status writes nothing

    assert migrate(database, folder, "embedded", "--to", "1").returncode == 0
    code, output = status(database, folder)
    assert code == 3
    assert "1 applied, 1 pending" in output.splitlines()
    assert re.search(r"^  0001_a\.sql  applied +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\w+ +\d+ ms$", output, re.MULTILINE)
    assert re.search(r"^  0002_b\.sql  pending$", output, re.MULTILINE)

    assert migrate(database, folder, "embedded").returncode == 0
    code, output = status(database, folder)
    assert code == 0
    assert output.splitlines()[-1] == "2 applied"


@pytest.mark.once
@pytest.mark.parametrize(
    ("wrong", "words"),
    [("change", "1 applied, 1 changed"), ("remove", "1 applied, 1 missing"), ("break", "2 applied, 1 pending")],
)
def test_status_of_what_is_wrong(database: Database, folder: Path, wrong: str, words: str) -> None:
    write(folder, "0001_a.sql", "0002_b.sql")
    assert migrate(database, folder, "embedded").returncode == 0
    if wrong == "change":
        (folder / "0002_b.sql").write_text("SELECT 1;\n")
    elif wrong == "remove":
        (folder / "0002_b.sql").unlink()
    else:
        (folder / "0003_c.sql").write_text("")
    code, output = status(database, folder)
    assert code == 3
    assert words in output.splitlines()


def test_status_as_json(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql", "0002_b.sql")
    assert migrate(database, folder, "embedded", "--to", "1").returncode == 0
    code, output = status(database, folder, "--json")
    assert code == 3
    document = json.loads(output)
    first, second = document.pop("migrations")
    version = database.execute("SHOW server_version")[0][0]
    assert document == {
        "target": str(database.dsn),
        "server_version": version,
        "summary": {
            "applied": 1,
            "pending": 1,
            "started": 0,
            "changed": 0,
            "missing": 0,
            "out of order": 0,
            "outdated": 0,
            "retired": 0,
        },
        "problems": [],
    }
    assert (first["version"], first["file"], first["state"], first["applied_by"]) == ("0001", "0001_a.sql", "applied", "postgres")
    assert isinstance(first["duration_ms"], int)
    assert first["applied_at"]
    assert second == {
        "version": "0002",
        "file": "0002_b.sql",
        "state": "pending",
        "applied_at": None,
        "applied_by": None,
        "duration_ms": None,
    }


@pytest.mark.once
def test_without_a_folder_the_projects_own_is_meant(database: Database) -> None:
    result = invoke("migrate", "--dsn", "-", "--psql", "embedded", stdin=database.uri)
    assert result.returncode == 0, result.stderr
    assert applied(result.stdout) == sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert invoke("status", "--dsn", "-", "--psql", "embedded", stdin=database.uri).returncode == 0


@pytest.mark.once
def test_what_was_checked_is_what_runs_whatever_happens_to_the_folder_meanwhile(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text(f"CREATE TABLE a (id int);\n{proofs.WAITS_AT_GATE}")
    (folder / "0002_b.sql").write_text("CREATE TABLE b (id int);\n")
    with proofs.closed_gate(database):
        runner = proofs.start(database, folder, "embedded")
        proofs.wait_until(lambda: proofs.waiting_at_gate(database), "the first file waits")
        (folder / "0002_b.sql").write_text(f"\\! echo > {folder / 'ran'}\n")
    out, err = runner.communicate(timeout=proofs.DEADLINE)
    assert (runner.returncode, err) == (0, ""), out
    assert not (folder / "ran").exists()
    assert database.execute("SELECT to_regclass('b') IS NOT NULL") == [(True,)]
    assert "was changed after it was applied" in migrate(database, folder, "embedded").stderr


def test_a_file_that_renames_the_owners_group_counts_as_applied(database: Database, folder: Path) -> None:
    group = f"g_{database.dsn.database}"
    database.made_roles += [group, f"{group}_new"]
    write(folder, "0001_a.sql")
    assert migrate(database, folder, "embedded").returncode == 0
    database.execute(f"CREATE ROLE {group}")
    database.execute(f"ALTER TABLE schema_migrations OWNER TO {group}")
    (folder / "0002_b.sql").write_text(f"RESET ROLE;\nALTER ROLE {group} RENAME TO {group}_new;\n")
    (folder / "0003_c.sql").write_text("SELECT 'as ' || current_user;\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 0, result.stderr
    assert f"as {group}_new" in result.stdout
    assert database.ledger() == {"0001": "applied", "0002": "applied", "0003": "applied"}


@pytest.mark.once
def test_a_file_that_deletes_anothers_row_is_said_to_be_applied(database: Database, folder: Path) -> None:
    write(folder, "0001_a.sql", "0003_c.sql")
    (folder / "0002_b.sql").write_text("DELETE FROM public.schema_migrations WHERE version = '0001';\n")
    result = migrate(database, folder, "embedded", "--json")
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert "nothing was applied" not in document["error"]
    assert "0001_a.sql" in document["error"]
    assert database.ledger() == {"0002": "applied", "0003": "applied"}
