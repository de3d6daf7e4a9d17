"""Each safeguard of the workflows is taken away in turn, and the rules notice."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from tests.policy import workflows

TEXT = workflows.read()
DEPLOY, CI = "deploy.yml", "ci.yml"


def with_change(file: str, pattern: str, replacement: str, number: int = 0) -> dict[str, str]:
    """The workflows with one place of a file changed, which must be there."""
    matches = list(re.finditer(pattern, TEXT[file], re.MULTILINE))
    assert len(matches) > number, f"{pattern} isn't found in {file} any more: the mutation has to follow the workflow"
    match = matches[number]
    changed = TEXT[file][: match.start()] + match.expand(replacement) + TEXT[file][match.end() :]
    assert changed != TEXT[file]
    return {**TEXT, file: changed}


@dataclass(frozen=True)
class Everywhere:
    """A change that is tried at each place that the pattern finds, of which there must be `places`."""

    what: str
    file: str
    places: int
    pattern: str
    replacement: str


EVERYWHERE = [
    *(
        Everywhere(what, file, places, pattern, replacement)
        for file, pins, jobs, checkouts, scripts in ((DEPLOY, 2, 1, 1, 6), (CI, 9, 5, 4, 5))
        for what, places, pattern, replacement in (
            ("a tag for a commit", pins, r"@[0-9a-f]{40} # (v\d+)\S*", r"@\1 # \g<0>"),
            ("a short commit", pins, r"(@[0-9a-f]{39})[0-9a-f]", r"\1"),
            ("no version beside a commit", pins, r" # v\d.*$", ""),
            ("a branch for a commit", pins, r"@[0-9a-f]{40}", "@main"),
            ("no timeout", jobs, r"^ +timeout-minutes: .*\n", ""),
            ("a timeout of six hours", jobs, r"timeout-minutes: \d+", "timeout-minutes: 360"),
            ("no permissions: {}", 1, r"^permissions: \{\}\n", ""),
            ("write-all at the top", 1, r"^permissions: \{\}\n", "permissions: write-all\n"),
            ("read-all at the top", 1, r"^permissions: \{\}\n", "permissions: read-all\n"),
            ("no permissions of a job", jobs, r"^    permissions:.*\n(      .*\n)*", ""),
            ("all permissions for a job", jobs, r"^    permissions:.*\n(      .*\n)*", "    permissions: write-all\n"),
            ("a write instead of a read", checkouts, r"contents: read", "contents: write"),
            ("one permission more", checkouts, r"^      contents: read.*\n", r"\g<0>      packages: write\n"),
            ("no persist-credentials", checkouts, r"^        with:\n +persist-credentials: .*\n", ""),
            ("persist-credentials", checkouts, r"persist-credentials: false", "persist-credentials: true"),
            ("another commit", checkouts, r"persist-credentials: false", r"\g<0>\n          ref: other"),
            ("no concurrency", 1, r"^concurrency:\n(  .*\n)+", ""),
            ("no group", 1, r"^  group: .*\n", ""),
            ("no filter of the branch", 1, r"^    branches: \[main\]\n", ""),
            ("every branch", 1, r"branches: \[main\]", "branches: ['**']"),
            ("a branch more", 1, r"branches: \[main\]", "branches: [main, develop]"),
            ("pull_request_target", 1, r"^on:\n", "on:\n  pull_request_target:\n"),
            ("issue_comment", 1, r"^on:\n", "on:\n  issue_comment:\n"),
            ("workflow_run", 1, r"^on:\n", "on:\n  workflow_run:\n    workflows: [other]\n"),
            ("workflow_call", 1, r"^on:\n", "on:\n  workflow_call:\n"),
            ("a failure that counts for nothing", jobs, r"^    timeout-minutes", "    continue-on-error: true\n\\g<0>"),
            ("a secret for every job", 1, r"^jobs:", "env:\n  A: ${{ secrets.POSTGRES_DSN }}\njobs:"),
            ("a secret for a whole job", jobs, r"^    steps:", "    env:\n      A: ${{ secrets.POSTGRES_DSN }}\n    steps:"),
            ("an expression in a script", scripts, r"^( +run: (?!\|).*)$", r"\1 ${{ github.head_ref }}"),
            ("a machine of one's own", jobs, r"runs-on: .*$", "runs-on: self-hosted"),
            ("a machine of any version", jobs, r"runs-on: .*$", "runs-on: ubuntu-latest"),
            ("a container of anybody's", jobs, r"^    steps:", "    container: postgres\n    steps:"),
        )
    ),
    # A step that fails and is passed over; a shell without -e; a script somewhere else.
    Everywhere(
        "a step's failure that counts for nothing", DEPLOY, 6, r"^        run:", "        continue-on-error: true\n\\g<0>"
    ),
    Everywhere("a shell of its own", DEPLOY, 6, r"^        run:", "        shell: bash {0}\n\\g<0>"),
    Everywhere("no always()", DEPLOY, 3, r"^        if: always\(\).*\n", ""),
    Everywhere("a condition on what went before", DEPLOY, 3, r"if: always\(\)", "if: success()"),
    Everywhere("a failure hides the others", CI, 2, r"^ +fail-fast: false\n", ""),
    Everywhere("tests that are left out without Docker", CI, 2, r"^ +REQUIRE_DOCKER: .*\n", ""),
]

# What no pattern of a kind covers: file, what is found, what stands there instead.
ONCE = {
    "a pull request deploys": (DEPLOY, r"^on:\n", "on:\n  pull_request:\n"),
    "a schedule deploys": (DEPLOY, r"^on:\n", "on:\n  schedule:\n    - cron: 0 0 * * *\n"),
    "a tag deploys": (DEPLOY, r"^    branches: \[main\]\n", r"\g<0>    tags: ['*']\n"),
    "no dispatch by hand": (DEPLOY, r"^  workflow_dispatch:\n", ""),
    "no push": (DEPLOY, r"^  push:\n    branches: \[main\]\n", ""),
    "no environment": (DEPLOY, r"^    environment: production\n", ""),
    "another environment": (DEPLOY, r"environment: production", "environment: staging"),
    "any branch by hand": (DEPLOY, r"^    if: github.ref == .*\n", ""),
    "a branch that begins as main": (DEPLOY, r"if: github.ref == .*$", "if: startsWith(github.ref, 'refs/heads/main')"),
    "no id-token": (DEPLOY, r"^      id-token: write.*\n", ""),
    "a deployment that is cut off": (DEPLOY, r"cancel-in-progress: false", "cancel-in-progress: true"),
    "nothing said of cutting off": (DEPLOY, r"^  cancel-in-progress: false\n", ""),
    "a group for each branch": (DEPLOY, r"group: deploy-production", "group: deploy-${{ github.ref }}"),
    "no preflight": (DEPLOY, r"^ +# Is told only.*\n      - name: Preflight\n(        .*\n)+", ""),
    "a preflight that sees a secret": (DEPLOY, r"secrets.POSTGRES_DSN != '' && 'set' \|\| ''", "secrets.POSTGRES_DSN"),
    "a preflight that sees the administrator's": (
        DEPLOY,
        r"secrets.POSTGRES_ADMIN_DSN != '' && 'set' \|\| ''",
        "secrets.POSTGRES_ADMIN_DSN",
    ),
    "a preflight that shows a secret": (DEPLOY, r"secrets.POSTGRES_DSN != '' && 'set'", "secrets.POSTGRES_DSN && 'set'"),
    "a preflight after the login": (
        DEPLOY,
        r"(      - name: Preflight\n(?:        .*\n)+)\n(      - name: Log in to Azure\n(?:        .*\n)+)",
        r"\2\n\1",
    ),
    "a login by a secret": (DEPLOY, r"client-id: .*$", "creds: ${{ secrets.AZURE_CREDENTIALS }}"),
    "masks that nobody reads, migrating": (DEPLOY, r"(invoke migrate --open-firewall)$", r"\1 2>/dev/null"),
    "masks that nobody reads, deploying": (DEPLOY, r"(invoke deploy)$", r"\1 2>/dev/null"),
    "masks that don't come first": (DEPLOY, r"run: (.*invoke deploy)$", r"run: env && \1"),
    "no masks, as outside of Actions": (DEPLOY, r"run: (.*invoke deploy)$", r"run: GITHUB_ACTIONS= \1"),
    "no masks by the environment": (DEPLOY, r"^( +)POSTGRES_DSN: (.*&& secrets.*)$", r"\g<0>\n\1GITHUB_ACTIONS: 'false'"),
    "a program that masks nothing": (DEPLOY, r"run: .*invoke deploy$", 'run: echo "$POSTGRES_DSN"'),
    "the application's DSN for the migration": (
        DEPLOY,
        r"^( +)POSTGRES_ADMIN_DSN: \$\{\{ secrets.POSTGRES_ADMIN_DSN \}\}$",
        r"\g<0>\n\1POSTGRES_DSN: ${{ secrets.POSTGRES_DSN }}",
    ),
    "the administrator's DSN for the deployment": (
        DEPLOY,
        r"^( +)POSTGRES_DSN: (.*&& secrets.*)$",
        r"\g<0>\n\1POSTGRES_ADMIN_DSN: ${{ secrets.POSTGRES_ADMIN_DSN }}",
    ),
    "the DSN although a Key Vault has it": (DEPLOY, r"vars.POSTGRES_FROM_KEY_VAULT != 'on' && secrets", "secrets"),
    "a secret for a later step": (DEPLOY, r"run: rm -rf", "env:\n          A: ${{ secrets.POSTGRES_DSN }}\n        run: rm -rf"),
    "a step of anybody's": (DEPLOY, r"^    steps:\n", r"\g<0>      - run: echo\n"),
    "temporary files elsewhere": (DEPLOY, r"^ +TMPDIR: .*\n", ""),
    "nothing is deleted": (DEPLOY, r"rm -rf -- .*$", "true"),
    "no logout": (DEPLOY, r"^      - name: Log out of Azure\n(        .*\n)+", ""),
    "no closing of the firewall": (DEPLOY, r"^      - name: Close the firewall\n(        .*\n)+", ""),
    "no way through the firewall": (DEPLOY, r" --open-firewall$", ""),
    "a job beside the deployment": (DEPLOY, r"^jobs:\n", "jobs:\n  more:\n    runs-on: ubuntu-24.04\n    steps: [{run: echo}]\n"),
    "a secret in CI": (CI, r'^( +)REQUIRE_DOCKER: "1"$', r"\g<0>\n\1POSTGRES_DSN: ${{ secrets.POSTGRES_DSN }}"),
    "an environment in CI": (CI, r"^    runs-on", r"    environment: production\n\g<0>"),
    "an id-token in CI": (CI, r"^      contents: read.*$", r"\g<0>\n      id-token: write"),
    "the token in CI": (CI, r'^( +)REQUIRE_DOCKER: "1"$', r"\g<0>\n\1GH_TOKEN: ${{ github.token }}"),
    "no pull requests in CI": (CI, r"^  pull_request:\n", ""),
    "some pull requests in CI": (CI, r"^  pull_request:\n", r"\g<0>    paths: [scripts/**]\n"),
    "no pushes in CI": (CI, r"^  push:\n    branches: \[main\]\n", ""),
    "commits of main that make way while they wait": (CI, r"  group: .*$", "  group: ci-${{ github.ref }}"),
    "commits of main that make way": (CI, r"cancel-in-progress: .*$", "cancel-in-progress: true"),
    "a required check that is skipped": (CI, r"^    if: always\(\)\n", ""),
    "a required check when all is well": (CI, r"if: always\(\)", "if: success()"),
    "a required check that asks nobody": (CI, r"jobs: \$\{\{ toJSON\(needs\) \}\}", "jobs: '{}'"),
    "a required check with exceptions": (CI, r"^( +)jobs: \$\{\{ toJSON.*$", r"\g<0>\n\1allowed-failures: azure"),
    "a required check that is none": (CI, r"uses: re-actors/alls-green.*\n(          .*\n|        with:\n)+", "run: 'true'\n"),
    "a job only sometimes": (CI, r"^    strategy:", r"    if: github.actor != 'x'\n\g<0>"),
    "a step only sometimes": (CI, r"^        run: python", r"        if: github.actor != 'x'\n\g<0>"),
    **{f"the required check leaves {name} out": (CI, rf"(needs: \[.*?){name},? ?", r"\1") for name in ("checks", "integration")},
    **{f"the required check leaves {name} out": (CI, rf"(needs: \[.*?), {name}", r"\1") for name in ("azure", "policy")},
    **{
        f"no {session} in CI": (CI, rf"(nox -s .*)\b{session}\b", r"\1lint")
        for session in ("types", "unit", "azure", "long", "policy")
    },
    "no lint in CI": (CI, r"nox -s lint ", "nox -s "),
    "no integration in CI": (CI, r'nox -s "\$SESSION"', "nox -s lint"),
    **{f"no {name} in CI": (CI, rf"(os: .*){name}[^,\]]*(?:, )?", r"\1") for name in ("ubuntu", "macos", "windows")},
    **{f"no Python {name} in CI": (CI, rf'(python: .*)"{name}"(?:, )?', r"\1") for name in workflows.PYTHONS},
    **{f"no PostgreSQL {name} in CI": (CI, rf'(postgres: .*)"{name}"(?:, )?', r"\1") for name in range(14, 19)},
    "no PgBouncer in CI": (CI, r" pgbouncer$", " psql"),
    "no embedded 18 in CI": (CI, r'          - server: embedded-18\n            postgres: "18"\n', ""),
    "one system for all": (CI, r"runs-on: \$\{\{ matrix.os \}\}", "runs-on: ubuntu-24.04"),
    "one Python for all": (CI, r"\$\{\{ matrix.python \}\}$", '"3.13"'),
    "one image for all": (CI, r"postgres:\$\{\{ matrix.postgres \}\}-alpine", "postgres:17-alpine"),
}
# Lines that say what a thing is called, that no safeguard is made of; and the script that builds an image.
HARMLESS = re.compile(r'\s*name: |\s*(#.*)?$|\s+python-version: "3.13"$')


@pytest.mark.parametrize(
    ("mutation", "number"),
    [pytest.param(item, number, id=f"{item.file} {item.what} {number}") for item in EVERYWHERE for number in range(item.places)],
)
def test_a_safeguard_that_is_taken_away_anywhere_is_missed(mutation: Everywhere, number: int) -> None:
    assert workflows.problems(with_change(mutation.file, mutation.pattern, mutation.replacement, number))


@pytest.mark.parametrize("mutation", EVERYWHERE, ids=lambda item: f"{item.file} {item.what}")
def test_no_place_of_it_was_forgotten(mutation: Everywhere) -> None:
    found = re.findall(mutation.pattern, TEXT[mutation.file], re.MULTILINE)
    assert len(found) == mutation.places


@pytest.mark.parametrize(("file", "pattern", "replacement"), ONCE.values(), ids=ONCE)
def test_a_safeguard_that_is_weakened_is_missed(file: str, pattern: str, replacement: str) -> None:
    assert workflows.problems(with_change(file, pattern, replacement))


def lines() -> Iterator[tuple[str, int]]:
    for file, text in TEXT.items():
        in_script = False
        for number, line in enumerate(text.splitlines()):
            in_script = line.endswith("run: |") or (in_script and line.startswith(" " * 10))
            if not in_script and not HARMLESS.match(line):
                yield file, number


@pytest.mark.parametrize(("file", "number"), [pytest.param(*item, id=f"{item[0]} {item[1] + 1}") for item in lines()])
def test_no_line_can_go(file: str, number: int) -> None:
    """Every line is one that a rule asks for; what none asks for is in nobody's way, and shouldn't be there."""
    kept = TEXT[file].splitlines(keepends=True)
    del kept[number]
    with contextlib.suppress(yaml.YAMLError, AttributeError, KeyError, TypeError):  # it is no workflow any more
        assert workflows.problems({**TEXT, file: "".join(kept)}) != [], TEXT[file].splitlines()[number]
