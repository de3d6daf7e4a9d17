"""Writes what docs/output.md says of exit codes and documents, out of docs/schemas: `python -m tests.output`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import tasks
from scripts.errors import ExitCode
from tests.conftest import ROOT
from tests.shapes import ERROR, EXPLAIN, Schema, resolved, schemas, shapes

PAGE = ROOT / "docs" / "output.md"
REWRITE = "python3 scripts/bootstrap.py python -m tests.output"
_PLURALS = {"string": "strings", "integer": "integers", "object": "objects"}


def commands() -> list[str]:
    """In the order in which tasks.py has them."""
    return list(tasks.namespace.task_names)


def exit_codes() -> Iterator[str]:
    """A table: command by exit code."""
    yield from _row("", *(f"{code:d}" for code in ExitCode))
    yield from _row(*["---"] * (len(ExitCode) + 1))
    for name in commands():
        said = schemas()[name]["x-exit-codes"]
        yield from _row(f"`{name}`", *(said.get(f"{code:d}", "") for code in ExitCode))


def failure() -> Iterator[str]:
    """A table of the document of a failure, and an example."""
    yield from _row("key", "type", "of", "when", "what it is")
    yield from _row(*["---"] * 5)
    schema = schemas()[ERROR]
    for name, kind, node, what in _keys(f"{ERROR}.json", schema):
        whose = schema["properties"][re.split(r"[.\[]", name)[0]].get("x-commands")
        yield from _row(f"`{name}`", kind, ", ".join(f"`{one}`" for one in whose) if whose else "all", _when(node), what)
    yield from _examples(schema)


def explained() -> Iterator[str]:
    """A table of the document of `--explain`, and an example."""
    yield from _shape(f"{EXPLAIN}.json", schemas()[EXPLAIN])


def documents() -> Iterator[str]:
    """A section for each command."""
    for name in commands():
        schema = schemas()[name]
        yield from (f"### `{name}`", "", schema["description"], "")
        for address, shape in shapes(name).items():
            if "oneOf" in schema:
                yield from (f"**{shape['title']}**", "")
            yield from _shape(address.partition("#")[0], shape)


def _shape(file: str, shape: Schema) -> Iterator[str]:
    yield from _row("key", "type", "when", "what it is")
    yield from _row(*["---"] * 4)
    for key, kind, node, what in _keys(file, shape):
        yield from _row(f"`{key}`", kind, _when(node), what)
    yield from _examples(shape)


def _keys(file: str, schema: Schema, before: str = "") -> Iterator[tuple[str, str, Schema, str]]:
    """The keys of an object and of what is in it: name, type, schema, description."""
    for name, node in schema["properties"].items():
        there, inner, whole = _followed(file, node)
        kinds = [f"`{json.dumps(kind, ensure_ascii=False)}`" for kind in inner.get("enum", [])]
        listed = f" One of {', '.join(kinds)}." if kinds else ""
        rows = list(_inside(there, inner, before + name))
        told = f" As [`{whole}`](#{whole.replace('.', '')}) has it." if whole and rows else ""
        yield before + name, _kind(there, inner), node, f"{inner['description']}{listed}{told}"
        yield from [] if whole else rows


def _inside(file: str, node: Schema, name: str) -> Iterator[tuple[str, str, Schema, str]]:
    for choice in (node, *node.get("anyOf", [])):
        there, inner, _ = _followed(file, choice)
        if "items" in inner:
            there, inner, _ = _followed(there, inner["items"])
            name += "[]"
        if "properties" in inner:
            yield from _keys(there, inner, f"{name}.")


def _followed(file: str, node: Schema) -> tuple[str, Schema, str]:
    """A schema with what its `$ref` leads to, in which file that is, and whose documents tell the rest."""
    if "$ref" not in node:
        return file, node, ""
    there, target = resolved(file, node["$ref"])
    is_part = "/$defs/" in node["$ref"] and not node["$ref"].endswith("/result")  # of several documents, or one of them
    whole = "" if there == file or is_part else there.removesuffix(".json")
    return there, {**target, **node}, whole


def _kind(file: str, node: Schema) -> str:
    if "anyOf" in node:
        return " or ".join(_kind(file, _followed(file, choice)[1]) for choice in node["anyOf"])
    if "enum" in node:
        return "string" if isinstance(node["enum"][0], str) else "integer"
    if "oneOf" in node or ("properties" in node and "type" not in node):
        return "object"
    kinds = node.get("type", "any")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_with_items(file, kind, node) for kind in kinds)


def _with_items(file: str, kind: str, node: Schema) -> str:
    if kind == "array":
        return f"array of {_PLURALS[_kind(file, _followed(file, node['items'])[1])]}"
    if kind == "object" and isinstance(node.get("additionalProperties"), dict):
        return f"object of {_PLURALS[node['additionalProperties']['type']]}"
    return kind


def _when(node: Schema) -> str:
    return str(node.get("x-when", "always"))


def _examples(schema: Schema) -> Iterator[str]:
    yield ""
    for example in schema["examples"]:
        yield from ("```json", json.dumps(example, indent=2, ensure_ascii=False), "```", "")


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "exit codes": exit_codes,
    "failure": failure,
    "explained": explained,
    "documents": documents,
}


def rendered(page: str) -> str:
    """The page with all that is generated in it written anew."""

    def part(found: re.Match[str]) -> str:
        lines = "\n".join(PARTS[found["name"]]()).strip()
        return f"<!-- {found['name']} -->\n\n{lines}\n\n<!-- end -->"

    return re.sub(r"<!-- (?P<name>[a-z ]+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main() -> None:
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
