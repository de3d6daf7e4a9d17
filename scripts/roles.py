"""The application's login role: observe -> plan -> apply -> re-check -> self-test, and then its DSN is handed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts import access, grants, lock, logins, probe, secret
from scripts.catalogs import OWNER, Rights, let_become
from scripts.console import Console, one_line
from scripts.dsn import Dsn
from scripts.errors import ExitCode, Interrupted, OpsError, UsageError
from scripts.grants import Extra
from scripts.handover import Destinations
from scripts.logins import Change, Wanted
from scripts.probe import Outcome
from scripts.psql import PsqlError, Session
from scripts.secret import Secret
from scripts.settings import APP_DSN
from scripts.target import Target

_TO_FILE = "--secrets-file app.env"  # where a DSN goes in commands that a message names, when no flag says

_SHORT = 8  # characters of a password


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags of `invoke roles` say; times in seconds."""

    wanted: Wanted
    destinations: Destinations
    password: tuple[Secret, str] | None = None  # and where it came from
    password_flag: str = ""  # that gives it again
    keep_password: bool = False
    plan_only: bool = False
    check_only: bool = False
    revoke_extra: bool = False
    wait: float = 0.0
    lock_wait: float = 300.0


@dataclass
class _Result:
    """What a run has come to, for the end of it."""

    role: str = ""
    dsn: Dsn | None = None
    new_password: bool = False
    planned: dict[str, Any] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outcome: Outcome | None = None
    places: list[str] = field(default_factory=list)
    next: str = ""


@dataclass(frozen=True)
class Ended:
    """How a run ended: PENDING when something is beyond the design; and the role's DSN, where it is at hand."""

    code: ExitCode
    dsn: Dsn | None


def run(target: Target, options: Options, console: Console) -> Ended:
    """Makes or converges the login role, tests it and hands its DSN over.

    Raises OpsError; running it again goes on from there.
    """
    runner = _Runner(target, options, console)
    return Ended(runner.run(), runner.result.dsn)


class _Runner:
    """One run: what it was asked, and what it has found so far."""

    def __init__(self, target: Target, options: Options, console: Console) -> None:
        self.target = target
        self.options = options
        self.console = console
        self.again = self._command(
            "--check" if options.check_only else "--plan" if options.plan_only else "",
            "--keep-password" if options.keep_password else options.password_flag,
            "--revoke-extra" if options.revoke_extra else "",
            *options.destinations.flags(),
        )
        self.result = _Result()
        self.unsafe = ""  # what the server has, or may have, that nobody else knows yet
        # Known before anything is printed, so that nothing of them can be.
        self.password = options.password[0] if options.password else secret.generate()
        probe.conceal(console, target, options.wanted, self.password)

    def _command(self, *words: str) -> str:
        """This command for the same role of the same database, with other flags for the rest."""
        return " ".join(filter(None, ["invoke roles", self.target.flags, *self.options.wanted.flags(), *words]))

    @property
    def _rotate(self) -> str:
        return " ".join(filter(None, ["invoke rotate", self.target.flags, *Wanted(user=self.options.wanted.user).flags()]))

    @property
    def _with_new_password(self) -> str:
        """The command that sets a new password which somebody will know."""
        return self._command(*(self.options.destinations.flags() if self.options.destinations else [_TO_FILE]))

    def run(self) -> ExitCode:
        options = self.options
        if options.password and options.password[1].startswith("--"):
            self.console.note("warning: other users of this machine can read a password in an argument; `-` reads it from stdin")
        if options.keep_password and options.password:
            raise UsageError(f"--keep-password, and {options.password[1]} gives a password", "leave one of them away")
        if options.check_only and (options.plan_only or options.revoke_extra):
            raise UsageError("--check changes nothing and plans nothing", "leave away what stands beside it")
        if options.password and len(options.password[0].reveal()) < _SHORT:
            self.console.note(f"warning: a password of fewer than {_SHORT} characters is guessed in no time")
        if not (options.plan_only or options.check_only):
            options.destinations.check()
        self.console.say(f"target: {self.target.dsn}")
        try:
            access.run(self.target, self._work, wait=options.wait, again=self.again, note=self.console.note)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted{self._lost()}", f"go on: {self.again}") from None
        except OpsError as error:
            if self.unsafe:
                error.message += self._lost()
                error.hint = (
                    self.again if self.again in error.hint else f"{error.hint}; then: {self.again}".removeprefix("; then: ")
                )
            raise
        return self._report()

    def _lost(self) -> str:
        """What became of a new password that is not safe everywhere."""
        if not self.unsafe:
            return ""
        places = (
            "; it was handed over: " + ", ".join(self.result.places) if self.result.places else " and was handed over nowhere"
        )
        return f"\n  the server {self.unsafe} a new password of {self.result.role}, with which the former DSN is void{places}"

    def _work(self, session: Session) -> None:
        self.result = _Result()
        if not (self.options.plan_only or self.options.check_only):  # first: a migration may be making what is observed
            lock.acquire(session, wait=self.options.lock_wait, again=self.again, note=self.console.note)
        seen = self._observe(session)
        logins.check_ours(seen, self.options.wanted)
        self._check_rights(seen)
        names = logins.active(seen, self.options.wanted.names) or [self.options.wanted.user]
        self.result.role = names[0]
        if self.options.check_only:
            self._check(session, seen, names)
        elif len(names) > 1 and not self.options.keep_password:
            raise OpsError(
                f"{names[0]} and {names[1]} can both log in: a rotation is under way, and a new password would break it",
                f"{self._rotate} --finish, or: {self._command('--keep-password')}",
            )
        else:
            scram = self._new_password(seen, names[0])
            if self.options.plan_only:
                self._show_plan(seen, names, scram)
            else:
                self._apply(session, seen, names, scram)

    def _observe(self, session: Session) -> Rights:
        options = self.options
        works = options.destinations or options.password or options.keep_password or options.check_only or options.plan_only
        then = self.again if works else self._with_new_password
        return access.observe(session, options.wanted, f"invoke migrate {self.target.flags}".rstrip() + f", then: {then}")

    def _check_rights(self, seen: Rights) -> None:
        """Sees to it that later tables can be tried, before anything is changed. Raises OpsError."""
        if seen.may_own:
            return
        grant = let_become(seen.user, OWNER, direct=seen.direct)
        what = f"{seen.user} may not become {OWNER}, as the self-test has to"
        if self.options.plan_only:
            self.result.notes.append(f"{what}; an administrator can let it: {grant}")
            return
        hint = self.target.without_rights(f"an administrator runs: {grant} then: {self.again}", self.again)
        raise OpsError(f"{what}; nothing was changed", hint)

    def _new_password(self, seen: Rights, name: str) -> str | None:
        """The verifier of the password to set, or None when the role keeps what it has."""
        known = self._dsn_at_hand(seen, [name])
        if name in seen.roles and self.options.keep_password:
            if known is None and not self.options.plan_only and any(self.options.destinations.flags()):
                raise OpsError(
                    f"the password of {name} was to be kept, and is not at hand to be handed over; nothing was changed",
                    f"give its DSN in {APP_DSN}, or, for a new password: {self._with_new_password}",
                )
            self.result.dsn = known
            return None
        self.result.dsn = self._dsn(seen, name, self.password)
        can_log_in = name in seen.roles and seen.roles[name].login
        if self.options.password and can_log_in and probe.knows(self.target, self.result.dsn):
            return None  # it is the given one already
        if not self.options.password and not self.options.destinations and not self.options.plan_only:
            keep = ", leave the one that it has (--keep-password)" if name in seen.roles else ""
            raise UsageError(
                f"a new password of {name} would be known to nobody",
                f"give a password (POSTGRES_BACKTEST_SERVICE_PASSWORD){keep}, or say where its DSN goes "
                f"(--github-secret {APP_DSN}, --emit-secrets, a file): {self._with_new_password}",
            )
        return logins.verifier(name, self.password)

    def _dsn(self, seen: Rights, name: str, password: Secret) -> Dsn:
        return probe.app_dsn(self.target.dsn, name, password, tls=seen.tls)

    def _dsn_at_hand(self, seen: Rights, names: Sequence[str]) -> Dsn | None:
        """The application's DSN, when one that leads to this database is at hand: given, or POSTGRES_DSN."""
        found = self.target.app()
        if self.options.password and not (self.options.check_only and found):
            return self._dsn(seen, names[0], self.password)
        if found is None:
            return None
        dsn, origin = found
        if dsn.same_database(self.target.dsn) and dsn.params["user"] in names:
            return self._dsn(seen, dsn.params["user"], dsn.password)
        told = f"{origin} is {dsn}, which is not {' or '.join(names)} of this database"
        same_server = dsn.same_database(self.target.dsn) and origin != self.target.origin
        (self.result.problems if self.options.check_only and same_server else self.result.notes).append(told)
        return None

    def _changes(self, seen: Rights, names: Sequence[str], scram: str | None) -> list[Change]:
        found = [
            change
            for name in names
            for change in logins.changes(seen, name, self.options.wanted, scram=scram if name == names[0] else None)
        ]
        return list(dict.fromkeys(found))

    def _show_plan(self, seen: Rights, names: Sequence[str], scram: str | None) -> None:
        gaps = grants.missing(seen)
        if gaps:
            self.console.say(f"  would run {grants.DEFINITION.name} again:")
        for gap in gaps:
            self.console.say(f"    {one_line(gap)}")
        changes = self._changes(seen, names, scram)
        for change in changes:
            self.console.say(f"  would {one_line(change.what)}")
        extras = logins.extras(seen, self.options.wanted.names)
        told = "would take away" if self.options.revoke_extra else "beyond the design"
        for extra in extras:
            self.console.say(f"  {told}: {one_line(extra.what)}")
        count = len(changes) + len(gaps) + (len(extras) if self.options.revoke_extra else 0)
        self.console.say(f"{count or 'nothing'} to change; nothing was written")
        self.result.dsn = None
        self.result.notes += [*logins.kept(seen, names, self.options.wanted), *logins.notes(seen)]
        self.result.planned = {
            "target": str(self.target.dsn),
            "role": names[0],
            "gaps": gaps,
            "changes": [change.what for change in changes],
            "extras": [extra.what for extra in extras],
        }

    def _apply(self, session: Session, seen: Rights, names: Sequence[str], scram: str | None) -> None:
        gaps = grants.missing(seen)
        if gaps:
            access.design(session)
            self._did(f"ran {grants.DEFINITION.name} again: {'; '.join(gaps)}")
            seen = self._observe(session)
        changes = self._changes(seen, names, scram)
        if changes:
            self._change(session, changes, new_password=scram is not None)
            self.result.new_password = scram is not None and names[0] in seen.roles
            for change in changes:
                self._did(change.what)
            seen = self._observe(session)
        if self.options.revoke_extra:
            before = logins.extras(seen, self.options.wanted.names)
            access.take_away(session, before)
            seen = self._observe(session)
            left = {extra.what for extra in logins.extras(seen, self.options.wanted.names)}
            for extra in before:
                if extra.what not in left:
                    self._did(f"took away: {extra.what}")
        if not self.result.done:
            self.console.say(f"nothing to do: {' and '.join(names)} of {seen.database} as designed")
        self._hand_over(seen, names)  # before anything else can go wrong: a new password is known to nobody yet
        self._check(session, seen, names)

    def _change(self, session: Session, changes: Sequence[Change], *, new_password: bool) -> None:
        self.unsafe = "may have" if new_password else ""
        try:
            access.apply(session, changes)
        except PsqlError as error:
            if error.error is not None and not error.lost_server:
                self.unsafe = ""  # the server refused all of it
            raise
        self.unsafe = "has" if new_password else ""

    def _did(self, what: str) -> None:
        self.result.done.append(what)
        self.console.say(f"  {one_line(what)}")

    def _check(self, session: Session, seen: Rights, names: Sequence[str]) -> None:
        """Compares with the design once more, from the catalogs and by trying."""
        result = self.result
        undone = [*grants.missing(seen), *(f"still to do: {change.what}" for change in self._changes(seen, names, None))]
        extras = logins.extras(seen, self.options.wanted.names)
        result.problems += [*undone, *(extra.what for extra in extras)]
        result.notes += [*logins.kept(seen, names, self.options.wanted), *logins.notes(seen)]
        there = [name for name in names if name in seen.roles]
        for name in there:
            result.problems += probe.later_tables(session, seen, name)
        if result.dsn is None and there:
            result.dsn = self._dsn_at_hand(seen, there)
        # A role that can't log in may have the password that is at hand; whether it does shows when it can.
        result.next = self._next(undone, extras, known=bool(logins.active(seen, names) or result.dsn))
        if result.dsn is None:
            result.notes.append(f"not tried as {names[0]}: its DSN is not at hand ({APP_DSN})")
            if result.problems and not result.next and there:
                result.next = f"put the DSN in use into {APP_DSN}, or: {self._with_new_password}"
            return
        result.outcome = probe.run(self.target, seen, result.dsn)
        result.problems += result.outcome.problems
        result.notes += result.outcome.notes
        if result.outcome.refused and not result.next and not result.places:
            result.next = f"put the DSN in use into {APP_DSN}, or: {self._with_new_password}"

    def _next(self, undone: Sequence[str], extras: Sequence[Extra], *, known: bool) -> str:
        """The command, or the statement, that mends what differs."""
        statements = "; ".join(statement for extra in extras for statement in extra.statements if extra.by_hand)
        others = [extra for extra in extras if not extra.by_hand]
        if others and self.options.revoke_extra:  # what is left was granted by somebody else, who alone can take it back
            statements = "; ".join(statement for extra in extras for statement in extra.statements)
            return f"a superuser, or who granted it, runs: {statements};" if statements else ""
        if undone and not known:
            return self._with_new_password
        if others:
            return f"take away what is beyond the design: {self._command('--keep-password', '--revoke-extra')}"
        if undone:
            return self._command("--keep-password")
        return f"where nobody else needs it, run: {statements};" if statements else ""

    def _hand_over(self, seen: Rights, names: Sequence[str]) -> None:
        result = self.result
        result.dsn = result.dsn or self._dsn_at_hand(seen, names)
        if result.dsn is None:
            return
        for place in self.options.destinations.deliver(result.dsn, self.console):
            self.console.say(f"handed over: {place}")
            result.places.append(place)
        self.unsafe = ""

    def _report(self) -> ExitCode:
        result, console = self.result, self.console
        if result.new_password:
            console.say(
                f"the password of {result.role} is new, and an old one lets nobody in any more (invoke rotate avoids that)"
            )
        if self.options.check_only and not result.problems:
            tried = "" if result.outcome else ", by the catalogs alone"
            console.say(f"{result.role} of {self.target.dsn.database} as designed{tried}")
        if result.outcome is not None:
            console.say(result.outcome.told(result.role))
        if result.dsn is not None:
            console.say(f"dsn: {result.dsn}")
        for note in result.notes:
            console.note(f"note: {one_line(note)}")
        for problem in result.problems:
            console.say(f"differs: {one_line(problem)}")
        facts: dict[str, Any] = {
            "target": str(self.target.dsn),
            "role": result.role,
            "dsn": str(result.dsn) if result.dsn else None,
            "done": result.done,
            "password_is_new": result.new_password,
            "self_test": result.outcome.facts() if result.outcome else None,
            "handed_over": result.places,
            "notes": result.notes,
            "differs": result.problems,
            "next": result.next,
        }
        emitted = {APP_DSN: result.dsn.uri()} if result.dsn and self.options.destinations.emit and result.places else {}
        console.document(result.planned if self.options.plan_only else facts, emitted)
        if result.problems:
            console.note(f"next:  {one_line(result.next or self._command('--check'))}")
            return ExitCode.PENDING
        return ExitCode.OK
