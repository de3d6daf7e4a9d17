"""A YAML template with ${VARIABLES}, and values that can't change what it says. Pure.

Substitutes as GNU envsubst does, to the byte, wherever a value is safe in its place. A scalar in which one isn't (`yes`,
`0123`, `p #x`, a quote, a line break) is written anew between double quotes, so that what is parsed in the end is the
template's own tree with exactly the given strings in it. What can't be had in this way is refused, by the variable's name.

Sources: https://www.gnu.org/software/gettext/manual/html_node/envsubst-Invocation.html (which names are variables);
PyYAML, because az reads the file with it, by the rules of YAML 1.1.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from scripts import nodes
from scripts.errors import UsageError, counted

if TYPE_CHECKING:
    from yaml import Node

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(rf"\$(?:\{{({_NAME})\}}|({_NAME}))", re.ASCII)
PLACEHOLDER = re.compile(r"<[A-Za-z][\w -]*>")  # such as <password>, out of a manual
_UNREADABLE = re.compile(r"[\ud800-\udfff]")  # how Python keeps bytes that it can't read
_SECRET_NAME = re.compile(r"(DSN|PASSWORD|SECRET|TOKEN|KEY)$", re.IGNORECASE)
_SET = "put them into .env, or into a file that --env-file names (.env.example explains each)"


@dataclass(frozen=True)
class Reference:
    """One place of the text that refers to a variable; `start` and `end` count characters."""

    variable: str
    start: int
    end: int


@dataclass(frozen=True)
class Scalar:
    """A scalar that refers to variables, in the text in which marks stand for the references."""

    start: int
    end: int
    value: str
    tag: str


@dataclass(frozen=True)
class Template:
    """The text and where it stands, for messages. Use `parse`, which looks it through.

    `added` are the lines of the text that the file lacks: each counts as the one above it.
    """

    text: str
    name: str
    added: tuple[int, ...] = ()

    @cached_property
    def references(self) -> list[Reference]:
        """Every reference to a variable, comments included, as envsubst has it."""
        return [Reference(found[1] or found[2], *found.span()) for found in _REFERENCE.finditer(self.text)]

    @property
    def variables(self) -> dict[str, list[int]]:
        """The variables in the order of the text, each with its lines."""
        found: dict[str, list[int]] = {}
        for reference in self.references:
            lines = found.setdefault(reference.variable, [])
            if self.line(reference.start) not in lines:
                lines.append(self.line(reference.start))
        return found

    @property
    def secrets(self) -> set[str]:
        """The variables that hold a secret: by their place, the value of one of `secrets`, or by their name."""
        found = {self._marks[mark] for _, node in nodes.secret_values(self._tree) for mark in self._in(node.value)}
        return found | {name for name in self.variables if _SECRET_NAME.search(name)}

    @property
    def literal_secrets(self) -> dict[int, str]:
        """The values of `secrets` that stand in the template itself, by their lines."""
        return {
            self.line_of_node(key): str(node.value)
            for key, node in nodes.secret_values(self._tree)
            if node.value and nodes.is_scalar(node) and not self._in(node.value)
        }

    def kind(self, variable: str) -> str | None:
        """What a tag says that a variable is: int, float, bool."""
        kinds = (
            scalar.tag.rpartition(":")[2]
            for scalar in self._scalars
            for mark in self._in(scalar.value)
            if self._marks[mark] == variable and scalar.tag != nodes.STRING
        )
        return next(kinds, None)

    def variables_at(self, path: Sequence[str | int]) -> set[str]:
        """The variables in the scalar at a path of the tree, or beside it in `resources`, whose parts go together."""
        steps = path[:-1] if "resources" in path[-2:-1] else path
        node: Node | None = self._tree
        for step in steps:
            found = nodes.child(node, step, self._marks) if node is not None else None
            node = found[1] if found else None
        if node is None or (steps is path and not nodes.is_scalar(node)):
            return set()
        return {self._marks[mark] for inner in nodes.walk(node) if nodes.is_scalar(inner) for mark in self._in(inner.value)}

    def line(self, index: int) -> int:
        """The line of a character, as the file has it."""
        return self._line(bisect_right(self._lines, index))

    def line_of(self, path: Iterable[str | int]) -> int:
        """The line on which what stands at a path of the tree begins."""
        node = self._tree
        line = 1
        for step in path:
            found = nodes.child(node, step, self._marks)
            if found is None:
                break
            key, node = found
            line = self.line_of_node(key)
        return line

    def line_of_node(self, node: Node) -> int:
        """The line on which a part of the tree begins."""
        return self._line(node.start_mark.line + 1)

    def render(self, values: Mapping[str, str]) -> str:
        """The text with the values in it. Raises UsageError, which names variables and lines, and no value."""
        self._check(values)
        of_marks = {mark: values[name] for mark, name in self._marks.items()}
        text = nodes.put(self._marked, of_marks)
        if nodes.is_same(self._tree, text, of_marks):
            return self._constructible(text, of_marks)
        quoted, problems = self._marked, []
        for scalar in sorted(self._scalars, key=lambda scalar: scalar.start, reverse=True):  # the places before it stay
            here = {mark: of_marks[mark] for mark in self._in(scalar.value)}
            if not nodes.is_same(self._tree, nodes.put(self._marked, here), here):
                end = "\n" if self._marked[scalar.start : scalar.end].endswith("\n") else ""  # of a block scalar
                scalar_text = nodes.quoted(nodes.put(scalar.value, here)) + end
                if not nodes.is_same(self._tree, self._marked[: scalar.start] + scalar_text + self._marked[scalar.end :], here):
                    problems.append(f"{self._place(next(iter(here)))}: the value of {self._names(here)} can't stand here")
                quoted = quoted[: scalar.start] + scalar_text + quoted[scalar.end :]
        text = nodes.put(quoted, of_marks)
        if nodes.is_same(self._tree, text, of_marks):
            return self._constructible(text, of_marks)
        inside = {mark for scalar in self._scalars for mark in self._in(scalar.value)}
        outside = [mark for mark in self._marks if mark not in inside]
        raise self._error(
            [
                *problems,
                *(
                    f"{self._place(mark)}: the value of {self._marks[mark]} can't stand outside of a scalar"
                    for mark in outside
                    if not nodes.is_same(self._tree, nodes.put(self._marked, {mark: of_marks[mark]}), {})
                ),
            ]
            or [f"the values of {', '.join(self.variables)} change what it says"]
        )

    def from_key_vault(self, identity: str) -> Template:
        """The variant in which each secret `value: ${X}` is the address ${X_SECRET_URL} in a Key Vault, read by ${identity}."""
        text, ends = self._marked, {scalar.end: scalar for scalar in self._scalars}
        places, in_braces = list(nodes.secret_values(self._tree)), nodes.keys_in_braces(self._tree)
        for key, node in reversed(places):
            scalar, start = ends.get(node.end_mark.index), key.start_mark.index
            is_alone = key not in in_braces and key.start_mark.line == node.start_mark.line
            if scalar is None or scalar.value not in self._marks or not is_alone:
                problem = "a secret's value has to be one variable, and stand on a line of its own"
                raise UsageError(f"{self.name}:{self.line_of_node(key)}: {problem}", "write it as: value: ${VARIABLE}")
            variable, indent = self._marks[scalar.value], " " * key.start_mark.column
            lines = f"keyVaultUrl: ${{{variable}_SECRET_URL}}\n{indent}identity: ${{{identity}}}"
            text = text[:start] + lines + text[scalar.end :]
        added = tuple(key.start_mark.line + 2 + number for number, (key, _) in enumerate(places))
        return parse(nodes.put(text, self._spelled), self.name, added)

    # The text with a mark in the place of each reference: a word that is no number, no boolean and in no need of quotes.

    @cached_property
    def _marks(self) -> dict[str, str]:
        """Each mark with its variable."""
        stem = "x"
        while stem in self.text:
            stem += "q"
        return {f"{stem}{number:04}z": place.variable for number, place in enumerate(self.references)}

    @cached_property
    def _spelled(self) -> dict[str, str]:
        """Each mark with its reference as the template has it."""
        return {mark: self.text[place.start : place.end] for mark, place in zip(self._marks, self.references, strict=True)}

    @cached_property
    def _marked(self) -> str:
        parts, end = [], 0
        for mark, place in zip(self._marks, self.references, strict=True):
            parts += [self.text[end : place.start], mark]
            end = place.end
        return "".join([*parts, self.text[end:]])

    @cached_property
    def _tree(self) -> Node:
        import yaml

        try:
            tree: Node | None = yaml.compose(self._marked, Loader=yaml.SafeLoader)
            list(nodes.walk(tree) if tree else ())
        except yaml.reader.ReaderError as error:
            line = self._line(self._marked.count("\n", 0, error.position) + 1)
            problem = f"no YAML that az takes: the character U+{error.character:04X}"
            raise UsageError(f"{self.name}:{line}: {problem}", "take it out of the template") from None
        except yaml.MarkedYAMLError as error:
            where = f"{self.name}:{self._line(error.problem_mark.line + 1)}" if error.problem_mark else self.name
            problem = nodes.put(str(error.problem or error.context), self._spelled)
            raise UsageError(f"{where}: no YAML that az takes: {problem}", "mend that line of the template") from None
        except RecursionError:
            raise UsageError(
                f"{self.name} is nested too deeply, or holds itself", "an alias (*name) in it, mostly: take it out"
            ) from None
        if tree is None:
            raise UsageError(f"{self.name} is empty", "deploy/app_api.yaml is one that works")
        return tree

    @cached_property
    def _scalars(self) -> list[Scalar]:
        """The scalars that refer to variables; their places are those of the token, behind a tag or an anchor."""
        import yaml

        starts = {
            token.end_mark.index: token.start_mark.index
            for token in yaml.scan(self._marked, Loader=yaml.SafeLoader)
            if isinstance(token, yaml.ScalarToken)
        }
        found = {}
        for node in nodes.walk(self._tree):
            if isinstance(node, yaml.ScalarNode) and self._in(node.value):
                end = node.end_mark.index
                found[end] = Scalar(starts[end], end, node.value, node.tag)
        return list(found.values())

    @cached_property
    def _lines(self) -> list[int]:
        return [0, *(found.end() for found in re.finditer("\n", self.text))]

    def _line(self, number: int) -> int:
        return number - sum(line <= number for line in self.added)

    def _place(self, mark: str) -> str:
        place = self.references[list(self._marks).index(mark)]
        return f"{self.name}:{self.line(place.start)}"

    def _check(self, values: Mapping[str, str]) -> None:
        problems = []
        for variable, lines in self.variables.items():
            where = ", ".join(f"{self.name}:{line}" for line in lines)
            value = values.get(variable, "")
            if not value:
                problems.append(f"{variable} is {'empty' if variable in values else 'not set'} ({where})")
            elif _UNREADABLE.search(value):
                problems.append(f"{variable} isn't UTF-8 text ({where})")
            elif PLACEHOLDER.search(value):
                problems.append(f"{variable} still holds a placeholder, a name between < and > ({where})")
        if problems:
            raise self._error(problems, _SET)

    def _constructible(self, text: str, of_marks: Mapping[str, str]) -> str:
        """The text, if its tagged scalars are what their tags say, and no two keys of a mapping are the same now."""
        problems = [
            f"{self._place(marks[0])}: {self._names(marks)} is no {scalar.tag.rpartition(':')[2]}"
            for scalar in self._scalars
            if scalar.tag != nodes.STRING
            and not nodes.is_of(scalar.tag, nodes.put(scalar.value, of_marks))
            and (marks := self._in(scalar.value))
        ]
        problems += [
            f"{self.name}:{self.line_of_node(key)}: the value of {self._names(self._in(key.value))} is a key "
            "that stands in this mapping twice"
            for key in nodes.repeated_keys(self._tree, of_marks)
        ]
        if problems:
            raise self._error(problems)
        return text

    def _in(self, value: str) -> list[str]:
        return [mark for mark in self._marks if mark in value]

    def _names(self, marks: Iterable[str]) -> str:
        return ", ".join(dict.fromkeys(self._marks[mark] for mark in marks))

    def _error(self, problems: list[str], way: str = "") -> UsageError:
        listed = "\n".join(f"  {problem}" for problem in problems)
        shows = f"invoke render --variables --template {self.name} shows what it needs, and what of it is set"
        hint = f"{way}; {shows}" if way else shows
        return UsageError(f"{self.name} can't be rendered: {counted(len(problems), 'problem')}:\n{listed}", hint)


def parse(text: str, name: str, added: tuple[int, ...] = ()) -> Template:
    """Takes a template, after looking for what can't be meant. Raises UsageError with every problem, each with its line."""
    template = Template(text, name, added)
    referring = {place.start for place in template.references}
    problems = [
        (template.line(found.start()), f"{found.group()} is no variable: a name between braces is meant, without a default")
        for found in re.finditer(r"\$\{[^}\n]{0,40}\}?", text)
        if found.start() not in referring
    ]
    problems += [
        (template.line_of_node(node), f"{found.group()} is a placeholder: a ${{VARIABLE}} is meant, or the value itself")
        for node in nodes.walk(template._tree)
        if nodes.is_scalar(node)
        for found in PLACEHOLDER.finditer(node.value)
        if not template._in(found.group())
    ]
    repeated = nodes.repeated_keys(template._tree, {})
    problems += [(template.line_of_node(key), "a key that stands in this mapping twice") for key in repeated]
    problems += [(template.line_of_node(node), problem) for node, problem in _unconstructible(template)]
    if problems:
        listed = "\n".join(f"  {name}:{line}: {problem}" for line, problem in sorted(set(problems)))
        raise UsageError(
            f"{name} is no template that could be rendered:\n{listed}", "mend those lines; docs/deploy.md has the rules"
        )
    return template


def _unconstructible(template: Template) -> Iterator[tuple[Node, str]]:
    """What composes, and what PyYAML would make no tree of; where the template refers to a variable, `render` looks."""
    import yaml

    for node in nodes.walk(template._tree):
        kind = node.tag.rpartition(":")[2]
        if isinstance(node, yaml.ScalarNode):
            if (
                node.tag not in (nodes.STRING, nodes.MERGE)
                and not template._in(node.value)
                and nodes.made(node.tag, node.value) is None
            ):
                yield node, f"this is no {kind}"
        elif node.tag not in yaml.SafeLoader.yaml_constructors:
            yield node, f"the tag {kind} means nothing to az"
        if isinstance(node, yaml.MappingNode):
            yield from ((key, "a key is a word, not a list or a mapping") for key, _ in node.value if not nodes.is_scalar(key))
