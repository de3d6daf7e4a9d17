"""A Postgres URI: parsed by libpq itself, linted, redacted, built. Pure."""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

from scripts.errors import UsageError
from scripts.secret import Secret

SHAPE = "postgresql://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require"
_LAX_MODES = ("disable", "allow", "prefer")
TLS_MODES = ("require", "verify-ca", "verify-full")
_PYTHON = "py" if os.name == "nt" else "python3"  # that of the machine: the project's own need not be on PATH
ENCODE_HINT = (
    f"percent-encode the password: {_PYTHON} -c \"import getpass, urllib.parse as u; print(u.quote(getpass.getpass(), ''))\""
)
# Parameters that hold a secret or point to one: psql would need them in its argv, or they work on one machine only.
REFUSED = (
    "sslpassword",
    "passfile",
    "service",
    "scram_client_key",
    "sslcrldir",
    "sslkeylogfile",
    "scram_server_key",
    "oauth_client_secret",
)
# Parameters whose value is the path of a file on this machine; docker mode copies those files into its container.
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


@dataclass(frozen=True)
class Dsn:
    """A DSN taken apart. `params` are libpq's own parameters, the password excepted.

    Source of the parameter names: https://www.postgresql.org/docs/current/libpq-connect.html
    """

    params: Mapping[str, str]
    password: Secret = field(default_factory=lambda: Secret(""))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What of it mustn't show. Without a password that is nothing, and not the URI: it has to be told in messages."""
        return (self.password, self.uri()) if self.password else ()

    @property
    def hosts(self) -> list[str]:
        """What libpq connects to: host names, addresses, or folders of unix sockets; `hostaddr` wins, as in libpq."""
        return (self.params.get("hostaddr") or self.params.get("host") or "").split(",")

    @property
    def ports(self) -> list[str]:
        """The ports of `hosts`, as libpq has it: one is for all of them, and one that is left out is the usual one."""
        ports = [port or "5432" for port in self.params.get("port", "").split(",")]
        return ports * len(self.hosts) if len(ports) == 1 else ports

    @property
    def is_socket(self) -> bool:
        """Whether it leads to a unix socket, which no container and no other machine can reach."""
        return any(host.startswith(("/", "@")) for host in self.hosts)

    @property
    def is_local(self) -> bool:
        """Whether every host is this machine: a loopback address, `localhost`, or a unix socket."""
        return all(_is_loopback(host) for host in self.hosts)

    @property
    def needs_tls(self) -> bool:
        """Whether the DSN insists on TLS, which the embedded psql doesn't have."""
        return self.params.get("sslmode") in TLS_MODES

    @property
    def database(self) -> str:
        """The database's name."""
        return self.params["dbname"]

    def same_database(self, other: Dsn) -> bool:
        """Whether both lead to one database of one server, as far as their texts say."""
        mine, others = ((dsn.hosts, dsn.ports, dsn.database) for dsn in (self, other))
        return mine == others

    def with_host(self, host: str) -> Dsn:
        """The same server by another name for this machine, as a container sees it."""
        params = {key: value for key, value in self.params.items() if key != "hostaddr"}
        return replace(self, params={**params, "host": host})

    def with_params(self, **params: str) -> Dsn:
        """The same DSN with these parameters added or changed."""
        return replace(self, params={**self.params, **params})

    def uri(self) -> Secret:
        """The whole URI, password included, every part percent-encoded."""
        return Secret(self._build(quote(self.password.reveal(), safe="") if self.password else None))

    def without_password(self) -> str:
        """The URI for an argv; the password travels in a PGPASSFILE."""
        return self._build(None)

    def __str__(self) -> str:
        return self._build("****" if self.password else None)

    def _build(self, password: str | None) -> str:
        rest = dict(self.params)
        user = quote(rest.pop("user", ""), safe="")
        credentials = f"{user}@" if password is None else f"{user}:{password}@"
        hosts, ports = rest.pop("host", "").split(","), rest.pop("port", "").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        if any(host.startswith(("/", "@")) for host in hosts) or len(ports) != len(hosts):  # those of `hostaddr`, it may be
            rest |= {key: ",".join(values) for key, values in (("host", hosts), ("port", ports)) if any(values)}
            authority = ""
        else:
            authority = ",".join(
                (f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")) + (f":{port}" if port else "")
                for host, port in zip(hosts, ports, strict=True)
            )
        query = "&".join(f"{key}={quote(value, safe='/')}" for key, value in rest.items() if key != "dbname")
        return f"postgresql://{credentials}{authority}/{quote(rest.get('dbname', ''), safe='')}" + (query and f"?{query}")


def to_conceal(text: str) -> tuple[Secret, ...]:
    """A secret, and the password in it when it is a DSN, as it stands there and decoded: all that mustn't show.

    A text that `parse` refuses is taken apart as well as it goes: a password with an @ in it could end at any of them. One
    that it takes, and in which there is no password, hides nothing.
    """
    with contextlib.suppress(UsageError):
        if not parse(text, "").password:
            return ()
    found = [text]
    for pattern in (r"\w+://[^:@/]*:([^@]*)@", r"\w+://[^:@/]*:(.*)@"):
        if match := re.match(pattern, text, re.DOTALL):
            found += [match[1], unquote(match[1])]
    return tuple(map(Secret, dict.fromkeys(filter(None, found))))


def parse(text: str, origin: str) -> Dsn:
    """Takes a DSN apart and refuses one that can't be meant, isn't complete, or would go out without TLS.

    `origin` names where it came from (a flag, a variable, a file), for the message. Raises UsageError, which lists
    every problem at once and never holds a part of the DSN that could be a password.
    """
    text = text.strip()
    problem = _lint_text(text)
    if problem:
        raise UsageError(f"the DSN of {origin} {problem[0]}", problem[1])
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        parsed: dict[str, Any] = conninfo_to_dict(text)
    except ProgrammingError as error:
        # libpq quotes what it dislikes, which may be a part of the password: say only which kind of thing it was.
        kind = re.sub(r'["“].*', "", str(error), flags=re.DOTALL).strip().rstrip(":")
        kind += _meant(str(error))
        raise UsageError(f"the DSN of {origin} is not a URI that libpq takes: {kind}", f"its shape: {SHAPE}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the DSN of {origin} holds percent-encoded characters that are not UTF-8", ENCODE_HINT) from None
    password = Secret(str(parsed.pop("password", "") or ""))
    dsn = Dsn({key: str(value) for key, value in parsed.items() if value not in (None, "")}, password)
    problems = _lint(dsn)
    if problems:
        raise UsageError(f"the DSN of {origin} {'; it '.join(problems)}", f"its shape: {SHAPE}")
    return dsn


def _meant(complaint: str) -> str:
    """The parameter that a misspelt one is meant to be. Only libpq's own name is told: theirs may be a part of a password."""
    from psycopg import pq

    known = [option.keyword.decode("ascii") for option in pq.Conninfo.get_defaults()]
    match = re.search(r'parameter: "(.*)"', complaint)
    near = difflib.get_close_matches(match[1], known, n=1, cutoff=0.8) if match else []
    return f" (did you mean {near[0]}?)" if near else ""


def _lint_text(text: str) -> tuple[str, str] | None:
    """What is wrong with the text before libpq may see it: (problem, hint). An unencoded password moves the parts."""
    scheme, found, rest = text.partition("://")
    if not found or scheme not in ("postgresql", "postgres"):
        return "is not a Postgres URI", f"its shape: {SHAPE}"
    if re.search(r"[\ud800-\udfff]", text):  # how Python keeps bytes of the environment that it can't read
        return "isn't UTF-8 text", ENCODE_HINT
    if re.search(r"[\x00-\x20\x7f]", text):
        return "holds a space or a control character", ENCODE_HINT
    head = rest.split("?")[0]
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        return "holds a % that begins no percent-encoded character", ENCODE_HINT
    credentials, _, server = rest.partition("@")  # as libpq does, unless a slash comes before
    if "/" not in credentials and ("@" in server.split("?")[0] or "@" in server.split("/")[0]):
        return "holds an unencoded @ in its user, password or database", ENCODE_HINT
    if "@" in head.partition("/")[2]:
        return "seems to hold an unencoded / in its password", ENCODE_HINT
    return None


def _lint(dsn: Dsn) -> list[str]:
    """Everything that is wrong with a DSN that libpq could parse, each as the end of a sentence about it."""
    problems = []
    missing = [name for name, key in (("user", "user"), ("host", "host"), ("database", "dbname")) if not dsn.params.get(key)]
    if missing == ["host"] and "hostaddr" in dsn.params:
        missing = []
    if missing:
        problems.append(f"isn't complete: no {', no '.join(missing)}")
    values = [*dsn.params.values(), dsn.password.reveal()]
    if any(re.fullmatch(r"<.*>|\$\{.*\}", value) for value in values):
        problems.append("still holds a placeholder such as <password>")
    if (dsn.params.get("user"), dsn.password.reveal()) == ("USER", "PASSWORD"):
        problems.append("is the example: USER, PASSWORD and the other words in capitals stand for your own")
    ports = filter(None, dsn.params.get("port", "").split(","))
    if not all(re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536 for port in ports):
        problems.append("has a port that is no number from 1 to 65535")  # which may be a password's rest, too
    if re.search(r"[\x00-\x1f\x7f]", dsn.password.reveal()):
        problems.append("has a password with a line break or another control character, which libpq's password file can't hold")
    refused = [key for key in REFUSED if key in dsn.params]
    if refused:
        problems.append(f"uses {', '.join(refused)}, which is not supported: the password belongs into the URI")
    mode = dsn.params.get("sslmode", "prefer")
    if mode not in (*_LAX_MODES, *TLS_MODES):
        problems.append(f"has an sslmode that is none of {', '.join((*_LAX_MODES, *TLS_MODES))}")  # it may be a password's rest
    elif "host" not in missing and not dsn.is_local and not dsn.needs_tls:
        problems.append(f"goes to another host without TLS: add sslmode=require, or stricter ({', '.join(TLS_MODES)})")
    if "host" not in missing and not dsn.is_local and not dsn.password and "sslcert" not in dsn.params:
        problems.append("has no password")
    return problems


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def clean_env(env: Mapping[str, str]) -> dict[str, str]:
    """An environment without what steers libpq, psql or a server (PG*), without our DSNs, and in psql's own language."""
    return {
        name: value
        for name, value in env.items()
        if not name.upper().startswith(("PG", "PSQL", "POSTGRES_")) and name.upper() not in ("LANGUAGE", "LC_ALL", "LC_MESSAGES")
    }


def pgpass(dsn: Dsn) -> str:
    """The one line of a PGPASSFILE, for whatever server this psql is sent to.

    Source: https://www.postgresql.org/docs/current/libpq-pgpass.html (colon and backslash are escaped).
    """
    password = dsn.password.reveal().replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{password}\n" if password else ""
