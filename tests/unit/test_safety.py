"""What may not stand in a migration is told beforehand: no program on the client, no lie in the ledger."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts import lexer, safety, shell, sql
from scripts.safety import Checked

T = "CREATE TABLE t (a text);\n"
PROGRAM = "\\! touch it"
# What follows a COPY FROM STDIN that isn't seen as one: a string for us, the end of the data and a command for psql.
AFTER_DATA = f"SELECT '\n\\.\n{PROGRAM}\n';\n"


def check(folder: Path, text: str, **others: str) -> Checked:
    """Checks the one migration of a folder; the other files have names such as `sub__x_sql`."""
    for name, content in others.items():
        path = folder / name.replace("__", "/").replace("_sql", ".sql")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (folder / "0001_a.sql").write_text(text, encoding="utf-8")
    (migration,) = sql.read_folder(folder).migrations
    return safety.check(migration, folder)


def problems(folder: Path, text: str, **others: str) -> str:
    return "\n".join(map(str, check(folder, text, **others).problems))


@pytest.mark.parametrize(
    "text",
    [
        "SET client_encoding = 'UTF8';\nSET NAMES 'utf-8';\nSET SESSION standard_conforming_strings TO on;\n",
        "SELECT pg_catalog.set_config('search_path', '', false);\n\\restrict aB1\nCREATE TABLE t ();\n\\unrestrict aB1\n",
        "\\set ON_ERROR_STOP on\n\\set AUTOCOMMIT 'on'\n\\set QUIET 1\n\\timing on\n\\x\n\\o\n\\dt core.*\nSELECT 1 \\gx\n",
        "CREATE FUNCTION f() RETURNS trigger AS $$\nBEGIN\n  COMMIT; -- it's\n  RETURN NEW;\nEND $$ LANGUAGE plpgsql;\n",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 3; END;\n",
        "DO $$ BEGIN PERFORM 1; END $$;\nSELECT CASE WHEN true THEN 1 END;\n",
        "UPDATE t SET names = '{}', begin = 1;\n-- set names of columns; don't run \\! or \\i file\nSHOW client_encoding;\n",
        "SELECT ARRAY[1,2][1:2], a::int, j -> 'a' ? 'b', '12:30'::time, 'a' ~ '^[\\w\\d]+$' FROM t;\n",
        "-- Größe “quoted”, it's\nCREATE TABLE t (größe text DEFAULT 'é' CHECK (a ~ '^\\w+é$'));\n",
        "COPY t FROM STDIN;\nBEGIN;\n\\N\t\\! x\t`x`\n\\.\nSELECT 1;\n",
        "\\set schema core\n\\set n 3\nCREATE TABLE :schema.t AS SELECT :n::int, :'schema', :\"n\" LIMIT :n;\n",
        "SELECT true AS new \\gset is_\n\\if :is_new\nSELECT 1;\n\\else\nSELECT 2;\n\\endif\n",
        "SELECT 'é' AS a \\gset p_\n\\if :p_a\nSELECT :'p_a' AS \"é\" ;\n\\endif\n",
        "SELECT format('CREATE TABLE %I ()', 'a\\d') \\gexec\n",
        "SELECT :'SERVER_VERSION_NUM'::int > 160000;\nSELECT $1 \\bind 1 \\g\n",
        "DISCARD PLANS;\n\\copy t (a) from stdin\nx\n\\.\n\\copy (select 1) to stdout\n",
    ],
)
def test_an_ordinary_file_is_fine(folder: Path, text: str) -> None:
    assert problems(folder, text) == ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("\\! x", ":1: \\! runs a program"),
        ("SELECT 1 \\! x\n;", ":1: \\! runs a program"),
        ("\\echo\\! x", ":1: \\! runs a program"),
        ("\\echo a\\\\\\! x", ":1: \\! runs a program"),
        ("SELECT 1;\f\\!\fx", ":1: \\! runs a program"),
        ("\\!x", ":1: \\!x is not known to be safe"),
        ("\\echo `x`", ":1: \\echo with `...` runs a program"),
        ("\\if `x`\n\\endif", ":1: \\if with `...` runs a program"),
        ("\\set a `x`", ":1: \\set with `...` runs a program"),
        ("SELECT 1 \\g |x", ":1: \\g writes to a file or a program"),
        ("SELECT 1 \\g (format=csv) |x", ":1: \\g writes to a file or a program"),
        ("SELECT 1 \\gx x", ":1: \\gx writes to a file or a program"),
        ("\\o |x", ":1: \\o writes to a file or a program"),
        ("\\w x", ":1: \\w writes"),
        ("\\e", ":1: \\e starts an editor"),
        ("\\setenv PAGER x", ":1: \\setenv changes"),
        ("\\cd /", ":1: \\cd changes the folder"),
        ("\\q", ":1: \\q ends psql"),
        ("\\quit", ":1: \\quit ends psql"),
        ("\\c other", ":1: \\c changes the connection"),
        ("\\connect other", ":1: \\connect changes the connection"),
        ("SELECT 1 \\watch", ":1: \\watch never ends"),
        ("\\lo_import x", ":1: \\lo_import is not known to be safe"),
        ("\\restrict a\nSELECT 1;", ":1: \\restrict and \\unrestrict"),
        ("\\restrict a\nSELECT 1;\n\\unrestrict b", ":1: \\restrict and \\unrestrict"),
        ("\\copy t from program 'x'", ":1: \\copy with PROGRAM"),
        ("\\copy t from  PROGRAM'x'", ":1: \\copy with PROGRAM"),
        ("\\copy t' from program 'x' with (null 'from stdin')\n\\.\n", ":1: \\copy with PROGRAM"),
        ("\\copy t to 'x'", ":1: \\copy TO a file"),
        ("\\copy t from pstdin", ":1: \\copy FROM pstdin"),
        ("\\copy t", ":1: \\copy: neither FROM nor TO"),
        ("\\copy t from 'nowhere.csv'", ":1: \\copy nowhere.csv: not a file inside"),
        ("\\copy t from /etc/hosts", ":1: \\copy /etc/hosts: not a file inside"),
        ("\\i 'C:/x.sql'", ":1: \\i C:/x.sql: not a file inside"),  # on Windows, a path of its own
        ("\\i 'c:x.sql'", ":1: \\i c:x.sql: not a file inside"),
        ("\\encoding BIG5", ":1: \\encoding is not known"),
    ],
)
def test_a_command_that_reaches_out_of_psql_is_refused(folder: Path, text: str, what: str) -> None:
    if not shell.WINDOWS:  # where such names can be those of files
        (folder / "C:").mkdir()
        for file in ("C:/x.sql", "c:x.sql"):
            (folder / file).write_text("SELECT 1;\n")
    assert what in problems(folder, text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"{T}COPY t FROM STDOUT;\n{AFTER_DATA}", ":5: \\! runs a program"),
        (f"{T}\\copy t from stdout\n{AFTER_DATA}", ":5: \\! runs a program"),
        (f"{T}\\copy \"x from stdin y\" from 'd.csv'\n{PROGRAM}\n\\.\n", ":3: \\! runs a program"),
        (f"{T}COPY t FROM STDIN;\na\n\\.\n\\g\n{AFTER_DATA}", ":5: \\g without a statement"),
        (f"{T}COPY t FROM STDIN \\gdesc\n{PROGRAM}\n\\.\n", ":2: \\gdesc behind COPY"),
        (f"\ufeff\ufeffCOPY t FROM STDIN;\n{AFTER_DATA}", ":4: \\! runs a program"),
        (f"SELECT (1 \\; COPY t FROM STDIN;\n{PROGRAM}\n\\.\n", ":1: \\; inside parentheses"),
        (f"\\if false\nCREATE FUNCTION f BEGIN \\g\n\\endif\nCOPY t FROM STDIN;\n{PROGRAM}\n\\.\n", ":2: "),
        (f"\\if false\nCREATE FUNCTION f 1xbegin;\n\\endif\nCOPY t FROM STDIN;\n{PROGRAM}\n\\.\n", ":2: a number runs"),
        (f"CREATE FUNCTION beg\u0131n() AS 'x';\nCOPY t FROM STDIN;\nx '\n\\.\n{PROGRAM}\n' end;", ":5: \\! runs a program"),
        (f"\\set f FROM\nCOPY t :f STDIN;\n{AFTER_DATA}", ":2: the value of :f"),
        (f"\\set a STD\n\\set b IN\nCOPY t FROM :a:b;\n{AFTER_DATA}", ":3: :b touches a word"),
        (f"\\set a x\nSELECT 1 AS :a$$; COPY t FROM STDIN; --$$;\n{AFTER_DATA}", ":2: :a touches a word or a quote"),
        (f"\\set k FUNCTION\nCREATE :k f() BEGIN ATOMIC SELECT 1; COPY t FROM STDIN;\n{PROGRAM}\n\\.\n", ":2: the value of :k"),
        ("\\set x '\\\\! touch it'\nSELECT 1 :x\n;", ":2: the value of :x"),
        ("\\set x\u00a0y '\\\\! touch it'\nSELECT 1 :x\u00a0y\n;", ":2: the value of :x\u00a0y"),
        ("\\set y :x\nSELECT 1 :y\n;", ":2: the value of :y"),
        ("\\set SERVER_VERSION_NUM 'x'\nSELECT :SERVER_VERSION_NUM;", ":2: the value of :SERVER_VERSION_NUM"),
        ("SELECT 'x' AS b \\gset a\nSELECT 1 :ab\n;", ":2: the value of :ab"),
        ("SELECT 'x' AS b \\gset\nSELECT 1 :b\n;", ":2: the value of :b"),
        ("SELECT 'x' AS b \\gset 'a'c\n", ":1: \\gset: write the prefix plainly"),
        ("SELECT 'x' AS b \\gset a c\n", ":1: \\gset: write the prefix plainly"),
        # Settings and \gexec, by which psql comes to read the file otherwise.
        ("SELECT set_config('standard_' || 'x', 'off', false);\nSELECT '\\', '\n\\! x\n--';", ":3: \\! inside a string"),
        ("SELECT set_config('client_' || 'x', 'BIG5', false);\nSELECT '\u3042', '\n\\! x\n--';", ":3: \\! inside a string"),
        ("\\set x '\\134! touch it'\nSELECT '\\', '\n:x\n--';", ":3: the value of :x"),
        (f"SELECT f() \\gexec\n{AFTER_DATA}", ":4: \\! inside a string"),
        ("SELECT f() \\gexec\nSELECT $$\n\\.\nSELECT 1 \\g '|x'\n$$;", ":4: \\g inside a string"),
        ("SELECT f() \\gexec\nSELECT '\n\\.\n\\echo `x`\n';", ":4: a backslash before ` inside a string"),
        ("SELECT f() \\gexec\n-- \\copy t from program 'x'\n", ":2: \\copy inside a string, a comment or data"),
    ],
)
def test_nothing_hides_from_us_that_psql_would_run(folder: Path, text: str, what: str) -> None:
    (folder / "d.csv").touch()
    (folder / "stdout").touch()
    assert what in problems(folder, text)


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "ROLLBACK",
        "END",
        "ABORT",
        "BEGIN",
        "SAVEPOINT a",
        "RELEASE a",
        "START TRANSACTION",
        "PREPARE TRANSACTION 'a'",
        "SET TRANSACTION READ ONLY",
        "COMMIT AND CHAIN",
        "/* x */ commit -- y\n",
        "ROLLBACK TO a",
    ],
)
def test_transaction_control_is_refused(folder: Path, statement: str) -> None:
    name = statement.replace("/* x */ ", "").split()[0].upper()
    for text in (f"{T}{statement};", f"{T}SELECT 1 \\; {statement};", f"-- migrate: no-transaction\n{statement};"):
        found = problems(folder, text)
        assert ":2: " + name in found
        assert "the runner begins and commits" in found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("DISCARD ALL;", ":1: DISCARD ALL gives up the runner's lock"),
        ("\\set x PLANS\nDISCARD :x;", ":2: DISCARD ALL"),
        ("\\set ON_ERROR_STOP off", ":1: \\set ON_ERROR_STOP off changes how psql works"),
        ("\\set\tON_ERROR_STOP\t0", ":1: \\set ON_ERROR_STOP\t0 changes"),
        ("\\set 'ON_ERROR_STOP' off", "changes how psql works"),
        ("\\set :x off", "changes how psql works"),
        ("\\set AUTOCOMMIT o ff", "changes how psql works"),
        ("\\set ON_ERROR_ROLLBACK on", "changes how psql works"),
        ("\\set SINGLELINE on", "changes how psql works"),
        ("\\unset ON_ERROR_STOP", ":1: \\unset ON_ERROR_STOP changes"),
        ('\\unset "AUTOCOMMIT"', "changes how psql works"),
        ("SET client_encoding = 'LATIN1';", ":1: changes client_encoding"),
        ("SET LOCAL client_encoding TO latin1;", ":1: changes client_encoding"),
        ("SET NAMES 'LATIN1';", ":1: changes client_encoding"),
        ("SET standard_conforming_strings = off;", ":1: changes standard_conforming_strings"),
        ("SELECT E'a'\n'\\''; COMMIT; --';", ":2: a string that continues"),
        ("SELECT 'a", ":1: a quote is not closed"),
        ("-- nothing", ": holds nothing to run"),
    ],
)
def test_what_would_make_the_books_lie_is_refused(folder: Path, text: str, what: str) -> None:
    assert what in problems(folder, text)


def test_psql_s_own_variables_are_not_unset_for_a_file_that_mentions_them(folder: Path) -> None:
    checked = check(folder, "\\echo :ON_ERROR_STOP :AUTOCOMMIT :mine\nSELECT :'SERVER_VERSION_NUM', :{?other};")
    assert checked.variables == {"mine", "other"}


def test_a_variable_that_only_a_string_mentions_is_unset_where_strings_may_end_elsewhere(folder: Path) -> None:
    assert check(folder, "SELECT '\\', 'a :x';").variables == {"x"}
    assert check(folder, "SELECT 'a :x';").variables == set()


@pytest.mark.parametrize(
    ("opening", "closing"), [("BEGIN", "COMMIT"), ("begin work", "End"), ("START TRANSACTION", "COMMIT WORK")]
)
def test_a_file_wrapped_whole_loses_its_wrapper_and_keeps_its_lines(folder: Path, opening: str, closing: str) -> None:
    checked = check(folder, f"-- first\n{opening};\nCREATE TABLE t ();\n{closing};\n")
    assert checked.problems == ()
    assert checked.script.split() == ["--", "first", "CREATE", "TABLE", "t", "();"]
    assert checked.script.split("\n")[2] == "CREATE TABLE t ();"
    assert checked.files == {"0001_a.sql": checked.script.encode()}


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN;\nSELECT 1;\nCOMMIT;\nSELECT 2;",
        "SELECT 1;\nBEGIN;\nCOMMIT;",
        "BEGIN;\nSELECT 1;\nCOMMIT;\nBEGIN;\nCOMMIT;",
        "BEGIN;\nSELECT 1;\nROLLBACK;",
        "BEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT 1;\nCOMMIT;",
        "BEGIN;\nSELECT 1;\nCOMMIT \\g\n",  # once COMMIT is gone, \g would send what came before it again
        "BEGIN \\g\nSELECT 1;\nCOMMIT;",
        "\\if true\nBEGIN;\n\\endif\nSELECT 1;\nCOMMIT;",
        "-- migrate: no-transaction\nBEGIN;\nSELECT 1;\nCOMMIT;",
    ],
)
def test_half_a_wrapper_is_none(folder: Path, text: str) -> None:
    assert "a file may only be wrapped whole" in problems(folder, text)


def test_a_wrapper_without_its_last_semicolon_is_one(folder: Path) -> None:
    checked = check(folder, "BEGIN;\nSELECT 1;\nCOMMIT\n")
    assert (checked.problems, checked.script.split()) == ((), ["SELECT", "1;"])


@given(st.lists(st.sampled_from(["SELECT 1;", "\n", "-- é\n", "/* \n */", "SELECT 'a\nb';", "$$\n$$;", "\\echo a\n"])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_wrapped_file_keeps_its_lines_whatever_is_in_it(folder: Path, parts: list[str]) -> None:
    text = f"\nBEGIN;{''.join(parts)}\nCOMMIT;"
    checked = check(folder, text)
    assert checked.problems == ()
    assert checked.script.count("\n") == text.count("\n")
    assert list(lexer.lex(checked.script).statements) == list(lexer.lex(text).statements)[1:-1]
    assert list(lexer.lex(checked.script).metas) == list(lexer.lex(text).metas)


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN;\nSELECT 1;\n/* the rows */ \\echo a\nCOMMIT;",
        "/* a word */ \\echo a\nBEGIN;\nSELECT 1;\nCOMMIT;",
        "BEGIN \\echo a\nWORK;\nSELECT 1;\nCOMMIT;",
    ],
)
def test_a_wrapper_takes_no_meta_command_along(folder: Path, text: str) -> None:
    checked = check(folder, text)
    assert checked.problems == ()
    assert list(lexer.lex(checked.script).metas) == list(lexer.lex(text).metas)
    assert [statement.words for statement in lexer.lex(checked.script).statements] == [("SELECT",)]


def test_what_was_checked_is_what_runs(folder: Path) -> None:
    checked = check(folder, T)
    assert checked.files == {"0001_a.sql": T.encode()}
    assert not checked.uses_metas


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a);", ":1: CREATE INDEX CONCURRENTLY can't run in a transaction"),
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);", ":1: CREATE INDEX CONCURRENTLY can't run in a transaction"),
        ("SELECT 1;\nDROP INDEX CONCURRENTLY i;", ":2: DROP INDEX CONCURRENTLY can't run in a transaction"),
        ("VACUUM t;", ":1: VACUUM can't run in a transaction"),
        ("ALTER SYSTEM SET work_mem = '8MB';", ":1: ALTER SYSTEM can't run in a transaction"),
        ("-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY ON t (a);", ":2: CREATE INDEX CONCURRENTLY without a name"),
    ],
)
def test_what_the_server_would_refuse_half_way_is_refused_beforehand(folder: Path, text: str, what: str) -> None:
    assert what in problems(folder, text)


def test_an_included_file_is_read_through_and_brought_along(folder: Path) -> None:
    text = "\\i sub/one.sql\n\\i 'sub/../two.sql'\n"
    checked = check(
        folder, text, sub__one_sql="\\ir ../two.sql\n\\ir three.sql\n", two_sql="SELECT 2;", sub__three_sql="SELECT :'v';"
    )
    assert checked.problems == ()
    assert checked.includes.keys() == {"sub/one.sql", "two.sql", "sub/three.sql"}
    assert checked.files.keys() == {"0001_a.sql", *checked.includes}
    assert checked.variables == {"v"}


@pytest.mark.parametrize(
    ("included", "what"),
    [
        ("\n\\! x", "x.sql:2: \\! runs a program"),
        ("COMMIT;", "x.sql:1: COMMIT: the runner begins"),
        ("BEGIN;\nSELECT 1;\nCOMMIT;", "x.sql:1: BEGIN: the runner begins"),
        ("SELECT 'a", "x.sql:1: a quote is not closed"),
        ("\\i 0001_a.sql", "x.sql:1: includes 0001_a.sql, which includes it"),
        ("\\i x.sql", "x.sql:1: includes x.sql, which includes it"),
        ("SELECT 1 :v;", "x.sql:1: the value of :v"),
    ],
)
def test_what_is_wrong_in_an_included_file_is_told_there(folder: Path, included: str, what: str) -> None:
    assert what in problems(folder, "\\set v 'a;b'\n\\i x.sql\n", x_sql=included)


@pytest.mark.parametrize(
    "argument",
    [
        "nowhere.sql",
        "../x.sql",
        "/etc/hosts",
        "~/x.sql",
        "'~/x.sql'",
        "-",
        "'-'",
        "x.sql;",
        '"x.sql"',
        "x.sql y",
        ":x",
        "'x'.sql",
        "sub/../../x.sql",
        "",
    ],
)
def test_only_a_plain_path_in_the_folder_is_included(folder: Path, argument: str) -> None:
    for name, directory in itertools.product(("-", "x.sql", "x.sql;", "x.sql y"), (folder, folder.parent)):
        (directory / name).write_text("SELECT 1;")
    for inner in ("~", "sub"):
        (folder / inner).mkdir()
        (folder / inner / "x.sql").write_text("SELECT 1;")
    assert ":1: \\i" in problems(folder, f"\\i {argument}")


def test_an_included_file_that_is_not_text_is_told(folder: Path) -> None:
    (folder / "x.sql").write_bytes(b"\xff")
    assert "0001_a.sql:1: includes x.sql, which isn't UTF-8 text" in problems(folder, "\\i x.sql")


def test_a_file_for_copy_is_brought_along_as_it_is(folder: Path) -> None:
    (folder / "a b.csv").write_bytes(b"\xff\r\n")
    checked = check(folder, "\\copy t from 'a b.csv' csv\n")
    assert checked.problems == ()
    assert checked.files["a b.csv"] == folder / "a b.csv"


def test_all_problems_are_listed_in_order(folder: Path) -> None:
    found = check(folder, "\\i x.sql\nCOMMIT;\n\\! x\n", x_sql="\\q\n").problems
    assert [(problem.file, problem.line) for problem in found] == [("0001_a.sql", 2), ("0001_a.sql", 3), ("x.sql", 1)]
