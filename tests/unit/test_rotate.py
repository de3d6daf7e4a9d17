"""Where a rotation stands is read from who may log in, the comments, and the DSN in use."""

from __future__ import annotations

from typing import Any

import pytest

from scripts import rotate
from scripts.dsn import Dsn
from scripts.errors import OpsError
from scripts.logins import Wanted
from scripts.rotate import Stage, State
from scripts.secret import Secret
from tests.unit.test_grants import converged, login

APP = Wanted(user="app")
PREPARED = "rotation: made, its DSN not handed over yet"
HANDED_OVER = "rotation: its DSN was handed over; `invoke rotate --finish` is next"
COMMENTS = [None, "the backtest service", PREPARED, HANDED_OVER]
USERS = [None, "app", "app_b"]


def state(in_use: str | None = None, **roles: dict[str, Any]) -> State:
    dsn = Dsn({"user": in_use, "host": "localhost", "dbname": "serving"}) if in_use else None
    return rotate.state(converged(roles=roles), APP, dsn)


def resting(comment: str | None = None) -> dict[str, Any]:
    return login(login=False, comment=comment)


def live(comment: str | None = None) -> dict[str, Any]:
    return login(comment=comment)


def test_a_database_with_one_login_role_is_settled() -> None:
    assert state() == state("app") == State(Stage.SETTLED, "app", "app_b")


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("in_use", [None, "self"])
@pytest.mark.parametrize(("one", "two"), [("app", "app_b"), ("app_b", "app")])
def test_who_alone_can_log_in_is_the_one_in_use_whatever_a_comment_says(
    one: str, two: str, in_use: str | None, comment: str | None
) -> None:
    found = state(one if in_use else None, **{one: live(comment), two: resting(comment)})
    assert found == State(Stage.SETTLED, one, two)


@pytest.mark.parametrize(("one", "two"), [("app", "app_b"), ("app_b", "app")])
def test_a_dsn_in_use_that_lets_nobody_in_is_an_error(one: str, two: str) -> None:
    with pytest.raises(OpsError) as raised:
        state(two, **{one: live(), two: resting()})
    assert f"is of {two}, which can't log in: {one} is the one in use" in raised.value.message
    assert f"put the DSN of {one} into" in raised.value.hint


def test_a_dsn_in_use_of_a_role_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OpsError) as raised:
        state("app_b")
    assert "is of app_b, which can't log in" in raised.value.message


@pytest.mark.parametrize("in_use", USERS)
def test_nobody_who_can_log_in_is_an_error(in_use: str | None) -> None:
    with pytest.raises(OpsError) as raised:
        state(in_use, app=resting(), app_b=resting(PREPARED))
    assert raised.value.message == "neither app nor app_b can log in to the server"
    assert "invoke roles" in raised.value.hint


@pytest.mark.parametrize("in_use", USERS)
@pytest.mark.parametrize("other", COMMENTS[:2])
@pytest.mark.parametrize(("comment", "stage"), [(PREPARED, Stage.PREPARED), (HANDED_OVER, Stage.HANDED_OVER)])
@pytest.mark.parametrize(("new", "old"), [("app", "app_b"), ("app_b", "app")])
def test_the_comment_of_the_new_one_says_how_far_it_is_whoever_is_in_use(
    new: str, old: str, comment: str, stage: Stage, other: str | None, in_use: str | None
) -> None:
    assert state(in_use, **{new: live(comment), old: live(other)}) == State(stage, old, new)


@pytest.mark.parametrize("comments", [(None, None), ("the backtest service", None), (None, "rotation: something else")])
@pytest.mark.parametrize(("old", "new"), [("app", "app_b"), ("app_b", "app")])
def test_without_a_comment_the_dsn_in_use_says_which_is_the_old_one(
    old: str, new: str, comments: tuple[str | None, str | None]
) -> None:
    roles = {"app": live(comments[0]), "app_b": live(comments[1])}
    assert state(old, **roles) == State(Stage.PREPARED, old, new)


def test_without_a_comment_and_a_dsn_nothing_says_which_is_in_use() -> None:
    with pytest.raises(OpsError) as raised:
        state(app=live(), app_b=live())
    assert raised.value.message.startswith("app and app_b can both log in, and nothing says which")
    assert raised.value.hint.startswith("put the DSN in use into ")


def test_no_password_stands_in_the_error() -> None:
    dsn = Dsn({"user": "app_b", "host": "localhost", "dbname": "serving"}, Secret("hush"))
    with pytest.raises(OpsError) as raised:
        rotate.state(converged(), APP, dsn)
    assert "hush" not in raised.value.message + raised.value.hint
