"""All the checks. `python3 scripts/bootstrap.py nox` runs those that belong to every change; `-s NAME` runs one.

Those run every test once, but for those that take longest (`-s long`). `-s integration` repeats on other servers what the
server's version may change. CI does both.

Sessions use the environment that bootstrap.py made, so that what is tested is what is locked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "unit", "policy", "integration(embedded-16)", "azure"]

# The servers of the tests, and what each leaves to the first, which runs all that the session `long` leaves to it (pyproject.toml
# has the markers).
LONG = "long or superuser"
SERVERS = {
    "embedded-16": f"not ({LONG})",
    "embedded-18": "not long and not once and not docker",
    "docker": "not long and not once and not embedded",
}
CORES = os.cpu_count() or 2
WORKERS = f"--numprocesses={os.environ.get('PYTEST_WORKERS') or CORES}"
# More than there are cores: the tests wait for servers, for az and for clocks.
MORE_WORKERS = ("--dist=worksteal", f"--numprocesses={os.environ.get('PYTEST_WORKERS') or CORES + 2}")
COMPILE = ("uv", "pip", "compile", "--universal", "--python-version=3.11", "--generate-hashes", "--no-emit-index-url", "--quiet")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format; and the migrations."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("invoke", "migrations.lint", *(["--github"] if "GITHUB_ACTIONS" in os.environ else []))


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on everything; and on what users run as other systems see it: a call that one lacks is an error."""
    workers = f"--num-workers={CORES}"
    session.run("mypy", workers)
    for platform, words in (("win32", ["--always-true=WINDOWS"]), ("darwin", [])):
        session.run(
            "mypy", workers, f"--platform={platform}", *words, f"--cache-dir=.mypy_cache/{platform}", "scripts", "tasks.py"
        )


@nox.session
def unit(session: nox.Session) -> None:
    """The pure parts, without a single process, and the rules of the house; and once more as if on Windows."""
    session.run("pytest", "tests/unit", "tests/test_house.py", WORKERS, *session.posargs)
    if os.name != "nt":
        session.run("pytest", "tests/unit", "-p", "tests.windows", WORKERS, *session.posargs)


@nox.session
def policy(session: nox.Session) -> None:
    """The workflows: audited, against GitHub's own schema, and by the rules of tests/policy. Needs no network."""
    session.run("zizmor", "--offline", "--no-progress", "--strict-collection", "--persona=auditor", ".github")
    workflows = sorted(map(str, Path(".github/workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema=vendor.github-workflows", *workflows)
    session.run("check-jsonschema", "--builtin-schema=vendor.dependabot", ".github/dependabot.yml")
    session.run("pytest", "tests/policy", WORKERS, *session.posargs)


@nox.session
@nox.parametrize("server", list(SERVERS), ids=list(SERVERS))
def integration(session: nox.Session, server: str) -> None:
    """Real Postgres, real psql. REQUIRE_DOCKER=1 makes a missing Docker engine a failure instead of a skip."""
    words = ("tests/integration", f"--server={server}", *MORE_WORKERS, "-m", SERVERS[server])
    session.run("pytest", *words, *session.posargs)


@nox.session(venv_backend="venv", reuse_venv=True)
def azure(session: nox.Session) -> None:
    """The real az, in an environment of its own, against the suite's own Resource Manager. The whole runs want Docker."""
    _with_az(session, "pytest", "tests/azure", *MORE_WORKERS, "-m", "not long", *session.posargs)


@nox.session(venv_backend="venv", reuse_venv=True)
def long(session: nox.Session) -> None:
    """What the sessions before leave out: further ways in which provisioning and proofs go. Wants Docker, and the real az."""
    _with_az(session, "pytest", "tests/azure", "tests/integration", *MORE_WORKERS, "-m", LONG, *session.posargs)


@nox.session(venv_backend="venv", reuse_venv=True)
def azure_bench(session: nox.Session) -> None:
    """What a second run of `invoke provision` costs, in az calls."""
    _with_az(session, "tests.azure.bench", *session.posargs)


def _with_az(session: nox.Session, module: str, *arguments: str) -> None:
    """Runs a module of the environment of bootstrap.py, and tells it of the az of the session's own environment."""
    # az loads a tenth of the modules that pip would compile; it compiles those itself, once.
    words = ("--quiet", "--disable-pip-version-check", "--no-compile", "--require-hashes")
    session.install(*words, "--requirement", "requirements/azure.txt")
    az = Path(session.bin) / ("az.bat" if os.name == "nt" else "az")
    session.run(sys.executable, "-m", module, *arguments, env={"AZ": str(az)}, external=True)


@nox.session
def stress(session: nox.Session) -> None:
    """The long proofs: twenty runners twenty times, and processes killed at every step."""
    for server in session.posargs or SERVERS:
        session.run("pytest", "tests/stress", f"--server={server}", "--timeout=3600")


@nox.session
def bench(session: nox.Session) -> None:
    """Ratios measured in one run: docs/benchmarks.md. What Docker and dbmate take part in wants them."""
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Changes the pure parts in hundreds of small ways: a unit test has to fail for each. `-- sql` takes that module only."""
    if os.name == "nt":
        session.skip("mutmut forks, which Windows doesn't")
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Writes requirements/*.txt anew from pyproject.toml, for every platform at once."""
    command = "--custom-compile-command=nox -s lock"
    upgrade = ("--upgrade", *session.posargs)
    session.run(*COMPILE, command, *upgrade, "pyproject.toml", "--output-file=requirements/runtime.txt")
    constraint = "--constraints=requirements/runtime.txt"
    session.run(*COMPILE, command, *upgrade, constraint, "--group=dev", "--output-file=requirements/dev.txt")
    # Not held to the runtime's versions: azure-cli lives in an environment of its own.
    session.run(*COMPILE, command, *upgrade, "--group=azure", "--output-file=requirements/azure.txt")
