"""What stands in Azure against what is asked for: the steps from one to the other."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from scripts import blueprint, firewall
from scripts.blueprint import Action, Impossible, Kind, NoRegion, Observed, Plan, Step
from scripts.errors import ExitCode
from scripts.firewall import Rule
from scripts.flexible import Server, Wanted, compute_problem, tier_of
from tests.unit.azure import region, rule, server, wanted

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OFFICE = firewall.rule(IPv4Address("203.0.113.0"), IPv4Address("203.0.113.255"))
HOME = firewall.rule(IPv4Address("198.51.100.7"), IPv4Address("198.51.100.7"))
IN_USE = firewall.temporary("192.0.2.1", NOW - timedelta(minutes=5), "aaaaaa")
NO_ZONES = (
    "the tier Burstable has no high availability: give a --sku-name standard_d* or standard_e*, or --zonal-resiliency disabled"
)
UPGRADE = (
    "it is PostgreSQL 16; an upgrade has a downtime and no way back, so you run it yourself: "
    "az postgres flexible-server upgrade -g rg -n srv1 --version 17"
)
LEFT_OVER = firewall.temporary("192.0.2.2", NOW - timedelta(days=1), "bbbbbb")


def standing(**changes: Any) -> Observed:
    rules = changes.pop("rules", ())
    return Observed(server=server(**changes), database=True, rules=rules)


def shown(plan: Plan, kind: Kind | None = None) -> list[tuple[str, str, str]]:
    return [(step.action.value, step.kind.value, step.name) for step in plan.steps if kind in (None, step.kind)]


def of_server(plan: Plan) -> Step:
    return next(step for step in plan.steps if step.kind is Kind.SERVER)


# --- A new server -----------------------------------------------------------------------------------------------------


def test_from_nothing_everything_is_made_in_the_order_in_which_it_depends() -> None:
    seen = Observed(registered=False, regions=(region(), region("westus2")))
    plan = blueprint.plan(wanted(rules=(OFFICE,)), seen, NOW)
    assert shown(plan) == [
        ("create", "provider", "Microsoft.DBforPostgreSQL"),
        ("create", "group", "rg"),
        ("create", "server", "srv1"),
        ("create", "database", "serving"),
        ("create", "firewall rule", OFFICE.name),
    ]
    assert plan.writes == list(plan.steps)
    assert plan.disruptive == []
    assert plan.steps[1].changes == (("location", "eastus2"),)
    assert [step.reason for step in plan.steps] == [
        "the subscription isn't registered for it, so what regions offer isn't known yet",
        "it isn't there; in eastus2",
        "it isn't there; in eastus2: PostgreSQL 16, Standard_B1ms (Burstable), 32 GiB, backups of 7 days",
        "it isn't there",
        OFFICE.addresses,
    ]


def test_a_new_server_is_told_everything_that_az_would_choose_otherwise() -> None:
    step = of_server(blueprint.plan(wanted(), Observed(regions=(region(),)), NOW))
    assert step.changes == (
        ("location", "eastus2"),
        ("tier", "Burstable"),
        ("sku-name", "Standard_B1ms"),
        ("storage-size", "32"),
        ("version", "16"),
        ("backup-retention", "7"),
        ("zonal-resiliency", "Disabled"),
    )


def test_a_new_server_has_what_is_asked_for() -> None:
    asked = wanted(sku="standard_D2DS_v5", storage=128, version=17, retention=35, zonal=True)
    step = of_server(blueprint.plan(asked, Observed(regions=(region(),)), NOW))
    assert dict(step.changes) == {
        "location": "eastus2",
        "tier": "GeneralPurpose",
        "sku-name": "Standard_D2ds_v5",  # as the region spells it
        "storage-size": "128",
        "version": "17",
        "backup-retention": "35",
        "zonal-resiliency": "Enabled",
    }
    assert step.reason == (
        "it isn't there; in eastus2: PostgreSQL 17, Standard_D2ds_v5 (GeneralPurpose), 128 GiB, backups of 35 days, "
        "high availability"
    )


@pytest.mark.parametrize("skus", [None, {"Burstable": ["Standard_B1ms"]}])
def test_a_region_that_does_not_say_how_it_spells_a_sku_gets_azure_s_own_case(skus: dict[str, list[str]] | None) -> None:
    asked = wanted(sku="STANDARD_d2ds_v5")
    step = of_server(blueprint.plan(asked, Observed(regions=(region(),)), NOW))
    assert dict(blueprint.at(region(skus=skus), step, asked).changes)["sku-name"] == "Standard_D2ds_v5"


def test_what_is_there_already_is_kept() -> None:
    seen = Observed(registered=True, group="northeurope", regions=(region(),))
    plan = blueprint.plan(wanted(), seen, NOW)
    assert shown(plan)[:2] == [("keep", "group", "rg"), ("create", "server", "srv1")]
    assert "northeurope" in plan.steps[0].reason
    assert dict(of_server(plan).changes)["location"] == "eastus2"  # the group stays where it is


def test_regions_that_take_it_keep_their_order_and_the_others_are_told_with_their_reasons() -> None:
    offers = (
        region("eastus", restricted="restricted: no"),
        region("centralus", skus=None),  # could not be asked: after those that are known to be open
        region("westus", versions=(14,)),
        region("eastus2"),
        region("westus2"),
    )
    plan = blueprint.plan(wanted(), Observed(regions=offers), NOW)
    assert [item.location for item in plan.regions] == ["eastus2", "westus2", "centralus"]
    assert plan.passed_over == (("eastus", "restricted: no"), ("westus", "PostgreSQL 16 is not offered"))
    assert dict(of_server(plan).changes)["location"] == "eastus2"


def test_no_region_at_all_is_one_table_of_why() -> None:
    offers = (region("eastus2", restricted="restricted: no"), region("us", skus={}))
    with pytest.raises(NoRegion) as caught:
        blueprint.plan(wanted(), Observed(regions=offers), NOW)
    assert caught.value.message.splitlines()[1:] == ["  eastus2  restricted: no", "  us       standard_b1ms is not offered"]
    assert caught.value.facts == {"regions": {"eastus2": "restricted: no", "us": "standard_b1ms is not offered"}}
    assert caught.value.message.startswith("none of the regions takes srv1; no resource was made:\n")
    assert caught.value.hint == "name others with --location-fallback, or another --sku-name or --postgres-version"
    assert dict(caught.value.table) == caught.value.facts["regions"]
    assert caught.value.exit_code is ExitCode.FAILED


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (wanted(zonal=True), "Burstable has no high availability"),
        (wanted(tier="MemoryOptimized"), "standard_b1ms is Burstable"),
    ],
)
def test_a_new_server_has_the_defaults_for_what_is_left_open_and_they_have_to_fit(asked: Wanted, words: str) -> None:
    with pytest.raises(Impossible, match=words) as caught:
        blueprint.plan(asked, Observed(regions=(region(),)), NOW)
    assert caught.value.message.startswith("srv1 can't become what is asked for; nothing was written:\n")


def test_a_table_without_regions_has_no_lines() -> None:
    assert blueprint.table_of([]) == ""


def test_a_plan_has_its_facts_for_programs_and_its_rows_for_people() -> None:
    plan = blueprint.plan(wanted(), Observed(group="us", regions=(region("us", restricted="no"), region())), NOW)
    assert plan.rows() == [[step.action.value, step.kind.value, step.name, step.reason] for step in plan.steps]
    assert plan.facts() == {
        "steps": [
            {"action": "keep", "kind": "group", "name": "rg", "reason": "it is there, in us"},
            {"action": "create", "kind": "server", "name": "srv1", "reason": of_server(plan).reason},
            {"action": "create", "kind": "database", "name": "serving", "reason": "it isn't there"},
        ],
        "regions": ["eastus2"],
        "passedOver": {"us": "no"},
        "notes": [],
    }
    assert blueprint.plan(wanted(), standing(rules=(HOME,)), NOW).facts()["notes"] == [
        f"firewall rules that no flag asks for: {HOME.name} (198.51.100.7); --prune-firewall removes them"
    ]


def test_in_the_next_region_the_same_server_is_made() -> None:
    asked = wanted(sku="standard_d2ds_v5")
    first = of_server(blueprint.plan(asked, Observed(regions=(region(), region("westus2"))), NOW))
    other = blueprint.at(region("westus2", skus={"GeneralPurpose": ["standard_d2DS_v5"]}), first, asked)
    assert dict(other.changes) == {**dict(first.changes), "location": "westus2", "sku-name": "standard_d2DS_v5"}
    assert "westus2 is the next one" in other.reason


# --- A server that stands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        wanted(),
        wanted(location_is_given=True),
        wanted(locations=("East US 2",), location_is_given=True),
        wanted(locations=("northeurope",)),  # not given: where the server stands is right
        wanted(admin="serving_admin", sku="standard_b1ms", tier="Burstable", storage=32, version=16, retention=7, zonal=False),
        wanted(sku="STANDARD_B1MS"),
    ],
)
def test_a_server_that_is_as_asked_for_is_kept(asked: Wanted) -> None:
    plan = blueprint.plan(asked, standing(), NOW)
    assert shown(plan) == [("keep", "server", "srv1"), ("keep", "database", "serving")]
    assert (plan.writes, plan.disruptive, plan.notes, plan.regions) == ([], [], (), ())
    assert [step.reason for step in plan.steps] == [
        "it is there, in eastus2: PostgreSQL 16, Standard_B1ms, 32 GiB",
        "it is there",
    ]


def test_what_a_server_has_beyond_the_defaults_is_kept_when_nothing_else_is_asked_for() -> None:
    seen = standing(sku="Standard_D4ds_v5", tier="GeneralPurpose", storage=512, version=17, retention=30, zonal=True, admin="me")
    assert blueprint.plan(wanted(), seen, NOW).writes == []


@pytest.mark.parametrize(
    ("asked", "now", "changes", "disruptive"),
    [
        ({"storage": 64}, {}, {"storage-size": "64"}, False),
        ({"retention": 14}, {}, {"backup-retention": "14"}, False),
        ({"retention": 7}, {"retention": 14}, {"backup-retention": "7"}, False),
        ({"sku": "standard_b2s"}, {}, {"sku-name": "Standard_B2s", "tier": "Burstable"}, True),
        ({"sku": "standard_d2ds_v5"}, {}, {"sku-name": "Standard_D2ds_v5", "tier": "GeneralPurpose"}, True),
        (
            {"sku": "standard_d2ds_v5", "zonal": True},
            {},
            {"sku-name": "Standard_D2ds_v5", "tier": "GeneralPurpose", "zonal-resiliency": "Enabled"},
            True,
        ),
        (
            {"zonal": False},
            {"zonal": True, "sku": "Standard_D2ds_v5", "tier": "GeneralPurpose"},
            {"zonal-resiliency": "Disabled"},
            False,
        ),
        ({}, {"is_public": False}, {"public-access": "Enabled"}, False),
        ({"storage": 64, "retention": 8}, {"is_public": False}, None, False),
    ],
)
def test_what_can_change_is_one_step(
    asked: dict[str, Any], now: dict[str, Any], changes: dict[str, str] | None, disruptive: bool
) -> None:
    plan = blueprint.plan(wanted(**asked), standing(**now), NOW)
    [step] = plan.writes
    assert (step.action, step.kind, step.name) == (Action.CHANGE, Kind.SERVER, "srv1")
    expected = changes or {"storage-size": "64", "backup-retention": "8", "public-access": "Enabled"}
    assert dict(step.changes) == expected
    assert plan.disruptive == ([step] if disruptive else [])


def test_the_reason_of_a_change_names_each_with_what_it_was() -> None:
    asked = wanted(sku="standard_d2ds_v5", storage=64, retention=14, zonal=True)
    step = of_server(blueprint.plan(asked, standing(is_public=False), NOW))
    assert step.reason == (
        "32 to 64 GiB, Standard_B1ms to Standard_D2ds_v5, with a restart, backups of 7 to 14 days, high availability on, "
        "public access on"
    )
    asked, large = wanted(zonal=False), standing(sku="Standard_D2ds_v5", tier="GeneralPurpose", zonal=True)
    assert of_server(blueprint.plan(asked, large, NOW)).reason == "high availability off"


@pytest.mark.parametrize(
    ("skus", "words"),
    [
        (None, None),
        ({"Burstable": ["standard_B2S"]}, None),
        (
            {"Burstable": ["Standard_B1ms", "Standard_B4ms"]},
            "standard_b2s is not offered in eastus2; in the tier Burstable are Standard_B1ms, Standard_B4ms",
        ),
        ({"GeneralPurpose": ["Standard_B2s"]}, "standard_b2s is not offered in eastus2; in the tier Burstable are none"),
    ],
)
def test_another_sku_has_to_be_one_that_the_server_s_region_offers(skus: dict[str, list[str]] | None, words: str | None) -> None:
    seen = replace(standing(), regions=(region(skus=skus),))
    if words is None:
        assert dict(of_server(blueprint.plan(wanted(sku="standard_b2s"), seen, NOW)).changes)["sku-name"] == "Standard_B2s"
        return
    with pytest.raises(Impossible) as caught:
        blueprint.plan(wanted(sku="standard_b2s"), seen, NOW)
    assert caught.value.problems == [words]


@pytest.mark.parametrize(
    ("asked", "now", "words"),
    [
        (
            {"locations": ("westus2",), "location_is_given": True},
            {},
            "it is in eastus2, and a server can't be moved: --location eastus2, or another --server-name",
        ),
        ({"admin": "me"}, {}, "its administrator is serving_admin, for good: --admin-user serving_admin"),
        ({"version": 15}, {}, "it is PostgreSQL 16, and can't go back to 15"),
        ({"version": 17}, {}, UPGRADE),
        ({"storage": 32}, {"storage": 64}, "its disk has 64 GiB, and can't shrink to 32"),
        ({"tier": "GeneralPurpose"}, {}, "its SKU is Standard_B1ms, of the tier Burstable: give a --sku-name of GeneralPurpose"),
        ({"zonal": True}, {}, NO_ZONES),
        (
            {"sku": "standard_b1ms"},
            {"sku": "Standard_D2ds_v5", "tier": "GeneralPurpose", "zonal": True},
            NO_ZONES,
        ),
        (
            {},
            {"in_vnet": True, "is_public": False},
            "it stands in a virtual network, where firewall rules have no meaning: use another server",
        ),
        ({}, {"state": "Stopped"}, "it is stopped: az postgres flexible-server start -g rg -n srv1"),
        ({}, {"state": "Stopping"}, "it is stopped: az postgres flexible-server start -g rg -n srv1"),
    ],
)
def test_what_can_not_change_is_an_error_before_anything_is_written(
    asked: dict[str, Any], now: dict[str, Any], words: str
) -> None:
    with pytest.raises(Impossible) as caught:
        blueprint.plan(wanted(**asked), standing(**now), NOW)
    assert caught.value.problems == [words]
    assert caught.value.message == f"srv1 can't become what is asked for; nothing was written:\n  {words}"
    assert caught.value.exit_code is ExitCode.USAGE


def test_all_that_can_not_change_is_said_at_once() -> None:
    asked = wanted(locations=("westus2",), location_is_given=True, admin="me", version=15, storage=32, zonal=True)
    with pytest.raises(Impossible) as caught:
        blueprint.plan(asked, standing(storage=64, in_vnet=True, state="Stopped"), NOW)
    assert caught.value.message.splitlines()[1:] == [f"  {problem}" for problem in caught.value.problems]
    assert len(caught.value.problems) == 7


def test_a_server_in_a_region_to_fall_back_to_is_noted() -> None:
    plan = blueprint.plan(wanted(location_is_given=True), standing(location="westus2"), NOW)
    assert plan.writes == []
    assert plan.notes == ("srv1 is in westus2, one of the regions to fall back to",)


def test_a_new_password_is_a_step_of_its_own_and_asked_about() -> None:
    plan = blueprint.plan(wanted(), standing(admin="me"), NOW, reset_password=True)
    assert shown(plan)[1] == ("change", "password", "me")
    assert plan.steps[1].reason == "--reset-admin-password"
    assert [step.kind for step in plan.disruptive] == [Kind.PASSWORD]


def test_a_new_server_gets_its_password_with_itself() -> None:
    plan = blueprint.plan(wanted(), Observed(regions=(region(),)), NOW, reset_password=True)
    assert Kind.PASSWORD not in [step.kind for step in plan.steps]


def test_a_database_that_is_missing_is_made() -> None:
    plan = blueprint.plan(wanted(), replace(standing(), database=False), NOW)
    assert shown(plan, Kind.DATABASE) == [("create", "database", "serving")]


# --- Firewall rules ---------------------------------------------------------------------------------------------------


def rules_of(asked: tuple[Rule, ...], there: tuple[Rule, ...], *, prune: bool = False) -> tuple[list[tuple[str, str]], str]:
    plan = blueprint.plan(wanted(rules=asked, prune=prune), standing(rules=there), NOW)
    return [(action, name) for action, _, name in shown(plan, Kind.RULE)], " ".join(plan.notes)


def test_a_rule_is_kept_by_its_addresses_whatever_it_is_called() -> None:
    theirs = replace(OFFICE, name="office")
    assert rules_of((OFFICE, HOME), (theirs,)) == ([("keep", "office"), ("create", HOME.name)], "")


def test_a_step_of_a_rule_has_the_rule_and_its_addresses() -> None:
    theirs = replace(OFFICE, name="office")
    plan = blueprint.plan(wanted(rules=(OFFICE, HOME), prune=True), standing(rules=(theirs, LEFT_OVER)), NOW)
    assert [(step.rule, step.reason) for step in plan.steps if step.kind is Kind.RULE] == [
        (theirs, "203.0.113.0 to 203.0.113.255"),
        (HOME, "198.51.100.7"),
        (LEFT_OVER, "192.0.2.2; not asked for"),
    ]


def test_rules_that_nobody_asked_for_are_listed() -> None:
    _, notes = rules_of((), (OFFICE, HOME))
    assert f": {OFFICE.name} ({OFFICE.addresses}), {HOME.name} (198.51.100.7); " in notes


def test_a_rule_of_the_same_name_with_other_addresses_is_changed() -> None:
    other = replace(HOME, name=OFFICE.name)
    plan = blueprint.plan(wanted(rules=(OFFICE,)), standing(rules=(other,)), NOW)
    [step] = plan.writes
    assert (step.action, step.name, step.rule) == (Action.CHANGE, OFFICE.name, OFFICE)
    assert "198.51.100.7" in step.reason


def test_other_rules_stay_and_are_noted_until_they_are_to_be_pruned() -> None:
    found, notes = rules_of((OFFICE,), (OFFICE, HOME))
    assert found == [("keep", OFFICE.name)]
    assert f"{HOME.name} (198.51.100.7)" in notes
    assert "--prune-firewall" in notes
    assert rules_of((OFFICE,), (OFFICE, HOME), prune=True) == ([("keep", OFFICE.name), ("remove", HOME.name)], "")


def test_to_remove_a_rule_is_asked_about() -> None:
    plan = blueprint.plan(wanted(prune=True), standing(rules=(HOME,)), NOW)
    assert [step.name for step in plan.disruptive] == [HOME.name]


def test_a_rule_that_only_has_the_name_of_what_is_kept_elsewhere_is_one_that_nobody_asked_for() -> None:
    theirs, stranger = replace(OFFICE, name="office"), replace(HOME, name=OFFICE.name)
    found, notes = rules_of((OFFICE,), (theirs, stranger))
    assert found == [("keep", "office")]
    assert stranger.name in notes
    found, _ = rules_of((OFFICE,), (theirs, stranger), prune=True)
    assert found == [("keep", "office"), ("remove", stranger.name)]


def test_a_rule_that_is_to_be_changed_does_not_stand_in_for_another() -> None:
    other = replace(HOME, name=OFFICE.name)
    assert rules_of((OFFICE, HOME), (other,)) == ([("change", OFFICE.name), ("create", HOME.name)], "")


@pytest.mark.parametrize("prune", [False, True])
def test_a_temporary_rule_of_a_command_that_runs_is_left_alone(prune: bool) -> None:
    assert rules_of((), (IN_USE,), prune=prune) == ([], "")


def test_a_temporary_rule_that_was_left_over_is_pruned() -> None:
    assert rules_of((), (LEFT_OVER,), prune=True)[0] == [("remove", LEFT_OVER.name)]
    assert LEFT_OVER.name in rules_of((), (LEFT_OVER,))[1]


def test_a_temporary_rule_does_not_stand_in_for_one_that_stays() -> None:
    asked = firewall.rule(IN_USE.start, IN_USE.end)
    assert rules_of((asked,), (IN_USE,)) == ([("create", asked.name)], "")


# --- Whatever there is ------------------------------------------------------------------------------------------------

FEW = [IPv4Address(f"203.0.113.{last}") for last in (1, 2, 3)]
ASKED_RULES = st.lists(st.sampled_from([firewall.rule(one, other) for one in FEW for other in FEW if one <= other]), unique=True)
NAMES = [*(firewall.rule(one, one).name for one in FEW), "office", IN_USE.name, LEFT_OVER.name]
THERE = st.lists(
    st.builds(
        lambda name, ends: rule(name, str(min(ends)), str(max(ends))),
        st.sampled_from(NAMES),
        st.tuples(*[st.sampled_from(FEW)] * 2),
    ),
    unique_by=lambda item: item.name,
)
SIZES = [None, 32, 64, 128]
SKUS = [None, "standard_b1ms", "standard_b2s", "standard_d2ds_v5"]


def asked_for() -> st.SearchStrategy[Wanted]:
    return st.builds(
        wanted,
        sku=st.sampled_from(SKUS),
        storage=st.sampled_from(SIZES),
        retention=st.sampled_from([None, 7, 14]),
        zonal=st.sampled_from([None, False, True]),
        rules=ASKED_RULES.map(tuple),
        prune=st.booleans(),
    )


def after(plan: Plan, seen: Observed) -> Observed:
    """What stands when the plan is carried out."""
    found, database, rules = seen.server, seen.database, {item.name: item for item in seen.rules}
    for step in plan.writes:
        match step.kind:
            case Kind.SERVER:
                found = made(dict(step.changes), found or server())
            case Kind.DATABASE:
                database = True
            case Kind.RULE:
                rules.pop(step.name, None)
                if step.action is not Action.REMOVE:
                    assert step.rule is not None
                    rules[step.name] = step.rule
    return Observed(server=found, database=database, rules=tuple(rules.values()))


def made(values: dict[str, str], base: Server) -> Server:
    return replace(
        base,
        location=values.get("location", base.location),
        sku=values.get("sku-name", base.sku),
        tier=values.get("tier", base.tier),
        storage=int(values.get("storage-size", base.storage)),
        version=int(values.get("version", base.version)),
        retention=int(values.get("backup-retention", base.retention)),
        zonal=values.get("zonal-resiliency", "Enabled" if base.zonal else "Disabled") == "Enabled",
        is_public="public-access" in values or base.is_public,
    )


@given(asked=asked_for(), stands=st.booleans(), large=st.booleans(), is_public=st.booleans(), there=THERE)
@example(asked=wanted(), stands=False, large=False, is_public=True, there=[])
def test_what_was_planned_and_done_leaves_nothing_to_plan(
    asked: Wanted, stands: bool, large: bool, is_public: bool, there: list[Rule]
) -> None:
    assume(stands or compute_problem(asked.new_sku, asked.tier, asked.zonal) is None)
    sku = "Standard_D2ds_v5" if large else "Standard_B1ms"
    found = server(sku=sku, tier=tier_of(sku), is_public=is_public)
    seen = Observed(server=found, rules=tuple(there)) if stands else Observed(registered=False, regions=(region(),))
    plan = None
    with contextlib.suppress(Impossible):
        plan = blueprint.plan(asked, seen, NOW)
    assume(plan is not None)
    assert plan is not None
    then = after(plan, seen)
    assert blueprint.plan(asked, then, NOW).writes == []
    open_now = {(item.start, item.end) for item in then.rules}
    assert {(item.start, item.end) for item in asked.rules} <= open_now
    if asked.prune:
        in_use = {(item.start, item.end) for item in then.rules if firewall.in_use(item, NOW)}
        assert open_now - in_use <= {(item.start, item.end) for item in asked.rules}
