"""The commands of az in the pages are commands of az, with flags that it has."""

from __future__ import annotations

import itertools
import re

import pytest

from tests import docs
from tests.azure.cli import Az


def commands() -> dict[tuple[str, ...], set[str]]:
    """Each command in the pages with its flags, and where it stands."""
    found: dict[tuple[str, ...], set[str]] = {}
    for page in docs.pages():
        for line, text in page.commands({"az"}):
            for program, *words in docs.split(text):
                if program == "az" and words:
                    found.setdefault(tuple(words), set()).add(f"{page.name}:{line}")
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_az_has_such_a_command_with_such_flags(words: tuple[str, ...], az: Az) -> None:
    where = ", ".join(sorted(commands()[words]))
    verbs = itertools.takewhile(lambda word: not word.startswith("-"), words)
    page = az(*verbs, "--help")
    assert page.code == 0, f"{where}: {page.err}"
    flags = [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)]
    assert [flag for flag in flags if not re.search(rf"(?<![\w-]){flag}(?![\w-])", page.out)] == [], where
