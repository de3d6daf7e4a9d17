"""Templates and values that nobody wrote by hand, against GNU envsubst and against the parser that az uses."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts import render
from scripts.errors import UsageError
from tests.database import ENV

REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
NAMES = ["A", "_b", "C3", "LONG_NAME"]
AWKWARD = [
    *(
        "yes",
        "No",
        "on",
        "null",
        "~",
        "0123",
        "1_000",
        "0x1f",
        "1e3",
        "1.5",
        "2026-11-25",
        "12:30:45",
        ".inf",
        "=",
        "<<",
        "---",
        "...",
    ),
    *("<password>", "x<server-name>", "\udc80"),
    *(
        "p #x",
        "#x",
        "a: b",
        "a:",
        ": b",
        "- a",
        "-",
        "? a",
        "&a b",
        "*a",
        "!t b",
        "!!int 3",
        "%a",
        "@a",
        "`a",
        "| a",
        "> a",
        "|",
        ">",
    ),
    *(
        "'",
        '"',
        "''",
        '""',
        "it's",
        'say "so"',
        "\\",
        "\\n",
        "a\\",
        "{}",
        "[]",
        "{",
        "}",
        "[",
        "]",
        "a, b",
        ",",
        "${A}",
        "$A",
        "${",
        "$",
    ),
    *(
        "a\nb",
        "\n",
        "a\n",
        "\na",
        "a\r\nb",
        "a\tb",
        "\t",
        " a",
        "a ",
        " ",
        "a  b",
        "\x00",
        "\x07",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\ufeff",
    ),
    *(
        "é",
        "\U0001f600",
        "日本",
        "p@ss:w/rd%",
        "postgresql://u:p%2F@h.example:5432/d?sslmode=require&x=y",
        "\\U0001f600",
        "a\n\n  b",
    ),
]
SAFE = st.text("abcXYZ019_-./+", min_size=1, max_size=12).map(lambda text: f"v{text}")
VALUES = st.one_of(
    SAFE,
    st.sampled_from(AWKWARD),
    st.text(min_size=1, max_size=12),
    st.lists(st.sampled_from(AWKWARD), min_size=2, max_size=3).map("".join),
)
REFERENCES = st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from([f"${{{name}}}", f"${{{name}}}", f"${name}"]))
WORDS = st.one_of(REFERENCES, REFERENCES, st.sampled_from(["plain", "a/", "-b", ".", "/", "$$", "$1", "x y"]))
RUNS = st.lists(WORDS, min_size=1, max_size=3).map("".join)
SCALARS = st.one_of(
    RUNS,
    RUNS.map(lambda run: f'"{run}"'),
    RUNS.map(lambda run: f"'{run}'"),
    REFERENCES.map(lambda name: f"!!int {name}"),
    REFERENCES.map(lambda name: f"!!str {name}"),
    REFERENCES.map(lambda name: f"&anchor {name}"),
)
FLOWS = st.lists(SCALARS, max_size=3).map(lambda items: f"[{', '.join(items)}]")
COMMENTS = st.one_of(st.just(""), st.just(""), RUNS.map(lambda run: f" # {run}"))


@st.composite
def nodes(draw: st.DrawFn, indent: str = "", depth: int = 0) -> str:
    """A block of YAML, its lines at an indentation."""
    kind = draw(st.sampled_from(["scalar", "scalar", "block", "flow", *(["mapping", "sequence"] if depth < 2 else [])]))
    if kind == "scalar":
        return f" {draw(SCALARS)}{draw(COMMENTS)}\n"
    if kind == "flow":
        return f" {draw(FLOWS)}{draw(COMMENTS)}\n"
    if kind == "block":
        style = draw(st.sampled_from(["|", ">", "|-", ">-", "|+"]))
        return f" {style}\n" + "".join(f"{indent}  {draw(RUNS)}\n" for _ in range(draw(st.integers(1, 2))))
    if kind == "sequence":
        return "\n" + "".join(f"{indent}-{draw(nodes(indent + '  ', depth + 1))}" for _ in range(draw(st.integers(1, 3))))
    return "\n" + draw(mappings(indent, depth))


@st.composite
def mappings(draw: st.DrawFn, indent: str = "", depth: int = 0) -> str:
    lines = []
    for number in range(draw(st.integers(1, 3))):
        key = draw(st.one_of(st.just(f"key{number}"), st.just(f"key{number}"), RUNS))
        lines.append(f"{indent}{key}:{draw(nodes(indent + '  ', depth + 1))}")
    return "".join(lines)


TEMPLATES = st.one_of(mappings(), mappings(), st.lists(st.one_of(RUNS, SCALARS), min_size=1, max_size=3).map("\n".join))


def strings(tree: Any) -> list[str]:
    """Every scalar of a tree of nodes, in its order."""
    if isinstance(tree, yaml.ScalarNode):
        return [tree.value]
    pairs = [inner for pair in tree.value for inner in pair] if isinstance(tree, yaml.MappingNode) else tree.value
    return [text for node in pairs for text in strings(node)]


def shape(tree: Any) -> Any:
    if isinstance(tree, yaml.ScalarNode):
        return tree.tag
    if isinstance(tree, yaml.MappingNode):
        return ["map", *((shape(key), shape(value)) for key, value in tree.value)]
    return ["seq", *(shape(node) for node in tree.value)]


def composed(text: str) -> Any:
    return yaml.compose(text, Loader=yaml.SafeLoader)


def by_envsubst(text: str, values: dict[str, str]) -> str:
    """What GNU envsubst makes of a template."""
    program = shutil.which("envsubst", path=ENV["PATH"])
    assert program is not None, "GNU envsubst (Debian's gettext-base) is wanted"
    result = subprocess.run([program], env=values, input=text.encode(), capture_output=True, check=True)
    return result.stdout.decode()


def oracle(text: str, values: dict[str, str]) -> tuple[Any, list[str]]:
    """The tree and the strings that are meant: the template with a plain word for each reference, which is then replaced."""
    tree = composed(REFERENCE.sub(lambda found: f"qq{found[1] or found[2]}qq", text))
    return shape(tree), [re.sub(r"qq(\w+?)qq", lambda found: values[found[1]], text) for text in strings(tree)]


def is_meant(result: str, meant: tuple[Any, list[str]]) -> bool:
    try:
        tree = composed(result)
    except (yaml.YAMLError, ValueError):
        return False
    return tree is not None and (shape(tree), strings(tree)) == meant


def compare(examples: int) -> dict[str, int]:
    """So many templates with values for their variables: what is accepted says what was meant, and what is safe equals envsubst.

    Returns how many there were of each kind.
    """
    counts = dict.fromkeys(("no template", "refused", "quoted", "as by envsubst"), 0)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(TEMPLATES, st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)))
    def look(text: str, values: dict[str, str]) -> None:
        try:
            template = render.parse(text, "t.yaml")
        except UsageError:
            counts["no template"] += 1
            return
        values = {**dict.fromkeys(template.variables, "v0"), **values}
        try:
            result = template.render(values)
        except UsageError as refused:
            message = refused.message
        else:
            message = ""
        if message:
            counts["refused"] += 1
            assert any(re.search(rf"\b{name}\b", message) for name in template.variables), message
            assert not any(values[name] in message for name in template.variables if len(values[name]) > 5), message
            return
        meant = oracle(text, values)
        assert is_meant(result, meant), result
        used = {name: values[name] for name in template.variables}
        if any("\0" in value for value in used.values()):
            return  # which no environment can hold
        substituted = by_envsubst(text, used)
        safe = is_meant(substituted, meant)
        counts["as by envsubst" if safe else "quoted"] += 1
        assert (result == substituted) == safe

    look()
    return counts
