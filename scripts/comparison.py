"""A database against what migration files build on a scratch server. The database is only read.

Both are dumped by the same pg_dump. Where their major versions differ, the database's schema is loaded into a scratch
server too, so that both are in the words of one version: each writes a view in its own way.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from scripts import PRODUCT, embedded, ledger, pg_dump, schema, scratch, target
from scripts.catalogs import identifier
from scripts.clients import Mode
from scripts.console import Console, one_line, silent
from scripts.errors import Interrupted, OpsError
from scripts.ledger import Facts, Row
from scripts.psql import PsqlError, Session
from scripts.runner import Options, Runner
from scripts.schema import Difference, Side, Thing
from scripts.scratch import Server, Servers
from scripts.target import Target

_ROLES = "SELECT pg_catalog.json_agg(rolname) FROM pg_catalog.pg_roles"
# What decides how the text of a file is understood, without a word of it in the file.
_SETTINGS = """SELECT pg_catalog.json_object_agg(name, setting) FROM pg_catalog.pg_settings
  WHERE name IN ('TimeZone', 'DateStyle', 'IntervalStyle', 'default_text_search_config')"""
_EXTENSIONS = "SELECT pg_catalog.json_agg(name) FROM pg_catalog.pg_available_extensions"
_OLD, _NEW = 16, 18  # the versions of the scratch servers
_NO_ROLE = re.compile(r'role "(?P<name>.+?)" does not exist')
# Before anything runs, as `preflight` says it, or from the server, of one that \\gexec makes, say.
_NO_EXTENSION = re.compile(r'the server has no such extension|extension ".+?" is not available')
_LEDGER = re.compile(rf"\b{ledger.TABLE.split('.')[1]}\b")
WAY_OUT = (
    "the scratch server is PostgreSQL as it comes; with an image that has what is missing (POSTGRES_IMAGE): invoke up --docker; "
    "invoke migrate --local; invoke migrations.dump --local --out built.sql; invoke migrations.dump --out database.sql; "
    "and compare the two files"
)


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files that count: those of a folder without some."""

    folder: Path
    left_out: Collection[str] = ()  # file names
    none: bool = False  # whether that leaves nothing


def scratch_version(number: int) -> int:
    """The scratch server's version for a server_version_num: the next that there is."""
    return _OLD if number // 10000 <= _OLD else _NEW


@dataclass(frozen=True, kw_only=True)
class Live:
    """What a comparison has to know of the database."""

    facts: Facts
    rows: Sequence[Row]  # of its ledger
    roles: frozenset[str]  # of its server
    settings: Mapping[str, str]  # those that files are read by


def look(session: Session) -> Live:
    """Asks the database."""
    facts, rows = ledger.observe(session.read)
    return Live(
        facts=facts,
        rows=rows,
        roles=_roles(session),
        settings=json.loads("".join(session.read(_SETTINGS))),
    )


def _roles(session: Session) -> frozenset[str]:
    return frozenset(json.loads("".join(session.read(_ROLES))))


def compare(
    goal: Target, live: Live, files: Files, *, all_roles: bool, made_roles: bool = False, again: str, console: Console
) -> list[Difference]:
    """What the database and the files don't have alike. Owners, and roles that only one has, count with `all_roles`.

    With `made_roles`, those count that the files make and the live server lacks.
    Raises OpsError when the database can't be read, a file can't be built or something can't be compared.
    """
    dump = pg_dump.run(goal, owners=all_roles, again=again)
    mine = schema.read(dump.text)
    version = scratch_version(live.facts.number)
    with scratch.servers(goal.env) as servers:
        with console.working(f"building the files on a scratch server (PostgreSQL {version})"), servers.server(version) as server:
            at = _at(server, goal, live)
            with _counted(files, ledger_exists=live.facts.ledger) as folder:
                built(at, folder, live.roles)
            same = live.facts.number // 10000 == version
            text = pg_dump.run(replace(at, mode=dump.mode) if same else at, owners=all_roles, again=again).text
            roles = at.ask(_roles)
        if not same:
            mine = _reloaded(servers, mine, goal, live, version, all_roles=all_roles, again=again)
    theirs = schema.read(text)
    if not live.facts.ledger:  # what the runner itself would add is no drift of a database that it never ran on
        theirs = [thing for thing in theirs if thing.schema != "public" or not _LEDGER.search(thing.name)]
    missing = sorted(name for name in roles - live.roles - {embedded.ADMIN} if not name.startswith("pg_")) if made_roles else []
    theirs += [Thing(type="ROLE", schema="", name=name, statements=(f"CREATE ROLE {identifier(name)};",)) for name in missing]
    if not all_roles:
        both = (live.roles & roles) | set(missing)
        mine, theirs = (schema.with_rights_of(side, both.__contains__) for side in (mine, theirs))
    return schema.compare(database=mine, files=theirs)


def show(differences: Sequence[Difference], console: Console) -> None:
    """Prints each with its lines: + is how the database has it, - how the files make it."""
    for difference in differences:
        console.say(f"  {one_line(str(difference))}")
        for line in difference.diff.split("\n")[2 if difference.side is Side.BOTH else 3 :]:  # without what names the sides
            console.say(f"      {one_line(line)}".rstrip())


def document(differences: Sequence[Difference]) -> list[dict[str, str | None]]:
    """The same for a JSON document."""
    return [
        {
            "kind": difference.side.value,
            "type": difference.thing.type,
            "schema": difference.thing.schema or None,
            "name": difference.thing.name,
            "diff": difference.diff,
        }
        for difference in differences
    ]


def built(at: Target, folder: Path, server_roles: Collection[str]) -> None:
    """Applies the files to a scratch server. A role that they take for granted is made, if the live server has it."""
    made: set[str] = set()
    while True:
        try:
            Runner(at, Options(folder=folder, resume=True), silent()).apply()
        except Interrupted:
            raise Interrupted("interrupted; nothing was written") from None
        except OpsError as error:
            role = _NO_ROLE.search(error.message)
            if role is not None and role["name"] in server_roles and role["name"] not in made:
                made.add(role["name"])
                _make_roles(at, [role["name"]])
                continue
            raise _unbuilt(error) from None
        return


def _unbuilt(error: OpsError) -> OpsError:
    what = error.message.partition("\n  kept: ")[0].replace("; nothing was applied", "")
    if _NO_EXTENSION.search(what):
        return OpsError(f"the scratch server lacks an extension, and what rests on it can't be compared:\n{what}", WAY_OUT)
    return OpsError(
        f"the files can't be built on a scratch server:\n{what}",
        f"if the file is right, and the server lacks something: {WAY_OUT}",
    )


def _at(server: Server, goal: Target, live: Live) -> Target:
    """A database on a scratch server with the live one's name, which files may use, and its settings."""
    at = target.at(server.dsn, "a scratch server", mode=Mode.EMBEDDED, flags=[], found=goal.found)
    name = goal.dsn.database
    make = [] if name == at.dsn.database else [f"CREATE DATABASE {identifier(name)}"]
    settings = [f"ALTER DATABASE {identifier(name)} SET {key} = {ledger.literal(value)}" for key, value in live.settings.items()]
    at.ask(lambda session: [session.query(statement) for statement in (*make, *settings)])
    return replace(at, dsn=at.dsn.with_params(dbname=name))


def _make_roles(at: Target, names: Collection[str]) -> None:
    at.ask(lambda session: [session.query(f"CREATE ROLE {identifier(name)}") for name in sorted(names)])


@contextmanager
def _counted(files: Files, *, ledger_exists: bool) -> Iterator[Path]:
    """The folder, or a copy of it without the files that don't count."""
    if not files.left_out:
        yield files.folder
        return
    with tempfile.TemporaryDirectory(prefix=f"{PRODUCT}-") as name:
        copy = Path(name) / "migrations"
        shutil.copytree(files.folder, copy)
        for file in files.left_out:
            (copy / file).unlink()
        if files.none and ledger_exists:  # which the runner makes for the sake of a file alone
            (copy / "0_ledger.sql").write_text("SELECT;\n", encoding="utf-8")
        yield copy


def _reloaded(
    servers: Servers, things: list[Thing], goal: Target, live: Live, version: int, *, all_roles: bool, again: str
) -> list[Thing]:
    """The database's schema in the words of a scratch server's version. An extension that it lacks is left as it is."""
    with servers.server(version) as server:
        at = _at(server, goal, live)
        known = set(json.loads("".join(at.ask(lambda session: session.query(_EXTENSIONS)))))
        lacking = [thing for thing in things if _extension(thing) not in (None, *known)]
        text = schema.write([thing for thing in things if thing not in lacking], "")
        _make_roles(at, {name for name in live.roles - at.ask(_roles) if not name.startswith("pg_")})
        try:
            at.ask(lambda session: session.query(text))
        except PsqlError as error:
            raise OpsError(
                f"{goal.dsn} can't be compared: its schema can't be loaded into a scratch server (PostgreSQL {version}):\n"
                f"{error.message}",
                WAY_OUT,
            ) from None
        return lacking + schema.read(pg_dump.run(at, owners=all_roles, again=again).text)


def _extension(thing: Thing) -> str | None:
    """The extension that an object is, or is about."""
    if thing.type == "EXTENSION":
        return thing.name
    return thing.name.removeprefix("EXTENSION ") if thing.type == "COMMENT" and thing.name.startswith("EXTENSION ") else None
