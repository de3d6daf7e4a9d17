"""A secret shows itself to whoever asks for it by name, and to nobody else."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from scripts.secret import Secret

SECRET = Secret("hunter2")


@pytest.mark.parametrize(
    "shown",
    [str(SECRET), repr(SECRET), f"{SECRET}", f"{SECRET!r}", f"{SECRET!s}", format(SECRET, ""), str([SECRET])],
)
def test_whatever_shows_it_shows_stars(shown: str) -> None:
    assert "****" in shown
    assert "hunter2" not in shown


def test_a_width_is_for_the_stars() -> None:
    assert f"{SECRET:>8}" == "    ****"


def test_reveal_is_the_way_out() -> None:
    assert SECRET.reveal() == "hunter2"


def test_it_is_compared_with_secrets_alone() -> None:
    assert Secret("hunter2") == SECRET
    assert Secret("other") != SECRET
    assert SECRET != "hunter2"
    assert len({SECRET, Secret("hunter2"), "hunter2"}) == 2


def test_an_empty_one_is_false() -> None:
    assert not Secret("")
    assert SECRET


def test_it_has_no_attributes_to_look_into() -> None:
    with pytest.raises(TypeError):
        vars(SECRET)


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_it_is_not_serialised(way: object) -> None:
    assert callable(way)
    with pytest.raises(TypeError) as raised:
        way(SECRET)
    assert "hunter2" not in str(raised.value)
