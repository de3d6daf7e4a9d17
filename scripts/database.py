"""The database that the settings name: the text of its DSN, the way to its host, and what one session there tells. Checks."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from scripts import catalogs, checkup, dotfile, ledger, logins, pooler, safety, settings, shell
from scripts import dsn as dsns
from scripts import target as targets
from scripts.checkup import Verdict
from scripts.dsn import Dsn
from scripts.errors import OpsError, counted, some
from scripts.flexible import DOMAIN
from scripts.ledger import Facts, Row
from scripts.plan import State, make_plan
from scripts.psql import Session
from scripts.settings import Value
from scripts.target import Target

Answer = TypeVar("Answer")
POOLER_PORT = "6432"  # of the pooler that Azure has built in, and PgBouncer's own
_VERIFYING = ("verify-ca", "verify-full")
_DEFAULT_ROOTS = ".postgresql/root.crt"  # in the user's folder: https://www.postgresql.org/docs/current/libpq-ssl.html
_SLOW_CLOCK, _WRONG_CLOCK = 10.0, 300.0  # seconds; a token of Azure's is refused when the clocks are 5 minutes apart
_NEARLY = 0.9  # of the connections
_AGAIN = "invoke doctor"
# Every role may see the numbers of pg_stat_database; pg_stat_activity hides the sessions of others.
_LOOK = f"""SELECT pg_catalog.json_build_object(
  'now', date_part('epoch', clock_timestamp()), 'replica', pg_is_in_recovery(),
  'tls', coalesce((SELECT s.ssl FROM pg_stat_ssl AS s WHERE s.pid = pg_backend_pid()), false),
  'connections', {catalogs.CONNECTIONS}, 'limits', {catalogs.LIMITS},
  'used', (SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database),
  'readable', coalesce(has_table_privilege(to_regclass('{ledger.TABLE}'), 'SELECT'), true))"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one session has told."""

    facts: Facts
    rows: Sequence[Row] | None  # of the ledger; None: the role may not read it
    ahead: float  # seconds that the server's clock is ahead of this machine's
    tls: bool
    replica: bool
    connections: int  # that roles without privileges can have among them
    used: int
    limits: Mapping[str, int]
    pooled: OpsError | None  # why no lock would hold


def text(value: Value, home: Path) -> Verdict:
    """The administrator's DSN, or whichever the migrations would use: its encoding, its TLS, and where its port leads."""
    dsn = dsns.parse(value.text, value.origin)
    if verdict := roots(dsn, value.origin, home):
        return verdict
    if dsn.params.get("port") == POOLER_PORT:
        way = f"put port 5432 into {value.origin}"
        if DOMAIN in dsn.hosts[0]:
            return checkup.problem(f"{value.origin} leads to port {POOLER_PORT}, the pooler of Azure, where no lock holds", way)
        return checkup.warning(f"{value.origin} leads to port {POOLER_PORT}, which is mostly a pooler's", f"{way}, if it is")
    return checkup.ok(f"{dsn} ({value.origin}); {_how(dsn, home)}")


def application(value: Value, names: Sequence[str] | None, administrator: Value | None, home: Path, making: str) -> Verdict:
    """The application's DSN, whose login roles have these names. None: there is no other DSN, so migrations use it too.

    `making` is the command that makes one for the administrator's database.
    """
    dsn = dsns.parse(value.text, value.origin)
    if verdict := roots(dsn, value.origin, home):
        return verdict
    if names is not None:
        targets.check_app(dsn, value.origin, names)
    if administrator is not None:
        with contextlib.suppress(OpsError):  # which is told of the administrator's
            other = dsns.parse(administrator.text, administrator.origin)
            # A pooler in front of the server has a port of its own.
            pooled = any(POOLER_PORT in address.ports for address in (dsn, other))
            here, there = (
                {
                    (name, None if pooled else port, address.database)
                    for name, port in zip(address.hosts, address.ports, strict=False)
                }
                for address in (dsn, other)
            )
            if here != there:
                said = f"{value.origin} and {administrator.origin} lead to different databases: {dsn} and {other}"
                return checkup.warning(said, f"if that isn't meant, mend one of them; or, for a new password: {making}")
    return checkup.ok(f"{dsn} ({value.origin}); {_how(dsn, home)}")


def roots(dsn: Dsn, origin: str, home: Path) -> Verdict | None:
    """What is wrong with the roots by which the server's certificate is to be verified; None where nothing is."""
    mode = _mode(dsn)
    if dsn.params.get("sslrootcert") == "system" and mode != "verify-full":
        said = f"{origin} has sslrootcert=system, for which libpq takes no sslmode={mode}"
        return checkup.problem(said, f"put sslmode=verify-full into {origin}")
    path = _roots_of(dsn, home)
    if mode == "require" and "sslrootcert" in dsn.params and not dotfile.is_there(path):
        said = f"{path} isn't there, so libpq doesn't verify the server's certificate ({origin})"
        return checkup.warning(said, f"put sslmode=verify-full into {origin}, and have sslrootcert name the file of roots")
    if mode not in _VERIFYING or dsn.params.get("sslrootcert") == "system":
        return None
    way = f"have sslrootcert in {origin} name a file of roots, or be system (psql 16 and newer)"
    try:
        if "-----BEGIN CERTIFICATE-----" in path.read_text(encoding="utf-8", errors="replace"):
            return None
    except OSError as error:
        return checkup.problem(f"the roots of {origin} can't be read: {path}: {error.strerror}", way)
    return checkup.problem(f"the roots of {origin} hold no certificate: {path}", way)


def _mode(dsn: Dsn) -> str:
    """The sslmode as libpq has it where none is given."""
    return dsn.params.get("sslmode") or ("verify-full" if dsn.params.get("sslrootcert") == "system" else "prefer")


def _roots_of(dsn: Dsn, home: Path) -> Path:
    named = dsn.params.get("sslrootcert")
    return Path(named) if named else home / _DEFAULT_ROOTS


def _how(dsn: Dsn, home: Path) -> str:
    if dsn.is_socket:
        return "by a unix socket"
    mode = _mode(dsn)
    # With a file of roots, require means verify-ca: https://www.postgresql.org/docs/current/libpq-ssl.html
    is_verified = mode in _VERIFYING or (mode == "require" and dotfile.is_there(_roots_of(dsn, home)))
    return f"sslmode={mode}, the server's certificate is {'verified' if is_verified else 'not verified'}"


def host(target: Target, seconds: float, connect: Callable[..., Any] = socket.create_connection) -> Verdict:
    """Whether something listens where the DSN leads; one of several hosts suffices."""
    dsn = target.dsn
    failures = []
    for name, port in zip(dsn.hosts, dsn.ports, strict=False):  # of more hosts than ports, libpq itself tells
        if name.startswith(("/", "@")):
            return checkup.ok(f"by the unix socket in {name}")
        try:
            with connect((name, int(port)), timeout=seconds / len(dsn.hosts)):
                return checkup.ok(f"{name}:{port} answers")
        except (OSError, UnicodeError) as error:  # the latter: two dots in a row, or more than 63 characters between two
            failures.append(_unreachable(target, name, port, error))
    return failures[0]


def _unreachable(target: Target, name: str, port: str, error: OSError | UnicodeError) -> Verdict:
    if isinstance(error, UnicodeError):
        return checkup.problem(f"{name} can't be the name of a host", f"mend it in {target.origin}")
    if isinstance(error, socket.gaierror):
        return checkup.problem(
            f"the name {name} isn't known here ({error.strerror})",
            targets.unknown_name(target.origin, offline=error.errno == socket.EAI_AGAIN),
        )
    if isinstance(error, TimeoutError):
        allow, let_in = (
            checkup.command(words, target.flags) for words in ("provision --allow-current-ip", "migrate --open-firewall")
        )
        azure = f"{allow}, or for one run: {let_in}"
        way = azure if DOMAIN in name else "see that a firewall lets this machine through, and that the address is right"
        return checkup.problem(f"{name}:{port} doesn't answer: a firewall, mostly", way)
    if isinstance(error, ConnectionRefusedError):
        way = f"start the server, or mend the port in {target.origin}"
        return checkup.problem(f"nothing listens at {name}:{port}", way)
    return checkup.problem(f"{name}:{port} can't be reached: {error.strerror or error}", f"the DSN came from {target.origin}")


def observe(target: Target, seconds: float, clock: Callable[[], float] = time.time) -> Seen:
    """What a session tells. Raises OpsError when none comes about within so many seconds."""

    def work(session: Session) -> Seen:
        began = clock()
        said = json.loads("".join(session.read(_LOOK)))
        halfway = (began + clock()) / 2
        facts = ledger.facts(session.read(ledger.FACTS))
        rows: Sequence[Row] | None = [] if said["readable"] else None
        if facts.ledger and said["readable"]:
            rows = ledger.rows(session.read(ledger.ROWS))
        pooled = None
        try:
            pooler.refuse(session, dsn=target.dsn, origin=target.origin, ask=target.ask, again=_AGAIN)
        except OpsError as error:
            pooled = error
        return Seen(
            facts=facts,
            rows=rows,
            ahead=said["now"] - halfway,
            tls=said["tls"],
            replica=said["replica"],
            connections=said["connections"],
            used=said["used"],
            limits=said["limits"],
            pooled=pooled,
        )

    return _ask(target, seconds, work)


def _ask(target: Target, seconds: float, work: Callable[[Session], Answer]) -> Answer:
    """As the target does it, with a limit for connecting, of which no message need speak."""
    waits = str(max(2, int(seconds / 2)))  # libpq takes 1 for 2
    patient = replace(target, dsn=target.dsn.with_params(connect_timeout=waits))
    try:
        return patient.ask(work)
    except OpsError as error:
        error.message = error.message.replace(str(patient.dsn), str(target.dsn))
        raise


def login(seen: Seen, target: Target) -> Verdict:
    """Who lets whom in, and whether `invoke migrate` may run as that user."""
    facts = seen.facts
    said = f"{facts.user} at PostgreSQL {facts.version}, {'with' if seen.tls else 'without'} TLS"
    if seen.replica:
        return checkup.problem(f"{said}: a replica, which takes no migration", "put the primary's host into the DSN")
    if facts.group and not facts.member:
        grant = catalogs.let_become(facts.user, facts.group, direct=facts.number < catalogs.SET_OPTION)
        way = target.without_rights(f"an administrator runs: {grant}", _AGAIN)
        return checkup.warning(f"{said}; may not migrate, as it may not become {facts.group}, which owns the ledger", way)
    return checkup.ok(said)


def let_in(target: Target, seconds: float) -> Verdict:
    """Whether the application's password is the one that the server knows. Raises OpsError when it isn't."""
    _ask(target, seconds, lambda session: session.query("SELECT 1"))
    return checkup.ok(f"{target.dsn.params['user']} is let in")


def locks(seen: Seen) -> Verdict:
    """Whether a pooler is in the way."""
    return checkup.ok("no pooler in the way: locks hold") if seen.pooled is None else checkup.failed(seen.pooled)


def clock(seen: Seen, *, windows: bool = shell.WINDOWS) -> Verdict:
    """Whether the server's clock and this machine's go alike; a minute's answer of the network doesn't count."""
    apart = abs(seen.ahead)
    if apart < _SLOW_CLOCK:
        return checkup.ok("this machine's clock and the server's agree")
    said = f"the server's clock is {apart:.0f} s {'ahead of' if seen.ahead > 0 else 'behind'} this machine's"
    way = "w32tm /resync" if windows else "sudo timedatectl set-ntp true (macOS: sudo sntp -sS time.apple.com)"
    if apart >= _WRONG_CLOCK:
        return checkup.problem(f"{said}: az and TLS refuse that", way)
    return checkup.warning(said, way)


def migrations(seen: Seen, folder: Path, command: Callable[[str], str]) -> Verdict:
    """The ledger against the files. What is pending is no problem; `invoke status` ends with 3 for it.

    `command` makes a command for this database out of its words.
    """
    if seen.rows is None:
        said = f"{seen.facts.user} may not read {ledger.TABLE}"
        return checkup.warning(said, f"put an administrator's DSN into {settings.ADMIN_DSN}")
    found, checked = safety.read_folder(folder)
    plan = make_plan(found, seen.rows, command=command)
    problems = [*plan.problems, *safety.check_all(plan.pending, folder, checked)]
    if problems or plan.started:
        first = [str(problem) for problem in problems] or [
            f"{entry.file} was started and has not ended" for entry in plan.started
        ]
        return checkup.problem(some(first, 1), command("status"))
    if not seen.facts.ledger:
        return checkup.unset(f"no ledger yet, and {counted(len(plan.pending), 'migration')}", command("migrate --plan"))
    if plan.pending:
        named = ", ".join(migration.file for migration in plan.pending[:3]) + (" ..." if len(plan.pending) > 3 else "")
        return checkup.warning(f"{len(plan.pending)} pending: {named}", command("migrate --plan"))
    return checkup.ok(f"{counted(plan.count(State.APPLIED), 'migration')} applied, none pending")


def connections(seen: Seen, flags: str) -> Verdict:
    """How many are left, and whether the login roles were promised more than there are. `flags` lead to the database again."""
    said = f"{seen.used} of {seen.connections} connections in use"
    if seen.used >= _NEARLY * seen.connections:
        return checkup.warning(said, "end what isn't needed (SELECT * FROM pg_stat_activity), or give the server a larger SKU")
    if promised := logins.promised(seen.limits, seen.connections):
        return checkup.warning(promised, f"{checkup.command('roles --connection-limit NUMBER', flags)}, or a larger SKU")
    return checkup.ok(said)
