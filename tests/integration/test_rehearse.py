"""`invoke migrate --rehearse`: the files run for real, and nothing is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from scripts.ledger import LOCK_KEY
from scripts.secret import Secret
from tests.database import ENV, Database, invoke_argv
from tests.proofs import DEADLINE, migrate, wait_until


@pytest.mark.parametrize("begun", [False, True], ids=["without a ledger", "with one applied"])
def test_what_went_through_is_said_and_nothing_is_left(database: Database, folder: Path, mode: str, begun: bool) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    (folder / "0002_b.sql").write_text("INSERT INTO a VALUES (1);\nSELECT 'rows: ' || count(*) FROM a;\n")
    (folder / "0003_c.sql").write_text("-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY a_id ON a (id);\n")
    (folder / "0004_d.sql").write_text("SELECT 'SELECT 1' \\gexec\n")
    (folder / "0005_e.sql").write_text("BEGIN;\nSET search_path = nowhere;\nCOMMIT;\n")
    (folder / "0006_f.sql").write_text("ALTER TABLE a ADD COLUMN name text;\n")
    (folder / "R__v.sql").write_text("CREATE OR REPLACE VIEW v AS SELECT id, name FROM a;\n")
    if begun:
        assert migrate(database, folder, "embedded", "--to", "1").returncode == 0
    before = database.whole_dump()
    result = migrate(database, folder, mode, "--rehearse")
    assert result.returncode == 0, result.stderr
    assert "  rows: 1" in result.stdout
    assert "  not rehearsed: 0003_c.sql  (runs outside a transaction)" in result.stdout
    assert "  not rehearsed: 0004_d.sql  (runs SQL by \\gexec, which may commit)" in result.stdout
    count = "rehearsed 4 of 6 pending" if begun else "rehearsed 5 of 7 pending"
    assert f"{count}, and rolled back" in result.stdout
    assert database.whole_dump() == before


def test_each_file_has_a_clean_session(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text(
        "SET search_path = nowhere;\n\\set v 1\n\\pset format csv\nCREATE TEMP TABLE mine (id int);\nPREPARE p AS SELECT 1;\n"
        "SET lock_timeout = '1min';\n"
    )
    (folder / "0002_b.sql").write_text(
        "\\if :{?v}\n  SELECT * FROM another_files_variable;\n\\endif\nCREATE TEMP TABLE mine (id int);\nPREPARE p AS SELECT 2;\n"
        "SELECT 'path: ' || current_setting('search_path') || ', lock: ' || current_setting('lock_timeout');\n"
    )
    result = migrate(database, folder, "embedded", "--rehearse")
    assert result.returncode == 0, result.stderr
    assert '  path: "$user", public, lock: 5s' in result.stdout


def test_a_failure_names_the_file_and_the_line(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    (folder / "0002_b.sql").write_text("-- migrate: no-transaction\nCREATE TABLE b (id int);\n")
    (folder / "0003_c.sql").write_text("SELECT 1;\nINSERT INTO b VALUES (1);\n")
    before = database.whole_dump()
    result = migrate(database, folder, "embedded", "--rehearse", "--json")
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert '0003_c.sql:2: ERROR: relation "b" does not exist' in document["error"]
    assert "0002_b.sql could not be rehearsed; it may rest on that" in document["error"]
    assert "kept: nothing, it was a rehearsal" in document["error"]
    assert document["hint"].startswith("mend 0003_c.sql, then: invoke migrate --dsn - --psql embedded")
    assert document["hint"].endswith("--rehearse")
    assert document["failed"] == "0003_c.sql"
    assert database.whole_dump() == before


def test_what_commit_would_check_is_checked_and_is_deferred_in_the_next_file(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text(
        "CREATE TABLE a (id int PRIMARY KEY, next int REFERENCES a DEFERRABLE INITIALLY DEFERRED);\n"
        "INSERT INTO a VALUES (1, 2);\nINSERT INTO a VALUES (2, 1);\n"
    )
    (folder / "0002_b.sql").write_text(
        "INSERT INTO a VALUES (3, 4);\nINSERT INTO a VALUES (4, 3);\nALTER TABLE a ADD COLUMN x int;\n"
    )
    (folder / "0003_c.sql").write_text("ALTER TABLE a ADD COLUMN name text;\n")  # refused while checks of the table are pending
    result = migrate(database, folder, "embedded", "--rehearse")
    assert result.returncode == 1
    assert '0002_b.sql:3: ERROR: cannot ALTER TABLE "a" because it has pending trigger events' in result.stderr
    (folder / "0002_b.sql").write_text("INSERT INTO a VALUES (3, 4);\nINSERT INTO a VALUES (4, 3);\n")
    result = migrate(database, folder, "embedded", "--rehearse")
    assert result.returncode == 0, result.stderr
    (folder / "0004_d.sql").write_text("INSERT INTO a VALUES (5, 6);\n")
    result = migrate(database, folder, "embedded", "--rehearse")
    assert result.returncode == 1
    assert "0004_d.sql: at its end: ERROR: insert or update on table" in result.stderr


def test_a_constraint_that_is_deferred_may_have_the_name_of_another_tables_that_is_not(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text(
        "CREATE TABLE a (id int PRIMARY KEY);\n"
        "CREATE TABLE b (id int, CONSTRAINT of_a FOREIGN KEY (id) REFERENCES a DEFERRABLE INITIALLY DEFERRED);\n"
        "CREATE TABLE c (id int, CONSTRAINT of_a FOREIGN KEY (id) REFERENCES a);\n"
    )
    (folder / "0002_b.sql").write_text("INSERT INTO a VALUES (1);\nINSERT INTO b VALUES (1);\n")
    result = migrate(database, folder, "embedded", "--rehearse")
    assert result.returncode == 0, result.stderr
    (folder / "0003_c.sql").write_text("SET CONSTRAINTS ALL DEFERRED;\nINSERT INTO b VALUES (2);\n")
    result = migrate(database, folder, "embedded", "--rehearse")
    assert result.returncode == 1
    assert "0003_c.sql: at its end: ERROR: insert or update on table" in result.stderr


def test_a_schema_that_the_user_may_not_use_is_in_nobodys_way(database: Database, folder: Path) -> None:
    database.execute("CREATE SCHEMA theirs")
    database.execute("CREATE TABLE theirs.a (id int PRIMARY KEY, next int REFERENCES theirs.a DEFERRABLE INITIALLY DEFERRED)")
    user = f"u_{database.dsn.database}"
    database.made_roles.append(user)
    database.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'its-own'")
    database.execute(f"GRANT CONNECT ON DATABASE {database.dsn.database} TO {user}")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {user}")
    (folder / "0001_a.sql").write_text("CREATE TABLE public.b (id int);\n")
    (folder / "0002_b.sql").write_text("CREATE TABLE public.c (id int);\n")
    theirs = Database(replace(database.dsn.with_params(user=user), password=Secret("its-own")))
    result = migrate(theirs, folder, "embedded", "--rehearse")
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(os.name == "nt", reason="SIGINT can't be sent to one process there")
def test_one_that_is_interrupted_is_a_rehearsal_again(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("SELECT pg_sleep(600);\n")
    argv = invoke_argv("migrate", "--psql", "embedded", "--migrations-dir", str(folder), "--rehearse")
    with subprocess.Popen(argv, env={**ENV, "POSTGRES_DSN": database.uri}, stderr=subprocess.PIPE, text=True) as process:
        try:
            sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
            wait_until(lambda: bool(database.execute(sleeping)), "the file runs")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted in 0001_a.sql: nothing is kept, it was a rehearsal" in err
    assert err.rstrip().endswith(" --rehearse")


@pytest.mark.once
def test_one_runner_at_a_time(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    with psycopg.connect(database.uri, autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({LOCK_KEY})".encode())
        result = migrate(database, folder, "embedded", "--rehearse", "--lock-wait", "0")
    assert result.returncode == 1
    assert "another runner has held the lock" in result.stderr


@pytest.mark.once
def test_nothing_pending(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    assert migrate(database, folder, "embedded").returncode == 0
    result = migrate(database, folder, "embedded", "--rehearse", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {"target": str(database.dsn), "applied": [], "rehearsed": [], "not_rehearsed": []}


@pytest.mark.once
def test_not_beside_plan(database: Database, folder: Path) -> None:
    result = migrate(database, folder, "embedded", "--rehearse", "--plan")
    assert result.returncode == 2
    assert "--plan runs nothing" in result.stderr


def test_an_enum_value_of_the_same_rehearsal_is_no_failure(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TYPE kind AS ENUM ('a');\n")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0002_b.sql").write_text("ALTER TYPE kind ADD VALUE 'b';\n")
    (folder / "0003_c.sql").write_text("CREATE TABLE c (kind kind DEFAULT 'b');\n")
    (folder / "0004_d.sql").write_text("CREATE TABLE d (id int);\n")
    result = migrate(database, folder, "embedded", "--rehearse")
    assert result.returncode == 0, result.stderr
    assert "not rehearsed: 0003_c.sql  (uses an enum's value that a file before it adds, which takes a COMMIT)" in result.stdout
    assert "not rehearsed: 0004_d.sql  (comes behind it)" in result.stdout
    assert "rehearsed 1 of 3 pending" in result.stdout
    assert migrate(database, folder, "embedded").returncode == 0


@pytest.mark.once
def test_what_the_real_run_would_stop_at(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("-- migrate: no-transaction\nSELECT nope;\n")
    (folder / "0002_b.sql").write_text("CREATE TABLE b (id int);\n")
    assert migrate(database, folder, "embedded").returncode == 1
    result = migrate(database, folder, "embedded", "--rehearse")
    assert result.returncode == 1
    assert "0001_a.sql was started at" in result.stderr
    result = migrate(database, folder, "embedded", "--rehearse", "--resume")
    assert result.returncode == 0, result.stderr
    assert database.ledger() == {"0001": "started"}


@pytest.mark.once
def test_who_holds_a_lock_is_said(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0002_b.sql").write_text("ALTER TABLE a ADD COLUMN b int;\n")
    with psycopg.connect(database.uri) as reader:
        reader.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        result = migrate(database, folder, "embedded", "--rehearse", "--lock-timeout", "3s")
    assert result.returncode == 1
    assert "  held by PID" in result.stderr
