"""Exit codes and documents: that every command has them written down, and that what checks them finds what is wrong."""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from jsonschema import Draft202012Validator

import tasks
from scripts import blueprint, checkup, plan, rotate, schema
from scripts.console import Console
from scripts.errors import ExitCode, OpsError, Pending, UsageError
from tests import endings, output, shapes
from tests.conftest import ROOT

COMMANDS = output.commands()
DOCUMENTS = [address for name in shapes.schemas() for address in shapes.shapes(name)]
TARGET = "postgresql://me:****@localhost/serving"
FAILURE = {"error": "it broke", "hint": "", "exit_code": 1}


def prints_json(command: str) -> bool:
    return "json" in inspect.signature(tasks.namespace[command].body).parameters


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema in a schema."""
    if isinstance(node, dict):
        yield node
        for key, inner in node.items():
            if key in ("properties", "$defs"):
                for one in inner.values():
                    yield from nodes(one)
            elif key not in ("examples", "x-exit-codes"):
                yield from nodes(inner)
    elif isinstance(node, list):
        for one in node:
            yield from nodes(one)


# What is written down.


def test_every_command_has_a_schema() -> None:
    assert sorted(shapes.schemas()) == sorted([*COMMANDS, shapes.ERROR, shapes.EXPLAIN]), (
        "docs/schemas/COMMAND.json; CONTRIBUTING.md says how"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_document_when_it_has_the_flag(command: str) -> None:
    assert bool(shapes.shapes(command)) == prints_json(command)
    assert shapes.schemas()[command]["title"] == command
    assert shapes.schemas()[command]["description"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_its_exit_codes_mean(command: str) -> None:
    codes = shapes.schemas()[command]["x-exit-codes"]
    assert {"0", "2", "130"} <= set(codes) <= {f"{code:d}" for code in ExitCode}
    assert all(codes.values())


@pytest.mark.parametrize("name", shapes.schemas())
def test_a_schema_is_closed_and_describes_every_key(name: str) -> None:
    whole = shapes.schemas()[name]
    Draft202012Validator.check_schema(whole)
    assert whole["$schema"] == Draft202012Validator.META_SCHEMA["$schema"]
    for node in nodes(whole):
        if "properties" not in node:
            continue
        assert node["additionalProperties"] is False
        required = node.get("required", [])
        assert set(required) <= set(node["properties"])
        for key, inner in node["properties"].items():
            target = shapes.resolved(f"{name}.json", inner["$ref"])[1] if "$ref" in inner else {}
            assert {**target, **inner}.get("description"), key
            assert ("x-when" in inner) == (key not in required), f"{key}: a key that need not be there says when it is"
    for fact in shapes.schemas()[shapes.ERROR]["properties"].values():
        assert set(fact.get("x-commands", [])) <= set(COMMANDS)


@pytest.mark.parametrize("address", DOCUMENTS)
def test_every_document_has_an_example_that_it_holds_for(address: str) -> None:
    examples = shapes.resolved("", address)[1]["examples"]
    assert examples
    assert [example for example in examples if not shapes.fits(address, example)] == []


def test_the_page_says_what_the_schemas_say() -> None:
    page = output.PAGE.read_text(encoding="utf-8")
    assert output.rendered(page) == page, f"it is written anew by: {output.REWRITE}"
    assert [name for name in output.PARTS if f"<!-- {name} -->" not in page] == []


@pytest.mark.parametrize(
    ("address", "enum"),
    [
        ("status.json#/properties/migrations/items/properties/state", plan.State),
        ("rotate.json#/properties/stage", rotate.Stage),
        ("doctor.json#/properties/checks/items/properties/state", checkup.State),
        ("migrations.drift.json#/properties/differences/items/properties/kind", schema.Side),
        ("provision.json#/$defs/plan/properties/steps/items/properties/action", blueprint.Action),
        ("provision.json#/$defs/plan/properties/steps/items/properties/kind", blueprint.Kind),
    ],
)
def test_the_words_of_a_document_are_those_of_the_code(address: str, enum: type[Enum]) -> None:
    assert shapes.resolved("", address)[1]["enum"] == [one.value for one in enum]


def test_the_exit_codes_of_failures_are_all_but_0() -> None:
    codes = shapes.schemas()[shapes.ERROR]["properties"]["exit_code"]["enum"]
    assert codes == [int(code) for code in ExitCode if code is not ExitCode.OK]


def test_every_document_and_every_exit_code_is_seen_in_a_run_of_its_own() -> None:
    assert [address for address in DOCUMENTS if address not in {ending.prints for ending in endings.ALL}] == []
    wanted = {(name, int(code)) for name in COMMANDS for code in shapes.schemas()[name]["x-exit-codes"] if code != "130"}
    assert sorted(wanted - {(ending.command, ending.code) for ending in endings.ALL} - set(endings.ELSEWHERE)) == []
    assert [file for file in endings.ELSEWHERE.values() if not (ROOT / file).is_file()] == []


# How the wrapper of every command ends.


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (None, 0),
        (OpsError("it broke"), 1),
        (UsageError("no such flag"), 2),
        (Pending("not yet"), 3),
        (KeyboardInterrupt(), 130),
        (ExitCode.PENDING, 3),
        (ExitCode.FAILED, 1),
    ],
)
def test_a_command_ends_with_the_exit_code_of_what_happened(
    raised: BaseException | ExitCode | None, code: int, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)

    @tasks.command
    def body(console: Console, json: bool = False) -> ExitCode | None:
        if isinstance(raised, BaseException):
            raise raised
        return raised

    if code == 0:
        body(Context(), json=as_json)
    else:
        with pytest.raises(Exit) as ended:
            body(Context(), json=as_json)
        assert ended.value.code == code
    if as_json and isinstance(raised, BaseException):
        document = json.loads(out.getvalue())
        assert document["exit_code"] == code
        assert shapes.fits("error.json", document)
    else:
        assert out.getvalue() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_wrapped_so(command: str) -> None:
    assert tasks.namespace[command].body.__code__ is tasks.quickstart.body.__code__


# What checks every run of every test.


def checked(*words: str, code: int = 0, out: Any = "", err: str = "") -> None:
    printed = out if isinstance(out, str) else json.dumps(out)
    shapes.check(["python", "-m", "invoke", "--search-root", "/project", *words], code, printed, err)


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["migrate", "--json"], 0, {"target": TARGET, "applied": [], "pending": []}, ""),
        (["migrate", "--json"], 1, FAILURE, "error: it broke\n"),
        (["migrate", "--json"], 1, {**FAILURE, "target": TARGET, "applied": [], "failed": "0001_a.sql"}, "error: it broke\n"),
        (["migrate", "--json", "--no-such-flag"], 2, {**FAILURE, "exit_code": 2}, "error: it broke\n"),
        (["migrat", "--json"], 2, {**FAILURE, "exit_code": 2}, "error: it broke\n"),
        (["migrate", "--json", "--explain"], 0, {"command": "migrate", "values": []}, ""),
        (["provision", "--explain"], 0, "a table", ""),
        (["migrate", "--json"], 1, "", "Traceback (most recent call last):\n"),
        (["migrate", "--json"], -9, "", ""),
        (["migrate", "--json", "--help"], 0, "Usage: ...", ""),
        (["--list"], 0, "...", ""),
        (["rotate", "--json"], 3, {**FAILURE, "exit_code": 3}, "error: it broke\n"),
        (["github.check"], 1, "", "Traceback (most recent call last):\n"),
        (["psql"], 1, "anything", "error: it broke\n"),
    ],
)
def test_what_is_as_it_should_be_passes(words: list[str], code: int, out: Any, err: str) -> None:
    checked(*words, code=code, out=out, err=err)


@pytest.mark.parametrize(
    ("words", "code", "out", "message"),
    [
        (["migrate"], 0, {"target": TARGET, "applied": []}, "'pending' is a required property"),
        (["migrate"], 0, {"target": TARGET, "applied": [], "pending": [], "more": 1}, "more"),
        (
            ["migrate"],
            0,
            {"target": TARGET, "applied": [{"version": 1, "name": "a", "duration_ms": 2}], "pending": []},
            "version: 1",
        ),
        (["migrate"], 0, "", "not one JSON document"),
        (["migrate"], 0, '{"target": ""}\n{"target": ""}\n', "not one JSON document"),
        (["migrate"], 1, {"target": TARGET, "applied": [], "pending": []}, "error.json"),
        (["migrate"], 1, "", "not one JSON document"),
        (["migrate"], 2, FAILURE, "ended with 2, and its document says 1"),
        (["migrate"], 3, {**FAILURE, "exit_code": 3}, "migrate ended with 3"),
        (["migrate"], 5, "", "migrate ended with 5"),
        (["migrate"], 1, {**FAILURE, "last_good": "api--1"}, "last_good"),
        (["migrate"], 1, {**FAILURE, "failed": "0001_a.sql"}, "dependency of 'failed'"),
        (["github.check"], 1, FAILURE, "github.check ended with 1"),
        (["roles"], 0, {"target": TARGET, "role": "r", "gaps": [], "changes": []}, "roles.json"),
        (["no.such"], 0, {}, "there is no docs/schemas/no.such.json"),
        (["no.such"], 2, "", "not one JSON document"),
        (["explain"], 2, FAILURE, "ended with 2, and its document says 1"),
        (["migrate", "--explain"], 0, {"target": TARGET, "applied": [], "pending": []}, "explain.json"),
    ],
)
def test_what_is_otherwise_does_not(words: list[str], code: int, out: Any, message: str) -> None:
    err = "error: it broke\n" if code else ""
    with pytest.raises(AssertionError) as raised:
        checked(*words, "--json", code=code, out=out, err=err)
    assert message in str(raised.value)


def test_provision_is_held_to_its_document_without_the_flag_too() -> None:
    result = shapes.resolved("", "provision.json#/$defs/result")[1]
    short = {key: result["examples"][0][key] for key in result["required"]}
    checked("provision", out=f"it stands\n{json.dumps(short, indent=2)}")
    with pytest.raises(AssertionError, match="adminUser"):
        checked("provision", out=f"it stands\n{json.dumps({**short, 'adminUser': None}, indent=2)}")
