"""`invoke rotate`: a new secret while clients keep coming, killed at any step and gone on with, and the way back."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dotenv import dotenv_values
from psycopg import errors

from scripts import ledger, target
from scripts import rotate as rotating
from scripts.clients import Mode
from scripts.console import Console
from scripts.handover import Destinations
from scripts.logins import Wanted
from scripts.settings import Sources
from tests.database import ENV, ROOT, Database, as_azure, invoke, invoke_argv
from tests.integration.test_passwords import DEADLINE, ended, until

BETWEEN_LOGINS = 0.02  # seconds
QUIET = ("--quiet", "1")  # seconds; fifty times as long as a replica stays away
SOON = ("--quiet", "0.2")  # where nobody comes back
UNSEEN = (*SOON, "--unseen")  # where nobody uses the new one either
KILLED = -9
with_gh = pytest.mark.skipif(os.name == "nt", reason="the gh of these tests is a shell script")
FAKE_GH = """#!/bin/sh
# Keeps secrets in files. For each `set` it takes one word off its plan, when there is one.
cd "$(dirname "$0")"
[ "$2" = set ] || exit 0
step=$(cat plan 2>/dev/null); rm -f plan
case "$step" in
  refuse) echo "no network" >&2; exit 1;;
  kill-before) kill -9 $PPID; exit 1;;
esac
(umask 077; cat >"$3.new" && mv "$3.new" "$3")
[ "$step" != kill-after ] || kill -9 $PPID
"""


class Replica(threading.Thread):
    """A client of the application: it logs in anew again and again with the DSN it was last given, reads and writes."""

    def __init__(self, uri: str) -> None:
        super().__init__(daemon=True)
        self.uri = uri
        self.failures: list[str] = []
        self.logins: list[str] = []  # the role of each
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(BETWEEN_LOGINS):
            try:
                with psycopg.connect(self.uri, autocommit=True) as connection:
                    row = connection.execute("INSERT INTO core.hits DEFAULT VALUES RETURNING current_user").fetchone()
                    connection.execute("SELECT count(*) FROM public.schema_migrations")
                assert row is not None
                self.logins.append(row[0])
            except psycopg.Error as error:
                self.failures.append(f"{psycopg.conninfo.conninfo_to_dict(self.uri)['user']}: {error}")

    def works_as(self, name: str) -> bool:
        return self.logins[-1:] == [name]

    def stop(self) -> None:
        self._over.set()
        self.join(DEADLINE)


@contextmanager
def replicas(uri: str, count: int = 1) -> Iterator[list[Replica]]:
    """Clients at work; in the end not one of their logins may have failed."""
    started = [Replica(uri) for _ in range(count)]
    for replica in started:
        replica.start()
    try:
        until("every replica has logged in", lambda: all(replica.logins or replica.failures for replica in started))
        yield started
    finally:
        for replica in started:
            replica.stop()
    assert [failure for replica in started for failure in replica.failures] == []


@dataclass
class App:
    """The application of a test: its two login roles, and the file and the GitHub secret in which its DSN arrives."""

    database: Database
    names: tuple[str, str]
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = self.folder / "app.env"
        self.gh = self.folder / "bin" / "gh"
        self.gh.parent.mkdir()
        self.gh.write_text(FAKE_GH)
        self.gh.chmod(0o755)
        self.env = {"POSTGRES_ADMIN_DSN": self.database.uri, "PATH": f"{self.gh.parent}{os.pathsep}{ENV['PATH']}"}
        self.to_file = ("--secrets-file", str(self.file))
        self.to_github = ("--github-secret", "POSTGRES_DSN")

    def rotate(self, *words: str, dsn: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        """`invoke rotate WORDS` by the administrator; `dsn` is the POSTGRES_DSN that stands in the environment."""
        env = self.env | ({"POSTGRES_DSN": dsn} if dsn else {})
        result = invoke("rotate", "--backtest-service-user", self.names[0], *words, env=env)
        assert result.returncode == code, result.stdout + result.stderr
        return result

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`invoke rotate WORDS`, under way."""
        process = subprocess.Popen(
            invoke_argv("rotate", "--backtest-service-user", self.names[0], *words),
            env=ENV | self.env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def plan_for_gh(self, step: str) -> None:
        """What becomes of the next `gh secret set`."""
        (self.gh.parent / "plan").write_text(step)

    @property
    def uri(self) -> str:
        uri = dotenv_values(self.file)["POSTGRES_DSN"]
        assert uri is not None
        return uri

    @property
    def on_github(self) -> str:
        return (self.gh.parent / "POSTGRES_DSN").read_text()

    def roles(self) -> list[tuple[Any, ...]]:
        """All that the catalogs say of the two roles, their passwords included."""
        assert self.database.superuser is not None
        return Database(self.database.superuser).execute(
            "SELECT a.*, shobj_description(a.oid, 'pg_authid'), s.setconfig FROM pg_authid AS a "
            "LEFT JOIN pg_db_role_setting AS s ON s.setrole = a.oid WHERE rolname = ANY(%s) ORDER BY rolname",
            list(self.names),
        )

    def live(self) -> list[str]:
        """Those of the two that may log in."""
        query = "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname = ANY(%s) ORDER BY rolname"
        return [name for (name,) in self.database.execute(query, list(self.names))]

    def sessions(self, name: str) -> int:
        return int(self.database.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", name)[0][0])


@pytest.fixture
def app(serving: Database, tmp_path: Path) -> Iterator[App]:
    """An application whose first role is in use, its DSN in the secrets file."""
    name = f"app_{secrets.token_hex(4)}"
    serving.made_roles += [name, f"{name}_b"]
    with psycopg.connect(serving.uri) as admin:
        admin.execute("SET ROLE serving_owner")
        admin.execute("CREATE TABLE core.hits (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now())")
    app = App(serving, (name, f"{name}_b"), tmp_path)
    words = ("--connection-limit", "7", "--statement-timeout", "45s", *app.to_file)
    result = invoke("roles", "--backtest-service-user", name, *words, env=app.env)
    assert result.returncode == 0, result.stdout + result.stderr
    yield app
    for process in app.started:
        process.kill()
        process.communicate()


def login(uri: str) -> str:
    """Logs in once; the role's name."""
    with psycopg.connect(uri) as connection:
        row = connection.execute("SELECT current_user").fetchone()
    assert row is not None
    return str(row[0])


def refused(uri: str) -> bool:
    """Whether the server answers and doesn't let the DSN in."""
    try:
        login(uri)
    except psycopg.OperationalError as error:
        return "not permitted to log in" in str(error) or "password authentication failed" in str(error)
    return False


def says(process: subprocess.Popen[str], text: str) -> None:
    """Reads the runner's stderr up to a line with the text in it."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if text in line:
            return
        said.append(line)
    pytest.fail(f"ended without a word of {text!r}: {said}")


def at_work(app: App) -> int:
    """How many connections of the administrator, other than the one that asks, the database has."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    return int(app.database.execute(query + "AND usename = current_user")[0][0])


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    ended(process)
    assert process.returncode == KILLED or os.name == "nt"


def settled(app: App, name: str, *, was: str) -> None:
    """Exactly one role can log in, by the DSN in the file; the other can't by the one that it `was`; no note is left."""
    assert app.live() == [name]
    assert login(app.uri) == name
    assert refused(was)
    columns = "rolname, shobj_description(oid, 'pg_authid')"
    query = f"SELECT {columns} FROM pg_roles WHERE rolname = ANY(%s) ORDER BY rolname"
    assert app.database.execute(query, list(app.names)) == [(role, None) for role in app.names]


# While clients keep coming.


def test_no_login_fails_while_the_secret_is_rotated_there_and_back_under_load(app: App) -> None:
    first, second = app.names
    with replicas(app.uri, 3) as clients:
        for old, new in ((first, second), (second, first)):
            former = app.uri
            begun = app.rotate(*app.to_file)
            assert f"handed over: POSTGRES_DSN in {app.file}" in begun.stdout
            clients[0].uri = app.uri  # deployed one after the other
            finish = app.start("--finish", *QUIET)
            says(finish, f"waiting until {old} is out of use")
            for client in clients:
                assert finish.poll() is None  # one of them is still the old role
                client.uri = app.uri
                until(f"a replica is {new}", partial(client.works_as, new))
            out, err = ended(finish)
            assert finish.returncode == 0, out + err
            assert f"rotated: {new} is the one in use" in out
            settled(app, new, was=former)
    assert [[role for role, _ in groupby(client.logins)] for client in clients] == [[first, second, first]] * 3


@as_azure
def test_the_second_role_has_the_limits_and_timeouts_of_the_first(app: App) -> None:
    app.rotate(*app.to_file)
    limits = "SELECT rolconnlimit FROM pg_roles WHERE rolname = ANY(%s)"
    assert app.database.execute(limits, list(app.names)) == [(7,), (7,)]
    with psycopg.connect(app.uri) as connection:
        row = connection.execute(
            "SELECT current_user, current_setting('statement_timeout'), current_setting('lock_timeout'), "
            "current_setting('idle_in_transaction_session_timeout')"
        ).fetchone()
    assert row == (app.names[1], "45s", "5s", "1min")


# Killed, and run again.


@pytest.mark.once
@with_gh
@as_azure
def test_killed_before_the_handover_it_makes_the_role_ready_anew(app: App) -> None:
    first, second = app.names
    former = app.uri
    with replicas(former) as (client,):
        app.plan_for_gh("kill-before")
        app.rotate(*app.to_github, code=KILLED)
        assert app.live() == [first, second]
        assert not (app.gh.parent / "POSTGRES_DSN").exists()
        assert "not handed over yet" in app.rotate("--finish", code=1).stderr

        app.rotate(*app.to_github, *app.to_file)
        assert app.on_github == app.uri
        client.uri = app.uri
        until("the client is the second role", lambda: client.works_as(second))
        app.rotate("--finish", *SOON)
    settled(app, second, was=former)


@pytest.mark.once
@with_gh
@as_azure
def test_killed_after_the_handover_it_leaves_a_dsn_in_use_as_it_is(app: App) -> None:
    second = app.names[1]
    former = app.uri
    app.plan_for_gh("kill-after")
    app.rotate(*app.to_github, code=KILLED)
    with replicas(app.on_github) as (client,):
        handed_over = app.on_github
        again = app.rotate(*app.to_github, code=3)
        assert f"the DSN of {second} was handed over" in again.stderr
        assert app.on_github == handed_over
        app.rotate("--finish", *SOON)
        assert client.works_as(second)
    assert app.live() == [second]
    assert login(app.on_github) == second
    assert refused(former)


@pytest.mark.once
@with_gh
@as_azure
@pytest.mark.parametrize(("step", "code"), [("kill-after", KILLED), ("refuse", 1)])
def test_cut_off_between_two_destinations_it_hands_the_same_dsn_to_the_second(app: App, step: str, code: int) -> None:
    second = app.names[1]
    former = app.uri
    app.plan_for_gh(step)
    app.rotate(*app.to_file, *app.to_github, code=code)
    handed_over = app.uri  # by somebody who isn't connected at the moment
    assert handed_over != former
    app.rotate(*app.to_file, *app.to_github)
    assert login(handed_over) == second
    assert app.on_github == app.uri == handed_over
    app.rotate("--finish", *UNSEEN)
    settled(app, second, was=former)


@pytest.mark.once
@as_azure
def test_interrupted_while_it_watches_it_says_how_to_go_on(app: App) -> None:
    app.rotate(*app.to_file)
    process = app.start("--finish", "--unseen", "--quiet", "300", "--deadline", "300")
    until("it watches", lambda: at_work(app) == 1)
    process.send_signal(signal.SIGINT)
    _, said = ended(process)
    assert process.returncode == 130
    assert f"next:  go on: invoke rotate --backtest-service-user {app.names[0]} --unseen --finish\n" in said


@pytest.mark.once
@as_azure
def test_killed_while_it_watches_the_old_role_it_watches_again(app: App) -> None:
    first, second = app.names
    former = app.uri
    app.rotate(*app.to_file)
    before = app.roles()
    with replicas(app.uri), psycopg.connect(former, autocommit=True) as held:
        process = app.start("--finish", *SOON)
        says(process, f"waiting until {first} is out of use: 1 connection")
        kill(process)
        assert app.roles() == before
        assert held.execute("SELECT current_user").fetchone() == (first,)
        held.close()
        app.rotate("--finish", *SOON)
    settled(app, second, was=former)


@pytest.mark.once
@as_azure
def test_killed_just_before_the_old_login_is_disabled_it_disables_it_the_next_time(app: App) -> None:
    first, second = app.names
    former = app.uri
    app.rotate(*app.to_file)
    before = app.roles()
    with replicas(app.uri):
        with psycopg.connect(app.database.uri, autocommit=True) as other:
            # The lock of a migration that is under way: everything that --finish waits for is over, and nothing is changed yet.
            assert other.execute(ledger.TRY_LOCK.encode()).fetchone() == (True,)
            process = app.start("--finish", *SOON)
            says(process, "waiting for another runner")
            kill(process)
        assert app.roles() == before
        assert login(former) == first
        app.rotate("--finish", *SOON)
    settled(app, second, was=former)


@pytest.mark.once
@as_azure
def test_a_client_that_came_back_while_finish_waited_for_a_migration_is_not_locked_out(app: App) -> None:
    first = app.names[0]
    former = app.uri
    app.rotate(*app.to_file)
    before = app.roles()
    with psycopg.connect(app.database.uri, autocommit=True) as other:
        assert other.execute(ledger.TRY_LOCK.encode()).fetchone() == (True,)
        refusal = app.rotate("--finish", *UNSEEN, "--lock-wait", "0", code=1).stderr
        assert "--finish --lock-wait 600" in refusal
        process = app.start("--finish", *UNSEEN)
        says(process, "waiting for another runner")
        with psycopg.connect(former):
            other.close()
            _, err = ended(process)
    assert process.returncode == 3
    assert f"{first} is in use again; nothing was changed" in err
    assert app.roles() == before


@pytest.mark.once
@as_azure
def test_killed_while_the_old_login_is_disabled_it_has_done_all_of_it_or_nothing(app: App) -> None:
    first, second = app.names
    former = app.uri
    app.rotate(*app.to_file)
    with replicas(app.uri):
        with psycopg.connect(app.database.uri) as other:
            other.execute(f"ALTER ROLE {first} CONNECTION LIMIT 7".encode())  # not committed: --finish has to wait for it
            process = app.start("--finish", *SOON)
            blocked = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() "
                f"AND query LIKE 'ALTER ROLE \"{first}\" NOLOGIN%%'"
            )
            assert app.database.superuser is not None
            watcher = Database(app.database.superuser)
            until("the server is at it", lambda: watcher.execute(blocked) == [(1,)] or process.poll() is not None)
            kill(process)
            other.rollback()
        # Its psql was told of all of it already, and ends when it is through.
        until("its session is over", lambda: at_work(app) == 0)
        assert app.live() in ([first, second], [second])
        # The former DSN still stands in the administrator's environment.
        app.rotate("--finish", *SOON, dsn=former)
        app.rotate("--finish", *SOON, dsn=former)
    settled(app, second, was=former)


@as_azure
def test_killed_before_it_closed_the_old_connections_it_closes_them_the_next_time(app: App) -> None:
    first, second = app.names
    former = app.uri
    app.rotate(*app.to_file)
    with psycopg.connect(former, autocommit=True) as held:
        # What a run leaves behind that ends between the two.
        app.database.execute(f"ALTER ROLE {first} NOLOGIN PASSWORD NULL")
        for name in app.names:
            app.database.execute(f"COMMENT ON ROLE {name} IS NULL")
        assert held.execute("SELECT current_user").fetchone() == (first,)
        told = app.rotate("--finish", code=3)
        assert f"{first} can't log in any more, and is connected yet:\n  PID {held.info.backend_pid}" in told.stderr
        again = app.rotate("--finish", "--terminate")
        assert f"close 1 connection of {first}" in again.stdout
        with pytest.raises(errors.AdminShutdown):
            held.execute("SELECT 1")
    settled(app, second, was=former)


# The way back.


@with_gh
@as_azure
def test_abort_disables_the_new_role_and_puts_the_former_dsn_back(app: App) -> None:
    first, second = app.names
    former = app.uri
    with replicas(former):
        app.rotate(*app.to_file, *app.to_github)
        void = app.uri
        app.rotate("--abort", *app.to_file, *app.to_github, dsn=former)
        assert (app.uri, app.on_github) == (former, former)
        assert app.live() == [first]
        assert refused(void)
        assert "nothing to do" in app.rotate("--abort", *app.to_file).stdout
        app.rotate(*app.to_file)  # and a new rotation begins with a new secret
        assert login(app.uri) == second
        assert refused(void)


@pytest.mark.once
@as_azure
def test_abort_changes_nothing_when_it_has_no_dsn_to_put_back(app: App) -> None:
    first, second = app.names
    former = app.uri
    app.rotate(*app.to_file)
    before, handed_over = app.roles(), app.uri
    stale = former.replace(str(psycopg.conninfo.conninfo_to_dict(former)["password"]), "x" * 40)
    for at_hand in (None, handed_over, stale):
        assert "nothing was changed" in app.rotate("--abort", *app.to_file, dsn=at_hand, code=1).stderr
        assert app.roles() == before
        assert app.uri == handed_over
        assert (login(former), login(app.uri)) == app.names
    # Without a destination it's the user who does it, and has to know.
    assert f"the DSN that was handed over, of {second}, is void" in app.rotate("--abort", dsn=former).stderr
    assert app.live() == [first]
    assert login(former) == first
    assert refused(handed_over)


@pytest.mark.once
@as_azure
def test_abort_on_this_machine_goes_back_to_the_dsn_before(app: App) -> None:
    """The file of a server of this machine holds the application's DSN, and nobody else does."""
    goal = target.at(app.database.dsn, "--local", mode=Mode.AUTO, flags=[], found=Sources(ENV, {}, ".env"), app_file=app.file)
    out = io.StringIO()

    def rotate(**part: bool) -> None:
        destinations = Destinations(app_file=app.file, env=ENV)
        options = rotating.Options(wanted=Wanted(user=app.names[0]), destinations=destinations, **part)
        rotating.run(goal, options, Console(out=out, err=out))

    former = app.uri
    for _ in range(2):
        rotate()
        void = app.uri
        assert login(void) == app.names[1]
        rotate(abort=True)
        settled(app, app.names[0], was=void)
        assert app.uri == former
    assert "is void" not in out.getvalue()


@pytest.mark.once
@as_azure
def test_a_dsn_that_nobody_kept_is_made_anew_by_the_command_that_is_named(app: App) -> None:
    app.rotate(*app.to_file)
    aborted = app.rotate("--abort").stderr
    after = app.rotate(*app.to_file, dsn=app.uri, code=1).stderr
    for said in (aborted, after):
        found = re.search("for a new password: invoke (roles .*)", said)
        assert found is not None
        assert invoke(*shlex.split(found[1]), env=app.env, cwd=app.folder).returncode == 0
        assert login(app.uri) == app.names[0]


def test_abort_refuses_while_the_new_role_is_in_use_and_terminates_it_when_told_to(app: App) -> None:
    first, second = app.names
    former = app.uri
    app.rotate(*app.to_file)
    before, handed_over = app.roles(), app.uri
    with psycopg.connect(handed_over, autocommit=True, application_name="early bird") as held:
        refusal = app.rotate("--abort", *app.to_file, dsn=former, code=1).stderr
        assert f"{second} is in use already" in refusal
        assert f"PID {held.info.backend_pid}, early bird" in refusal
        assert app.roles() == before
        assert app.uri == handed_over
        app.rotate("--abort", "--terminate", *app.to_file, dsn=former)
        with pytest.raises(errors.AdminShutdown):
            held.execute("SELECT 1")
    settled(app, first, was=handed_over)


@pytest.mark.once
@with_gh
@as_azure
@pytest.mark.parametrize(("step", "code"), [("refuse", 1), ("kill-after", KILLED)])
def test_abort_that_is_cut_off_leaves_no_void_dsn_behind_and_is_gone_on_with(app: App, step: str, code: int) -> None:
    first = app.names[0]
    former = app.uri
    app.rotate(*app.to_file, *app.to_github)
    void = app.uri
    app.plan_for_gh(step)
    app.rotate("--abort", *app.to_file, *app.to_github, dsn=former, code=code)
    login(app.on_github)
    login(app.uri)
    app.rotate("--abort", *app.to_file, *app.to_github, dsn=former)
    assert (app.uri, app.on_github) == (former, former)
    settled(app, first, was=void)
    assert "nothing to do" in app.rotate("--abort", *app.to_file, *app.to_github, dsn=void).stdout


# When there is something in the way.


def test_finish_waits_up_to_the_deadline_and_then_says_who_is_there(app: App) -> None:
    first, second = app.names
    former = app.uri
    app.rotate(*app.to_file)
    before = app.roles()
    with psycopg.connect(former, autocommit=True, application_name="late riser") as held:
        late = app.rotate("--finish", "--deadline", "1", "--quiet", "0.5", code=3)
        assert f"{first} is still in use after 1 s; nothing was changed" in late.stderr
        assert f"PID {held.info.backend_pid}, late riser" in late.stderr
        assert app.roles() == before
        assert (login(former), login(app.uri)) == app.names
        # No time at all without a connection is asked for; that there is one counts nevertheless.
        assert "still in use after 0.2 s" in app.rotate("--finish", "--deadline", "0.2", "--quiet", "0", code=3).stderr

        closed = app.rotate("--finish", "--terminate", "--deadline", "0.5", *SOON)
        assert f"close 1 connection of {first}" in closed.stdout
        with pytest.raises(errors.AdminShutdown):
            held.execute("SELECT 1")
        until("they are closed", lambda: app.sessions(first) == 0)
    settled(app, second, was=former)


@pytest.mark.once
@as_azure
def test_finish_leaves_the_old_login_while_nobody_was_seen_using_the_new_one(app: App) -> None:
    former = app.uri
    app.rotate(*app.to_file)
    before = app.roles()
    told = app.rotate("--finish", *SOON, code=3).stderr
    assert f"nobody was seen using {app.names[1]}; {app.names[0]} can still log in, and nothing was changed" in told
    assert "--unseen" in told
    assert app.roles() == before
    assert (login(former), login(app.uri)) == app.names
    app.rotate("--finish", *UNSEEN)
    settled(app, app.names[1], was=former)


@as_azure
def test_what_makes_no_sense_is_refused_and_changes_nothing(app: App) -> None:
    before = app.roles()
    assert f"nothing to do: {app.names[0]} is the one in use" in app.rotate("--finish").stdout
    assert "the new DSN would be known to nobody" in app.rotate(code=2).stderr
    late = app.rotate("--finish", "--deadline", "1", "--quiet", "2", code=2)
    assert "within --deadline 1 s, nothing can be out of use for --quiet 2 s" in late.stderr
    assert "two ways out" in app.rotate("--finish", "--abort", code=2).stderr
    for flag in ("--terminate", "--unseen"):
        assert f"{flag} is a part of --finish or --abort" in app.rotate(flag, *app.to_file, code=2).stderr
    assert "is a folder" in app.rotate("--secrets-file", str(app.folder), code=2).stderr
    assert app.roles() == before


@pytest.mark.once
@as_azure
def test_of_two_rotations_at_once_one_hands_a_dsn_over_and_a_later_one_leaves_it_alone(app: App) -> None:
    former = app.uri
    runners = [app.start(*app.to_file) for _ in range(2)]
    outputs = [ended(runner) for runner in runners]
    assert sorted(runner.returncode for runner in runners) == [0, 3], outputs
    before, handed_over = app.roles(), app.uri
    later = app.rotate(*app.to_file, code=3)
    assert "--finish" in later.stderr
    assert "--abort" in later.stderr
    assert app.roles() == before
    assert app.uri == handed_over
    assert (login(former), login(app.uri)) == app.names


# What shows.


@pytest.mark.once
@as_azure
def test_a_plan_writes_nothing_at_any_stage(app: App) -> None:
    for words, told in (((), "would make"), (app.to_file, "was handed over")):
        if words:
            app.rotate(*words)
        before, uri = app.roles(), app.uri
        shown = app.rotate("--plan", *app.to_file)
        assert told in shown.stdout
        assert "nothing was written" in shown.stdout
        assert app.roles() == before
        assert app.uri == uri


@pytest.mark.once
@as_azure
def test_json_is_one_document_for_each_part_and_for_a_refusal(app: App) -> None:
    first, second = app.names

    def document(*words: str, code: int = 0) -> dict[str, Any]:
        loaded = json.loads(app.rotate("--json", *words, code=code).stdout)
        assert isinstance(loaded, dict)
        return loaded

    assert document("--plan").items() >= {"stage": "settled", "in_use": first, "other": second}.items()
    begun = document(*app.to_file)
    assert begun.items() >= {"stage": "handed over", "in_use": first, "other": second}.items()
    assert str(psycopg.conninfo.conninfo_to_dict(app.uri)["password"]) not in json.dumps(begun)
    assert begun["dsn"].startswith(f"postgresql://{second}:****@")
    assert begun["handed_over"] == [f"POSTGRES_DSN in {app.file}"]
    assert begun["next"] == f"invoke rotate --backtest-service-user {first} --finish"
    assert begun["self_test"].keys() == {"tried", "tls"}
    pending = document(*app.to_file, code=3)
    assert pending["exit_code"] == 3
    assert "--finish" in pending["hint"]
    assert document("--finish", *UNSEEN).items() >= {"stage": "settled", "in_use": second, "other": first}.items()
    assert login(document("--emit-secrets")["secrets"]["POSTGRES_DSN"]) == first  # asked for


@pytest.mark.once
@with_gh
@as_azure
def test_the_new_password_shows_in_no_output_and_no_command_line(app: App) -> None:
    real = shutil.which("psql", path=ENV["PATH"])
    seen = app.folder / "seen"
    shim = app.gh.parent / "psql"
    shim.write_text(f"#!/bin/sh\nprintf '%s\\n' \"psql $*\" >>'{seen}'\nexec '{real}' \"$@\"\n")
    shim.chmod(0o755)
    app.gh.write_text(FAKE_GH.replace("\n", f"\nprintf '%s\\n' \"gh $*\" >>'{seen}'\n", 1))

    begun = app.rotate(*app.to_file, *app.to_github)
    password = str(psycopg.conninfo.conninfo_to_dict(app.uri)["password"])
    finished = app.rotate("--finish", *UNSEEN)
    lines = seen.read_text()
    assert f"//{app.names[1]}@" in lines  # the self-test
    assert "gh secret set POSTGRES_DSN" in lines
    assert len(password) == 40
    for text in (lines, begun.stdout, begun.stderr, finished.stdout, finished.stderr):
        assert password not in text
