"""The opposite of `provision`: shown, asked about by name, deleted, and looked at."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scripts import teardown
from scripts.console import Console
from scripts.errors import OpsError, UsageError
from tests.unit.azure import Cloud, Fault, failed, ok, server, wanted

DELETE = "postgres flexible-server delete"
BUSY = "(ServerIsBusy) Cannot complete operation while server 'srv1' is busy processing another operation."


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Run:
    """One teardown of a cloud, with the file that keeps the server's secrets."""

    folder: Path
    cloud: Cloud = field(default_factory=lambda: Cloud(group="eastus2", server=server()))
    as_json: bool = False
    pauses: list[float] = field(default_factory=list)
    out: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.store = self.folder / "srv1.env"
        self.store.write_text("POSTGRES_ADMIN_PASSWORD=x\n")

    def __call__(self, *, yes: bool = True, **more: Any) -> None:
        console = Console(as_json=self.as_json, out=self.out, err=io.StringIO())
        with self.cloud.client(self.folder) as client:
            teardown.run(
                wanted(), client, console, store=self.store, yes=yes, again="invoke teardown X", sleep=self.pauses.append, **more
            )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_the_server_is_deleted_with_its_secrets_and_the_group_stays(run: Run) -> None:
    run()
    assert (run.cloud.server, run.cloud.group) == (None, "eastus2")
    assert run.cloud.writes == ["delete"]
    assert not run.store.exists()
    assert run.out.getvalue().splitlines() == [
        "  delete server srv1 in eastus2: PostgreSQL 16, 32 GiB, its databases and its backups",
        "deleting srv1 ...",
        "deleted srv1",
        f"deleted {run.store}, which held its secrets",
    ]


def test_the_group_is_deleted_with_all_that_is_shown_of_it(run: Run) -> None:
    run.cloud.contents = ["Microsoft.DBforPostgreSQL/flexibleServers srv1", "Microsoft.Web/sites app"]
    run(delete_group=True)
    assert run.cloud.writes == ["group delete"]
    assert run.out.getvalue().splitlines()[:3] == [
        "  delete server srv1 in eastus2: PostgreSQL 16, 32 GiB, its databases and its backups",
        "  delete group rg",
        "  delete in it: Microsoft.Web/sites app",
    ]
    assert not run.store.exists()


def test_a_group_without_the_server_can_be_deleted_too(run: Run) -> None:
    run.cloud.server = None
    run(delete_group=True)
    assert (run.cloud.writes, run.cloud.group) == (["group delete"], None)


def test_what_is_not_there_is_nothing_to_do(run: Run) -> None:
    run.cloud.server = None
    run()
    run.cloud.group = None
    run(delete_group=True)
    assert run.out.getvalue() == "nothing to do: there is no server srv1 in the group rg\nnothing to do: there is no group rg\n"
    assert run.cloud.writes == []


def test_the_document_says_what_was_deleted(tmp_path: Path) -> None:
    run = Run(tmp_path, as_json=True)
    run()
    assert [row.split(":")[0] for row in json.loads(run.out.getvalue())["deleted"]] == ["server srv1 in eastus2"]
    run.out.seek(0)
    run.out.truncate()
    run()
    assert json.loads(run.out.getvalue()) == {"deleted": []}


@pytest.mark.parametrize(
    ("typed", "delete_group", "gone"), [("srv1", False, True), ("rg", True, True), ("srv1", True, False), ("y", False, False)]
)
def test_the_name_has_to_be_typed(run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, delete_group: bool, gone: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{typed}\n"))
    if gone:
        run(yes=False, delete_group=delete_group)
    else:
        with pytest.raises(OpsError, match="that is not its name; nothing was changed"):
            run(yes=False, delete_group=delete_group)
    assert (run.cloud.server is None) is gone
    assert run.store.exists() is not gone


def test_where_nobody_can_be_asked_nothing_is_deleted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("srv1\n"))
    with pytest.raises(UsageError, match="Nobody is at the terminal") as caught:
        run(yes=False)
    assert caught.value.hint == "invoke teardown X --yes"
    assert run.cloud.writes == []


def test_a_server_that_is_slow_to_go_is_looked_at_again(run: Run) -> None:
    run.cloud.faults.append(Fault(DELETE, ok(), after=False))
    looks = 0

    def on_call(words: str) -> None:
        nonlocal looks
        looks += words.startswith("postgres flexible-server show")
        if looks == 4:
            run.cloud.server = None

    run.cloud.on_call = on_call
    run()
    assert len(run.pauses) == 2
    assert run.cloud.writes == ["delete"]
    assert "deleted srv1" in run.out.getvalue()


def test_a_delete_that_was_refused_though_az_ends_with_0_is_seen(run: Run) -> None:
    run.cloud.faults.append(Fault(DELETE, ok()))
    with pytest.raises(OpsError, match="srv1 is still there, though az reported no failure") as caught:
        run()
    assert caught.value.hint.endswith("invoke teardown X")
    assert len(run.pauses) == 10
    assert run.store.exists()


def test_a_delete_that_failed_says_why(run: Run) -> None:
    run.cloud.fail(DELETE, BUSY)
    with pytest.raises(OpsError) as caught:
        run()
    assert caught.value.message.startswith("srv1 is still there:\n")
    assert BUSY in caught.value.message
    assert (caught.value.hint, run.pauses) == ("invoke teardown X", [])
    assert run.store.exists()


@pytest.mark.parametrize(
    "result",
    [
        failed("(ResourceNotFound) The Resource was not found.", 3),
        failed("('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))"),
    ],
)
def test_a_server_that_is_gone_is_deleted_whatever_az_said(run: Run, result: Any) -> None:
    run.cloud.faults.append(Fault(DELETE, result, after=True))
    run()
    assert "deleted srv1" in run.out.getvalue()
    assert not run.store.exists()


def test_a_login_that_has_expired_stops_before_anything_is_deleted(run: Run) -> None:
    run.cloud.fail("account get-access-token", "Please run 'az login' to setup account.")
    with pytest.raises(OpsError, match="not logged in"):
        run()
    assert run.cloud.writes == []


def test_an_older_az_is_refused(run: Run) -> None:
    run.cloud.faults.append(Fault("version", ok('{"azure-cli": "2.60.0"}')))
    with pytest.raises(UsageError, match=r"azure-cli 2\.60\.0"):
        run()
    assert run.cloud.writes == []


def test_to_keep_and_to_delete_the_group_contradict_each_other() -> None:
    flags = {"env_file": None, "keep_group": True, "delete_group": True}
    with pytest.raises(UsageError, match="contradict each other"):
        teardown.command(flags, "invoke teardown", Console(out=io.StringIO(), err=io.StringIO()))
