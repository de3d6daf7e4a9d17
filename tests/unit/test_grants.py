"""What the catalogs say, against the design: what is missing, what is beyond it, and the SQL between the two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import catalogs, grants, lexer
from scripts.catalogs import OWNER, PUBLIC, READER, WRITER, Grant, Membership, Rights

LEDGER = "public.schema_migrations"
WRITTEN = ("core", "backtest", "monitoring")
READ = ("gold", "platinum")


def item(kind: str, name: str, schema: str | None, owner: str = OWNER, extra: str | None = None, **may: str) -> dict[str, Any]:
    given = [[grantee, privilege, False] for grantee, privileges in may.items() for privilege in privileges.split()]
    return {"kind": kind, "name": name, "schema": schema, "extra": extra, "owner": owner, "ours": True, "grants": given}


def role(**facts: Any) -> dict[str, Any]:
    plain = {"login": False, "superuser": False, "createrole": False, "createdb": False, "replication": False, "bypassrls": False}
    rest: dict[str, Any] = {
        "inherit": True,
        "limit": -1,
        "expires": None,
        "settings": None,
        "overrides": [],
        "comment": None,
        "memberships": [],
        "owns": [],
    }
    return {**plain, **rest, "elsewhere": [], "sessions": 0, **facts}


def member(group: str, *, inherit: bool = True, become: bool = False, admin: bool = False, **facts: Any) -> dict[str, Any]:
    options = {"inherit_option": inherit, "set_option": become, "admin_option": admin}
    return {"group": group, "by": "azadmin", "may_revoke": True, **options, **facts}


def login(**facts: Any) -> dict[str, Any]:
    times = ["statement_timeout=60s", "lock_timeout=5s", "idle_in_transaction_session_timeout=60s"]
    return role(**{"login": True, "limit": 43, "settings": times, "memberships": [member(WRITER)], **facts})


def answer(version: int = 160004) -> dict[str, Any]:
    """What `observe` answers of a database that is as designed, with the login role `app`, and no second one yet."""
    direct = version < 160000
    objects = [
        item("DATABASE", "serving", None, serving_owner="CONNECT CREATE TEMPORARY", serving_reader="CONNECT", app="CONNECT"),
        item("SCHEMA", "public", "public", "pg_database_owner", serving_owner="USAGE CREATE", **everyone("USAGE", "USAGE")),
        item("TABLE", LEDGER, "public", **everyone("SELECT", "SELECT")),
        item("DEFAULT", "f", None, extra=OWNER),
        item("DEFAULT", "T", None, extra=OWNER),
    ]
    for schema in (*WRITTEN, *READ):
        tables = "SELECT INSERT UPDATE DELETE" if schema in WRITTEN else "SELECT"
        sequences = "SELECT USAGE" if schema in WRITTEN else "SELECT"
        objects += [
            item("SCHEMA", schema, schema, **everyone("USAGE", "USAGE")),
            item("TABLE", f"{schema}.things", schema, **everyone(tables, "SELECT")),
            item("SEQUENCE", f"{schema}.things_id_seq", schema, **everyone(sequences, "SELECT")),
            item("ROUTINE", f"{schema}.f(integer)", schema, **everyone("EXECUTE", "EXECUTE")),
            item("DEFAULT", "r", schema, extra=OWNER, **everyone(tables, "SELECT")),
            item("DEFAULT", "S", schema, extra=OWNER, **everyone(sequences, "SELECT")),
            item("DEFAULT", "f", schema, extra=OWNER, **everyone("EXECUTE", "EXECUTE")),
        ]
    if direct:
        for kept in objects:
            kept["grants"] += [["app", privilege, False] for grantee, privilege, _ in kept["grants"] if grantee == WRITER]
    return {
        "version": version,
        "database": "serving",
        "user": "azadmin",
        "is_superuser": False,
        "may_own": True,
        "tls": True,
        "connections": 97,
        "limits": {"app": 43, "other": 20},
        "objects": objects,
        "roles": {OWNER: role(), WRITER: role(), READER: role(), "app": login(memberships=[] if direct else [member(WRITER)])},
        "samples": {schema: f"{schema}.things" for schema in (*WRITTEN, *READ)},
        "databases": [],
    }


def everyone(writer: str, reader: str) -> dict[str, str]:
    return {WRITER: writer, READER: reader}


def converged(
    *added: Grant,
    lacking: Iterable[Grant] = (),
    roles: Mapping[str, dict[str, Any]] | None = None,
    version: int = 160004,
    objects: Iterable[dict[str, Any]] = (),
    **facts: Any,
) -> Rights:
    """A database as designed, but for the privileges that are `added` and `lacking`, and whatever else is said."""
    document = answer(version)
    document["objects"] += objects
    for grant in lacking:
        _item(document, grant)["grants"].remove([grant.grantee, grant.privilege, grant.grantable])
    for grant in added:
        _item(document, grant)["grants"].append([grant.grantee, grant.privilege, grant.grantable])
    document["roles"].update(roles or {})
    return catalogs.rights(json.dumps({**document, **facts}, indent=1).split("\n"))


def _item(document: dict[str, list[dict[str, Any]]], grant: Grant) -> dict[str, Any]:
    key = (grant.kind, grant.name, grant.schema, grant.extra)
    for known in document["objects"]:
        if (known["kind"], known["name"], known["schema"], known["extra"]) == key:
            return known
    made = item(grant.kind, grant.name, grant.schema, "postgres", grant.extra)
    document["objects"].append(made)
    return made


def table(grantee: str, privilege: str, name: str = "core.things", *, grantable: bool = False) -> Grant:
    return Grant("TABLE", name, name.partition(".")[0], None, grantee, privilege, grantable)


def later(grantee: str, privilege: str, letter: str = "r", schema: str | None = None, maker: str = OWNER) -> Grant:
    return Grant("DEFAULT", letter, schema, maker, grantee, privilege)


def beyond(seen: Rights) -> dict[str, tuple[str, ...]]:
    return {extra.what: extra.statements for extra in grants.extras(seen, ["app", "app_b"])}


@pytest.mark.parametrize("version", [130000, 150007, 160004, 180001])
def test_a_database_as_designed_lacks_nothing_and_has_nothing_beyond(version: int) -> None:
    seen = converged(version=version)
    assert (grants.missing(seen), beyond(seen), grants.misowned(seen), seen.groups_missing) == ([], {}, [], [])


def test_what_the_answer_says_is_read() -> None:
    seen = converged(connections=35, tls=False, user="me", databases=[{"name": "other"}])
    assert (seen.connections, seen.tls, seen.user, seen.database) == (35, False, "me", "serving")
    assert seen.schemas == [*WRITTEN, *READ]
    assert seen.samples["gold"] == "gold.things"
    assert seen.databases == ({"name": "other"},)


def test_a_role_is_read() -> None:
    facts = {"createdb": True, "bypassrls": True, "settings": ["lock_timeout=5s", "search_path=a=b, c"], "comment": "mine"}
    read = converged(roles={"app": login(**facts, owns=["table x"], sessions=3, expires="2030-01-01")}).roles["app"]
    assert (read.name, read.login, read.limit, read.sessions, read.expires) == ("app", True, 43, 3, "2030-01-01")
    assert read.attributes == ("createdb", "bypassrls")
    assert read.settings == {"lock_timeout": "5s", "search_path": "a=b, c"}
    assert (read.comment, read.owns) == ("mine", ("table x",))


def test_a_membership_is_read_as_each_grantor_gave_it() -> None:
    rows = [member(WRITER), member(WRITER, inherit=False, become=True, by="me", may_revoke=False), member(READER, admin=True)]
    read = converged(roles={"app": login(memberships=rows)}).roles["app"]
    assert read.memberships == (
        Membership(WRITER, inherit=True, become=False, admin=False, grantor="azadmin", may_revoke=True),
        Membership(WRITER, inherit=False, become=True, admin=False, grantor="me", may_revoke=False),
        Membership(READER, inherit=True, become=False, admin=True, grantor="azadmin", may_revoke=True),
    )


def test_before_16_every_membership_inherits_and_may_become() -> None:
    row = {"group": WRITER, "admin_option": False, "by": "gone", "may_revoke": None}
    (read,) = converged(roles={"app": login(memberships=[row])}, version=150000).roles["app"].memberships
    assert (read.inherit, read.become, read.admin, read.may_revoke) == (True, True, False, False)


def test_groups_that_the_server_lacks_are_named() -> None:
    document = answer()
    del document["roles"][READER]
    assert catalogs.rights([json.dumps(document)]).groups_missing == [READER]


@pytest.mark.parametrize(
    ("grant", "sentence"),
    [
        (table(WRITER, "INSERT"), "serving_writer lacks INSERT on table core.things"),
        (table(READER, "SELECT", "gold.things"), "serving_reader lacks SELECT on table gold.things"),
        (table(WRITER, "SELECT", LEDGER), "serving_writer lacks SELECT on table public.schema_migrations"),
        (
            Grant("SEQUENCE", "core.things_id_seq", "core", None, WRITER, "USAGE"),
            "serving_writer lacks USAGE on sequence core.things_id_seq",
        ),
        (
            Grant("ROUTINE", "gold.f(integer)", "gold", None, READER, "EXECUTE"),
            "serving_reader lacks EXECUTE on routine gold.f(integer)",
        ),
        (Grant("SCHEMA", "gold", "gold", None, WRITER, "USAGE"), "serving_writer lacks USAGE on schema gold"),
        (Grant("SCHEMA", "public", "public", None, OWNER, "CREATE"), "serving_owner lacks CREATE on schema public"),
        (Grant("DATABASE", "serving", None, None, READER, "CONNECT"), "serving_reader lacks CONNECT on database serving"),
        (
            later(WRITER, "DELETE", schema="core"),
            "serving_writer lacks DELETE on later tables of serving_owner in schema core",
        ),
        (
            later(READER, "SELECT", "S", "gold"),
            "serving_reader lacks SELECT on later sequences of serving_owner in schema gold",
        ),
    ],
)
def test_a_privilege_of_the_design_that_is_gone_is_missing(grant: Grant, sentence: str) -> None:
    assert grants.missing(converged(lacking=[grant])) == [sentence]


def test_a_privilege_with_the_right_to_grant_it_is_not_missing() -> None:
    seen = converged(table(WRITER, "INSERT", grantable=True), lacking=[table(WRITER, "INSERT")])
    assert grants.missing(seen) == []


def test_the_writers_are_given_no_way_to_write_what_is_only_read() -> None:
    wanted = {(grant.privilege, grant.kind) for grant in grants.designed(converged()) if grant.schema in READ}
    assert wanted == {("USAGE", "SCHEMA"), ("SELECT", "TABLE"), ("SELECT", "SEQUENCE"), ("EXECUTE", "ROUTINE")} | {
        ("SELECT", "DEFAULT"),
        ("EXECUTE", "DEFAULT"),
    }


def test_the_design_gives_nothing_to_public_and_nothing_to_hand_on() -> None:
    wanted = grants.designed(converged())
    assert {grant.grantee for grant in wanted} == {OWNER, WRITER, READER}
    assert not [grant for grant in wanted if grant.grantable]


def test_an_object_of_somebody_else_is_missing_from_the_owners() -> None:
    seen = converged(objects=[item("TABLE", "gold.mine", "gold", "me", **everyone("SELECT", "SELECT"))])
    assert grants.missing(seen) == ["table gold.mine belongs to me, not to serving_owner"]
    assert [found.name for found in grants.misowned(seen)] == ["gold.mine"]


def test_objects_outside_the_designs_schemas_belong_to_whom_they_may() -> None:
    assert grants.missing(converged(objects=[item("TABLE", "own.mine", "own", "me", serving_writer="SELECT")])) == []


def test_an_extensions_object_in_a_schema_of_the_design_is_no_matter_of_the_design() -> None:
    crypt = {**item("ROUTINE", "core.crypt(text)", "core", "me", serving_reader="EXECUTE"), "ours": False}
    seen = converged(objects=[crypt])
    assert (grants.missing(seen), "core.crypt(text)" in {found.name for found in seen.objects}) == ([], False)


@pytest.mark.parametrize(("letter", "sentence"), [("f", "EXECUTE on later routines"), ("T", "USAGE on later types")])
def test_what_everybody_may_until_it_is_taken_away_is_missing_its_removal(letter: str, sentence: str) -> None:
    document = answer()
    document["objects"] = [kept for kept in document["objects"] if (kept["name"], kept["schema"]) != (letter, None)]
    seen = catalogs.rights([json.dumps(document)])
    assert grants.missing(seen) == [f"PUBLIC has {sentence} of serving_owner"]
    assert beyond(seen) == {}


@pytest.mark.parametrize(
    ("grant", "what", "statement"),
    [
        (
            table(PUBLIC, "SELECT"),
            "PUBLIC has SELECT on table core.things",
            "REVOKE SELECT ON TABLE core.things FROM PUBLIC CASCADE",
        ),
        (
            table(WRITER, "TRUNCATE"),
            "serving_writer has TRUNCATE on table core.things",
            'REVOKE TRUNCATE ON TABLE core.things FROM "serving_writer" CASCADE',
        ),
        (
            table("app", "SELECT"),
            "app has SELECT on table core.things",
            'REVOKE SELECT ON TABLE core.things FROM "app" CASCADE',
        ),
        (
            table("app", "SELECT", "pg_catalog.pg_authid"),
            "app has SELECT on table pg_catalog.pg_authid",
            'REVOKE SELECT ON TABLE pg_catalog.pg_authid FROM "app" CASCADE',
        ),
        (
            Grant("COLUMN", '"we ird".t', "we ird", '"a ""b"', "app", "UPDATE"),
            'app has UPDATE on column "a ""b" of "we ird".t',
            'REVOKE UPDATE ("a ""b") ON TABLE "we ird".t FROM "app" CASCADE',
        ),
        (
            later(WRITER, "TRUNCATE", schema="gold", maker="he"),
            "serving_writer has TRUNCATE on later tables of he in schema gold",
            'ALTER DEFAULT PRIVILEGES FOR ROLE "he" IN SCHEMA "gold" REVOKE TRUNCATE ON TABLES FROM "serving_writer" CASCADE',
        ),
        (
            later("app", "SELECT", "L"),
            "app has SELECT on later large objects of serving_owner",
            'ALTER DEFAULT PRIVILEGES FOR ROLE "serving_owner" REVOKE SELECT ON LARGE OBJECTS FROM "app" CASCADE',
        ),
    ],
)
def test_a_privilege_beyond_the_design_is_named_with_what_takes_it_away(grant: Grant, what: str, statement: str) -> None:
    assert beyond(converged(grant)) == {what: (statement,)}


OTHERS = table(PUBLIC, "SELECT", "own.things")


@pytest.mark.parametrize(
    "grant",
    [
        OTHERS,
        Grant("SCHEMA", "own", "own", None, PUBLIC, "USAGE"),
        Grant("SCHEMA", "public", "public", None, PUBLIC, "USAGE"),
        Grant("SCHEMA", "public", "public", None, WRITER, "CREATE"),
        Grant("DATABASE", "serving", None, None, PUBLIC, "CONNECT"),
        Grant("DATABASE", "serving", None, None, WRITER, "TEMPORARY"),
        Grant("DATABASE", "serving", None, None, "app", "CREATE"),
        Grant("ROUTINE", "core.f(integer)", "core", None, PUBLIC, "EXECUTE"),
        Grant("ROUTINE", "definer()", "public", None, PUBLIC, "EXECUTE"),
        Grant("ROUTINE", "pg_read_file(text)", "pg_catalog", None, WRITER, "EXECUTE"),
        Grant("TABLE", "information_schema.sql_features", "information_schema", None, READER, "INSERT"),
        Grant("SEQUENCE", "core.things_id_seq", "core", None, WRITER, "UPDATE"),
        Grant("COLUMN", LEDGER, "public", "version", READER, "UPDATE"),
        table(WRITER, "INSERT", LEDGER),
        table("app", "SELECT", "own.things"),
        later(PUBLIC, "SELECT"),
        later(PUBLIC, "SELECT", maker="me"),
        later(PUBLIC, "EXECUTE", "f", "core", "me"),
        later(PUBLIC, "EXECUTE", "f", "public"),
        later(PUBLIC, "CREATE", "n"),
        later(WRITER, "INSERT"),
        later(READER, "USAGE", "n"),
        later("app", "SELECT", schema="own", maker="me"),
    ],
)
def test_beyond_the_design(grant: Grant) -> None:
    assert list(beyond(converged(grant))) == [f"{grant.grantee} has {grant.privilege} on {grant.where}"]


@pytest.mark.parametrize(
    "grant",
    [
        table(OWNER, "SELECT", "own.things"),
        table(WRITER, "DELETE", "own.things"),
        table(READER, "SELECT", "public.things"),
        Grant("SCHEMA", "own", "own", None, WRITER, "USAGE"),
        Grant("DATABASE", "serving", None, None, "app_b", "CONNECT"),
        later(WRITER, "INSERT", schema="own", maker="me"),
        later(PUBLIC, "EXECUTE", "f", maker="me"),
        later(PUBLIC, "USAGE", "T", maker="me"),
    ],
)
def test_not_beyond_the_design(grant: Grant) -> None:
    assert beyond(converged(grant)) == {}


def test_the_right_to_grant_what_the_design_gives_is_taken_away_alone() -> None:
    seen = converged(table(WRITER, "SELECT", grantable=True), lacking=[table(WRITER, "SELECT")])
    assert beyond(seen) == {
        "serving_writer has SELECT on table core.things, with the right to grant it": (
            'REVOKE GRANT OPTION FOR SELECT ON TABLE core.things FROM "serving_writer" CASCADE',
        )
    }


def test_so_is_the_right_to_grant_what_a_migration_gave_in_a_schema_of_its_own() -> None:
    (statements,) = beyond(converged(table(WRITER, "SELECT", "own.things", grantable=True))).values()
    assert statements == ('REVOKE GRANT OPTION FOR SELECT ON TABLE own.things FROM "serving_writer" CASCADE',)


def test_what_is_beyond_the_design_goes_with_the_right_to_grant_it() -> None:
    (statements,) = beyond(converged(table(WRITER, "TRUNCATE", grantable=True))).values()
    assert statements == ('REVOKE TRUNCATE ON TABLE core.things FROM "serving_writer" CASCADE',)


def test_from_16_on_a_login_role_holds_nothing_but_connect() -> None:
    assert grants.of_login(converged(), "app") == {Grant("DATABASE", "serving", None, None, "app", "CONNECT")}
    assert [grant.privilege for grant in grants.lacking(converged(), "app_b")] == ["CONNECT"]


def test_before_16_a_login_role_holds_what_the_writers_have() -> None:
    own = table(WRITER, "SELECT", "own.things")
    held = grants.of_login(converged(own, version=150000), "app")
    assert {
        Grant("DATABASE", "serving", None, None, "app", "CONNECT"),
        table("app", "DELETE"),
        table("app", "SELECT", "gold.things"),
        table("app", "SELECT", "own.things"),
        later("app", "INSERT", schema="core"),
    } <= held
    assert not {table("app", "INSERT", "gold.things"), table("app", "INSERT", LEDGER)} & held
    assert {grant.grantee for grant in held} == {"app"}


@pytest.mark.parametrize(
    "grant",
    [
        Grant("DATABASE", "serving", None, None, WRITER, "CREATE"),
        Grant("SCHEMA", "public", "public", None, WRITER, "CREATE"),
        table(WRITER, "INSERT", LEDGER),
        table(WRITER, "SELECT", "pg_catalog.pg_authid"),
        later(WRITER, "TRUNCATE"),
    ],
)
def test_before_16_a_login_role_gets_nothing_that_the_writers_have_beyond_the_design(grant: Grant) -> None:
    assert grants.lacking(converged(grant, version=150000), "app") == []


def test_before_16_the_right_to_grant_is_not_handed_on() -> None:
    seen = converged(table(WRITER, "SELECT", "own.things", grantable=True), version=150000)
    assert grants.lacking(seen, "app") == [table("app", "SELECT", "own.things")]


def test_a_login_role_that_may_also_grant_lacks_nothing() -> None:
    connect = ("DATABASE", "serving", None, None, "app", "CONNECT")
    assert grants.lacking(converged(Grant(*connect, True), lacking=[Grant(*connect)]), "app") == []


@pytest.mark.parametrize(
    ("grant", "statement"),
    [
        (table("app", "SELECT"), 'GRANT SELECT ON TABLE core.things TO "app"'),
        (table(PUBLIC, "SELECT"), "GRANT SELECT ON TABLE core.things TO PUBLIC"),
        (Grant("DATABASE", '"my db"', None, None, 'o"k', "CONNECT"), 'GRANT CONNECT ON DATABASE "my db" TO "o""k"'),
        (
            Grant("ROUTINE", "core.f(integer)", "core", None, "app", "EXECUTE"),
            'GRANT EXECUTE ON ROUTINE core.f(integer) TO "app"',
        ),
        (Grant("COLUMN", "core.t", "core", "id", "app", "SELECT"), 'GRANT SELECT (id) ON TABLE core.t TO "app"'),
        (
            later("app", "SELECT", "S", 'we"ird', 'ma"ker'),
            'ALTER DEFAULT PRIVILEGES FOR ROLE "ma""ker" IN SCHEMA "we""ird" GRANT SELECT ON SEQUENCES TO "app"',
        ),
    ],
)
def test_a_privilege_is_granted(grant: Grant, statement: str) -> None:
    assert grant.statement("GRANT") == statement


@pytest.mark.parametrize(
    ("name", "expected"),
    [("app", '"app"'), ("a-b", '"a-b"'), ('a"b', '"a""b"'), ("", '""'), (None, '""'), ("PUBLIC", '"PUBLIC"')],
)
def test_a_name_becomes_an_identifier(name: str | None, expected: str) -> None:
    assert catalogs.identifier(name) == expected


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_name_ends_its_identifier(name: str) -> None:
    lexed = lexer.lex(f"DROP ROLE {catalogs.identifier(name)};SELECT 2;")
    assert (lexed.problems, len(lexed.items)) == ([], 2)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_no_login_name_ends_its_literal_in_the_query(name: str) -> None:
    lexed = lexer.lex(catalogs.observe([name]) + ";SELECT 2;")
    assert (lexed.problems, len(lexed.items)) == ([], 2)
