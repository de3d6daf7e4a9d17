"""Firewall rules: what flags ask for, under names that say what is in them."""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scripts import firewall
from scripts.firewall import Rule
from tests.unit.azure import rule

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
ADDRESSES = st.integers(min_value=0, max_value=2**32 - 1).map(IPv4Address)
RANGES = st.tuples(ADDRESSES, ADDRESSES).map(lambda ends: (min(ends), max(ends)))


@given(one=RANGES, other=RANGES)
@example(one=(IPv4Address(0), IPv4Address(0)), other=(IPv4Address(0), IPv4Address(1)))
def test_a_name_stands_for_one_range_and_a_range_for_one_name(
    one: tuple[IPv4Address, IPv4Address], other: tuple[IPv4Address, IPv4Address]
) -> None:
    names = firewall.rule(*one).name, firewall.rule(*other).name
    assert (names[0] == names[1]) == (one == other)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{3,80}", name) for name in names)


@given(RANGES)
@example((IPv4Address("203.0.113.7"), IPv4Address("203.0.113.7")))
def test_the_range_can_be_read_out_of_the_name(ends: tuple[IPv4Address, IPv4Address]) -> None:
    name = firewall.rule(*ends).name
    if name == "allow-azure-services":
        assert ends == (IPv4Address(0), IPv4Address(0))
        return
    first, _, last = name.removeprefix("allow-").replace("-", ".").partition("_")
    assert (IPv4Address(first), IPv4Address(last or first)) == ends


@given(prefix=st.integers(min_value=9, max_value=32), bits=st.integers(min_value=0, max_value=2**32 - 1))
def test_a_cidr_lets_in_what_it_says_and_nothing_else(prefix: int, bits: int) -> None:
    network = ipaddress.IPv4Network((bits, prefix), strict=False)
    if network == ipaddress.IPv4Network("0.0.0.0/32"):
        return
    rules, problems = firewall.asked(cidrs=[str(network)])
    assert problems == []
    assert [(item.start, item.end) for item in rules] == [(network[0], network[-1])]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, []),
        ({"azure_services": True}, [("allow-azure-services", "0.0.0.0 (everything inside Azure)")]),
        ({"start": "203.0.113.7"}, [("allow-203-0-113-7", "203.0.113.7")]),
        ({"start": "203.0.113.7", "end": "203.0.113.9"}, [("allow-203-0-113-7_203-0-113-9", "203.0.113.7 to 203.0.113.9")]),
        ({"start": "0.0.0.0", "end": "0.0.0.9"}, [("allow-0-0-0-0_0-0-0-9", "0.0.0.0 to 0.0.0.9")]),
        ({"cidrs": ["203.0.113.0/24"]}, [("allow-203-0-113-0_203-0-113-255", "203.0.113.0 to 203.0.113.255")]),
        ({"cidrs": [" 203.0.113.7 "]}, [("allow-203-0-113-7", "203.0.113.7")]),
        ({"cidrs": ["203.0.113.7/32", "203.0.113.7"], "current": "203.0.113.7"}, [("allow-203-0-113-7", "203.0.113.7")]),
        ({"cidrs": ["10.0.0.0/9"]}, [("allow-10-0-0-0_10-127-255-255", "10.0.0.0 to 10.127.255.255")]),
        (
            {"cidrs": ["0.0.0.0/0"], "allow_wide": True},
            [("allow-0-0-0-0_255-255-255-255", "0.0.0.0 to 255.255.255.255")],
        ),
    ],
)
def test_flags_come_to_rules_each_once(flags: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    rules, problems = firewall.asked(**flags)
    assert ([(item.name, item.addresses) for item in rules], problems) == (expected, [])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"end": "203.0.113.7"}, ["has no --allow-ip-range-start"]),
        (
            {"start": "203.0.113.9", "end": "203.0.113.7"},
            ["--allow-ip-range-end 203.0.113.7 lies before --allow-ip-range-start 203.0.113.9"],
        ),
        ({"start": "203.0.113.300"}, ["--allow-ip-range-start 203.0.113.300: not an IPv4 address"]),
        ({"start": "a", "end": "b"}, ["--allow-ip-range-start a", "--allow-ip-range-end b"]),
        ({"start": "203.0.113.07"}, ["not an IPv4 address"]),
        ({"start": "2001:db8::1"}, ["knows IPv4 only"]),
        ({"start": "0.0.0.0"}, ["--allow-azure-services"]),
        ({"start": "0.0.0.0", "end": "0.0.0.0"}, ["--allow-azure-services"]),
        ({"cidrs": ["0.0.0.0/32"]}, ["--allow-azure-services"]),
        ({"cidrs": ["0.0.0.0"]}, ["--allow-azure-services"]),
        ({"current": "0.0.0.0"}, ["--allow-azure-services"]),
        ({"cidrs": ["2001:db8::/32"]}, ["knows IPv4 only"]),
        ({"cidrs": ["203.0.113.7/24"]}, ["203.0.113.0/24 is meant, or 203.0.113.7/32"]),
        ({"cidrs": ["office", "203.0.113.0/33"]}, ["--allow-cidr office", "--allow-cidr 203.0.113.0/33"]),
        ({"current": "2001:db8::1"}, ["the address of this machine 2001:db8::1"]),
        ({"cidrs": ["10.0.0.0/8"]}, ["16,777,216 addresses: narrow it, or add --allow-wide"]),
        ({"cidrs": ["0.0.0.0/0"]}, ["4,294,967,296 addresses"]),
        ({"start": "0.0.0.0", "end": "255.255.255.255"}, ["4,294,967,296 addresses"]),
        ({"start": "10.0.0.1", "end": "11.0.0.0"}, ["16,777,216 addresses"]),
    ],
)
def test_what_azure_would_refuse_or_nobody_can_mean_is_a_problem(flags: dict[str, Any], words: list[str]) -> None:
    _, problems = firewall.asked(**flags)
    assert len(problems) == len(words)
    for problem, word in zip(problems, words, strict=True):
        assert word in problem


def test_one_address_less_than_a_slash_8_is_not_wide() -> None:
    assert firewall.asked(start="10.0.0.1", end="10.255.255.255")[1] == []


def test_a_temporary_rule_says_since_when_and_has_a_name_that_azure_takes() -> None:
    made = firewall.temporary("203.0.113.7", NOW, "c0ffee")
    assert made == rule("postgres-serving-split-temporary-20260304T050607Z-c0ffee", "203.0.113.7")
    assert len(made.name) <= 80


@pytest.mark.parametrize(
    ("age", "in_use"),
    [(timedelta(0), True), (timedelta(hours=5, minutes=59), True), (timedelta(hours=6), False), (timedelta(days=9), False)],
)
def test_a_temporary_rule_is_somebodys_for_six_hours(age: timedelta, in_use: bool) -> None:
    made = firewall.temporary("203.0.113.7", NOW, "c0ffee")
    assert firewall.in_use(made, NOW + age) is in_use


@pytest.mark.parametrize(
    "name",
    [
        "office",
        "allow-203-0-113-7",
        "postgres-serving-split-temporary-",
        "postgres-serving-split-temporary-20260304T050607Z",
        "postgres-serving-split-temporary-20269999T999999Z-c0ffee",
        "my-postgres-serving-split-temporary-20260304T050607Z-c0ffee",
    ],
)
def test_another_rule_is_in_nobodys_use(name: str) -> None:
    assert not firewall.in_use(rule(name, "203.0.113.7"), NOW)


def test_a_temporary_rule_does_not_last_and_every_other_does() -> None:
    assert not firewall.lasts(firewall.temporary("203.0.113.7", NOW - timedelta(days=1), "c0ffee"))
    assert firewall.lasts(rule("office", "203.0.113.7"))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], False),
        ([rule("a", "203.0.113.7")], True),
        ([rule("a", "203.0.113.0", "203.0.113.6"), rule("b", "203.0.113.8", "203.0.113.9")], False),
        ([rule("a", "203.0.113.7", "203.0.113.9")], True),
        ([rule("a", "203.0.113.1", "203.0.113.7")], True),
        ([rule("azure", "0.0.0.0")], False),
        ([rule("all", "0.0.0.0", "255.255.255.255")], True),
    ],
)
def test_an_address_is_let_in_by_a_range_that_holds_it(rules: list[Rule], expected: bool) -> None:
    assert firewall.lets_in(rules, "203.0.113.7") is expected


@pytest.mark.parametrize(
    ("address", "age", "expected"),
    [
        ("203.0.113.7", timedelta(minutes=1), True),
        ("203.0.113.7", timedelta(days=1), True),
        ("203.0.113.8", timedelta(minutes=1), False),  # another machine may be at work
        ("203.0.113.8", timedelta(days=1), True),
    ],
)
def test_a_machine_may_remove_what_is_its_own_and_what_is_nobodys(address: str, age: timedelta, expected: bool) -> None:
    assert firewall.is_left(firewall.temporary(address, NOW - age, "abc"), "203.0.113.7", NOW) is expected


@pytest.mark.parametrize("name", ["office", "allow-203-0-113-7"])
def test_a_rule_that_lasts_is_nothing_that_was_left(name: str) -> None:
    assert not firewall.is_left(rule(name, "203.0.113.7"), "203.0.113.7", NOW)
