"""Migration files: read, ordered, checksummed. Pure but for reading the folder that it is given.

The rules of a file stand in migrations/README.md; what a file may hold is `safety.py`'s matter.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.errors import UsageError

_NAME = re.compile(r"(?P<version>[0-9]+)[_-](?P<name>.+)\.sql", re.DOTALL)
_REPEATABLE = re.compile(r"(?P<version>R__(?P<name>.+))\.sql", re.DOTALL)
_FLYWAYS = re.compile(r"V[0-9]")  # its V1__name.sql: who comes from there would take it for applied
_DIRECTIVE = re.compile(r"^--[ \t]*migrate:[ \t]*(?P<word>.*?)[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"\s+|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file, and where."""

    file: str
    line: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.what}"


@dataclass(frozen=True)
class Migration:
    """One file of the migrations folder."""

    version: str  # the digits as written, as the ledger has them: "0001"; of a repeatable file "R__views"
    name: str  # "schema_migrations"
    file: str  # "0001_schema_migrations.sql"
    checksum: str = field(repr=False)  # sha256 of the text, hexadecimal; of a repeatable file, with what it includes (`safety`)
    text: str = field(repr=False)  # BOM removed, line ends LF
    transactional: bool = True  # False: "-- migrate: no-transaction"

    @property
    def number(self) -> int:
        """The version as a number, which orders the files: 2 comes before 0010."""
        return int(self.version)

    @property
    def repeatable(self) -> bool:
        """Whether it runs behind the numbered ones whenever it has changed: a view, a function, a grant."""
        return self.version.startswith("R__")


@dataclass(frozen=True)
class Folder:
    """A migrations folder: its files in order, and what is wrong with them."""

    path: Path
    migrations: tuple[Migration, ...]
    problems: tuple[Problem, ...]
    repeatables: tuple[Migration, ...] = ()  # by name

    @property
    def files(self) -> tuple[Migration, ...]:
        """All of them, as they run."""
        return (*self.migrations, *self.repeatables)


def normalise(data: bytes) -> str:
    """A file's text as it is checksummed and run: no BOM, line ends LF, so that every platform has the same.

    Raises UnicodeDecodeError (a ValueError) when it isn't UTF-8, ValueError when it holds a NUL.
    """
    # Every BOM at the beginning: psql would drop the one behind the first, and see another text than we do.
    text = data.decode("utf-8").lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise ValueError("NUL")
    return text


def file_names(path: Path) -> list[str]:
    """The names of a folder's SQL files. Raises UsageError when the folder isn't there or can't be read."""
    try:
        with os.scandir(path) as entries:  # which mostly knows what is a file without asking for each
            return sorted(entry.name for entry in entries if entry.name.lower().endswith(".sql") and entry.is_file())
    except OSError as error:
        raise UsageError(f"the migrations folder {path} can't be read: {error.strerror}", "name it: --migrations-dir") from None


def version_of(name: str) -> str | None:
    """The digits that a file's name begins with, when it is named as a migration is."""
    match = _NAME.fullmatch(name)
    return match["version"] if match else None


def read_folder(path: Path) -> Folder:
    """Reads every migration of a folder, in numeric order of its digits, the repeatable ones by name; others are left alone.

    Raises UsageError when the folder isn't there or can't be read. What is wrong with a file is a Problem, so that
    all of them can be listed at once.
    """
    migrations: list[Migration] = []
    repeatables: list[Migration] = []
    problems: list[Problem] = []
    for name in file_names(path):
        match = _NAME.fullmatch(name) or _REPEATABLE.fullmatch(name)
        if match is not None and re.search(r"[\x00-\x1f\x7f\\]", name):
            problems.append(Problem(repr(name), None, "has a backslash or a control character in its name"))
            continue
        if match is None:
            if name[0].isdigit() or _FLYWAYS.match(name):
                problems.append(Problem(name, None, "isn't named NNNN_name.sql (digits, then _ or -)"))
            elif name.startswith(("r__", "R_")):
                problems.append(Problem(name, None, "isn't named R__name.sql"))
            continue
        try:
            text = normalise((path / name).read_bytes())
        except OSError as error:
            problems.append(Problem(name, None, f"can't be read: {error.strerror}"))
            continue
        except ValueError:
            problems.append(Problem(name, None, "isn't UTF-8 text"))
            continue
        if not text.strip():
            problems.append(Problem(name, None, "is empty"))
        transactional, directive_problems = _directives(name, text)
        problems += directive_problems
        checksum = hashlib.sha256(text.encode("utf-8")).hexdigest()
        migration = Migration(match["version"], match["name"], name, checksum, text, transactional)
        if migration.repeatable and not transactional:
            problems.append(Problem(name, 1, "a repeatable file runs in a transaction: give what can't to a numbered file"))
        (repeatables if migration.repeatable else migrations).append(migration)
    migrations.sort(key=lambda migration: (migration.number, migration.file))
    problems += duplicates(migrations)
    return Folder(path, tuple(migrations), tuple(problems), tuple(repeatables))


def _directives(name: str, text: str) -> tuple[bool, list[Problem]]:
    """Whether a file runs in a transaction, from its first comment."""
    if "migrate:" not in text:
        return True, []
    header_end = 0
    while comment := _COMMENT.match(text, header_end):
        header_end = comment.end()
    transactional, problems = True, []
    for match in _DIRECTIVE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["word"] != "no-transaction":
            problems.append(Problem(name, line, f"unknown directive {match['word']!r}; the one there is: no-transaction"))
        elif match.start() >= header_end:
            problems.append(Problem(name, line, "the directive must stand in the file's first comment"))
        else:
            transactional = False
    return transactional, problems


def duplicates(migrations: Sequence[Migration]) -> list[Problem]:
    """Files of one number, each named beside the one before it; nothing but a ledger could tell which of them counts."""
    problems = []
    for before, after in itertools.pairwise(migrations):
        if before.number == after.number:
            problems.append(Problem(after.file, None, f"has the same version as {before.file}"))
    return problems
