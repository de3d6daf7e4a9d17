"""`invoke migrations.prove`: each kind of file that doesn't come to the same is named, and by the check that is made for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import scratch
from tests.database import ENV, ROOT, invoke, invoke_argv
from tests.proofs import DEADLINE

pytestmark = pytest.mark.once

TWICE, REPLAY = "applied, and applied again: nothing is left to do", "every file run again by force"
CUT_OFF = "cut off behind each statement outside a transaction, and resumed"
RUNNERS, SECOND, ANOTHER_DAY = "two runners at once", "a second database on the same server", "on another day"


def prove(folder: Path, *flags: str) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
    """The exit code, the document, and its checks by name."""
    result = invoke("migrations.prove", "--migrations-dir", str(folder), "--json", *flags)
    document = json.loads(result.stdout)
    assert "Traceback" not in result.stderr
    return result.returncode, document, {item["check"]: item for item in document["checks"]}


def failed(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    """check -> file"""
    return {name: item["file"] for name, item in checks.items() if item["verdict"] == "fails"}


def test_the_projects_own_files() -> None:
    result = invoke("migrations.prove")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "3 files of migrations, on PostgreSQL 16"
    assert [line.split()[0] for line in lines[1:-1]] == ["built", *["holds"] * 9]
    assert lines[-1] == "9 checks: all hold"


@pytest.fixture
def plain(folder: Path) -> Path:
    """Two files that bear everything; each more takes its time, as an upgrade is tried from behind each."""
    (folder / "0001_a.sql").write_text(
        "CREATE TABLE IF NOT EXISTS a\n"
        "  (id int PRIMARY KEY, name text, made timestamptz DEFAULT now(), day date DEFAULT CURRENT_DATE);\n"
    )
    (folder / "0002_seed.sql").write_text("INSERT INTO a VALUES (1, 'one'), (2, 'CURRENT_DATE') ON CONFLICT DO NOTHING;\n")
    return folder


@pytest.fixture
def good(plain: Path) -> Path:
    """Files of every kind that bear everything."""
    (plain / "0003_index.sql").write_text(
        "-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_name ON a (name);\nANALYZE a;\n"
    )
    (plain / "0004_more.sql").write_text("\\i parts/more.sql\n")
    (plain / "R__view.sql").write_text("CREATE OR REPLACE VIEW v AS SELECT id, CURRENT_DATE FROM a;\n")
    (plain / "parts").mkdir()
    (plain / "parts" / "more.sql").write_text("CREATE SEQUENCE IF NOT EXISTS numbers;\nSELECT nextval('numbers');\n")
    return plain


@pytest.mark.long
def test_files_that_bear_everything(good: Path) -> None:
    code, document, checks = prove(good, "--no-clock", "--postgres-version", "18")
    assert failed(checks) == {}, document
    assert code == 0
    assert checks[CUT_OFF]["verdict"] == "holds"
    assert checks[ANOTHER_DAY] == {"check": ANOTHER_DAY, "verdict": "not tried", "seconds": 0, "why": "--no-clock"}
    assert document["version"] == 18


def test_one_that_is_not_idempotent(plain: Path) -> None:
    (plain / "0005_b.sql").write_text("ALTER TABLE a ADD CHECK (id > 0);\n")
    code, document, checks = prove(plain, "--no-clock")
    assert code == 1
    assert failed(checks) == {REPLAY: "0005_b.sql"}
    assert document["hint"].startswith("mend 0005_b.sql, then: invoke migrations.prove --migrations-dir")


@pytest.mark.long
def test_one_that_does_not_have_to_be_idempotent(plain: Path) -> None:
    (plain / "0005_b.sql").write_text("ALTER TABLE a ADD CHECK (id > 0);\n")
    code, _, checks = prove(plain, "--no-clock", "--no-replay")
    assert (code, failed(checks)) == (0, {})
    assert checks[REPLAY]["why"] == "--no-replay"


@pytest.mark.long
def test_the_first_of_two(plain: Path) -> None:
    (plain / "0005_b.sql").write_text("INSERT INTO a SELECT max(id) + 1, 'again' FROM a;\n")
    (plain / "0006_c.sql").write_text("CREATE TABLE c (id int);\n")
    (plain / "0007_d.sql").write_text("CREATE TABLE IF NOT EXISTS d (id int);\n")
    code, document, checks = prove(plain, "--no-clock")
    assert (code, failed(checks)) == (1, {REPLAY: "0005_b.sql"})
    assert "+INSERT INTO public.a VALUES (4, 'again'" in document["error"]


ON_ANOTHER_DAY = {
    "the month in a name": (
        "DO $$BEGIN EXECUTE format('CREATE TABLE IF NOT EXISTS b_%s (id int)', to_char(CURRENT_DATE, 'YYYY_MM')); END$$;\n"
    ),
    "chance": "CREATE TABLE IF NOT EXISTS b AS SELECT gen_random_uuid() AS id;\n",
}


@pytest.mark.long
@pytest.mark.parametrize("text", ON_ANOTHER_DAY.values(), ids=ON_ANOTHER_DAY.keys())
def test_one_that_depends_on_the_clock(folder: Path, text: str) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (id int, at timestamptz DEFAULT now());\n")
    (folder / "0002_b.sql").write_text(text)
    (folder / "0003_c.sql").write_text("CREATE TABLE IF NOT EXISTS c (id int);\n")
    code, _, checks = prove(folder)
    assert code == 1
    assert checks[ANOTHER_DAY]["file"] == "0002_b.sql"
    if "random" not in text:
        assert failed(checks) == {ANOTHER_DAY: "0002_b.sql"}


ABSENCE = {
    "of a later file's table": (
        (
            "DO $$BEGIN\n  IF to_regclass('c') IS NULL THEN CREATE TABLE IF NOT EXISTS b (id int);\n"
            "  ELSE DROP TABLE b; END IF;\nEND$$;\n"
        ),
        REPLAY,
    ),
    "of a role": ("CREATE TABLE IF NOT EXISTS b (id int);\nCREATE ROLE nobody_else_has_made;\n", SECOND),
}


@pytest.mark.long
@pytest.mark.parametrize(("text", "check"), ABSENCE.values(), ids=ABSENCE.keys())
def test_one_that_depends_on_anothers_absence(folder: Path, text: str, check: str) -> None:
    (folder / "0001_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (id int);\n")
    (folder / "0002_b.sql").write_text(text)
    (folder / "0003_c.sql").write_text("CREATE TABLE IF NOT EXISTS c (id int);\n")
    code, _, checks = prove(folder, "--no-clock")
    assert code == 1
    assert checks[check]["file"] == "0002_b.sql"
    assert set(failed(checks).values()) == {"0002_b.sql"}


@pytest.mark.long
def test_one_that_breaks_when_resumed(plain: Path) -> None:
    (plain / "0005_b.sql").write_text(
        "-- migrate: no-transaction\nDROP TABLE IF EXISTS b;\nCREATE TABLE b (id int);\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS b_id ON b (id);\nINSERT INTO a SELECT max(id) + 1, 'again' FROM a;\n"
    )
    code, document, checks = prove(plain, "--no-clock", "--no-replay")
    assert (code, failed(checks)) == (1, {CUT_OFF: "0005_b.sql"})
    assert "cut off behind line 5 and resumed, it comes to something else" in document["error"]


@pytest.mark.long
def test_what_builds_no_index_leaves_none_broken(plain: Path) -> None:
    (plain / "0005_b.sql").write_text("-- migrate: no-transaction\nDROP INDEX CONCURRENTLY IF EXISTS nowhere;\n")
    code, document, checks = prove(plain, "--no-clock", "--no-replay")
    assert (code, failed(checks)) == (0, {}), document


@pytest.mark.long
def test_a_quote_in_a_name(plain: Path) -> None:
    (plain / "R__it's.sql").write_text("CREATE TABLE b (id int);\n")
    code, _, checks = prove(plain, "--no-clock")
    assert (code, failed(checks)) == (1, {REPLAY: "R__it's.sql"})


def test_an_extension_that_a_scratch_server_lacks(folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE EXTENSION postgis;\n")
    result = invoke("migrations.prove", "--migrations-dir", str(folder))
    assert result.returncode == 1
    assert "0001_a.sql:1: CREATE EXTENSION postgis" in result.stderr
    assert "next:  mend the files, then: invoke migrations.prove --migrations-dir" in result.stderr


@pytest.mark.long
def test_one_that_rests_on_the_session_of_another(folder: Path) -> None:
    (folder / "0001_a.sql").write_text("CREATE SEQUENCE IF NOT EXISTS s;\nSELECT nextval('s');\n")
    (folder / "0002_b.sql").write_text("SELECT currval('s');\n")
    code, document, checks = prove(folder)
    assert code == 1
    assert {"0002_b.sql"} == set(failed(checks).values())
    assert any(name.startswith("stopped behind each file") for name in failed(checks))
    assert "currval of sequence" in document["error"]


def test_files_that_cannot_be_applied_at_all(folder: Path) -> None:
    (folder / "0001_a.sql").write_text("SELECT nope;\n")
    result = invoke("migrations.prove", "--migrations-dir", str(folder))
    assert result.returncode == 1
    assert 'the files can\'t be applied: 0001_a.sql:1: ERROR: column "nope" does not exist' in result.stderr
    assert "next:  mend 0001_a.sql, then: invoke migrations.prove" in result.stderr
    (folder / "0001_a.sql").write_text("\\! ls\n")
    result = invoke("migrations.prove", "--migrations-dir", str(folder))
    assert result.returncode == 1
    assert "0001_a.sql:1: \\! runs a program on the client" in result.stderr
    (folder / "0001_a.sql").unlink()
    result = invoke("migrations.prove", "--migrations-dir", str(folder))
    assert result.returncode == 1
    assert "holds no migrations" in result.stderr


@pytest.fixture
def place() -> Iterator[Path]:
    """A temp folder that servers which run as another account reach: pytest closes its own to them."""
    name = Path(tempfile.mkdtemp(prefix="serving-prove-"))
    yield name
    shutil.rmtree(name)


@pytest.mark.skipif(os.name == "nt", reason="SIGINT can't be sent to one process there")
def test_an_interruption_leaves_nothing(plain: Path, place: Path) -> None:
    env = {**ENV, "TMPDIR": str(place)}
    argv = invoke_argv("migrations.prove", "--migrations-dir", str(plain))
    process = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = next((line for line in process.stdout if "once, as the measure" in line), "")
        assert said, process.communicate()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert [path.name for path in place.iterdir() if path.name.startswith(scratch.PREFIX)] == []
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(place) not in running
