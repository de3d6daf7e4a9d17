"""`invoke psql`: somebody's own psql, at a terminal or fed by a script, and nothing of it stays behind."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from scripts.dsn import Dsn
from scripts.secret import Secret
from tests.database import ENV, ROOT, Database, invoke, invoke_argv
from tests.integration.test_passwords import backends, contents, ended, inspected, places, sleeps, until

pytestmark = pytest.mark.once  # it is about the terminal and the process; the server only answers
PASSWORD = ":/@%#?&'\"\\$ ü密🔑"
LOCK = 7  # an advisory lock, which holds a statement up for as long as a test needs
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to another process, and no ptys")


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """A temp folder for the command alone."""
    path = tmp_path / "temp"
    path.mkdir()
    return path


@pytest.fixture
def role(database: Database) -> Dsn:
    """A login role with a password that nobody else has; the DSN is the database as it sees it."""
    name, password = f"reader_{secrets.token_hex(4)}", f"{PASSWORD}{secrets.token_hex(8)}"
    with psycopg.connect(database.uri, autocommit=True) as connection:
        verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{verifier}'".encode())
        database.made_roles.append(name)
        connection.execute(f"GRANT CONNECT ON DATABASE {database.dsn.database} TO {name}".encode())
    return replace(database.dsn.with_params(user=name), password=Secret(password))


def psql(dsn: Dsn, script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`invoke psql WORDS`, fed with a script."""
    return invoke("psql", *words, stdin=script, env={"POSTGRES_ADMIN_DSN": dsn.uri().reveal(), **env})


def started(dsn: Dsn, script: str, mode: str, temp: Path) -> subprocess.Popen[str]:
    """`invoke psql`, under way with a script; its DSN is in no environment."""
    settings = temp.parent / "settings.env"
    settings.touch(0o600)
    settings.write_text(f"POSTGRES_ADMIN_DSN={dsn.uri().reveal()}\n")
    source = temp.parent / "script.sql"
    source.write_text(script)
    with source.open() as stdin:
        return subprocess.Popen(
            invoke_argv("psql", "--psql", mode, "--env-file", str(settings)),
            env={**ENV, "TMPDIR": str(temp)},
            cwd=ROOT,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextlib.contextmanager
def held_up(database: Database) -> Iterator[None]:
    """Holds whoever asks for the lock up."""
    with psycopg.connect(database.uri, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        yield


def waits(database: Database) -> bool:
    return backends(database, "wait_event = 'advisory'") > 0


def nothing_left(database: Database, temp: Path) -> None:
    assert list(temp.iterdir()) == []
    assert inspected(database.dsn.database) == []
    until("its connection is closed", lambda: backends(database, "true") == 0)


# A script.


def test_a_script_is_answered_by_the_database_of_the_dsn(database: Database, role: Dsn, mode: str, temp: Path) -> None:
    result = psql(role, "select current_user, 'größe', 40 + 2;\n", "--psql", mode, TMPDIR=str(temp))
    assert result.returncode == 0, result.stderr
    for shown in (role.params["user"], "größe", "42"):
        assert shown in result.stdout
    assert result.stderr == ""
    nothing_left(database, temp)


@pytest.mark.parametrize(
    ("script", "code", "wrong", "answered"),
    [
        ("\\q\nselect 1 / 0;\n", 0, False, False),
        ("select 1 / 0;\nselect 40 + 2;\n", 0, True, True),
        ("\\set ON_ERROR_STOP 1\nselect 1 / 0;\nselect 40 + 2;\n", 1, True, False),
        ("", 0, False, False),
    ],
    ids=["left", "an error goes on", "an error stops", "nothing"],
)
def test_the_exit_code_is_psql_s_as_yes_or_no(
    database: Database, mode: str, temp: Path, script: str, code: int, wrong: bool, answered: bool
) -> None:
    result = psql(database.dsn, script, "--psql", mode, TMPDIR=str(temp))
    assert (result.returncode, "division by zero" in result.stderr, "42" in result.stdout) == (code, wrong, answered)
    nothing_left(database, temp)


def test_a_server_that_refuses_is_a_failure_without_the_password(database: Database, role: Dsn, mode: str, temp: Path) -> None:
    wrong = f"{PASSWORD}{secrets.token_hex(8)}"
    result = psql(replace(role, password=Secret(wrong)), "select 1;\n", "--psql", mode, TMPDIR=str(temp))
    assert result.returncode == 1
    assert "password authentication failed" in result.stderr
    for secret in (wrong, wrong[-16:], quote(wrong, safe="")):
        assert secret not in result.stdout + result.stderr
    nothing_left(database, temp)


@pytest.mark.parametrize("mode", ["local", "embedded"], indirect=True)
def test_somebody_s_own_psql_reads_his_psqlrc(database: Database, mode: str, tmp_path: Path) -> None:
    (tmp_path / ".psqlrc").write_text("\\echo as I like it\n")
    assert "as I like it" in psql(database.dsn, "\\q\n", "--psql", mode, HOME=str(tmp_path)).stdout


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_while_it_runs_the_password_is_in_one_file_that_its_owner_alone_can_read(
    database: Database, role: Dsn, mode: str, temp: Path
) -> None:
    token = role.password.reveal().removeprefix(PASSWORD).encode()
    process = started(role, f"select pg_advisory_lock({LOCK});\nselect 40 + 2;\n", mode, temp)
    with held_up(database):
        until("the statement waits", lambda: waits(database) or process.poll() is not None)
        found = places()
        files = [path for path, data in contents(temp).items() if token in data]
        modes = [(path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) for path in files]
        containers = re.findall(r'"Id": "(\w{64})"', "".join(inspected(database.dsn.database)))
        listed = [
            subprocess.run(
                ["docker", "exec", container, "stat", "--format=%a", "/work/.pgpass"], capture_output=True, text=True, check=True
            ).stdout
            for container in containers
        ]
    out, err = ended(process)
    assert process.returncode == 0, err
    assert "42" in out
    assert [place for place, data in found.items() if token in data] == []
    assert [place for place, data in found.items() if place.endswith("cmdline") and b"--dbname" in data] != []
    if mode == "docker":
        assert (modes, listed) == ([], ["600\n"])
    else:
        assert (modes, listed) == ([(0o600, 0o700)], [])
    nothing_left(database, temp)


@posix
def test_sigterm_cancels_the_statement_and_leaves_nothing(database: Database, role: Dsn, mode: str, temp: Path) -> None:
    process = started(role, "select pg_sleep(300);\nselect 40 + 2;\n", mode, temp)
    until("the statement is at work", lambda: sleeps(database) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    out, err = ended(process)
    assert process.returncode == 130, out + err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "42" not in out
    nothing_left(database, temp)


# At a terminal.


class Terminal:
    """A command on a terminal of its own: `invoke psql`, if no other."""

    def __init__(self, dsn: Dsn, mode: str, temp: Path, *words: str) -> None:
        import fcntl
        import pty
        import termios

        self._master, slave = pty.openpty()

        def take_it() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup nox` would hand down as ignored

        try:
            self.process = subprocess.Popen(
                invoke_argv(*(words or ("psql", "--psql", mode))),
                env={
                    **ENV,
                    "TERM": "dumb",
                    "PAGER": "cat",
                    "HOME": str(temp.parent),
                    "TMPDIR": str(temp),
                    "POSTGRES_ADMIN_DSN": dsn.uri().reveal(),
                },
                cwd=ROOT,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                preexec_fn=take_it,  # noqa: PLW1509
            )
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read(self) -> str:
        """Everything that has been shown so far."""
        with contextlib.suppress(BlockingIOError, OSError):  # nothing is there yet; the other side is closed
            while data := os.read(self._master, 65536):
                self.shown += data.decode("utf-8", "replace")
        return self.shown

    def shows(self, text: str) -> None:
        """Waits until it is shown, and forgets what came before it."""
        until(f"the terminal shows {text!r}", lambda: text in self.read() or self.process.poll() is not None)
        before, found, self.shown = self.read().partition(text)
        assert found, before

    def hang_up(self) -> None:
        """Closes the window, as it were."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._master >= 0:
            os.close(self._master)


@posix
@pytest.mark.once
@pytest.mark.parametrize("mode", ["embedded"], indirect=True)
def test_a_dsn_that_is_typed_is_asked_for_and_not_shown(database: Database, mode: str, temp: Path) -> None:
    terminal = Terminal(database.dsn, mode, temp, "status", "--psql", mode, "--dsn", "-")
    try:
        terminal.shows("--dsn (isn't shown): ")
        terminal.type(f"{database.uri}\n")
        until("it has ended", lambda: (terminal.read(), terminal.process.poll())[1] is not None)
        shown = terminal.read()
        assert f"target: {database.dsn}" in shown
        assert database.dsn.password.reveal() not in shown
    finally:
        terminal.close()


@pytest.fixture
def terminal(role: Dsn, mode: str, temp: Path) -> Iterator[Terminal]:
    made = Terminal(role, mode, temp)
    yield made
    made.close()


@posix
def test_ctrl_c_cancels_a_statement_and_psql_answers_the_next(database: Database, terminal: Terminal, temp: Path) -> None:
    prompt = f"{database.dsn.database}=> "
    terminal.shows(prompt)
    for _ in range(2):
        terminal.type("select pg_sleep(300);\n")
        until("the statement is at work", lambda: sleeps(database))
        terminal.type("\x03")
        terminal.shows("canceling statement due to user request")
        terminal.shows(prompt)
    terminal.type("\x03")  # at the prompt, it is no reason to leave
    terminal.shows(prompt)
    terminal.type("select 40 + 2 as answer;\n")
    terminal.shows(" 42")
    terminal.type("\\q\n")
    until("psql is left", lambda: terminal.read() is not None and terminal.process.poll() is not None)
    assert terminal.process.returncode == 0, terminal.read()
    assert "Traceback" not in terminal.read()
    nothing_left(database, temp)


@posix
def test_sigterm_ends_a_psql_that_waits_for_somebody(database: Database, terminal: Terminal, temp: Path) -> None:
    terminal.shows(f"{database.dsn.database}=> ")
    terminal.process.send_signal(signal.SIGTERM)
    until("psql is left", lambda: terminal.read() is not None and terminal.process.poll() is not None)
    assert terminal.process.returncode == 130, terminal.read()
    assert "Traceback" not in terminal.read()
    nothing_left(database, temp)


@posix
@pytest.mark.parametrize("how", ["closed", "hung up", "quit"])
def test_a_terminal_that_is_closed_or_ctrl_backslash_leaves_nothing(
    database: Database, terminal: Terminal, mode: str, temp: Path, how: str
) -> None:
    if (mode, how) == ("docker", "quit"):
        pytest.skip("psql is its container's first process, which Ctrl-\\ doesn't end")
    terminal.shows(f"{database.dsn.database}=> ")
    assert contents(temp) != {} or backends(database, "true") > 0
    if how == "closed":
        terminal.hang_up()
    elif how == "hung up":
        terminal.process.send_signal(signal.SIGHUP)
    else:
        terminal.type("\x1c")
    until("psql is left", lambda: terminal.process.poll() is not None)
    assert terminal.process.returncode > 0, "it ended by itself"
    nothing_left(database, temp)


@posix
def test_sigterm_at_a_terminal_cancels_the_statement(database: Database, terminal: Terminal, temp: Path) -> None:
    terminal.shows(f"{database.dsn.database}=> ")
    terminal.type("select pg_sleep(300);\n")
    until("the statement is at work", lambda: sleeps(database))
    terminal.process.send_signal(signal.SIGTERM)
    until("psql is left", lambda: terminal.read() is not None and terminal.process.poll() is not None)
    assert terminal.process.returncode == 130, terminal.read()
    nothing_left(database, temp)


# As the application.


def test_as_app_is_the_application_s_dsn(database: Database, role: Dsn, mode: str) -> None:
    words = ("--as-app", "--psql", mode, "--backtest-service-user", role.params["user"])
    result = psql(database.dsn, "select current_user;\n", *words, POSTGRES_DSN=role.uri().reveal(), HOME="/nonexistent")
    assert result.returncode == 0, result.stderr
    assert role.params["user"] in result.stdout


@pytest.mark.once
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "and the application's login roles are backtest_service and backtest_service_b; nothing was done with it"),
        (["--dsn", "-"], "--as-app takes the DSN of POSTGRES_DSN, and --dsn names another"),
    ],
)
def test_as_app_is_nobody_else(words: list[str], message: str) -> None:
    dsn = "postgresql://postgres:secret@localhost/serving"
    result = invoke("psql", "--as-app", *words, stdin="select 40 + 2;\n", env={"POSTGRES_DSN": dsn})
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_as_app_without_its_dsn_says_how_to_get_one(database: Database, tmp_path: Path) -> None:
    settings = tmp_path / "my settings"
    settings.write_text(f"POSTGRES_ADMIN_DSN={database.uri}\n")
    result = invoke("psql", "--as-app", "--env-file", str(settings), "--psql", "embedded", stdin="select 40 + 2;\n")
    assert result.returncode == 2
    assert "the application's DSN is not at hand: POSTGRES_DSN, in the environment or in" in result.stderr
    assert f"invoke roles --env-file '{settings}' --psql embedded --secrets-file '{settings}'\n" in result.stderr
    settings.write_text("")
    nowhere = invoke("psql", "--as-app", "--env-file", str(settings), stdin="select 40 + 2;\n")
    assert nowhere.returncode == 2
    assert "next:  the server of `invoke up` keeps its own: add --local; of another one" in nowhere.stderr
    assert f"put POSTGRES_ADMIN_DSN into {settings}, then: invoke roles --env-file" in nowhere.stderr
    assert "42" not in result.stdout
