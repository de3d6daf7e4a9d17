"""The pages of the documentation as tests read them: code blocks and spans, commands, links and headings, with file and line.

CommonMark is read by markdown-it, which rich brings along. Runners of console blocks that are to be had (cram and its kin,
byexample, scrut, pytest-markdown-console) have a language of patterns of their own or run each block by itself, and none of them
knows Invoke's grammar or a machine where nothing was ever up; sybil and pytest-markdown-docs are about Python.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from tests.conftest import ROOT

if TYPE_CHECKING:
    from markdown_it.token import Token

BOOTSTRAP = ("scripts/bootstrap.py", "scripts\\bootstrap.py", "PATH/scripts/bootstrap.py")
PROMPT = "$ "
KEY = "<Tab>"  # pressed behind a command that isn't whole yet
# What holds no command that anybody types; of a console block, the lines behind a prompt are commands.
DATA = ("json", "sql", "text", "yaml")
_COMMENT = re.compile(r"(?:^|\s)#(?:\s.*)?$")
_PLACEHOLDER = re.compile(r"<([\w-]+)>")  # <server-name>: not what a shell takes it for
_SEPARATORS = frozenset("|&;()")


@dataclass(frozen=True)
class Block:
    """A fenced or an indented block of code."""

    page: Path
    line: int  # of its first line
    language: str  # the first word of the info string; empty without one
    lines: tuple[str, ...]

    def commands(self) -> Iterator[tuple[int, str]]:
        """Line number and text of each command that somebody may type, continued lines put together."""
        numbered = list(enumerate(self.lines, self.line))
        while numbered and self.language not in DATA:
            line, text = numbered.pop(0)
            if KEY in text or (self.language == "console" and not text.startswith(PROMPT)):
                continue
            while text.endswith("\\") and numbered:
                text = f"{text[:-1].rstrip()} {numbered.pop(0)[1].removeprefix('> ').strip()}"
            yield line, text.removeprefix(PROMPT)


@dataclass(frozen=True)
class Piece:
    """A code span, or where a link leads to."""

    line: int
    text: str


@dataclass(frozen=True)
class Page:
    """All of a page that can be wrong."""

    path: Path
    blocks: tuple[Block, ...]
    spans: tuple[Piece, ...]
    links: tuple[Piece, ...]
    anchors: frozenset[str]

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix() if ROOT in self.path.parents else self.path.name

    def commands(self, programs: Collection[str]) -> Iterator[tuple[int, str]]:
        """Line and text of each command, in blocks and in the text; there, only of these programs."""
        for block in self.blocks:
            yield from block.commands()
        for span in self.spans:
            if is_command(span.text, programs):
                yield span.line, span.text


def is_command(text: str, programs: Collection[str]) -> bool:
    """Whether a line or a span is one of these programs. `invoke ...` is any command, and `invoke` alone is the program."""
    words = text.split()
    return len(words) > 1 and words[1] != "..." and words[0] in programs


def pages() -> list[Page]:
    """Every page that users and contributors read."""
    names = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "migrations/README.md"]
    return [read(path) for path in [*(ROOT / name for name in names), *sorted((ROOT / "docs").glob("*.md"))]]


def read(path: Path) -> Page:
    """The page as CommonMark with tables, which is what GitHub shows."""
    blocks, spans, links = [], [], []
    anchors: dict[str, int] = {}
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.map is None:
            continue
        first = token.map[0] + 1
        if token.type in ("fence", "code_block"):
            language = token.info.split()[0] if token.info.strip() else ""
            start = first + (token.type == "fence")
            blocks.append(Block(path, start, language, tuple(token.content.rstrip("\n").split("\n"))))
        elif token.type == "inline":
            found = list(_inside(token, first))
            spans += [piece for kind, piece in found if kind == "code_inline"]
            links += [piece for kind, piece in found if kind != "code_inline"]
            if before is not None and before.type == "heading_open":
                slug = _slug("".join(child.content for child in token.children or ()))
                anchors[slug] = anchors.get(slug, -1) + 1
    every = {slug if number == 0 else f"{slug}-{number}" for slug, count in anchors.items() for number in range(count + 1)}
    return Page(path, tuple(blocks), tuple(spans), tuple(links), frozenset(every))


def _inside(inline: Token, first: int) -> Iterator[tuple[str, Piece]]:
    """The spans and links of a paragraph. Which line one stands in is looked up in the text, where markdown-it doesn't say it."""
    at = 0
    for child in inline.children or ():
        text = {
            "code_inline": child.content,
            "link_open": str(child.attrs.get("href", "")),
            "image": str(child.attrs.get("src", "")),
        }.get(child.type)
        if text is None:
            continue
        where = inline.content.find(("`" if child.type == "code_inline" else "") + (text.split() or [text])[0], at)
        at = at if where < 0 or child.type == "link_open" else where
        yield child.type, Piece(first + inline.content.count("\n", 0, max(where, at)), text)


def _slug(heading: str) -> str:
    """What GitHub makes of a heading: https://docs.github.com/get-started/writing-on-github (section links)."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def split(text: str) -> list[list[str]]:
    """The simple commands of a line as lists of words, without comment, settings in front, and what is redirected.

    Raises ValueError for quotes that aren't closed.
    """
    lexer = shlex.shlex(_PLACEHOLDER.sub(r"\1", _COMMENT.sub("", text)), posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word[0] in _SEPARATORS and set(word) <= _SEPARATORS:
            commands.append([])
        elif set(word) <= set("<>&"):
            next(words, None)
        elif commands[-1] or not re.match(r"[A-Z_]+=", word):
            commands[-1].append(word)
    return [_inner(command) for command in commands if command]


def _inner(words: list[str]) -> list[str]:
    """What bootstrap.py runs, where it is in front."""
    is_bootstrap = words[0] in ("python", "python3", "py") and len(words) > 2 and words[1] in BOOTSTRAP
    return words[2:] if is_bootstrap else words
