"""Who holds the lock that a file waits for: looked at from a second connection, shown, and never ended."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from scripts import redact
from scripts.console import one_line
from scripts.errors import OpsError
from scripts.psql import Session
from scripts.target import Target

_EVERY = 0.3  # seconds between two looks
_PATIENCE = 3  # seconds for an answer: the run's end waits for no longer than that for a server which has fallen silent
# PID 0 is a prepared transaction. Others' queries are shown to members of pg_read_all_stats alone.
_BLOCKING = """SELECT pg_catalog.json_build_object('pid', b.pid, 'user', a.usename, 'application', a.application_name,
    'client', CASE WHEN b.pid <> 0 THEN coalesce(host(a.client_addr), 'a unix socket') END, 'state', a.state,
    'since', date_trunc('second', coalesce(a.xact_start, a.query_start, a.backend_start)), 'query', left(a.query, 300))
  FROM (SELECT DISTINCT pid FROM unnest(pg_catalog.pg_blocking_pids({pid})) AS u (pid)) AS b
    LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid) ORDER BY b.pid"""
# Behind a mention that is no plain literal's, whatever quotes it or stands before it, nothing is shown.
_MENTION = re.compile(r"(password|://)(?! '\*\*\*\*').*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Blocker:
    """A session that holds what another waits for; what the server doesn't tell is None."""

    pid: int
    user: str | None
    application: str | None
    client: str | None
    state: str | None
    since: str | None
    query: str | None

    def __str__(self) -> str:
        if not self.pid:
            return "a prepared transaction (pg_prepared_xacts lists them)"
        query = _without_password(self.query or "")
        by = f" by {self.application}" if self.application else ""
        said = f": {one_line(' '.join(query.split()))}" if query else ""
        return one_line(f"PID {self.pid}, user {self.user}, from {self.client}{by}, {self.state} since {self.since}") + said

    def facts(self) -> dict[str, Any]:
        """It for a JSON document, which shows no more than the sentence."""
        return {**vars(self), "query": None if self.query is None else _without_password(self.query)}


def _without_password(query: str) -> str:
    return _MENTION.sub(r"\1 ****", redact.without_password_literals(query))


class Watch:
    """While the block lasts: whoever blocks the session with this PID for longer than `after` seconds is told to `note`.

    The second connection is opened no sooner than that. Where there is none to be had, nothing is told.
    """

    def __init__(self, target: Target, pid: int, *, after: float, note: Callable[[str], None]) -> None:
        self._target = replace(target, dsn=target.dsn.with_params(connect_timeout=str(_PATIENCE)))
        self._pid = pid
        self._after = after
        self._note = note
        self._ended = threading.Event()
        self._file, self._since = "", time.monotonic()
        self._seen: tuple[Blocker, ...] = ()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def begins(self, file: str) -> None:
        """A file begins to run."""
        self._file, self._since, self._seen = file, time.monotonic(), ()

    @property
    def seen(self) -> tuple[Blocker, ...]:
        """Who was seen last to block the file that runs."""
        return self._seen

    def _run(self) -> None:
        while not self._ended.wait(min(_EVERY, self._after)):
            if time.monotonic() - self._since > self._after:
                try:
                    self._target.ask(self._look)
                except OpsError:  # no connection is left, say
                    return

    def _look(self, session: Session) -> None:
        while True:
            began, file = self._since, self._file
            lines = session.query_within(_PATIENCE, _BLOCKING.format(pid=self._pid))
            if lines is None:
                return
            found = tuple(Blocker(**json.loads(line)) for line in lines)
            if found and began == self._since:
                if {blocker.pid for blocker in found} != {blocker.pid for blocker in self._seen}:
                    for blocker in found:
                        self._note(f"  {file} waits for a lock that is held by {blocker}")
                self._seen = found
            if self._ended.wait(_EVERY):
                return
