"""Programs side by side: real processes, and none that is left behind; and what our own ones start with."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from scripts import shell
from scripts.errors import OpsError
from tests.database import ENV, ROOT

pytestmark = pytest.mark.once  # no server takes part in it


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


SLEEPER = python("import time; time.sleep(60)  # a sleeper of these tests")


def sleepers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
            if child.cmdline() == SLEEPER:
                found.append(child)
    return found


def test_programs_run_side_by_side_and_end_in_the_order_in_which_they_were_named(tmp_path: Path) -> None:
    meeting = (
        "import pathlib, sys, time; me, other = (pathlib.Path(name) for name in {names!r}); me.touch()\n"
        "while not other.exists(): time.sleep(0.01)\n"  # each waits for the other: one after another, they would never end
        "print(me); print('err', file=sys.stderr); sys.exit({code})"
    )
    found = shell.run_together(
        [python(meeting.format(names=["a", "b"], code=0)), python(meeting.format(names=["b", "a"], code=3))],
        cwd=tmp_path,
        timeout=60,
    )
    assert [(result.code, result.out, result.err) for result in found] == [(0, "a\n", "err\n"), (3, "b\n", "err\n")]


def test_programs_have_the_environment_that_is_given_and_an_empty_input() -> None:
    code = "import os, sys; print(os.environ['A'], repr(sys.stdin.read()))"
    assert [result.out for result in shell.run_together([python(code)] * 2, env={"A": "given"})] == ["given ''\n"] * 2


def test_no_program_at_all_is_no_result() -> None:
    assert shell.run_together([]) == []


def test_one_that_can_not_be_started_ends_those_that_run() -> None:
    started = time.monotonic()
    with pytest.raises(OpsError, match="nowhere/az can't be started: No such file"):
        shell.run_together([SLEEPER, ["/nowhere/az"]])
    assert time.monotonic() - started < 30
    assert sleepers() == []


def test_one_that_does_not_end_in_time_ends_all() -> None:
    with pytest.raises(OpsError, match=r"did not answer within 0\.5 s"):
        shell.run_together([SLEEPER, SLEEPER], timeout=0.5)
    assert sleepers() == []


@pytest.mark.parametrize("words", [{}, {"PYTHONDONTWRITEBYTECODE": "1"}], ids=["as usual", "as the user said"])
def test_modules_are_compiled_once_unless_python_is_told_to_keep_nothing(tmp_path: Path, words: dict[str, str]) -> None:
    shutil.copy(ROOT / "tasks.py", tmp_path)
    scripts = shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    argv = [sys.executable, "-m", "invoke", "--search-root", str(tmp_path), "--list"]
    subprocess.run(argv, cwd=tmp_path, env={**ENV, **words}, capture_output=True, check=True)
    kept = {path.name.split(".")[0] for path in (scripts / "__pycache__").glob("*.pyc")}
    assert kept >= {"console", "settings", "shell"} if not words else not kept


def test_a_program_that_another_thread_talks_to_is_ended_with_the_others() -> None:
    process = shell.Process(SLEEPER, env=ENV)
    try:
        shell.end_all()
        assert list(process.lines()) == []  # they end
    finally:
        process.kill()
    assert process.close(timeout=60) != 0
    assert sleepers() == []
