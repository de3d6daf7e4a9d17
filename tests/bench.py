"""Measures what is promised, all in one run, writes docs/benchmarks.md, and fails when a promised ratio is missed.

nox -s bench              # medians of 5
nox -s bench -- 3         # medians of 3

Everybody gets the same SQL, the same server with its settings as they come, and a new database each time. Its data are in
memory where the system has such a folder: on a disk, what is measured is how long it takes to sync, which varies by half from
one run to the next. The machine's speed drifts, too: so all take turns, and a ratio is the median of those between two
neighbours of one round.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from scripts import clients
from scripts.container import connect
from scripts.embedded import Embedded
from scripts.errors import OpsError
from tests.database import ENV, IMAGE, ROOT, invoke_argv

PATH = os.pathsep.join([str(Path(sys.executable).parent), ENV["PATH"]])
PSQL = shutil.which("psql", path=ENV["PATH"])
DBMATE = shutil.which("dbmate", path=PATH)
PAGE = ROOT / "docs" / "benchmarks.md"
SIZES = (10, 100, 1_000, 10_000)
ROOM = 4 << 30  # bytes that the databases may take
RUNS_ON_DISK = 7
RUNS_OF_GROWTH = 2
RUNS_OF_THE_LONGEST = 1  # of 10,000 files, and of what takes a process for each of many files
LOCAL, DOCKER, EMBEDDED = "`migrate --psql local`", "`migrate --psql docker`", "`migrate --psql embedded`"
RAW, EACH, EACH_DOCKER, OTHER = "one psql for all", "one psql per file", "one `docker run` per file", "dbmate"

Times = dict[tuple[str, int], list[float]]  # seconds of each run, by contender and number of files


@dataclass(frozen=True)
class Folder:
    """The same files, as psql and as dbmate want them."""

    plain: Path
    marked: Path


class Bench:
    """A server of its own, and a new database for each run that applies something."""

    def __init__(self, home: Path) -> None:
        self.server = Embedded(home, 16, ENV)
        self.server.start()
        self.admin = self.server.dsn().with_params(dbname="postgres").uri().reveal()
        dsn = self.server.dsn().with_params(dbname="bench")
        self.address, self.dsn, self.password = dsn.without_password(), dsn.uri().reveal(), dsn.password.reveal()

    def fresh(self) -> None:
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
            connection.execute("CREATE DATABASE bench")
            connection.execute("CHECKPOINT")

    def timed(self, argvs: Iterable[Sequence[str]], text: bytes | None = None, **env: str) -> float:
        """Seconds of whole processes, one after another."""
        env = {**ENV, "POSTGRES_DSN": self.dsn, "PGPASSWORD": self.password, **env}
        began = time.perf_counter()
        for argv in argvs:
            subprocess.run(argv, env=env, input=text, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    def invoke(self, *words: str) -> float:
        return self.timed([invoke_argv(*words)])

    def migrate(self, mode: str, folder: Folder) -> float:
        return self.invoke("migrate", "--psql", mode, "--migrations-dir", str(folder.plain))

    def raw(self, folder: Folder) -> float:
        """One psql that is fed the same SQL, each statement by itself, without a ledger."""
        text = b"".join(path.read_bytes() for path in sorted(folder.plain.iterdir()))
        return self.timed([self._psql()], text)

    def each(self, folder: Folder) -> float:
        return self.timed([*self._psql(), "-1", "-f", str(path)] for path in sorted(folder.plain.iterdir()))

    def each_docker(self, folder: Folder) -> float:
        """As the script did that came before this: its password in the environment, its file on stdin."""
        docker = ("docker", "run", "--rm", "--interactive", "--pull=never", "--network=host", "--env=PGPASSWORD", IMAGE)
        argv = [*docker, "psql", *self._psql()[1:], "-1", "-f", "-"]
        return sum(self.timed([argv], path.read_bytes()) for path in sorted(folder.plain.iterdir()))

    def dbmate(self, folder: Folder) -> float:
        argv = [str(DBMATE), "--migrations-dir", str(folder.marked), "--no-dump-schema", "migrate"]
        return self.timed([argv], DATABASE_URL=f"{self.dsn}?sslmode=disable")

    def _psql(self) -> list[str]:
        return [str(PSQL), "-X", "-q", "-v", "ON_ERROR_STOP=1", self.address]


def write(home: Path, count: int) -> Folder:
    """`count` files of two statements each."""
    folder = Folder(home / f"{count}", home / f"{count}-dbmate")
    folder.plain.mkdir()
    folder.marked.mkdir()
    for number in range(1, count + 1):
        table = f"t{number:05d}"
        text = f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text NOT NULL);\n"
        text += f"INSERT INTO {table} SELECT g, 'row ' || g FROM generate_series(1, 3) AS g;\n"
        (folder.plain / f"{number:05d}_table.sql").write_text(text)
        (folder.marked / f"{number:05d}_table.sql").write_text(f"-- migrate:up\n{text}-- migrate:down\n")
    return folder


def contenders(bench: Bench) -> tuple[dict[str, Callable[[Folder], float]], list[str]]:
    """Who takes part, neighbours being those that are compared; and what is left out, with the reason."""
    some: dict[str, Callable[[Folder], float]] = {RAW: bench.raw, LOCAL: partial(bench.migrate, "local")}
    left_out = []
    if DBMATE:
        some[OTHER] = bench.dbmate
    else:
        left_out.append("dbmate: not installed")
    some[EMBEDDED] = partial(bench.migrate, "embedded")
    try:
        connect(ENV)
    except OpsError as error:
        left_out.append(f"Docker: {error.message}")
        return {**some, EACH: bench.each}, left_out
    some[DOCKER] = partial(bench.migrate, "docker")
    return {**some, EACH: bench.each, EACH_DOCKER: bench.each_docker}, left_out


def rounds(name: str, size: int, runs: int) -> int:
    """How often a contender runs: what takes minutes does once, or not at all."""
    if name == EACH_DOCKER:
        return runs if size == 10 else RUNS_OF_THE_LONGEST if size == 100 else 0
    if name == EACH:
        return runs if size < 1_000 else RUNS_OF_THE_LONGEST if size == 1_000 else 0
    return runs if size < 10_000 else RUNS_OF_THE_LONGEST


def race(bench: Bench, runs: int, some: Mapping[str, Callable[[Folder], float]], folders: Mapping[int, Folder]) -> Times:
    """Everybody in turn, there and back; a round before them all warms up."""
    times: Times = {(name, size): [] for size in SIZES for name in some}
    for size in SIZES:
        for number in range(-1 if size == SIZES[0] else 0, runs):
            for name in list(some)[:: 1 if number % 2 else -1]:
                if number < rounds(name, size, runs):
                    bench.fresh()
                    seconds = some[name](folders[size])
                    if number >= 0:
                        times[name, size].append(seconds)
        medians = ", ".join(f"{name} {figure(times[name, size])}" for name in some if times[name, size])
        print(f"{size:,} files: {medians}", flush=True)
    return times


def in_turn(runs: int, *some: Callable[[], float]) -> list[list[float]]:
    """Each in turn; the first round warms up."""
    found = [[one() for one in some] for _ in range(runs + 1)][1:]
    return [list(column) for column in zip(*found, strict=True)]


def compared_on_disk(folder: Folder) -> list[list[float]]:
    """`migrate` and one psql for all, on a server with its data where they usually are."""
    with tempfile.TemporaryDirectory(prefix="serving-bench-") as name:
        bench = Bench(Path(name) / "server")
        try:
            some = [partial(bench.migrate, "local", folder), partial(bench.raw, folder)]

            def anew(one: Callable[[], float]) -> float:
                bench.fresh()
                return one()

            return in_turn(RUNS_ON_DISK, *(partial(anew, one) for one in some))
        finally:
            bench.server.stop()


def growth(bench: Bench, small: Folder, large: Folder) -> float:
    """How many times as long a large folder takes as a small one, which runs before and after it."""
    seconds = []
    for folder in (small, large, small):
        bench.fresh()
        seconds.append(bench.migrate("local", folder))
    return 2 * seconds[1] / (seconds[0] + seconds[2])


def figure(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s"


def ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, other, strict=False))


@dataclass(frozen=True)
class Promise:
    """A figure and its bound, from above unless it is `at_least`."""

    what: str
    figure: float
    bound: float
    at_least: bool = False

    @property
    def held(self) -> bool:
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    @property
    def limit(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g}"

    def row(self) -> list[str]:
        return [self.what, f"{self.figure:.2f}", self.limit, "held" if self.held else "**missed**"]

    def __str__(self) -> str:
        return f"{'ok  ' if self.held else 'MISS'}  {self.what}: {self.figure:.2f} ({self.limit})"


def promises(
    times: Times, start: list[list[float]], nothing: list[list[float]], on_disk: list[list[float]], grown: Sequence[float]
) -> list[Promise]:
    listed, version = start
    ours = times[LOCAL, 1_000]
    more = statistics.median(a - b for a, b in zip(nothing[0], nothing[1], strict=True))
    found = [
        Promise("`invoke --list`, times `invoke --version`", ratio(listed, version), 1.6),
        Promise("1,000 files on a disk, times one psql for all", ratio(*on_disk), 1.25),
        Promise("10,000 files, times 1,000 files", statistics.median(grown), 12),
        Promise("nothing to do, seconds more than `invoke --version`", more, 0.35),
    ]
    if times.get((OTHER, 1_000)):
        found.append(Promise("1,000 files, times dbmate", ratio(ours, times[OTHER, 1_000]), 1))
    if times.get((EACH_DOCKER, 100)):
        each = statistics.median(times[EACH_DOCKER, 100]) / 100
        what = "one `docker run` per file, times 1,000 files (a file's share of its 100, by 1,000)"
        found.append(Promise(what, each * 1_000 / statistics.median(ours), 50, at_least=True))
    return found


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" + "|--:" * (len(rows[0]) - 1) + "|", *rest])


def page(times: Times, others: Mapping[str, list[float]], found: Sequence[Promise], left_out: Sequence[str], runs: int) -> str:
    """The whole of docs/benchmarks.md."""
    names = list(dict.fromkeys(name for name, _ in times))
    cells = [["", *(f"{size:,} files" for size in SIZES)]]
    for name in names:
        counted = [(times[name, size], len(times[name, size])) for size in SIZES]
        shown = [f"{figure(one)}{f' ({count})' if count != runs else ''}" if one else "" for one, count in counted]
        cells.append([name, *shown])
    return f"""# Benchmarks

`nox -s bench` measures this anew and writes this page; it fails when a promised ratio is missed.

Whole processes, medians of {runs} runs, or of as many as stand in brackets. A file makes a table and puts three rows into it.
Everybody gets the same SQL, a new database for each run, and the same server with its settings as they come. Its data are in
memory where the system has a folder there (Linux), so that the tools are measured and not the disk, which varies more than they
differ; what says "on a disk" is not. All take turns, and a ratio is the median of those in one round, as a machine's speed
drifts.

{table(cells)}

`migrate` checks each file, and writes its ledger row in the file's transaction, as dbmate does. "One psql for all" is fed all
files at once and keeps no books; "one psql per file" and "one `docker run` per file" run each file in a transaction, and keep
none either. What would take many minutes is left out.

{table([["", "seconds"], *([name, figure(seconds)] for name, seconds in others.items())])}

| promised | measured | bound | |
|---|--:|--:|---|
{"".join("| " + " | ".join(one.row()) + " |" + chr(10) for one in found)}
{"".join(f"Left out: {reason}.{chr(10)}" for reason in left_out)}Measured on {machine()}.
"""


def machine() -> str:
    """What this ran on, and which versions."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists() and (match := re.search(r"model name\s*: (.+)", info.read_text())):
        cpu = match[1]
    versions = [
        f"{os.cpu_count()} cores ({cpu})",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        "server PostgreSQL 16 of the wheel",
    ]
    programs = {"psql on PATH": [str(PSQL)], "": [str(DBMATE)], "psql in Docker": ["docker", "run", "--rm", IMAGE, "psql"]}
    for name, argv in programs.items():
        if shutil.which(argv[0]):
            said = subprocess.run([*argv, "--version"], env=ENV, capture_output=True, text=True, check=False).stdout.strip()
            number = re.search(r"\d+(\.\d+)+", said)
            versions += [f"{name or 'dbmate'} {number[0]}"] if number else []
    return ", ".join(versions)


def main(runs: int) -> int:
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="serving-bench-", dir=clients.memory(ROOM, ENV)))
    bench = Bench(home / "server")
    try:
        folders = {size: write(home, size) for size in SIZES}
        some, left_out = contenders(bench)
        times = race(bench, runs, some, folders)
        version = partial(bench.invoke, "--version")
        start = in_turn(3 * runs, partial(bench.invoke, "--list"), version)
        bench.fresh()
        bench.migrate("local", folders[1_000])
        nothing = in_turn(3 * runs, partial(bench.migrate, "local", folders[1_000]), version)
        others = {"`invoke --version`": start[1], "`invoke --list`": start[0], "nothing to do, of 1,000 files": nothing[0]}
        if DBMATE:
            bench.fresh()
            bench.dbmate(folders[1_000])
            others["nothing to do, dbmate"] = in_turn(runs, partial(bench.dbmate, folders[1_000]))[0]
        grown = [growth(bench, folders[1_000], folders[10_000]) for _ in range(RUNS_OF_GROWTH)]
        on_disk = compared_on_disk(folders[1_000])
        others |= {f"{LOCAL}, 1,000 files on a disk": on_disk[0], f"{RAW}, the same": on_disk[1]}
        found = promises(times, start, nothing, on_disk, grown)
        text = page(times, others, found, left_out, runs)
    finally:
        bench.server.stop()
        shutil.rmtree(home)
    PAGE.write_text(text, encoding="utf-8", newline="\n")
    print(text)
    print(f"{time.monotonic() - began:.0f} s in all")
    for promise in found:
        print(promise)
    return 0 if all(promise.held for promise in found) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
