"""R__name.sql: run behind the numbered files whenever they, or what they read, have changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.database import Database, invoke
from tests.proofs import migrate


def applied(database: Database, folder: Path, *flags: str) -> list[str]:
    result = migrate(database, folder, "embedded", "--json", *flags)
    assert result.returncode == 0, result.stderr
    return [item["version"] for item in json.loads(result.stdout)["applied"]]


def states(database: Database, folder: Path) -> tuple[int, dict[str, str]]:
    words = ("status", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder), "--json")
    result = invoke(*words, stdin=database.uri)
    return result.returncode, {item["version"]: item["state"] for item in json.loads(result.stdout)["migrations"]}


@pytest.fixture
def repeatable(folder: Path) -> Path:
    """A table, and a view on it that is made of two files."""
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int, name text);\n")
    (folder / "R__a_view.sql").write_text("DROP VIEW IF EXISTS v;\n\\i parts/view.sql\n")
    (folder / "R__names.sql").write_text("TRUNCATE a;\n\\copy a FROM 'parts/names.csv' WITH (FORMAT csv)\n")
    (folder / "parts").mkdir()
    (folder / "parts" / "view.sql").write_text("CREATE VIEW v AS SELECT id FROM a;\n")
    (folder / "parts" / "names.csv").write_text("1,one\n")
    return folder


def test_they_run_last_by_name_and_once(database: Database, repeatable: Path) -> None:
    (repeatable / "R__Z.sql").write_text("SELECT 1;\n")
    assert applied(database, repeatable) == ["0001", "R__Z", "R__a_view", "R__names"]
    assert applied(database, repeatable) == []
    assert states(database, repeatable) == (0, dict.fromkeys(["0001", "R__Z", "R__a_view", "R__names"], "applied"))


@pytest.mark.parametrize(
    ("file", "text", "again"),
    [
        ("R__a_view.sql", "DROP VIEW IF EXISTS v;\nCREATE VIEW v AS SELECT name FROM a;\n", "R__a_view"),
        ("parts/view.sql", "CREATE VIEW v AS SELECT name FROM a;\n", "R__a_view"),
        ("parts/names.csv", "1,one\n2,two\n", "R__names"),
    ],
)
def test_one_that_changed_runs_again(database: Database, repeatable: Path, file: str, text: str, again: str) -> None:
    applied(database, repeatable)
    first = dict(database.execute("SELECT version, checksum FROM schema_migrations"))
    (repeatable / file).write_text(text)
    code, found = states(database, repeatable)
    assert (code, found[again]) == (3, "outdated")
    assert applied(database, repeatable) == [again]
    assert database.execute("SELECT count(*) FROM schema_migrations") == [(3,)]
    changed = {
        version
        for version, checksum in database.execute("SELECT version, checksum FROM schema_migrations")
        if first[version] != checksum
    }
    assert changed == {again}
    assert states(database, repeatable)[0] == 0


def test_line_ends_and_a_bom_are_no_change(database: Database, repeatable: Path) -> None:
    applied(database, repeatable)
    for file in ("R__a_view.sql", "parts/view.sql"):
        text = (repeatable / file).read_bytes()
        (repeatable / file).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert applied(database, repeatable) == []


def test_one_that_fails_is_rolled_back_and_stays_as_it_was(database: Database, repeatable: Path) -> None:
    applied(database, repeatable)
    (repeatable / "parts" / "view.sql").write_text("CREATE VIEW v AS SELECT nope FROM a;\n")
    result = migrate(database, repeatable, "embedded")
    assert result.returncode == 1
    assert 'parts/view.sql:1: ERROR: column "nope" does not exist' in result.stderr
    assert database.execute("SELECT to_regclass('v') IS NOT NULL") == [(True,)]
    assert states(database, repeatable)[1]["R__a_view"] == "outdated"


def test_to_leaves_them_out(database: Database, repeatable: Path) -> None:
    assert applied(database, repeatable, "--to", "1") == ["0001"]
    assert applied(database, repeatable) == ["R__a_view", "R__names"]


def test_a_numbered_file_has_one_run_again_by_its_row(database: Database, repeatable: Path) -> None:
    """It has to drop the view, to change the type of a column that the view shows."""
    applied(database, repeatable)
    (repeatable / "0002_bigger.sql").write_text(
        "DROP VIEW v;\nALTER TABLE a ALTER COLUMN id TYPE bigint;\n"
        "DELETE FROM public.schema_migrations WHERE version = 'R__a_view';\n"
    )
    assert applied(database, repeatable) == ["0002", "R__a_view"]
    assert database.execute("SELECT to_regclass('v') IS NOT NULL") == [(True,)]


@pytest.mark.once
def test_one_that_is_gone_is_retired_and_no_problem(database: Database, repeatable: Path) -> None:
    applied(database, repeatable)
    (repeatable / "R__names.sql").unlink()
    assert applied(database, repeatable) == []
    code, found = states(database, repeatable)
    assert (code, found["R__names"]) == (0, "retired")


@pytest.mark.once
def test_what_is_refused(database: Database, folder: Path) -> None:
    (folder / "R__a.sql").write_text("-- migrate: no-transaction\nSELECT 1;\n")
    (folder / "r__b.sql").write_text("SELECT 1;\n")
    (folder / "R__c.sql").write_text("\\! ls\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert "R__a.sql:1: a repeatable file runs in a transaction" in result.stderr
    assert "r__b.sql: isn't named R__name.sql" in result.stderr
    assert "R__c.sql:1: \\! runs a program" in result.stderr
    assert database.ledger() == {}
