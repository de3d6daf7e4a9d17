"""A short form of each proof; `nox -s stress` has the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import database as databases
from tests import proofs
from tests.database import Database


def test_six_runners_at_once(database: Database, folder: Path) -> None:
    proofs.runners_at_once(database, folder, 6)


@pytest.mark.parametrize(
    ("victim", "point"),
    [
        ("runner", "mid-file"),
        ("psql", "around COMMIT"),
        pytest.param("container", "after the DDL", marks=pytest.mark.docker),
    ],
)
def test_killed(database: Database, scratch: Database, folder: Path, tmp_path: Path, victim: str, point: str) -> None:
    if victim == "container":
        databases.require_docker()
    proofs.killed(database, folder, victim, point, clean_build(scratch, tmp_path, point))


def test_killed_outside_a_transaction(database: Database, folder: Path) -> None:
    proofs.killed_outside_a_transaction(database, folder, "psql")


def clean_build(scratch: Database, tmp_path: Path, point: str) -> str:
    """The dump that an undisturbed run of the same files comes to."""
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    proofs.write_five(folder, proofs.POINTS[point])
    assert proofs.migrate(scratch, folder, "embedded").returncode == 0
    return scratch.dump()
