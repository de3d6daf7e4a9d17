"""`invoke migrate`: applies the pending files, or shows or rehearses what it would do."""

from __future__ import annotations

from typing import Any

from scripts.console import Console
from scripts.errors import UsageError, counted
from scripts.ledger import Facts
from scripts.plan import Plan, State
from scripts.runner import Options, Runner
from scripts.target import Target


def run(target: Target, options: Options, console: Console, *, plan_only: bool = False, rehearse: bool = False) -> None:
    """Raises OpsError; what was applied before stays, and running it again goes on from there."""
    if plan_only and rehearse:
        raise UsageError("--plan runs nothing, and --rehearse runs the files and rolls them back", "leave one of them away")
    console.say(f"target: {target.dsn}")
    runner = Runner(target, options, console)
    if plan_only:
        _show_plan(runner, console, *runner.plan())
    elif rehearse:
        _rehearse(runner, console)
    else:
        _apply(runner, console)


def _until(runner: Runner) -> str:
    return f" up to {runner.options.to}" if runner.options.to else ""


def _apply(runner: Runner, console: Console) -> None:
    outcome = runner.apply()
    database = outcome.facts.database
    if outcome.applied:
        total = len(runner.folder.files)
        console.say(f"applied {len(outcome.applied)} of {total} migrations; {database} is up to date{_until(runner)}")
    else:
        _say_nothing_pending(runner, console, outcome.facts, outcome.plan)
    console.document({"target": str(runner.target.dsn), "applied": [vars(item) for item in outcome.applied], "pending": []})


def _say_nothing_pending(runner: Runner, console: Console, facts: Facts, plan: Plan) -> None:
    until = _until(runner)
    known = "all migrations" if until else f"all {counted(plan.count(State.APPLIED), 'migration')}"
    console.say(f"nothing to do: {facts.database} has {known}{until}")


def _show_plan(runner: Runner, console: Console, facts: Facts, plan: Plan) -> None:
    """What would run, how, and which locks it would take."""
    from scripts import locks

    planned: list[dict[str, Any]] = []
    started = [entry.migration for entry in plan.started]
    for name in runner.left:
        first = "would first run" if runner.options.resume else "--resume would first run"
        console.say(f"  {first}: DROP INDEX CONCURRENTLY {name};  -- INVALID, left by the run that was cut off")
    for migration in plan.pending:
        how = "in a transaction" if migration.transactional else "outside a transaction"
        if migration in started:
            how += ", again from its beginning" if runner.options.resume else ", and it was cut off: only with --resume"
        taken = locks.of(runner.checked[migration.file])
        size = len(migration.text.encode("utf-8"))
        console.say(f"  would apply {migration.file}  ({counted(size, 'byte')}, {how})")
        for lock in taken:
            console.say(f"    {lock.file}:{lock.line}: {lock.statement}: {lock.mode} lock, blocks {lock.blocks}")
        planned.append(
            {
                "version": migration.version,
                "file": migration.file,
                "bytes": size,
                "transactional": migration.transactional,
                "locks": [{**vars(lock), "blocks": lock.blocks} for lock in taken],
            }
        )
    if planned:
        console.say(f"{len(planned)} pending; nothing was written")
    else:
        _say_nothing_pending(runner, console, facts, plan)
    files = [item["file"] for item in planned]
    console.document({"target": str(runner.target.dsn), "applied": [], "pending": files, "planned": planned})


def _rehearse(runner: Runner, console: Console) -> None:
    """Says which files went through, and which could not be tried."""
    rehearsed = runner.rehearse()
    for file, why in rehearsed.left_out.items():
        console.say(f"  not rehearsed: {file}  ({why})")
    total = len(rehearsed.done) + len(rehearsed.left_out)
    if total:
        console.say(
            f"rehearsed {len(rehearsed.done)} of {total} pending, and rolled back; {rehearsed.facts.database} is as it was"
        )
    else:
        console.say(f"nothing to rehearse: nothing is pending in {rehearsed.facts.database}{_until(runner)}")
    console.document(
        {
            "target": str(runner.target.dsn),
            "applied": [],
            "rehearsed": [vars(item) for item in rehearsed.done],
            "not_rehearsed": [{"file": file, "why": why} for file, why in rehearsed.left_out.items()],
        }
    )
