"""`invoke secret.push`: the DSN arrives in a dotenv file and in GitHub's secrets, and nowhere else."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dotenv import dotenv_values

from scripts.dsn import Dsn
from scripts.secret import Secret
from tests.database import ENV, ROOT, invoke, invoke_argv, small_files
from tests.github import Environment, GitHub, Said, serving
from tests.integration.test_passwords import processes

pytestmark = pytest.mark.once  # no server takes part in it
TOKEN = secrets.token_hex(8)  # the part of the password that is found nowhere by chance
PASSWORD = f":/@%#?&'\"\\$ =ü密🔑{TOKEN}"
DSN = Dsn({"user": "app", "host": "db.example.com", "port": "5432", "dbname": "d", "sslmode": "require"}, Secret(PASSWORD))
URI = DSN.uri().reveal()
OURS = {"POSTGRES_BACKTEST_SERVICE_USER": "app"}
LINE = f"POSTGRES_DSN={URI}"

Pushed = subprocess.CompletedProcess[str]


def push(*words: str, env: Mapping[str, str] | None = None, uri: str = URI, cwd: Path = ROOT) -> Pushed:
    """`invoke secret.push WORDS` with the DSN on its standard input."""
    return invoke("secret.push", "--dsn", "-", *words, stdin=f"{uri}\n", env={**OURS, **(env or {})}, cwd=cwd)


def shows_no_secret(result: Pushed) -> None:
    for form in (PASSWORD, quote(PASSWORD, safe=""), URI, TOKEN):
        assert form not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def refused(result: Pushed, code: int, message: str) -> None:
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    shows_no_secret(result)


# A dotenv file.


def test_a_dotenv_file_has_the_dsn_and_everything_that_it_had(tmp_path: Path) -> None:
    path = tmp_path / "app.env"
    before = "# mine\r\nexport A='x # y'\r\n\r\nPOSTGRES_DSN=old\r\nB=\"two\r\nlines\"\r\nPOSTGRES_DSN=older\r\nC=größe"
    path.write_bytes(before.encode())
    path.chmod(0o644)
    result = push("--secrets-file", str(path))
    assert (result.returncode, result.stdout) == (0, f"handed over: POSTGRES_DSN in {path}\n"), result.stderr
    shows_no_secret(result)
    expected = before.replace("POSTGRES_DSN=older\r\n", "").replace("POSTGRES_DSN=old", LINE)
    assert path.read_bytes() == expected.encode()
    assert dotenv_values(path)["POSTGRES_DSN"] == URI
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_is_meant_from_where_one_is(tmp_path: Path) -> None:
    assert push("--secrets-file", "app.env", cwd=tmp_path).returncode == 0
    assert (tmp_path / "app.env").read_text() == f"{LINE}\n"


def test_what_was_pushed_leads_to_the_same_place_again(tmp_path: Path) -> None:
    path, other = tmp_path / "app.env", tmp_path / "other.env"
    assert push("--secrets-file", str(path)).returncode == 0
    result = invoke("secret.push", "--env-file", str(path), "--secrets-file", str(other), env=OURS)
    assert result.returncode == 0, result.stderr
    assert other.read_bytes() == path.read_bytes()


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "app.env"
    rest = "".join(f"KEY_{number}='{'x' * 200}'\n" for number in range(2000))
    uris = [DSN.with_params(dbname=name).uri().reveal() for name in ("one", "two")]
    texts = [f"POSTGRES_DSN={uri}\n{rest}" for uri in uris]
    path.write_text(texts[0])
    seen: set[str] = set()
    process = subprocess.Popen(
        invoke_argv("secret.push", "--dsn", "-", "--secrets-file", str(path)), env=ENV | OURS, cwd=ROOT, stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(f"{uris[1]}\n".encode())
    process.stdin.close()
    while process.poll() is None:
        seen.add(path.read_text())
    assert process.returncode == 0
    assert path.read_text() == texts[1]
    assert seen <= set(texts)


def test_a_disk_that_is_full_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "app.env"
    before = "A=1\n" + "#" * 100_000
    path.write_text(before)
    result = subprocess.run(
        invoke_argv("secret.push", "--dsn", "-", "--secrets-file", str(path)),
        env=ENV | OURS,
        cwd=ROOT,
        input=f"{URI}\n",
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_files,
    )
    refused(result, 1, f"{path} can't be written: File too large")
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_into_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "app.env").write_text("A=1\n")
    closed.chmod(0o555)
    # Root may write anywhere, unless this right is taken from it.
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    for name in ("app.env", "new.env"):
        result = subprocess.run(
            [*words, *invoke_argv("secret.push", "--dsn", "-", "--secrets-file", str(closed / name))],
            env=ENV | OURS,
            cwd=ROOT,
            input=f"{URI}\n",
            capture_output=True,
            text=True,
            check=False,
        )
        refused(result, 2, f"--secrets-file {closed / name}: you may not write into the folder {closed}")
    closed.chmod(0o755)
    assert [(path.name, path.read_text()) for path in closed.iterdir()] == [("app.env", "A=1\n")]


def test_what_cannot_be_a_dotenv_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.env").write_bytes("A=größe\n".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("", "it is a folder"),
        ("none/app.env", "there is no folder"),
        ("latin.env", "isn't UTF-8 text"),
        ("pipe", "it is no regular file"),
    ):
        refused(push("--secrets-file", str(tmp_path / name)), 2, message)
    refused(push("--secrets-file", ""), 2, "--secrets-file is empty")
    assert (tmp_path / "latin.env").read_bytes() == "A=größe\n".encode("latin-1")


def test_a_push_to_nowhere_is_refused() -> None:
    refused(push(), 2, "nothing says where the DSN goes")


@pytest.mark.parametrize("source", ["--dsn", "POSTGRES_DSN"])
def test_a_dsn_of_somebody_else_is_no_application_s(source: str, tmp_path: Path) -> None:
    """An administrator's, above all, which the environment has at hand."""
    path, admin = tmp_path / "app.env", DSN.with_params(user="serving_admin").uri().reveal()
    words = ["--secrets-file", str(path)]
    by_flag = source == "--dsn"
    result = push(*words, uri=admin) if by_flag else invoke("secret.push", *words, env=OURS | {"POSTGRES_DSN": admin})
    refused(
        result, 2, "serving_admin:****@db.example.com:5432/d?sslmode=require, and the application's login roles are app and app_b"
    )
    assert not path.exists()
    assert push(*words, "--backtest-service-user", "serving_admin", uri=admin).returncode == 0


# The terminal, and the log of GitHub Actions.


def test_the_dsn_is_printed_when_that_is_asked_for_alone() -> None:
    result = push("--emit-secrets")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{LINE}\nhanded over: this terminal\n", "")


def test_with_json_the_dsn_is_in_the_document_when_that_is_asked_for_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.env"
    result = push("--emit-secrets", "--json", "--secrets-file", str(path))
    facts = {"dsn": str(DSN), "handed_over": [f"POSTGRES_DSN in {path}", "this terminal"]}
    assert json.loads(result.stdout) == {**facts, "secrets": {"POSTGRES_DSN": URI}}

    result = push("--json", "--secrets-file", str(path))
    assert json.loads(result.stdout) == {"dsn": str(DSN), "handed_over": [f"POSTGRES_DSN in {path}"]}
    shows_no_secret(result)


def masks(lines: list[str]) -> list[str]:
    """What the runner takes the first of these lines for, up to the first that is no mask."""
    found = []
    for line in lines:
        if not line.startswith("::add-mask::"):
            break
        found.append(line.removeprefix("::add-mask::").replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%"))
    return found


@pytest.mark.parametrize("words", [[], ["--emit-secrets"], ["--secrets-file", "/nonexistent/app.env"]])
@pytest.mark.parametrize("as_json", [False, True])
def test_github_actions_masks_the_dsn_and_its_password_before_anything_else(words: list[str], as_json: bool) -> None:
    result = push(*words, *(["--json"] if as_json else []), env={"GITHUB_ACTIONS": "true"})
    # The runner reads both; stdout may be kept in a file.
    lines = result.stderr.splitlines()
    found = masks(lines)
    assert found[0] == PASSWORD
    assert {PASSWORD, quote(PASSWORD, safe=""), URI, json.dumps(PASSWORD)[1:-1]} <= set(found)
    assert not [line for line in lines[len(found) :] if line.startswith("::")]
    assert TOKEN not in "".join(lines[len(found) :]).replace(LINE, "")
    assert "::add-mask::" not in result.stdout
    if as_json:
        assert set(json.loads(result.stdout)) & {"dsn", "error"}


@pytest.mark.parametrize("setting", ["", "false", "1"])
def test_outside_of_github_actions_nothing_is_masked(setting: str, tmp_path: Path) -> None:
    result = push("--secrets-file", str(tmp_path / "app.env"), env={"GITHUB_ACTIONS": setting})
    assert "::" not in result.stdout + result.stderr
    shows_no_secret(result)


# A gh of our own, which notes what it was given.


@dataclass
class FakeGh:
    """A gh on PATH, and what it notes."""

    folder: Path
    env: dict[str, str]

    def calls(self) -> list[list[str]]:
        return [json.loads(path.read_text())["argv"] for path in self._notes()]

    def stdin(self) -> list[str]:
        return [json.loads(path.read_text())["stdin"] for path in self._notes()]

    def noted(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in self._notes()]

    def _notes(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"), key=lambda path: int(path.stem))


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., FakeGh]:
    """Makes a gh that notes its arguments, its input and its environment, and fails at a verb when it is told to."""

    def make(failing: str = "", said: str = "") -> FakeGh:
        folder = tmp_path / "fake"
        folder.mkdir()
        program = folder / "gh"
        program.write_text(
            f"#!{shutil.which('python3')}\n"
            "import json, os, pathlib, sys\n"
            f"folder, failing, said = pathlib.Path({str(folder)!r}), {failing!r}, {said!r}\n"
            "given = sys.stdin.read()\n"
            "note = {'argv': sys.argv[1:], 'stdin': given, 'env': dict(os.environ),\n"
            "        'above': pathlib.Path(f'/proc/{os.getppid()}/cmdline').read_text()}\n"
            "(folder / f'{len(list(folder.glob(\"*.json\")))}.json').write_text(json.dumps(note))\n"
            "if sys.argv[2] == failing:\n"
            "    print(said.replace('VALUE', given), file=sys.stderr)\n"
            "    raise SystemExit(1)\n"
        )
        program.chmod(0o755)
        return FakeGh(folder, {"PATH": f"{folder}{os.pathsep}{ENV['PATH']}"})

    return make


def test_gh_is_given_the_value_on_its_standard_input_and_nowhere_else(fake: Callable[..., FakeGh]) -> None:
    gh = fake()
    words = ("--github-secret", "APP_DSN", "--github-environment", "prod", "--repo", "o/r")
    result = push(*words, env={**gh.env, "POSTGRES_DSN": URI, "PGPASSWORD": PASSWORD})
    assert result.returncode == 0, result.stderr
    assert result.stdout == "handed over: the GitHub secret APP_DSN of the environment prod in o/r\n"
    shows_no_secret(result)
    assert gh.calls() == [
        ["secret", "list", "--env=prod", "--repo=o/r"],
        ["secret", "set", "APP_DSN", "--env=prod", "--repo=o/r"],
    ]
    assert gh.stdin() == ["", URI]
    for note in gh.noted():
        assert note["env"]["GH_PROMPT_DISABLED"] == "1"
        assert TOKEN not in json.dumps({**note, "stdin": ""})


@pytest.mark.parametrize(
    ("failing", "said", "message", "calls"),
    [
        ("list", "To get started with GitHub CLI, please run:  gh auth login", "can't be reached: To get started with", 1),
        ("set", "HTTP 403: Resource not accessible (VALUE)", "can't be written: HTTP 403: Resource not accessible (****)", 2),
    ],
)
def test_a_gh_that_fails_is_said_with_the_way_out(
    fake: Callable[..., FakeGh], failing: str, said: str, message: str, calls: int
) -> None:
    gh = fake(failing, said)
    refused(push("--github-secret", "X", env=gh.env), 1, f"the GitHub secret X {message}")
    result = push("--github-secret", "X", "--json", env=gh.env)
    facts = json.loads(result.stdout)
    assert message in facts["error"]
    assert "gh auth login" in facts["hint"]
    assert facts["exit_code"] == 1
    shows_no_secret(result)
    assert len(gh.calls()) == 2 * calls


def test_a_gh_that_would_fail_leaves_the_dotenv_file_as_it_is(fake: Callable[..., FakeGh], tmp_path: Path) -> None:
    gh = fake("list", "no")
    refused(push("--github-secret", "X", "--secrets-file", str(tmp_path / "app.env"), env=gh.env), 1, "can't be reached: no")
    assert not (tmp_path / "app.env").exists()


@pytest.mark.parametrize("name", ["GITHUB_X", "1X", "A-B", "A B"])
def test_a_name_that_github_does_not_take_is_refused_before_gh_is_asked(fake: Callable[..., FakeGh], name: str) -> None:
    gh = fake()
    refused(push(f"--github-secret={name}", env=gh.env), 2, f"--github-secret {name}: GitHub takes letters, digits and _")
    assert gh.calls() == []


def test_without_gh_it_is_said_where_to_get_it(tmp_path: Path) -> None:
    result = push("--github-secret", "X", env={"PATH": str(tmp_path)})
    refused(result, 2, "--github-secret needs the gh command, which is not on PATH")
    assert "next:  install it: https://cli.github.com" in result.stderr


def test_a_place_without_a_secret_is_refused() -> None:
    refused(push("--repo", "o/r"), 2, "--github-environment and --repo say where --github-secret is")


# The real gh, against a GitHub of our own.


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    """One that has the environment prod."""
    with serving(tmp_path) as made:
        made.environments["prod"] = Environment()
        yield made


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ([], "/repos/o/r/actions/secrets/APP_DSN"),
        (["--github-environment", "prod"], "/repos/o/r/environments/prod/secrets/APP_DSN"),
    ],
    ids=["repository", "environment"],
)
def test_github_has_exactly_the_dsn(github: GitHub, words: list[str], path: str) -> None:
    for _ in range(2):
        result = push("--github-secret", "APP_DSN", "--repo", "o/r", *words, env=github.env)
        assert result.returncode == 0, result.stderr
        assert github.secrets == {path: URI}
        shows_no_secret(result)


def test_a_folder_that_is_no_repository_needs_the_name_of_one(github: GitHub, tmp_path: Path) -> None:
    result = push("--github-secret", "APP_DSN", env={**github.env, "GIT_CEILING_DIRECTORIES": str(tmp_path)}, cwd=tmp_path)
    refused(result, 1, "the GitHub secret APP_DSN can't be reached: ")
    assert "--repo OWNER/NAME" in result.stderr
    assert github.requests == []


@pytest.mark.parametrize(
    ("refuses", "token", "words", "message"),
    [
        ("", "a wrong token", ["--repo", "o/r"], "can't be reached: failed to get secrets: HTTP 401: Bad credentials"),
        ("", "", ["--repo", "o/r"], "can't be reached: "),
        ("", None, ["--repo", "o/none"], "can't be reached: "),
        ("", None, ["--repo", "o/r", "--github-environment", "none"], "can't be reached: "),
        ("PUT", None, ["--repo", "o/r"], "can't be written: "),
    ],
    ids=["wrong token", "no token", "no repository", "no environment", "no right"],
)
def test_what_github_refuses_is_said_with_the_way_out(
    github: GitHub, tmp_path: Path, refuses: str, token: str | None, words: list[str], message: str
) -> None:
    github.refuses = refuses
    env = {**github.env, "GH_ENTERPRISE_TOKEN": github.token if token is None else token}
    result = push("--github-secret", "X", *words, "--secrets-file", str(tmp_path / "app.env"), env=env)
    refused(result, 1, f"{words[1]} {message}" if len(words) == 2 else message)
    assert "next:  gh auth login" in result.stderr
    assert github.token not in result.stderr
    assert github.secrets == {}
    assert (tmp_path / "app.env").exists() is (refuses == "PUT")


def test_no_argument_or_environment_of_gh_holds_the_dsn(github: GitHub) -> None:
    seen: dict[str, bytes] = {}
    searched = threading.Event()
    answer = github.answer

    def look(method: str, path: str, token: str, body: bytes) -> Said:
        for kind in ("cmdline", "environ"):
            seen.update({f"{method} {pid} {kind}": data for pid, data in processes(kind).items()})
        searched.set()
        return answer(method, path, token, body)

    github.answer = look  # type: ignore[method-assign]
    assert push("--github-secret", "X", "--repo", "o/r", env=github.env).returncode == 0
    assert searched.is_set()
    assert [place for place, data in seen.items() if data.startswith(b"gh\0secret\0set\0X\0")] != []
    assert [place for place, data in seen.items() if TOKEN.encode() in data] == []
