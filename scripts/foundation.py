"""A flexible server that stands as it is asked for: observe -> plan -> apply -> re-check, and its administrator's password.

Whatever may be made is looked for first, so that a run that was cut off is gone on with by running it again. A password
that is made here is on disk before Azure hears of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts import az, blueprint, flexible, handover, secret, settings
from scripts import dsn as dsns
from scripts.az import Az, AzError
from scripts.blueprint import NoRegion, Observed, Plan
from scripts.build import Build
from scripts.console import Console
from scripts.dsn import Dsn
from scripts.errors import OpsError, UsageError
from scripts.failures import PROVIDER, Way
from scripts.flexible import Region, Server
from scripts.request import Request
from scripts.secret import Secret
from scripts.settings import ADMIN_DSN, ADMIN_PASSWORD, Sources


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A server that stands as it was asked for."""

    server: Server
    admin: Dsn
    plan: Plan
    is_kept: bool  # whether the store holds the administrator's DSN


@dataclass(kw_only=True)
class Foundation:
    """One run. `store` is the dotenv file that keeps what is made here, `again` the command that goes on with it."""

    client: Az
    request: Request
    found: Sources
    store: Path
    store_is_named: bool  # by --secrets-file
    console: Console
    again: str
    yes: bool = False
    reset_password: bool = False
    sleep: Callable[[float], None] = time.sleep

    def plan(self) -> Plan:
        """What would be done; nothing is written. Raises OpsError."""
        return self._planned(self._observe(register=False))

    def stand(self) -> Standing:
        """Makes the server as it is asked for, or leaves it so. Raises OpsError."""
        with self._alone():
            return self._stand()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time for each server, on this machine: two would each make a password, and keep the other's."""
        from filelock import FileLock, Timeout

        settings.LOCAL.mkdir(parents=True, exist_ok=True)
        lock = FileLock(settings.LOCAL / f"{self.request.wanted.server}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.console.note(f"waiting for another run for {self.request.wanted.server} on this machine")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _stand(self) -> Standing:
        seen = self._observe(register=True)
        plan = self._planned(seen)
        if not self.yes:
            for step in plan.disruptive:
                self.console.confirm(
                    f"{step.action.value} {step.kind.value} {step.name} ({step.reason})?", yes=False, again=self.again
                )
        is_set = seen.server is None or self.reset_password
        password = self._find_password(seen, is_set=is_set)
        wanted, request = self.request.wanted, self.request
        build = Build(
            client=self.client, wanted=wanted, console=self.console, password=password, again=self.again, sleep=self.sleep
        )
        try:
            server = build.carry_out(plan, seen)
        except OpsError as error:
            if seen.server is not None and error.facts.get("refused"):  # the old password holds
                self._set(self._pending, None)
            raise
        if not plan.writes:
            self.console.say(f"nothing to change: {server.name} is as asked for")
        admin = flexible.dsn(server.host, wanted.database, server.admin, password, request.sslmode, request.sslrootcert)
        self.console.conceal(admin.uri())
        kept = self._kept()
        if kept is not None and kept.password != password and not is_set and self._stored(self._pending) is None:
            self.console.note(f"note: {self.store} keeps the DSN that it has: the password that was given wasn't tried yet")
            return Standing(server=server, admin=admin, plan=plan, is_kept=False)
        is_kept = self.store_is_named or kept is not None or self._stored(self._pending) is not None
        if is_kept:
            self.keep(admin)
        return Standing(server=server, admin=admin, plan=plan, is_kept=is_kept)

    def keep(self, admin: Dsn) -> None:
        """Puts the administrator's DSN into the store, where it stands for the password too."""
        kept = self._kept()
        if kept is None or kept.uri() != admin.uri():
            self._set(ADMIN_DSN, admin.uri())
        self._set(self._pending, None)
        self.console.say(f"{ADMIN_DSN} is in {self.store}")

    # The store: the administrator's DSN, and before Azure has taken a new password, that password under a name of its own.

    @property
    def _pending(self) -> str:
        return f"{ADMIN_PASSWORD}_OF_{self.request.wanted.server.upper().replace('-', '_')}"

    def _stored(self, name: str) -> str | None:
        value = settings.kept(name, self.store)
        return value.text if value else None

    def _kept(self) -> Dsn | None:
        text = self._stored(ADMIN_DSN)
        return dsns.parse(text, str(self.store)) if text else None

    def _set(self, name: str, value: Secret | None) -> None:
        if value is not None or self._stored(name) is not None:
            self.store.parent.mkdir(parents=True, exist_ok=True)
            handover.set_in_file(self.store, name, value)

    def _observe(self, *, register: bool) -> Observed:
        """All that the plan depends on, in one wave of questions; in two more, what only a new server asks for."""
        wanted = self.request.wanted
        versions, *answers = self.client.try_ask(
            az.version(), az.login(wanted.subscription), az.server(wanted), az.database(wanted), az.rules(wanted)
        )
        if not isinstance(versions, AzError):
            az.check_version(versions)
        _, server, *children = answers
        # While a server isn't Ready, or is stopped, its children may not answer: that is told of the server, not of them.
        is_quiet = isinstance(server, Server) and server.state != "Ready"
        for answer in (versions, *answers[:2], *(() if is_quiet else children)):
            if isinstance(answer, AzError):
                raise answer
        if server is not None:
            database, rules = (None if isinstance(child, AzError) else child for child in children)
            regions: tuple[Region, ...] = ()
            if wanted.sku is not None and wanted.sku.lower() != server.sku.lower():
                regions = (_offer(server.location, self.client.try_ask(az.region(wanted, server.location))[0]),)
            return Observed(server=server, database=bool(database), rules=rules or (), regions=regions)
        registered, group = self.client.ask(az.provider(wanted.subscription), az.group(wanted))
        if not registered and register:
            # Regions answer to registered subscriptions alone; az would register this one without a word.
            with self.console.working(f"registering the subscription for {PROVIDER} ..."):
                az.register(self.client, wanted)
            registered = True
        offers: list[Any] = [Region(location=name) for name in wanted.locations]
        if registered:
            offers = self.client.try_ask(*(az.region(wanted, name) for name in wanted.locations))
        first = offers[0]
        if wanted.location_is_given and isinstance(first, AzError) and first.failure.kind == "no region":
            raise UsageError(f"--location {wanted.locations[0]}: {first.failure.cause}", first.failure.hint)
        regions = tuple(_offer(name, offer) for name, offer in zip(wanted.locations, offers, strict=True))
        return Observed(registered=bool(registered), group=group, regions=regions)

    def _planned(self, seen: Observed) -> Plan:
        wanted = self.request.wanted
        self.console.say(f"target: {wanted.server} in the group {wanted.group}, subscription {wanted.subscription}")
        try:
            plan = blueprint.plan(wanted, seen, datetime.now(UTC), reset_password=self.reset_password)
        except NoRegion as error:
            raise NoRegion(error.message, f"{error.hint}; then: {self.again}", error.table) from None
        show(plan, self.console)
        return plan

    def _find_password(self, seen: Observed, *, is_set: bool) -> Secret:
        """The password: given, else kept by an earlier run, else a new one, which is kept before Azure hears of it."""
        wanted = self.request.wanted
        login = seen.server.admin if seen.server else wanted.new_admin
        kept = self._kept()
        if kept is not None and not self._leads_here(kept, seen.server):
            raise UsageError(
                f"{self.store} holds the DSN of another server, {kept.hosts[0]}, which would be lost",
                "name another --secrets-file",
            )
        found = self.request.password or self._known(seen)
        if found is None and not is_set:
            raise UsageError(
                f"the password of {login}, the administrator of {wanted.server}, is not known here",
                "give it: POSTGRES_ADMIN_PASSWORD, --admin-password-file, or --admin-password - (stdin); or set a new one: "
                f"{self.again} --reset-admin-password",
            )
        if found is None:
            password = _generate(login)
            self.console.conceal(password)
            self._set(self._pending, password)
            self.console.say(f"  a new password of {login} is kept in {self.store}")
            return password
        password, origin = found
        self.console.conceal(password)
        problem = flexible.password_problem(password, login) if is_set else None
        if problem:
            raise UsageError(f"the password of {origin}: {problem}", "give another one, or none: then one is made")
        return password

    def _known(self, seen: Observed) -> tuple[Secret, str] | None:
        """The password that an earlier run has kept, or the one of POSTGRES_ADMIN_DSN, where that leads to this server."""
        server, kept, pending = seen.server, self._kept(), self._stored(self._pending)
        if kept is not None and not self._leads_here(kept, server):
            raise UsageError(
                f"{self.store} holds the DSN of another server, {kept.hosts[0]}, which would be lost",
                "name another --secrets-file",
            )
        if server is None:
            return (Secret(pending), str(self.store)) if pending else None
        if self.reset_password:
            return None
        if kept is not None and pending is not None:
            raise UsageError(
                f"a reset of the password of {server.admin} was cut off, so it isn't known which one holds",
                f"{self.again} --reset-admin-password",
            )
        if pending is not None:
            return Secret(pending), str(self.store)
        if kept is not None:
            return kept.password, str(self.store)
        value = self.found.get(ADMIN_DSN)
        address = dsns.parse(value.text, value.origin) if value is not None else None
        if value is not None and address is not None and self._leads_here(address, server):
            return address.password, value.origin
        return None

    def _leads_here(self, address: Dsn, server: Server | None) -> bool:
        """Whether a DSN is that of the server's administrator; of a server that isn't there, the name alone is known."""
        host = address.hosts[0]
        if server is None:
            return flexible.DOMAIN not in host or host.startswith(f"{self.request.wanted.server}.")
        return (host, address.params["user"]) == (server.host, server.admin)


def show(plan: Plan, console: Console) -> None:
    """Prints a plan."""
    console.table(plan.rows())
    for location, why in plan.passed_over:
        console.say(f"  passed over: {location}: {why}")
    if len(plan.regions) > 1:
        others = ", ".join(region.location for region in plan.regions[1:])
        console.say(f"  should {plan.regions[0].location} refuse: {others}")
    for note in plan.notes:
        console.note(f"note: {note}")


def _offer(location: str, answer: Region | AzError | None) -> Region:
    """What a region offers; one that couldn't be asked is tried last, and one that az knows to be closed not at all.

    Raises the AzError when it is of the login rather than of the region.
    """
    if isinstance(answer, AzError) and answer.failure.kind in ("login", "subscription", "forbidden", "usage"):
        raise answer
    if isinstance(answer, AzError):
        is_closed = answer.failure.way is Way.NEXT_REGION
        return Region(location=location, restricted=answer.failure.text.partition("\n")[0] if is_closed else None)
    return answer or Region(location=location, restricted="there is no such region")


def _generate(login: str) -> Secret:
    """A password that keeps Azure's rules."""
    while True:
        password = secret.generate()
        if flexible.password_problem(password, login) is None:
            return password
