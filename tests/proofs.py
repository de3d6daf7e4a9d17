"""The proofs of exactly-once and of convergence, in the size that each suite asks for."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg

from tests.database import ENV, Database, invoke, invoke_argv

GATE = 4242  # an advisory lock that the test holds while a migration waits for it
WAITS_AT_GATE = f"SELECT pg_advisory_lock({GATE}); SELECT pg_advisory_unlock({GATE});\n"
DEADLINE = 60.0  # seconds for anything that is waited for


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Polls until the condition holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE:g} s: {what}"
        time.sleep(0.02)


def start(database: Database, folder: Path, mode: str) -> subprocess.Popen[str]:
    """A runner in the background."""
    argv = invoke_argv("migrate", "--psql", mode, "--migrations-dir", str(folder))
    env = {**ENV, "POSTGRES_DSN": database.uri}
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def migrate(database: Database, folder: Path, mode: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return invoke("migrate", "--dsn", "-", "--psql", mode, "--migrations-dir", str(folder), *flags, stdin=database.uri)


def runners_at_once(database: Database, folder: Path, count: int, mode: str = "embedded") -> None:
    """`count` runners at the same time, a CREATE INDEX CONCURRENTLY among the files: each file once, all of them exit 0."""
    (folder / "0001_table.sql").write_text("CREATE TABLE runs (id int, at timestamptz DEFAULT clock_timestamp());\n")
    (folder / "0002_count.sql").write_text("INSERT INTO runs VALUES (2);\n")
    (folder / "0003_index.sql").write_text("-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY runs_id ON runs (id);\n")
    (folder / "0004_count.sql").write_text("INSERT INTO runs VALUES (4);\n")
    (folder / "0005_index.sql").write_text("-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY runs_at ON runs (at);\n")
    (folder / "0006_count.sql").write_text("INSERT INTO runs VALUES (6);\n")
    runners = [start(database, folder, mode) for _ in range(count)]
    outputs = [runner.communicate(timeout=300) for runner in runners]

    failed = [output for runner, output in zip(runners, outputs, strict=True) if runner.returncode != 0]
    assert failed == []
    assert sum("applied 6 of 6" in out for out, _ in outputs) == 1
    assert database.execute("SELECT id FROM runs ORDER BY id") == [(2,), (4,), (6,)]
    assert database.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid") == []
    assert set(database.ledger().values()) == {"applied"}
    assert len(database.ledger()) == 6


@contextlib.contextmanager
def closed_gate(database: Database) -> Iterator[None]:
    """While it is closed, whatever waits at the gate stands still."""
    with psycopg.connect(database.uri, autocommit=True) as connection:
        connection.execute(f"SELECT pg_advisory_lock({GATE})".encode())
        yield


def waiting_at_gate(database: Database) -> bool:
    query = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted"
    return bool(database.execute(query)[0][0])


def sessions(database: Database) -> int:
    """Sessions of psql in the database."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'postgres-serving-split'"
    )
    return int(database.execute(query)[0][0])


POINTS = {
    # the third of five files, which stands still at this point
    "before BEGIN": "",
    "mid-file": f"CREATE TABLE a3 (id int);\n{WAITS_AT_GATE}CREATE TABLE b3 (id int);\n",
    "after the DDL": f"CREATE TABLE a3 (id int);\nCREATE TABLE b3 (id int);\n{WAITS_AT_GATE}",
    "around COMMIT": (
        "CREATE TABLE a3 (id int);\nCREATE TABLE b3 (id int);\n"
        "CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN\n"
        f"  PERFORM pg_advisory_lock({GATE}); PERFORM pg_advisory_unlock({GATE}); RETURN NULL;\nEND$$;\n"
        "CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON a3 DEFERRABLE INITIALLY DEFERRED\n"
        "  FOR EACH ROW EXECUTE FUNCTION at_commit();\n"
        "INSERT INTO a3 VALUES (1);\n"
    ),
}
VICTIMS = ["runner", "psql", "container"]


def write_five(folder: Path, third: str) -> None:
    for number in (1, 2, 4, 5):
        (folder / f"000{number}_t.sql").write_text(f"CREATE TABLE t{number} (id int);\n")
    (folder / "0003_t.sql").write_text(third or "CREATE TABLE a3 (id int);\nCREATE TABLE b3 (id int);\n")


def kill(runner: subprocess.Popen[str], victim: str) -> None:
    """SIGKILL to the runner, to its psql (or the docker command that stands for it), or to psql's container."""
    if victim == "runner":
        runner.kill()
    elif victim == "psql":
        for child in psutil.Process(runner.pid).children(recursive=True):
            child.kill()
    else:
        label = ["docker", "ps", "--quiet", "--no-trunc", "--filter", "label=postgres-serving-split=psql"]
        containers = subprocess.run(label, env=ENV, capture_output=True, text=True, check=True).stdout.split()
        commands = _commands(runner)  # the other containers are those of other tests
        mine = [container for container in containers if any(container in command for command in commands)]
        assert mine  # the runner's, and perhaps the one that looks who holds a lock
        subprocess.run(["docker", "kill", "--signal", "KILL", *mine], env=ENV, capture_output=True, check=True)


def _commands(runner: subprocess.Popen[str]) -> list[str]:
    found = []
    for child in psutil.Process(runner.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
            found.append(" ".join(child.cmdline()))
    return found


def killed(database: Database, folder: Path, victim: str, point: str, clean_build: str) -> None:
    """Kills at a point where everything stands still; the next run comes to the dump of an undisturbed one."""
    mode = "docker" if victim == "container" else "embedded"
    write_five(folder, POINTS[point])
    if point == "before BEGIN":  # the runner waits for the lock that every runner takes first
        from scripts.ledger import LOCK_KEY

        with psycopg.connect(database.uri, autocommit=True) as other:
            other.execute(f"SELECT pg_advisory_lock({LOCK_KEY})".encode())
            runner = start(database, folder, mode)
            wait_until(lambda: sessions(database) == 1 or runner.poll() is not None, "the runner connects")
            assert runner.poll() is None, runner.communicate()
            kill(runner, victim)
            out, err = runner.communicate(timeout=DEADLINE)
    else:
        with closed_gate(database):
            runner = start(database, folder, mode)
            wait_until(lambda: waiting_at_gate(database) or runner.poll() is not None, "the migration comes to the gate")
            assert runner.poll() is None, runner.communicate()
            kill(runner, victim)
            out, err = runner.communicate(timeout=DEADLINE)
    if victim != "runner":
        assert runner.returncode == 1
        assert "invoke migrate" in err
        assert "Traceback" not in out + err
    wait_until(lambda: sessions(database) == 0, "the session of the killed run ends")

    again = migrate(database, folder, mode)
    assert again.returncode == 0, again.stderr
    assert set(database.ledger().values()) == {"applied"}
    assert database.dump() == clean_build


def killed_outside_a_transaction(database: Database, folder: Path, victim: str) -> None:
    """A no-transaction file that was cut off: the next run stops with one exact command, and that command converges."""
    mode = "docker" if victim == "container" else "embedded"
    (folder / "0001_t.sql").write_text("CREATE TABLE t (id int);\n")
    (folder / "0002_index.sql").write_text("-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY t_id ON t (id);\n")
    (folder / "0003_t.sql").write_text("CREATE TABLE t3 (id int);\n")
    assert migrate(database, folder, mode, "--to", "1").returncode == 0
    with psycopg.connect(database.uri) as reader:  # its lock on the table is what the index waits for
        reader.execute("LOCK TABLE t IN ROW EXCLUSIVE MODE")
        runner = start(database, folder, mode)
        builders = "FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND datname = current_database()"
        waiting = f"SELECT count(*) {builders} AND wait_event_type = 'Lock'"
        wait_until(lambda: bool(database.execute(waiting)[0][0]), "the index waits")
        kill(runner, victim)
        runner.communicate(timeout=DEADLINE)
        if victim != "runner":  # the server notices no sooner than when it next looks at the connection
            database.execute(f"SELECT pg_terminate_backend(pid) {builders}")
    wait_until(lambda: sessions(database) == 0, "the session of the killed run ends")
    if database.ledger().get("0002") == "applied":  # the runner alone was killed, and its psql finished the file
        assert victim == "runner"
    else:
        stopped = migrate(database, folder, mode)
        assert stopped.returncode == 1
        assert "--resume" in stopped.stderr
        assert "0003" not in database.ledger()
    again = migrate(database, folder, mode, "--resume")
    assert again.returncode == 0, again.stderr
    assert database.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid") == []
    assert database.execute("SELECT to_regclass('t_id') IS NOT NULL, to_regclass('t3') IS NOT NULL") == [(True, True)]
    assert set(database.ledger().values()) == {"applied"}
