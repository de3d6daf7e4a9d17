"""pg_dump's text: what of it is kept, how it is told apart, and what counts as a difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import schema
from scripts.schema import Thing

BEGINNING = """--
-- PostgreSQL database dump
--

\\restrict {key}

-- Dumped from database version {server}
-- Dumped by pg_dump version {own}

SET statement_timeout = 0;
SET lock_timeout = 0;
{more}SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);

"""
BODY = """--
-- Name: public; Type: SCHEMA; Schema: -; Owner: -
--

-- *not* creating schema, since initdb creates it


--
-- Name: core; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA core;


--
-- Name: f(); Type: FUNCTION; Schema: core; Owner: -
--

CREATE FUNCTION core.f() RETURNS integer
    LANGUAGE sql
    AS $$
--
-- Name: fake; Type: TABLE; Schema: core; Owner: -
--

SELECT 1;
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: runs; Type: TABLE; Schema: core; Owner: -
--

CREATE TABLE core.runs (
    id integer NOT NULL,
    "a;b" text DEFAULT '--
-- Name: fake; Type: TABLE; Schema: core; Owner: -
'::text
);
{numbered}

--
-- Name: TABLE runs; Type: ACL; Schema: core; Owner: -
--

{rights}
"""
ENDING = """
--
-- PostgreSQL database dump complete
--

\\unrestrict {key}

"""
REVOKED = "REVOKE ALL ON TABLE core.runs FROM old;"
READ = "GRANT SELECT ON TABLE core.runs TO reader;"
WRITTEN = 'GRANT SELECT,INSERT ON TABLE core.runs TO "Wri""ter" WITH GRANT OPTION;'


def dump(
    *,
    key: str = "x",
    server: str = "16.14",
    own: str = "16.14",
    more: str = "",
    numbered: str = "",
    rights: str = f"{REVOKED}\n{READ}",
) -> str:
    text = BEGINNING + BODY + ENDING
    for name, value in (
        ("key", key),
        ("server", server),
        ("own", own),
        ("more", more),
        ("numbered", numbered),
        ("rights", rights),
    ):
        text = text.replace(f"{{{name}}}", value)
    return text


def thing(name: str, *statements: str, kind: str = "TABLE", schema: str = "core") -> Thing:
    return Thing(type=kind, schema=schema, name=name, statements=statements)


def test_objects_are_told_apart_by_headers_that_are_comments() -> None:
    found = schema.read(dump())
    assert [str(one) for one in found] == ["SCHEMA core", "FUNCTION core.f()", "TABLE core.runs", "ACL of TABLE runs in core"]
    assert "SELECT 1;\n$$;" in found[1].text
    assert found[2].text.startswith("CREATE TABLE core.runs")
    assert found[3].statements == (REVOKED, READ)


@pytest.mark.parametrize(
    "other",
    [
        dump(key="y"),
        dump(server="16.15 (Debian 16.15-1)", own="18.4"),
        dump(more="SET transaction_timeout = 0;\n"),
        dump(numbered="ALTER TABLE ONLY core.runs ALTER COLUMN id SET (pg_attver=1);\nALTER TABLE core.runs SET (pg_attver=12);"),
    ],
)
def test_what_differs_between_runs_and_versions_leaves_no_trace(other: str) -> None:
    things = schema.read(dump())
    assert schema.read(other) == things
    assert schema.write(schema.read(other), "about it") == schema.write(things, "about it")


def test_options_that_somebody_set_stay_beside_those_of_debians_server() -> None:
    text = "ALTER TABLE ONLY core.runs ALTER COLUMN id SET (n_distinct=5, pg_attver=1, n_distinct_inherited=7);"
    [found] = [one for one in schema.read(dump(numbered=text)) if one.type == "TABLE"]
    assert found.statements[1] == "ALTER TABLE ONLY core.runs ALTER COLUMN id SET (n_distinct=5, n_distinct_inherited=7);"


def test_a_body_may_say_what_is_taken_out_elsewhere() -> None:
    text = dump().replace("SELECT 1;", "\\restrict\nSET transaction_timeout = 0;\nALTER TABLE x SET (pg_attver=1);\nSELECT 1;")
    assert "\\restrict\nSET transaction_timeout = 0;\nALTER TABLE x SET (pg_attver=1);\nSELECT 1;" in schema.read(text)[1].text


def test_what_was_written_reads_as_the_same() -> None:
    things = schema.read(dump(rights="\n".join((REVOKED, READ, WRITTEN))))
    written = schema.write(things, "one\ntwo")
    assert written.startswith("-- one\n-- two\n\nSET ")
    assert written.endswith(";\n")
    assert schema.read(written) == things
    assert schema.write(schema.read(written), "one\ntwo") == written


def test_another_access_method_is_the_tables_own_matter_wherever_pg_dump_says_it() -> None:
    text = dump().replace("SET default_table_access_method = heap;", "SET default_table_access_method = columnar;")
    [table] = [one for one in schema.read(text) if one.type == "TABLE"]
    assert table.statements[0] == "SET default_table_access_method = columnar;"
    assert table.statements[-1] == "SET default_table_access_method = heap;"
    assert [one.name for one in schema.read(text) if "access_method" in one.text] == ["runs"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (READ, {"reader"}),
        (WRITTEN, {'Wri"ter'}),
        (REVOKED, {"old"}),
        ("GRANT SELECT ON TABLE core.runs TO PUBLIC;", set()),
        ('GRANT ALL ON FUNCTION core.f("a TO b;" integer) TO reader;', {"reader"}),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA core GRANT SELECT ON TABLES TO reader;", {"maker", "reader"}),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE maker REVOKE ALL ON TYPES FROM PUBLIC;", {"maker"}),
        ('CREATE POLICY p ON core.runs FOR SELECT TO reader, "Wri""ter" USING ((a = \' TO x;\'::text));', {"reader", 'Wri"ter'}),
        ("CREATE POLICY p ON core.runs USING ((a = ' TO x;'::text));", set()),
        ("COMMENT ON TABLE core.runs IS 'GRANT x TO y;';", set()),
    ],
)
def test_the_roles_that_a_statement_names(statement: str, expected: set[str]) -> None:
    assert schema.roles(statement) == expected


def test_rights_of_roles_that_do_not_count_are_left_out_and_with_them_what_says_nothing_else() -> None:
    things = schema.read(dump())
    assert schema.with_rights_of(things, lambda role: role == "reader")[-1].statements == (READ,)
    assert schema.with_rights_of(things, lambda role: False) == things[:-1]
    assert schema.with_rights_of(things, lambda role: True) == things
    defaults = thing("x", "ALTER DEFAULT PRIVILEGES FOR ROLE maker GRANT SELECT ON TABLES TO reader;", kind="DEFAULT ACL")
    assert schema.with_rights_of([defaults], lambda role: role == "reader") == []


def test_who_granted_a_right_is_left_out() -> None:
    text = dump(rights=f"SET SESSION AUTHORIZATION reader;\n{WRITTEN}\nRESET SESSION AUTHORIZATION;")
    assert schema.read(text)[-1].statements == (WRITTEN,)


def test_differences_are_named_and_shown_from_the_files_to_the_database() -> None:
    files = [thing("same", "CREATE TABLE core.same ();"), thing("gone", "CREATE TABLE core.gone ();"), thing("a", "CREATE 1;")]
    database = [thing("a", "CREATE 2;"), thing("new", "CREATE TABLE core.new ();"), thing("same", "CREATE TABLE core.same ();")]
    found = schema.compare(database=database, files=files)
    assert [str(one) for one in found] == [
        "differs: TABLE core.a",
        "only in the files: TABLE core.gone",
        "only in the database: TABLE core.new",
    ]
    assert found[0].diff.split("\n") == ["--- the files", "+++ the database", "@@ -1 +1 @@", "-CREATE 1;", "+CREATE 2;"]


@given(st.permutations([READ, WRITTEN, REVOKED, "GRANT SELECT ON TABLE core.runs TO PUBLIC;"]))
def test_the_order_of_grants_is_no_difference(rights: list[str]) -> None:
    one, other = (schema.read(dump(rights="\n".join(order))) for order in (rights, sorted(rights)))
    assert schema.compare(database=one, files=other) == []
    assert one[-1].statements[0] == REVOKED  # which would take away what is granted before it


def test_defaults_of_several_roles_under_one_name_are_compared_together() -> None:
    def defaults(*roles: str) -> list[Thing]:
        return [
            thing(
                "DEFAULT PRIVILEGES FOR TABLES",
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT SELECT ON TABLES TO r;",
                kind="DEFAULT ACL",
            )
            for role in roles
        ]

    assert schema.compare(database=defaults("a", "b"), files=defaults("b", "a")) == []
    [found] = schema.compare(database=defaults("a", "b"), files=defaults("a"))
    assert str(found) == "differs: DEFAULT PRIVILEGES FOR TABLES in core"


def test_the_groups_that_a_file_names_are_made_where_they_are_missing() -> None:
    rights = [thing("TABLE runs", WRITTEN, "GRANT SELECT ON TABLE core.runs TO pg_monitor;", kind="ACL")]
    defaults = [thing("x", "ALTER DEFAULT PRIVILEGES FOR ROLE maker REVOKE ALL ON TYPES FROM PUBLIC;", kind="DEFAULT ACL")]
    written = schema.write([*rights, *defaults], "x")
    assert "ARRAY['Wri\"ter', 'maker']::text[]" in written  # pg_monitor is there everywhere, and can't be made
    assert "ARRAY['maker']::text[]" in written  # for which defaults are set
    assert "DO $$" not in schema.write([thing("same", "CREATE TABLE core.same ();")], "x")


def test_a_difference_in_line_ends_alone_is_one() -> None:
    one, other = thing("a", "CREATE $$\r\n$$;"), thing("a", "CREATE $$\n$$;")
    assert len(schema.compare(database=[one], files=[other])) == 1
