"""What can be asked of a workflow's identity and done with it, in az's words: `az` starts them, or an owner who is shown them.

A user-assigned identity, and no app registration: that would take rights in the directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.az import Question
from scripts.containerapp import resource_parts
from scripts.shell import quoted
from scripts.wiring import AUDIENCE, ISSUER, Assignment, Credential, Identity


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which identity is meant."""

    name: str
    group: str
    subscription: str

    def words(self, flag: str = "--name") -> tuple[str, ...]:
        """The arguments that name it; `flag` is the one that az has for its name."""
        return (flag, self.name, "--resource-group", self.group, "--subscription", self.subscription)


def at(resource: str) -> Place:
    """The identity of a resource id."""
    subscription, group, name = resource_parts(resource)
    return Place(name=name, group=group, subscription=subscription)


def show(place: Place) -> Question[Identity]:
    """The identity."""
    return Question(("identity", "show", *place.words(), "--output", "json"), read)


def credentials(place: Place) -> Question[tuple[Credential, ...]]:
    """Whose tokens it takes."""
    words = ("identity", "federated-credential", "list", *place.words("--identity-name"), "--output", "json")
    return Question(words, lambda out: tuple(map(_credential, json.loads(out))))


def granted(place: Place, principal: str) -> Question[frozenset[tuple[str, str]]]:
    """The roles that it has in its subscription, by id and scope, in small letters. Their names are not asked for."""
    plain = ("--fill-principal-name", "false", "--fill-role-definition-name", "false")
    words = ("role", "assignment", "list", "--all", "--assignee-object-id", principal, "--subscription", place.subscription)
    return Question((*words, *plain, "--output", "json"), _granted)


def create(place: Place) -> tuple[str, ...]:
    """What makes the identity, in the region of its group."""
    return ("identity", "create", *place.words())


def federate(place: Place, name: str, subject: str) -> tuple[str, ...]:
    """What has the identity take GitHub's tokens of one subject, whatever the credential of that name said before."""
    words = ("identity", "federated-credential", "create", "--name", name, *place.words("--identity-name"))
    return (*words, "--issuer", ISSUER, "--subject", subject, "--audiences", AUDIENCE)


def grant(principal: str, wanted: Assignment) -> tuple[str, ...]:
    """What gives it a role. Its kind is said, so that neither the directory is asked nor its copies are waited for."""
    whom = ("--assignee-object-id", principal, "--assignee-principal-type", "ServicePrincipal")
    return ("role", "assignment", "create", *whom, "--role", wanted.role.id, "--scope", wanted.scope)


def command(words: tuple[str, ...]) -> str:
    """A call as a shell takes it, for somebody else to run."""
    return " ".join(["az", *map(quoted, words)])


def read(out: str) -> Identity:
    """An identity as az prints it."""
    facts = json.loads(out)
    return Identity(name=facts["name"], client=facts["clientId"], tenant=facts["tenantId"], principal=facts["principalId"])


def _credential(facts: Mapping[str, Any]) -> Credential:
    audiences = tuple(facts.get("audiences") or ())
    return Credential(facts["name"], facts.get("issuer") or "", facts.get("subject") or "", audiences)


def _granted(out: str) -> frozenset[tuple[str, str]]:
    listed = json.loads(out)
    return frozenset((item["roleDefinitionId"].rpartition("/")[2].lower(), item["scope"].lower()) for item in listed)
