"""Empties a database and applies all migrations anew: what is in it is lost, and has to be loaded again from Delta."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from scripts import explain, ledger, lock
from scripts.catalogs import identifier
from scripts.console import Console, one_line
from scripts.errors import OpsError, UsageError, counted
from scripts.psql import NOT_ALLOWED, PsqlError, Session
from scripts.runner import Options, Runner
from scripts.target import Target

# What is there beside the system's own. An extension that Azure itself has made is its superuser's, and stays.
# A schema that an extension has made, pg_cron's say, goes with it or stays with it.
_CONTENTS = """SELECT pg_catalog.json_build_object(
  'public', (SELECT pg_catalog.json_build_object('super', (SELECT rolname FROM pg_roles WHERE oid = 10),
      'azure', EXISTS (SELECT FROM pg_roles WHERE rolname = 'azure_pg_admin'))),
  'schemas', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', n.nspname, 'quoted', pg_catalog.quote_ident(n.nspname),
      'tables', (SELECT count(*) FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'm', 'f')))
      ORDER BY n.nspname), '[]')
    FROM pg_namespace AS n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend AS d
        WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')),
  'others', (SELECT coalesce(pg_catalog.json_agg(o.kind || ' ' || pg_catalog.quote_ident(o.name) ORDER BY o.kind, o.name), '[]')
    FROM (
      SELECT 'EVENT TRIGGER' AS kind, evtname AS name FROM pg_event_trigger AS t
        WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = t.oid AND d.deptype = 'e')
      UNION ALL SELECT 'PUBLICATION', pubname FROM pg_publication
      UNION ALL SELECT 'FOREIGN DATA WRAPPER', fdwname FROM pg_foreign_data_wrapper AS w
        WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = w.oid AND d.deptype = 'e')
      UNION ALL SELECT 'EXTENSION', extname FROM pg_extension
        WHERE extname <> 'plpgsql' AND pg_has_role(extowner, 'USAGE')) AS o))"""
# What ALTER DEFAULT PRIVILEGES has said for no schema alone, back to what it is for a new role; its row then goes by itself.
_DEFAULT_PRIVILEGES = """WITH d AS (
    SELECT defaclrole AS maker, defaclacl AS acl,
      acldefault(CASE defaclobjtype WHEN 'S' THEN 's' ELSE defaclobjtype END::"char", defaclrole) AS usual,
      CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES'
        WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END AS objects
    FROM pg_default_acl WHERE defaclnamespace = 0 AND pg_has_role(defaclrole, 'USAGE')),
  has AS (SELECT maker, objects, e.grantee, e.privilege_type FROM d, aclexplode(d.acl) AS e),
  usual AS (SELECT maker, objects, e.grantee, e.privilege_type FROM d, aclexplode(d.usual) AS e)
  SELECT pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %s %s %s ON %s %s %s',
    maker::regrole, verb, privilege_type, objects,
    CASE verb WHEN 'GRANT' THEN 'TO' ELSE 'FROM' END,
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
  FROM (SELECT 'REVOKE' AS verb, * FROM (TABLE has EXCEPT TABLE usual) AS more
    UNION ALL SELECT 'GRANT', * FROM (TABLE usual EXCEPT TABLE has) AS less) AS changes"""
_LARGE_OBJECTS = "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata"


@dataclass(frozen=True, kw_only=True)
class Permission:
    """What the flags of `invoke migrations.reset` allow."""

    remote: bool = False
    yes: bool = False
    plan_only: bool = False

    @property
    def flags(self) -> list[str]:
        """Those that were given beside the leave for another machine."""
        return [*(["--plan"] if self.plan_only else []), *(["--yes"] if self.yes else [])]


def run(goal: Target, options: Options, permission: Permission, console: Console) -> None:
    """Drops every schema that isn't the system's, and what stands beside schemas, and applies all files.

    Asks for the database's name. Raises UsageError for a host that isn't this machine, unless that is allowed; OpsError.
    """
    runner = Runner(goal, options, console)
    again = " ".join(filter(None, ["invoke migrations.reset", goal.flags, *options.flags]))
    if not goal.dsn.is_local and not permission.remote:
        raise UsageError(
            f"{goal.dsn.hosts[0]} is another machine, and all that is in {goal.dsn.database} would be lost",
            " ".join(filter(None, [f"if that is what you want: {again} --allow-remote", *permission.flags])),
        )
    console.say(f"target: {goal.dsn}")
    found = goal.ask(_contents, wait=options.wait)
    dropped = [f"SCHEMA {item['quoted']}" for item in found["schemas"]] + found["others"]
    for item in found["schemas"]:
        console.say(f"  drop schema {one_line(item['name'])}, with {counted(item['tables'], 'table')}")
    for other in found["others"]:
        console.say(f"  drop {one_line(other)}")
    document: dict[str, Any] = {"target": str(goal.dsn), "dropped": dropped, "applied": []}
    if permission.plan_only:
        console.say(f"{counted(len(dropped), 'object')} to drop, then all files anew; nothing was written")
        console.document(document)
        return
    question = f"All that is in the database {goal.dsn.database} on {goal.dsn.hosts[0]} will be lost."
    console.confirm_by_name(question, goal.dsn.database, yes=permission.yes, again=again)
    try:
        goal.ask(lambda session: _empty(session, goal, found, dropped, options, again, console))
    except PsqlError as error:
        if error.error is None or error.error.sqlstate not in (NOT_ALLOWED, *explain.NO_LOCK):
            raise
        hint = goal.without_rights("whoever owns it can drop it; or give its ownership to the user of the DSN", again)
        if error.error.sqlstate in explain.NO_LOCK:
            hint = f"when those who use the tables have ended: {again}  (--lock-timeout 1min waits longer)"
        raise OpsError(f"the server refused: {error.error.text}; nothing was dropped", hint) from None
    console.say(f"dropped {counted(len(dropped), 'object')}")
    applied = runner.apply().applied
    console.say(f"applied {counted(len(applied), 'file')}; {goal.dsn.database} is as a new one")
    console.document({**document, "applied": [vars(item) for item in applied]})


def _contents(session: Session) -> dict[str, Any]:
    found: dict[str, Any] = json.loads("".join(session.read(_CONTENTS)))
    return found


def _empty(
    session: Session, goal: Target, found: dict[str, Any], dropped: list[str], options: Options, again: str, console: Console
) -> None:
    """In one transaction, under the runners' lock; others who use the tables are waited for as long as a file would."""
    goal.refuse_pooler(session, again)
    lock.acquire(session, wait=options.lock_wait, again=again, note=console.note)
    if _contents(session) != found:
        raise OpsError("the database has changed meanwhile; nothing was dropped", again)
    drops = [f"DROP {name} CASCADE" for name in reversed(dropped)]
    timeout = f"SET LOCAL lock_timeout = {options.lock_timeout}"
    privileges = session.read(_DEFAULT_PRIVILEGES)
    session.query(
        ";\n".join(["BEGIN", timeout, *drops, *privileges, _LARGE_OBJECTS, *_public(session, found["public"]), "COMMIT"])
    )


def _public(session: Session, server: dict[str, Any]) -> list[str]:
    """The schema public as a new database has it: since PostgreSQL 15, nobody but its owner may create in it.

    Source: https://www.postgresql.org/docs/15/release-15.html; on Azure, it is its administrators' group's.
    """
    new = ledger.facts(session.read(ledger.FACTS)).number >= 150000
    owner = "azure_pg_admin" if server["azure"] else "pg_database_owner" if new else identifier(server["super"])
    return [
        "CREATE SCHEMA public",
        "COMMENT ON SCHEMA public IS 'standard public schema'",
        f"ALTER SCHEMA public OWNER TO {owner}",
        f"GRANT {'USAGE' if new else 'ALL'} ON SCHEMA public TO PUBLIC",
    ]
