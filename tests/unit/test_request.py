"""What flags, the environment and `.env` ask `provision` for, and every problem with them in one report."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts import request
from scripts.errors import ExitCode, OpsError, UsageError
from scripts.request import Request
from scripts.secret import Secret
from scripts.settings import Sources
from tests.unit.azure import SUBSCRIPTION

OTHER = "22222222-2222-4222-8222-222222222222"
ENOUGH = {"AZURE_SUBSCRIPTION_ID": SUBSCRIPTION, "POSTGRES_SERVER_NAME": "srv1"}


def nowhere(found: Sources) -> str:
    raise AssertionError("nobody asked for the address of this machine")


def read(
    flags: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None, file: Mapping[str, str] | None = None
) -> Request:
    """The request of flags and settings, with what has to be named."""
    return request.read(flags or {}, Sources({**ENOUGH, **(env or {})}, file or {}, "my.env"), nowhere)


def problems(
    flags: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None, file: Mapping[str, str] | None = None
) -> list[str]:
    """What is wrong with flags and settings."""
    with pytest.raises(UsageError) as caught:
        read(flags, env, file)
    first, *rest = caught.value.message.splitlines()
    assert first.startswith("1 problem with" if len(rest) == 1 else f"{len(rest)} problems with")
    assert "nothing was done" in first
    assert caught.value.exit_code is ExitCode.USAGE
    return [line.removeprefix("  ") for line in rest]


# --- Where a setting comes from ---------------------------------------------------------------------------------------

SETTINGS: list[tuple[str, str, str, Any]] = [
    ("subscription_id", "AZURE_SUBSCRIPTION_ID", OTHER, OTHER),
    ("resource_group", "AZURE_RESOURCE_GROUP", "my-rg", "my-rg"),
    ("server_name", "POSTGRES_SERVER_NAME", "srv2", "srv2"),
    ("database_name", "POSTGRES_DATABASE_NAME", "db2", "db2"),
    ("admin_user", "POSTGRES_ADMIN_USER", "me", "me"),
    ("sku_name", "POSTGRES_SKU_NAME", "standard_b2s", "standard_b2s"),
    ("tier", "POSTGRES_TIER", "Burstable", "Burstable"),
    ("storage_size_gib", "POSTGRES_STORAGE_SIZE_GIB", "64", 64),
    ("postgres_version", "POSTGRES_VERSION", "17", 17),
    ("backup_retention_days", "POSTGRES_BACKUP_RETENTION_DAYS", "14", 14),
    ("zonal_resiliency", "POSTGRES_ZONAL_RESILIENCY", "disabled", False),
]
FIELDS = {
    "subscription_id": "subscription",
    "resource_group": "group",
    "server_name": "server",
    "database_name": "database",
    "admin_user": "admin",
    "sku_name": "sku",
    "storage_size_gib": "storage",
    "postgres_version": "version",
    "backup_retention_days": "retention",
    "zonal_resiliency": "zonal",
}


@pytest.mark.parametrize(("flag", "variable", "text", "value"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_a_setting_is_a_flag_or_a_variable_or_in_the_file(flag: str, variable: str, text: str, value: Any) -> None:
    field = FIELDS.get(flag, flag)
    assert request.variable(flag) == variable
    assert getattr(read({flag: text}).wanted, field) == value
    assert getattr(read(env={variable: text}).wanted, field) == value
    env = {name: "" for name in ENOUGH if name == variable}  # an empty variable is none
    assert getattr(read(env=env, file={variable: text}).wanted, field) == value


def test_flags_beat_the_environment_and_that_beats_the_file() -> None:
    name = "POSTGRES_DATABASE_NAME"
    assert read({"database_name": "a"}, {name: "b"}, {name: "c"}).wanted.database == "a"
    assert read({}, {name: "b"}, {name: "c"}).wanted.database == "b"
    assert read({}, {}, {name: "c"}).wanted.database == "c"


def test_what_is_left_open_is_left_open() -> None:
    found = read()
    wanted = found.wanted
    assert (wanted.group, wanted.database, wanted.locations) == ("srv1-rg", "serving", ("eastus2", "centralus", "westus2"))
    assert (wanted.admin, wanted.sku, wanted.tier, wanted.storage, wanted.version) == (None,) * 5
    assert (wanted.retention, wanted.zonal, wanted.rules, wanted.prune) == (None, None, (), False)
    assert (wanted.location_is_given, found.password) == (False, None)
    assert (found.sslmode, found.sslrootcert, found.deadline) == ("require", "system", 360.0)


def test_the_dsns_tls_and_the_deadline_are_settings_too() -> None:
    found = read({"sslmode": "verify-full", "sslrootcert": "/roots.pem"}, {"POSTGRES_READY_DEADLINE": "5"})
    assert (found.sslmode, found.sslrootcert, found.deadline) == ("verify-full", "/roots.pem", 5.0)


@pytest.mark.parametrize(
    ("flags", "env", "expected"),
    [
        ({"location": "East US"}, {}, ("eastus", "eastus2", "centralus", "westus2")),
        ({"location": "centralus"}, {}, ("centralus", "eastus2", "westus2")),
        ({}, {"AZURE_LOCATION": "eastus"}, ("eastus", "eastus2", "centralus", "westus2")),
        ({"location_fallback": ["westus3", "eastus, northeurope"]}, {}, ("westus3", "eastus", "northeurope")),
        ({"location": "eastus", "location_fallback": ["eastus,westus3,,westus3"]}, {}, ("eastus", "westus3")),
        ({"location_fallback": []}, {"POSTGRES_LOCATION_FALLBACK": "westus3, West US"}, ("westus3", "westus")),
        ({"location_fallback": ["eastus"]}, {"POSTGRES_LOCATION_FALLBACK": "westus3"}, ("eastus",)),
    ],
)
def test_locations_are_the_one_asked_for_and_those_to_fall_back_to_each_once(
    flags: dict[str, Any], env: dict[str, str], expected: tuple[str, ...]
) -> None:
    wanted = read(flags, env).wanted
    assert wanted.locations == expected
    assert wanted.location_is_given is ("location" in flags or "AZURE_LOCATION" in env)


# --- Switches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "on"),
    [
        *((text, True) for text in ("1", "true", "True", "yes", "on", "enabled")),
        *((text, False) for text in ("0", "false", "FALSE", "no", "off", "disabled", "")),
    ],
)
def test_a_switch_can_be_set_by_the_environment(text: str, on: bool) -> None:
    assert read(env={"POSTGRES_PRUNE_FIREWALL": text}).wanted.prune is on
    assert read({"prune_firewall": False}, file={"POSTGRES_PRUNE_FIREWALL": text}).wanted.prune is on
    assert read({"prune_firewall": True}, {"POSTGRES_PRUNE_FIREWALL": text}).wanted.prune is True


@pytest.mark.parametrize(("text", "zonal"), [("enabled", True), ("Disabled", False), ("on", True), ("0", False)])
def test_resiliency_is_on_off_or_left_open(text: str, zonal: bool) -> None:
    assert read({"zonal_resiliency": text, "sku_name": "standard_d2ds_v5"}).wanted.zonal is zonal


def test_a_switch_that_is_neither_on_nor_off_is_a_problem() -> None:
    assert problems({"zonal_resiliency": "maybe"}, {"POSTGRES_PRUNE_FIREWALL": "2"}) == [
        "--zonal-resiliency 'maybe': on or off is meant (enabled, disabled)",
        "POSTGRES_PRUNE_FIREWALL (environment) '2': on or off is meant (enabled, disabled)",
    ]


# --- The firewall -----------------------------------------------------------------------------------------------------


def test_nothing_is_opened_unless_it_is_asked_for() -> None:
    assert read().wanted.rules == ()


def test_every_way_to_open_the_firewall_comes_to_a_rule() -> None:
    flags = {
        "allow_azure_services": True,
        "allow_ip_range_start": "203.0.113.7",
        "allow_ip_range_end": "203.0.113.9",
        "allow_cidr": ["198.51.100.0/24,198.51.100.0/25", "192.0.2.1"],
        "allow_current_ip": True,
    }
    found = request.read(flags, Sources(ENOUGH, {}, ".env"), lambda found: "192.0.2.77")
    assert [rule.addresses for rule in found.wanted.rules] == [
        "0.0.0.0 (everything inside Azure)",
        "203.0.113.7 to 203.0.113.9",
        "198.51.100.0 to 198.51.100.255",
        "198.51.100.0 to 198.51.100.127",
        "192.0.2.1",
        "192.0.2.77",
    ]


def test_the_firewall_can_be_opened_by_settings() -> None:
    env = {"POSTGRES_ALLOW_AZURE_SERVICES": "true", "POSTGRES_ALLOW_CIDR": "203.0.113.0/24,192.0.2.1"}
    assert len(read(env=env).wanted.rules) == 3


def test_a_wide_range_needs_its_switch() -> None:
    assert "--allow-wide" in problems({"allow_cidr": ["10.0.0.0/8"]})[0]
    assert len(read({"allow_cidr": ["10.0.0.0/8"], "allow_wide": True}).wanted.rules) == 1


def test_this_machines_address_is_not_asked_for_when_there_are_problems_already() -> None:
    assert len(problems({"allow_current_ip": True, "storage_size_gib": "1"})) == 1  # `nowhere` would have raised


# --- The password -----------------------------------------------------------------------------------------------------


def test_the_password_comes_from_a_flag_a_file_stdin_or_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("Fr0m-file\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Fr0m-stdin\n"))
    assert read({"admin_password": "Fr0m-flag"}).password == (Secret("Fr0m-flag"), "--admin-password")
    assert read({"admin_password_file": str(file)}).password == (Secret("Fr0m-file"), str(file))
    assert read({"admin_password": "-"}).password == (Secret("Fr0m-stdin"), "stdin")
    assert read(env={"POSTGRES_ADMIN_PASSWORD": "Fr0m-env"}).password == (
        Secret("Fr0m-env"),
        "POSTGRES_ADMIN_PASSWORD (environment)",
    )


@pytest.mark.parametrize(
    ("flags", "env", "words"),
    [
        ({"admin_password": "short"}, {}, "the password of --admin-password: it has to have 8 to 128 characters"),
        ({"admin_password": "X1-pgadmin", "admin_user": "pgadmin"}, {}, "three or more characters in a row"),
        ({"admin_password": ""}, {}, "--admin-password is empty"),
        ({"admin_password": "x", "admin_password_file": "y"}, {}, "both give a password"),
        ({}, {"POSTGRES_ADMIN_PASSWORD": "short"}, "the password of POSTGRES_ADMIN_PASSWORD (environment): it has to have 8"),
    ],
)
def test_a_password_that_azure_would_refuse_is_a_problem_and_not_shown(
    flags: dict[str, str], env: dict[str, str], words: str
) -> None:
    [problem] = problems(flags, env)
    assert words in problem
    assert "short" not in problem
    assert "X1-pgadmin" not in problem


# --- Problems ---------------------------------------------------------------------------------------------------------


def test_what_has_to_be_named_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        request.read({}, Sources({}, {}, ".env"), nowhere)
    lines = caught.value.message.splitlines()
    assert lines[0].startswith("2 problems")
    assert "--subscription-id, or AZURE_SUBSCRIPTION_ID, is missing" in lines[1]
    assert "az account list" in lines[1]
    assert "--server-name, or POSTGRES_SERVER_NAME, is missing" in lines[2]


def test_every_problem_is_in_one_report_with_where_it_stands() -> None:
    flags = {
        "subscription_id": "my-subscription",
        "database_name": "1db",
        "admin_user": "admin",
        "sku_name": "b1ms",
        "location": "East/US",
        "location_fallback": ["a;b"],
        "admin_password": "short",
        "sslmode": "disable",
        "ready_deadline": "soon",
        "allow_ip_range_end": "203.0.113.7",
        "allow_cidr": ["office"],
    }
    env = {"POSTGRES_SERVER_NAME": "Srv_1", "POSTGRES_STORAGE_SIZE_GIB": "33", "AZURE_RESOURCE_GROUP": "rg."}
    found = problems(flags, env, {"POSTGRES_VERSION": "9.6", "POSTGRES_BACKUP_RETENTION_DAYS": "36"})
    assert [problem.split("'")[0].split(":")[0].strip() for problem in found] == [
        "--subscription-id",
        "POSTGRES_SERVER_NAME (environment)",
        "AZURE_RESOURCE_GROUP (environment)",
        "--database-name",
        "--admin-user",
        "--sku-name b1ms",
        "--location",
        "--location-fallback",
        "the password of --admin-password",
        "--sslmode",
        "--ready-deadline",
        "POSTGRES_STORAGE_SIZE_GIB (environment)",
        "POSTGRES_VERSION (my.env)",
        "POSTGRES_BACKUP_RETENTION_DAYS (my.env)",
        "--allow-ip-range-end 203.0.113.7 has no --allow-ip-range-start",
        "--allow-cidr office",
    ]


TEXTS = [
    *("subscription_id", "resource_group", "server_name", "database_name", "admin_user", "sku_name", "tier", "location"),
    *("storage_size_gib", "postgres_version", "backup_retention_days", "zonal_resiliency", "sslrootcert"),
]


@pytest.mark.parametrize("flag", TEXTS)
def test_a_flag_with_an_empty_value_is_a_problem_as_an_unset_variable_of_a_script_makes_it(flag: str) -> None:
    assert problems({flag: ""}) == [f"--{flag.replace('_', '-')} is empty: give it a value, or leave it away"]


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("allow_cidr", [""]),
        ("allow_cidr", [" , "]),
        ("allow_cidr", ["192.0.2.1", ""]),
        ("location_fallback", [""]),
        ("location_fallback", ["eastus", ""]),
    ],
)
def test_a_repeated_flag_with_an_empty_value_is_a_problem_too(flag: str, values: list[str]) -> None:
    assert problems({flag: values}) == [f"--{flag.replace('_', '-')} is empty: give it a value, or leave it away"]


def test_that_this_machines_address_can_not_be_found_is_passed_on() -> None:
    def lost(found: Sources) -> str:
        raise OpsError("no network")

    with pytest.raises(OpsError, match="no network"):
        request.read({"allow_current_ip": True}, Sources(ENOUGH, {}, ".env"), lost)


# --- Where a server is ------------------------------------------------------------------------------------------------


def test_a_place_is_a_subscription_a_group_and_a_server() -> None:
    reader = request.Reader({"server_name": None}, Sources({"AZURE_SUBSCRIPTION_ID": SUBSCRIPTION}, {}, ".env"))
    assert request.place(reader, "srv1") == (SUBSCRIPTION, "srv1-rg", "srv1")
    reader.finish()
    reader = request.Reader({"server_name": "srv2", "resource_group": "rg"}, reader.found)
    assert request.place(reader, "srv1") == (SUBSCRIPTION, "rg", "srv2")
    reader.finish()
