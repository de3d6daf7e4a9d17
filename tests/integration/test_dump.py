"""`invoke migrations.dump`: a text that stays the same, and that loads back as what it was."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from scripts import embedded, scratch
from scripts.secret import Secret
from tests import proofs
from tests.database import ENV, Database, as_azure, invoke

# Whatever makes pg_dump's work harder: bodies and comments with lines like its headers, names that want quotes, a right of
# a login role, of PUBLIC and of a group, options, and objects that rest on each other.
OBJECTS = """
CREATE TABLE core.runs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "Größe; Type: VIEW" numeric(8, 2) DEFAULT 0 CHECK ("Größe; Type: VIEW" >= 0));
CREATE INDEX runs_size ON core.runs ("Größe; Type: VIEW") WHERE id > 7;
CREATE VIEW gold.small AS SELECT r.id, r."Größe; Type: VIEW" FROM core.runs AS r WHERE r.id < 7;
CREATE FUNCTION core.f(a int) RETURNS int LANGUAGE sql AS $$
--
-- Name: core; Type: SCHEMA; Schema: -; Owner: -
--

/*
\\restrict key
*/
SELECT a;
$$;
CREATE FUNCTION core.g(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a > 1 THEN 1 END; SELECT 2; END;
COMMENT ON TABLE core.runs IS E'first\\n\\n--\\n-- Name: x; Type: TABLE; Schema: -; Owner: -\\n--\\n\\n''SELECT'';\\r\\nlast';
ALTER TABLE core.runs ALTER COLUMN id SET (n_distinct = -1);
CREATE TYPE core.state AS ENUM ('new', 'done');
GRANT SELECT ON core.runs TO PUBLIC;
GRANT EXECUTE ON FUNCTION core.f(int) TO serving_reader WITH GRANT OPTION;
CREATE TABLE core.parts (at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE core.parts_2026 PARTITION OF core.parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE core.parts ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON core.parts FOR SELECT TO serving_reader USING (at > '2026-02-01');
"""


def dump(database: Database, file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return invoke("migrations.dump", "--dsn", "-", "--out", str(file), *words, stdin=database.uri)


def test_it_is_the_same_from_run_to_run_and_loads_back(serving: Database, scratch: Database, tmp_path: Path) -> None:
    login = f"login_{serving.dsn.database}"
    serving.made_roles.append(login)
    superuser = Database(serving.superuser or serving.dsn)
    superuser.execute(f"CREATE ROLE {login} LOGIN")
    serving.execute("SET ROLE serving_owner; " + OBJECTS + f"GRANT SELECT ON core.runs TO {login}")
    file, again, loaded = tmp_path / "schema.sql", tmp_path / "again.sql", tmp_path / "loaded.sql"
    result = dump(serving, file)
    assert result.returncode == 0, result.stderr
    assert "is written" in result.stdout
    assert dump(serving, again).returncode == 0
    text = file.read_text(encoding="utf-8")
    assert again.read_text(encoding="utf-8") == text
    assert login not in text
    assert "GRANT ALL ON FUNCTION core.f(a integer) TO serving_reader WITH GRANT OPTION;" in text
    assert "GRANT SELECT ON TABLE core.runs TO PUBLIC;" in text
    assert "pg_attver" not in text
    assert "transaction_timeout" not in text
    assert text.count("\\restrict") == 1  # the body's own
    result = scratch.psql("-f", str(file))
    assert (result.returncode, result.stderr) == (0, "")
    assert dump(scratch, loaded).returncode == 0
    assert loaded.read_text(encoding="utf-8") == text


@as_azure
def test_an_administrator_who_is_no_superuser_can_load_it(serving: Database, tmp_path: Path) -> None:
    file = tmp_path / "schema.sql"
    assert dump(serving, file).returncode == 0
    for schema in ("backtest", "core", "gold", "monitoring", "platinum"):
        serving.execute(f"DROP SCHEMA {schema} CASCADE")
    serving.execute("DROP TABLE public.schema_migrations")
    result = serving.psql("-f", str(file))
    assert (result.returncode, result.stderr) == (0, "")


def test_a_database_is_only_read_and_nothing_waits_for_it(serving: Database, tmp_path: Path) -> None:
    """Not even behind an ALTER, for long."""
    before = serving.dump()
    with psycopg.connect(serving.uri) as other:
        other.execute("LOCK TABLE public.schema_migrations IN ROW EXCLUSIVE MODE")
        assert dump(serving, tmp_path / "schema.sql").returncode == 0
    assert serving.dump() == before


@pytest.mark.once
def test_behind_an_alter_it_gives_up_and_says_so(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE a (id int)")
    with psycopg.connect(database.uri) as other:
        other.execute("ALTER TABLE a ADD COLUMN b int")
        result = dump(database, tmp_path / "schema.sql")
    assert result.returncode == 1
    assert "is being altered by another session" in result.stderr
    assert not (tmp_path / "schema.sql").exists()


@pytest.mark.once
def test_it_stands_beside_the_migrations_which_it_does_not_disturb(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    words = ("--dsn", "-", "--migrations-dir", str(folder))
    assert proofs.migrate(database, folder, "embedded").returncode == 0
    first = invoke("migrations.dump", *words, "--json", stdin=database.uri)
    file = folder / "schema.sql"
    written = file.stat().st_mtime_ns
    second = invoke("migrations.dump", *words, "--json", stdin=database.uri)
    assert [json.loads(result.stdout)["changed"] for result in (first, second)] == [True, False]
    assert file.stat().st_mtime_ns == written
    assert json.loads(first.stdout) == {
        "target": str(database.dsn),
        "server_version": database.execute("SHOW server_version")[0][0],
        "file": str(file),
        "changed": True,
        "objects": 5 + len(["TABLE a"]) + 1,
    }
    assert invoke("status", *words, stdin=database.uri).returncode == 0


@pytest.mark.once
def test_what_may_not_be_read_is_named(database: Database, tmp_path: Path) -> None:
    reader = f"reader_{database.dsn.database}"
    database.made_roles.append(reader)
    database.execute("CREATE TABLE kept_from_readers (id int)")
    database.execute(f"CREATE ROLE {reader} LOGIN PASSWORD 'x'")
    database.execute(f"ALTER DATABASE {database.dsn.database} OWNER TO {reader}")
    result = dump(Database(replace(database.dsn.with_params(user=reader), password=Secret("x"))), tmp_path / "schema.sql")
    assert result.returncode == 1
    assert "permission denied for table kept_from_readers" in result.stderr
    assert "a role that may read everything" in result.stderr


def test_every_mode_writes_the_same(serving: Database, tmp_path: Path, mode: str) -> None:
    """Unless the machine's own pg_dump, or the image's, is older than the server."""
    file, plain = tmp_path / "schema.sql", tmp_path / "plain.sql"
    result = dump(serving, file, "--psql", mode)
    assert dump(serving, plain).returncode == 0
    if mode == "embedded" or result.returncode == 0:
        assert (result.returncode, result.stderr) == (0, "")
        assert file.read_text(encoding="utf-8") == plain.read_text(encoding="utf-8")
    else:
        assert result.returncode == 2
        assert "no pg_dump is as new" in result.stderr


@pytest.mark.once
def test_an_older_pg_dump_is_passed_over_and_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    path = {"PATH": str(embedded.program("pg_dump", 16).parent)}  # and no docker
    with scratch.servers(ENV) as servers, servers.server(18) as server:
        words = ("migrations.dump", "--dsn", "-", "--out", str(tmp_path / "schema.sql"))
        uri = server.dsn.uri().reveal()
        asked_for = invoke(*words, "--psql", "local", stdin=uri, env=path)
        assert invoke(*words, stdin=uri, env=path).returncode == 0
    assert asked_for.returncode == 2
    assert "the server is PostgreSQL 18, and no pg_dump is as new (local: 16)" in asked_for.stderr
    assert "install the client of PostgreSQL 18" in asked_for.stderr
