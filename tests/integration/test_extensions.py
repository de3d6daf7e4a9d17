"""CREATE EXTENSION in a pending file, told before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import preflight
from scripts.dsn import Dsn
from scripts.ledger import literal
from scripts.settings import MIGRATIONS
from tests import database as databases
from tests.database import Database
from tests.proofs import migrate


@pytest.fixture
def azure(azure_server: Dsn) -> Iterator[Database]:
    """A database of Azure's kind, migrated, whose administrator is no superuser."""
    yield from databases.new_database(azure_server, azure=True, migrated=True)


def allow(database: Database, extensions: str) -> None:
    """As on a flexible server, where the setting is the server's; here it is the database's."""
    name = database.dsn.database
    Database(database.superuser or database.dsn).execute(f"ALTER DATABASE {name} SET azure.extensions = {literal(extensions)}")


def untrusted(database: Database) -> str:
    """An extension that the server has, and that takes more than the right to create in the database."""
    query = "SELECT name FROM pg_available_extensions WHERE name IN ('vector', 'pageinspect') ORDER BY name DESC"
    return str(database.execute(query)[0][0])


def copy_of_the_project(folder: Path) -> None:
    for path in MIGRATIONS.glob("*.sql"):
        (folder / path.name).write_bytes(path.read_bytes())


def test_one_that_azure_does_not_allow(azure: Database, folder: Path) -> None:
    allow(azure, "PG_TRGM, ltree")
    copy_of_the_project(folder)
    (folder / "0004_a.sql").write_text("CREATE TABLE core.a (id int);\n")
    (folder / "0005_b.sql").write_text(
        "CREATE EXTENSION IF NOT EXISTS pg_trgm;\n-- CREATE EXTENSION x\nCREATE EXTENSION Vector;\n"
        'CREATE EXTENSION "uuid-ossp";\n'
    )
    before = azure.ledger()
    refused = (
        "the server doesn't allow these extensions (azure.extensions); nothing was applied:\n"
        "  0005_b.sql:3: CREATE EXTENSION vector\n  0005_b.sql:4: CREATE EXTENSION uuid-ossp\n"
        "next:  az postgres flexible-server parameter set --resource-group RESOURCE_GROUP --server-name 127 "
        "--name azure.extensions --value PG_TRGM,ltree,vector,uuid-ossp; then: invoke migrate"
    )
    for flags in [(), ("--plan",), ("--rehearse",)]:
        result = migrate(azure, folder, "embedded", *flags)
        assert result.returncode == 1
        assert refused in result.stderr
    assert azure.ledger() == before


def test_one_that_is_allowed_or_there_already(database: Database, folder: Path) -> None:
    name = untrusted(database)
    allow(database, f"ltree,{name.upper()}")
    (folder / "0001_a.sql").write_text(f"CREATE EXTENSION {name};\n")
    assert migrate(database, folder, "embedded").returncode == 0
    allow(database, "")
    (folder / "0002_b.sql").write_text(f"CREATE EXTENSION IF NOT EXISTS {name};\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 0, result.stderr


RIGHTS = {"super": False, "create": False, "azure": False}


@pytest.mark.once
@pytest.mark.parametrize(
    ("rights", "extension", "azure", "expected"),
    [
        ({"super": True}, {"superuser": True, "trusted": False}, False, True),
        ({"create": True}, {"superuser": True, "trusted": False}, False, False),
        ({"create": True}, {"superuser": True, "trusted": True}, False, True),
        ({"create": True}, {"superuser": False, "trusted": False}, False, True),
        ({}, {"superuser": True, "trusted": True}, False, False),
        ({"azure": True}, {"superuser": True, "trusted": False}, True, True),
        ({"azure": True}, {"superuser": True, "trusted": False}, False, False),
    ],
)
def test_who_may_make_one(rights: dict[str, bool], extension: dict[str, bool], azure: bool, expected: bool) -> None:
    assert preflight.may_make({**RIGHTS, **rights}, extension, azure=azure) is expected


def test_one_that_the_role_may_not_make(azure: Database, folder: Path) -> None:
    copy_of_the_project(folder)
    name = untrusted(azure)
    (folder / "0004_a.sql").write_text(f"CREATE EXTENSION {name};\n")
    before = azure.ledger()
    result = migrate(azure, folder, "embedded")
    assert result.returncode == 1
    assert f"0004_a.sql:1: serving_owner may not make the extension {name}; nothing was applied" in result.stderr
    assert f"next:  a superuser runs: CREATE EXTENSION {name}; then: invoke migrate" in result.stderr

    allow(azure, name)  # on Azure, the administrators' group may make what is allowed
    result = migrate(azure, folder, "embedded")
    assert result.returncode == 1
    assert "next:  files run as serving_owner, and azadmin may: begin 0004_a.sql with RESET ROLE; then: invoke" in result.stderr
    assert azure.ledger() == before


@pytest.mark.once
def test_one_that_the_server_does_not_have(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int);\n")
    (folder / "0002_b.sql").write_text("\\i parts.inc\n")
    (folder / "parts.inc").write_text("CREATE EXTENSION timescaledb CASCADE;\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert "the server has no such extension; nothing was applied:\n  parts.inc:1: CREATE EXTENSION timescaledb" in result.stderr
    assert database.ledger() == {}


@pytest.mark.once
def test_one_that_a_file_asks_for_itself(database: Database, folder: Path) -> None:
    (folder / "0001_a.sql").write_text(
        "SELECT count(*) > 0 AS has FROM pg_available_extensions WHERE name = 'timescaledb' \\gset\n"
        "\\if :has\n  CREATE EXTENSION timescaledb;\n\\endif\n"
    )
    result = migrate(database, folder, "embedded")
    assert result.returncode == 0, result.stderr
