"""What is shown of a session that holds a lock."""

from __future__ import annotations

import pytest

from scripts.blockers import Blocker


def test_a_password_in_its_statement_is_shown_neither_in_the_sentence_nor_in_the_document() -> None:
    query = "ALTER ROLE app PASSWORD 'hunter2' VALID UNTIL 'infinity'"
    blocker = Blocker(pid=7, user="me", application=None, client="::1", state="idle in transaction", since="then", query=query)
    masked = "ALTER ROLE app PASSWORD '****' VALID UNTIL 'infinity'"
    assert str(blocker) == f"PID 7, user me, from ::1, idle in transaction since then: {masked}"
    assert blocker.facts() == {**vars(blocker), "query": masked}


def test_what_the_server_does_not_tell_is_null_in_the_document() -> None:
    blocker = Blocker(pid=0, user=None, application=None, client=None, state=None, since=None, query=None)
    assert blocker.facts() == vars(blocker)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE app PASSWORD 'hunter2",  # cut off by the server
        "ALTER ROLE app PASSWORD 'it''s hunter2'",
        r"ALTER ROLE app PASSWORD E'it\'s hunter2'",
        r"ALTER ROLE app PASSWORD 'it\'s hunter2'",  # with standard_conforming_strings off
        "ALTER ROLE app PASSWORD $$hunter2$$",
        "ALTER ROLE app PASSWORD /* new */ 'hunter2'",
        "CREATE USER MAPPING FOR me SERVER s OPTIONS (user 'me', password 'hunter2')",
        "CREATE SUBSCRIPTION s CONNECTION 'host=h password=hunter2' PUBLICATION p",
        "SELECT dblink_connect('postgresql://me:hunter2@h/db')",
    ],
)
def test_no_way_to_write_a_password_gets_it_shown(statement: str) -> None:
    blocker = Blocker(pid=7, user="me", application=None, client="::1", state="active", since="then", query=statement)
    assert "hunter2" not in str(blocker)
    assert "hunter2" not in str(blocker.facts())
    assert statement[:11] in str(blocker)
