"""What a Container App's template may say: each rule with its message, its place, and no value of a secret."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from scripts import containerapp
from tests.conftest import ROOT

ID = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers"
IDENTITY = f"{ID}/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
DSN = "postgresql://app:s3cret@db.example:5432/app?sslmode=require"
Json = dict[str, Any]


def tree() -> Json:
    """One that nothing is wrong with."""
    return {
        "name": "api",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}},
        "properties": {
            "environmentId": f"{ID}/Microsoft.App/managedEnvironments/env",
            "configuration": {
                "ingress": {"external": True, "targetPort": 8000, "traffic": [{"latestRevision": True, "weight": 100}]},
                "registries": [{"server": "r.io", "identity": IDENTITY}],
                "secrets": [{"name": "dsn", "value": DSN}],
            },
            "template": {
                "containers": [
                    {
                        "name": "api",
                        "image": "r.io/api:1",
                        "env": [{"name": "POSTGRES_DSN", "secretRef": "dsn"}, {"name": "MODE", "value": "live"}],
                        "resources": {"cpu": 0.5, "memory": "1Gi"},
                        "probes": [{"type": "Liveness", "httpGet": {"path": "/", "port": 8000}}],
                    }
                ],
                "scale": {"minReplicas": 1, "maxReplicas": 3, "rules": [{"name": "http", "http": {"metadata": {"n": "50"}}}]},
            },
        },
    }


def configuration(app: Json) -> Json:
    found: Json = app["properties"]["configuration"]
    return found


def template(app: Json) -> Json:
    found: Json = app["properties"]["template"]
    return found


def container(app: Json) -> Json:
    found: Json = template(app)["containers"][0]
    return found


def problems(change: Callable[[Json], object] = lambda app: None) -> list[str]:
    """What is said of the app after a change, each with its place."""
    app = tree()
    change(app)
    before = copy.deepcopy(app)
    found = [f"{containerapp.spelled(path)}: {text}" for path, text in containerapp.lint(app)]
    assert app == before, "to look at it is not to change it"
    assert "s3cret" not in repr(found)
    return found


def renamed(mapping: Json, old: str, new: str) -> Json:
    mapping[new] = mapping.pop(old)
    return mapping


def test_an_app_as_it_should_be() -> None:
    assert problems() == []


C = "properties.configuration"
T = "properties.template"
API = f"{T}.containers[0]"
RULES: list[tuple[str, Callable[[Json], object], list[str]]] = [
    # Keys, which az drops without a word.
    (
        "secretref",
        lambda app: renamed(container(app)["env"][0], "secretRef", "secretref"),
        [f"{API}.env[0].secretref: unknown key secretref, which az would drop without a word: did you mean secretRef?"],
    ),
    (
        "maxReplica",
        lambda app: renamed(template(app)["scale"], "maxReplicas", "maxReplica"),
        [f"{T}.scale.maxReplica: unknown key maxReplica, which az would drop without a word: did you mean maxReplicas?"],
    ),
    (
        "no guess",
        lambda app: template(app).update(zzz="s3cret"),
        [f"{T}.zzz: unknown key zzz, which az would drop without a word"],
    ),
    (
        "a key and its misspelling",
        lambda app: container(app).update(images="s3cret"),
        [f"{API}.images: unknown key images, which az would drop without a word: did you mean image?"],
    ),
    ("properties.fqdn", lambda app: configuration(app)["ingress"].update(fqdn="x"), [f"{C}.ingress.fqdn: unknown key fqdn"]),
    ("a number as key", lambda app: cast("dict[Any, Any]", app).update({5: 1}), ["[5]: unknown key 5"]),
    (
        "the rest is looked at as it was meant",
        lambda app: renamed(template(app)["scale"], "minReplicas", "minReplica").update(maxReplicas=0),
        [f"{T}.scale.minReplica: unknown key", f"{T}.scale.maxReplicas: at least 1 is meant", "1 is more than maxReplicas, 0"],
    ),
    (
        "a misspelt reference counts",
        lambda app: renamed(container(app)["env"][0], "secretRef", "secretref").update(secretref="dns"),
        [
            f"{API}.env[0].secretref: unknown",
            f"{API}.env[0].secretRef: there is no secret dns: did you mean dsn?",
            "nothing refers",
        ],
    ),
    # Types.
    ("no tree", lambda app: app.clear(), [": name is missing", ": properties is missing"]),
    ("null", lambda app: app.update(properties=None), ["properties: a mapping is meant, and nothing is there"]),
    ("a list", lambda app: app.update(properties=[]), ["properties: a mapping is meant, and that is a list"]),
    ("a mapping", lambda app: template(app).update(containers={}), [f"{T}.containers: a list is meant, and that is a mapping"]),
    ("a number", lambda app: app["identity"].update(type=5), ["identity.type: one of None, SystemAssigned, UserAssigned, "]),
    (
        "text for a number",
        lambda app: template(app)["scale"].update(minReplicas="s3cret"),
        [f"{T}.scale.minReplicas: a whole number is meant, and that is text: before a variable, !!int or !!float makes it"],
    ),
    (
        "a number for text",
        lambda app: container(app)["env"][1].update(value=5),
        [f"{API}.env[1].value: text is meant, and that is a number: put it between quotes"],
    ),
    (
        "a truth for text",
        lambda app: container(app)["env"][1].update(value=True),
        [f"{API}.env[1].value: text is meant, and that is true or false: put it between quotes"],
    ),
    (
        "a truth for a number",
        lambda app: template(app)["scale"].update(minReplicas=True),
        ["minReplicas: a whole number is meant"],
    ),
    ("text for a truth", lambda app: configuration(app)["ingress"].update(external="yes"), ["external: true or false is meant"]),
    ("half a replica", lambda app: template(app)["scale"].update(minReplicas=0.5), ["minReplicas: a whole number is meant"]),
    (
        "an identity of null",
        lambda app: app["identity"]["userAssignedIdentities"].update({IDENTITY: None}),
        ["a mapping is meant"],
    ),
    ("an identity with more", lambda app: app["identity"]["userAssignedIdentities"][IDENTITY].update(a=1), [": {} is meant"]),
    ("no image", lambda app: container(app).pop("image"), [f"{API}: image is missing"]),
    # Values.
    (
        "another word",
        lambda app: configuration(app).update(activeRevisionsMode="single"),
        [f"{C}.activeRevisionsMode: one of Single, Multiple is meant: did you mean Single?"],
    ),
    ("another type", lambda app: app.update(type="Microsoft.App/jobs"), ["type: Microsoft.App/containerApps is meant"]),
    ("probe", lambda app: container(app)["probes"][0].update(type="Livenes"), ["did you mean Liveness?"]),
    ("port", lambda app: configuration(app)["ingress"].update(targetPort=0), ["ingress.targetPort: at least 1 is meant"]),
    ("weight", lambda app: configuration(app)["ingress"]["traffic"][0].update(weight=101), ["weight: at most 100 is meant"]),
    *(
        (f"the name {name!r}", lambda app, name=name: app.update(name=name), ["name: 2 to 32 of a-z, 0-9 and single -"])
        for name in (*("", "a", "Api", "1api", "api-", "-api", "a--b", "a_b", "a.b", "a" * 33, "api\n"),)
    ),
    ("no environment", lambda app: app["properties"].pop("environmentId"), ["properties: environmentId is missing"]),
    (
        "an environment's name",
        lambda app: app["properties"].update(environmentId="env"),
        ["the id of an environment is meant: az "],
    ),
    (
        "an identity's name",
        lambda app: app["identity"].update(userAssignedIdentities={"puller": {}, IDENTITY: {}}),
        ["identity.userAssignedIdentities.puller: the id of an identity is meant: az identity show"],
    ),
    (
        "another's identity",
        lambda app: configuration(app)["registries"][0].update(identity=IDENTITY + "2"),
        [f"{C}.registries[0].identity: this identity isn't one of the app's own"],
    ),
    ("system", lambda app: configuration(app)["registries"][0].update(identity="system"), ["isn't one of the app's own"]),
    ("a suffix", lambda app: template(app).update(revisionSuffix="a"), [f"{T}.revisionSuffix: `invoke deploy` chooses it"]),
    # Scale and size.
    (
        "4 to 3",
        lambda app: template(app)["scale"].update(minReplicas=4),
        [f"{T}.scale.minReplicas: 4 is more than maxReplicas, 3"],
    ),
    (
        "11 to the default",
        lambda app: template(app).update(scale={"minReplicas": 11}),
        [f"{T}.scale.minReplicas: 11 is more than maxReplicas, 10"],
    ),
    ("cores", lambda app: container(app)["resources"].update(cpu=0.3), [f"{API}.resources.cpu: 0.3 cores can't be had"]),
    ("no core", lambda app: container(app)["resources"].update(cpu=0), [f"{API}.resources.cpu: 0 cores can't be had"]),
    ("less than none", lambda app: container(app)["resources"].update(cpu=-0.5), ["-0.5 cores can't be had"]),
    ("five cores", lambda app: container(app)["resources"].update(cpu=5, memory="10Gi"), ["5 cores can't be had"]),
    ("infinite cores", lambda app: container(app)["resources"].update(cpu=float("inf")), ["inf cores can't be had"]),
    ("no number of cores", lambda app: container(app)["resources"].update(cpu=float("nan")), ["nan cores can't be had"]),
    (
        "memory",
        lambda app: container(app)["resources"].update(memory="2Gi"),
        [f"{API}.resources.memory: 2Gi doesn't go with 0.5 cores: 1Gi does"],
    ),
    *(
        (f"{memory} of memory", lambda app, memory=memory: container(app)["resources"].update(memory=memory), ["GiB are meant"])
        for memory in (*("1", "1G", "1GB", "1024Mi", "1 Gi", "Gi", "-1Gi", "1Gi\n", "", "s3cret"),)
    ),
    (
        "two containers",
        lambda app: template(app)["containers"].append({"name": "b", "image": "i", "resources": {"cpu": 0.25, "memory": "1Gi"}}),
        [f"{API}.resources.memory: 2Gi doesn't go with 0.75 cores: 1.5Gi does"],
    ),
    ("no container", lambda app: template(app).update(containers=[]), ["nothing refers", f"{T}: containers is missing"]),
    # Secrets.
    (
        "no such secret",
        lambda app: container(app)["env"][0].update(secretRef="dns"),
        [
            f"{API}.env[0].secretRef: there is no secret dns: did you mean dsn?",
            f"{C}.secrets[0]: nothing refers to the secret dsn",
        ],
    ),
    (
        "a registry's password",
        lambda app: configuration(app)["registries"][0].update(passwordSecretRef="zzz"),
        [f"{C}.registries[0].passwordSecretRef: there is no secret zzz"],
    ),
    (
        "a scaler's secret",
        lambda app: template(app)["scale"]["rules"][0]["http"].update(auth=[{"secretRef": "zzz", "triggerParameter": "t"}]),
        [f"{T}.scale.rules[0].http.auth[0].secretRef: there is no secret zzz"],
    ),
    (
        "unused",
        lambda app: configuration(app)["secrets"].append({"name": "b", "value": "s3cret"}),
        [f"{C}.secrets[1]: nothing refers"],
    ),
    (
        "twice",
        lambda app: configuration(app)["secrets"].append({"name": "dsn", "value": DSN}),
        [f"{C}.secrets[1]: dsn stands there twice"],
    ),
    (
        "a variable twice",
        lambda app: container(app)["env"].append({"name": "MODE", "value": "s3cret"}),
        [f"{API}.env[2]: MODE stands there twice"],
    ),
    (
        "two probes",
        lambda app: container(app)["probes"].append({"type": "Liveness", "tcpSocket": {"port": 1}}),
        [f"{API}.probes[1]: Liveness stands there twice"],
    ),
    (
        "a name",
        lambda app: (configuration(app)["secrets"][0].update(name="Dsn_"), container(app)["env"][0].update(secretRef="Dsn_")),
        [f"{C}.secrets[0].name: a secret's name has a-z, 0-9, - and ."],
    ),
    (
        "empty",
        lambda app: configuration(app)["secrets"][0].update(value=""),
        [f"{C}.secrets[0].value: it is empty, and az would keep"],
    ),
    (
        "nothing",
        lambda app: configuration(app)["secrets"][0].pop("value"),
        [f"{C}.secrets[0]: either value, or keyVaultUrl and identity"],
    ),
    (
        "both",
        lambda app: configuration(app)["secrets"][0].update(keyVaultUrl="https://v.vault.azure.net/secrets/a", identity=IDENTITY),
        [f"{C}.secrets[0]: either value, or keyVaultUrl and identity, is meant"],
    ),
    (
        "a Key Vault without an identity",
        lambda app: configuration(app).update(secrets=[{"name": "dsn", "keyVaultUrl": "https://v.vault.azure.net/secrets/a"}]),
        [f"{C}.secrets[0]: identity is missing: the one that may read the Key Vault"],
    ),
    *(
        (
            f"the address {url!r}",
            lambda app, url=url: configuration(app).update(secrets=[{"name": "dsn", "keyVaultUrl": url, "identity": IDENTITY}]),
            [f"{C}.secrets[0].keyVaultUrl: https://VAULT.vault.azure.net/secrets/NAME is meant"],
        )
        for url in (
            *(
                "",
                "v",
                "http://v.vault.azure.net/secrets/a",
                "https://v.vault.azure.net/keys/a",
                "https://v.vault.azure.net/secrets/",
            ),
            *(
                "https://s3cret@v.vault.azure.net/secrets/a",
                "https://v.vault.azure.net/secrets/a_b",
                "https://v.vault.azure.net/secrets/a\n",
            ),
        )
    ),
    (
        "value and reference",
        lambda app: container(app)["env"][0].update(value="s3cret"),
        [f"{API}.env[0]: POSTGRES_DSN: either value or secretRef is meant"],
    ),
    ("neither", lambda app: container(app)["env"][1].pop("value"), [f"{API}.env[1]: MODE: either value or secretRef is meant"]),
    # The DSN.
    *(
        (
            f"the DSN {dsn.replace('s3cret', 'PASSWORD')}",
            lambda app, dsn=dsn: configuration(app)["secrets"][0].update(value=dsn),
            [f"{C}.secrets[0].value: the DSN of the secret dsn {words}"],
        )
        for dsn, words in (
            (DSN.replace("?sslmode=require", ""), "goes to another host without TLS: add sslmode=require"),
            (DSN.replace("require", "prefer"), "goes to another host without TLS"),
            (DSN.replace("require", "s3cret"), "has an sslmode that is none of"),
            ("postgresql://app:s3cret@localhost:5432/app", "doesn't insist on TLS: add sslmode=require"),
            (DSN.replace("s3cret", "s3cret@"), "holds an unencoded @"),
            (DSN.replace("s3cret", "s3cret%"), "holds a % that begins no percent-encoded character"),
            (DSN.replace("s3cret", "s3cret /"), "holds a space"),
            (DSN.replace("s3cret", "s3cret/"), "seems to hold an unencoded /"),
            (DSN.replace("/app?", "?"), "isn't complete: no database"),
            ("host=db.example password=s3cret", "is not a Postgres URI"),
            ("s3cret", "is not a Postgres URI"),
        )
    ),
    (
        "a DSN by another name",
        lambda app: (
            configuration(app)["secrets"][0].update(value="postgres://s3cret"),
            container(app)["env"][0].update(name="URL"),
        ),
        [f"{C}.secrets[0].value: the DSN of the secret dsn"],
    ),
    # What az would send otherwise than it stands there.
    (
        "an empty argument",
        lambda app: container(app).update(args=["--path", "", "--x"]),
        [f"{API}.args[1]: this text is empty, and az would drop it without a word"],
    ),
    (
        "an empty mapping",
        lambda app: template(app)["scale"]["rules"][0]["http"].update(metadata={}),
        [f"{T}.scale.rules[0].http.metadata: this mapping is empty, and az would drop it without a word"],
    ),
    (
        "a key of somebody's with a _",
        lambda app: template(app)["scale"]["rules"][0]["http"]["metadata"].update(my_key="1"),
        [f"{T}.scale.rules[0].http.metadata.my_key: az would take the _ out of my_key without a word"],
    ),
    (
        "a domain whose certificate an update would let go",
        lambda app: configuration(app)["ingress"].update(customDomains=[{"name": "api.example.com"}]),
        [f"{C}.ingress.customDomains[0]: bindingType is missing"],
    ),
]


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in RULES], ids=[row[0] for row in RULES])
def test_a_rule(change: Callable[[Json], object], said: list[str]) -> None:
    found = problems(change)
    assert len(found) == len(said), found
    assert all(words in line for words, line in zip(said, found, strict=True)), found


ALLOWED: list[tuple[str, Callable[[Json], object]]] = [
    ("no ingress", lambda app: configuration(app).pop("ingress")),
    (
        "system",
        lambda app: (
            app["identity"].update(type="SystemAssigned,UserAssigned"),
            configuration(app)["registries"][0].update(identity="system"),
        ),
    ),
    ("an identity in another case", lambda app: configuration(app)["registries"][0].update(identity=IDENTITY.lower())),
    (
        "a connected environment",
        lambda app: app["properties"].update(environmentId=f"{ID}/microsoft.app/connectedEnvironments/e"),
    ),
    ("as many as", lambda app: template(app).update(scale={"minReplicas": 10})),
    ("0 to 1", lambda app: template(app).update(scale={"minReplicas": 0, "maxReplicas": 1})),
    ("no scale", lambda app: template(app).pop("scale")),
    ("1.0Gi", lambda app: container(app)["resources"].update(memory="1.0Gi")),
    ("0.25", lambda app: container(app)["resources"].update(cpu=0.25, memory="0.5Gi")),
    ("4", lambda app: container(app)["resources"].update(cpu=4, memory="8Gi")),
    ("no size", lambda app: container(app).pop("resources")),
    (
        "a profile of its own",
        lambda app: (app["properties"].update(workloadProfileName="D4"), container(app)["resources"].update(cpu=3.3)),
    ),
    (
        "a volume of all secrets",
        lambda app: (container(app)["env"].pop(0), template(app).update(volumes=[{"name": "v", "storageType": "Secret"}])),
    ),
    (
        "a volume of one secret",
        lambda app: (
            container(app)["env"].pop(0),
            template(app).update(
                volumes=[{"name": "v", "storageType": "Secret", "secrets": [{"secretRef": "dsn", "path": "p"}]}]
            ),
        ),
    ),
    (
        "a volume at two paths",
        lambda app: (
            template(app).update(volumes=[{"name": "v", "storageType": "EmptyDir"}]),
            container(app).update(volumeMounts=[{"volumeName": "v", "mountPath": "/a"}, {"volumeName": "v", "mountPath": "/b"}]),
        ),
    ),
    ("an empty variable", lambda app: container(app)["env"][1].update(value="")),
    (
        "no DSN",
        lambda app: (configuration(app)["secrets"][0].update(value="s3cret"), container(app)["env"][0].update(name="TOKEN")),
    ),
    (
        "a Key Vault",
        lambda app: configuration(app).update(
            secrets=[{"name": "dsn", "keyVaultUrl": "https://v.vault.azure.net/secrets/A-b/0123abcd", "identity": IDENTITY}]
        ),
    ),
    (
        "a China cloud",
        lambda app: configuration(app).update(
            secrets=[{"name": "dsn", "keyVaultUrl": "https://v.vault.azure.cn/secrets/A", "identity": IDENTITY}]
        ),
    ),
    ("a tag with a _", lambda app: app.update(tags={"cost_center": "7"})),
]


@pytest.mark.parametrize("change", [row[1] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_what_azure_takes_is_allowed(change: Callable[[Json], object]) -> None:
    assert problems(change) == []


@pytest.mark.parametrize("whole", [None, [], "s3cret", 5])
def test_what_is_no_app_at_all(whole: object) -> None:
    [(path, text)] = containerapp.lint(whole)
    assert path == ()
    assert text.startswith("a mapping is meant, and ")
    assert "s3cret" not in text


def test_everything_wrong_is_said_at_once() -> None:
    def spoil(app: Json) -> None:
        app["name"] = "A"
        renamed(template(app)["scale"], "maxReplicas", "maxReplica")
        configuration(app)["secrets"][0]["value"] = DSN.replace("require", "prefer")
        container(app)["env"][1]["valeu"] = "s3cret"
        container(app)["resources"]["memory"] = "3Gi"

    assert len(problems(spoil)) == 5


def test_every_reference_to_a_secret_is_found() -> None:
    found = list(containerapp.references({"a": [{"secretRef": "x"}, {"b": {"passwordSecretRef": "y", "secretRef": 5}}]}))
    assert found == [(("a", 0, "secretRef"), "x"), (("a", 1, "b", "passwordSecretRef"), "y")]


def test_the_schema_is_one() -> None:
    from jsonschema import Draft202012Validator

    schema = json.loads((ROOT / "scripts" / "containerapp.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    named = {f"#/$defs/{name}" for name in schema["$defs"]}
    referred: set[str] = set()
    closed: list[bool] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            referred.update([node["$ref"]] if "$ref" in node else [])
            closed.extend(
                [node.get("additionalProperties") is False]
                if isinstance(node.get("properties"), dict) and node.get("type") == "object"
                else []
            )
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(schema)
    assert referred == named
    assert all(closed), "an unknown key would pass"
    assert len(closed) == len(named) + 1
