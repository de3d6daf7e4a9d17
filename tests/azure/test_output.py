"""Every exit code and every document that needs Azure or GitHub, each from a run of its own."""

from __future__ import annotations

from tests.azure.world import World
from tests.endings import IN_AZURE
from tests.github import serving

DSN = "postgresql://backtest_service:word@s.postgres.database.azure.com:5432/serving?sslmode=require"


def test_in_azure(world: World) -> None:
    emulator = world.emulator
    emulator.add_group("rg")
    emulator.add_server("rg", world.server)
    with serving(world.home) as made:
        world.env |= made.env | {
            "AZURE_RESOURCE_GROUP": "rg",
            "CONTAINER_APP_NAME": "api",
            "CONTAINER_APP_ENVIRONMENT": emulator.add_environment("env")["id"],
            "CONTAINER_APP_IDENTITY": emulator.add_identity("puller"),
            "CONTAINER_REGISTRY": "registry.azurecr.io",
            "API_IMAGE": "registry.azurecr.io/api:1",
            "POSTGRES_ADMIN_DSN": DSN.replace("backtest_service", "serving_admin"),
            "POSTGRES_DSN": DSN,
            "GH_REPO": f"{made.address}/o/r",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        for ending in IN_AZURE:
            ending.hold(world.invoke(*ending.words({}), env=ending.env))
