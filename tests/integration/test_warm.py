"""The warm start of commands: what they find in it is what they find in a process of their own; and each works in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import tasks
from tests import warm
from tests.database import ENV, ROOT, invoke

pytestmark = pytest.mark.once  # no server takes part in it

# Tasks that show what they find, besides the project's own modules.
TASKS = """
import atexit, gc, json, locale, os, pathlib, signal, subprocess, sys, threading, time
from invoke.tasks import task
from scripts import settings

@task
def found(c):
    streams = [sys.stdin, sys.stdout, sys.stderr]
    umask = os.umask(0o77)
    print(json.dumps({
        "environment": dict(os.environ),
        "C's environment": sorted(subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines()),
        "folder": os.getcwd(),
        "arguments": sys.argv,
        "path": sys.path,
        "encodings": [locale.setlocale(locale.LC_ALL), sys.getfilesystemencoding()],
        "streams": [(s.name, s.mode, s.encoding, s.errors, s.newlines, s.line_buffering, s.seekable()) for s in streams],
        "pipes": [pathlib.Path(f"/dev/fd/{number}").is_fifo() for number in range(3)],
        "open": [number for number in range(3, 64) if pathlib.Path(f"/dev/fd/{number}").exists()],
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "group": [os.getpgrp(), os.getsid(0)],
        "umask": umask,
        "threads": threading.active_count(),
        "collects": gc.isenabled(),
        "input": sys.stdin.read(),
    }))

@task
def echo(c):
    text = sys.stdin.read()
    print(text.upper(), end="")
    print(text, end="", file=sys.stderr)

@task
def ends(c, how):
    atexit.register(print, "at the end")
    print("not flushed", end=" ")
    if how == "killed":
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "interrupted":
        signal.raise_signal(signal.SIGINT)
    elif how == "exits":
        sys.exit(7)
    elif how == "fails":
        raise RuntimeError("a fault")

@task
def leaves(c):
    print(hasattr(settings, "left"), "LEFT" in os.environ, pathlib.Path.cwd())
    settings.left = os.environ["LEFT"] = "left"
    os.chdir("/")

@task
def meets(c, me, other):
    pathlib.Path(me).touch()
    while not pathlib.Path(other).exists():
        time.sleep(0.01)
    print(sys.stdin.read())

@task
def sleeps(c):
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return tmp_path


@pytest.fixture(scope="module")
def starter() -> Iterator[warm.Warm]:
    if sys.platform in ("win32", "darwin"):
        pytest.skip("nothing is forked here")
    started = warm.Warm({**ENV, "BEFORE": "nothing that a command is given"})
    yield started
    assert started.close() == ""


def argv(*words: str) -> list[str]:
    """Of the project in the folder where it runs."""
    return [sys.executable, "-m", "invoke", *words]


def cold(*words: str, cwd: Path = ROOT, stdin: str = "", env: Mapping[str, str] = ENV) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv(*words), env=env, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", tasks.namespace.task_names)
def test_every_command_imports_what_it_needs(name: str, tmp_path: Path) -> None:
    nowhere, no_settings = ["--migrations-dir", str(tmp_path / "nowhere")], ["--env-file", str(tmp_path / "nowhere.env")]
    refused = {
        "quickstart": ["--postgres-version", "12"],
        "up": ["--postgres-version", "12"],
        "down": ["--purge"],
        "migrations.lint": nowhere,
        "migrations.new": ["a table", *nowhere],
        "migrations.prove": nowhere,
        "migrations.repair": ["0001", *no_settings],
    }
    result = cold(name, *refused.get(name, no_settings))
    assert "Traceback" not in result.stderr
    assert result.returncode == 2 or name == "down", result.stderr  # of a server that was never up there is nothing to delete


def test_a_warm_start_is_to_a_command_as_a_cold_one(starter: warm.Warm, project: Path) -> None:
    env = {**ENV, "GIVEN": "größe", "PATH": f"{ENV['PATH']}{os.pathsep}/nowhere"}
    ours = starter.run(argv("found"), env=env, cwd=project, stdin="ü\r\n\n")
    fresh = cold("found", env=env, cwd=project, stdin="ü\r\n\n")
    assert (ours.stderr, fresh.stderr) == ("", "")
    assert json.loads(ours.stdout) == json.loads(fresh.stdout)


@pytest.mark.parametrize("how", ["returns", "exits", "fails", "interrupted", "killed"])
def test_a_warm_command_ends_as_a_cold_one(starter: warm.Warm, project: Path, how: str) -> None:
    ours = starter.run(argv("ends", how), env=ENV, cwd=project, stdin="")
    fresh = cold("ends", how, cwd=project)
    assert (ours.returncode, ours.stdout) == (fresh.returncode, fresh.stdout)
    assert ours.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_more_than_a_pipe_holds_goes_in_and_out(starter: warm.Warm, project: Path) -> None:
    text = "größer\n" * 100_000
    result = starter.run(argv("echo"), env=ENV, cwd=project, stdin=text)
    assert (result.stdout, result.stderr, result.returncode) == (text.upper(), text, 0)


def test_nothing_of_a_command_is_left_for_the_next(starter: warm.Warm, project: Path) -> None:
    for _ in range(2):
        result = starter.run(argv("leaves"), env=ENV, cwd=project, stdin="")
        assert result.stdout == f"False False {project}\n", result.stderr


def test_commands_at_the_same_time_have_their_own_ends(starter: warm.Warm, project: Path) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(starter.run, argv("meets", "a", "b"), env=ENV, cwd=project, stdin="a", timeout=60)
        other = pool.submit(starter.run, argv("meets", "b", "a"), env=ENV, cwd=project, stdin="b", timeout=60)
        assert [(run.result().stdout, run.result().returncode) for run in (waiting, other)] == [("a\n", 0), ("b\n", 0)]


def test_a_command_that_does_not_end_in_time_is_killed(starter: warm.Warm, project: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        starter.run(argv("sleeps"), env=ENV, cwd=project, stdin="", timeout=2)
    assert not psutil.pid_exists(int((project / "pid").read_text()))


def test_a_process_that_can_not_begin_says_why(starter: warm.Warm, tmp_path: Path) -> None:
    broken = warm.Warm({**ENV, "PYTHONHOME": str(tmp_path)})
    with pytest.raises(RuntimeError, match="encodings"):
        broken.run(argv("--version"), env=ENV, cwd=ROOT, stdin="")


def test_what_python_reads_at_its_start_reaches_it() -> None:
    result = invoke("secret.push", "--dsn", "-", "--größe", env={"PYTHONIOENCODING": "ascii:backslashreplace"})
    assert r"--gr\xf6\xdfe" in result.stdout + result.stderr
