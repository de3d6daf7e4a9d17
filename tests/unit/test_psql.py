"""What psql is told around a file, and what its messages are understood as."""

from __future__ import annotations

import pytest

from scripts.psql import GUARD_FAILED, Message, Step, parse_messages, prologue, script

SERVER_ERROR = """\
psql:0007_x.sql:12: ERROR:  42P01: relation "nowhere" does not exist
LINE 2: SELECT * FROM nowhere;
                      ^
LOCATION:  parserOpenTable, parse_relation.c:1449""".splitlines()


def messages(*lines: str) -> list[Message]:
    return parse_messages(lines)


# Messages.


def test_a_server_s_error_has_its_file_line_sqlstate_and_what_was_added_but_no_place_in_the_server_s_source() -> None:
    assert messages(*SERVER_ERROR) == [
        Message(
            severity="ERROR",
            text='relation "nowhere" does not exist',
            sqlstate="42P01",
            file="0007_x.sql",
            line=12,
            extra=("LINE 2: SELECT * FROM nowhere;", "                      ^"),
        )
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("NOTICE:  00000: hello: world", Message(severity="NOTICE", sqlstate="00000", text="hello: world")),
        (
            "psql:sub dir/a:b.sql:3: WARNING:  25P01: there is no transaction in progress",
            Message(
                severity="WARNING", sqlstate="25P01", file="sub dir/a:b.sql", line=3, text="there is no transaction in progress"
            ),
        ),
        (
            "psql:1.sql:9: error: \\endif: no matching \\if",
            Message(severity="error", file="1.sql", line=9, text="\\endif: no matching \\if"),
        ),
        ("FEHLER:  42601: Syntaxfehler", Message(severity="FEHLER", sqlstate="42601", text="Syntaxfehler")),
        ("ERROR:  nothing that looks like a state", Message(severity="ERROR", text="nothing that looks like a state")),
    ],
)
def test_one_line_is_one_message(line: str, expected: Message) -> None:
    assert messages(line) == [expected]


def test_detail_hint_and_context_belong_to_the_message_before_them() -> None:
    first, second = messages(
        "psql:1.sql:2: ERROR:  23505: duplicate key value violates unique constraint",
        "DETAIL:  Key (id)=(1) already exists.",
        "HINT:  take another.",
        "CONTEXT:  SQL statement",
        "PL/pgSQL function f() line 3 at SQL statement",
        "LOCATION:  _bt_check_unique, nbtinsert.c:666",
        "psql:1.sql:3: NOTICE:  00000: later",
    )
    assert first.extra == (
        "DETAIL:  Key (id)=(1) already exists.",
        "HINT:  take another.",
        "CONTEXT:  SQL statement",
        "PL/pgSQL function f() line 3 at SQL statement",
    )
    assert (second.text, second.extra) == ("later", ())


def test_words_that_are_no_message_have_no_severity_and_belong_to_none_that_has_ended() -> None:
    assert messages("Segmentation fault") == [Message(severity="", text="Segmentation fault")]
    first, second = messages(*SERVER_ERROR, "what \\warn said")
    assert first == messages(*SERVER_ERROR)[0]
    assert second == Message(severity="", text="what \\warn said")


def test_nothing_said_is_no_message() -> None:
    assert messages() == []


@pytest.mark.parametrize(
    ("extra", "pointer"),
    [
        (("LINE 2: SELECT * FROM nowhere;", "   ^"), (2, "SELECT * FROM nowhere;")),
        (("LINE 14: ...a long line that psql has cut...", "   ^"), (14, "a long line that psql has cut")),
        (("DETAIL:  in LINE 3: it says",), None),
        ((), None),
    ],
)
def test_the_server_points_at_a_line_of_what_it_was_sent(extra: tuple[str, ...], pointer: tuple[int, str] | None) -> None:
    assert Message(severity="ERROR", text="x", line=9, extra=extra).pointer == pointer


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        (('CONTEXT:  COPY t, line 3, column n: "x"',), 3),
        (("DETAIL:  d", "CONTEXT:  COPY t, line 12"), 12),
        (("CONTEXT:  SQL function f, line 3",), None),
        (("DETAIL:  CONTEXT:  COPY t, line 3",), None),
        ((), None),
    ],
)
def test_copy_s_data_has_lines_of_its_own(extra: tuple[str, ...], line: int | None) -> None:
    assert Message(severity="ERROR", text="x", extra=extra).data_line == line


# The script around a file.


def step(name: str = "0007_x.sql", *, transactional: bool = True, metas: bool = False, variables: str = "") -> Step:
    return Step(
        file=name,
        before=() if transactional else ("INSERT started",),
        after=("INSERT applied",) if transactional else ("UPDATE applied",),
        transactional=transactional,
        uses_metas=metas,
        variables=frozenset(variables.split()),
        guard="g_",
    )


def sent(text: str) -> list[list[str]]:
    """What psql makes of a script: one list of statements for each message to the server; meta-commands by themselves."""
    return [line.removesuffix(";").split(" \\; ") for line in text.splitlines() if line]


def position(statements: list[str], beginning: str) -> int:
    [index] = [index for index, statement in enumerate(statements) if statement.startswith(beginning)]
    return index


def test_a_file_begins_in_a_clean_session_and_a_transaction_whose_id_is_noted() -> None:
    [[*clean, begin, note]] = sent(prologue(step()))
    assert {"RESET ROLE", "RESET ALL", "RESET SESSION AUTHORIZATION", "DISCARD TEMP", "DEALLOCATE ALL"} <= set(clean)
    assert not any("DISCARD ALL" in statement or "unlock" in statement for statement in clean)  # they give up the lock
    assert begin == "BEGIN"
    assert note.startswith("SELECT pg_catalog.pg_current_xact_id() AS xid, pg_catalog.pg_backend_pid() AS pid")
    assert note.endswith(" \\gset g_")


def test_the_ledger_row_is_written_in_the_file_s_own_transaction_behind_the_guard() -> None:
    [included], message = sent(script(step(), None))
    assert included == "\\i '0007_x.sql'"
    end = message[: message.index("COMMIT") + 1]
    guard = position(end, f"SELECT CAST(pg_catalog.concat('{GUARD_FAILED}'")
    assert ":'g_xid'" in end[guard]
    assert ":g_pid" in end[guard]
    path = position(end, "SET LOCAL search_path = pg_catalog")
    assert path < guard < position(end, "INSERT applied") < len(end) - 1
    assert position(end, "RESET ROLE") < guard


def test_one_file_s_end_and_the_next_one_s_beginning_are_one_message() -> None:
    [_, joined, *_] = sent(script(step("1.sql"), step("2.sql")))
    assert joined[-1].endswith("\\gset g_")
    applied = position(joined, "INSERT applied")
    assert joined[applied + 1] == "COMMIT"
    assert joined[-2] == "BEGIN"


def test_psql_forgets_the_guard_of_a_file_when_the_next_one_has_begun() -> None:
    lines = script(step("1.sql"), step("2.sql")).splitlines()
    begun = next(index for index, line in enumerate(lines) if "\\gset" in line)
    assert lines[begun + 1 :] == ["\\unset g_xid", "\\unset g_pid", "\\unset g_role"]


def test_a_no_transaction_file_is_recorded_before_it_begins_and_after_it_ended() -> None:
    _, started, note = sent(prologue(step(transactional=False)))
    assert started == ["INSERT started"]
    assert len(note) == 1
    assert note[0].endswith("\\gset g_")

    [included], end, left_open = sent(script(step(transactional=False), None))
    assert included == "\\i '0007_x.sql'"
    assert end[-1] == "UPDATE applied"
    assert not {"BEGIN", "COMMIT"} & set(end)
    assert position(end, "SET search_path = pg_catalog") < position(end, "SELECT CAST") < len(end) - 1
    assert ":g_pid" in end[position(end, "SELECT CAST")]
    assert "xid" not in end[position(end, "SELECT CAST")]  # each of its statements has a transaction of its own
    assert "pg_current_xact_id_if_assigned() IS NOT NULL" in left_open[0]  # a transaction that it left open would hide the row


def test_what_was_not_committed_before_a_no_transaction_file_is_not_joined_to_its_record() -> None:
    text = script(step("1.sql"), step("2.sql", transactional=False))
    applied, started = (
        next(index for index, message in enumerate(sent(text)) if statement in message)
        for statement in ("INSERT applied", "INSERT started")
    )
    assert applied < started
    assert sent(text)[started] == ["INSERT started"]


@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.parametrize("following", [None, step("2.sql")])
def test_after_a_file_with_meta_commands_psql_s_own_state_is_put_back(transactional: bool, following: Step | None) -> None:
    lines = script(step(transactional=transactional, metas=True), following).splitlines()
    ended = next(index for index, line in enumerate(lines) if "applied" in line)
    restored = lines[ended + 1 :]
    for line in ("\\set ON_ERROR_STOP 1", "\\set VERBOSITY verbose", "\\pset format unaligned", "\\pset tuples_only on", "\\o"):
        assert line in restored
        assert line not in lines[:ended]
    assert any("\\gset g_" in line for line in restored) is (following is not None)


@pytest.mark.parametrize("transactional", [True, False])
def test_a_file_without_meta_commands_leaves_nothing_to_put_back(transactional: bool) -> None:
    text = script(step(transactional=transactional), step("2.sql"))
    assert "\\set" not in text.replace("\\gset", "")
    assert "\\pset" not in text


@pytest.mark.parametrize("transactional", [True, False])
def test_a_file_does_not_see_another_one_s_variables(transactional: bool) -> None:
    lines = prologue(step(transactional=transactional, variables="b a")).splitlines()
    assert lines[:2] == ["\\unset a", "\\unset b"]
    joined = script(step("1.sql"), step("2.sql", variables="a")).splitlines()
    assert joined.index("\\unset a") > joined.index("\\i '1.sql'")


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("0001 a b.sql", "'0001 a b.sql'"),
        ("0001_it's.sql", "'0001_it''s.sql'"),
        ("0001_back\\slash.sql", "'0001_back\\\\slash.sql'"),
        ("0001_`id`:x.sql", "'0001_`id`:x.sql'"),
    ],
)
def test_a_file_s_name_is_quoted_for_psql(name: str, argument: str) -> None:
    assert script(step(name), None).splitlines()[0] == f"\\i {argument}"


def test_two_steps_have_guards_that_no_file_can_guess() -> None:
    assert Step(file="1.sql").guard != Step(file="1.sql").guard
