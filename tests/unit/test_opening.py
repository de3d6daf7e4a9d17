"""A way through the firewall for the length of one command: closed again whatever happens, and looked at."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from scripts import firewall, opening
from scripts.console import Console
from scripts.dsn import Dsn
from scripts.errors import OpsError, UsageError
from scripts.secret import Secret
from scripts.settings import Sources
from scripts.target import Target, Unreachable
from tests.unit.azure import SUBSCRIPTION, Cloud, Fault, az_in, failed, ok, rule, server, wanted

ADDRESS = "203.0.113.7"
OFFICE = rule("office", "198.51.100.0", "198.51.100.255")
CREATE = "postgres flexible-server firewall-rule create"
DELETE = "postgres flexible-server firewall-rule delete"
SHOW = "postgres flexible-server firewall-rule show"
LIST = "postgres flexible-server firewall-rule list"
BUSY = "(ServerIsBusy) Cannot complete operation while server 'srv1' is busy processing another operation."
EXPIRED = "Please run 'az login' to setup account."


@dataclass
class Door:
    """One cloud, and what opening its firewall says and waits."""

    folder: Path
    cloud: Cloud = field(default_factory=lambda: Cloud(group="eastus2", server=server(), rules={"office": OFFICE}))
    pauses: list[float] = field(default_factory=list)
    err: io.StringIO = field(default_factory=io.StringIO)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        console = Console(out=io.StringIO(), err=self.err)
        with self.cloud.client(self.folder) as client, opening.opened(client, wanted(), ADDRESS, console, self.pauses.append):
            yield

    @property
    def verbs(self) -> list[str]:
        return [call[3] for call in self.cloud.calls]

    @property
    def said(self) -> str:
        return self.err.getvalue()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_the_address_is_let_in_for_as_long_as_the_block_lasts(door: Door) -> None:
    with door.opened():
        [made] = [item for item in door.cloud.rules.values() if item != OFFICE]
        assert (str(made.start), str(made.end)) == (ADDRESS, ADDRESS)
        assert firewall.in_use(made, datetime.now(UTC))
    assert door.cloud.rules == {"office": OFFICE}
    assert door.verbs == ["list", "create", "delete", "show"]
    assert door.err.getvalue().splitlines() == [
        f"opening the firewall of srv1 for {ADDRESS}: rule {made.name}",
        "closed the firewall of srv1 again",
    ]


@pytest.mark.parametrize("error", [OpsError("failed"), KeyboardInterrupt(), RuntimeError("a bug"), SystemExit(1)])
def test_it_is_closed_however_the_block_is_left(door: Door, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, door.opened():
        raise error
    assert caught.value is error
    assert door.cloud.rules == {"office": OFFICE}
    assert door.verbs[-2:] == ["delete", "show"]


def test_two_openings_have_rules_of_their_own(door: Door) -> None:
    with door.opened(), door.opened():
        assert len(door.cloud.rules) == 3
        assert door.verbs == ["list", "create", "list", "create"]
    assert door.cloud.rules == {"office": OFFICE}


@pytest.mark.parametrize(
    "there", [rule("mine", ADDRESS), rule("range", "203.0.113.0", "203.0.113.255"), rule("all", "0.0.0.0", "255.255.255.255")]
)
def test_an_address_that_is_let_in_already_needs_no_rule(door: Door, there: firewall.Rule) -> None:
    door.cloud.rules[there.name] = there
    with door.opened():
        pass
    assert door.verbs == ["list"]
    assert door.err.getvalue() == f"the firewall of srv1 lets {ADDRESS} in already\n"
    assert there.name in door.cloud.rules


@pytest.mark.parametrize("age", [timedelta(minutes=1), timedelta(days=1)])
def test_a_temporary_rule_of_another_command_is_nothing_to_rely_on(door: Door, age: timedelta) -> None:
    theirs = firewall.temporary(ADDRESS, datetime.now(UTC) - age, "c0ffee")
    door.cloud.rules[theirs.name] = theirs
    with door.opened():
        assert door.verbs == ["list", "create"]
    assert door.cloud.rules == {"office": OFFICE, theirs.name: theirs}


def test_everything_inside_azure_is_not_this_machine(door: Door) -> None:
    door.cloud.rules["allow-azure-services"] = rule("allow-azure-services", "0.0.0.0")
    with door.opened():
        assert door.verbs == ["list", "create"]


@pytest.mark.parametrize(
    "result",
    [
        failed("(ParentResourceNotFound) Failed to perform 'read' on resource(s).", 3),
        failed("Firewall rule operations are not supported for a server without public access enabled."),
    ],
)
def test_without_a_server_that_has_a_firewall_nothing_is_opened(door: Door, result: object) -> None:
    door.cloud.faults.append(Fault(LIST, result))  # type: ignore[arg-type]
    with pytest.raises(OpsError, match="no server srv1 with a firewall in the group rg") as caught, door.opened():
        raise AssertionError("the block was entered")
    assert "--server-name" in caught.value.hint
    assert door.verbs == ["list"]


def test_a_busy_server_is_asked_again(door: Door) -> None:
    door.cloud.fail(CREATE, BUSY, times=2)
    with door.opened():
        assert door.verbs == ["list", "create", "create", "create"]
        assert len(door.pauses) == 2
    assert door.cloud.rules == {"office": OFFICE}


@pytest.mark.parametrize(("text", "tries"), [(BUSY, 5), ("(AuthorizationFailed) no", 1)])
def test_a_rule_that_can_not_be_made_is_an_error_and_looked_for_all_the_same(door: Door, text: str, tries: int) -> None:
    door.cloud.fail(CREATE, text, times=99)
    with pytest.raises(OpsError, match=re.escape(text)), door.opened():
        raise AssertionError("the block was entered")
    assert door.verbs == ["list", *["create"] * tries, "delete", "show"]
    assert "whether the rule comes about" not in door.said, "Azure has said no"


def test_a_rule_whose_making_was_interrupted_is_removed(door: Door) -> None:
    door.cloud.faults.append(Fault(CREATE, KeyboardInterrupt(), after=True))
    with pytest.raises(KeyboardInterrupt), door.opened():
        raise AssertionError("the block was entered")
    assert door.cloud.rules == {"office": OFFICE}


def test_a_delete_that_was_refused_though_az_ends_with_0_is_seen_and_done_again(door: Door) -> None:
    door.cloud.faults.append(Fault(DELETE, ok(), times=2))
    with door.opened():
        pass
    assert door.verbs[2:] == ["delete", "show"] * 3
    assert len(door.pauses) == 2
    assert door.cloud.rules == {"office": OFFICE}


def test_a_look_that_fails_is_no_proof(door: Door) -> None:
    door.cloud.fail(SHOW, "('Connection aborted.', RemoteDisconnected('x'))")
    with door.opened():
        pass
    assert door.verbs[2:] == ["delete", "show"] * 2
    assert "closed the firewall" in door.err.getvalue()


@pytest.mark.parametrize("said", ["", EXPIRED])
def test_a_rule_that_stays_is_an_error_with_the_command_that_deletes_it(door: Door, said: str) -> None:
    door.cloud.faults.append(Fault(DELETE, failed(said) if said else ok(), times=99))
    with pytest.raises(OpsError) as caught, door.opened():
        [made] = [item for item in door.cloud.rules.values() if item != OFFICE]
    error = caught.value
    assert f"the firewall rule {made.name} of srv1 is still there, and lets {ADDRESS} in" in error.message
    assert ("not logged in" in error.message) == bool(said)
    assert error.hint == (
        f"az postgres flexible-server firewall-rule delete --subscription {SUBSCRIPTION} -g rg -s srv1 -n {made.name} --yes"
    )
    assert door.verbs.count("delete") == 5


def test_a_rule_that_stays_does_not_hide_why_the_command_failed(door: Door) -> None:
    door.cloud.faults.append(Fault(DELETE, ok(), times=99))
    with pytest.raises(OpsError, match="the migration failed"), door.opened():
        raise OpsError("the migration failed")
    assert "is still there, and lets" in door.said
    assert "az postgres flexible-server firewall-rule delete" in door.said


# --- The wait ---------------------------------------------------------------------------------------------------------


class Answers:
    """Stands for a target: what it answers, one for each time it is asked."""

    def __init__(self, *answers: BaseException | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.dsn = self

    hosts = ("srv1.postgres.database.azure.com",)

    def ask(self, _: Callable[[object], object]) -> None:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


def waited(answers: Answers, deadline: float = 60.0) -> tuple[list[float], str]:
    pauses: list[float] = []
    err = io.StringIO()
    opening.until_it_answers(cast("Target", answers), deadline, Console(out=io.StringIO(), err=err), pauses.append)
    return pauses, err.getvalue()


SHUT = Unreachable("timeout expired", "", refused=False, may_pass=True)
UNLISTED = Unreachable('FATAL: no pg_hba.conf entry for host "203.0.113.7"', "", refused=True)
WRONG = Unreachable("FATAL: password authentication failed", "", refused=True)


def test_a_server_that_answers_is_not_waited_for() -> None:
    assert waited(Answers(None)) == ([], "")


@pytest.mark.parametrize("shut", [SHUT, UNLISTED])
def test_a_firewall_that_is_not_open_yet_is_waited_for(shut: Unreachable) -> None:
    pauses, said = waited(Answers(shut, shut, None))
    assert len(pauses) == 2
    assert said == f"waiting up to 60 s until srv1.postgres.database.azure.com lets this machine in: {shut.message}\n"


@pytest.mark.parametrize(("answer", "deadline"), [(WRONG, 60.0), (SHUT, -1.0)])
def test_another_refusal_and_the_deadline_end_the_wait(answer: Unreachable, deadline: float) -> None:
    answers = Answers(answer)
    with pytest.raises(Unreachable) as caught:
        waited(answers, deadline)
    assert caught.value is answer
    assert answers.asked == 1


# --- The flag ---------------------------------------------------------------------------------------------------------


def test_a_plan_opens_nothing() -> None:
    console = Console(out=io.StringIO(), err=io.StringIO())
    flags = {"open_firewall": True, "plan": True}
    with pytest.raises(UsageError, match="--plan changes nothing"), opening.way_in(flags, cast("Target", None), console):
        raise AssertionError("the block was entered")


@dataclass
class Addressed:
    """Stands for a target: the DSN's host, and no settings."""

    host: str
    env: Mapping[str, str]
    found: Sources = field(default_factory=lambda: Sources({}, {}, ".env"))
    app_file: Path | None = None

    @property
    def dsn(self) -> Dsn:
        return Dsn({"user": "me", "host": self.host, "dbname": "d"}, Secret("x"))


def test_a_server_of_this_machine_has_no_firewall_to_open() -> None:
    console = Console(out=io.StringIO(), err=io.StringIO())
    flags = {"open_firewall": True, "plan": False, "server_name": None}
    goal = cast("Target", Addressed("127.0.0.1", {"PATH": ""}, app_file=Path("app.env")))
    with pytest.raises(UsageError, match="--local leads to this machine") as caught, opening.way_in(flags, goal, console):
        raise AssertionError("the block was entered")
    assert caught.value.hint == "leave one of them away"


@pytest.mark.parametrize(
    ("host", "server_name", "missing"),
    [
        ("srv1.postgres.database.azure.com", None, ["--subscription-id"]),
        ("db.example.com", None, ["--subscription-id", "--server-name"]),
        ("db.example.com", "srv1", ["--subscription-id"]),
    ],
)
def test_the_server_is_the_one_of_the_dsn_unless_it_is_named(
    host: str, server_name: str | None, missing: list[str], tmp_path: Path
) -> None:
    console = Console(out=io.StringIO(), err=io.StringIO())
    flags = {"open_firewall": True, "plan": False, "server_name": server_name}
    goal = cast("Target", Addressed(host, az_in(tmp_path)))
    with pytest.raises(UsageError) as caught, opening.way_in(flags, goal, console):
        raise AssertionError("the block was entered")
    assert re.findall(r"(--[\w-]+), or", caught.value.message) == missing


def test_without_az_nothing_else_is_asked_for() -> None:
    console = Console(out=io.StringIO(), err=io.StringIO())
    flags = {"open_firewall": True, "plan": False, "server_name": None}
    with pytest.raises(UsageError, match="the az command is not on PATH"):
        opening.close_left(flags, Sources({"PATH": ""}, {}, ".env"), console)
    goal = cast("Target", Addressed("db.example.com", {"PATH": ""}))
    with pytest.raises(UsageError, match="the az command is not on PATH"), opening.way_in(flags, goal, console):
        raise AssertionError("the block was entered")
