"""`invoke provision` whole: the real az on an emulated Azure, and where a database takes part, a real PostgreSQL with TLS."""

from __future__ import annotations

import json
import re
import secrets
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from dotenv import dotenv_values

from scripts.dsn import Dsn, parse
from tests.azure.emulator import Emulator
from tests.azure.regions import SHAPES
from tests.azure.world import World, eventually, failed, writes
from tests.database import ROOT
from tests.integration.test_passwords import EVERYTHING

RULES = ("--allow-azure-services", "--allow-cidr", "203.0.113.0/28")
# The example of the PowerShell script that this replaces, flag by flag.
SEED = (
    *("--location", "eastus2", "--sku-name", "standard_b1ms", "--tier", "Burstable"),
    *("--location-fallback", "eastus2,centralus,westus2", "--allow-azure-services", "--apply-migrations"),
    *("--create-app-users", "--use-docker-psql", "--emit-secrets"),
)


def document(text: str) -> dict[str, Any]:
    """The JSON at the end of what a user sees."""
    found = json.loads(text[text.index("\n{\n") :])
    assert isinstance(found, dict)
    return found


def test_the_example_of_the_script_that_this_replaces(whole: World) -> None:
    named = ("--subscription-id", whole.env.pop("AZURE_SUBSCRIPTION_ID"), "--server-name", whole.env.pop("POSTGRES_SERVER_NAME"))
    first = whole.provision(*named, *SEED)
    assert first.returncode == 0, first.stderr
    made = document(first.stdout)
    assert list(made) == [
        *("subscriptionId", "location", "resourceGroup", "serverName", "serverFqdn", "databaseName", "adminUser"),
        *("adminPassword", "appUsers", "connectionStrings"),
    ]
    assert made["location"] == "eastus2"
    for uri in made["connectionStrings"].values():
        with psycopg.connect(uri) as connection:
            assert connection.pgconn.ssl_in_use
    server = whole.emulator.servers[0]
    assert (server.sku["name"], server.sku["tier"], server.location) == ("Standard_B1ms", "Burstable", "eastus2")
    assert list(server.rules) == ["allow-azure-services"]
    assert writes(whole.emulator).count(f"PUT flexibleServers/{whole.server}") == 1

    before = writes(whole.emulator)
    whole.forget_calls()
    second = whole.provision(*named, *SEED)
    assert second.returncode == 0, second.stderr
    assert f"nothing to change: {whole.server} is as asked for" in second.stdout
    assert writes(whole.emulator) == before
    assert len(whole.calls("az")) <= 6
    assert document(second.stdout)["adminPassword"] == made["adminPassword"]


def test_a_plan_writes_nothing(world: World) -> None:
    del world.env["POSTGRES_LOCATION_FALLBACK"]
    result = world.provision("--allow-cidr", "203.0.113.0/28", "--plan")
    assert result.returncode == 0, result.stderr
    assert "4 to change; nothing was written" in result.stdout
    for words in (
        r"create  group          serving-\w+-rg",
        r"create  server         serving-\w+ .*in eastus2: PostgreSQL 16, Standard_B1ms \(Burstable\), 32 GiB",
        r"create  database       serving ",
        r"create  firewall rule  allow-203-0-113-0_203-0-113-15  203.0.113.0 to 203.0.113.15",
        r"should eastus2 refuse: centralus, westus2",
    ):
        assert re.search(words, result.stdout), result.stdout
    assert world.emulator.writes() == []
    assert not world.secrets_file.exists()
    shown = json.loads(world.provision("--plan", "--json").stdout)
    assert [(step["action"], step["kind"]) for step in shown["steps"]] == [
        ("create", "group"),
        ("create", "server"),
        ("create", "database"),
    ]


def test_a_plan_for_a_subscription_that_is_not_registered_does_not_register_it(world: World) -> None:
    world.emulator.state.unregistered.add(world.env["AZURE_SUBSCRIPTION_ID"])
    planned = world.provision("--plan")
    assert "Microsoft.DBforPostgreSQL" in planned.stdout
    assert world.emulator.writes() == []
    world.made()
    assert [path.rpartition("/")[2] for method, path in world.emulator.writes() if method == "POST"] == ["register"]


def test_a_second_run_changes_nothing_and_asks_little(world: World) -> None:
    rules = (*RULES, "--allow-cidr", "198.51.100.7/32", "--allow-current-ip")
    first = world.made(*rules)
    assert first["changed"]
    before = writes(world.emulator)
    assert len(before) == len(set(before)) == 7
    world.forget_calls()
    second = world.made(*rules)
    assert not second["changed"]
    assert {step["action"] for step in second["steps"]} == {"keep"}
    assert writes(world.emulator) == before
    assert len(world.calls()) <= 6


@pytest.mark.parametrize("shape", [SHAPES[0], *(pytest.param(shape, marks=pytest.mark.long) for shape in SHAPES[1:])])
def test_a_closed_region_is_passed_over(world: World, shape: str) -> None:
    world.emulator.restrict("eastus", shape)
    made = world.made("--location", "eastus", "--location-fallback", "centralus,westus2")
    assert made["location"] == "centralus"
    assert [server.location for server in world.emulator.servers] == ["centralus"]
    if shape == "no-versions":
        again = world.made("--location", "eastus", "--location-fallback", "centralus,westus2")
        assert (again["changed"], again["location"]) == (False, "centralus"), "it stays where it was made"


def test_no_open_region_is_told_in_one_table(world: World) -> None:
    for location, shape in zip(("eastus", "eastus2", "centralus", "westus2"), ("offer-restricted", "no-skus"), strict=False):
        world.emulator.restrict(location, shape)
    world.emulator.regions["centralus"].versions = ["13"]
    world.emulator.regions["westus2"].skus["Burstable"] = []
    unknown = world.provision("--location", "marsnorth")
    failed(unknown, 2, "--location marsnorth: there is no such region", "az account list-locations")
    result = world.provision("--location", "eastus", "--location-fallback", "eastus2,centralus,westus2,marsnorth")
    failed(result, 1, "none of the regions takes", "--location-fallback")
    for words in (
        r"eastus +restricted: Provisioning in requested region is not supported",
        r"eastus2 +restricted: it offers no SKU",
        r"centralus +PostgreSQL 16 is not offered",
        r"westus2 +standard_b1ms is not offered",
        r"marsnorth +",
    ):
        assert re.search(words, result.stderr), result.stderr
    assert world.emulator.writes() == []


@pytest.mark.long
def test_regions_that_close_only_to_the_creation_are_told_in_one_table(world: World) -> None:
    del world.env["POSTGRES_LOCATION_FALLBACK"]
    shapes = ("restricted-for-provisioning", "location-is-offer-restricted", "no-versions")
    for location, shape in zip(("eastus2", "centralus", "westus2"), shapes, strict=True):
        world.emulator.restrict(location, shape)
    result = world.provision()
    failed(result, 1, "every region refused", "RestrictedLocation", "LocationIsOfferRestricted", "ParameterOutOfRange")
    assert world.emulator.servers == []
    world.emulator.regions["centralus"].restriction = None
    assert world.made()["location"] == "centralus"
    assert writes(world.emulator).count(f"PUT resourcegroups/{world.server}-rg") == 1


SERVER, DATABASE, RULE, GROUP = "/flexibleServers/[^/]+$", "/databases/[^/]+$", "/firewallRules/[^/]+$", "/resourcegroups/[^/]+$"
LOST = "Remote end closed connection without response"
# What one run meets: (path, fault, how often, what of it is told). az itself gets over up to three 429, 5xx and drops.
GOT_OVER = {
    "other people's work": [
        (GROUP, "group-being-deleted", 1, "(ResourceGroupBeingDeleted) The resource group"),
        (SERVER, "unregistered", 1, "registering the subscription for PostgreSQL"),
        (SERVER, "conflict", 1, "(Conflict) Another operation on the resource"),
        (SERVER, "slow-to-appear", 1, ""),
        (DATABASE, "not-found", 1, "(ResourceNotFound) The Resource"),
        (DATABASE, "server-is-busy", 2, "(ServerIsBusy) Cannot complete operation while server"),
        (RULE, "server-busy", 1, "(ServerBusy) Server"),
    ],
    "too many requests": [(SERVER, "throttled", 4, "(SubscriptionRequestsThrottled) Number of")],
    "a service that is down": [(SERVER, "unavailable", 4, "(ServiceUnavailable) The service is temporarily unavailable")],
    "a line that is cut": [(SERVER, "drop", 4, LOST), (DATABASE, "drop-after", 1, "")],
}


@pytest.mark.long
@pytest.mark.parametrize("what", GOT_OVER)
def test_what_passes_is_got_over_and_nothing_is_made_twice(world: World, what: str) -> None:
    plans = [(world.emulator.fail("PUT", path, fault, times=times), times) for path, fault, times, _ in GOT_OVER[what]]
    result = world.provision("--allow-azure-services")
    assert result.returncode == 0, result.stderr
    assert [plan.hits for plan, _ in plans] == [times for _, times in plans]
    for _, fault, _, told in GOT_OVER[what]:
        assert told in result.stdout + result.stderr, fault
    assert "read back: all of it is as asked for" in result.stdout
    assert len(world.emulator.created) == len(set(world.emulator.created)) == 4  # group, server, database, rule


# fault -> (method, path, how often, what is told)
STOPS = {
    "quota": ("PUT", SERVER, 1, ("quota of the subscription is used up", "Current Limit: 10, Current Usage: 10")),
    "quota-in-operation": ("PUT", SERVER, 1, ("quota of the subscription is used up", "Current Limit: 10")),
    "exhausted": ("PUT", SERVER, 1, ("every region refused", "Capacity Restrictions")),
    "internal": ("PUT", SERVER, 4, ("an internal error, which may be the region, a taken name or the password's rules",)),
    "forbidden": ("PUT", SERVER, 1, ("the login has no right to do this", "flexibleServers/write")),
    "password-policy": ("PUT", SERVER, 1, ("Azure refuses the administrator's password", "AdministratorLoginPassword")),
    "operation-failed": ("PUT", SERVER, 1, ("an internal error", "(InternalServerError) An unexpected error occured")),
    "operation-canceled": ("PUT", SERVER, 1, ("isn't known here", "(OperationCanceled)")),
    "name-taken": (
        "POST",
        "/checkNameAvailability$",
        1,
        ("the server's name is taken", "Specified server name is already used."),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("faults", [list(STOPS)[:5], list(STOPS)[5:]], ids=["first", "second"])
def test_what_does_not_pass_stops_and_the_next_run_goes_on(world: World, faults: list[str]) -> None:
    for fault in faults:
        method, path, times, texts = STOPS[fault]
        plan = world.emulator.fail(method, path, fault, times=times)
        failed(world.provision("--allow-azure-services"), 1, *texts, "kept: ", "next:  ", "invoke provision")
        assert plan.hits == times
        assert world.emulator.servers == []
    world.made("--allow-azure-services")
    assert len(set(world.emulator.created)) == 4
    assert not world.made("--allow-azure-services")["changed"]


@pytest.mark.parametrize("fault", ["expired-login", "expired-secret"])
def test_a_login_that_has_expired_is_the_first_thing_that_is_told(world: World, fault: str) -> None:
    world.emulator.expire_login(fault)
    failed(world.provision(), 1, "az is not logged in, or its login has expired", "AADSTS", "az login")
    assert world.emulator.writes() == []


def test_nobody_is_logged_in(world: World) -> None:
    world.emulator.env(world.home / "az", logged_in=False)
    failed(world.provision(), 1, "az is not logged in", "az login")


def test_az_is_too_old_or_not_there(world: World) -> None:
    program = world.home / "bin" / "az"
    answer = """[ "$1" = version ] && echo '{"azure-cli": "2.86.0"}' && exit 0"""
    program.write_text(f"#!/bin/sh\n{answer}\necho 'unrecognized arguments: --server-name' >&2\nexit 2\n")
    failed(world.provision(), 2, "azure-cli 2.86.0 names its arguments otherwise: 2.87 or newer is needed", "az upgrade")
    program.unlink()
    failed(world.provision(env={"PATH": str(program.parent)}), 2, "the az command is not on PATH", "install azure-cli")


def test_every_problem_in_one_report(world: World) -> None:
    result = world.provision(
        *("--location", "east us!", "--server-name", "Demo", "--storage-size-gib", "33", "--tier", "GeneralPurpose"),
        *("--sku-name", "standard_b1ms", "--allow-cidr", "10.0.0.5/24", "--allow-cidr", "0.0.0.0/0", "--admin-user", "root"),
        env={"POSTGRES_BACKUP_RETENTION_DAYS": "90", "POSTGRES_ADMIN_PASSWORD": "short"},
    )
    failed(
        result, 2, "9 problems", "POSTGRES_BACKUP_RETENTION_DAYS (environment) '90': days may be 7 to 35", "10.0.0.0/24 is meant"
    )
    assert "short" not in result.stderr
    assert world.calls() == []


def test_a_standing_server_is_changed_to_what_is_asked_for(world: World) -> None:
    world.made()
    changes = ("--storage-size-gib", "64", "--backup-retention-days", "14", "--sku-name", "standard_b2s")
    asked = world.provision(*changes)
    failed(asked, 2, "with a restart", "Nobody is at the terminal to say so", "--yes")
    nowhere = world.provision("--sku-name", "standard_bxx")
    failed(nowhere, 2, "standard_bxx is not offered in eastus2; in the tier Burstable are Standard_B1ms")
    changed = world.made(*changes, "--yes")
    server = world.emulator.servers[0]
    assert changed["changed"]
    assert (server.sku["name"], server.storage["storageSizeGB"], server.backup["backupRetentionDays"]) == ("Standard_B2s", 64, 14)
    assert not world.made(*changes)["changed"]
    assert not world.made()["changed"], "what isn't named stays as it is"


def test_what_can_not_be_changed_is_told_at_once(world: World) -> None:
    world.made("--storage-size-gib", "64")
    before = world.emulator.writes()
    impossible = (
        "--location",
        "northeurope",
        "--location-fallback",
        "westeurope",
        "--storage-size-gib",
        "32",
        "--postgres-version",
        "15",
        "--admin-user",
        "other",
    )
    result = world.provision(*impossible)
    failed(
        result, 2, "a server can't be moved", "can't shrink to 32", "can't go back to 15", "its administrator is serving_admin"
    )
    newer = world.provision("--postgres-version", "17")
    failed(newer, 2, "az postgres flexible-server upgrade")
    assert world.emulator.writes() == before


def test_rules_that_nobody_asks_for_are_named_and_pruned_when_told(world: World) -> None:
    world.made("--allow-azure-services", "--allow-cidr", "203.0.113.0/28")
    world.emulator.servers[0].rules["ClientIPAddress_2024-1-1"] = {
        "startIpAddress": "198.51.100.7",
        "endIpAddress": "198.51.100.7",
    }
    kept = world.provision("--allow-azure-services", "--allow-ip-range-start", "198.51.100.7")
    assert "firewall rules that no flag asks for: allow-203-0-113-0_203-0-113-15 (203.0.113.0 to 203.0.113.15)" in kept.stderr
    asked = world.provision("--allow-azure-services", "--prune-firewall")
    failed(asked, 2, "remove firewall rule", "--yes")
    pruned = world.made("--allow-azure-services", "--prune-firewall", "--yes")
    assert pruned["changed"]
    assert list(world.emulator.servers[0].rules) == ["allow-azure-services"]


def test_a_password_that_is_made_is_kept_before_azure_hears_of_it(world: World) -> None:
    world.emulator.fail("PUT", SERVER, "quota")
    failed(world.provision(), 1, "quota")
    [kept] = dotenv_values(world.secrets_file).values()
    assert stat.S_IMODE(world.secrets_file.stat().st_mode) == 0o600
    world.made()
    assert world.emulator.servers[0].password == kept
    assert list(dotenv_values(world.secrets_file)) == ["POSTGRES_ADMIN_DSN"], "which holds the password"
    assert (stored(world).password.reveal(), stored(world).params["sslmode"]) == (kept, "require")


def stored(world: World, file: Path | None = None) -> Dsn:
    """The administrator's DSN as it is kept."""
    return parse(dotenv_values(file or world.secrets_file)["POSTGRES_ADMIN_DSN"] or "", "the file")


def test_without_a_file_that_is_named_it_is_kept_beside_the_project(world: World) -> None:
    store = ROOT / ".local" / f"{world.server}.env"
    try:
        result = world.invoke("provision", "--json")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["keptIn"] == str(store)
        assert stat.S_IMODE(store.stat().st_mode) == 0o600
        assert stored(world, store).password.reveal() == world.emulator.servers[0].password
        gone = world.invoke("teardown", "--yes")
        assert gone.returncode == 0, gone.stderr
        assert not store.exists()
    finally:
        store.unlink(missing_ok=True)


@pytest.mark.long
def test_a_server_whose_password_is_not_known(world: World) -> None:
    world.made()
    world.secrets_file.unlink()
    failed(world.provision(), 2, "the password of serving_admin", "is not known here", "--reset-admin-password")
    asked = world.provision("--reset-admin-password")
    failed(asked, 2, "change password serving_admin", "--yes")
    before = world.emulator.servers[0].password
    world.made("--reset-admin-password", "--yes")
    assert world.emulator.servers[0].password == stored(world).password.reveal() != before
    given = "Another 1, with%odd/@chars"
    result = world.provision("--reset-admin-password", "--yes", "--admin-password", "-", stdin=f"{given}\n")
    assert result.returncode == 0, result.stderr
    assert given not in result.stdout + result.stderr
    world.made()
    assert world.emulator.servers[0].password == stored(world).password.reveal() == given


@pytest.mark.long
def test_a_reset_that_is_refused_leaves_the_password_that_holds(world: World) -> None:
    world.made()
    before = stored(world).password
    world.emulator.fail("PATCH", SERVER, "forbidden")
    failed(world.provision("--reset-admin-password", "--yes"), 1, "the login has no right to do this")
    world.made()
    assert stored(world).password == before
    # Cut off, nobody knows which one holds.
    world.emulator.fail("PATCH", SERVER, "operation-failed")
    failed(world.provision("--reset-admin-password", "--yes"), 1, "internal error")
    failed(world.provision(), 2, "a reset of the password of serving_admin was cut off", "--reset-admin-password")
    world.made("--reset-admin-password", "--yes")
    assert stored(world).password.reveal() == world.emulator.servers[0].password


def test_a_file_keeps_the_dsn_that_it_has(world: World) -> None:
    world.made()
    before = stored(world)
    wrong = world.provision(env={"POSTGRES_ADMIN_PASSWORD": "Wrong-Pass-1234x"})
    assert wrong.returncode == 0
    assert "keeps the DSN that it has" in wrong.stderr
    assert stored(world) == before
    world.emulator.add_server(f"{world.server}-rg", "another", login="serving_admin", fqdn="another.postgres.database.azure.com")
    other = world.provision("--server-name", "another", "--resource-group", f"{world.server}-rg")
    failed(other, 2, "holds the DSN of another server", "another --secrets-file")


def test_secrets_are_not_emitted_into_the_log_of_a_ci_run(world: World) -> None:
    refused = world.invoke("provision", "--emit-secrets", env={"CI": "true"})
    failed(refused, 2, "--emit-secrets would put the secrets into the log", "--secrets-file")
    emitted = world.provision("--emit-secrets", "--json", env={"CI": "true"})
    assert emitted.returncode == 0, emitted.stderr
    assert json.loads(emitted.stdout)["adminPassword"] == "****", "the file has it"
    assert stored(world).password.reveal() == world.emulator.servers[0].password
    at_home = world.provision("--emit-secrets", "--json")
    assert json.loads(at_home.stdout)["adminPassword"] == world.emulator.servers[0].password


def test_a_failure_is_a_document_too(world: World) -> None:
    world.emulator.fail("PUT", SERVER, "quota")
    result = world.provision("--json")
    found = json.loads(result.stdout)
    assert (result.returncode, found["exit_code"], found["failure"]) == (1, 1, "quota")
    assert "invoke provision" in found["hint"]


def test_teardown_asks_for_the_name_and_looks_whether_it_is_gone(world: World) -> None:
    world.made()
    failed(world.invoke("teardown"), 2, "This can't be undone.", "--yes")
    world.emulator.fail("DELETE", SERVER, "server-is-busy")
    busy = world.invoke("teardown", "--yes")
    failed(busy, 1, "is still there", "invoke teardown")
    gone = world.invoke("teardown", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert f"deleted {world.server}" in gone.stdout
    assert world.emulator.servers == []
    assert "nothing to do" in world.invoke("teardown", "--yes").stdout
    world.emulator.add_server(f"{world.server}-rg", "another")
    world.secrets_file.rename(store := ROOT / ".local" / f"{world.server}.env")
    whole_group = world.invoke("teardown", "--delete-group", "--yes")
    assert "in it: Microsoft.DBforPostgreSQL/flexibleServers another" in whole_group.stdout
    assert store.exists(), "it may be of a server elsewhere"
    store.unlink()
    assert f"deleted {world.server}-rg" in whole_group.stdout
    assert world.emulator.state.groups == {}


@pytest.mark.parametrize("mode", ["local", pytest.param("docker", marks=pytest.mark.long)])
def test_no_process_output_or_file_holds_a_secret(whole: World, mode: str) -> None:
    tokens = [secrets.token_hex(12), secrets.token_hex(12)]
    hostile = {
        "POSTGRES_ADMIN_PASSWORD": f"{EVERYTHING}Aa1{tokens[0]}",
        "POSTGRES_BACKTEST_SERVICE_PASSWORD": f"{EVERYTHING}{tokens[1]}",
    }
    asked = ("--allow-azure-services", "--apply-migrations", "--create-app-users", "--psql", mode)
    for words in ((), ("--json",)):
        result = whole.provision(*asked, *words, env=hostile)
        assert result.returncode == 0, result.stderr
        for token in tokens:
            assert token not in result.stdout + result.stderr
            assert [name for name, text in whole.traces().items() if token in text] == []
    assert {name.partition(".")[0] for name in whole.traces() if "/" not in name} >= {
        "az",
        "psql" if mode == "local" else "docker",
    }
    file = dotenv_values(whole.secrets_file, interpolate=False)
    for name, password in zip(("POSTGRES_ADMIN_DSN", "POSTGRES_DSN"), hostile.values(), strict=True):
        assert parse(file[name] or "", name).password.reveal() == password
        with psycopg.connect(file[name] or "") as connection:
            assert connection.pgconn.ssl_in_use


@pytest.mark.long
@pytest.mark.parametrize("seen", [1, 2, 3, 4, 5])
def test_killed_at_any_step_the_next_run_goes_on(slow: World, seen: int) -> None:
    """Killed with every az of its own, as soon as Azure has heard of so many writes."""
    process = slow.start("provision", "--secrets-file", str(slow.secrets_file), *RULES)
    eventually(lambda: len(slow.emulator.writes()) >= seen)
    for victim in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        victim.kill()
    process.communicate()
    assert len(slow.emulator.writes()) < 6 or seen == 5
    slow.made(*RULES)
    assert len(slow.emulator.created) == len(set(slow.emulator.created)) == 5  # group, server, database, two rules
    assert slow.emulator.servers[0].password == stored(slow).password.reveal()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_interrupted_it_says_what_stands_and_how_it_goes_on(slow: World, number: signal.Signals) -> None:
    process = slow.start("provision", "--secrets-file", str(slow.secrets_file), *RULES)
    eventually(lambda: any(path.endswith(slow.server) for _, path in slow.emulator.writes()))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    failed(
        subprocess.CompletedProcess([], process.returncode, out, err),
        *(130, f"interrupted; created group {slow.server}-rg; what is under way in Azure goes on", "invoke provision"),
    )
    slow.made(*RULES)
    assert len(slow.emulator.created) == len(set(slow.emulator.created)) == 5


@pytest.fixture
def slow(az_program: str, tmp_path: Path) -> Iterator[World]:
    """A user's machine; in this Azure, every operation takes half a second."""
    with (
        Emulator(operation_seconds=0.5) as emulator,
        World(emulator, tmp_path, az_program, f"serving-{secrets.token_hex(4)}") as world,
    ):
        yield world


def test_two_runs_at_once_make_one_server_and_know_its_password(slow: World) -> None:
    first, second = (slow.start("provision", "--secrets-file", str(slow.secrets_file)) for _ in range(2))
    ended = [process.communicate(timeout=120) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), ended
    assert len(slow.emulator.created) == len(set(slow.emulator.created)) == 3
    assert slow.emulator.servers[0].password == stored(slow).password.reveal()
