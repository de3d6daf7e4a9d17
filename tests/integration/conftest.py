"""Fixtures of the tests with a real server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.dsn import Dsn
from tests import database as databases
from tests import repository as repositories
from tests.database import MODES, Database, Machine
from tests.repository import Repository

databases.call_psql_itself()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dsn]:
    """The administrator's DSN of the server under test (--server)."""
    yield from databases.shared_server(request, tmp_path_factory, databases.of_a_superuser)


@pytest.fixture(scope="session")
def azure_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dsn]:
    """A second server, whose administrator is no superuser; the DSN is the superuser's."""
    yield from databases.shared_server(request, tmp_path_factory, databases.like_azure, "-azure")


@pytest.fixture
def database(server: Dsn) -> Iterator[Database]:
    """A database of the test's own."""
    yield from databases.new_database(server)


@pytest.fixture
def scratch(server: Dsn) -> Iterator[Database]:
    """A second database of the test's own, to compare with."""
    yield from databases.new_database(server)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine where nothing was ever up. Not below pytest's own folder, which is closed to the account of root's server."""
    with Machine(Path(tempfile.mkdtemp(prefix="serving-"))) as made:
        yield made


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each way to run psql."""
    if request.param == "docker":
        databases.require_docker()
    return str(request.param)


@pytest.fixture(params=[pytest.param("superuser", marks=pytest.mark.superuser), "azure"])
def serving(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database, as a superuser has it and as Azure's kind of administrator does."""
    azure = request.param == "azure"
    server = request.getfixturevalue("azure_server" if azure else "server")
    yield from databases.new_database(server, azure=azure, migrated=True)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A git repository without a commit, with an empty folder `migrations`."""
    return repositories.make(tmp_path / "repository")
