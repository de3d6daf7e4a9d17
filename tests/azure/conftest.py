"""An emulator for each test, and the real az led to it."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import database as databases
from tests import warm
from tests.azure.cli import Az, find_az
from tests.azure.emulator import Emulator
from tests.azure.login import without_azure
from tests.azure.postgres import whole_world
from tests.azure.warm import Warm
from tests.azure.world import World
from tests.database import ENV

databases.call_psql_itself()


@pytest.fixture(scope="session")
def cold_az() -> str:
    """The real az."""
    try:
        return find_az()
    except LookupError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def az_program(cold_az: str) -> Iterator[str]:
    """The real az, in a process that has its libraries already, where such a process can be had."""
    if not warm.POSSIBLE:
        yield cold_az
        return
    with tempfile.TemporaryDirectory(prefix="serving-") as home:  # short: the path of a socket has 107 bytes
        made = Warm(cold_az, Path(home), without_azure(ENV))
        yield made.program
        made.close()


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
