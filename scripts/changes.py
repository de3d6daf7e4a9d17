"""A Container App as its template has it, against the one that stands: what changes, what stays, and what is sent. Pure.

An update is a merge patch: what a mapping doesn't name stays, and a list is replaced as a whole. So what stands in a list
there and not in the template (a custom domain, say, bound by hand) is put into what is sent, unless it is to go.
Source: RFC 7396, and https://learn.microsoft.com/rest/api/containerapps/container-apps/update.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from scripts.containerapp import item_key, secrets_of, spelled

Place = tuple[str | int, ...]
# Words of Azure's own, which come back in another case than they went.
_CASELESS = {
    "transport",
    "activeRevisionsMode",
    "type",
    "action",
    "scheme",
    "clientCertificateMode",
    "affinity",
    "bindingType",
    "location",
}
# What may hold somebody's password; that it differs is said, and not how.
_UNSHOWN = {"value", "args", "command", "metadata"}


@dataclass(frozen=True)
class Change:
    """One difference; `before` and `after` are None where there is nothing, or nothing that is to be shown."""

    place: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None and self.after is None:
            return self.place
        return f"{self.place}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True)
class Extra:
    """An item of a list that stands there and not in the template."""

    place: Place  # of the list, with keys instead of numbers for the items above it
    item: Any = field(repr=False)  # a secret's has its value

    def __str__(self) -> str:
        return f"{spelled(self.place)}[{item_key(self.item)}]"


def differences(wanted: Any, there: Any, place: Place = ()) -> Iterator[Change]:
    """What an update would change; secrets' values aside, which `secret_changes` compares."""
    if isinstance(wanted, Mapping):
        if there is None and not wanted:
            yield Change(spelled(place), None, "new")
        for key, inner in wanted.items():
            if place == ("properties", "configuration") and key == "secrets":
                names = [secret["name"] for secret in _list(there, "secrets")]
                yield from (Change(f"secret {one['name']}", None, "new") for one in inner if one["name"] not in names)
            else:
                yield from differences(inner, _value(there, key), (*place, key))
    elif isinstance(wanted, list) and all(item_key(item) is not None for item in wanted):
        known = {_known(item): item for item in there or [] if item_key(item) is not None}
        for item in wanted:
            name = item_key(item)
            if _known(item) in known:
                yield from differences(item, known[_known(item)], (*place, str(name)))
            else:
                yield Change(f"{spelled(place)}[{name}]", None, "new")
    elif not _equal(wanted, there, place):
        hidden = place and place[-1] in _UNSHOWN
        yield Change(spelled(place), None if hidden else _present(there), None if hidden else wanted)


def secret_changes(wanted: Mapping[str, Any], there: list[dict[str, Any]]) -> list[Change]:
    """The secrets whose value, address or identity is another one now. `there` holds the values."""
    known = {secret["name"]: secret for secret in there}
    return [
        Change(f"secret {secret['name']}", None, None)
        for secret in secrets_of(wanted)
        if secret["name"] in known
        and any(secret.get(key) != (known[secret["name"]].get(key) or None) for key in ("value", "keyVaultUrl", "identity"))
        and not _same_reference(secret, known[secret["name"]])
    ]


def extras(wanted: Any, there: Any, place: Place = ()) -> Iterator[Extra]:
    """The items of lists that the template has too, which stand there and not in it."""
    if isinstance(wanted, Mapping):
        for key, inner in wanted.items():
            yield from extras(inner, _value(there, key), (*place, key))
    elif isinstance(wanted, list) and isinstance(there, list):
        known = {_known(item): item for item in wanted if item_key(item) is not None}
        for item in there:
            if item_key(item) is None:
                continue
            if _known(item) not in known:
                yield Extra(place, item)
            else:
                yield from extras(known[_known(item)], item, (*place, str(item_key(item))))


def merged(wanted: Mapping[str, Any], kept: list[Extra]) -> dict[str, Any]:
    """The template's tree with what is kept in its lists."""
    tree: dict[str, Any] = copy.deepcopy(dict(wanted))
    for extra in kept:
        node: Any = tree
        for step in extra.place:
            node = node[step] if isinstance(node, dict) else next(item for item in node if item_key(item) == step)
        node.append(copy.deepcopy(extra.item))
    return tree


def _known(item: Any) -> str:
    """The key of an item; only names are told apart by their case."""
    key = str(item_key(item))
    return key if item.get("name") is not None else key.lower()


def _list(tree: Any, key: str) -> list[Any]:
    return list(_value(tree, key) or [])


def _value(tree: Any, key: str) -> Any:
    """What a mapping has for a key; the ids of resources come back in another case."""
    if not isinstance(tree, Mapping):
        return None
    if key.startswith("/subscriptions/"):
        return next((inner for name, inner in tree.items() if name.lower() == key.lower()), None)
    return tree.get(key)


def _equal(wanted: Any, there: Any, place: Place) -> bool:
    if wanted == "" or wanted == []:  # noqa: PLR1714  which come back as nothing
        return not there
    if isinstance(wanted, str) and isinstance(there, str):
        if place[-1:] == ("memory",):  # 1.0Gi comes back as 1Gi
            return wanted.removesuffix("Gi").rstrip("0").rstrip(".") == there.removesuffix("Gi").rstrip("0").rstrip(".")
        caseless = wanted.startswith("/subscriptions/") or (bool(place) and place[-1] in _CASELESS)
        return wanted.lower() == there.lower() if caseless else wanted == there
    return bool(_present(wanted) == _present(there))


def _present(value: Any) -> Any:
    """Without the nulls that Azure shows for what isn't there."""
    if isinstance(value, Mapping):
        return {key: _present(inner) for key, inner in value.items() if inner is not None}
    return [_present(inner) for inner in value] if isinstance(value, list) else value


def _same_reference(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether both are the same address in a Key Vault; the value that Azure read there is none of ours."""
    if "keyVaultUrl" not in wanted:
        return False
    return all(str(wanted.get(key)).lower() == str(there.get(key)).lower() for key in ("keyVaultUrl", "identity"))


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
