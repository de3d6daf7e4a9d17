"""What can be expected to go wrong, as exceptions that carry their own way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any


def counted(number: int, noun: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(names: Sequence[str], shown: int) -> str:
    """The first of several names, and how many others there are: `a, b and 3 more`."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


class ExitCode(IntEnum):
    """The exit codes of every command; CI branches on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PENDING = 3  # something is pending, or has drifted
    INTERRUPTED = 130


class OpsError(Exception):
    """An expected failure: shown without a traceback.

    `message` says what happened and why; `hint` is the next command or step, shown on a line of its own; `facts`
    stand beside them in a JSON document. None may hold a secret.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "", facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts or {}


class UsageError(OpsError):
    """Flags, settings or files that can't be right, whatever the server says."""

    exit_code = ExitCode.USAGE


class Pending(OpsError):
    """Nothing went wrong, and something is left to be done."""

    exit_code = ExitCode.PENDING


class Interrupted(OpsError):
    """Ctrl-C or SIGTERM, after everything was cleaned up."""

    exit_code = ExitCode.INTERRUPTED
