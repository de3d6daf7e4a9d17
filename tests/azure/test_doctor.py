"""`invoke doctor`, with the real az on an emulated Azure and the real gh on a GitHub of our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from scripts import wiring
from scripts.github import CREDENTIAL, IDENTITY
from tests.azure.emulator import Emulator
from tests.azure.resources import SUBSCRIPTION
from tests.azure.world import World
from tests.github import serving

AZURE = ("azure", "az", "az login", "provider", "server name", "region", "rights")
GITHUB = ("gh", "environment", "subject")


def look(world: World, **env: str) -> dict[str, dict[str, Any]]:
    """The checks by their names; they wrote nothing."""
    before = world.emulator.writes()
    result = world.invoke("doctor", "--json", "--check-deadline", "60", env=env)  # the machine may be busy
    assert "Traceback" not in result.stderr
    assert world.emulator.writes() == before
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def of(names: tuple[str, ...], checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: checks[name]["state"] for name in names}


def test_a_server_that_stands_costs_three_calls(world: World) -> None:
    world.emulator.add_group(f"{world.server}-rg")
    world.emulator.add_server(f"{world.server}-rg", world.server)
    checks = look(world)
    assert of(AZURE, checks) == dict.fromkeys(AZURE, "ok"), checks
    assert checks["server name"]["says"] == f"{world.server}: Ready, PostgreSQL 16, Standard_B1ms, in eastus2"
    verbs = sorted(" ".join(call[1:3]) for call in world.calls())
    assert verbs == ["postgres flexible-server", "rest --method", "version --output"]


def test_before_there_is_a_server(world: World) -> None:
    checks = look(world)
    assert of(AZURE, checks) == {**dict.fromkeys(AZURE, "ok"), "server name": "unset", "rights": "unset"}, checks
    assert "the name is free" in checks["server name"]["says"]
    assert checks["region"]["says"] == "eastus2 offers standard_b1ms, PostgreSQL 16"


Break = Callable[[World], None]


def taken(world: World) -> None:
    world.emulator.state.taken.add(world.server)


def closed(world: World) -> None:
    world.emulator.restrict("eastus2", "offer-restricted")


def read_only(world: World) -> None:
    world.emulator.add_group(f"{world.server}-rg")
    world.emulator.state.permissions = [{"actions": ["*"], "notActions": ["*/Write"]}]


def logged_out(world: World) -> None:
    world.env |= world.emulator.env(world.home / "another", logged_in=False)


def another_subscription(world: World) -> None:
    world.env["AZURE_SUBSCRIPTION_ID"] = "99999999-9999-4999-8999-999999999999"


@pytest.mark.parametrize(
    ("body", "check", "says"),
    [
        (taken, "server name", "is taken"),
        (closed, "region", "eastus2: restricted"),
        (read_only, "rights", "Microsoft.DBforPostgreSQL/flexibleServers/write"),
        (logged_out, "az login", "az is not logged in"),
        (another_subscription, "az login", "the login can't see this subscription"),
    ],
)
def test_what_is_broken_in_azure_is_named_alone(world: World, body: Break, check: str, says: str) -> None:
    body(world)
    checks = look(world)
    assert [name for name, found in checks.items() if found["state"] == "problem"] == [check], checks
    assert says in checks[check]["says"]
    assert checks[check]["next"]


def test_a_subscription_that_is_not_registered_is_a_warning(world: World) -> None:
    world.emulator.state.unregistered.add(SUBSCRIPTION)
    checks = look(world)
    assert checks["provider"]["state"] == "warning"
    assert checks["provider"]["next"].startswith("az provider register --namespace Microsoft.DBforPostgreSQL")
    assert of(("server name", "region"), checks) == {"server name": "skipped", "region": "skipped"}  # az would register it first
    assert [name for name, found in checks.items() if found["state"] == "problem"] == []
    assert world.run(*checks["provider"]["next"].split()).returncode == 0
    assert look(world)["provider"]["state"] == "ok"


def credential(emulator: Emulator, subject: str) -> None:
    """Has the workflow's identity take the tokens of a subject."""
    identity = emulator.add_identity(IDENTITY)
    properties = {"issuer": wiring.ISSUER, "subject": subject, "audiences": [wiring.AUDIENCE]}
    emulator.state.credentials[identity.lower()] = {CREDENTIAL: {"name": CREDENTIAL, "properties": properties}}


def test_the_subject_of_github_against_the_credential_of_azure(world: World) -> None:
    world.emulator.add_group("rg")
    with serving(world.home) as made:
        world.env |= made.env | {
            "AZURE_RESOURCE_GROUP": "rg",
            "GH_REPO": f"{made.address}/o/r",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        assert of(GITHUB, look(world)) == {"gh": "ok", "environment": "unset", "subject": "skipped"}
        assert world.invoke("github.setup", "--yes").returncode == 3  # some of its variables are set nowhere
        assert of(GITHUB, look(world)) == {"gh": "ok", "environment": "warning", "subject": "ok"}
        made.subject = {"use_default": False, "use_immutable_subject": True}
        checks = look(world)
        assert of(GITHUB, checks) == {"gh": "ok", "environment": "warning", "subject": "problem"}
        assert "takes no token of repo:o@12/r@34:environment:production" in checks["subject"]["says"]
        assert "it takes repo:o/r:environment:production" in checks["subject"]["says"]
        assert of(GITHUB, look(world, GH_ENTERPRISE_TOKEN="wrong")) == {
            "gh": "problem",
            "environment": "skipped",
            "subject": "skipped",
        }
