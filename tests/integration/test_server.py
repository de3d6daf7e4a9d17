"""The Postgres of this machine: `up` and `down`, embedded and in Docker, in a home of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from scripts import PRODUCT, server, shell
from scripts.container import connect
from scripts.embedded import Embedded
from scripts.errors import OpsError, UsageError
from scripts.server import Choice, Down, Up
from scripts.settings import Sources
from tests.conftest import ROOT
from tests.database import ENV, IMAGE, Machine, require_docker

pytestmark = pytest.mark.embedded  # and the tests of Docker, which have their own server, are marked `once`
# By TCP: of a unix socket that is not there, docker's client leaves its own end to the garbage collector.
NO_ENGINE = {"DOCKER_HOST": "tcp://127.0.0.1:1"}
FOUND = Sources(ENV, {}, ".env")
DEADLINE = 60.0  # seconds, for whatever is waited for
# Does what its arguments say: HOME VERSION (up | down | become UID GID | refused-ACTION)...
PROGRAM = """
import json, os, sys
import encodings.idna, filelock, psycopg, pwd, secrets, shlex  # while it may read them, wherever Python is installed
from pathlib import Path
from scripts import server
from scripts.errors import OpsError
from scripts.settings import Sources

found, home = Sources(dict(os.environ), {}, ".env"), Path(sys.argv[1])
for action in sys.argv[3:]:
    if action == "up":
        running = server.up(found, version=int(sys.argv[2]), home=home, say=lambda text: print(text, file=sys.stderr))
        pid = (home / f"embedded-{sys.argv[2]}" / "data" / "postmaster.pid").read_text().split()[0]
        print(json.dumps({"started": running.started, "dsn": str(running.dsn), "pid": int(pid)}))
    elif action.startswith("become"):
        uid, gid = map(int, action.split()[1:])
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    elif action.startswith("refused"):
        calls = {"up": server.up, "local": server.local, "standing": server.standing, "down": server.down}
        calls["describe"] = lambda found, home: server.describe(home)
        try:
            print(json.dumps({"answer": repr(calls[action.removeprefix("refused-")](found, home=home))}))
        except OpsError as error:
            print(json.dumps({"message": error.message, "hint": error.hint}))
    else:
        print(json.dumps({"stopped": server.down(found, home=home).stopped}))
"""


@pytest.fixture
def version(request: pytest.FixtureRequest) -> int:
    """The embedded version under test: that of --server, else the default."""
    name = str(request.config.getoption("--server"))
    return int(name.removeprefix("embedded-")) if name.startswith("embedded-") else 16


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty `.local/`; whatever server is in it afterwards is stopped and deleted."""
    path = tmp_path / "local"
    yield path
    server.down(FOUND, purge=True, home=path)


def until(what: str, holds: Callable[[], bool]) -> None:
    """Waits for it, up to a deadline."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {DEADLINE:g} s: {what}"
        time.sleep(0.02)


def query(running: Up, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(running.dsn.uri().reveal(), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def postmaster(home: Path, version: int) -> int:
    return int((home / f"embedded-{version}" / "data" / "postmaster.pid").read_text().split()[0])


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def mode_bits(path: Path) -> int:
    return path.stat().st_mode & 0o777


def program(home: Path, version: int, *actions: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(home), str(version), *actions]


# Embedded.


def test_up_twice_is_one_server(home: Path, version: int) -> None:
    first = server.up(FOUND, version=version, home=home)
    pid = postmaster(home, version)
    second = server.up(FOUND, home=home)
    assert (first.started, second.started) == (True, False)
    assert second.dsn == first.dsn
    assert postmaster(home, version) == pid
    assert int(query(second, "SHOW server_version_num")[0][0]) // 10000 == version
    assert first.dsn.hosts == ["127.0.0.1"]
    assert query(first, "SHOW listen_addresses") == [("127.0.0.1",)]


def test_a_killed_server_is_started_again_with_its_data(home: Path, version: int) -> None:
    query(server.up(FOUND, version=version, home=home), "CREATE TABLE kept AS SELECT 42 AS n")
    pid = postmaster(home, version)
    os.kill(pid, signal.SIGKILL)
    until("the kill has taken effect", lambda: not is_alive(pid))
    again = server.up(FOUND, home=home)
    assert again.started
    assert postmaster(home, version) != pid
    assert query(again, "SELECT n FROM kept") == [(42,)]


@pytest.mark.once
def test_a_server_that_can_not_be_started_is_not_the_one_that_is_meant_afterwards(home: Path, version: int) -> None:
    nowhere = Sources({**FOUND.env, **NO_ENGINE}, {}, ".env")
    for _ in range(2):  # where none was up before, and where one was
        with pytest.raises(OpsError, match="no Docker engine answers"):
            server.up(nowhere, docker=True, home=home)
        assert server.up(nowhere, version=None if server.describe(home) else version, home=home).choice.kind == "embedded"
        server.down(nowhere, home=home)
    server.down(nowhere, purge=True, home=home)
    assert [path.name for path in home.iterdir()] == ["server.lock"]


@pytest.mark.once
def test_a_file_where_the_data_are_to_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OpsError, match=r"file can't be used: File exists") as raised:
        server.up(FOUND, home=tmp_path / "file")
    assert raised.value.hint == "make it a folder that you may write, or run this in a copy of the project"


@pytest.mark.once
def test_a_port_that_another_program_took_is_said_and_another_is_used(home: Path, version: int) -> None:
    before = server.up(FOUND, version=version, home=home)
    query(before, "CREATE TABLE kept AS SELECT 42 AS n")
    app = before.dsn.with_params(user="app", application_name="the app").uri().reveal()
    Path(before.app_file).write_text(f"# kept\nPOSTGRES_DSN='{app}'\n", encoding="utf-8")
    server.down(FOUND, home=home)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", int(before.dsn.params["port"]))):
        after = server.up(FOUND, home=home, say=said.append)
    port = after.dsn.params["port"]
    assert port != before.dsn.params["port"]
    assert [text for text in said if "port" in text] == [
        f"port {before.dsn.params['port']} is taken by another program; the server moved to {port}"
    ]
    moved = before.dsn.with_params(user="app", application_name="the app", port=port).uri().reveal()
    assert Path(after.app_file).read_text(encoding="utf-8") == f"# kept\nPOSTGRES_DSN='{moved}'\n"
    assert query(after, "SELECT n FROM kept") == [(42,)]


@pytest.mark.once
def test_a_server_that_was_stopped_comes_back_to_its_port(home: Path, version: int) -> None:
    before = server.up(FOUND, version=version, home=home)
    assert server.down(FOUND, home=home).stopped
    assert server.up(FOUND, home=home).dsn == before.dsn


@pytest.mark.once
def test_six_at_the_same_time_make_one_server(home: Path, version: int) -> None:
    runners = [
        subprocess.Popen(
            program(home, version, "up"), cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    ended = [(*runner.communicate(timeout=DEADLINE * 2), runner.returncode) for runner in runners]
    assert [code for *_, code in ended] == [0] * 6, ended
    answers = [json.loads(out) for out, *_ in ended]
    assert sorted(answer["started"] for answer in answers) == [False] * 5 + [True]
    assert len({(answer["dsn"], answer["pid"]) for answer in answers}) == 1


@pytest.mark.once
def test_a_start_that_was_killed_while_it_made_the_data_is_made_good(home: Path, version: int) -> None:
    with subprocess.Popen(program(home, version, "up"), cwd=ROOT, env=ENV, stdout=subprocess.DEVNULL) as runner:
        until("initdb is at work", lambda: any(home.glob("embedded-*/data.new-*/PG_VERSION")) or runner.poll() is not None)
        runner.kill()
    running = server.up(FOUND, version=version, home=home)
    assert query(running, "SELECT 1") == [(1,)]

    def cleared() -> bool:
        server.down(FOUND, home=home)
        server.up(FOUND, home=home)
        return not list(home.glob("embedded-*/data.new-*"))

    until("what was begun is deleted by a later start", cleared)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")
def test_password_and_data_are_their_owner_s_alone(home: Path, version: int) -> None:
    before = os.umask(0)
    try:
        running = server.up(FOUND, version=version, home=home)
    finally:
        os.umask(before)
    folder = home / f"embedded-{version}"
    assert running.password_file == str(folder / "password")
    assert mode_bits(folder / "password") == 0o600
    assert mode_bits(folder / "data") == 0o700
    assert mode_bits(folder / "postgres.log") == 0o600
    assert mode_bits(folder) in ((0o711,) if os.geteuid() == 0 else (0o700,))
    password = (folder / "password").read_text()
    assert len(password) >= 24
    open_files = [path for path in home.rglob("*") if path.is_file() and mode_bits(path) & 0o077]
    assert {path.name for path in open_files} <= {"server.json", "server.lock", "serving.conf", "port"}
    assert not [path for path in open_files if password in path.read_text()]
    assert password not in repr(running)
    assert password not in str(running.dsn)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no unix sockets here")
def test_it_is_reached_by_unix_socket_with_the_password_alone(home: Path, version: int) -> None:
    running = server.up(FOUND, version=version, home=home)
    by_socket = Embedded(home / f"embedded-{version}", version, ENV).dsn(by_socket=True)
    assert by_socket.is_socket
    assert running.socket == str(by_socket)
    with psycopg.connect(by_socket.uri().reveal()) as connection:
        row = connection.execute("SELECT inet_client_addr() IS NULL, current_database()").fetchone()
        assert row == (True, "serving")
    for address in (by_socket, running.dsn):
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(address.without_password())


@pytest.mark.once
@pytest.mark.skipif(os.name == "nt", reason="Windows has no unix sockets here")
def test_a_home_too_long_for_a_socket_has_it_in_the_temp_folder(tmp_path: Path, version: int) -> None:
    home = tmp_path / ("a-long-name-" * 10) / "local"
    try:
        running = server.up(FOUND, version=version, home=home)
        embedded = Embedded(home / f"embedded-{version}", version, ENV)
        folder = embedded.socket_folder
        assert folder is not None
        assert folder.parent == Path(tempfile.gettempdir())
        assert mode_bits(folder) == 0o700
        with psycopg.connect(embedded.dsn(by_socket=True).uri().reveal()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert query(running, "SELECT 1") == [(1,)]
    finally:
        server.down(FOUND, purge=True, home=home)
    assert not folder.exists()


@pytest.mark.once
@pytest.mark.skipif(os.name == "nt", reason="Windows has no unix sockets here")
def test_a_folder_of_somebody_else_in_the_temp_folder_is_not_taken_for_the_socket(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    embedded = Embedded(tmp_path / ("a-long-name-" * 10), version, ENV)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert embedded.socket_folder is not None
    embedded.socket_folder.symlink_to(elsewhere)
    owner = elsewhere.stat().st_uid
    with pytest.raises(OpsError, match="belongs to somebody else"):
        embedded.start()
    assert elsewhere.stat().st_uid == owner


def test_down_keeps_the_data_and_purge_deletes_them(home: Path, version: int) -> None:
    query(server.up(FOUND, version=version, home=home), "CREATE TABLE kept AS SELECT 42 AS n")
    pid = postmaster(home, version)
    ours = Choice(kind="embedded", version=version)
    assert server.down(FOUND, home=home) == Down(choice=ours, stopped=True)
    until("the server has gone", lambda: not is_alive(pid))
    assert server.down(FOUND, home=home) == Down(choice=ours, stopped=False)
    assert query(server.local(FOUND, home=home), "SELECT n FROM kept") == [(42,)]

    assert str(home / f"embedded-{version}") in server.describe(home)
    assert server.down(FOUND, purge=True, home=home) == Down(choice=ours, stopped=True, purged=(ours,))
    assert not (home / f"embedded-{version}").exists()
    assert server.describe(home) == ""
    assert server.down(FOUND, purge=True, home=home) == Down(choice=None, stopped=False)


def test_another_kind_is_refused_while_one_is_up_and_taken_after_down(home: Path, version: int) -> None:
    other = {16: 18, 18: 16}[version]
    up = server.up(FOUND, version=version, home=home)
    with pytest.raises(UsageError, match=f"another server is up here: PostgreSQL {version}, embedded") as caught:
        server.up(FOUND, home=home, version=other)
    assert caught.value.hint == f"invoke down, then: invoke up --postgres-version {other}"
    with pytest.raises(UsageError) as caught:
        server.up(FOUND, home=home, version=other, command="quickstart")
    assert caught.value.hint == f"invoke down, then: invoke quickstart --postgres-version {other}"
    nowhere = Sources({**ENV, **NO_ENGINE}, {}, ".env")
    with pytest.raises(OpsError, match="no Docker engine answers"):  # `down`, and then this, would be the worse order
        server.up(nowhere, home=home, docker=True)
    assert query(up, "SELECT 1") == [(1,)]

    server.down(FOUND, home=home)
    after = server.up(FOUND, version=other, home=home)
    assert int(query(after, "SHOW server_version_num")[0][0]) // 10000 == other
    server.down(FOUND, purge=True, home=home)
    assert not (home / f"embedded-{version}").exists()  # all that were ever up here are purged
    server.down(FOUND, home=home)
    server.up(FOUND, version=version, home=home)


@pytest.mark.once
def test_a_version_that_the_wheel_lacks_is_refused_with_the_way_out(home: Path) -> None:
    with pytest.raises(UsageError, match="there is no embedded PostgreSQL 17, only 16 and 18") as caught:
        server.up(FOUND, version=17, home=home)
    assert caught.value.hint == "invoke up --docker --postgres-version 17"
    assert list(home.iterdir()) == [home / "server.lock"], "nothing is remembered of it"


@pytest.mark.once
def test_a_folder_on_the_way_that_was_closed_again_does_not_hide_the_server(home: Path, version: int) -> None:
    server.up(FOUND, version=version, home=home)
    pid = postmaster(home, version)
    home.chmod(0o700)
    assert not server.up(FOUND, home=home).started
    home.chmod(0o700)
    assert server.down(FOUND, home=home).stopped
    until("the server has gone", lambda: not is_alive(pid))


@pytest.mark.parametrize("broken", ["a setting", pytest.param("a folder", marks=pytest.mark.once)])
def test_what_keeps_a_server_from_starting_is_said_once_without_waiting_for_it_to_pass(
    home: Path, version: int, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.embedded._START_DEADLINE", 3600.0)  # which isn't waited for
    server.up(FOUND, version=version, home=home)
    server.down(FOUND, home=home)
    data = home / f"embedded-{version}" / "data"
    if broken == "a setting":
        with (data / "postgresql.conf").open("a") as file:
            file.write("no_such_setting = on\n")
        reason = "no_such_setting"
    else:
        shutil.rmtree(data / "global")
        reason = "could not find the database system"
    with pytest.raises(OpsError, match=reason) as caught:
        server.up(FOUND, home=home)
    assert caught.value.message.count(reason) == 1
    assert "postgres.log" in caught.value.hint
    assert "; or make its data anew: invoke down --purge, then: invoke quickstart" in caught.value.hint


@pytest.mark.once
@pytest.mark.skipif(os.name == "nt", reason="Windows has no unix sockets here")
def test_what_passes_by_itself_is_waited_for(home: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.up(FOUND, version=version, home=home).dsn.params["port"]
    server.down(FOUND, home=home)
    folder = Embedded(home / f"embedded-{version}", version, ENV).socket_folder
    assert folder is not None
    lock = folder / f".s.PGSQL.{port}.lock"  # as if the server that ran before hadn't gone yet
    left = subprocess.Popen(["sleep", "600"], user=folder.owner())  # PostgreSQL minds processes of its own account alone
    lock.write_text(f"{left.pid}\n{home}\n1764312000\n{port}\n{folder}\n")
    starts = 0

    def control(self: Embedded, *words: str) -> shell.Result:
        nonlocal starts
        starts += words[0] == "start"
        if starts == 5 and left.poll() is None:
            left.kill()
            left.wait()
        return original(self, *words)

    original = Embedded._control
    monkeypatch.setattr(Embedded, "_control", control)
    try:
        assert server.up(FOUND, home=home).started
    finally:
        left.kill()
        left.wait()
    assert starts == 5


@pytest.mark.skipif(os.name == "nt", reason="Windows has no root")
def test_it_works_as_another_user_beside_root_s_own(home: Path, version: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; every other test of this file ran as an ordinary one")
    server.up(FOUND, version=version, home=home)  # runs as the server's account, and opens the way to the programs
    assert Path(f"/proc/{postmaster(home, version)}").owner() == "pgserver"

    nobody = pwd.getpwnam("nobody")
    theirs = Path(tempfile.mkdtemp(prefix="home-of-nobody-"))
    os.chown(theirs, nobody.pw_uid, nobody.pw_gid)
    env = {"PATH": ENV["PATH"], "HOME": str(theirs)}
    become = f"become {nobody.pw_uid} {nobody.pw_gid}"

    def as_nobody(*actions: str) -> list[dict[str, Any]]:
        argv = program(theirs / "local", version, become, *actions)
        ended = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    try:
        first, second = as_nobody("up", "up")
        assert (first["started"], second["started"]) == (True, False)
        assert Path(f"/proc/{first['pid']}").owner() == "nobody"
        assert mode_bits(theirs / "local" / f"embedded-{version}") == 0o700
        assert as_nobody("down") == [{"stopped": True}]
        until("the server has gone", lambda: not is_alive(first["pid"]))
    finally:
        as_nobody("down")
        shutil.rmtree(theirs)


@pytest.mark.once
@pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")
def test_what_belongs_to_another_user_is_said_with_the_way_out(version: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    nobody = pwd.getpwnam("nobody")
    top = Path(tempfile.mkdtemp(prefix="home-of-root-"))  # not below pytest's own folder, which is closed to nobody
    top.chmod(0o755)
    home = top / "local"

    def as_nobody(*actions: str) -> list[dict[str, str]]:
        argv = program(home, version, f"become {nobody.pw_uid} {nobody.pw_gid}", *(f"refused-{action}" for action in actions))
        ended = subprocess.run(argv, cwd=ROOT, env=ENV, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    try:
        password = Path(server.up(FOUND, version=version, home=home).password_file)
        password.parent.parent.chmod(0o755)
        for answer in as_nobody("local", "up"):
            assert str(home) in answer["message"]
            assert "Permission denied" in answer["message"]
            assert "written" not in answer["message"]
            assert f'sudo chown -R "$(id -un)" {home}' in answer["hint"]
        (home / "server.lock").unlink()
        home.chmod(0o777)  # the folder is theirs, and what root made in it isn't
        [answer] = as_nobody("down")
        assert answer["message"].startswith(f"PostgreSQL {version} does not stop:\n")
        assert f'sudo chown -R "$(id -un)" {password.parent}' in answer["hint"]
        home.chmod(0o700)
        for answer in as_nobody("describe", "up", "down"):
            assert answer["message"].startswith(f"{home} can't be used: Permission denied: {home}/")
            assert f'sudo chown -R "$(id -un)" {home}' in answer["hint"]
        assert as_nobody("standing") == [{"answer": "None"}]
    finally:
        server.down(FOUND, purge=True, home=home)
        shutil.rmtree(top)


@pytest.mark.long
@pytest.mark.once
def test_a_password_that_is_lost_is_said_and_never_made_anew_for_data_that_know_another(machine: Machine) -> None:
    up = machine.invoke("up", "--json")
    password = Path(json.loads(up.stdout)["password_file"])
    lost = (
        f"error: the server's password is gone: there is no {password}\n"
        "next:  its data can't be reached without it, and can be made anew: invoke down --purge, then: invoke quickstart\n"
    )
    kept = password.read_text()
    password.unlink()
    seen = {check["name"]: check for check in json.loads(machine.invoke("doctor", "--json").stdout)["checks"]}
    assert seen["database"]["state"] == "problem"
    assert seen["database"]["next"].endswith("invoke down --purge, then: invoke quickstart")
    for words in (["status", "--local"], ["up"], ["down"], ["up"], ["quickstart"]):
        ended = machine.invoke(*words)
        assert (ended.returncode, ended.stderr) == ((0, "") if words == ["down"] else (1, lost)), words
    assert not password.exists()
    password.write_text("another one")
    wrong = machine.invoke("up")
    assert wrong.returncode == 1
    assert f"error: the server doesn't take the password in {password}; it was stopped again\n" in wrong.stderr
    assert "invoke down --purge, then: invoke quickstart" in wrong.stderr
    password.write_text(kept)
    assert machine.invoke("up").returncode == 0
    password.unlink()
    assert machine.invoke("down", "--purge", "--yes").returncode == 0
    assert machine.invoke("up").returncode == 0


# Docker.


@pytest.fixture
def docker_home(home: Path) -> Path:
    """An empty `.local/` for a server in Docker."""
    require_docker()
    return home


def containers(running: Up) -> list[Any]:
    """The server's containers, running or not."""
    name = json.loads(Path(running.password_file).read_text())["id"]
    return list(connect(ENV).containers.list(all=True, filters={"label": f"{PRODUCT}={name}"}))


def volumes(running: Up) -> list[Any]:
    name = json.loads(Path(running.password_file).read_text())["id"]
    return list(connect(ENV).volumes.list(filters={"label": f"{PRODUCT}={name}"}))


@pytest.mark.once
def test_a_docker_server_is_one_and_on_loopback_alone(docker_home: Path) -> None:
    first = server.up(FOUND, docker=True, home=docker_home)
    second = server.up(FOUND, home=docker_home)
    assert (first.started, second.started) == (True, False)
    assert first.dsn == second.dsn
    assert query(first, "SELECT current_database(), current_user") == [("serving", "postgres")]
    [container] = containers(first)
    [volume] = volumes(first)

    details = container.attrs
    assert details["NetworkSettings"]["Ports"] == {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": first.dsn.params["port"]}]}
    assert [(mount["Type"], mount["Name"]) for mount in details["Mounts"]] == [("volume", volume.name)]
    assert volume.name.startswith(container.name)
    password = first.dsn.password.reveal()
    assert len(password) >= 24
    assert password not in json.dumps([details, volume.attrs])
    assert password not in repr(first)
    if os.name != "nt":
        assert mode_bits(Path(first.password_file)) == 0o600

    with pytest.raises(UsageError, match=f"another server is up here: Docker, {IMAGE}") as caught:
        server.up(FOUND, version=16, home=docker_home)
    assert caught.value.hint.startswith("invoke down")


@pytest.mark.once
def test_a_docker_server_keeps_its_data_through_kill_and_down_until_it_is_purged(docker_home: Path) -> None:
    running = server.up(FOUND, docker=True, home=docker_home)
    query(running, "CREATE TABLE kept AS SELECT 42 AS n")
    [container] = containers(running)
    container.kill()
    again = server.up(FOUND, home=docker_home)
    assert again.started
    assert [one.id for one in containers(again)] == [container.id]
    assert query(again, "SELECT n FROM kept") == [(42,)]

    assert server.down(FOUND, home=docker_home) == Down(choice=running.choice, stopped=True)
    assert containers(running) == []
    assert len(volumes(running)) == 1
    assert server.down(FOUND, home=docker_home) == Down(choice=running.choice, stopped=False)

    assert query(server.local(FOUND, home=docker_home), "SELECT n FROM kept") == [(42,)]
    left = [container.name for container in containers(running)]
    [volume] = volumes(running)
    gone = server.down(FOUND, purge=True, home=docker_home)
    assert gone == Down(choice=running.choice, stopped=True, purged=(running.choice,))
    engine = connect(ENV)
    assert [name for name in left if engine.containers.list(all=True, filters={"name": name})] == []
    assert [one.name for one in engine.volumes.list() if one.name == volume.name] == []
    assert not Path(running.password_file).exists()


@pytest.mark.once
def test_a_container_whose_making_was_cut_off_is_made_again(docker_home: Path) -> None:
    running = server.up(FOUND, docker=True, home=docker_home)
    [container] = containers(running)
    name = container.name
    server.down(FOUND, home=docker_home)
    connect(ENV).containers.create(IMAGE, name=name, labels=container.labels)  # made, and nothing copied into it yet
    again = server.up(FOUND, home=docker_home)
    assert again.started
    assert query(again, "SELECT 1") == [(1,)]


@pytest.mark.once
def test_an_image_that_does_not_exist_is_named_with_the_way_out(docker_home: Path) -> None:
    image = "127.0.0.1:1/no-such-image:1"
    said: list[str] = []
    found = Sources({**ENV, "POSTGRES_IMAGE": image}, {}, ".env")
    with pytest.raises(OpsError, match=image) as caught:
        server.up(found, docker=True, home=docker_home, say=said.append)
    assert "POSTGRES_IMAGE" in caught.value.hint
    assert caught.value.hint.startswith("mend the engine's network"), "the registry isn't reached, whatever the image"
    assert said == [f"pulling the image {image}"]
    server.down(found, purge=True, home=docker_home)
    assert server.describe(docker_home) == ""


@pytest.mark.once
def test_docker_s_server_is_refused_while_an_embedded_one_is_up(home: Path, version: int) -> None:
    require_docker()
    server.up(FOUND, version=version, home=home)
    with pytest.raises(UsageError, match=f"another server is up here: PostgreSQL {version}, embedded"):
        server.up(FOUND, home=home, docker=True)


@pytest.mark.once
def test_an_image_that_ends_at_once_is_shown_with_its_log(docker_home: Path) -> None:
    require_docker()
    broken = f"postgres-serving-split-test:{os.getpid()}"
    engine = connect(ENV)
    maker = engine.containers.create(IMAGE)
    try:
        maker.commit(*broken.split(":"), conf={"Entrypoint": ["sh", "-c", "echo it has no data >&2; exit 3"]})
    finally:
        maker.remove(v=True)
    found = Sources({**ENV, "POSTGRES_IMAGE": broken}, {}, ".env")
    try:
        with pytest.raises(OpsError, match="is exited and not ready:\nit has no data") as caught:
            server.up(found, docker=True, home=docker_home)
        assert caught.value.hint.startswith("its whole log: docker logs postgres-serving-split-")
    finally:
        (docker_home / "server.json").write_text(json.dumps({"kind": "docker", "version": 16, "image": broken}))
        server.down(found, purge=True, home=docker_home)
        engine.images.remove(broken)


# All of it.


@pytest.mark.once
def test_quickstart_takes_the_password_that_is_given_masks_first_and_ends_as_roles_does(machine: Machine) -> None:
    given = {"POSTGRES_BACKTEST_SERVICE_PASSWORD": "given 1%", "GITHUB_ACTIONS": "true"}
    first = machine.invoke("quickstart", env=given)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr.startswith("::add-mask::given 1%25\n")
    assert "::add-mask::" not in first.stdout
    assert "postgresql://backtest_service:given%201%25@" in "".join(
        path.read_text() for path in (machine.project / ".local").rglob("app.env")
    )
    granted = machine.invoke("psql", "--local", stdin="GRANT TEMPORARY ON DATABASE serving TO backtest_service;")
    assert granted.returncode == 0, granted.stderr
    drifted = machine.invoke("quickstart")
    assert drifted.returncode == 3, drifted.stdout
    assert "differs: backtest_service has TEMPORARY on database serving" in drifted.stdout
    purged = machine.invoke("down", "--purge", "--yes").stdout.splitlines()
    assert purged == ["PostgreSQL 16, embedded: stopped", "deleted the data of PostgreSQL 16, embedded"]
    empty = machine.invoke("psql", "--local", "--as-app")
    assert (empty.returncode, "started PostgreSQL 16, embedded; invoke down stops it\n" in empty.stderr) == (2, True)
    assert machine.invoke("down").stdout == "PostgreSQL 16, embedded: stopped\n"
