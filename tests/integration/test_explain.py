"""--explain: each value and where it comes from, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tasks
from tests.database import Database, Machine, invoke
from tests.flags import arguments

pytestmark = pytest.mark.once  # no server takes part in it

TASKS = [name for name in tasks.namespace.task_names if any(a.name == "explain" for a in arguments(name))]
DSN = "postgresql://me:secret%40word@127.0.0.1:1/serving"


def values(out: str) -> dict[str, dict[str, Any]]:
    return {value["name"]: value for value in json.loads(out)["values"]}


def test_every_command_that_takes_a_server_or_settings_has_it() -> None:
    left = set(tasks.namespace.task_names) - set(TASKS)
    assert left == {
        *("down", "migrations.new", "migrations.lint", "migrations.prove"),  # which take flags alone
        "doctor",  # which says where each value comes from anyway
    }


@pytest.mark.parametrize("task", TASKS)
def test_it_does_nothing_and_shows_no_secret(task: str, tmp_path: Path) -> None:
    secrets = {
        "POSTGRES_ADMIN_DSN": DSN,
        "POSTGRES_DSN": DSN,
        "POSTGRES_ADMIN_PASSWORD": "secret@word",
        "POSTGRES_BACKTEST_SERVICE_PASSWORD": "secret@word",
    }
    words = ["0001"] if task == "migrations.repair" else []
    # Nothing can be started: there is no program to be found.
    result = invoke(task, *words, "--explain", env={**secrets, "PATH": str(tmp_path), "DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{task} would go by these; nothing was done\n")
    assert "secret@word" not in result.stdout + result.stderr
    assert "secret%40word" not in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_origin_of_each_value(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text("# a comment\n\nAZURE_LOCATION=westus2\n\n\nexport POSTGRES_ADMIN_DSN=" + DSN + "\nPOSTGRES_TIER=Burstable\n")
    env = {"POSTGRES_TIER": "GeneralPurpose"}
    found = values(invoke("provision", "--explain", "--json", "--plan", "--env-file", str(file), env=env).stdout)
    assert found["--location"] == {
        "name": "--location", "value": "westus2", "origin": "file", "where": f"AZURE_LOCATION in {file}", "line": 3,
    }  # fmt: skip
    assert (found["--tier"]["value"], found["--tier"]["origin"]) == ("GeneralPurpose", "environment")
    assert (found["--plan"]["value"], found["--plan"]["origin"]) == ("on", "flag")
    assert (found["--yes"]["value"], found["--yes"]["origin"]) == ("off", "default")
    assert found["--server-name"]["origin"] == "none"
    dsn = values(invoke("status", "--explain", "--json", "--env-file", str(file)).stdout)["--dsn"]
    assert (dsn["value"], dsn["line"]) == (DSN.replace("secret%40word", "****"), 6)


def test_the_table_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text(f"POSTGRES_ADMIN_DSN={DSN}\n")
    lines = invoke("status", "--explain", "--env-file", "my.env", "--wait", "9", cwd=tmp_path).stdout.splitlines()
    rows = [line.split() for line in lines]
    assert ["--dsn", DSN.replace("secret%40word", "****"), "POSTGRES_ADMIN_DSN", "in", "my.env,", "line", "1"] in rows
    assert ["--wait", "9", "flag", "--wait"] in rows
    assert ["--local", "off", "default"] in rows


def test_the_dsn_is_not_read_from_stdin() -> None:
    result = invoke("status", "--explain", "--json", "--dsn", "-", stdin=DSN)
    assert values(result.stdout)["--dsn"]["value"] == "-"


def test_a_dsn_that_is_none_is_told_and_not_shown() -> None:
    result = invoke("status", "--explain", env={"POSTGRES_ADMIN_DSN": "postgresql://me:secret@word@h/d"})
    assert result.returncode == 0
    assert "the DSN of POSTGRES_ADMIN_DSN (environment) holds an unencoded @" in result.stderr
    assert "secret" not in result.stdout
    assert "word" not in result.stdout + result.stderr.replace("password", "")


def test_a_file_that_is_not_there_is_a_wrong_setting() -> None:
    result = invoke("status", "--explain", "--json", "--env-file", "nowhere.env")
    assert result.returncode == 2
    assert "nowhere.env" in json.loads(result.stdout)["error"]


def test_the_server_of_this_machine_is_not_started(machine: Machine) -> None:
    before = values(machine.invoke("status", "--local", "--explain", "--json").stdout)["--dsn"]
    assert before == {"name": "--dsn", "value": None, "origin": "server", "where": None, "line": None}
    assert not (machine.project / ".local").exists()
    up = json.loads(machine.invoke("up", "--json").stdout)
    dsn = values(machine.invoke("status", "--local", "--explain", "--json").stdout)["--dsn"]
    assert (dsn["value"], dsn["origin"], dsn["where"]) == (up["dsn"], "server", "PostgreSQL 16, embedded")
    app = values(machine.invoke("secret.push", "--local", "--explain", "--json").stdout)["--dsn"]
    assert (app["value"], app["origin"]) == (None, "server")


def test_nothing_is_written_to_a_database(database: Database) -> None:
    assert invoke("migrate", "--explain", env={"POSTGRES_ADMIN_DSN": database.uri}).returncode == 0
    assert database.ledger() == {}


def test_the_variables_of_a_template_are_settings_too() -> None:
    env = {"API_IMAGE": "r.azurecr.io/api:1", "POSTGRES_DSN": DSN}
    found = values(invoke("deploy", "--explain", "--json", env=env).stdout)
    assert (found["API_IMAGE"]["value"], found["API_IMAGE"]["origin"]) == ("r.azurecr.io/api:1", "environment")
    assert found["POSTGRES_DSN"]["value"] == DSN.replace("secret%40word", "****")
    assert found["CONTAINER_REGISTRY"]["origin"] == "none"
    assert "POSTGRES_DSN_SECRET_URL" in values(invoke("deploy", "--explain", "--json", "--from-key-vault").stdout)
