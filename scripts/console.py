"""What a user sees: plain sentences on stdout, or one JSON document; everything said on the way goes to stderr with JSON.

Nothing is printed but through here, and the secrets that the console was told of are taken out of all of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from scripts.errors import OpsError, UsageError
from scripts.redact import Redactor
from scripts.secret import Secret

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """A text that holds names of others: what would begin a line in them, or steer the terminal, is shown as in Python.

    At the beginning of a line, `::` is a command to GitHub Actions.
    """
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def _data(text: str) -> str:
    """As the runner takes it in a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


class Console:
    """One command's output."""

    def __init__(
        self, *, as_json: bool = False, in_actions: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.as_json = as_json
        self.in_actions = in_actions  # whether a runner of GitHub Actions reads what is printed
        self._redactor = Redactor()
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        # What the terminal's encoding lacks (on Windows, a pipe has the system's code page) is no reason to fail.
        if isinstance(self._out, io.TextIOWrapper) and self._out.errors == "strict":
            self._out.reconfigure(errors="backslashreplace")
        self._above_progress: Callable[[str], None] | None = None
        self._gathered: list[dict[str, Any]] | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether somebody reads the output as it comes."""
        return self._out.isatty()

    def conceal(self, *secrets: Secret) -> None:
        """Keeps secrets out of all that is printed from now on, and has GitHub Actions keep them out of its logs.

        Source: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands (masks, and the
        encoding of %, CR and LF in them). They go to stderr, which the runner reads too: stdout may be kept in a file.
        """
        for secret in secrets:
            for form in self._redactor.add(secret):
                if self.in_actions:
                    print(f"::add-mask::{_data(form)}", file=self._err, flush=True)

    def annotate(self, problem: str) -> None:
        """Has GitHub Actions show a problem on the run's page; elsewhere, nothing. It stands in the output besides."""
        if self.in_actions:
            print(f"::error::{_data(self._redactor.text(problem))}", file=self._err, flush=True)

    def point_at(self, *, level: str, file: str, line: int, title: str, text: str) -> None:
        """Has GitHub Actions show a text beside a line of a file; `level` is `error` or `warning`.

        Source: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands (the runner's own
        toolkit also encodes : and , in a property). With JSON they go to stderr, which the runner reads too.
        """
        properties = {"file": file, "line": str(line), "title": title}
        said = ",".join(f"{name}={_property(self._redactor.text(value))}" for name, value in properties.items())
        print(f"::{level} {said}::{_data(self._redactor.text(text))}", file=self._err if self.as_json else self._out, flush=True)

    def emit(self, name: str, secret: Secret) -> None:
        """Prints a secret, because that is what was asked for; with JSON, the document has it."""
        if not self.as_json:
            print(f"{name}={secret.reveal()}", file=self._out, flush=True)

    def say(self, text: str) -> None:
        """A line of the result; with JSON, the document says it instead."""
        text = self._redactor.text(text)
        if self._above_progress:
            self._above_progress(text)
        elif not self.as_json:
            print(text, file=self._out, flush=True)

    def note(self, text: str) -> None:
        """A line beside the result: a warning, what is being waited for."""
        text = self._redactor.text(text)
        if self._above_progress:
            self._above_progress(text)
        else:
            print(text, file=self._err, flush=True)

    def document(self, facts: Mapping[str, Any], emitted: Mapping[str, Secret] | None = None) -> None:
        """The result as JSON, when that was asked for. `emitted` are secrets that were asked for too."""
        shown = {name: secret.reveal() for name, secret in (emitted or {}).items()}
        whole = {**self._redactor.value(facts), **({"secrets": shown} if shown else {})}
        if self._gathered is not None:
            self._gathered.append(whole)
        elif self.as_json:
            self.print_json(whole)

    @contextlib.contextmanager
    def gathering(self) -> Iterator[list[dict[str, Any]]]:
        """Collects the documents of commands that are a part of another one, which has a document of its own."""
        gathered: list[dict[str, Any]] = []
        self._gathered = gathered
        try:
            yield gathered
        finally:
            self._gathered = None

    def redact(self, text: str) -> str:
        """The text without secrets, for what is looked at before it is printed."""
        return self._redactor.text(text)

    def failure(self, error: OpsError) -> None:
        """An expected failure, with its way out."""
        if self.as_json:
            facts = {"error": error.message, "hint": error.hint, "exit_code": int(error.exit_code), **error.facts}
            self.print_json(self._redactor.value(facts))
        print(f"error: {self._redactor.text(error.message)}", file=self._err)
        if error.hint:
            print(f"next:  {self._redactor.text(error.hint)}", file=self._err)
        self._err.flush()

    def print_json(self, facts: Mapping[str, Any]) -> None:
        """Prints a document as it stands, secrets that were asked for included."""
        is_utf_8 = (getattr(self._out, "encoding", None) or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")
        print(json.dumps(facts, indent=2, ensure_ascii=not is_utf_8), file=self._out, flush=True)

    def table(self, rows: Sequence[Sequence[str]], indent: str = "  ") -> None:
        """Rows as aligned columns."""
        rows = [[self._redactor.text(cell) for cell in row] for row in rows]  # whole: padding and trimming change a secret
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        for row in rows:
            self.say((indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip())

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Callable[[str, str], None]]:
        """Yields `advance(line, next)`: a bar with the current item on a terminal, a line for each item elsewhere."""
        if self.as_json or not self._out.isatty():
            yield lambda line, following: self.say(line) if line else None
            return
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=Terminal(file=self._out), transient=True) as bar:
            task = bar.add_task("", total=total)
            self._above_progress = lambda text: bar.console.print(
                text, markup=False, highlight=False, emoji=False, soft_wrap=True
            )

            def advance(line: str, following: str) -> None:
                if line:
                    bar.advance(task)
                bar.update(task, description=self._redactor.text(following))

            try:
                yield advance
            finally:
                self._above_progress = None

    @contextlib.contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Says what is being done; on a terminal, with a clock, as it may take minutes."""
        if self.as_json or self._above_progress or not self._out.isatty():
            self.say(text)
            yield
            return
        from rich.console import Console as Terminal
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=Terminal(file=self._out), transient=True) as clock:
            clock.add_task(self._redactor.text(text), total=None)
            yield
        self.say(text)

    def confirm(self, question: str, *, yes: bool, again: str) -> None:
        """Asks before something is destroyed, unless `yes`; `again` is the command that asks.

        Raises UsageError when nobody is there, OpsError for a no.
        """
        if not yes and self._answer(question, "[y/N]", f"{again} --yes").lower() not in ("y", "yes"):
            raise OpsError("nothing was changed")

    def confirm_by_name(self, question: str, name: str, *, yes: bool, again: str, flag: str = "--yes") -> None:
        """As `confirm`, for what can't be undone: the name has to be typed, unless the `flag` was given."""
        if not yes and self._answer(question, f"Type {name} to go on:", f"{again} {flag}") != name:
            raise OpsError("that is not its name; nothing was changed")

    def _answer(self, question: str, prompt: str, hint: str) -> str:
        if not sys.stdin.isatty():
            raise UsageError(f"{question} Nobody is at the terminal to say so", hint)
        file = self._err if self.as_json else self._out
        print(self._redactor.text(f"{question} {prompt} "), end="", file=file, flush=True)
        return sys.stdin.readline().strip()  # nothing at the end of the input


def silent() -> Console:
    """A console that nobody reads, for work that is a part of another command's."""
    return Console(as_json=True, out=io.StringIO(), err=io.StringIO())
