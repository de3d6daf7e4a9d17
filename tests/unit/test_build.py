"""A plan on its way: each step once, again where that helps, elsewhere where it must be, and what is said when it stops."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scripts import blueprint
from scripts.blueprint import Observed
from scripts.build import Build
from scripts.console import Console
from scripts.errors import ExitCode, Interrupted, OpsError
from scripts.flexible import Region, Server, Wanted
from scripts.secret import Secret
from tests.unit.azure import Cloud, Fault, failed, region, rule, server, wanted

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
PASSWORD = "S3cret,@odd/&chars"
AGAIN = "invoke provision --server-name srv1"
OFFICE = rule("allow-203-0-113-7", "203.0.113.7")
OTHER = rule("other", "192.0.2.1")
CREATE = "postgres flexible-server create"
SHOW = "postgres flexible-server show"
DROPPED = "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))"
BUSY = "(ServerIsBusy) Cannot complete operation while server 'srv1' is busy processing another operation."
GONE = "(ResourceNotFound) The Resource 'srv1' was not found."
RESTRICTED = "The location is restricted from performing this operation."
EXHAUSTED = "(SkuNotAvailable) The requested VM size is currently not available in location 'eastus2'.\nmore"
ALL = ["group create", "create", "db create serving", "firewall-rule create allow-203-0-113-7"]


class Run:
    """One plan carried out on a cloud."""

    def __init__(
        self, folder: Path, cloud: Cloud, asked: Wanted, regions: tuple[Region, ...] = (), *, reset: bool = False
    ) -> None:
        self.cloud, self.asked, self.folder = cloud, asked, folder
        self.before = len(cloud.writes)
        self.pauses: list[float] = []
        self.out, self.err = io.StringIO(), io.StringIO()
        self.seen = Observed(
            registered=cloud.registered,
            group=cloud.group,
            server=cloud.server,
            database=asked.database in cloud.databases,
            rules=tuple(cloud.rules.values()),
            regions=regions or (region(), region("westus2")),
        )
        self.plan = blueprint.plan(asked, self.seen, NOW, reset_password=reset)

    def carry_out(self) -> Server:
        console = Console(out=self.out, err=self.err)
        with self.cloud.client(self.folder) as client:
            build = Build(
                client=client,
                wanted=self.asked,
                console=console,
                password=Secret(PASSWORD),
                again=AGAIN,
                sleep=self.pauses.append,
            )
            return build.carry_out(self.plan, self.seen)

    def refused(self) -> OpsError:
        with pytest.raises(OpsError) as caught:
            self.carry_out()
        assert PASSWORD not in repr((caught.value.message, caught.value.hint, caught.value.facts))
        return caught.value


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., Run]:
    def start(cloud: Cloud, *more: Any, **changes: Any) -> Run:
        reset = changes.pop("reset", False)
        return Run(tmp_path, cloud, wanted(rules=(OFFICE,), **changes), *more, reset=reset)

    return start


def stands(**changes: Any) -> Cloud:
    """A cloud with all that is asked for."""
    found = Cloud(group="eastus2", server=server(), databases={"serving"}, rules={OFFICE.name: OFFICE})
    for name, value in changes.items():
        setattr(found, name, value)
    return found


# --- What goes well ---------------------------------------------------------------------------------------------------


def test_from_nothing_each_step_is_taken_once_and_read_back(started: Callable[..., Run]) -> None:
    run = started(Cloud(registered=False))
    made = run.carry_out()
    assert run.cloud.writes == ["provider register", *ALL]
    assert made == server()
    assert (run.cloud.databases, run.cloud.rules) == ({"serving"}, {OFFICE.name: OFFICE})
    assert run.out.getvalue().splitlines() == [
        "  created provider Microsoft.DBforPostgreSQL",
        "  created group rg",
        "  create server srv1 ...",
        "  created server srv1",
        "  created database serving",
        "  created firewall rule allow-203-0-113-7",
        "read back: all of it is as asked for",
    ]
    assert (run.pauses, run.err.getvalue()) == ([], "")


def test_the_password_goes_to_stdin_and_nowhere_else(started: Callable[..., Run]) -> None:
    run = started(Cloud())
    run.carry_out()
    with_password = [call for call, stdin in zip(run.cloud.calls, run.cloud.stdins, strict=True) if stdin]
    assert [" ".join(call)[: len(CREATE)] for call in with_password] == [CREATE]
    assert run.cloud.stdins.count(PASSWORD.encode()) == 1
    assert PASSWORD not in repr(run.cloud.calls)


def test_where_nothing_is_to_be_done_azure_is_not_asked(started: Callable[..., Run]) -> None:
    run = started(stands())
    assert run.carry_out() == server()
    assert run.cloud.calls == []


def test_a_server_that_stands_is_changed(started: Callable[..., Run]) -> None:
    other = replace(OFFICE, end=OTHER.end, start=OTHER.start)
    cloud = stands(rules={OFFICE.name: other, OTHER.name: replace(OTHER, start=server_ip(9), end=server_ip(9))})
    run = started(cloud, storage=64, sku="standard_d2ds_v5", prune=True, reset=True)
    made = run.carry_out()
    assert cloud.writes == [
        "update",
        "update",
        f"firewall-rule create {OFFICE.name}",
        f"firewall-rule delete {OTHER.name}",
    ]
    assert cloud.stdins.count(PASSWORD.encode()) == 1
    assert (made.storage, made.sku, made.tier) == (64, "Standard_D2ds_v5", "GeneralPurpose")
    assert cloud.rules == {OFFICE.name: OFFICE}
    assert "removed firewall rule other" in run.out.getvalue()


def server_ip(last: int) -> Any:
    return rule("x", f"198.51.100.{last}").start


# --- Again ------------------------------------------------------------------------------------------------------------


def test_what_is_busy_is_tried_again_with_growing_pauses(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail("postgres flexible-server db create", BUSY, times=4)
    run = started(cloud)
    run.carry_out()
    assert cloud.writes.count("db create serving") == 5
    assert len(run.pauses) == 4
    for pause, base in zip(run.pauses, (1, 2, 4, 8), strict=True):
        assert base * 0.5 <= pause <= base * 1.5
    assert run.err.getvalue().count("note: the server is busy with another operation; trying again") == 4


def test_what_stays_busy_stops_with_what_stands_and_the_next_command(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail("postgres flexible-server db create", BUSY, times=99)
    run = started(cloud)
    error = run.refused()
    assert cloud.writes.count("db create serving") == 7
    assert max(run.pauses) <= 30
    assert BUSY in error.message
    assert "kept: created group rg, created server srv1; what is under way in Azure goes on" in error.message
    assert error.hint.endswith(f"; then: {AGAIN}")
    assert error.facts == {"failure": "busy", "refused": True}


def test_the_same_again_goes_on_from_there(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail("postgres flexible-server db create", BUSY, times=7)
    started(cloud).refused()
    before = len(cloud.writes)
    started(cloud).carry_out()
    assert cloud.writes[before:] == ["db create serving", f"firewall-rule create {OFFICE.name}"]


@pytest.mark.parametrize(
    ("words", "write"),
    [
        (CREATE, "create"),
        ("postgres flexible-server db create", "db create serving"),
        ("postgres flexible-server firewall-rule create", f"firewall-rule create {OFFICE.name}"),
    ],
)
def test_what_came_through_though_its_answer_was_lost_is_not_made_twice(
    started: Callable[..., Run], words: str, write: str
) -> None:
    cloud = Cloud()
    cloud.fail(words, DROPPED, after=True)
    run = started(cloud)
    run.carry_out()
    assert cloud.writes == ALL
    assert cloud.writes.count(write) == 1
    assert run.pauses == []


def test_a_rule_of_the_same_name_with_other_addresses_did_not_come_through(started: Callable[..., Run]) -> None:
    cloud = stands(rules={OFFICE.name: replace(OFFICE, start=server_ip(1), end=server_ip(9))})
    cloud.fail("postgres flexible-server firewall-rule create", DROPPED)
    run = started(cloud)
    run.carry_out()
    assert cloud.writes == [f"firewall-rule create {OFFICE.name}"] * 2
    assert cloud.rules == {OFFICE.name: OFFICE}


def test_a_dropped_connection_is_tried_again(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail(CREATE, DROPPED)
    run = started(cloud)
    run.carry_out()
    assert cloud.writes.count("create") == 2
    assert len(run.pauses) == 1


def test_what_azure_does_not_know_yet_right_after_it_was_made_is_tried_again(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail("postgres flexible-server db create", GONE, 3, times=2)
    run = started(cloud)
    run.carry_out()
    assert cloud.writes.count("db create serving") == 3
    assert len(run.pauses) == 2


def test_a_server_that_azure_does_not_show_right_after_it_was_made_is_waited_for(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail(SHOW, GONE, 3, times=2)
    run = started(cloud)
    run.carry_out()
    assert cloud.writes == ALL
    assert len(run.pauses) == 2
    assert "waiting until srv1 is ready: not there yet" in run.err.getvalue()


@pytest.mark.parametrize("group", [None, "eastus2"])
def test_a_server_that_az_itself_loses_while_it_is_made_is_not_made_twice(started: Callable[..., Run], group: str | None) -> None:
    cloud = Cloud(group=group)
    cloud.fail(CREATE, GONE, 3, after=True)
    run = started(cloud)
    run.carry_out()
    assert cloud.writes.count("create") == 1


def test_what_was_there_before_and_is_gone_now_stops(started: Callable[..., Run]) -> None:
    cloud = stands(databases=set())
    cloud.fail("postgres flexible-server db create", GONE, 3)
    run = started(cloud)
    assert "a resource isn't there" in run.refused().message
    assert cloud.writes == ["db create serving"]


# --- Elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [RESTRICTED, EXHAUSTED])
def test_a_region_that_refuses_is_left_for_the_next_one_and_the_group_stays(started: Callable[..., Run], text: str) -> None:
    cloud = Cloud()
    cloud.fail(CREATE, text)
    run = started(cloud)
    made = run.carry_out()
    assert (made.location, cloud.group) == ("westus2", "eastus2")
    assert cloud.writes == ["group create", "create", "create", *ALL[2:]]
    assert f"note: eastus2 refuses: {text.splitlines()[0]}" in run.err.getvalue()
    assert run.pauses == []


def test_when_every_region_refuses_there_is_one_table_of_why(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail(CREATE, RESTRICTED)
    cloud.fail(CREATE, EXHAUSTED)
    error = started(cloud).refused()
    assert error.message.splitlines() == [
        "every region refused srv1:",
        f"  eastus2  {RESTRICTED}",
        f"  westus2  {EXHAUSTED.splitlines()[0]}",
        "  kept: created group rg; what is under way in Azure goes on",
    ]
    assert error.facts == {"regions": {"eastus2": RESTRICTED, "westus2": EXHAUSTED.splitlines()[0]}}
    assert "--location-fallback" in error.hint
    assert error.hint.endswith(f"then: {AGAIN}")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("(QuotaExceeded) it results in exceeding approved 10 Cores quota.", "quota"),
        ("(InternalServerError) An unexpected error occured while processing the request.", "internal"),
        ("(AuthorizationFailed) The client does not have authorization.", "forbidden"),
        ("(NeverHeardOf) Something new.\nwhole", "unknown"),
        ("Specified server name is already used.", "taken"),
    ],
)
def test_what_no_try_and_no_region_can_mend_stops_at_once(started: Callable[..., Run], text: str, kind: str) -> None:
    cloud = Cloud()
    cloud.fail(CREATE, text)
    run = started(cloud)
    error = run.refused()
    assert cloud.writes == ["group create", "create"]
    assert (error.facts["failure"], run.pauses) == (kind, [])
    for line in text.splitlines():
        assert line in error.message
    assert error.hint.endswith(f": {AGAIN}")


def test_an_az_that_does_not_end_stops_with_what_stands_and_the_next_command(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.faults.append(Fault(CREATE, OpsError("az did not answer within 3600 s")))
    error = started(cloud).refused()
    assert error.message.splitlines() == [
        "az did not answer within 3600 s",
        "  kept: created group rg; what is under way in Azure goes on",
    ]
    assert error.hint.endswith(f": {AGAIN}")


def test_a_name_that_is_taken_by_ourselves_is_no_failure(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail(CREATE, DROPPED, after=True)
    cloud.fail(SHOW, DROPPED)  # so it isn't known that it came through
    cloud.fail(CREATE, "Specified server name is already used.")
    run = started(cloud)
    run.carry_out()
    assert len(cloud.writes) == len(ALL) + 1


def test_a_name_that_somebody_else_has_taken_meanwhile_is_a_failure(started: Callable[..., Run]) -> None:
    """Theirs has another password, even where it stands in our group."""
    cloud = Cloud()
    cloud.fail(CREATE, "Specified server name is already used.", after=True)
    assert "the server's name is taken" in started(cloud).refused().message


def test_a_subscription_that_is_not_registered_is_registered_and_asked_again(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    run = started(cloud)
    cloud.registered = False
    run.carry_out()
    assert cloud.writes == ["group create", "create", "provider register", *ALL[1:]]
    assert run.pauses == []


def test_a_registration_that_does_not_help_is_not_repeated(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail(CREATE, "(MissingSubscriptionRegistration) no", times=9)
    error = started(cloud).refused()
    assert cloud.writes == ["group create", "create", "provider register", "create"]
    assert "az provider register -n Microsoft.DBforPostgreSQL --wait" in error.hint


# --- Ready, and read back ---------------------------------------------------------------------------------------------


def test_a_server_that_is_not_ready_yet_is_waited_for(started: Callable[..., Run]) -> None:
    cloud = Cloud(states=["Provisioning", "Updating", "Ready"])
    run = started(cloud)
    run.carry_out()
    assert len(run.pauses) == 2
    assert run.err.getvalue().splitlines() == ["waiting until srv1 is ready: Provisioning"]


def test_a_server_that_is_still_being_changed_is_waited_for_before_the_first_step(started: Callable[..., Run]) -> None:
    cloud = stands(server=server(state="Updating"), states=["Updating", "Ready"], databases=set())
    order: list[str] = []
    cloud.on_call = order.append
    run = started(cloud)
    cloud.server = server()
    run.carry_out()
    assert [words.startswith(SHOW) for words in order[:3]] == [True, True, False]
    assert cloud.writes == ["db create serving"]


@pytest.mark.parametrize("state", ["Dropping", "Disabled", "Stopped", "Inaccessible"])
def test_a_state_that_no_waiting_ends_stops_at_once(started: Callable[..., Run], state: str) -> None:
    run = started(Cloud(states=[state]))
    error = run.refused()
    assert f"srv1 is not ready: {state}" in error.message
    assert "kept: created group rg" in error.message
    assert "invoke teardown" in error.hint
    assert error.hint.endswith(f"then: {AGAIN}")
    assert run.pauses == []


def test_a_question_that_azure_does_not_answer_is_asked_again(started: Callable[..., Run]) -> None:
    cloud = Cloud()
    cloud.fail(SHOW, DROPPED, times=2)
    run = started(cloud)
    run.carry_out()
    assert cloud.writes == ALL
    assert len(run.pauses) == 2


def test_what_is_read_back_late_is_looked_at_again(started: Callable[..., Run]) -> None:
    cloud = stands(databases=set())
    cloud.fail("postgres flexible-server db show", GONE, 3, times=2)
    run = started(cloud)
    run.carry_out()
    assert len(run.pauses) == 2
    assert "read back: all of it is as asked for" in run.out.getvalue()


def test_what_is_read_back_otherwise_is_named(started: Callable[..., Run]) -> None:
    cloud = stands(rules={})
    cloud.fail("postgres flexible-server firewall-rule list", "", 0, times=0)
    cloud.faults.append(Fault("postgres flexible-server firewall-rule create", failed("", 0), times=99))  # "done"
    run = started(cloud)
    error = run.refused()
    assert error.message.splitlines() == [
        "Azure took every step, and srv1 is not as asked for:",
        f"  create firewall rule {OFFICE.name}: 203.0.113.7",
    ]
    assert error.hint == AGAIN
    assert "read back" not in run.out.getvalue()


def test_a_server_that_is_read_back_as_what_it_can_not_be_changed_from_is_named_too(started: Callable[..., Run]) -> None:
    cloud = Cloud()

    def tamper(words: str) -> None:
        if cloud.server is not None and words.startswith("postgres flexible-server db create"):
            cloud.server = replace(cloud.server, version=17)

    cloud.on_call = tamper
    error = started(cloud, version=16).refused()
    assert "srv1 is not as asked for" in error.message
    assert "it is PostgreSQL 17, and can't go back to 16" in error.message
    assert "nothing was written" not in error.message
    assert (error.hint, error.exit_code) == (AGAIN, ExitCode.FAILED)


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("group create", "nothing was changed, or is under way in Azure"),
        (CREATE, "created group rg; what is under way in Azure goes on"),
        ("postgres flexible-server db create", "created group rg, created server srv1; what is under way in Azure goes on"),
    ],
)
def test_ctrl_c_says_what_stands_and_how_it_goes_on(started: Callable[..., Run], words: str, kept: str) -> None:
    cloud = Cloud()
    cloud.interrupt(words)
    with pytest.raises(Interrupted) as caught:
        started(cloud).carry_out()
    assert caught.value.message == f"interrupted; {kept}"
    assert caught.value.hint == f"go on: {AGAIN}"
    started(cloud).carry_out()
    assert cloud.server == server()


# --- Whatever goes wrong ----------------------------------------------------------------------------------------------

CALLS = [
    *("group create", CREATE, SHOW, "postgres flexible-server db create", "postgres flexible-server db show"),
    *("postgres flexible-server firewall-rule create", "postgres flexible-server firewall-rule list"),
]
TEXTS = [
    *((text, 1) for text in (DROPPED, BUSY, RESTRICTED, EXHAUSTED, "ERROR: (NeverHeardOf) Something new.")),
    (GONE, 3),
]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    faults=st.lists(
        st.tuples(st.sampled_from(CALLS), st.sampled_from([*TEXTS, None]), st.booleans(), st.integers(min_value=1, max_value=9)),
        max_size=4,
    )
)
def test_whatever_goes_wrong_running_it_again_ends_in_what_is_asked_for(
    tmp_path: Path, faults: list[tuple[str, tuple[str, int] | None, bool, int]]
) -> None:
    cloud = Cloud()
    for words, text, after, times in faults:
        result = KeyboardInterrupt() if text is None else failed(*text)
        cloud.faults.append(Fault(words, result, after, times))
    for _ in range(1 + sum(times for *_, times in faults)):
        stood = cloud.server is not None
        run, ended = Run(tmp_path, cloud, wanted(rules=(OFFICE,))), False
        with contextlib.suppress(OpsError):
            run.carry_out()
            ended = True
        assert not (stood and "create" in cloud.writes[run.before :])
        if ended:
            break
    assert ended
    assert (cloud.databases, cloud.rules) == ({"serving"}, {OFFICE.name: OFFICE})
    assert Run(tmp_path, cloud, wanted(rules=(OFFICE,))).plan.writes == []
