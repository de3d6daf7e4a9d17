"""The design of the roles, compared with what the catalogs say. Pure.

The design itself, and all that grants it, stands in migrations/0003_roles_and_grants.sql; here is what it comes to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from scripts.catalogs import HARD_WIRED, OWNER, PUBLIC, READER, SCHEMAS, WRITER, Grant, Object, Rights, identifier
from scripts.ledger import TABLE
from scripts.settings import MIGRATIONS

DEFINITION = MIGRATIONS / "0003_roles_and_grants.sql"
MAINTENANCE = ("postgres", "template1")  # databases of the server's own, which PUBLIC may connect to as they come


def designed(seen: Rights) -> set[Grant]:
    """What the groups are to have on what is there now, and on what `serving_owner` makes later."""
    wanted: set[Grant] = set()

    def add(kind: str, name: str, schema: str | None, grantee: str, privileges: str, maker: str | None = None) -> None:
        wanted.update(Grant(kind, name, schema, maker, grantee, privilege) for privilege in privileges.split())

    add("DATABASE", _database(seen), None, OWNER, "CONNECT CREATE TEMPORARY")
    add("DATABASE", _database(seen), None, READER, "CONNECT")
    add("SCHEMA", "public", "public", OWNER, "USAGE CREATE")
    for group in (WRITER, READER):
        add("SCHEMA", "public", "public", group, "USAGE")
        add("TABLE", TABLE, "public", group, "SELECT")
    for item in seen.objects:
        for group in (WRITER, READER) if item.schema in SCHEMAS else ():
            writes = group == WRITER and SCHEMAS[item.schema]
            add(item.kind, item.name, item.schema, group, _PRIVILEGES[item.kind, writes])
            for letter, kind in _LETTERS.items() if item.kind == "SCHEMA" else ():
                add("DEFAULT", letter, item.schema, group, _PRIVILEGES[kind, writes], OWNER)
    return wanted


def missing(seen: Rights) -> list[str]:
    """What stands otherwise than the migration of the design left it, as sentences; to run it again mends that."""
    found = [f"{item.kind.lower()} {item.name} belongs to {item.owner}, not to {OWNER}" for item in misowned(seen)]
    found += [f"{grant.grantee} lacks {grant.privilege} on {grant.where}" for grant in designed(seen) - _plain(seen)]
    found += [f"PUBLIC has {grant.privilege} on {grant.where}" for grant in seen.grants & HARD_WIRED]
    return sorted(found)


def misowned(seen: Rights) -> list[Object]:
    """Objects of the design's schemas that belong to somebody else than the owners' group."""
    return [item for item in seen.objects if item.owner != OWNER]


@dataclass(frozen=True)
class Extra:
    """Something beyond the design, and the SQL that takes it away."""

    what: str
    statements: tuple[str, ...]
    by_hand: bool = False  # whether it is for somebody to decide on: others may need it


def extras(seen: Rights, logins: Iterable[str]) -> list[Extra]:
    """Privileges beyond the design: of PUBLIC, of the login roles themselves, and of the groups where the design speaks.

    What a migration grants to a group in a schema of its own is its own matter.
    """
    wanted = designed(seen)
    of_logins = {grant for name in logins for grant in of_login(seen, name)}
    beyond = {grant for grant in seen.grants - wanted - of_logins if _is_beyond(grant)}
    found = []
    for grant in sorted(beyond, key=lambda grant: (grant.grantee, grant.where, grant.privilege)):
        plain = replace(grant, grantable=False)
        without = plain in wanted | of_logins or not _is_beyond(plain)
        what = f"{grant.grantee} has {grant.privilege} on {grant.where}"
        what += ", with the right to grant it" if grant.grantable else ""
        found.append(Extra(what, (grant.statement("REVOKE GRANT OPTION FOR" if without else "REVOKE"),)))
    return found


def lacking(seen: Rights, name: str) -> list[Grant]:
    """What a login role is to hold itself, and doesn't."""
    return sorted(of_login(seen, name) - _plain(seen), key=lambda grant: (grant.where, grant.privilege))


def _plain(seen: Rights) -> set[Grant]:
    return {replace(grant, grantable=False) for grant in seen.grants}


def _is_beyond(grant: Grant) -> bool:
    """Whether the design has something against a privilege that it doesn't grant."""
    if grant.grantee == OWNER or grant in HARD_WIRED:
        return False
    if grant.grantee == PUBLIC and grant.kind == "DEFAULT":  # the server itself writes down the hard-wired ones of any role
        return grant.schema in SCHEMAS or grant.extra == OWNER or grant.name not in ("f", "T")
    if grant.grantee in (WRITER, READER):
        spoken_of = grant.schema in SCHEMAS or grant.schema is None or grant.name == TABLE  # no schema: the database, or all
        system = (grant.schema or "").startswith("pg_") or grant.schema == "information_schema"
        return spoken_of or system or grant.grantable or (grant.kind == "SCHEMA" and grant.schema == "public")
    return True


def of_login(seen: Rights, name: str) -> set[Grant]:
    """What a login role is to hold itself: CONNECT, and before PostgreSQL 16 all that the writers' group has."""
    own = {Grant("DATABASE", _database(seen), None, None, name, "CONNECT")}
    if seen.direct:
        granted = designed(seen) | {grant for grant in _plain(seen) if not _is_beyond(grant)}
        own |= {replace(grant, grantee=name) for grant in granted if grant.grantee == WRITER}
    return own


def _database(seen: Rights) -> str:
    return next((grant.name for grant in seen.grants if grant.kind == "DATABASE"), identifier(seen.database))


_LETTERS = {"r": "TABLE", "S": "SEQUENCE", "f": "ROUTINE"}
_PRIVILEGES = {  # (kind, whether to write) -> privileges
    ("SCHEMA", False): "USAGE",
    ("SCHEMA", True): "USAGE",
    ("TABLE", False): "SELECT",
    ("TABLE", True): "SELECT INSERT UPDATE DELETE",
    ("SEQUENCE", False): "SELECT",
    ("SEQUENCE", True): "SELECT USAGE",
    ("ROUTINE", False): "EXECUTE",
    ("ROUTINE", True): "EXECUTE",
}
