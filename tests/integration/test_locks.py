"""A file that waits for a lock: for how long, how often, and who is said to hold it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.database import ENV, Database, invoke_argv
from tests.proofs import DEADLINE, migrate, wait_until

HELD = "LOCK TABLE a IN ACCESS SHARE MODE"


@pytest.fixture
def held(database: Database, folder: Path) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A table on which somebody holds a lock, and the file that wants to change it pending."""
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0002_b.sql").write_text("CREATE TABLE b (id int);\n")
    (folder / "0003_a.sql").write_text("CREATE TABLE before_it (id int);\nALTER TABLE a ADD COLUMN name text;\n")
    (folder / "0004_d.sql").write_text("CREATE TABLE d (id int);\n")
    with psycopg.connect(database.uri, application_name="a report") as reader:
        reader.execute(HELD)
        yield reader


@contextmanager
def running(database: Database, folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    argv = invoke_argv("migrate", "--psql", "embedded", "--migrations-dir", str(folder), *flags)
    with subprocess.Popen(
        argv, env={**ENV, "POSTGRES_DSN": database.uri}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("held")
def test_who_holds_the_lock_is_said_and_nothing_of_the_file_is_kept(database: Database, folder: Path) -> None:
    words = ("--lock-timeout", "3s", "--lock-retries", "0")  # it is looked at after a second, by one who has to connect first
    result = migrate(database, folder, "embedded", *words)
    assert result.returncode == 1
    assert "0003_a.sql:2: ERROR: canceling statement due to lock timeout (SQLSTATE 55P03)" in result.stderr
    assert "0003_a.sql waits for a lock that is held by PID" in result.stderr
    held_by = [line for line in result.stderr.splitlines() if line.startswith("  held by PID")]
    assert len(held_by) == 1
    assert held_by[0].endswith(f": {HELD}")
    assert re.search(r"user postgres, from \S+ by a report, idle in transaction since", held_by[0])
    assert "the file before it stays applied; 1 after it was not started" in result.stderr
    assert "next:  when those who hold the lock have ended: invoke migrate --dsn - --psql embedded" in result.stderr
    assert database.ledger() == {"0001": "applied", "0002": "applied"}
    assert database.execute("SELECT to_regclass('before_it')") == [(None,)]


def test_it_goes_on_when_the_lock_is_free(database: Database, folder: Path, held: psycopg.Connection[tuple[object, ...]]) -> None:
    """The one that holds it is never ended: it ends by itself, between two tries."""
    with running(database, folder, "--lock-timeout", "300ms", "--lock-retries", "30", "--json") as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "try 3 of 31" in line:
                break
        held.rollback()
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, err
    assert [item["version"] for item in json.loads(out)["applied"]] == ["0002", "0003", "0004"]
    assert set(database.ledger().values()) == {"applied"}
    assert len(database.ledger()) == 4


@pytest.mark.usefixtures("held")
def test_without_a_timeout_it_waits(database: Database, folder: Path) -> None:
    with running(database, folder, "--lock-timeout", "0") as process:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE a%'"
        wait_until(lambda: database.execute(waiting) == [(1,)] or process.poll() is not None, "the file waits")
        assert process.stderr is not None
        assert "waits for a lock that is held by PID" in process.stderr.readline()  # though nothing has gone wrong
        assert process.poll() is None


def test_an_index_that_is_built_concurrently_has_no_lock_timeout(database: Database, folder: Path) -> None:
    """It waits for others' transactions and keeps nobody from anything; giving up, it would leave an INVALID index."""
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    (folder / "0002_index.sql").write_text("-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY a_id ON a (id);\n")
    (folder / "0003_shown.sql").write_text("SELECT 'in 3: ' || current_setting('lock_timeout');\n")
    (folder / "0004_shown.sql").write_text("-- migrate: no-transaction\nSELECT 'in 4: ' || current_setting('lock_timeout');\n")
    result = migrate(database, folder, "embedded", "--lock-timeout", "1234ms")
    assert result.returncode == 0, result.stderr
    assert "  in 3: 1234ms" in result.stdout
    assert "  in 4: 0" in result.stdout


@pytest.mark.once
def test_a_timeout_of_one_file_is_none_of_the_next(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("SET lock_timeout = '1min';\nSET statement_timeout = '1h';\n")
    (folder / "0002_b.sql").write_text(
        "SELECT 'lock ' || current_setting('lock_timeout') || ', statement ' || current_setting('statement_timeout');\n"
    )
    assert "  lock 5s, statement 0" in migrate(database, folder, "embedded").stdout


@pytest.mark.once
def test_a_statement_timeout_ends_a_statement(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\nSELECT pg_sleep(60);\n")
    result = migrate(database, folder, "embedded", "--statement-timeout", "200ms")
    assert result.returncode == 1
    assert "0001_a.sql:2: ERROR: canceling statement due to statement timeout (SQLSTATE 57014)" in result.stderr
    assert "invoke migrate --dsn - --psql embedded --migrations-dir" in result.stderr
    assert "--statement-timeout 200ms" in result.stderr
    assert database.ledger() == {}


@pytest.mark.once
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lock-timeout", "5"), "--lock-timeout 5: 5 of what?"),
        (("--lock-timeout", "soon"), "--lock-timeout soon: not a time"),
        (("--statement-timeout", "-1s"), "--statement-timeout -1s: not a time"),
        (("--lock-retries", "1.5"), "--lock-retries 1.5: a number is meant"),
    ],
)
def test_values_that_are_none(database: Database, folder: Path, words: tuple[str, ...], message: str) -> None:
    result = migrate(database, folder, "embedded", *words)
    assert result.returncode == 2
    assert message in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="SIGSTOP is POSIX's")
@pytest.mark.usefixtures("held")
@pytest.mark.embedded
def test_a_server_that_falls_silent_for_the_one_who_looks_does_not_keep_the_run(database: Database, folder: Path) -> None:
    looks = """SELECT a.pid FROM pg_stat_activity AS a, pg_stat_activity AS waits
      WHERE a.datname = current_database() AND a.pid NOT IN (pg_backend_pid(), waits.pid) AND a.state <> 'idle in transaction'
        AND waits.datname = current_database() AND waits.wait_event_type = 'Lock'"""
    found: list[int] = []

    def somebody_looks() -> bool:
        found.extend(pid for (pid,) in database.execute(looks))
        return bool(found)

    with running(database, folder, "--lock-timeout", "4s", "--lock-retries", "0") as process:
        wait_until(somebody_looks, "somebody looks")
        (pid,) = found
        os.kill(pid, signal.SIGSTOP)
        try:
            _, err = process.communicate(timeout=DEADLINE)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert process.returncode == 1
    assert "canceling statement due to lock timeout" in err


def test_a_deadlock_is_tried_again(database: Database, folder: Path) -> None:
    """The server ends one of the two; it is no fault of the file's."""
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\nCREATE TABLE b (id int);\n")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0002_b.sql").write_text("ALTER TABLE a ADD COLUMN x int;\nALTER TABLE b ADD COLUMN x int;\n")
    with psycopg.connect(database.uri) as other:
        other.execute("SET deadlock_timeout = '1min'")  # so that the file is the one that notices
        other.execute("LOCK TABLE b IN ACCESS SHARE MODE")
        with running(database, folder, "--lock-timeout", "0") as process:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE b%'"
            wait_until(lambda: database.execute(waiting) == [(1,)] or process.poll() is not None, "the file waits for b")
            other.execute("LOCK TABLE a IN ACCESS SHARE MODE")  # until the file has been rolled back
            other.rollback()
            _, err = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0, err
    assert "0002_b.sql got no lock and was rolled back; try 2 of 5" in err
    assert database.ledger() == {"0001": "applied", "0002": "applied"}


@pytest.mark.once
def test_a_file_that_may_have_committed_is_not_tried_again(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\nCREATE TABLE log (id int);\n")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0002_b.sql").write_text("INSERT INTO log VALUES (1);\nSELECT 'COMMIT' \\gexec\nALTER TABLE a ADD COLUMN x int;\n")
    with psycopg.connect(database.uri) as reader:
        reader.execute(HELD)
        result = migrate(database, folder, "embedded", "--lock-timeout", "300ms", "--lock-retries", "3")
    assert result.returncode == 1
    assert "got no lock and was rolled back" not in result.stderr
    assert database.execute("SELECT count(*) FROM log") == [(1,)]
