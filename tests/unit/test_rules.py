"""Our own rules for what a migration says: its header, grants to PUBLIC, passwords, and what excepts a finding."""

from __future__ import annotations

import pytest

from scripts import rules
from scripts.rules import Finding
from scripts.sql import Problem
from tests.effort import grows_with_the_length

VERIFIER = "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$c3RvcmVk:c2VydmVy"


def found(text: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.rule) for finding in rules.contents("0001_a.sql", text)]


@pytest.mark.parametrize(
    "text",
    [
        "-- The runs of the backtest service.\nSELECT 1;",
        "\n/* Größe der\nLäufe */\nSELECT 1;",
        "-- migrate: no-transaction\n-- an index for the dashboard\nVACUUM;",
        "--\n-- PostgreSQL database dump\n--\nSELECT 1;",
        "-- схемы\nSELECT 1;",
        "",
        " \n",
    ],
)
def test_a_header_says_something_to_a_person(text: str) -> None:
    assert list(rules.header("0001_a.sql", text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1; -- the runs of the backtest service",
        "\\set a 1\n-- the runs\nSELECT 1;",
        "-- migrate: no-transaction\nVACUUM;",
        "-- squawk-ignore-file prefer-text-field\n-- lint-ignore password\nSELECT 1;",
        "--\n-- ----\n/* */\nSELECT 1;",
    ],
)
def test_a_header_for_programs_alone_is_none(text: str) -> None:
    (finding,) = rules.header("0001_a.sql", text)
    assert (finding.file, finding.line, finding.rule) == ("0001_a.sql", 1, "header")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("GRANT SELECT ON t TO PUBLIC;", 1),
        ("\n\ngrant select on t\n  to reader, public\nwith grant option;", 3),
        ('GRANT USAGE ON SCHEMA public TO GROUP "public";', 1),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA core\n  GRANT SELECT ON TABLES TO a, PUBLIC;", 2),
        ("DO $$\nBEGIN\n  GRANT SELECT ON t TO PUBLIC;\nEND\n$$;", 3),
        ("DO $$ BEGIN\n  EXECUTE format('GRANT SELECT ON %I TO PUBLIC', 'it''s'); END $$;", 2),
        ("DO $$ BEGIN\n  EXECUTE 'GRANT SELECT ON ' || quote_ident(t) || ' TO PUBLIC'; END $$;", 2),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN\nGRANT a TO b; GRANT SELECT ON t TO PUBLIC; END $f$;",
            2,
        ),
        ("SELECT 1;\nSELECT format('GRANT SELECT ON %I TO PUBLIC', relname) FROM pg_class \\gexec\n", 2),
        ("COPY t FROM stdin;\nGRANT SELECT ON t TO PUBLIC;\n\\.\nGRANT SELECT ON t TO PUBLIC;\n", 4),
        ("GRANT SELECT ON :t TO PUBLIC \\g\n", 1),
    ],
)
def test_a_grant_to_public_is_found_where_it_stands(text: str, line: int) -> None:
    assert found(text) == [(line, "grant-to-public")]


@pytest.mark.parametrize(
    "text",
    [
        "GRANT USAGE, CREATE ON SCHEMA public TO serving_owner;",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE GRANT OPTION FOR SELECT ON t FROM PUBLIC;",
        "-- GRANT SELECT ON t TO PUBLIC;\n/* GRANT SELECT ON t TO PUBLIC; */\nSELECT 1;",
        "COMMENT ON TABLE t IS 'never grant anything to public';",
        "GRANT SELECT ON t TO reader; ALTER TABLE x RENAME TO public;",
        'GRANT SELECT ON t TO "Public reader", publicity;',
        "SELECT 'GRANT SELECT ON t TO PUBLIC';",
        "DO $$ BEGIN FOREACH s IN ARRAY ARRAY['GRANT a TO b', 'core, public'] LOOP EXECUTE s; END LOOP; END $$;",
    ],
)
def test_what_grants_nothing_to_public_is_fine(text: str) -> None:
    assert "grant-to-public" not in dict(map(reversed, found(text)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CREATE ROLE a LOGIN\n  PASSWORD 'hunter2';", 2),
        ("ALTER USER a WITH ENCRYPTED PASSWORD E'hunter2';", 1),
        ("ALTER USER a PASSWORD /* of a */ $$hunter2$$;", 1),
        (f"\nALTER ROLE a PASSWORD '{VERIFIER}';", 2),
        (f"\nUPDATE pg_authid SET rolpassword = '{VERIFIER}';", 2),
        ("CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', password 'hunter2');", 1),
        ("DO $$\nBEGIN\n  EXECUTE 'CREATE ROLE a PASSWORD ''hunter2''';\nEND $$;", 3),
        ("DO $$ BEGIN EXECUTE 'ALTER ROLE ' || name || ' PASSWORD ' || '''hunter2'''; END $$;", 1),
        ("\\set pw 'hunter2'\nALTER ROLE a PASSWORD :'pw';", 1),
        ("CREATE SUBSCRIPTION s CONNECTION 'host=h user=u password=hunter2' PUBLICATION p;", 1),
        ("SELECT dblink('host=h password=''hunter 2''', 'SELECT 1');", 1),
        ("-- was postgresql://app:hunter2@db.example.com/serving\nSELECT 1;", 1),
        ("COPY t FROM stdin;\nredis://:hunter2@h:6379/0\n\\.\n", 2),
    ],
)
def test_a_password_is_found_and_never_repeated(text: str, line: int) -> None:
    assert found(text) == [(line, "password")]
    assert "hunter2" not in repr(rules.contents("0001_a.sql", text))
    assert rules.passwords(text) & {"hunter2", "hunter 2", VERIFIER}


@pytest.mark.parametrize(
    "text",
    [
        "CREATE ROLE a LOGIN PASSWORD NULL; ALTER ROLE a PASSWORD '';",
        "ALTER ROLE a PASSWORD :'pw';",
        "\\set pw :other\nALTER ROLE a PASSWORD :'pw';",
        "\\set name 'hunter2'\nSELECT :'name';",
        "DO $$ BEGIN EXECUTE 'ALTER ROLE a PASSWORD ' || quote_literal(pw); END $$;",
        "DO $$ BEGIN EXECUTE format('ALTER ROLE a PASSWORD %L', pw); END $$;",
        "DO $$ BEGIN EXECUTE format('ALTER ROLE a PASSWORD ''%s''', pw); END $$;",
        "CREATE TABLE t (password text DEFAULT 'x'); COMMENT ON COLUMN t.password IS 'p';",
        "UPDATE t SET password='secret1' WHERE id=1;",
        "UPDATE t SET user='a',password=crypt('x') WHERE host='b';",
        "-- see postgresql://USER:PASSWORD@HOST/db, postgresql://u:${PW}@h/db, postgresql://u:****@h, http://h:80/a@b\nSELECT 1;",
        "SELECT 'host=h password=%s';",
    ],
)
def test_what_only_speaks_of_a_password_is_fine(text: str) -> None:
    assert found(text) == []


def at(line: int, rule: str = "grant-to-public") -> Finding:
    return Finding(file="0001_a.sql", line=line, level="error", rule=rule, message="m")


def left(text: str, *findings: Finding) -> list[tuple[int, str]]:
    return [(finding.line, finding.rule) for finding in rules.without_excepted(findings, "0001_a.sql", text)]


@pytest.mark.parametrize(
    "text",
    [
        "-- lint-ignore grant-to-public\nGRANT;",
        "-- lint-ignore grant-to-public: everybody may read it\n-- and this is why\n\nGRANT;",
        "\nGRANT; -- lint-ignore password, grant-to-public",
        "\n/* lint-ignore grant-to-public */ GRANT;",
    ],
)
def test_a_comment_excepts_a_finding(text: str) -> None:
    line = text.count("\n", 0, text.index("GRANT")) + 1
    assert [rule for _, rule in left(text, at(line)) if rule == "grant-to-public"] == []


@pytest.mark.parametrize(
    ("text", "findings", "expected"),
    [
        # Too far away, the line before, another rule: it is said that the comment does nothing.
        ("-- lint-ignore password\na\nb", [at(3, "password")], [(1, "unused-ignore"), (3, "password")]),
        ("a\nb -- lint-ignore password\nc", [at(3, "password")], [(2, "unused-ignore"), (3, "password")]),
        ("a\n-- lint-ignore header", [at(1, "password")], [(1, "password"), (2, "unused-ignore")]),
        ("-- lint-ignore password, header\na", [at(2, "password")], [(1, "unused-ignore")]),
        # What `invoke migrate` refuses stays refused.
        ("-- lint-ignore refused\na", [at(2, "refused")], [(1, "unused-ignore"), (2, "refused")]),
        ("a -- please lint, ignore nothing", [], []),
    ],
)
def test_a_comment_that_excepts_nothing_is_named(text: str, findings: list[Finding], expected: list[tuple[int, str]]) -> None:
    assert left(text, *findings) == expected


def test_what_is_refused_stands_on_a_line() -> None:
    finding = rules.refused(Problem("0001_a.sql", None, "is empty"))
    assert (finding.line, finding.level, finding.rule, finding.message) == (1, "error", "refused", "is empty")


@pytest.mark.parametrize("word", ["a", "a.", "password=b ", "password=", "://a:", "SCRAM-SHA-256$1:", "a:b@"])
def test_a_long_string_is_looked_at_in_a_time_that_grows_with_its_length(word: str) -> None:
    assert grows_with_the_length(lambda text: rules.contents("0001_a.sql", f"SELECT '{text}';"), word)
