"""What has to stand in GitHub and Azure, against what stands: pure, and the page of docs that says the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from scripts import github, identities, wiring
from scripts.identities import Place
from scripts.wiring import (
    APPS,
    CONTRIBUTOR,
    IDENTITIES,
    Assignment,
    Credential,
    Environment,
    Identity,
    Policy,
    Role,
    Seen,
    Wanted,
)
from tests.conftest import ROOT

GROUP = "/subscriptions/S/resourceGroups/G"
APP_IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
SERVER = f"{GROUP}/providers/Microsoft.DBforPostgreSQL/flexibleServers/serving"
SUBJECT = "repo:o/r:environment:production"
WANTED = Wanted(
    environment="production",
    subject=SUBJECT,
    identity="github-deploy",
    credential="github-production",
    assignments=(Assignment(APPS, GROUP), Assignment(CONTRIBUTOR, SERVER)),
    variables={"API_IMAGE": "image"},
    secrets=("POSTGRES_DSN",),
)
DONE = Seen(
    environment=Environment(
        has_policies=True,
        policies=(Policy(1, "main", "branch"),),
        variables={"API_IMAGE": "image", "AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant"},
        secrets=frozenset({"POSTGRES_DSN"}),
    ),
    identity=Identity(name="github-deploy", client="client", tenant="tenant", principal="principal"),
    credentials=(Credential("any", wiring.ISSUER, SUBJECT, (wiring.AUDIENCE,)),),
    granted=frozenset({(APPS.id, GROUP.lower()), (CONTRIBUTOR.id, SERVER.lower())}),
)
PAGE = (ROOT / "docs" / "github.md").read_text(encoding="utf-8")


def steps(seen: Seen, wanted: Wanted = WANTED) -> list[str]:
    return [f"{step.action} {step.kind} {step.name}" for step in wiring.plan(wanted, seen).steps]


def test_from_nothing_everything_is_made_what_others_need_first() -> None:
    assert steps(Seen()) == [
        "make identity github-deploy",
        "make credential github-production",
        "make role Container Apps Contributor",
        "make role Contributor",
        "make environment production",
        "make policy main",
        "set variable API_IMAGE",
        "set variable AZURE_CLIENT_ID",
        "set variable AZURE_TENANT_ID",
        "set secret POSTGRES_DSN",
    ]


def test_what_stands_is_left() -> None:
    plan = wiring.plan(WANTED, DONE)
    assert plan.steps == ()
    assert len(plan.notes) == 1, "a secret that is there is said to be left"


@pytest.mark.parametrize(
    "credential",
    [
        Credential("github-production", wiring.ISSUER, SUBJECT.replace("o/r", "O/r"), (wiring.AUDIENCE,)),
        Credential("github-production", "https://elsewhere", SUBJECT, (wiring.AUDIENCE,)),
        Credential("github-production", wiring.ISSUER, SUBJECT, ("other",)),
        Credential("github-production", wiring.ISSUER, "", (wiring.AUDIENCE,)),
    ],
)
def test_a_credential_that_does_not_fit_in_everything_is_corrected(credential: Credential) -> None:
    assert steps(replace(DONE, credentials=(credential,))) == ["change credential github-production"]


def test_a_credential_of_another_name_is_named_and_stays() -> None:
    other = Credential("other", wiring.ISSUER, "repo:o/other:pull_request", (wiring.AUDIENCE,))
    plan = wiring.plan(WANTED, replace(DONE, credentials=(*DONE.credentials, other)))
    assert plan.steps == ()
    assert "github-deploy also takes tokens of repo:o/other:pull_request (other)" in plan.notes


def test_a_role_reaches_what_is_in_its_scope_and_nothing_beside_it() -> None:
    for scope, rest in (("/subscriptions/s", []), ("/", []), (f"{SERVER}-2".lower(), ["make role Contributor"])):
        granted = frozenset({(APPS.id, GROUP.lower()), (CONTRIBUTOR.id, scope)})
        assert steps(replace(DONE, granted=granted)) == rest
    owner = ("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "/subscriptions/s")
    assert any(
        "also has the role 8e3af657" in note for note in wiring.plan(WANTED, replace(DONE, granted=DONE.granted | {owner})).notes
    )


def test_an_environment_that_takes_every_protected_branch_is_limited_to_main() -> None:
    assert DONE.environment is not None
    loose = replace(DONE.environment, has_policies=False, policies=())
    assert steps(replace(DONE, environment=loose)) == ["change environment production", "make policy main"]
    for policy in (Policy(2, "main", "tag"), Policy(2, "release/*", "branch")):
        wide = replace(DONE.environment, policies=(*DONE.environment.policies, policy))
        assert steps(replace(DONE, environment=wide)) == [f"remove policy {policy.name}"]


def test_where_no_group_is_known_azure_is_left_alone() -> None:
    assert steps(replace(DONE, identity=None, credentials=()), replace(WANTED, identity=None, assignments=())) == []


def test_secrets_are_set_anew_when_that_is_told_alone() -> None:
    assert steps(DONE, replace(WANTED, anew=True)) == ["change secret POSTGRES_DSN"]


def test_each_role_is_given_on_the_least_that_it_suffices_for() -> None:
    values = {
        "POSTGRES_SERVER_NAME": "serving",
        "CONTAINER_APP_IDENTITY": APP_IDENTITY,
        "CONTAINER_APP_ENVIRONMENT": f"{GROUP.lower()}/providers/Microsoft.App/managedEnvironments/env",
    }
    plain = (Assignment(APPS, GROUP), Assignment(IDENTITIES, APP_IDENTITY), Assignment(CONTRIBUTOR, SERVER))
    assert wiring.assignments("S", "G", values, None) == plain
    elsewhere = "/subscriptions/S/resourceGroups/G2/providers/Microsoft.App/managedEnvironments/env"
    found = wiring.assignments("S", "G", {**values, "CONTAINER_APP_ENVIRONMENT": elsewhere}, "0000")
    assert found == (plain[0], Assignment(APPS, elsewhere), plain[1], Assignment(Role("role 0000", "0000"), SERVER))
    assert wiring.assignments("S", "G", {}, None) == plain[:1]


# docs/github.md says what the code does.


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    part = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    assert lines
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_names_every_secret_and_variable_with_what_it_is() -> None:
    listed = rows(f"The environment `{github.ENVIRONMENT}`")
    assert sorted(listed) == sorted([entry.name, entry.kind, entry.what] for entry in github.EVERYTHING)


def test_the_page_names_the_roles_that_are_given() -> None:
    assert [tuple(row[:2]) for row in rows("Its roles")] == [(role.name, role.id) for role in (APPS, IDENTITIES, CONTRIBUTOR)]


def commands() -> list[str]:
    """The page's indented commands, each on one line."""
    return re.findall(r"^    (\S.*)$", re.sub(r"\s*\\\n\s*", " ", PAGE), re.MULTILINE)


def test_the_page_shows_the_commands_that_are_run() -> None:
    place = Place(name=github.IDENTITY, group="GROUP", subscription="SUBSCRIPTION")
    for words in (
        identities.create(place),
        identities.federate(place, github.CREDENTIAL, "SUBJECT"),
        identities.grant("PRINCIPAL", Assignment(Role("", "ID"), "SCOPE")),
    ):
        assert " ".join(["az", *words]) in commands()
    assert github.APP_DSN.command("OWNER/NAME") in commands()
    assert next(entry for entry in github.ALWAYS if entry.name == "API_IMAGE").command("OWNER/NAME") in commands()


def test_the_page_shows_the_subject_s_form() -> None:
    subjects = [row[1] for row in rows("The identity in Azure")]
    assert subjects == [
        f"repo:OWNER@OWNER_ID/NAME@NAME_ID:environment:{github.ENVIRONMENT}",
        f"repo:OWNER/NAME:environment:{github.ENVIRONMENT}",
    ]
    assert f"repos/OWNER/NAME/environments/{github.ENVIRONMENT}" in PAGE


def test_the_role_of_one_s_own_is_json_and_may_do_to_rules_what_the_code_does() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    actions = json.loads(text)["Actions"]
    rule = "Microsoft.DBforPostgreSQL/flexibleServers/firewallRules"
    assert {f"{rule}/{verb}" for verb in ("read", "write", "delete")} < set(actions)
    assert not any(action.endswith("*") for action in actions)
