"""The workflows keep the rules, and the rules see what they are for."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import yaml

from scripts import PRODUCT, github
from tests.conftest import ROOT
from tests.policy import workflows


def test_the_workflows_keep_every_rule() -> None:
    assert workflows.problems(workflows.read()) == []


def test_there_are_no_actions_of_our_own_that_the_rules_would_have_to_walk_too() -> None:
    assert [path.relative_to(ROOT) for path in (ROOT / ".github").rglob("action.y*ml")] == []
    assert {path.suffix for path in workflows.FOLDER.iterdir()} == {".yml"}


def test_updates_wait_a_week() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip"}
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)


def test_the_preflight_is_told_of_everything_that_another_step_is_told() -> None:
    told = {name for command, env in workflows.TOLD.items() for name in env if command != "github.check"} - {"TMPDIR"}
    login = {"AZURE_CLIENT_ID", "AZURE_TENANT_ID"}
    assert told | login == {entry.name for entry in github.EVERYTHING}


def test_what_is_deleted_in_the_end_is_what_the_commands_make() -> None:
    assert f'"${{RUNNER_TEMP:?}}"/{PRODUCT}-*' in workflows.STEPS[-2][0]


# One step, one job and one workflow that no pull request may reach; each is added to the workflows that stand.
ADDED: dict[str, str] = {
    "a secret by its name": "env: {A: '${{ secrets.POSTGRES_DSN }}'}",
    "a secret by index": "env: {A: \"${{ secrets['POSTGRES_DSN'] }}\"}",
    "a secret by a computed index": "env: {A: \"${{ secrets[format('POSTGRES_{0}', 'DSN')] }}\"}",
    "all secrets": "env: {A: '${{ toJSON(secrets) }}'}",
    "all secrets in capitals": "env: {A: '${{ TOJSON( Secrets ) }}'}",
    "a secret in a condition": "if: secrets.POSTGRES_DSN != ''",
    "a secret handed to an action": "with: {token: '${{ secrets.POSTGRES_DSN }}'}",
    "a secret in a script": "run: echo '${{ secrets.POSTGRES_DSN }}'",
    "the job's token": "env: {A: '${{ github.token }}'}",
    "all that GitHub tells, with the token": "env: {A: '${{ toJSON(github) }}'}",
    "the job's token by index": "env: {A: \"${{ github['token'] }}\"}",
}


def ci_with(job: dict[str, Any], **changes: Any) -> dict[str, str]:
    """The workflows, and one more that a pull request starts."""
    job = {"runs-on": "ubuntu-24.04", "timeout-minutes": 5, "permissions": {}, **job}
    base = {"on": {"pull_request": None}, "permissions": {}, "concurrency": {"group": "more"}, "jobs": {"more": job}}
    return {**workflows.read(), "more.yml": yaml.safe_dump({**base, **changes}, sort_keys=False)}


def test_one_more_workflow_that_keeps_the_rules_is_welcome() -> None:
    assert workflows.problems(ci_with({"steps": [{"run": "echo"}]})) == []


@pytest.mark.parametrize("step", ADDED.values(), ids=ADDED)
def test_no_step_of_a_pull_request_sees_a_secret(step: str) -> None:
    found = workflows.problems(ci_with({"steps": [{"run": "echo", **yaml.safe_load(step)}]}))
    assert any("more.yml: a secret at" in problem for problem in found), found
    assert "more.yml: a pull request reaches a secret, an environment or a right to write" in found


@pytest.mark.parametrize(
    "job",
    [
        {"permissions": {"id-token": "write"}},
        {"permissions": "write-all"},
        {"permissions": {"contents": "write"}},
        {"environment": "production"},
        {"environment": {"name": "production"}},
    ],
    ids=str,
)
def test_no_job_of_a_pull_request_has_a_right_or_an_environment(job: dict[str, Any]) -> None:
    found = workflows.problems(ci_with({**job, "steps": [{"run": "echo"}]}))
    assert "more.yml: a pull request reaches a secret, an environment or a right to write" in found


@pytest.mark.parametrize(
    "event", ["pull_request_target", "issue_comment", "workflow_run", "issues", "discussion_comment", "repository_dispatch"]
)
@pytest.mark.parametrize("shape", [str, lambda event: [event], lambda event: {event: None}], ids=["text", "list", "mapping"])
def test_an_event_that_anybody_can_cause_is_refused_even_without_a_secret(event: str, shape: Any) -> None:
    found = workflows.problems(ci_with({"steps": [{"run": "echo"}]}, on=shape(event)))
    assert found == [f"more.yml: {event} can be caused by anybody and run with the repository's rights"]


@pytest.mark.parametrize("secrets", ["inherit", {"POSTGRES_DSN": "${{ secrets.POSTGRES_DSN }}"}, {}], ids=str)
def test_a_workflow_that_is_called_gets_no_secret(secrets: Any) -> None:
    called = {"uses": f"a/b/.github/workflows/c.yml@{'0' * 40}", "secrets": secrets, "permissions": {}}
    found = workflows.problems(ci_with(called))
    assert "more.yml: a secret at /jobs/more/secrets" in found


def test_a_workflow_of_others_is_pinned() -> None:
    found = workflows.problems(ci_with({"uses": "a/b/.github/workflows/c.yml@main", "permissions": {}}))
    assert "more.yml: more: a/b/.github/workflows/c.yml@main isn't pinned to a commit" in found


def test_a_workflow_that_is_called_is_reached_by_whatever_reaches_its_caller() -> None:
    """Also over one between the two."""
    text = ci_with({"uses": "./.github/workflows/between.yml", "permissions": {}})
    between = {"uses": "./.github/workflows/deploy.yml", "permissions": {}}
    text["between.yml"] = ci_with(between, on={"workflow_call": None})["more.yml"]
    text["deploy.yml"] = text["deploy.yml"].replace("  workflow_dispatch:\n", "  workflow_dispatch:\n  workflow_call:\n")
    found = workflows.problems(text)
    assert "deploy.yml: a pull request reaches a secret, an environment or a right to write" in found


def test_a_secret_is_told_to_its_own_step_alone() -> None:
    text = workflows.read()
    wrong = textwrap.indent("POSTGRES_DSN: ${{ secrets.POSTGRES_DSN }}\n", " " * 10)
    place = "        run: python3 scripts/bootstrap.py invoke migrate --open-firewall"
    assert place in text["deploy.yml"]
    text["deploy.yml"] = text["deploy.yml"].replace(place, wrong + place)
    assert "deploy.yml: a secret at /jobs/deploy/steps/3/env/POSTGRES_DSN" in workflows.problems(text)
