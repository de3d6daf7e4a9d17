"""The address from which this machine is seen: a setting, else what a service says."""

from __future__ import annotations

import socket
from urllib.error import URLError

import pytest

from scripts import caller
from scripts.errors import OpsError
from scripts.settings import Sources

NOTHING = Sources({}, {}, ".env")


def unasked(url: str) -> str:
    raise AssertionError(f"nobody needed to be asked: {url}")


def test_a_setting_spares_the_service() -> None:
    assert caller.address(Sources({"POSTGRES_CURRENT_IP": " 203.0.113.7 "}, {}, ".env"), unasked) == "203.0.113.7"
    assert caller.address(Sources({}, {"POSTGRES_CURRENT_IP": "203.0.113.8"}, ".env"), unasked) == "203.0.113.8"


def test_the_service_is_asked_over_https() -> None:
    asked: list[str] = []

    def fetch(url: str) -> str:
        asked.append(url)
        return "203.0.113.7\n"

    assert caller.address(NOTHING, fetch) == "203.0.113.7"
    assert [url.partition("://")[0] for url in asked] == ["https"]


@pytest.mark.parametrize("text", ["", "2001:db8::1", "<html>" + "x" * 500, "203.0.113.7/32", "203.0.113.7, 10.0.0.1"])
def test_an_answer_that_is_no_address_is_shown_in_short_with_the_way_around(text: str) -> None:
    with pytest.raises(OpsError, match=r"https://api\.ipify\.org is no IPv4 address") as caught:
        caller.address(NOTHING, lambda url: text)
    assert len(caught.value.message) < 200
    assert caller.VARIABLE in caught.value.hint


def test_a_setting_that_is_no_address_says_where_it_stands() -> None:
    with pytest.raises(OpsError, match=r"POSTGRES_CURRENT_IP \(my\.env\) is no IPv4 address: 'office'"):
        caller.address(Sources({}, {"POSTGRES_CURRENT_IP": "office"}, "my.env"))


def test_0_0_0_0_would_let_in_all_of_azure_and_is_nobodys_address() -> None:
    with pytest.raises(OpsError, match=r"is no machine's address: 0\.0\.0\.0"):
        caller.address(Sources({"POSTGRES_CURRENT_IP": "0.0.0.0"}, {}, ".env"))


@pytest.mark.parametrize("error", [URLError(socket.gaierror(-2, "Name or service not known")), TimeoutError(110, "timed out")])
def test_a_service_that_can_not_be_reached_says_why_in_plain_words(error: OSError) -> None:
    def fetch(url: str) -> str:
        raise error

    with pytest.raises(OpsError, match=r"can't be reached: (Name or service not known|timed out)$"):
        caller.address(NOTHING, fetch)


def test_a_hint_names_flags_only_where_the_command_has_them() -> None:
    for takes_ranges in (False, True):
        with pytest.raises(OpsError) as caught:
            caller.address(NOTHING, lambda url: "", takes_ranges=takes_ranges)
        assert caught.value.hint.startswith("set POSTGRES_CURRENT_IP to the address")
        assert ("--allow-cidr" in caught.value.hint) is takes_ranges
