"""What a command printed and how it ended, against docs/schemas/COMMAND.json: every `invoke` of every test goes through `check`.

Beside the keywords of JSON Schema, the schemas have `x-exit-codes` (each exit code of the command, and what it means),
`x-document-codes` (those with which its own document comes, where they aren't 0 and 3), `x-when` (when a key that need not be
there is), and error.json `x-commands` (whose failures have a fact).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).resolve().parent.parent / "docs" / "schemas"
ERROR, EXPLAIN = "error", "explain"  # what any command prints, in the place of its own document
Schema = dict[str, Any]


@functools.cache
def schemas() -> dict[str, Schema]:
    """By the command's name; and those of failures and of --explain."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCHEMAS.glob("*.json"))}


def shapes(name: str) -> dict[str, Schema]:
    """The kinds of documents that a command prints, by their addresses: one, or one for each of its ways to be called."""
    schema = schemas()[name]
    if "not" in schema:
        return {}
    if "oneOf" not in schema:
        return {f"{name}.json": schema}
    return {f"{name}.json{item['$ref']}": resolved(f"{name}.json", item["$ref"])[1] for item in schema["oneOf"]}


def resolved(file: str, reference: str) -> tuple[str, Schema]:
    """What a `$ref` in a file stands for, and in which file that is."""
    name, _, path = reference.partition("#")
    file = name or file
    node = schemas()[file.removesuffix(".json")]
    for step in filter(None, path.split("/")):
        node = node[step]
    return file, node


@functools.cache
def _validator(address: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    known = ((f"{name}.json", Resource.from_contents(schema)) for name, schema in schemas().items())
    registry: Registry[Any] = Registry().with_resources(known)
    return Draft202012Validator({"$ref": address}, registry=registry)


def fits(address: str, document: Any) -> bool:
    """Whether a document is of this kind."""
    return _validator(address).is_valid(document)


def _expect(document: Any, *addresses: str) -> None:
    """One of these kinds it has to be; of the others, the one that it comes nearest to is told."""
    from jsonschema.exceptions import best_match

    errors = {address: list(_validator(address).iter_errors(document)) for address in addresses}
    nearest = min(errors, key=lambda address: len(errors[address]))
    error = best_match(errors[nearest])
    if error is not None:
        raise AssertionError(f"docs/schemas/{nearest} is not what was printed, at {error.json_path}: {error.message}")


def check(argv: Sequence[str], code: int, out: str, err: str) -> None:
    """Raises AssertionError when a command ended, or printed something, otherwise than its schema says."""
    words = list(argv[argv.index("--search-root") + 2 :])
    command = words[0] if words else ""
    as_json = "--json" in words
    if code == 2 and as_json and (command not in schemas() or command in (ERROR, EXPLAIN)):  # no task is called so
        _check_failure(_parsed(out), code)
        return
    if command.startswith("-") or "--help" in words or code < 0:  # Invoke's own; or killed
        return
    if command not in schemas():
        assert not as_json, f"there is no docs/schemas/{command}.json"
        return
    # A bug, and a reader that has gone, end with 1, and no document.
    is_ours = code != 1 or any(line.startswith("error: ") for line in err.splitlines())
    codes = schemas()[command]["x-exit-codes"]
    assert str(code) in codes or not is_ours, f"invoke {command} ended with {code}, and its schema has {', '.join(codes)}"
    if as_json and "--explain" in words and code == 0:
        _expect(_parsed(out), f"{EXPLAIN}.json")
    elif as_json and (out or is_ours):
        _check_document(command, code, _parsed(out))
    elif (
        command == "provision" and code in (0, 3) and not {"--plan", "--explain"} & set(words)
    ):  # which prints a document in any case
        _expect(_parsed(out[out.index("\n{\n") :]), "provision.json#/$defs/result")


def _check_document(command: str, code: int, document: Any) -> None:
    if code in schemas()[command].get("x-document-codes", (0, 3)) and "error" not in document:
        _expect(document, *shapes(command))
        return
    _check_failure(document, code)
    assert (strange := list(strange_facts(command, document))) == [], f"facts that {ERROR}.json has for others: {strange}"


def _check_failure(document: Any, code: int) -> None:
    _expect(document, f"{ERROR}.json")
    assert document["exit_code"] == code, f"the process ended with {code}, and its document says {document['exit_code']}"


def strange_facts(command: str, document: dict[str, Any]) -> Iterator[str]:
    """The keys of a failure that are none of this command's."""
    properties = schemas()[ERROR]["properties"]
    return (name for name in document if command not in properties[name].get("x-commands", [command]))


def _parsed(out: str) -> Any:
    try:
        return json.loads(out)
    except ValueError as error:
        raise AssertionError(f"stdout is not one JSON document ({error}):\n{out}") from None
