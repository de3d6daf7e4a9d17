"""Where a DSN goes: what is refused before there is one, the dotenv file byte for byte, and the exact words for gh."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scripts import dsn as dsns
from scripts import handover, settings, shell
from scripts.console import Console
from scripts.dsn import Dsn
from scripts.errors import ExitCode, OpsError, UsageError
from scripts.handover import Destinations, set_in_file
from scripts.secret import Secret
from scripts.settings import APP_DSN
from tests.unit.azure import program_in

PASSWORD = ":/@%#?&'\"\\$ =ü密🔑"
PARAMS = {"user": "me", "host": "db.example.com", "port": "5432", "dbname": "d b", "sslmode": "require"}
DSN = Dsn(PARAMS, Secret(PASSWORD))
URI = DSN.uri().reveal()
LINE = f"{APP_DSN}={URI}"


@dataclass
class Gh:
    """A gh that answers by its verb."""

    answers: Mapping[str, shell.Result] = field(default_factory=dict)
    calls: list[tuple[list[str], bytes]] = field(default_factory=list)
    envs: list[dict[str, str]] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout: float) -> shell.Result:
        self.calls.append((list(argv), stdin))
        self.envs.append(dict(env))
        self.timeouts.append(timeout)
        return self.answers.get(argv[2], shell.Result(code=0, out="", err=""))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH leads to a program called gh, which no unit test starts."""
    (tmp_path / "bin").mkdir()
    return {
        "PATH": str(program_in(tmp_path / "bin", "gh").parent),
        "HOME": "/home/me",
        "POSTGRES_DSN": URI,
        "PGPASSWORD": PASSWORD,
    }


def failed(said: str, code: int = 1) -> shell.Result:
    return shell.Result(code=code, out="", err=said)


def console(*, as_json: bool = False) -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    made = Console(as_json=as_json, out=out, err=err)
    made.conceal(DSN.password, DSN.uri())
    return made, out, err


def set_in(path: Path, before: bytes) -> bytes:
    path.write_bytes(before)
    set_in_file(path, APP_DSN, DSN.uri())
    return path.read_bytes()


# The dotenv file.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"{line}\n"),
        (b"A=1\n", b"A=1\n{line}\n"),
        (b"A=1", b"A=1\n{line}\n"),
        (b"A=1\r\nB=2", b"A=1\r\nB=2\r\n{line}\r\n"),
        (b"A=1\n\n\n", b"A=1\n\n\n{line}\n"),
        (b"POSTGRES_DSN=old", b"{line}\n"),
        (b"A=1\nPOSTGRES_DSN=old\nB=2\n", b"A=1\n{line}\nB=2\n"),
        (b"A=1\r\nPOSTGRES_DSN=old\r\nB=2\r\n", b"A=1\r\n{line}\r\nB=2\r\n"),
        (b"# a\n\n  export   POSTGRES_DSN = 'old'\n\n# b", b"# a\n\n  export   {line}\n\n# b"),
        (b"POSTGRES_DSN\nA=1\n", b"{line}\nA=1\n"),
        (b'POSTGRES_DSN="of\ntwo lines"\nA=1\n', b"{line}\nA=1\n"),
        (b"POSTGRES_DSN=1\n# a\n\n\n POSTGRES_DSN=2\n\nB=2\nPOSTGRES_DSN=3\n", b"{line}\n# a\n\n\n\nB=2\n"),
        (b"#POSTGRES_DSN=commented\n", b"#POSTGRES_DSN=commented\n{line}\n"),
        (b"MY_POSTGRES_DSN=x\nPOSTGRES_DSN_2=y\n", b"MY_POSTGRES_DSN=x\nPOSTGRES_DSN_2=y\n{line}\n"),
        (b"A='x\nPOSTGRES_DSN=inside\n'\n", b"A='x\nPOSTGRES_DSN=inside\n'\n{line}\n"),
        (b"A=\"b # c\"  # d\nB='$x' \nC=\n\t\n", b"A=\"b # c\"  # d\nB='$x' \nC=\n\t\n{line}\n"),
        (b"\xef\xbb\xbfPOSTGRES_DSN=old\nA=1\n", b"\xef\xbb\xbf{line}\nA=1\n"),
        (b"\xef\xbb\xbfA=1\n", b"\xef\xbb\xbfA=1\n{line}\n"),
        (b"=\nno key at all!\n'\n", b"=\nno key at all!\n'\n{line}\n"),
        ("GRÖSSE=密\n".encode(), "GRÖSSE=密\n{line}\n".encode()),
    ],
)
def test_the_key_is_set_and_every_other_byte_stays(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / ".env"
    assert set_in(path, before) == after.replace(b"{line}", LINE.encode())
    assert dotenv_values(path)[APP_DSN] == URI


lines = st.sampled_from(
    [
        *("A=1", "export B='two'", 'C="three\nlines\nlong"', "D='it''s' # no", "# comment", "", "   ", "\t# POSTGRES_DSN=no"),
        *("POSTGRES_DSN=old", " export POSTGRES_DSN='old'", "POSTGRES_DSN", 'POSTGRES_DSN="a\nb"', "E"),
        *("F=${A}", "junk !", "G=a=b"),
    ]
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(lines, st.sampled_from(["\n", "\r\n"]))), st.booleans(), st.text(min_size=1, max_size=20))
def test_the_value_is_read_back_and_the_others_are_what_they_were(
    tmp_path: Path, content: list[tuple[str, str]], ended: bool, password: str
) -> None:
    path = tmp_path / ".env"
    text = "".join(line + end for line, end in content)
    before = (text if ended else text.rstrip("\r\n")).encode()
    path.write_bytes(before)
    others = {key: value for key, value in dotenv_values(path, interpolate=False).items() if key != APP_DSN}
    value = Dsn(PARAMS, Secret(password)).uri()
    set_in_file(path, APP_DSN, value)
    once = path.read_bytes()
    found = dotenv_values(path)
    assert found.pop(APP_DSN) == value.reveal()
    assert others == {key: value for key, value in dotenv_values(path, interpolate=False).items() if key != APP_DSN}
    assert once.count(f"{APP_DSN}={value.reveal()}".encode()) == 1
    set_in_file(path, APP_DSN, value)
    assert path.read_bytes() == once


def test_a_new_file_holds_the_key_alone(tmp_path: Path) -> None:
    set_in_file(tmp_path / "new.env", APP_DSN, DSN.uri())
    assert (tmp_path / "new.env").read_bytes() == f"{LINE}\n".encode()


@pytest.mark.skipif(shell.WINDOWS, reason="Windows has no mode bits")
@pytest.mark.parametrize("mode", [0o644, 0o666, 0o600, None])
def test_only_its_owner_can_read_the_file(tmp_path: Path, mode: int | None) -> None:
    path = tmp_path / ".env"
    if mode is not None:
        path.touch()
        path.chmod(mode)
    set_in_file(path, APP_DSN, DSN.uri())
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shell.WINDOWS, reason="making a symbolic link needs a right of its own on Windows")
@pytest.mark.parametrize("relative", [True, False])
def test_the_file_behind_a_symbolic_link_is_written_and_the_link_stays(tmp_path: Path, relative: bool) -> None:
    real, link = tmp_path / "real" / "secrets", tmp_path / ".env"
    real.parent.mkdir()
    real.write_text("A=1\n")
    link.symlink_to(Path("real/secrets") if relative else real)
    set_in_file(link, APP_DSN, DSN.uri())
    assert link.is_symlink()
    assert real.read_text() == f"A=1\n{LINE}\n"
    assert sorted(tmp_path.rglob("*")) == [link, real.parent, real]


def test_what_cannot_be_written_says_so_and_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)  # no room for a second file's longer name beside it
    path.write_text("A=1\n")
    with pytest.raises(OpsError, match="can't be written: File name too long") as caught:
        set_in_file(path, APP_DSN, DSN.uri())
    assert caught.value.exit_code is ExitCode.FAILED
    assert path.read_text() == "A=1\n"
    assert list(tmp_path.iterdir()) == [path]


# What is refused before there is a DSN.


def problem(destinations: Destinations) -> tuple[str, int]:
    with pytest.raises(OpsError) as caught:
        destinations.check()
    assert PASSWORD not in caught.value.message + caught.value.hint
    return caught.value.message, caught.value.exit_code


def test_a_folder_a_missing_folder_and_what_is_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("A=größe".encode("latin-1"))
    for path, expected in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none" / ".env", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path / "latin", "isn't UTF-8 text"),
        (tmp_path / "latin" / ".env", f"there is no folder {tmp_path / 'latin'}"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        message, code = problem(Destinations(secrets_file=path, env={}))
        assert expected in message
        assert message.startswith(f"--secrets-file {path}")
        assert code == ExitCode.USAGE


@pytest.mark.skipif(shell.WINDOWS, reason="making a symbolic link needs a right of its own on Windows")
def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "astray").symlink_to(tmp_path / "none" / "secrets")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, reason in (
        ("astray", f"there is no folder {tmp_path / 'none'}"),
        ("circle", "its symbolic links lead round in a circle"),
    ):
        message, code = problem(Destinations(secrets_file=tmp_path / name, env={}))
        assert (message, code) == (f"--secrets-file {tmp_path / name}: {reason}", ExitCode.USAGE)


@pytest.mark.skipif(shell.WINDOWS, reason="Windows has no pipes in folders")
def test_what_is_no_regular_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    message, code = problem(Destinations(secrets_file=tmp_path / "pipe", env={}))
    assert (message, code) == (f"--secrets-file {tmp_path / 'pipe'}: it is no regular file", ExitCode.USAGE)


def test_a_check_of_a_file_changes_nothing(tmp_path: Path) -> None:
    Destinations(secrets_file=tmp_path / "new", env={}).check()
    (tmp_path / ".env").write_text("A=1\n")
    Destinations(secrets_file=tmp_path / ".env", env={}).check()
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


@pytest.mark.parametrize("name", ["POSTGRES_DSN", "_", "a1_b2", "GITHUBX", "MY_GITHUB_X"])
def test_github_takes_a_name(name: str, env: dict[str, str]) -> None:
    gh = Gh()
    Destinations(github_secret=name, env=env, run=gh).check()
    assert len(gh.calls) == 1


@pytest.mark.parametrize("name", ["1A", "A-B", "A B", "GITHUB_X", "github_x", "--help", "Ä", "\u017f", "\u212a", "A\n", "A=B"])
def test_github_does_not_take_a_name_and_gh_is_not_asked(name: str, env: dict[str, str]) -> None:
    gh = Gh()
    message, code = problem(Destinations(github_secret=name, env=env, run=gh))
    assert "no name that begins with GITHUB_" in message
    assert (code, gh.calls) == (ExitCode.USAGE, [])


@pytest.mark.parametrize(("environment", "repo"), [("prod", None), (None, "o/r")])
def test_where_a_secret_is_says_nothing_without_a_secret(environment: str | None, repo: str | None) -> None:
    message, code = problem(Destinations(emit=True, github_environment=environment, repo=repo, env={}))
    assert "say where --github-secret is" in message
    assert code == ExitCode.USAGE


def test_a_missing_gh_is_said_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the gh command, which is not on PATH") as caught:
        Destinations(github_secret="X", env={"PATH": str(tmp_path)}, run=Gh()).check()
    assert "https://cli.github.com" in caught.value.hint


@pytest.mark.parametrize("flag", ["secrets_file", "github_secret", "github_environment", "repo"])
def test_an_empty_flag_is_no_missing_flag(flag: str) -> None:
    flags = {
        "emit_secrets": False,
        **dict.fromkeys(("secrets_file", "github_secret", "github_environment", "repo", "key_vault", "secret_name")),
    }
    with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')} is empty"):
        handover.destinations({**flags, flag: ""}, env={})


# The words for gh.


@pytest.mark.parametrize(
    ("environment", "repo", "words", "place"),
    [
        (None, None, [], "the GitHub secret X"),
        (None, "o/r", ["--repo=o/r"], "the GitHub secret X in o/r"),
        ("prod", None, ["--env=prod"], "the GitHub secret X of the environment prod"),
        ("-e", "o/r", ["--env=-e", "--repo=o/r"], "the GitHub secret X of the environment -e in o/r"),
    ],
)
def test_gh_is_given_the_value_on_its_standard_input_alone(
    env: dict[str, str], environment: str | None, repo: str | None, words: list[str], place: str
) -> None:
    gh, (screen, out, err) = Gh(), console()
    destinations = Destinations(github_secret="X", github_environment=environment, repo=repo, env=env, run=gh)
    destinations.check()
    assert gh.calls == [(["gh", "secret", "list", *words], b"")]
    assert list(destinations.deliver(DSN, screen)) == [place]
    assert gh.calls[1:] == [(["gh", "secret", "set", "X", *words], URI.encode())]
    assert gh.envs == [{"PATH": env["PATH"], "HOME": "/home/me", "GH_PROMPT_DISABLED": "1"}] * 2
    assert all(0 < timeout < float("inf") for timeout in gh.timeouts)
    assert out.getvalue() + err.getvalue() == ""


@pytest.mark.parametrize(("said", "shown"), [("gh: Not Found (HTTP 404)\n", "gh: Not Found (HTTP 404)"), ("", "gh ended with 4")])
def test_what_gh_refuses_is_said_with_the_way_out(env: dict[str, str], said: str, shown: str) -> None:
    gh = Gh({"list": failed(said, 4)})
    with pytest.raises(OpsError) as caught:
        Destinations(github_secret="X", repo="o/r", env=env, run=gh).check()
    assert caught.value.message == f"the GitHub secret X in o/r can't be reached: {shown}"
    assert "gh auth login" in caught.value.hint
    assert caught.value.exit_code is ExitCode.FAILED


def test_what_gh_says_of_the_value_is_not_shown(env: dict[str, str]) -> None:
    screen, out, err = console()
    gh = Gh({"set": failed(f"failed to set {URI}: {PASSWORD}")})
    with pytest.raises(OpsError) as caught:
        list(Destinations(github_secret="X", env=env, run=gh).deliver(DSN, screen))
    screen.failure(caught.value)
    assert err.getvalue().startswith("error: the GitHub secret X can't be written: failed to set ****: ****\nnext:  gh auth ")
    assert out.getvalue() == ""


# Everywhere at once.


def test_a_dsn_goes_to_every_place_that_is_named(tmp_path: Path, env: dict[str, str]) -> None:
    screen, out, _ = console()
    gh = Gh()
    destinations = Destinations(
        emit=True, secrets_file=tmp_path / ".env", github_secret="X", app_file=tmp_path / "app.env", env=env, run=gh
    )
    assert list(destinations.deliver(DSN, screen)) == [
        f"POSTGRES_DSN in {tmp_path / 'app.env'}",
        f"POSTGRES_DSN in {tmp_path / '.env'}",
        "the GitHub secret X",
        "this terminal",
    ]
    assert (tmp_path / ".env").read_text() == (tmp_path / "app.env").read_text() == f"{LINE}\n"
    assert out.getvalue() == f"{LINE}\n"


def test_the_flags_lead_to_the_same_places_again(tmp_path: Path) -> None:
    destinations = Destinations(
        emit=True, secrets_file=Path("a b.env"), github_secret="X", github_environment="p q", repo="o/r", env={}
    )
    assert list(destinations.flags()) == [
        "--emit-secrets",
        f"--secrets-file {shell.quoted('a b.env')}",
        "--github-secret X",
        f"--github-environment {shell.quoted('p q')}",
        "--repo o/r",
    ]
    assert bool(destinations)
    assert not Destinations(env={})
    assert not list(Destinations(app_file=tmp_path, env={}).flags())


def test_a_push_that_leads_nowhere_says_where_it_could(tmp_path: Path) -> None:
    screen, _, _ = console()
    with pytest.raises(UsageError, match="nothing says where the DSN goes") as caught:
        handover.push(DSN, Destinations(app_file=tmp_path / "app.env", env={}), screen)
    assert "--secrets-file PATH, --github-secret POSTGRES_DSN or --emit-secrets" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_github_is_not_given_an_address_of_this_machine_without_a_word(env: dict[str, str]) -> None:
    screen, out, err = console()
    handover.push(DSN, Destinations(github_secret="X", env=env, run=Gh()), screen)
    assert err.getvalue() == ""
    local = dsns.parse("postgresql://me:secret@localhost/d", "a test")
    handover.push(local, Destinations(github_secret="X", env=env, run=Gh()), screen)
    assert "leads to this machine, which GitHub can't reach" in err.getvalue()
    assert out.getvalue() == "handed over: the GitHub secret X\n" * 2


def test_the_application_s_dsn_of_a_setting_is_what_set_in_file_wrote(tmp_path: Path) -> None:
    set_in_file(tmp_path / ".env", APP_DSN, DSN.uri())
    found = settings.app_dsn(settings.sources(str(tmp_path / ".env"), {}))
    assert found is not None
    assert found[0] == DSN
