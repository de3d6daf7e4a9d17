"""What `invoke migrations.lint` says of a folder, by the real squawk."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.settings import MIGRATIONS
from tests.database import invoke
from tests.repository import Repository, without_git

pytestmark = pytest.mark.once  # no server has a part in it

T = "-- A table for a test.\nCREATE TABLE core.t (id bigint);\n"
LINE = re.compile(r"(?P<path>.+):(?P<line>\d+): (?P<level>error|warning): (?P<rule>[a-z-]+): .+")


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def lint(folder: Path, *words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return invoke("migrations.lint", "--migrations-dir", str(folder), *words, env=env, cwd=cwd or folder)


def found(folder: Path, files: Mapping[str, str | bytes], expected_code: int = 1) -> list[tuple[str, int, str]]:
    """(file, line, rule) of each finding, which text and JSON say alike."""
    write(folder, files)
    as_text, as_json = lint(folder), lint(folder, "--json")
    assert as_text.returncode == as_json.returncode == expected_code, as_text.stderr + as_json.stderr
    problems = json.loads(as_json.stdout)["problems"]
    lines = [match for match in map(LINE.fullmatch, as_text.stdout.splitlines()) if match]
    assert [(m["path"], int(m["line"]), m["level"], m["rule"]) for m in lines] == [
        (problem["path"], problem["line"], problem["level"], problem["rule"]) for problem in problems
    ]
    return [(problem["file"], problem["line"], problem["rule"]) for problem in problems]


def test_the_projects_own_migrations_pass() -> None:
    result = invoke("migrations.lint")
    count = len(list(MIGRATIONS.glob("*.sql")))
    assert (result.returncode, result.stdout) == (0, f"no problems in {count} files\n"), result.stderr


def test_a_folder_without_files_has_no_problems(folder: Path) -> None:
    result = lint(folder, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {
        "folder": str(folder),
        "files": 0,
        "summary": "no problems in 0 files",
        "problems": [],
    }


def test_a_folder_that_is_not_there_is_a_wrong_flag(tmp_path: Path) -> None:
    result = lint(tmp_path / "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert "--migrations-dir" in result.stderr


def test_what_is_wrong_is_said_with_file_line_and_help(folder: Path) -> None:
    write(folder, {"0001_a.sql": T, "0002_b.sql": "-- Größe.\n\nALTER TABLE core.t\n  ADD COLUMN a timestamp;\nSELECT 1;\n"})
    result = lint(folder)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("0002_b.sql:4: warning: prefer-timestamp-tz: When Postgres stores")
    assert lines[1].startswith("  help: Use `timestamptz`")
    assert lines[2:] == ["1 problem in 2 files"]


def test_each_file_is_looked_at_in_its_own_mode(folder: Path) -> None:
    """What must bear to be run again, and what can't run in a transaction, depends on the file alone."""
    files = {
        "0001_a.sql": "-- In a transaction.\nCREATE TABLE core.a (id bigint);\nDROP INDEX core.i;\n",
        "0002_b.sql": "-- migrate: no-transaction\n-- Outside of one.\nCREATE INDEX CONCURRENTLY j ON core.a (id);\n",
        "0003_c.sql": "-- Wrapped whole.\nBEGIN;\nCREATE TABLE core.c (id bigint);\nCOMMIT;\n",
        "0004_d.sql": "-- squawk-disable-assume-in-transaction\n-- Told otherwise.\nCREATE TABLE core.d (id bigint);\n",
        "0005_e.sql": "-- In a transaction, where it can't.\nDROP INDEX CONCURRENTLY core.i;\n",
    }
    assert found(folder, files) == [
        ("0001_a.sql", 3, "require-concurrent-index-deletion"),
        ("0002_b.sql", 3, "prefer-robust-stmts"),
        ("0005_e.sql", 2, "refused"),
    ]


def test_what_is_psqls_own_is_no_syntax_error(folder: Path) -> None:
    text = (
        "-- All that psql knows and squawk doesn't.\n\\set schema core\nCREATE TABLE :schema.t (id bigint);\n"
        "SELECT true AS new \\gset is_\n\\if :is_new\n  SELECT :'schema', :\"schema\", :{?schema};\n\\endif\n"
        "COPY core.t FROM stdin;\n1\n\\.\n\\copy core.t from stdin\nit's 2\n\\.\n"
        "SELECT format('ANALYZE %I', 't') \\gexec\nSELECT $1 \\bind 1 \\g\nSELECT 1 \\; SELECT 2;\n"
        "ALTER TABLE core.u DROP COLUMN a;\n"
    )
    assert found(folder, {"0001_a.sql": text}) == [("0001_a.sql", 17, "ban-drop-column")]


def test_included_files_are_looked_at_once_behind_the_file_that_includes_them(folder: Path) -> None:
    files = {
        "0001_a.sql": "-- Two parts.\n\\i parts/x.sql\n\\ir parts/y.sql\n",
        "0002_b.sql": "-- The same again.\n\\i parts/x.sql\nALTER TABLE core.b DROP COLUMN d;\n",
        "parts/x.sql": "ALTER TABLE core.a DROP COLUMN b;\n\\! rm x\n",
        "parts/y.sql": "GRANT SELECT ON core.a TO PUBLIC;\n",
        "parts/unused.sql": "ALTER TABLE core.a DROP COLUMN c;\n",
    }
    assert found(folder, files) == [
        ("parts/x.sql", 1, "ban-drop-column"),
        ("parts/x.sql", 2, "refused"),
        ("parts/y.sql", 1, "grant-to-public"),
        ("0002_b.sql", 3, "ban-drop-column"),
    ]
    assert lint(folder).stdout.endswith("4 problems in 4 files\n")


def test_repeatable_files_come_behind_the_numbered_ones(folder: Path) -> None:
    text = "CREATE OR REPLACE VIEW core.v AS SELECT 1 AS a;\n"
    files = {
        "R__views.sql": f"{text}GRANT SELECT ON core.v TO PUBLIC;\n",
        "R__other.sql": f"-- Another view.\n{text}",
        "0001_a.sql": "-- A column less.\nALTER TABLE core.a DROP COLUMN b;\n",
    }
    assert found(folder, files) == [
        ("0001_a.sql", 2, "ban-drop-column"),
        ("R__views.sql", 1, "header"),
        ("R__views.sql", 2, "grant-to-public"),
    ]
    assert lint(folder).stdout.endswith("3 problems in 3 files\n")


def test_what_a_file_without_transaction_includes_has_to_bear_a_second_run(folder: Path) -> None:
    files = {
        "0001_a.sql": "-- In a transaction.\n\\i x.part\n",
        "0002_b.sql": "-- migrate: no-transaction\n-- Outside of one.\n\\i x.part\n",
        "x.part": "CREATE TABLE core.x (id bigint);\n",
    }
    assert found(folder, files) == [("x.part", 1, "prefer-robust-stmts")]


def test_all_that_would_be_refused_is_listed(folder: Path) -> None:
    files: dict[str, str | bytes] = {
        "0001_a.sql": "-- Leaves psql.\nSELECT 1;\n\\q\n",
        "0002_b.sql": "-- Commits.\nSELECT 1;\nCOMMIT;\nSELECT 2;\n",
        "02_c.sql": T,
        "0003_d.sql": b"-- \xff\n",
        "0004_e.sql": "",
        "5.sql": T,
        "0006_f.sql": "-- Written without an end.\nSELECT 'a\n",
    }
    refused = [(file, line) for file, line, rule in found(folder, files) if rule == "refused"]
    assert refused == [
        ("0001_a.sql", 3),
        ("0002_b.sql", 3),
        ("02_c.sql", 1),
        ("0004_e.sql", 1),
        ("0006_f.sql", 2),
        ("0003_d.sql", 1),
        ("5.sql", 1),
    ]


def test_comments_of_both_kinds_except_a_finding(folder: Path) -> None:
    text = (
        "-- Exceptions.\n-- squawk-ignore ban-drop-column\nALTER TABLE core.a DROP COLUMN b;\n"
        "-- lint-ignore ban-drop-column: nobody reads it\nALTER TABLE core.a DROP COLUMN c;\n"
        "GRANT SELECT ON core.a TO PUBLIC; -- lint-ignore grant-to-public\n"
    )
    assert found(folder, {"0001_a.sql": text}, expected_code=0) == []
    for comment in ("-- squawk-ignore ban-drop-column", "-- lint-ignore ban-drop-column: nobody reads it"):
        assert (text := text.replace(comment, "--", 1))
    assert found(folder, {"0001_a.sql": text}) == [("0001_a.sql", 3, "ban-drop-column"), ("0001_a.sql", 5, "ban-drop-column")]


def test_syntax_that_squawk_does_not_know_can_be_excepted(folder: Path) -> None:
    files = {"0001_a.sql": "-- As of a version to come.\nCREATE WIDGET a;\n"}
    rules = {rule for _, _, rule in found(folder, files)}
    assert rules == {"syntax-error"}
    files = {"0001_a.sql": "-- As of a version to come.\nCREATE WIDGET a; -- lint-ignore syntax-error\n"}
    assert found(folder, files, expected_code=0) == []


def test_no_password_is_printed(folder: Path) -> None:
    write(folder, {"0001_a.sql": "-- A role.\nCREATE ROLE a PASSWORD 'hunter2';\nSELECT hunter2 'hunter2' 'x;\n"})
    for words in ([], ["--json"], ["--github"]):
        result = lint(folder, *words)
        assert result.returncode == 1
        assert "password" in result.stdout
        assert "hunter2" not in result.stdout + result.stderr


def test_annotations_name_paths_as_the_repository_has_them(repository: Repository) -> None:
    folder = repository.path / "db, über" / "migrations"
    write(folder, {"0001_a.sql": "-- 100% bad.\nGRANT SELECT ON core.a TO PUBLIC;\nALTER TABLE core.a DROP COLUMN b;\n"})
    result = lint(folder, "--github", cwd=repository.path.parent)
    assert result.returncode == 1
    error, warning, summary = result.stdout.splitlines()
    where = "file=db%2C über/migrations/0001_a.sql"
    assert error.startswith(f"::error {where},line=2,title=grant-to-public::a grant to PUBLIC")
    assert "%0Aname a role" in error
    assert warning.startswith(f"::warning {where},line=3,title=ban-drop-column::Dropping a column")
    assert summary == "2 problems in 1 file"


def test_annotations_and_json_do_not_mix(folder: Path) -> None:
    write(folder, {"0001_a.sql": "GRANT SELECT ON core.a TO PUBLIC;\n"})
    result = lint(folder, "--github", "--json", PATH=without_git(folder.parent))
    assert [problem["rule"] for problem in json.loads(result.stdout)["problems"]] == ["grant-to-public", "header"]
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == ["::error", "::warning"]
    assert ",line=1,title=header::" in result.stderr


def test_the_users_own_rules_hold_with_ours(folder: Path) -> None:
    write(folder, {"0001_a.sql": "-- A table.\nCREATE TABLE t (id int, at timestamp);\nALTER TABLE u DROP COLUMN a;\n"})
    (folder.parent / ".squawk.toml").write_text(
        'excluded_rules = ["ban-drop-column", "prefer-bigint-over-int"]\nincluded_rules = ["require-table-schema"]\n'
        'pg_version = "15.0"\nassume_in_transaction = false\nexcluded_paths = ["*"]\n',
        encoding="utf-8",
    )
    result = lint(folder, "--json")
    rules = [(problem["line"], problem["rule"]) for problem in json.loads(result.stdout)["problems"]]
    assert rules == [(2, "prefer-timestamp-tz"), (2, "require-table-schema"), (3, "require-table-schema")]
    assert ".squawk.toml" in result.stderr


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ('excluded_rules = ["no-such-rule"]', "no-such-rule"),
        ('excluded_rules = "ban-drop-column"', "isn't a list"),
        ("excluded_rules = [", "can't be read"),
        ('pg_version = "new"', "new"),
    ],
)
def test_rules_that_can_not_be_meant_are_said(folder: Path, config: str, what: str) -> None:
    write(folder, {"0001_a.sql": T})
    (folder / ".squawk.toml").write_text(config, encoding="utf-8")
    result = lint(folder)
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    assert what in result.stderr
    assert ".squawk.toml" in result.stderr
    assert "Traceback" not in result.stderr


def test_nothing_is_written_beside_the_migrations(folder: Path) -> None:
    write(folder, {"0001_a.sql": T, "0002_b.sql": "-- migrate: no-transaction\n-- Tidies up.\nVACUUM;\n"})

    def everything() -> list[Any]:
        return [(path, path.stat().st_mtime_ns) for path in [folder, *sorted(folder.rglob("*"))]]

    before = everything()
    temporary = folder.parent / "tmp"
    temporary.mkdir()
    assert lint(folder, TMPDIR=str(temporary), TEMP=str(temporary), TMP=str(temporary)).returncode == 0
    assert everything() == before
    assert list(temporary.iterdir()) == []
