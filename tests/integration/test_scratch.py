"""Throwaway servers: alike, apart, and gone afterwards however the command that wanted them ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from scripts import scratch
from scripts.errors import UsageError
from scripts.scratch import Server, Servers
from tests.conftest import ROOT
from tests.database import ENV, Database
from tests.integration.test_server import version
from tests.proofs import wait_until

pytestmark = pytest.mark.embedded
__all__ = ["version"]
# Makes two servers, says where the second stands, and waits.
PROGRAM = """
import os, sys, time
from scripts import scratch, shell
with shell.terminate_as_interrupt(), scratch.servers(os.environ) as servers, servers.server(int(sys.argv[1])) as server:
    with server.copy() as other:
        print(other.embedded.home, flush=True)
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with scratch.servers(ENV) as made:
        yield made


def postmaster(home: Path) -> psutil.Process:
    return psutil.Process(int((home / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0]))


def runs(process: psutil.Process) -> bool:
    """Whether it does: where nobody asks how it ended, its entry stays, as a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def execute(server: Server, query: str) -> list[tuple[object, ...]]:
    return Database(server.dsn).execute(query)


@contextlib.contextmanager
def command(version: int) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A command with servers, and the home of one of them."""
    argv = [sys.executable, "-c", PROGRAM, str(version)]
    with subprocess.Popen(argv, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_server_is_new_and_its_users_own(servers: Servers, version: int) -> None:
    with servers.server(version) as first, servers.server(version) as second:
        execute(first, "CREATE TABLE here (id int)")
        assert execute(second, "SELECT to_regclass('here')") == [(None,)]
        assert str(execute(first, "SHOW server_version")[0][0]).split(".")[0] == str(version)
        assert first.embedded.home.parent.stat().st_mode & 0o066 == 0  # passed through by the server's account at most


def test_it_is_gone_afterwards_also_when_the_block_ends_with_an_error(version: int) -> None:
    seen = []

    def fail() -> None:
        with scratch.servers(ENV) as servers, servers.server(version) as server:
            seen.append((server.embedded.home, postmaster(server.embedded.home)))
            assert runs(seen[0][1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    [(home, running)] = seen
    assert not runs(running)
    assert not home.parent.exists()


def test_a_copy_has_what_the_server_holds_and_goes_its_own_way(servers: Servers, version: int) -> None:
    with servers.server(version) as server:
        execute(server, "CREATE TABLE first (id int)")
        with server.copy() as copy:
            execute(copy, "CREATE TABLE second (id int)")
            execute(server, "CREATE TABLE third (id int)")  # it runs on
            tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
            assert execute(copy, tables) == [("first",), ("second",)]
            assert execute(server, tables) == [("first",), ("third",)]
        server.stop()
        with server.copy() as copy:
            assert execute(copy, tables) == [("first",), ("third",)]
            with pytest.raises(psycopg.OperationalError):
                execute(server, "SELECT 1")  # a stopped one stays so


def test_several_threads_at_once_make_one_original(servers: Servers, version: int) -> None:
    def identifier(_: int) -> object:
        with servers.server(version) as server:
            return execute(server, "SELECT system_identifier FROM pg_control_system()")[0][0]

    with ThreadPoolExecutor(3) as threads:
        assert len(set(threads.map(identifier, range(4)))) == 1


@pytest.mark.once
def test_a_version_that_the_wheel_lacks_is_refused(servers: Servers) -> None:
    with pytest.raises(UsageError, match="no embedded PostgreSQL 17"), servers.server(17):
        pass


@pytest.mark.once
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(version: int, ending: signal.Signals) -> None:
    with command(version) as (process, home):
        running = postmaster(home)
        process.send_signal(ending)
        process.wait(60)
    assert not runs(running)
    assert not home.parent.exists()
    assert not home.parent.with_name(f"{home.parent.name}.lock").exists()


@pytest.mark.once
def test_the_next_command_clears_up_after_one_that_was_killed_and_leaves_one_at_work_alone(version: int) -> None:
    with command(version) as (at_work, its_home):
        with command(version) as (process, home):
            running = postmaster(home)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(60)
        assert runs(running)
        with scratch.servers(ENV):
            wait_until(lambda: not runs(running), "the server that was left is ended")
            assert not home.parent.exists()
            assert at_work.poll() is None
            assert runs(postmaster(its_home))
        at_work.terminate()
        at_work.wait(60)
