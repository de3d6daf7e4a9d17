"""What a check of `invoke doctor` comes to, and what of several checks is told. Pure.

Checks run side by side, and one fault often shows in many: without a login, az refuses everything. So a check says which other
it rests on, and is not told where that one isn't right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from threading import Lock
from typing import Generic, TypeVar

from scripts.errors import OpsError

Answer = TypeVar("Answer")


class State(Enum):
    """How it stands with one thing."""

    OK = "ok"
    WARNING = "warning"  # works, and something about it is worth mending
    PROBLEM = "problem"  # some command would fail
    UNSET = "unset"  # nothing is configured yet, which is no failure
    SKIPPED = "skipped"  # can't be told before something else is mended


@dataclass(frozen=True)
class Verdict:
    """What a check found. Neither text holds a secret; `fix` mends it, and returns what it did."""

    state: State
    says: str
    mend: str = ""  # the command that mends it; of what is unset, the next step
    fix: Callable[[], str] | None = None
    is_late: bool = False  # nothing was found in time

    @property
    def is_fine(self) -> bool:
        """Whether what rests on it can be told."""
        return self.state in (State.OK, State.WARNING) and not self.is_late


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing to look at. `after` are the checks that it rests on, `by_hand` what one could run to see what takes so long."""

    name: str
    look: Callable[[], Verdict]
    after: tuple[str, ...] = ()
    by_hand: str = ""


class Once(Generic[Answer]):
    """A question to which several checks want the answer: it is put once, by whoever comes first; others wait."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._lock = Lock()
        self._outcome: list[Answer | OpsError] = []

    def __call__(self) -> Answer:
        """The answer, or the OpsError that came instead."""
        with self._lock:
            if not self._outcome:
                try:
                    self._outcome.append(self._ask())
                except OpsError as error:
                    self._outcome.append(error)
            answer = self._outcome[0]
        if isinstance(answer, OpsError):
            raise answer
        return answer


def ok(says: str) -> Verdict:
    """It is as it should be."""
    return Verdict(State.OK, says)


def warning(says: str, mend: str = "", fix: Callable[[], str] | None = None) -> Verdict:
    """It works, and had better be otherwise."""
    return Verdict(State.WARNING, says, mend, fix)


def problem(says: str, mend: str, fix: Callable[[], str] | None = None) -> Verdict:
    """A command that needs it would fail."""
    return Verdict(State.PROBLEM, says, mend, fix)


def unset(says: str, following: str = "") -> Verdict:
    """Nothing is configured yet; `following` is the step that would begin it."""
    return Verdict(State.UNSET, says, following)


def skipped(why: str) -> Verdict:
    """There is nothing to look at."""
    return Verdict(State.SKIPPED, why)


def command(words: str, flags: str) -> str:
    """A command that mends something, with the flags that name the same settings again."""
    return f"invoke {words} {flags}".rstrip()


def failed(error: OpsError) -> Verdict:
    """What a command would stop with, in one line. That nothing was done goes without saying: no check does anything."""
    head, *listed = re.sub(r"; nothing was (done|applied):$", ":", error.message, flags=re.MULTILINE).split("\n  ")
    said = " ".join([head, "; ".join(listed)])
    return problem(" ".join(said.split()), " ".join(error.hint.split()))


def late(check: Check, seconds: float, flags: Sequence[str] = ()) -> Verdict:
    """It had no answer in time; nobody knows whether anything is wrong. `flags` name the settings again."""
    again = " ".join(["invoke doctor", *flags, f"--check-deadline {max(60, round(6 * seconds))}"])
    ways = [check.by_hand, again]
    return replace(warning(f"took longer than {seconds:g} s", "; or: ".join(filter(None, ways))), is_late=True)


def told(checks: Sequence[Check], found: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The verdicts, by the names of the checks, without those that another one's trouble explains."""
    verdicts: dict[str, Verdict] = {}
    for check in checks:
        verdict = found[check.name]
        before = next((name for name in check.after if not verdicts[name].is_fine), None)
        if before is not None and verdict.state is not State.OK:
            is_skipped = verdicts[before].state is State.SKIPPED
            verdict = skipped(verdicts[before].says if is_skipped else f"see {before}")
        verdicts[check.name] = verdict
    return verdicts
