"""Looks at all that the other commands rest on, side by side, and says of each thing how it stands and what mends it."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import checkup, dotfile, machine, settings, shell
from scripts import dsn as dsns
from scripts.checklist import Checklist
from scripts.checkup import Check, State, Verdict
from scripts.console import Console, one_line
from scripts.errors import ExitCode, OpsError, UsageError, counted
from scripts.secret import Secret
from scripts.settings import ROOT, Sources

DEADLINE = 10.0  # seconds for each check; all of them together take two or three
_GRACE = 1.0  # seconds after it, in which a program that was too slow is ended
_SECRETS = (settings.ADMIN_PASSWORD, "POSTGRES_BACKTEST_SERVICE_PASSWORD")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags say."""

    env_file: str | None = None
    fix: bool = False
    seconds: float = DEADLINE  # for each check


def run(options: Options, console: Console) -> ExitCode:
    """Prints what every check found, and mends what is safe to mend where that is asked for; FAILED when a problem is left.

    Raises OpsError when a package of the lock file is missing without which nothing can be looked at.
    """
    try:
        return _run(options, console, {})
    except ModuleNotFoundError:
        verdict = machine.python(ROOT / "requirements" / "runtime.txt")
        if verdict.fix is None:  # a bug of ours
            raise
        if not options.fix:
            raise OpsError(verdict.says, " ".join(["invoke doctor --fix", *_flags(options)])) from None
        done = verdict.fix()
        console.say(f"fixed: {done}")
        importlib.invalidate_caches()
    return _run(options, console, {"python": done})


def _flags(options: Options) -> list[str]:
    return [f"--env-file {shell.quoted(options.env_file)}"] if options.env_file else []


def _run(options: Options, console: Console, fixed: dict[str, str]) -> ExitCode:
    path = Path(options.env_file) if options.env_file else ROOT / ".env"
    found = _sources(options.env_file)
    _conceal(found, console)
    flags = _flags(options)
    with Checklist(found, path, options.seconds, console, flags) as checklist:
        checks = checklist.checks
        seen = look(checks, options.seconds, flags)
        verdicts = checkup.told(checks, seen)
        fixed |= _fix(verdicts, console) if options.fix else {}
        if fixed:
            again = look([check for check in checks if check.name in fixed], options.seconds, flags)
            verdicts = checkup.told(checks, {**seen, **again})
    _show(verdicts, console)
    console.document(_document(verdicts, fixed))
    return ExitCode.FAILED if _count(verdicts, State.PROBLEM) else ExitCode.OK


def _sources(env_file: str | None) -> Sources:
    """The settings; without those of an `.env` that can't be read, which a check tells."""
    try:
        return settings.sources(env_file)
    except UsageError:
        if env_file is not None and not dotfile.is_there(Path(env_file)):
            raise
        return Sources(settings.environment(), {}, env_file or ".env")


def _conceal(found: Sources, console: Console) -> None:
    """A DSN that can't be meant may have its password anywhere."""
    for name in settings.DSN_VARIABLES:
        if value := found.get(name):
            console.conceal(*dsns.to_conceal(value.text))
    console.conceal(*(Secret(value.text) for value in map(found.get, _SECRETS) if value))


def look(checks: Sequence[Check], seconds: float, flags: Sequence[str] = ()) -> dict[str, Verdict]:
    """What each of them finds, all side by side in threads; one that hangs is left behind. A bug keeps its traceback.

    `flags` name the settings again, for the command that would give a check more time.
    """
    outcomes: dict[str, Verdict | BaseException] = {}
    began = time.monotonic()
    threads = [threading.Thread(target=_look_at, args=(check, seconds, flags, outcomes), daemon=True) for check in checks]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, began + seconds + _GRACE - time.monotonic()))
    finally:  # after an interrupt, or when one hangs: nobody will be left to end its programs, and to clear up behind them
        with shell.uninterrupted():
            _end(threads)
    verdicts = {}
    for check in checks:
        outcome = outcomes.get(check.name) or checkup.late(check, seconds, flags)
        if isinstance(outcome, BaseException):
            raise outcome
        verdicts[check.name] = outcome
    return verdicts


def _end(threads: Sequence[threading.Thread]) -> None:
    """Ends the programs that checks wait for, and those that they start next, until the checks are done."""
    deadline = time.monotonic() + _GRACE
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        shell.end_all()
        time.sleep(0.02)


def _look_at(check: Check, seconds: float, flags: Sequence[str], outcomes: dict[str, Verdict | BaseException]) -> None:
    began = time.monotonic()
    try:
        outcomes[check.name] = check.look()
    except OpsError as error:
        is_late = time.monotonic() - began >= seconds  # a program was ended for it
        outcomes[check.name] = checkup.late(check, seconds, flags) if is_late else checkup.failed(error)
    except BaseException as error:
        outcomes[check.name] = error


def _fix(verdicts: Mapping[str, Verdict], console: Console) -> dict[str, str]:
    """Mends what can be mended without asking; what was done, by the check's name."""
    done = {}
    for name, verdict in verdicts.items():
        if verdict.fix is None:
            continue
        try:
            done[name] = verdict.fix()
        except (OpsError, OSError) as error:
            console.note(f"note: {name} could not be mended: {one_line(str(error))}")
        else:
            console.say(f"fixed: {done[name]}")
    return done


def _show(verdicts: Mapping[str, Verdict], console: Console) -> None:
    rows: list[list[str]] = []
    skipped: dict[str, list[str]] = {}
    for name, verdict in verdicts.items():
        if verdict.state is State.SKIPPED:
            skipped.setdefault(verdict.says, []).append(name)
            continue
        rows.append([verdict.state.value, name, one_line(verdict.says)])
        rows += [["", "", f"next: {one_line(verdict.mend)}"]] if verdict.mend else []
    console.table(rows)
    for why, names in skipped.items():
        console.say(f"  skipped: {', '.join(names)} ({why})")
    console.say(_summary(verdicts))


def _summary(verdicts: Mapping[str, Verdict]) -> str:
    problems, warnings = (_count(verdicts, state) for state in (State.PROBLEM, State.WARNING))
    said = [counted(problems, "problem") if problems else "no problems", *([counted(warnings, "warning")] if warnings else [])]
    return f"{counted(len(verdicts), 'check')}: {', '.join(said)}"


def _count(verdicts: Mapping[str, Verdict], state: State) -> int:
    return sum(verdict.state is state for verdict in verdicts.values())


def _document(verdicts: Mapping[str, Verdict], fixed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "summary": {state.value: _count(verdicts, state) for state in State},
        "checks": [
            {"name": name, "state": verdict.state.value, "says": verdict.says, "next": verdict.mend or None}
            for name, verdict in verdicts.items()
        ],
        "fixed": list(fixed.values()),
    }
