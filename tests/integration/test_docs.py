"""What the pages say that a command prints, it prints. CONTRIBUTING.md says how such a block is written.

All blocks of a page are run in their order on one machine where nothing was ever up (tests/terminal.py).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import docs, terminal
from tests.docs import Block, Page
from tests.terminal import Terminal, normalised

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(os.name == "nt", reason="the blocks are typed at a POSIX shell"),
]
PAGES = [page for page in docs.pages() if any(block.language == "console" for block in page.blocks)]
_EXIT_CODE = re.compile(r"\s# exit code (\d+)$")


def shown(block: Block) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, command, and the lines that stand below it."""
    commands = list(block.commands())
    ends = [number for number, _ in commands[1:]] + [block.line + len(block.lines)]
    for (number, command), end in zip(commands, ends, strict=True):
        lines = list(block.lines[number - block.line : end - block.line])
        while lines.pop(0).endswith("\\"):
            pass
        yield number, command, lines


def fits(wanted: list[str], printed: list[str]) -> bool:
    """Whether they are the same, line by line; `...` as a whole line stands for any lines, or none."""
    pattern = "".join("(?:.*\n)*?" if line.strip() == "..." else re.escape(f"{line}\n") for line in wanted)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


def differences(page: Page, at: Terminal) -> Iterator[str]:
    """Runs what a page says, and tells what comes out otherwise."""
    for block in (block for block in page.blocks if block.language == "console"):
        for number, command, lines in shown(block):
            found = _EXIT_CODE.search(command)
            code, printed = at.run(_EXIT_CODE.sub("", command))
            if code != (wanted := int(found[1]) if found else 0):
                yield f"{page.name}:{number}: {command}: ended with {code}, not with {wanted}:\n{printed}"
                return  # the following commands rest on it
            wanted_lines = normalised("\n".join(lines)).splitlines()
            printed_lines = normalised(printed).splitlines()
            if not fits(trimmed(wanted_lines), trimmed(printed_lines)):
                diff = difflib.unified_diff(wanted_lines, printed_lines, "in the page", "printed", lineterm="", n=100)
                yield f"{page.name}:{number}: {command}: prints something else:\n" + "\n".join([*diff, "whole:", printed])


def trimmed(lines: list[str]) -> list[str]:
    """Without empty lines at the end: one before the next command is for the eye."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_what_a_page_shows_is_what_is_printed(page: Page) -> None:
    with terminal.opened() as at:
        assert "\n".join(differences(page, at)) == ""


# That this finds what is wrong.


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        (["a", "..."], ["a", "b", "c"], True),
        (["...", "c"], ["a", "b", "c"], True),
        (["a", "...", "b"], ["a", "b"], True),
        (["a", "...", "b"], ["a", "c"], False),
        (["a."], ["ab"], False),
        ([], ["a"], False),
    ],
)
def test_three_dots_stand_for_any_lines(wanted: list[str], printed: list[str], same: bool) -> None:
    assert fits(wanted, printed) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("  a.sql     29 ms", "  a.sql  1.2 s"),
        ("at 2026-11-28 08:37:42 or 2026-11-28T08:37:42.123+00:00", "at 2027-01-01 00:00:00 or 2027-01-01"),
        ("postgresql://me:secret@127.0.0.1:59225/serving", "postgresql://me:****@127.0.0.1:5432/serving"),
        ("71.1 GiB free, Python 3.11.7, PID 17  ", "3.0 GiB free, Python 3.14.0, PID 4711"),
    ],
)
def test_what_differs_from_run_to_run_is_no_difference(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"), [("3 applied", "2 applied"), ("0001_a.sql", "0002_a.sql"), ("me:****@a", "you:****@a")]
)
def test_anything_else_is(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("$ echo a\na\n$ false  # exit code 1\n$ echo b \\\n    c\nb c", ""),
        ("$ echo a\nb", "page.md:4: echo a: prints something else"),
        ("$ echo a\na\n\n$ echo b >&2", "page.md:7: echo b >&2: prints something else"),
        ("$ sh -c 'exit 3'", "ended with 3, not with 0"),
        ("$ true  # exit code 3", "ended with 0, not with 3"),
        ("$ pwd\n/home/me/serving", ""),
        ("$ command -v docker az gh  # exit code 127", ""),
    ],
)
def test_what_a_block_shows_wrongly_is_told_with_its_line(block: str, said: str, here: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"# A page\n\n```console\n{block}\n```\n", encoding="utf-8")
    [told] = list(differences(docs.read(path), here)) or [""]
    assert said in told
    assert bool(said) == bool(told)


@pytest.fixture(scope="module")
def here() -> Iterator[Terminal]:
    with terminal.opened() as at:
        yield at
