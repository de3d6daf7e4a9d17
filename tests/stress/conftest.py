"""The fixtures of the integration tests."""

from tests.integration.conftest import database, mode, scratch, server

__all__ = ["database", "mode", "scratch", "server"]
