"""az and what it can do in the subscription that the settings name: one check each, and as few calls as can be.

A call costs a quarter to half a second of a processor. So what a server that stands proves (that the subscription is registered,
that the region and the name will do) isn't asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from scripts import az, checkup, failures
from scripts.az import INSTALL_HINT, AzError, Permission, Question
from scripts.checkup import Verdict
from scripts.errors import UsageError
from scripts.flexible import Region, Server, Wanted
from scripts.shell import quoted

Ask = Callable[[Question[Any]], Any]  # raises AzError
LOG_IN = "az login"
_SERVERS = f"{failures.PROVIDER}/flexibleServers"
# What `invoke provision` does in the group: https://learn.microsoft.com/azure/role-based-access-control/permissions/databases
_NEEDED = (f"{_SERVERS}/write", f"{_SERVERS}/databases/write", f"{_SERVERS}/firewallRules/write")


def missing(*, needed: bool) -> Verdict:
    """There is no az on PATH; `needed` says whether something of Azure is configured."""
    what = "no az command on PATH"
    if needed:
        return checkup.problem(f"{what}, and the settings name a server in Azure", INSTALL_HINT)
    return checkup.unset(what, INSTALL_HINT)


def version(ask: Ask, *, needed: bool) -> Verdict:
    """Whether az takes its arguments as they are given here."""
    found = ask(az.version())
    said = ".".join(map(str, found))
    try:
        az.check_version(found)
    except UsageError as error:
        return checkup.failed(error) if needed else checkup.warning(error.message, error.hint)
    return checkup.ok(f"azure-cli {said}")


def login(ask: Ask, subscription: str | None, server: Callable[[], Server | None] | None) -> Verdict:
    """Whether az is logged in, and sees the subscription that is named. An answer about the `server` proves both."""
    try:
        own = ask(az.login(subscription)) if server is None else server()
    except AzError as error:
        kind = error.failure.kind
        if kind == "login" and subscription is None:
            return checkup.unset("az is not logged in", LOG_IN)
        if kind == "unanswered":
            raise
        if server is None or kind in ("login", "subscription"):
            return checkup.problem(error.failure.cause, error.failure.hint)
    if subscription is None:
        return checkup.ok(f"logged in; no subscription is named (its own choice would be {own})")
    return checkup.ok(f"logged in, and sees the subscription {subscription}")


def is_registered(ask: Ask, subscription: str, server: Callable[[], Server | None]) -> bool:
    """Whether the subscription is registered for PostgreSQL, as it is where a server of it stands.

    Where it isn't, regions and names can't be asked: az would register it first, without a word.
    """
    return server() is not None or bool(ask(az.provider(subscription)))


def provider(registered: Callable[[], bool], subscription: str) -> Verdict:
    """Whether that is so; `invoke provision` registers it, which takes minutes."""
    if registered():
        return checkup.ok(f"registered for {failures.PROVIDER}")
    way = f"az provider register --namespace {failures.PROVIDER} --wait --subscription {subscription}"
    return checkup.warning(f"the subscription isn't registered for {failures.PROVIDER}; invoke provision does it", way)


def server_name(
    ask: Ask, wanted: Wanted, server: Callable[[], Server | None], registered: Callable[[], bool], flags: str = ""
) -> Verdict:
    """Whether the server is ours and runs, or else its name is free. `flags` name the settings again."""
    found = server()
    if found is None:
        if not registered():
            return checkup.skipped("see provider")
        if ask(az.name_is_free(wanted)):
            return checkup.unset(
                f"no server {wanted.server} in the group {wanted.group} yet; the name is free",
                checkup.command("provision --plan", flags),
            )
        taken = f"the name {wanted.server} is taken, by a server that isn't in the group {wanted.group} of this subscription"
        return checkup.problem(taken, "choose another POSTGRES_SERVER_NAME, or name the AZURE_RESOURCE_GROUP that it is in")
    said = f"{found.name}: {found.state}, PostgreSQL {found.version}, {found.sku}, in {found.location}"
    if found.state == "Ready":
        return checkup.ok(said)
    place = f"--name {quoted(found.name)} --resource-group {quoted(wanted.group)} --subscription {wanted.subscription}"
    if found.state == "Stopped":
        return checkup.problem(said, f"az postgres flexible-server start {place}")
    return checkup.warning(said, f"wait until it is Ready: az postgres flexible-server show {place} --query state")


def region(ask: Ask, wanted: Wanted, server: Callable[[], Server | None], registered: Callable[[], bool]) -> Verdict:
    """Whether a new server could be made: a region that offers its SKU and its version to this subscription."""
    found = server()
    if found is not None:
        return checkup.ok(f"the server stands, in {found.location}")
    if not registered():
        return checkup.skipped("see provider")
    if not wanted.locations:
        return checkup.unset("no region is named", "set AZURE_LOCATION, to eastus2, say")
    asked = f"{wanted.new_sku}, PostgreSQL {wanted.new_version}"
    refused: list[str] = []
    for name in wanted.locations:  # mostly, the first will do
        obstacle = _obstacle(ask, wanted, name)
        if obstacle is None:
            before = f"; {', '.join(refused)}" if refused else ""
            way = f"set AZURE_LOCATION={name}, or leave it to POSTGRES_LOCATION_FALLBACK"
            return checkup.warning(f"{name} offers {asked}{before}", way) if refused else checkup.ok(f"{name} offers {asked}")
        refused.append(f"{name}: {obstacle}")
    way = "another AZURE_LOCATION, POSTGRES_SKU_NAME or POSTGRES_VERSION (az postgres flexible-server list-skus --location NAME)"
    return checkup.problem(f"no region that is named takes the server: {'; '.join(refused)}", way)


def _obstacle(ask: Ask, wanted: Wanted, location: str) -> str | None:
    try:
        offer: Region | None = ask(az.region(wanted, location))
    except AzError as error:
        if error.failure.way is not failures.Way.NEXT_REGION:
            raise
        return error.failure.cause
    return "there is no such region" if offer is None else offer.obstacle(wanted)


def rights(ask: Ask, wanted: Wanted, server: Callable[[], Server | None], flags: str = "") -> Verdict:
    """Whether the login may make and change servers in the group. In one that isn't there, nothing can be asked."""
    found: Sequence[Permission] | None = ask(az.permissions(wanted))
    if found is None:
        said = f"no group {wanted.group} yet: whether the login may make it isn't known"
        return checkup.unset(said, checkup.command("provision --plan", flags))
    lacking = [action for action in _NEEDED if not any(gives(permission, action) for permission in found)]
    if not lacking:
        return checkup.ok(f"the login may make and change servers in {wanted.group}")
    scope = quoted(f"/subscriptions/{wanted.subscription}/resourceGroups/{wanted.group}")
    way = f"an owner runs: az role assignment create --role Contributor --scope {scope} --assignee WHO"
    said = f"the login lacks rights in {wanted.group}: {', '.join(lacking)}"
    # Whoever only migrates needs none.
    return checkup.problem(said, way) if server() is None else checkup.warning(said, way)


def gives(permission: Permission, action: str) -> bool:
    """Whether a role gives a right; * stands for anything, and case says nothing."""

    def fits(pattern: str) -> bool:
        return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), action, re.IGNORECASE) is not None

    return any(map(fits, permission.actions)) and not any(map(fits, permission.but))
