"""What `invoke` itself shows: the list, the help, and what it says of words that nobody knows. As users run it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from scripts import guide
from tests import shapes
from tests.database import ENV, ROOT, invoke, invoke_argv
from tests.flags import arguments

pytestmark = pytest.mark.once  # no server takes part in it

NAMES = list(tasks.namespace.task_names)
HERE = Path(sys.executable).parent


def listed(out: str) -> list[str]:
    """The tasks that a list has."""
    return [line.split()[0] for line in out.splitlines() if line.startswith("  ")]


# The list.


def test_the_list_has_every_task_by_stages() -> None:
    result = invoke("--list")
    assert (result.returncode, result.stderr) == (0, "")
    assert listed(result.stdout) == [name for names in guide.STAGES.values() for name in names]
    assert sorted(listed(result.stdout)) == sorted(NAMES)
    assert [line for line in result.stdout.splitlines() if line and not line.startswith(" ")][:-1] == list(guide.STAGES)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout


def test_plain_invoke_says_how_to_begin() -> None:
    result = invoke()
    assert result.returncode == 0
    assert "invoke quickstart" in result.stdout.splitlines()[2]
    assert result.stdout.endswith(invoke("--list").stdout)


def test_a_group_of_tasks_is_listed_by_itself() -> None:
    result = invoke("--list", "migrations")
    assert result.returncode == 0
    assert sorted(listed(result.stdout)) == sorted(name for name in NAMES if name.startswith("migrations."))


def test_the_other_formats_of_the_list_are_invokes_own() -> None:
    whole = json.loads(invoke("--list", "--list-format=json").stdout)
    names = [task["name"] for task in whole["tasks"]]
    names += [f"{group['name']}.{task['name']}" for group in whole["collections"] for task in group["tasks"]]
    assert sorted(names) == sorted(NAMES)
    nested = invoke("--list", "--list-format", "nested")
    assert (nested.returncode, nested.stderr) == (0, "")
    assert {name.rpartition(".")[2] for name in NAMES} <= {word.lstrip(".") for word in nested.stdout.split()}
    assert "migrations [8 tasks]" in invoke("--list", "--list-depth", "1").stdout


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_list_fits_the_terminal(columns: int) -> None:
    wide = invoke("--list", env={"COLUMNS": f"{columns}"}).stdout.splitlines()
    assert max(map(len, wide)) <= min(columns, 110)
    assert {*NAMES} <= {line.strip().split(" ", maxsplit=1)[0] for line in wide if line}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudoterminals of this kind")
@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_alone(env: dict[str, str], coloured: bool) -> None:
    import pty

    shown, theirs = pty.openpty()
    with open(shown, "rb", buffering=0) as screen:
        subprocess.run(
            invoke_argv("--list"), stdout=theirs, stderr=theirs, check=True, env={**ENV, "TERM": "xterm", "COLUMNS": "80", **env}
        )
        os.close(theirs)
        seen = b""
        try:
            while more := screen.read(65536):
                seen += more
        except OSError:  # the end, on Linux
            pass
    assert (b"\x1b[1mStart\x1b[0m" in seen) == coloured
    assert (b"\x1b" in seen) == coloured


def test_a_reader_that_has_gone_is_no_bug() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(invoke_argv("--list"), stdout=writer, stderr=subprocess.PIPE, env=ENV, text=True, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("program", ["invoke", "inv", "python -m invoke"])
def test_each_name_of_invoke_shows_the_same(program: str) -> None:
    found = [shutil.which(program, path=str(HERE)) or program] if " " not in program else [sys.executable, "-m", "invoke"]
    for words, code in ((["--list"], 0), (["migrat"], 2)):
        result = subprocess.run([*found, *words], cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
        warm = invoke(*words)
        assert (result.returncode, result.stdout, result.stderr) == (code, warm.stdout, warm.stderr)


def test_nothing_heavy_is_imported_for_the_list() -> None:
    def imported(word: str) -> set[str]:
        argv = [sys.executable, "-X", "importtime", *invoke_argv(word)[1:]]
        result = subprocess.run(argv, env=ENV, capture_output=True, text=True, check=True)
        return {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}

    more = imported("--list") - imported("--version")
    expected = {"errors", "secret", "redact", "dsn", "shell", "settings", "console", "guide", "words", "face"}
    assert {name for name in more if name.startswith("scripts.")} == {f"scripts.{name}" for name in expected}
    assert more & {"psycopg", "docker", "rich", "dotenv", "filelock", "jsonschema", "difflib"} == set()


# The help.


@pytest.mark.parametrize("task", NAMES)
def test_the_help_of_a_task_is_whole(task: str) -> None:
    result = invoke("--help", task, env={"COLUMNS": "110"})
    assert (result.returncode, result.stderr) == (0, "")
    page = " ".join(result.stdout.split())
    assert result.stdout.startswith(f"invoke {task} ")
    assert " ".join((tasks.namespace[task].__doc__ or "").split()) in page
    for argument in arguments(task):
        name = argument.names[0].replace("_", "-")
        assert (f"\n  {name.upper()} " if argument.positional else f"\n  --{name}") in result.stdout
        assert argument.help
        assert " ".join(argument.help.split()) in page
    for code, said in shapes.schemas()[task]["x-exit-codes"].items():
        assert f"{code} " in result.stdout
        assert said in page
    for line, what in guide.EXAMPLES[task].items():
        assert f"\n  {line}" in result.stdout
        assert what in page
    assert [line for line in result.stdout.splitlines() if len(line) > 110] == []
    assert invoke(task, "--help", env={"COLUMNS": "110"}).stdout == result.stdout


def test_the_help_names_the_settings_behind_flags() -> None:
    page = " ".join(invoke("--help", "provision").stdout.split())
    assert "--location VALUE The region of a new server, such as eastus2. [AZURE_LOCATION]" in page
    assert "[POSTGRES_ADMIN_DSN, POSTGRES_DSN]" in " ".join(invoke("--help", "status").stdout.split())
    assert "[POSTGRES_DSN]" in " ".join(invoke("--help", "secret.push").stdout.split())
    assert "[" not in invoke("--help", "migrations.new").stdout.partition("Exit codes")[0].replace("[--flags]", "")


@pytest.mark.parametrize("line", [line for examples in guide.EXAMPLES.values() for line in examples])
def test_every_example_is_understood(line: str) -> None:
    result = invoke(*shlex.split(line.partition(" < ")[0])[1:], "--help")
    assert (result.returncode, result.stderr) == (0, "")


# Words that nobody knows.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["migrat"], "there is no task 'migrat'; did you mean migrate?"),
        (["migrations.drft"], "did you mean migrations.drift?"),
        (["migrations"], "migrations is a group of tasks: migrations.new, "),
        (["up", "migrat"], "up doesn't take 'migrat'; did you mean the task migrate?"),
        (["migrate", "--lokal"], "migrate has no flag --lokal; did you mean --local?"),
        (["migrate", "-local"], "migrate has no flag -local; did you mean --local?"),
        (["migrate", "--to"], "--to needs a value"),
        (["migrate", "--to", "--plan"], "--to needs a value"),
        (["migrate", "--to", "--lokal"], "--to needs a value, and got --lokal"),
        (["migrate", "--sku-name", "x"], "--sku-name is a flag of provision, and not of migrate"),
        (["migrate", "now"], "migrate doesn't take 'now'"),
        (["migrate", "--plan=yes"], "--plan takes no value"),
        (["migrate", "--to", "1", "--to", "2"], "--to is given twice"),
        (["migrations.new", "add", "runs", "table"], "a value of several words stands between quotes"),
        (["migrations.new"], "migrations.new needs NAME: "),
        (["migrations.new", "--jsno"], "migrations.new has no flag --jsno; did you mean --json?"),
        (["--local", "migrate"], "and stands behind the task"),
        (["psql", "-c", "SELECT 1"], "-c is a flag of Invoke's own, and does nothing for psql"),
        (["migrate", "--dry"], "--dry is a flag of Invoke's own, and does nothing for migrate"),
        (["--dry", "migrate"], "--dry is a flag of Invoke's own, and does nothing for migrate"),
        (["migrate", "--version"], "--version is a flag of Invoke's own, and does nothing for migrate"),
        (["migrate", "--", "--plan"], "migrate takes nothing behind --"),
        (["psql", "--", "-c", "SELECT 1"], "psql takes nothing behind --"),
        (["--", "migrate"], "no task takes what stands behind --"),
        (["migrate", "-T", "x"], "a flag of Invoke's own needs a number"),
        (["--help", "migrat"], "there is no task 'migrat'; did you mean migrate?"),
        (["--list", "migratons"], "there is no group of tasks 'migratons'; the groups are migrations, "),
        (["--list", "--list-format", "yaml"], "--list-format yaml: one of flat, nested, json"),
        (["--list", "--list-format", "json", "--list-depth", "1"], "--list-depth"),
        (["up", "--list", "migrate"], "'migrate' is ambiguous"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_a_word_that_nobody_knows_is_a_wrong_flag(words: list[str], said: str, tmp_path: Path) -> None:
    # Nothing can be started: whatever were taken for right would fail otherwise.
    result = invoke(*words, env={"PATH": str(tmp_path)})
    assert (result.returncode, result.stdout) == (2, "")
    message, following = result.stderr.splitlines()
    assert message.startswith("error: ")
    assert said in message
    assert following.startswith("next:  ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["migrat", "--json"], "there is no task 'migrat'; did you mean migrate?"),
        (["migrate", "--json", "--lokal"], "migrate has no flag --lokal; did you mean --local?"),
        (["migrate", "--json", "--to"], "--to needs a value"),
        (["--json", "migrate"], "and stands behind the task"),
        (["migrate", "--dry", "--json"], "--dry is a flag of Invoke's own"),
        (["psql", "--json"], "--json is a flag of quickstart, up, down and 21 others, and not of psql"),
        (["--help", "migrat", "--json"], "there is no task 'migrat'"),
        (["--list", "migratons", "--json"], "there is no group of tasks 'migratons'"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_with_json_it_is_a_failure_like_others(words: list[str], said: str) -> None:
    result = invoke(*words)
    document = json.loads(result.stdout)
    assert shapes.fits("error.json", document)
    assert said in document["error"]
    assert (result.returncode, document["exit_code"]) == (2, 2)
    assert result.stderr.splitlines()[0] == f"error: {document['error']}"


def test_what_may_be_a_secret_is_not_repeated() -> None:
    for words in (["migrate", "postgresql://me:S3cret@h/d"], ["roles", "--backtest-service-password", "My", "S3cret"]):
        result = invoke(*words, "--json")
        assert result.returncode == 2
        assert "S3cret" not in result.stdout + result.stderr


def test_a_value_may_look_like_a_flag_where_that_is_said() -> None:
    result = invoke("migrations.drift", "--to=--lokal", env={"POSTGRES_ADMIN_DSN": "nonsense"})
    assert "the DSN of POSTGRES_ADMIN_DSN" in result.stderr


def test_help_is_help_where_a_word_is_needed() -> None:
    for words in (["migrations.repair", "--help"], ["migrations.new", "-h"]):
        result = invoke(*words)
        assert result.returncode == 0
        assert result.stdout.startswith(f"invoke {words[0]} ")


def test_flags_of_invoke_that_mean_something_still_do() -> None:
    assert invoke("--version").stdout.startswith("Invoke ")
    assert "--search-root" in invoke("--help").stdout
    assert listed(invoke("migrate", "--list").stdout) == listed(invoke("--list").stdout)
