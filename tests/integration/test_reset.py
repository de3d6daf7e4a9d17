"""`invoke migrations.reset`: a database as a new one, and only where that is meant."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scripts.dsn import Dsn
from scripts.settings import MIGRATIONS
from tests import database as databases
from tests.database import Database, invoke
from tests.proofs import migrate


def reset(database: Database, *flags: str) -> subprocess.CompletedProcess[str]:
    return invoke("migrations.reset", "--dsn", "-", "--psql", "embedded", *flags, stdin=database.uri)


@pytest.fixture
def fresh(request: pytest.FixtureRequest, serving: Database) -> Iterator[Database]:
    """A second database of the same kind, migrated and otherwise untouched."""
    azure = serving.dsn != serving.superuser
    server = request.getfixturevalue("azure_server" if azure else "server")
    yield from databases.new_database(server, azure=azure, migrated=True)


def spoil(database: Database) -> None:
    """What somebody has left in it."""
    for statement in (
        "CREATE SCHEMA left_over",
        "CREATE TABLE left_over.t (id int)",
        "CREATE TABLE public.t (id int)",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE core.t (id int)",
        "INSERT INTO core.t VALUES (1)",
        "CREATE PUBLICATION p FOR TABLE core.t",
        "COMMENT ON SCHEMA core IS 'spoiled'",
        "GRANT ALL ON SCHEMA public TO serving_reader",
        "SELECT lo_create(0)",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO serving_reader",
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON ROUTINES FROM PUBLIC",
    ):
        database.execute(statement)


def test_afterwards_it_is_as_a_fresh_build(serving: Database, fresh: Database) -> None:
    spoil(serving)
    assert serving.dump() != fresh.dump()
    result = reset(serving, "--yes", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert "SCHEMA left_over" in document["dropped"]
    assert "PUBLICATION p" in document["dropped"]
    assert [item["version"] for item in document["applied"]] == ["0001", "0002", "0003"]
    assert serving.dump() == fresh.dump()
    assert serving.execute("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]
    roles = invoke("roles", "--dsn", "-", "--psql", "embedded", "--check", stdin=serving.uri)
    assert "Traceback" not in roles.stderr


def test_it_asks_for_the_name_and_plan_drops_nothing(database: Database) -> None:
    database.execute("CREATE TABLE t (id int)")
    before = database.whole_dump()
    planned = reset(database, "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "  drop schema public, with 1 table" in planned.stdout
    asked = reset(database)
    assert asked.returncode == 2
    assert f"All that is in the database {database.dsn.database} on 127.0.0.1 will be lost." in asked.stderr
    assert "next:  invoke migrations.reset --dsn - --psql embedded --yes" in asked.stderr
    assert database.whole_dump() == before


@pytest.mark.once
def test_a_schema_that_belongs_to_an_extension_goes_with_it(database: Database) -> None:
    (name,) = database.execute("SELECT max(name) FROM pg_available_extensions WHERE name IN ('vector', 'pageinspect')")[0]
    database.execute(f'CREATE EXTENSION "{name}"')
    database.execute("CREATE SCHEMA its_own")
    database.execute(f'ALTER EXTENSION "{name}" ADD SCHEMA its_own')
    result = reset(database, "--yes")
    assert result.returncode == 0, result.stderr
    assert database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'its_own'") == [(0,)]
    assert database.execute("SELECT extname FROM pg_extension") == [("plpgsql",)]


@pytest.mark.once
def test_another_machine_has_to_be_allowed(database: Database) -> None:
    uri = "postgresql://a:b@db.example.com/serving?sslmode=require"
    result = invoke("migrations.reset", "--dsn", "-", "--yes", stdin=uri)
    assert result.returncode == 2
    assert "db.example.com is another machine, and all that is in serving would be lost" in result.stderr
    assert "next:  if that is what you want: invoke migrations.reset --dsn - --allow-remote --yes\n" in result.stderr
    planned = invoke("migrations.reset", "--dsn", "-", "--plan", stdin=uri)
    assert "invoke migrations.reset --dsn - --allow-remote --plan\n" in planned.stderr


def test_one_who_uses_a_table_is_waited_for_and_nothing_is_dropped(database: Database, folder: Path) -> None:
    database.execute("CREATE TABLE t (id int)")
    database.execute("CREATE SCHEMA other")
    before = database.whole_dump()
    with psycopg.connect(database.uri) as reader:
        reader.execute("SELECT * FROM t")
        result = reset(database, "--yes", "--lock-timeout", "300ms")
    assert result.returncode == 1
    assert "the server refused: canceling statement due to lock timeout; nothing was dropped" in result.stderr
    assert "--lock-timeout 1min waits longer" in result.stderr
    assert "Traceback" not in result.stderr
    assert database.whole_dump() == before


def test_what_somebody_else_owns_is_not_dropped(azure_server: Dsn) -> None:
    for database in databases.new_database(azure_server, azure=True, migrated=True):
        assert database.superuser is not None
        Database(database.superuser).execute("CREATE SCHEMA theirs")
        before = database.dump()
        result = reset(database, "--yes")
        assert result.returncode == 1
        assert "must be owner of schema theirs; nothing was dropped" in result.stderr
        assert database.dump() == before
        assert migrate(database, MIGRATIONS, "embedded").returncode == 0
