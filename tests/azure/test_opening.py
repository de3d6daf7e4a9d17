"""`invoke migrate --open-firewall`: a rule for the length of a migration, gone afterwards whatever happens."""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dotenv import dotenv_values
from psycopg import sql

from scripts import firewall
from scripts.dsn import parse
from tests.azure.postgres import Postgres, whole_world
from tests.azure.world import World, eventually, failed
from tests.database import Database

ADDRESS = "203.0.113.7"


@dataclass
class Site:
    """A database of the test's own on it, and a migrations folder."""

    world: World
    database: Database
    folder: Path

    @property
    def rules(self) -> list[str]:
        return list(self.world.emulator.servers[0].rules)

    @property
    def words(self) -> list[str]:
        return ["migrate", "--open-firewall", "--migrations-dir", str(self.folder)]

    @property
    def env(self) -> dict[str, str]:
        return {"POSTGRES_ADMIN_DSN": self.database.uri}

    def migrate(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self.world.invoke(*self.words, *words, env={**self.env, **(env or {})})

    def start(self) -> subprocess.Popen[str]:
        return self.world.start(*self.words, env=self.env)

    def opened(self) -> list[str]:
        """The rules that were made since the test began."""
        return [
            path.rpartition("/")[2]
            for method, path in self.world.emulator.writes()
            if method == "PUT" and "/firewallRules/" in path
        ]


@pytest.fixture(scope="module")
def standing(az_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Postgres]]:
    with whole_world(az_program, tmp_path_factory.mktemp("standing")) as (world, postgres):
        world.made()
        yield world, postgres


@pytest.fixture
def site(standing: tuple[World, Postgres], folder: Path) -> Iterator[Site]:
    world, postgres = standing
    name = f"test_{secrets.token_hex(6)}"
    postgres.make_database(world.emulator.servers[0], name)
    admin = parse(dotenv_values(world.secrets_file)["POSTGRES_ADMIN_DSN"] or "", "the secrets file")
    world.emulator.requests.clear()
    (folder / "0001_first.sql").write_text("CREATE TABLE first (id int);\n")
    try:
        yield Site(world, Database(admin.with_params(dbname=name)), folder)
    finally:
        world.emulator.servers[0].rules.clear()
        postgres.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_the_rule_is_there_for_the_length_of_the_migration(site: Site) -> None:
    (site.folder / "0002_slow.sql").write_text("SELECT pg_sleep(2);\n")
    process = site.start()
    eventually(lambda: len(site.rules) == 1)
    rule = site.world.emulator.servers[0].rules[site.rules[0]]
    assert (rule["startIpAddress"], rule["endIpAddress"]) == (ADDRESS, ADDRESS)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert site.database.ledger() == {"0001": "applied", "0002": "applied"}
    assert site.rules == []
    assert "closed the firewall" in err


def test_a_migration_that_fails_leaves_no_rule(site: Site) -> None:
    (site.folder / "0002_wrong.sql").write_text("SELECT 1 / 0;\n")
    failed(site.migrate(), 1, "division by zero", "closed the firewall")
    assert (len(site.opened()), site.rules) == (1, [])


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_one_that_is_interrupted_leaves_no_rule(site: Site, number: signal.Signals) -> None:
    (site.folder / "0002_slow.sql").write_text("SELECT pg_sleep(60);\n")
    process = site.start()
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
    eventually(lambda: bool(site.database.execute(sleeping)))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "closed the firewall" in err
    assert site.rules == []


def test_one_that_is_interrupted_while_the_rule_is_made_leaves_none_either(site: Site) -> None:
    site.world.emulator.state.seconds = 6.0
    try:
        process = site.start()
        eventually(lambda: len(site.opened()) == 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        site.world.emulator.state.seconds = 0.0
    assert process.returncode == 130
    assert "whether the rule comes about" in err
    assert "closed the firewall" in err
    time.sleep(1.0)  # nothing that comes later is waited for in vain: there must be none
    assert site.rules == []


def test_a_removal_that_azure_refuses_is_tried_again(site: Site) -> None:
    site.world.emulator.fail("DELETE", "/firewallRules/", "server-is-busy", times=2)
    result = site.migrate()
    assert result.returncode == 0, result.stderr
    assert (len(site.opened()), site.rules) == (1, [])


def test_one_that_it_refuses_for_good_is_told_with_the_command(site: Site) -> None:
    plan = site.world.emulator.fail("DELETE", "/firewallRules/", "server-is-busy", times=None)
    result = site.migrate()
    assert len(site.rules) == 1
    failed(result, 1, "is still there, and lets 203.0.113.7 in", "az postgres flexible-server firewall-rule delete")
    assert f"-n {site.rules[0]} --yes" in result.stderr
    assert site.database.ledger() == {"0001": "applied"}
    plan.times = 0


def test_an_address_that_is_let_in_already_needs_no_rule(site: Site) -> None:
    site.world.emulator.servers[0].rules["office"] = {"startIpAddress": "203.0.113.0", "endIpAddress": "203.0.113.255"}
    result = site.migrate()
    assert result.returncode == 0, result.stderr
    assert (site.opened(), site.rules) == ([], ["office"])


def test_what_a_killed_run_left_is_pruned_when_it_is_old(site: Site) -> None:
    process = site.start()
    eventually(lambda: len(site.rules) == 1)
    process.kill()
    process.communicate()
    left = site.rules[0]
    now = datetime.now(UTC)
    old = firewall.temporary(ADDRESS, now - timedelta(hours=7), "abc").name
    site.world.emulator.servers[0].rules[old] = {"startIpAddress": ADDRESS, "endIpAddress": ADDRESS}
    pruned = site.world.made("--prune-firewall", "--yes")
    assert [step["name"] for step in pruned["steps"] if step["action"] == "remove"] == [old]
    assert site.rules == [left]


def test_what_a_killed_run_left_for_this_machine_is_closed_by_a_command(site: Site) -> None:
    process = site.start()
    eventually(lambda: len(site.rules) == 1)
    process.kill()
    process.communicate()
    theirs = firewall.temporary("203.0.113.8", datetime.now(UTC), "abc").name
    rules = site.world.emulator.servers[0].rules
    rules[theirs] = {"startIpAddress": "203.0.113.8", "endIpAddress": "203.0.113.8"}
    rules["office"] = {"startIpAddress": ADDRESS, "endIpAddress": ADDRESS}
    result = site.world.invoke("firewall.close")
    assert result.returncode == 0, result.stderr
    assert sorted(site.rules) == ["office", theirs]
    again = site.world.invoke("firewall.close")
    assert (again.returncode, "holds no temporary rule of this machine" in again.stdout) == (0, True)
    unnamed = site.world.invoke("firewall.close", env={"POSTGRES_SERVER_NAME": "", "AZURE_SUBSCRIPTION_ID": ""})
    failed(unnamed, 2, "2 problems", "invoke --help firewall.close")
    elsewhere = site.world.invoke("firewall.close", env={"POSTGRES_SERVER_NAME": "no-such-server"})
    failed(elsewhere, 1, "there is no server no-such-server with a firewall", "say which one is meant")


def test_nothing_is_opened_without_knowing_which_server_or_for_a_plan(site: Site) -> None:
    unnamed = site.migrate(env={"POSTGRES_SERVER_NAME": "", "AZURE_SUBSCRIPTION_ID": ""})
    failed(unnamed, 2, "2 problems", "AZURE_SUBSCRIPTION_ID", "POSTGRES_SERVER_NAME")
    failed(site.migrate("--plan"), 2, "--plan changes nothing, and so opens no firewall")
    elsewhere = site.migrate("--server-name", "another-one")
    failed(elsewhere, 1, "there is no server another-one with a firewall")
    assert site.world.emulator.writes() == []
