"""A DSN goes to a Key Vault by the real az: the value in no argv, the file gone afterwards."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from tests.azure.emulator import Emulator
from tests.azure.world import World, failed

DSN = "postgresql://backtest_service:{}@a-server.postgres.database.azure.com:5432/serving?sslmode=require"


@pytest.fixture
def world(az_program: str, emulator: Emulator, tmp_path: Path) -> World:
    emulator.add_vault("my-vault")
    return World(emulator, tmp_path, az_program, "a-server")


def test_the_secret_is_set_and_nothing_of_it_stays_behind(world: World) -> None:
    token = secrets.token_hex(12)
    dsn = DSN.format(f"%3A%2F%40%25%23{token}")
    result = world.invoke(
        "secret.push", "--key-vault", "my-vault", "--secret-name", "app-dsn", "--json", env={"POSTGRES_DSN": dsn}
    )
    assert result.returncode == 0, result.stderr
    assert world.emulator.vaults.secrets["my-vault"]["app-dsn"] == [dsn]
    place = json.loads(result.stdout)["handed_over"][0]
    assert place.endswith("/secrets/app-dsn"), "the id without a version always means the newest"
    assert token not in result.stdout + result.stderr
    assert [name for name, text in world.traces().items() if token in text] == []


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (("--key-vault", "1vault"), 2, ("a vault's name has 3 to 24",)),
        (("--key-vault", "my-vault", "--secret-name", "my_dsn"), 2, ("Key Vault takes letters, digits and -",)),
        (("--secret-name", "my-dsn"), 2, ("--key-vault NAME",)),
        (("--key-vault", "other-vault"), 1, ("Key Vault",)),
    ],
)
def test_what_can_not_be_is_told(world: World, words: tuple[str, ...], code: int, texts: tuple[str, ...]) -> None:
    failed(world.invoke("secret.push", *words, env={"POSTGRES_DSN": DSN.format("password")}), code, *texts)


def test_a_login_that_may_not_is_told(world: World) -> None:
    world.emulator.fail("PUT", "/secrets/", "vault-forbidden")
    result = world.invoke("secret.push", "--key-vault", "my-vault", env={"POSTGRES_DSN": DSN.format("password")})
    failed(result, 1, "may not set a secret of this Key Vault", "Key Vault Secrets Officer")
