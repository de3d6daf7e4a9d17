"""Commands that only look leave the database and its server as they were, and wait for nobody who works there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.dsn import Dsn
from scripts.ledger import LOCK_KEY
from tests import database as databases
from tests.database import ENV, Database, invoke, invoke_argv, run_invoke
from tests.flags import arguments
from tests.proofs import migrate

pytestmark = pytest.mark.once
HANGS = 60.0  # seconds after which a command counts as one that waits for a lock

# Beside --plan: each of the other flags of `migrate`, but those that say where the database and psql are.
BESIDE_PLAN = {
    "to": ("--to", "2"),
    "allow_out_of_order": ("--allow-out-of-order",),
    "resume": ("--resume",),
    "wait": ("--wait", "1"),
    "lock_wait": ("--lock-wait", "0"),
    "lock_timeout": ("--lock-timeout", "1ms"),
    "lock_retries": ("--lock-retries", "0"),
    "statement_timeout": ("--statement-timeout", "1h"),
    "json": ("--json",),
    "rehearse": ("--rehearse",),  # which is refused
}
ELSEWHERE = {"explain", "dsn", "env_file", "local", "psql", "docker", "migrations_dir", "plan"}
CHECKED = ("roles", "--backtest-service-user", "looking", "--check")
FIREWALL = {"open_firewall", "subscription_id", "resource_group", "server_name", "ready_deadline"}  # tests/azure


@pytest.fixture(scope="module")
def quiet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Dsn]:
    """A server on which nobody else is at work: what was written there between two looks, the command between them wrote."""

    def prepare(server: Dsn) -> None:
        databases.like_azure(server)
        with psycopg.connect(server.uri().reveal(), autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET autovacuum = off")
            admin.execute("SELECT pg_reload_conf()")

    yield from databases.shared_server(request, tmp_path_factory, prepare, f"-quiet-{worker_id}")


def superuser(database: Database) -> Database:
    assert database.superuser is not None
    return Database(database.superuser)


def everything(database: Database) -> dict[str, str]:
    """Every table of the database and every catalog, the server's own too, row by row with its place; the sequences."""
    with psycopg.connect(superuser(database).uri, autocommit=True) as connection:
        query = "SELECT oid::regclass::text, relkind = 'S' FROM pg_class WHERE relkind IN ('r', 'S')"
        found = {}
        for table, is_sequence in connection.execute(query).fetchall():
            rows = "*" if is_sequence else "md5(string_agg(concat_ws(' ', t.ctid, t.xmin, t.xmax, t), '' ORDER BY t.ctid))"
            found[table] = str(connection.execute(f"SELECT {rows} FROM {table} AS t".encode()).fetchall())
        return found


def transactions(database: Database) -> object:
    """The id that the server's next transaction gets which writes something."""
    return superuser(database).execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def at_work(database: Database, mode: str) -> Iterator[None]:
    """Another session that has a lock of this mode on every table, catalogs too, and with it the lock that runners take.

    EXCLUSIVE lets nothing beside it but what reads.
    """
    with psycopg.connect(superuser(database).uri) as worker:
        worker.execute(f"SELECT pg_advisory_lock({LOCK_KEY})".encode())
        tables = worker.execute("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND NOT relisshared").fetchall()
        worker.execute(f"LOCK TABLE ONLY {', ONLY '.join(table for (table,) in tables)} IN {mode} MODE".encode())
        yield


# --- databases that a command may come to ---


def write(folder: Path) -> None:
    (folder / "0001_a.sql").write_text(
        "CREATE TABLE a (id serial PRIMARY KEY, name text);\nINSERT INTO a (name) VALUES ('one');\n"
    )
    (folder / "0002_b.sql").write_text("CREATE TABLE b (id int);\n")
    (folder / "0003_index.sql").write_text("-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY b_id ON b (id);\n")
    (folder / "0004_c.sql").write_text("CREATE TABLE c (id int);\n")
    (folder / "R__v.sql").write_text("CREATE OR REPLACE VIEW v AS SELECT id FROM a;\n")


def without_a_ledger(database: Database, folder: Path) -> None:
    for name in ("0001_a.sql", "0002_b.sql"):
        for statement in (folder / name).read_text().splitlines():
            database.execute(statement)


def with_an_older_ledger(database: Database, folder: Path) -> None:
    without_a_ledger(database, folder)
    database.execute("CREATE TABLE public.schema_migrations (version text PRIMARY KEY, applied_at timestamptz DEFAULT now())")
    database.execute("INSERT INTO public.schema_migrations (version) VALUES ('0001')")


def cut_off(database: Database, folder: Path) -> None:
    """The index of the third file was left INVALID, which `migrate --resume` drops."""
    (folder / "0003_index.sql").write_text("-- migrate: no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY b_id ON b (id);\n")
    (folder / "0002_b.sql").write_text("CREATE TABLE b (id int);\nINSERT INTO b VALUES (1), (1);\n")
    assert migrate(database, folder, "embedded").returncode == 1
    assert database.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid") == [("b_id",)]


def with_all_that_can_be_wrong(database: Database, folder: Path) -> None:
    """One changed, one missing, one out of order, one started, and a repeatable one outdated."""
    (folder / "0005_gone.sql").write_text("SELECT 1;\n")
    assert migrate(database, folder, "embedded").returncode == 0
    (folder / "0005_gone.sql").unlink()
    (folder / "0000_late.sql").write_text("CREATE TABLE late (id int);\n")
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id serial PRIMARY KEY, name text, more text);\n")
    (folder / "R__v.sql").write_text("CREATE OR REPLACE VIEW v AS SELECT id, name FROM a;\n")
    database.execute("UPDATE public.schema_migrations SET state = 'started' WHERE version = '0003'")


STATES: dict[str, Callable[[Database, Path], None]] = {
    "without a ledger": without_a_ledger,
    "with an older ledger": with_an_older_ledger,
    "cut off": cut_off,
    "with all that can be wrong": with_all_that_can_be_wrong,
}
ALL = tuple(word for name, words in BESIDE_PLAN.items() if name != "rehearse" for word in words)
# The commands, and how they end in each of these states.
COMMANDS: dict[tuple[str, ...], tuple[int, int, int, int]] = {
    ("status",): (3, 3, 3, 3),
    ("migrate", "--plan"): (0, 0, 0, 1),
    ("migrate", "--plan", *ALL): (0, 0, 0, 1),
    ("migrations.lint",): (1, 1, 1, 1),
    ("migrations.dump",): (0, 0, 0, 0),
    ("migrations.repair", "1", "--plan"): (1, 1, 1, 0),
    ("migrations.repair", "3", "--plan"): (1, 1, 0, 0),
    ("migrations.reset", "--plan", "--yes"): (0, 0, 0, 0),
    ("migrations.drift", "--roles"): (3, 3, 3, 3),
    ("migrations.baseline", "--to", "2", "--plan"): (0, 3, 1, 1),
}
SLOW = {"migrations.drift": (0, 3), "migrations.baseline": (0,)}  # they build the files on a scratch server: not in all states


def run(database: Database, folder: Path, *words: str, mode: str = "embedded") -> int:
    """The command's exit code. Fails when it hangs, changes a file of the folder, or so much as asks for a transaction's id."""
    goal = () if words[0] == "migrations.lint" else ("--dsn", "-", "--psql", mode)
    files = () if words[0] == "roles" else ("--migrations-dir", str(folder))
    out = ("--out", str(folder.parent / "schema.sql")) if words[0] == "migrations.dump" else ()
    kept, before = contents(folder), transactions(database)
    argv = invoke_argv(*words, *goal, *files, *out)
    result = run_invoke(argv, env=ENV, stdin=database.uri if goal else "", timeout=HANGS)
    assert "Traceback" not in result.stderr
    assert contents(folder) == kept
    if words != CHECKED:
        assert transactions(database) == before, f"{' '.join(words)} has written"
    return result.returncode


@contextlib.contextmanager
def unchanged(database: Database) -> Iterator[None]:
    """What happens in it leaves all as it was."""
    dump, before = database.whole_dump(), everything(database)
    yield
    after = everything(database)
    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []
    assert database.whole_dump() == dump


@pytest.fixture
def database(quiet: Dsn) -> Iterator[Database]:
    """A database of the test's own on the quiet server, as Azure's kind of administrator sees it."""
    yield from databases.new_database(quiet, azure=True)


@pytest.mark.parametrize(("state", "by_superuser"), [*((state, False) for state in STATES), ("without a ledger", True)])
def test_nothing_is_written_and_nobody_is_waited_for(database: Database, folder: Path, state: str, by_superuser: bool) -> None:
    if by_superuser:
        database.dsn = superuser(database).dsn
    write(folder)
    STATES[state](database, folder)
    number = list(STATES).index(state)
    left_out = {command for command, states in SLOW.items() if by_superuser or number not in states}
    commands = {words: codes[number] for words, codes in COMMANDS.items() if words[0] not in left_out}
    with unchanged(database), at_work(database, "EXCLUSIVE"):
        assert {words: run(database, folder, *words) for words in commands} == commands


def test_by_each_psql(mode: str, database: Database, folder: Path) -> None:
    write(folder)
    cut_off(database, folder)
    with unchanged(database), at_work(database, "EXCLUSIVE"):
        assert run(database, folder, "status", mode=mode) == 3
        assert run(database, folder, "migrate", "--plan", *ALL, mode=mode) == 0


@pytest.fixture
def half_done(database: Database, folder: Path) -> Iterator[Database]:
    """One that was cut off, and is so afterwards."""
    write(folder)
    cut_off(database, folder)
    with unchanged(database):
        yield database


def test_every_flag_of_migrate_stands_beside_plan() -> None:
    flags = {argument.attr_name or argument.name for argument in arguments("migrate")}
    assert flags == BESIDE_PLAN.keys() | ELSEWHERE | FIREWALL


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(sorted(BESIDE_PLAN))))
def test_plan_writes_nothing_whatever_stands_beside_it(half_done: Database, folder: Path, beside: set[str]) -> None:
    words = [word for name in sorted(beside) for word in BESIDE_PLAN[name]]
    with at_work(half_done, "EXCLUSIVE"):
        assert run(half_done, folder, "migrate", "--plan", *words) == (2 if "rehearse" in beside else 0)


def test_roles(quiet: Dsn, folder: Path, tmp_path: Path) -> None:
    """Its self-test tries what the application may do, and rolls that back; so it wants locks as the application does."""
    for database in databases.new_database(quiet, azure=True, migrated=True):
        database.made_roles = ["looking"]
        words = ("roles", "--backtest-service-user", "looking")
        with unchanged(database), at_work(database, "EXCLUSIVE"):
            assert run(database, folder, *words, "--plan") == 0
        made = ("--dsn", "-", "--psql", "embedded", "--secrets-file", str(tmp_path / "app.env"))
        assert invoke(*words, *made, stdin=database.uri).returncode == 0
        with unchanged(database), at_work(database, "EXCLUSIVE"):
            assert run(database, folder, *words, "--plan", "--revoke-extra") == 0
        with unchanged(database), at_work(database, "ROW EXCLUSIVE"):
            assert run(database, folder, *CHECKED) == 0
