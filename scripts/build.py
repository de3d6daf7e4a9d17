"""Carries the plan of a flexible server out, step by step, and reads back what came of it.

A server refuses two operations at once, so the steps come one after another. Whatever fails is classified (`failures`):
tried again, taken to the next region, or stopped at, with what stands and the command that goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from scripts import az, blueprint
from scripts.az import Az, AzError
from scripts.blueprint import Action, Impossible, Kind, Observed, Plan, Step
from scripts.console import Console
from scripts.errors import Interrupted, OpsError
from scripts.failures import Way
from scripts.flexible import Region, Server, Wanted
from scripts.secret import Secret

_TRIES = 6
_PAUSE = 1.0  # seconds before the second try; doubled each time, with jitter
_LONGEST_PAUSE = 20.0  # seconds
_READY = 1800.0  # seconds that are waited until a server that is being made or changed is Ready
_LOST = ("Dropping", "Disabled", "Stopped", "Inaccessible")  # states that no waiting ends


@dataclass(kw_only=True)
class Build:
    """One plan on its way. `password` is the administrator's, `again` the command that goes on with it."""

    client: Az
    wanted: Wanted
    console: Console
    password: Secret
    again: str
    sleep: Callable[[float], None] = time.sleep
    done: list[Step] = field(default_factory=list)

    def carry_out(self, plan: Plan, seen: Observed) -> Server:
        """Takes the steps that change something, and reads back; returns the server as it stands then.

        Raises OpsError and Interrupted, which say what stands.
        """
        server = seen.server
        try:
            if server is not None and server.state != "Ready":
                server = self._until_ready()
            for step in plan.writes:
                if step.kind is Kind.SERVER and step.action is Action.CREATE:
                    self._create_server(step, plan.regions)
                    server = self._until_ready()
                else:
                    self._take(step, self._action(step))
                self.done.append(step)
                self.console.say(f"  {_past(step)}")
            if plan.writes:
                server = self._recheck()
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {self._kept_so_far()}", f"go on: {self.again}") from None
        except AzError as error:
            hint = f"{error.hint}; then: " if error.hint else "when that is mended: "
            raise OpsError(f"{error.message}\n  kept: {self._kept_so_far()}", f"{hint}{self.again}", error.facts) from None
        assert server is not None  # kept or made
        return server

    def _kept_so_far(self) -> str:
        done = ", ".join(_past(step) for step in self.done)
        return f"{done}; what is under way in Azure goes on" if done else "nothing was changed, or is under way in Azure"

    def _action(self, step: Step) -> Callable[[], None]:
        client, wanted = self.client, self.wanted
        match step.kind, step.action:
            case Kind.PROVIDER, _:
                return lambda: az.register(client, wanted)
            case Kind.GROUP, _:
                return lambda: az.create_group(client, wanted, dict(step.changes)["location"])
            case Kind.SERVER, _:
                return lambda: az.update_server(client, wanted, step.changes)
            case Kind.PASSWORD, _:
                return lambda: az.reset_password(client, wanted, self.password)
            case Kind.DATABASE, _:
                return lambda: az.create_database(client, wanted)
            case Kind.RULE, Action.REMOVE:
                return lambda: az.delete_rule(client, wanted, step.name)
            case _:
                assert step.rule is not None  # every step of a rule has it
                rule = step.rule
                return lambda: az.set_rule(client, wanted, rule)

    def _create_server(self, step: Step, regions: Sequence[Region]) -> None:
        """Makes the server in the first region that takes it; the resource group stays where it is."""
        refused: list[tuple[str, str]] = []
        for number, region in enumerate(regions):
            values = (step if not number else blueprint.at(region, step, self.wanted)).changes
            try:
                self._take(step, lambda: az.create_server(self.client, self.wanted, values, self.password))  # noqa: B023
            except AzError as error:
                if error.failure.way is not Way.NEXT_REGION:
                    raise
                refused.append((region.location, _first_line(error)))
                self.console.note(f"note: {region.location} refuses: {refused[-1][1]}")
            else:
                return
        raise OpsError(
            f"every region refused {self.wanted.server}:\n{blueprint.table_of(refused)}\n  kept: {self._kept_so_far()}",
            f"name others with --location-fallback; then: {self.again}",
            {"regions": dict(refused)},
        )

    def _take(self, step: Step, action: Callable[[], None]) -> None:
        """Takes one step, and again while that can help. Before the second try it looks whether the first came through."""
        for number, pause in enumerate(_pauses()):
            try:
                with self._clock(step):
                    return action()
            except AzError as error:
                failure = error.failure
                if failure.way is Way.REGISTER and not number:
                    with self.console.working("  registering the subscription for PostgreSQL ..."):
                        az.register(self.client, self.wanted)
                    continue
                # Azure may not know everywhere yet what this run has made; nor, while az waits for it, what it is making.
                is_creation = step.kind is Kind.SERVER and step.action is Action.CREATE
                not_known_yet = failure.kind == "missing" and (bool(self.done) or is_creation)
                if failure.way is not Way.AGAIN and not not_known_yet and failure.kind != "taken":
                    raise
                # One that is there at the first try, under a name that was free, is somebody else's, with another password.
                if not (failure.kind == "taken" and not number) and self._is_there(step):
                    return None
                if number == _TRIES or failure.kind == "taken":
                    raise
                self.console.note(f"note: {failure.cause}; trying again: {_first_line(error)}")
            self.sleep(pause)
        return None

    def _clock(self, step: Step) -> contextlib.AbstractContextManager[None]:
        """Says beforehand what takes minutes."""
        if step.kind not in (Kind.SERVER, Kind.PASSWORD):
            return contextlib.nullcontext()
        return self.console.working(f"  {step.action.value} {step.kind.value} {step.name} ...")

    def _is_there(self, step: Step) -> bool:
        """Whether what a step makes stands already: a request whose answer was lost may have come through."""
        question: az.Question[Any]
        if step.kind is Kind.SERVER and step.action is Action.CREATE:
            question = az.server(self.wanted)
        elif step.kind is Kind.DATABASE:
            question = az.database(self.wanted)
        elif step.kind is Kind.RULE and step.action is not Action.REMOVE:
            question = az.rule(self.wanted, step.name)
        else:
            return False
        with contextlib.suppress(AzError):
            found = self.client.ask(question)[0]
            return found == step.rule if step.kind is Kind.RULE else bool(found)
        return False

    def _until_ready(self) -> Server:
        """Waits until the server is Ready; right after it was made, Azure may not know it yet."""
        waited, told = 0.0, False
        for pause in _pauses():
            server: Server | None = self._asked(az.server(self.wanted))[0]
            if server is not None and server.state == "Ready":
                return server
            state = server.state if server else "not there yet"
            if waited > _READY or state in _LOST:
                raise OpsError(
                    f"{self.wanted.server} is not ready: {state}\n  kept: {self._kept_so_far()}",
                    f"see its state in Azure's portal, or delete it (invoke teardown); then: {self.again}",
                )
            if not told:
                self.console.note(f"waiting until {self.wanted.server} is ready: {state}")
                told = True
            self.sleep(pause)
            waited += pause
        raise AssertionError  # the pauses have no end

    def _recheck(self) -> Server:
        """Reads back what was asked for. Raises OpsError that names what differs."""
        differs = "it is gone"
        for pause in itertools.islice(_pauses(), _TRIES):
            server, database, rules = self._asked(az.server(self.wanted), az.database(self.wanted), az.rules(self.wanted))
            if server is not None:
                seen = Observed(server=server, database=bool(database), rules=rules or ())
                try:
                    left = blueprint.plan(self.wanted, seen, datetime.now(UTC)).writes
                except Impossible as error:
                    differs = "\n".join(error.problems)
                else:
                    if not left:
                        self.console.say("read back: all of it is as asked for")
                        return cast("Server", server)
                    differs = "\n".join(f"{step.action.value} {step.kind.value} {step.name}: {step.reason}" for step in left)
            self.sleep(pause)
        listed = "\n".join(f"  {line}" for line in differs.splitlines())
        raise OpsError(f"Azure took every step, and {self.wanted.server} is not as asked for:\n{listed}", self.again)

    def _asked(self, *questions: az.Question[Any]) -> list[Any]:
        """The answers to questions, asked again while Azure can't be reached."""
        for number, pause in enumerate(_pauses()):
            try:
                return self.client.ask(*questions)
            except AzError as error:
                if error.failure.way is not Way.AGAIN or number == _TRIES:
                    raise
            self.sleep(pause)
        raise AssertionError  # the pauses have no end


def _pauses() -> Iterator[float]:
    """Seconds until the next try, longer each time, and with jitter: without end."""
    pause = _PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.5)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _first_line(error: AzError) -> str:
    return error.failure.text.splitlines()[0] if error.failure.text else error.failure.cause


def _past(step: Step) -> str:
    return f"{_PAST[step.action]} {step.kind.value} {step.name}"


_PAST = {Action.CREATE: "created", Action.CHANGE: "changed", Action.REMOVE: "removed"}
