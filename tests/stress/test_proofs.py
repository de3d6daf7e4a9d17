"""The proofs in full."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests import database as databases
from tests import proofs
from tests.database import Database
from tests.integration.test_proofs import clean_build


@pytest.mark.parametrize("round_number", range(20))
def test_twenty_runners_at_once(database: Database, folder: Path, round_number: int) -> None:
    proofs.runners_at_once(database, folder, 20)


@pytest.mark.parametrize("point", proofs.POINTS)
@pytest.mark.parametrize("victim", proofs.VICTIMS)
def test_killed(database: Database, scratch: Database, folder: Path, tmp_path: Path, victim: str, point: str) -> None:
    if victim == "container":
        databases.require_docker()
    proofs.killed(database, folder, victim, point, clean_build(scratch, tmp_path, point))


@pytest.mark.parametrize("victim", proofs.VICTIMS)
def test_killed_outside_a_transaction(database: Database, folder: Path, victim: str) -> None:
    if victim == "container":
        databases.require_docker()
    proofs.killed_outside_a_transaction(database, folder, victim)


@pytest.mark.parametrize("victim", ["runner", "psql"])
@pytest.mark.parametrize("seed", range(25))
def test_killed_at_any_moment(database: Database, scratch: Database, folder: Path, victim: str, seed: int) -> None:
    for number in range(1, 61):
        text = f"CREATE TABLE t{number} (id int PRIMARY KEY);\nINSERT INTO t{number} SELECT generate_series(1, 50);\n"
        (folder / f"{number:04d}_t.sql").write_text(text)
    began = time.monotonic()
    assert proofs.migrate(scratch, folder, "embedded").returncode == 0
    whole = time.monotonic() - began

    runner = proofs.start(database, folder, "embedded")
    moment = time.monotonic() + random.Random(seed).uniform(0, whole)
    proofs.wait_until(lambda: time.monotonic() > moment or runner.poll() is not None, "the moment")
    if runner.poll() is None:
        proofs.kill(runner, victim)
    runner.communicate(timeout=proofs.DEADLINE)
    proofs.wait_until(lambda: proofs.sessions(database) == 0, "the session of the killed run ends")
    tables = {name for (name,) in database.execute("SELECT relname FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'")}
    assert {f"t{int(version)}" for version in database.ledger()} == tables

    again = proofs.migrate(database, folder, "embedded")
    assert again.returncode == 0, again.stderr
    assert database.dump() == scratch.dump()
