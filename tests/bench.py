"""Measures the ratios that are promised, all in one run, and fails when one is missed.

nox -s bench              # medians of 5
nox -s bench -- 3         # medians of 3
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from scripts.embedded import Embedded
from tests.database import ENV, invoke_argv

PSQL = shutil.which("psql", path=ENV["PATH"])


class Bench:
    """A server of its own, and a new database for each run that applies something."""

    def __init__(self, home: Path) -> None:
        self.server = Embedded(home, 16, ENV)
        self.server.start()
        self.admin = self.server.dsn().with_params(dbname="postgres").uri().reveal()
        self.dsn = self.server.dsn().with_params(dbname="bench").uri().reveal()

    def fresh(self) -> None:
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
            connection.execute("CREATE DATABASE bench")
            connection.execute("CHECKPOINT")

    def timed(self, argv: Sequence[str], text: bytes = b"") -> float:
        """Seconds of a whole process."""
        began = time.perf_counter()
        subprocess.run(argv, env={**ENV, "POSTGRES_DSN": self.dsn}, input=text, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    def raw(self, folder: Path) -> float:
        """One psql that is fed the same SQL, each statement by itself."""
        text = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
        self.fresh()
        return self.timed([str(PSQL), "-X", "-q", "-v", "ON_ERROR_STOP=1", self.dsn], text)

    def migrate(self, folder: Path) -> float:
        self.fresh()
        return self.nothing_to_do(folder)

    def nothing_to_do(self, folder: Path) -> float:
        return self.timed(invoke_argv("migrate", "--psql", "local", "--migrations-dir", str(folder)))


def write(folder: Path, count: int) -> Path:
    """`count` files of two statements each."""
    folder.mkdir()
    for number in range(1, count + 1):
        table = f"t{number:05d}"
        text = f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text NOT NULL);\n"
        text += f"INSERT INTO {table} SELECT g, 'row ' || g FROM generate_series(1, 3) AS g;\n"
        (folder / f"{number:05d}_table.sql").write_text(text)
    return folder


def show(name: str, figure: float, bound: float, seconds: dict[str, list[float]]) -> bool:
    held = figure <= bound
    medians = ", ".join(f"{key} {statistics.median(values):.2f} s" for key, values in seconds.items())
    print(f"{'ok  ' if held else 'MISS'}  {name}: {figure:.2f} (at most {bound})   [{medians}]", flush=True)
    return held


def compare(runs: int, one: Callable[[], float], other: Callable[[], float]) -> tuple[list[float], list[float]]:
    """The two in turn, so that a machine whose speed drifts treats both alike; the first pair warms up."""
    pairs = [(one(), other()) for _ in range(runs + 1)][1:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def ratio(ours: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, other, strict=True))


def main(runs: int) -> int:
    home = Path(tempfile.mkdtemp(prefix="serving-bench-"))
    bench = Bench(home / "server")
    held = []
    try:
        thousand, ten_thousand = write(home / "1000", 1000), write(home / "10000", 10000)
        version = lambda: bench.timed(invoke_argv("--version"))  # noqa: E731

        ours, plain = compare(runs, lambda: bench.timed(invoke_argv("--list")), version)
        held.append(show("invoke --list, times --version", ratio(ours, plain), 1.6, {"list": ours, "version": plain}))

        ours, raw = compare(runs, lambda: bench.migrate(thousand), lambda: bench.raw(thousand))
        held.append(show("1,000 files, times one psql", ratio(ours, raw), 1.25, {"migrate": ours, "psql": raw}))

        bench.migrate(thousand)
        nothing, plain = compare(runs, lambda: bench.nothing_to_do(thousand), version)
        more = statistics.median(a - b for a, b in zip(nothing, plain, strict=True))
        held.append(show("nothing to do, seconds more than --version", more, 0.35, {"migrate": nothing, "version": plain}))

        many, few = compare(1, lambda: bench.migrate(ten_thousand), lambda: bench.migrate(thousand))
        held.append(show("10,000 files, times 1,000", ratio(many, few), 12, {"10,000": many, "1,000": few}))
    finally:
        bench.server.stop()
        shutil.rmtree(home)
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
