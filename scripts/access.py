"""Who may do what, through a session: read, and changed."""

from __future__ import annotations

from collections.abc import Sequence

from scripts import grants
from scripts.errors import OpsError
from scripts.grants import Extra, Rights
from scripts.ledger import TABLE, literal
from scripts.logins import Change, Wanted
from scripts.psql import PsqlError, Session

_NOT_ALLOWED = "42501"  # SQLSTATE insufficient_privilege


def observe(session: Session, wanted: Wanted, before: str) -> Rights:
    """What stands in the database. Raises OpsError when the design isn't in it, with the command that comes `before`."""
    seen = grants.rights(session.query(grants.observe(wanted.names)))
    if seen.groups_missing or not seen.schemas or not any(item.name == TABLE for item in seen.objects):
        missing = ", ".join(seen.groups_missing) or "the schemas or the ledger"
        raise OpsError(f"the database {seen.database} has no roles and grants yet ({missing} missing)", before)
    return seen


def apply(session: Session, changes: Sequence[Change]) -> None:
    """Makes changes, all or none."""
    session.query("BEGIN; " + "; ".join(statement for change in changes for statement in change.statements) + "; COMMIT")


def take_away(session: Session, extras: Sequence[Extra]) -> None:
    """Takes away each, as far as the user may; what somebody else granted stays, with a warning of the server."""
    for extra in extras:
        executed = " ".join(f"EXECUTE {literal(statement)};" for statement in extra.statements)
        refused = "EXCEPTION WHEN insufficient_privilege THEN RAISE WARNING '%', SQLERRM;"
        if executed:
            session.query(f"DO $take_away$ BEGIN {executed} {refused} END $take_away$")


def may_pass(error: PsqlError) -> bool:
    """Whether somebody changed the same role or database from another database of the server, where our lock doesn't reach."""
    return error.error is not None and error.error.text == "tuple concurrently updated"


def explained(error: PsqlError, again: str) -> OpsError:
    """What the server refused, and who could do it."""
    hint = f"see that the server is up, then: {again}"
    if error.error is not None and error.error.sqlstate == _NOT_ALLOWED:
        groups = ", ".join(grants.GROUPS)
        hint = (
            f"use the DSN of the administrator who made the groups, or let one run: GRANT {groups} TO the user of this DSN "
            f"WITH ADMIN OPTION; then: {again}"
        )
    details = "".join(f"\n  {line}" for line in error.error.details) if error.error else ""
    return OpsError(f"the server refused: {error.error.text if error.error else error.message}{details}", hint)
