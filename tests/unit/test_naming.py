"""The name of the next migration, and who has its number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import lexer, naming, rules, sql
from scripts.errors import UsageError
from scripts.naming import Taken


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("add runs table", "add_runs_table"),
        ("  Add: runs/table!  ", "add_runs_table"),
        ("Größe der Läufe", "grosse_der_laufe"),
        ("déjà vu №2", "deja_vu_no2"),
        ("../../etc/passwd", "etc_passwd"),
        ("add_runs.sql", "add_runs"),
    ],
)
def test_a_name_becomes_one_that_every_file_system_takes(name: str, expected: str) -> None:
    assert naming.slug(name) == expected


@pytest.mark.parametrize("name", ["", "   ", "!?", "схемы", ".sql", "x" * 101])
def test_a_name_that_can_be_no_file_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        naming.slug(name)


@given(st.text())
def test_a_slug_is_one_for_good(name: str) -> None:
    try:
        words = naming.slug(name)
    except UsageError:
        return
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", words)
    assert naming.slug(words) == words
    assert sql.version_of(naming.file_name(7, words, [])) == "0007"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "0001_x.sql"),
        (["0001_a.sql", "0003_b.sql", "README.md", "R__views.sql"], "0004_x.sql"),
        (["1_a.sql", "9_b.sql"], "0010_x.sql"),
        (["00041_a.sql", "0007_b.sql"], "00042_x.sql"),
        (["000001_a.sql", "0002_b.sql"], "0003_x.sql"),
        (["9999-b.sql"], "10000_x.sql"),
        (["20261128093000_a.sql"], "20261128093001_x.sql"),
    ],
)
def test_the_next_file_has_the_next_number_in_the_digits_of_the_newest(files: list[str], expected: str) -> None:
    assert naming.file_name(naming.next_number(files), "x", files) == expected


def test_who_has_a_number_is_told() -> None:
    branches = {"main": ["0003_a.sql", "0004_b.sql"], "topic": ["4-c.sql", "README.md"], "other": ["0005_d.sql"]}
    assert naming.taken(4, branches) == [
        Taken(where="main", file="0004_b.sql", number=4),
        Taken(where="topic", file="4-c.sql", number=4),
    ]


def test_a_file_collides_when_the_other_branch_lacks_it_and_has_its_number() -> None:
    local = ["0003_a.sql", "0004_mine.sql", "0005_more.sql"]
    theirs = ["0003_a.sql", "0004_theirs.sql", "0006_z.sql"]
    assert naming.collisions(local, "main", theirs) == [
        ("0004_mine.sql", Taken(where="main", file="0004_theirs.sql", number=4)),
    ]


@pytest.mark.parametrize("transactional", [True, False])
@given(name=st.text(min_size=1))
def test_a_new_file_is_comments_alone_whatever_its_name(transactional: bool, name: str) -> None:
    text = sql.normalise(naming.text(name, transactional=transactional).encode())
    assert lexer.lex(text).items == []
    assert text.count("\n") == (5 if transactional else 6)


@pytest.mark.parametrize("transactional", [True, False])
def test_a_new_file_has_a_header_and_its_mode(folder: Path, transactional: bool) -> None:
    text = naming.text("add runs\ntable", transactional=transactional)
    (folder / "0001_a.sql").write_text(text, encoding="utf-8")
    (migration,) = sql.read_folder(folder).migrations
    assert text.startswith("-- add runs table\n")
    assert text.endswith("\n\n")
    assert migration.transactional is transactional
    assert list(rules.header("0001_a.sql", text)) == []
