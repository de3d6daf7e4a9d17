"""What goes to psql on the way to changing who may do what: whatever is called how, it stays what it is."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import access, lexer
from scripts.catalogs import identifier
from scripts.errors import OpsError
from scripts.grants import Extra
from scripts.lexer import Statement
from scripts.psql import Message, PsqlError, Session
from scripts.target import Target

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


class Busy:
    """Stands for a target at which somebody else changes the same role, so many times."""

    def __init__(self, times: int, text: str = "tuple concurrently updated") -> None:
        self.times = times
        self.text = text
        self.asked = 0

    def ask(self, *_: object, **__: object) -> None:
        self.asked += 1
        if self.asked <= self.times:
            raise PsqlError(self.text, error=Message(severity="ERROR", text=self.text), code=3, connected=True)


def ran(busy: Busy) -> int:
    access.run(cast("Target", busy), lambda session: None, wait=0.0, again="invoke it", note=lambda text: None)
    return busy.asked


def test_a_role_that_somebody_else_changes_at_the_same_moment_is_tried_again() -> None:
    assert (ran(Busy(0)), ran(Busy(2))) == (1, 3)
    with pytest.raises(OpsError, match="tuple concurrently updated"):
        ran(Busy(3))


def test_another_error_is_not_tried_again_and_says_where_to_look() -> None:
    busy = Busy(1, "out of disk")
    with pytest.raises(OpsError) as raised:
        ran(busy)
    assert (busy.asked, raised.value.hint) == (1, "see what the log of the server says, then: invoke it")
