"""An emulator for each test, and the real az led to it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.cli import Az, find_az
from tests.azure.emulator import Emulator
from tests.azure.postgres import whole_world
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
def world(az_program: str, emulator: Emulator, tmp_path: Path) -> Iterator[World]:
    """A user's machine; there is no Postgres behind the emulated server."""
    env = {"POSTGRES_LOCATION_FALLBACK": "eastus2"}  # a question less for each region that plays no part
    with World(emulator, tmp_path, az_program, f"serving-{secrets.token_hex(4)}", env) as made:
        yield made


@pytest.fixture
def whole(az_program: str, tmp_path: Path) -> Iterator[World]:
    """The same, with a real Postgres behind the emulated server."""
    with whole_world(az_program, tmp_path) as (world, _):
        yield world
