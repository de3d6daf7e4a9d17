"""The application's login roles: what they are to be, and the SQL that makes them so. Pure.

There are two of them, NAME and NAME_b, of which one is in use and the other rests, without the right to log in, until
`invoke rotate` changes their places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scripts import catalogs, grants, settings
from scripts.catalogs import READER, WRITER, Membership, Rights, Role, identifier
from scripts.errors import UsageError
from scripts.grants import MAINTENANCE, Extra
from scripts.ledger import literal
from scripts.secret import Secret
from scripts.settings import checked_time, milliseconds
from scripts.shell import quoted

SECOND = "_b"  # what the second login role's name ends with
# Settings of the role, which stand in for what an application forgets; times as PostgreSQL writes them.
TIMEOUTS = {"statement_timeout": "60s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "60s"}
_OF_SERVER = ("pg_parameter_acl", "pg_tablespace")  # catalogs of what no migration grants to a group
_NAME_LIMIT = 63  # bytes of a name in PostgreSQL (NAMEDATALEN - 1); a longer one is cut off


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the flags say of the login roles; what they leave open stays as it is, and a new role gets the defaults."""

    user: str
    limit: int | None = None  # connections of each of the two
    timeouts: Mapping[str, str] = field(default_factory=dict)  # by the setting's name

    @property
    def names(self) -> tuple[str, str]:
        """The two login roles."""
        return self.user, self.user + SECOND

    def flags(self) -> Iterator[str]:
        """The flags that ask for the same again, as a shell takes them."""
        if self.user != settings.DEFAULT_APP_USER:
            yield f"--backtest-service-user {quoted(self.user)}"
        if self.limit is not None:
            yield f"--connection-limit {self.limit}"
        for setting, value in self.timeouts.items():
            yield f"--{_flag(setting)} {quoted(value)}"


@dataclass(frozen=True)
class Change:
    """Something to be done, and the SQL that does it; it may hold a verifier, and so is not shown."""

    what: str
    statements: tuple[str, ...] = field(repr=False)


def wanted(user: str, limit: str | None, timeouts: Mapping[str, str | None]) -> Wanted:
    """What flags say, checked. Raises UsageError when no login role may be called so, or a value is none."""
    _check_name(user)
    if limit is not None and not re.fullmatch(r"[1-9][0-9]{0,5}", limit):
        raise UsageError(f"--connection-limit {limit}: not a number of connections", "write it as 20")
    for setting, value in timeouts.items():
        if value is not None:
            checked_time(_flag(setting), value)
    given = {setting: value for setting, value in timeouts.items() if value is not None}
    return Wanted(user=user, limit=int(limit) if limit else None, timeouts=given)


def _flag(setting: str) -> str:
    return setting.replace("_session", "").replace("_", "-")


def _check_name(user: str) -> None:
    problem = None
    if not user or re.search(r"[\x00-\x1f\x7f]", user):
        problem = "is no name"
    elif len((user + SECOND).encode("utf-8")) > _NAME_LIMIT:
        problem = f"is longer than {_NAME_LIMIT - len(SECOND)} bytes, which leave room for {SECOND}"
    elif user in catalogs.GROUPS or user.startswith("pg_") or user.lower() in ("public", "none"):
        problem = "is the name of something else"
    elif user.endswith(SECOND):
        problem = f"ends with {SECOND}, as only the second of the two login roles does"
    if problem:
        raise UsageError(f"the login role {user!r} {problem}", "choose another: --backtest-service-user NAME")


def active(seen: Rights, names: Sequence[str]) -> list[str]:
    """Those of the login roles that may log in: one, or two while a rotation is under way."""
    return [name for name in names if name in seen.roles and seen.roles[name].login]


def check_ours(seen: Rights, wanted: Wanted) -> None:
    """Refuses a role that is somebody else's: it would get the application's password and limits.

    One that has the writers' rights is the application's, whatever somebody gave it besides. Raises UsageError.
    """
    for name in (name for name in wanted.names if name in seen.roles):
        role, reason = seen.roles[name], None
        if name == seen.user:
            reason = "is the user of the administrator's DSN"
        elif not _writes(seen, role):
            owned = [database["name"] for database in seen.databases if database["owner"] == name]
            owned += [seen.database] if seen.owner == name else []
            if role.attributes:
                reason = f"is {', '.join(role.attributes).upper()}"
            elif owned:
                reason = f"owns the database {owned[0]}"
            elif any(given.group == catalogs.OWNER for given in role.memberships):
                reason = f"is a member of {catalogs.OWNER}"
        if reason:
            hint = "choose another: --backtest-service-user NAME, or POSTGRES_BACKTEST_SERVICE_USER"
            if name == seen.user:
                hint = f"if that DSN is the application's, put an administrator's into {settings.ADMIN_DSN}; else {hint}"
            raise UsageError(f"the login role {name} is not an application's: it {reason}; nothing was changed", hint)


def _writes(seen: Rights, role: Role) -> bool:
    if seen.direct:
        own = grants.of_login(seen, role.name)
        return any(grant in own and grant.kind != "DATABASE" for grant in seen.grants)
    return any(given.group == WRITER and given.inherit and not given.admin for given in role.memberships)


def connections(count: int) -> str:
    """So many of them, as one says it."""
    return f"{count} connection{'' if count == 1 else 's'}"


def budget(seen: Rights) -> int:
    """The most connections that each of the two roles can be given, so that some stay for administrators and migrations."""
    return (seen.connections - max(3, seen.connections // 10)) // 2


def changes(seen: Rights, name: str, wanted: Wanted, *, scram: str | None = None, like: str | None = None) -> list[Change]:
    """What makes one login role as it is to be. `scram` verifies its new password; `like` is a role to take limits from.

    Raises UsageError when the connections that were asked for don't fit into the server.
    """
    role, model = seen.roles.get(name), seen.roles.get(like or name)
    found: list[Change] = []
    limit, who = _limit(seen, model, wanted), identifier(name)
    if role is None:
        password = f" PASSWORD {literal(scram)}" if scram else ""
        statement = f"CREATE ROLE {who} LOGIN CONNECTION LIMIT {limit}{password}"
        found.append(Change(f"make the login role {name}, with {connections(limit)}", (statement,)))
    else:
        words, told = [], []
        if not role.login:
            words.append("LOGIN")
            told.append("may log in")
        if not role.inherit:
            words.append("INHERIT")
            told.append("inherits from its group")
        if role.limit != limit:
            words.append(f"CONNECTION LIMIT {limit}")
            told.append(f"has {connections(limit)} ({'no limit' if role.limit < 0 else role.limit} before)")
        if role.expires not in (None, "infinity"):
            words.append("VALID UNTIL 'infinity'")
            told.append(f"doesn't expire ({role.expires} before)")
        if scram:
            words.append(f"PASSWORD {literal(scram)}")
            told.append("has a new password")
        if words:
            found.append(Change(f"change {name}: it {', '.join(told)}", (f"ALTER ROLE {who} {' '.join(words)}",)))
    for setting, value in _timeouts(role, model, wanted).items():
        before = " (0 before, which is none)" if role and milliseconds(role.settings.get(setting, "")) == 0 else ""
        statement = f"ALTER ROLE {who} SET {setting} = {literal(value)}"
        found.append(Change(f"set {setting} of {name} to {value}{before}", (statement,)))
    found += _membership(seen, name, role)
    lacking = grants.lacking(seen, name)
    for grant in (grant for grant in lacking if grant.kind == "DATABASE"):
        found.append(Change(f"grant {grant.privilege} on {grant.where} to {name}", (grant.statement("GRANT"),)))
    given = tuple(grant.statement("GRANT") for grant in lacking if grant.kind != "DATABASE")
    if given:
        what = f"grant {name} itself {len(given)} privileges of {WRITER}: before PostgreSQL 16, a member may become its group"
        found.append(Change(what, given))
    for database in seen.databases:
        if database["open"] and database["may_close"] and database["name"] in MAINTENANCE:
            found.append(Change(f"take CONNECT on the database {database['name']} from PUBLIC", (close(database["name"]),)))
    return found


def close(database: str) -> str:
    """The SQL that keeps those out of a database who weren't let in by name."""
    return f"REVOKE CONNECT ON DATABASE {identifier(database)} FROM PUBLIC"


def verifier(name: str, password: Secret) -> str:
    """What the server keeps instead of the password (SCRAM-SHA-256), made here, so that no statement ever holds the password.

    libpq makes it, and normalises the password as it will at login; for that it wants a connection, though not a live one.
    """
    from psycopg import pq

    connection = pq.PGconn.connect_start(b"port=0")
    return connection.encrypt_password(password.reveal().encode("utf-8"), name.encode("utf-8"), b"scram-sha-256").decode()


def rest(name: str) -> Change:
    """Takes the right to log in from a role, and its password."""
    return Change(f"disable the login of {name}", (f"ALTER ROLE {identifier(name)} NOLOGIN PASSWORD NULL",))


def _limit(seen: Rights, model: Role | None, wanted: Wanted) -> int:
    most = budget(seen)
    if wanted.limit is None:
        return model.limit if model is not None and 0 < model.limit <= most else max(1, most)
    if wanted.limit > most:
        raise UsageError(
            f"--connection-limit {wanted.limit}: the server has {seen.connections} connections for roles without privileges; "
            f"two roles take turns, and some stay for administrators and migrations",
            f"give {most} at most, or a larger max_connections to the server",
        )
    return wanted.limit


def _timeouts(role: Role | None, model: Role | None, wanted: Wanted) -> dict[str, str]:
    """The settings that have to change: what a flag says, else what the model has, else the default.

    A role that has none (0) needs a flag that says so each time; but what is in use goes on being so through a rotation.
    """
    found = {}
    for setting, default in TIMEOUTS.items():
        stands = model.settings.get(setting) if model else None
        if stands is not None and model is role and milliseconds(stands) == 0:
            stands = None
        value = wanted.timeouts.get(setting) or stands or default
        has = role.settings.get(setting) if role else None
        if has is None or milliseconds(has) != milliseconds(value):
            found[setting] = value
    return found


def _membership(seen: Rights, name: str, role: Role | None) -> list[Change]:
    if seen.direct:
        return []
    has = [given for given in role.memberships if given.group == WRITER] if role else []
    found = []
    if not any(given.inherit for given in has):
        statement = f"GRANT {WRITER} TO {identifier(name)} WITH INHERIT TRUE, SET FALSE"
        found.append(Change(f"make {name} a member of {WRITER}, without the right to become it", (statement,)))
    for given in (given for given in has if given.may_revoke):
        if given.become:
            statement = _revoke(seen, name, given, "SET OPTION FOR ")
            found.append(Change(f"take from {name} the right to become {WRITER}", (statement,)))
        if given.admin:
            statement = _revoke(seen, name, given, "ADMIN OPTION FOR ")
            found.append(Change(f"take from {name} the right to add members to {WRITER}", (statement,)))
    return found


def _revoke(seen: Rights, name: str, given: Membership, option: str = "") -> str:
    """Takes a membership, or an option of it, with what was made of it; from 16 on, in the name of the one who granted it.

    Where that isn't allowed, it is the statement for a superuser, whose own grants are meant then; others get a warning.
    """
    statement = f"REVOKE {option}{identifier(given.group)} FROM {identifier(name)}"
    if seen.direct or not given.may_revoke:
        return statement
    return f"{statement} GRANTED BY {identifier(given.grantor)} CASCADE"


def extras(seen: Rights, names: Iterable[str]) -> list[Extra]:
    """What the login roles and the groups have beyond the design, and who else could be let in by it."""
    names = list(names)
    found = grants.extras(seen, names)
    for name in (*names, *catalogs.GROUPS):
        role = seen.roles.get(name)
        if role is None:
            continue
        who = identifier(name)
        for attribute in (*role.attributes, *(("login",) if role.login and name in catalogs.GROUPS else ())):
            found.append(Extra(f"{name} is {attribute.upper()}", (f"ALTER ROLE {who} NO{attribute.upper()}",)))
        if name == catalogs.OWNER:
            continue
        for given in role.memberships:
            if name in (WRITER, READER) or given.group != WRITER or seen.direct:
                found.append(Extra(f"{name} is a member of {given.group}", (_revoke(seen, name, given),)))
            elif not given.may_revoke and (given.become or given.admin):
                options = (("become", "SET", given.become), ("add members to", "ADMIN", given.admin))
                what = " and ".join(verb for verb, _, has in options if has)
                statements = tuple(_revoke(seen, name, given, f"{word} OPTION FOR ") for _, word, has in options if has)
                found.append(Extra(f"{name} may {what} {given.group}, as {given.grantor} granted", statements))
        for owned in role.owns:
            found.append(Extra(f"{name} owns {owned}", () if "of the database" in owned else _reassign(seen, name)))
        for where, setting in role.overrides if name in names else ():
            if setting in TIMEOUTS:
                what = f"{name} has a {setting} of its own in the database {where}"
                found.append(Extra(what, (f"ALTER ROLE {who} IN DATABASE {identifier(where)} RESET {setting}",)))
        for other in role.elsewhere:
            if name in names or other["kind"] in _OF_SERVER or (other["kind"], name) == ("pg_database", WRITER):
                found.append(Extra(f"{name} has privileges on {other['what']}", (other["revoke"],) if other["revoke"] else ()))
    for database in seen.databases:
        if database["open"] and database["may_close"] and database["name"] not in MAINTENANCE:
            found.append(
                Extra(
                    f"PUBLIC, and so {names[0]}, may connect to the database {database['name']}",
                    (close(database["name"]),),
                    by_hand=True,
                )
            )
    return found


def _reassign(seen: Rights, name: str) -> tuple[str, ...]:
    reassign = f"REASSIGN OWNED BY {identifier(name)} TO {catalogs.OWNER}"
    if seen.is_superuser:
        return (reassign,)
    return (f"GRANT {identifier(name)} TO CURRENT_USER", reassign, f"REVOKE {identifier(name)} FROM CURRENT_USER")


def kept(seen: Rights, names: Iterable[str], wanted: Wanted, *, none_too: bool = False) -> list[str]:
    """What the login roles have otherwise than by default because an earlier flag, or somebody, set it so, as notes.

    Timeouts of 0 are no choice to be kept, unless `none_too`.
    """
    found = []
    for role in (seen.roles[name] for name in names if name in seen.roles):
        values = (
            [f"{connections(role.limit)} (fitted: {budget(seen)})"] if wanted.limit is None and role.limit < budget(seen) else []
        )
        for setting, value in role.settings.items():
            default = TIMEOUTS.get(setting)
            if setting in wanted.timeouts or (default and milliseconds(value) in (0, milliseconds(default)) and not none_too):
                continue
            if default is None or milliseconds(value) != milliseconds(default):
                values.append(f"{setting} {value} ({f'default: {default}' if default else 'no part of the design'})")
        if values:
            found.append(f"{role.name} keeps what was set before: {', '.join(values)}")
    return found


def promised(limits: Mapping[str, int], connections: int) -> str | None:
    """What is wrong when login roles may have more connections, together, than the server has."""
    total = sum(limits.values())
    if total <= connections:
        return None
    each = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    return f"the limits of all login roles add up to {total} connections, and the server has {connections}: {each}"


def notes(seen: Rights) -> list[str]:
    """What is worth knowing and no reason to fail: what only somebody else can close, and more promised than there is."""
    too_many = promised(seen.limits, seen.connections)
    return ([too_many] if too_many else []) + [
        f"PUBLIC may connect to the database {database['name']}; {database['owner']}, who owns it, can change that: "
        f"{close(database['name'])};"
        for database in seen.databases
        if database["open"] and not database["may_close"]
    ]
