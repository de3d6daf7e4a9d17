"""`invoke migrations.repair`: one row of the ledger, shown before it is changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scripts.shell import quoted
from tests.database import Database, invoke
from tests.proofs import migrate


def repair(database: Database, folder: Path, version: str, *flags: str) -> subprocess.CompletedProcess[str]:
    words = ("migrations.repair", version, "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder), *flags)
    return invoke(*words, stdin=database.uri)


def there(command: str, folder: Path) -> str:
    """A command for the same database and folder as `repair` has."""
    return f"invoke {command} --dsn - --psql embedded --migrations-dir {quoted(folder)}"


def named(database: Database) -> str:
    return f"{database.dsn.hosts[0]}/{database.dsn.database}"


@pytest.fixture
def changed(database: Database, folder: Path) -> Path:
    """Two files that are applied and were changed."""
    for name in ("0001_a.sql", "0002_b.sql"):
        (folder / name).write_text("SELECT 1;\n")
    assert migrate(database, folder, "embedded").returncode == 0
    for name in ("0001_a.sql", "0002_b.sql"):
        (folder / name).write_text("SELECT 1; -- a remark\n")
    return folder


def test_a_changed_files_checksum_is_recorded_anew_for_that_file_alone(database: Database, changed: Path) -> None:
    rows = "SELECT * FROM schema_migrations ORDER BY version"
    before = database.execute(rows)
    planned = repair(database, changed, "1", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "0001_a.sql was changed after it was applied at" in planned.stdout
    asked = repair(database, changed, "1")
    assert asked.returncode == 2
    assert f"--target {named(database)}" in asked.stderr
    other = repair(database, changed, "1", "--target", "127.0.0.1/postgres")
    assert other.returncode == 2
    assert f"--target 127.0.0.1/postgres: the database is {named(database)}" in other.stderr
    assert database.execute(rows) == before

    result = repair(database, changed, "1", "--target", named(database), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["written"] is True
    after = database.execute(rows)
    assert after[1] == before[1]
    columns = [column for column, _ in enumerate(after[0]) if after[0][column] != before[0][column]]
    assert len(columns) == 1
    assert "0002_b.sql: was changed" in migrate(database, changed, "embedded").stderr
    assert repair(database, changed, "0002", "--target", named(database)).returncode == 0
    assert migrate(database, changed, "embedded").returncode == 0


def test_one_that_was_started_is_forgotten(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("-- migrate: no-transaction\nCREATE TABLE a (id int);\nSELECT nope;\n")
    assert migrate(database, folder, "embedded").returncode == 1
    result = repair(database, folder, "0001_a.sql", "--target", named(database))
    assert result.returncode == 0, result.stderr
    assert "what it has done so far stays" in result.stdout
    assert database.ledger() == {}
    assert database.execute("SELECT to_regclass('a') IS NOT NULL") == [(True,)]


@pytest.mark.once
def test_what_has_nothing_to_repair(database: Database, changed: Path) -> None:
    for version in ("7", "x"):
        result = repair(database, changed, version, "--plan")
        assert result.returncode == 2
        assert "neither a file nor a row has this version" in result.stderr
        assert f"next:  {there('status', changed)} lists them" in result.stderr
    (changed / "0001_a.sql").write_text("SELECT 1;\n")
    (changed / "0002_b.sql").unlink()
    (changed / "0003_c.sql").write_text("SELECT 1;\n")
    for version, message, way in [
        ("1", "0001_a.sql is applied: only what is changed or started can be repaired", there("status", changed)),
        ("2", "0002_b.sql is missing: only what is changed", "put the file back"),
        ("3", "0003_c.sql is pending: only what is changed", there("migrate", changed)),
    ]:
        result = repair(database, changed, version, "--target", named(database))
        assert result.returncode == 1
        assert message in result.stderr
        assert f"next:  {way}" in result.stderr


@pytest.mark.once
def test_without_a_ledger(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("SELECT 1;\n")
    result = repair(database, folder, "1", "--target", named(database))
    assert result.returncode == 1
    assert "has no ledger" in result.stderr
    assert f"next:  {there('migrate', folder)} makes it" in result.stderr


@pytest.mark.once
def test_a_second_file_of_an_applied_number_is_the_one_to_blame_and_no_repair_is_named(database: Database, folder: Path) -> None:
    (folder / "0001_runs.sql").write_text("SELECT 1;\n")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0001_other.sql").write_text("SELECT 2;\n")
    said = (
        "0001_other.sql: has the same version as 0001_runs.sql, which the ledger has: rename it, to 0002_other.sql for instance"
    )
    told = {"status": "stdout", "migrate": "stderr", "migrations.repair 1": "stderr"}
    for command, where in told.items():
        words = (*command.split(), "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder))
        shown = getattr(invoke(*words, stdin=database.uri), where)
        assert [line.strip() for line in shown.splitlines() if "0001_" in line and ": " in line] == [said]
        assert "1 applied, 1 pending" in shown or command != "status"
