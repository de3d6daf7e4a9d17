"""The command that was given, for a message that says what to run next; and a flag that means the same in every task."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
from scripts import shell
from tests.flags import arguments

APOSTROPHE = "it's.env"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "invoke provision"),
        ({"server_name": None, "plan": False, "allow_cidr": []}, "invoke provision"),
        ({"server_name": "srv1", "plan": True}, "invoke provision --server-name srv1 --plan"),
        (
            {"location": "East US", "env_file": "it's.env"},
            f"invoke provision --location {shell.quoted('East US')} --env-file {shell.quoted(APOSTROPHE)}",
        ),
        (
            {"allow_cidr": ["192.0.2.1", "203.0.113.0/24,10.0.0.0/9"]},
            "invoke provision --allow-cidr 192.0.2.1 --allow-cidr 203.0.113.0/24,10.0.0.0/9",
        ),
        ({"admin_password": "-"}, "invoke provision --admin-password -"),
        ({"admin_password_file": "my password"}, f"invoke provision --admin-password-file {shell.quoted('my password')}"),
        (
            {"reset_admin_password": True, "keep_password": True},
            "invoke provision --reset-admin-password --keep-password",
        ),
        ({"reset_admin_password": False, "keep_password": False}, "invoke provision"),
    ],
)
def test_the_command_again_is_the_one_that_was_given(flags: dict[str, Any], expected: str) -> None:
    assert tasks.again("provision", flags) == expected


@pytest.mark.parametrize("flag", [name for name in tasks.FLAGS if name.endswith("password")])
def test_the_command_again_asks_for_a_password_instead_of_showing_it(flag: str) -> None:
    again = tasks.again("provision", {flag: "S3cret,word"})
    assert again == f"invoke provision --{flag.replace('_', '-')} -"


def test_the_command_again_reads_as_one_line_of_a_shell() -> None:
    value = "a 'b' \"c\" $d `e` \\f;g"
    assert shlex.split(tasks.again("teardown", {"resource_group": value})) == ["invoke", "teardown", "--resource-group", value]


WITH_A_FILE = [name for name in tasks.namespace.task_names if any(argument.name == "env_file" for argument in arguments(name))]
WORDS = {"migrations.baseline": {"to": "1"}, "migrations.repair": {"version": "1"}}  # without which they say so first


@pytest.mark.parametrize("task", WITH_A_FILE)
def test_an_empty_name_of_a_file_is_never_taken_for_the_project_s_own(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exit) as ended:
        tasks.namespace[task](Context(), env_file="", **WORDS.get(task, {}))
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: --env-file is empty\n")
