"""What migration files come to on a scratch server, and whether two builds of them come to the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from shutil import copyfile

from scripts import clients, clock, embedded, pg_dump, safety, schema, settings, target
from scripts import dsn as dsns
from scripts.clients import Mode
from scripts.console import silent
from scripts.dsn import Dsn
from scripts.runner import Applied, Options, Runner
from scripts.safety import Checked
from scripts.schema import Difference, Thing
from scripts.sql import Folder
from scripts.target import Target

_DIFFERENT = ("SEQUENCE SET",)  # how far a sequence has been counted, which no rollback takes back
# Roles are the server's, of which pg_dump of one database says nothing.
_ROLES = """SELECT pg_catalog.format('%s: %s', r.rolname, (pg_catalog.to_jsonb(r) - '{oid,rolname,rolpassword}'::text[])::text)
  FROM pg_catalog.pg_roles AS r WHERE r.rolname !~ '^pg_'
  UNION ALL SELECT pg_catalog.format('%s: member of %s', m.member::regrole, m.roleid::regrole)
  FROM pg_catalog.pg_auth_members AS m WHERE m.roleid::regrole::text !~ '^pg_' ORDER BY 1"""


@dataclass(frozen=True, kw_only=True)
class Files:
    """A folder's files, all read through and found in order."""

    folder: Folder
    checked: Mapping[str, Checked]  # by file, in the order in which they run

    @classmethod
    def read(cls, path: Path, again: str) -> Files:
        """Raises OpsError with all that is wrong with them; `again` is the command to repeat."""
        folder, checked = safety.read_folder(path)
        checked = {migration.file: checked.get(migration.file) or safety.check(migration, path) for migration in folder.files}
        problems = [*folder.problems, *(problem for item in checked.values() for problem in item.problems)]
        if problems:
            raise safety.refusal(problems, path, again)
        return cls(folder=folder, checked=checked)

    def write(self, folder: Path, file: str, text: str | None = None) -> None:
        """Writes a file, and all that it reads, into a folder; asking for the time by functions. `text` is another for it."""
        item = self.checked[file]
        scripts = {**item.includes, file: item.migration.text if text is None else text}
        for path, content in item.files.items():
            copy = folder / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path in scripts:
                copy.write_bytes(clock.asking_functions(scripts[path]).encode("utf-8"))
            elif isinstance(content, Path):
                copyfile(content, copy)


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database of a scratch server, by the psql of a mode."""

    dsn: Dsn
    env: Mapping[str, str]
    mode: Mode = Mode.EMBEDDED

    @property
    def target(self) -> Target:
        """What the runner takes."""
        found = settings.Sources(self.env, {}, ".env")
        return target.at(self.dsn, "a scratch server", mode=self.mode, flags=[], found=found)

    def by(self, mode: Mode) -> Database:
        """The same by another psql."""
        return replace(self, mode=mode)

    def reach(self) -> None:
        """Raises OpsError when the psql of its mode doesn't come to it."""
        self.target.ask(lambda session: session.read("SELECT"))

    def migrate(self, folder: Path, **options: object) -> tuple[Applied, ...]:
        """Applies a folder, and says nothing. Raises OpsError, whose message has no other path than those of the files."""
        runner = Runner(self.target, Options(folder=folder, **options), silent())  # type: ignore[arg-type]
        return runner.apply().applied

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Runs a statement as the superuser; returns its rows."""
        return self.execute_all([statement])[-1]

    def execute_all(self, statements: Iterable[str]) -> list[list[tuple[object, ...]]]:
        """Runs statements as the superuser, each by itself; returns the rows of each."""
        import psycopg

        with psycopg.connect(self.dsn.uri().reveal(), autocommit=True) as connection:
            cursors = [connection.execute(statement.encode()) for statement in statements]
            return [cursor.fetchall() if cursor.description else [] for cursor in cursors]

    def stop_clock(self, moment: datetime) -> Database:
        """The same, where it is always that moment."""
        self.execute_all(clock.stopped_at(moment).split(";\n"))
        return self

    def snapshot(self) -> list[Thing]:
        """All that is in it and on its server: the schema, the rows, in no order, and the roles. Not the ledger's rows."""
        dump = pg_dump.run(self.by(Mode.EMBEDDED).target, owners=True, rows=True, again="invoke migrations.prove")
        things = [_unordered(thing) for thing in schema.read(dump.text) if thing.type not in _DIFFERENT]
        roles = tuple(str(row[0]) for row in self.execute(_ROLES))
        return [*things, Thing(type="ROLES", schema="", name="of the server", statements=roles)]


def _unordered(thing: Thing) -> Thing:
    return replace(thing, statements=tuple(sorted(thing.statements))) if thing.type == "TABLE DATA" else thing


def difference(expected: Iterable[Thing], found: Iterable[Thing]) -> list[Difference]:
    """What one build has otherwise than another."""
    return schema.compare(files=expected, database=found)


def modes(env: Mapping[str, str]) -> dict[Mode, str]:
    """The ways to run psql beside the embedded one, each with why it is none here, or nothing."""
    there = set(
        clients.available(
            dsns.parse(f"postgresql://{embedded.ADMIN}@{embedded.HOST}/{embedded.DATABASE}", "a scratch server"), env
        )
    )
    return {
        Mode.LOCAL: "" if Mode.LOCAL in there else "no psql is on PATH",
        Mode.DOCKER: "" if Mode.DOCKER in there else "no Docker engine answers",
    }
