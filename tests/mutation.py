"""Changes the pure parts in hundreds of small ways, one at a time, and wants a unit test to fail for each.

nox -s mutation                  # all of them
nox -s mutation -- sql render    # these

A change that no test notices (a survivor) ends it with 1, unless tests/mutants.toml says why none can, or none should. What
was found stays in .local/mutation: a run that was interrupted goes on where it was. A changed file starts its modules anew.

mutmut (https://mutmut.readthedocs.io) makes and tries the changes: each in a fork that has imported everything already, so that
a test takes milliseconds, where cosmic-ray starts a pytest for each; and it changes strings and arguments, too. It leaves out
what stands outside of functions, and the texts of f-strings.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tests.conftest import ROOT

# The modules, each with the test files that hold what it promises.
TESTS = {
    "sql": ("test_sql.py",),
    "dsn": ("test_dsn.py",),
    "render": ("test_render.py",),
    "blueprint": ("test_blueprint.py",),
}
NOTICED = ("killed", "timeout")
WORK = ROOT / ".local" / "mutation"
EXPLAINED = ROOT / "tests" / "mutants.toml"
WORKERS = os.environ.get("PYTEST_WORKERS", "2")


@dataclass(frozen=True, order=True)
class Mutant:
    """One change of one module: the lines that it takes away and those in their place."""

    module: str
    line: str
    mutant: str


def explained(text: str) -> list[tuple[Mutant, str]]:
    """What tests/mutants.toml says: the survivors that may stay, and why. Of two that look alike, it has two."""
    entries = tomllib.loads(text).get("explained", [])
    return [(Mutant(entry["module"], entry["line"], entry["mutant"]), entry["why"]) for entry in entries]


def of_diff(module: str, diff: str) -> Mutant:
    """The change that a diff shows."""
    changed = [line for line in diff.splitlines() if line[:1] in ("-", "+") and line[:3] not in ("---", "+++")]
    old, new = ("\n".join(line[1:].strip() for line in changed if line[0] == sign) for sign in "-+")
    return Mutant(module, old, new)


def undecorated(source: str) -> str:
    """The same module with `name = property(name)` behind a property: mutmut changes no function with a decorator."""
    lines = source.splitlines(keepends=True)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for function in sorted(functions, key=lambda function: function.lineno, reverse=True):
        match function.decorator_list:
            case [ast.Name(id="property" | "cached_property" as name, lineno=lineno)]:
                assert function.end_lineno is not None
                lines.insert(function.end_lineno, f"{' ' * function.col_offset}{function.name} = {name}({function.name})\n")
                del lines[lineno - 1]
    return "".join(lines)


def files_of(module: str) -> list[Path]:
    """All that the tests of a module may read, and nothing that changes each day."""
    found = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "tests").glob("*.py"), ROOT / "pyproject.toml"]
    for folder in ("deploy", "migrations", "docs/schemas"):
        found += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    found += (ROOT / "tests" / "unit" / name for name in ("__init__.py", "conftest.py", "azure.py", *TESTS[module]))
    return sorted(found)


def prepared(module: str) -> Path:
    """The folder in which mutmut works on a module, with what it knows already if nothing has changed since."""
    work, files = WORK / module, files_of(module)
    digest = hashlib.sha256(f"{sys.version} {version('mutmut')} {version('hypothesis')}".encode())
    for path in files:
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    stamp = work / "made-from"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest.hexdigest():
        return work
    shutil.rmtree(work, ignore_errors=True)
    for path in files:
        target = work / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    target = work / "scripts" / f"{module}.py"
    target.write_text(undecorated(target.read_text(encoding="utf-8")), encoding="utf-8")
    settings = {
        "source_paths": ["scripts"],
        "only_mutate": [f"scripts/{module}.py"],
        "also_copy": ["deploy", "migrations", "docs"],
        "pytest_add_cli_args_test_selection": [f"tests/unit/{name}" for name in TESTS[module]],
        "pytest_add_cli_args": ["--hypothesis-profile=ci"],  # hypothesis' own: the same examples each time
        "use_git_change_detection": False,
        "track_dependencies": False,
    }
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())  # JSON's lists are TOML, too
    with (work / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write(f"\n[tool.mutmut]\n{table}")
    stamp.write_text(digest.hexdigest(), encoding="utf-8")
    return work


def mutmut(work: Path, *arguments: str) -> str:
    """What a command of mutmut prints. Its own failure ends the run with what it said."""
    done = subprocess.run([sys.executable, "-m", "mutmut", *arguments], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"mutmut {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def verdicts(work: Path) -> dict[str, str]:
    """Each mutant by its name, and what became of it."""
    return dict(re.findall(r"^ +(\S+): (.+)$", mutmut(work, "results", "--all", "true"), re.MULTILINE))


def tried(module: str) -> tuple[Counter[str], list[tuple[Mutant, str]]]:
    """Has mutmut try each change of a module: how many ended in which way, and the survivors with their diffs."""
    work = prepared(module)
    mutmut(work, "run", "--max-children", WORKERS)
    unfinished = [name for name, verdict in verdicts(work).items() if "interrupted" in verdict or verdict == "not checked"]
    if unfinished:  # it takes what Ctrl-C has left for a verdict
        mutmut(work, "run", "--max-children", WORKERS, *unfinished)
    found = verdicts(work)
    with ThreadPoolExecutor(int(WORKERS)) as pool:
        survivors = pool.map(partial(mutmut, work, "show"), [name for name, verdict in found.items() if verdict not in NOTICED])
    return Counter(found.values()), [(of_diff(module, diff), diff) for diff in survivors]


def main(modules: Sequence[str]) -> int:
    """Tries the modules, prints the survivors and a table, and returns the exit code."""
    unknown = set(modules) - set(TESTS)
    if unknown:
        print(f"no mutants are made of {', '.join(sorted(unknown))}; there are {', '.join(TESTS)}", file=sys.stderr)
        return 2
    known = Counter(mutant for mutant, _ in explained(EXPLAINED.read_text(encoding="utf-8")))
    rows, failed = [], False
    for module in modules or TESTS:
        start = time.monotonic()
        counts, survivors = tried(module)
        left = Counter({mutant: count for mutant, count in known.items() if mutant.module == module})
        new = []
        for mutant, diff in survivors:
            if left[mutant]:
                left[mutant] -= 1
            else:
                new.append(diff)
                print(diff)
        gone = sorted(left.elements())
        for mutant in gone:
            print(f"tests/mutants.toml explains what is no survivor (any more):\n- {mutant.line}\n+ {mutant.mutant}\n")
        failed |= bool(new or gone)
        noticed = sum(counts[verdict] for verdict in NOTICED)
        rows.append((module, counts.total(), noticed, len(survivors), len(survivors) - len(new), round(time.monotonic() - start)))
    print_table(rows)
    return int(failed)


def print_table(rows: Iterable[tuple[str, int, int, int, int, int]]) -> None:
    """The figures, a line for each module."""
    print(f"{'module':<12}{'mutants':>9}{'killed':>9}{'survived':>10}{'explained':>11}{'seconds':>9}")
    for module, total, killed, survived, known, seconds in rows:
        print(f"{module:<12}{total:>9}{killed:>9}{survived:>10}{known:>11}{seconds:>9}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
