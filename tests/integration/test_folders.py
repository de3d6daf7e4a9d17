"""Folders that nobody wrote by hand: whatever stands in them, the ledger says what was committed, and nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings

from scripts.dsn import Dsn
from tests import folders
from tests.database import new_database


@pytest.mark.once
@settings(max_examples=10)
@given(folders.folders())
def test_the_ledger_is_what_was_committed(server: Dsn, tmp_path_factory: pytest.TempPathFactory, made: folders.Made) -> None:
    with contextlib.contextmanager(new_database)(server) as database:
        folders.prove(database, tmp_path_factory.mktemp("folder"), made)
