"""Microsoft.App of the emulator, as the real az sees it."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.azure.apps import OUTCOMES, App, merged
from tests.azure.cli import Az, Ran, ended
from tests.azure.emulator import Emulator
from tests.azure.faults import APP_FAULTS, Refusal
from tests.azure.resources import SUBSCRIPTION

HERE = "-g rg -n api"
PATH = "/containerApps/api$"
DSN = "postgresql://app:p%2F@srv1.postgres.database.azure.com:5432/app?sslmode=require"
NEW_DSN = DSN.replace("p%2F", "n3w")
IMAGE = "registry.azurecr.io/api:1"


def app_body(emulator: Emulator, **template: Any) -> dict[str, Any]:
    """An app as a team writes it: no more than what it cares for."""
    identity = emulator.add_identity("puller")
    return {
        "location": "eastus2",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}},
        "properties": {
            "environmentId": emulator.add_environment("env")["id"],
            "configuration": {
                "activeRevisionsMode": "Single",
                "secrets": [{"name": "postgres-dsn", "value": DSN}],
                "registries": [{"server": "registry.azurecr.io", "identity": identity}],
                "ingress": {"external": True, "targetPort": 8000},
            },
            "template": {
                "containers": [
                    {
                        "name": "api",
                        "image": IMAGE,
                        "env": [{"name": "POSTGRES_DSN", "secretRef": "postgres-dsn"}, {"name": "MODE", "value": "live"}],
                        "resources": {"cpu": 0.5, "memory": "1.0Gi"},
                        "probes": [{"type": "Liveness", "httpGet": {"path": "/healthz", "port": 8000}}],
                    }
                ],
                "scale": {"minReplicas": 1, "maxReplicas": 3},
                **template,
            },
        },
    }


@pytest.fixture
def body(emulator: Emulator) -> dict[str, Any]:
    emulator.add_group("rg")
    return app_body(emulator)


@pytest.fixture
def app(emulator: Emulator, body: dict[str, Any]) -> App:
    """One that is there already."""
    return emulator.add_app("rg", "api", body)


def yaml(az: Az, command: str, body: dict[str, Any], *words: str) -> Ran:
    """`az containerapp COMMAND --yaml`; what is JSON is YAML."""
    path = az.home / "app.yaml"
    path.write_text(json.dumps(body))
    return az(f"containerapp {command} {HERE} --yaml {path}", *(words or ("-o", "none")))


def revised(body: dict[str, Any], **template: Any) -> dict[str, Any]:
    """The same body with another template."""
    other = copy.deepcopy(body)
    other["properties"]["template"].update(template)
    return other


def with_dsn(body: dict[str, Any], dsn: str) -> dict[str, Any]:
    other = copy.deepcopy(body)
    other["properties"]["configuration"]["secrets"][0]["value"] = dsn
    return other


# --- What comes of a deployment ---------------------------------------------------------------------------------------


def test_an_app_from_create_to_delete(az: Az, emulator: Emulator, body: dict[str, Any]) -> None:
    created = yaml(az, "create", body)
    assert (created.code, created.out) == (0, ""), created.err
    shown = az(f"containerapp show {HERE} -o json").json
    properties, template = shown["properties"], shown["properties"]["template"]
    (revision,) = emulator.apps[0].revisions
    assert (properties["provisioningState"], shown["location"]) == ("Succeeded", "East US 2")
    assert properties["latestRevisionName"] == properties["latestReadyRevisionName"] == revision.name
    assert properties["configuration"]["ingress"]["fqdn"].startswith("api.")
    assert properties["configuration"]["secrets"] == [{"name": "postgres-dsn"}]
    assert (template["revisionSuffix"], template["terminationGracePeriodSeconds"]) == ("", None)
    assert template["scale"] == {
        "cooldownPeriod": 300,
        "maxReplicas": 3,
        "minReplicas": 1,
        "pollingInterval": 30,
        "rules": None,
    }
    assert template["containers"][0]["resources"] == {"cpu": 0.5, "ephemeralStorage": "2Gi", "memory": "1Gi"}
    assert template["containers"][0]["probes"][0]["periodSeconds"] == 10
    assert az(f"containerapp secret list {HERE} --show-values -o json").json == [{"name": "postgres-dsn", "value": DSN}]
    assert revision.env == {"POSTGRES_DSN": DSN, "MODE": "live"}
    assert DSN not in repr(emulator.requests) + repr(emulator.apps)
    assert emulator.created[1:] == [shown["id"], f"{shown['id']}/revisions/{revision.name}"]
    assert az(f"containerapp delete {HERE} --yes").code == 0
    assert emulator.apps == []


def test_the_same_again_makes_no_revision_and_a_changed_secret_none_either(
    az: Az, emulator: Emulator, body: dict[str, Any], app: App
) -> None:
    assert yaml(az, "update", body).code == 0
    assert yaml(az, "update", with_dsn(body, NEW_DSN)).code == 0
    (revision,) = app.revisions
    assert (app.secrets["postgres-dsn"], revision.env["POSTGRES_DSN"]) == (NEW_DSN, DSN), "the running one has the old value"
    assert az(f"containerapp revision restart -g rg --revision {revision.name} -o json").json == "Restart succeeded"
    assert revision.env["POSTGRES_DSN"] == NEW_DSN
    assert emulator.writes()[-1][0] == "POST"


def test_a_new_suffix_makes_a_revision_that_takes_over(az: Az, body: dict[str, Any], app: App) -> None:
    body = with_dsn(revised(body, revisionSuffix="two"), NEW_DSN)
    shown = yaml(az, "update", body, "-o", "json").json["properties"]
    assert shown["latestReadyRevisionName"] == shown["latestRevisionName"] == "api--two"
    every = az(f"containerapp revision list {HERE} --all -o json").json
    states = [[one["properties"][word] for word in ("active", "trafficWeight", "runningState")] for one in every]
    assert states == [[False, 0, "Stopped"], [True, 100, "Running"]]
    assert (app.revisions[0].env["POSTGRES_DSN"], app.revisions[1].env["POSTGRES_DSN"]) == (DSN, NEW_DSN)
    assert yaml(az, "update", body).code == 0, "the same suffix with the same template is no news"
    assert len(app.revisions) == 2
    taken = yaml(az, "update", revised(body, scale={"maxReplicas": 5}))
    assert (taken.code, "revision with suffix two already exists" in taken.err) == (1, True)


def test_a_patch_merges_objects_and_replaces_lists(az: Az, emulator: Emulator, body: dict[str, Any], app: App) -> None:
    body["properties"]["configuration"]["secrets"].append({"name": "other", "value": "0123"})
    assert yaml(az, "update", body).code == 0
    patch = {
        "properties": {
            "configuration": {"secrets": [{"name": "postgres-dsn", "value": NEW_DSN}]},
            "template": {"scale": {"minReplicas": 2}, "containers": [{"name": "api", "image": IMAGE}]},
        }
    }
    assert yaml(az, "update", patch).code == 0
    assert app.secrets == {"postgres-dsn": NEW_DSN}
    template = app.document["properties"]["template"]
    assert (template["scale"]["minReplicas"], template["scale"]["maxReplicas"]) == (2, 3)
    assert (template["containers"][0].get("env"), template["containers"][0]["probes"]) == (None, [])
    assert app.configuration["ingress"]["targetPort"] == 8000
    assert app.configuration["registries"], "what the patch doesn't name"
    assert len(app.document["identity"]["userAssignedIdentities"]) == 1


def test_copying_a_revision_and_the_mode_of_many(az: Az, app: App) -> None:
    (first,) = app.revisions
    assert az(f"containerapp revision set-mode {HERE} --mode multiple -o json").json == "Multiple"
    assert (len(app.revisions), app.secrets) == (1, {"postgres-dsn": DSN})
    copied = az(f"containerapp revision copy {HERE} --from-revision {first.name} --revision-suffix again -o none")
    assert copied.code == 0, copied.err
    assert [revision.active for revision in app.revisions] == [True, True]
    assert az(f"containerapp revision deactivate -g rg --revision {first.name} -o json").json == "Deactivate succeeded"
    assert [revision.active for revision in app.revisions] == [False, True]
    assert az(f"containerapp revision activate -g rg --revision {first.name} -o none").code == 0
    assert [revision.active for revision in app.revisions] == [True, True]


# --- What goes wrong --------------------------------------------------------------------------------------------------

STATES = {
    "unhealthy": ["Provisioned", "Unhealthy", "Running"],
    "degraded": ["Provisioned", "Unhealthy", "Degraded"],
    "crashing": ["Failed", "Unhealthy", "Failed"],
    "activation-failed": ["Provisioned", "Unhealthy", "ActivationFailed"],
    "provisioning-failed": ["Failed", "None", "Failed"],
    "provisioning": ["Provisioning", "None", "Processing"],
    "activating": ["Provisioned", "None", "Activating"],
    "at-max-scale": ["Provisioned", "Healthy", "RunningAtMaxScale"],
}


def test_a_revision_that_is_ill_lets_the_old_one_serve(az: Az, emulator: Emulator, body: dict[str, Any], app: App) -> None:
    old = app.revisions[0].name
    emulator.next_revision("crashing")
    shown = yaml(az, "update", revised(body, revisionSuffix="two"), "-o", "json").json["properties"]
    assert (shown["provisioningState"], shown["latestRevisionName"]) == ("Succeeded", "api--two")
    assert shown["latestReadyRevisionName"] == old
    assert app.serving is app.revisions[0]
    state = az("containerapp revision show -g rg --revision api--two -o json").json["properties"]
    assert (state["runningStateDetails"], state["healthState"]) == ("1/1 Container crashing: api", "Unhealthy")
    assert (state["active"], state["trafficWeight"]) == (True, 100), "what is meant for it"
    assert yaml(az, "update", revised(body, revisionSuffix="three")).code == 0
    assert [revision.active for revision in app.revisions] == [False, False, True]


def test_every_way_in_which_a_revision_comes_out(az: Az, emulator: Emulator, body: dict[str, Any], app: App) -> None:
    ready = []
    for outcome in OUTCOMES:
        emulator.next_revision(outcome)
        emulator.add_app("rg", "api", revised(body, revisionSuffix=outcome))
        ready.append(app.serving is app.revisions[-1])
    listed = [revision["properties"] for revision in az(f"containerapp revision list {HERE} --all -o json").json]
    words = ("provisioningState", "healthState", "runningState")
    states = {name: [one[word] for word in words] for name, one in zip(OUTCOMES, listed[1:], strict=True)}
    assert states == STATES
    assert ready == [state[:2] == ["Provisioned", "Healthy"] for state in states.values()]
    assert [one["provisioningError"] for one in listed if "provisioningError" in one] == [
        "Deployment Progress Deadline Exceeded. 0/1 replicas ready."
    ]


def test_a_revision_that_takes_its_time(az: Az, emulator: Emulator, body: dict[str, Any], app: App) -> None:
    old = app.revisions[0].name
    emulator.container.activating_polls = 1
    emulator.next_revision("at-max-scale")
    shown = yaml(az, "update", revised(body, revisionSuffix="two"), "-o", "json").json["properties"]
    assert shown["latestReadyRevisionName"] == old
    look = "containerapp revision show -g rg --revision api--two -o tsv --query properties.runningState"
    assert [az(look).out, az(look).out] == ["Activating\n", "RunningAtMaxScale\n"]
    assert app.serving is app.revisions[1]


FAILED = {
    "app-busy": "ERROR: (ContainerAppOperationInProgress) Cannot modify a container app 'api'",
    "image-unknown": "ERROR: (InvalidParameterValueInContainerTemplate) The following field(s) are either invalid or missing. "
    "Field 'template.containers.api.image' is invalid with details: 'Invalid value: \"registry.azurecr.io/api:1\"",
    "image-unauthorized": "UNAUTHORIZED: authentication required",
    # The operation's code is lost on the way through az.
    "image-unknown-in-operation": "ERROR: Failed to provision revision for container app 'api'. Error details: The following",
    "revision-expired": "ERROR: Failed to provision revision for container app 'api'. Error details: Operation expired.",
}


@pytest.mark.parametrize("fault", APP_FAULTS)
def test_a_change_that_fails(az: Az, emulator: Emulator, body: dict[str, Any], app: App, fault: str) -> None:
    emulator.fail("PATCH", PATH, fault)
    failed = yaml(az, "update", revised(body, revisionSuffix="two"))
    assert (failed.code, failed.out) == (1, "")
    assert FAILED[fault] in failed.err
    half_way = APP_FAULTS[fault].kind == "operation"
    assert (app.state, app.document["properties"]["template"]["revisionSuffix"]) == (
        ("Failed", "two") if half_way else ("Succeeded", "")
    )
    assert len(app.revisions) == 1
    assert app.serving is app.revisions[0]


def test_an_operation_that_fails_is_mended_by_the_same_again(az: Az, emulator: Emulator, body: dict[str, Any], app: App) -> None:
    emulator.fail("PATCH", PATH, "revision-expired")
    emulator.container.patch_names_status = False
    failed = yaml(az, "update", revised(body, revisionSuffix="two"))
    assert (failed.code, "ERROR: (ContainerAppOperationError) Failed to provision" in failed.err) == (1, True)
    assert yaml(az, "update", revised(body, revisionSuffix="two")).code == 0
    assert [revision.name for revision in app.revisions][1:] == ["api--two"]
    assert app.state == "Succeeded"


def test_a_failed_operation_can_leave_its_revision_behind(az: Az, emulator: Emulator, body: dict[str, Any], app: App) -> None:
    emulator.fail("PATCH", PATH, "revision-expired")
    emulator.next_revision("provisioning-failed")
    assert yaml(az, "update", revised(body, revisionSuffix="two")).code == 1
    assert [revision.outcome.provisioning for revision in app.revisions] == ["Provisioned", "Failed"]
    assert app.serving is app.revisions[0]


def test_one_operation_at_a_time(az_program: str, tmp_path: Path) -> None:
    with Emulator(operation_seconds=3600) as emulator:
        emulator.add_group("rg")
        body = app_body(emulator)
        emulator.add_app("rg", "api", body)
        az = Az(az_program, emulator, tmp_path)
        path = tmp_path / "first.yaml"
        path.write_text(json.dumps(revised(body, revisionSuffix="two")))
        first = az.start(f"containerapp update {HERE} --yaml {path} -o none")
        deadline = time.monotonic() + 30
        while emulator.apps[0].state != "InProgress" and time.monotonic() < deadline:
            time.sleep(0.01)
        busy = yaml(az, "update", revised(body, revisionSuffix="three"))
        assert (busy.code, "(ContainerAppOperationInProgress)" in busy.err) == (1, True)
        emulator.state.clock = lambda: time.monotonic() + 3600
        assert ended(first).code == 0
        assert emulator.apps[0].latest_ready == "api--two"


def test_what_is_not_there(az: Az, emulator: Emulator) -> None:
    def code_of(ran: Ran) -> tuple[int, str]:
        return ran.code, ran.err.removeprefix("ERROR: ").split(")")[0] + ")" * ran.err.startswith("ERROR: (")

    show = f"containerapp show {HERE}"
    assert code_of(az(show)) == (1, "(ResourceGroupNotFound)")
    emulator.add_group("rg")
    assert code_of(az(show)) == (1, "(ResourceNotFound)"), "and not 3, as elsewhere"
    body = app_body(emulator)
    absent = yaml(az, "update", body)
    assert (absent.code, absent.err) == (1, "ERROR: The containerapp 'api' does not exist\n")
    emulator.container.environments.clear()
    nowhere = yaml(az, "create", body)
    assert (nowhere.code, nowhere.err) == (1, "ERROR: The environment 'env' in resource group 'rg' was not found\n")
    assert emulator.apps == []
    assert az("identity show -g rg -n puller -o tsv --query name").out == "puller\n"


def test_a_subscription_without_microsoft_app(az: Az, emulator: Emulator, body: dict[str, Any]) -> None:
    emulator.container.unregistered.add(SUBSCRIPTION)
    refused = az(f"containerapp show {HERE}")
    assert refused.code == 1
    assert 'az provider register -n Microsoft.App --wait" to register your subscription.' in refused.err
    assert yaml(az, "create", body).code == 0, "which registers it by itself"
    assert [method for method, _ in emulator.writes()] == ["POST", "PUT"]


def test_a_secret_in_a_key_vault(az: Az, emulator: Emulator, body: dict[str, Any], app: App) -> None:
    identity = body["properties"]["configuration"]["registries"][0]["identity"]
    reference = {"name": "postgres-dsn", "keyVaultUrl": "https://myvault.vault.azure.net/secrets/dsn", "identity": identity}
    body["properties"]["configuration"]["secrets"] = [reference]
    body = revised(body, revisionSuffix="two")
    unreachable = yaml(az, "update", body)
    assert (
        unreachable.code,
        f"unable to fetch secret 'postgres-dsn' using Managed identity '{identity}'" in unreachable.err,
    ) == (
        1,
        True,
    )
    emulator.vaults.secrets["myvault"] = {"dsn": [NEW_DSN]}
    updated = yaml(az, "update", body)
    assert updated.code == 0, updated.err
    assert az(f"containerapp secret list {HERE} --show-values -o json").json == [reference]
    assert app.serving is not None
    assert app.serving.env["POSTGRES_DSN"] == NEW_DSN
    emulator.container.locked_out.add(identity.lower())
    assert "unable to fetch secret" in refused(emulator, body).message


def test_a_group_lists_its_apps_and_takes_them_along(az: Az, emulator: Emulator, app: App) -> None:
    listed = az("resource list -g rg -o json --query [].{id:id,type:type}").json
    assert listed == [{"id": app.id, "type": "Microsoft.App/containerApps"}]
    assert az("group delete -n rg --yes").code == 0
    assert emulator.apps == []


# --- Without az: what a patch means, and what Azure refuses at once ----------------------------------------------------


def test_a_merge_patch() -> None:
    """The examples of RFC 7396 that tell it from other ways of merging."""
    assert merged({"a": "b", "c": {"d": "e", "f": "g"}}, {"a": "z", "c": {"f": None}}) == {"a": "z", "c": {"d": "e"}}
    assert merged({"a": [{"b": "c"}]}, {"a": [1]}) == {"a": [1]}
    assert merged({"e": None}, {"a": 1}) == {"e": None, "a": 1}
    assert merged({}, {"a": {"bb": {"ccc": None}}}) == {"a": {"bb": {}}}
    assert merged([1, 2], {"a": "b", "c": None}) == {"a": "b"}


def refused(emulator: Emulator, body: dict[str, Any], name: str = "api") -> Refusal:
    with pytest.raises(Refusal) as caught:
        emulator.add_app("rg", name, body)
    return caught.value


def test_what_azure_does_not_take(emulator: Emulator, body: dict[str, Any]) -> None:
    def because(**changes: Any) -> tuple[str, str]:
        other = copy.deepcopy(body)
        properties = other["properties"]
        for where, value in changes.items():
            if where in ("secrets", "registries"):
                properties["configuration"][where] = value
            elif where == "environmentId":
                properties[where] = value
            elif where == "identity":
                other[where] = value
            else:
                properties["template"]["containers"][0][where] = value
        refusal = refused(emulator, other)
        return refusal.code, refusal.message

    secret = {"name": "postgres-dsn", "value": DSN}
    expected = "SecretRef 'postgres-dsn' defined for container 'api' not found."
    assert because(secrets=[]) == ("ContainerAppSecretRefNotFound", expected)
    assert because(secrets=[{"name": "postgres-dsn"}])[0] == "ContainerAppSecretInvalid"
    assert because(secrets=[secret, {"name": "POSTGRES_DSN", "value": DSN}])[0] == "ContainerAppInvalidSecretName"
    assert because(secrets=[secret, secret])[0] == "ContainerAppDuplicateSecretName"
    wrong = because(resources={"cpu": 0.5, "memory": "2Gi"})
    assert wrong[0] == "ContainerAppInvalidResourceTotal"
    assert "(CPU: 0.5, memory: 2.0) is invalid." in wrong[1]
    assert "[cpu: 4.0, memory: 8.0Gi]" in wrong[1]
    assert because(image="")[0] == "ContainerAppImageRequired"
    assert because(environmentId="/nowhere")[0] == "ManagedEnvironmentNotFound"
    assert because(identity={"type": "None"})[0] == "InvalidParameterValueInContainerTemplate", "the registry's identity"
    registry = {"server": "registry.azurecr.io", "username": "u", "passwordSecretRef": "gone"}
    assert because(registries=[registry])[0] == "ContainerAppSecretRefNotFound"
    assert refused(emulator, body, "API").code == "ContainerAppInvalidName"
    for suffix in ("Two", "two-", "t--o", "t.o", "t" * 50):
        assert refused(emulator, revised(body, revisionSuffix=suffix)).code == "ContainerAppInvalidRevisionName"
    emulator.add_environment("env")["properties"]["provisioningState"] = "Failed"
    assert because()[0] == "ManagedEnvironmentNotProvisioned"
    assert emulator.apps == []
