"""Tells a pooler that changes the session between statements (PgBouncer, not with pool_mode=session) and refuses it.

No lock holds through one: two runners would both get it, as an advisory lock is given again to the session that has it, and
an idle pooler gives everybody the same. So the backend's PID tells a busy pooler only. What tells one in any case is that
somebody who asks it at the same time comes to our own backend; whom that costs a second psql is told by signs that cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from scripts import PRODUCT
from scripts.dsn import Dsn
from scripts.errors import OpsError
from scripts.psql import Session

# `client` is the source of what psql itself has sent when it connected. PgBouncer, Odyssey and PgCat connect by themselves
# and SET it later; others send a name of their own. A tunnel and a container's published port send on what psql has sent.
_SIGNS = """SELECT pg_catalog.json_build_object('name', s.setting, 'source', s.source,
  'age', pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.backend_start),
  'address', pg_catalog.host(pg_catalog.inet_server_addr()), 'port', pg_catalog.current_setting('port'))
  FROM pg_catalog.pg_settings AS s, pg_catalog.pg_stat_activity AS a
  WHERE s.name = 'application_name' AND a.pid = pg_catalog.pg_backend_pid()"""
# Three questions, one after another: a pooler that gives out its backends in turn gives away that it has more than one.
_PIDS = ";\n".join(["SELECT pg_catalog.pg_backend_pid()"] * 3)
_ROUNDS = 3  # another client may be in between once
_SLACK = 0.1  # seconds; two clocks don't go alike
_PATIENCE = 5.0  # seconds that a pooler may take to give a backend to the second psql
_SAID = ("unsupported startup parameter", "statement pooling mode")  # by PgBouncer alone, where it is in the way
_ON_AZURE = "on Azure, 6432 is the pooler's"


def refuse(session: Session, *, dsn: Dsn, origin: str, ask: Callable[[Callable[[Session], bool]], bool], again: str) -> None:
    """Raises OpsError when no lock would hold in the session, naming the port that leads to the server itself.

    `ask` does work with a second psql on the same DSN, `origin` is where that came from, `again` the command to repeat.
    Nothing is written, and no transaction begun. A pooler that keeps a session together is let through.
    """
    (line,) = session.query(_SIGNS)
    signs = json.loads(line)
    pids = {*session.query(_PIDS)}
    ours = signs["name"] == dsn.params.get("application_name", PRODUCT) and signs["source"] == "client"
    young = signs["age"] is not None and signs["age"] <= session.age + _SLACK
    if len(pids) == 1 and ours and young:
        return
    hint = f"{_direct(dsn, signs)} into the DSN (it came from {origin}), then: {again}"
    try:
        shared = len(pids) > 1 or ask(lambda second: _shared(session, second, pids))
    except OpsError as error:
        raise OpsError(
            f"{dsn} leads through a pooler, and whether it keeps a session together could not be seen, as a second one did "
            f"not come about: {error.message}\n  nothing was done",
            hint,
        ) from None
    if shared:
        raise OpsError(
            f"{dsn} leads through a pooler that changes the session between statements (PgBouncer's pool_mode=transaction, "
            "say): no lock would hold; nothing was done",
            hint,
        )


def _shared(session: Session, second: Session, pids: set[str]) -> bool:
    """Whether the two, or each of them by itself, share backends with others; `pids` are those that the first had so far."""
    answer = second.query_within(_PATIENCE, _PIDS)
    theirs = {*(answer or [])}
    for _ in range(_ROUNDS):
        pids |= {*session.query(_PIDS)}
        if answer is None:  # a pooler has no backend left but ours, which is idle: it keeps it for us
            break
        theirs |= {*second.query(_PIDS)}
    return len(pids) > 1 or len(theirs) > 1 or pids == theirs


def _direct(dsn: Dsn, signs: dict[str, Any]) -> str:
    """What to put into the DSN, as far as the server itself knows where it is."""
    if dsn.params.get("port", "5432") != signs["port"]:
        return f"put the server's own port, {signs['port']} ({_ON_AZURE}),"
    return f"put the server's own address ({signs['address']}, it says, and port {signs['port']})"


def hint(text: str) -> str | None:
    """What to do about a failure that only a pooler has, by what PgBouncer says of it: https://www.pgbouncer.org/config.html"""
    if not any(said in text for said in _SAID):
        return None
    return f"this is a pooler's answer (PgBouncer): put the server's own port into the DSN, mostly 5432 ({_ON_AZURE})"
