"""What a user sees, and where: sentences on stdout, or one JSON document there and everything else on stderr."""

from __future__ import annotations

import io
import json

import pytest

from scripts.console import Console
from scripts.errors import OpsError, UsageError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Screen:
    """A console and what it wrote."""

    def __init__(self, *, as_json: bool = False, terminal: bool = False) -> None:
        self._out: io.StringIO = Terminal() if terminal else io.StringIO()
        self._err = io.StringIO()
        self.console = Console(as_json=as_json, out=self._out, err=self._err)

    @property
    def out(self) -> str:
        return self._out.getvalue()

    @property
    def err(self) -> str:
        return self._err.getvalue()


def test_sentences_go_to_stdout_and_notes_beside_it() -> None:
    screen = Screen()
    screen.console.say("done")
    screen.console.note("warning")
    screen.console.document({"done": True})
    assert (screen.out, screen.err) == ("done\n", "warning\n")


def test_with_json_stdout_holds_the_document_alone() -> None:
    screen = Screen(as_json=True)
    screen.console.say("done")
    screen.console.table([["a", "b"]])
    screen.console.note("warning")
    screen.console.document({"name": "größe", "path": io})
    assert json.loads(screen.out)["name"] == "größe"
    assert "größe" in screen.out
    assert screen.err == "warning\n"


def test_a_table_is_aligned_and_has_no_blanks_at_its_end() -> None:
    screen = Screen()
    screen.console.table([["a", "bbb", ""], ["aaaa", "b", "c"]])
    assert screen.out == "  a     bbb\n  aaaa  b    c\n"


@pytest.mark.parametrize(("hint", "expected"), [("try again", "error: no\nnext:  try again\n"), ("", "error: no\n")])
def test_a_failure_comes_with_its_way_out(hint: str, expected: str) -> None:
    screen = Screen()
    screen.console.failure(OpsError("no", hint))
    assert (screen.out, screen.err) == ("", expected)


def test_a_failure_is_a_document_too() -> None:
    screen = Screen(as_json=True)
    screen.console.failure(UsageError("no", "try again"))
    assert json.loads(screen.out) == {"error": "no", "hint": "try again", "exit_code": 2}
    assert screen.err == "error: no\nnext:  try again\n"


def test_progress_is_a_line_for_each_item_where_there_is_no_terminal() -> None:
    screen = Screen()
    with screen.console.progress(2) as advance:
        advance("", "one")
        advance("one done", "two")
        screen.console.say("said on the way")
        advance("two done", "")
    assert screen.out == "one done\nsaid on the way\ntwo done\n"


def test_progress_says_nothing_with_json() -> None:
    screen = Screen(as_json=True, terminal=True)
    with screen.console.progress(1) as advance:
        advance("one done", "")
    assert screen.out == ""


def test_on_a_terminal_a_bar_shows_the_current_item_and_lines_stand_above_it() -> None:
    screen = Screen(terminal=True)
    with screen.console.progress(2) as advance:
        advance("", "0001_a.sql")
        screen.console.say("a [line] above")
        screen.console.note("a [note] above")
        advance("0001 done", "[bold]0002_b.sql")
    screen.console.say("after")
    assert "1/2" in screen.out
    assert "[bold]0002_b.sql" in screen.out
    assert "a [line] above" in screen.out
    assert "a [note] above" in screen.out
    assert screen.out.endswith("after\n")
    assert screen.err == ""
