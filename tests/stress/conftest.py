"""The fixtures of the integration tests."""

from tests.integration.conftest import azure_server, database, mode, scratch, server, serving

__all__ = ["azure_server", "database", "mode", "scratch", "server", "serving"]
