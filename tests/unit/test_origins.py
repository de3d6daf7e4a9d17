"""Where values come from: that --explain and --help name the settings that the commands themselves read, and their defaults."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
from scripts import caller, flexible, logins, origins, request, runner, settings
from scripts.console import Console
from scripts.origins import Value
from scripts.settings import Sources
from tests.flags import arguments
from tests.unit.azure import az_in

BAD = "\x01"  # no password
DSN = "postgresql://me:secret%40word@127.0.0.1:1/serving"


class Recorder(dict[str, str]):
    """An environment that keeps what it was asked for."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """As the command asks."""
        self.asked.add(name)
        return super().get(name, default)


def flags(task: str, **given: Any) -> dict[str, Any]:
    """A task's flags as Invoke hands them over."""
    defaults: dict[str, Any] = {str(argument.attr_name or argument.name): argument.value for argument in arguments(task)}
    assert set(given) <= set(defaults)
    return {**defaults, **given}


# How far each task is let run: to where it is told that something can't be right, after it has read its settings.
RUNS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "provision": ({}, {}),
    "teardown": ({}, {}),
    "firewall.close": ({}, {}),
    "migrate": ({"open_firewall": True}, {"POSTGRES_ADMIN_DSN": DSN}),
    "roles": ({}, {"POSTGRES_ADMIN_DSN": DSN, "POSTGRES_BACKTEST_SERVICE_PASSWORD": BAD}),
    "rotate": ({}, {"POSTGRES_ADMIN_DSN": DSN, "POSTGRES_BACKTEST_SERVICE_USER": "none"}),
    "psql": ({"as_app": True}, {"POSTGRES_DSN": DSN, "POSTGRES_BACKTEST_SERVICE_USER": "none"}),
    "secret.push": ({}, {"POSTGRES_DSN": DSN, "POSTGRES_BACKTEST_SERVICE_USER": "none"}),
    "render": ({"template": "nowhere"}, {}),
    "deploy": ({"template": "nowhere"}, {}),
    "github.setup": ({}, {"AZURE_SUBSCRIPTION_ID": "nonsense"}),
}


@pytest.mark.parametrize("task", RUNS)
def test_the_settings_behind_flags_are_those_that_the_command_reads(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, known = RUNS[task]
    (tmp_path / "empty.env").touch()
    env = Recorder({**az_in(tmp_path), **known})
    monkeypatch.setattr(os, "environ", env)
    with pytest.raises(Exit) as ended, contextlib.redirect_stderr(io.StringIO()):
        tasks.namespace[task](Context(), **flags(task, env_file=str(tmp_path / "empty.env"), **given))
    assert ended.value.code == 2
    behind = {name for flag in flags(task) if flag != "dsn" for name in origins.variables(task, flag)}
    assert behind, "there is one to look for"
    assert behind - env.asked == set(), "said, and not read"
    # The image is read with every DSN, for a psql that not every command starts.
    elsewhere = {*settings.DSN_VARIABLES, "POSTGRES_IMAGE", *origins.alone(task, flags(task)), *workflow(task)}
    read = {name for name in env.asked if name.startswith(("POSTGRES_", "AZURE_"))}
    assert read - behind - elsewhere == set(), "read, and not said"


def workflow(task: str) -> set[str]:
    from scripts import github

    return {entry.name for entry in github.EVERYTHING} if task.startswith("github.") else set()


def test_no_flag_is_said_to_have_a_setting_that_its_task_has_not() -> None:
    assert sorted(origins.BEHIND) == sorted(RUNS)
    for task, names in origins.BEHIND.items():
        assert [name for name in names if name not in flags(task)] == [], task
        assert len(set(names)) == len(names)


def explained(task: str, *, env: Mapping[str, str] | None = None, **given: Any) -> dict[str, Value]:
    """By the flag's or setting's name."""

    def values() -> Iterator[Value]:
        yield from origins.explained(task, flags(task, **given), tasks.FLAGS, Console(out=io.StringIO(), err=io.StringIO()))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "environ", dict(env or {}))
        patched.setattr(settings, "ROOT", Path("/nowhere"))
        listed = list(values())
    assert len({value.name for value in listed}) == len(listed)
    return {value.name: value for value in listed}


@pytest.mark.parametrize(
    ("task", "flag", "default"),
    [
        ("migrate", "--lock-wait", f"{runner.LOCK_WAIT:g}"),
        ("migrate", "--lock-retries", f"{runner.LOCK_RETRIES}"),
        ("roles", "--lock-timeout", logins.TIMEOUTS["lock_timeout"]),
        ("roles", "--idle-in-transaction-timeout", logins.TIMEOUTS["idle_in_transaction_session_timeout"]),
        ("roles", "--backtest-service-user", settings.DEFAULT_APP_USER),
        ("provision", "--sku-name", flexible.DEFAULT_SKU),
        ("provision", "--database-name", flexible.DEFAULT_DATABASE),
        ("provision", "--admin-user", flexible.DEFAULT_ADMIN),
        ("provision", "--storage-size-gib", f"{flexible.DEFAULT_STORAGE}"),
        ("provision", "--postgres-version", f"{flexible.DEFAULT_VERSION}"),
        ("provision", "--backup-retention-days", f"{flexible.DEFAULT_RETENTION}"),
        ("provision", "--sslmode", flexible.SSL_MODES[0]),
        ("provision", "--location-fallback", f"in the US: {','.join(flexible.DEFAULT_LOCATIONS)}"),
        ("provision", "--ready-deadline", f"{request.deadline(request.Reader({}, Sources({}, {}, '.env'))):g}"),
        ("provision", caller.VARIABLE, f"as {caller.SERVICE} sees it"),
        ("up", "POSTGRES_IMAGE", settings.image(Sources({}, {}, ".env"))),
        ("status", "--psql", "auto"),
        ("status", "--env-file", ".env"),
    ],
)
def test_a_default_is_the_one_of_the_code(task: str, flag: str, default: str) -> None:
    value = explained(task)[flag]
    assert (value.text, value.origin) == (default, "default")


@pytest.mark.parametrize(("task", "version"), [("up", 17), ("quickstart", 17), ("provision", settings.DEFAULT_VERSION)])
def test_the_image_of_a_server_is_of_its_version_and_the_one_of_psql_is_not(task: str, version: int) -> None:
    value = explained(task, docker=True, postgres_version="17")["POSTGRES_IMAGE"]
    assert (value.text, value.origin) == (settings.image(Sources({}, {}, ".env"), version), "default")


def test_the_lock_timeout_of_a_migration_is_the_one_of_the_code() -> None:
    text = explained("migrate")["--lock-timeout"].text
    assert text is not None
    assert settings.checked_time("lock-timeout", text) == runner.LOCK_TIMEOUT


def test_what_nothing_gives_is_not_set() -> None:
    values = explained("migrate")
    assert [(values[name].text, values[name].origin) for name in ("--dsn", "--to")] == [(None, "none"), (None, "none")]
    assert explained("deploy")["--resource-group"].origin == "none"
    assert explained("teardown")["--resource-group"].text == "of a server: its name and -rg"


def test_a_line_that_is_not_known_is_not_told() -> None:
    value = Value(name="--dsn", text="x", origin="file", where="POSTGRES_ADMIN_DSN in /dev/fd/63")
    assert value.row()[2] == "POSTGRES_ADMIN_DSN in /dev/fd/63"


def test_a_flag_wins_over_the_environment() -> None:
    env = {"AZURE_RESOURCE_GROUP": "theirs", "POSTGRES_SERVER_NAME": "srv"}
    values = explained("teardown", env=env, resource_group="mine")
    assert values["--resource-group"] == Value(name="--resource-group", text="mine", origin="flag", where="--resource-group")
    assert values["--server-name"].where == "POSTGRES_SERVER_NAME"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("****", "environment", "POSTGRES_BACKTEST_SERVICE_PASSWORD")),
        ({"backtest_service_password": "another"}, ("****", "flag", "--backtest-service-password")),
        ({"backtest_service_password": "-"}, ("-", "flag", "--backtest-service-password")),
        ({"backtest_service_password_file": "pw.txt"}, ("****", "flag", "--backtest-service-password-file")),
        ({"keep_password": True}, ("a new one", "default", None)),
    ],
)
def test_a_password_is_masked(given: Mapping[str, Any], expected: tuple[str, str, str | None]) -> None:
    value = explained("roles", env={"POSTGRES_BACKTEST_SERVICE_PASSWORD": "secretword"}, **given)["--backtest-service-password"]
    assert (value.text, value.origin, value.where) == expected


def test_the_dsn_of_the_application_is_the_one_where_the_application_is_meant() -> None:
    env = {"POSTGRES_ADMIN_DSN": DSN, "POSTGRES_DSN": DSN.replace("me", "app")}
    assert explained("psql", env=env)["--dsn"].where == "POSTGRES_ADMIN_DSN"
    assert explained("psql", env=env, as_app=True)["--dsn"].where == "POSTGRES_DSN"
    assert explained("secret.push", env=env)["--dsn"].where == "POSTGRES_DSN"


def test_a_dsn_without_a_password_is_shown_as_it_is() -> None:
    assert explained("status", dsn="postgresql://me@localhost/serving")["--dsn"].text == "postgresql://me@localhost/serving"


def test_a_value_of_several_lines_is_one_row() -> None:
    value = explained("up", env={"POSTGRES_IMAGE": "a\n::error::b\x1b[2J"})["POSTGRES_IMAGE"]
    assert value.row()[1] == "a\\n::error::b\\x1b[2J"
