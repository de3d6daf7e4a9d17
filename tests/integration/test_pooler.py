"""Through a real PgBouncer: where no lock would hold, nothing runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from scripts.dsn import Dsn
from tests import proofs
from tests.database import ENV, Database, invoke
from tests.proofs import migrate

PGBOUNCER = shutil.which("pgbouncer", path=os.pathsep.join([ENV["PATH"], "/usr/sbin"]))
ACCOUNT = "nobody"  # PgBouncer refuses to run as root
Pooler = Callable[..., Database]


@pytest.fixture
def pooler(database: Database) -> Iterator[Pooler]:
    """Starts a PgBouncer in front of the test's database, with settings; gives the database as it is seen through it."""
    if PGBOUNCER is None:
        if os.environ.get("REQUIRE_DOCKER") == "1":
            pytest.fail("REQUIRE_DOCKER=1, and there is no pgbouncer (Debian: apt-get install pgbouncer)")
        pytest.skip("needs PgBouncer (Debian: apt-get install pgbouncer)")
    with contextlib.ExitStack() as stack:
        yield lambda **settings: replace(database, dsn=stack.enter_context(pgbouncer(PGBOUNCER, database.dsn, settings)))


@contextlib.contextmanager
def pgbouncer(program: str, server: Dsn, settings: dict[str, object]) -> Iterator[Dsn]:
    # Not below pytest's own folder, which is closed to the account.
    with tempfile.TemporaryDirectory(prefix="serving-pgbouncer-", ignore_cleanup_errors=True) as name, free_port() as port:
        home = Path(name)
        fixed = {"listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": ""}
        users = {"auth_type": "scram-sha-256", "auth_file": home / "users.txt"}
        lines = [f"{key} = {value}" for key, value in {**fixed, **users, **settings}.items()]
        to = f"host={server.params['host']} port={server.params['port']}"
        (home / "pgbouncer.ini").write_text("\n".join(["[databases]", f"* = {to}", "[pgbouncer]", *lines, ""]))
        (home / "users.txt").write_text(f'"{server.params["user"]}" "{server.password.reveal()}"\n')
        account = ACCOUNT if os.geteuid() == 0 else None
        if account:
            for path in (home, *home.iterdir()):
                shutil.chown(path, account)
        with (home / "log").open("w") as log:
            process = subprocess.Popen([program, str(home / "pgbouncer.ini")], stdout=log, stderr=log, env=ENV, user=account)
        try:
            proofs.wait_until(lambda: process.poll() is not None or listens(port), "PgBouncer listens")
            assert process.poll() is None, (home / "log").read_text()
            yield server.with_params(host="127.0.0.1", port=str(port))
        finally:
            process.kill()  # at once: it has nothing to save
            process.wait()


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    yield port


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def write(folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")


def untouched(database: Database) -> bool:
    """Nothing was made, and nothing is locked, by a pooled session either."""
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    in_it = f"{locks} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    return database.execute(f"SELECT ({in_it}), ({tables})") == [(0, 0)]


def check_refused(code: int, error: str, database: Database, through: Database, again: str) -> None:
    assert "Traceback" not in error
    assert code == 1, error
    assert "leads through a pooler that changes the session between statements" in error
    assert f"127.0.0.1:{through.dsn.params['port']}/" in error
    # The server names the port that it has itself, which is another one where it runs in a container.
    (own,) = database.execute("SHOW port")[0]
    assert f"put the server's own port, {own} (on Azure, 6432 is the pooler's), into the DSN (it came from " in error
    assert f"then: {again}" in error
    assert untouched(database)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("plan", [(), ("--plan",)], ids=["migrate", "--plan"])
def test_an_idle_pooler_is_refused_before_anything_runs(
    database: Database, folder: Path, pooler: Pooler, mode: str, plan: tuple[str, ...]
) -> None:
    write(folder)
    through = pooler(pool_mode=mode)
    for _ in range(2):  # its backend is a new one, and then one that stands
        result = migrate(through, folder, "embedded", *plan)
        check_refused(result.returncode, result.stderr, database, through, "invoke migrate --dsn - --psql embedded")


@pytest.mark.docker
def test_a_pooler_is_refused_through_docker_too(database: Database, folder: Path, pooler: Pooler) -> None:
    write(folder)
    through = pooler(pool_mode="transaction")
    result = migrate(through, folder, "docker")
    check_refused(result.returncode, result.stderr, database, through, "invoke migrate --dsn - --psql docker")


@pytest.mark.once
@pytest.mark.parametrize("in_turn", [0, 1], ids=["the last one first", "in turn"])
def test_a_busy_pooler_is_refused(database: Database, folder: Path, pooler: Pooler, in_turn: int) -> None:
    write(folder)
    through = pooler(pool_mode="transaction", server_round_robin=in_turn)
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(psycopg.connect(through.uri, prepare_threshold=None)) for _ in range(4)]
        for connection in busy:
            connection.execute("SELECT 1")  # begins a transaction, and so takes a backend
        for connection in busy[:3]:
            connection.commit()
        result = migrate(through, folder, "embedded")
    check_refused(result.returncode, result.stderr, database, through, "invoke migrate")


@pytest.mark.once
def test_a_pooler_with_others_at_work_all_the_time_is_refused(database: Database, folder: Path, pooler: Pooler) -> None:
    write(folder)
    through = pooler(pool_mode="transaction", default_pool_size=4)
    ended = threading.Event()

    def work() -> None:
        with psycopg.connect(through.uri, prepare_threshold=None, autocommit=True) as connection:
            while not ended.is_set():
                connection.execute("SELECT pg_sleep(random() / 1000)")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        result = migrate(through, folder, "embedded")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    check_refused(result.returncode, result.stderr, database, through, "invoke migrate")


@pytest.mark.once
@pytest.mark.parametrize("size", [1, 20])
def test_of_two_runners_at_once_none_begins(database: Database, folder: Path, pooler: Pooler, size: int) -> None:
    write(folder)
    through = pooler(pool_mode="transaction", default_pool_size=size)
    runners = [proofs.start(through, folder, "embedded") for _ in range(2)]
    errors = [runner.communicate(timeout=60)[1] for runner in runners]
    for runner, error in zip(runners, errors, strict=True):
        check_refused(runner.returncode, error, database, through, "invoke migrate --psql embedded")


@pytest.mark.once
def test_json_holds_the_refusal(database: Database, folder: Path, pooler: Pooler) -> None:
    write(folder)
    result = migrate(pooler(pool_mode="transaction"), folder, "embedded", "--json")
    assert '"exit_code": 1' in result.stdout
    assert "pooler" in result.stdout


@pytest.mark.once
@pytest.mark.parametrize(
    "command", [("roles", "--check"), ("roles", "--emit-secrets"), ("rotate", "--plan"), ("rotate", "--finish")]
)
def test_roles_are_not_changed_through_it_either(
    database: Database, folder: Path, pooler: Pooler, command: tuple[str, ...]
) -> None:
    through = pooler(pool_mode="transaction")
    result = invoke(*command, "--dsn", "-", "--psql", "embedded", stdin=through.uri)
    check_refused(result.returncode, result.stderr, database, through, f"invoke {command[0]} --dsn - --psql embedded")
    # No session of others was changed on the way.
    assert through.execute("SHOW search_path") == [('"$user", public',)]


@pytest.mark.once
def test_status_reads_through_a_pooler(database: Database, folder: Path, pooler: Pooler) -> None:
    write(folder)
    assert migrate(database, folder, "embedded").returncode == 0
    words = ("status", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder))
    for mode in ("session", "transaction"):
        result = invoke(*words, stdin=pooler(pool_mode=mode).uri)
        assert (result.returncode, result.stderr) == (0, "")
        assert "1 applied" in result.stdout
    result = invoke(*words, stdin=pooler(pool_mode="statement").uri)  # which takes no transaction, not even one that reads
    assert result.returncode == 1
    assert "this is a pooler's answer (PgBouncer): put the server's own port into the DSN" in result.stderr


def test_a_pooler_that_keeps_a_session_together_migrates(database: Database, folder: Path, pooler: Pooler) -> None:
    write(folder)
    through = pooler(pool_mode="session")
    for words in ("applied 1 of 1", "nothing to do"):  # the second run gets the backend of the first one
        result = migrate(through, folder, "embedded")
        assert (result.returncode, result.stderr) == (0, "")
        assert words in result.stdout
    assert database.ledger() == {"0001": "applied"}


@pytest.mark.once
def test_runners_at_once_through_it_apply_each_file_once(folder: Path, pooler: Pooler) -> None:
    proofs.runners_at_once(pooler(pool_mode="session"), folder, 3)


@pytest.mark.once
def test_it_migrates_with_its_last_backend(database: Database, folder: Path, pooler: Pooler) -> None:
    """A second session would wait there for the first one's end, and PgBouncer has it wait for two minutes."""
    write(folder)
    began = time.monotonic()
    result = migrate(pooler(pool_mode="session", default_pool_size=1), folder, "embedded")
    assert (result.returncode, result.stderr) == (0, "")
    assert time.monotonic() - began < 100
    assert database.ledger() == {"0001": "applied"}


@pytest.mark.once
def test_what_cannot_be_seen_is_refused_with_the_reason(database: Database, folder: Path, pooler: Pooler) -> None:
    write(folder)
    result = migrate(pooler(pool_mode="session", max_client_conn=1), folder, "embedded")
    assert result.returncode == 1
    assert "whether it keeps a session together could not be seen" in result.stderr
    assert "max_client_conn" in result.stderr
    assert untouched(database)


@pytest.mark.once
@pytest.mark.parametrize("command", ["migrate", "status"])
def test_a_parameter_that_the_pooler_does_not_take_is_not_the_servers_complaint(
    database: Database, folder: Path, pooler: Pooler, command: str
) -> None:
    write(folder)
    through = pooler(pool_mode="session").dsn.with_params(options="-c work_mem=8MB")
    words = (command, "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder))
    result = invoke(*words, stdin=through.uri().reveal())
    assert result.returncode == 1
    assert "unsupported startup parameter" in result.stderr
    assert "next:  this is a pooler's answer (PgBouncer): put the server's own port into the DSN" in result.stderr
    assert "it came from --dsn" in result.stderr
    assert untouched(database)


@contextlib.contextmanager
def tunnel(server: Dsn) -> Iterator[tuple[int, list[socket.socket]]]:
    """Sends on what comes to its port, as SSH and a container's published port do; and who has connected."""
    connected: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed in the end
            while True:
                client, _ = listener.accept()
                connected.append(client)
                upstream = socket.create_connection((server.params["host"], int(server.params["port"])))
                connected.append(upstream)
                for ends in ((client, upstream), (upstream, client)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1]), connected
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for end in connected:
                end.close()


def test_a_tunnel_is_no_pooler_and_is_asked_about_by_nobody(database: Database, folder: Path) -> None:
    write(folder)
    with tunnel(database.dsn) as (port, connected):
        through = replace(database, dsn=database.dsn.with_params(port=str(port)))
        result = migrate(through, folder, "embedded")
        assert (result.returncode, result.stderr) == (0, "")
        assert len(connected) == 2  # the one psql, and its way on
    assert database.ledger() == {"0001": "applied"}
