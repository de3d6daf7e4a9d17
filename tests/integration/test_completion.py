"""Completion: what `invoke --complete` prints, and the lines of docs/completion.md in the shells themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from tests.database import ENV, ROOT, invoke
from tests.flags import arguments

pytestmark = pytest.mark.once  # no server takes part in it

PAGE = (ROOT / "docs" / "completion.md").read_text(encoding="utf-8")
LOCAL = ["--local", "--lock-retries", "--lock-timeout", "--lock-wait"]
# What the shell does when Tab is pressed behind `invoke migrate --lo`, and behind `invoke migrations.d`.
TAB = {
    "bash": """
        . ~/.bashrc
        COMP_WORDS=(invoke migrate --lo); _complete_invoke invoke --lo migrate; printf '%s\\n' "${COMPREPLY[@]}"
        COMP_WORDS=(inv migrations.d); _complete_invoke inv migrations.d inv; printf '%s\\n' "${COMPREPLY[@]}"
        complete -p invoke inv >&3
    """,
    "zsh": """
        . ~/.zshrc
        words=(invoke migrate --lo); _complete_invoke; print -l -- ${(M)reply:#--lo*}
        words=(invoke migrations.d); _complete_invoke; print -l -- ${(M)reply:#migrations.d*}
        compctl >&3
    """,
    "fish": """
        complete -C 'invoke migrate --lo'
        complete -C 'invoke migrations.d'
        complete -c invoke >&3
    """,
    "pwsh": """
        (TabExpansion2 'invoke migrate --lo' 19).CompletionMatches.CompletionText
        (TabExpansion2 'invoke migrations.d' 19).CompletionMatches.CompletionText
    """,
}


def block(language: str) -> str:
    """The lines of the page for a shell."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("shell", TAB)
def test_the_lines_of_the_page_make_the_shell_complete(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    env = {**ENV, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config"), "TERM": "dumb"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"

    def run(text: str) -> list[str]:
        words = ["-NoProfile", "-Command"] if shell == "pwsh" else ["-f", "-c"] if shell == "zsh" else ["-c"]
        # What a script says of itself goes where it isn't looked at.
        text = text.replace(">&3", f">{tmp_path / 'registered'}")
        result = subprocess.run([program, *words, text], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.split()

    before = block("powershell") if shell == "pwsh" else ""
    if not before:
        assert run(block(shell)) == []
    assert run(before + TAB[shell]) == [*LOCAL, "migrations.drift", "migrations.dump"]
    if shell != "pwsh":
        assert "invoke" in (tmp_path / "registered").read_text()


def test_tasks_are_completed_by_their_names() -> None:
    result = invoke("--complete", "--", "invoke", "migr")
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(result.stdout.split()) == sorted(tasks.namespace.task_names)


@pytest.mark.parametrize("task", tasks.namespace.task_names)
def test_the_flags_of_a_task_are_all_completed(task: str) -> None:
    result = invoke("--complete", "--", "invoke", task, "--")
    flags = {f"--{argument.names[0].replace('_', '-')}" for argument in arguments(task)}
    assert (result.returncode, result.stderr) == (0, "")
    assert set(result.stdout.split()) == flags


@pytest.mark.parametrize(
    "words",
    [
        ["migrations.new", '"add ru'],
        ["migrate", "--to"],
        ["migrate", "--no-such", "--x"],
        ["no.such", "-"],
        ["migrate", "it's"],
        [],
    ],
    ids=" ".join,
)
def test_whatever_stands_there_nothing_else_is_printed(words: list[str]) -> None:
    result = invoke("--complete", "--", "invoke", *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line for line in result.stdout.splitlines() if not re.fullmatch(r"[\w.-]+", line)] == []
