"""Records `invoke quickstart` at a terminal, as docs/quickstart.svg: `python -m tests.recording`.

The command is run for real where nothing was ever up; the picture shows its lines when they came.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests import terminal
from tests.conftest import ROOT
from tests.terminal import COLUMNS, Terminal

PICTURE = ROOT / "docs" / "quickstart.svg"
COMMAND = "python3 scripts/bootstrap.py invoke quickstart"
REWRITE = "python3 scripts/bootstrap.py python -m tests.recording"
_ROWS = 40
_PORT = re.compile(r"(127\.0\.0\.1):\d+")
# Colours that stand out of a white page and of a black one.
THEME = TerminalTheme(
    (40, 44, 52),
    (220, 223, 228),
    [
        (40, 44, 52),
        (224, 108, 117),
        (152, 195, 121),
        (229, 192, 123),
        (97, 175, 239),
        (198, 120, 221),
        (86, 182, 194),
        (220, 223, 228),
    ],
)
# rich's own one loads its font from a network; this one has whatever the reader has. Without motion, all lines are there at once.
FORMAT = """\
<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="title" xmlns="http://www.w3.org/2000/svg">
<title id="title">invoke quickstart at a terminal</title>
<style>
text {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif }}
.{unique_id}-matrix text {{ animation: appear 1ms both }}
@keyframes appear {{ from {{ opacity: 0 }} }}
@media (prefers-reduced-motion: reduce) {{ .{unique_id}-matrix text {{ animation: none }} }}
{styles}
</style>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass
class Line:
    """A line of a screen."""

    text: str = ""  # with its colours, as ANSI has them
    since: float = 0.0  # seconds from the start until it said that


class Screen:
    """What a terminal makes of our output: lines, and a progress bar that goes away. It knows no other movement."""

    _TOKEN = re.compile(r"\r|\n|\x1b\[\d*[A-Za-z]|\x1b\[[\d;?]*[a-zA-Z]|[^\r\n\x1b]+")

    def __init__(self) -> None:
        self.lines = [Line()]
        self._row = 0

    def write(self, text: str, at: float) -> None:
        """Shows a text that came `at` so many seconds."""
        for token in self._TOKEN.findall(text):
            if token == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append(Line())
            elif found := re.fullmatch(r"\x1b\[(\d*)A", token):
                self._row -= int(found[1] or 1)
            elif token == "\x1b[2K":
                self.lines[self._row] = Line()
            elif token == "\r" or token.startswith("\x1b[?"):  # what comes behind it begins the line anew, or is erased first
                continue
            else:
                self.lines[self._row] = Line(self.lines[self._row].text + token, at)

    def shown(self) -> list[Line]:
        """The lines, without empty ones at the end."""
        last = max(number for number, line in enumerate(self.lines) if line.text)
        return self.lines[: last + 1]


def record(at: Terminal) -> list[Line]:
    """Runs the command at a terminal. Raises CalledProcessError when it fails."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, COLUMNS, 0, 0))
    argv = ["sh", "-c", COMMAND]
    began = time.monotonic()
    process = subprocess.Popen(argv, cwd=at.project, env=at.env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = Screen()
    with open(ours, "rb", buffering=0) as output:
        try:
            while data := output.read(65536):
                screen.write(_alike(at.at_home(data.decode("utf-8", "replace"))), time.monotonic() - began)
        except OSError:  # on Linux, a terminal that nobody has open any more
            pass
    if process.wait() != 0:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return screen.shown()


def _alike(text: str) -> str:
    """A picture names no port of the machine that it was made on."""
    return _PORT.sub(r"\1:5432", text)


def svg(lines: Sequence[Line]) -> str:
    """The picture: the command, and below it what it printed, line by line."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    typed = Line(f"\x1b[1m$ {COMMAND}\x1b[0m")
    for line in [typed, *lines]:
        console.print(Text.from_ansi(line.text), no_wrap=True, crop=True)
    picture = console.export_svg(title="postgres-serving-split", theme=THEME, code_format=FORMAT, unique_id="quickstart")
    delays = [line.since for line in [typed, *lines]]

    def placed(found: re.Match[str]) -> str:
        return f' data-row="{found[1]}" style="animation-delay: {delays[int(found[1])]:.2f}s"'

    picture = re.sub(r"<text [^>]*>\n</text>", "", picture)  # the line ends, which rich shows as texts, too
    return re.sub(r' clip-path="url\(#quickstart-line-(\d+)\)"', placed, picture).replace("</text><text", "</text>\n<text")


def text_of(picture: str) -> str:
    """What a picture shows below the command, as text."""
    rows: dict[int, str] = {}
    for text in ElementTree.fromstring(picture).iterfind(".//*[@data-row]"):
        row, written = int(text.attrib["data-row"]), (text.text or "").replace("\u00a0", " ")
        column = round(float(text.attrib["x"]) * len(written) / float(text.attrib["textLength"]))
        rows[row] = rows.get(row, "").ljust(column) + written
    return "\n".join(rows.get(row, "") for row in range(1, max(rows) + 1))


def plain(lines: Sequence[Line]) -> str:
    """The lines without their colours."""
    return "\n".join(Text.from_ansi(line.text).plain for line in lines)


def main(picture: Path = PICTURE) -> None:
    """Writes the picture anew."""
    with terminal.opened() as at:
        picture.write_text(svg(record(at)), encoding="utf-8", newline="\n")
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
