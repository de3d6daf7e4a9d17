"""The only module that knows gh's words and what GitHub's answers look like.

Variables and environments go through `gh api`, so that a gh without `gh variable` (before 2.31) does as well; a secret through
`gh secret set`, which encrypts it on this machine. A secret's value goes to gh's stdin and stands in no argv.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from scripts import shell
from scripts.dsn import clean_env
from scripts.errors import OpsError, UsageError
from scripts.secret import Secret
from scripts.shell import Result
from scripts.wiring import Environment, Policy

LOGIN_HINT = "gh auth login, or a token in GH_TOKEN; `gh auth status` says"
INSTALL_HINT = "install it: https://cli.github.com"
_TIMEOUT = 60.0  # seconds for one answer
_HERE = "{owner}/{repo}"  # which gh fills in from the folder that it is started in


class Gh:
    """gh, started where the user is: without a name, the repository of that folder is meant."""

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        run: shell.Run = shell.run,
        run_together: Callable[..., list[Result]] = shell.run_together,
    ) -> None:
        self._path_env = env
        self._env = {**clean_env(env), "GH_PROMPT_DISABLED": "1"}
        self._run = run
        self._run_together = run_together

    @property
    def is_there(self) -> bool:
        """Whether there is a gh on PATH."""
        return shell.which("gh", self._path_env) is not None

    def secret(
        self, verb: str, *words: str, environment: str | None = None, repo: str | None = None, value: Secret | None = None
    ) -> Result:
        """`gh secret VERB`, for a repository or for an environment of it."""
        where = [f"--env={environment}"] if environment else []
        where += [f"--repo={repo}"] if repo else []
        return self._call("secret", verb, *words, *where, stdin=value.reveal() if value else "")

    def repository(self, name: str | None) -> tuple[str, str]:
        """The repository's name as GitHub writes it, and how the subject of its OIDC tokens begins.

        The subject has the owner's and the repository's ids in it where the repository was made, renamed or moved since July
        2026, or was set so, and the names alone elsewhere; GitHub says which: https://docs.github.com/actions/reference/security/oidc.
        Raises OpsError when there is no such repository, and when its subject is made of other claims.
        """
        if not self.is_there:
            raise UsageError("the gh command is not on PATH", INSTALL_HINT)
        place = f"repos/{name or _HERE}"
        facts, subject = self._ask(place, f"{place}/actions/oidc/customization/sub")
        if facts is None:
            shown = name or "of this folder in GitHub"
            raise OpsError(f"there is no repository {shown}, or the login of gh can't see it", f"--repo OWNER/NAME; {LOGIN_HINT}")
        subject = subject or {}
        full = str(facts["full_name"])
        keys = subject.get("include_claim_keys")
        if not subject.get("use_default", True) and keys and keys != ["repo", "context"]:
            raise OpsError(
                f"the OIDC subject of {full} is made of {', '.join(keys)}, which no federated credential is made for here",
                f"gh api --method PUT repos/{full}/actions/oidc/customization/sub -F use_default=true",
            )
        owner, _, own = full.partition("/")
        named = f"repo:{full}"
        if subject.get("use_immutable_subject"):
            named = f"repo:{owner}@{facts['owner']['id']}/{own}@{facts['id']}"
        return full, subject.get("sub_claim_prefix") or named

    def environment(self, repo: str, name: str) -> Environment | None:
        """An environment of a repository, None where there is none. Raises OpsError."""
        place = _place(repo, name)
        facts, policies, variables, secrets = self._ask(
            place,
            f"{place}/deployment-branch-policies?per_page=100",
            f"{place}/variables?per_page=30",
            f"{place}/secrets?per_page=100",
        )
        if facts is None:
            return None
        return Environment(
            has_policies=bool((facts.get("deployment_branch_policy") or {}).get("custom_branch_policies")),
            policies=tuple(
                Policy(item["id"], item["name"], item.get("type") or "branch")
                for item in (policies or {}).get("branch_policies", [])
            ),
            variables={item["name"]: item["value"] for item in (variables or {}).get("variables", [])},
            secrets=frozenset(item["name"] for item in (secrets or {}).get("secrets", [])),
            rules=dict(_rules(facts.get("protection_rules") or [])),
        )

    def put_environment(self, repo: str, name: str, rules: Mapping[str, Any]) -> None:
        """Makes an environment that has a list of branches of its own, or gives it one.

        What isn't named would be taken away, so the `rules` that it has are named again. Those that it hasn't may not be named:
        where GitHub's plan has no such rules, it refuses that.
        """
        policy = {"protected_branches": False, "custom_branch_policies": True}
        self._do("PUT", _place(repo, name), {**rules, "deployment_branch_policy": policy})

    def allow_branch(self, repo: str, environment: str, branch: str) -> None:
        """Lets a branch deploy to an environment."""
        self._do("POST", f"{_place(repo, environment)}/deployment-branch-policies", {"name": branch})

    def remove_policy(self, repo: str, environment: str, policy: Policy) -> None:
        """Takes a branch, or whatever else a policy names, out of an environment's list."""
        self._do("DELETE", f"{_place(repo, environment)}/deployment-branch-policies/{policy.id}")

    def set_variable(self, repo: str, environment: str, name: str, value: str, *, is_new: bool) -> None:
        """Sets a variable of an environment."""
        place = f"{_place(repo, environment)}/variables"
        method, place = ("POST", place) if is_new else ("PATCH", f"{place}/{name}")
        self._do(method, place, {"name": name, "value": value})

    def set_secret(self, repo: str, environment: str, name: str, value: Secret) -> None:
        """Sets a secret of an environment."""
        result = self.secret("set", name, environment=environment, repo=repo, value=value)
        if result.code != 0:
            raise _failure(f"the secret {name} of {repo} can't be set", result)

    def _ask(self, *places: str) -> list[dict[str, Any] | None]:
        """What GitHub says to GETs, side by side; None for what isn't there."""
        argvs = [["gh", "api", "--paginate", place] if "per_page=" in place else ["gh", "api", place] for place in places]
        results = self._run_together(argvs, env=self._env, timeout=_TIMEOUT)
        return [_answer(place, result) for place, result in zip(places, results, strict=True)]

    def _do(self, method: str, place: str, body: Mapping[str, Any] | None = None) -> None:
        words = ["--input", "-"] if body is not None else []
        result = self._call(
            "api", "--method", method, place, *words, "--silent", stdin=json.dumps(body) if body is not None else ""
        )
        if result.code != 0:
            raise _failure(f"GitHub refuses {method} {place}", result)

    def _call(self, *words: str, stdin: str) -> Result:
        return self._run(["gh", *words], env=self._env, stdin=stdin.encode("utf-8"), timeout=_TIMEOUT)


def _place(repo: str, environment: str) -> str:
    return f"repos/{repo}/environments/{quote(environment, safe='')}"


def _answer(place: str, result: Result) -> dict[str, Any] | None:
    if result.code != 0:
        if "(HTTP 404)" in result.err:
            return None
        raise _failure(f"GitHub can't be asked for {place}", result)
    return _merged(list(_documents(result.out)))


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON documents in a text: gh prints the pages of an answer one behind the other."""
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].lstrip()


def _merged(pages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = dict(pages[0])
    for page in pages[1:]:
        for name, value in page.items():
            whole[name] = [*whole[name], *value] if isinstance(value, list) else value
    return whole


def _rules(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """An environment's protection as a PUT wants it named."""
    for rule in found:
        if rule["type"] == "wait_timer":
            yield "wait_timer", rule["wait_timer"]
        elif rule["type"] == "required_reviewers":
            yield "reviewers", [{"type": item["type"], "id": item["reviewer"]["id"]} for item in rule["reviewers"]]
            if "prevent_self_review" in rule:
                yield "prevent_self_review", rule["prevent_self_review"]


def _failure(what: str, result: Result) -> OpsError:
    said = result.err.strip() or result.out.strip() or f"gh ended with {result.code}"
    hint = f"{LOGIN_HINT}; --repo OWNER/NAME names another repository than this folder's"
    return OpsError(f"{what}: {said}", hint)
