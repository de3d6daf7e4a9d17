"""The docs can't drift: commands are parsed by the project's own parser, and whatever they point at is there.

What a console block prints is compared in tests/integration/test_docs.py.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invoke.exceptions import Exit
from invoke.parser.parser import Parser

import noxfile
import tasks
from scripts.face import Face
from tests import docs, flags
from tests.conftest import ROOT
from tests.docs import Page

PAGES = docs.pages()
each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
# Programs of others, and what the pages call of them. Whether they take it can't be told here: tests/azure asks the real az, and
# of the rest, a new one is looked up in its manual, and added. An empty text stands for whatever follows.
FOREIGN: dict[str, tuple[str, ...]] = {
    "apt-get": ("install",),
    "az": ("",),
    "docker": ("inspect", "run"),
    "gh": ("api", "auth login", "secret list", "secret set", "variable", "workflow run"),
    "git": (),
    "pip": (),
    "pre-commit": ("install",),
    "psql": ("-c", "-v ON_ERROR_STOP=1 -f"),
    "pytest": (),
}
FOREIGN_FLAGS = {"--disable-host-loopback", "--network"}  # of slirp4netns and docker
# What doesn't touch the project. Any other program in a block is new: it goes to FOREIGN, or here.
SHELL = {"echo", "jq", "mkdir", "rm"}
# Written by a command, and no part of the repository.
WRITTEN = {"migrations/schema.sql"}
FOLDERS = ("scripts/", "tests/", "docs/", "migrations/", "deploy/", ".github/")


once = functools.cache(flags.contexts)  # it takes longer than parsing, which leaves them as they are


class Reader(Face):
    """The project's face."""

    def _make_parser(self) -> Parser:
        return Parser(initial=self.initial_context, contexts=once())


def mistake_of_invoke(words: list[str]) -> str:
    """What Invoke, with the project's tasks, says of a command line; nothing runs."""
    program = Reader(namespace=tasks.namespace)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            program.create_config()
            program.parse_core(words)
            program.parse_collection()
            program.parse_tasks()
    except Exit as ended:
        return said.getvalue().strip() if ended.code else ""
    return ""


def mistake_of_nox(words: list[str]) -> str:
    """Whether the sessions that are named are there."""
    names = [name for flag, name in itertools.pairwise(words) if flag in ("-s", "--session") and name != "SESSION"]
    for name in names:
        session, _, server = name.rstrip(")").partition("(")
        if session not in vars(noxfile) or (server and server not in noxfile.SERVERS):
            return f"noxfile.py has no session {name}"
    return ""


def mistake_of_python(words: list[str]) -> str:
    """Whether a module of ours is there."""
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    if module.startswith("tests") and importlib.util.find_spec(module) is None:
        return f"there is no module {module}"
    if len(words) > 1 and words[1].endswith(".py") and not (ROOT / words[1]).is_file():
        return f"there is no file {words[1]}"
    return ""


OURS: dict[str, Callable[[list[str]], str]] = {
    "invoke": mistake_of_invoke,
    "nox": mistake_of_nox,
    **dict.fromkeys(("python", "python3", "py"), mistake_of_python),
}


def mistake(text: str) -> str:
    """What is wrong with the commands of a line."""
    try:
        commands = docs.split(text)
    except ValueError as error:
        return str(error)
    for words in commands:
        if words[0] in OURS and (wrong := OURS[words[0]](words)):
            return wrong
        if words[0] in FOREIGN and len(words) > 1 and not " ".join(words[1:]).startswith(FOREIGN[words[0]]):
            return f"{words[0]} isn't ours: if it takes {' '.join(words[1:])!r}, add that to FOREIGN"
    return ""


def told(page: Page, found: Iterator[tuple[int, str]]) -> list[str]:
    return [f"{page.name}:{line}: {problem}" for line, problem in found if problem]


@each_page
def test_every_command_is_one(page: Page) -> None:
    assert told(page, ((line, mistake(text)) for line, text in page.commands({*OURS, *FOREIGN}))) == []


def unknown_program(text: str) -> str:
    """Which program of a line is neither parsed nor known here."""
    programs = [words[0] for words in docs.split(text)]
    return ", ".join(f"{name}: whose program is it?" for name in programs if name not in {*OURS, *FOREIGN, *SHELL})


@each_page
def test_no_block_has_a_program_that_nobody_knows(page: Page) -> None:
    """PowerShell's words aren't a POSIX shell's; test_completion.py runs its block where there is a pwsh."""
    blocks = (block for block in page.blocks if block.language != "powershell")
    assert told(page, ((line, unknown_program(text)) for block in blocks for line, text in block.commands())) == []


@each_page
def test_every_flag_in_the_text_is_some_command_s(page: Page) -> None:
    known = {flag for context in [*once(), Reader(namespace=tasks.namespace).initial_context] for flag in context.flags}
    flagged = ((span.line, re.match(r"--[a-z][\w-]*", span.text)) for span in page.spans)
    unknown = ((line, found[0]) for line, found in flagged if found and found[0] not in known | FOREIGN_FLAGS)
    assert told(page, ((line, f"no command has {flag}") for line, flag in unknown)) == []


@each_page
def test_no_command_in_a_block_is_overlooked(page: Page) -> None:
    """One behind a prompt in a block that is no console block would be neither parsed nor run."""
    seen = {line: text for block in page.blocks for line, text in block.commands()}
    overlooked = [
        (line, text)
        for block in page.blocks
        for line, text in enumerate(block.lines, block.line)
        if docs.is_command(
            text.partition("  ")[0] if block.language in docs.DATA else text.removeprefix(docs.PROMPT), {*OURS, *FOREIGN}
        )
        and docs.KEY not in text
        and not (block.language == "console" and not text.startswith(docs.PROMPT))  # output, which is compared
        and (line not in seen or text.startswith(docs.PROMPT) != (block.language == "console"))
    ]
    assert told(page, iter(overlooked)) == []


@each_page
def test_what_is_completed_is_what_is_there(page: Page) -> None:
    tasks_and_flags = {context.name or "": sorted(context.flags) for context in once()}

    def wrong(block: docs.Block, number: int) -> str:
        _, *words = block.lines[number].removeprefix(docs.PROMPT).partition(docs.KEY)[0].split()
        offered = tasks_and_flags[words[0]] if len(words) > 1 else sorted(tasks_and_flags)
        completed = [name for name in offered if name.startswith(words[-1])]
        return "" if block.lines[number + 1].split() == completed else f"completed is {'  '.join(completed)}"

    tabs = ((block, number) for block in page.blocks for number, text in enumerate(block.lines) if docs.KEY in text)
    assert told(page, ((block.line + number, wrong(block, number)) for block, number in tabs)) == []


@each_page
def test_every_link_leads_somewhere(page: Page) -> None:
    def broken(link: str) -> str:
        name, _, anchor = link.partition("#")
        target = page.path.parent / name if name else page.path
        if re.match(r"[a-z]+:", link):
            return ""
        if not target.exists():
            return f"{link}: there is no such file"
        if anchor and (target.suffix != ".md" or anchor not in docs.read(target).anchors):
            return f"{link}: no heading is called so"
        return ""

    assert told(page, ((link.line, broken(link.text)) for link in page.links)) == []


@each_page
def test_every_file_that_is_named_is_there(page: Page) -> None:
    def missing(text: str) -> str:
        if not re.fullmatch(r"[\w./*-]+", text) or not text.startswith(FOLDERS) or text in WRITTEN:
            return ""
        pattern = re.sub(r"[A-Z]{3,}", "*", text.rstrip("/")) if not (ROOT / text).exists() else text.rstrip("/")
        return "" if any(ROOT.glob(pattern)) else f"{text}: there is no such file"

    assert told(page, ((span.line, missing(span.text)) for span in page.spans)) == []


# That all this finds what is wrong.


def page_of(text: str, tmp_path: Path) -> Page:
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    return docs.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("invoke migrat", "there is no task 'migrat'"),
        ("invoke migrate --lokal", "migrate has no flag --lokal"),
        ("invoke migrate --to", "--to needs a value"),
        ("invoke migrations.repair", "migrations.repair needs VERSION"),
        ("python3 scripts/bootstrap.py invoke migrat", "there is no task 'migrat'"),
        ("A=1 invoke migrate --json >run.json || invoke stats", "there is no task 'stats'"),
        ('invoke migrations.new "add', "No closing quotation"),
        ("nox -s unti", "no session unti"),
        ("nox -s 'integration(embedded-17)'", "no session integration(embedded-17)"),
        ("python -m tests.outptu", "no module tests.outptu"),
        ("python3 scripts/bootstrp.py nox", "no file scripts/bootstrp.py"),
        ("gh secrte set NAME", "gh isn't ours"),
    ],
)
def test_a_mistake_is_found(text: str, said: str) -> None:
    assert said in mistake(text)


def test_a_program_that_nobody_knows_is_found() -> None:
    assert unknown_program("A=1 invoke status --json | jq . || frobnicate --now") == "frobnicate: whose program is it?"


@pytest.mark.parametrize(
    "text",
    [
        "invoke migrate --to VERSION --env-file .local/<server>.env # any words, and don't mind quotes",
        "invoke --help TASK",
        "invoke psql < report.sql",
        "nox -s 'integration(embedded-16)' -- -k traps",
    ],
)
def test_what_is_right_is_no_mistake(text: str) -> None:
    assert mistake(text) == ""


def test_a_page_is_read_with_its_lines(tmp_path: Path) -> None:
    page = page_of(
        "# The *page*: `x`, twice\n\nText `invoke up\n--docker` and [here](a.md#b).\nMore `c`.\n\n"
        "    invoke up \\\n      --docker\n\n"
        "```console\n$ invoke down\ninvoke up starts it\n```\n\n| a |\n|---|\n| `d` |\n\n# The page: x twice\n",
        tmp_path,
    )
    assert [(span.line, span.text) for span in page.spans] == [(1, "x"), (3, "invoke up --docker"), (5, "c"), (17, "d")]
    assert [(link.line, link.text) for link in page.links] == [(4, "a.md#b")]
    assert [list(block.commands()) for block in page.blocks] == [[(7, "invoke up --docker")], [(11, "invoke down")]]
    assert page.anchors == {"the-page-x-twice", "the-page-x-twice-1"}
