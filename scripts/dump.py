"""Writes down the schema of a database, as a file that a review can read and an empty database can load."""

from __future__ import annotations

import json
import os
from pathlib import Path

from scripts import ledger, pg_dump, schema
from scripts.console import Console
from scripts.errors import OpsError, UsageError, counted
from scripts.psql import Session
from scripts.settings import shown
from scripts.shell import quoted
from scripts.target import Target

NAME = "schema.sql"  # in the migrations folder, where the runner leaves it alone
_LOGINS = "SELECT coalesce(pg_catalog.json_agg(rolname), '[]') FROM pg_catalog.pg_roles WHERE rolcanlogin"
_COMMENT = """The schema of the database, with what its groups may do: written by `invoke migrations.dump`, not by hand.
It loads into an empty database: psql -v ON_ERROR_STOP=1 -f schema.sql"""


def run(goal: Target, path: Path, wait: float, console: Console) -> None:
    """Writes the file, unless it says the same already. What login roles may do is left out: that is `invoke roles`' matter."""

    def look(session: Session) -> tuple[ledger.Facts, set[str]]:
        return ledger.facts(session.read(ledger.FACTS)), set(json.loads("".join(session.read(_LOGINS))))

    facts, logins = goal.ask(look, wait=wait)
    again = " ".join(filter(None, ["invoke migrations.dump", goal.flags, f"--out {quoted(path)}"]))
    dump = pg_dump.run(goal, owners=False, again=again)
    things = schema.with_rights_of(schema.read(dump.text), lambda role: role not in logins)
    changed = _write(path, schema.write(things, _COMMENT))
    console.say(f"{shown(path)} {'is written' if changed else 'is up to date'}: {counted(len(things), 'object')} of {goal.dsn}")
    console.document(
        {
            "target": str(goal.dsn),
            "server_version": facts.version,
            "file": str(path),
            "changed": changed,
            "objects": len(things),
        }
    )


def named(out: str) -> Path:
    """The file that --out names. Raises UsageError."""
    if not out or Path(out).is_dir():
        raise UsageError("--out is empty" if not out else f"--out {out} is a folder", "name a file, or leave it away")
    return Path(out).resolve()


def _write(path: Path, text: str) -> bool:
    """Writes the file whole or not at all; False when it was the same."""
    data = text.encode("utf-8")
    try:
        if path.is_file() and path.read_bytes() == data:
            return False
        new = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            new.write_bytes(data)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise OpsError(f"{path} can't be written: {error.strerror}", "name another file: --out") from None
    return True
