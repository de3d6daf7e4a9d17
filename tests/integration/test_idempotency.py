"""The project's own migrations may be applied again, by the runner and by bare psql, without a trace."""

from __future__ import annotations

from scripts.settings import MIGRATIONS
from tests.database import Database, invoke


def migrate(database: Database, mode: str) -> str:
    result = invoke("migrate", "--dsn", "-", "--psql", mode, stdin=database.uri)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_apply_twice_and_every_file_by_bare_psql(database: Database, mode: str) -> None:
    assert "applied 3 of 3" in migrate(database, mode)
    built, rows = database.dump(), database.execute("SELECT * FROM public.schema_migrations ORDER BY version")

    assert "nothing to do" in migrate(database, mode)
    for file in sorted(MIGRATIONS.glob("*.sql")):
        again = database.psql("-f", str(file))
        assert again.returncode == 0, again.stderr
        assert "ERROR" not in again.stderr

    assert database.dump() == built
    assert database.execute("SELECT * FROM public.schema_migrations ORDER BY version") == rows


def test_bare_psql_builds_the_same_schema(database: Database, server: object) -> None:
    for file in sorted(MIGRATIONS.glob("*.sql")):
        assert database.psql("-f", str(file)).returncode == 0
    by_psql = database.dump()
    assert "applied 3 of 3" in migrate(database, "embedded")
    assert database.dump() == by_psql


def test_an_older_ledger_is_upgraded_in_place(database: Database) -> None:
    database.execute("CREATE TABLE public.schema_migrations (version text PRIMARY KEY, applied_at timestamptz)")
    database.execute("INSERT INTO public.schema_migrations VALUES ('0001', '2024-01-02 03:04:05+00')")
    migrate(database, "embedded")
    upgraded = database.dump()
    rows = database.execute(
        "SELECT version, state, applied_at::date::text, checksum IS NULL FROM public.schema_migrations ORDER BY 1"
    )
    assert rows[0] == ("0001", "applied", "2024-01-02", True)
    assert [row[0] for row in rows] == ["0001", "0002", "0003"]

    database.execute("DROP TABLE public.schema_migrations")
    database.execute("DROP SCHEMA core, backtest, monitoring, gold, platinum")
    migrate(database, "embedded")
    assert database.dump() == upgraded
