"""`invoke roles`: the same least-privileged role from every kind of administrator, proved by the catalogs and by trying."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from dotenv import dotenv_values
from psycopg import errors

from scripts import ledger
from scripts.catalogs import identifier
from scripts.dsn import Dsn, parse
from scripts.secret import Secret
from scripts.settings import MIGRATIONS
from tests import database as databases
from tests.database import ENV, ROOT, Database, as_azure, invoke, invoke_argv, small_files
from tests.integration.test_passwords import EVERYTHING, PASSWORDS, contents, places, sleeps, until

WRITTEN, READ_ONLY = ("core", "backtest", "monitoring"), ("gold", "platinum")


@dataclass
class App:
    """The application of a test: its role's name, and the file in which its DSN is handed over."""

    database: Database
    user: str
    file: Path

    def roles(self, *words: str, env: dict[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`invoke roles WORDS` by the administrator."""
        settings = {"POSTGRES_ADMIN_DSN": self.database.uri, **(env or {})}
        return invoke("roles", "--backtest-service-user", self.user, *words, env=settings, stdin=stdin)

    def make(self, *words: str) -> None:
        result = self.roles("--secrets-file", str(self.file), *words)
        assert result.returncode == 0, result.stdout + result.stderr

    def check(self) -> subprocess.CompletedProcess[str]:
        return self.roles("--check", env={"POSTGRES_DSN": self.uri})

    @property
    def uri(self) -> str:
        uri = dotenv_values(self.file)["POSTGRES_DSN"]
        assert uri is not None
        return uri

    @property
    def dsn(self) -> Dsn:
        return parse(self.uri, "the secrets file")

    def execute(self, query: str) -> list[tuple[Any, ...]]:
        """Runs one statement as the application."""
        return Database(self.dsn).execute(query)


@pytest.fixture
def app(serving: Database, tmp_path: Path) -> App:
    user = f"app_{secrets.token_hex(4)}"
    serving.made_roles += [user, f"{user}_b"]
    return App(serving, user, tmp_path / "app.env")


def superuser(app: App) -> Database:
    assert app.database.superuser is not None
    return Database(app.database.superuser)


def end_state(app: App) -> dict[str, Any]:
    """All that the catalogs say of the role and of the groups in this database, whoever made it so."""
    has_options = int(superuser(app).execute("SHOW server_version_num")[0][0]) >= 160000
    options = "inherit_option, set_option" if has_options else "true, true"
    queries = {
        "role": "SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, "
        "rolconnlimit, rolvaliduntil, (SELECT array_agg(c ORDER BY c)::text FROM unnest(rolconfig) AS c) "
        f"FROM pg_roles WHERE rolname = '{app.user}'",
        "memberships": f"SELECT roleid::regrole::text, admin_option, {options} FROM pg_auth_members "
        f"WHERE member = to_regrole('{app.user}')",
        "database": "SELECT grantee::regrole::text, privilege_type, is_grantable FROM pg_database, aclexplode(datacl) "
        "WHERE datname = current_database() AND grantee <> datdba ORDER BY 1, 2",
        # The owner of public is the server's matter: Azure's is the group of its administrators.
        "schemas": "SELECT nspname, CASE WHEN nspname <> 'public' THEN nspowner::regrole::text END, "
        "grantee::regrole::text, privilege_type "
        "FROM pg_namespace, aclexplode(nspacl) WHERE nspname !~ '^pg_|information_schema' AND grantee <> nspowner "
        "ORDER BY 1, 3, 4",
        "tables": "SELECT oid::regclass::text, relowner::regrole::text, grantee::regrole::text, privilege_type "
        "FROM pg_class, aclexplode(relacl) WHERE relnamespace::regnamespace::text IN "
        "('public', 'core', 'backtest', 'monitoring', 'gold', 'platinum') ORDER BY 1, 3, 4",
        "defaults": "SELECT defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype::text, "
        "grantee::regrole::text, privilege_type FROM pg_default_acl, aclexplode(defaclacl) ORDER BY 1, 2, 3, 4, 5",
        "password": f"SELECT rolpassword FROM pg_authid WHERE rolname = '{app.user}'",
    }
    return {
        name: [tuple("APP" if value == app.user else value for value in row) for row in superuser(app).execute(query)]
        for name, query in queries.items()
    }


def test_the_role_is_made_and_a_second_run_changes_nothing(app: App) -> None:
    app.make()
    made = end_state(app)
    assert made["role"][0][:9] == (False, True, False, False, True, False, False, made["role"][0][7], None)
    assert 0 < made["role"][0][7] < 50
    assert made["role"][0][9] == "{idle_in_transaction_session_timeout=60s,lock_timeout=5s,statement_timeout=60s}"
    assert made["password"][0][0].startswith("SCRAM-SHA-256$")
    assert ("APP", "CONNECT", False) in made["database"]

    again = app.roles("--keep-password", env={"POSTGRES_DSN": app.uri})
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert end_state(app) == made
    checked = app.check()
    assert checked.returncode == 0, checked.stdout
    assert end_state(app) == made


def test_the_copy_that_a_test_gets_is_as_migrate_makes_it(app: App) -> None:
    assert app.database.superuser is not None
    server, azure = app.database.superuser, app.database.dsn != app.database.superuser
    for fresh in databases.new_database(server, azure=azure):
        assert invoke("migrate", "--dsn", "-", stdin=fresh.uri).returncode == 0
        assert fresh.dump() == app.database.dump()
        assert end_state(App(fresh, app.user, app.file)) == end_state(app)


def test_superuser_and_azures_administrator_come_to_the_same(
    server: Dsn, azure_server: Dsn, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    states = []
    for number, (where, azure) in enumerate(((server, False), (azure_server, True))):
        for database in databases.new_database(where, azure=azure):
            assert invoke("migrate", "--dsn", "-", stdin=database.uri).returncode == 0
            database.made_roles.append(f"same_{number}")
            app = App(database, f"same_{number}", tmp_path / f"{number}.env")
            app.make()
            states.append({name: rows for name, rows in end_state(app).items() if name != "password"})
    assert states[0] == states[1]


@pytest.fixture
def tables(app: App, folder: Path) -> App:
    """The role first, and then a table in each schema, made by a migration that another member of the owners' group ran."""
    app.make()
    member = f"member_{secrets.token_hex(4)}"
    app.database.made_roles.append(member)
    app.database.execute(f"CREATE ROLE {member} LOGIN PASSWORD 'hers'")
    app.database.execute(f"GRANT serving_owner TO {member}")
    for file in MIGRATIONS.glob("*.sql"):
        shutil.copy(file, folder)
    made = "".join(
        f"CREATE TABLE {schema}.made (id serial PRIMARY KEY, name text);\nINSERT INTO {schema}.made (name) VALUES ('one');\n"
        f"CREATE VIEW {schema}.seen AS SELECT name FROM {schema}.made;\n"
        f"CREATE FUNCTION {schema}.counted() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM {schema}.made';\n"
        for schema in (*WRITTEN, *READ_ONLY)
    )
    (folder / "0004_made.sql").write_text(made)
    uri = replace(app.database.dsn.with_params(user=member), password=Secret("hers")).uri().reveal()
    result = invoke("migrate", "--dsn", "-", "--migrations-dir", str(folder), stdin=uri)
    assert result.returncode == 0, result.stderr
    return app


def test_tables_of_a_later_migration_by_another_owner_are_covered(tables: App) -> None:
    for schema in WRITTEN:
        tables.execute(f"INSERT INTO {schema}.made (name) VALUES ('two')")
        tables.execute(f"UPDATE {schema}.made SET name = 'three' WHERE name = 'two'")
        tables.execute(f"DELETE FROM {schema}.made WHERE name = 'three'")
    for schema in (*WRITTEN, *READ_ONLY):
        assert tables.execute(f"SELECT name FROM {schema}.seen") == [("one",)]
        assert tables.execute(f"SELECT {schema}.counted()") == [(1,)]
    owners = tables.database.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('core', 'gold')")
    assert owners == [("serving_owner",)]
    assert tables.execute("SELECT count(*) FROM public.schema_migrations") == [(4,)]
    checked = tables.check()
    assert checked.returncode == 0, checked.stdout


FORBIDDEN = {
    "create a table": "CREATE TABLE core.mine ()",
    "create a table in public": "CREATE TABLE public.mine ()",
    "create a temporary table": "CREATE TEMPORARY TABLE mine ()",
    "create a schema": "CREATE SCHEMA mine",
    "create a function": "CREATE FUNCTION core.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create a role": "CREATE ROLE mine",
    "create a database": "CREATE DATABASE mine",
    "alter another's table": "ALTER TABLE core.made ADD COLUMN mine int",
    "index another's table": "CREATE INDEX mine ON core.made (name)",
    "drop another's table": "DROP TABLE core.made",
    "truncate another's table": "TRUNCATE core.made",
    "set a sequence": "SELECT setval('core.made_id_seq', 100)",
    "write gold": "INSERT INTO gold.made (name) VALUES ('mine')",
    "update gold": "UPDATE gold.made SET name = 'mine'",
    "delete from platinum": "DELETE FROM platinum.made",
    "use gold's sequence": "SELECT nextval('gold.made_id_seq')",
    "read pg_authid": "SELECT * FROM pg_authid",
    "read a file of the server": "SELECT pg_read_file('PG_VERSION')",
    "run a program on the server": "COPY (SELECT 1) TO PROGRAM 'true'",
    "become the owner": "SET ROLE serving_owner",
    "become the writer": "SET ROLE serving_writer",
    "become the reader": "SET ROLE serving_reader",
    "insert into the ledger": "INSERT INTO public.schema_migrations (version) VALUES ('9')",
    "update the ledger": "UPDATE public.schema_migrations SET state = 'started'",
    "delete from the ledger": "DELETE FROM public.schema_migrations",
    "grant what it has": "GRANT SELECT ON core.made TO PUBLIC",
    "let others in": "GRANT serving_writer TO PUBLIC",
    "raise its limit": "ALTER ROLE CURRENT_USER CONNECTION LIMIT 90",
    "switch triggers off": "SET session_replication_role = replica",
}


def test_each_privilege_that_it_must_not_have_is_refused_by_the_server(tables: App) -> None:
    allowed = []
    for what, statement in FORBIDDEN.items():
        try:
            tables.execute(statement)
        except errors.InsufficientPrivilege:
            continue
        except errors.InvalidGrantOperation:  # PUBLIC is no member of anything, says the server before it looks further
            assert what == "let others in"
            continue
        except errors.UndefinedObject:  # ... or as a role that isn't there
            assert what == "let others in"
            continue
        allowed.append(what)
    # Without a right to grant it, a GRANT is a warning and changes nothing.
    assert allowed in ([], ["grant what it has"])
    grants = "SELECT count(*) FROM pg_class, aclexplode(relacl) WHERE oid = 'core.made'::regclass AND grantee = 0"
    assert tables.database.execute(grants) == [(0,)]


def test_it_connects_to_no_other_database(app: App) -> None:
    app.make()
    for name in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            Database(app.dsn.with_params(dbname=name)).execute("SELECT 1")


@as_azure
def test_the_dsn_insists_on_tls_where_the_server_has_it(app: App) -> None:
    app.make()
    has_tls = superuser(app).execute("SHOW ssl") == [("on",)]
    assert (app.dsn.params.get("sslmode") == "require") is has_tls
    result = app.roles("--check", "--json", env={"POSTGRES_DSN": app.uri})
    assert json.loads(result.stdout)["self_test"]["tls"] is has_tls


def advised(app: App, result: subprocess.CompletedProcess[str], env: dict[str, str] | None = None) -> None:
    """Runs the command that a message names as the next, which is to work as it stands."""
    found = re.search(r"invoke (roles .*?)(?:; .*|)$", result.stderr.split("next:  ")[1].splitlines()[0])
    assert found is not None, result.stderr
    settings = {"POSTGRES_ADMIN_DSN": app.database.uri, **(env or {})}
    ran = invoke(*shlex.split(found[1]), env=settings, cwd=app.file.parent)
    assert ran.returncode == 0, found[1] + ran.stdout + ran.stderr


EXTRAS = {
    "a privilege of the role itself": ("GRANT TRUNCATE ON core.made TO {app}", "{app} has TRUNCATE on table core.made"),
    "of a column": ("GRANT UPDATE (name) ON gold.made TO {app}", "{app} has UPDATE on column name of gold.made"),
    "of the writers": ("GRANT INSERT ON gold.made TO serving_writer", "serving_writer has INSERT on table gold.made"),
    "of the readers": ("GRANT INSERT ON core.made TO serving_reader", "serving_reader has INSERT on table core.made"),
    "of PUBLIC": ("GRANT SELECT ON core.made TO PUBLIC", "PUBLIC has SELECT on table core.made"),
    "to create": ("GRANT CREATE ON SCHEMA core TO {app}", "{app} has CREATE on schema core"),
    "on the ledger": ("GRANT INSERT ON schema_migrations TO {app}", "{app} has INSERT on table public.schema_migrations"),
    "on later tables": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner IN SCHEMA gold GRANT INSERT ON TABLES TO serving_writer",
        "serving_writer has INSERT on later tables of serving_owner in schema gold",
    ),
    "to hand it on": (
        "GRANT SELECT ON core.made TO serving_writer WITH GRANT OPTION",
        "serving_writer has SELECT on table core.made, with the right to grant it",
    ),
    "a membership": ("GRANT serving_owner TO {app}", "{app} is a member of serving_owner"),
    "an attribute": ("ALTER ROLE {app} CREATEROLE", "{app} is CREATEROLE"),
    "a setting": (
        "ALTER ROLE {app} IN DATABASE {database} SET statement_timeout = 0",
        "{app} has a statement_timeout of its own in the database {database}",
    ),
    "temporary tables": ("GRANT TEMPORARY ON DATABASE {database} TO {app}", "{app} has TEMPORARY on database {database}"),
}


def test_what_somebody_granted_by_hand_is_named_and_taken_away_when_told(tables: App) -> None:
    words = {"app": tables.user, "database": tables.database.dsn.database}
    designed = end_state(tables)
    for statement, _ in EXTRAS.values():
        tables.database.execute(statement.format(**words))
    expected = {f"differs: {what.format(**words)}" for _, what in EXTRAS.values()}

    checked = tables.check()
    assert checked.returncode == 3
    named = {line for line in checked.stdout.splitlines() if line.startswith("differs: ")}
    assert expected <= named, expected - named
    kept = tables.roles("--keep-password", env={"POSTGRES_DSN": tables.uri})
    assert kept.returncode == 3, "it is named, and stays"
    assert "--revoke-extra" in kept.stderr

    taken = tables.roles("--keep-password", "--revoke-extra", env={"POSTGRES_DSN": tables.uri})
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert end_state(tables) == designed
    assert tables.check().returncode == 0


STRANGE = ["t$take_away$\\! touch {file} #", "t$take_away$", "t\\'; \\! touch {file} #", "t\n\\! touch {file}\n", "t'\\\" :name"]


@pytest.mark.parametrize("quoting", ["on", "off"])
def test_no_name_of_an_object_is_a_command_for_the_administrators_psql(app: App, quoting: str) -> None:
    app.make()
    app.database.execute(f"ALTER DATABASE {app.database.dsn.database} SET standard_conforming_strings = {quoting}")
    file = Path(tempfile.gettempdir()) / secrets.token_hex(4)  # a short path: a name has 63 bytes
    for name in STRANGE:
        quoted = identifier(name.format(file=file))
        app.database.execute(f"CREATE TABLE public.{quoted} ()")
        app.database.execute(f"GRANT SELECT ON public.{quoted} TO PUBLIC")
    result = app.roles("--keep-password", "--revoke-extra", env={"POSTGRES_DSN": app.uri})
    assert result.returncode == 0, result.stdout + result.stderr
    assert not file.exists()
    assert result.stdout.count("took away: PUBLIC has SELECT on table public.") == len(STRANGE)


def plant_functions(database: Database) -> None:
    """Functions in public that fit arguments better than the server's own; they note who runs them."""
    database.execute("CREATE TABLE public.ran (as_whom name)")
    for arguments in ("text", "name, name", "text, text"):
        given = ", ".join(f"${number}::text" for number, _ in enumerate(arguments.split(","), 2))
        database.execute(
            f"CREATE FUNCTION public.format(text, {arguments}) RETURNS text LANGUAGE sql SECURITY INVOKER AS "
            f"$$ INSERT INTO public.ran VALUES (current_user); SELECT pg_catalog.format($1, VARIADIC ARRAY[{given}]) $$"
        )


def test_no_function_of_somebody_else_runs_with_the_administrators_rights(app: App) -> None:
    """One that fits the arguments better than the server's own would be preferred to it, were its schema searched."""
    app.make()
    plant_functions(app.database)
    app.database.execute("REVOKE USAGE ON SCHEMA core FROM serving_writer")  # so that the migration is run again
    result = app.roles("--keep-password", env={"POSTGRES_DSN": app.uri})
    assert "ran 0003_roles_and_grants.sql again" in result.stdout, result.stderr
    assert app.database.execute("SELECT DISTINCT as_whom FROM public.ran") == []


@pytest.mark.once
@as_azure
def test_no_name_of_an_object_begins_a_line_or_steers_the_terminal(tables: App) -> None:
    name = identifier("x\n::error::planted \x1b[31m\u2028")
    tables.database.execute(
        "SET ROLE serving_owner; CREATE TABLE core." + name + " (); GRANT TRUNCATE ON core." + name + " TO PUBLIC"
    )
    checked = tables.check()
    mended = tables.roles("--keep-password", "--revoke-extra", env={"POSTGRES_DSN": tables.uri})
    assert (checked.returncode, mended.returncode) == (3, 0), mended.stdout
    for told, result in (("differs: ", checked), ("  took away: ", mended)):
        assert f'{told}PUBLIC has TRUNCATE on table core."x\\n::error::planted \\x1b[31m\\u2028"\n' in result.stdout
        for line in (result.stdout + result.stderr).splitlines():
            assert not line.lstrip().startswith("::")


@pytest.mark.once
def test_nor_does_one_when_the_design_comes_for_the_first_time_or_by_bare_psql(database: Database) -> None:
    plant_functions(database)
    result = invoke("migrate", "--dsn", "-", stdin=database.uri)
    assert result.returncode == 0, result.stderr
    by_psql = database.psql("-f", str(MIGRATIONS / "0003_roles_and_grants.sql"), "-c", "SHOW search_path")
    assert (by_psql.returncode, by_psql.stderr) == (0, "")
    assert '"$user", public' in by_psql.stdout
    assert database.execute("SELECT DISTINCT as_whom FROM public.ran") == []


# What PUBLIC can be given on what the server and extensions brought along: (grant, how it is named, from which version on).
TO_PUBLIC = [
    ("EXECUTE ON FUNCTION pg_ls_dir(text)", "EXECUTE on routine pg_ls_dir(text)", 0),
    ("EXECUTE ON FUNCTION pg_read_file(text)", "EXECUTE on routine pg_read_file(text)", 0),
    ("SELECT ON pg_statistic", "SELECT on table pg_catalog.pg_statistic", 0),
    ("SELECT ON pg_user_mapping", "SELECT on table pg_catalog.pg_user_mapping", 0),
    ("SELECT (rolpassword) ON pg_authid", "SELECT on column rolpassword of pg_catalog.pg_authid", 0),
    ("UPDATE ON pg_settings", None, 0),  # as it comes
    ("SELECT ON information_schema._pg_user_mappings", "SELECT on table information_schema._pg_user_mappings", 0),
    ("INSERT ON information_schema.sql_parts", "INSERT on table information_schema.sql_parts", 0),
    ("CREATE ON TABLESPACE pg_default", "CREATE on tablespace pg_default", 0),
    ("SET ON PARAMETER session_replication_role", "SET on parameter session_replication_role", 150000),
    ("USAGE ON FOREIGN SERVER {server}", "USAGE on foreign server {server}", 0),
    ("USAGE ON FOREIGN DATA WRAPPER {server}", "USAGE on foreign data wrapper {server}", 0),
    ("SELECT ON LARGE OBJECT 4711", "SELECT on large object 4711", 0),
]


def test_what_public_was_given_on_what_the_server_brought_along_is_named_and_taken_away(own: App) -> None:
    own.make()
    version = int(own.database.execute("SHOW server_version_num")[0][0])
    words = {"server": '"my server"'}
    own.database.execute("CREATE FOREIGN DATA WRAPPER {server}".format(**words))
    own.database.execute("CREATE SERVER {server} FOREIGN DATA WRAPPER {server}".format(**words))
    own.database.execute("SELECT lo_create(4711)")
    assert own.check().returncode == 0
    granted = [(grant.format(**words), what) for grant, what, since in TO_PUBLIC if version >= since]
    for grant, _ in granted:
        own.database.execute(f"GRANT {grant} TO PUBLIC")
    expected = {f"differs: PUBLIC has {what.format(**words)}" for _, what in granted if what}
    checked = own.check()
    named = {line for line in checked.stdout.splitlines() if line.startswith("differs: PUBLIC")}
    assert named == expected
    assert checked.returncode == 3
    taken = own.roles("--keep-password", "--revoke-extra", env={"POSTGRES_DSN": own.uri})
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert own.check().returncode == 0


def test_what_a_superuser_granted_stays_named_with_the_statement_that_only_a_superuser_may_run(app: App) -> None:
    app.make()
    superuser(app).execute(f"GRANT serving_owner TO {app.user}")
    result = app.roles("--keep-password", "--revoke-extra", env={"POSTGRES_DSN": app.uri})
    by_version = int(superuser(app).execute("SHOW server_version_num")[0][0]) < 160000  # before, grantors didn't count
    if app.database.dsn == app.database.superuser or by_version:
        assert result.returncode == 0, result.stdout
    else:
        assert result.returncode == 3
        assert f"{app.user} is a member of serving_owner" in result.stdout
        assert f'next:  a superuser, or who granted it, runs: REVOKE "serving_owner" FROM "{app.user}";' in result.stderr


def test_what_is_missing_is_named_and_mended(tables: App) -> None:
    designed = end_state(tables)
    admin = tables.database
    admin.execute("REVOKE SELECT ON core.made FROM serving_writer, serving_reader")
    admin.execute("ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner IN SCHEMA core REVOKE INSERT ON TABLES FROM serving_writer")
    admin.execute("CREATE TABLE core.by_hand (id int)")
    admin.execute(f"ALTER ROLE {tables.user} CONNECTION LIMIT -1")
    admin.execute(f"ALTER ROLE {tables.user} RESET statement_timeout")
    admin.execute(f"REVOKE CONNECT ON DATABASE {admin.dsn.database} FROM {tables.user}")
    checked = tables.roles("--check")
    assert checked.returncode == 3
    for what in (
        "serving_writer lacks SELECT on table core.made",
        "serving_writer lacks INSERT on later tables of serving_owner in schema core",
        f"table core.by_hand belongs to {admin.dsn.params['user']}, not to serving_owner",
        f"set statement_timeout of {tables.user} to 60s",
        f"grant CONNECT on database {admin.dsn.database} to {tables.user}",
    ):
        assert what in checked.stdout
    mended = tables.roles("--keep-password", env={"POSTGRES_DSN": tables.uri})
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert tables.execute("SELECT * FROM core.by_hand") == []
    admin.execute("DROP TABLE core.by_hand")
    assert end_state(tables) == designed


@as_azure
def test_a_plan_shows_what_would_change_and_writes_nothing(app: App) -> None:
    before = end_state_without_role(app)
    planned = app.roles("--plan")
    assert planned.returncode == 0, planned.stderr
    assert f"would make the login role {app.user}" in planned.stdout
    document = json.loads(app.roles("--plan", "--json").stdout)
    assert (document["target"], document["role"]) == (str(app.database.dsn), app.user)
    assert f"make the login role {app.user}" in document["changes"][0]
    assert end_state_without_role(app) == before
    app.make()
    made = end_state(app)
    app.database.execute(f"ALTER ROLE {app.user} CONNECTION LIMIT 3")
    planned = app.roles("--plan", "--connection-limit", "5", "--keep-password")
    assert f"change {app.user}: it has 5 connections (3 before)" in planned.stdout
    app.database.execute(f"ALTER ROLE {app.user} CONNECTION LIMIT {made['role'][0][7]}")
    assert end_state(app) == made


def end_state_without_role(app: App) -> list[tuple[Any, ...]]:
    return superuser(app).execute(
        f"SELECT (SELECT count(*) FROM pg_roles WHERE rolname = '{app.user}'), "
        f"(SELECT count(*) FROM pg_auth_members WHERE member = to_regrole('{app.user}')), "
        "datacl::text FROM pg_database WHERE datname = current_database()"
    )


# What is said to be next.


def test_what_a_check_says_is_next_mends_it_and_leaves_the_password(app: App) -> None:
    app.make()
    kept = {"POSTGRES_DSN": app.uri}
    for drift in (f"ALTER ROLE {app.user} RESET lock_timeout", f"GRANT TEMPORARY ON DATABASE {{database}} TO {app.user}"):
        app.database.execute(drift.format(database=app.database.dsn.database))
        checked = app.check()
        assert checked.returncode == 3
        advised(app, checked, {**kept, "POSTGRES_BACKTEST_SERVICE_PASSWORD": "what stands in the settings"})
        assert app.execute("SELECT current_user") == [(app.user,)]
        assert app.check().returncode == 0


@pytest.mark.once
@as_azure
def test_a_password_that_is_kept_and_not_at_hand_is_told_before_anything_is_changed(app: App) -> None:
    app.make()
    app.database.execute(f"ALTER ROLE {app.user} RESET lock_timeout")
    before = end_state(app)
    result = app.roles("--keep-password", "--secrets-file", str(app.file))
    assert result.returncode == 1
    assert "is not at hand to be handed over; nothing was changed" in result.stderr
    assert end_state(app) == before
    advised(app, result)
    assert app.check().returncode == 0


@pytest.mark.once
@as_azure
def test_what_is_next_for_a_role_that_is_not_there_works(app: App) -> None:
    rotated = invoke(
        "rotate", "--backtest-service-user", app.user, "--emit-secrets", env={"POSTGRES_ADMIN_DSN": app.database.uri}
    )
    assert "next:  make the first of them: invoke roles " in rotated.stderr
    plain, kept = app.roles(), app.roles("--keep-password")
    assert (plain.returncode, kept.returncode) == (2, 2)
    assert "(--keep-password)" not in plain.stderr + kept.stderr
    for result in (rotated, plain, kept):
        advised(app, result)
        assert app.execute("SELECT current_user") == [(app.user,)]
    assert "leave the one that it has (--keep-password)" in app.roles().stderr


@pytest.mark.once
@as_azure
def test_a_role_that_may_not_log_in_keeps_the_password_that_is_at_hand(app: App) -> None:
    app.make()
    app.database.execute(f"ALTER ROLE {app.user} NOLOGIN")
    checked = app.check()
    assert (checked.returncode, "--keep-password\n" in checked.stderr) == (3, True), checked.stderr
    advised(app, checked, {"POSTGRES_DSN": app.uri})
    assert app.execute("SELECT current_user") == [(app.user,)]


@pytest.mark.once
@as_azure
def test_a_check_fails_by_a_dsn_or_a_password_at_hand_that_is_not_the_one_in_use(app: App) -> None:
    app.make()
    checked = app.roles("--check")
    assert (checked.returncode, f"{app.user} of {app.dsn.database} as designed, by the catalogs alone" in checked.stdout) == (
        0,
        True,
    )
    own = app.roles("--check", env={"POSTGRES_ADMIN_DSN": "", "POSTGRES_DSN": app.database.uri})
    assert own.returncode == 0, own.stdout
    for env, told in (
        ({"POSTGRES_DSN": app.database.uri}, f"which is not {app.user} of this database"),
        ({"POSTGRES_BACKTEST_SERVICE_PASSWORD": "not the one"}, f"{app.user} can't connect with its DSN: "),
    ):
        checked = app.roles("--check", env=env)
        assert (checked.returncode, told in checked.stdout) == (3, True), checked.stdout
        assert (
            f"next:  put the DSN in use into POSTGRES_DSN, or: invoke roles --backtest-service-user {app.user} " in checked.stderr
        )
    right = {"POSTGRES_DSN": app.uri, "POSTGRES_BACKTEST_SERVICE_PASSWORD": "of no meaning then"}
    assert app.roles("--check", env=right).returncode == 0


@pytest.mark.once
@as_azure
def test_what_drifted_in_the_settings_of_the_role_is_shown(app: App) -> None:
    app.make("--connection-limit", "5")
    superuser(app).execute(f"ALTER ROLE {app.user} SET work_mem = '1GB'")
    superuser(app).execute(f"ALTER ROLE {app.user} SET statement_timeout = 0")
    checked = app.check()
    assert checked.returncode == 3
    assert f"differs: still to do: set statement_timeout of {app.user} to 60s (0 before, which is none)" in checked.stdout
    assert f"note: {app.user} keeps what was set before: 5 connections (fitted: " in checked.stderr
    assert "work_mem 1GB (no part of the design)" in checked.stderr
    advised(app, checked, {"POSTGRES_DSN": app.uri})
    assert app.check().returncode == 0


def test_what_a_check_says_is_next_makes_a_role_that_is_not_there(app: App) -> None:
    checked = app.roles("--check")
    assert checked.returncode == 3
    advised(app, checked)
    assert app.execute("SELECT current_user") == [(app.user,)]


def test_a_command_to_run_again_keeps_the_password_if_it_was_to_be_kept(app: App) -> None:
    app.make()
    with psycopg.connect(app.database.uri, autocommit=True) as other:
        assert other.execute(ledger.TRY_LOCK.encode()).fetchone() == (True,)
        result = app.roles("--keep-password", "--revoke-extra", "--lock-wait", "0")
    assert result.returncode == 1
    assert "--keep-password --revoke-extra --lock-wait" in result.stderr
    advised(app, result, {"POSTGRES_DSN": app.uri})
    assert app.execute("SELECT current_user") == [(app.user,)]


def test_a_role_that_does_not_get_in_is_a_finding_with_a_way_out(app: App) -> None:
    app.make()
    stale = replace(app.dsn, password=Secret("x" * 40)).uri().reveal()
    for words in (("--check",), ("--keep-password",)):
        result = app.roles(*words, env={"POSTGRES_DSN": stale})
        assert result.returncode == 3, result.stdout + result.stderr
        assert f"differs: {app.user} can't connect with its DSN: " in result.stdout
        assert "password authentication failed" in result.stdout
    found = re.search("or: invoke (.*)", result.stderr)
    assert found is not None
    assert invoke(*shlex.split(found[1]), env={"POSTGRES_ADMIN_DSN": app.database.uri}, cwd=app.file.parent).returncode == 0
    assert app.execute("SELECT current_user") == [(app.user,)]


def test_a_new_password_is_handed_over_although_the_connections_are_all_in_use(app: App) -> None:
    app.make("--connection-limit", "1")
    first = app.uri
    with psycopg.connect(first):
        result = app.roles("--secrets-file", str(app.file))
        assert result.returncode == 3, result.stderr
        assert "too many connections" in result.stdout
        assert f"handed over: POSTGRES_DSN in {app.file}" in result.stdout
    assert app.uri != first
    assert app.execute("SELECT current_user") == [(app.user,)]


# A new password is safe, or it is said where it isn't.

SECRET_TAKER = """#!/bin/sh
[ "$2" = set ] || exit 0
%s
"""


@pytest.fixture
def gh(tmp_path: Path) -> Path:
    """A gh that lists secrets; what it does to set one is written behind it."""
    path = tmp_path / "bin" / "gh"
    path.parent.mkdir()
    path.write_text(SECRET_TAKER % "exit 0")
    path.chmod(0o755)
    return path


@pytest.mark.once
@as_azure
def test_a_disk_that_is_full_changes_no_password(app: App) -> None:
    app.make()
    app.file.write_text(app.file.read_text() + "#" * 47_000)
    before = end_state(app)
    words = ("--backtest-service-user", app.user, "--secrets-file", str(app.file))
    env = {**ENV, "POSTGRES_ADMIN_DSN": app.database.uri}
    argv = invoke_argv("roles", *words)
    result = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=small_files)
    assert result.returncode == 1, result.stderr
    assert f"{app.file} can't be written: File too large; it is as it was" in result.stderr
    assert end_state(app) == before
    assert [path.name for path in app.file.parent.iterdir()] == ["app.env"]


@pytest.mark.once
@as_azure
@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("echo no network >&2; exit 1", 1, "error: the GitHub secret X can't be written: no network\n"),
        ("kill -INT $PPID; sleep 5", 130, "error: interrupted\n"),
    ],
    ids=["refused", "interrupted"],
)
def test_a_new_password_that_is_not_safe_is_told_with_the_command_that_sets_another(
    app: App, gh: Path, how: str, code: int, message: str
) -> None:
    app.make()
    first = app.uri
    gh.write_text(SECRET_TAKER % how)
    env = {"PATH": f"{gh.parent}:{ENV['PATH']}"}
    result = app.roles("--github-secret", "X", "--secrets-file", str(app.file), env=env)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    told = f"  the server has a new password of {app.user}, with which the former DSN is void; it was handed over: "
    assert f"{told}POSTGRES_DSN in {app.file}\n" in result.stderr
    assert app.uri != first
    gh.write_text(SECRET_TAKER % "exit 0")
    advised(app, result, env)
    result = app.roles("--github-secret", "X", env=env)
    assert "handed over: the GitHub secret X\n" in result.stdout


@pytest.mark.once
def test_an_administrator_who_may_not_become_the_owners_is_told_before_anything_is_changed(app: App) -> None:
    app.make()
    admin, user = superuser(app), f"admin_{secrets.token_hex(4)}"
    app.database.made_roles.append(user)
    admin.execute(f"CREATE ROLE {user} LOGIN CREATEROLE PASSWORD 'hers'")
    admin.execute(f"GRANT CONNECT ON DATABASE {app.database.dsn.database} TO {user}")
    options = " WITH ADMIN OPTION" if int(admin.execute("SHOW server_version_num")[0][0]) >= 160000 else ""
    if options:
        admin.execute(f"GRANT {app.user} TO {user}{options}")
    app.database = replace(app.database, dsn=replace(app.database.dsn.with_params(user=user), password=Secret("hers")))
    before = end_state(app)
    result = app.roles("--secrets-file", str(app.file))
    assert result.returncode == 1
    assert f"{user} may not become serving_owner, as the self-test has to; nothing was changed" in result.stderr
    assert end_state(app) == before
    plan = app.roles("--plan")
    assert (plan.returncode, f"note: {user} may not become serving_owner" in plan.stderr) == (0, True)
    statement = re.search("an administrator runs: (GRANT [^;]*;) then: invoke", result.stderr)
    assert statement is not None
    admin.execute(statement[1])
    advised(app, result)


def test_what_is_locked_is_not_tried_and_no_finding(tables: App) -> None:
    with psycopg.connect(superuser(tables).uri) as migration:
        migration.execute("LOCK TABLE core.made")
        checked = tables.check()
    assert checked.returncode == 0, checked.stdout
    assert "not tried, as somebody has it locked: read core.made, " in checked.stderr


# Whose role it is.


@pytest.mark.parametrize(
    ("trait", "reason"),
    [
        ("ROLE {user} SUPERUSER", "is SUPERUSER"),
        ("ROLE {user} CREATEDB", "is CREATEDB"),
        ("DATABASE {database} OWNER TO {user}", "owns the database"),
        ("GROUP serving_owner ADD USER {user}", "is a member of serving_owner"),
    ],
)
def test_a_role_that_is_somebody_elses_is_not_touched(app: App, trait: str, reason: str) -> None:
    admin, database = superuser(app), app.database.dsn.database
    admin.execute(f"CREATE ROLE {app.user} LOGIN PASSWORD 'hers'")
    owner = admin.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")[0][0]
    admin.execute("ALTER " + trait.format(user=app.user, database=database))
    before = end_state(app)
    for words in (("--secrets-file", str(app.file)), ("--keep-password", "--revoke-extra"), ("--check",), ("--plan",)):
        result = app.roles(*words)
        assert (result.returncode, f"{app.user} is not an application's: it {reason}" in result.stderr) == (2, True)
    settings = {"POSTGRES_ADMIN_DSN": app.database.uri, "POSTGRES_BACKTEST_SERVICE_USER": app.user}
    assert invoke("rotate", "--secrets-file", str(app.file), env=settings).returncode == 2
    assert end_state(app) == before
    assert not app.file.exists()
    admin.execute(f"ALTER DATABASE {database} OWNER TO {owner}")


def test_the_administrator_is_not_made_an_application(app: App) -> None:
    app.user = app.database.dsn.params["user"]
    result = app.roles("--secrets-file", str(app.file))
    assert result.returncode == 2
    assert "it is the user of the administrator's DSN" in result.stderr


# The password.


@pytest.mark.once
@as_azure
def test_a_plan_knows_the_password_that_is_given(app: App) -> None:
    env = {"POSTGRES_BACKTEST_SERVICE_PASSWORD": EVERYTHING}
    assert app.roles(env=env).returncode == 0
    planned = app.roles("--plan", env=env)
    assert "nothing to change" in planned.stdout, planned.stdout
    planned = app.roles("--plan", env={"POSTGRES_BACKTEST_SERVICE_PASSWORD": f"{EVERYTHING}!"})
    assert f"would change {app.user}: it has a new password" in planned.stdout


@pytest.mark.once
@as_azure
def test_a_password_that_is_guessed_in_no_time_is_not_taken_without_a_word(app: App) -> None:
    told = "warning: a password of fewer than 8 characters"
    assert told in app.roles("--plan", env={"POSTGRES_BACKTEST_SERVICE_PASSWORD": "1234567"}).stderr
    assert told not in app.roles("--plan", env={"POSTGRES_BACKTEST_SERVICE_PASSWORD": "12345678"}).stderr


@pytest.mark.once
@as_azure
def test_masks_come_before_a_warning_in_actions(app: App) -> None:
    words = ("--backtest-service-password", "of an argument", "--json")
    result = app.roles(*words, env={"GITHUB_ACTIONS": "true"})
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    warning = next(number for number, line in enumerate(lines) if "a password in an argument" in line)
    assert [line for line in lines[warning:] if line.startswith("::add-mask::")] == []
    assert any("of an argument" in line for line in lines[:warning])


@pytest.fixture
def own_server(request: pytest.FixtureRequest) -> Iterator[Dsn]:
    """A server of the test's own, for what would be felt in other tests' databases."""
    home = Path(tempfile.mkdtemp(prefix="serving-"))
    running = databases.start_server(str(request.config.getoption("--server")), home)
    databases.closed_to_public(running.dsn())
    try:
        yield running.dsn()
    finally:
        running.stop()
        running.purge()
        shutil.rmtree(home)


@pytest.fixture
def own(own_server: Dsn, tmp_path: Path) -> Iterator[App]:
    for database in databases.new_database(own_server):
        assert invoke("migrate", "--dsn", "-", stdin=database.uri).returncode == 0
        yield App(database, "app", tmp_path / "app.env")


@pytest.mark.once
def test_a_given_password_is_set_although_everybody_is_let_in_without_one(own: App) -> None:
    own.make()
    rules = Path(own.database.execute("SHOW hba_file")[0][0])
    if not rules.exists():
        pytest.skip("the server's files are in a container")
    rules.write_text("host all all 127.0.0.1/32 trust\n")
    own.database.execute("SELECT pg_reload_conf()")
    given = own.roles(env={"POSTGRES_BACKTEST_SERVICE_PASSWORD": EVERYTHING})
    assert given.returncode == 0, given.stdout + given.stderr
    assert "it has a new password" in given.stdout
    rules.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    own.database.execute("SELECT pg_reload_conf()")
    own.database.execute("SELECT pg_sleep(0.2)")
    assert Database(replace(own.dsn, password=Secret(EVERYTHING))).execute("SELECT current_user") == [("app",)]


@pytest.mark.once
def test_another_database_of_the_administrator_is_named_and_not_closed(own: App) -> None:
    own.database.execute("CREATE DATABASE neighbour")
    result = own.roles("--secrets-file", str(own.file), "--revoke-extra")
    assert result.returncode == 3
    assert "differs: PUBLIC, and so app, may connect to the database neighbour" in result.stdout
    assert 'run: REVOKE CONNECT ON DATABASE "neighbour" FROM PUBLIC;' in result.stderr
    assert own.database.execute("SELECT datacl FROM pg_database WHERE datname = 'neighbour'") == [(None,)]
    own.database.execute('REVOKE CONNECT ON DATABASE "neighbour" FROM PUBLIC')
    assert own.check().returncode == 0


@pytest.mark.once
@as_azure
def test_a_new_password_that_nobody_would_know_is_refused(app: App) -> None:
    result = app.roles()
    assert result.returncode == 2
    assert "would be known to nobody" in result.stderr
    assert end_state(app)["role"] == []


@as_azure
def test_running_again_sets_the_password_anew_and_says_so(app: App) -> None:
    app.make()
    first = app.uri
    result = app.roles("--secrets-file", str(app.file))
    assert result.returncode == 0
    assert f"the password of {app.user} is new" in result.stdout
    assert app.uri != first
    assert app.execute("SELECT current_user") == [(app.user,)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        Database(parse(first, "before")).execute("SELECT 1")


@pytest.mark.once
@as_azure
@pytest.mark.parametrize("how", ["environment", "file", "stdin"])
def test_a_password_is_taken_from_where_it_is_given(app: App, tmp_path: Path, how: str) -> None:
    file = tmp_path / "password"
    file.write_text(f"{EVERYTHING}\n")
    words = {
        "environment": [],
        "file": ["--backtest-service-password-file", str(file)],
        "stdin": ["--backtest-service-password", "-"],
    }[how]
    env = {"POSTGRES_BACKTEST_SERVICE_PASSWORD": EVERYTHING} if how == "environment" else {}
    result = app.roles(*words, env=env, stdin=f"{EVERYTHING}\n" if how == "stdin" else "")
    assert result.returncode == 0, result.stderr
    given = replace(app.database.dsn.with_params(user=app.user), password=Secret(EVERYTHING))
    assert Database(given).execute("SELECT current_user") == [(app.user,)]
    verifier = end_state(app)["password"]
    again = app.roles(*words, env=env, stdin=f"{EVERYTHING}\n" if how == "stdin" else "")
    assert "nothing to do" in again.stdout
    assert end_state(app)["password"] == verifier


@pytest.mark.once
@as_azure
@pytest.mark.parametrize("name", ["looks-encoded", "backslashes-and-quotes", "emoji", "blanks"])
def test_a_hostile_password_arrives_and_is_never_shown(app: App, name: str) -> None:
    password = PASSWORDS[name]
    env = {"POSTGRES_BACKTEST_SERVICE_PASSWORD": password}
    result = app.roles("--secrets-file", str(app.file), env=env)
    assert result.returncode == 0, result.stderr
    assert app.dsn.password.reveal() == password
    assert app.execute("SELECT current_user") == [(app.user,)]
    for form in (password, quote(password, safe="")):
        assert form not in result.stdout + result.stderr


@pytest.mark.once
@as_azure
def test_emitting_is_the_only_way_to_see_it(app: App) -> None:
    hidden = app.roles("--secrets-file", str(app.file))
    assert app.dsn.password.reveal() not in hidden.stdout + hidden.stderr
    shown = app.roles("--emit-secrets", "--secrets-file", str(app.file))
    assert f"POSTGRES_DSN={app.uri}" in shown.stdout.splitlines()
    document = json.loads(app.roles("--emit-secrets", "--secrets-file", str(app.file), "--json").stdout)
    assert document["secrets"] == {"POSTGRES_DSN": app.uri}
    assert "****" in document["dsn"]


def server_log(database: Database) -> str:
    data = Path(database.execute("SHOW data_directory")[0][0])
    local = data.parent / "postgres.log"
    if local.exists():
        return local.read_text(encoding="utf-8", errors="replace")
    port = database.dsn.params["port"]
    listed = subprocess.run(
        ["docker", "ps", "--quiet", "--filter", f"publish={port}"], capture_output=True, text=True, check=True
    ).stdout.split()
    logs = subprocess.run(["docker", "logs", listed[0]], capture_output=True, text=True, check=True)
    return logs.stdout + logs.stderr


@as_azure
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_the_password_is_in_no_argv_environment_statement_or_file(app: App, mode: str, tmp_path: Path) -> None:
    superuser(app).execute(f"ALTER DATABASE {app.database.dsn.database} SET log_statement = 'all'")
    temp = tmp_path / "temp"
    temp.mkdir()
    seen: dict[str, bytes] = {}
    process = subprocess.Popen(
        invoke_argv("roles", "--backtest-service-user", app.user, "--psql", mode, "--secrets-file", str(app.file)),
        env={**ENV, "TMPDIR": str(temp), "POSTGRES_ADMIN_DSN": app.database.uri},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    number = 0
    while process.poll() is None:
        number += 1
        seen.update({f"{place} {number}": data for place, data in places().items()})
    out, err = process.communicate()
    assert process.returncode == 0, err
    password = app.dsn.password.reveal().encode()
    name = app.user.encode()
    assert any(name in data for place, data in seen.items() if "cmdline" in place), "the role's own psql was seen"
    assert [place for place, data in seen.items() if password in data] == []
    assert password.decode() not in out + err
    assert contents(temp) == {}
    log = server_log(superuser(app))
    assert f'CREATE ROLE "{app.user}"' in log
    assert "SCRAM-SHA-256$" in log
    assert password.decode() not in log


# The connections.


@as_azure
def test_a_limit_that_does_not_fit_the_server_is_refused(app: App) -> None:
    result = app.roles("--connection-limit", "60", "--secrets-file", str(app.file))
    assert result.returncode == 2
    assert "--connection-limit 60" in result.stderr
    app.make("--connection-limit", "2")
    with (
        psycopg.connect(app.uri),
        psycopg.connect(app.uri),
        pytest.raises(psycopg.OperationalError, match="too many connections"),
    ):
        psycopg.connect(app.uri)
    assert app.roles("--keep-password").returncode == 0
    assert end_state(app)["role"][0][7] == 2, "what no flag speaks of stays"


@as_azure
def test_the_timeouts_hold(app: App) -> None:
    app.make("--statement-timeout", "200ms", "--lock-timeout", "3s", "--idle-in-transaction-timeout", "2min")
    assert app.execute("SHOW lock_timeout") == [("3s",)]
    assert app.execute("SHOW idle_in_transaction_session_timeout") == [("2min",)]
    with pytest.raises(errors.QueryCanceled):
        app.execute("SELECT pg_sleep(60)")


# Beside others.


@as_azure
def test_roles_and_migrate_at_once_both_succeed(app: App, folder: Path) -> None:
    app.make()
    for file in MIGRATIONS.glob("*.sql"):
        shutil.copy(file, folder)
    failures: list[str] = []
    for number in range(4, 10):
        (folder / f"{number:04}_t.sql").write_text(f"CREATE TABLE core.t{number} (id int);\nSELECT pg_sleep(0.1);\n")
        words = [
            ("migrate", "--migrations-dir", str(folder)),
            ("roles", "--backtest-service-user", app.user, "--secrets-file", str(app.file)),
            ("roles", "--backtest-service-user", app.user, "--keep-password"),
        ]

        def one(*command: str) -> None:
            result = invoke(*command, env={"POSTGRES_ADMIN_DSN": app.database.uri})
            if result.returncode != 0:
                failures.append(result.stdout + result.stderr)

        threads = [threading.Thread(target=one, args=command) for command in words]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert app.execute("SELECT * FROM core.t9") == []


def test_beside_the_first_migrate_roles_waits_for_it(database: Database, folder: Path, tmp_path: Path) -> None:
    app = App(database, f"app_{secrets.token_hex(4)}", tmp_path / "app.env")
    database.made_roles.append(app.user)
    for file in MIGRATIONS.glob("*.sql"):
        shutil.copy(file, folder)
    with (folder / "0001_schema_migrations.sql").open("a") as first:
        first.write("SELECT pg_sleep(3);\n")
    migrate = subprocess.Popen(
        invoke_argv("migrate", "--migrations-dir", str(folder)),
        env={**ENV, "POSTGRES_ADMIN_DSN": database.uri},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    until("it is at work", lambda: sleeps(database) or migrate.poll() is not None)
    app.make()
    assert migrate.wait() == 0
    assert app.execute("SELECT current_user") == [(app.user,)]


@pytest.mark.once
def test_without_the_migrations_the_next_command_is_named(database: Database, tmp_path: Path) -> None:
    app = App(database, "nobody_yet", tmp_path / "app.env")
    result = app.roles("--secrets-file", str(app.file))
    assert result.returncode == 1
    assert "next:  invoke migrate" in result.stderr
    assert not app.file.exists()
    nowhere = app.roles()
    assert nowhere.stderr.endswith(
        "next:  invoke migrate, then: invoke roles --backtest-service-user nobody_yet --secrets-file app.env\n"
    )


def test_who_may_not_make_roles_is_told_what_an_administrator_runs(azure_server: Dsn) -> None:
    for database in databases.new_database(azure_server, azure=True):
        admin = Database(azure_server.with_params(dbname=database.dsn.database))
        user = f"plain_{secrets.token_hex(4)}"
        database.made_roles.append(user)
        admin.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'not seen'")
        admin.execute(f"ALTER DATABASE {database.dsn.database} OWNER TO {user}; ALTER SCHEMA public OWNER TO {user}")
        uri = replace(database.dsn.with_params(user=user), password=Secret("not seen")).uri().reveal()
        # The groups are there already, made by another: then it is the membership that is missing.
        admin.execute("DO $$ BEGIN CREATE ROLE serving_owner; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        result = invoke("migrate", "--dsn", "-", stdin=uri)
        assert result.returncode == 1
        assert f"next:  An administrator runs: GRANT serving_owner TO {user}" in result.stderr
        statement = result.stderr.split("next:  An administrator runs: ")[1].split(";")[0]
        admin.execute(statement)
        result = invoke("migrate", "--dsn", "-", stdin=uri)
        assert result.returncode == 0, result.stderr


@as_azure
def test_somebody_who_is_no_owner_is_told_before_anything_runs(app: App, folder: Path) -> None:
    app.make()
    for file in MIGRATIONS.glob("*.sql"):
        shutil.copy(file, folder)
    (folder / "0004_t.sql").write_text("CREATE TABLE core.t (id int);\n")
    result = invoke("migrate", "--dsn", "-", "--migrations-dir", str(folder), stdin=app.uri)
    assert result.returncode == 1
    assert f"{app.user} is no member of serving_owner" in result.stderr
    assert f'GRANT "serving_owner" TO "{app.user}"' in result.stderr
    assert app.database.ledger().keys() == {"0001", "0002", "0003"}


@pytest.mark.once
@as_azure
def test_nobody_is_told_to_give_the_application_an_administrators_rights(app: App) -> None:
    app.make()
    another = ("--backtest-service-user", f"{app.user}_too")
    roles = invoke("roles", "--check", *another, env={"POSTGRES_DSN": app.uri})
    for result in (invoke("migrate", "--resume", env={"POSTGRES_DSN": app.uri}), roles):
        assert result.returncode == 1
        told = (
            "next:  POSTGRES_DSN (environment) is the application's DSN: put an administrator's into POSTGRES_ADMIN_DSN, then: "
        )
        assert told in result.stderr
        assert "GRANT" not in result.stderr
    assert roles.stderr.endswith(f"then: invoke roles {' '.join(another)} --check\n")
    settings = {"POSTGRES_DSN": app.uri, "POSTGRES_BACKTEST_SERVICE_USER": app.user}
    result = invoke("roles", "--check", env=settings)
    assert result.returncode == 2
    assert "if that DSN is the application's, put an administrator's into POSTGRES_ADMIN_DSN; else choose" in result.stderr
    mistaken = invoke("migrate", "--resume", env={"POSTGRES_ADMIN_DSN": app.uri, "POSTGRES_BACKTEST_SERVICE_USER": app.user})
    assert "next:  POSTGRES_ADMIN_DSN (environment) is the application's DSN: put an administrator's into" in mistaken.stderr
    assert "GRANT" not in mistaken.stderr


@pytest.mark.once
@as_azure
def test_a_status_without_the_right_to_read_the_ledger_says_what_is_next(app: App) -> None:
    user = f"plain_{secrets.token_hex(4)}"
    app.database.made_roles.append(user)
    superuser(app).execute(f"CREATE ROLE {user} LOGIN PASSWORD 'hers'")
    superuser(app).execute(f"GRANT CONNECT ON DATABASE {app.database.dsn.database} TO {user}")
    uri = replace(app.database.dsn.with_params(user=user), password=Secret("hers")).uri().reveal()
    result = invoke("status", "--dsn", "-", stdin=uri)
    assert result.returncode == 1
    told = "use the DSN of a role that may read public.schema_migrations (it came from --dsn -), then: invoke status --dsn -"
    assert result.stderr.endswith(f"\nnext:  {told}\n")


@as_azure
def test_a_member_who_may_not_become_the_owner_is_told_before_anything_runs(app: App, folder: Path) -> None:
    if int(app.database.execute("SHOW server_version_num")[0][0]) < 160000:
        pytest.skip("before PostgreSQL 16, every member may")
    member = f"member_{secrets.token_hex(4)}"
    app.database.made_roles.append(member)
    app.database.execute(f"CREATE ROLE {member} LOGIN PASSWORD 'hers'")
    app.database.execute(f"GRANT serving_owner TO {member} WITH SET FALSE")
    for file in MIGRATIONS.glob("*.sql"):
        shutil.copy(file, folder)
    (folder / "0004_t.sql").write_text("CREATE TABLE core.t (id int);\n")
    uri = replace(app.database.dsn.with_params(user=member), password=Secret("hers")).uri().reveal()
    words = ("migrate", "--dsn", "-", "--migrations-dir", str(folder))
    refused = invoke(*words, stdin=uri)
    assert refused.returncode == 1
    statement = f'GRANT "serving_owner" TO "{member}" WITH INHERIT TRUE, SET TRUE;'
    assert f"an administrator runs: {statement}" in refused.stderr
    app.database.execute(statement)
    assert invoke(*words, stdin=uri).returncode == 0


@as_azure
def test_a_file_that_needs_the_administrators_own_rights_begins_with_reset_role(app: App, folder: Path) -> None:
    for file in MIGRATIONS.glob("*.sql"):
        shutil.copy(file, folder)
    role = f"made_{secrets.token_hex(4)}"
    app.database.made_roles.append(role)
    (folder / "0004_role.sql").write_text(f"CREATE ROLE {role};\n")
    words = ("migrate", "--dsn", "-", "--migrations-dir", str(folder))
    refused = invoke(*words, stdin=app.database.uri)
    assert refused.returncode == 1
    assert "begin it with RESET ROLE" in refused.stderr
    (folder / "0004_role.sql").write_text(f"RESET ROLE;\nCREATE ROLE {role};\n")
    assert invoke(*words, stdin=app.database.uri).returncode == 0


def test_the_files_behind_0003_in_the_same_run_belong_to_the_group_too(database: Database, folder: Path) -> None:
    for file in MIGRATIONS.glob("*.sql"):
        shutil.copy(file, folder)
    for number in (4, 5):
        (folder / f"000{number}_t.sql").write_text(f"CREATE TABLE core.t{number} (id int);\n")
    (folder / "0006_t.sql").write_text("RESET ROLE;\nCREATE TABLE core.t6 (id int);\n")
    (folder / "0007_t.sql").write_text("-- migrate: no-transaction\nCREATE TABLE core.t7 (id int);\n")
    words = ("migrate", "--dsn", "-", "--migrations-dir", str(folder))
    assert invoke(*words, "--to", "4", stdin=database.uri).returncode == 0
    assert invoke(*words, stdin=database.uri).returncode == 0
    owners = database.execute("SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'core' ORDER BY 1")
    admin = database.dsn.params["user"]
    assert owners == [("t4", "serving_owner"), ("t5", "serving_owner"), ("t6", admin), ("t7", "serving_owner")]
