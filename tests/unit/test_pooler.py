"""Which sessions are asked about by a second one, and what is said of a pooler."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from scripts import PRODUCT, pooler
from scripts.dsn import Dsn
from scripts.errors import OpsError
from scripts.psql import Session

DSN = Dsn({"user": "u", "host": "db.example", "port": "6432", "dbname": "d", "sslmode": "require"})
OWN: dict[str, Any] = {"name": PRODUCT, "source": "client", "age": 0.5, "address": "10.0.0.5", "port": "5432"}


@dataclass
class Asked:
    """Stands for a session: it has these signs, and these PIDs one after another, the last of them for good."""

    pids: list[int]
    signs: dict[str, Any] = field(default_factory=lambda: dict(OWN))
    age: float = 1.0
    late: bool = False

    def query(self, sql: str) -> list[str]:
        if "json" in sql:
            return [json.dumps(self.signs)]
        return [str(self.pids.pop(0) if len(self.pids) > 1 else self.pids[0]) for _ in sql.split(";")]

    def query_within(self, _: float, sql: str) -> list[str] | None:
        return None if self.late else self.query(sql)


def refuse(first: Asked, second: Asked | None = None, dsn: Dsn = DSN) -> None:
    def ask(work: Callable[[Session], bool]) -> bool:
        assert second is not None, "a second psql was started"
        return work(cast("Session", second))

    pooler.refuse(cast("Session", first), dsn=dsn, origin="POSTGRES_DSN (.env)", ask=ask, again="invoke migrate")


def refusal(first: Asked, second: Asked | None = None, dsn: Dsn = DSN) -> OpsError:
    with pytest.raises(OpsError) as caught:
        refuse(first, second, dsn)
    return caught.value


def test_a_session_of_our_own_is_asked_about_by_nobody() -> None:
    refuse(Asked([7]))


def test_nor_is_one_with_a_name_that_the_dsn_has() -> None:
    dsn = DSN.with_params(application_name="mine")
    refuse(Asked([7], {**OWN, "name": "mine"}), dsn=dsn)


SIGNS = {
    "set by somebody": {"source": "session"},
    "not set at all": {"name": "", "source": "default"},
    "sent by another program": {"name": "Supavisor"},
    "older than our psql": {"age": 1.2},
    "of an age that is not shown": {"age": None},
}


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS)
def test_a_session_that_may_be_anothers_is_refused_when_a_second_psql_comes_to_it(sign: dict[str, Any]) -> None:
    assert "no lock would hold; nothing was done" in refusal(Asked([7], {**OWN, **sign}), Asked([7])).message


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS)
def test_it_is_let_through_when_it_keeps_to_itself(sign: dict[str, Any]) -> None:
    refuse(Asked([7], {**OWN, **sign}), Asked([8]))


SHARED = Asked([7], {**OWN, "source": "session"})


def test_a_pid_that_changes_needs_no_second_psql() -> None:
    assert "no lock would hold" in refusal(Asked([7, 7, 8])).message


@pytest.mark.parametrize(
    ("first", "second"),
    [([7], [8, 8, 7, 8]), ([7], [8, 8, 8, 8, 8, 8, 9]), ([7, 7, 7, 7, 7, 8], [9]), ([7] * 11 + [8], [9])],
    ids=["the second comes by ours", "the second changes", "ours changes", "ours changes in the end"],
)
def test_the_two_are_asked_in_turn_and_more_than_once(first: list[int], second: list[int]) -> None:
    assert "no lock would hold" in refusal(Asked(first, SHARED.signs), Asked(second)).message


def test_a_pooler_without_another_backend_keeps_ours_for_us() -> None:
    refuse(Asked([7], SHARED.signs), Asked([0], late=True))


def test_unless_ours_changes_meanwhile() -> None:
    assert "no lock would hold" in refusal(Asked([7, 7, 7, 8], SHARED.signs), Asked([0], late=True)).message


def test_what_a_second_psql_could_not_see_is_refused_with_the_reason() -> None:
    def ask(work: object) -> bool:
        raise OpsError("FATAL: no more connections allowed")

    with pytest.raises(OpsError) as caught:
        pooler.refuse(cast("Session", SHARED), dsn=DSN, origin="--dsn", ask=ask, again="invoke migrate --dsn -")
    assert "could not be seen" in caught.value.message
    assert "FATAL: no more connections allowed" in caught.value.message
    assert caught.value.hint.endswith("into the DSN (it came from --dsn), then: invoke migrate --dsn -")


def test_the_port_that_leads_to_the_server_itself_is_named() -> None:
    error = refusal(SHARED, Asked([7]))
    assert error.hint == (
        "put the server's own port, 5432 (on Azure, 6432 is the pooler's), into the DSN (it came from POSTGRES_DSN (.env)), "
        "then: invoke migrate"
    )


def test_or_its_address_where_the_pooler_has_the_servers_port() -> None:
    error = refusal(SHARED, Asked([7]), Dsn({key: value for key, value in DSN.params.items() if key != "port"}))
    assert error.hint.startswith("put the server's own address (10.0.0.5, it says, and port 5432) into the DSN (it came from ")


@pytest.mark.parametrize(
    ("text", "pooler_s"),
    [
        ("FATAL:  unsupported startup parameter: options", True),
        ("FATAL:  unsupported startup parameter in options: work_mem", True),
        ("transaction blocks not allowed in statement pooling mode", True),
        ('FATAL:  unrecognized configuration parameter "work_men"', False),
        ("FATAL:  password authentication failed", False),
    ],
)
def test_a_poolers_own_complaints_name_the_port(text: str, pooler_s: bool) -> None:
    hint = pooler.hint(text)
    assert (hint is not None) == pooler_s
    assert hint is None or "5432" in hint
