"""Azure's rules for a flexible server, kept before Azure is asked."""

from __future__ import annotations

from typing import Any

import pytest

from scripts import flexible, shell
from scripts.flexible import Region
from scripts.secret import Secret
from tests.unit.azure import region, wanted


@pytest.mark.parametrize("name", ["abc", "a-b", "1ab", "a" * 63, "srv--1", "0-0"])
def test_a_servers_name_that_azure_takes(name: str) -> None:
    assert flexible.server_name_problem(name) is None


@pytest.mark.parametrize("name", ["", "ab", "a" * 64, "-abc", "abc-", "Abc", "a_b", "a.b", "a b", "größe", "abc\n"])
def test_a_servers_name_that_azure_refuses(name: str) -> None:
    assert "3 to 63 of a-z, 0-9 and -" in (flexible.server_name_problem(name) or "")


@pytest.mark.parametrize("name", ["a", "_", "Serving_1", "my-db", "a" * 63, "postgres"])
def test_a_databases_name_that_azure_takes(name: str) -> None:
    assert flexible.database_name_problem(name) is None


@pytest.mark.parametrize("name", ["", "1a", "-a", "a" * 64, "a.b", "a b", "größe", "a\n"])
def test_a_databases_name_that_azure_refuses(name: str) -> None:
    assert "begins with a letter or _" in (flexible.database_name_problem(name) or "")


@pytest.mark.parametrize("name", ["azure_maintenance", "azure_sys", "template0", "template1"])
def test_the_servers_own_databases_are_not_to_be_had(name: str) -> None:
    assert "the server's own" in (flexible.database_name_problem(name) or "")


@pytest.mark.parametrize("name", ["rg", "a" * 90, "my.group_(1)-x", "Rg"])
def test_a_groups_name_that_azure_takes(name: str) -> None:
    assert flexible.group_name_problem(name) is None


@pytest.mark.parametrize("name", ["", "a" * 91, "rg.", "a b", "a/b", "rg\n"])
def test_a_groups_name_that_azure_refuses(name: str) -> None:
    assert "at most 90" in (flexible.group_name_problem(name) or "")


@pytest.mark.parametrize("name", ["serving_admin", "pgadmin", "admins", "_a", "a" * 63, "Admin1", "pg-x"])
def test_an_administrators_name_that_azure_takes(name: str) -> None:
    assert flexible.admin_name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *("azure_superuser", "azure_pg_admin", "admin", "administrator", "root", "guest", "public", "replication", "azuresu"),
        *("pg_", "pg_monitor", "PG_X", "Admin", "ROOT"),
    ],
)
def test_an_administrators_name_that_azure_keeps(name: str) -> None:
    assert "Azure keeps this name" in (flexible.admin_name_problem(name) or "")


@pytest.mark.parametrize("name", ["", "1a", "-a", "a b", "a" * 64, "a@b", "a\n"])
def test_an_administrators_name_that_is_none(name: str) -> None:
    assert "begins with a letter or _" in (flexible.admin_name_problem(name) or "")


@pytest.mark.parametrize(
    ("password", "login"),
    [
        ("Abcdef12", "me"),
        ("abcdef1!", "me"),
        ("ABCDEF1!", "me"),
        ("Abcdefg!", "me"),
        ("aB3" + "x" * 125, "me"),
        ("Pa55word se", "serving"),  # two of its characters are none too many
    ],
)
def test_a_password_that_azure_takes(password: str, login: str) -> None:
    assert flexible.password_problem(Secret(password), login) is None


def test_letters_outside_ascii_reach_az_but_on_windows() -> None:
    assert flexible.password_problem(Secret("größeN9ü"), "") is None or shell.WINDOWS


@pytest.mark.parametrize(
    ("password", "login", "words"),
    [
        ("Abcde12", "me", "8 to 128"),
        ("aB3" + "x" * 126, "me", "8 to 128"),
        ("abcdefg1", "me", "three kinds"),
        ("ABCDEFG!", "me", "three kinds"),
        ("1234567!", "me", "three kinds"),
        ("Abcdef1\n", "me", "control character"),
        ("Abcdef1\x7f", "me", "control character"),
        ("Xserving1", "serving_admin", "three or more characters in a row"),
        ("Abcdef1ING", "serving_admin", "three or more characters in a row"),
        ("Abcdef1_ad", "serving_admin", "three or more characters in a row"),
        ("xser1-QQ9", "Serving", "three or more characters in a row"),
        ("Qwer1ty-ABC", "abc", "three or more characters in a row"),
    ],
)
def test_a_password_that_azure_refuses_and_that_is_not_quoted(password: str, login: str, words: str) -> None:
    problem = flexible.password_problem(Secret(password), login) or ""
    assert words in problem
    assert password not in problem


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512, 1024, 2048, 4095, 4096, 8192, 16384, 32767])
def test_a_disk_that_azure_has(size: int) -> None:
    assert flexible.whole(str(size), flexible.STORAGE_SIZES, "GiB") == size


@pytest.mark.parametrize("text", ["0", "16", "33", "4094", "16383", "32768", "-32", "32.0", "32 GiB", "", "٣٢"])
def test_a_disk_that_azure_does_not_have(text: str) -> None:
    problem = flexible.whole(text, flexible.STORAGE_SIZES, "GiB")
    assert problem == f"{text!r}: GiB may be 32, 64, 128, 256, 512, 1024, 2048, 4095, 4096, 8192, 16384, 32767"


@pytest.mark.parametrize(
    ("allowed", "text", "expected"),
    [
        (flexible.RETENTION, "6", "'6': days may be 7 to 35"),
        (flexible.RETENTION, "7", 7),
        (flexible.RETENTION, "35", 35),
        (flexible.RETENTION, "36", "'36': days may be 7 to 35"),
        (flexible.VERSIONS, "10", "'10': days may be 11 to 18"),
        (flexible.VERSIONS, "11", 11),
        (flexible.VERSIONS, "18", 18),
        (flexible.VERSIONS, "16.2", "'16.2': days may be 11 to 18"),
    ],
)
def test_numbers_of_a_range(allowed: range, text: str, expected: int | str) -> None:
    assert flexible.whole(text, allowed, "days") == expected


@pytest.mark.parametrize(
    ("sku", "tier"),
    [
        ("standard_b1ms", "Burstable"),
        ("Standard_B2s", "Burstable"),
        ("standard_d2ds_v5", "GeneralPurpose"),
        ("Standard_E2ds_v5", "MemoryOptimized"),
        ("standard_m8ms", None),
        ("b1ms", None),
    ],
)
def test_the_tier_follows_from_the_sku(sku: str, tier: str | None) -> None:
    assert flexible.tier_of(sku) == tier


@pytest.mark.parametrize(
    ("sku", "tier", "zonal"),
    [
        (None, None, None),
        (None, "Burstable", False),
        ("standard_d2ds_v5", None, True),
        ("standard_d2ds_v5", "GeneralPurpose", True),
        ("Standard_E2ds_v5", "MemoryOptimized", None),
        ("standard_m8ms", "MemoryOptimized", None),
    ],
)
def test_compute_that_fits_together(sku: str | None, tier: str | None, zonal: bool | None) -> None:
    assert flexible.compute_problem(sku, tier, zonal) is None


@pytest.mark.parametrize(
    ("sku", "tier", "zonal", "words"),
    [
        ("b1ms", None, None, "--sku-name b1ms: a compute SKU reads like standard_b1ms"),
        ("standard_d2 ds", None, None, "reads like"),
        ("standard_", None, None, "reads like"),
        (None, "burstable", None, "--tier burstable: one of Burstable, GeneralPurpose, MemoryOptimized"),
        ("standard_b1ms", "GeneralPurpose", None, "standard_b1ms is Burstable; leave --tier away"),
        ("standard_d2ds_v5", "Burstable", None, "standard_d2ds_v5 is GeneralPurpose"),
        ("standard_b1ms", None, True, "Burstable has no high availability"),
        (None, "Burstable", True, "Burstable has no high availability"),
    ],
)
def test_compute_that_contradicts_itself(sku: str | None, tier: str | None, zonal: bool | None, words: str) -> None:
    assert words in (flexible.compute_problem(sku, tier, zonal) or "")


def test_a_sku_is_spelled_as_the_region_spells_it() -> None:
    assert flexible.spelled("standard_D2DS_v5", ["Standard_B1ms", "Standard_D2ds_v5"]) == "Standard_D2ds_v5"
    assert flexible.spelled("standard_d2", ["Standard_D2ds_v5"]) is None


@pytest.mark.parametrize(("location", "key"), [("East US 2", "eastus2"), ("eastus2", "eastus2"), (" WestUS3 ", "westus3")])
def test_a_region_has_one_name_however_it_is_written(location: str, key: str) -> None:
    assert flexible.location_key(location) == key


def test_a_server_that_is_to_be_made_has_defaults_and_what_is_asked_for() -> None:
    new = wanted()
    assert (new.new_admin, new.new_sku, new.new_tier) == ("serving_admin", "standard_b1ms", "Burstable")
    assert (new.new_storage, new.new_version, new.new_retention) == (32, 16, 7)
    new = wanted(admin="me", sku="standard_e2ds_v5", storage=64, version=17, retention=14)
    assert (new.new_admin, new.new_sku, new.new_tier) == ("me", "standard_e2ds_v5", "MemoryOptimized")
    assert (new.new_storage, new.new_version, new.new_retention) == (64, 17, 14)
    assert wanted(sku="standard_m8ms", tier="MemoryOptimized").new_tier == "MemoryOptimized"


@pytest.mark.parametrize(
    ("offer", "asked", "why"),
    [
        (region(), {}, None),
        (region(skus=None, versions=(), storage=None), {"zonal": True}, None),  # it could not be asked
        (region(restricted="restricted: why"), {}, "restricted: why"),
        (region(restricted="restricted: why", skus=None), {}, "restricted: why"),
        (region(skus={}), {}, "standard_b1ms is not offered"),
        (region(skus={"Burstable": ["Standard_B2s"]}), {}, "standard_b1ms is not offered"),
        (region(skus={"GeneralPurpose": ["Standard_B1ms"]}), {}, "standard_b1ms is not offered"),
        (region(skus={"burstable": ["Standard_B1ms"]}), {}, None),
        (region(), {"sku": "standard_d2ds_v5"}, None),
        (region(), {"sku": "standard_d64ds_v5"}, "standard_d64ds_v5 is not offered"),
        (region(), {"version": 18}, "PostgreSQL 18 is not offered"),
        (region(), {"version": 17}, None),
        (region(versions=()), {}, "PostgreSQL 16 is not offered"),
        (region(), {"storage": 256}, "256 GiB are not offered"),
        (region(storage=None), {"storage": 256}, None),
        (region(zones=False), {"sku": "standard_d2ds_v5", "zonal": True}, "high availability across zones is not offered"),
        (region(zones=False), {"sku": "standard_d2ds_v5", "zonal": False}, None),
    ],
)
def test_a_region_takes_a_server_or_says_why_not(offer: Region, asked: dict[str, Any], why: str | None) -> None:
    assert offer.obstacle(wanted(**asked)) == why


HOSTILE = "p@ss/w%rd:?#[]'\" &"


@pytest.mark.parametrize(("sslmode", "roots"), [("require", None), ("verify-full", "system")])
def test_a_dsn_holds_any_password_and_trusts_roots_only_where_they_are_looked_at(sslmode: str, roots: str | None) -> None:
    made = flexible.dsn("srv1.postgres.database.azure.com", "serving", "serving_admin", Secret(HOSTILE), sslmode, "system")
    assert made.params.get("sslrootcert") == roots
    assert (made.params["sslmode"], made.params["port"]) == (sslmode, "5432")
    from scripts.dsn import parse

    read = parse(made.uri().reveal(), "a test")
    assert (read.params, read.password) == (made.params, Secret(HOSTILE))
