"""The keys that a template may have against those that az's own model keeps: what az drops or learns shows here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.containerapp import SCHEMA

# Run by az's own Python: each class that a Container App is made of, with the keys that may be written and their types.
PROGRAM = """
import json
from azure.cli.command_modules.containerapp import _sdk_models as models
found, left = {}, ["ContainerApp"]
while left:
    name = left.pop()
    model = getattr(models, name, None)
    if name in found or not hasattr(model, "_attribute_map"):
        continue
    fixed = {key for key, rule in model._validation.items() if rule.get("readonly")}
    found[name] = {item["key"]: item["type"] for key, item in model._attribute_map.items() if key not in fixed}
    left += [kind.strip("[]{}") for kind in found[name].values()]
print(json.dumps(found))
"""
PLAIN = {"str": {"string"}, "int": {"integer"}, "float": {"number"}, "bool": {"boolean"}}
BY_AZ_ITSELF = {"name", "type"}  # read-only to the model; `az containerapp` reads them before it
SAME = {"properties.managedEnvironmentId"}  # the former name of environmentId, of which one is enough
Keys = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def model(cold_az: str) -> Keys:
    """What az's model knows: class by class, the keys with their types."""
    folder = Path(cold_az).resolve().parent
    python = next(path for name in ("python3", "python", "python.exe") if (path := folder / name).is_file())
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run([python, "-I", "-c", PROGRAM], env=env, capture_output=True, text=True, check=True, timeout=120)
    found: Keys = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return found


def classes(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schema by az's names: `properties` is a class of its own to it, and a prefix to az."""
    defs = dict(schema["$defs"])
    inner = {f"properties.{key}": value for key, value in defs.pop("Properties")["properties"].items()}
    outer = {key: value for key, value in schema["properties"].items() if key != "properties"}
    return {"ContainerApp": {**outer, **inner}, **{name: item["properties"] for name, item in defs.items()}}


def test_every_key_of_the_schema_is_kept_by_az_and_every_key_of_az_stands_in_the_schema(
    model: Keys, schema: dict[str, Any]
) -> None:
    ours = {name: set(keys) for name, keys in classes(schema).items()}
    ours["ContainerApp"] -= BY_AZ_ITSELF
    theirs = {name: set(keys) - SAME for name, keys in model.items()}
    for name in ("SystemData", "UserAssignedIdentity"):  # Azure's to say
        theirs.pop(name, None)
    assert {name: sorted(keys) for name, keys in ours.items()} == {name: sorted(keys) for name, keys in theirs.items()}


def test_every_key_has_the_type_that_az_takes(model: Keys, schema: dict[str, Any]) -> None:
    for name, keys in classes(schema).items():
        for key, item in keys.items():
            if name == "ContainerApp" and key in BY_AZ_ITSELF:
                continue
            rule, kind = item, model[name][key]
            place = f"{name}.{key}: {kind}"
            if kind.startswith("["):
                assert rule["type"] == "array", place
                rule, kind = rule["items"], kind[1:-1]
            elif kind.startswith("{"):
                assert rule["type"] == "object", place
                rule, kind = rule["additionalProperties"], kind[1:-1]
            if kind in PLAIN:
                assert rule.get("type", "string") in PLAIN[kind], place
                assert all(isinstance(word, str) for word in rule.get("enum", [])), place
            elif kind != "UserAssignedIdentity":
                assert rule["$ref"] == f"#/$defs/{kind}", place
