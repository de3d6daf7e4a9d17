"""The emulator, as the real az sees it: every command of the product's, and every fault with the text that az prints."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.azure.cli import Az, ended
from tests.azure.emulator import Emulator
from tests.azure.faults import APP_FAULTS, FAULTS
from tests.azure.login import without_azure
from tests.azure.regions import SHAPES
from tests.azure.resources import SUBSCRIPTION, Server
from tests.azure.test_provision import GOT_OVER, STOPS
from tests.azure.world import eventually
from tests.conftest import ROOT

POSTGRES = "postgres flexible-server"
CREATE = (
    f"{POSTGRES} create -g rg -n srv1 -l eastus --tier Burstable --sku-name Standard_B1ms --storage-size 32 --version 16 "
    "-u pgadmin -p @- --public-access Enabled --backup-retention 7 --storage-auto-grow Disabled --zonal-resiliency Disabled "
    "--yes -o none"
)
PASSWORD = "S3cret,with%odd/@chars"
HERE = "-g rg -s srv1"
SRV1 = "/flexibleServers/srv1$"


# --- The commands -----------------------------------------------------------------------------------------------------


def test_login_provider_and_group(az: Az, emulator: Emulator) -> None:
    assert (
        az("account get-access-token -o json --query {subscription:subscription,tenant:tenant}").json["subscription"]
        == SUBSCRIPTION
    )
    emulator.state.unregistered.add(SUBSCRIPTION)
    show = "provider show -n Microsoft.DBforPostgreSQL -o tsv --query registrationState"
    assert az(show).out == "NotRegistered\n"
    assert az("provider register -n Microsoft.DBforPostgreSQL --wait").code == 0
    assert az(show).out == "Registered\n"
    missing = az("group show -n rg -o json")
    assert (missing.code, "(ResourceGroupNotFound)" in missing.err) == (3, True)
    assert az("group create -n rg -l eastus2 -o json").json["location"] == "eastus2"
    assert az("group show -n rg -o json").json["properties"]["provisioningState"] == "Succeeded"
    elsewhere = az("group create -n rg -l westus2 -o none")
    assert (elsewhere.code, "(InvalidResourceGroupLocation)" in elsewhere.err) == (1, True)
    emulator.add_server("rg", "srv1")
    assert az("group delete -n rg --yes").code == 0
    assert az("group exists -n rg").out == "false\n"
    assert emulator.servers == []


def test_list_skus_says_what_a_location_offers(az: Az, emulator: Emulator) -> None:
    emulator.regions["westus2"].versions = ["15"]
    del emulator.regions["westus2"].skus["Burstable"]
    emulator.restrict("eastus", "offer-restricted")
    query = (
        "[0].{features:supportedFeatures,reason:reason,versions:supportedServerVersions[].name,"
        "skus:supportedServerEditions[].supportedServerSkus[].name}"
    )
    found = az(f"{POSTGRES} list-skus -l eastus2 -o json --query", query).json
    assert {"name": "OfferRestricted", "status": "Disabled"} in found["features"]
    assert found["versions"] == ["13", "14", "15", "16", "17", "18"]
    assert {"Standard_B1ms", "Standard_B2s", "Standard_D2ds_v5"} <= set(found["skus"])
    poor = az(f"{POSTGRES} list-skus -l westus2 -o json --query", query).json
    assert poor["versions"] == ["15"]
    assert "Standard_B1ms" not in poor["skus"]
    closed = az(f"{POSTGRES} list-skus -l eastus -o json --query", query).json
    assert {"name": "OfferRestricted", "status": "Enabled"} in closed["features"]
    assert "restricted" in closed["reason"]
    unknown = az(f"{POSTGRES} list-skus -l nowhere -o json")
    assert (unknown.code, "(LocationNotAvailableForResourceType)" in unknown.err) == (1, True)


def test_a_server_from_create_to_delete(az_program: str, tmp_path: Path) -> None:
    seen: list[str] = []

    def on_server(server: Server) -> str:
        seen.append(f"made {server.name} {server.login} {server.password}")
        return "127.0.0.9"

    with Emulator(
        on_server=on_server,
        on_password=lambda server: seen.append(f"password {server.password}"),
        on_server_deleted=lambda server: seen.append(f"deleted {server.name}"),
    ) as emulator:
        az = Az(az_program, emulator, tmp_path)
        assert az("group create -n rg -l eastus2 -o none").code == 0
        missing = az(f"{POSTGRES} show -g rg -n srv1")
        assert (missing.code, "(ResourceNotFound)" in missing.err) == (3, True)
        created = az(CREATE, stdin=f"{PASSWORD}\n")
        assert (created.code, created.out) == (0, ""), created.err
        server = az(f"{POSTGRES} show -g rg -n srv1 -o json").json
        assert server["fullyQualifiedDomainName"] == "127.0.0.9"
        assert server["location"] == "East US"
        assert server["sku"] == {"name": "Standard_B1ms", "tier": "Burstable"}
        assert server["storage"]["storageSizeGb"] == 32
        assert server["administratorLoginPassword"] is None
        assert (server["state"], server["version"], server["network"]["publicNetworkAccess"]) == ("Ready", "16", "Enabled")
        assert az(f"{POSTGRES} update -g rg -n srv1 -p @- --yes -o none", stdin="An0ther,password").code == 0
        wider = az(
            f"{POSTGRES} update -g rg -n srv1 --storage-size 64 --backup-retention 14 --sku-name Standard_B2s --yes -o json"
        )
        assert (wider.json["storage"]["storageSizeGb"], wider.json["backup"]["backupRetentionDays"]) == (64, 14)
        smaller = az(f"{POSTGRES} update -g rg -n srv1 --storage-size 32 --yes -o none")
        assert (smaller.code, "Decreasing storage size is not supported" in smaller.err) == (1, True)
        assert az(f"{POSTGRES} list -g rg -o json --query [].name").json == ["srv1"]
        assert az(f"{POSTGRES} delete -g rg -n srv1 --yes").code == 0
        assert az(f"{POSTGRES} list -o json").json == []
        assert seen == [f"made srv1 pgadmin {PASSWORD}", "password An0ther,password", "deleted srv1"]
        assert [method for method, _ in emulator.writes()] == ["PUT", "PUT", "PATCH", "PATCH", "DELETE"]
        assert PASSWORD not in repr(emulator.requests)
        assert emulator.created == [f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg", server["id"]]


def test_databases(az_program: str, tmp_path: Path) -> None:
    made: list[str] = []
    dropped: list[str] = []
    with Emulator(
        on_database=lambda _, name: made.append(name), on_database_deleted=lambda _, name: dropped.append(name)
    ) as emulator:
        emulator.add_group("rg")
        emulator.add_server("rg", "srv1")
        az = Az(az_program, emulator, tmp_path)
        assert az(f"{POSTGRES} db create {HERE} -n app_db -o json").json["name"] == "app_db"
        assert az(f"{POSTGRES} db create {HERE} -n app_db -o none").code == 0
        names = az(f"{POSTGRES} db list {HERE} -o json --query [].name").json
        assert names == ["azure_maintenance", "azure_sys", "postgres", "app_db"]
        assert az(f"{POSTGRES} db show {HERE} -n app_db -o json").json["charset"] == "utf8"
        assert az(f"{POSTGRES} db delete {HERE} -n app_db --yes").code == 0
        missing = az(f"{POSTGRES} db show {HERE} -n app_db")
        assert (missing.code, "(ResourceNotFound)" in missing.err) == (3, True)
        refused = az(f"{POSTGRES} db delete {HERE} -n postgres --yes")
        assert (refused.code, "(OperationNotAllowed)" in refused.err) == (0, True)
        orphan = az(f"{POSTGRES} db list -g rg -s nowhere -o json")
        assert (orphan.code, "(ParentResourceNotFound)" in orphan.err) == (3, True)
        assert (made, dropped) == (["app_db"], ["app_db"])


def test_firewall_rules_and_parameters(az: Az, emulator: Emulator) -> None:
    emulator.add_group("rg")
    emulator.add_server("rg", "srv1")
    rule = f"{POSTGRES} firewall-rule"
    assert az(f"{rule} create {HERE} -n office --start-ip-address 192.0.2.0 --end-ip-address 192.0.2.255 -o none").code == 0
    assert az(f"{rule} create {HERE} -n azure --start-ip-address 0.0.0.0 --end-ip-address 0.0.0.0 -o none").code == 0
    listed = az(f"{rule} list {HERE} -o json --query [].[name,startIpAddress,endIpAddress]").json
    assert listed == [["office", "192.0.2.0", "192.0.2.255"], ["azure", "0.0.0.0", "0.0.0.0"]]
    assert az(f"{rule} show {HERE} -n office -o json").json["endIpAddress"] == "192.0.2.255"
    assert az(f"{rule} delete {HERE} -n office --yes").code == 0
    assert az(f"{rule} show {HERE} -n office").code == 3
    shown = az(f"{POSTGRES} parameter show {HERE} -n require_secure_transport -o json").json
    assert (shown["value"], shown["source"]) == ("on", "system-default")


def test_a_second_subscription_and_a_name_that_is_taken(az_program: str, emulator: Emulator, tmp_path: Path) -> None:
    other = "99999999-9999-4999-8999-999999999999"
    emulator.state.subscriptions[other] = "Other"
    emulator.add_group("rg")
    emulator.add_group("theirs", subscription=other)
    emulator.add_server("theirs", "srv1", subscription=other)
    az = Az(az_program, emulator, tmp_path)
    assert az(f"{POSTGRES} show -g rg -n srv1").code == 3
    assert az(f"{POSTGRES} show -g theirs -n srv1 --subscription {other} -o json").json["name"] == "srv1"
    taken = az(CREATE, stdin=PASSWORD)
    assert (taken.code, taken.err) == (1, "ERROR: Specified server name is already used.\n")
    unknown = az("account get-access-token -o none --subscription 88888888-8888-4888-8888-888888888888")
    assert (unknown.code, "not found. Check the spelling" in unknown.err) == (1, True)


def test_one_operation_at_a_time_and_one_that_outlives_its_caller(az_program: str, tmp_path: Path) -> None:
    """An operation takes an hour, which passes when the test says so."""
    with Emulator(operation_seconds=3600) as emulator:
        emulator.add_group("rg")
        az = Az(az_program, emulator, tmp_path)
        killed = az.start(CREATE)
        assert killed.stdin is not None
        killed.stdin.write(PASSWORD)
        killed.stdin.close()
        killed.stdin = None
        eventually(lambda: bool(emulator.servers))
        killed.kill()
        killed.communicate()
        assert emulator.servers[0].state == "Provisioning"
        busy = az(f"{POSTGRES} db create {HERE} -n app -o none")
        assert (busy.code, "(ServerIsBusy)" in busy.err) == (1, True)
        emulator.state.clock = lambda: time.monotonic() + 3600
        writes = len(emulator.writes())
        first = az.start(f"{POSTGRES} db create {HERE} -n one -o none")
        eventually(lambda: len(emulator.writes()) > writes)
        second = az(f"{POSTGRES} db create {HERE} -n two -o none")
        assert (second.code, "(ServerIsBusy)" in second.err) == (1, True)
        emulator.state.clock = lambda: time.monotonic() + 7200
        assert ended(first).code == 0


def test_a_key_vault(az_program: str, emulator: Emulator, tmp_path: Path) -> None:
    vault = emulator.add_vault("myvault")
    az = Az(az_program, emulator, tmp_path)
    value = tmp_path / "value"
    value.write_text("postgresql://a:b%2F@host/db?sslmode=require")
    secret = "--vault-name myvault -n dsn"
    missing = az(f"keyvault secret show {secret}")
    assert (missing.code, "(SecretNotFound)" in missing.err) == (3, True)
    made = az(f"keyvault secret set {secret} --file {value} --encoding utf-8 -o json --query id").json
    assert made.startswith("https://myvault.vault.emulated/secrets/dsn/")
    assert vault == {"dsn": [value.read_text()]}
    assert az(f"keyvault secret show {secret} -o json").json["value"] == value.read_text()
    assert value.read_text() not in repr(emulator.requests)
    emulator.fail("PUT", "^/secrets/dsn$", "vault-forbidden")
    refused = az(f"keyvault secret set {secret} --file {value} -o none")
    assert (refused.code, "(Forbidden) Caller is not authorized" in refused.err) == (1, True)


# --- The faults -------------------------------------------------------------------------------------------------------

WORDS = {
    "offer-restricted": "The location is restricted from performing this operation.",
    "no-skus": "No available SKUs in this location",
    "restricted-for-provisioning": "The location is restricted for provisioning of flexible servers. Please try using another "
    "region.",
    "location-is-offer-restricted": "(LocationIsOfferRestricted) Subscriptions are restricted from provisioning in location "
    "'eastus'.",
    "no-versions": "(ParameterOutOfRange) The value of the 'Version' should be in: []",
    "exhausted": "(SkuNotAvailable) The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "
    "Standard_B1ms' is currently not available in location 'eastus'.",
}


@pytest.mark.parametrize("shape", [*SHAPES, "exhausted"])
def test_a_closed_location(az: Az, emulator: Emulator, shape: str) -> None:
    emulator.add_group("rg")
    emulator.restrict("eastus", shape)
    refused = az(CREATE, stdin=PASSWORD)
    assert (refused.code, refused.out) == (1, "")
    assert WORDS[shape] in refused.err
    assert emulator.servers == []
    if shape in ("no-skus", "no-versions"):
        assert az(CREATE.replace("eastus", "westus2"), stdin=PASSWORD).code == 0


def test_a_deletion_that_is_refused_ends_with_0(az: Az, emulator: Emulator) -> None:
    emulator.add_group("rg")
    emulator.add_server("rg", "srv1").rules["office"] = {"startIpAddress": "192.0.2.0", "endIpAddress": "192.0.2.255"}
    emulator.fail("DELETE", "/firewallRules/office$", "server-is-busy")
    refused = az(f"{POSTGRES} firewall-rule delete {HERE} -n office --yes")
    assert (refused.code, "(ServerIsBusy)" in refused.err) == (0, True)
    assert az(f"{POSTGRES} firewall-rule show {HERE} -n office").code == 0


def test_a_server_that_is_slow_to_appear(az: Az, emulator: Emulator) -> None:
    emulator.add_group("rg")
    emulator.fail("PUT", SRV1, "slow-to-appear", times=2)
    lost = az(CREATE, stdin=PASSWORD)
    assert (lost.code, "(ResourceNotFound)" in lost.err) == (3, True)
    show = f"{POSTGRES} show -g rg -n srv1 -o none"
    assert [az(show).code, az(show).code] == [3, 0]
    assert len(emulator.servers) == 1


def test_a_weak_password_is_an_unexpected_error(az: Az, emulator: Emulator) -> None:
    emulator.add_group("rg")
    weak = az(CREATE, stdin="alllowercase")
    assert (weak.code, "(InternalServerError)" in weak.err) == (1, True)
    assert emulator.servers == []


def test_the_name_check_alone_may_refuse(az: Az, emulator: Emulator) -> None:
    emulator.add_group("rg")
    emulator.fail("POST", "/checkNameAvailability$", "name-taken")
    assert az(CREATE, stdin=PASSWORD).err == "ERROR: Specified server name is already used.\n"


def test_an_unregistered_provider_makes_az_register_it_by_itself(az: Az, emulator: Emulator) -> None:
    """Even a command that only reads; it then takes 10 s."""
    emulator.state.unregistered.add(SUBSCRIPTION)
    assert az(f"{POSTGRES} list-skus -l eastus2 -o none").code == 0
    assert [method for method, _ in emulator.writes()] == ["POST"]


@pytest.mark.parametrize(("fault", "words"), [("expired-login", "AADSTS700082"), ("expired-secret", "AADSTS7000222")])
def test_a_login_that_expired(az: Az, emulator: Emulator, fault: str, words: str) -> None:
    assert az("account get-access-token -o none").code == 0
    emulator.expire_login(fault)
    expired = az("account get-access-token -o none")
    assert (expired.code, words in expired.err, "az login" in expired.err) == (1, True, True)
    assert az("account show -o none").code == 0


def test_no_login(az_program: str, emulator: Emulator, tmp_path: Path) -> None:
    nobody = Az(az_program, emulator, tmp_path, logged_in=False)("account get-access-token -o none")
    assert (nobody.code, nobody.err) == (1, "ERROR: Please run 'az login' to setup account.\n")


def test_a_group_that_may_not_be_read(az: Az, emulator: Emulator) -> None:
    emulator.add_group("rg")
    emulator.fail("GET", "/resourcegroups/rg$", "forbidden")
    refused = az("group show -n rg")
    assert refused.code == 1
    assert "perform action 'Microsoft.Resources/subscriptions/resourcegroups/read' over scope" in refused.err


def test_every_fault_has_its_test() -> None:
    """Here, in what `invoke provision` makes of it, or with the container apps."""
    of_provision = {fault for group in GOT_OVER.values() for _, fault, _, _ in group} | set(STOPS)
    elsewhere = {"expired-login", "expired-secret", "vault-forbidden", *APP_FAULTS}
    assert set(FAULTS) == {*WORDS, *of_provision, *elsewhere} - {"offer-restricted", "no-skus"}


# --- Without az -------------------------------------------------------------------------------------------------------


def test_nobody_without_a_token_and_no_request_without_a_version(emulator: Emulator, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=emulator.env(tmp_path)["REQUESTS_CA_BUNDLE"])

    def refusal(path: str, token: str = "") -> tuple[int, str]:
        request = urllib.request.Request(emulator.url + path, headers={"Authorization": f"Bearer {token}"})
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request, context=context):
            pass
        with caught.value as error:
            return error.code, json.loads(error.read())["error"]["code"]

    path = f"/subscriptions/{SUBSCRIPTION}/resourcegroups"
    assert refusal(f"{path}?api-version=1") == (401, "AuthenticationFailed")
    token = emulator.token().body["access_token"]
    assert refusal(path, token) == (400, "MissingApiVersionParameter")
    assert refusal("/subscriptions/none/resourcegroups?api-version=1", token) == (404, "SubscriptionNotFound")
    for file in ("service_principal_entries.json", "azureProfile.json"):
        assert (tmp_path / file).stat().st_mode & 0o077 == 0


def test_by_hand(az_program: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-u", "-m", "tests.azure.emulator"]
    env = {**without_azure(os.environ), "AZURE_CONFIG_DIR": "elsewhere"}
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        lines = []
        for line in served.stdout:
            lines.append(line)
            if line.startswith("#"):
                break
        script = "".join(lines) + f"cd {tmp_path} && exec {az_program} group create -n rg -l eastus2 -o tsv --query name"
        ran = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=False)
        served.send_signal(signal.SIGINT)
        served.wait(timeout=10)
    assert (ran.returncode, ran.stdout) == (0, "rg\n"), ran.stderr
    assert lines[0] == "unset AZURE_CONFIG_DIR\n"
    home = re.search(r"AZURE_CONFIG_DIR=(\S+)", "".join(lines))
    assert home is not None
    assert not Path(home[1]).exists()
