"""The az of these tests, which is forked, against the one that is started."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests import warm
from tests.azure.cli import Az, ended
from tests.azure.emulator import Emulator
from tests.azure.world import eventually

pytestmark = pytest.mark.skipif(not warm.POSSIBLE, reason="the real az is what runs then")


@pytest.mark.parametrize(
    "words",
    [
        "account show -o json",
        "group show --name missing",
        "postgres flexible-server list -o tsv",
        "postgres flexible-server create --nonsense",
        "containerapp show --name api --resource-group missing",
    ],
)
def test_a_forked_az_says_what_a_started_one_says(cold_az: str, az: Az, words: str) -> None:
    assert az(*words.split()) == Az(cold_az, az.emulator, az.home)(*words.split())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_forked_az(cold_az: str, az: Az, emulator: Emulator, number: int) -> None:
    started = Az(cold_az, emulator, az.home)
    endings = []
    for one in (az, started):
        emulator.requests.clear()
        process = one.start("group wait --name missing --exists --interval 60")
        eventually(lambda: bool(emulator.requests))
        process.send_signal(number)
        endings.append(ended(process).code)
    assert endings[0] == endings[1] != 0


def test_a_forked_az_ends_with_its_caller(az: Az, emulator: Emulator) -> None:
    process = az.start("group wait --name missing --exists --interval 60")
    eventually(lambda: bool(emulator.requests))
    process.kill()
    assert ended(process).code == -signal.SIGKILL  # its outputs are closed only when the forked one is gone, too


def test_each_az_has_the_folder_of_its_caller_also_while_another_s_runs(az: Az, emulator: Emulator, tmp_path: Path) -> None:
    nobody = Az(az.program, emulator, tmp_path / "nobody", logged_in=False)
    process = az.start("group wait --name missing --exists --interval 60")
    eventually(lambda: bool(emulator.requests))
    assert "az login" in nobody("account", "show").err
    assert Path(az.program).with_name("folder").samefile(az.home / "az"), "the one that runs still has its own"
    process.kill()
    ended(process)
    assert "az login" in nobody("account", "show").err
    assert az("account", "show", "-o", "json").json["environmentName"] == "local"
