"""GitHub as the deployment needs it: gh and its login, the environment, whose tokens the workflow's identity takes. Checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scripts import checkup, github, identities, wiring
from scripts.az import Question
from scripts.checkup import Verdict
from scripts.errors import OpsError, some
from scripts.gh import INSTALL_HINT, LOGIN_HINT, Gh
from scripts.identities import Place
from scripts.wiring import Credential, Environment

SET_UP = "github.setup"
PLACE = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_IDENTITY_NAME")  # settings that say where the identity stands
_SHOWN = 4  # names that are listed; of more, the number
# What gh says: https://github.com/cli/cli (pkg/cmdutil/auth_check.go, context/context.go)
_LOGGED_OUT = ("gh auth login", "GH_TOKEN", "Bad credentials", "HTTP 401")
_NOWHERE = ("no git remotes", "none of the git remotes", "not a git repository", "unable to determine base repository")


def login(gh: Gh, repository: Callable[[], tuple[str, str]], *, leads_to_github: bool, flags: str = "") -> Verdict:
    """Whether gh is logged in and sees the repository of this folder. Where nothing leads to GitHub, nothing has to.

    `flags` name the settings again, here and in the other checks.
    """
    if not gh.is_there:
        return checkup.unset("no gh command on PATH; the deployment by GitHub Actions is set up with it", INSTALL_HINT)
    try:
        full, _ = repository()
    except OpsError as error:
        if any(said in error.message for said in _NOWHERE):
            return checkup.unset(
                "this folder has no repository on GitHub", f"gh repo create, then: {checkup.command(SET_UP, flags)}"
            )
        if any(said in error.message for said in _LOGGED_OUT):
            out = "gh is not logged in, or its token has expired"
            return checkup.problem(out, LOGIN_HINT) if leads_to_github else checkup.unset(out, LOGIN_HINT)
        raise
    return checkup.ok(f"logged in, and sees {full}")


def environment(found: Environment | None, flags: str = "") -> Verdict:
    """Whether the deployment's environment is there, for its branch alone, with all that it needs."""
    name, plan = github.ENVIRONMENT, checkup.command(f"{SET_UP} --plan", flags)
    if found is None:
        return checkup.unset(f"no environment {name} yet", plan)
    needed = github.needed(from_key_vault=found.variables.get(github.FROM_KEY_VAULT) == "on")
    missing = [entry.name for entry in needed if entry.name not in (found.secrets if entry.is_secret else found.variables)]
    if missing:
        return checkup.warning(f"the environment {name} lacks {some(missing, _SHOWN)}", plan)
    if not found.has_policies:
        return checkup.warning(f"branches other than {wiring.BRANCH} may deploy to {name}", checkup.command(SET_UP, flags))
    return checkup.ok(f"{name} has all that the deployment needs")


def place(given: dict[str, str], found: Environment | None) -> Place | None:
    """Where the workflow's identity stands, by the settings, else by GitHub's own variables; None where neither says it."""
    name = given.get("AZURE_IDENTITY_NAME", github.IDENTITY)
    for values in (given, found.variables if found else {}):
        subscription, group = values.get("AZURE_SUBSCRIPTION_ID"), values.get("AZURE_RESOURCE_GROUP")
        if subscription and group:
            return Place(name=name, group=group, subscription=subscription)
    return None


def subject(prefix: str, identity: Place | None, ask: Callable[[Question[Any]], Any], flags: str = "") -> Verdict:
    """Whether the identity takes the tokens that GitHub gives the workflow: Azure compares their subject to the letter."""
    if identity is None:
        return checkup.unset(
            "where the workflow's identity stands isn't known", "set AZURE_SUBSCRIPTION_ID and AZURE_RESOURCE_GROUP"
        )
    wanted = f"{prefix}:environment:{github.ENVIRONMENT}"
    credentials: tuple[Credential, ...] | None = ask(identities.credentials(identity))
    if credentials is None:
        said = f"no identity {identity.name} in {identity.group} yet"
        return checkup.unset(said, checkup.command(f"{SET_UP} --plan", flags))
    if any(credential.fits(wanted) for credential in credentials):
        return checkup.ok(f"{identity.name} takes the tokens of {wanted}")
    others = ", ".join(credential.subject or credential.issuer for credential in credentials) or "none"
    return checkup.problem(f"{identity.name} takes no token of {wanted} (it takes {others})", checkup.command(SET_UP, flags))
