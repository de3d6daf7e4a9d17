"""`invoke migrations.baseline`: a database that has its schema gets its ledger, and no file runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scripts.shell import quoted
from tests.database import Database, invoke
from tests.proofs import migrate


def baseline(database: Database, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    words = ("migrations.baseline", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder), *flags)
    return invoke(*words, stdin=database.uri)


@pytest.fixture
def grown(database: Database, folder: Path) -> Path:
    """A database that somebody made by hand, and the files that say the same."""
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int PRIMARY KEY);\n")
    (folder / "0002_b.sql").write_text("CREATE INDEX a_id ON a (id);\n")
    (folder / "0003_c.sql").write_text("CREATE TABLE c (id int);\n")
    (folder / "R__v.sql").write_text("CREATE OR REPLACE VIEW v AS SELECT id FROM a;\n")
    database.execute("CREATE TABLE a (id int PRIMARY KEY)")
    database.execute("INSERT INTO a VALUES (1)")
    database.execute("CREATE INDEX a_id ON a (id)")
    return folder


def test_files_are_recorded_and_do_not_run(database: Database, grown: Path) -> None:
    planned = baseline(database, grown, "--to", "2", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "  would record 0001_a.sql as applied" in planned.stdout
    assert database.ledger() == {}
    asked = baseline(database, grown, "--to", "2")
    assert asked.returncode == 2
    assert "Record 2 files" in asked.stderr
    assert "invoke migrations.baseline --dsn - --psql embedded" in asked.stderr
    assert asked.stderr.rstrip().endswith("--to 2 --yes")
    assert database.ledger() == {}

    result = baseline(database, grown, "--to", "2", "--yes", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["recorded"] == ["0001_a.sql", "0002_b.sql"]
    assert document["differences"] == []
    assert database.ledger() == {"0001": "applied", "0002": "applied"}
    assert database.execute("SELECT count(*) FROM a") == [(1,)]
    assert database.execute("SELECT DISTINCT duration_ms, applied_by FROM schema_migrations") == [(None, "postgres")]

    again = baseline(database, grown, "--to", "0002", "--yes")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert migrate(database, grown, "embedded").returncode == 0
    assert list(database.ledger()) == ["0001", "0002", "0003", "R__v"]


@pytest.mark.long
def test_a_difference_is_said_and_refused_unless_told(database: Database, grown: Path) -> None:
    database.execute("DROP INDEX a_id")
    database.execute("ALTER TABLE a ADD COLUMN more text")
    refused = baseline(database, grown, "--to", "2", "--yes")
    assert refused.returncode == 3
    assert "  only in the files: INDEX public.a_id" in refused.stdout
    assert "+    more text" in refused.stdout
    assert "2 differences; nothing was recorded" in refused.stderr
    assert "--to 2 --accept-drift" in refused.stderr
    assert database.ledger() == {}
    accepted = baseline(database, grown, "--to", "2", "--yes", "--accept-drift")
    assert accepted.returncode == 0, accepted.stderr
    assert database.ledger() == {"0001": "applied", "0002": "applied"}


@pytest.mark.once
def test_what_was_started_is_ended_first_by_the_files_of_the_same_folder(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("-- migrate: no-transaction\nCREATE TABLE a (id int);\nSELECT nope;\n")
    assert migrate(database, folder, "embedded").returncode == 1
    result = baseline(database, folder, "--to", "1", "--plan")
    assert result.returncode == 1
    way = f"invoke migrate --dsn - --psql embedded --migrations-dir {quoted(folder)} --resume"
    assert result.stderr == f"error: 0001_a.sql was started and has not ended\nnext:  first: {way}\n"


def test_rows_that_are_there_stay(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    assert migrate(database, folder, "embedded").returncode == 0
    before = database.execute("SELECT * FROM schema_migrations")
    (folder / "0002_b.sql").write_text("CREATE TABLE b (id int);\n")
    database.execute("CREATE TABLE b (id int)")
    result = baseline(database, folder, "--to", "2", "--yes")
    assert result.returncode == 0, result.stderr
    assert database.execute("SELECT * FROM schema_migrations WHERE version = '0001'") == before
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id bigint);\n")
    result = baseline(database, folder, "--to", "2", "--yes")
    assert result.returncode == 1
    assert "0001_a.sql: was changed after it was applied" in result.stderr


@pytest.mark.once
@pytest.mark.parametrize(
    ("flags", "message"),
    [((), "--to VERSION: which files does"), (("--to", "9"), "no migration has that version"), (("--to", "x"), "--to x: not a")],
)
def test_a_version_is_needed(database: Database, grown: Path, flags: tuple[str, ...], message: str) -> None:
    result = baseline(database, grown, *flags)
    assert result.returncode == 2
    assert message in result.stderr


def test_a_role_that_is_not_there_is_a_difference(database: Database, folder: Path) -> None:
    database.execute("CREATE TABLE a (id int)")
    role = f"team_{database.dsn.database}"
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    (folder / "0002_roles.sql").write_text(f"CREATE ROLE {role};\nGRANT SELECT ON a TO {role};\n")
    result = baseline(database, folder, "--to", "2", "--yes")
    assert result.returncode == 3
    assert f"only in the files: ROLE {role}" in result.stdout
    assert f"GRANT SELECT ON TABLE public.a TO {role};" in result.stdout
    assert database.ledger() == {}


@pytest.mark.long
def test_what_repeatable_files_make_may_be_there(database: Database, grown: Path) -> None:
    database.execute("CREATE VIEW v AS SELECT id FROM a")
    result = baseline(database, grown, "--to", "2", "--yes")
    assert result.returncode == 0, result.stderr + result.stdout
    assert database.ledger() == {"0001": "applied", "0002": "applied"}
    database.execute("CREATE VIEW another AS SELECT id FROM a")
    database.execute("DROP TABLE schema_migrations")
    result = baseline(database, grown, "--to", "2", "--yes")
    assert result.returncode == 3
    assert "1 difference; nothing was recorded" in result.stderr
