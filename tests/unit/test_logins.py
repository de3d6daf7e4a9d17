"""The login roles: what the flags say of them, what makes them so, and what they have beyond it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import logins, settings
from scripts.catalogs import GROUPS, OWNER, READER, WRITER, Grant, Rights
from scripts.errors import UsageError
from scripts.logins import Wanted
from scripts.secret import Secret
from tests.unit.test_grants import converged, login, member, role, table

APP = Wanted(user="app")
NAMES = ("app", "app_b")
DIRECT = 150007  # a version whose members may become their group


def wanted(user: str = "app", limit: str | None = None, **timeouts: str | None) -> Wanted:
    return logins.wanted(user, limit, timeouts)


def told(seen: Rights, name: str = "app", flags: Wanted = APP, **more: Any) -> list[str]:
    return [change.what for change in logins.changes(seen, name, flags, **more)]


def sql(seen: Rights, name: str = "app", flags: Wanted = APP, **more: Any) -> list[str]:
    return [statement for change in logins.changes(seen, name, flags, **more) for statement in change.statements]


def app(**facts: Any) -> Rights:
    return converged(roles={"app": login(**facts)})


def beyond(seen: Rights) -> dict[str, tuple[str, ...]]:
    return {extra.what: extra.statements for extra in logins.extras(seen, NAMES)}


def other(name: str, *, opened: bool = True, may_close: bool = True) -> dict[str, Any]:
    return {"name": name, "owner": "somebody", "open": opened, "may_close": may_close}


@pytest.mark.parametrize("user", ["app", "App", "my app", "it's", 'a"b', "_b_", "publicist", "é" * 30, "a" * 61])
def test_a_login_role_may_be_called_so(user: str) -> None:
    assert wanted(user).names == (user, f"{user}_b")


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("", "is no name"),
        ("a\nb", "is no name"),
        ("a\0", "is no name"),
        ("a\x7f", "is no name"),
        ("a" * 62, "is longer than 61 bytes"),
        ("é" * 31, "is longer than 61 bytes"),
        *((group, "is the name of something else") for group in GROUPS),
        ("pg_monitor", "is the name of something else"),
        ("public", "is the name of something else"),
        ("PUBLIC", "is the name of something else"),
        ("none", "is the name of something else"),
        ("app_b", "ends with _b"),
    ],
)
def test_a_login_role_may_not_be_called_so(user: str, problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        wanted(user)
    assert raised.value.message.startswith(f"the login role {user!r} {problem}")
    assert "--backtest-service-user NAME" in raised.value.hint


@pytest.mark.parametrize(("limit", "expected"), [(None, None), ("1", 1), ("999999", 999999)])
def test_a_number_of_connections(limit: str | None, expected: int | None) -> None:
    assert wanted(limit=limit).limit == expected


@pytest.mark.parametrize("limit", ["", "0", "-1", "01", "1000000", "ten", "1.5", " 1", "1\n", "²", "1٢"])
def test_no_number_of_connections(limit: str) -> None:
    with pytest.raises(UsageError) as raised:
        wanted(limit=limit)
    assert raised.value.message == f"--connection-limit {limit}: not a number of connections"


@pytest.mark.parametrize("value", ["0", " 0 ", "1ms", "30s", "500ms", "2min", "1h", "1 d", " 5s ", "2147483647ms"])
def test_a_time_is_kept_as_it_was_written(value: str) -> None:
    assert wanted(lock_timeout=value, statement_timeout=None).timeouts == {"lock_timeout": value}


@pytest.mark.parametrize("value", ["1", "60", " 60 ", "2147483647"])
def test_a_number_without_a_unit_is_refused_beside_a_default_in_seconds(value: str) -> None:
    with pytest.raises(UsageError) as raised:
        logins.wanted("app", None, {"statement_timeout": value})
    assert f"--statement-timeout {value}: {value.strip()} of what? PostgreSQL would take milliseconds" in raised.value.message


@pytest.mark.parametrize("value", ["", "-1", "s", "1 week", "1.5s", "30 S", "2147483648", "25d", "1s;", "٣s"])
@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ("statement_timeout", "--statement-timeout"),
        ("lock_timeout", "--lock-timeout"),
        ("idle_in_transaction_session_timeout", "--idle-in-transaction-timeout"),
    ],
)
def test_no_time(setting: str, flag: str, value: str) -> None:
    with pytest.raises(UsageError) as raised:
        wanted(**{setting: value})
    assert raised.value.message == f"{flag} {value}: not a time"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("250", 250), ("250ms", 250), ("60s", 60_000), ("1min", 60_000), ("2h", 7_200_000), ("1d", 86_400_000)],
)
def test_a_time_in_milliseconds(value: str, expected: int) -> None:
    assert settings.milliseconds(value) == expected


def test_those_who_may_log_in() -> None:
    both = converged(roles={"app_b": login()})
    assert logins.active(both, NAMES) == ["app", "app_b"]
    assert logins.active(converged(roles={"app_b": login(login=False)}), NAMES) == ["app"]
    assert logins.active(converged(), ("nobody", "app")) == ["app"]


@pytest.mark.parametrize(
    ("connections", "expected"), [(97, 44), (35, 16), (30, 13), (10, 3), (5, 1), (4, 0), (3, 0), (850, 382), (4985, 2243)]
)
def test_two_roles_share_what_administrators_leave(connections: int, expected: int) -> None:
    assert logins.budget(converged(connections=connections)) == expected


@given(st.integers(5, 10_000))
def test_both_roles_at_their_limit_leave_room_for_a_migration(connections: int) -> None:
    assert connections - 2 * logins.budget(converged(connections=connections)) >= 3


@pytest.mark.parametrize(("connections", "expected"), [(35, "16 connections"), (10, "3 connections"), (3, "1 connection")])
def test_a_new_role_gets_what_fits_and_one_connection_at_least(connections: int, expected: str) -> None:
    assert told(converged(connections=connections), "app_b")[0] == f"make the login role app_b, with {expected}"


def test_a_limit_that_fits_no_more_is_lowered() -> None:
    assert told(converged(connections=35)) == ["change app: it has 16 connections (43 before)"]


@pytest.mark.parametrize("limit", [1, 44])
def test_a_limit_that_was_asked_for_is_set(limit: int) -> None:
    assert sql(converged(), flags=wanted(limit=str(limit))) == [f'ALTER ROLE "app" CONNECTION LIMIT {limit}']


def test_a_limit_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError) as raised:
        told(converged(connections=35), flags=wanted(limit="17"))
    assert raised.value.message.startswith("--connection-limit 17: the server has 35 connections for roles without privileges")
    assert raised.value.hint.startswith("give 16 at most")


@pytest.mark.parametrize("version", [DIRECT, 160004, 180001])
def test_a_login_role_as_designed_is_not_changed(version: int) -> None:
    seen = converged(version=version, databases=[other("postgres", opened=False), other("serving2")])
    assert told(seen) == []


@pytest.mark.parametrize("version", [DIRECT, 160004])
def test_a_new_login_role_is_made_whole(version: int) -> None:
    statements = sql(converged(version=version), "app_b", scram="SCRAM-SHA-256$it's")
    assert statements[:4] == [
        "CREATE ROLE \"app_b\" LOGIN CONNECTION LIMIT 44 PASSWORD 'SCRAM-SHA-256$it''s'",
        "ALTER ROLE \"app_b\" SET statement_timeout = '60s'",
        "ALTER ROLE \"app_b\" SET lock_timeout = '5s'",
        "ALTER ROLE \"app_b\" SET idle_in_transaction_session_timeout = '60s'",
    ]
    assert 'GRANT CONNECT ON DATABASE serving TO "app_b"' in statements
    becomes_member = 'GRANT serving_writer TO "app_b" WITH INHERIT TRUE, SET FALSE' in statements
    holds_itself = 'GRANT INSERT ON TABLE core.things TO "app_b"' in statements
    assert (becomes_member, holds_itself) == ((False, True) if version == DIRECT else (True, False))
    assert 'GRANT INSERT ON TABLE gold.things TO "app_b"' not in statements


@pytest.mark.parametrize(
    ("facts", "what", "statement"),
    [
        ({"login": False}, "may log in", "LOGIN"),
        ({"inherit": False}, "inherits from its group", "INHERIT"),
        ({"limit": -1}, "has 44 connections (no limit before)", "CONNECTION LIMIT 44"),
        ({"limit": 0}, "has 44 connections (0 before)", "CONNECTION LIMIT 44"),
        ({"limit": 45}, "has 44 connections (45 before)", "CONNECTION LIMIT 44"),
        ({"expires": "2020-01-01"}, "doesn't expire (2020-01-01 before)", "VALID UNTIL 'infinity'"),
        ({"login": False, "inherit": False}, "may log in, inherits from its group", "LOGIN INHERIT"),
    ],
)
def test_what_drifted_is_put_back(facts: Mapping[str, Any], what: str, statement: str) -> None:
    assert told(app(**facts)) == [f"change app: it {what}"]
    assert sql(app(**facts)) == [f'ALTER ROLE "app" {statement}']


@pytest.mark.parametrize("facts", [{"expires": "infinity"}, {"limit": 1}, {"limit": 44}, {"comment": "mine"}])
def test_what_is_the_administrators_choice_stays(facts: Mapping[str, Any]) -> None:
    assert told(app(**facts)) == []


def test_a_password_is_set_when_there_is_a_new_one() -> None:
    assert told(converged(), scram="v") == ["change app: it has a new password"]
    assert sql(converged(), scram="v") == ["ALTER ROLE \"app\" PASSWORD 'v'"]


def test_a_change_does_not_show_its_statements() -> None:
    assert "SCRAM" not in repr(logins.changes(converged(), "app", APP, scram="SCRAM-SHA-256$secret"))


@pytest.mark.parametrize(
    ("settings", "statements"),
    [
        (["statement_timeout=1min", "lock_timeout=5000ms", "idle_in_transaction_session_timeout=60000"], []),
        (["statement_timeout=5min", "lock_timeout=1ms", "idle_in_transaction_session_timeout=1h"], []),
        (
            ["statement_timeout=0", "lock_timeout=5s", "idle_in_transaction_session_timeout=0ms"],
            [
                "ALTER ROLE \"app\" SET statement_timeout = '60s'",
                "ALTER ROLE \"app\" SET idle_in_transaction_session_timeout = '60s'",
            ],
        ),
        (
            ["statement_timeout=60s", "idle_in_transaction_session_timeout=60s"],
            ["ALTER ROLE \"app\" SET lock_timeout = '5s'"],
        ),
    ],
)
def test_a_timeout_that_stands_stays_and_one_that_is_missing_is_set(settings: list[str], statements: list[str]) -> None:
    assert sql(app(settings=settings)) == statements


def test_a_timeout_that_was_asked_for_is_set_unless_it_stands_already() -> None:
    flags = wanted(statement_timeout="1min", lock_timeout="0")
    assert told(converged(), flags=flags) == ["set lock_timeout of app to 0"]


def test_no_timeout_at_all_is_named_unless_a_flag_asks_for_it_or_a_rotation_goes_on_with_it() -> None:
    without = app(settings=["statement_timeout=0", "lock_timeout=5s", "idle_in_transaction_session_timeout=60s"])
    assert told(without) == ["set statement_timeout of app to 60s (0 before, which is none)"]
    assert told(without, flags=wanted(statement_timeout="0")) == []
    assert "set statement_timeout of app_b to 0" in told(without, "app_b", like="app")


def test_what_an_earlier_flag_or_somebody_set_is_shown() -> None:
    fitted = logins.budget(converged())
    times = ["statement_timeout=5min", "lock_timeout=5000ms", "idle_in_transaction_session_timeout=0", "work_mem=1GB"]
    seen = app(limit=5, settings=times)
    limit, statement, memory, idle = (
        f"5 connections (fitted: {fitted})",
        "statement_timeout 5min (default: 60s)",
        "work_mem 1GB (no part of the design)",
        "idle_in_transaction_session_timeout 0 (default: 60s)",
    )
    before = "app keeps what was set before: "
    assert logins.kept(seen, NAMES, APP) == [f"{before}{limit}, {statement}, {memory}"]
    assert logins.kept(seen, NAMES, APP, none_too=True) == [f"{before}{limit}, {statement}, {idle}, {memory}"]
    assert logins.kept(seen, NAMES, wanted(limit="5", statement_timeout="5min")) == [f"{before}{memory}"]
    assert logins.kept(app(limit=fitted), NAMES, APP) == []


def test_the_second_role_is_like_the_first_where_no_flag_says_otherwise() -> None:
    first = login(limit=7, settings=["statement_timeout=5min", "lock_timeout=9s"])
    statements = sql(converged(roles={"app": first}), "app_b", wanted(lock_timeout="1s"), like="app")
    assert statements[:4] == [
        'CREATE ROLE "app_b" LOGIN CONNECTION LIMIT 7',
        "ALTER ROLE \"app_b\" SET statement_timeout = '5min'",
        "ALTER ROLE \"app_b\" SET lock_timeout = '1s'",
        "ALTER ROLE \"app_b\" SET idle_in_transaction_session_timeout = '60s'",
    ]


def test_a_second_role_that_rested_becomes_like_the_first() -> None:
    roles = {"app": login(limit=7), "app_b": login(login=False, limit=9)}
    assert sql(converged(roles=roles), "app_b", like="app")[0] == 'ALTER ROLE "app_b" LOGIN CONNECTION LIMIT 7'


SET_AND_ADMIN = [
    'REVOKE SET OPTION FOR "serving_writer" FROM "app" GRANTED BY "azadmin" CASCADE',
    'REVOKE ADMIN OPTION FOR "serving_writer" FROM "app" GRANTED BY "azadmin" CASCADE',
]
JOIN = 'GRANT serving_writer TO "app" WITH INHERIT TRUE, SET FALSE'


@pytest.mark.parametrize(
    ("memberships", "statements"),
    [
        ([], [JOIN]),
        ([member(READER)], [JOIN]),
        ([member(WRITER, inherit=False)], [JOIN]),
        ([member(WRITER, become=True)], SET_AND_ADMIN[:1]),
        ([member(WRITER, admin=True)], SET_AND_ADMIN[1:]),
        ([member(WRITER, inherit=False, become=True, admin=True)], [JOIN, *SET_AND_ADMIN]),
        ([member(WRITER), member(WRITER, inherit=False, by="me")], []),
        (
            [member(WRITER), member(WRITER, become=True, by='m"e')],
            ['REVOKE SET OPTION FOR "serving_writer" FROM "app" GRANTED BY "m""e" CASCADE'],
        ),
        ([member(WRITER), member(WRITER, become=True, by="root", may_revoke=False)], []),
    ],
)
def test_a_login_role_inherits_from_the_writers_and_may_not_become_them(
    memberships: list[dict[str, Any]], statements: list[str]
) -> None:
    assert sql(app(memberships=memberships)) == statements


@pytest.mark.parametrize(
    ("options", "what", "words"),
    [
        ({"become": True}, "become", ["SET"]),
        ({"admin": True}, "add members to", ["ADMIN"]),
        ({"become": True, "admin": True}, "become and add members to", ["SET", "ADMIN"]),
    ],
)
def test_an_option_that_only_a_superuser_can_take_back_is_named(options: dict[str, bool], what: str, words: list[str]) -> None:
    seen = app(memberships=[member(WRITER), member(WRITER, by="root", may_revoke=False, **options)])
    assert told(seen) == []
    assert beyond(seen) == {
        f"app may {what} serving_writer, as root granted": tuple(
            f'REVOKE {word} OPTION FOR "serving_writer" FROM "app"' for word in words
        )
    }


def test_before_16_no_login_role_is_a_member_of_the_writers() -> None:
    seen = converged(roles={"app": login(memberships=[member(WRITER, become=True)])}, version=DIRECT)
    assert told(seen) == []
    assert beyond(seen) == {"app is a member of serving_writer": ('REVOKE "serving_writer" FROM "app"',)}


def test_before_16_what_the_writers_got_meanwhile_is_granted_at_one_stroke() -> None:
    own = [table(WRITER, privilege, "own.things") for privilege in ("SELECT", "INSERT")]
    (change,) = logins.changes(converged(*own, version=DIRECT), "app", APP)
    assert change.what.startswith("grant app itself 2 privileges of serving_writer")
    assert change.statements == (
        'GRANT INSERT ON TABLE own.things TO "app"',
        'GRANT SELECT ON TABLE own.things TO "app"',
    )


def test_connect_is_granted() -> None:
    connect = Grant("DATABASE", "serving", None, None, "app", "CONNECT")
    assert told(converged(lacking=[connect])) == ["grant CONNECT on database serving to app"]
    assert sql(converged(lacking=[connect])) == ['GRANT CONNECT ON DATABASE serving TO "app"']


def test_the_servers_own_databases_are_closed_and_other_peoples_stay_open() -> None:
    seen = converged(databases=[other("postgres"), other("template1", may_close=False), other("theirs")])
    assert sql(seen) == ['REVOKE CONNECT ON DATABASE "postgres" FROM PUBLIC']


def test_a_role_that_rests_can_not_log_in_and_has_no_password() -> None:
    assert logins.rest('a"b').statements == ('ALTER ROLE "a""b" NOLOGIN PASSWORD NULL',)


def test_a_database_as_designed_has_nothing_beyond() -> None:
    assert beyond(converged()) == {}


@pytest.mark.parametrize("attribute", ["superuser", "createrole", "createdb", "replication", "bypassrls"])
@pytest.mark.parametrize("name", ["app", OWNER, WRITER, READER])
def test_an_attribute_of_an_administrator_is_beyond(name: str, attribute: str) -> None:
    facts = (login if name == "app" else role)(**{attribute: True})
    upper = attribute.upper()
    assert beyond(converged(roles={name: facts})) == {f"{name} is {upper}": (f'ALTER ROLE "{name}" NO{upper}',)}


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_that_can_log_in_is_beyond(group: str) -> None:
    assert beyond(converged(roles={group: role(login=True)})) == {f"{group} is LOGIN": (f'ALTER ROLE "{group}" NOLOGIN',)}


@pytest.mark.parametrize(
    ("name", "group"), [("app", READER), ("app", OWNER), ("app", "pg_read_all_data"), (WRITER, "pg_monitor"), (READER, WRITER)]
)
def test_any_other_membership_is_beyond(name: str, group: str) -> None:
    kept = [member(WRITER)] if name == "app" else []
    seen = converged(roles={name: (login if name == "app" else role)(memberships=[*kept, member(group, by="me")])})
    assert beyond(seen) == {f"{name} is a member of {group}": (f'REVOKE "{group}" FROM "{name}" GRANTED BY "me" CASCADE',)}


def test_a_membership_that_only_a_superuser_can_take_back_is_named() -> None:
    seen = app(memberships=[member(WRITER), member(READER, may_revoke=False)])
    assert beyond(seen) == {"app is a member of serving_reader": ('REVOKE "serving_reader" FROM "app"',)}


@pytest.mark.parametrize("name", ["app", WRITER, READER])
def test_what_a_role_owns_goes_to_the_owners(name: str) -> None:
    roles = {name: (login if name == "app" else role)(owns=["table mine"])}
    assert beyond(converged(roles=roles, is_superuser=True)) == {
        f"{name} owns table mine": (f'REASSIGN OWNED BY "{name}" TO serving_owner',)
    }
    assert beyond(converged(roles=roles)) == {
        f"{name} owns table mine": (
            f'GRANT "{name}" TO CURRENT_USER',
            f'REASSIGN OWNED BY "{name}" TO serving_owner',
            f'REVOKE "{name}" FROM CURRENT_USER',
        )
    }


def test_what_a_role_owns_in_another_database_is_out_of_reach() -> None:
    owned = "an object of the database theirs"
    assert beyond(app(owns=[owned])) == {f"app owns {owned}": ()}


def test_the_owners_own() -> None:
    assert beyond(converged(roles={OWNER: role(owns=["table x"], memberships=[member("azure_pg_admin")])})) == {}


def privilege(what: str, kind: str, revoke: str | None = "REVOKE IT") -> dict[str, Any]:
    return {"what": what, "kind": kind, "revoke": revoke}


@pytest.mark.parametrize("kind", ["pg_database", "pg_language", "pg_largeobject", "pg_parameter_acl", "pg_tablespace"])
def test_privileges_elsewhere_are_beyond_for_a_login_role(kind: str) -> None:
    assert beyond(app(elsewhere=[privilege("it", kind)])) == {"app has privileges on it": ("REVOKE IT",)}


def test_privileges_in_another_database_are_named() -> None:
    assert beyond(app(elsewhere=[privilege("it", "pg_class", None)])) == {"app has privileges on it": ()}


@pytest.mark.parametrize(
    ("group", "kind", "expected"),
    [
        (WRITER, "pg_parameter_acl", True),
        (READER, "pg_tablespace", True),
        (WRITER, "pg_database", True),
        (READER, "pg_database", False),  # every database of the server lets the readers in
        (WRITER, "pg_foreign_server", False),
        (WRITER, "pg_class", False),
        (OWNER, "pg_tablespace", False),
    ],
)
def test_privileges_elsewhere_are_a_groups_own_matter_but_for_the_servers(group: str, kind: str, expected: bool) -> None:
    seen = converged(roles={group: role(elsewhere=[privilege("it", kind)])})
    assert list(beyond(seen)) == ([f"{group} has privileges on it"] if expected else [])


def test_what_the_database_itself_holds_beyond_is_among_them() -> None:
    assert list(beyond(converged(table("app", "SELECT")))) == ["app has SELECT on table core.things"]


def test_an_open_database_is_beyond_where_it_can_be_closed_and_a_note_where_not() -> None:
    databases = [other("mine"), other("theirs", may_close=False), other("shut", opened=False), other("postgres")]
    seen = converged(databases=databases)
    close = 'REVOKE CONNECT ON DATABASE "mine" FROM PUBLIC'
    assert beyond(seen) == {"PUBLIC, and so app, may connect to the database mine": (close,)}
    assert [extra.by_hand for extra in logins.extras(seen, NAMES)] == [True], "others may need it: it is theirs to decide"
    (told_of,) = logins.notes(seen)
    assert told_of.startswith("PUBLIC may connect to the database theirs; somebody, who owns it, can change that: ")
    assert told_of.endswith('REVOKE CONNECT ON DATABASE "theirs" FROM PUBLIC;')


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"superuser": True, "createdb": True}, "is SUPERUSER, CREATEDB"),
        ({"createrole": True}, "is CREATEROLE"),
        ({"memberships": [member(OWNER)]}, "is a member of serving_owner"),
        ({"createrole": True, "memberships": [member(WRITER, inherit=False, admin=True)]}, "is CREATEROLE"),
    ],
)
@pytest.mark.parametrize("version", [DIRECT, 160004])
@pytest.mark.parametrize("name", ["boss", "boss_b"])
def test_a_role_that_is_somebody_elses_is_not_taken_over(name: str, version: int, facts: dict[str, Any], reason: str) -> None:
    seen = converged(roles={name: role(login=True, **facts)}, version=version)
    with pytest.raises(UsageError) as raised:
        logins.check_ours(seen, Wanted(user="boss"))
    assert raised.value.message == f"the login role {name} is not an application's: it {reason}; nothing was changed"


def test_nor_is_one_that_owns_a_database() -> None:
    mine = {**other("mine"), "owner": "boss"}
    for seen in (converged(roles={"boss": role()}, databases=[mine]), replace(converged(roles={"boss": role()}), owner="boss")):
        with pytest.raises(UsageError, match="boss is not an application's: it owns the database"):
            logins.check_ours(seen, Wanted(user="boss"))


def test_nor_is_the_administrator_itself() -> None:
    with pytest.raises(UsageError, match="it is the user of the administrator's DSN"):
        logins.check_ours(converged(roles={"app": login()}, user="app"), APP)


@pytest.mark.parametrize("version", [DIRECT, 160004])
def test_an_application_stays_one_whatever_somebody_gave_it(version: int) -> None:
    given = [member(WRITER)] if version != DIRECT else []
    seen = converged(roles={"app": login(createrole=True, memberships=[*given, member(OWNER)])}, version=version)
    logins.check_ours(seen, APP)
    logins.check_ours(converged(roles={"plain": role(login=True)}, version=version), Wanted(user="plain"))


PASSWORDS = ["x" * 40, "pässwörd", "a:$b", " "]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_verifier_is_what_rfc_5802_says_and_lets_the_password_in(password: str) -> None:
    scheme, iterations_and_salt, keys = logins.verifier("app", Secret(password)).split("$")
    iterations, salt = iterations_and_salt.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    assert scheme == "SCRAM-SHA-256"
    assert int(iterations) >= 4096
    assert keys == f"{base64.b64encode(stored).decode()}:{base64.b64encode(server).decode()}"


@pytest.mark.parametrize("password", PASSWORDS[:3])
def test_a_verifier_differs_each_time_and_does_not_hold_the_password(password: str) -> None:
    one, two = (logins.verifier("app", Secret(password)) for _ in range(2))
    assert one != two
    assert password not in one


def test_a_password_is_normalised_as_it_is_at_login() -> None:
    salted = logins.verifier("app", Secret("\N{LATIN SMALL LIGATURE FI}x\N{SOFT HYPHEN}"))
    iterations, salt = salted.split("$")[1].split(":")
    server = hmac.digest(hashlib.pbkdf2_hmac("sha256", b"fix", base64.b64decode(salt), int(iterations)), b"Server Key", "sha256")
    assert salted.endswith(f":{base64.b64encode(server).decode()}")


def test_more_connections_promised_than_the_server_has_is_a_note() -> None:
    assert logins.notes(converged(limits={"app": 43, "app_b": 43, "other": 11})) == []
    (note,) = logins.notes(converged(limits={"app": 43, "app_b": 43, "other": 12}))
    assert "add up to 98 connections, and the server has 97: app 43, app_b 43, other 12" in note
