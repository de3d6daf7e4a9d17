"""An emulator for each test, and the real az led to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.cli import Az, find_az
from tests.azure.emulator import Emulator


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
