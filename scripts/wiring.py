"""What has to stand in GitHub and in Azure so that a workflow can deploy, against what stands there. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ISSUER, AUDIENCE = "https://token.actions.githubusercontent.com", "api://AzureADTokenExchange"
BRANCH = "main"  # the one that deploys
CLIENT_ID, TENANT_ID = "AZURE_CLIENT_ID", "AZURE_TENANT_ID"  # variables that the identity gives
_RESOURCE = re.compile(r"/subscriptions/[^/\s]+/resourceGroups/[^/\s]+/providers/[^/\s]+(/[^/\s]+)+", re.IGNORECASE)


@dataclass(frozen=True)
class Role:
    """A role of Azure's, by its id, which is the same everywhere, so that az needn't look its name up."""

    name: str
    id: str


# Source: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
APPS = Role("Container Apps Contributor", "358470bc-b998-42bd-ab17-a7e34c199c0f")
IDENTITIES = Role("Managed Identity Operator", "f1a07417-d97a-45cb-824c-7a7467783830")
CONTRIBUTOR = Role("Contributor", "b24988ac-6180-42a0-ab88-20f7382dd24c")


@dataclass(frozen=True)
class Assignment:
    """A role on a resource and what is in it."""

    role: Role
    scope: str

    @property
    def target(self) -> str:
        """The last part of the scope: what people call it."""
        return self.scope.rpartition("/")[2]


@dataclass(frozen=True)
class Policy:
    """Which branches, or tags, an environment takes."""

    id: int
    name: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment of a repository as GitHub has it."""

    has_policies: bool  # or every branch may deploy, or every protected one
    policies: tuple[Policy, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()
    rules: Mapping[str, Any] = field(default_factory=dict)  # reviewers and the like, which stay


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A user-assigned identity as Azure has it."""

    name: str
    client: str
    tenant: str
    principal: str


@dataclass(frozen=True)
class Credential:
    """Whose tokens an identity takes."""

    name: str
    issuer: str
    subject: str
    audiences: tuple[str, ...]

    def fits(self, subject: str) -> bool:
        """Whether it lets this subject of GitHub's in."""
        return (self.issuer.rstrip("/"), self.subject, self.audiences) == (ISSUER, subject, (AUDIENCE,))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for."""

    environment: str
    subject: str
    identity: str | None  # its name; None where it isn't known where it would stand
    credential: str
    assignments: tuple[Assignment, ...]
    variables: Mapping[str, str]
    secrets: tuple[str, ...]  # those that are at hand
    anew: bool = False  # also those that stand there already


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What stands. `granted` are the ids of roles with their scopes."""

    environment: Environment | None = None
    identity: Identity | None = None
    credentials: tuple[Credential, ...] = ()
    granted: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to do."""

    action: str  # make, change, set or remove
    kind: str  # identity, credential, role, environment, policy, variable or secret
    name: str
    why: str = ""
    item: Any = None  # the assignment or the policy


@dataclass(frozen=True)
class Plan:
    """The steps, in their order, and what is said beside them."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str, str]]:
        """For a table."""
        return [(step.action, f"{step.kind} {step.name}", step.why) for step in self.steps]


def assignments(subscription: str, group: str, values: Mapping[str, str], server_role: str | None) -> tuple[Assignment, ...]:
    """The roles without which the workflow couldn't deploy, each on the least that it suffices for.

    `values` are the settings that are known. The group, as an app that isn't there yet has no other scope.
    """
    place = f"/subscriptions/{subscription}/resourceGroups/{group}"
    found = [Assignment(APPS, place)]
    environment, identity = values.get("CONTAINER_APP_ENVIRONMENT"), values.get("CONTAINER_APP_IDENTITY")
    if environment and not _is_in(environment, place):
        found.append(Assignment(APPS, environment))
    if identity:
        found.append(Assignment(IDENTITIES, identity))
    if server := values.get("POSTGRES_SERVER_NAME"):
        role = Role(f"role {server_role}", server_role) if server_role else CONTRIBUTOR
        found.append(Assignment(role, f"{place}/providers/Microsoft.DBforPostgreSQL/flexibleServers/{server}"))
    return tuple(found)


def resource_problem(text: str) -> str | None:
    """What is wrong with the id of a resource."""
    return None if _RESOURCE.fullmatch(text) else f"{text!r}: the id of a resource is meant, /subscriptions/.../NAME"


def plan(wanted: Wanted, seen: Seen) -> Plan:
    """What is missing or differs. Nothing is taken away but what lets other branches than main into the environment."""
    steps = [*_azure(wanted, seen), *_github(wanted, seen)]
    return Plan(tuple(steps), tuple(_notes(wanted, seen)))


def _azure(wanted: Wanted, seen: Seen) -> Iterator[Step]:
    if wanted.identity is None:
        return
    if seen.identity is None:
        yield Step(action="make", kind="identity", name=wanted.identity, why="the workflow has none to log in as")
    if not any(credential.fits(wanted.subject) for credential in seen.credentials):
        old = next((credential for credential in seen.credentials if credential.name == wanted.credential), None)
        why = f"it takes {old.subject or 'other claims'}" if old else "it takes no token of GitHub's for this environment"
        action = "change" if old else "make"
        yield Step(action=action, kind="credential", name=wanted.credential, why=f"for {wanted.subject}: {why}")
    for needed in wanted.assignments:
        if not any(role == needed.role.id.lower() and _is_in(needed.scope, scope) for role, scope in seen.granted):
            yield Step(action="make", kind="role", name=needed.role.name, why=f"on {needed.target}", item=needed)


def _github(wanted: Wanted, seen: Seen) -> Iterator[Step]:
    there = seen.environment
    if there is None or not there.has_policies:
        action, why = ("change", "other branches may deploy") if there else ("make", "there is none")
        yield Step(action=action, kind="environment", name=wanted.environment, why=why)
    policies = there.policies if there else ()
    ours = [policy for policy in policies if (policy.name, policy.kind) == (BRANCH, "branch")]
    if not ours:
        yield Step(action="make", kind="policy", name=BRANCH, why=f"{wanted.environment} is for this branch alone")
    for policy in policies:
        if policy not in ours:
            why = f"the {policy.kind} may deploy to {wanted.environment}, and so reaches its secrets"
            yield Step(action="remove", kind="policy", name=policy.name, why=why, item=policy)
    variables = there.variables if there else {}
    for name, value in _variables(wanted, seen).items():
        if name not in variables:
            yield Step(action="set", kind="variable", name=name, why=value or "as the identity has it", item=True)
        elif variables[name] != value:
            why = f"{variables[name]} -> {value or 'as the identity has it'}"
            yield Step(action="change", kind="variable", name=name, why=why, item=False)
    for name in wanted.secrets:
        is_there = there is not None and name in there.secrets
        if wanted.anew or not is_there:
            yield Step(action="change" if is_there else "set", kind="secret", name=name, why="" if is_there else "it isn't set")


def _variables(wanted: Wanted, seen: Seen) -> dict[str, str | None]:
    """What they are to hold; None for what the identity, which isn't there yet, will give."""
    found: dict[str, str | None] = dict(wanted.variables)
    if wanted.identity is not None:
        found[CLIENT_ID] = seen.identity.client if seen.identity else None
        found[TENANT_ID] = seen.identity.tenant if seen.identity else None
    return found


def _notes(wanted: Wanted, seen: Seen) -> Iterator[str]:
    for credential in seen.credentials:
        if credential.name != wanted.credential and not credential.fits(wanted.subject):
            yield f"{wanted.identity} also takes tokens of {credential.subject or credential.issuer} ({credential.name})"
    needed = {(item.role.id.lower(), item.scope.lower()) for item in wanted.assignments}
    for role, scope in sorted(seen.granted - needed):
        yield f"{wanted.identity} also has the role {role} on {scope}"
    if not wanted.anew and seen.environment:
        for name in wanted.secrets:
            if name in seen.environment.secrets:
                yield f"the secret {name} is set, and what it holds can't be read: it stays (--set-secrets sets it anew)"


def _is_in(scope: str, outer: str) -> bool:
    """Whether a scope is another one, or in it; case says nothing in them."""
    return f"{scope}/".lower().startswith(f"{outer.rstrip('/')}/".lower())
