"""`invoke migrations.drift`: none right after a run, each kind of it named, and the database only read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import proofs
from tests.database import Database, as_azure, invoke

TABLE = "CREATE TABLE core.runs (id int PRIMARY KEY, at timestamptz);\nCREATE INDEX runs_at ON core.runs (at);\n"
VIEW = "CREATE VIEW gold.late AS SELECT id FROM core.runs WHERE at > '2026-01-01' AND id IN (SELECT 1);\n"
FUNCTION = (
    "CREATE FUNCTION core.one() RETURNS int LANGUAGE sql AS $$\n--\n-- Name: x; Type: TABLE; Schema: core; Owner: -\n--\n\n"
    "SELECT 1$$;\nCOMMENT ON FUNCTION core.one() IS 'one';\n"
)


def drift(database: Database, *words: str) -> subprocess.CompletedProcess[str]:
    return invoke("migrations.drift", "--dsn", "-", *words, stdin=database.uri)


def differences(database: Database, *words: str) -> list[dict[str, Any]]:
    result = drift(database, "--json", *words)
    document = json.loads(result.stdout)
    assert "differences" in document, result.stderr
    assert result.returncode == (3 if document["differences"] else 0)
    return list(document["differences"])


def named(database: Database, *words: str) -> set[str]:
    return {
        " ".join(filter(None, (found["kind"], found["type"], found["schema"], found["name"])))
        for found in differences(database, *words)
    }


@pytest.fixture
def files(folder: Path) -> Path:
    """The project's own three files, and two with objects of each kind."""
    for path in (Path(__file__).parents[2] / "migrations").glob("0*.sql"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "0011_table.sql").write_text(TABLE + VIEW)
    (folder / "0012_function.sql").write_text(FUNCTION)
    return folder


@pytest.mark.parametrize("serving", ["azure", pytest.param("superuser", marks=pytest.mark.long)], indirect=True)
def test_there_is_none_after_a_run_and_roles_and_all_that_is_done_by_hand_is_named(serving: Database, files: Path) -> None:
    user = f"app_{serving.dsn.database}"
    serving.made_roles.append(user)
    assert proofs.migrate(serving, files, "local").returncode == 0
    made = invoke("roles", "--dsn", "-", "--backtest-service-user", user, "--emit-secrets", stdin=serving.uri)
    assert made.returncode == 0, made.stderr
    before = serving.dump()
    words = ("--migrations-dir", str(files))
    result = drift(serving, *words)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert result.stdout.splitlines()[-1] == f"no drift: {serving.dsn.database} is as the 5 files of {files} make it"
    assert serving.dump() == before

    serving.execute(
        "SET ROLE serving_owner; DROP INDEX core.runs_at; ALTER TABLE core.runs ADD COLUMN by_hand int;"
        "CREATE OR REPLACE FUNCTION core.one() RETURNS int LANGUAGE sql AS 'SELECT 2';"
        "COMMENT ON FUNCTION core.one() IS 'two'; GRANT DELETE ON core.runs TO serving_reader"
    )
    serving.execute("CREATE SCHEMA by_hand; CREATE TABLE by_hand.t (id int)")
    before = serving.dump()
    assert named(serving, *words) == {
        "only in the files INDEX core runs_at",
        "differs TABLE core runs",
        "differs FUNCTION core one()",
        "differs COMMENT core FUNCTION one()",
        "differs ACL core TABLE runs",
        "only in the database SCHEMA by_hand",
        "only in the database TABLE by_hand t",
    }
    result = drift(serving, *words)
    assert result.returncode == 3
    assert "  differs: TABLE core.runs" in result.stdout.splitlines()
    assert "      +    by_hand integer" in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1].startswith(f"7 differences between {serving.dsn.database} and the 5 files")
    assert serving.dump() == before


@pytest.mark.long
@pytest.mark.once
def test_pending_files_do_not_count_wherever_they_stand(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    (folder / "0003_c.sql").write_text("CREATE TABLE c (id int);\n")
    assert proofs.migrate(database, folder, "embedded").returncode == 0
    (folder / "0002_b.sql").write_text("CREATE TABLE b (id int);\n")
    (folder / "0004_d.sql").write_text("CREATE TABLE d (id int);\n")
    result = drift(database, "--migrations-dir", str(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 pending, not counted: 0002_b.sql, 0004_d.sql" in result.stdout.splitlines()
    assert named(database, "--migrations-dir", str(folder), "--to", "2") == {
        "only in the database TABLE public c",
        "only in the files TABLE public b",
    }


@pytest.mark.once
def test_a_database_whose_first_file_failed_has_its_ledger_alone(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("SELECT 1 / 0;\n")
    assert proofs.migrate(database, folder, "embedded").returncode == 1
    assert named(database, "--migrations-dir", str(folder)) == set()


@pytest.mark.long
@pytest.mark.once
def test_without_a_ledger_all_files_count_and_none_is_made(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    before = database.dump()
    result = drift(database, "--migrations-dir", str(folder))
    assert result.returncode == 3
    assert "the database has no ledger" in result.stderr
    assert "  only in the files: TABLE public.a" in result.stdout.splitlines()
    assert database.dump() == before
    database.execute("CREATE TABLE a (id int)")
    assert drift(database, "--migrations-dir", str(folder)).returncode == 0


@pytest.mark.long
@pytest.mark.once
def test_a_role_that_only_one_side_has_counts_when_asked_for(database: Database, folder: Path) -> None:
    role = f"only_{database.dsn.database}"
    database.made_roles.append(role)
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    assert proofs.migrate(database, folder, "embedded").returncode == 0
    words = ("--migrations-dir", str(folder))
    database.execute(f"CREATE ROLE {role}; GRANT SELECT ON a TO {role}")
    assert named(database, *words) == set()
    assert named(database, *words, "--roles") == {"only in the database ACL public TABLE a"}
    database.execute(f"ALTER TABLE a OWNER TO {role}")
    assert named(database, *words) == set()
    assert "differs TABLE public a" in named(database, *words, "--roles")
    database.execute(f"DROP OWNED BY {role}")


@pytest.mark.long
@pytest.mark.once
def test_a_role_that_the_files_take_for_granted_is_one_of_both_sides(database: Database, folder: Path) -> None:
    role = f"granted_{database.dsn.database}"
    database.made_roles.append(role)
    (folder / "0001_a.sql").write_text(f"CREATE TABLE a (id int);\nGRANT SELECT ON a TO {role};\n")
    database.execute(f"CREATE ROLE {role}")
    assert proofs.migrate(database, folder, "embedded").returncode == 0
    assert named(database, "--migrations-dir", str(folder)) == set()
    database.execute(f"REVOKE SELECT ON a FROM {role}")
    assert named(database, "--migrations-dir", str(folder)) == {"only in the files ACL public TABLE a"}


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT 1 / 0;\n", "0002_b.sql:1: ERROR: division by zero"),
        ("CREATE EXTENSION no_such_one;\n", "0002_b.sql:1: CREATE EXTENSION no_such_one"),
        ("SELECT 'CREATE EXTENSION no_such_one' \\gexec\n", 'extension "no_such_one" is not available'),
    ],
)
def test_a_file_that_cannot_be_built_is_named(database: Database, folder: Path, text: str, says: str) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    (folder / "0002_b.sql").write_text(text)
    result = drift(database, "--migrations-dir", str(folder))
    assert result.returncode == 1
    assert says in result.stderr
    assert "invoke migrations.dump" in result.stderr  # the way out
    assert "kept:" not in result.stderr
    assert "nothing was applied" not in result.stderr
    assert ("lacks an extension" in result.stderr) == ("EXTENSION" in text)


@pytest.mark.long
@pytest.mark.once
def test_a_file_that_was_changed_counts_as_it_is_now(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    assert proofs.migrate(database, folder, "embedded").returncode == 0
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id bigint);\n")
    result = drift(database, "--migrations-dir", str(folder))
    assert result.returncode == 3
    assert "0001_a.sql is changed" in result.stderr
    assert "  differs: TABLE public.a" in result.stdout.splitlines()


@pytest.mark.long
@pytest.mark.once
def test_moments_are_read_as_the_live_server_reads_them(database: Database, folder: Path) -> None:
    database.execute(f"ALTER DATABASE {database.dsn.database} SET timezone = 'Asia/Tokyo'")
    database.execute(f"ALTER DATABASE {database.dsn.database} SET datestyle = 'SQL, DMY'")
    (folder / "0001_a.sql").write_text("CREATE TABLE a (at timestamptz DEFAULT '2/3/2026 10:00');\n")
    assert proofs.migrate(database, folder, "embedded").returncode == 0
    assert named(database, "--migrations-dir", str(folder)) == set()
    database.execute(f"ALTER DATABASE {database.dsn.database} RESET timezone")
    [found] = differences(database, "--migrations-dir", str(folder))  # the file means another moment from now on
    assert "2026-03-02 01:00:00+00" in found["diff"]


@pytest.mark.once
@as_azure
def test_a_database_has_its_name_on_the_scratch_server_too(serving: Database, files: Path) -> None:
    (files / "0013_named.sql").write_text(f"RESET ROLE;\nCOMMENT ON DATABASE {serving.dsn.database} IS 'by its name';\n")
    assert proofs.migrate(serving, files, "embedded").returncode == 0
    assert named(serving, "--migrations-dir", str(files)) == set()
