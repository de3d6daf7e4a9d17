"""Measures what a second run of `invoke provision` costs, against az calls one after another, in one run.

nox -s azure_bench        # medians of 5
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.azure.cli import find_az
from tests.azure.emulator import Emulator
from tests.azure.world import World
from tests.bench import Promise, in_turn, ratio


def main(runs: int) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="serving-bench-") as home,
        Emulator() as emulator,
        World(emulator, Path(home), find_az(), "serving-bench") as world,
    ):
        words = ("--allow-azure-services", "--allow-cidr", "203.0.113.0/28")
        world.made(*words)
        world.forget_calls()

        def again() -> float:
            began = time.perf_counter()
            world.made(*words)
            return time.perf_counter() - began

        def one_after_another() -> float:
            began = time.perf_counter()
            for _ in range(4):
                argv = [find_az(), "postgres", "flexible-server", "show", "--name", world.server]
                subprocess.run(
                    [*argv, "--resource-group", f"{world.server}-rg", "--output", "none"], env=world.env, cwd=home, check=True
                )
            return time.perf_counter() - began

        ours, calls = in_turn(runs, again, one_after_another)
        asked = len(world.calls()) / (runs + 1)
        found = [
            Promise("az calls of a run that changes nothing", asked, 6),
            Promise("such a run, times 4 az calls in a row", ratio(ours, calls), 1),
        ]
        for promise in found:
            print(promise)
    return 0 if all(promise.held for promise in found) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
