"""What can be asked of a Container App and done with it, in az's words; `az` starts it.

Measured with azure-cli 2.91.0: `update --yaml` is a merge patch that wants the app to be there, `create --yaml` makes it. Both
print what came about, so nothing is asked to be printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import shell
from scripts.az import Az, Question
from scripts.containerapp import resource_parts

_WAITING = 1800.0  # seconds for az to see an update through


@dataclass(frozen=True, kw_only=True)
class App:
    """Which Container App is meant."""

    name: str
    group: str
    subscription: str

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments that name it."""
        return ("--name", self.name, "--resource-group", self.group, "--subscription", self.subscription)


@dataclass(frozen=True, kw_only=True)
class Revision:
    """How one revision of an app is doing.

    Source of the states: https://learn.microsoft.com/azure/container-apps/revisions#revision-lifecycle.
    """

    name: str
    provisioning: str
    running: str
    health: str
    error: str

    @property
    def is_healthy(self) -> bool:
        """Whether it runs, or would at the first request."""
        return self.provisioning == "Provisioned" and self.health in ("Healthy", "") and self.running in _RUNS

    @property
    def has_failed(self) -> bool:
        """Whether it will not come to run any more."""
        return self.provisioning == "Failed" or self.running in ("Failed", "ActivationFailed")

    def __str__(self) -> str:
        states = dict.fromkeys((self.provisioning, self.running, self.health))
        return ", ".join(filter(None, states)) + (f": {self.error}" if self.error else "")


_RUNS = ("Running", "RunningAtMaxScale", "ScaledToZero")


def show(app: App) -> Question[dict[str, Any]]:
    """The app as Azure has it, its secrets with their values, which stay in this process."""
    return Question(("containerapp", "show", *app.words, "--show-secrets", "--output", "json"), json.loads)


def revisions(app: App) -> Question[list[Revision]]:
    """The active and the failed revisions."""
    return Question(("containerapp", "revision", "list", *app.words, "--all", "--output", "json"), _revisions)


def create(az: Az, app: App, file: Path) -> None:
    """Makes the app of a YAML file."""
    az.do("containerapp", "create", *app.words, "--yaml", str(file), "--output", "none", timeout=_WAITING)


def update(az: Az, app: App, file: Path) -> None:
    """Changes the app to what a YAML file says, lists as a whole."""
    az.do("containerapp", "update", *app.words, "--yaml", str(file), "--output", "none", timeout=_WAITING)


def assign(az: Az, app: App, identities: list[str]) -> None:
    """Gives the app identities: `update --yaml` drops the empty mappings by which a file names them."""
    words = ("containerapp", "identity", "assign", *app.words, "--user-assigned", *identities)
    az.do(*words, "--output", "none", timeout=_WAITING)


def refer_to_vault(az: Az, app: App, secrets: Sequence[Mapping[str, str]]) -> None:
    """Has secrets of an app be read in a Key Vault. Their addresses are no secrets."""
    words = [f"{one['name']}=keyvaultref:{one['keyVaultUrl']},identityref:{one['identity']}" for one in secrets]
    az.do("containerapp", "secret", "set", *app.words, "--secrets", *words, "--output", "none", timeout=_WAITING)


def environment(resource: str) -> Question[bool]:
    """Whether there is an environment of this id (nothing: there isn't)."""
    subscription, group, name = resource_parts(resource)
    words = ("containerapp", "env", "show", "--name", name, "--resource-group", group, "--subscription", subscription)
    return Question((*words, "--output", "none"), lambda out: True)


def by_flags(app: App, tree: Mapping[str, Any], identities: list[str]) -> str:
    """The command that makes an app with identities, and with Azure's example image in the container of the template."""
    properties = tree["properties"]
    container = properties["template"]["containers"][0]["name"]
    words = ("--environment", properties["environmentId"], "--container-name", container, "--user-assigned", *identities)
    return f"az containerapp create {_typed(app)} {' '.join(map(shell.quoted, (*words, '--output', 'none')))}"


def go_back(app: App, revision: str) -> str:
    """The command that makes a new revision like a former one."""
    return f"az containerapp revision copy {_typed(app)} --from-revision {revision}"


def logs(app: App, revision: str) -> str:
    """The command that shows why a revision doesn't come to run."""
    return f"az containerapp logs show {_typed(app)} --revision {revision} --type system"


def _typed(app: App) -> str:
    return " ".join(map(shell.quoted, app.words))


def _revisions(out: str) -> list[Revision]:
    return [_revision(item) for item in json.loads(out)]


def _revision(facts: Mapping[str, Any]) -> Revision:
    properties = facts["properties"]
    return Revision(
        name=facts["name"],
        provisioning=properties.get("provisioningState") or "",
        running=properties.get("runningState") or "",
        health=(properties.get("healthState") or "").removesuffix("None"),
        error=properties.get("provisioningError") or properties.get("runningStateDetails") or "",
    )
