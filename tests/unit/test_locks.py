"""Which statements take a lock that others feel."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import locks, safety, sql
from scripts.locks import Lock


def taken(tmp_path: Path, text: str) -> list[Lock]:
    (tmp_path / "0001_a.sql").write_text(text, encoding="utf-8")
    [migration] = sql.read_folder(tmp_path).migrations
    checked = safety.check(migration, tmp_path)
    assert checked.problems == ()
    return locks.of(checked)


@pytest.mark.parametrize(
    ("statement", "mode"),
    [
        ("ALTER TABLE core.runs ADD COLUMN a int", "ACCESS EXCLUSIVE"),
        ('alter table if exists only "A b" . c drop column d', "ACCESS EXCLUSIVE"),
        ("/* x */ ALTER /* y */ TABLE a RENAME TO b", "ACCESS EXCLUSIVE"),
        ("ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES c", "SHARE ROW EXCLUSIVE"),
        ("ALTER TABLE a DISABLE TRIGGER t", "SHARE ROW EXCLUSIVE"),
        ("ALTER TABLE a VALIDATE CONSTRAINT c", None),
        ("ALTER TABLE a VALIDATE CONSTRAINT c, ADD COLUMN b numeric(1, 2)", "ACCESS EXCLUSIVE"),
        ("ALTER TABLE a ADD FOREIGN KEY (b, c) REFERENCES d (e, f)", "SHARE ROW EXCLUSIVE"),
        ("ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES d, ALTER COLUMN b TYPE bigint", "ACCESS EXCLUSIVE"),
        ("DROP SCHEMA IF EXISTS s CASCADE", "ACCESS EXCLUSIVE"),
        ("DROP SCHEMA s", None),
        ("ALTER TABLE a ATTACH PARTITION b DEFAULT", None),
        ("ALTER TABLE a DETACH PARTITION b CONCURRENTLY", None),
        ("ALTER TABLE a DETACH PARTITION b", "ACCESS EXCLUSIVE"),
        ("CREATE INDEX ON ONLY a (b)", "SHARE"),
        ("CREATE UNIQUE INDEX IF NOT EXISTS i ON s.a USING btree (b)", "SHARE"),
        ("REINDEX TABLE a", "ACCESS EXCLUSIVE"),
        ("DROP TABLE IF EXISTS a", "ACCESS EXCLUSIVE"),
        ("DROP INDEX a", "ACCESS EXCLUSIVE"),
        ("TRUNCATE a, b", "ACCESS EXCLUSIVE"),
        ("LOCK TABLE a", "ACCESS EXCLUSIVE"),
        ("LOCK a IN SHARE  ROW EXCLUSIVE MODE NOWAIT", "SHARE ROW EXCLUSIVE"),
        ("LOCK TABLE a IN ACCESS SHARE MODE", None),
        ("CREATE TRIGGER t BEFORE INSERT ON a EXECUTE FUNCTION f()", "SHARE ROW EXCLUSIVE"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "ACCESS EXCLUSIVE"),
        ("REFRESH MATERIALIZED VIEW m", "ACCESS EXCLUSIVE"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", "EXCLUSIVE"),
        ("CREATE TABLE b (a int REFERENCES s.a (id))", "SHARE ROW EXCLUSIVE"),
        ("CREATE TABLE b PARTITION OF a DEFAULT", "ACCESS EXCLUSIVE"),
        ("CREATE TABLE b (id int)", None),
        ("SELECT 'ALTER TABLE a'", None),
        ("INSERT INTO a VALUES (1)", None),
    ],
)
def test_a_statement(tmp_path: Path, statement: str, mode: str | None) -> None:
    assert [item.mode for item in taken(tmp_path, f"-- one\n{statement};\n")] == ([] if mode is None else [mode])


def test_where_it_stands_what_it_says_and_whom_it_blocks(tmp_path: Path) -> None:
    text = f"SELECT 1;\n\nALTER TABLE a -- long\n  ADD COLUMN b int DEFAULT {'1' * 80};\nCREATE INDEX ON a /* b */ (b) ;\n"
    long, short = taken(tmp_path, text)
    assert (long.file, long.line, long.blocks) == ("0001_a.sql", 3, "reads and writes")
    assert long.statement == f"ALTER TABLE a ADD COLUMN b int DEFAULT {'1' * 28}..."
    assert (short.line, short.statement, short.blocks) == (5, "CREATE INDEX ON a (b)", "writes")


def test_one_that_runs_concurrently_is_not_told(tmp_path: Path) -> None:
    text = "-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY i ON a (b);\nDROP INDEX CONCURRENTLY j;\n"
    text += "REINDEX INDEX CONCURRENTLY k;\n"
    assert taken(tmp_path, text) == []


def test_what_a_file_has_made_itself_is_nobody_elses(tmp_path: Path) -> None:
    text = "CREATE TABLE a (id int);\nALTER TABLE a ADD COLUMN b int;\nCREATE INDEX ON a (b);\nALTER TABLE c ADD COLUMN b int;\n"
    assert [item.line for item in taken(tmp_path, text)] == [4]


def test_what_a_file_includes_is_told_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "part.inc").write_text("\n\nDROP VIEW v;\n")
    (tmp_path / "0001_a.sql").write_text("\\i part.inc\n")
    [migration] = sql.read_folder(tmp_path).migrations
    [lock] = locks.of(safety.check(migration, tmp_path))
    assert (lock.file, lock.line, lock.statement) == ("part.inc", 3, "DROP VIEW v")


def checked(tmp_path: Path, text: str) -> safety.Checked:
    (tmp_path / "0001_a.sql").write_text(f"-- migrate: no-transaction\n{text}\n")
    [migration] = sql.read_folder(tmp_path).migrations
    return safety.check(migration, tmp_path)


@pytest.mark.parametrize(
    ("statement", "left", "not_left"),
    [
        ("CREATE INDEX CONCURRENTLY A_id ON s.T (created_at)", ("a_id", "t"), ("created_at", "t")),
        ('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "A id" ON ONLY t (b)', ("A id", "t"), ("A id", "other")),
        ("DROP INDEX CONCURRENTLY IF EXISTS s.a, b", ("b", "t"), ("t", "t")),
        ("REINDEX INDEX CONCURRENTLY s.a", ("a_ccnew1", "t"), ("b_ccnew1", "t")),
        ("REINDEX (VERBOSE) TABLE CONCURRENTLY s.t", ("a_ccnew", "t"), ("a_ccnew", "other")),
        ("REINDEX TABLE CONCURRENTLY t", ("a_ccold", "t"), ("a", "t")),
        ("REINDEX SCHEMA CONCURRENTLY s", ("a_ccnew", "t"), ("a", "t")),
    ],
)
def test_what_a_file_that_was_cut_off_may_have_left(
    tmp_path: Path, statement: str, left: tuple[str, str], not_left: tuple[str, str]
) -> None:
    items = locks.concurrent(checked(tmp_path, f"{statement};"))
    assert any(item.is_left(*left) for item in items)
    assert not any(item.is_left(*not_left) for item in items)


def test_a_statement_that_is_not_concurrent_leaves_nothing(tmp_path: Path) -> None:
    assert locks.concurrent(checked(tmp_path, "CREATE INDEX a ON t (b);\nVACUUM t;")) == []
