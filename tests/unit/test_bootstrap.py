"""What the environment is made from, and what bootstrap.py says; making one is left to the user's first command."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from scripts import shell
from tests.conftest import ROOT


def load() -> Any:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bootstrap(tmp_path: Path) -> ModuleType:
    """The script as a module of its own, with its folders moved to an empty place."""
    module = load()
    module.VENV = tmp_path / ".venv"
    module.BIN = module.VENV / "bin"
    module.STAMP = module.VENV / ".made-from"
    module.LOCKS = [tmp_path / "runtime.txt", tmp_path / "dev.txt"]
    for lock in module.LOCKS:
        lock.write_text(f"# {lock.name}\n")
    module.BIN.mkdir(parents=True)
    return module  # type: ignore[no-any-return]


@pytest.fixture
def made(bootstrap: ModuleType) -> ModuleType:
    """The same, with an environment that matches the locks."""
    bootstrap.STAMP.write_text(bootstrap.fingerprint())
    return bootstrap


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """On Windows, main() leaves Ctrl-C to the command; here, pytest goes on afterwards."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def starting(monkeypatch: pytest.MonkeyPatch, start: Callable[[list[str]], object]) -> None:
    """Has `start` take the place of what starts a command: exec, and on Windows a process."""
    monkeypatch.setattr(os, "execvp", lambda program, argv: start([program, *argv[1:]]))
    monkeypatch.setattr(subprocess, "call", start)


class Pip:
    """Takes the place of the process that pip is."""

    def __init__(self, code: int = 0, said: str = "", then: Callable[[list[str]], object] = lambda argv: None) -> None:
        self.returncode, self.stderr, self.then = code, said.splitlines(keepends=True), then

    def __call__(self, argv: list[str], **_: object) -> Pip:
        self.then(argv)
        return self

    def __enter__(self) -> Pip:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def refuse(*args: object, **_: object) -> None:
    raise AssertionError(f"nothing had to be done, and this was: {args}")


def test_it_needs_nothing_but_the_standard_library() -> None:
    text = (ROOT / "scripts" / "bootstrap.py").read_text(encoding="utf-8")
    names = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_locks_are_those_of_the_repository_without_azure_s() -> None:
    untouched = load()
    assert [lock.relative_to(ROOT).as_posix() for lock in untouched.LOCKS] == ["requirements/runtime.txt", "requirements/dev.txt"]
    assert all("--hash=sha256:" in lock.read_text(encoding="utf-8") for lock in untouched.LOCKS)


@pytest.mark.parametrize("index", [0, 1])
def test_another_lock_is_another_environment(bootstrap: ModuleType, index: int) -> None:
    before = bootstrap.fingerprint()
    lock = bootstrap.LOCKS[index]
    lock.write_bytes(lock.read_bytes() + b"one==1\n")
    assert bootstrap.fingerprint() != before


def test_another_python_is_another_environment(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bootstrap.fingerprint()
    monkeypatch.setattr(sys, "version", "3.99.0")
    assert bootstrap.fingerprint() != before


def test_the_environment_s_own_python_does_not_make_it_again(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bootstrap.fingerprint()
    monkeypatch.setattr(sys, "prefix", str(bootstrap.VENV))
    assert bootstrap.fingerprint() == before


def test_a_checkout_with_crlf_is_the_same_environment(bootstrap: ModuleType) -> None:
    before = bootstrap.fingerprint()
    for lock in bootstrap.LOCKS:
        lock.write_bytes(lock.read_bytes().replace(b"\n", b"\r\n"))
    assert bootstrap.fingerprint() == before


def test_an_environment_that_matches_is_left_alone(made: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "create", refuse)
    made.make_environment()


@pytest.mark.parametrize("why", ["no stamp", "a lock changed"])
def test_an_environment_that_does_not_match_is_made_from_both_locks_with_their_hashes(
    made: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    if why == "no stamp":
        made.STAMP.unlink()
    else:
        made.LOCKS[0].write_text("one==1\n")
    made_at: list[Path] = []
    installed: list[list[str]] = []

    def then(argv: list[str]) -> None:
        assert not made.STAMP.exists() or made.STAMP.read_text() != made.fingerprint()  # written last
        installed.append(argv)
        (made.BIN / "got").touch()

    for name in ("python", "python.exe"):
        (made.BIN / name).touch()
    monkeypatch.setattr(venv, "create", lambda path, **_: made_at.append(path))
    monkeypatch.setattr(subprocess, "Popen", Pip(then=then))
    made.make_environment()

    assert made_at == [made.VENV]
    [argv] = installed
    assert argv[1:5] == ["-I", "-m", "pip", "install"]
    assert "--require-hashes" in argv
    assert [argv[index + 1] for index, word in enumerate(argv) if word == "--requirement"] == [str(lock) for lock in made.LOCKS]
    python = "python.exe" if shell.WINDOWS else "python"
    assert made.STAMP.read_text() == "\n".join([made.fingerprint(), *(f"{made.BIN.name}/{name}" for name in ("got", python))])
    assert "making" in capsys.readouterr().err
    monkeypatch.setattr(venv, "create", refuse)
    made.make_environment()
    (made.BIN / "got").unlink()
    with pytest.raises(AssertionError, match="nothing had to be done"):
        made.make_environment()
    assert capsys.readouterr().err.endswith("runtime.txt, dev.txt: bin/got is missing\n")


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("ERROR: Could not find a version that satisfies the requirement invoke==3.0.3\n", True),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n    Expected sha256 00\n", False),
        ("ERROR: Hashes are required in --require-hashes mode, but they are missing from some requirements.\n", False),
        ("ERROR: Invalid requirement: '<<<<<<< HEAD'\n", False),
    ],
)
def test_a_failing_pip_leaves_no_stamp_and_says_what_to_do(
    made: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, passes: bool
) -> None:
    made.STAMP.unlink()
    monkeypatch.setattr(venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(subprocess, "Popen", Pip(1, said))
    with pytest.raises(SystemExit) as caught:
        made.make_environment()
    assert capsys.readouterr().err.endswith(said)
    assert ("\nnext:      run the same command again" in str(caught.value), "HTTPS_PROXY" in str(caught.value)) == (
        passes,
        passes,
    )
    assert (f'\nnext:      git -C "{made.ROOT}" restore requirements' in str(caught.value)) is not passes
    assert not made.STAMP.exists()


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, ["ensurepip"]), OSError("no space left on device")])
def test_an_environment_that_cannot_be_made_names_the_package(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(venv, "create", fail)
    with pytest.raises(SystemExit, match="python3-venv"):
        bootstrap.make_environment()


@pytest.mark.parametrize("closed", [".venv", ""])
def test_a_folder_of_another_user_is_said_with_the_way_out(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(venv, "create", fail)
    if not closed:
        bootstrap.BIN.rmdir()
        bootstrap.VENV.rmdir()
    with pytest.raises(SystemExit, match="Permission denied") as caught:
        bootstrap.make_environment()
    folder = bootstrap.VENV if closed else bootstrap.ROOT
    own = f"run this as the user who owns {folder}" if shell.WINDOWS else f'sudo chown -R "$(id -un)" "{folder}"'
    assert f"\nnext:      {own}; or" in str(caught.value)


@pytest.mark.parametrize("file", ["nox", "nox.exe"])
def test_a_command_of_the_environment_goes_before_the_path(bootstrap: ModuleType, file: str) -> None:
    (bootstrap.BIN / file).touch()
    assert bootstrap.find_command("nox") == str(bootstrap.BIN / file)


def test_a_command_that_the_environment_lacks_is_left_to_the_path(bootstrap: ModuleType) -> None:
    (bootstrap.BIN / "folder").mkdir()
    assert bootstrap.find_command("nox") == "nox"
    assert bootstrap.find_command("folder") == "folder"


def test_no_command_shows_how_it_is_used(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "create", refuse)
    with pytest.raises(SystemExit, match="say which command to run") as caught:
        bootstrap.main([])
    assert "python3 scripts/bootstrap.py invoke quickstart" in str(caught.value)


@pytest.mark.parametrize(
    ("there", "following"),
    [
        ("python3.12", "python3.12 scripts/bootstrap.py nox -s unit"),
        ("", "install one: https://www.python.org/downloads/"),
    ],
)
def test_an_old_python_is_refused_with_its_version_and_the_newer_one(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, there: str, following: str
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    monkeypatch.setattr(sys, "version", "3.10.4 (main)")
    monkeypatch.setattr(venv, "create", refuse)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == there else None)
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed; this is 3\.10\.4") as caught:
        bootstrap.main(["nox", "-s", "unit"])
    assert str(caught.value).partition("\n")[2] == f"next:      {following}"


def test_a_command_that_is_nowhere_is_named(made: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "environ", dict(os.environ))
    starting(monkeypatch, missing)
    with pytest.raises(SystemExit, match="no command 'nowhere' in"):
        made.main(["nowhere", "--flag"])


def test_the_command_runs_inside_the_environment(made: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.BIN / "nox").touch()
    ran: list[list[str]] = []
    environment = {"PATH": "/bin"}
    monkeypatch.setattr(os, "environ", environment)
    starting(monkeypatch, ran.append)
    made.main(["nox", "-s", "unit"])
    assert ran == [[str(made.BIN / "nox"), "-s", "unit"]]
    assert environment == {"PATH": f"{made.BIN}{os.pathsep}/bin", "VIRTUAL_ENV": str(made.VENV)}


def test_on_windows_ctrl_c_is_the_command_s_and_its_exit_code_counts(made: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argv: list[str]) -> int:
        signal.raise_signal(signal.SIGINT)
        return 7

    monkeypatch.setattr(made, "os", SimpleNamespace(name="nt", environ={}, pathsep=os.pathsep, fsencode=os.fsencode))
    monkeypatch.setattr(subprocess, "call", interrupted)
    assert made.main(["python"]) == 7


@pytest.mark.parametrize(
    ("command", "words"),
    [("invoke", ["--search-root", "ROOT"]), ("nox", ["--noxfile", "ROOT/noxfile.py"]), ("python", [])],
)
@pytest.mark.parametrize("inside", ["", "a/b"])
def test_the_project_is_found_from_every_folder(
    made: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, words: list[str], inside: str
) -> None:
    ran: list[list[str]] = []
    root = tmp_path / "project"
    monkeypatch.setattr(made, "ROOT", root)
    (root / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    starting(monkeypatch, lambda argv: ran.append(argv[1:]))
    monkeypatch.chdir(tmp_path)
    made.main([command, "-x"])
    monkeypatch.chdir(root / inside)
    made.main([command, "-x"])
    assert ran == [[*(word.replace("ROOT", str(root)).replace("/", os.sep) for word in words), "-x"], ["-x"]]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_given(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    monkeypatch.setattr(venv, "create", refuse)
    assert bootstrap.main([flag]) == 0
    assert "python3 scripts/bootstrap.py invoke quickstart" in capsys.readouterr().out
