"""Passwords of any kind: they connect, nobody ever sees them, and nothing stays behind however a run ends."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from scripts import clients
from scripts.clients import Mode
from scripts.psql import Session
from scripts.secret import Secret
from tests.database import ENV, IMAGE, ROOT, Database, invoke, invoke_argv

PASSWORDS = {
    **{
        name: f"be{character}fore{character}"
        for name, character in {
            "colon": ":",
            "slash": "/",
            "at": "@",
            "percent": "%",
            "hash": "#",
            "question": "?",
            "ampersand": "&",
            "single-quote": "'",
            "double-quote": '"',
            "backslash": "\\",
            "dollar": "$",
            "blank": " ",
        }.items()
    },
    "looks-encoded": "a%20b%3Ac%25",
    "looks-like-a-variable": "$HOME${HOME}$(id)`id`",
    "backslashes-and-quotes": "\\'\\\"\\\\:'\\n",
    "latin": "grüße-ß",
    "chinese": "密码是密",
    "emoji": "key🔑key",
    "blank-first": " leading",
    "blank-last": "trailing ",
    "blanks": "  both  ",
    "plus-and-equals": "a+b=c==",
    "starts-with-hash": "#nocomment",
    "long": "x" * 900,
}
EVERYTHING = ":/@%#?&'\"\\$ ü密🔑"
DEADLINE = 60.0  # seconds, for whatever is waited for


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """A temp folder for the runner alone."""
    path = tmp_path / "temp"
    path.mkdir()
    return path


@pytest.fixture
def owner(database: Database) -> Callable[[str], Database]:
    """Makes a role with a password, the owner of the test's database; returns the database as that role sees it."""

    def make(password: str) -> Database:
        role = f"owner_{secrets.token_hex(4)}"
        with psycopg.connect(database.uri, autocommit=True) as connection:
            verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{verifier}'".encode())
            database.made_roles.append(role)
            connection.execute(f"ALTER DATABASE {database.dsn.database} OWNER TO {role}".encode())
        return Database(replace(database.dsn.with_params(user=role), password=Secret(password)))

    return make


def until(what: str, holds: Callable[[], bool]) -> None:
    """Waits for it, up to a deadline."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {DEADLINE:g} s: {what}"
        time.sleep(0.02)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.sql").write_text(text, encoding="utf-8")
    return folder


def runner(database: Database, mode: str, folder: Path, temp: Path, **env: str) -> subprocess.Popen[str]:
    """`invoke migrate`, under way; the DSN is in its standard input."""
    process = subprocess.Popen(
        invoke_argv("migrate", "--dsn", "-", "--psql", mode, "--migrations-dir", str(folder)),
        env={**ENV, "TMPDIR": str(temp), **env},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(f"{database.uri}\n")
    process.stdin.close()
    process.stdin = None  # `communicate` would write to it
    return process


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Waits for the runner's end; its output."""
    try:
        return process.communicate(timeout=DEADLINE)
    finally:
        process.kill()


def backends(database: Database, condition: str) -> int:
    """How many of the database's other connections are as the condition says."""
    query = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}"
    )
    return int(database.execute(query)[0][0])


def sleeps(database: Database) -> bool:
    return backends(database, "state = 'active' AND query LIKE '%pg_sleep%'") > 0


def inspected(name: str = "") -> list[str]:
    """`docker inspect` of every container, or of those alone that lead to the database of this name."""
    if shutil.which("docker") is None:
        return []
    listed = subprocess.run(["docker", "ps", "--all", "--quiet", "--no-trunc"], capture_output=True, text=True, check=False)
    texts = []
    for container in listed.stdout.split():
        # One by one: a container that has gone meanwhile is no failure of the others.
        answer = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=False)
        texts += [json.dumps(one, ensure_ascii=False) for one in json.loads(answer.stdout or "[]")]
    return [text for text in texts if name in text]


def processes(kind: str) -> dict[str, bytes]:
    """Every process's `cmdline` or `environ`, by its id."""
    found = {}
    for path in Path("/proc").glob(f"[0-9]*/{kind}"):
        try:
            found[path.parent.name] = path.read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
    return found


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below `folder`, where a run adds and removes some meanwhile: `os.walk` passes over a folder that is gone."""
    found = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            try:
                found[path] = path.read_bytes()
            except FileNotFoundError:
                continue
    return found


# They connect.


@pytest.mark.once
@pytest.mark.parametrize("password", PASSWORDS.values(), ids=PASSWORDS.keys())
def test_a_password_connects(owner: Callable[[str], Database], mode: str, password: str) -> None:
    dsn = owner(password).dsn
    with Session(clients.choose(Mode(mode), dsn, image=IMAGE, env=ENV), dsn) as session:
        assert session.query("SELECT current_user") == [dsn.params["user"]]


@pytest.mark.once
@pytest.mark.parametrize("password", PASSWORDS.values(), ids=PASSWORDS.keys())
def test_a_password_reaches_migrate_through_its_standard_input(
    owner: Callable[[str], Database], folder: Path, password: str
) -> None:
    database = owner(password)
    result = invoke(
        *("migrate", "--dsn", "-", "--psql", "embedded", "--migrations-dir", str(write(folder, **{"0001_one": "SELECT 1;"}))),
        stdin=database.uri,
    )
    assert result.returncode == 0, result.stderr
    assert database.ledger() == {"0001": "applied"}
    for text in (result.stdout, result.stderr):
        assert password not in text
        assert quote(password, safe="") not in text


@pytest.mark.once
def test_everything_at_once_reaches_migrate_in_each_mode(owner: Callable[[str], Database], mode: str, folder: Path) -> None:
    database = owner(EVERYTHING)
    write(folder, **{"0001_one": "SELECT 1;"})
    result = invoke("migrate", "--dsn", "-", "--psql", mode, "--migrations-dir", str(folder), stdin=database.uri)
    assert result.returncode == 0, result.stderr
    assert database.ledger() == {"0001": "applied"}


@pytest.mark.once
def test_a_wrong_password_is_refused_and_not_shown(owner: Callable[[str], Database], mode: str, folder: Path) -> None:
    database = owner("the right one")
    wrong = f"{EVERYTHING}{secrets.token_hex(8)}"
    write(folder, **{"0001_one": "SELECT 1;"})
    uri = replace(database.dsn, password=Secret(wrong)).uri().reveal()
    result = invoke("migrate", "--dsn", "-", "--psql", mode, "--migrations-dir", str(folder), stdin=uri)
    assert result.returncode == 1
    assert "password authentication failed" in result.stderr
    for secret in (wrong, quote(wrong, safe=""), wrong[-16:]):
        assert secret not in result.stdout + result.stderr


# Nobody sees them.


def places() -> dict[str, bytes]:
    """All that another program of this machine, or a log, could read of a run."""
    found = {f"/proc/{pid}/cmdline": data for pid, data in processes("cmdline").items()}
    environments = processes("environ")
    for pid in list(environments):
        if b"psql" in found.get(f"/proc/{pid}/cmdline", b""):
            found[f"/proc/{pid}/environ"] = environments[pid]
    return {**found, **{f"docker inspect {index}": text.encode() for index, text in enumerate(inspected())}}


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_no_command_line_environment_container_output_or_file_holds_the_password(
    owner: Callable[[str], Database], mode: str, folder: Path, temp: Path
) -> None:
    token = secrets.token_hex(12)
    password = f"{EVERYTHING}{token}"
    database = owner(password)
    write(folder, **{"0001_slow": "SELECT pg_sleep(1.5);", "0002_wrong": "SELECT 1 / 0;"})
    process = runner(database, mode, folder, temp)
    name = database.dsn.database.encode()
    seen_psql = seen_environment = seen_container = False
    leaks: set[str] = set()
    to_connect: set[str] = set()
    while process.poll() is None:
        sleeping = sleeps(database)
        found = places()
        files = {str(path): data for path, data in contents(temp).items()}
        if sleeping:  # connected: from here on, no file has to hold it, but for the one who looks who holds a lock, to connect
            found.update({path: data for path, data in files.items() if Path(path).name != "pgpass" or path in to_connect})
        else:
            to_connect |= files.keys()
        leaks |= {place for place, data in found.items() if token.encode() in data}
        lines = {place: data for place, data in found.items() if name in data}
        seen_psql |= any(place.endswith("cmdline") and b"--dbname" in data for place, data in lines.items())
        seen_environment |= any(
            b"PGPASSFILE=" in found.get(place.replace("cmdline", "environ"), b"") for place in lines if place.endswith("cmdline")
        )
        seen_container |= any(place.startswith("docker inspect") for place in lines)
    out, err = ended(process)

    assert process.returncode == 1
    assert "division by zero" in err
    assert seen_psql  # what was searched was there
    assert seen_container is (mode == "docker")
    assert seen_environment or (mode == "docker" and os.geteuid() != 0)  # a container's processes are root's
    assert leaks == set()
    for secret in (token, password, quote(password, safe="")):
        assert secret not in out + err
    assert list(temp.iterdir()) == []


# Nothing stays.


@pytest.mark.once
@pytest.mark.parametrize(("sql", "code"), [("SELECT 1;", 0), ("SELECT 1 / 0;", 1)], ids=["success", "failure"])
def test_a_run_that_ends_by_itself_leaves_no_file_container_or_connection(
    database: Database, mode: str, folder: Path, temp: Path, sql: str, code: int
) -> None:
    process = runner(database, mode, write(folder, **{"0001_one": sql}), temp)
    out, err = ended(process)
    assert process.returncode == code, out + err
    assert list(temp.iterdir()) == []
    assert inspected(database.dsn.database) == []
    until("its connection is closed", lambda: backends(database, "true") == 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to another process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_run_is_rolled_back_and_leaves_no_file_container_or_statement(
    database: Database, mode: str, folder: Path, temp: Path, number: signal.Signals
) -> None:
    write(folder, **{"0001_one": "CREATE TABLE one ();", "0002_slow": "CREATE TABLE two ();\nSELECT pg_sleep(300);"})
    process = runner(database, mode, folder, temp)
    until("the file is at work", lambda: sleeps(database) or process.poll() is not None)
    process.send_signal(number)
    out, err = ended(process)

    assert process.returncode == 130, out + err
    assert "interrupted in 0002_slow.sql: 0002_slow.sql was rolled back whole" in err
    assert "Traceback" not in err
    assert list(temp.iterdir()) == []
    assert inspected(database.dsn.database) == []
    until("the server has rolled it back", lambda: backends(database, "true") == 0)
    assert database.execute("SELECT to_regclass('one') IS NULL, to_regclass('two') IS NULL") == [(False, True)]
    assert database.ledger() == {"0001": "applied"}


@pytest.mark.once
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to another process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("word", ["create", "cp"])
@pytest.mark.parametrize("mode", ["docker"], indirect=True)
def test_an_interruption_while_the_container_is_made_leaves_none(
    database: Database, mode: str, folder: Path, temp: Path, tmp_path: Path, word: str, number: signal.Signals
) -> None:
    docker = shutil.which("docker")
    path = tmp_path / "bin" / "docker"
    path.parent.mkdir()
    # The signal comes when the engine has done its part and the answer isn't read yet. The pause is the runner's, to go
    # wrong in: a right one waits for the answer however long it takes.
    path.write_text(
        f'#!/bin/sh\n[ "$1" = {word} ] || exec "{docker}" "$@"\nout=$("{docker}" "$@") || exit\n'
        f'kill -{number.value} $PPID\nsleep 0.3\nprintf "%s\\n" "$out"\n'
    )
    path.chmod(0o755)
    write(folder, **{"0001_one": "SELECT 1;"})
    process = runner(database, mode, folder, temp, PATH=f"{path.parent}{os.pathsep}{ENV['PATH']}")
    out, err = ended(process)
    assert inspected(database.dsn.database) == [], out + err
    assert process.returncode == 130, out + err
    assert list(temp.iterdir()) == []


@pytest.mark.once
@pytest.mark.parametrize("password", ["state", "applied", "true", "version", "ERROR", "0001"])
def test_a_password_that_reads_like_an_answer_of_the_server_changes_none(
    owner: Callable[[str], Database], folder: Path, password: str
) -> None:
    mine = owner(password)
    write(folder, **{"0001_a": "CREATE TABLE a (id int);\n", "0002_b": "-- migrate: no-transaction\nSELECT 1 / 0;\n"})
    words = ("--dsn", "-", "--psql", "embedded", "--migrations-dir", str(folder))
    failed = invoke("migrate", *words, stdin=mine.uri)
    assert failed.returncode == 1
    assert "0002_b.sql:2: " in failed.stderr
    assert mine.ledger() == {"0001": "applied", "0002": "started"}
    assert "started" in invoke("status", *words, stdin=mine.uri).stdout
    assert "has not ended" in invoke("migrate", *words, stdin=mine.uri).stderr
