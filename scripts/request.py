"""What flags, the environment and `.env` ask `invoke provision` for: every problem of them in one report."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from scripts import firewall, flexible, settings
from scripts.errors import UsageError, counted
from scripts.flexible import Wanted, location_key
from scripts.secret import Secret
from scripts.settings import Sources

_AZURE = {
    "subscription_id": "AZURE_SUBSCRIPTION_ID",
    "location": "AZURE_LOCATION",
    "resource_group": "AZURE_RESOURCE_GROUP",
    "identity_name": "AZURE_IDENTITY_NAME",
    "server_role": "AZURE_SERVER_ROLE",
}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_YES, _NO = ("1", "true", "yes", "on", "enabled"), ("0", "false", "no", "off", "disabled")
_EXAMPLE_SUBSCRIPTION = "`az account list --output table` shows those that the login sees"
Number = TypeVar("Number")


def variable(flag: str) -> str:
    """The setting that stands in for a flag."""
    return _AZURE.get(flag, flag.upper() if flag.startswith("postgres_") else f"POSTGRES_{flag.upper()}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for, apart from the server itself."""

    wanted: Wanted
    password: tuple[Secret, str] | None  # of the administrator, and where it came from
    sslmode: str
    sslrootcert: str
    deadline: float  # seconds until the database has to answer
    address: str | None  # of this machine, where it is needed


@dataclass
class Reader:
    """Reads settings by their flag's name, and collects what is wrong with them."""

    flags: Mapping[str, Any]
    found: Sources
    problems: list[str] = field(default_factory=list)
    task: str = "provision"

    def origin(self, flag: str) -> str:
        """Where a setting stands."""
        if self.flags.get(flag) not in (None, False, []):
            return f"--{flag.replace('_', '-')}"
        value = self.found.get(variable(flag))
        return value.origin if value else f"--{flag.replace('_', '-')}"

    def text(self, flag: str, default: str | None = None) -> str | None:
        """A text; one that is given and empty is a problem, as an unset variable in a script makes it."""
        given = self.flags.get(flag)
        if given == "":
            self._is_empty(flag)
        if given is not None:
            return str(given)
        value = self.found.get(variable(flag))
        return value.text if value else default

    def checked(self, flag: str, problem: Callable[[str], str | None], default: str | None = None) -> str | None:
        """A text that keeps a rule of Azure's."""
        text = self.text(flag, default)
        if text:
            self.note(flag, problem(text))
        return text

    def number(self, flag: str, allowed: Sequence[int], unit: str) -> int | None:
        """A number out of those that Azure takes."""
        text = self.text(flag)
        if not text:
            return None
        value = flexible.whole(text, allowed, unit)
        if isinstance(value, int):
            return value
        self.note(flag, value)
        return None

    def switch(self, flag: str) -> bool:
        """Whether a flag without a value is on, by itself or by its setting."""
        if self.flags.get(flag):
            return True
        value = self.found.get(variable(flag))
        return self._on(flag, value.text) if value else False

    def choice(self, flag: str) -> bool | None:
        """On, off, or left open."""
        text = self.text(flag)
        return self._on(flag, text) if text else None

    def _on(self, flag: str, text: str) -> bool:
        if text.lower() in _YES or text.lower() in _NO:
            return text.lower() in _YES
        self.note(flag, f"{text!r}: on or off is meant (enabled, disabled)")
        return False

    def several(self, flag: str, default: Sequence[str] = ()) -> list[str]:
        """A flag that may be repeated, each with one value or several between commas."""
        given = self.flags.get(flag) or []
        if any(not text.replace(",", "").strip() for text in given):
            self._is_empty(flag)
        value = self.found.get(variable(flag))
        texts = given or ([value.text] if value else [])
        return [word.strip() for text in texts for word in text.split(",") if word.strip()] or list(default)

    def _is_empty(self, flag: str) -> None:
        self.problems.append(f"--{flag.replace('_', '-')} is empty: give it a value, or leave it away")

    def require(self, flag: str, value: str | None, hint: str) -> None:
        """Notes that a setting is missing, where it is; `hint` ends the sentence."""
        if value is None:
            self.problems.append(f"--{flag.replace('_', '-')}, or {variable(flag)}, is missing{hint}")

    def note(self, flag: str, problem: str | None) -> None:
        """Keeps what is wrong with a setting, with where it stands."""
        if problem is not None:
            self.problems.append(f"{self.origin(flag)} {problem}")

    def finish(self) -> None:
        """Raises UsageError when anything was wrong."""
        if self.problems:
            listed = "\n".join(f"  {problem}" for problem in self.problems)
            hint = f"invoke --help {self.task}; the settings stand in .env.example"
            raise UsageError(
                f"{counted(len(self.problems), 'problem')} with the flags and settings; nothing was done:\n{listed}", hint
            )


def place(reader: Reader, default_server: str | None = None) -> tuple[str, str, str]:
    """The subscription, the resource group and the server that are named; problems stay with the reader."""
    subscription = reader.checked("subscription_id", subscription_problem)
    server = reader.checked("server_name", flexible.server_name_problem, default_server)
    reader.require("subscription_id", subscription, f": {_EXAMPLE_SUBSCRIPTION}")
    reader.require("server_name", server, ", one name for all of Azure")
    group = reader.checked("resource_group", flexible.group_name_problem, f"{server or 'server'}-rg")
    return subscription or "", group or "", server or ""


def group_of_apps(reader: Reader) -> tuple[str, str]:
    """The subscription and the resource group of a Container App; problems stay with the reader."""
    subscription = reader.checked("subscription_id", subscription_problem)
    group = reader.checked("resource_group", flexible.group_name_problem)
    reader.require("subscription_id", subscription, f": {_EXAMPLE_SUBSCRIPTION}")
    reader.require("resource_group", group, ": the one of the Container App")
    return subscription or "", group or ""


def deadline(reader: Reader) -> float:
    """Seconds until the database has to answer; a firewall rule takes up to 5 minutes to work."""
    text = reader.text("ready_deadline", "360") or ""
    if re.fullmatch(r"[0-9]{1,5}", text):
        return float(text)
    reader.note("ready_deadline", f"{text!r}: seconds are meant")
    return 0.0


def with_settings(flags: Mapping[str, Any], found: Sources) -> dict[str, Any]:
    """The flags that say what is done with the server, with their settings behind them. Raises UsageError."""
    reader = Reader(flags, found)
    resolved = {
        **flags,
        "apply_migrations": reader.switch("apply_migrations"),
        "create_app_users": reader.switch("create_app_users"),
        "docker": reader.switch("docker") or reader.switch("use_docker_psql"),
        "emit_secrets": reader.switch("emit_secrets"),
        "secrets_file": reader.text("secrets_file"),
    }
    reader.finish()
    return resolved


def read(flags: Mapping[str, Any], found: Sources, current_ip: Callable[[Sources], str], problems: Sequence[str] = ()) -> Request:
    """The request. `current_ip` finds the address of this machine, and is asked only where it is needed.

    `problems` are those that were found before. Raises UsageError that lists every problem, and OpsError when the address
    can't be found.
    """
    reader = Reader(flags, found, list(problems))
    subscription, group, server = place(reader)
    database = reader.checked("database_name", flexible.database_name_problem, flexible.DEFAULT_DATABASE)
    admin = reader.checked("admin_user", flexible.admin_name_problem)
    sku, tier, zonal = reader.text("sku_name"), reader.text("tier"), reader.choice("zonal_resiliency")
    compute = flexible.compute_problem(sku or None, tier or None, zonal)
    reader.problems += [compute] if compute else []
    location = reader.checked("location", _location_problem)
    # Elsewhere than in the US, no data leave their continent because nothing was said.
    default = flexible.DEFAULT_LOCATIONS if not location or location_key(location) in flexible.US_LOCATIONS else ()
    fallback = [name for name in reader.several("location_fallback", default) if name != "none"]
    reader.problems += [f"--location-fallback {problem}" for problem in map(_location_problem, fallback) if problem]
    locations = tuple(dict.fromkeys(map(location_key, [*([location] if location else []), *fallback])))
    password = reader.flags.get("admin_password")
    secret = _password(reader, password)
    if secret is not None:
        problem = flexible.password_problem(secret[0], admin or "")
        reader.problems += [f"the password of {secret[1]}: {problem}"] if problem else []
    sslmode = reader.text("sslmode", flexible.SSL_MODES[0]) or ""
    if sslmode not in flexible.SSL_MODES:
        reader.note("sslmode", f"{sslmode!r}: one of {', '.join(flexible.SSL_MODES)}")
    sslrootcert = reader.text("sslrootcert", "system") or ""
    until = deadline(reader)
    storage = reader.number("storage_size_gib", flexible.STORAGE_SIZES, "GiB")
    version = reader.number("postgres_version", flexible.VERSIONS, "PostgreSQL")
    retention = reader.number("backup_retention_days", flexible.RETENTION, "days")
    allow_current, opens = reader.switch("allow_current_ip"), bool(flags.get("open_firewall"))
    address = current_ip(found) if (allow_current or opens) and not reader.problems else None
    rules, problems = firewall.asked(
        azure_services=reader.switch("allow_azure_services"),
        start=reader.text("allow_ip_range_start"),
        end=reader.text("allow_ip_range_end"),
        cidrs=reader.several("allow_cidr"),
        current=address if allow_current else None,
        allow_wide=reader.switch("allow_wide"),
    )
    reader.problems += problems
    prune = reader.switch("prune_firewall")
    reader.finish()
    return Request(
        wanted=Wanted(
            subscription=subscription,
            group=group,
            server=server,
            database=database or "",
            locations=locations,
            location_is_given=bool(location),
            admin=admin,
            sku=sku,
            tier=tier,
            storage=storage,
            version=version,
            retention=retention,
            zonal=zonal,
            rules=tuple(rules),
            prune=prune,
        ),
        password=secret,
        sslmode=sslmode,
        sslrootcert=sslrootcert,
        deadline=until,
        address=address,
    )


def _password(reader: Reader, flag: str | None) -> tuple[Secret, str] | None:
    try:
        return settings.password("admin-password", flag, reader.flags.get("admin_password_file"), reader.found)
    except UsageError as error:
        reader.problems.append(error.message)
        return None


def subscription_problem(text: str) -> str | None:
    """What is wrong with a subscription's id."""
    if UUID.fullmatch(text):
        return None
    return f"{text!r}: not a subscription's id (such as 00000000-0000-0000-0000-000000000000): {_EXAMPLE_SUBSCRIPTION}"


def _location_problem(text: str) -> str | None:
    if re.fullmatch(r"[a-z0-9]+", location_key(text)):
        return None
    return f"{text!r}: not a region, such as eastus2"


def as_path(text: str | None) -> Path | None:
    """A flag's value as a path."""
    return Path(text) if text else None
