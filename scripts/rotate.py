"""Rotation without downtime: two login roles take turns, so that the old secret works until the new one is deployed.

Where a rotation stands is read from the server alone: which of the two may log in, and what the comment of the new one
says. So a run that was cut off is gone on with by running it again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from scripts import access, lock, logins, probe, secret, settings
from scripts.catalogs import Rights, identifier
from scripts.console import Console, one_line
from scripts.dsn import Dsn, parse
from scripts.errors import Interrupted, OpsError, Pending, UsageError
from scripts.handover import FORMER, Destinations, set_in_file
from scripts.ledger import literal
from scripts.logins import Change, Wanted
from scripts.probe import Outcome
from scripts.psql import Session
from scripts.settings import APP_DSN
from scripts.target import Target

_PREPARED = "rotation: made, its DSN not handed over yet"
_HANDED_OVER = "rotation: its DSN was handed over; `invoke rotate --finish` is next"
_POLL = 0.02  # seconds between two looks at the sessions; an application's shortest ones last a few milliseconds
_GLANCE = 1.0  # seconds of looking before a password that may be in use already is set again


class Stage(Enum):
    """Where a rotation stands."""

    SETTLED = "settled"  # one role can log in
    PREPARED = "prepared"  # both can; the new one's DSN may not have been handed over
    HANDED_OVER = "handed over"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags of `invoke rotate` say; times in seconds."""

    wanted: Wanted
    destinations: Destinations
    finish: bool = False
    abort: bool = False
    terminate: bool = False
    unseen: bool = False  # to finish although nobody was seen using the new role
    plan_only: bool = False
    deadline: float = 300.0
    quiet: float = 10.0
    wait: float = 0.0
    lock_wait: float = 300.0


@dataclass(frozen=True)
class State:
    """What the server says: the role in use, the other one, and how far a rotation has come."""

    stage: Stage
    old: str
    new: str


def state(seen: Rights, wanted: Wanted, in_use: Dsn | None, roles: str = "invoke roles") -> State:
    """Derives the state from the catalogs; `in_use` decides where nobody left a comment.

    Raises OpsError, with `roles` as the command that sets a new password.
    """
    first, second = wanted.names
    live = logins.active(seen, wanted.names)
    if not live:
        raise OpsError(
            f"neither {first} nor {second} can log in to the server",
            f"make the first of them: {roles} --secrets-file app.env",
        )
    if len(live) == 1:
        other = second if live == [first] else first
        if in_use is not None and in_use.params["user"] == other:
            raise OpsError(
                f"the DSN in use, {in_use}, is of {other}, which can't log in: {live[0]} is the one in use",
                f"put the DSN of {live[0]} into {APP_DSN}, or unset it; or, for a new password: {roles} --secrets-file app.env",
            )
        return State(Stage.SETTLED, live[0], other)
    for new, old in ((first, second), (second, first)):
        for comment, stage in ((_PREPARED, Stage.PREPARED), (_HANDED_OVER, Stage.HANDED_OVER)):
            if seen.roles[new].comment == comment:
                return State(stage, old, new)
    if in_use is None:
        raise OpsError(
            f"{first} and {second} can both log in, and nothing says which of them is in use",
            f"put the DSN in use into {APP_DSN}",
        )
    old = in_use.params["user"]
    return State(Stage.PREPARED, old, second if old == first else first)


def run(target: Target, options: Options, console: Console) -> None:
    """Does one part of a rotation: its beginning, `--finish` or `--abort`. Raises OpsError, and Pending at the deadline."""
    _Runner(target, options, console).run()


class _Runner:
    """One run: what it was asked, and what it has found so far."""

    def __init__(
        self,
        target: Target,
        options: Options,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.clock = clock
        self.sleep = sleep
        self.target = target
        self.options = options
        self.console = console
        self.password = secret.generate()
        probe.conceal(console, target, options.wanted, self.password)
        self.base = " ".join(filter(None, ["invoke rotate", target.flags, *options.wanted.flags()]))
        part = ["--terminate"] if options.terminate else []
        part += ["--unseen"] if options.unseen else []
        part += ["--finish"] if options.finish else ["--abort"] if options.abort else []
        self.again = " ".join([self.base, *part, *options.destinations.flags()])
        self.places: list[str] = []
        self.dsn: Dsn | None = None  # that was handed over
        self.emitted: Dsn | None = None
        self.outcome: Outcome | None = None

    @property
    def _roles(self) -> str:
        return self.base.replace("rotate", "roles", 1)

    def run(self) -> None:
        options = self.options
        if options.finish and options.abort:
            raise UsageError("--finish and --abort are two ways out of a rotation", "leave one of them away")
        if (options.terminate or options.unseen) and not (options.finish or options.abort):
            flag = "--terminate" if options.terminate else "--unseen"
            raise UsageError(f"{flag} is a part of --finish or --abort", f"add one of them, or leave {flag} away")
        if options.finish and not options.terminate and options.deadline < options.quiet:
            raise UsageError(
                f"within --deadline {options.deadline:g} s, nothing can be out of use for --quiet {options.quiet:g} s",
                "give a longer --deadline or a shorter --quiet",
            )
        if not options.plan_only:
            options.destinations.check()
        self.console.say(f"target: {self.target.dsn}")
        try:
            access.run(self.target, self._work, wait=options.wait, again=self.again, note=self.console.note)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the server knows how far the rotation has come", f"go on: {self.again}") from None

    def _work(self, session: Session) -> None:
        seen, now = self._observe(session)
        if self.options.plan_only:
            self._show(seen, now)
        elif self.options.finish:
            self._finish(session, now)
        elif self.options.abort:
            self._abort(session)
        else:
            self._begin(session)

    def _observe(self, session: Session) -> tuple[Rights, State]:
        before = f"invoke migrate {self.target.flags}".rstrip() + f", then: {self._roles} --secrets-file app.env"
        seen = access.observe(session, self.options.wanted, before)
        logins.check_ours(seen, self.options.wanted)
        in_use, live = self._in_use(), logins.active(seen, self.options.wanted.names)
        if (self.options.finish or self.options.abort) and len(live) == 1:
            in_use = None  # done already, whatever DSN is still at hand
        return seen, state(seen, self.options.wanted, in_use, self._roles)

    def _locked(self, session: Session) -> tuple[Rights, State]:
        lock.acquire(session, wait=self.options.lock_wait, again=self.again, note=self.console.note)
        return self._observe(session)

    def _in_use(self) -> Dsn | None:
        """The application's DSN, when the one at hand leads here."""
        found = self.target.app()
        if found is None:
            return None
        dsn, _ = found
        return dsn if dsn.same_database(self.target.dsn) and dsn.params["user"] in self.options.wanted.names else None

    def _show(self, seen: Rights, now: State) -> None:
        self.console.say(f"{now.stage.value}: {_sessions(seen, now.old)}, {_sessions(seen, now.new)}")
        if now.stage is Stage.SETTLED:
            told = f"would make {now.new} ready, test it and hand its DSN over; {now.old} goes on meanwhile"
        elif now.stage is Stage.PREPARED:
            told = f"would set a new password of {now.new}, test it and hand its DSN over"
        else:
            told = f"the DSN of {now.new} was handed over: deploy it, then {self.base} --finish"
        self.console.say(f"{told}; nothing was written")
        self._document(now)

    def _begin(self, session: Session) -> None:
        if not self.options.destinations:
            raise UsageError(
                "the new DSN would be known to nobody",
                f"say where it goes: --secrets-file PATH, --github-secret {APP_DSN} or --emit-secrets",
            )
        seen, now = self._locked(session)
        known = self._delivered(seen, now.new) if now.stage is Stage.PREPARED else None
        if now.stage is Stage.PREPARED and known is None and self._is_used(session, now.new):
            self._comment(session, now.new, _HANDED_OVER)
            now = State(Stage.HANDED_OVER, now.old, now.new)
        if now.stage is Stage.HANDED_OVER:
            raise Pending(
                f"a rotation is under way: the DSN of {now.new} was handed over, and {now.old} can still log in",
                f"deploy it, then: {self.base} --finish; to begin anew: {self.base} --abort",
            )
        dsn = known or probe.app_dsn(self.target.dsn, now.new, self.password, tls=seen.tls)
        scram = None if known else logins.verifier(now.new, self.password)
        changes = logins.changes(seen, now.new, self.options.wanted, scram=scram, like=now.old)
        changes.append(Change(f"note that {now.new} is being rotated in", (_commented(now.new, _PREPARED),)))
        access.apply(session, changes)
        for change in changes:
            self.console.say(f"  {one_line(change.what)}")
        seen, _ = self._observe(session)
        for note in logins.kept(seen, [now.new], self.options.wanted, none_too=True):
            self.console.note(f"note: {one_line(note)}")
        outcome = probe.run(self.target, seen, dsn)
        if outcome.problems:
            listed = "\n".join(f"  {one_line(problem)}" for problem in outcome.problems)
            raise OpsError(
                f"{now.new} is not as designed, so its DSN was not handed over; {now.old} goes on:\n{listed}",
                f"{self._roles} --keep-password --revoke-extra, then: {self.again}",
            )
        self.console.say(outcome.told(now.new))
        self.outcome = outcome
        self._keep_former(now.old)
        self._deliver(dsn)
        self._comment(session, now.new, _HANDED_OVER)
        self.console.say(f"dsn: {dsn}")
        self.console.say(f"{now.old} goes on until the new DSN is deployed; then: {self.base} --finish")
        self._document(State(Stage.HANDED_OVER, now.old, now.new), f"{self.base} --finish")

    def _delivered(self, seen: Rights, name: str) -> Dsn | None:
        """The new role's DSN, where a run that was cut off has put it already: somebody may have read it there."""
        found = [self._in_use()]
        if self.options.destinations.secrets_file is not None:
            with contextlib.suppress(UsageError):  # none in it yet, or none that can be meant
                file = settings.app_dsn(settings.sources(str(self.options.destinations.secrets_file), env={}))
                found.append(file[0] if file else None)
        for dsn in found:
            if dsn is not None and dsn.same_database(self.target.dsn) and dsn.params["user"] == name:
                self.console.conceal(dsn.password, dsn.uri())
                again = probe.app_dsn(self.target.dsn, name, dsn.password, tls=seen.tls)
                if probe.knows(self.target, again):
                    return again
        return None

    def _is_used(self, session: Session, name: str) -> bool:
        """Whether anybody uses the role, as far as a glance can tell."""
        until = self.clock() + _GLANCE
        while not self._pids(session, name):
            if self.clock() > until:
                return False
            self.sleep(_POLL)
        return True

    def _finish(self, session: Session, now: State) -> None:
        if now.stage is Stage.SETTLED:
            closed = self._terminate(session, now.new)
            self._none_left(session, now.new)
            self.console.say(f"{'' if closed else 'nothing to do: '}{now.old} is the one in use, and {now.new} can't log in")
            self._document(now)
            return
        if now.stage is Stage.PREPARED:
            raise OpsError(
                f"the DSN of {now.new} was not handed over yet, so nobody can have deployed it",
                f"{self.base}, or {self.base} --abort",
            )
        told: list[int] = []

        def tell(pids: list[int]) -> None:
            if not told:
                self.console.note(f"waiting until {now.old} is out of use: {logins.connections(len(pids))}")
            told[:] = pids

        used = bool(self._pids(session, now.new))
        until = self.clock() + self.options.deadline
        if not self._quiet(session, now.old, self.options.quiet, until, tell) and not self.options.terminate:
            raise self._still_used(session, now.old, f"still in use after {self.options.deadline:g} s")
        if not (used or self.options.terminate or self.options.unseen or self._is_used(session, now.new)):
            raise Pending(
                f"nobody was seen using {now.new}; {now.old} can still log in, and nothing was changed",
                f"see that the DSN of {now.new} is deployed, then: {self.base} --finish; --unseen does it nevertheless, for an "
                "application that connects now and then",
            )
        _, again = self._locked(session)
        if again != now:
            raise OpsError("somebody else changed the rotation meanwhile", f"{self.base} --plan shows where it stands")
        if not self.options.terminate and self._pids(session, now.old):  # it may have come back while we waited for the lock
            raise self._still_used(session, now.old, "in use again")
        self._rest(session, now.old, keep=now.new)
        self._terminate(session, now.old)
        self._none_left(session, now.old)
        self.console.say(f"rotated: {now.new} is the one in use")
        self._document(State(Stage.SETTLED, now.new, now.old))

    def _abort(self, session: Session) -> None:
        _, now = self._locked(session)
        if now.stage is Stage.SETTLED:
            self._terminate(session, now.new)
            self.console.say(f"nothing to do: no rotation is under way, {now.old} is the one in use")
            self._document(now)
            return
        former = self._former(now.old)
        if any(self.options.destinations.flags()) and former is None:
            raise OpsError(
                f"the former DSN, of {now.old}, is not at hand to be put back; nothing was changed",
                f"give it in {APP_DSN}, or leave the destination away and put it back yourself",
            )
        put_back = former if self.options.destinations else None
        if put_back is not None and not probe.connects(self.target, put_back):
            raise OpsError(
                f"the DSN at hand, {put_back}, doesn't let anybody in, so it can't be put back; nothing was changed",
                f"give the one that does in {APP_DSN}, or leave the destination away and put it back yourself",
            )
        if not self.options.terminate and self._is_used(session, now.new):
            raise OpsError(
                f"{now.new} is in use already, so the way is forward:\n"
                + "\n".join(f"  {line}" for line in self._who(session, now.new)),
                f"{self.base} --finish; or {self.base} --abort --terminate, which closes those connections",
            )
        if put_back is not None:
            self._deliver(put_back)  # first, so that no destination ever holds a DSN that is void
        self._rest(session, now.new, keep=now.old)
        self._terminate(session, now.new)
        if put_back is None and now.stage is Stage.HANDED_OVER:
            self.console.note(
                f"warning: the DSN that was handed over, of {now.new}, is void: put the one of {now.old} back, which worked "
                f"before; or, if nobody kept it, for a new password: {self._roles} --secrets-file app.env"
            )
        self.console.say(f"aborted: {now.old} is the one in use")
        self._document(State(Stage.SETTLED, now.old, now.new))

    def _keep_former(self, name: str) -> None:
        """On a server of this machine, the DSN that the new one takes the place of is kept beside it, for --abort."""
        former, file = self._in_use(), self.options.destinations.app_file
        if file is not None and former is not None and former.params["user"] == name:
            set_in_file(file, FORMER, former.uri())

    def _former(self, name: str) -> Dsn | None:
        """The DSN to put back, which leads to this role, where it is at hand."""
        file = self.options.destinations.app_file
        found = [self._in_use()]
        kept = settings.kept(FORMER, file) if file is not None else None
        if kept is not None:
            found.append(parse(kept.text, kept.origin))
        for dsn in found:
            if dsn is not None and dsn.same_database(self.target.dsn) and dsn.params["user"] == name:
                self.console.conceal(dsn.password, dsn.uri())
                return dsn
        return None

    def _rest(self, session: Session, name: str, *, keep: str) -> None:
        resting = logins.rest(name)
        comments = (f"COMMENT ON ROLE {identifier(role)} IS NULL" for role in (name, keep))
        access.apply(session, [resting, Change("", tuple(comments))])
        self.console.say(f"  {resting.what}")

    def _comment(self, session: Session, name: str, text: str) -> None:
        session.query(_commented(name, text))

    def _deliver(self, dsn: Dsn) -> None:
        for place in self.options.destinations.deliver(dsn, self.console):
            self.console.say(f"handed over: {place}")
            self.places.append(place)
        self.dsn = dsn
        self.emitted = dsn if self.options.destinations.emit else None

    def _quiet(self, session: Session, name: str, seconds: float, until: float, tell: Callable[[list[int]], None]) -> bool:
        """Waits until no session of the role was seen for so long; False when it is `until` first."""
        since = self.clock()
        while True:
            pids, now = self._pids(session, name), self.clock()
            if pids:
                tell(pids)
                since = now
            elif now - since >= seconds:
                return True
            if now > until:
                return False
            self.sleep(_POLL)

    @staticmethod
    def _pids(session: Session, name: str) -> list[int]:
        return [
            int(line) for line in session.query(f"SELECT pid FROM pg_catalog.pg_stat_activity WHERE usename = {literal(name)}")
        ]

    def _still_used(self, session: Session, name: str, how: str) -> Pending:
        who = self._who(session, name) or [f"nobody at this moment, but it wasn't out of use for {self.options.quiet:g} s on end"]
        return Pending(
            f"{name} is {how}; nothing was changed:\n" + "\n".join(f"  {line}" for line in who),
            f"see that the deployment is through, then: {self.base} --finish; --terminate closes what is left",
        )

    def _none_left(self, session: Session, name: str) -> None:
        """Looks once more at a role that can't log in any longer: somebody may have come in at the last moment."""
        left = [] if self.options.terminate else self._who(session, name)
        if left:
            raise Pending(
                f"{name} can't log in any more, and is connected yet:\n" + "\n".join(f"  {line}" for line in left),
                f"{self.base} --finish, when they are gone; --terminate closes them",
            )

    @staticmethod
    def _who(session: Session, name: str) -> list[str]:
        rows = session.query(
            "SELECT json_build_object('pid', pid, 'database', datname, 'application', application_name, 'client', client_addr) "
            f"FROM pg_catalog.pg_stat_activity WHERE usename = {literal(name)} ORDER BY pid LIMIT 20"
        )
        found = []
        for row in map(json.loads, rows):
            application = f", {row['application']}" if row["application"] else ""
            found.append(f"PID {row['pid']}{application}" + (f", from {row['client']}" if row["client"] else ""))
        return found

    def _terminate(self, session: Session, name: str) -> int:
        """Closes the role's sessions under --terminate. The right to do so comes with a membership that is rolled back again."""
        if not (self.options.terminate and self._pids(session, name)):
            return 0
        terminate = (
            f"SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = {literal(name)}"
        )
        closed = len(session.query(f"BEGIN; GRANT {identifier(name)} TO CURRENT_USER; {terminate}; ROLLBACK"))
        self.console.say(f"  close {logins.connections(closed)} of {name}")
        return closed

    def _document(self, now: State, following: str = "") -> None:
        facts = {
            "target": str(self.target.dsn),
            "stage": now.stage.value,
            "in_use": now.old,
            "other": now.new,
            "dsn": str(self.dsn) if self.dsn else None,
            "handed_over": self.places,
            "self_test": self.outcome.facts() if self.outcome else None,
            "next": following,
        }
        self.console.document(facts, {APP_DSN: self.emitted.uri()} if self.emitted else {})


def _commented(name: str, text: str) -> str:
    return f"COMMENT ON ROLE {identifier(name)} IS {literal(text)}"


def _sessions(seen: Rights, name: str) -> str:
    role = seen.roles.get(name)
    if role is None:
        return f"{name} isn't there"
    return f"{name} {'can' if role.login else 'cannot'} log in ({logins.connections(role.sessions)})"
