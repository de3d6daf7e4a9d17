"""Migration files are read the same everywhere, and what is wrong with them is listed at once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scripts import sql
from scripts.errors import UsageError
from scripts.sql import Migration


def read(folder: Path, files: dict[str, bytes]) -> sql.Folder:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return sql.read_folder(folder)


def one(folder: Path, text: str) -> Migration:
    (migration,) = read(folder, {"0001_a.sql": text.encode()}).migrations
    return migration


def test_files_come_in_the_order_of_their_numbers(folder: Path) -> None:
    names = ["10_c.sql", "0002-b.sql", "1_a.sql", "00011_d.sql"]
    found = read(folder, dict.fromkeys(names, b"SELECT 1;"))
    assert [migration.file for migration in found.migrations] == ["1_a.sql", "0002-b.sql", "10_c.sql", "00011_d.sql"]
    assert [migration.version for migration in found.migrations] == ["1", "0002", "10", "00011"]
    assert [migration.name for migration in found.migrations] == ["a", "b", "c", "d"]
    assert found.problems == ()
    assert found.path == folder


NAMES = ["10_c.sql", "0002-b.sql", "1_a.sql", "00011_ü.sql", "0011_same.sql", "R__b.sql", "R__a.sql", "R__A b.sql", "12.sql"]


@given(st.permutations(NAMES))
def test_the_order_of_the_file_system_is_none(listed: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for file in listed:
            Path(name, file).write_bytes(b"SELECT 1;")
        with os.scandir(name) as entries:
            by_name = {entry.name: entry for entry in entries}
        in_this_order = contextlib.nullcontext(by_name[file] for file in listed)
        with mock.patch.object(os, "scandir", return_value=in_this_order):
            found = sql.read_folder(Path(name))
    order = ["1_a.sql", "0002-b.sql", "10_c.sql", "00011_ü.sql", "0011_same.sql", "R__A b.sql", "R__a.sql", "R__b.sql"]
    assert [migration.file for migration in found.files] == order
    assert [problem.file for problem in found.problems] == ["12.sql", "0011_same.sql"]


def test_other_files_are_left_alone(folder: Path) -> None:
    (folder / "0003_folder.sql").mkdir()
    found = read(folder, {"README.md": b"", "shared.sql": b"", "0001_a.txt": b"", "R__a.txt": b""})
    assert (found.files, found.problems) == ((), ())


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("0001.sql", b"SELECT 1;", "isn't named NNNN_name.sql"),
        ("0001x.sql", b"SELECT 1;", "isn't named NNNN_name.sql"),
        ("0001_.sql", b"SELECT 1;", "isn't named NNNN_name.sql"),
        ("V2__a.sql", b"SELECT 1;", "isn't named NNNN_name.sql"),
        ("V2.1__a.sql", b"SELECT 1;", "isn't named NNNN_name.sql"),
        ("0001_a.sql", b"", "is empty"),
        ("0001_a.sql", b"\xef\xbb\xbf \r\n", "is empty"),
        ("0001_a.sql", "SELECT 'ü';".encode("latin-1"), "isn't UTF-8 text"),
        ("0001_a.sql", b"SELECT '\0';", "isn't UTF-8 text"),
        ("0001_a\\.sql", b"SELECT 1;", "has a backslash or a control character in its name"),
        ("0001_a\nb.sql", b"SELECT 1;", "has a backslash or a control character in its name"),
        ("0001_a.sql", b"-- migrate: no-transactions\nSELECT 1;", "unknown directive 'no-transactions'"),
        ("0001_a.sql", b"SELECT 1;\n-- migrate: no-transaction\n", "the directive must stand in the file's first comment"),
    ],
)
def test_a_file_that_can_not_be_meant_is_a_problem(folder: Path, name: str, data: bytes, what: str) -> None:
    (problem,) = read(folder, {name: data}).problems
    assert what in problem.what


def test_a_problem_says_where_it_is(folder: Path) -> None:
    (problem,) = read(folder, {"0001_a.sql": b"SELECT 1;\n--migrate: no-transaction\n"}).problems
    assert str(problem).startswith("0001_a.sql:2: ")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("0001_a.sql", "\n\n-- migrate: x\n", "0001_a.sql:3: unknown directive 'x'; the one there is: no-transaction"),
        ("0001_a.sql", ";\n-- migrate: no-transaction", "0001_a.sql:2: the directive must stand in the file's first comment"),
        ("r__a.sql", "SELECT 1;", "r__a.sql: isn't named R__name.sql"),
        ("R__.sql", "SELECT 1;", "R__.sql: isn't named R__name.sql"),
        ("R_a.sql", "SELECT 1;", "R_a.sql: isn't named R__name.sql"),
        (
            "R__a.sql",
            "-- migrate: no-transaction\n",
            "R__a.sql:1: a repeatable file runs in a transaction: give what can't to a numbered file",
        ),
        ("0001_\\a.sql", "SELECT 1;", "'0001_\\\\a.sql': has a backslash or a control character in its name"),
    ],
)
def test_a_problem_says_what_is_wrong(folder: Path, name: str, text: str, said: str) -> None:
    (problem,) = read(folder, {name: text.encode()}).problems
    assert str(problem) == said


def test_a_file_with_a_problem_hides_none_behind_it(folder: Path) -> None:
    found = read(
        folder, {"0001_\\.sql": b"SELECT 1;", "R__\\.sql": b"SELECT 1;", "r__a.sql": b"SELECT 1;", "0002_b.sql": b"SELECT 1;"}
    )
    assert [problem.file for problem in found.problems] == ["'0001_\\\\.sql'", "'R__\\\\.sql'", "r__a.sql"]
    assert [migration.file for migration in found.files] == ["0002_b.sql"]


def test_a_file_that_can_not_be_read_is_a_problem(folder: Path) -> None:
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "0001_a.sql":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read_bytes(path)

    with mock.patch.object(Path, "read_bytes", refuse):
        found = read(folder, {"0001_a.sql": b"SELECT 1;", "0002_b.sql": b"SELECT 1;"})
    assert [str(problem) for problem in found.problems] == ["0001_a.sql: can't be read: Permission denied"]
    assert [migration.file for migration in found.migrations] == ["0002_b.sql"]


@pytest.mark.parametrize(
    ("name", "version"), [("0001_a.sql", "0001"), ("12-b c.sql", "12"), ("0001.sql", None), ("R__a.sql", None), ("a.sql", None)]
)
def test_a_version_is_the_digits_of_a_name(name: str, version: str | None) -> None:
    assert sql.version_of(name) == version


def test_all_problems_are_listed_at_once(folder: Path) -> None:
    found = read(
        folder, {"0001_a.sql": b"", "001-b.sql": b"SELECT 1;", "1_c.sql": b"SELECT 1;", "2.sql": b"", "0003_d.sql": b"\xff"}
    )
    assert [str(problem) for problem in found.problems] == [
        "0001_a.sql: is empty",
        "0003_d.sql: isn't UTF-8 text",
        "2.sql: isn't named NNNN_name.sql (digits, then _ or -)",
        "001-b.sql: has the same version as 0001_a.sql",
        "1_c.sql: has the same version as 001-b.sql",
    ]


@pytest.mark.parametrize(
    "data", [b"a\nb\n", b"a\r\nb\r\n", b"a\rb\r", b"\xef\xbb\xbfa\nb\n", b"\xef\xbb\xbf\xef\xbb\xbfa\r\nb\n"]
)
def test_line_ends_and_boms_are_no_change(folder: Path, data: bytes) -> None:
    (migration,) = read(folder, {"0001_a.sql": data}).migrations
    assert migration.text == "a\nb\n"
    assert migration.checksum == hashlib.sha256(b"a\nb\n").hexdigest()


@example("X\ufeffx\n")
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_what_is_normal_stays_as_it_is(text: str) -> None:
    normal = sql.normalise(text.encode())
    assert sql.normalise(normal.encode()) == normal
    assert "\r" not in normal
    assert not normal.startswith("\ufeff")
    assert "".join(re.split(r"[\r\n]", text.lstrip("\ufeff"))) == normal.replace("\n", "")


def test_a_nul_is_no_text() -> None:
    with pytest.raises(ValueError, match=r"^NUL$"):
        sql.normalise(b"a\0b")


@pytest.mark.parametrize(
    ("text", "transactional"),
    [
        ("SELECT 1;", True),
        ("-- migrate: no-transaction\nVACUUM;", False),
        ("\n-- an index\n/* of\nmany */\n--migrate:no-transaction  \nVACUUM;", False),
        ("-- nothing to migrate: here\nSELECT 1;", True),
    ],
)
def test_the_first_comment_says_whether_there_is_a_transaction(folder: Path, text: str, transactional: bool) -> None:
    assert one(folder, text).transactional is transactional


def test_a_migration_shows_neither_its_text_nor_its_checksum(folder: Path) -> None:
    migration = one(folder, "SELECT 'text';")
    assert "text" not in repr(migration)
    assert migration.checksum not in repr(migration)


def test_a_folder_that_is_not_there_is_said_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere") as raised:
        sql.read_folder(tmp_path / "nowhere")
    assert raised.value.hint == "name it: --migrations-dir"
