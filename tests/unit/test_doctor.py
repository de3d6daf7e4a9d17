"""What the checks of `invoke doctor` come to: verdicts out of what was found, without a process."""

from __future__ import annotations

import socket
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts import az, checkup, database, doctor, dotfile, github, hygiene, machine, shell, subscription, workflow
from scripts import dsn as dsns
from scripts import target as targets
from scripts.az import AzError, Permission
from scripts.checkup import Check, Once, State, Verdict
from scripts.clients import Mode
from scripts.database import Seen
from scripts.errors import OpsError
from scripts.failures import classify
from scripts.gh import Gh
from scripts.identities import Place
from scripts.ledger import Facts
from scripts.machine import Programs
from scripts.settings import MIGRATIONS, Sources, Value
from scripts.shell import Result, quoted
from scripts.target import Target
from scripts.wiring import AUDIENCE, ISSUER, Credential, Environment
from tests.effort import grows_with_the_length
from tests.unit import azure

GIB = 1024**3
REMOTE = dsns.parse("postgresql://me:word@db.contoso.com:5432/serving?sslmode=require", "a test")
LOCAL = dsns.parse("postgresql://me:word@127.0.0.1:5432/serving", "a test")


def said(out: str = "", err: str = "", code: int = 0) -> Result:
    return Result(code=code, out=out, err=err)


def goal(text: str) -> Target:
    found = Sources({}, {}, ".env")
    return targets.at(dsns.parse(text, "a test"), "a test", mode=Mode.AUTO, flags=[], found=found)


# What is told.


def check(name: str, *after: str, by_hand: str = "") -> Check:
    return Check(name=name, look=lambda: checkup.ok(""), after=after, by_hand=by_hand)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (checkup.ok("a"), checkup.problem("b", ""), State.PROBLEM),
        (checkup.warning("a"), checkup.problem("b", ""), State.PROBLEM),
        (checkup.problem("a", ""), checkup.problem("b", ""), State.SKIPPED),
        (checkup.problem("a", ""), checkup.ok("b"), State.OK),
        (checkup.unset("a"), checkup.problem("b", ""), State.SKIPPED),
        (checkup.late(check("first"), 1), checkup.problem("b", ""), State.SKIPPED),
        (checkup.late(check("first"), 1), checkup.late(check("second"), 1), State.SKIPPED),
    ],
)
def test_a_check_is_not_told_where_what_it_rests_on_is_not_right(first: Verdict, second: Verdict, told: State) -> None:
    found = checkup.told([check("first"), check("second", "first")], {"first": first, "second": second})
    assert (found["first"], found["second"].state) == (first, told)


def test_what_is_skipped_names_what_is_to_be_mended_first() -> None:
    checks = [check("a"), check("b", "a"), check("c", "b")]
    found = checkup.told(checks, dict.fromkeys("abc", checkup.problem("it", "")))
    assert found["c"].says == "see a"


def test_a_question_is_put_once_however_many_ask() -> None:
    asked = []
    start = threading.Barrier(4)

    def ask() -> int:
        asked.append(1)
        return len(asked)

    once, answers = Once(ask), []

    def one() -> None:
        start.wait()
        answers.append(once())

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (asked, answers) == ([1], [1, 1, 1, 1])


def test_a_failure_is_everybody_s() -> None:
    def ask() -> int:
        raise OpsError("no")

    once = Once(ask)
    for _ in range(2):
        with pytest.raises(OpsError, match="no"):
            once()


def test_one_that_hangs_is_told_as_late_and_the_others_are_there() -> None:
    release = threading.Event()

    def hang() -> Verdict:
        release.wait()
        return checkup.ok("at last")

    checks = [Check(name="slow", look=hang, by_hand="az version"), Check(name="quick", look=lambda: checkup.ok("here"))]
    found = doctor.look(checks, 0.0, ["--env-file other.env"])
    release.set()
    assert found["quick"] == checkup.ok("here")
    assert (found["slow"].state, found["slow"].is_late) == (State.WARNING, True)
    assert found["slow"].mend == "az version; or: invoke doctor --env-file other.env --check-deadline 60"


def test_a_program_that_was_ended_for_its_time_is_late_and_one_that_failed_is_a_problem() -> None:
    def ended() -> Verdict:
        time.sleep(0.05)
        raise OpsError("az did not answer within 0.05 s")

    def failed() -> Verdict:
        raise OpsError("it\n  broke", "mend it")

    found = doctor.look([Check(name="ended", look=ended)], 0.05) | doctor.look([Check(name="failed", look=failed)], 30)
    assert found["ended"].is_late
    assert found["failed"] == checkup.problem("it broke", "mend it")


def test_what_a_command_lists_in_lines_is_told_in_one() -> None:
    listed = OpsError("2 problems with the flags and settings; nothing was done:\n  A: no such\n  B is empty", "mend\nthem")
    verdict = checkup.failed(listed)
    assert (verdict.says, verdict.mend) == ("2 problems with the flags and settings: A: no such; B is empty", "mend them")
    assert checkup.failed(OpsError("h can't be reached:\nno:\n\tIs it up?")).says == "h can't be reached: no: Is it up?"


def test_a_bug_keeps_its_traceback() -> None:
    def bug() -> Verdict:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        doctor.look([Check(name="a", look=bug)], 5)


# This machine.


Usage = namedtuple("Usage", "free")


@pytest.mark.parametrize(("free", "state"), [(5 * GIB, State.OK), (GIB // 2, State.WARNING), (GIB // 10, State.PROBLEM)])
def test_room_on_the_disk(free: int, state: State) -> None:
    assert machine.disk(Path(), Path("none"), lambda _: Usage(free)).state is state


def test_a_folder_that_belongs_to_somebody_else(tmp_path: Path) -> None:
    local = tmp_path / ".local"

    def look(closed: Path | None, *, needed: bool = True) -> Verdict:
        return machine.disk(tmp_path, local, lambda _: Usage(5 * GIB), lambda place: place != closed, needed=needed)

    assert look(tmp_path).state is State.PROBLEM
    (local / "embedded-16").mkdir(parents=True)
    assert look(tmp_path).state is State.OK  # nothing is made there any more
    for closed in (local, local / "embedded-16"):
        verdict = look(closed)
        assert verdict.state is State.PROBLEM
        assert f"you may not write into {closed}" in verdict.says
        assert str(closed) in verdict.mend or shell.WINDOWS
        assert look(closed, needed=False).state is State.WARNING
    assert look(None).state is State.OK


LOCK = """a==1.0 \\
    --hash=sha256:0
b-c==2.1 ; sys_platform == 'win32' \\
    --hash=sha256:0
"""


@pytest.mark.parametrize(
    ("installed", "wrong"),
    [
        ({"a": "1.0"}, ""),
        ({"a": "1.0", "b-c": "2.1"}, ""),
        ({}, "a is missing"),
        ({"a": "1.1"}, "a 1.1 (1.0 is locked)"),
        ({"a": "1.0", "b-c": "2.0"}, "b-c 2.0 (2.1 is locked)"),
    ],
)
def test_packages_against_the_lock(tmp_path: Path, installed: dict[str, str], wrong: str) -> None:
    lock = tmp_path / "runtime.txt"
    lock.write_text(LOCK)
    verdict = machine.python(lock, installed.get)
    assert verdict.state is (State.PROBLEM if wrong else State.OK)
    assert wrong in verdict.says


def test_fix_installs_what_is_locked_and_says_when_it_can_t(tmp_path: Path) -> None:
    lock = tmp_path / "runtime.txt"
    lock.write_text(LOCK)
    calls: list[list[str]] = []

    def run(argv: list[str]) -> Result:
        calls.append(argv)
        return said(err="no network", code=len(calls) - 1)

    mend = machine.python(lock, lambda _: None, run).fix
    assert mend is not None
    assert mend() == "installed what runtime.txt locks"
    assert calls[0][1:] == ["-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(lock)]
    with pytest.raises(OpsError, match="no network"):
        mend()


def in_path(tmp_path: Path, *names: str) -> dict[str, str]:
    for name in names:
        (tmp_path / name).touch(mode=0o755)
    return {"PATH": str(tmp_path)}


@pytest.mark.parametrize(
    ("info", "context", "needed", "state", "says"),
    [
        (said("28.1\n"), said("default\tunix:///var/run/docker.sock\n"), "", State.OK, "engine 28.1 of the context default"),
        (said("28.1\n"), said("far\tssh://me@far.contoso.com\n"), "", State.OK, "on another machine (far.contoso.com)"),
        (said("28.1\n"), said("near\ttcp://localhost:2375\n"), "", State.OK, "engine 28.1 of the context near"),
        (said(err="Cannot connect", code=1), said("default\tx\n"), "", State.WARNING, "no Docker engine answers"),
        (said("\n"), said("default\tx\n"), "", State.WARNING, "no Docker engine answers"),
        (said(err="Cannot connect", code=1), said(), "POSTGRES_DOCKER (.env)", State.PROBLEM, "POSTGRES_DOCKER (.env)"),
    ],
)
def test_docker(tmp_path: Path, info: Result, context: Result, needed: str, state: State, says: str) -> None:
    verdict = machine.docker(in_path(tmp_path, "docker"), lambda argvs, **_: [info, context], needed=needed)
    assert verdict.state is state
    assert says in verdict.says


def test_no_docker_is_no_failure_unless_it_is_asked_for() -> None:
    assert machine.docker({"PATH": ""}, needed="").state is State.UNSET
    assert machine.docker({"PATH": ""}, needed="POSTGRES_DOCKER (.env)").state is State.PROBLEM


def test_programs_are_told_by_what_they_say(tmp_path: Path) -> None:
    replies = [
        said("psql (PostgreSQL) 17.2 (Debian 17.2-1)"),
        said(err='psql: error: sslmode value "require" invalid when SSL support is not compiled in'),
        said("pg_dump (PostgreSQL) 15.4"),
    ]
    found = machine.programs(in_path(tmp_path, "psql", "pg_dump"), lambda argvs, **_: replies)
    assert found == Programs(psql=17, pg_dump=15, has_tls=False)
    assert machine.programs({"PATH": ""}, lambda *_, **__: []) == Programs(psql=None, pg_dump=None)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["psql"], {"psql": "You must install a package"}),
        (["pg_dump"], {"pg_dump": "You must install a package"}),
        (["psql", "pg_dump"], {"psql": "You must install a package", "pg_dump": "You must install a package"}),
    ],
)
def test_a_program_that_doesn_t_run_is_a_problem_as_commands_take_it(
    tmp_path: Path, names: list[str], expected: dict[str, str]
) -> None:
    def run_together(argvs: list[list[str]], **_: Any) -> list[Result]:
        return [said(err="You must install a package\n", code=1) for _ in argvs]

    found = machine.programs(in_path(tmp_path, *names), run_together)
    assert found.broken == expected
    verdicts = {"psql": machine.psql(LOCAL, found, lambda: True), "pg_dump": machine.pg_dump(16, LOCAL, found, lambda: True)}
    for name, verdict in verdicts.items():
        assert verdict.state is (State.PROBLEM if name in names else State.OK)
        assert ("You must install a package" in verdict.says) == (name in names)


NONE = Programs(psql=None, pg_dump=None)
VERIFIED = REMOTE.with_params(sslmode="verify-full", sslrootcert="system")


@pytest.mark.parametrize(
    ("dsn", "found", "docker", "state"),
    [
        (REMOTE, Programs(psql=16, pg_dump=16), False, State.OK),
        (REMOTE, Programs(psql=16, pg_dump=16, has_tls=False), False, State.PROBLEM),
        (LOCAL, Programs(psql=16, pg_dump=16, has_tls=False), False, State.OK),
        (VERIFIED, Programs(psql=15, pg_dump=15), False, State.PROBLEM),
        (VERIFIED, Programs(psql=16, pg_dump=16), False, State.OK),
        (REMOTE, NONE, True, State.OK),
        (REMOTE, NONE, False, State.PROBLEM),
        (LOCAL, NONE, False, State.OK),
        (None, NONE, False, State.OK),
    ],
)
def test_which_psql_reaches_the_database(dsn: dsns.Dsn | None, found: Programs, docker: bool, state: State) -> None:
    assert machine.psql(dsn, found, lambda: docker).state is state


@pytest.mark.parametrize(
    ("dsn", "found", "docker", "state"),
    [
        (REMOTE, Programs(psql=16, pg_dump=16), False, State.OK),
        (REMOTE, Programs(psql=17, pg_dump=17), False, State.OK),
        (REMOTE, Programs(psql=15, pg_dump=16), False, State.WARNING),
        (REMOTE, Programs(psql=16, pg_dump=15), False, State.PROBLEM),
        (REMOTE, NONE, False, State.PROBLEM),
        (REMOTE, Programs(psql=15, pg_dump=15), True, State.OK),
        (LOCAL, Programs(psql=None, pg_dump=15), False, State.OK),
    ],
)
def test_pg_dump_is_never_older_than_the_server(dsn: dsns.Dsn, found: Programs, docker: bool, state: State) -> None:
    assert machine.pg_dump(16, dsn, found, lambda: docker).state is state


# The .env file.

KNOWN = {"POSTGRES_ADMIN_DSN", "POSTGRES_DSN", "AZURE_LOCATION"}


@pytest.mark.parametrize(
    ("text", "state", "says"),
    [
        ("POSTGRES_DSN=x\n# a comment\n\nexport AZURE_LOCATION=y\n", State.OK, "2 keys"),
        ("POSTGRES_DNS=x\n", State.PROBLEM, "line 1: POSTGRES_DNS (did you mean POSTGRES_DSN?)"),
        ("\n\npostgres_dsn=x\n", State.PROBLEM, "line 3: postgres_dsn (did you mean POSTGRES_DSN?)"),
        ("OF_MINE=x\n", State.WARNING, "line 1: OF_MINE"),
        ("POSTGRES_DSN=x\nPOSTGRES_DSN=y\n", State.WARNING, "POSTGRES_DSN (lines 1 and 2)"),
        ("# ok\n!! what\n", State.PROBLEM, "line 2"),
        ("POSTGRES_ADMIN_PASSWORD_OF_MY_SERVER=x\n", State.OK, "1 key,"),
    ],
)
def test_keys_that_nothing_reads(tmp_path: Path, text: str, state: State, says: str) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    verdict = dotfile.keys(path, KNOWN)
    assert verdict.state is state, verdict
    assert says in verdict.says


@pytest.mark.parametrize("line", ["postgresql://me:hunter22@h/d?sslmode=require", "hunter22", "PASSWORD hunter22=1"])
def test_a_line_that_is_no_setting_is_never_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"A=1\n{line}\n")
    verdict = dotfile.keys(path, {"A"})
    assert "hunter22" not in verdict.says + verdict.mend
    assert verdict.state is State.PROBLEM
    assert "line 2" in verdict.says


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("A=größe".encode("latin-1"))
    assert dotfile.keys(path, {"A"}) == checkup.problem(f"{path} isn't UTF-8 text", "save it as UTF-8")


def test_a_file_that_can_t_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)  # no system takes such a name; of one in a folder that nobody may enter, pathlib says the same
    assert dotfile.rights(path).state is State.SKIPPED
    assert dotfile.in_git(path, {}, dotfile.ignore).state is State.SKIPPED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, b"/.env\n"),
        (b"*.pyc", b"*.pyc\n/.env\n"),
        (b"*.pyc\r\n", b"*.pyc\r\n/.env\r\n"),
        (b"# gr\xf6\xdfe\n", b"# gr\xf6\xdfe\n/.env\n"),
    ],
)
def test_a_line_is_added_to_what_git_ignores_and_the_rest_stays(tmp_path: Path, before: bytes | None, after: bytes) -> None:
    if before is not None:
        (tmp_path / ".gitignore").write_bytes(before)
    dotfile.ignore(tmp_path, "/.env")
    assert (tmp_path / ".gitignore").read_bytes() == after


@pytest.mark.parametrize(
    ("mode", "state"), [(0o600, State.OK), (0o400, State.OK), (0o640, State.WARNING), (0o604, State.PROBLEM)]
)
def test_who_can_read_it(tmp_path: Path, mode: int, state: State) -> None:
    path = tmp_path / ".env"
    path.touch()
    path.chmod(mode)
    verdict = dotfile.rights(path, windows=False)
    assert verdict.state is state
    assert dotfile.rights(path, windows=True).state is State.OK
    if verdict.fix:
        verdict.fix()
        assert dotfile.rights(path, windows=False).state is State.OK


# Files that git tracks.

KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYzzzz9876abcd"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("dsn: postgresql://me:hunter2222@db.contoso.com/serving", "a password in a URI"),  # not-a-secret
        ("https://me:hunter2222@git.contoso.com/x.git", "a password in a URI"),  # not-a-secret
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("POSTGRES_ADMIN_PASSWORD=hunter2222", "a password"),
        ("  export GH_TOKEN=hunter2222  # mine", "a password"),
        ("\ufeffPOSTGRES_ADMIN_PASSWORD=hunter2222", "a password"),  # as Windows begins a file
        ("token: ghp_" + KEY[:36], "a token of GitHub"),
        ("AccountKey=" + KEY + "+/==", "a key of an Azure account"),
        ("url?sv=1&sig=" + KEY + "%2F%3D", "a signature of Azure Storage"),
        ("secret = 'abc8Q~" + KEY[:34] + "'", "a client secret of Azure"),
        ("aws: AKIAIOSFODNN7QWERTYU", "a key of AWS"),  # not-a-secret
        (f"SCRAM-SHA-256$4096:{KEY[:24]}${KEY}ab=:{KEY}cd=", "a password's verifier"),
        ("dsn: postgresql://me:hunter2222@db.contoso.com/serving  # not-a-secret", None),
        ("dsn: postgresql://USER:PASSWORD@SERVER.postgres.database.azure.com/d", None),
        ("dsn: postgresql://me:<password>@db.contoso.com/d", None),
        ("dsn: postgresql://me:${PASSWORD}@db.contoso.com/d", None),
        ("-postgresql://me:hunter2222@db.contoso.com/d", "a password in a URI"),  # not-a-secret
        ("dsn: postgresql://me:hunter2222@localhost/d", None),
        ("dsn: postgresql://me:hunter2222@db.example.com/d", None),
        ("dsn: postgresql://me:hunter2222@db/d", None),
        ("POSTGRES_ADMIN_PASSWORD=a long one", None),
        ("POSTGRES_ADMIN_PASSWORD=${{ secrets.X }}", None),
        ("aws: AKIAIOSFODNN7EXAMPLE", None),
        ("ghp_" + "x" * 36, None),
        ('text = "-----BEGIN PRIVATE KEY-----" + rest', None),
        ("https://contoso.com/a:b@c", None),
    ],
)
def test_what_looks_like_a_secret(line: str, kind: str | None) -> None:
    assert hygiene.kind_of(line) == kind


@pytest.mark.parametrize("word", ["a", "A.-+", "PASSWORD", "://a:", "-----BEGIN ", "ghp_", "AKIA", "a:b@"])
def test_a_long_line_is_looked_at_in_a_time_that_grows_with_its_length(word: str) -> None:
    assert grows_with_the_length(hygiene.kind_of, word)


# The database.


@pytest.mark.parametrize(
    ("error", "host", "says", "mend"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "db.contoso.com",
            "isn't known here",
            "mend the host's name in a test",
        ),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "db.contoso.com",
            "isn't known here",
            "see that this machine is on the network",
        ),
        (TimeoutError(), "s.postgres.database.azure.com", "doesn't answer", "invoke provision --allow-current-ip"),
        (TimeoutError(), "db.contoso.com", "doesn't answer", "firewall"),
        (ConnectionRefusedError(), "db.contoso.com", "nothing listens", "start the server"),
        (OSError(101, "Network is unreachable"), "db.contoso.com", "Network is unreachable", "a test"),
        (UnicodeError("label empty or too long"), "db..contoso.com", "can't be the name of a host", "mend it in a test"),
    ],
)
def test_a_host_that_can_t_be_reached(error: OSError | UnicodeError, host: str, says: str, mend: str) -> None:
    def connect(*_: Any, **__: Any) -> Any:
        raise error

    verdict = database.host(goal(f"postgresql://me:word@{host}:5432/d?sslmode=require"), 1, connect)
    assert verdict.state is State.PROBLEM
    assert says in verdict.says
    assert mend in verdict.mend


@pytest.mark.parametrize("host", ["db..contoso.com", f"{'x' * 64}.contoso.com"])
def test_what_python_itself_says_of_a_name_that_is_none(host: str) -> None:
    assert "can't be the name" in database.host(goal(f"postgresql://me:word@{host}:5432/d?sslmode=require"), 1).says


def test_one_of_several_hosts_suffices() -> None:
    def connect(address: tuple[str, int], *, timeout: float) -> Any:
        if address[0] == "a.contoso.com":
            raise ConnectionRefusedError
        assert address == ("b.contoso.com", 5433)
        return socket.socket()

    dsn = "postgresql://me:word@a.contoso.com:5432,b.contoso.com:5433/d?sslmode=require"
    assert database.host(goal(dsn), 1, connect) == checkup.ok("b.contoso.com:5433 answers")


@pytest.mark.parametrize(
    ("hosts", "addresses"),
    [
        ("a.contoso.com,b.contoso.com", [("a.contoso.com", 5432), ("b.contoso.com", 5432)]),
        ("a.contoso.com:5433,b.contoso.com", [("a.contoso.com", 5433), ("b.contoso.com", 5432)]),
    ],
)
def test_a_host_without_a_port_has_the_usual_one(hosts: str, addresses: list[tuple[str, int]]) -> None:
    tried: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *, timeout: float) -> Any:
        tried.append(address)
        raise ConnectionRefusedError

    assert database.host(goal(f"postgresql://me:word@{hosts}/d?sslmode=require"), 1, connect).state is State.PROBLEM
    assert tried == addresses


def seen(**changes: Any) -> Seen:
    facts = Facts(version="16.4", number=160004, database="d", user="me", ledger=True, current=True, group=None, member=False)
    base: dict[str, Any] = {
        "facts": facts,
        "rows": [],
        "ahead": 0.0,
        "tls": True,
        "replica": False,
        "connections": 32,
        "used": 5,
        "limits": {},
        "pooled": None,
    }
    return Seen(**{**base, **changes})


@pytest.mark.parametrize(
    ("ahead", "state", "says"),
    [
        (0.3, State.OK, "agree"),
        (-20.0, State.WARNING, "20 s behind"),
        (20.0, State.WARNING, "20 s ahead of"),
        (-400.0, State.PROBLEM, "400 s behind"),
    ],
)
def test_clocks(ahead: float, state: State, says: str) -> None:
    verdict = database.clock(seen(ahead=ahead))
    assert verdict.state is state
    assert says in verdict.says


@pytest.mark.parametrize(
    ("changes", "state", "says"),
    [
        ({}, State.OK, "5 of 32"),
        ({"used": 30}, State.WARNING, "30 of 32"),
        ({"limits": {"a": 20, "b": 20}}, State.WARNING, "add up to 40"),
    ],
)
def test_connections(changes: dict[str, Any], state: State, says: str) -> None:
    verdict = database.connections(seen(**changes), "")
    assert verdict.state is state
    assert says in verdict.says


def test_a_replica_takes_no_migration() -> None:
    me = goal("postgresql://me:word@db.contoso.com/d?sslmode=require")
    assert database.login(seen(), me).state is State.OK
    assert database.login(seen(replica=True), me).state is State.PROBLEM


@pytest.mark.parametrize(
    ("user", "mend"),
    [
        ("me", 'an administrator runs: GRANT "serving_owner" TO "me" WITH INHERIT TRUE, SET TRUE;'),
        (
            "backtest_service",
            "a test is the application's DSN: put an administrator's into POSTGRES_ADMIN_DSN, then: invoke doctor",
        ),
    ],
)
def test_who_may_not_migrate_is_told_so_and_the_application_gets_no_rights_for_it(user: str, mend: str) -> None:
    facts = replace(seen().facts, user=user, group="serving_owner")
    verdict = database.login(seen(facts=facts), goal(f"postgresql://{user}:word@db.contoso.com/d?sslmode=require"))
    assert (verdict.state, verdict.mend) == (State.WARNING, mend)
    assert (
        database.login(seen(facts=replace(facts, member=True)), goal(f"postgresql://{user}:word@localhost/d")).state is State.OK
    )


def test_a_ledger_that_may_not_be_read_is_a_warning() -> None:
    verdict = database.migrations(seen(rows=None), MIGRATIONS, lambda words: f"invoke {words}")
    assert (verdict.state, verdict.mend) == (State.WARNING, "put an administrator's DSN into POSTGRES_ADMIN_DSN")


def dsn_value(query: str, host: str = "db.contoso.com:5432") -> Value:
    return Value(f"postgresql://me:word@{host}/d?{query}", "POSTGRES_ADMIN_DSN (.env)")


@pytest.mark.parametrize(
    ("value", "state", "says"),
    [
        (dsn_value("sslmode=require"), State.OK, "not verified"),
        (dsn_value("sslmode=verify-full&sslrootcert=system"), State.OK, "is verified"),
        (dsn_value("sslmode=verify-full"), State.PROBLEM, "root.crt"),
        (dsn_value("sslmode=require", "db.contoso.com:6432"), State.WARNING, "6432"),
        (dsn_value("sslmode=require", "s.postgres.database.azure.com:6432"), State.PROBLEM, "pooler of Azure"),
    ],
)
def test_the_text_of_a_dsn(tmp_path: Path, value: Value, state: State, says: str) -> None:
    verdict = database.text(value, tmp_path)
    assert verdict.state is state
    assert says in verdict.says
    assert "word" not in verdict.says


def test_roots_hold_a_certificate(tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    value = dsn_value(f"sslmode=verify-full&sslrootcert={file}")
    file.write_text("nothing")
    assert "hold no certificate" in database.text(value, tmp_path).says
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    assert database.text(value, tmp_path).state is State.OK


def test_with_a_file_of_roots_require_verifies_as_well(tmp_path: Path) -> None:
    assert "is not verified" in database.text(dsn_value("sslmode=require"), tmp_path).says
    for name, more in (("roots.pem", f"&sslrootcert={tmp_path / 'roots.pem'}"), (".postgresql/root.crt", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----\n")
        assert "is verified" in database.text(dsn_value(f"sslmode=require{more}"), tmp_path).says


def test_roots_that_are_not_there_are_a_warning_with_require(tmp_path: Path) -> None:
    file = tmp_path / "none.pem"
    verdict = database.text(dsn_value(f"sslmode=require&sslrootcert={file}"), tmp_path)
    assert verdict.state is State.WARNING
    assert f"{file} isn't there, so libpq doesn't verify the server's certificate" in verdict.says
    assert "sslmode=verify-full" in verdict.mend


@pytest.mark.parametrize("mode", ["require", "verify-ca"])
def test_the_system_s_roots_go_with_verify_full_alone(tmp_path: Path, mode: str) -> None:
    verdict = database.text(dsn_value(f"sslmode={mode}&sslrootcert=system"), tmp_path)
    assert (verdict.state, verdict.mend) == (State.PROBLEM, "put sslmode=verify-full into POSTGRES_ADMIN_DSN (.env)")
    assert "sslmode=verify-full" in database.text(dsn_value("sslrootcert=system", "localhost:5432"), tmp_path).says


def test_the_application_and_the_administrator_in_two_databases(tmp_path: Path) -> None:
    app = Value("postgresql://app:word@a.contoso.com:5432/d?sslmode=require", "POSTGRES_DSN (.env)")
    verdict = database.application(app, ["app"], dsn_value("sslmode=require"), tmp_path, "invoke roles --secrets-file .env")
    assert verdict.state is State.WARNING
    assert "different databases" in verdict.says
    assert verdict.mend.endswith("for a new password: invoke roles --secrets-file .env")
    another = Value("postgresql://app:word@db.contoso.com:5433/d?sslmode=require", "POSTGRES_DSN (.env)")
    assert database.application(another, ["app"], dsn_value("sslmode=require"), tmp_path, "").state is State.WARNING
    usual = Value("postgresql://app:word@db.contoso.com/d?sslmode=require", "POSTGRES_DSN (.env)")
    assert database.application(usual, ["app"], dsn_value("sslmode=require"), tmp_path, "").state is State.OK
    same = Value("postgresql://app:word@db.contoso.com:6432/d?sslmode=require", "POSTGRES_DSN (.env)")
    assert database.application(same, ["app"], dsn_value("sslmode=require"), tmp_path, "").state is State.OK


def test_a_role_of_another_name_is_named_by_a_setting_as_doctor_has_no_flag_for_it(tmp_path: Path) -> None:
    with pytest.raises(OpsError) as refused:
        database.application(dsn_value("sslmode=require"), ["app", "app_b"], None, tmp_path, "")
    assert refused.value.hint.endswith(", or POSTGRES_BACKTEST_SERVICE_USER")


# Azure.


@pytest.mark.parametrize(
    ("permissions", "given"),
    [
        ([Permission(("*",))], True),
        ([Permission(("Microsoft.DBforPostgreSQL/*",))], True),
        ([Permission(("microsoft.dbforpostgresql/flexibleservers/WRITE",))], True),
        ([Permission(("*/read",))], False),
        ([Permission(("*",), ("*/write",))], False),
        ([Permission(("*",), ("*/write",)), Permission(("*",))], True),
        ([], False),
    ],
)
def test_what_a_role_gives(permissions: list[Permission], given: bool) -> None:
    action = "Microsoft.DBforPostgreSQL/flexibleServers/write"
    assert any(subscription.gives(permission, action) for permission in permissions) is given


def test_what_an_owner_runs_can_be_pasted_whatever_the_group_is_called() -> None:
    wanted = replace(azure.wanted(), group="serving(prod)-rg")
    verdict = subscription.rights(lambda _: [], wanted, lambda: None)
    assert verdict.state is State.PROBLEM
    assert f"--scope {quoted(f'/subscriptions/{wanted.subscription}/resourceGroups/serving(prod)-rg')} " in verdict.mend


def refusing(text: str) -> Callable[[Any], Any]:
    def ask(_: Any) -> Any:
        raise AzError(classify(text, 1))

    return ask


def test_an_answer_about_the_server_proves_the_login() -> None:
    def never(_: Any) -> Any:
        raise AssertionError

    assert subscription.login(never, "S", lambda: None).state is State.OK

    def refuse(text: str) -> Callable[[], Any]:
        return lambda: refusing(text)(None)

    assert subscription.login(never, "S", refuse("Please run 'az login'")).state is State.PROBLEM
    assert subscription.login(never, "S", refuse("AuthorizationFailed")).state is State.OK  # whose right it is, `rights` says
    assert subscription.login(refusing("Please run 'az login'"), None, None).state is State.UNSET


def test_a_region_is_passed_over_for_the_next() -> None:
    offers = {"eastus2": azure.region(restricted="restricted: no"), "westus2": azure.region("westus2")}
    asked: list[str] = []

    def ask(question: Any) -> Any:
        asked.append(question.words[4])
        return offers[question.words[4]]

    verdict = subscription.region(ask, azure.wanted(), lambda: None, lambda: True)
    assert verdict.state is State.WARNING
    assert verdict.says == "westus2 offers standard_b1ms, PostgreSQL 16; eastus2: restricted: no"
    asked.clear()
    offers["eastus2"] = azure.region()
    assert subscription.region(ask, azure.wanted(), lambda: None, lambda: True).state is State.OK
    assert asked == ["eastus2"]


def test_nothing_is_asked_of_a_subscription_that_isn_t_registered() -> None:
    def never(_: Any) -> Any:
        raise AssertionError

    for look in (subscription.region, subscription.server_name):
        assert look(never, azure.wanted(), lambda: None, lambda: False) == checkup.skipped("see provider")


def test_an_old_az_is_a_problem_where_it_is_needed() -> None:
    assert subscription.version(lambda _: (2, 60, 0), needed=True).state is State.PROBLEM
    assert subscription.version(lambda _: (2, 60, 0), needed=False).state is State.WARNING
    assert subscription.version(lambda _: (2, 87, 1), needed=True) == checkup.ok("azure-cli 2.87.1")


def test_the_questions_in_az_s_words() -> None:
    name, rights = az.name_is_free(azure.wanted()), az.permissions(azure.wanted())
    assert name.words[:3] == ("rest", "--method", "post")
    assert name.parse('{"nameAvailable": false, "reason": "AlreadyExists"}') is False
    assert rights.words[:3] == ("rest", "--method", "get")
    assert rights.parse('{"value": [{"actions": ["*"], "notActions": ["*/write"]}, {}]}') == (
        Permission(("*",), ("*/write",)),
        Permission(()),
    )


def test_the_next_command_is_for_the_same_settings(tmp_path: Path) -> None:
    """Without its --env-file it would go by `.env`, and set up something else."""
    flags = "--env-file other.env"

    def nowhere() -> tuple[str, str]:
        raise OpsError("GitHub can't be asked: no git remotes found")

    def silent(*_: Any, **__: Any) -> Any:
        raise TimeoutError

    azure_dsn = "postgresql://me:word@s.postgres.database.azure.com:5432/d?sslmode=require"
    verdicts = [
        database.connections(seen(limits={"a": 20, "b": 20}), flags),
        database.host(replace(goal(azure_dsn), flags=flags), 1, silent),
        subscription.server_name(lambda _: True, azure.wanted(), lambda: None, lambda: True, flags),
        subscription.rights(lambda _: None, azure.wanted(), lambda: None, flags),
        workflow.login(Gh(in_path(tmp_path, "gh")), nowhere, leads_to_github=True, flags=flags),
        workflow.environment(None, flags),
        workflow.environment(Environment(has_policies=True), flags),
        workflow.subject("repo:o/r", PLACE, lambda _: None, flags),
        workflow.subject("repo:o/r", PLACE, lambda _: (), flags),
    ]
    for verdict in verdicts:
        assert verdict.mend.count("invoke ") == verdict.mend.count(flags) > 0, verdict.mend


# GitHub.


def gh_login(tmp_path: Path, message: str | None, *, leads: bool) -> State:
    def repository() -> tuple[str, str]:
        if message is not None:
            raise OpsError(message)
        return "o/r", "repo:o/r"

    return workflow.login(Gh(in_path(tmp_path, "gh")), repository, leads_to_github=leads).state


def test_a_login_of_gh_is_wanted_where_something_leads_to_github(tmp_path: Path) -> None:
    out = "GitHub can't be asked: To get started with GitHub CLI, please run:  gh auth login"
    assert gh_login(tmp_path, None, leads=True) is State.OK
    assert gh_login(tmp_path, out, leads=True) is State.PROBLEM
    assert gh_login(tmp_path, out, leads=False) is State.UNSET
    assert gh_login(tmp_path, "GitHub can't be asked: no git remotes found", leads=False) is State.UNSET
    with pytest.raises(OpsError):
        gh_login(tmp_path, "there is no repository of this folder in GitHub", leads=True)
    assert workflow.login(Gh({"PATH": ""}), lambda: ("", ""), leads_to_github=True).state is State.UNSET


def test_an_environment_that_lacks_something_is_a_warning() -> None:
    assert workflow.environment(None).state is State.UNSET
    assert "lacks POSTGRES_ADMIN_DSN, AZURE_CLIENT_ID" in workflow.environment(Environment(has_policies=True)).says
    names = dict.fromkeys((entry.name for entry in github.ALWAYS), "v") | {"POSTGRES_FROM_KEY_VAULT": "on"}
    whole = {"variables": names | {"POSTGRES_DSN_SECRET_URL": "u"}, "secrets": frozenset({"POSTGRES_ADMIN_DSN"})}
    assert workflow.environment(Environment(has_policies=True, **whole)).state is State.OK  # type: ignore[arg-type]
    assert "may deploy" in workflow.environment(Environment(has_policies=False, **whole)).says  # type: ignore[arg-type]


PLACE = Place(name="github-deploy", group="rg", subscription="S")
SUBJECT = "repo:o/r:environment:production"


@pytest.mark.parametrize(
    ("credentials", "state"),
    [
        (None, State.UNSET),
        ((), State.PROBLEM),
        ((Credential("a", ISSUER, SUBJECT, (AUDIENCE,)),), State.OK),
        ((Credential("a", ISSUER, f"{SUBJECT.lower()}s", (AUDIENCE,)), Credential("b", ISSUER, SUBJECT, (AUDIENCE,))), State.OK),
        ((Credential("a", ISSUER, SUBJECT.replace("o/r", "O/r"), (AUDIENCE,)),), State.PROBLEM),
        ((Credential("a", ISSUER, SUBJECT, ("api://other",)),), State.PROBLEM),
    ],
)
def test_the_subject_is_compared_to_the_letter(credentials: Any, state: State) -> None:
    assert workflow.subject("repo:o/r", PLACE, lambda _: credentials).state is state


def test_where_the_identity_stands_is_taken_from_the_settings_before_github_s_own() -> None:
    there = Environment(has_policies=True, variables={"AZURE_SUBSCRIPTION_ID": "T", "AZURE_RESOURCE_GROUP": "theirs"})
    assert workflow.place({"AZURE_SUBSCRIPTION_ID": "S", "AZURE_RESOURCE_GROUP": "rg"}, there) == PLACE
    assert workflow.place({}, there) == Place(name="github-deploy", group="theirs", subscription="T")
    assert workflow.place({"AZURE_SUBSCRIPTION_ID": "S"}, there) == workflow.place({}, there), "a group is one subscription's"
    assert workflow.place({"AZURE_SUBSCRIPTION_ID": "S"}, None) is workflow.place({}, None) is None
    assert workflow.subject("repo:o/r", None, lambda _: None).state is State.UNSET
