"""Says which migrations a database has, and writes nothing."""

from __future__ import annotations

from pathlib import Path

from scripts import ledger, safety
from scripts.console import Console
from scripts.errors import ExitCode, OpsError
from scripts.plan import Plan, State, make_plan
from scripts.psql import NOT_ALLOWED, PsqlError, Session
from scripts.target import Target


def run(target: Target, folder: Path, wait: float, console: Console) -> ExitCode:
    """Prints every migration with its state and a summary; PENDING unless all are applied and unchanged."""
    found, checked = safety.read_folder(folder)

    def look(session: Session) -> tuple[ledger.Facts, Plan]:
        facts, rows = ledger.observe(session.read)
        return facts, make_plan(found, rows, command=lambda words: target.command(words, folder))

    try:
        facts, plan = target.ask(look, wait=wait)
    except PsqlError as error:
        if error.error is None or error.error.sqlstate != NOT_ALLOWED:
            raise
        again = target.command("status", folder)
        hint = f"use the DSN of a role that may read {ledger.TABLE} (it came from {target.origin}), then: {again}"
        raise OpsError(f"the server refused: {error.error.text}", hint) from None
    console.say(f"target: {target.dsn} (PostgreSQL {facts.version})")
    rows = []
    for entry in plan.entries:
        row = entry.row
        when = [(row.applied_at or "")[:19].replace("T", " "), row.applied_by or ""] if row else ["", ""]
        took = f"{row.duration_ms} ms" if row and row.duration_ms is not None else ""
        rows.append([entry.file, entry.state.value, *when, took])
    if rows:
        console.table(rows)
    problems = [*plan.problems, *safety.check_all(plan.pending, folder, checked)]  # all that `migrate` would refuse
    for problem in problems:
        console.say(f"  {problem}")
    counts = {state: plan.count(state) for state in State}
    console.say(", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "no migrations")
    console.document(
        {
            "target": str(target.dsn),
            "server_version": facts.version,
            "summary": {state.value: count for state, count in counts.items()},
            "problems": [str(problem) for problem in problems],
            "migrations": [
                {
                    "version": entry.version,
                    "file": entry.file,
                    "state": entry.state.value,
                    "applied_at": entry.row.applied_at if entry.row else None,
                    "applied_by": entry.row.applied_by if entry.row else None,
                    "duration_ms": entry.row.duration_ms if entry.row else None,
                }
                for entry in plan.entries
            ],
        }
    )
    fine = not problems and counts[State.APPLIED] + counts[State.RETIRED] == len(plan.entries)
    return ExitCode.OK if fine else ExitCode.PENDING
