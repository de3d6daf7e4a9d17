"""An emulator for each test, and the real az led to it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from scripts.container import Container
from tests import database as databases
from tests.azure.cli import Az, find_az
from tests.azure.emulator import Emulator
from tests.azure.postgres import Postgres
from tests.azure.world import World


@pytest.fixture(scope="session")
def az_program() -> str:
    try:
        return find_az()
    except LookupError as error:
        pytest.fail(str(error))


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def az(az_program: str, emulator: Emulator, tmp_path: Path) -> Az:
    return Az(az_program, emulator, tmp_path)


@pytest.fixture
def world(az_program: str, emulator: Emulator, tmp_path: Path) -> World:
    """A user's machine; there is no Postgres behind the emulated server."""
    return World(emulator, tmp_path, az_program, f"serving-{secrets.token_hex(4)}")


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL with TLS in a container of its own, as Azure's administrators have one."""
    server = databases.start_server("docker", tmp_path_factory.mktemp("server"))
    assert isinstance(server, Container)
    try:
        databases.like_azure(server.dsn())
        postgres = Postgres(server)
        postgres.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(server.dsn().database)))
        yield postgres
    finally:
        server.stop()
        server.purge()


@pytest.fixture
def whole(az_program: str, postgres: Postgres, tmp_path: Path) -> Iterator[World]:
    """A user's machine, with a real Postgres behind the emulated server."""
    with Emulator(on_server=postgres.make, on_password=postgres.set_password, on_database=postgres.make_database) as emulator:
        yield World(emulator, tmp_path, az_program, f"serving-{secrets.token_hex(4)}")
