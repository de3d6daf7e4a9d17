"""The name of the next migration: its number, its words, and who has that number already. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from scripts import sql
from scripts.console import one_line
from scripts.errors import UsageError

_WIDTH = 4  # digits, at least
_LONGEST = 100  # characters of a slug: a file's name has room for 255 bytes


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A file elsewhere that has a number already."""

    where: str
    file: str
    number: int


def slug(name: str) -> str:
    """A name as it stands in a file's: `add runs table` is add_runs_table. Raises UsageError when nothing is left of it."""
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "_", plain.lower().removesuffix(".sql")).strip("_")
    if not words:
        raise UsageError(f"the name {name!r} leaves nothing for a file's name", "say in plain letters what the migration does")
    if len(words) > _LONGEST:
        raise UsageError(f"the name is too long: {len(words)} characters, of {_LONGEST}", "the file itself can say more")
    return words


def numbers(files: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(number, file) of the files that are named as migrations are."""
    for file in files:
        version = sql.version_of(file)
        if version is not None:
            yield int(version), file


def next_number(files: Iterable[str]) -> int:
    """The number behind the last one."""
    return max((number for number, _ in numbers(files)), default=0) + 1


def file_name(number: int, words: str, files: Iterable[str]) -> str:
    """The name of a new file, its digits as many as the newest one's."""
    newest = max(numbers(files), default=(0, ""))[1]
    width = max(_WIDTH, len(sql.version_of(newest) or ""))
    return f"{number:0{width}}_{words}.sql"


def taken(number: int, branches: Mapping[str, Iterable[str]]) -> list[Taken]:
    """Which branch has a file of that number."""
    return [
        Taken(where=where, file=file, number=number)
        for where, files in branches.items()
        for found, file in sorted(numbers(files))
        if found == number
    ]


def collisions(local: Iterable[str], where: str, theirs: Iterable[str]) -> list[tuple[str, Taken]]:
    """Files here that another branch lacks, each with the file there that has its number."""
    of_theirs = frozenset(theirs)
    mine = [(number, file) for number, file in sorted(numbers(local)) if file not in of_theirs]
    return [(file, found) for number, file in mine for found in taken(number, {where: of_theirs})]


def text(name: str, *, transactional: bool) -> str:
    """What a new file says: what it is for, as it was called, and the rules that one has to know while writing it."""
    said = one_line(" ".join(name.encode("utf-8", "replace").decode().split()))
    rules = (
        "Runs in one transaction with its row in the ledger, so it holds no BEGIN or COMMIT of its own."
        if transactional
        else "Runs outside a transaction: one statement, or statements that bear to be run again (IF NOT EXISTS)."
    )
    directive = "" if transactional else "-- migrate: no-transaction\n"
    return (
        f"-- {said}\n{directive}--\n-- {rules}\n"
        "-- Once it is applied it isn't changed any more: the next file mends it. All the rules: migrations/README.md\n\n"
    )
