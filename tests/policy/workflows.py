"""The workflows as GitHub reads them, and the rules that they have to keep: functions that return what is wrong.

They take the text of every file, so that a file that was changed on purpose can be judged as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from scripts import github
from tests.conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"
# Events that only somebody who may write to the repository brings about, on a branch that is named.
TRUSTED = {"push", "workflow_dispatch"}
# Those and what anybody brings about, without secrets; GitHub gives a pull request of a fork none. Any other event, such as
# pull_request_target, issue_comment and workflow_run, runs with the repository's own rights whoever was its cause.
ALLOWED = {*TRUSTED, "pull_request"}
MAIN = "github.ref == 'refs/heads/main'"
PIN = re.compile(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}")
MACHINE = re.compile(r"(ubuntu|macos|windows)-[\d.]+|\$\{\{ matrix\.os \}\}")
OURS = "python3 scripts/bootstrap.py invoke "
LONGEST = 60  # minutes

Json = dict[str, Any]


def variables(*names: str) -> dict[str, str]:
    return {name: f"${{{{ vars.{name} }}}}" for name in names}


PLACE = variables("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP")
SERVER = variables("POSTGRES_SERVER_NAME")
TMPDIR = {"TMPDIR": "${{ runner.temp }}"}
# Of the steps that run a command of ours: what they are told, to the letter. A secret is told nowhere else.
TOLD = {
    "github.check": {
        entry.name: f"${{{{ secrets.{entry.name} != '' && 'set' || '' }}}}"
        if entry.is_secret
        else f"${{{{ vars.{entry.name} }}}}"
        for entry in github.EVERYTHING
    },
    "migrate --open-firewall": {"POSTGRES_ADMIN_DSN": "${{ secrets.POSTGRES_ADMIN_DSN }}", **PLACE, **SERVER, **TMPDIR},
    "deploy": {
        "POSTGRES_DSN": "${{ vars.POSTGRES_FROM_KEY_VAULT != 'on' && secrets.POSTGRES_DSN || '' }}",
        **PLACE,
        **variables("CONTAINER_APP_NAME", "CONTAINER_APP_ENVIRONMENT", "CONTAINER_APP_IDENTITY", "CONTAINER_REGISTRY"),
        **variables("API_IMAGE", "POSTGRES_FROM_KEY_VAULT", "POSTGRES_DSN_SECRET_URL"),
        **TMPDIR,
    },
    "firewall.close": {**PLACE, **SERVER},
}
LOGIN = {
    "client-id": "${{ vars.AZURE_CLIENT_ID }}",
    "tenant-id": "${{ vars.AZURE_TENANT_ID }}",
    "subscription-id": "${{ vars.AZURE_SUBSCRIPTION_ID }}",
}
# The steps of the deployment in their order, by what they run, and when.
STEPS = (
    ("actions/checkout", ""),
    (f"{OURS}github.check", ""),
    ("azure/login", ""),
    (f"{OURS}migrate --open-firewall", ""),
    (f"{OURS}deploy", ""),
    (f"{OURS}firewall.close", "always() && steps.migrate.outcome != 'skipped'"),
    ('rm -rf -- "${RUNNER_TEMP:?}"/postgres-serving-split-*', "always()"),
    ("az account clear", "always()"),
)


def read() -> dict[str, str]:
    """The text of every workflow, by its file's name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}


class Loader(yaml.BaseLoader):
    """Every scalar is a text: `on` is no boolean, and `false` is told from what is missing. As GitHub, it takes no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise yaml.constructor.ConstructorError(None, None, f"a key twice in {keys}", node.start_mark)
        return super().construct_mapping(node, deep)


def parse(text: str) -> Json:
    """One workflow. Raises YAMLError."""
    workflow = yaml.load(text, Loader=Loader)
    assert isinstance(workflow, dict)
    return workflow


def texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a tree, keys too, with the path to it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{path}/{key}", key
            yield from texts(value, f"{path}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from texts(value, f"{path}/{number}")
    else:
        yield path, str(node)


def events(workflow: Json) -> Json:
    """What starts a workflow, and the filter of each."""
    on = workflow.get("on", {})
    on = {on: ""} if isinstance(on, str) else dict.fromkeys(on, "") if isinstance(on, list) else on
    return {event: filters or {} for event, filters in on.items()}


def expressions(text: str, path: str) -> list[str]:
    """The expressions in a text; an `if` is one as a whole."""
    return [text] if path.endswith("/if") else re.findall(r"\$\{\{(.*?)\}\}", text, re.DOTALL)


def uses_a_secret(path: str, text: str) -> bool:
    """By name, by index, all at once, or handed on to a workflow that is called; the job's own token counts as one."""
    if path.endswith("/secrets"):
        return True
    without_literals = [re.sub(r"'[^']*'", "''", expression) for expression in expressions(text, path)]
    whole_github = r"\bgithub\s*(\.\s*token|\[|\)|,|$)"
    return any(re.search(rf"\bsecrets\b|{whole_github}", word, re.IGNORECASE) for word in without_literals)


def holds_rights(job: Json) -> bool:
    """Whether a job may do more than read: an id-token is a login to Azure."""
    permissions = job.get("permissions", "write-all")
    return permissions == "write-all" or (isinstance(permissions, dict) and "write" in permissions.values())


def is_privileged(workflow: Json) -> bool:
    """Whether anything in it is worth stealing."""
    jobs = workflow["jobs"].values()
    return (
        any(uses_a_secret(*item) for item in texts(workflow))
        or any(holds_rights(job) or "environment" in job for job in jobs)
        or holds_rights(workflow)
    )


@dataclass(frozen=True)
class Workflows:
    """All of them, as parsed and as text."""

    text: Mapping[str, str]
    parsed: Mapping[str, Json]

    def jobs(self) -> Iterator[tuple[str, str, Json]]:
        for name, workflow in self.parsed.items():
            for job_id, job in workflow["jobs"].items():
                yield f"{name}: {job_id}", name, job

    def steps(self) -> Iterator[tuple[str, Json]]:
        for where, _, job in self.jobs():
            for number, step in enumerate(job.get("steps", [])):
                yield f"{where}: step {number + 1}", step

    def reach(self) -> dict[str, Json]:
        """What can start each workflow, by itself or by one that calls it."""
        found = {name: {k: v for k, v in events(item).items() if k != "workflow_call"} for name, item in self.parsed.items()}
        for _ in self.parsed:  # as long as the longest chain of calls can be
            for _, name, job in self.jobs():
                called = str(job.get("uses", "")).rpartition("/")[2]
                if called in found:
                    found[called] = {**found[called], **found[name]}
        return found


def who_can_start_it(all_of_them: Workflows) -> Iterator[str]:
    for name, reach in all_of_them.reach().items():
        if unknown := set(reach) - ALLOWED:
            yield f"{name}: {', '.join(sorted(unknown))} can be caused by anybody and run with the repository's rights"
        if "push" in reach and reach["push"] != {"branches": ["main"]}:
            yield f"{name}: a push to another branch than main starts it"
        if is_privileged(all_of_them.parsed[name]) and not set(reach) <= TRUSTED:
            yield f"{name}: a pull request reaches a secret, an environment or a right to write"


def where_secrets_are(all_of_them: Workflows) -> Iterator[str]:
    for name, workflow in all_of_them.parsed.items():
        for path, text in texts(workflow):
            if uses_a_secret(path, text) and not _may_be_told(workflow, path, text):
                yield f"{name}: a secret at {path}"


def _may_be_told(workflow: Json, path: str, text: str) -> bool:
    found = re.fullmatch(r"/jobs/(\w+)/steps/(\d+)/env/(\w+)", path)
    if found is None:
        return False
    step = workflow["jobs"][found[1]]["steps"][int(found[2])]
    return TOLD.get(str(step.get("run", "")).removeprefix(OURS), {}).get(found[3]) == text


def who_holds_secrets(all_of_them: Workflows) -> Iterator[str]:
    for where, _, job in all_of_them.jobs():
        if any(uses_a_secret(*item) for item in texts(job)) or holds_rights(job):
            if job.get("environment") != github.ENVIRONMENT:
                yield f"{where}: sees a secret, or may log in, outside of the environment {github.ENVIRONMENT}"
            if job.get("if") != MAIN:
                yield f"{where}: sees a secret, or may log in, on another branch than main"


def what_a_step_with_a_secret_runs(all_of_them: Workflows) -> Iterator[str]:
    """Only a command of ours: it masks before it prints, and its masks reach the runner by stderr, so nothing redirects it."""
    for where, step in all_of_them.steps():
        command = str(step.get("run", "")).removeprefix(OURS)
        if any(uses_a_secret(*item) for item in texts(step)) and command not in TOLD:
            yield f"{where}: sees a secret, and runs what doesn't mask it"
        if set(step) - {"name", "id", "uses", "with", "env", "run", "if"}:
            yield f"{where}: {', '.join(step)}: only what these rules know may stand in a step"


def what_is_pinned(all_of_them: Workflows) -> Iterator[str]:
    for where, step in all_of_them.steps():
        if "uses" in step and not PIN.fullmatch(step["uses"]):
            yield f"{where}: {step['uses']} isn't pinned to a commit"
    for where, _, job in all_of_them.jobs():
        called = job.get("uses", "")
        if called and not called.startswith("./") and not PIN.fullmatch(called):
            yield f"{where}: {called} isn't pinned to a commit"
        if {"container", "services"} & set(job):
            yield f"{where}: an image that nothing pins"
    for name, text in all_of_them.text.items():
        for line in re.findall(r"^\s*-?\s*uses: [^.].*$", text, re.MULTILINE):
            if not re.search(r" # v\d+\.\d+\.\d+$", line):
                yield f"{name}: {line.strip()} doesn't say which version that is"


def what_is_permitted(all_of_them: Workflows) -> Iterator[str]:
    for name, workflow in all_of_them.parsed.items():
        if workflow.get("permissions") != {}:
            yield f"{name}: permissions: {{}} has to stand at the top"
    for where, name, job in all_of_them.jobs():
        checks_out = any("actions/checkout" in step.get("uses", "") for step in job.get("steps", []))
        least = {"contents": "read"} if checks_out else {}
        if name == "deploy.yml":
            least = {"contents": "read", "id-token": "write"}
        if job.get("permissions") != least:
            yield f"{where}: the permissions are {job.get('permissions', 'not named')}, and {least} is enough"


def what_a_checkout_leaves(all_of_them: Workflows) -> Iterator[str]:
    for where, step in all_of_them.steps():
        if "actions/checkout@" in step.get("uses", "") and step.get("with") != {"persist-credentials": "false"}:
            yield f"{where}: the checkout leaves the job's token on disk, or takes another commit than the event's"


def what_runs_at_once(all_of_them: Workflows) -> Iterator[str]:
    for name, workflow in all_of_them.parsed.items():
        concurrency = workflow.get("concurrency", {})
        if not concurrency.get("group"):
            yield f"{name}: nothing keeps two runs apart"
        if is_privileged(workflow) and concurrency != {"group": "deploy-production", "cancel-in-progress": "false"}:
            yield f"{name}: a deployment may be cut off by the next, or run beside it"


def how_long_it_may_take(all_of_them: Workflows) -> Iterator[str]:
    for where, _, job in all_of_them.jobs():
        minutes = job.get("timeout-minutes", "")
        if "uses" not in job and not (minutes.isdigit() and 0 < int(minutes) <= LONGEST):
            yield f"{where}: timeout-minutes has to be {LONGEST} at most"


def where_it_runs(all_of_them: Workflows) -> Iterator[str]:
    for where, _, job in all_of_them.jobs():
        if "uses" not in job and not MACHINE.fullmatch(str(job.get("runs-on"))):
            yield f"{where}: runs on {job.get('runs-on')}, and not on a fresh machine of GitHub's of a version that is named"
    for where, step in all_of_them.steps():
        if len({"uses", "run"} & set(step)) != 1:
            yield f"{where}: an action or a script"


def what_a_script_is_made_of(all_of_them: Workflows) -> Iterator[str]:
    for where, step in all_of_them.steps():
        if any("${{" in text for path, text in texts(step) if path.split("/")[1] in ("run", "shell")):
            yield f"{where}: an expression is pasted into a script"


def the_deployment(all_of_them: Workflows) -> Iterator[str]:
    workflow = all_of_them.parsed.get("deploy.yml", {})
    if set(events(workflow)) != TRUSTED:
        yield "deploy.yml: a push to main and a dispatch by hand start it"
    if list(workflow.get("jobs", {})) != ["deploy"] or set(workflow) - {"name", "on", "permissions", "concurrency", "jobs"}:
        yield "deploy.yml: one job, and nothing that every step would be told"
        return
    job = workflow["jobs"]["deploy"]
    allowed = {"name", "if", "runs-on", "timeout-minutes", "environment", "permissions", "steps"}
    if set(job) != allowed:
        yield f"deploy.yml: a job of {', '.join(allowed)}"
    steps = job.get("steps", [])
    found = [(step.get("run") or step.get("uses", "").partition("@")[0], step.get("if", "")) for step in steps]
    if found != list(STEPS):
        yield f"deploy.yml: the steps are {found}, and have to be {list(STEPS)}"
    for step in steps:
        run = step.get("run", "")
        told = TOLD.get(run.removeprefix(OURS), {}) if run.startswith(OURS) else {}
        if step.get("env", {}) != told:
            yield f"deploy.yml: {run or step.get('uses')} is told {step.get('env', {})}, and has to be told {told}"
        if step.get("uses", "").startswith("azure/login@") and step.get("with") != LOGIN:
            yield "deploy.yml: the login is by OIDC, as the identity that the variables name"
    if sum(step.get("id") == "migrate" for step in steps) != 1:
        yield "deploy.yml: the step that closes the firewall asks how the step `migrate` ended"


PGBOUNCER = "sudo apt-get update && sudo apt-get install --yes --no-install-recommends pgbouncer"
# What ci.yml runs: the sessions of nox, and on what.
SYSTEMS = {"ubuntu", "macos", "windows"}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
SERVERS = {("docker", str(version)) for version in range(14, 19)} | {("embedded-16", "16"), ("embedded-18", "18")}
SESSIONS = {"lint", "types", "unit", "integration", "azure", "long", "policy"}


def continuous_integration(all_of_them: Workflows) -> Iterator[str]:
    workflow = all_of_them.parsed.get("ci.yml", {})
    jobs = workflow.get("jobs", {})
    if set(events(workflow)) != {"push", "pull_request"} or events(workflow).get("pull_request"):
        yield "ci.yml: a push to main and every pull request start it"
    if set(workflow) - {"name", "on", "permissions", "concurrency", "jobs"}:
        yield "ci.yml: nothing that every step would be told"
    # A run that waits for its group is cancelled by the next one, whatever cancel-in-progress says:
    # https://docs.github.com/actions/how-tos/write-workflows/choose-when-workflows-run/control-workflow-concurrency
    group = "ci-${{ github.event_name == 'pull_request' && github.ref || github.sha }}"
    if workflow.get("concurrency") != {"group": group, "cancel-in-progress": "${{ github.event_name == 'pull_request' }}"}:
        yield "ci.yml: only runs of pull requests make way for the next one"
    required = jobs.get("required", {})
    if sorted(required.get("needs", [])) != sorted(set(jobs) - {"required"}):
        yield "ci.yml: the required check leaves a job out"
    if required.get("if") != "always()":
        yield "ci.yml: the required check is skipped, and so passes, when a job fails"
    asked = [(step.get("uses", "").partition("@")[0], step.get("with")) for step in required.get("steps", [])]
    if asked != [("re-actors/alls-green", {"jobs": "${{ toJSON(needs) }}"})]:
        yield "ci.yml: the required check asks alls-green about all that it needs, and lets no job fail or be skipped"
    sessions: set[str] = set()
    for name, job in jobs.items():
        if set(job) - {"name", "if", "needs", "strategy", "runs-on", "timeout-minutes", "permissions", "steps"}:
            yield f"ci.yml: {name}: only what these rules know may stand in a job"
        if name != "required" and ({"if", "needs"} & set(job) or any("if" in step for step in job["steps"])):
            yield f"ci.yml: {name}: has a condition, under which it isn't run"
        for step in job.get("steps", []):
            called = re.fullmatch(r"python scripts/bootstrap.py nox -s (.+)", step.get("run", ""))
            words = called[1].split() if called else []
            names = {step.get("env", {}).get("SESSION", "") if word == '"$SESSION"' else word for word in words}
            run = {name.partition("(")[0] for name in names}
            if {"integration", "azure", "long"} & run:
                yield from _with_docker(name, step)
            if "integration" in run and job["steps"][job["steps"].index(step) - 1].get("run") != PGBOUNCER:
                yield f"ci.yml: {name}: without PgBouncer, its tests fail"
            sessions |= run
    if sessions != SESSIONS:
        yield f"ci.yml: the sessions are {sorted(sessions)}, and have to be {sorted(SESSIONS)}"
    yield from _matrices(jobs)


def _with_docker(name: str, step: Json) -> Iterator[str]:
    if step.get("env", {}).get("REQUIRE_DOCKER") != "1":
        yield f"ci.yml: {name}: without Docker, its tests are skipped and nobody hears of it"
    if not step.get("env", {}).get("POSTGRES_IMAGE"):
        yield f"ci.yml: {name}: says no image"


def _matrices(jobs: Json) -> Iterator[str]:
    checks, integration = jobs.get("checks", {}), jobs.get("integration", {})
    for name, job in (("checks", checks), ("integration", integration)):
        if job.get("strategy", {}).get("fail-fast") != "false":
            yield f"ci.yml: {name}: a failure hides the others"
    matrix = checks.get("strategy", {}).get("matrix", {})
    if {system.partition("-")[0] for system in matrix.get("os", [])} != SYSTEMS or matrix.get("python") != PYTHONS:
        yield "ci.yml: checks: every system and every Python"
    if checks.get("runs-on") != "${{ matrix.os }}" or "${{ matrix.python }}" not in dict(texts(checks.get("steps"))).values():
        yield "ci.yml: checks: doesn't run on what the matrix says"
    matrix = integration.get("strategy", {}).get("matrix", {})
    servers = {(server, version) for server in matrix.get("server", []) for version in matrix.get("postgres", [])}
    servers |= {(item.get("server"), item.get("postgres")) for item in matrix.get("include", [])}
    if servers != SERVERS:
        yield f"ci.yml: integration: every server of {sorted(SERVERS)}"
    told = [step["env"] for step in integration.get("steps", []) if "env" in step]
    image = {"POSTGRES_IMAGE": "postgres:${{ matrix.postgres }}-alpine", "SESSION": "integration(${{ matrix.server }})"}
    if not any(image.items() <= env.items() for env in told):
        yield "ci.yml: integration: doesn't run on what the matrix says"


RULES: tuple[Callable[[Workflows], Iterator[str]], ...] = (
    who_can_start_it,
    where_secrets_are,
    who_holds_secrets,
    what_a_step_with_a_secret_runs,
    what_is_pinned,
    what_is_permitted,
    what_a_checkout_leaves,
    what_runs_at_once,
    how_long_it_may_take,
    where_it_runs,
    what_a_script_is_made_of,
    the_deployment,
    continuous_integration,
)


def problems(text: Mapping[str, str]) -> list[str]:
    """What is wrong with the workflows, by every rule."""
    all_of_them = Workflows(text, {name: parse(content) for name, content in text.items()})
    return [problem for rule in RULES for problem in rule(all_of_them)]
