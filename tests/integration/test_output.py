"""Every exit code and every document that needs no Azure, each from a run of its own."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import pytest

from tests.database import ENV, Database, Machine, invoke
from tests.endings import ANYWHERE, ON_A_DATABASE, ON_A_MACHINE, WITH_A_BROKEN_FILE, WITHOUT_AN_ENGINE, Ending

pytestmark = pytest.mark.once  # of a server, only its version shows


@pytest.fixture
def names(tmp_path: Path) -> dict[str, Path]:
    """What the runs name."""
    found = {name: tmp_path / name for name in ("broken", "empty", "one", "template", "file", "nowhere", "failing_gh")}
    for name in ("broken", "empty", "one", "failing_gh"):
        found[name].mkdir()
    (found["broken"] / "0001_a.sql").write_text("")
    (found["one"] / "0001_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (id bigint);\n")
    found["template"].write_text("name: ${CONTAINER_APP_NAME}\n")
    gh = found["failing_gh"] / "gh"
    gh.write_text("#!/bin/sh\nexit 1\n")
    gh.chmod(0o755)
    return found


def test_on_a_database(database: Database, names: dict[str, Path]) -> None:
    role = f"app_{secrets.token_hex(4)}"
    database.made_roles += [role, f"{role}_b"]
    given: dict[str, object] = {**names, "role": role, "database": database.dsn.database}
    given["place"] = f"{database.dsn.hosts[0]}/{database.dsn.database}"
    for ending in ON_A_DATABASE:
        if ending.before:
            database.execute(ending.before.format_map(given))
        ending.hold(invoke(*ending.words(given), env={"POSTGRES_ADMIN_DSN": database.uri}, stdin=ending.stdin))


@pytest.mark.parametrize("ending", ANYWHERE, ids=lambda ending: f"{ending.line} {ending.code}")
def test_anywhere(ending: Ending, names: dict[str, Path]) -> None:
    env = {name: value.format_map(names) for name, value in ending.env.items()}
    if "PATH" in env:
        env["PATH"] += f"{os.pathsep}{ENV['PATH']}"
    ending.hold(invoke(*ending.words(names), env=env))


def test_on_a_machine(machine: Machine) -> None:
    def hold(endings: list[Ending]) -> None:
        for ending in endings:
            ending.hold(machine.invoke(*ending.words({}), env=ending.env, stdin=ending.stdin))

    hold(ON_A_MACHINE)
    file = machine.project / "migrations" / "0004_broken.sql"
    file.write_text("SELECT nope;\n")
    hold(WITH_A_BROKEN_FILE)
    file.unlink()
    assert machine.invoke("down", "--purge", "--yes").returncode == 0
    (machine.project / ".local" / "docker").mkdir()
    remembered = machine.project / ".local" / "server.json"
    remembered.write_text(json.dumps({"kind": "docker", "version": 16, "image": "postgres:16"}))
    hold(WITHOUT_AN_ENGINE)
    remembered.unlink()
