"""A small Azure behind a fake `run`: it answers az's words from what stands in it, and fails where it is told to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from scripts.az import Az
from scripts.firewall import Rule
from scripts.flexible import Region, Server, Wanted
from scripts.shell import Result

SUBSCRIPTION = "11111111-1111-4111-8111-111111111111"
GONE = "ERROR: (ResourceNotFound) The Resource '{}' under resource group 'rg' was not found."
SKUS = {
    "Burstable": ["Standard_B1ms", "Standard_B2s"],
    "GeneralPurpose": ["Standard_D2ds_v5", "Standard_D4ds_v5"],
    "MemoryOptimized": ["Standard_E2ds_v5"],
}


def wanted(**changes: Any) -> Wanted:
    """What is asked for, as if by the fewest flags."""
    base = Wanted(subscription=SUBSCRIPTION, group="rg", server="srv1", database="serving", locations=("eastus2", "westus2"))
    return replace(base, **changes)


def server(**changes: Any) -> Server:
    """A server as the fewest flags make it."""
    base = Server(
        name="srv1",
        location="eastus2",
        state="Ready",
        host="srv1.postgres.database.azure.com",
        admin="serving_admin",
        sku="Standard_B1ms",
        tier="Burstable",
        storage=32,
        version=16,
        retention=7,
        zonal=False,
        is_public=True,
        in_vnet=False,
    )
    return replace(base, **changes)


def region(location: str = "eastus2", **changes: Any) -> Region:
    """A region that offers everything."""
    sizes = [32, 64, 128]
    base = Region(location=location, skus=SKUS, versions=(14, 15, 16, 17), storage=dict.fromkeys(SKUS, sizes), zones=True)
    return replace(base, **changes)


def rule(name: str, start: str, end: str | None = None) -> Rule:
    return Rule(name, IPv4Address(start), IPv4Address(end or start))


def server_json(item: Server) -> dict[str, Any]:
    """A server as az 2.91 prints it, in what matters."""
    network = {"delegatedSubnetResourceId": "/subnets/1" if item.in_vnet else None, "privateDnsZoneArmResourceId": None}
    return {
        "administratorLogin": item.admin,
        "administratorLoginPassword": None,
        "backup": {"backupRetentionDays": item.retention, "geoRedundantBackup": "Disabled"},
        "fullyQualifiedDomainName": item.host,
        "highAvailability": {"mode": "ZoneRedundant" if item.zonal else "Disabled", "standbyAvailabilityZone": None},
        "location": {"eastus2": "East US 2", "westus2": "West US 2"}.get(item.location, item.location),
        "name": item.name,
        "network": {**network, "publicNetworkAccess": "Enabled" if item.is_public else "Disabled"},
        "sku": {"name": item.sku, "tier": item.tier},
        "state": item.state,
        "storage": {"autoGrow": "Disabled", "storageSizeGb": item.storage},
        "version": str(item.version),
    }


def rule_json(item: Rule) -> dict[str, Any]:
    return {"name": item.name, "startIpAddress": str(item.start), "endIpAddress": str(item.end), "resourceGroup": "rg"}


def ok(out: str = "") -> Result:
    return Result(code=0, out=out, err="")


def failed(text: str, code: int = 1) -> Result:
    return Result(code=code, out="", err=text)


def program_in(folder: Path, name: str) -> Path:
    """A program that could be started, and never is."""
    path = folder / (f"{name}.cmd" if os.name == "nt" else name)
    path.touch(mode=0o755)
    return path


def az_in(folder: Path) -> dict[str, str]:
    """An environment in which an az stands on PATH."""
    program_in(folder, "az")
    return {"PATH": str(folder)}


@dataclass
class Fault:
    """A call that doesn't end as it should: `words` begin it. `after`: it is done all the same. `times` of them."""

    words: str
    result: Result | BaseException
    after: bool = False
    times: int = 1


@dataclass
class Cloud:
    """What stands in Azure, what az was asked and told, and what is to go wrong."""

    group: str | None = None
    server: Server | None = None
    databases: set[str] = field(default_factory=set)
    rules: dict[str, Rule] = field(default_factory=dict)
    registered: bool = True
    contents: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)  # of the server, one for each look, before its own
    faults: list[Fault] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    stdins: list[bytes] = field(default_factory=list)
    on_call: Callable[[str], None] = lambda words: None

    def fail(self, words: str, text: str, code: int = 1, *, after: bool = False, times: int = 1) -> None:
        self.faults.append(Fault(words, failed(text, code), after, times))

    def interrupt(self, words: str) -> None:
        self.faults.append(Fault(words, KeyboardInterrupt()))

    def client(self, folder: Path, redact: Callable[[str], str] = lambda text: text) -> Az:
        return Az(az_in(folder), redact=redact, run=self.run, run_together=self.run_together)

    @property
    def writes(self) -> list[str]:
        """The calls that change something, by their first words and, where there is one, the child's name."""
        found = []
        for call in self.calls:
            verb, flags = parsed(call)
            if verb.split()[-1] in ("create", "update", "delete", "register"):
                child = flags.get("name", "") if "server-name" in flags else ""
                found.append(f"{verb.removeprefix('postgres flexible-server ')} {child}".strip())
        return found

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", **_: object) -> Result:
        self.calls.append(list(argv[1:]))
        self.stdins.append(stdin)
        words = " ".join(argv[1:])
        self.on_call(words)
        fault = next((fault for fault in self.faults if fault.times and words.startswith(fault.words)), None)
        if fault is None:
            return self._answer(list(argv[1:]))
        fault.times -= 1
        if fault.after:
            self._answer(list(argv[1:]))
        if isinstance(fault.result, BaseException):
            raise fault.result
        return fault.result

    def run_together(self, argvs: Sequence[Sequence[str]], **_: object) -> list[Result]:
        return [self.run(argv) for argv in argvs]

    def _answer(self, argv: list[str]) -> Result:
        verb, flags = parsed(argv)
        handler = getattr(self, "_" + verb.replace(" ", "_").replace("-", "_"), None)
        assert handler is not None, argv
        result = handler(flags)
        return result if isinstance(result, Result) else ok(result or "")

    def _version(self, _: Mapping[str, str]) -> str:
        return json.dumps({"azure-cli": "2.91.0", "extensions": {}})

    def _account_get_access_token(self, flags: Mapping[str, str]) -> str:
        return flags["subscription"] + "\n"

    def _provider_register(self, _: Mapping[str, str]) -> None:
        self.registered = True

    def _group_show(self, _: Mapping[str, str]) -> str | Result:
        return (
            f"{self.group}\n"
            if self.group
            else failed("ERROR: (ResourceGroupNotFound) Resource group 'rg' could not be found.", 3)
        )

    def _group_create(self, flags: Mapping[str, str]) -> None:
        self.group = flags["location"]

    def _group_delete(self, _: Mapping[str, str]) -> None:
        self.group = self.server = None

    def _resource_list(self, _: Mapping[str, str]) -> str:
        return json.dumps([{"type": item.split()[0], "name": item.split()[1], "tags": None} for item in self.contents])

    def _postgres_flexible_server_show(self, flags: Mapping[str, str]) -> str | Result:
        if self.server is None:
            return failed(GONE.format(flags["name"]), 3)
        state = self.states.pop(0) if self.states else self.server.state
        return json.dumps(server_json(replace(self.server, state=state)))

    def _postgres_flexible_server_create(self, flags: Mapping[str, str]) -> Result | None:
        if not self.registered:
            return failed("ERROR: (MissingSubscriptionRegistration) The subscription is not registered to use namespace 'X'.")
        if self.server is not None:
            return failed("ERROR: Specified server name is already used.")
        self.server = server(
            location=flags["location"],
            admin=flags["admin-user"],
            sku=flags["sku-name"],
            tier=flags["tier"],
            storage=int(flags["storage-size"]),
            version=int(flags["version"]),
            retention=int(flags["backup-retention"]),
            zonal=flags["zonal-resiliency"] == "Enabled",
        )
        return None

    def _postgres_flexible_server_update(self, flags: Mapping[str, str]) -> None:
        assert self.server is not None
        names = {"sku-name": "sku", "tier": "tier", "storage-size": "storage", "backup-retention": "retention"}
        changes: dict[str, Any] = {
            names[name]: int(value) if value.isdigit() else value for name, value in flags.items() if name in names
        }
        if "zonal-resiliency" in flags:
            changes["zonal"] = flags["zonal-resiliency"] == "Enabled"
        if "public-access" in flags:
            changes["is_public"] = flags["public-access"] == "Enabled"
        self.server = replace(self.server, **changes)

    def _postgres_flexible_server_delete(self, _: Mapping[str, str]) -> None:
        self.server = None

    def _postgres_flexible_server_db_show(self, flags: Mapping[str, str]) -> Result | None:
        return None if flags["name"] in self.databases else failed(GONE.format(flags["name"]), 3)

    def _postgres_flexible_server_db_create(self, flags: Mapping[str, str]) -> None:
        self.databases.add(flags["name"])

    def _postgres_flexible_server_firewall_rule_list(self, _: Mapping[str, str]) -> str | Result:
        if self.server is None:
            return failed("ERROR: (ParentResourceNotFound) Failed to perform 'read' on resource(s) of type 'firewallRules'.", 3)
        return json.dumps([rule_json(item) for item in self.rules.values()])

    def _postgres_flexible_server_firewall_rule_show(self, flags: Mapping[str, str]) -> str | Result:
        found = self.rules.get(flags["name"])
        return json.dumps(rule_json(found)) if found else failed(GONE.format(flags["name"]), 3)

    def _postgres_flexible_server_firewall_rule_create(self, flags: Mapping[str, str]) -> None:
        self.rules[flags["name"]] = rule(flags["name"], flags["start-ip-address"], flags["end-ip-address"])

    def _postgres_flexible_server_firewall_rule_delete(self, flags: Mapping[str, str]) -> None:
        self.rules.pop(flags["name"], None)


def parsed(argv: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The words of a call before its flags, and its flags."""
    verbs = [word for index, word in enumerate(argv) if all(not earlier.startswith("--") for earlier in argv[: index + 1])]
    flags: dict[str, str] = {}
    rest = list(argv[len(verbs) :])
    while rest:
        name = rest.pop(0)
        flags[name.removeprefix("--")] = rest.pop(0) if rest and not rest[0].startswith("--") else ""
    return " ".join(verbs), flags
