"""A way through a flexible server's firewall for the length of one command, and the wait until the server answers."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from scripts import az, caller, firewall, request
from scripts.az import Az, AzError
from scripts.console import Console
from scripts.errors import OpsError, UsageError
from scripts.failures import Way
from scripts.firewall import Rule
from scripts.flexible import DOMAIN, Wanted
from scripts.request import Reader
from scripts.settings import Sources
from scripts.shell import quoted, uninterrupted
from scripts.target import Target, Unreachable

_SAYS = 30.0  # seconds between two lines that say what is waited for
_PAUSE = 2.0  # seconds between two tries
_TRIES = 5  # to make or remove the rule
_APPEARS = 15  # looks for a rule whose making was cut off


@contextlib.contextmanager
def way_in(flags: Mapping[str, Any], target: Target, console: Console) -> Iterator[None]:
    """A way to the target for as long as the block lasts, as --open-firewall asks for.

    The server is the one of the DSN, unless a flag or setting names it. Raises UsageError and OpsError.
    """
    if flags["plan"]:
        raise UsageError("--plan changes nothing, and so opens no firewall", "leave one of them away")
    if target.app_file is not None:
        raise UsageError("--open-firewall is for a server in Azure, and --local leads to this machine", "leave one of them away")
    name, is_azure, _ = target.dsn.hosts[0].partition(DOMAIN)
    if is_azure and flags["server_name"] not in (None, name):
        raise UsageError(f"--server-name {flags['server_name']}, and the DSN leads to {name}", "leave --server-name away")
    client = Az(target.env, redact=console.redact)  # before all that is asked for
    reader = Reader({**flags, "server_name": name} if is_azure else flags, target.found, task="migrate")
    subscription, group, server = request.place(reader)
    deadline = request.deadline(reader)
    reader.finish()
    wanted = Wanted(subscription=subscription, group=group, server=server, database=target.dsn.database, locations=())
    address = caller.address(target.found)
    with client, opened(client, wanted, address, console):
        until_it_answers(target, deadline, console)
        yield


@contextlib.contextmanager
def opened(
    client: Az, wanted: Wanted, address: str, console: Console, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Lets this address in until the block is left, however that happens; then looks whether the rule is gone.

    Raises OpsError when the rule can't be made, or, with the command that does it, when it can't be removed.
    """
    there = client.ask(az.rules(wanted))[0]
    if there is None:
        raise _nowhere(wanted)
    if firewall.lets_in(filter(firewall.lasts, there), address):
        console.note(f"the firewall of {wanted.server} lets {address} in already")
        yield
        return
    rule = firewall.temporary(address, datetime.now(UTC), secrets.token_hex(3))
    stands = False
    try:
        console.note(f"opening the firewall of {wanted.server} for {address}: rule {rule.name}")
        _persist(lambda: az.set_rule(client, wanted, rule), sleep)
        stands = True
        yield
    except BaseException as failed:
        with uninterrupted():
            if not stands and not (isinstance(failed, AzError) and failed.failure.is_refusal):
                _await(client, wanted, rule, console, sleep)
            try:
                _remove(client, wanted, rule, console, sleep)
            except OpsError as error:  # beside what the block ended with, which is the news
                console.note(f"error: {error.message}\nnext:  {error.hint}")
        raise
    with uninterrupted():
        _remove(client, wanted, rule, console, sleep)


def close_left(flags: Mapping[str, Any], found: Sources, console: Console) -> None:
    """Removes the temporary rules that a killed command left behind. Raises UsageError and OpsError."""
    client = Az(found.env, redact=console.redact)  # before all that is asked for
    reader = Reader(flags, found, task="firewall.close")
    subscription, group, server = request.place(reader)
    reader.finish()
    wanted = Wanted(subscription=subscription, group=group, server=server, database="", locations=())
    address = caller.address(found)
    with client:
        there = client.ask(az.rules(wanted))[0]
        if there is None:
            raise _nowhere(wanted)
        now = datetime.now(UTC)
        left = [rule for rule in there if firewall.is_left(rule, address, now)]
        for rule in there:
            if not firewall.lasts(rule) and rule not in left:
                console.note(f"rule {rule.name} for {rule.addresses} stays: a command of another machine may be at work")
        if not left:
            console.say(f"the firewall of {server} holds no temporary rule of this machine")
        for rule in left:
            console.say(f"closing the firewall of {server} for {rule.addresses}: rule {rule.name}")
            _remove(client, wanted, rule, console, time.sleep)
    console.document({"server": server, "closed": [rule.name for rule in left]})


def _nowhere(wanted: Wanted) -> OpsError:
    return OpsError(
        f"there is no server {wanted.server} with a firewall in the group {wanted.group}",
        "--server-name, --resource-group and --subscription-id (or AZURE_RESOURCE_GROUP ...) say which one is meant",
    )


def _await(client: Az, wanted: Wanted, rule: Rule, console: Console, sleep: Callable[[float], None]) -> None:
    """Waits for a rule that Azure may still be making: one that isn't there yet can't be removed."""
    console.note(f"looking for {_APPEARS * _PAUSE:g} s whether the rule comes about all the same")
    for _ in range(_APPEARS):
        with contextlib.suppress(OpsError):
            if client.ask(az.rule(wanted, rule.name))[0] is not None:
                return
        sleep(_PAUSE)


def _remove(client: Az, wanted: Wanted, rule: Rule, console: Console, sleep: Callable[[float], None]) -> None:
    said = ""
    for number in range(_TRIES):
        try:
            az.delete_rule(client, wanted, rule.name)
            if client.ask(az.rule(wanted, rule.name))[0] is None:
                console.note(f"closed the firewall of {wanted.server} again")
                return
        except OpsError as error:
            said = error.message
        if number < _TRIES - 1:
            sleep(_PAUSE)
    raise OpsError(
        f"the firewall rule {rule.name} of {wanted.server} is still there, and lets {rule.addresses} in" + (said and f": {said}"),
        f"az postgres flexible-server firewall-rule delete --subscription {wanted.subscription} -g {quoted(wanted.group)} "
        f"-s {wanted.server} -n {rule.name} --yes",
    )


def _persist(action: Callable[[], None], sleep: Callable[[float], None]) -> None:
    for left in reversed(range(_TRIES)):
        try:
            return action()
        except AzError as error:
            if error.failure.way is not Way.AGAIN or not left:
                raise
        sleep(_PAUSE)
    return None


def until_it_answers(target: Target, deadline: float, console: Console, sleep: Callable[[float], None] = time.sleep) -> None:
    """Asks SELECT 1 until the server answers, as a firewall rule doesn't work at once. Raises Unreachable at the deadline.

    `deadline` is in seconds from now. A server that refuses for another reason than its firewall is not waited for.
    """
    until, said = time.monotonic() + deadline, float("-inf")
    while True:
        try:
            target.ask(lambda session: session.query("SELECT 1"))
        except Unreachable as error:
            by_firewall = error.may_pass or "no pg_hba.conf entry" in error.message
            if not by_firewall or time.monotonic() > until:
                raise
            if time.monotonic() - said > _SAYS:
                said = time.monotonic()
                why = error.message.rpartition("\n")[2].strip()
                console.note(f"waiting up to {until - said:.0f} s until {target.dsn.hosts[0]} lets this machine in: {why}")
            sleep(_PAUSE)
        else:
            return
