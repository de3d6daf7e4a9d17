"""A setting is looked for in a fixed order, and where it was found is known."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from scripts import settings
from scripts.errors import UsageError
from scripts.settings import Sources, Value

ONE = "postgresql://one:p@localhost/d"
TWO = "postgresql://two:p@localhost/d"
THREE = "postgresql://three:p@localhost/d"
FOUR = "postgresql://four:p@localhost/d"


def from_file(path: Path, data: bytes, env: dict[str, str] | None = None) -> Sources:
    path = path / "test.env"
    path.write_bytes(data)
    return settings.sources(str(path), env or {})


@pytest.mark.parametrize(
    ("env", "file", "expected"),
    [
        ({"A": "env"}, {"A": "file"}, Value("env", "A (environment)")),
        ({}, {"A": "file"}, Value("file", "A (.env)")),
        ({"A": ""}, {"A": "file"}, Value("file", "A (.env)")),
        ({"A": ""}, {"A": ""}, None),
        ({"B": "x"}, {}, None),
    ],
)
def test_the_environment_beats_the_file_and_an_empty_value_is_none(
    env: dict[str, str], file: dict[str, str], expected: Value | None
) -> None:
    assert Sources(env, file, ".env").get("A") == expected


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("export A=plain # comment", "plain"),
        ("A='p$a#s\"s'", 'p$a#s"s'),
        ("A=${B}$C", "${B}$C"),
        ("A=größe", "größe"),
        ("\ufeffA=with a BOM", "with a BOM"),
        ("A=x\r\nB=y\r\n", "x"),
    ],
)
def test_a_value_of_the_file_is_taken_as_it_stands(tmp_path: Path, line: str, value: str) -> None:
    found = from_file(tmp_path, line.encode(), {"B": "b", "C": "c"}).get("A")
    assert found == Value(value, f"A ({tmp_path / 'test.env'})")


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--env-file .*nowhere: there is no such file"):
        settings.sources(str(tmp_path / "nowhere"), {})


def test_a_file_that_is_not_utf_8_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="isn't UTF-8 text"):
        from_file(tmp_path, "A=größe".encode("latin-1"))


def test_a_file_below_the_working_folder_is_named_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_file(tmp_path, b"A=1").get("A") == Value("1", "A (test.env)")


@pytest.mark.parametrize(
    ("flag", "env", "file", "user", "origin"),
    [
        (ONE, {"POSTGRES_ADMIN_DSN": TWO}, {}, "one", "--dsn"),
        (
            None,
            {"POSTGRES_ADMIN_DSN": TWO, "POSTGRES_DSN": ONE},
            {"POSTGRES_ADMIN_DSN": THREE},
            "two",
            "POSTGRES_ADMIN_DSN (environment)",
        ),
        (None, {"POSTGRES_DSN": TWO}, {"POSTGRES_ADMIN_DSN": THREE, "POSTGRES_DSN": FOUR}, "three", "POSTGRES_ADMIN_DSN (.env)"),
        (None, {"POSTGRES_DSN": TWO}, {"POSTGRES_DSN": FOUR}, "two", "POSTGRES_DSN (environment)"),
        (None, {}, {"POSTGRES_DSN": FOUR}, "four", "POSTGRES_DSN (.env)"),
    ],
)
def test_the_dsn_is_the_first_that_is_named(
    flag: str | None, env: dict[str, str], file: dict[str, str], user: str, origin: str
) -> None:
    found, where = settings.resolve_dsn(flag, Sources(env, file, ".env"))
    assert (found.params["user"], where) == (user, origin)


def test_a_dash_reads_one_line_of_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{ONE}\nmore\n"))
    found, where = settings.resolve_dsn("-", Sources({"POSTGRES_DSN": TWO}, {}, ".env"))
    assert (found.params["user"], where) == ("one", "--dsn -")


def test_no_dsn_anywhere_names_every_place_for_one() -> None:
    with pytest.raises(UsageError) as raised:
        settings.resolve_dsn(None, Sources({}, {}, "some.env"))
    for place in ("--dsn", "POSTGRES_ADMIN_DSN", "POSTGRES_DSN", "environment", "some.env", "--local"):
        assert place in raised.value.message


def test_a_wrong_dsn_says_where_it_came_from() -> None:
    with pytest.raises(UsageError, match=r"the DSN of POSTGRES_DSN \(\.env\) is not a Postgres URI"):
        settings.resolve_dsn(None, Sources({}, {"POSTGRES_DSN": "x"}, ".env"))


def test_the_image_is_the_official_one_unless_it_is_set() -> None:
    assert settings.image(Sources({}, {}, ".env")) == "postgres:16-alpine"
    assert settings.image(Sources({}, {}, ".env"), 18) == "postgres:18-alpine"
    assert settings.image(Sources({}, {"POSTGRES_IMAGE": "mine:17"}, ".env"), 18) == "mine:17"
