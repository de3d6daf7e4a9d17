"""The real PostgreSQL behind an emulated flexible server: what Azure's control plane does to it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from scripts import container
from scripts.container import Container
from scripts.dsn import Dsn
from tests import database as databases
from tests.azure.emulator import Emulator
from tests.azure.resources import Server
from tests.azure.world import World
from tests.database import ENV


@dataclass
class Postgres:
    """A container that stands for one server at a time."""

    container: Container

    @property
    def superuser(self) -> Dsn:
        return self.container.dsn()

    @property
    def address(self) -> str:
        """The container's own, where it listens on 5432 as Azure does; this machine is let in there without a firewall."""
        networks = container.connect(ENV).containers.get(self.container.name).attrs["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def execute(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.superuser.with_params(dbname=database).uri().reveal(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def make(self, server: Server) -> str:
        """The administrator, who is no superuser; returns the host."""
        self.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB IN ROLE azure_pg_admin").format(sql.Identifier(server.login))
        )
        self.set_password(server)
        return self.address

    def set_password(self, server: Server) -> None:
        self.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(server.login), sql.Literal(server.password)))

    def make_database(self, _: Server, name: str) -> None:
        self.execute(sql.SQL("CREATE DATABASE {} OWNER azure_pg_admin").format(sql.Identifier(name)))


@contextlib.contextmanager
def azure_postgres(home: Path) -> Iterator[Postgres]:
    """A PostgreSQL with TLS in a container of its own, as Azure's administrators have one."""
    server = databases.start_server("docker", home)
    assert isinstance(server, Container)
    try:
        databases.with_azure_group(server.dsn())
        postgres = Postgres(server)
        postgres.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(server.dsn().database)))
        yield postgres
    finally:
        server.stop()
        server.purge()


@contextlib.contextmanager
def whole_world(az_program: str, home: Path) -> Iterator[tuple[World, Postgres]]:
    """A user's machine, with a real Postgres behind the emulated server."""
    with (
        azure_postgres(home / "server") as postgres,
        Emulator(on_server=postgres.make, on_password=postgres.set_password, on_database=postgres.make_database) as emulator,
        World(emulator, home, az_program, f"serving-{secrets.token_hex(4)}") as world,
    ):
        yield world, postgres
