"""`invoke provision` whole: the real az on an emulated Azure, and where a database takes part, a real PostgreSQL with TLS."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from tests.azure.world import World, writes

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
    first = whole.provision(*SEED)
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
    second = whole.provision(*SEED)
    assert second.returncode == 0, second.stderr
    assert f"nothing to change: {whole.server} is as asked for" in second.stdout
    assert writes(whole.emulator) == before
    assert len(whole.calls("az")) <= 6
    assert document(second.stdout)["adminPassword"] == made["adminPassword"]
