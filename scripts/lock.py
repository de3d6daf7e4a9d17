"""The lock that lets one runner at a time change a database: waited for, never blocked on."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

from scripts import ledger
from scripts.errors import OpsError
from scripts.psql import Session


def acquire(
    session: Session,
    *,
    wait: float,
    again: str,
    note: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Takes the advisory lock for the rest of the session, trying again and again, each try a statement of its own.

    A runner that blocked in pg_advisory_lock would hold a snapshot, for which CREATE INDEX CONCURRENTLY in another
    runner waits: a deadlock (golang-migrate #960, flyway #1654). `wait` is in seconds, `again` the command to repeat.
    Raises OpsError when another runner has it for longer, or when a pooler makes the lock worthless.
    """
    deadline = clock() + wait
    pause, told = 0.02, False
    while session.query(ledger.TRY_LOCK) != ["t"]:
        if not told:
            note(f"waiting for another runner: {_holder(session)}")
            told = True
        if clock() > deadline:
            raise OpsError(
                f"another runner has held the lock for {wait:g} s: {_holder(session)}",
                f"wait longer: {again} --lock-wait {max(600, round(wait * 2))}",
            )
        sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.5, 0.5)
    answers = {session.query(ledger.HOLDS_LOCK)[0] for _ in range(3)}
    if len(answers) > 1 or not answers.pop().endswith("|t"):
        raise OpsError(
            "the connection leads through a pooler that changes the session between statements: no lock holds there",
            "use the server's own port (5432; on Azure, 6432 is the pooler) in the DSN",
        )


def _holder(session: Session) -> str:
    for line in session.query(ledger.LOCK_HOLDER):
        holder = json.loads(line)
        return f"PID {holder['pid']}, user {holder['user']}, from {holder['client']}, since {holder['since']}"
    return "it has just ended"
