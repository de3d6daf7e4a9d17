"""Who may do what, through a session: read, and changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scripts import catalogs, grants
from scripts.catalogs import Rights
from scripts.console import one_line
from scripts.errors import OpsError
from scripts.grants import Extra
from scripts.ledger import TABLE, literal
from scripts.logins import Change, Wanted
from scripts.psql import NOT_ALLOWED, PsqlError, Session, Step
from scripts.target import Target

# Functions and operators are the server's own: one that somebody made in another schema could fit the arguments better.
_OWN_WORDS = "SET search_path = pg_catalog; SET standard_conforming_strings = on; SHOW server_version_num"


def observe(session: Session, wanted: Wanted, before: str) -> Rights:
    """What stands in the database. Raises OpsError when the design isn't in it, with the command that comes `before`."""
    (version,) = session.query(_OWN_WORDS)
    seen = catalogs.rights(session.query(catalogs.observe(wanted.names, int(version))))
    if seen.groups_missing or not seen.schemas or not any(item.name == TABLE for item in seen.objects):
        missing = ", ".join(seen.groups_missing) or "the schemas or the ledger"
        raise OpsError(f"the database {seen.database} has no roles and grants yet ({missing} missing)", before)
    return seen


def design(session: Session) -> None:
    """Runs the migration of the design again."""
    name = grants.DEFINITION.name
    list(session.run([Step(file=name, needs=frozenset({name}))], {name: grants.DEFINITION}))


def apply(session: Session, changes: Sequence[Change]) -> None:
    """Makes changes, all or none."""
    session.query("BEGIN; " + "; ".join(statement for change in changes for statement in change.statements) + "; COMMIT")


def take_away(session: Session, extras: Sequence[Extra]) -> None:
    """Takes away each, as far as the user may; what somebody else granted stays, with a warning of the server.

    The block is a literal like the statements in it: no name of an object could end it, as one may a dollar quote.
    """
    for extra in extras:
        executed = " ".join(f"EXECUTE {literal(statement)};" for statement in extra.statements)
        refused = "EXCEPTION WHEN insufficient_privilege THEN RAISE WARNING '%', SQLERRM;"
        if executed and not extra.by_hand:
            session.query("DO " + literal(f"BEGIN {executed} {refused} END"))


def run(target: Target, work: Callable[[Session], None], *, wait: float, again: str, note: Callable[[str], None]) -> None:
    """Does work that changes roles, and does it again when somebody else changed the same one at the same moment.

    `wait` is in seconds, `again` the command to repeat. Raises OpsError, before anything is done when a pooler stands between:
    what `observe` sets for its session would stay behind in others'.
    """

    def alone(session: Session) -> None:
        target.refuse_pooler(session, again)
        work(session)

    for last in (False, False, True):
        try:
            return target.ask(alone, wait=wait, on_message=lambda message: note(f"  {one_line(message.text)}"))
        except PsqlError as error:
            if last or not may_pass(error):
                raise explained(error, target, again) from None
    return None


def may_pass(error: PsqlError) -> bool:
    """Whether somebody changed the same role or database from another database of the server, where our lock doesn't reach."""
    return error.error is not None and error.error.text == "tuple concurrently updated"


def explained(error: PsqlError, target: Target, again: str) -> OpsError:
    """What the server refused, and who could do it."""
    hint = f"see {'that the server is up' if error.lost_server else 'what the log of the server says'}, then: {again}"
    if error.error is not None and error.error.sqlstate == NOT_ALLOWED:
        groups = ", ".join(catalogs.GROUPS)
        hint = target.without_rights(
            f"use the DSN of the administrator who made the groups, or let one run: "
            f"GRANT {groups} TO {catalogs.identifier(target.dsn.params['user'])} WITH ADMIN OPTION; then: {again}",
            again,
        )
    details = "".join(f"\n  {line}" for line in error.error.details) if error.error else ""
    return OpsError(f"the server refused: {error.error.text if error.error else error.message}{details}", hint)
