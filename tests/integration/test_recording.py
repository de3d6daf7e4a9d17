"""docs/quickstart.svg shows what `invoke quickstart` prints at a terminal, and nothing of the machine that it was made on."""

from __future__ import annotations

import getpass
import os
import re

import pytest

from tests import recording, terminal
from tests.recording import Line, Screen
from tests.terminal import normalised

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no ptys"),
]
AGAIN = f"it is made anew by: {recording.REWRITE}"


def picture() -> str:
    return recording.PICTURE.read_text(encoding="utf-8")


def test_the_picture_shows_what_quickstart_prints() -> None:
    with terminal.opened() as at:
        printed = recording.record(at)
    assert normalised(recording.text_of(picture())) == normalised(recording.plain(printed)), AGAIN


def test_the_picture_loads_nothing_and_tells_nothing_of_its_machine() -> None:
    text = picture()
    assert set(re.findall(r"\w+://[^\s\"<]+", text)) == {
        "http://www.w3.org/2000/svg",
        "postgresql://postgres:****@127.0.0.1:5432/serving",
        "postgresql://backtest_service:****@127.0.0.1:5432/serving",
    }
    assert not re.search(r"@import|@font-face|url\(|<script|<image|href", text)
    assert set(re.findall(r"/(?:home|root|tmp|Users|var)/\w+", text)) == {"/home/me"}
    assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", text)
    assert len(text.encode()) < 60_000
    assert "prefers-reduced-motion: reduce" in text


def test_a_picture_is_read_as_it_was_written() -> None:
    lines = [Line("a  b"), Line(""), Line("  \x1b[32mgreen\x1b[0m & <plain>", 1.5), Line("", 2.0), Line("end", 2.0)]
    made = recording.svg(lines)
    assert recording.text_of(made) == "a  b\n\n  green & <plain>\n\nend"
    assert made.count("animation-delay: 1.50s") == 2  # in two colours


def test_a_bar_that_went_away_is_not_shown() -> None:
    screen = Screen()
    screen.write("one\r\n\x1b[?25l", 1.0)
    screen.write("\r\x1b[2K\x1b[32m1/2\x1b[0m", 2.0)
    screen.write("\r\x1b[2K\x1b[32m2/2\x1b[0m\r\n\x1b[?25h\r\x1b[1A\x1b[2K", 3.0)
    screen.write("two\r\n\r\n\x1b[1mthree\x1b[0m\r\n", 4.0)
    assert screen.shown() == [Line("one", 1.0), Line("two", 4.0), Line(), Line("\x1b[1mthree\x1b[0m", 4.0)]
