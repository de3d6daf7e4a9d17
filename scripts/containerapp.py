"""What a Container App's YAML may say: everything that Azure would refuse, or az would drop without a word. Pure.

Trees are what PyYAML makes of the YAML, paths the keys and numbers that lead to a place in them.
Sources: `containerapp.json`, with the keys of az's own model; the pairs of CPU and memory of
https://learn.microsoft.com/azure/container-apps/containers#allocations; the name rules that az and Azure check.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts import dsn as dsns
from scripts.errors import UsageError

SCHEMA = Path(__file__).with_name("containerapp.json")
_APP_NAME = re.compile(r"(?=.{2,32}\Z)[a-z](?!.*--)[-a-z0-9]*[a-z0-9]")
_SECRET_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_IDENTITY = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+", re.IGNORECASE
)
_ENVIRONMENT = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.App/(managed|connected)Environments/[^/]+", re.IGNORECASE
)
_VAULT_SECRET = re.compile(r"https://[a-zA-Z0-9-]+\.vault\.[a-z.]+/secrets/[a-zA-Z0-9-]+(/[0-9a-f]+)?")
_DSN = re.compile(r"postgres(ql)?:")
_PLAIN_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
_SHAPELY = ("enum", "minimum", "maximum", "maxProperties")  # what is wrong with a value, and not with the shape
# The key by which Azure and people tell the items of a list apart.
KEYS = ("name", "server", "type", "mountPath", "identity", "serviceId")

Path_ = tuple[str | int, ...]


class Problem(NamedTuple):
    """What is wrong, and where."""

    path: Path_
    text: str


def lint(tree: Any) -> list[Problem]:
    """Everything that is wrong with a rendered template. No value of a secret stands in a problem."""
    tree = copy.deepcopy(tree)
    problems, has_shape = _by_schema(tree)
    if has_shape:
        problems += [*_app(tree), *_secrets(tree), *_containers(tree), *_dsns(tree), *_altered(tree)]
    return list(dict.fromkeys(problems))


def secrets_of(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The secrets that a tree names."""
    return list(_at(tree, "properties", "configuration", "secrets") or [])


def walk(tree: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Everything in a tree, with its place, what holds it first."""
    yield path, tree
    inside = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for step, inner in inside:
        yield from walk(inner, (*path, step))


def references(tree: Any) -> Iterator[tuple[Path_, str]]:
    """Every place that refers to a secret, with the secret's name."""
    return _texts(tree, "secretRef", "passwordSecretRef")


def _texts(tree: Any, *keys: str) -> Iterator[tuple[Path_, str]]:
    """The texts that stand under some keys, with their places."""
    return ((path, inner) for path, inner in walk(tree) if path and path[-1] in keys and isinstance(inner, str))


def resource_parts(resource: str) -> tuple[str, str, str]:
    """The subscription, the group and the name in the id of a resource, which the lint has seen."""
    _, _, subscription, _, group, *_, name = resource.split("/")
    return subscription, group, name


def spelled(path: Sequence[str | int]) -> str:
    """A path as people write it: properties.template.containers[0].image."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _at(tree: Any, *path: str) -> Any:
    for step in path:
        tree = tree.get(step) if isinstance(tree, Mapping) else None
    return tree


def _by_schema(tree: Any) -> tuple[list[Problem], bool]:
    """What the schema says, and whether the tree has the shape on which all else relies.

    A misspelt key is put right in the tree, so that the rest is looked at as it was meant.
    """
    from jsonschema import Draft202012Validator

    problems, has_shape = [], True
    validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for error in list(validator.iter_errors(tree)):
        path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = list(error.schema["properties"])
            for key in [key for key in error.instance if key not in known]:
                guess = _guess(key, known)
                problem = f"unknown key {key}, which az would drop without a word{_did_you_mean(guess)}"
                problems.append(Problem((*path, key), problem))
                value = error.instance.pop(key)
                if guess and guess not in error.instance:
                    error.instance[guess] = value
        elif error.validator == "required":
            has_shape = False
            problems += [Problem(path, f"{key} is missing") for key in error.validator_value if key not in error.instance]
        elif error.validator == "type":
            has_shape = False
            problems.append(Problem(path, f"{_PLAIN_TYPES[error.validator_value]} is meant, and {_kind(error.instance)}"))
        elif error.validator == "enum":
            known = error.validator_value
            guess = _guess(error.instance, known) if len(known) > 1 else None
            which = f"{'one of ' if len(known) > 1 else ''}{', '.join(known)}"
            problems.append(Problem(path, f"{which} is meant{_did_you_mean(guess)}"))
        elif error.validator in ("minimum", "maximum"):
            least = "at least" if error.validator == "minimum" else "at most"
            problems.append(Problem(path, f"{least} {error.validator_value} is meant"))
        else:  # maxProperties, of an identity
            problems.append(Problem(path, "{} is meant"))
    left = list(validator.iter_errors(tree))
    return problems, has_shape and all(error.validator in _SHAPELY and not _is_odd(error) for error in left)


def _is_odd(error: Any) -> bool:
    """Whether one of some words is meant, and what stands there is no word at all."""
    return error.validator == "enum" and not isinstance(error.instance, str)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing is there"
    if isinstance(value, bool):
        return "that is true or false: put it between quotes"
    if isinstance(value, int | float):
        return "that is a number: put it between quotes"
    if isinstance(value, str):
        return "that is text: before a variable, !!int or !!float makes it a number"
    if isinstance(value, dict | list):
        return f"that is a {'mapping' if isinstance(value, dict) else 'list'}"
    return "that is a date: put it between quotes"


def _guess(word: object, known: Sequence[str]) -> str | None:
    """The word that was meant, if one is near."""
    lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(str(word).lower(), list(lower), n=1, cutoff=0.6)
    return lower[found[0]] if found else None


def _did_you_mean(guess: str | None) -> str:
    return f": did you mean {guess}?" if guess else ""


def _app(tree: Mapping[str, Any]) -> Iterator[Problem]:
    if not _APP_NAME.fullmatch(tree["name"]):
        yield Problem(("name",), "2 to 32 of a-z, 0-9 and single -, a letter first, no - at the end")
    environment = _at(tree, "properties", "environmentId")
    path: Path_ = ("properties", "environmentId")
    if environment is None:
        yield Problem(("properties",), "environmentId is missing")
    elif not _ENVIRONMENT.fullmatch(environment):
        yield Problem(
            path, "the id of an environment is meant: az containerapp env show --name NAME --resource-group GROUP --query id"
        )
    identities = _at(tree, "identity", "userAssignedIdentities") or {}
    for identity in identities:
        if not _IDENTITY.fullmatch(identity):
            yield Problem(
                ("identity", "userAssignedIdentities", identity),
                "the id of an identity is meant: az identity show --name NAME --resource-group GROUP --query id",
            )
    assigned = {identity.lower() for identity in identities}
    assigned |= {"system"} if "SystemAssigned" in (_at(tree, "identity", "type") or "") else set()
    for path, identity in _texts(tree["properties"], "identity"):
        if identity.lower() not in assigned:
            yield Problem(("properties", *path), "this identity isn't one of the app's own: name it under identity as well")
    if _at(tree, "properties", "template", "revisionSuffix") is not None:
        yield Problem(("properties", "template", "revisionSuffix"), "`invoke deploy` chooses it: leave it away")
    scale = _at(tree, "properties", "template", "scale") or {}
    least, most = scale.get("minReplicas", 0), scale.get("maxReplicas", 10)
    if least > most:
        yield Problem(("properties", "template", "scale", "minReplicas"), f"{least} is more than maxReplicas, {most}")
    yield from _repeated(tree)


def _altered(tree: Any) -> Iterator[Problem]:
    """What az would send otherwise than it stands there. Measured with azure-cli 2.91.0; tags are sent as they are."""
    for path, inner in walk(tree):
        if isinstance(inner, Mapping) and not inner and path[-2:-1] != ("userAssignedIdentities",):
            yield Problem(path, "this mapping is empty, and az would drop it without a word: leave it away")
        if path[-2:-1] == ("metadata",) and "_" in str(path[-1]):
            problem = f"az would take the _ out of {path[-1]} without a word, and begin the next word with a capital"
            yield Problem(path, problem)
        if inner == "" and isinstance(path[-1], int):
            yield Problem(path, "this text is empty, and az would drop it without a word")


def _repeated(tree: Any) -> Iterator[Problem]:
    """Items of a list with a name that another one has."""
    for path, listed in walk(tree):
        if isinstance(listed, list):
            names = [item_key(item) for item in listed]
            for number, name in enumerate(names):
                if name is not None and name in names[:number]:
                    yield Problem((*path, number), f"{name} stands there twice")


def item_key(item: Any) -> str | None:
    """By what an item of a list is known, where it has such a key."""
    return next((str(item[key]) for key in KEYS if item.get(key) is not None), None) if isinstance(item, Mapping) else None


def _secrets(tree: Mapping[str, Any]) -> Iterator[Problem]:
    listed = secrets_of(tree)
    names = [secret["name"] for secret in listed]
    referred = list(references(tree))
    for place, name in referred:
        if name not in names:
            yield Problem(place, f"there is no secret {name}{_did_you_mean(_guess(name, names))}")
    used = {name for _, name in referred}
    whole_volume = any(
        volume.get("storageType") == "Secret" and not volume.get("secrets")
        for volume in _at(tree, "properties", "template", "volumes") or []
    )
    for number, secret in enumerate(listed):
        path: Path_ = ("properties", "configuration", "secrets", number)
        if not _SECRET_NAME.fullmatch(secret["name"]):
            yield Problem((*path, "name"), "a secret's name has a-z, 0-9, - and ., and none of the last two at its ends")
        if f"{tree['name']}-" in secret["name"]:
            # Measured with azure-cli 2.91.0: `revision copy` takes every `APP-` out of the secretRefs.
            yield Problem(
                (*path, "name"), f"rename it without {tree['name']}-, which az cuts out when it goes back to a revision"
            )
        if secret["name"] not in used and not whole_volume:
            yield Problem(path, f"nothing refers to the secret {secret['name']}")
        if ("value" in secret) == ("keyVaultUrl" in secret):
            yield Problem(path, "either value, or keyVaultUrl and identity, is meant")
        elif "keyVaultUrl" in secret:
            if not _VAULT_SECRET.fullmatch(secret["keyVaultUrl"]):
                yield Problem((*path, "keyVaultUrl"), "https://VAULT.vault.azure.net/secrets/NAME is meant")
            if "identity" not in secret:
                yield Problem(path, "identity is missing: the one that may read the Key Vault")
        elif not secret["value"]:
            yield Problem((*path, "value"), "it is empty, and az would keep the former value without a word")


def _containers(tree: Mapping[str, Any]) -> Iterator[Problem]:
    base: Path_ = ("properties", "template", "containers")
    containers = _at(tree, *map(str, base)) or []
    if not containers:
        yield Problem(base[:-1], "containers is missing")
        return
    for number, container in enumerate(containers):
        for place, variable in enumerate(container.get("env") or []):
            if ("value" in variable) == ("secretRef" in variable):
                yield Problem((*base, number, "env", place), f"{variable['name']}: either value or secretRef is meant")
    sizes = [container.get("resources") or {} for container in containers]
    if (_at(tree, "properties", "workloadProfileName") or "Consumption") == "Consumption" and all(
        "cpu" in size and "memory" in size for size in sizes
    ):
        yield from _pair(sizes, (*base, 0, "resources"))


def gibi(memory: str) -> float | None:
    """The GiB of a size such as 1Gi or 0.5Gi."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)Gi", memory)
    return float(found[1]) if found else None


def _pair(sizes: list[dict[str, Any]], path: Path_) -> Iterator[Problem]:
    """The consumption plan's pairs: a quarter to four cores in quarters, with twice as many GiB; all containers together."""
    memories = [gibi(size["memory"]) for size in sizes]
    if None in memories:
        yield Problem((*path, "memory"), "GiB are meant, such as 1Gi or 0.5Gi")
        return
    cpu = sum(float(size["cpu"]) for size in sizes)
    memory = sum(filter(None, memories))
    if not 0.25 <= cpu <= 4 or cpu * 4 != int(cpu * 4):  # which .inf and .nan aren't
        yield Problem((*path, "cpu"), f"{cpu:g} cores can't be had on the Consumption profile: 0.25 to 4 in steps of 0.25")
    elif memory != 2 * cpu:
        yield Problem((*path, "memory"), f"{memory:g}Gi doesn't go with {cpu:g} cores: {2 * cpu:g}Gi does")


def _dsns(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """The secrets that are DSNs, or that a variable named like one refers to."""
    named = {
        variable.get("secretRef")
        for container in _at(tree, "properties", "template", "containers") or []
        for variable in container.get("env") or []
        if variable["name"].endswith("_DSN")
    }
    for number, secret in enumerate(secrets_of(tree)):
        value, path = secret.get("value"), ("properties", "configuration", "secrets", number, "value")
        if value and (secret["name"] in named or _DSN.match(value)):
            if value != value.strip():
                yield Problem(path, f"the DSN of the secret {secret['name']} begins or ends with a blank or a line break")
            try:
                dsn = dsns.parse(value, f"the secret {secret['name']}")
            except UsageError as error:
                yield Problem(path, error.message)
            else:
                if not dsn.needs_tls:
                    yield Problem(path, f"the DSN of the secret {secret['name']} doesn't insist on TLS: add sslmode=require")
