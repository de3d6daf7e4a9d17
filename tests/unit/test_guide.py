"""The list and the help pages: that nothing is left out of them, and that they fit the terminal."""

from __future__ import annotations

import re
import shlex
from collections import Counter

import pytest
from invoke.exceptions import ParseError
from invoke.parser import Parser

import tasks
from scripts import guide
from tests.conftest import ROOT
from tests.flags import contexts

NAMES = list(tasks.namespace.task_names)
LINES = {name: (tasks.namespace[name].__doc__ or "").partition("\n")[0] for name in NAMES}


def test_every_task_stands_in_exactly_one_stage() -> None:
    placed = Counter(name for names in guide.STAGES.values() for name in names)
    assert placed == Counter(NAMES), "scripts/guide.py, STAGES"


def test_every_task_has_one_line_or_two_in_the_list_no_wider_than_a_terminal() -> None:
    listed = guide.listing(LINES, width=80, colour=False, begin=False).splitlines()
    assert [line for line in listed if len(line) > 80] == []
    assert [name for name, said in LINES.items() if f"  {name:<19}  {said}" not in listed] == [], "one line, of 57 characters"


@pytest.mark.parametrize("width", [20, 40, 60, 79, 110])
def test_only_single_words_are_wider_than_the_terminal(width: int) -> None:
    pages = [guide.listing(LINES, width=width, colour=False, begin=True)]
    flags = [
        guide.Flag(name="--backtest-service-user", takes_value=True, help="A word or two, or three.", settings=["POSTGRES_X"])
    ]
    pages.append(guide.page("migrate", "One line.\n\nAnd more of it.", flags, {"0": "it is done"}, width=width, colour=False))
    for line in "\n".join(pages).splitlines():
        assert len(line) <= width or len(line.split()) == 1 or line.startswith(("  invoke ", "  --", "invoke ")), line


def test_colour_changes_nothing_but_the_colour() -> None:
    plain, bold = (guide.listing(LINES, width=80, colour=colour, begin=True) for colour in (False, True))
    assert "\x1b" not in plain
    assert bold.count("\x1b[1m") == len(guide.STAGES)
    assert bold.replace("\x1b[1m", "").replace("\x1b[0m", "") == plain


def test_every_task_has_examples_of_itself() -> None:
    assert sorted(guide.EXAMPLES) == sorted(NAMES)
    for name, examples in guide.EXAMPLES.items():
        assert 1 <= len(examples) <= 2
        assert [line for line in examples if line.split()[:2] != ["invoke", name]] == []
        assert all(examples.values())


@pytest.mark.parametrize("line", [line for examples in guide.EXAMPLES.values() for line in examples])
def test_every_example_parses(line: str) -> None:
    words = shlex.split(line.partition(" < ")[0])[1:]
    (context,) = Parser(contexts=contexts()).parse_argv(words)
    given = [argument for argument in context.args.values() if argument.raw_value not in (None, [])]
    assert len(given) == sum(word.startswith("--") for word in words) + sum(a.positional for a in given)
    with pytest.raises(ParseError):  # it would be told
        Parser(contexts=contexts()).parse_argv([*words, "--no-such-flag"])


def commands_of_the_pages() -> list[str]:
    """Each `invoke ...` that stands as a line of its own in the pages for users, without what the shell does with it."""
    found = []
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "migrations" / "README.md"):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        found += re.findall(r"^    (invoke [a-z].*?)(?: [<>|].*)?$", text, re.MULTILINE)
    return found


@pytest.mark.parametrize("line", commands_of_the_pages())
def test_every_command_of_the_pages_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    assert Parser(contexts=contexts()).parse_argv(words)
