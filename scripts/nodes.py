"""YAML as the nodes that PyYAML composes: walked, compared and written. Pure.

A node keeps its tag and its place, which what is made of it doesn't.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaml import Node, ScalarNode

INTEGER, STRING, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("int", "str", "merge"))


def put(text: str, values: Mapping[str, str]) -> str:
    """The text with values in the place of marks; what stands in a value is no mark."""
    if not values:
        return text
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found.group()], text)


def quoted(value: str) -> str:
    """A double-quoted scalar on one line, in ASCII."""
    import yaml

    return str(yaml.safe_dump(value, default_style='"', width=float("inf"))).removesuffix("\n")


def is_same(tree: Node, text: str, values: Mapping[str, str]) -> bool:
    """Whether a text parses to the tree with the values in the place of marks, and to nothing else."""
    import yaml

    try:
        found = yaml.compose(text, Loader=yaml.SafeLoader)
        return _equal(tree, found, values)
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def _equal(tree: Node, found: Node | None, values: Mapping[str, str]) -> bool:
    import yaml

    if found is None or type(tree) is not type(found) or tree.tag != found.tag:
        return False
    if isinstance(tree, yaml.ScalarNode):
        return bool(put(tree.value, values) == found.value)
    ours, theirs = (
        [inner for pair in node.value for inner in pair] if isinstance(node, yaml.MappingNode) else node.value
        for node in (tree, found)
    )
    return len(ours) == len(theirs) and all(_equal(one, other, values) for one, other in zip(ours, theirs, strict=True))


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    import yaml

    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from walk(key)
            yield from walk(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from walk(item)


def child(node: Node, step: str | int, marks: Mapping[str, str]) -> tuple[Node, Node] | None:
    """What stands at a step of a path, with the key (or the item itself) that begins it."""
    import yaml

    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        return (node.value[step], node.value[step]) if step < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        named = [pair for pair in node.value if pair[0].value == step]
        referring = [pair for pair in node.value if any(mark in pair[0].value for mark in marks)]
        return next(iter([*named, *referring]), None)
    return None


def secret_values(tree: Node) -> Iterator[tuple[Node, Node]]:
    """The `value` of each of `configuration.secrets`, key and value."""
    import yaml

    for node in walk(tree):
        if not isinstance(node, yaml.MappingNode):
            continue
        for key, value in node.value:
            if key.value == "secrets" and isinstance(value, yaml.SequenceNode):
                for item in value.value:
                    if isinstance(item, yaml.MappingNode):
                        yield from (pair for pair in item.value if pair[0].value == "value")


def keys_in_braces(tree: Node) -> set[Node]:
    """The keys of the mappings that stand between braces, in which a comma parts one from the next."""
    import yaml

    return {key for node in walk(tree) if isinstance(node, yaml.MappingNode) and node.flow_style for key, _ in node.value}


def repeated_keys(tree: Node, values: Mapping[str, str]) -> Iterator[ScalarNode]:
    """The keys that their mapping has already; PyYAML takes the last of them without a word."""
    import yaml

    for node in walk(tree):
        if isinstance(node, yaml.MappingNode):
            seen: dict[tuple[str, str], ScalarNode] = {}
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    text = key.tag, put(key.value, values)
                    if text in seen:
                        yield key if any(mark in key.value for mark in values) else seen[text]
                    seen[text] = key


def is_scalar(node: Node) -> bool:
    """Whether it is a word, and no list or mapping."""
    import yaml

    return isinstance(node, yaml.ScalarNode)


def is_of(tag: str, value: str) -> bool:
    """Whether a value is what a tag says, in the one spelling that can't be taken for anything else."""
    found = made(tag, value)
    return found is not None and (tag != INTEGER or found == [value])


def made(tag: str, value: str) -> list[str] | None:
    """What PyYAML makes of a value by a tag, as a text in a list; None where it makes nothing of it."""
    import yaml

    try:
        return [str(yaml.safe_load(f"!<{tag}> {quoted(value)}"))]
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError):
        return None
