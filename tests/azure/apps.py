"""Container apps: what a tenant has of them, and the rules by which Azure takes, completes and shows them."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.azure.faults import Refusal

PROVIDER = "Microsoft.App"
CREATED = "2026-01-02T03:04:05.678Z"
# What a container of this many cores finds on its disk.
DISK = ((0.25, "1Gi"), (0.5, "2Gi"), (1.0, "4Gi"), (float("inf"), "8Gi"))

Json = dict[str, Any]


@dataclass(frozen=True)
class Health:
    """What a revision says of itself. `error`: provisioningError, `details`: runningStateDetails."""

    provisioning: str
    health: str
    running: str
    error: str = ""
    details: str = ""

    @property
    def ready(self) -> bool:
        return (self.provisioning, self.health) == ("Provisioned", "Healthy")


HEALTHY = Health("Provisioned", "Healthy", "Running")
ACTIVATING = Health("Provisioned", "None", "Activating")
DEADLINE = "Deployment Progress Deadline Exceeded. 0/1 replicas ready."
# How a revision may come out; not all of the running states stand in the published enumeration.
OUTCOMES = {
    "at-max-scale": Health("Provisioned", "Healthy", "RunningAtMaxScale"),  # in good health
    "unhealthy": Health("Provisioned", "Unhealthy", "Running"),
    "degraded": Health("Provisioned", "Unhealthy", "Degraded"),
    "crashing": Health("Failed", "Unhealthy", "Failed", details="1/1 Container crashing: api"),
    "activation-failed": Health("Provisioned", "Unhealthy", "ActivationFailed", details=DEADLINE),
    "provisioning-failed": Health("Failed", "None", "Failed", error=DEADLINE),
    "provisioning": Health("Provisioning", "None", "Processing"),  # for ever
    "activating": ACTIVATING,  # for ever
}


@dataclass
class Revision:
    """A revision, with the values that its secrets had when its containers were started."""

    name: str
    template: Json
    secrets: dict[str, str] = field(repr=False)
    outcome: Health
    active: bool = True
    polls: int = 0  # how many more times it is seen activating

    @property
    def health(self) -> Health:
        return ACTIVATING if self.polls else self.outcome

    @property
    def env(self) -> dict[str, str]:
        """The environment of its first container, as the running process has it."""
        listed = self.template["containers"][0].get("env") or []
        return {
            entry["name"]: self.secrets.get(entry["secretRef"], "") if entry.get("secretRef") else entry.get("value", "")
            for entry in listed
        }


@dataclass
class App:
    """A container app: `document` is what was asked for, with the values of its secrets, which no GET shows."""

    subscription: str
    group: str
    name: str
    document: Json = field(repr=False)
    state: str = "InProgress"
    revisions: list[Revision] = field(default_factory=list)
    latest_ready: str | None = None

    @property
    def id(self) -> str:
        """The type in lower case, as Azure has it here."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/{PROVIDER}/containerapps/{self.name}"

    @property
    def configuration(self) -> Json:
        found: Json = self.document["properties"]["configuration"]
        return found

    @property
    def secrets(self) -> dict[str, str]:
        """The values that were given; those of a key vault are in the vault."""
        return {secret["name"]: secret["value"] for secret in self.configuration["secrets"] or [] if "value" in secret}

    @property
    def single(self) -> bool:
        return bool(self.configuration["activeRevisionsMode"] == "Single")

    @property
    def serving(self) -> Revision | None:
        """The revision that requests of users reach."""
        return next((revision for revision in self.revisions if revision.name == self.latest_ready), None)

    def revision(self, name: str) -> Revision | None:
        return next((revision for revision in self.revisions if revision.name.lower() == name.lower()), None)

    def promote(self) -> None:
        """The newest revision takes over once it is ready; until then the old one serves."""
        if self.revisions and self.revisions[-1].active and self.revisions[-1].health.ready:
            self.latest_ready = self.revisions[-1].name
            if self.single:
                for revision in self.revisions[:-1]:
                    revision.active = False

    def traffic(self, revision: Revision) -> int:
        """What is meant for it, ready or not: what reaches whom is said by latestReadyRevisionName alone."""
        ingress = self.configuration["ingress"]
        if not ingress or not revision.active:
            return 0
        return sum(
            entry.get("weight") or 0
            for entry in ingress["traffic"]
            if (entry.get("latestRevision") and revision is self.revisions[-1]) or entry.get("revisionName") == revision.name
        )


@dataclass
class ContainerApps:
    """All of a tenant's; keys are those of resources.key. `vaults`: vault -> secret -> values, the newest last."""

    environments: dict[str, Json] = field(default_factory=dict)
    identities: dict[str, Json] = field(default_factory=dict)  # by id, in lower case
    apps: dict[str, App] = field(default_factory=dict)
    vaults: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    locked_out: set[str] = field(default_factory=set)  # ids of identities that no vault lets in
    unregistered: set[str] = field(default_factory=set)  # subscriptions without Microsoft.App
    registering_polls: int = 0
    registering: dict[str, int] = field(default_factory=dict)
    activating_polls: int = 0  # how many times a new revision is seen activating before it comes to its end
    patch_names_status: bool = True  # or a PATCH answers with Location alone
    outcomes: list[Health] = field(default_factory=list)  # of the next revisions, which are healthy else

    def new_revision(self, app: App) -> Revision:
        """Of the app as it now stands; the outcome that waits is used up."""
        template = app.document["properties"]["template"]
        suffix = template["revisionSuffix"] or secrets.token_hex(4)[1:]
        outcome = self.outcomes.pop(0) if self.outcomes else HEALTHY
        polls = self.activating_polls
        revision = Revision(f"{app.name}--{suffix}", template, self.values(app), outcome, polls=polls)
        app.revisions.append(revision)
        return revision

    def forget(self, prefix: str) -> None:
        """The apps and environments of a group that is deleted."""
        for kept in (self.apps, self.environments):
            for path in [path for path in kept if path.startswith(prefix)]:
                del kept[path]

    def values(self, app: App) -> dict[str, str]:
        """The value of every secret, those in vaults too."""
        return {secret["name"]: self.value(app.document, secret) for secret in app.configuration["secrets"] or []}

    def value(self, document: Json, secret: Json) -> str:
        """A secret's value. Raises Refusal where a vault doesn't give it."""
        if "keyVaultUrl" not in secret:
            return str(secret["value"])
        name, identity = secret["name"], secret["identity"]
        address = urlsplit(secret["keyVaultUrl"])
        word = (address.path.removeprefix("/secrets/").split("/") or [""])[0]
        found = self.vaults.get((address.hostname or "").partition(".")[0], {}).get(word)
        if not found or identity.lower() in self.locked_out or not assigned(document, identity):
            raise invalid_field(
                "configuration.secrets",
                f'"{name}": Unable to get value using Managed identity {identity} for secret {name}. Error: unable to fetch '
                f"secret '{name}' using Managed identity '{identity}'",
            )
        return found[-1]


# --- What Azure refuses -----------------------------------------------------------------------------------------------


def invalid_field(name: str, details: str) -> Refusal:
    message = f"The following field(s) are either invalid or missing. Field '{name}' is invalid with details: 'Invalid value: "
    return Refusal(400, "InvalidParameterValueInContainerTemplate", f"{message}{details}';.")


def assigned(document: Json, identity: str) -> bool:
    """Whether the app has it; `system` is the app's own."""
    has = document.get("identity") or {}
    if identity.lower() == "system":
        return "SystemAssigned" in has.get("type", "")
    return identity.lower() in {name.lower() for name in has.get("userAssignedIdentities") or {}}


def check(document: Json, name: str, wide: bool) -> None:
    """Raises Refusal, in the words of Azure, for what it doesn't take. `wide`: the environment has workload profiles."""
    if not re.fullmatch(r"(?=.{2,32}$)[a-z](?!.*--)[-a-z0-9]*[a-z0-9]", name):
        message = (
            f"Invalid ContainerApp name '{name}'. A name must consist of lower case alphanumeric characters or '-', start with "
            "an alphabetic character, and end with an alphanumeric character and cannot have '--'. The length must not be more "
            "than 32 characters."
        )
        raise Refusal(400, "ContainerAppInvalidName", message)
    suffix = document["properties"]["template"]["revisionSuffix"]
    if suffix and (len(f"{name}--{suffix}") > 54 or not re.fullmatch(r"[a-z0-9](?!.*--)([-a-z0-9]*[a-z0-9])?", suffix)):
        message = (
            f"Revision name has an invalid value '{suffix}'. A revision name must consist of lower case alphanumeric characters "
            "or '-', start with an alphabetic character, and end with an alphanumeric character. The length of the revision name "
            "must not be more than a combined 54 characters with the container app name."
        )
        raise Refusal(400, "ContainerAppInvalidRevisionName", message)
    check_secrets(document["properties"]["configuration"]["secrets"] or [])
    check_registries(document)
    check_template(document, wide)


def check_secrets(listed: list[Json]) -> None:
    for secret in listed:
        name = secret.get("name") or ""
        if not re.fullmatch(r"(?=.{1,253}$)[a-z0-9]([-.a-z0-9]*[a-z0-9])?", name):
            message = (
                f"Secret name has an invalid value '{name}'. A value must consist of lower case alphanumeric characters, '-' or "
                "'.', and must start and end with an alphanumeric character. The length must not be more than 253 characters."
            )
            raise Refusal(400, "ContainerAppInvalidSecretName", message)
    if empty := [s["name"] for s in listed if not s.get("value") and not (s.get("keyVaultUrl") and s.get("identity"))]:
        message = (
            f"Invalid Request: Container app secret(s) with name(s) '{', '.join(empty)}' are invalid: value or keyVaultUrl and "
            "identity should be provided."
        )
        raise Refusal(400, "ContainerAppSecretInvalid", message)
    if twice := repeated(secret["name"] for secret in listed):
        raise Refusal(400, "ContainerAppDuplicateSecretName", f"Secret name '{twice}' is defined more than once.")


def check_registries(document: Json) -> None:
    configuration = document["properties"]["configuration"]
    names = {secret["name"] for secret in configuration["secrets"] or []}
    for registry in configuration["registries"] or []:
        reference, identity = registry.get("passwordSecretRef"), registry.get("identity")
        if reference and reference not in names:
            message = f"SecretRef '{reference}' defined for registry server '{registry['server']}' not found."
            raise Refusal(400, "ContainerAppSecretRefNotFound", message)
        if identity and not assigned(document, identity):
            container = document["properties"]["template"]["containers"][0]
            raise unauthorized(container["name"], container["image"])


def unauthorized(container: str, image: str) -> Refusal:
    server, _, repository = image.partition("/")
    scope = f"scope=repository%3A{repository.partition(':')[0]}%3Apull&service={server}"
    return invalid_field(
        f"template.containers.{container}.image",
        f'"{image}": GET https:?{scope}: UNAUTHORIZED: authentication required, visit https://aka.ms/acr/authorization for more '
        "information.",
    )


def check_template(document: Json, wide: bool) -> None:
    properties = document["properties"]
    containers = properties["template"]["containers"]
    names = {secret["name"] for secret in properties["configuration"]["secrets"] or []}
    if not containers:
        message = "Container app must have at least one container."
        raise Refusal(400, "ContainerAppContainerRequired", message)
    if twice := repeated(container.get("name", "") for container in containers):
        raise Refusal(400, "ContainerAppDuplicateContainerName", f"Container name '{twice}' is defined more than once.")
    for container in containers:
        if not container.get("image"):
            message = f"Container with name '{container.get('name')}' must have an 'Image' property specified."
            raise Refusal(400, "ContainerAppImageRequired", message)
        for entry in container.get("env") or []:
            if entry.get("secretRef") and entry["secretRef"] not in names:
                message = f"SecretRef '{entry['secretRef']}' defined for container '{container['name']}' not found."
                raise Refusal(400, "ContainerAppSecretRefNotFound", message)
    cpu = sum(container["resources"]["cpu"] for container in containers)
    memory = sum(float(container["resources"]["memory"].removesuffix("Gi")) for container in containers)
    pairs = [(quarter / 4, quarter / 2) for quarter in range(1, 17 if wide else 9)]
    if (cpu, memory) not in pairs:
        allowed = "; ".join(f"[cpu: {cores}, memory: {gibi}Gi]" for cores, gibi in pairs)
        message = (
            f"The total requested CPU and memory resources for this application (CPU: {cpu:g}, memory: {memory}) is invalid. "
            "Total CPU and memory for all containers defined in a Container App must add up to one of the following CPU - Memory "
            f"combinations: {allowed}"
        )
        raise Refusal(400, "ContainerAppInvalidResourceTotal", message)


def repeated(names: Iterator[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


# --- What Azure makes of it -------------------------------------------------------------------------------------------


def merged(old: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, null takes away, everything else, lists too, is replaced."""
    if not isinstance(patch, dict):
        return patch
    base = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            base.pop(name, None)
        else:
            base[name] = merged(base.get(name), value)
    return base


def completed(body: Json) -> Json:
    """What was asked for with every default that Azure adds, and without what isn't the caller's to say."""
    given = body.get("properties") or {}
    return {
        "location": body.get("location"),
        "tags": body.get("tags"),
        "identity": body.get("identity") or {"type": "None"},
        "properties": {
            "environmentId": given.get("environmentId") or given.get("managedEnvironmentId"),
            "workloadProfileName": given.get("workloadProfileName") or "Consumption",
            "configuration": completed_configuration(given.get("configuration") or {}),
            "template": completed_template(given.get("template") or {}),
        },
    }


def completed_configuration(given: Json) -> Json:
    ingress = given.get("ingress")
    if ingress:
        defaults: Json = {
            "additionalPortMappings": None,
            "allowInsecure": False,
            "clientCertificateMode": None,
            "corsPolicy": None,
            "customDomains": None,
            "exposedPort": 0,
            "external": False,
            "ipSecurityRestrictions": None,
            "stickySessions": None,
            "targetPort": 80,
            "traffic": [{"latestRevision": True, "weight": 100}],
        }
        transport = str(ingress.get("transport") or "Auto").capitalize()
        ingress = {**defaults, **present(ingress), "transport": transport}
        ingress.pop("fqdn", None)
    listed = [
        {name: value for name, value in secret.items() if value and not (name == "value" and secret.get("keyVaultUrl"))}
        for secret in given.get("secrets") or []
    ]
    return {
        "dapr": given.get("dapr"),
        "identitySettings": given.get("identitySettings") or [],
        "maxInactiveRevisions": given.get("maxInactiveRevisions") or 100,
        "registries": [
            {"identity": "", "passwordSecretRef": "", "username": "", **present(registry)}
            for registry in given.get("registries") or []
        ]
        or None,
        "runtime": given.get("runtime"),
        "service": given.get("service"),
        "activeRevisionsMode": str(given.get("activeRevisionsMode") or "Single").capitalize(),
        "ingress": ingress or None,
        "secrets": listed or None,
    }


def completed_template(given: Json) -> Json:
    rules = [present(rule) for rule in (given.get("scale") or {}).get("rules") or []]
    scale: Json = {"cooldownPeriod": 300, "maxReplicas": 10, "minReplicas": None, "pollingInterval": 30, "rules": None}
    return {
        "containers": [completed_container(container) for container in given.get("containers") or []],
        "initContainers": given.get("initContainers"),
        "revisionSuffix": given.get("revisionSuffix") or "",
        "scale": {**scale, **present({**(given.get("scale") or {}), "rules": rules or None})},
        "serviceBinds": given.get("serviceBinds"),
        "terminationGracePeriodSeconds": given.get("terminationGracePeriodSeconds"),
        "volumes": given.get("volumes"),
    }


def completed_container(given: Json) -> Json:
    resources = {"cpu": 0.5, "memory": "1Gi", **present(given.get("resources") or {})}
    cpu, gibi = float(resources["cpu"]), float(str(resources["memory"]).removesuffix("Gi"))
    disk = next(disk for cores, disk in DISK if cpu <= cores)
    made = {
        **present(given),
        "imageType": "ContainerImage",
        "resources": {"cpu": cpu, "ephemeralStorage": disk, "memory": f"{gibi:g}Gi"},  # 1.0Gi comes back as 1Gi
        "probes": [completed_probe(probe) for probe in given.get("probes") or []],
    }
    if given.get("env"):  # an empty value is not shown
        made["env"] = [{name: value for name, value in entry.items() if value} for entry in given["env"]]
    return made


def completed_probe(given: Json) -> Json:
    probe: Json = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1, **present(given)}
    if "httpGet" in probe:
        probe["httpGet"] = {"path": "/", "scheme": "HTTP", **present(probe["httpGet"])}
    return probe


def present(given: Json) -> Json:
    return {name: value for name, value in given.items() if value is not None}


# --- What Azure shows -------------------------------------------------------------------------------------------------


def environment_json(subscription: str, group: str, name: str, title: str, location: str) -> Json:
    path = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{PROVIDER}/managedEnvironments/{name}"
    return {
        "id": path,
        "name": name,
        "type": f"{PROVIDER}/managedEnvironments",
        "location": title,
        "properties": {
            "provisioningState": "Succeeded",
            "defaultDomain": f"calmsea-0a1b2c3d.{location}.azurecontainerapps.io",
            "staticIp": "203.0.113.80",
            "workloadProfiles": [{"name": "Consumption", "workloadProfileType": "Consumption"}],
            "zoneRedundant": False,
        },
    }


def identity_json(subscription: str, group: str, name: str, location: str) -> Json:
    path = (
        f"/subscriptions/{subscription}/resourcegroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
    return {
        "id": path,
        "name": name,
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
        "location": location,
        "tags": {},
        "properties": {"tenantId": str(uuid.uuid4()), "principalId": str(uuid.uuid4()), "clientId": str(uuid.uuid4())},
    }


def app_json(app: App, domain: str) -> Json:
    """As GET shows it: no secret has its value here."""
    properties = app.document["properties"]
    configuration = properties["configuration"]
    shown = {
        **configuration,
        "secrets": [without_value(secret) for secret in configuration["secrets"] or []] or None,
        "ingress": {"fqdn": fqdn(app, app.name, domain), **configuration["ingress"]} if configuration["ingress"] else None,
    }
    latest = app.revisions[-1].name if app.revisions else None
    return {
        "id": app.id,
        "name": app.name,
        "type": f"{PROVIDER}/containerApps",
        "location": app.document["location"],
        "tags": app.document["tags"],
        "identity": app.document["identity"],
        "systemData": {"createdAt": CREATED},
        "properties": {
            **properties,
            "configuration": shown,
            "customDomainVerificationId": "0F" * 32,
            "eventStreamEndpoint": f"https://eventstream.invalid{app.id}/eventstream",
            "latestReadyRevisionName": app.latest_ready,
            "latestRevisionFqdn": fqdn(app, latest or "", domain) if configuration["ingress"] else "",
            "latestRevisionName": latest,
            "managedEnvironmentId": properties["environmentId"],
            "outboundIpAddresses": ["203.0.113.81"],
            "provisioningState": app.state,
            "runningStatus": "Running",
        },
    }


def without_value(secret: Json) -> Json:
    return {name: value for name, value in secret.items() if name != "value"}


def fqdn(app: App, name: str, domain: str) -> str:
    inside = "" if app.configuration["ingress"]["external"] else "internal."
    return f"{name}.{inside}{domain}"


def revision_json(app: App, revision: Revision, domain: str) -> Json:
    health = revision.health
    running = health.running if revision.active else "Stopped"
    return {
        "id": f"{app.id}/revisions/{revision.name}",
        "name": revision.name,
        "type": f"{PROVIDER}/containerapps/revisions",
        "properties": {
            "createdTime": CREATED,
            "lastActiveTime": CREATED,
            "fqdn": fqdn(app, revision.name, domain) if app.configuration["ingress"] else "",
            "template": revision.template,
            "active": revision.active,
            "replicas": (revision.template["scale"]["minReplicas"] or 1) if revision.active else 0,
            "trafficWeight": app.traffic(revision),
            "provisioningState": health.provisioning,
            "healthState": health.health,
            "runningState": running,
            **({"provisioningError": health.error} if health.error else {}),
            **({"runningStateDetails": health.details} if health.details else {}),
        },
    }
