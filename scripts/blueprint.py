"""What stands in Azure against what is asked for: the steps from one to the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from scripts import firewall, flexible
from scripts.errors import OpsError, UsageError
from scripts.failures import PROVIDER
from scripts.firewall import Rule
from scripts.flexible import Region, Server, Wanted


class Action(Enum):
    """What is done about one thing."""

    KEEP = "keep"
    CREATE = "create"
    CHANGE = "change"
    REMOVE = "remove"
    SKIP = "not applicable"


class Kind(Enum):
    """What the thing is."""

    PROVIDER = "provider"
    GROUP = "group"
    SERVER = "server"
    PASSWORD = "password"
    DATABASE = "database"
    RULE = "firewall rule"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What stands in Azure."""

    registered: bool | None = None  # None: not asked, as the server stands
    group: str | None = None  # the resource group's location
    server: Server | None = None
    database: bool = False
    rules: tuple[Rule, ...] = ()
    regions: tuple[Region, ...] = ()  # in the order of preference; when the server stands, its own for another SKU


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing and what is done about it."""

    action: Action
    kind: Kind
    name: str
    reason: str
    rule: Rule | None = None
    changes: tuple[tuple[str, str], ...] = ()  # of a server or group: (what az calls it, value)

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.action not in (Action.KEEP, Action.SKIP)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps, in their order, and the regions that a new server may go to."""

    steps: tuple[Step, ...]
    regions: tuple[Region, ...] = ()  # the open ones, in the order of preference
    passed_over: tuple[tuple[str, str], ...] = ()  # (location, why)
    notes: tuple[str, ...] = ()

    @property
    def writes(self) -> list[Step]:
        """The steps that change something."""
        return [step for step in self.steps if step.writes]

    @property
    def disruptive(self) -> list[Step]:
        """The steps that take something away, or restart the server."""
        return [step for step in self.steps if step.action is Action.REMOVE or step.kind is Kind.PASSWORD or _restarts(step)]

    def rows(self) -> list[list[str]]:
        """The steps as a table."""
        return [[step.action.value, step.kind.value, step.name, step.reason] for step in self.steps]

    def facts(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {
            "steps": [dict(zip(("action", "kind", "name", "reason"), row, strict=True)) for row in self.rows()],
            "regions": [region.location for region in self.regions],
            "passedOver": dict(self.passed_over),
            "notes": list(self.notes),
        }


class Impossible(UsageError):
    """What is asked for can't be made of what stands; `problems` says why."""

    def __init__(self, server: str, problems: Sequence[str]) -> None:
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{server} can't become what is asked for; nothing was written:\n{listed}")
        self.problems = problems


class NoRegion(OpsError):
    """No region of those that are named takes the server; `table` says why, by region."""

    def __init__(self, message: str, hint: str, table: Sequence[tuple[str, str]]) -> None:
        super().__init__(message, hint, {"regions": dict(table)})
        self.table = table


def plan(wanted: Wanted, seen: Observed, now: datetime, *, reset_password: bool = False) -> Plan:
    """The steps to what is asked for. Raises Impossible, with all that can't be changed, and NoRegion."""
    steps: list[Step] = []
    open_regions: tuple[Region, ...] = ()
    passed: list[tuple[str, str]] = []
    notes: list[str] = []
    if seen.server is None:
        problem = flexible.compute_problem(wanted.new_sku, wanted.tier, wanted.zonal)
        if problem:
            raise Impossible(wanted.server, [problem])
        obstacles = [(region, region.obstacle(wanted)) for region in seen.regions]
        passed = [(region.location, why) for region, why in obstacles if why is not None]
        # One that could not be asked is tried after those that are known to be open.
        free = [region for region, why in obstacles if why is None]
        open_regions = tuple(sorted(free, key=lambda region: region.skus is None))
        if not open_regions:
            raise NoRegion(
                f"none of the regions takes {wanted.server}; no resource was made:\n" + table_of(passed),
                "name others with --location-fallback, or another --sku-name or --postgres-version",
                passed,
            )
        steps += _foundations(wanted, seen, open_regions[0])
        steps.append(_new_server(wanted, open_regions[0]))
    else:
        steps += _standing(wanted, seen, seen.server, notes)
        if reset_password:
            steps.append(Step(action=Action.CHANGE, kind=Kind.PASSWORD, name=seen.server.admin, reason="--reset-admin-password"))
    database = Action.KEEP if seen.database else Action.CREATE
    reason = "it is there" if seen.database else "it isn't there"
    steps.append(Step(action=database, kind=Kind.DATABASE, name=wanted.database, reason=reason))
    steps += _rules(wanted, seen, now, notes)
    return Plan(steps=tuple(steps), regions=open_regions, passed_over=tuple(passed), notes=tuple(notes))


def table_of(rows: Iterable[tuple[str, str]]) -> str:
    """Regions and why each was passed over, as aligned lines."""
    rows = list(rows)
    width = max((len(location) for location, _ in rows), default=0)
    return "\n".join(f"  {location.ljust(width)}  {why}" for location, why in rows)


def at(region: Region, step: Step, wanted: Wanted) -> Step:
    """The step that makes the server, in another region."""
    return replace(_new_server(wanted, region), reason=f"{step.reason}; {region.location} is the next one")


def _foundations(wanted: Wanted, seen: Observed, region: Region) -> Iterable[Step]:
    if seen.registered is False:
        reason = "the subscription isn't registered for it, so what regions offer isn't known yet"
        yield Step(action=Action.CREATE, kind=Kind.PROVIDER, name=PROVIDER, reason=reason)
    if seen.group is None:
        where = (("location", region.location),)
        reason = f"it isn't there; in {region.location}"
        yield Step(action=Action.CREATE, kind=Kind.GROUP, name=wanted.group, reason=reason, changes=where)
    else:
        yield Step(action=Action.KEEP, kind=Kind.GROUP, name=wanted.group, reason=f"it is there, in {seen.group}")


def _new_server(wanted: Wanted, region: Region) -> Step:
    offered = (region.skus or {}).get(wanted.new_tier, ())
    sku = flexible.spelled(wanted.new_sku, offered) or _azure_case(wanted.new_sku)
    values = (
        ("location", region.location),
        ("tier", wanted.new_tier),
        ("sku-name", sku),
        ("storage-size", str(wanted.new_storage)),
        ("version", str(wanted.new_version)),
        ("backup-retention", str(wanted.new_retention)),
        ("zonal-resiliency", "Enabled" if wanted.zonal else "Disabled"),
    )
    zonal = ", high availability" if wanted.zonal else ""
    reason = (
        f"it isn't there; in {region.location}: PostgreSQL {wanted.new_version}, {sku} ({wanted.new_tier}), "
        f"{wanted.new_storage} GiB, backups of {wanted.new_retention} days{zonal}"
    )
    return Step(action=Action.CREATE, kind=Kind.SERVER, name=wanted.server, reason=reason, changes=values)


def _azure_case(sku: str) -> str:
    """standard_d2ds_v5 as Azure writes it, Standard_D2ds_v5, where the region couldn't be asked."""
    family = sku.split("_", 1)[1]
    return f"Standard_{family[:1].upper()}{family[1:]}"


def _standing(wanted: Wanted, seen: Observed, server: Server, notes: list[str]) -> Iterable[Step]:
    """The server that is there: what changes, what can't."""
    problems, changes, told = [], [], []
    here = flexible.location_key(server.location)
    if wanted.location_is_given and here not in map(flexible.location_key, wanted.locations):
        problems.append(f"it is in {here}, and a server can't be moved: --location {here}, or another --server-name")
    elif wanted.location_is_given and here != flexible.location_key(wanted.locations[0]):
        notes.append(f"{server.name} is in {here}, one of the regions to fall back to")
    if wanted.admin is not None and wanted.admin != server.admin:
        problems.append(f"its administrator is {server.admin}, for good: --admin-user {server.admin}")
    if server.in_vnet:
        problems.append("it stands in a virtual network, where firewall rules have no meaning: use another server")
    if wanted.version is not None and wanted.version < server.version:
        problems.append(f"it is PostgreSQL {server.version}, and can't go back to {wanted.version}")
    elif wanted.version is not None and wanted.version > server.version:
        problems.append(
            f"it is PostgreSQL {server.version}; an upgrade has a downtime and no way back, so you run it yourself: az postgres "
            f"flexible-server upgrade -g {wanted.group} -n {server.name} --version {wanted.version}"
        )
    if wanted.storage is not None and wanted.storage < server.storage:
        problems.append(f"its disk has {server.storage} GiB, and can't shrink to {wanted.storage}")
    elif wanted.storage is not None and wanted.storage > server.storage:
        changes.append(("storage-size", str(wanted.storage)))
        told.append(f"{server.storage} to {wanted.storage} GiB")
    tier = wanted.tier or (flexible.tier_of(wanted.sku) if wanted.sku else None) or server.tier
    if wanted.sku is not None and wanted.sku.lower() != server.sku.lower():
        offered = next((region.skus for region in seen.regions), None)
        if offered is not None and flexible.spelled(wanted.sku, offered.get(tier, ())) is None:
            problems.append(
                f"{wanted.sku} is not offered in {here}; in the tier {tier} are {', '.join(offered.get(tier, ())) or 'none'}"
            )
        changes += [("sku-name", _azure_case(wanted.sku)), ("tier", tier)]
        told.append(f"{server.sku} to {_azure_case(wanted.sku)}, with a restart")
    elif tier.lower() != server.tier.lower():
        problems.append(f"its SKU is {server.sku}, of the tier {server.tier}: give a --sku-name of {tier}")
    if wanted.retention is not None and wanted.retention != server.retention:
        changes.append(("backup-retention", str(wanted.retention)))
        told.append(f"backups of {server.retention} to {wanted.retention} days")
    if tier.lower() == "burstable" and (server.zonal if wanted.zonal is None else wanted.zonal):
        problems.append(
            "the tier Burstable has no high availability: give a --sku-name standard_d* or standard_e*, or --zonal-resiliency "
            "disabled"
        )
    elif wanted.zonal is not None and wanted.zonal != server.zonal:
        changes.append(("zonal-resiliency", "Enabled" if wanted.zonal else "Disabled"))
        told.append(f"high availability {'on' if wanted.zonal else 'off'}")
    if not server.is_public and not server.in_vnet:
        changes.append(("public-access", "Enabled"))
        told.append("public access on")
    if server.state in ("Stopped", "Stopping"):
        problems.append(f"it is stopped: az postgres flexible-server start -g {wanted.group} -n {server.name}")
    if problems:
        raise Impossible(server.name, problems)
    if changes:
        yield Step(action=Action.CHANGE, kind=Kind.SERVER, name=server.name, reason=", ".join(told), changes=tuple(changes))
    else:
        reason = f"it is there, in {here}: PostgreSQL {server.version}, {server.sku}, {server.storage} GiB"
        yield Step(action=Action.KEEP, kind=Kind.SERVER, name=server.name, reason=reason)


def _restarts(step: Step) -> bool:
    return step.kind is Kind.SERVER and step.action is Action.CHANGE and any(name == "sku-name" for name, _ in step.changes)


def _rules(wanted: Wanted, seen: Observed, now: datetime, notes: list[str]) -> Iterable[Step]:
    by_name = {rule.name: rule for rule in seen.rules}
    asked_by_name = {rule.name: rule for rule in wanted.rules}
    # What is called as one that is asked for, and isn't it, may be changed into it: nothing else can rest on it.
    resting = [
        rule for rule in seen.rules if asked_by_name.get(rule.name, rule).same_addresses(rule) and not firewall.in_use(rule, now)
    ]
    changed = set()
    for rule in wanted.rules:
        same = next((other for other in resting if other.same_addresses(rule)), None)
        if same is not None:
            yield Step(action=Action.KEEP, kind=Kind.RULE, name=same.name, reason=rule.addresses, rule=same)
        elif rule.name in by_name:
            changed.add(rule.name)
            reason = f"{rule.addresses}; it lets in {by_name[rule.name].addresses}"
            yield Step(action=Action.CHANGE, kind=Kind.RULE, name=rule.name, reason=reason, rule=rule)
        else:
            yield Step(action=Action.CREATE, kind=Kind.RULE, name=rule.name, reason=rule.addresses, rule=rule)
    others = [
        rule
        for rule in seen.rules
        if rule.name not in changed
        and not any(rule.same_addresses(asked) for asked in wanted.rules)
        and not firewall.in_use(rule, now)
    ]
    if wanted.prune:
        for rule in others:
            yield Step(action=Action.REMOVE, kind=Kind.RULE, name=rule.name, reason=f"{rule.addresses}; not asked for", rule=rule)
    elif others:
        names = ", ".join(f"{rule.name} ({rule.addresses})" for rule in others)
        notes.append(f"firewall rules that no flag asks for: {names}; --prune-firewall removes them")
