"""A setting is looked for in a fixed order, and where it was found is known."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from scripts import dotfile, settings
from scripts.errors import UsageError
from scripts.secret import Secret
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


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_in_the_file_s_place_is_said(tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    (tmp_path / ".env").mkdir()
    with pytest.raises(UsageError, match=r"\.env can't be read: it is a folder") as caught:
        settings.sources(str(tmp_path / ".env") if named else None, {})
    assert caught.value.hint


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")  # root, as which tests may run, is refused nothing

    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UsageError, match=r"\.env can't be read: Permission denied"):
        settings.sources(str(tmp_path / ".env") if named else None, {})


def test_a_file_that_is_nowhere_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    assert settings.sources(None, {}).file == {}


def test_what_comes_through_a_pipe_is_utf_8_whatever_the_system_s_code_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> Secret | None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="cp1252"))
        found = settings.password("x", "-", None, Sources({}, {}, ".env"))
        return found and found[0]

    assert given("größe\r\n".encode()) == Secret("größe")
    assert given("\ufeffgröße\n".encode()) == Secret("größe")  # as PowerShell writes it
    with pytest.raises(UsageError, match="reads stdin, which isn't UTF-8 text"):
        given("größe".encode("cp1252"))


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


# What the application's role is given.


def test_the_application_s_dsn_is_that_of_its_variable_alone() -> None:
    assert settings.app_dsn(Sources({"POSTGRES_ADMIN_DSN": ONE}, {}, ".env")) is None
    found = settings.app_dsn(Sources({"POSTGRES_ADMIN_DSN": ONE}, {"POSTGRES_DSN": TWO}, ".env"))
    assert found is not None
    assert (found[0].params["user"], found[1]) == ("two", "POSTGRES_DSN (.env)")


@pytest.mark.parametrize(
    ("flag", "env", "name"),
    [
        (None, {}, "backtest_service"),
        (None, {"POSTGRES_BACKTEST_SERVICE_USER": "reader"}, "reader"),
        ("mine", {"POSTGRES_BACKTEST_SERVICE_USER": "reader"}, "mine"),
        ("", {"POSTGRES_BACKTEST_SERVICE_USER": "reader"}, ""),
    ],
)
def test_the_application_s_role_is_the_first_that_is_named(flag: str | None, env: dict[str, str], name: str) -> None:
    assert settings.app_user(flag, Sources(env, {}, ".env")) == name


@pytest.mark.parametrize(("ending", "password"), [("", "a b "), ("\n", "a b "), ("\r\n", "a b ")])
def test_one_line_end_behind_a_password_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, password: str
) -> None:
    file = tmp_path / "password"
    file.write_bytes(f"\ufeff{password}{ending}".encode())
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}{ending}"))
    nothing = Sources({}, {}, ".env")
    setting = Sources({"POSTGRES_BACKTEST_SERVICE_PASSWORD": password + ending}, {}, ".env")
    assert settings.password("backtest-service-password", None, str(file), setting) == (Secret(password), str(file))
    assert settings.password("backtest-service-password", "-", None, setting) == (Secret(password), "stdin")
    assert settings.password("backtest-service-password", "flag", None, setting) == (
        Secret("flag"),
        "--backtest-service-password",
    )
    assert settings.password("backtest-service-password", None, None, setting) == (
        Secret(password),
        "POSTGRES_BACKTEST_SERVICE_PASSWORD (environment)",
    )
    assert settings.password("backtest-service-password", None, None, nothing) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "is empty"), ("\n", "is empty"), ("secret\n\n", "holds a line break"), ("sec\tret", "holds a line break")],
)
def test_a_password_that_cannot_be_one_is_refused_and_not_shown(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        settings.password("backtest-service-password", text, None, Sources({}, {}, ".env"))
    assert "sec" not in caught.value.message.replace("backtest-service", "")


def test_two_passwords_and_a_password_file_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    nothing = Sources({}, {}, ".env")
    with pytest.raises(UsageError, match="both give a password"):
        settings.password("backtest-service-password", "x", "y", nothing)
    with pytest.raises(UsageError, match="can't be read: No such file"):
        settings.password("backtest-service-password", None, str(tmp_path / "none"), nothing)
    (tmp_path / "latin").write_bytes("größe".encode("latin-1"))
    with pytest.raises(UsageError, match="it isn't UTF-8 text"):
        settings.password("backtest-service-password", None, str(tmp_path / "latin"), nothing)


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False), ("", False), ("1", False), (None, False)])
def test_github_actions_says_so_in_the_environment(value: str | None, expected: bool) -> None:
    assert settings.in_github_actions({} if value is None else {"GITHUB_ACTIONS": value}) is expected


def test_keeping_the_password_stands_above_the_setting_and_not_beside_a_flag() -> None:
    found = Sources({"POSTGRES_X": "given"}, {}, ".env")
    assert settings.password("x", None, None, found, keep=True) is None
    for flag, file in (("-", None), ("given", None), (None, "file")):
        with pytest.raises(UsageError, match="--keep-password, and --x"):
            settings.password("x", flag, file, found, keep=True)


@pytest.mark.parametrize("text", ["b\udcffd", "\ud800"])
def test_a_password_or_a_name_that_is_not_utf_8_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Sources({"POSTGRES_X": text, "POSTGRES_BACKTEST_SERVICE_USER": text}, {}, ".env")
    for flag in (None, text, "-"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(UsageError, match="isn't UTF-8 text"):
            settings.password("x", flag, None, found)
    for name in (None, text):
        with pytest.raises(UsageError, match="isn't UTF-8 text"):
            settings.app_user(name, found)


def test_a_line_that_is_no_setting_is_refused_as_it_may_be_the_one_that_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.env"
    path.write_text('POSTGRES_DSN=postgresql://a@b/c\n\nPOSTGRES_ADMIN_DSN="postgresql://me:secret@there/x\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"x\.env: line 3 is no KEY=value") as raised:
        settings.sources(str(path), {})
    assert "secret" not in str(raised.value) + str(raised.value.hint)
    # As `invoke doctor` has it: a word alone, and the rest of a DSN that was broken into two lines, are no settings either.
    path.write_text('A=1\nPOSTGRES_ADMIN_DSN\n\npostgresql://u:secret@h/d?sslmode=require\nB="2\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"x\.env: lines 2, 4, 5 are no KEY=value"):
        settings.sources(str(path), {})
    lines = dotfile.keys(path, {"A", "B"}).says
    assert "lines that are no KEY=value: line 2, line 4, line 5" in lines
    path.write_text("# a comment\nexport A=1\n\nB=\nC='2'\n", encoding="utf-8")
    assert settings.sources(str(path), {}).file == {"A": "1", "C": "2"}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("POSTGRES_ADMIN_DNS", "POSTGRES_ADMIN_DSN"),
        ("postgres_admin_dsn", "POSTGRES_ADMIN_DSN"),
        ("POSTGRES_DSNS", "POSTGRES_DSN"),
        ("POSTGRES_DSN_FORMER", None),
        ("PGHOST", None),
    ],
)
def test_a_misspelt_key_is_named_where_no_database_is(key: str, meant: str | None, tmp_path: Path) -> None:
    path = tmp_path / "x.env"
    path.write_text(f"A=1\n{key}=postgresql://me:secret@h/d?sslmode=require\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no database is named") as raised:
        settings.resolve_dsn(None, settings.sources(str(path), {}))
    renamed = f"rename {key} ({path}, line 2) to {meant}; or for a throwaway server"
    assert raised.value.hint.startswith(renamed if meant else "for a throwaway server on this machine, add --local; else put")
    assert "secret" not in raised.value.hint
