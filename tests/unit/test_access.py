"""What goes to psql on the way to changing who may do what: whatever is called how, it stays what it is."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import access, lexer
from scripts.catalogs import identifier
from scripts.grants import Extra
from scripts.lexer import Statement
from scripts.psql import Session

NAMES = ["t$take_away$", "t$take_away$\\! id>/tmp/x #", "t$$", "it's", "a\\", "\\'; \\! id #", "a\nb", "a:b", ':"b"', ":'b'", "%"]


class Asked:
    """Stands for a session, and keeps what it was asked."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def query(self, sql: str) -> list[str]:
        self.queries.append(sql)
        return []


def taken_away(name: str) -> list[str]:
    asked = Asked()
    access.take_away(cast("Session", asked), [Extra("it", (f"REVOKE SELECT ON TABLE {identifier(name)} FROM PUBLIC",))])
    return asked.queries


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_an_object_ends_the_statement_that_takes_it_away(name: str) -> None:
    (sql,) = taken_away(name)
    lexed = lexer.lex(f"{sql};SELECT 2;")
    assert (lexed.problems, [type(item) for item in lexed.items]) == ([], [Statement, Statement])


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_nor_does_any_other(name: str) -> None:
    (sql,) = taken_away(name)
    lexed = lexer.lex(f"{sql};SELECT 2;")
    assert (lexed.problems, [type(item) for item in lexed.items]) == ([], [Statement, Statement])


def test_what_is_somebodys_to_decide_is_not_taken_away() -> None:
    asked = Asked()
    access.take_away(cast("Session", asked), [Extra("it", ("REVOKE IT",), by_hand=True)])
    assert asked.queries == []


def test_what_nobody_can_take_away_is_not_tried() -> None:
    asked = Asked()
    access.take_away(cast("Session", asked), [Extra("it", ())])
    assert asked.queries == []
