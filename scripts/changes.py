"""A Container App as its template has it, against the one that stands: what changes, what stays, and what is sent. Pure.

An update is a merge patch: what a mapping doesn't name stays, and a list is replaced as a whole. So what stands in a list
there and not in the template (a custom domain, say, bound by hand) is put into what is sent, unless it is to go.
Source: RFC 7396, and https://learn.microsoft.com/rest/api/containerapps/container-apps/update.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from scripts.containerapp import gibi, item_key, secrets_of, spelled

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
    "server",
}
# What may hold somebody's password; that it differs is said, and not how.
_UNSHOWN = {"value", "args", "command", "metadata"}
# Where the words are the team's own.
_OTHERS = {"env", "metadata", "tags", "args", "command"}


@dataclass(frozen=True)
class Change:
    """One difference; `before` and `after` are None where there is nothing, and where `is_hidden` says so, not shown."""

    place: str
    before: Any
    after: Any
    is_hidden: bool = False

    def __str__(self) -> str:
        if self.is_hidden:
            return self.place
        return f"{self.place}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True)
class Extra:
    """What stands in a list there and not in the template: an item, or in an item a whole list."""

    place: Place  # of the list, with keys instead of numbers for the items above it
    item: Any = field(repr=False)  # a secret's has its value

    def __str__(self) -> str:
        return spelled(self.place) + ("" if isinstance(self.item, list) else f"[{item_key(self.item)}]")


def differences(wanted: Any, there: Any, place: Place = ()) -> Iterator[Change]:
    """What an update would change; secrets' values aside, which `secret_changes` compares."""
    if isinstance(wanted, Mapping):
        if there is None and not wanted:
            yield Change(spelled(place), None, "new")
        if wanted.get("value") == "" and _value(there, "secretRef"):  # an empty value isn't shown
            yield Change(spelled((*place, "secretRef")), _value(there, "secretRef"), None)
        for key, inner in wanted.items():
            if place == ("properties", "configuration") and key == "secrets":
                names = [secret["name"] for secret in _value(there, "secrets") or []]
                yield from (Change(f"secret {one['name']}", None, "new") for one in inner if one["name"] not in names)
            else:
                yield from differences(inner, _value(there, key), (*place, key))
    elif isinstance(wanted, list) and _is_keyed(wanted, there):
        known = {_known(item): item for item in there or []}
        for item in wanted:
            name = item_key(item)
            if _known(item) in known:
                yield from differences(item, known[_known(item)], (*place, str(name)))
            else:
                yield Change(f"{spelled(place)}[{name}]", None, "new")
    elif _are_mappings(wanted) and _are_mappings(there) and len(wanted) == len(there):
        for number, (one, other) in enumerate(zip(wanted, there, strict=True)):
            yield from differences(one, other, (*place, number))
    elif not _equal(wanted, there, place):
        if _UNSHOWN.isdisjoint(place):
            yield Change(spelled(place), _present(there), wanted)
        else:
            yield Change(spelled(place), None, None, is_hidden=True)


def secret_changes(wanted: Mapping[str, Any], there: list[dict[str, Any]]) -> list[Change]:
    """The secrets whose value, address or identity is another one now. `there` holds the values."""
    names = [secret["name"] for secret in there]
    changed = [secret["name"] for secret in changed_secrets(wanted, there) if secret["name"] in names]
    return [Change(f"secret {name}", None, None, is_hidden=True) for name in changed]


def changed_secrets(wanted: Mapping[str, Any], there: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The secrets that are new or another one now, as the template has them."""
    known = {secret["name"]: secret for secret in there}
    return [
        secret
        for secret in secrets_of(wanted)
        if secret["name"] not in known
        or (
            any(secret.get(key) != (known[secret["name"]].get(key) or None) for key in ("value", "keyVaultUrl", "identity"))
            and not _same_reference(secret, known[secret["name"]])
        )
    ]


def extras(wanted: Any, there: Any, place: Place = (), *, in_item: bool = False) -> Iterator[Extra]:
    """What stands there and not in the template, and would be lost: items of its lists, and lists in those items.

    A list whose items have no keys (`args`, `traffic`) is the template's as a whole, and a change of it shows.
    """
    if isinstance(wanted, Mapping):
        for key, inner in wanted.items():
            yield from extras(inner, _value(there, key), (*place, key), in_item=in_item)
        if in_item and isinstance(there, Mapping):
            unnamed = [key for key in there if key not in wanted]
            yield from (Extra((*place, key), there[key]) for key in unnamed if there[key] and isinstance(there[key], list))
    elif isinstance(wanted, list) and isinstance(there, list) and _is_keyed(wanted, there):
        known = {_known(item): item for item in wanted}
        for item in there:
            if _known(item) not in known:
                yield Extra(place, item)
            else:
                ours = known[_known(item)]
                yield from extras(ours, item, (*place, str(item_key(ours))), in_item=True)


def new_identities(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """The user-assigned identities that the app hasn't got yet."""
    ours, theirs = ((_value(tree.get("identity"), "userAssignedIdentities") or {}) for tree in (wanted, there))
    known = {name.lower() for name in theirs}
    return [name for name in ours if name.lower() not in known]


def merged(wanted: Mapping[str, Any], kept: list[Extra]) -> dict[str, Any]:
    """The template's tree with what is kept in its lists."""
    tree: dict[str, Any] = json.loads(json.dumps(wanted))  # what an alias of YAML stands for, each with a copy of its own
    for extra in kept:
        node: Any = tree
        is_list = isinstance(extra.item, list)
        for step in extra.place[:-1] if is_list else extra.place:
            node = node[step] if isinstance(node, dict) else next(item for item in node if item_key(item) == step)
        if is_list:
            node[extra.place[-1]] = copy.deepcopy(extra.item)
        else:
            node.append(copy.deepcopy(extra.item))
    return tree


def _is_keyed(*lists: list[Any] | None) -> bool:
    """Whether the items of lists can be told apart by a key."""
    return all(item_key(item) is not None for items in lists for item in items or [])


def _are_mappings(items: Any) -> bool:
    return isinstance(items, list) and all(isinstance(item, Mapping) for item in items)


def _known(item: Any) -> str:
    """The key of an item; only names and paths are told apart by their case."""
    key = str(item_key(item))
    named = item.get("name") is not None or item.get("mountPath") is not None
    return key if named else key.lower()


def _value(tree: Any, key: str) -> Any:
    """What a mapping has for a key; the ids of resources come back in another case."""
    if not isinstance(tree, Mapping):
        return None
    if key.startswith("/subscriptions/"):
        return next((inner for name, inner in tree.items() if name.lower() == key.lower()), None)
    return tree.get(key)


def _equal(wanted: Any, there: Any, place: Place) -> bool:
    if there is None:
        return not wanted  # Azure doesn't show what is empty, off or 0
    if isinstance(wanted, str) and isinstance(there, str):
        if place and place[-1] == "memory":
            return wanted == there or (gibi(wanted) is not None and gibi(wanted) == gibi(there))  # 1.0Gi is 1Gi
        is_azures = _OTHERS.isdisjoint(place)
        caseless = is_azures and (wanted.startswith("/subscriptions/") or (bool(place) and place[-1] in _CASELESS))
        return _bare(wanted) == _bare(there) if caseless else wanted == there
    return bool(_present(wanted) == _present(there))


def _present(value: Any) -> Any:
    """Without the nulls that Azure shows for what isn't there."""
    if isinstance(value, Mapping):
        return {key: _present(inner) for key, inner in value.items() if inner is not None}
    return [_present(inner) for inner in value] if isinstance(value, list) else value


def _bare(text: str) -> str:
    """As Azure compares it: East US is eastus, and two kinds of identity may have a blank between them."""
    return text.lower().replace(" ", "")


def _same_reference(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether both are the same address in a Key Vault; the value that Azure read there is none of ours."""
    if "keyVaultUrl" not in wanted:
        return False
    return all(str(wanted.get(key)).lower() == str(there.get(key)).lower() for key in ("keyVaultUrl", "identity"))


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
