"""What a file could do to make the ledger lie: refused beforehand where it can be seen, caught by the guard where not."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from scripts.dsn import Dsn
from tests.database import Database, new_database
from tests.proofs import migrate

FIRST = "0001_first.sql"
TRAP = "0002_trap.sql"
LAST = "0003_last.sql"


def write(folder: Path, trap: str) -> None:
    """Three files, the trap in the middle."""
    (folder / FIRST).write_text("CREATE TABLE first (id int);\nINSERT INTO first VALUES (1);\n")
    (folder / TRAP).write_text(trap)
    (folder / LAST).write_text("CREATE TABLE last (id int);\n")


def tables(database: Database) -> list[str]:
    """The tables that files made, in order of their names."""
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1"
    return [row[0] for row in database.execute(query) if row[0] != "schema_migrations"]


def between(statement: str) -> str:
    """A trap on line 2, between two tables."""
    return f"CREATE TABLE before (id int);\n{statement}\nCREATE TABLE after (id int);\n"


REFUSED = {
    # of FACTS: psql itself would exit 0 with the ledger written
    r"\q": (between(r"\q"), 2, r"\q"),
    r"\quit": (between(r"\quit"), 2, r"\quit"),
    r"\c": (between(r"\c"), 2, r"\c"),
    r"\connect": (between(r"\connect postgres"), 2, r"\connect"),
    "ROLLBACK": (between("ROLLBACK;"), 2, "ROLLBACK"),
    "COMMIT": (between("COMMIT;"), 2, "COMMIT"),
    "COMMIT, then an error": (between("COMMIT;\nSELECT 1/0;"), 2, "COMMIT"),
    # the same by other words
    "END": (between("END;"), 2, "END"),
    "ABORT": (between("abort work;"), 2, "ABORT"),
    "COMMIT AND CHAIN": (between("COMMIT AND CHAIN;"), 2, "COMMIT AND"),
    "ROLLBACK TO": (between("ROLLBACK TO SAVEPOINT s;"), 2, "ROLLBACK TO"),
    "SAVEPOINT": (between("SAVEPOINT s;"), 2, "SAVEPOINT"),
    "START TRANSACTION": (between("START TRANSACTION;"), 2, "START TRANSACTION"),
    "PREPARE TRANSACTION": (between("PREPARE TRANSACTION 'p';"), 2, "PREPARE TRANSACTION"),
    "behind a comment": (between("-- no harm\n/* none */ COMMIT;"), 3, "COMMIT"),
    "as part of a message": (between("SELECT 1 \\; COMMIT;"), 2, "COMMIT"),
    "sent by \\g": (between("COMMIT \\g"), 2, "COMMIT"),
    "on the last line, without a semicolon": ("CREATE TABLE before (id int);\nCOMMIT", 2, "COMMIT"),
    "two wrapped parts": ("BEGIN;\nSELECT 1;\nCOMMIT;\nBEGIN;\nSELECT 2;\nCOMMIT;\n", 1, "BEGIN"),
    "a wrapper that rolls back": ("BEGIN;\nCREATE TABLE before (id int);\nROLLBACK;\n", 3, "ROLLBACK"),
    "a wrapper that begins late": ("SELECT 1;\nBEGIN;\nCREATE TABLE before (id int);\nCOMMIT;\n", 2, "BEGIN"),
    "DISCARD ALL": ("-- migrate: no-transaction\nDISCARD ALL;\n", 2, "DISCARD ALL"),
    "a transaction in a no-transaction file": ("-- migrate: no-transaction\nBEGIN;\nSELECT 1;\nCOMMIT;\n", 2, "BEGIN"),
    # a program on the client, or a file there
    r"\!": (between(r"\! touch made"), 2, r"\!"),
    r"\o |": (between(r"\o | cat"), 2, r"\o"),
    r"\o FILE": (between(r"\o made"), 2, r"\o"),
    r"\g |": (between(r"SELECT 1 \g | cat"), 2, r"\g"),
    r"\w": (between(r"\w made"), 2, r"\w"),
    r"\copy PROGRAM": (between(r"\copy before FROM PROGRAM 'echo 1'"), 2, "PROGRAM"),
    r"\copy TO a file": (between(r"\copy before TO 'made'"), 2, r"\copy TO"),
    "backticks": (between(r"\set value `touch made`"), 2, r"\set"),
    r"\setenv": (between(r"\setenv PAGER cat"), 2, r"\setenv"),
    # psql told to work otherwise
    "ON_ERROR_STOP": (between(r"\set ON_ERROR_STOP off"), 2, "ON_ERROR_STOP"),
    "AUTOCOMMIT": (between(r"\set AUTOCOMMIT off"), 2, "AUTOCOMMIT"),
    "ON_ERROR_STOP unset": (between(r"\unset ON_ERROR_STOP"), 2, "ON_ERROR_STOP"),
    "client_encoding": (between("SET client_encoding = 'latin1';"), 2, "client_encoding"),
    "standard_conforming_strings": (between("SET standard_conforming_strings = off;"), 2, "standard_conforming_strings"),
    # what would swallow the runner's own lines behind the file
    "an unclosed quote": (between("SELECT 'open;"), 2, "quote"),
    "an unclosed identifier": (between('SELECT "open;'), 2, "quote"),
    "an unclosed comment": (between("/* open /* closed */"), 2, "comment"),
    "an unclosed dollar quote": (between("DO $body$ BEGIN NULL; END $$;"), 2, "$body$"),
    "an unclosed parenthesis": (between("SELECT (1;"), 2, "parenthesis"),
    "an unclosed \\if": (between("\\if true"), 4, "\\endif"),
    "COPY data without an end": (between("COPY before FROM stdin;\n1\n2"), 2, "COPY"),
}


@pytest.fixture(scope="module")
def refusal(server: Dsn, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one run says to all of these traps, each a file; it writes nothing, neither there nor here."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "0000_harmless.sql").write_text("CREATE TABLE harmless (id int);\n")
    for number, (trap, _, _) in enumerate(REFUSED.values(), 1):
        (folder / f"{number:04}_trap.sql").write_text(trap)
    files = sorted(folder.iterdir())
    with contextlib.contextmanager(new_database)(server) as database:
        empty = database.dump()
        result = migrate(database, folder, "embedded")
        assert database.dump() == empty  # not even a ledger
    assert sorted(folder.iterdir()) == files
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "nothing was applied" in result.stderr
    assert "0000_harmless" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_a_trap_that_can_be_seen_is_refused_before_anything_is_written(refusal: str, name: str) -> None:
    _, line, word = REFUSED[name]
    number = list(REFUSED).index(name) + 1
    lines = [text.strip() for text in refusal.splitlines()]
    assert any(text.startswith(f"{number:04}_trap.sql:{line}: ") and word in text for text in lines), refusal


@pytest.mark.once
def test_a_trap_is_refused_in_a_file_that_another_includes(database: Database, folder: Path) -> None:
    write(folder, "\\ir parts/one.sql\n")
    (folder / "parts").mkdir()
    (folder / "parts" / "one.sql").write_text("SELECT 1;\n\\i parts/two.sql\n")
    (folder / "parts" / "two.sql").write_text("SELECT 1;\n\nCOMMIT;\n\\q\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert "parts/two.sql:3: COMMIT" in result.stderr
    assert "parts/two.sql:4: \\q" in result.stderr
    assert database.ledger() == {}


@pytest.mark.once
@pytest.mark.parametrize(
    "include", ["/etc/hostname", "../outside.sql", "parts/../../outside.sql", "~/.psqlrc", "gone.sql", ":name", "`echo part.sql`"]
)
def test_an_include_stays_in_the_folder(database: Database, folder: Path, include: str) -> None:
    (folder.parent / "outside.sql").write_text("CREATE TABLE outside (id int);\n")
    (folder / "parts").mkdir()
    write(folder, f"\\set name part.sql\n\\i {include}\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert f"{TRAP}:2: \\i" in result.stderr
    assert database.ledger() == {}


SESSION = {
    "SET search_path": "CREATE SCHEMA x;\nSET search_path = x;\nCREATE TABLE x.one (id int);",
    "SET search_path to nothing": "CREATE SCHEMA x;\nSET search_path = '';\nCREATE TABLE x.one (id int);",
    "set_config": "CREATE SCHEMA x;\nSELECT set_config('search_path', 'x', false);\nCREATE TABLE one (id int);",
    "a shadow of the ledger": (
        "CREATE SCHEMA x;\nSET search_path = x;\nCREATE TABLE schema_migrations (version text);\nCREATE TABLE one (id int);"
    ),
    "a shadow of the guard's functions": (
        "CREATE SCHEMA x;\nSET search_path = x, pg_catalog;\nCREATE TABLE one (id int);\n"
        "CREATE FUNCTION x.now() RETURNS text LANGUAGE sql AS 'SELECT ''then''';\n"
        "CREATE FUNCTION x.pg_backend_pid() RETURNS int LANGUAGE sql AS 'SELECT 0';\n"
        "CREATE FUNCTION x.differ(int, int) RETURNS bool LANGUAGE sql AS 'SELECT true';\n"
        "CREATE OPERATOR x.<> (FUNCTION = x.differ, LEFTARG = int, RIGHTARG = int);"
    ),
    "a read-only session to come": (
        "CREATE SCHEMA x;\nCREATE TABLE x.one (id int);\nSET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY;"
    ),
    "a savepoint by \\gexec": (
        "CREATE SCHEMA x;\nCREATE TABLE x.one (id int);\nSELECT 'SAVEPOINT s' \\gexec\nCREATE TABLE x.two (id int);\n"
        "SELECT 'ROLLBACK TO s' \\gexec"
    ),
}


@pytest.mark.parametrize("text", SESSION.values(), ids=SESSION)
def test_a_changed_session_does_not_touch_the_books(database: Database, folder: Path, text: str) -> None:
    write(folder, text + "\n")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 0, result.stderr
    assert database.ledger() == {"0001": "applied", "0002": "applied", "0003": "applied"}
    assert database.execute("SELECT to_regclass('x.one') IS NOT NULL, to_regclass('x.two') IS NULL") == [(True, True)]
    assert tables(database) == ["first", "last"]


@pytest.mark.parametrize("trap", ["\\q", "\\c", "ROLLBACK;", "COMMIT;", "SELECT 'COMMIT' \\gexec"])
def test_a_trap_ends_the_same_through_every_psql(database: Database, folder: Path, mode: str, trap: str) -> None:
    write(folder, between(trap))
    result = migrate(database, folder, mode)
    assert result.returncode == 1
    assert TRAP in result.stderr
    assert "Traceback" not in result.stderr
    assert database.ledger() == ({"0001": "applied"} if "gexec" in trap else {})


# (the file, the tables that stand afterwards): what no reading beforehand can see
GUARDED = {
    "COMMIT by \\gexec": (between("SELECT 'COMMIT' \\gexec"), ["after", "before", "first"]),
    "ROLLBACK by \\gexec": (between("SELECT 'ROLLBACK' \\gexec"), ["after", "first"]),
    "COMMIT and BEGIN by \\gexec": (between("SELECT unnest(ARRAY['COMMIT', 'BEGIN']) \\gexec"), ["before", "first"]),
    "ROLLBACK and BEGIN by \\gexec": (between("SELECT unnest(ARRAY['ROLLBACK', 'BEGIN']) \\gexec"), ["first"]),
    "COMMIT AND CHAIN by \\gexec": (between("SELECT 'COMMIT AND CHAIN' \\gexec"), ["before", "first"]),
    "COMMIT by \\gexec in an include": (between("\\i part.sql"), ["after", "before", "first"]),
    "COMMIT in a message by \\gexec": (between("SELECT 'SELECT 1; COMMIT; BEGIN' \\gexec"), ["before", "first"]),
    "COMMIT in a wrapped file": (
        "BEGIN;\nCREATE TABLE before (id int);\nSELECT 'COMMIT' \\gexec\nCOMMIT;\n",
        ["before", "first"],
    ),
}


@pytest.mark.parametrize(("trap", "left"), GUARDED.values(), ids=GUARDED)
def test_a_transaction_that_was_ended_on_the_sly_leaves_no_row(
    database: Database, folder: Path, trap: str, left: list[str]
) -> None:
    write(folder, trap)
    (folder / "part.sql").write_text("SELECT 'COMMIT' \\gexec\n")
    result = migrate(database, folder, "embedded")

    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"{TRAP} ended the transaction in which it ran" in result.stderr
    assert "rolled back whole" not in result.stderr  # for some of it may stand
    assert "invoke migrate" in result.stderr
    assert database.ledger() == {"0001": "applied"}
    assert tables(database) == left


# (the file, words of the message, the tables that stand afterwards)
FAILING = {
    "COMMIT by \\gexec, then an error": (
        between("SELECT 'COMMIT' \\gexec\nSELECT 1/0;"),
        f"{TRAP}:3: ERROR: division by zero (SQLSTATE 22012)",
        ["before", "first"],
    ),
    "COMMIT in a DO block": (
        between("DO $$BEGIN COMMIT; END$$;"),
        f"{TRAP}:2: ERROR: invalid transaction termination",
        ["first"],
    ),
    "ON_ERROR_STOP by \\gset": (
        between("SELECT 'off' AS \"STOP\" \\gset ON_ERROR_\nSELECT 1/0;"),
        f"{TRAP}:3: ERROR: division by zero",
        ["first"],
    ),
    "the backend ends itself": (
        between("SELECT pg_terminate_backend(pg_backend_pid());"),
        f"{TRAP}:2: FATAL: terminating connection due to administrator command (SQLSTATE 57P01)",
        ["first"],
    ),
    "a row of its own, written beforehand": (
        between("INSERT INTO public.schema_migrations (version) VALUES ('0002');"),
        f"{TRAP}: at its end: ERROR: duplicate key",
        ["first"],
    ),
    "the ledger dropped": (
        between("DROP TABLE public.schema_migrations;"),
        f'{TRAP}: at its end: ERROR: relation "public.schema_migrations" does not exist',
        ["first"],
    ),
    "a transaction made read-only": (
        "CREATE TABLE before (id int);\nSELECT set_config('transaction_read_only', 'on', true);\n",
        f"{TRAP}: at its end: ERROR: cannot execute INSERT in a read-only transaction",
        ["first"],
    ),
    "a constraint that fails at COMMIT": (
        between("ALTER TABLE before ADD PRIMARY KEY (id), ADD up int REFERENCES before DEFERRABLE INITIALLY DEFERRED;")
        + "INSERT INTO before VALUES (1, 2);\n",
        f'{TRAP}: at its end: ERROR: insert or update on table "before" violates foreign key constraint',
        ["first"],
    ),
}


@pytest.mark.parametrize(("trap", "words", "left"), FAILING.values(), ids=FAILING)
def test_a_file_that_fails_leaves_no_row(database: Database, folder: Path, trap: str, words: str, left: list[str]) -> None:
    write(folder, trap)
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert words in result.stderr
    assert ("rolled back whole" in result.stderr) == ("gexec" not in trap)  # by \\gexec it may have committed some of it
    assert database.ledger() == {"0001": "applied"}
    assert tables(database) == left


# what a file may do to the ledger itself, as its administrator
MEDDLING = {
    "a rule swallows the row": (
        between("CREATE RULE swallow AS ON INSERT TO public.schema_migrations DO INSTEAD NOTHING;"),
        [TRAP, LAST],
        {"0001": "applied"},
    ),
    "a trigger swallows the row": (
        between(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            " CREATE TRIGGER swallow BEFORE INSERT ON public.schema_migrations FOR EACH ROW EXECUTE FUNCTION swallow();"
        ),
        [TRAP, LAST],
        {"0001": "applied"},
    ),
    "a row of this run deleted": (
        between("DELETE FROM public.schema_migrations WHERE version = '0001';"),
        [FIRST],
        {"0002": "applied", "0003": "applied"},
    ),
    "a state changed": (
        between("UPDATE public.schema_migrations SET state = 'started';"),
        [FIRST],
        {"0001": "started", "0002": "applied", "0003": "applied"},
    ),
    "a checksum changed": (
        between("UPDATE public.schema_migrations SET checksum = 'none';"),
        [FIRST],
        {"0001": "applied", "0002": "applied", "0003": "applied"},
    ),
}


@pytest.mark.parametrize(("trap", "named", "left"), MEDDLING.values(), ids=MEDDLING)
def test_a_file_that_meddles_with_the_ledger_is_found_out(
    database: Database, folder: Path, trap: str, named: list[str], left: dict[str, str]
) -> None:
    write(folder, trap)
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"the ledger does not hold what was applied: {', '.join(named)}." in result.stderr
    assert "is up to date" not in result.stdout
    assert database.ledger() == left


# no-transaction files: the row says `started` whatever they do, until their end is reached
LOOSE = {
    "an error": ("CREATE TABLE before (id int);\nSELECT 1/0;\n", ["before", "first"]),
    "a transaction left open": (between("SELECT 'BEGIN' \\gexec"), ["before", "first"]),
    "the backend ends itself": (between("SELECT pg_terminate_backend(pg_backend_pid());"), ["before", "first"]),
}


@pytest.mark.parametrize(("trap", "left"), LOOSE.values(), ids=LOOSE)
def test_a_no_transaction_file_is_not_applied_before_its_end(
    database: Database, folder: Path, trap: str, left: list[str]
) -> None:
    write(folder, f"-- migrate: no-transaction\n{trap}")
    result = migrate(database, folder, "embedded")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "--resume" in result.stderr
    assert database.ledger() == {"0001": "applied", "0002": "started"}
    assert tables(database) == left
