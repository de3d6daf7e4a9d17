"""`invoke github.setup`, with the real az on an emulated Azure and the real gh on a GitHub of our own."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from scripts import github, wiring
from scripts.github import CREDENTIAL, IDENTITY
from tests.azure.resources import PROVIDER, SUBSCRIPTION, Json
from tests.azure.world import World, failed, writes
from tests.github import Environment, GitHub, serving

TOKEN = secrets.token_hex(8)  # the part of the passwords that is found nowhere by chance
PASSWORD = quote(f":/@%#?&'\"\\$ =ü密🔑{TOKEN}", safe="")
HOST = "s.postgres.database.azure.com:5432/serving?sslmode=require"
ADMIN, APP = (f"postgresql://{user}:{PASSWORD}@{HOST}" for user in ("serving_admin", "backtest_service"))
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
SUBJECT = "repo:o/r:environment:production"
SECRETS = "/repos/o/r/environments/production/secrets"
PLACES = sorted(
    (role.id, f"{GROUP}{inner}".lower())
    for role, inner in (
        (wiring.APPS, ""),
        (wiring.CONTRIBUTOR, f"/providers/{PROVIDER}/flexibleServers/serving"),
        (wiring.IDENTITIES, "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"),
    )
)


@dataclass
class Team:
    """A user who is logged in to both, with a server, an environment for apps, and settings."""

    world: World
    github: GitHub

    def setup(self, *words: str, code: int = 0, **env: str) -> str:
        """What `invoke github.setup --yes WORDS` said; no secret is anywhere."""
        result = self.world.invoke("github.setup", *words, env=env)
        assert result.returncode == code, result.stdout + result.stderr
        traces = {**self.world.traces(), "output": result.stdout + result.stderr}
        assert [name for name, text in traces.items() if TOKEN in text] == []
        assert "Traceback" not in result.stderr
        return result.stdout + result.stderr

    def done(self, *words: str, code: int = 0, **env: str) -> dict[str, Any]:
        """The document of a run."""
        said = self.setup("--yes", "--json", *words, code=code, **env)
        document = json.JSONDecoder().raw_decode(said[said.index("{") :])[0]
        assert isinstance(document, dict)
        return document

    @property
    def environment(self) -> Environment:
        return self.github.environments["production"]

    @property
    def identity(self) -> Json:
        path = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{IDENTITY}"
        properties: Json = self.world.emulator.container.identities[path.lower()]["properties"]
        return properties

    @property
    def credentials(self) -> dict[str, Json]:
        """The federated credentials of the identity."""
        path = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{IDENTITY}"
        found = self.world.emulator.state.credentials.get(path.lower(), {})
        return {name: item["properties"] for name, item in found.items()}

    @property
    def roles(self) -> list[tuple[str, str]]:
        """Those of the identity, with their scopes."""
        given = [item["properties"] for item in self.world.emulator.state.assignments.values()]
        principal = self.identity["principalId"]
        return sorted(
            (item["roleDefinitionId"].rpartition("/")[2], item["scope"].lower())
            for item in given
            if item["principalId"] == principal
        )

    def written(self) -> tuple[list[str], list[str]]:
        return writes(self.world.emulator), self.github.writes


@pytest.fixture
def team(world: World) -> Iterator[Team]:
    emulator = world.emulator
    emulator.add_group("rg")
    emulator.add_server("rg", "serving")
    with serving(world.home) as made:
        world.env |= made.env | {
            "AZURE_RESOURCE_GROUP": "rg",
            "POSTGRES_SERVER_NAME": "serving",
            "CONTAINER_APP_NAME": "api",
            "CONTAINER_APP_ENVIRONMENT": emulator.add_environment("env")["id"],
            "CONTAINER_APP_IDENTITY": emulator.add_identity("puller"),
            "CONTAINER_REGISTRY": "registry.azurecr.io",
            "API_IMAGE": "registry.azurecr.io/api:1",
            "POSTGRES_ADMIN_DSN": ADMIN,
            "POSTGRES_DSN": APP,
            "GH_REPO": f"{made.address}/o/r",
            "AZURE_CLIENT_ID": "somebody else's",
        }
        world.env["NO_PROXY"] = "127.0.0.1,localhost"
        yield Team(world, made)


def test_from_nothing_and_once_more(team: Team) -> None:
    document = team.done()
    assert document["missing"] == document["left"] == []
    assert team.environment.policy == {"protected_branches": False, "custom_branch_policies": True}
    assert list(team.environment.branches.values()) == [("main", "branch")]
    assert team.github.secrets == {f"{SECRETS}/POSTGRES_ADMIN_DSN": ADMIN, f"{SECRETS}/POSTGRES_DSN": APP}
    from_identity = {"AZURE_CLIENT_ID": team.identity["clientId"], "AZURE_TENANT_ID": team.identity["tenantId"]}
    names = {entry.name for entry in github.needed(from_key_vault=False) if not entry.is_secret}
    assert team.environment.variables == {name: team.world.env[name] for name in names - set(from_identity)} | from_identity
    assert team.credentials == {
        CREDENTIAL: {"issuer": wiring.ISSUER, "subject": SUBJECT, "audiences": ["api://AzureADTokenExchange"]}
    }
    assert team.roles == PLACES

    # What the workflow begins with finds it so.
    shown = {**team.environment.variables, "POSTGRES_ADMIN_DSN": "set", "POSTGRES_DSN": "set"}
    assert team.world.invoke("github.check", env=shown).returncode == 0

    before = team.written()
    team.world.forget_calls()
    again = team.done()
    assert again["steps"] == []
    assert team.written() == before
    assert len(team.world.calls("az")) == 3


def test_a_plan_writes_nothing(team: Team) -> None:
    before = team.written()
    said = team.setup("--plan", POSTGRES_DSN="")
    assert team.written() == before
    for text in (
        "identity github-deploy",
        f"credential {CREDENTIAL}",
        "role Contributor",
        "policy main",
        "secret POSTGRES_ADMIN_DSN",
    ):
        assert text in said
    assert "missing: the secret POSTGRES_DSN" in said
    assert "nothing is written" in said


def test_it_is_asked_for_and_refused_where_nobody_is_there(team: Team) -> None:
    before = team.written()
    result = team.world.invoke("github.setup")
    failed(result, 2, "Nobody is at the terminal", "next:  invoke github.setup --yes")
    assert team.written() == before


def test_what_stands_already_is_completed_and_corrected(team: Team) -> None:
    emulator, environment = team.world.emulator, Environment()
    team.github.environments["production"] = environment
    reviewers = [{"type": "Team", "id": 7}]
    environment.rules = {"wait_timer": 30, "reviewers": reviewers, "prevent_self_review": True}
    environment.variables = {f"OTHER_{number}": "x" for number in range(35)} | {"API_IMAGE": "old", "AZURE_CLIENT_ID": "old"}
    team.github.secrets[f"{SECRETS}/POSTGRES_DSN"] = "kept"
    emulator.add_identity(IDENTITY)
    identity = ("--identity-name", IDENTITY, "--resource-group", "rg", "--issuer", wiring.ISSUER, "--subject")
    for name, subject in ((CREDENTIAL, "repo:o/r:ref:refs/heads/main"), ("other", "repo:o/other:environment:production")):
        assert (
            team.world.run("az", "identity", "federated-credential", "create", "--name", name, *identity, subject).returncode == 0
        )
    principal = team.identity["principalId"]
    given = ("--assignee-object-id", principal, "--assignee-principal-type", "ServicePrincipal", "--scope", GROUP)
    for role in (wiring.APPS.id, wiring.IDENTITIES.id):
        assert team.world.run("az", "role", "assignment", "create", "--role", role, *given).returncode == 0
    team.world.forget_calls()

    document = team.done()
    assert environment.rules == {"wait_timer": 30, "reviewers": reviewers, "prevent_self_review": True}
    assert [name for name, _ in environment.branches.values()] == ["main"]
    assert environment.variables["API_IMAGE"] == team.world.env["API_IMAGE"]
    assert environment.variables["AZURE_CLIENT_ID"] == team.identity["clientId"]
    assert len([name for name in environment.variables if name.startswith("OTHER_")]) == 35
    assert team.github.secrets == {f"{SECRETS}/POSTGRES_DSN": "kept", f"{SECRETS}/POSTGRES_ADMIN_DSN": ADMIN}
    assert team.credentials[CREDENTIAL]["subject"] == SUBJECT
    roles = [step["name"] for step in document["steps"] if step["kind"] == "role"]
    assert roles == ["Contributor"], "what it has on the group reaches what is in it"
    assert any("repo:o/other:environment:production" in note for note in document["notes"])
    assert any("POSTGRES_DSN is set" in note for note in document["notes"])

    environment.branches[99] = ("release/*", "branch")
    environment.branches[98] = ("main", "tag")
    document = team.done("--set-secrets")
    assert [(step["action"], step["kind"], step["name"]) for step in document["steps"]] == [
        ("remove", "policy", "release/*"),
        ("remove", "policy", "main"),
        ("change", "secret", "POSTGRES_ADMIN_DSN"),
        ("change", "secret", "POSTGRES_DSN"),
    ]
    assert [name for name, kind in environment.branches.values() if kind == "branch"] == ["main"]
    assert len(environment.branches) == 1
    assert team.github.secrets[f"{SECRETS}/POSTGRES_DSN"] == APP


def test_a_login_that_may_give_no_roles_does_the_rest_and_says_what_an_owner_runs(team: Team) -> None:
    refusal = team.world.emulator.fail("PUT", "/roleAssignments/", "forbidden", times=None)
    document = team.done(code=3)
    assert team.roles == []
    assert team.github.secrets == {f"{SECRETS}/POSTGRES_ADMIN_DSN": ADMIN, f"{SECRETS}/POSTGRES_DSN": APP}
    assert team.environment.variables["AZURE_CLIENT_ID"] == team.identity["clientId"]
    assert CREDENTIAL in team.credentials
    assert len(document["left"]) == 3
    assert all(command in document["error"] for command in document["left"])
    assert "github.setup --yes --json" in document["hint"]

    refusal.times = 0
    for command in document["left"]:
        assert team.world.run(*shlex.split(command)).returncode == 0, command
    assert team.roles == PLACES
    team.world.forget_calls()
    assert team.done()["steps"] == []


def test_a_login_that_may_make_no_identity_does_what_github_needs(team: Team) -> None:
    team.world.emulator.fail("PUT", f"/userAssignedIdentities/{IDENTITY}$", "forbidden", times=None)
    document = team.done(code=3)
    assert document["left"] == [f"az identity create --name {IDENTITY} --resource-group rg --subscription {SUBSCRIPTION}"]
    assert set(team.github.secrets) == {f"{SECRETS}/POSTGRES_ADMIN_DSN", f"{SECRETS}/POSTGRES_DSN"}
    assert "AZURE_CLIENT_ID" not in team.environment.variables


def test_what_is_set_nowhere_is_named_at_once_when_the_rest_is_done(team: Team) -> None:
    local = APP.replace("s.postgres.database.azure.com", "localhost")
    document = team.done(code=3, API_IMAGE="", POSTGRES_ADMIN_DSN="", POSTGRES_DSN=local)
    assert document["missing"] == ["POSTGRES_ADMIN_DSN", "API_IMAGE", "POSTGRES_DSN"]
    for text in (
        "gh secret set POSTGRES_ADMIN_DSN --env production --repo o/r",
        "gh variable set API_IMAGE --env production --repo o/r --body VALUE",
        "POSTGRES_DSN (environment) leads to this machine",
    ):
        assert text in document["error"]
    assert team.github.secrets == {}
    assert team.roles == PLACES
    assert team.environment.variables["CONTAINER_APP_NAME"] == "api"

    # What GitHub has already needn't be set here.
    team.github.secrets |= {f"{SECRETS}/POSTGRES_ADMIN_DSN": "x", f"{SECRETS}/POSTGRES_DSN": "x"}
    team.environment.variables["API_IMAGE"] = "x"
    team.world.env |= {entry.name: "" for entry in github.EVERYTHING}
    assert team.done()["steps"] == []


def test_without_a_group_what_azure_needs_is_left_and_azure_is_not_asked(team: Team) -> None:
    document = team.done(code=3, AZURE_RESOURCE_GROUP="")
    assert document["missing"] == ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_RESOURCE_GROUP"]
    assert team.world.calls("az") == []
    assert set(team.github.secrets) == {f"{SECRETS}/POSTGRES_ADMIN_DSN", f"{SECRETS}/POSTGRES_DSN"}


def test_with_a_key_vault_the_dsn_goes_nowhere(team: Team) -> None:
    url = "https://v.vault.azure.net/secrets/POSTGRES-DSN"
    document = team.done("--from-key-vault", code=3, POSTGRES_DSN_SECRET_URL=url, AZURE_RESOURCE_GROUP="")
    assert document["missing"] == ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_RESOURCE_GROUP"]
    assert set(team.github.secrets) == {f"{SECRETS}/POSTGRES_ADMIN_DSN"}
    assert team.environment.variables["POSTGRES_FROM_KEY_VAULT"] == "on"
    assert team.environment.variables["POSTGRES_DSN_SECRET_URL"] == url


@pytest.mark.parametrize(
    "said",
    [
        {"use_default": True, "use_immutable_subject": False, "sub_claim_prefix": "repo:o@12/r@34"},
        {"use_default": True, "use_immutable_subject": True},
        {"use_default": False, "include_claim_keys": ["repo", "context"], "sub_claim_prefix": "repo:o@12/r@34"},
    ],
    ids=["prefix", "ids", "named as the default"],
)
def test_the_subject_is_what_github_puts_into_its_tokens(team: Team, said: Json) -> None:
    team.github.subject = said
    document = team.done("--repo", "O/R", "--plan", AZURE_RESOURCE_GROUP="")  # so that az isn't asked
    assert document["repository"] == "o/r"
    assert document["subject"] == "repo:o@12/r@34:environment:production"


def test_a_subject_of_other_claims_is_refused(team: Team) -> None:
    team.github.subject = {"use_default": False, "include_claim_keys": ["job_workflow_ref"]}
    before = team.written()
    said = team.setup("--yes", code=1)
    assert "job_workflow_ref" in said
    assert "gh api --method PUT repos/o/r/actions/oidc/customization/sub -F use_default=true" in said
    assert team.written() == before


def test_a_plan_of_github_s_without_reviewers_does(team: Team) -> None:
    team.github.has_plan = False
    team.done(code=3, AZURE_RESOURCE_GROUP="")
    assert [name for name, _ in team.environment.branches.values()] == ["main"]


@pytest.mark.parametrize(
    ("words", "env", "code", "texts"),
    [
        ((), {"GH_ENTERPRISE_TOKEN": "wrong"}, 1, ("Bad credentials", "gh auth login")),
        ((), {"GH_ENTERPRISE_TOKEN": ""}, 1, ("gh auth login",)),
        (("--repo", "o/none"), {}, 1, ("there is no repository o/none", "--repo OWNER/NAME")),
        (
            ("--repo", "none"),
            {"CONTAINER_APP_IDENTITY": "puller"},
            2,
            ("2 problems", "OWNER/NAME is meant", "the id of a resource"),
        ),
        ((), {"POSTGRES_DSN": ADMIN}, 2, ("the application's login roles are backtest_service",)),
        (("--server-role", "Contributor"), {}, 2, ("a role's id is meant",)),
    ],
    ids=["wrong token", "not logged in", "no repository", "problems", "another's DSN", "role by name"],
)
def test_what_can_not_be_is_told_before_anything_is_written(
    team: Team, words: tuple[str, ...], env: dict[str, str], code: int, texts: tuple[str, ...]
) -> None:
    before = team.written()
    said = team.setup("--yes", *words, code=code, **env)
    assert [text for text in texts if text not in said] == []
    assert team.written() == before


def test_a_login_of_azure_s_that_has_expired_leaves_github_as_it_is(team: Team) -> None:
    team.world.emulator.expire_login()
    before = team.written()
    assert "az login" in team.setup("--yes", code=1)
    assert team.written() == before


def test_what_github_refuses_is_told_with_the_command_that_goes_on(team: Team) -> None:
    team.github.refuses = "PUT"
    said = team.setup("--yes", code=1)
    assert "make environment production: GitHub refuses PUT repos/o/r/environments/production" in said
    assert "Resource not accessible by personal access token" in said
    assert "then: invoke github.setup --yes" in said
    team.github.refuses = ""
    assert team.done()["steps"][0]["kind"] == "environment", "what Azure has is not made again"


def test_a_server_that_is_not_there_yet_is_left_with_the_command_for_later(team: Team) -> None:
    document = team.done("--server-name", "to-come", code=3)
    (command,) = document["left"]
    assert command.endswith(f"--role {wiring.CONTRIBUTOR.id} --scope {GROUP}/providers/{PROVIDER}/flexibleServers/to-come")
    assert "when what they name is there" in document["hint"]
    assert len(team.roles) == 2
    team.world.emulator.add_server("rg", "to-come")
    assert [step["name"] for step in team.done("--server-name", "to-come")["steps"]] == ["Contributor"]
