"""The deployment's own steps, out of deploy.yml, run for real: the real az and an emulated Azure, a real PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from dotenv import dotenv_values
from psycopg import sql

from scripts import PRODUCT, github
from scripts.dsn import parse
from tests.azure.login import CLIENT, TENANT
from tests.azure.postgres import Postgres, whole_world
from tests.azure.resources import SUBSCRIPTION
from tests.azure.runner import Runner, evaluate, filled
from tests.azure.world import World, eventually, writes
from tests.conftest import ROOT
from tests.database import Database
from tests.policy import workflows

JOB = workflows.parse(workflows.read()["deploy.yml"])["jobs"]["deploy"]
SCRIPTS = [step["name"] for step in JOB["steps"] if "run" in step]
PASSWORD = "hünter 2/3: a%pp'l#ication"
DSN = f"postgresql://backtest_service:{quote(PASSWORD, safe='')}@s.postgres.database.azure.com:5432/serving?sslmode=require"
CLEANUP = {"Delete temporary files": "success", "Log out of Azure": "success"}
NEEDED = [entry.name for entry in github.needed(from_key_vault=False)]


def checked_out(folder: Path) -> Path:
    """A copy of the project, with the environment that bootstrap.py made for the original."""
    ignored = shutil.ignore_patterns(".git", ".venv", ".nox", ".local", ".env", ".hypothesis", "__pycache__", ".*_cache")
    copy = folder / "checkout"
    shutil.copytree(ROOT, copy, ignore=ignored)
    made = Path(sys.prefix)
    (copy / ".venv").mkdir()
    for part in made.iterdir():
        if not part.name.startswith("."):  # bootstrap.py's own mark, which names the folder, is made anew
            (copy / ".venv" / part.name).symlink_to(part)
    mark = "import sys; sys.path.insert(0, 'scripts'); import bootstrap as b; b.STAMP.write_text(b.fingerprint())"
    subprocess.run([sys.executable, "-c", mark], cwd=copy, check=True)
    return copy


@dataclass
class Team:
    """One that has set everything in GitHub, with a server on which nothing is migrated yet, and no Container App."""

    world: World
    database: Database
    secrets: dict[str, str]
    variables: dict[str, str]
    runner: Runner

    def without(self, name: str) -> None:
        for kind in (self.secrets, self.variables):
            kind.pop(name, None)

    def deploy(self) -> str:
        """Runs the job. Whatever comes of it, no secret shows, nobody is logged in any more and nothing lies about."""
        conclusion = self.runner.run(JOB)
        self.nothing_shows()
        if self.runner.steps:
            assert self.logged_in() == []
        assert [path.name for path in self.runner.temp.iterdir()] == []
        return conclusion

    def logged_in(self) -> list[str]:
        profile = Path(self.runner.env["AZURE_CONFIG_DIR"]) / "azureProfile.json"
        return [item["id"] for item in json.loads(profile.read_text(encoding="utf-8-sig"))["subscriptions"]]

    def passwords(self) -> list[str]:
        """Of both DSNs, raw and encoded."""
        texts = [DSN, self.database.uri, PASSWORD, quote(PASSWORD, safe="")]
        assert self.database.dsn.password is not None
        return [*texts, self.database.dsn.password.reveal(), quote(self.database.dsn.password.reveal(), safe="")]

    def nothing_shows(self) -> None:
        lines = [line for line in self.runner.output.splitlines() if not line.startswith("::add-mask::")]
        traces = {**self.world.traces(), "output": "\n".join(lines)}
        assert [(name, text) for name, text in traces.items() if any(secret in text for secret in self.passwords())] == []


@pytest.fixture(scope="module")
def standing(az_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Postgres, Path]]:
    home = tmp_path_factory.mktemp("standing")
    with whole_world(az_program, home) as (world, postgres):
        world.made()
        yield world, postgres, checked_out(home)


@pytest.fixture
def team(standing: tuple[World, Postgres, Path], tmp_path: Path) -> Iterator[Team]:
    world, postgres, checkout = standing
    emulator = world.emulator
    name = f"test_{os.urandom(6).hex()}"
    postgres.make_database(emulator.servers[0], name)
    admin = parse(dotenv_values(world.secrets_file)["POSTGRES_ADMIN_DSN"] or "", "the secrets file").with_params(dbname=name)
    group, config = f"{world.server}-rg", tmp_path / "az"

    def log_in(given: Mapping[str, str]) -> bool:
        wanted = {"client-id": CLIENT, "tenant-id": TENANT, "subscription-id": SUBSCRIPTION}
        emulator.env(config, logged_in=given == wanted)
        return given == wanted

    variables = {
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
        "AZURE_RESOURCE_GROUP": group,
        "POSTGRES_SERVER_NAME": world.server,
        "CONTAINER_APP_NAME": f"api-{os.urandom(3).hex()}",
        "CONTAINER_APP_ENVIRONMENT": emulator.add_environment("env", group)["id"],
        "CONTAINER_APP_IDENTITY": emulator.add_identity("puller", group),
        "CONTAINER_REGISTRY": "registry.azurecr.io",
        "API_IMAGE": "registry.azurecr.io/api:1",
    }
    secrets = {"POSTGRES_ADMIN_DSN": admin.uri().reveal(), "POSTGRES_DSN": DSN}
    # The settings of the machine that provisioned aren't those of the runner.
    env = {key: value for key, value in world.env.items() if key not in ("AZURE_SUBSCRIPTION_ID", "POSTGRES_SERVER_NAME")}
    env |= emulator.env(config, logged_in=False)
    actions = {"actions/checkout": lambda given: given == {"persist-credentials": "false"}, "azure/login": log_in}
    emulator.requests.clear()
    world.forget_calls()
    try:
        runner = Runner(checkout, tmp_path, env, actions, secrets, variables)
        yield Team(world, Database(admin), secrets, variables, runner)
    finally:
        emulator.servers[0].rules.clear()
        postgres.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def app(team: Team) -> dict[str, str]:
    """What the revision that serves has in its environment."""
    (found,) = [item for item in team.world.emulator.apps if item.name == team.variables["CONTAINER_APP_NAME"]]
    assert found.serving is not None
    return found.serving.env


def masked(output: str) -> list[str]:
    """What the runner is told to mask before anything else is printed."""
    lines = output.splitlines()
    first = next((number for number, line in enumerate(lines) if not line.startswith("::add-mask::")), len(lines))
    decode = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))
    found = []
    for line in lines[:first]:
        text = line.removeprefix("::add-mask::")
        for encoded, raw in decode:
            text = text.replace(encoded, raw)
        found.append(text)
    return found


def test_a_deployment_from_a_clean_state_and_again(team: Team) -> None:
    assert team.deploy() == "success", team.runner.output
    assert set(team.runner.outcomes.values()) == {"success"}
    migrations = sorted(path.name[:4] for path in (ROOT / "migrations").glob("*.sql"))
    assert team.database.ledger() == dict.fromkeys(migrations, "applied")
    assert app(team) == {"POSTGRES_DSN": DSN}
    assert list(team.world.emulator.servers[0].rules) == []
    assert [write for write in writes(team.world.emulator) if "firewallRules" in write] != []

    admin = team.database.dsn.password
    assert admin is not None
    assert {team.database.uri, admin.reveal()} <= set(masked(team.runner.step("Migrate").output))
    assert {DSN, PASSWORD, quote(PASSWORD, safe="")} <= set(masked(team.runner.step("Deploy").output))
    assert masked(team.runner.step("Preflight").output) == []

    team.world.emulator.requests.clear()
    assert team.deploy() == "success", team.runner.output
    assert [write for write in writes(team.world.emulator) if "firewallRules" not in write] == []


def test_with_a_key_vault_no_secret_of_the_application_is_needed(team: Team) -> None:
    team.world.emulator.add_vault("team")["POSTGRES-DSN"] = [DSN]
    team.variables |= {
        "POSTGRES_FROM_KEY_VAULT": "on",
        "POSTGRES_DSN_SECRET_URL": "https://team.vault.azure.net/secrets/POSTGRES-DSN",
    }
    team.without("POSTGRES_DSN")
    assert team.deploy() == "success", team.runner.output
    assert app(team) == {"POSTGRES_DSN": DSN}


def test_with_a_key_vault_the_deployment_isnt_told_the_dsn_although_it_is_there(team: Team) -> None:
    team.variables |= {"POSTGRES_FROM_KEY_VAULT": "on", "POSTGRES_DSN_SECRET_URL": ""}
    assert team.deploy() == "failure"
    assert "variable  POSTGRES_DSN_SECRET_URL" in team.runner.step("Preflight").output
    context = {"vars": team.variables, "secrets": team.secrets}
    (told,) = [step["env"]["POSTGRES_DSN"] for step in JOB["steps"] if step["name"] == "Deploy"]
    assert filled(told, context) == ""


@pytest.mark.parametrize("name", NEEDED)
def test_without_any_one_of_them_nothing_is_done_and_it_is_named(team: Team, name: str) -> None:
    team.without(name)
    assert team.deploy() == "failure"
    output = team.runner.step("Preflight").output
    kind = next(entry.kind for entry in github.EVERYTHING if entry.name == name)
    assert re.findall(r"^::error::the (\w+) (\w+) is not set", output, re.MULTILINE) == [(kind, name)]
    assert f"gh {kind} set NAME --env production" in output
    assert [outcome for step, outcome in team.runner.outcomes.items() if step not in CLEANUP] == [
        *("success", "failure"),
        *["skipped"] * 4,
    ]
    assert {step: team.runner.outcomes[step] for step in CLEANUP} == CLEANUP
    assert team.world.emulator.writes() == []
    assert team.database.ledger() == {}


def test_all_that_is_missing_is_named_at_once(team: Team) -> None:
    team.secrets.clear()
    team.variables.clear()
    assert team.deploy() == "failure"
    named = re.findall(r"^::error::the \w+ (\w+) is not set", team.runner.output, re.MULTILINE)
    assert named == NEEDED


@pytest.mark.parametrize(
    ("name", "value", "step", "cause"),
    [
        ("AZURE_CLIENT_ID", "33333333-3333-4333-8333-333333333333", "Log in to Azure", ""),
        ("POSTGRES_SERVER_NAME", "another-one", "Migrate", "there is no server another-one with a firewall"),
        ("POSTGRES_ADMIN_DSN", "postgresql://me:hunter22 and/more@host/db", "Migrate", "POSTGRES_ADMIN_DSN"),
        ("POSTGRES_DSN", DSN.partition("?")[0], "Deploy", "without TLS"),
        pytest.param(
            "POSTGRES_DSN",
            "postgresql://me:hunter22 and/more@host/db",
            "Deploy",
            "the DSN of the secret postgres-dsn holds a space",
            marks=pytest.mark.long,
        ),
        pytest.param("CONTAINER_APP_ENVIRONMENT", "env", "Deploy", "properties.environmentId", marks=pytest.mark.long),
    ],
)
def test_what_is_set_and_wrong_stops_the_deployment_with_the_cause(
    team: Team, name: str, value: str, step: str, cause: str
) -> None:
    (team.secrets if name in team.secrets else team.variables)[name] = value
    assert team.deploy() == "failure"
    assert [name for name, outcome in team.runner.outcomes.items() if outcome == "failure"][:1] == [step]
    assert cause in team.runner.step(step).output, team.runner.output
    assert "hunter22" not in re.sub(r"^::add-mask::.*$", "", team.runner.output, flags=re.MULTILINE)
    assert "Traceback" not in team.runner.output
    assert list(team.world.emulator.servers[0].rules) == []
    assert [item for item in team.world.emulator.apps if item.name == team.variables["CONTAINER_APP_NAME"]] == []


def test_what_a_migration_that_was_killed_leaves_is_cleaned_up(team: Team, tmp_path: Path) -> None:
    team.runner.checkout = checked_out(tmp_path)
    (team.runner.checkout / "migrations" / "0099_slow.sql").write_text("SELECT pg_sleep(60);\n")
    left: list[str] = []

    def kill(name: str, process: subprocess.Popen[str]) -> None:
        if name != "Migrate":
            return
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
        eventually(lambda: bool(team.database.execute(sleeping)))
        left.extend([*team.world.emulator.servers[0].rules, *(path.name for path in team.runner.temp.iterdir())])
        os.killpg(process.pid, signal.SIGKILL)

    team.runner.on_start = kill
    assert team.deploy() == "failure"
    assert len([name for name in left if name.startswith(f"{PRODUCT}-temporary-")]) == 1, "there was nothing to clean up"
    assert len(left) > 1
    assert list(team.world.emulator.servers[0].rules) == []
    assert team.runner.outcomes["Deploy"] == "skipped"
    assert team.runner.outcomes["Close the firewall"] == "success"


def test_a_dispatch_on_another_branch_does_nothing(team: Team) -> None:
    team.runner.ref = "refs/heads/mine"
    assert team.deploy() == "skipped"
    assert team.runner.steps == []


def test_expressions_come_to_what_they_come_to_on_github() -> None:
    context = {"vars": {"A": "On", "E": ""}, "functions": {"always": True}, "steps": {"m": {"outcome": "failure"}}}
    for expression, value in {
        "vars.A == 'on'": True,
        "vars.A != 'on' && 'x' || ''": "",
        "vars.B != 'on' && 'x' || ''": "x",
        "vars.E && 'set' || 'unset'": "unset",
        "'it''s'": "it's",
        "always() && steps.m.outcome != 'skipped'": True,
        "vars.A || vars.B && ''": "On",
    }.items():
        assert evaluate(expression, context) == value, expression
    for unknown in ("vars.A + 1", "vars.A 'x'", "a["):
        with pytest.raises((ValueError, IndexError)):
            evaluate(unknown, context)
