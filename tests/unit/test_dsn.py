"""A DSN is taken apart by libpq, put together again, and never shown with its password."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scripts import dsn
from scripts.dsn import Dsn
from scripts.errors import UsageError
from scripts.secret import Secret

REMOTE = "postgresql://u:hunter2@db.example.com/d?sslmode=require"
LOCAL = "postgresql://u:hunter2@localhost:5433/d"


def parse(text: str) -> Dsn:
    return dsn.parse(text, "a test")


def refusal(text: str) -> UsageError:
    with pytest.raises(UsageError) as raised:
        parse(text)
    return raised.value


def test_the_parts_are_libpqs_own() -> None:
    found = parse(REMOTE)
    assert found.params == {"user": "u", "host": "db.example.com", "dbname": "d", "sslmode": "require"}
    assert found.password == Secret("hunter2")
    assert found.database == "d"


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(user=text, password=text, database=text)
def test_any_user_password_and_database_come_back(user: str, password: str, database: str) -> None:
    assume(not any(value.startswith(("<", "${")) for value in (user, password, database)))
    params = {"user": user, "host": "db.example.com", "port": "5433", "dbname": database, "sslmode": "verify-full"}
    made = Dsn(params, Secret(password))
    assert parse(made.uri().reveal()) == made


@given(text)
def test_any_parameter_comes_back(value: str) -> None:
    assume(not value.startswith(("<", "${")))
    made = parse(REMOTE).with_params(application_name=value, options=f"-c a={value}")
    assert (made.params["application_name"], made.params["host"]) == (value, "db.example.com")
    assert parse(made.uri().reveal()) == made


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://u@/d?host=/tmp/a b&port=5433".replace(" ", "%20"),
        "postgresql://u:p@[::1]:5433/d",
        "postgresql://u:p@[fe80::1%25eth0]:5433/d?sslmode=require",
        "postgresql://u:p@one:1,two:2/d?sslmode=require&target_session_attrs=read-write",
        "postgresql://u:p@one,two:2/d?sslmode=require",
        "postgres://u:p@/d?hostaddr=127.0.0.1&port=5433",
        "postgres://u:p@/d?hostaddr=127.0.0.1,127.0.0.2&port=5433,5434",
        "postgres://u:p@/d?hostaddr=127.0.0.1,127.0.0.2&host=one,two&port=5433,5434",
        "postgres://u:p@/d?host=one,two,three&port=5433,5434&sslmode=require",  # libpq refuses it, when it connects
    ],
)
def test_any_kind_of_host_comes_back(uri: str) -> None:
    found = parse(uri)
    assert parse(found.uri().reveal()) == found


@pytest.mark.parametrize(
    ("params", "uri"),
    [
        ({"user": "u/v", "host": "h", "dbname": "a/b"}, "postgresql://u%2Fv@h/a%2Fb"),
        ({"host": "h"}, "postgresql://@h/"),
        ({"user": "u", "host": "a/b", "dbname": "d", "options": "-c a=/b"}, "postgresql://u@a%2Fb/d?options=-c%20a%3D/b"),
        ({"user": "u", "host": "::1,fe80::1%eth0", "port": "1,2", "dbname": "d"}, "postgresql://u@[::1]:1,[fe80::1%25eth0]:2/d"),
        ({"user": "u", "host": "a,b", "port": "5", "dbname": "d"}, "postgresql://u@a:5,b:5/d"),
        ({"user": "u", "host": "a,b", "port": ",5", "dbname": "d"}, "postgresql://u@a,b:5/d"),
        ({"user": "u", "host": "a,b,c", "port": "5,6", "dbname": "d"}, "postgresql://u@/d?host=a%2Cb%2Cc&port=5%2C6"),
        ({"user": "u", "host": "/a,/b", "port": "1,2", "dbname": "d"}, "postgresql://u@/d?host=/a%2C/b&port=1%2C2"),
        ({"user": "u", "host": "@a", "dbname": "d"}, "postgresql://u@/d?host=%40a"),
        ({"user": "u", "hostaddr": "::1", "port": "5", "dbname": "d"}, "postgresql://u@:5/d?hostaddr=%3A%3A1"),
        (
            {"user": "u", "hostaddr": "127.0.0.1,::1", "port": "5,6", "dbname": "d"},
            "postgresql://u@/d?hostaddr=127.0.0.1%2C%3A%3A1&port=5%2C6",
        ),
    ],
)
def test_a_uri_is_written_as_libpq_reads_it(params: dict[str, str], uri: str) -> None:
    made = Dsn(params)
    assert (str(made), made.without_password(), made.uri().reveal()) == (uri, uri, uri)


@pytest.mark.parametrize("character", [*":/@%#?&'\"\\$ =[]+,ü日"])
def test_a_password_with_any_character_is_only_seen_by_reveal(character: str) -> None:
    password = f"se{character}cret"
    found = Dsn(parse(REMOTE).params, Secret(password))
    assert parse(found.uri().reveal()).password.reveal() == password
    for shown in (str(found), repr(found), found.without_password(), repr(found.uri())):
        assert "cret" not in shown
    assert str(found) == "postgresql://u:****@db.example.com/d?sslmode=require"
    assert found.without_password() == "postgresql://u@db.example.com/d?sslmode=require"


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("", "is not a Postgres URI"),
        ("host=localhost dbname=d", "is not a Postgres URI"),
        ("mysql://u:hunter2@h/d", "is not a Postgres URI"),
        ("postgresql://u:hunter2@h/d x", "holds a space or a control character"),
        ("postgresql://u:hunter2%@h/d", "holds a % that begins no percent-encoded character"),
        ("postgresql://u:hun%FCter2@h/d", "holds percent-encoded characters that are not UTF-8"),
        ("postgresql://u:hun@ter2@h/d", "holds an unencoded @"),
        ("postgresql://u:hun@=/ter2@h/d", "holds an unencoded @"),
        ("postgresql://u:hun?@=/ter2@h/d", "holds an unencoded @"),
        ("postgresql://u:hun@b?ter2@h/d", "holds an unencoded @"),
        ("postgresql://u:hun\udcffter2@h/d", "isn't UTF-8 text"),
        ("postgresql://", "isn't complete: no user, no host, no database"),
        ("postgresql://u:hun/ter2@h/d", "seems to hold an unencoded / in its password"),
        ("postgresql://u:hunter2@h/d?colour=blue", "is not a URI that libpq takes"),
        ("postgresql://u:hunter2@[::1/d", "is not a URI that libpq takes"),
        ("postgresql://localhost", "isn't complete: no user, no database"),
        ("postgresql://u:hunter2@/d", "isn't complete: no host"),
        ("postgresql://:hunter2@localhost/d", "isn't complete: no user"),
        ("postgresql://u:<password>@localhost/d", "still holds a placeholder"),
        ("postgresql://u:${PASSWORD}@localhost/d", "still holds a placeholder"),
        ("postgresql://USER:PASSWORD@localhost/d", "is the example: USER, PASSWORD and the other words in capitals"),
        ("postgresql://u:p@localhost:abc/d", "has a port that is no number from 1 to 65535"),
        ("postgresql://u:p@localhost:0/d", "has a port that is no number from 1 to 65535"),
        ("postgresql://u:p@localhost:65536/d", "has a port that is no number from 1 to 65535"),
        ("postgresql://u:p@localhost:123456/d", "has a port that is no number from 1 to 65535"),
        ("postgresql://u:p@localhost:1,localhost:x/d", "has a port that is no number from 1 to 65535"),
        ("postgresql://u:hun%0Ater2@localhost/d", "has a password with a line break"),
        (f"{LOCAL}?passfile=/x&service=y", "uses passfile, service, which is not supported"),
        (
            "postgresql://u:hunter2@h/d?sslmode=requre",
            "has an sslmode that is none of disable, allow, prefer, require, verify-ca, verify-full",
        ),
        (f"{LOCAL}?sslmode=on", "has an sslmode that is none of disable, "),
        ("postgresql://u:hunter2@h/d", "goes to another host without TLS"),
        ("postgresql://u:hunter2@h/d?sslmode=prefer", "goes to another host without TLS"),
        ("postgresql://u:hunter2@localhost,h/d", "goes to another host without TLS"),
        (f"{LOCAL}?hostaddr=10.0.0.1", "goes to another host without TLS"),
        ("postgresql://u@h/d?sslmode=require", "has no password"),
    ],
)
def test_what_can_not_be_meant_is_refused_without_showing_the_password(uri: str, what: str) -> None:
    error = refusal(uri)
    assert error.message.startswith(f"the DSN of a test {what}")
    assert error.hint
    assert "hun" not in error.message + error.hint
    assert "ter2" not in error.message + error.hint


def test_the_command_that_percent_encodes_is_one_that_runs_where_the_environment_is_not_on_path() -> None:
    words = shlex.split(dsn.ENCODE_HINT.partition(": ")[2])
    assert words[:2] in (["python3", "-c"], ["py", "-c"])
    compile(words[2], "hint", "exec")


def test_all_problems_are_told_at_once() -> None:
    error = refusal("postgresql://h?passfile=x")
    assert error.message == (
        "the DSN of a test isn't complete: no user, no database; it uses passfile, which is not supported: the password belongs "
        "into the URI; it goes to another host without TLS: add sslmode=require, or stricter (require, verify-ca, verify-full); "
        "it has no password"
    )
    assert error.hint == f"its shape: {dsn.SHAPE}"


@pytest.mark.parametrize(
    ("uri", "problem", "hint"),
    [
        ("postgresql://u:hunter2@/d", "isn't complete: no host", f"its shape: {dsn.SHAPE}"),
        ("postgresql://u@/d", "isn't complete: no host", f"its shape: {dsn.SHAPE}"),
        (f"{LOCAL}?a%0Ahunter2=x", "is not a URI that libpq takes: invalid URI query parameter", f"its shape: {dsn.SHAPE}"),
        (
            f"{LOCAL}?sslmod=require",
            "is not a URI that libpq takes: invalid URI query parameter (did you mean sslmode?)",
            f"its shape: {dsn.SHAPE}",
        ),
        ("postgresql://u:hun\udcffter2@h/d", "isn't UTF-8 text", dsn.ENCODE_HINT),
    ],
)
def test_a_refusal_says_that_and_no_more(uri: str, problem: str, hint: str) -> None:
    error = refusal(uri)
    assert (error.message, error.hint) == (f"the DSN of a test {problem}", hint)


@pytest.mark.parametrize(
    ("query", "name"),
    [("?application_name=a@b", "a@b"), ("?application_name=a://b", "a://b"), ("?application_name=a%2fb", "a/b"), ("", None)],
)
def test_what_stands_behind_the_question_mark_is_no_part_of_the_password(query: str, name: str | None) -> None:
    found = parse(f"{LOCAL}{query}")
    assert (found.password.reveal(), found.params.get("application_name")) == ("hunter2", name)


def test_an_at_sign_in_a_parameter_ends_no_user() -> None:
    found = parse("postgresql://localhost/d?user=u&application_name=a@b@c")
    assert found.params == {"host": "localhost", "dbname": "d", "user": "u", "application_name": "a@b@c"}


def test_a_parameter_without_a_value_is_none() -> None:
    assert parse(f"{LOCAL}?application_name=").params == parse(LOCAL).params


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://u:p@localhost/d", "postgresql://v:q@localhost:5432/d?application_name=x", True),
        ("postgresql://u:p@localhost:5433/d", "postgresql://u:p@localhost:5433/d", True),
        ("postgresql://u:p@localhost:5433/d", "postgresql://u:p@localhost/d", False),
        ("postgresql://u:p@localhost:5433/d", "postgresql://u:p@localhost:5434/d", False),
        ("postgresql://u:p@localhost/d", "postgresql://u:p@127.0.0.1/d", False),
        ("postgresql://u:p@localhost/d", "postgresql://u:p@localhost/e", False),
        ("postgresql://u:p@a:1,b/d?sslmode=require", "postgresql://u:p@a:1,b:5432/d?sslmode=require", True),
        ("postgresql://u:p@a,b/d?sslmode=require&port=1", "postgresql://u:p@a:1,b:1/d?sslmode=require", True),
        ("postgresql://u:p@a,b/d?sslmode=require&port=1", "postgresql://u:p@a:1,b/d?sslmode=require", False),
    ],
)
def test_a_database_is_the_same_by_host_port_and_name(one: str, other: str, same: bool) -> None:
    assert parse(one).same_database(parse(other)) is same


@pytest.mark.parametrize(
    ("password", "line"), [("", ""), ("hunter2", "*:*:*:*:hunter2\n"), ("a:b\\c::", "*:*:*:*:a\\:b\\\\c\\:\\:\n")]
)
def test_a_password_file_has_one_line_in_which_colons_are_no_ends(password: str, line: str) -> None:
    assert dsn.pgpass(Dsn({}, Secret(password))) == line


@given(st.text(st.sampled_from("ab:/@%?#&=[], ")))
def test_a_password_that_was_not_encoded_is_never_shown(middle: str) -> None:
    try:
        shown = str(parse(f"postgresql://u:hunter{middle}hunter@db.example.com/d?sslmode=require"))
    except UsageError as error:
        shown = error.message + error.hint
    assert "hunter" not in shown


@pytest.mark.parametrize(
    ("uri", "local", "socket"),
    [
        (LOCAL, True, False),
        ("postgresql://u:p@127.0.0.2/d", True, False),
        ("postgresql://u:p@[::1]/d", True, False),
        ("postgresql://u:p@/d?host=/tmp", True, True),
        ("postgresql://u:p@/d?host=%40abstract", True, True),
        ("postgresql://u:p@localhost,127.0.0.1/d", True, False),
        (REMOTE, False, False),
        ("postgresql://u:p@127.0.0.1.example.com/d?sslmode=require", False, False),
        ("postgresql://u:p@db.example.com/d?hostaddr=127.0.0.1", True, False),
    ],
)
def test_a_loopback_address_or_a_socket_is_this_machine(uri: str, local: bool, socket: bool) -> None:
    assert (parse(uri).is_local, parse(uri).is_socket) == (local, socket)


@pytest.mark.parametrize(
    ("mode", "needed"), [("require", True), ("verify-ca", True), ("verify-full", True), ("prefer", False), ("disable", False)]
)
def test_the_stricter_modes_need_tls(mode: str, needed: bool) -> None:
    assert parse(f"{LOCAL}?sslmode={mode}").needs_tls is needed


def test_without_a_host_there_is_one_that_has_no_name() -> None:
    assert (Dsn({}).hosts, Dsn({}).is_local) == ([""], False)


def test_a_certificate_takes_a_passwords_place() -> None:
    assert not parse("postgresql://u@h/d?sslmode=verify-full&sslcert=c.pem").password


def test_another_host_is_the_same_server_by_another_name() -> None:
    moved = parse(f"{LOCAL}?hostaddr=127.0.0.1").with_host("host.docker.internal")
    assert str(moved) == "postgresql://u:****@host.docker.internal:5433/d"


@pytest.mark.parametrize(
    "name", ["PGPASSWORD", "pgHost", "PSQLRC", "PSQL_EDITOR", "POSTGRES_DSN", "LC_ALL", "LC_MESSAGES", "LANGUAGE"]
)
def test_what_steers_libpq_or_holds_a_dsn_does_not_reach_a_program(name: str) -> None:
    assert dsn.clean_env({name: "x", "PATH": "/bin", "LC_CTYPE": "C"}) == {"PATH": "/bin", "LC_CTYPE": "C"}


@pytest.mark.parametrize(
    ("text", "passwords"),
    [
        (REMOTE, {"hunter2"}),
        ("postgresql://u:p%2Fw%25@h/d", {"p%2Fw%25", "p/w%"}),
        ("postgresql://u:a@b@h/d", {"a", "a@b"}),
        ("postgresql://u:a b/c@h/d", {"a b/c"}),
        ("postgresql://u:a@b\nc@h/d", {"a", "a@b\nc"}),
        ("postgresql://u:p@h/d?application_name=a@b", {"p", "p@h/d?application_name=a"}),
        ("postgresql://u@h/d", set()),  # which is refused: it may be anything
        ("no DSN at all", set()),
    ],
)
def test_what_a_dsn_hides_is_itself_and_its_password_in_both_forms(text: str, passwords: set[str]) -> None:
    assert {secret.reveal() for secret in dsn.to_conceal(text)} == {text, *passwords}


def test_a_dsn_without_a_password_hides_nothing() -> None:
    for text in ("postgresql://u@localhost/d", "postgresql://u@h/d?sslmode=verify-full&sslcert=a&sslkey=b"):
        assert dsn.to_conceal(text) == dsn.parse(text, "a test").secrets == ()
    assert dsn.to_conceal("postgresql://u@localhost/d?password=hunter2") == (
        Secret("postgresql://u@localhost/d?password=hunter2"),
    )
    parsed = dsn.parse(REMOTE, "a test")
    assert parsed.secrets == (parsed.password, parsed.uri())
