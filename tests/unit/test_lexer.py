"""A file is split where psql splits it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scripts import lexer
from scripts.lexer import Lexed, Meta, Statement

ATOMIC = "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC "


def pieces(text: str) -> list[str]:
    """Statements and meta-commands as they stand in the text; no problem was found."""
    lexed = lexer.lex(text)
    assert lexed.problems == []
    return [shown(text, item) for item in lexed.items]


def shown(text: str, item: Statement | Meta) -> str:
    return text[item.start : item.end].strip() if isinstance(item, Statement) else f"\\{item.name} {item.args}".strip()


def problems(text: str) -> str:
    return "; ".join(f"{line}: {what}" for line, what in lexer.lex(text).problems)


def only(lexed: Lexed) -> Statement:
    (statement,) = lexed.statements
    return statement


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'a;b', 'it''s;', '\\';",
        r"SELECT E'it\'s;', e'a\\';",
        "SELECT E'a;'\n'b;';",
        'SELECT 1 AS "a;""b";',
        "SELECT $$ ; ' \" $$, $tag$ $$ ; $ta$ $tag$, $é$;$é$;",
        "SELECT $1, a$b$c, 1;",
        "SELECT 1 -- ; it's\n;",
        "SELECT 1 /* ; /* ' */ ; */;",
        "SELECT 1 */* ; */ 2;",
        "SELECT (1; 2);",
        "SELECT ARRAY[1,2][1:2], '{}'::jsonb -> 'a' ? 'b', x := 1;",
        "SELECT :'name', :\"name\", :{?name};",
        "SELECT 1.5, 1e-3, 1.5E+10, .5, 0x1F, 0o17, 0b11, 1_000;",
        r"SELECT a \: 1;",
        "SELECT CASE WHEN true THEN 1 END;",
        "CREATE FUNCTION f() RETURNS int AS $$ BEGIN; COMMIT; END $$;",
        f"{ATOMIC}SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 3; END;",
        "create or replace procedure p() begin /* x */ atomic select 1; end;",
        'CREATE FUNCTION "begin"() RETURNS int AS $$x$$;',
        "CREATE TABLE t (begin int, b int);",
        "DO $$ BEGIN PERFORM 1; END $$;",
    ],
)
def test_one_statement_stays_one(statement: str) -> None:
    assert pieces(f"{statement}\nSELECT 'next';") == [statement, "SELECT 'next';"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1;SELECT 2", ["SELECT 1;", "SELECT 2"]),
        ("SELECT 1\\;SELECT 2;", ["SELECT 1\\;", "SELECT 2;"]),
        (";;\n-- nothing\n/* here */", []),
        ("SELECT 1 \\gset a_\nSELECT 2 \\g", ["SELECT 1", "\\gset a_", "SELECT 2", "\\g"]),
        ("\\set a 'b\\'c' \\echo x\\\\SELECT 1;", ["\\set a 'b\\'c'", "\\echo x", "SELECT 1;"]),
        ("\\set\ta\t1\n\\echo\\echo b", ["\\set a\t1", "\\echo", "\\echo b"]),
        ("\\copy t from 'a\\b' \\echo\n\\x", ["\\copy t from 'a\\b' \\echo", "\\x"]),
        ('\\echo "a\\" \\x', ['\\echo "a\\"', "\\x"]),
        ("\\if :a\nSELECT 1;\n\\endif", ["\\if :a", "SELECT 1;", "\\endif"]),
    ],
)
def test_meta_commands_and_statements_come_apart(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@pytest.mark.parametrize(
    "copy",
    [
        "COPY t FROM STDIN;",
        "copy t (a) from stdout with (format csv);",  # either word, in either direction
        "COPY t FROM /* x */ STDIN \\g",
        "COPY t FROM STDIN; -- the data follow",
        "\\copy t from stdin",
        "\\copy t from STDOUT csv",
        '\\copy "x y" ("a b") from stdin',
        "\\copy public.t(a) from stdin;",
    ],
)
def test_the_data_of_copy_are_no_sql(copy: str) -> None:
    assert "SELECT 2;" in pieces(f"{copy}\nit's; \\! x\n\\.\nSELECT 2;")


@pytest.mark.parametrize(
    "copy",
    [
        "COPY t TO STDOUT;",
        "COPY t FROM 'stdin';",
        "COPY (SELECT a FROM stdin) TO 'x';",
        "COPY t FROM STD\u0131N;",  # a dotless i is no i
        "\\copy \"x from stdin y\" from 'd.csv'",
        "\\copy t from 'stdin'",
        "\\copy t to stdin",
        "\\copy (select 'x from stdin') to stdout",
    ],
)
def test_what_follows_another_copy_is_sql(copy: str) -> None:
    assert pieces(f"{copy}\n\\! x\n")[-1] == "\\! x"


def test_every_copy_of_a_batch_has_its_data() -> None:
    text = "COPY a FROM STDIN\\;COPY b FROM STDIN;\n1;\n\\.\n2;\n\\.\nSELECT 3;"
    assert pieces(text) == ["COPY a FROM STDIN\\;", "COPY b FROM STDIN;", "SELECT 3;"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\nSELECT 'a", "2: a quote is not closed"),
        ('SELECT "a', "1: a quote is not closed"),
        ("SELECT E'a\\'", "1: a quote is not closed"),
        ("SELECT $a$ $b$", "1: the dollar quote $a$ is not closed"),
        ("SELECT 1;\n/* /* */", "2: a comment is not closed"),
        ("SELECT (1;", "1: a parenthesis is not closed"),
        (f"{ATOMIC}SELECT 1;", "1: a BEGIN inside CREATE FUNCTION"),
        ("\\if true\nSELECT 1;\n", "3: an \\if is not closed"),
        ("SELECT 1\n\\if true\n;\n\\endif", "2: \\if in the middle of a statement"),
        ("SELECT 1e'x'", "1: a number runs into a string"),
        ("SELECT 1begin", "1: a number runs into a word"),
        ("SELECT $1begin", "1: a number runs into a word"),
        ("SELECT E'a'\n'\\';", "2: a string that continues an E'' string holds a backslash"),
        ("COPY t FROM STDIN;\n1", "1: the data of COPY FROM STDIN does not end"),
        ("COPY t FROM STDIN; SELECT 1;\n\\.\n", "1: text behind COPY ... FROM STDIN"),
        ("\\if true\nCOPY t FROM STDIN;\n\\.\n\\endif", "2: COPY FROM STDIN inside \\if"),
        ("COPY t FROM STDIN \\gdesc\n\\.\n", "1: \\gdesc behind COPY FROM STDIN"),
        ("SELECT 1;\n\\g", "2: \\g without a statement before it repeats the last one"),
        ("SELECT (1 \\; SELECT 2);", "1: \\; inside parentheses"),
        ("SELECT (1 \\gset\n", "1: \\gset inside parentheses"),
        (f"{ATOMIC}SELECT 1 \\g", "1: \\g inside parentheses or a function's body"),
        (
            "CREATE FUNCTION begin() RETURNS int AS 'x'; SELECT 1 AS end;",
            "1: BEGIN in CREATE FUNCTION or PROCEDURE without ATOMIC",
        ),
        (f"{ATOMIC}SELECT 1 AS case; END; SELECT 1 AS end;", "1: a semicolon inside CASE or a second BEGIN"),
        ("\\if true\nCREATE FUNCTION \\g\n\\endif\nSELECT 1 AS begin;", "4: BEGIN after"),
    ],
)
def test_what_psql_may_see_otherwise_is_a_problem(text: str, problem: str) -> None:
    assert problem in problems(text)


def test_gset_inside_if_leaves_nothing_behind_once_a_statement_ended() -> None:
    assert problems(f"\\if true\nSELECT 1 \\gset\n\\endif\nSELECT 1;\n{ATOMIC}SELECT 1; END;") == ""


def test_a_statement_knows_its_words_and_lines() -> None:
    statement = only(lexer.lex("\n/* first */ Create  -- x\n table T (\n  a int\n);"))
    assert (statement.words, statement.line, statement.end_line) == (("CREATE", "TABLE", "T", "A", "INT"), 2, 5)
    assert not statement.plain


def test_a_word_beyond_ascii_is_no_keyword() -> None:
    assert only(lexer.lex("beg\u0131n")).words == ("beg\u0131n",)


def test_begin_alone_is_plain() -> None:
    assert only(lexer.lex("begin work;")).plain


def test_variables_are_told_by_how_they_stand() -> None:
    lexed = lexer.lex("SELECT :a, :'b', :\"c\", :{?d}, x::e, 'f :g', :h$$x$$, i:j;\n\\echo :k :'l'")
    assert lexed.variables == {"a", "b", "c", "d", "h", "j", "k", "l"}
    assert lexed.raw_variables == [(1, "a"), (1, "h"), (1, "j")]
    assert lexed.joined_variables == [(1, "h"), (1, "j")]


def test_a_conditional_and_what_is_in_it_know_their_depth() -> None:
    lexed = lexer.lex("\\if a\n\\if b\nSELECT 1;\n\\endif\n\\endif\nSELECT 2;")
    assert [item.depth for item in lexed.items] == [0, 1, 2, 1, 0, 0]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("t from 'a b.csv' csv", ("FROM", "'a b.csv'")),
        ("t(a)from 'x'", ("FROM", "'x'")),
        ("t(a)from'x'", None),  # psql reads from'x' as one word
        ("t (a) from x;y", ("FROM", "x")),
        ("t' from program 'x' (null 'from stdin')", ("FROM", "program")),
        ("(select ')', \"(\", E'\\')' from t) to stdout", ("TO", "stdout")),
        ("binary a . b to x", ("TO", "x")),
        ("t", None),
        ("", None),
        ("(select 1", None),
    ],
)
def test_copy_is_taken_apart_as_psql_does(args: str, expected: tuple[str, str] | None) -> None:
    assert lexer.copy_target(args) == expected


PIECES = r"""' " $$ $a$ ; \; \ \g ( ) -- /* */ E' :a 1e COPY FROM STDIN \. CREATE FUNCTION BEGIN ATOMIC END CASE é :' ` \if"""
fragments = st.sampled_from([*PIECES.split(), "\n", " ", "\\endif\n"])


@given(st.one_of(st.text(), st.lists(fragments).map("".join)))
@example("/**/\n0")
def test_no_text_is_too_odd_and_the_items_come_in_order(text: str) -> None:
    lexed = lexer.lex(text)
    at = 0
    for statement in lexed.statements:
        assert at <= statement.start < statement.end <= len(text)
        # A block comment before the first word is sent with it, and may be lines above it.
        assert statement.sent_line == text.count("\n", 0, statement.start) + 1
        assert statement.sent_line <= statement.line <= statement.end_line <= text.count("\n") + 1
        at = statement.end
    at = -1
    for meta in lexed.metas:
        assert at < meta.start
        assert text[meta.start :].startswith(f"\\{meta.name}")
        at = meta.start
    assert all(1 <= line <= text.count("\n") + 1 for line, _ in lexed.problems)


def anything_but(characters: str) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_characters=characters, exclude_categories=["Cs"]))


quoted = st.one_of(
    anything_but("").map(lambda text: "'" + text.replace("'", "''") + "'"),
    anything_but("$").map(lambda text: f"$q${text}$q$"),
    anything_but('"').map(lambda text: f'"{text}"'),
    anything_but("*/").map(lambda text: f"/*{text}*/"),
)


@given(st.lists(quoted, min_size=1))
def test_whatever_is_quoted_ends_no_statement(parts: list[str]) -> None:
    statement = f"SELECT {' , '.join(parts)};"
    assert pieces(f"{statement}\nSELECT 2;") == [statement, "SELECT 2;"]


def test_a_statement_stands_where_its_first_word_does_and_is_sent_from_the_comment_before_it() -> None:
    statement = list(lexer.lex("SELECT 1;\n/* why */ -- and how\nCOMMIT;\n").statements)[1]
    assert (statement.line, statement.sent_line) == (3, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT :a, :'b', :\"c\", :{?d}, e::int;", "SELECT  a,  'b',  \"c\", true , e::int;"),
        ("\\set a 1\nSELECT 1;\n", "        \nSELECT 1;\n"),
        ("SELECT 1 AS a \\gset p_\nSELECT 2 \\bind 1 \\g\n", "SELECT 1 AS a ;       \nSELECT 2         ; \n"),
        ("SELECT 1 \\; SELECT 2;", "SELECT 1 ;  SELECT 2;"),
        ("COPY t FROM stdin;\na\t:b\n\\.\nSELECT 1;", "COPY t FROM stdin;\n    \n  \nSELECT 1;"),
        ("\\copy t from stdin\nit's\n\\.\nSELECT 1;", "                  \n    \n  \nSELECT 1;"),
        ("\\echo a \\\\ SELECT 1;", "           SELECT 1;"),
        ("SELECT '\\q :a', $$ \\! :b $$; -- \\i :c\n", "SELECT '\\q :a', $$ \\! :b $$; -- \\i :c\n"),
    ],
)
def test_what_is_psqls_own_is_blank_in_plain_sql(text: str, expected: str) -> None:
    assert lexer.as_sql(text) == expected


def test_variables_may_be_left() -> None:
    assert lexer.as_sql("SELECT :a, :'b' \\g\n", variables=False) == "SELECT :a, :'b' ; \n"


@given(st.text(st.sampled_from("a:'\"\\;\n $-/*{?}.gcopyset")))
def test_plain_sql_has_every_line_where_it_was(text: str) -> None:
    assert list(map(len, lexer.as_sql(text).split("\n"))) == list(map(len, text.split("\n")))


@given(st.text(st.sampled_from("a:'\"\\;\n $-/*{?}.gcopyset")))
def test_tokens_are_pieces_of_the_text_in_order(text: str) -> None:
    at = 0
    for _, token, start in lexer.tokens(text):
        assert start >= at
        assert text[at:start].strip() == ""
        assert text.startswith(token, start)
        at = start + len(token)
