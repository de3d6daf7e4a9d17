"""The face of Invoke: its list, its help, and what it says of words that it doesn't know. The only module that knows its Program.

Invoke has no setting for any of the three, and its own `invoke` command makes the Program before it loads tasks.py. A
command of our own could bring a Program along (the documented way), but everything here is called `invoke`; so tasks.py has the
Program that is loading it be one of ours from there on. What it does before that (`invoke --version`, `invoke --help` without a
task) stays Invoke's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from typing import NoReturn

from invoke import main
from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program

from scripts import guide, settings, words
from scripts.console import Console
from scripts.errors import ExitCode, UsageError
from scripts.words import Grammar

_FORMATS = ("flat", "nested", "json")
_WIDEST = 110  # columns; longer lines are hard to read
# Flags of Invoke's own that mean something behind a task as well.
_ANYWHERE = ("help", "list", "list-format", "list-depth", "complete", "debug")


class Face(Program):
    """Invoke's Program with pages and messages of ours."""

    def parse_tasks(self) -> None:
        """As Invoke does it, and refuses what it would take without a word. Ends with exit code 2."""
        try:
            super().parse_tasks()
        except ParseError as error:
            self._refuse(self._no_such_page() or self._mistake(error))
        except ValueError as error:  # of Invoke's own --list-depth and --command-timeout
            self._refuse(UsageError(f"a flag of Invoke's own needs a number: {error}", words.LIST))
        if problem := next(self._overlooked(), None):
            self._refuse(problem)

    def parse_cleanup(self) -> None:
        """The list, help and completion, where they are asked for. Ends with exit code 2 when what they are of isn't there."""
        if self.args.complete.value:
            with contextlib.suppress(ValueError):  # quotes that aren't closed yet
                super().parse_cleanup()
            raise Exit
        try:
            if problem := self._no_such_page():
                self._refuse(problem)
            super().parse_cleanup()
        except ParseError as error:
            self._refuse(UsageError(str(error), words.LIST))
        except Exit as ended:
            if ended.message:
                self._refuse(UsageError(ended.message, words.LIST))
            raise
        except BrokenPipeError:  # the reader, `head` say, has gone
            sys.stderr.close()
            raise Exit(code=int(ExitCode.FAILED)) from None

    def no_tasks_given(self) -> NoReturn:
        """Plain `invoke`."""
        self._print_list(begin=True)
        raise Exit

    def list_flat(self) -> None:
        """`invoke --list`, by the stages of the pipeline; with a depth, Invoke's own."""
        if self.list_depth:
            super().list_flat()
        else:
            self._print_list(begin=False)

    def print_task_help(self, name: str) -> None:
        """`invoke --help TASK`."""
        from scripts import origins

        task, context = self.collection[name], self.parser.contexts[name]
        flags = [
            guide.Flag(
                name=argument.names[0].upper() if argument.positional else flag,
                takes_value=argument.takes_value,
                help=argument.help or "",
                settings=origins.variables(name, argument.name.replace("-", "_")),
            )
            for flag, argument in sorted(context.flags.items(), key=lambda item: (not item[1].positional, item[0]))
        ]
        text = guide.page(
            name,
            task.__doc__ or "",
            flags,
            _exit_codes(name),
            width=_width(),
            colour=settings.has_colour(sys.stdout),
            more=origins.alone(name, {argument.name.replace("-", "_"): None for argument in context.flags.values()}),
        )
        Console().say(text)

    def _print_list(self, *, begin: bool) -> None:
        prefix = f"{self.list_root}." if self.list_root else ""
        said = {
            name: _first_line(self.collection[name].__doc__) for name in self.collection.task_names if name.startswith(prefix)
        }
        Console().say(guide.listing(said, width=_width(), colour=settings.has_colour(sys.stdout), begin=begin))

    def _no_such_page(self) -> UsageError | None:
        asked, root, form = self.args.help.value, self.args.list.value, self.args["list-format"].value
        if isinstance(asked, str) and asked not in self.parser.contexts:
            return words.unknown(asked, None, self._line, self._grammar)
        if isinstance(root, str) and root not in (groups := list(self.collection.collections)):
            there = f"the groups are {', '.join(groups)}"
            return UsageError(f"there is no group of tasks {root!r}; {there}", words.LIST)
        if form not in _FORMATS:
            return UsageError(f"--list-format {form}: one of {', '.join(_FORMATS)}", words.LIST)
        return None

    @property
    def _line(self) -> list[str]:
        """The words of the command line."""
        given = list(self.argv[1:])
        return given[: given.index("--")] if "--" in given else given

    @property
    def _grammar(self) -> Grammar:
        contexts = self.parser.contexts
        return Grammar({name: _flags(contexts[name]) for name in self.collection.task_names}, _flags(self.initial_context))

    def _mistake(self, error: ParseError) -> UsageError:
        """What Invoke's parser ran into, in words of ours."""
        context, line, grammar = error.context, self._line, self._grammar
        task = context.name if context is not None else None
        said = str(error)
        if problem := words.misspelt(line, grammar):
            return problem
        if found := re.fullmatch(r"No idea what (['\"])(?P<word>.*)\1 is!", said, re.DOTALL):
            return words.unknown(found["word"], task, line, grammar)
        if found := re.match(r"Flag <Argument: (?P<name>[\w-]+)", said):
            return words.without_value(f"--{found['name'].replace('_', '-')}", task)
        if task is not None and context is not None and context.missing_positional_args:
            names = [(argument.names[0], argument.help or "") for argument in context.missing_positional_args]
            return words.missing_words(task, names, next(iter(guide.EXAMPLES[task])))
        return UsageError(said, words.LIST)

    def _overlooked(self) -> Iterator[UsageError]:
        """What Invoke takes, and can't be meant: flags of its own for ours, a misspelt flag as the value of another, words behind
        a `--`.
        """
        line, grammar = self._line, self._grammar
        if problem := words.misspelt(line, grammar):
            yield problem
        if self.core.remainder and not self.args.complete.value:
            yield words.behind_dashes((self.tasks[-1].name if self.tasks else None) or "")
        for context in self.tasks:
            task = context.name or ""
            for argument in context.args.values():
                flag, value = f"--{argument.names[0].replace('_', '-')}", argument.raw_value
                if not isinstance(value, str) or not value.startswith("-") or f"{flag}={value}" in line:
                    continue
                is_bare = argument.positional and flag not in line
                if is_bare and value in ("--help", "-h"):  # taken for the word that the task needs
                    self.args.help.set_value(task, cast=False)
                elif value.startswith("--"):
                    yield words.looks_like_a_flag(flag, value, task)
        if self.tasks:
            own = self.core_via_tasks.args
            behind = [name for name, argument in own.items() if argument.got_value and name not in _ANYWHERE]
            before = ["dry"] if self.args.dry.value else []  # taken for --plan, wherever it stands
            for name in [*behind, *before]:
                short = {f"-{nick}" for nick in own[name].nicknames} & set(line)
                yield words.of_invoke(f"--{name}", short.pop() if short else f"--{name}", self.tasks[-1].name or "", grammar)

    def _refuse(self, problem: UsageError) -> NoReturn:
        Console(as_json="--json" in self._line, in_actions=settings.in_github_actions()).failure(problem)
        raise Exit(code=int(problem.exit_code))


def put_on() -> None:
    """Has the Program of the `invoke` command, which is loading tasks.py, be a Face from here on."""
    main.program.__class__ = Face
    logging.getLogger("invoke").disabled = True  # what its --debug says from here on repeats the command line, passwords too


def _flags(context: ParserContext) -> dict[str, bool]:
    return {flag: argument.takes_value for flag, argument in context.flags.items()}


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]


def _width() -> int:
    return min(_WIDEST, shutil.get_terminal_size().columns)


def _exit_codes(task: str) -> dict[str, str]:
    """The exit codes of a task, as docs/schemas has them."""
    try:
        schema = json.loads((settings.ROOT / "docs" / "schemas" / f"{task}.json").read_text(encoding="utf-8"))
    except OSError:  # where only the program was copied
        return {"0 1 2 3": "docs/output.md"}
    return dict(schema["x-exit-codes"])
