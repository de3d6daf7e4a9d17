"""gh's words, and what GitHub's answers come to, without a gh."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import OpsError, UsageError
from scripts.gh import Gh
from scripts.secret import Secret
from scripts.shell import Result
from scripts.wiring import Environment, Policy
from tests.unit.azure import program_in

NOT_FOUND = Result(code=1, out='{"message":"Not Found"}', err="gh: Not Found (HTTP 404)")
ENVIRONMENT = {
    "protection_rules": [
        {"type": "wait_timer", "wait_timer": 30},
        {"type": "required_reviewers", "reviewers": [{"type": "User", "reviewer": {"id": 7, "login": "her"}}]},
        {"type": "branch_policy"},
    ],
    "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True},
}


def said(*documents: object) -> Result:
    return Result(code=0, out="".join(map(json.dumps, documents)), err="")


@dataclass
class Fake:
    """Answers calls in their order, and notes them."""

    answers: list[Result]
    calls: list[list[str]] = field(default_factory=list)
    stdin: list[bytes] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def run(self, argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout: float) -> Result:
        assert timeout > 0
        self.calls.append(list(argv))
        self.stdin.append(stdin)
        self.env = dict(env)
        return self.answers.pop(0)

    def run_together(self, argvs: Sequence[Sequence[str]], *, env: Mapping[str, str], timeout: float) -> list[Result]:
        return [self.run(argv, env=env, stdin=b"", timeout=timeout) for argv in argvs]


def gh_of(fake: Fake, env: Mapping[str, str]) -> Gh:
    return Gh(env, run=fake.run, run_together=fake.run_together)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    program_in(tmp_path, "gh")
    return {"PATH": str(tmp_path), "POSTGRES_DSN": "a secret", "PGPASSWORD": "a secret"}


def test_an_environment_is_read_with_all_its_pages(env: dict[str, str]) -> None:
    pages = [{"total_count": 2, "variables": [{"name": name, "value": f"{name} {{}}"}]} for name in ("A", "B")]
    policies = {"branch_policies": [{"id": 1, "name": "main"}, {"id": 2, "name": "v*", "type": "tag"}]}
    fake = Fake([said(ENVIRONMENT), said(policies), said(*pages), said({"secrets": [{"name": "S"}]})])
    assert gh_of(fake, env).environment("o/r", "production") == Environment(
        has_policies=True,
        policies=(Policy(1, "main", "branch"), Policy(2, "v*", "tag")),
        variables={"A": "A {}", "B": "B {}"},
        secrets=frozenset({"S"}),
        rules={"wait_timer": 30, "reviewers": [{"type": "User", "id": 7}]},
    )
    assert all(call[:3] == ["gh", "api", "--paginate"] for call in fake.calls[1:])
    assert "a secret" not in fake.env.values()


def test_an_environment_that_is_not_there_is_none(env: dict[str, str]) -> None:
    assert gh_of(Fake([NOT_FOUND] * 4), env).environment("o/r", "production") is None


def test_one_that_can_not_be_asked_for_is_no_missing_one(env: dict[str, str]) -> None:
    refused = Result(code=1, out="", err="gh: Resource not accessible (HTTP 403)")
    with pytest.raises(OpsError, match=r"can't be asked for .*variables.*HTTP 403"):
        gh_of(Fake([said(ENVIRONMENT), NOT_FOUND, refused, NOT_FOUND]), env).environment("o/r", "production")


def test_a_value_goes_by_stdin(env: dict[str, str]) -> None:
    fake = Fake([said()] * 3)
    gh = gh_of(fake, env)
    gh.set_variable("o/r", "production", "A", '@x=\n"', is_new=True)
    gh.set_variable("o/r", "production", "A", "y", is_new=False)
    gh.set_secret("o/r", "production", "S", Secret("a secret"))
    assert [call[1:5] for call in fake.calls] == [
        ["api", "--method", "POST", "repos/o/r/environments/production/variables"],
        ["api", "--method", "PATCH", "repos/o/r/environments/production/variables/A"],
        ["secret", "set", "S", "--env=production"],
    ]
    assert json.loads(fake.stdin[0]) == {"name": "A", "value": '@x=\n"'}
    assert fake.stdin[2] == b"a secret"


@pytest.mark.parametrize(
    ("name", "answer", "subject"),
    [
        (None, {}, "repo:o/r"),
        ("O/R", {"use_default": True}, "repo:o/r"),
        ("O/R", {"use_default": True, "use_immutable_subject": True}, "repo:o@12/r@34"),
        ("O/R", {"use_default": False, "sub_claim_prefix": "repo:o@12/r@34"}, "repo:o@12/r@34"),
    ],
)
def test_the_subject_is_the_one_that_github_names(
    env: dict[str, str], name: str | None, answer: dict[str, Any], subject: str
) -> None:
    fake = Fake([said({"full_name": "o/r", "id": 34, "owner": {"id": 12}}), said(answer) if answer else NOT_FOUND])
    assert gh_of(fake, env).repository(name) == ("o/r", subject)
    assert fake.calls[0] == ["gh", "api", f"repos/{name or '{owner}/{repo}'}"]


def test_without_gh_it_is_said_where_to_get_it() -> None:
    with pytest.raises(UsageError, match="not on PATH") as caught:
        Gh({"PATH": ""}).repository(None)
    assert "https://cli.github.com" in caught.value.hint
