"""How a program is started on Windows, by name and by batch file; on other systems, arguments stay as they are."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest

from scripts import shell
from scripts.errors import OpsError

ODD = ["a b", 'say "hi"', "100%", "a&b|c<d>e^f", "", "(x)", "!", "ends\\"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with docker.exe and az.cmd, found as Windows does it."""
    for name in ("docker.exe", "az.cmd"):
        (tmp_path / name).touch()

    def which(program: str, path: str) -> str | None:
        found = (Path(path) / f"{program}{suffix}" for suffix in (".exe", ".cmd"))
        return next((str(one) for one in found if one.is_file()), None)

    monkeypatch.setattr("shutil.which", which)
    return tmp_path


def test_elsewhere_than_on_windows_every_argument_stays_as_it_is() -> None:
    assert shell.command_line(["az.cmd", *ODD], {"PATH": "/bin"}, windows=False) == ["az.cmd", *ODD]


def test_a_name_is_looked_up_in_the_path_of_the_environment_that_the_program_gets(programs: Path) -> None:
    env = {"PATH": str(programs)}
    assert shell.command_line(["docker", *ODD], env, windows=True) == [str(programs / "docker.exe"), *ODD]
    assert shell.command_line(["gh", "x"], env, windows=True) == ["gh", "x"]  # which then can't be started


@pytest.mark.parametrize("program", ["C:\\tools\\docker.exe", "tools/docker", "docker"])
def test_a_path_is_no_name_and_without_an_environment_none_is_looked_up(program: str, programs: Path) -> None:
    env = {"PATH": str(programs)} if program != "docker" else None
    assert shell.command_line([program, "x"], env, windows=True) == [program, "x"]


def test_a_batch_file_gets_its_arguments_in_quotes_that_keep_cmd_from_reading_them(programs: Path) -> None:
    words = ["group", "show", "--name", "team(west)", "a&b|c<d>e^f", "two words", "", "ends\\", "\\\\"]
    line = shell.command_line(["az", *words], {"PATH": str(programs)}, windows=True)
    assert line == (
        f'"{programs / "az.cmd"}" "group" "show" "--name" "team(west)" "a&b|c<d>e^f" "two words" "" "ends\\\\" "\\\\\\\\"'
    )


@pytest.mark.parametrize("word", ['say "hi"', "%PATH%", "100%", "a\nb", "a\rb", "nul\0", "wow!"])
@pytest.mark.parametrize("program", ["C:\\az\\az.cmd", "C:\\az\\AZ.BAT"])
def test_what_would_not_arrive_through_a_batch_file_is_refused(program: str, word: str) -> None:
    with pytest.raises(OpsError, match=r"is a batch file, and cmd\.exe would change an argument") as caught:
        shell.command_line([program, "show", word], {}, windows=True)
    assert repr(word) in caught.value.message


@pytest.mark.parametrize(
    ("error", "windows", "expected"),
    [
        (BrokenPipeError(), False, True),
        (BrokenPipeError(), True, True),
        (OSError(errno.EINVAL, "Invalid argument"), True, True),
        (OSError(errno.EINVAL, "Invalid argument"), False, False),
        (OSError(errno.ENOSPC, "No space left on device"), True, False),
    ],
)
def test_a_reader_that_has_gone_is_told_from_a_failure(
    error: OSError, windows: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "WINDOWS", windows)
    assert shell.is_broken_pipe(error) is expected


def test_a_request_to_end_is_an_interrupt_and_what_was_there_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), shell.terminate_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_put_off_comes_when_the_clean_up_is_done() -> None:
    done = []

    def clean_up() -> None:
        with shell.uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("clean-up")

    with pytest.raises(KeyboardInterrupt):
        clean_up()
    assert done == ["clean-up"]
