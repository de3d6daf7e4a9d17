"""Who may do what in a database: the catalogs, read in one query. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.ledger import TABLE, literal

OWNER, WRITER, READER = GROUPS = ("serving_owner", "serving_writer", "serving_reader")
PUBLIC = "PUBLIC"
SCHEMAS = {"core": True, "backtest": True, "monitoring": True, "gold": False, "platinum": False}  # name -> written
SET_OPTION = 160000  # server_version_num from which a membership can be without the right to SET ROLE
_PARAMETERS = 150000  # server_version_num from which parameters have privileges
_ADMIN_ATTRIBUTES = ("superuser", "createrole", "createdb", "replication", "bypassrls")
# What no migration of ours makes, and PUBLIC could be given: (kind, its catalog, name, owner, ACL, letter of acldefault).
_OTHERS = (
    ("FOREIGN SERVER", "pg_foreign_server", "quote_ident(srvname)", "srvowner", "srvacl", "S"),
    ("FOREIGN DATA WRAPPER", "pg_foreign_data_wrapper", "quote_ident(fdwname)", "fdwowner", "fdwacl", "F"),
    ("TABLESPACE", "pg_tablespace", "quote_ident(spcname)", "spcowner", "spcacl", "t"),
    ("LANGUAGE", "pg_language", "quote_ident(lanname)", "lanowner", "lanacl", "l"),
    ("LARGE OBJECT", "pg_largeobject_metadata", "oid::text", "lomowner", "lomacl", "L"),
    ("PARAMETER", "pg_parameter_acl", "parname", "10::oid", "paracl", "p"),
)
# Connections that roles without privileges can have among them, and those that each login role was promised.
CONNECTIONS = """current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0)"""
LIMITS = """(SELECT coalesce(json_object_agg(rolname, rolconnlimit ORDER BY rolname), '{}') FROM pg_roles
    WHERE rolcanlogin AND rolconnlimit > 0 AND NOT rolsuper)"""


def observe(logins: Iterable[str], version: int = SET_OPTION) -> str:
    """The query that reads everything which these functions look at; its answer is one JSON document.

    Privileges are those of PUBLIC, the groups and the `logins`. On what the server and extensions bring along, those of
    PUBLIC that came with it are left out, as are those to run a routine that runs as its caller. `version` is the server's
    server_version_num. Source: https://www.postgresql.org/docs/current/catalogs.html (pg_init_privs among them)
    """
    watched = ", ".join(literal(name) for name in (*GROUPS, *logins))
    kinds = "'DATABASE', 'SCHEMA', 'TABLE', 'SEQUENCE', 'COLUMN', 'ROUTINE', 'DEFAULT'"
    design = ", ".join(map(literal, SCHEMAS))

    def not_of_extension(catalog: str, oid: str) -> str:
        return (
            f"NOT EXISTS (SELECT FROM pg_depend AS x WHERE x.classid = '{catalog}'::regclass AND x.objid = {oid}"
            " AND x.deptype = 'e')"
        )

    def ours(catalog: str, oid: str) -> str:
        return f"n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND {not_of_extension(catalog, oid)}"

    others = "".join(
        f"""
  UNION ALL
  SELECT '{kind}', {name}, NULL, NULL, '{catalog}'::regclass, oid, 0, {owner}, '{letter}', {acl}, false
  FROM {catalog} WHERE {acl} IS NOT NULL"""
        for kind, catalog, name, owner, acl, letter in _OTHERS
        if kind != "PARAMETER" or version >= _PARAMETERS
    )

    return f"""WITH
watched AS (SELECT oid, rolname FROM pg_roles WHERE rolname IN ({watched}) UNION ALL SELECT 0, '{PUBLIC}'),
database AS (SELECT * FROM pg_database WHERE datname = current_database()),
object (kind, name, schema, extra, catalog, oid, part, owner, letter, acl, ours) AS (  -- ours: all that PUBLIC may do counts
  SELECT 'DATABASE', quote_ident(datname), NULL, NULL, 'pg_database'::regclass, oid, 0, datdba, 'd',
    datacl, true
  FROM database
  UNION ALL
  SELECT 'SCHEMA', quote_ident(n.nspname), n.nspname, NULL, 'pg_namespace'::regclass, n.oid, 0, n.nspowner, 'n',
    n.nspacl,
    {ours("pg_namespace", "n.oid")}
  FROM pg_namespace AS n
  UNION ALL
  SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%I.%I', n.nspname, c.relname), n.nspname, NULL,
    'pg_class'::regclass, c.oid, 0, c.relowner, CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END, c.relacl,
    {ours("pg_class", "c.oid")}
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  UNION ALL
  SELECT 'COLUMN', format('%I.%I', n.nspname, c.relname), n.nspname, quote_ident(a.attname),
    'pg_class'::regclass, c.oid, a.attnum, c.relowner, 'c', a.attacl,
    {ours("pg_class", "c.oid")}
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
  UNION ALL
  SELECT 'ROUTINE', f.oid::regprocedure::text, n.nspname, NULL, 'pg_proc'::regclass, f.oid, 0, f.proowner, 'f', f.proacl,
    {ours("pg_proc", "f.oid")} AND (n.nspname IN ({design})
      OR f.prosecdef AND f.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype))
  FROM pg_proc AS f JOIN pg_namespace AS n ON n.oid = f.pronamespace
  WHERE f.proacl IS NOT NULL OR n.nspname <> 'pg_catalog'
  UNION ALL
  SELECT 'DEFAULT', d.defaclobjtype::text, n.nspname, pg_get_userbyid(d.defaclrole),
    'pg_default_acl'::regclass, d.oid, 0, d.defaclrole, NULL, d.defaclacl, true
  FROM pg_default_acl AS d LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace{others}
),
granted AS (
  SELECT o.kind, o.name, o.schema, o.extra, o.ours, pg_get_userbyid(o.owner) AS owner,
    coalesce((
      SELECT json_agg(json_build_array(w.rolname, a.privilege_type, a.is_grantable) ORDER BY 1, 2)
      FROM aclexplode(coalesce(o.acl, acldefault(o.letter::"char", o.owner))) AS a JOIN watched AS w ON w.oid = a.grantee
      WHERE a.grantee <> o.owner AND CASE
        WHEN a.grantee <> 0 THEN o.kind IN ({kinds})  -- on others, what is granted to a role is among its `elsewhere`
        WHEN o.schema = 'information_schema' AND o.name NOT LIKE '%.\\_%' THEN a.privilege_type NOT IN ('USAGE', 'SELECT')
        ELSE o.ours OR NOT EXISTS (
          SELECT FROM aclexplode(coalesce(
            (SELECT p.initprivs FROM pg_init_privs AS p
              WHERE p.objoid = o.oid AND p.classoid = o.catalog AND p.objsubid = o.part),
            acldefault(o.letter::"char", o.owner))) AS came
          WHERE came.grantee = 0 AND came.privilege_type = a.privilege_type) END), '[]') AS grants
  FROM object AS o
)
SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'database', current_database(),
  'user', current_user,
  'is_superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'may_own', coalesce(pg_has_role(to_regrole('{OWNER}'), '{"SET" if version >= SET_OPTION else "MEMBER"}'), false),
  'tls', current_setting('ssl') = 'on',
  'connections', {CONNECTIONS}, 'limits', {LIMITS},
  'objects', (SELECT coalesce(json_agg(g), '[]') FROM granted AS g WHERE g.kind = 'DEFAULT' OR g.grants::text <> '[]'
    OR (g.ours AND (g.schema IN ({design}) OR g.name = '{TABLE}'))),
  'roles', (SELECT coalesce(json_object_agg(r.rolname, json_build_object(
      'login', r.rolcanlogin, 'superuser', r.rolsuper, 'createrole', r.rolcreaterole, 'createdb', r.rolcreatedb,
      'replication', r.rolreplication, 'bypassrls', r.rolbypassrls, 'inherit', r.rolinherit, 'limit', r.rolconnlimit,
      'expires', r.rolvaliduntil, 'settings', r.rolconfig,
      'overrides', (SELECT coalesce(json_agg(json_build_array(d.datname, split_part(c, '=', 1)) ORDER BY 1), '[]')
        FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase CROSS JOIN unnest(s.setconfig) AS c
        WHERE s.setrole = r.oid),
      'comment', shobj_description(r.oid, 'pg_authid'),
      'memberships', (SELECT coalesce(json_agg(to_jsonb(m) || jsonb_build_object('group', pg_get_userbyid(m.roleid),
          'by', pg_get_userbyid(m.grantor), 'may_revoke', pg_has_role(m.grantor, 'USAGE')) ORDER BY m.roleid, m.grantor), '[]')
        FROM pg_auth_members AS m WHERE m.member = r.oid),
      'owns', (SELECT coalesce(json_agg(CASE WHEN d.dbid IN (0, (SELECT oid FROM database))
          THEN pg_describe_object(d.classid, d.objid, d.objsubid)
          ELSE 'an object of the database ' || (SELECT datname FROM pg_database WHERE oid = d.dbid) END), '[]')
        FROM pg_shdepend AS d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o'
          AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)),
      'elsewhere', (SELECT coalesce(json_agg(json_build_object(
          'what', CASE WHEN d.dbid IN (0, (SELECT oid FROM database)) THEN pg_describe_object(d.classid, d.objid, d.objsubid)
            ELSE 'an object of the database ' || (SELECT datname FROM pg_database WHERE oid = d.dbid) END,
          'kind', d.classid::regclass::text,
          'revoke', CASE WHEN d.dbid IN (0, (SELECT oid FROM database)) THEN (
            SELECT format('REVOKE ALL ON %s %s FROM %I CASCADE', CASE i.type WHEN 'server' THEN 'FOREIGN SERVER'
              WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' WHEN 'parameter ACL' THEN 'PARAMETER'
              ELSE i.type END, i.identity, r.rolname)
            FROM pg_identify_object(d.classid, d.objid, 0) AS i) END)), '[]')
        FROM pg_shdepend AS d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'a'
          AND d.classid <> 'pg_auth_members'::regclass
          AND NOT (d.classid = 'pg_database'::regclass AND d.objid = (SELECT oid FROM database))
          AND NOT (d.dbid = (SELECT oid FROM database) AND d.classid IN ('pg_namespace'::regclass, 'pg_class'::regclass,
            'pg_proc'::regclass, 'pg_default_acl'::regclass))),
      'sessions', (SELECT count(*) FROM pg_stat_activity AS s WHERE s.usesysid = r.oid)
    )), '{{}}') FROM pg_roles AS r JOIN watched AS w ON w.oid = r.oid),
  'samples', (SELECT coalesce(json_object_agg(s.schema, s.name), '{{}}') FROM (
    SELECT DISTINCT ON (n.nspname) n.nspname AS schema, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname IN ({design})
      AND {not_of_extension("pg_class", "c.oid")}
    ORDER BY n.nspname, c.relname) AS s),
  'databases', (SELECT coalesce(json_agg(json_build_object(
      'name', d.datname, 'owner', pg_get_userbyid(d.datdba), 'may_close', pg_has_role(d.datdba, 'USAGE'),
      'open', EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
        WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')) ORDER BY d.datname), '[]')
    FROM pg_database AS d WHERE d.datallowconn AND d.datname <> current_database())
)"""


@dataclass(frozen=True)
class Grant:
    """One privilege of one grantee on one object."""

    kind: str  # DATABASE, SCHEMA, TABLE, SEQUENCE, COLUMN, ROUTINE, DEFAULT, or one of others that PUBLIC was given
    name: str  # quoted as SQL wants it; of DEFAULT the letter of pg_default_acl.defaclobjtype
    schema: str | None
    extra: str | None  # COLUMN: the column; DEFAULT: the role that makes the objects
    grantee: str
    privilege: str
    grantable: bool = False

    @property
    def where(self) -> str:
        """The object, for a sentence."""
        if self.kind == "DEFAULT":
            inside = f" in schema {self.schema}" if self.schema else ""
            return f"later {_DEFAULT_KINDS.get(self.name, self.name).lower()} of {self.extra}{inside}"
        if self.kind == "COLUMN":
            return f"column {self.extra} of {self.name}"
        return f"{self.kind.lower()} {self.name}"

    def statement(self, verb: str) -> str:
        """The SQL that does it (`GRANT`), undoes it (`REVOKE`), or the right to hand it on (`REVOKE GRANT OPTION FOR`)."""
        grantee = PUBLIC if self.grantee == PUBLIC else identifier(self.grantee)
        grantee = f"TO {grantee}" if verb == "GRANT" else f"FROM {grantee} CASCADE"  # with what the grantee made of it
        if self.kind == "DEFAULT":
            inside = f" IN SCHEMA {identifier(self.schema)}" if self.schema else ""
            owner = identifier(self.extra or "")
            kind = _DEFAULT_KINDS[self.name]
            return f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner}{inside} {verb} {self.privilege} ON {kind} {grantee}"
        if self.kind == "COLUMN":
            return f"{verb} {self.privilege} ({self.extra}) ON TABLE {self.name} {grantee}"
        return f"{verb} {self.privilege} ON {self.kind} {self.name} {grantee}"


_DEFAULT_KINDS = {"r": "TABLES", "S": "SEQUENCES", "f": "ROUTINES", "T": "TYPES", "n": "SCHEMAS", "L": "LARGE OBJECTS"}
# What everybody may until it is taken away; no catalog says so.
HARD_WIRED = frozenset(
    Grant("DEFAULT", letter, None, OWNER, PUBLIC, privilege) for letter, privilege in (("f", "EXECUTE"), ("T", "USAGE"))
)


@dataclass(frozen=True)
class Object:
    """Something that the design says the owner and the privileges of."""

    kind: str
    name: str
    schema: str
    owner: str


@dataclass(frozen=True)
class Membership:
    """A role's membership in a group, as one grantor gave it; from PostgreSQL 16 on, several can."""

    group: str
    inherit: bool
    become: bool  # by SET ROLE
    admin: bool  # may make others members
    grantor: str
    may_revoke: bool  # whether the user may, in the grantor's name


@dataclass(frozen=True)
class Role:
    """A role as the catalogs have it."""

    name: str
    login: bool
    attributes: tuple[str, ...]  # those that only an administrator should have
    inherit: bool
    limit: int  # of connections; -1: none
    expires: str | None
    settings: Mapping[str, str]
    overrides: tuple[tuple[str, str], ...]  # (database, setting) where another value of a setting holds
    comment: str
    memberships: tuple[Membership, ...]
    owns: tuple[str, ...]  # descriptions of objects, in this database and in others
    elsewhere: tuple[Mapping[str, Any], ...]  # `what` else it has privileges on, and how to `revoke` them, where known
    sessions: int


@dataclass(frozen=True)
class Rights:
    """What `observe` saw."""

    version: int  # server_version_num
    database: str
    owner: str  # of the database
    user: str
    is_superuser: bool
    may_own: bool  # whether the user may become the owners' group
    tls: bool  # whether the server offers it
    connections: int  # that roles without privileges can have among them
    limits: Mapping[str, int]  # connections of each login role that has a limit
    grants: frozenset[Grant]
    objects: tuple[Object, ...]  # the design's schemas, what is in them, and the ledger
    roles: Mapping[str, Role]
    samples: Mapping[str, str]  # schema of the design -> one of its tables
    databases: tuple[Mapping[str, Any], ...] = ()  # the others: name, owner, may_close, open

    @property
    def groups_missing(self) -> list[str]:
        """The groups of the design that the server doesn't have."""
        return [name for name in GROUPS if name not in self.roles]

    @property
    def schemas(self) -> list[str]:
        """The design's schemas that are there."""
        return [item.schema for item in self.objects if item.kind == "SCHEMA"]

    @property
    def direct(self) -> bool:
        """Whether a login role must hold the writers' privileges itself: before 16, every member may SET ROLE."""
        return self.version < SET_OPTION


def rights(lines: Iterable[str]) -> Rights:
    """The answer to `observe`."""
    facts = json.loads("".join(lines))
    grants = frozenset(
        Grant(item["kind"], item["name"], item["schema"], item["extra"], *grant)
        for item in facts["objects"]
        for grant in item["grants"]
    )
    objects = tuple(
        Object(item["kind"], item["name"], item["schema"], item["owner"])
        for item in facts["objects"]
        if item["ours"]
        and item["kind"] in ("SCHEMA", "TABLE", "SEQUENCE", "ROUTINE")
        and (item["schema"] in SCHEMAS or item["name"] == TABLE)
    )
    # A default that was changed has a row; without one, everybody may run routines and use types.
    defaults = [item for item in facts["objects"] if item["kind"] == "DEFAULT"]
    said = {item["name"] for item in defaults if item["schema"] is None and item["extra"] == OWNER}
    grants |= {grant for grant in HARD_WIRED if grant.name not in said}
    return Rights(
        **{
            name: facts[name]
            for name in ("version", "database", "user", "is_superuser", "may_own", "tls", "connections", "limits", "samples")
        },
        owner=next((item["owner"] for item in facts["objects"] if item["kind"] == "DATABASE"), ""),
        grants=grants,
        objects=objects,
        roles={name: _role(name, role) for name, role in facts["roles"].items()},
        databases=tuple(facts["databases"]),
    )


def _role(name: str, facts: Mapping[str, Any]) -> Role:
    memberships = tuple(
        Membership(
            row["group"],
            row.get("inherit_option", True),
            row.get("set_option", True),
            row["admin_option"],
            row["by"],
            bool(row["may_revoke"]),
        )
        for row in facts["memberships"]
    )
    return Role(
        name=name,
        login=facts["login"],
        attributes=tuple(attribute for attribute in _ADMIN_ATTRIBUTES if facts[attribute]),
        inherit=facts["inherit"],
        limit=facts["limit"],
        expires=facts["expires"],
        settings=dict(setting.split("=", 1) for setting in facts["settings"] or ()),
        overrides=tuple((database, setting) for database, setting in facts["overrides"]),
        comment=facts["comment"] or "",
        memberships=memberships,
        owns=tuple(facts["owns"]),
        elsewhere=tuple(facts["elsewhere"]),
        sessions=facts["sessions"],
    )


def let_become(user: str, group: str, *, direct: bool) -> str:
    """What lets a user become a group; `direct`: every member of it may."""
    return f"GRANT {identifier(group)} TO {identifier(user)}{'' if direct else ' WITH INHERIT TRUE, SET TRUE'};"


def identifier(name: str | None) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + (name or "").replace('"', '""') + '"'
