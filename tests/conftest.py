"""What every suite shares: where the project is, and which server the tests with a database use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Whoever starts this in the background may have it ignore Ctrl-C, and every command that a test interrupts with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says how busy the machine is.
settings.register_profile("no clock", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", default="embedded-16", help="embedded-16, embedded-18 or docker (POSTGRES_IMAGE)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty migrations folder."""
    path = tmp_path / "migrations"
    path.mkdir()
    return path
