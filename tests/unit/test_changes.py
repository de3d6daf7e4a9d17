"""A template against the app that stands: what differs, what is kept, what is sent, and that no secret shows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from scripts import changes
from scripts.changes import Change, Extra
from tests.azure import apps

ID = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers"
IDENTITY = f"{ID}/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
SECRET = "postgresql://app:s3cret@db.example:5432/app?sslmode=require"
Json = dict[str, Any]


def tree() -> Json:
    """A template's tree, with something of everything."""
    return {
        "name": "api",
        "type": "Microsoft.App/containerApps",
        "location": "eastus2",
        "tags": {"team": "data"},
        "identity": {"type": "SystemAssigned,UserAssigned", "userAssignedIdentities": {IDENTITY: {}}},
        "properties": {
            "environmentId": f"{ID}/Microsoft.App/managedEnvironments/env",
            "configuration": {
                "activeRevisionsMode": "Single",
                "ingress": {
                    "external": True,
                    "targetPort": 8000,
                    "transport": "auto",
                    "traffic": [{"latestRevision": True, "weight": 100}],
                    "customDomains": [{"name": "api.example.com", "bindingType": "SniEnabled"}],
                },
                "registries": [{"server": "Registry.azurecr.io", "identity": IDENTITY}],
                "secrets": [{"name": "postgres-dsn", "value": SECRET}],
            },
            "template": {
                "containers": [
                    {
                        "name": "api",
                        "image": "registry.azurecr.io/api:1",
                        "args": ["--port", "8000"],
                        "env": [
                            {"name": "POSTGRES_DSN", "secretRef": "postgres-dsn"},
                            {"name": "MODE", "value": "live"},
                            {"name": "NOTHING", "value": ""},
                        ],
                        "resources": {"cpu": 1, "memory": "2.0Gi"},
                        "probes": [
                            {
                                "type": "Liveness",
                                "httpGet": {"path": "/live", "port": 8000, "httpHeaders": [{"name": "X", "value": "1"}]},
                            }
                        ],
                        "volumeMounts": [{"volumeName": "v", "mountPath": "/a"}, {"volumeName": "v", "mountPath": "/b"}],
                    }
                ],
                "scale": {
                    "minReplicas": 0,
                    "maxReplicas": 3,
                    "rules": [
                        {
                            "name": "queue",
                            "custom": {
                                "type": "azure-queue",
                                "metadata": {"connection": SECRET},
                                "auth": [{"secretRef": "postgres-dsn", "triggerParameter": "connection"}],
                            },
                        }
                    ],
                },
            },
        },
    }


def azures() -> Json:
    """The same app as Azure shows it: with defaults, in other cases, in another order, and without secrets' values."""
    shown = copy.deepcopy(tree())
    shown.update(location="East US 2", id=f"{ID}/Microsoft.App/containerapps/api", systemData={"createdBy": "me"})
    shown["identity"] = {
        "type": "SystemAssigned, UserAssigned",
        "principalId": "1",
        "userAssignedIdentities": {IDENTITY.lower(): {"clientId": "2", "principalId": "3"}},
    }
    properties = shown["properties"]
    properties["environmentId"] = properties["environmentId"].replace("resourceGroups/rg", "resourcegroups/RG")
    properties.update(provisioningState="Succeeded", latestRevisionName="api--1", workloadProfileName="Consumption")
    configuration = properties["configuration"]
    configuration.update(secrets=[{"name": "postgres-dsn"}], maxInactiveRevisions=100, dapr=None)
    configuration["registries"] = [
        {
            "server": "registry.azurecr.io",
            "username": "",
            "passwordSecretRef": "",
            "identity": IDENTITY.upper().replace("/SUB", "/sub"),
        }
    ]
    configuration["ingress"].update(
        transport="Auto", fqdn="api.example.io", exposedPort=0, stickySessions=None, allowInsecure=False
    )
    configuration["ingress"]["traffic"] = [{"latestRevision": True, "weight": 100, "label": None}]
    configuration["ingress"]["customDomains"][0].update(certificateId="/certificates/1")
    template = properties["template"]
    [container] = template["containers"]
    container["resources"] = {"cpu": 1.0, "memory": "2Gi", "ephemeralStorage": "4Gi"}
    container["env"] = [
        {"name": "NOTHING"},
        {"name": "MODE", "value": "live"},
        {"name": "POSTGRES_DSN", "secretRef": "postgres-dsn"},
    ]
    container["probes"][0].update(periodSeconds=10, failureThreshold=3, successThreshold=1)
    container["probes"][0]["httpGet"]["scheme"] = "HTTP"
    container["volumeMounts"] = [{"volumeName": "v", "mountPath": "/b", "subPath": None}, {"volumeName": "v", "mountPath": "/a"}]
    container["imageType"] = "ContainerImage"
    template["scale"].update(minReplicas=None, cooldownPeriod=300, pollingInterval=30)
    template["scale"]["rules"][0]["custom"]["auth"][0]["identity"] = None
    template.update(initContainers=None, volumes=None, revisionSuffix="1")
    return shown


def configuration(app: Json) -> Json:
    found: Json = app["properties"]["configuration"]
    return found


def container(app: Json) -> Json:
    found: Json = app["properties"]["template"]["containers"][0]
    return found


def differing(change: Callable[[Json], object]) -> list[str]:
    """What is said after one change of the template."""
    wanted = tree()
    change(wanted)
    return [str(difference) for difference in changes.differences(wanted, azures())]


# --- What differs -----------------------------------------------------------------------------------------------------


def test_what_azure_adds_and_spells_otherwise_is_no_difference() -> None:
    assert list(changes.differences(tree(), azures())) == []
    assert list(changes.extras(tree(), azures())) == []


def test_what_the_emulator_makes_of_a_template_is_no_difference() -> None:
    shown = apps.completed(tree())
    configuration(shown)["secrets"] = [{"name": "postgres-dsn"}]
    assert list(changes.differences({key: value for key, value in tree().items() if key in shown}, shown)) == []


CHANGES: list[tuple[str, Callable[[Json], object], list[str]]] = [
    ("image", lambda app: container(app).update(image="i:2"), ["containers.api.image: registry.azurecr.io/api:1 -> i:2"]),
    ("case", lambda app: container(app).update(image="registry.azurecr.io/API:1"), ["api.image: registry.azurecr.io/api:1 -> "]),
    ("memory", lambda app: container(app)["resources"].update(memory="2.5Gi"), ["resources.memory: 2Gi -> 2.5Gi"]),
    ("no Gi", lambda app: container(app)["resources"].update(memory="2"), ["resources.memory: 2Gi -> 2"]),
    ("cpu", lambda app: container(app)["resources"].update(cpu=0.5), ["resources.cpu: 1.0 -> 0.5"]),
    ("location", lambda app: app.update(location="westus2"), ["location: East US 2 -> westus2"]),
    ("tag", lambda app: app["tags"].update(team="Data"), ["tags.team: data -> Data"]),
    ("new tag", lambda app: app["tags"].update(more="x"), ["tags.more: nothing -> x"]),
    ("off", lambda app: configuration(app)["ingress"].update(external=False), ["ingress.external: True -> False"]),
    ("on", lambda app: configuration(app)["ingress"].update(allowInsecure=True), ["ingress.allowInsecure: False -> True"]),
    ("zero", lambda app: app["properties"]["template"]["scale"].update(maxReplicas=0), ["scale.maxReplicas: 3 -> 0"]),
    ("new env", lambda app: container(app)["env"].append({"name": "A", "value": "s3cret"}), ["api.env[A]: nothing -> new"]),
    ("env value", lambda app: container(app)["env"][1].update(value="s3cret"), ["api.env.MODE.value"]),
    ("env emptied", lambda app: container(app)["env"][1].update(value=""), ["api.env.MODE.value"]),
    ("env filled", lambda app: container(app)["env"][2].update(value="s3cret"), ["api.env.NOTHING.value"]),
    (
        "value to reference",
        lambda app: container(app)["env"].__setitem__(1, {"name": "MODE", "secretRef": "postgres-dsn"}),
        ["api.env.MODE.secretRef: nothing -> postgres-dsn"],
    ),
    ("args", lambda app: container(app).update(args=["--password", "s3cret"]), ["containers.api.args"]),
    ("args in another order", lambda app: container(app)["args"].reverse(), ["containers.api.args"]),
    ("no args", lambda app: container(app).update(args=[]), ["containers.api.args"]),
    ("command", lambda app: container(app).update(command=["s3cret"]), ["containers.api.command"]),
    (
        "metadata",
        lambda app: app["properties"]["template"]["scale"]["rules"][0]["custom"]["metadata"].update(connection="s3cret2"),
        ["rules.queue.custom.metadata.connection"],
    ),
    (
        "auth",
        lambda app: app["properties"]["template"]["scale"]["rules"][0]["custom"]["auth"][0].update(triggerParameter="t"),
        ["rules.queue.custom.auth[0].triggerParameter: connection -> t"],
    ),
    (
        "header",
        lambda app: container(app)["probes"][0]["httpGet"]["httpHeaders"][0].update(value="s3cret"),
        ["api.probes.Liveness.httpGet.httpHeaders.X.value"],
    ),
    ("probe", lambda app: container(app)["probes"].append({"type": "Startup"}), ["api.probes[Startup]: nothing -> new"]),
    ("mount", lambda app: container(app)["volumeMounts"][1].update(mountPath="/c"), ["api.volumeMounts[/c]: nothing -> new"]),
    (
        "traffic",
        lambda app: configuration(app)["ingress"]["traffic"][0].update(weight=50),
        ["ingress.traffic[0].weight: 100 -> 50"],
    ),
    (
        "shared traffic",
        lambda app: configuration(app)["ingress"]["traffic"].append({"revisionName": "api--0", "weight": 0}),
        ["ingress.traffic: [{'latestRevision': True, 'weight': 100}] -> "],
    ),
    ("secret", lambda app: configuration(app)["secrets"].append({"name": "a", "value": "s3cret"}), ["secret a: nothing -> new"]),
    (
        "registry",
        lambda app: configuration(app)["registries"][0].update(identity="system"),
        ["registries.Registry.azurecr.io.identity: "],
    ),
    (
        "identity",
        lambda app: app["identity"]["userAssignedIdentities"].update({IDENTITY + "2": {}}),
        ["puller2: nothing -> new"],
    ),
]


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_change_is_said_with_its_place_and_without_what_may_be_a_password(
    change: Callable[[Json], object], said: list[str]
) -> None:
    found = differing(change)
    assert len(found) == len(said)
    assert all(words in line for words, line in zip(said, found, strict=True)), found
    assert "s3cret" not in repr(found)


def test_no_change_holds_a_value_that_may_be_a_password() -> None:
    wanted = tree()
    for change in (row[1] for row in CHANGES if row[0] not in ("no args", "args in another order")):
        change(wanted)
    assert "s3cret" not in repr(list(changes.differences(wanted, azures())))
    assert "s3cret" not in repr(list(changes.differences(tree(), {"properties": {}}))), "everything is new"


def test_against_an_app_of_which_nothing_is_known_everything_differs() -> None:
    for there in ({}, {"properties": None}, {"properties": {"configuration": {"secrets": None}}}):
        assert len(list(changes.differences(tree(), there))) > 10
        assert list(changes.extras(tree(), there)) == []


# --- Secrets ----------------------------------------------------------------------------------------------------------


def with_secret(**secret: str) -> Json:
    return {"properties": {"configuration": {"secrets": [{"name": "dsn", **secret}]}}}


VAULT = {"keyVaultUrl": "https://v.vault.azure.net/secrets/DSN", "identity": IDENTITY}


@pytest.mark.parametrize(
    ("wanted", "there", "is_changed"),
    [
        ({"value": "s3cret"}, {"value": "s3cret"}, False),
        ({"value": "s3cret"}, {"value": "s3cret", "identity": "", "keyVaultUrl": ""}, False),
        ({"value": "s3cret"}, {"value": "s3cret", "identity": None, "keyVaultUrl": None}, False),
        ({"value": "s3cret"}, {"value": "S3cret"}, True),
        ({"value": "s3cret"}, {}, True),
        ({"value": "s3cret"}, {**VAULT, "value": "s3cret"}, True),
        (VAULT, {**VAULT, "value": "s3cret"}, False),
        (VAULT, {"keyVaultUrl": VAULT["keyVaultUrl"].lower(), "identity": IDENTITY.lower()}, False),
        (VAULT, {**VAULT, "keyVaultUrl": VAULT["keyVaultUrl"] + "2"}, True),
        (VAULT, {**VAULT, "identity": "system"}, True),
        (VAULT, {"value": "s3cret"}, True),
    ],
)
def test_a_changed_secret_is_named_and_not_shown(wanted: dict[str, str], there: dict[str, str], is_changed: bool) -> None:
    found = changes.secret_changes(with_secret(**wanted), [{"name": "other", "value": "x"}, {"name": "dsn", **there}])
    assert found == ([Change("secret dsn", None, None, is_hidden=True)] if is_changed else [])
    assert all(str(change) == "secret dsn" for change in found)


def test_a_new_secret_is_new_once() -> None:
    wanted = with_secret(value="s3cret")
    assert changes.secret_changes(wanted, []) == []
    there = {"properties": {"configuration": {"secrets": [{"name": "other"}]}}}
    assert list(changes.differences(wanted, there)) == [Change("secret dsn", None, "new")]


def test_an_app_without_secrets_has_none_that_changed() -> None:
    assert changes.secret_changes({"properties": {}}, [{"name": "dsn", "value": "s3cret"}]) == []


# --- What is kept -----------------------------------------------------------------------------------------------------


def grown() -> Json:
    """The app, after others have added to all its lists."""
    app = azures()
    configuration(app)["secrets"].append({"name": "by-hand"})
    configuration(app)["registries"].append({"server": "other.io", "username": "u", "passwordSecretRef": "by-hand"})
    configuration(app)["ingress"]["customDomains"].append({"name": "www.example.com", "bindingType": "Auto"})
    container(app)["env"].append({"name": "DEBUG", "value": "s3cret"})
    container(app)["probes"][0]["httpGet"]["httpHeaders"].append({"name": "Y", "value": "s3cret"})
    container(app)["command"] = ["/bin/api"]
    app["properties"]["template"]["containers"].append({"name": "sidecar", "image": "s"})
    app["properties"]["template"]["scale"]["rules"].append({"name": "http", "http": {"metadata": {"a": "s3cret"}}})
    app["properties"]["template"]["volumes"] = [{"name": "v", "storageType": "EmptyDir"}]
    app["tags"]["by"] = "hand"
    return app


EXTRAS = [
    "properties.configuration.ingress.customDomains[www.example.com]",
    "properties.configuration.registries[other.io]",
    "properties.configuration.secrets[by-hand]",
    "properties.template.containers.api.env[DEBUG]",
    "properties.template.containers.api.probes.Liveness.httpGet.httpHeaders[Y]",
    "properties.template.containers.api.command",
    "properties.template.containers[sidecar]",
    "properties.template.scale.rules[http]",
]


def test_what_the_template_does_not_name_in_a_list_is_named_without_its_values() -> None:
    found = list(changes.extras(tree(), grown()))
    assert [str(extra) for extra in found] == EXTRAS
    assert list(changes.differences(tree(), grown())) == [], "what is kept is no difference"


def test_what_a_mapping_does_not_name_stays_by_itself() -> None:
    assert not any("volumes" in str(extra) or "tags" in str(extra) for extra in changes.extras(tree(), grown()))


def test_what_is_sent_holds_what_is_kept_and_nothing_else_of_azures() -> None:
    kept = list(changes.extras(tree(), grown()))
    sent = changes.merged(tree(), kept)
    assert list(changes.extras(sent, grown())) == []
    assert list(changes.differences(sent, grown())) == []
    assert container(sent)["command"] == ["/bin/api"]
    assert container(sent)["env"] == [*container(tree())["env"], {"name": "DEBUG", "value": "s3cret"}]
    assert configuration(sent)["secrets"] == [{"name": "postgres-dsn", "value": SECRET}, {"name": "by-hand"}]
    assert "imageType" not in container(sent)
    assert "volumes" not in sent["properties"]["template"]
    assert changes.merged(tree(), []) == tree()


def test_what_is_sent_shares_nothing_with_what_it_was_made_of() -> None:
    wanted, there = tree(), grown()
    sent = changes.merged(wanted, list(changes.extras(wanted, there)))
    container(sent)["env"][-1]["value"] = "other"
    container(sent)["command"].append("x")
    sent["properties"]["template"]["revisionSuffix"] = "s"
    assert (wanted, there) == (tree(), grown())


def test_what_an_alias_of_the_template_stands_for_is_kept_apart() -> None:
    env = [{"name": "A", "value": "1"}]
    wanted = {"containers": [{"name": "a", "env": env}, {"name": "b", "env": env}]}
    there = {"containers": [{"name": "a", "env": [*env, {"name": "ONLY_A", "value": "1"}]}, {"name": "b", "env": env}]}
    sent = changes.merged(wanted, list(changes.extras(wanted, there)))
    assert sent == there


def test_items_known_by_another_case_are_found_again() -> None:
    wanted = {"registries": [{"server": "A.io", "list": [{"name": "x"}]}]}
    there = {"registries": [{"server": "a.IO", "list": [{"name": "x"}, {"name": "y"}]}]}
    sent = changes.merged(wanted, list(changes.extras(wanted, there)))
    assert sent == {"registries": [{"server": "A.io", "list": [{"name": "x"}, {"name": "y"}]}]}


def test_names_are_told_apart_by_their_case() -> None:
    [extra] = changes.extras({"env": [{"name": "a"}]}, {"env": [{"name": "A"}, {"name": "a"}]})
    assert extra == Extra(("env",), {"name": "A"})


def test_paths_are_told_apart_by_their_case() -> None:
    [extra] = changes.extras({"mounts": [{"mountPath": "/a"}]}, {"mounts": [{"mountPath": "/A"}, {"mountPath": "/a"}]})
    assert extra == Extra(("mounts",), {"mountPath": "/A"})


def test_shares_of_traffic_are_the_templates_alone() -> None:
    there = azures()
    configuration(there)["ingress"]["traffic"] = [
        {"latestRevision": True, "weight": 50},
        {"revisionName": "api--0", "weight": 50},
    ]
    assert list(changes.extras(tree(), there)) == []
    assert [change.place for change in changes.differences(tree(), there)] == ["properties.configuration.ingress.traffic"]


def test_an_empty_list_of_the_template_keeps_what_has_a_name() -> None:
    wanted, there = tree(), grown()
    configuration(wanted)["registries"] = []
    assert list(changes.differences(wanted, there)) == []
    assert [str(extra) for extra in changes.extras(wanted, there) if "registries" in str(extra)] == [
        "properties.configuration.registries[registry.azurecr.io]",
        "properties.configuration.registries[other.io]",
    ]
