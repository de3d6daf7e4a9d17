"""Where each value of a command comes from: its flag, the setting that stands in for it, or a default. `--explain` shows them.

What is read here is what the commands read, by the same names; tests/unit/test_origins.py compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import caller, github, request, server, settings, wiring
from scripts import dsn as dsns
from scripts.console import Console, one_line
from scripts.errors import UsageError
from scripts.secret import Secret
from scripts.settings import APP_DSN, Sources

_USER, _PASSWORD = "backtest_service_user", "backtest_service_password"
_PLACE = ("subscription_id", "resource_group", "server_name")
# The flags of each task that have a setting behind them (request.variable), but for --dsn.
BEHIND: Mapping[str, tuple[str, ...]] = {
    "provision": (
        *(*_PLACE, "location", "location_fallback", "database_name", "admin_user", "admin_password", "sku_name", "tier"),
        *("storage_size_gib", "postgres_version", "backup_retention_days", "zonal_resiliency"),
        *("allow_azure_services", "allow_ip_range_start", "allow_ip_range_end", "allow_cidr", "allow_current_ip", "allow_wide"),
        *("prune_firewall", "ready_deadline", "apply_migrations", "create_app_users", _USER, _PASSWORD),
        *("sslmode", "sslrootcert", "docker", "use_docker_psql", "emit_secrets", "secrets_file"),
    ),
    "teardown": _PLACE,
    "firewall.close": _PLACE,
    "migrate": (*_PLACE, "ready_deadline"),
    "roles": (_USER, _PASSWORD),
    "rotate": (_USER,),
    "psql": (_USER,),
    "secret.push": (_USER,),
    "render": ("from_key_vault",),
    "deploy": ("subscription_id", "resource_group", "ready_deadline", "from_key_vault"),
    "github.setup": (*_PLACE, "identity_name", "server_role", "from_key_vault"),
}
# Settings that have no flag, by the tasks that read them.
_USER_NAME, _PASSWORD_NAME = request.variable(_USER), request.variable(_PASSWORD)
_ALONE: Mapping[str, tuple[str, ...]] = {
    "quickstart": (_USER_NAME, _PASSWORD_NAME),
    "provision": (caller.VARIABLE,),
    "firewall.close": (caller.VARIABLE,),
    "migrate": (caller.VARIABLE,),
    "github.setup": (_USER_NAME,),
}
_IMAGE = "POSTGRES_IMAGE"
_OWN = ("quickstart", "up")  # whose image is the server's; elsewhere it is psql's
_DEFAULTS = {
    _IMAGE: settings.DEFAULT_IMAGE.format(version=settings.DEFAULT_VERSION),
    _USER_NAME: settings.DEFAULT_APP_USER,
    caller.VARIABLE: f"as {caller.SERVICE} sees it",
}
_REQUIRED = (("deploy", "resource_group"), ("github.setup", "resource_group"))  # it follows from no server there
_UNSAID = ("json", "explain")


@dataclass(frozen=True, kw_only=True)
class Value:
    """What a command would go by, and where it stands. `text` holds no secret."""

    name: str  # the flag, or the setting where there is no flag
    text: str | None
    origin: str  # flag, environment, file, server, default, or none
    where: str | None = None  # the flag, the variable, or the file and what in it
    line: int | None = None  # of that file

    def facts(self) -> dict[str, Any]:
        """It for a JSON document."""
        return {"name": self.name, "value": self.text, "origin": self.origin, "where": self.where, "line": self.line}

    def row(self) -> list[str]:
        """It for a table."""
        said = {
            "flag": f"flag {self.where}",
            "environment": f"environment, {self.where}",
            "file": f"{self.where}, line {self.line}" if self.line else f"{self.where}",
            "none": "not set",
            "server": f"the server of `invoke up`{f', {self.where}' if self.where else ', which is not up'}",
        }
        text = "-" if self.text is None else one_line(self.text) or '""'
        return [self.name, text, one_line(said.get(self.origin, self.origin))]


def variables(task: str, flag: str, *, as_app: bool = False) -> tuple[str, ...]:
    """The settings that stand in for a flag of a task, in the order in which they are looked for."""
    if flag == "dsn":
        return (APP_DSN,) if as_app or task == "secret.push" else settings.DSN_VARIABLES
    return (request.variable(flag),) if flag in BEHIND.get(task, ()) else ()


def alone(task: str, flags: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings of a task that have no flag; but for those of a template."""
    return (*([_IMAGE] if "docker" in flags else []), *_ALONE.get(task, ()))


def show(task: str, flags: Mapping[str, Any], helps: Mapping[str, str], console: Console) -> None:
    """Prints each value of a command and where it comes from. Nothing is connected to, started or written.

    `helps` says of each flag what it is without being given, between brackets. Raises UsageError when a file can't be read.
    """
    values = list(explained(task, flags, helps, console))
    console.say(f"{task} would go by these; nothing was done")
    console.table([value.row() for value in values])
    console.document({"command": task, "values": [value.facts() for value in values]})


def explained(task: str, flags: Mapping[str, Any], helps: Mapping[str, str], console: Console) -> Iterator[Value]:
    """The values of a command, flags first."""
    found = settings.sources(flags.get("env_file"))
    as_app = task == "secret.push" or bool(flags.get("as_app"))
    seen: set[str] = set()
    for flag, given in flags.items():
        if flag in _UNSAID:
            continue
        name = f"--{flag.replace('_', '-')}"
        behind = () if flag == _PASSWORD and flags.get("keep_password") else variables(task, flag, as_app=as_app)
        seen.update(behind)
        if given not in (None, False, []):
            yield Value(name=name, text=_shown(flag, _text(given), name, console), origin="flag", where=name)
        elif flags.get(f"{flag}_file"):  # a password's
            yield Value(name=name, text="****", origin="flag", where=f"{name}-file")
        elif flag == "dsn" and flags.get("local"):
            yield _of_this_machine(name, found, console, as_app=as_app)
        else:
            default = "off" if given is False else None if (task, flag) in _REQUIRED else _default(helps[flag])
            yield _setting(name, behind, found, default, console)
    for variable, secret in (*((name, False) for name in alone(task, flags)), *_of_files(task, flags, found)):
        if variable not in seen:
            seen.add(variable)
            yield _setting(variable, (variable,), found, _alone_default(variable, task, flags), console, secret=secret)


def _alone_default(name: str, task: str, flags: Mapping[str, Any]) -> str | None:
    """What counts where a setting without a flag isn't given; the image of a server is of the version that its flag names."""
    version = flags.get("postgres_version")
    return settings.DEFAULT_IMAGE.format(version=version) if name == _IMAGE and task in _OWN and version else _DEFAULTS.get(name)


def _setting(
    name: str, names: tuple[str, ...], found: Sources, default: str | None, console: Console, *, secret: bool = False
) -> Value:
    for variable in names:
        value = found.get(variable)
        if value is None:
            continue
        text = _shown(variable, value.text, value.origin, console, secret=secret)
        if found.env.get(variable):
            return Value(name=name, text=text, origin="environment", where=variable)
        where = found.file_name if variable == name else f"{variable} in {found.file_name}"
        return Value(name=name, text=text, origin="file", where=where, line=found.lines.get(variable))
    return Value(name=name, text=default, origin="none" if default is None else "default")


def _of_this_machine(name: str, found: Sources, console: Console, *, as_app: bool) -> Value:
    running = server.standing(found)
    if running is None:
        return Value(name=name, text=None, origin="server")
    text: str | None = running.dsn.uri().reveal()
    if as_app:
        kept = settings.kept(APP_DSN, Path(running.app_file))
        text = kept.text if kept else None
    shown = None if text is None else _shown("dsn", text, "--local", console)
    return Value(name=name, text=shown, origin="server", where=str(running.choice))


def _of_files(task: str, flags: Mapping[str, Any], found: Sources) -> Iterator[tuple[str, bool]]:
    """The settings that a template of deploy/ or the workflow needs, and whether they are secret."""
    if task in ("render", "deploy"):
        from scripts import manifest

        switch = request.Reader(flags, found, task=task).switch("from_key_vault")
        template = manifest.template(flags, from_key_vault=switch)
        yield from ((name, name in template.secrets) for name in template.variables)
    elif task in ("github.check", "github.setup"):
        # The identity's own are asked of Azure by `github.setup`.
        own = () if task == "github.check" else (wiring.CLIENT_ID, wiring.TENANT_ID)
        yield from ((entry.name, entry.is_secret) for entry in github.EVERYTHING if entry.name not in own)


def _text(given: Any) -> str:
    if given is True:
        return "on"
    return ",".join(given) if isinstance(given, list | tuple) else str(given)


def _default(said: str) -> str | None:
    """What a flag's help has between brackets."""
    match = re.search(r"\(([^()]+)\)", said)
    return match[1] if match else None


def _shown(name: str, text: str, origin: str, console: Console, *, secret: bool = False) -> str:
    """A value as it may be seen: a DSN without its password, of another secret nothing."""
    is_dsn = name.lower().endswith("dsn")
    if text in ("", "-"):  # stdin isn't read
        return text
    if not (secret or is_dsn or name.lower().endswith("password")):
        if "://" in text:  # an address with a password in it
            console.conceal(*(one for one in dsns.to_conceal(text) if one != Secret(text)))
        return text
    if is_dsn:
        try:
            parsed = dsns.parse(text, origin)
        except UsageError as error:
            console.note(f"note: {error.message}")
        else:
            console.conceal(*filter(None, [parsed.password]))
            return str(parsed)
    console.conceal(*dsns.to_conceal(text))
    return "****"
