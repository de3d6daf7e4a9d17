"""The preflight of the deployment: all that is missing in GitHub, at once, and never what is in it."""

from __future__ import annotations

import io
import json

import pytest

from scripts import github
from scripts.console import Console
from scripts.errors import UsageError
from scripts.settings import Sources

NAMES = [entry.name for entry in github.needed(from_key_vault=False)]
ALL = {name: f"the value of {name}" for name in NAMES}
IN_VAULT = {name: value for name, value in ALL.items() if name != "POSTGRES_DSN"} | {
    "POSTGRES_FROM_KEY_VAULT": "on",
    "POSTGRES_DSN_SECRET_URL": "https://v.vault.azure.net/secrets/POSTGRES-DSN",
}


def check(env: dict[str, str], *, in_actions: bool = False, as_json: bool = False) -> tuple[str, str, UsageError | None]:
    """What is printed, and what is raised."""
    out, err, raised = io.StringIO(), io.StringIO(), None
    console = Console(in_actions=in_actions, as_json=as_json, out=out, err=err)
    try:
        github.check(Sources(env, {}, ".env"), console)
    except UsageError as error:
        raised = error
    return out.getvalue(), err.getvalue(), raised


def test_nothing_is_missing() -> None:
    out, err, raised = check(ALL, in_actions=True)
    assert (out, err, raised) == (f"all that the deployment needs is set: {len(NAMES)} secrets and variables\n", "", None)
    assert json.loads(check(ALL, as_json=True)[0]) == {"missing": []}


def test_everything_that_is_missing_is_named_at_once() -> None:
    _, err, raised = check({}, in_actions=True)
    assert raised is not None
    assert raised.exit_code == 2
    assert raised.facts == {"missing": NAMES}
    assert all(f" {name}: " in raised.message for name in NAMES)
    setup, _, by_hand = raised.hint.partition("; by hand: ")
    assert setup == "invoke github.setup sets what is at hand, and makes the identity of AZURE_CLIENT_ID"
    assert by_hand == "gh secret set NAME --env production; gh variable set NAME --env production"
    assert [line.split()[:3] for line in err.splitlines()] == [
        ["::error::the", entry.kind, entry.name] for entry in github.needed(from_key_vault=False)
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("empty", [True, False])
def test_each_is_missed_also_when_it_is_empty_and_no_value_shows(name: str, empty: bool) -> None:
    env = {**ALL, name: ""} if empty else {key: value for key, value in ALL.items() if key != name}
    out, err, raised = check(env, in_actions=True)
    assert raised is not None
    assert raised.facts == {"missing": [name]}
    assert "the value of" not in out + err + raised.message + raised.hint


def test_outside_of_actions_there_are_no_annotations() -> None:
    assert check({})[1] == ""


def test_with_a_key_vault_the_address_of_the_secret_is_needed_instead_of_the_dsn() -> None:
    assert check(IN_VAULT)[2] is None
    raised = check({**IN_VAULT, "POSTGRES_DSN_SECRET_URL": ""})[2]
    assert raised is not None
    assert raised.facts == {"missing": ["POSTGRES_DSN_SECRET_URL"]}
    raised = check({**IN_VAULT, "POSTGRES_FROM_KEY_VAULT": "off"})[2]
    assert raised is not None
    assert raised.facts == {"missing": ["POSTGRES_DSN"]}


@pytest.mark.parametrize("word", ["yes", "ON", "1", " on"])
def test_a_switch_that_the_workflow_would_read_otherwise_is_refused(word: str) -> None:
    _, err, raised = check({**IN_VAULT, "POSTGRES_FROM_KEY_VAULT": word}, in_actions=True)
    assert raised is not None
    assert "on or off is meant" in raised.message
    assert err.startswith("::error::POSTGRES_FROM_KEY_VAULT")


def test_each_has_a_name_of_its_own_and_a_kind() -> None:
    names = [entry.name for entry in github.EVERYTHING]
    assert len(set(names)) == len(names)
    assert [entry.name for entry in github.EVERYTHING if entry.kind == "secret"] == ["POSTGRES_ADMIN_DSN", "POSTGRES_DSN"]
