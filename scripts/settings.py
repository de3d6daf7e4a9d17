"""Where a setting comes from: a flag, else the environment, else `.env`. The only module that reads the environment."""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from scripts import dsn as dsns
from scripts import shell
from scripts.dsn import Dsn
from scripts.errors import UsageError
from scripts.secret import Secret

if TYPE_CHECKING:
    from dotenv.parser import Binding

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = ROOT / "migrations"
DEPLOY = ROOT / "deploy"
LOCAL = ROOT / ".local"  # data of the servers on this machine
DEFAULT_IMAGE = "postgres:{version}-alpine"
DEFAULT_VERSION = 16  # as on Azure
DEFAULT_APP_USER = "backtest_service"
ADMIN_DSN, ADMIN_PASSWORD = "POSTGRES_ADMIN_DSN", "POSTGRES_ADMIN_PASSWORD"
APP_DSN = "POSTGRES_DSN"  # the name under which applications look for it
_UNITS = {"": 1, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}  # in milliseconds
_TIMES = "write it as 30s, 500ms, 2min, or 0 for none"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")  # anything else, or a word alone, may be a secret, and isn't shown
_ALIKE = 0.8  # of 1: a letter or two between two names
DSN_VARIABLES = (ADMIN_DSN, APP_DSN)  # in the order in which they are looked for


@dataclass(frozen=True)
class Value:
    """A setting's text and where it was found, for messages."""

    text: str
    origin: str


@dataclass(frozen=True)
class Sources:
    """The environment and the `.env` file behind it. An empty value counts as none."""

    env: Mapping[str, str]
    file: Mapping[str, str]
    file_name: str
    lines: Mapping[str, int] = field(default_factory=dict)  # of the file: where each setting stands, the last time

    def get(self, name: str) -> Value | None:
        """A setting by its variable's name; the environment beats the file."""
        if self.env.get(name):
            return Value(self.env[name], f"{name} (environment)")
        if self.file.get(name):
            return Value(self.file[name], f"{name} ({self.file_name})")
        return None


def environment() -> Mapping[str, str]:
    """The environment of this process."""
    return os.environ


def folder_flag(folder: Path) -> list[str]:
    """The flag that names a migrations folder again, as a shell takes it; none for the project's own."""
    return [] if folder == MIGRATIONS else [f"--migrations-dir {shell.quoted(folder)}"]


def milliseconds(value: str) -> int:
    """A time as PostgreSQL's settings have it, in milliseconds; -1 when it isn't one."""
    match = re.fullmatch(r"([0-9]+)\s*(ms|s|min|h|d)?", value.strip())
    return int(match[1]) * _UNITS[match[2] or ""] if match else -1


def checked_time(flag: str, value: str) -> int:
    """A flag's value as such a time. Raises UsageError when it is none, or a number of nobody knows what."""
    time = milliseconds(value)
    if not 0 <= time < 2**31:
        raise UsageError(f"--{flag} {value}: not a time", _TIMES)
    if value.strip().isdigit() and time:
        raise UsageError(f"--{flag} {value}: {value.strip()} of what? PostgreSQL would take milliseconds", _TIMES)
    return time


def sources(env_file: str | None = None, env: Mapping[str, str] | None = None) -> Sources:
    """Reads `.env` at the root of the repository, or the file that `--env-file` names, which then must exist.

    Values are taken as they stand: `$` in a password is no variable. Raises UsageError.
    """
    if env_file == "":  # an unset variable in a script, say: .env may name another database
        raise UsageError("--env-file is empty", "give it a value, or leave it away")
    path = Path(env_file) if env_file else ROOT / ".env"
    values: dict[str, str | None] = {}
    lines: dict[str, int] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if env_file:
            hint = "name a file that is there (.env.example shows what one holds), or leave the flag away: .env is read"
            raise UsageError(f"--env-file {env_file}: there is no such file", hint) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} isn't UTF-8 text", "save it as UTF-8") from None
    except OSError as error:  # a folder, or one that this user may not read
        reason = "it is a folder" if os.path.isdir(path) else error.strerror  # noqa: PTH112  (which raises nothing itself)
        raise UsageError(f"{path} can't be read: {reason}", "make it a file that you may read, or move it away") from None
    else:
        from dotenv.parser import parse_stream

        bindings = list(parse_stream(io.StringIO(text)))
        if broken := [str(line_of(binding)) for binding in bindings if is_broken(binding)]:
            # Left out, it could be the very one that counts, and another database would be taken instead.
            which = f"line {broken[0]} is" if len(broken) == 1 else f"lines {', '.join(broken)} are"
            raise UsageError(
                f"{shown(path)}: {which} no KEY=value", "mend it: a quote that isn't closed, say; .env.example shows how"
            )
        values = {binding.key: binding.value for binding in bindings if binding.key}
        lines = {binding.key: line_of(binding) for binding in bindings if binding.key}
    file = {key: value for key, value in values.items() if value}
    return Sources(os.environ if env is None else env, file, shown(path), lines)


def kept(name: str, path: Path) -> Value | None:
    """A setting as one of our own files has it, which need not be there. Raises UsageError as `sources` does."""
    return sources(str(path), env={}).get(name) if path.is_file() else None


def is_broken(binding: Binding) -> bool:
    """Whether what python-dotenv has read is no KEY=value, but for comments and empty lines, which have no key."""
    key = binding.key
    return binding.error or (key is not None and (binding.value is None or not _NAME.fullmatch(key)))


def alike(key: str, names: Collection[str]) -> str | None:
    """The name that a misspelt one is meant to be: a letter or two between them, or small letters for capitals."""
    return next(iter(difflib.get_close_matches(key.upper(), names, n=1, cutoff=_ALIKE)), None) if key not in names else None


def line_of(binding: Binding) -> int:
    """The line of a file on which a setting of it begins, as python-dotenv has read it."""
    above = re.match(r"\s*", binding.original.string)  # empty lines belong to what stands below them
    return binding.original.line + (above.group().count("\n") if above else 0)


def shown(path: Path) -> str:
    """A path as people call it: from the folder they are in, where it is below that."""
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)


def resolve_dsn(flag: str | None, found: Sources) -> tuple[Dsn, str]:
    """The DSN and its origin. Raises UsageError that names every place where one may stand."""
    if flag == "-":
        line = _from_stdin(lambda stdin: stdin.readline(), "--dsn -")
        if not line.strip():
            raise UsageError("--dsn - reads the DSN from stdin, and that is empty", "pipe it in, or name a file: --env-file FILE")
        return dsns.parse(line, "--dsn -"), "--dsn -"
    if flag:
        return dsns.parse(flag, "--dsn"), "--dsn"
    for name in DSN_VARIABLES:
        value = found.get(name)
        if value:
            return dsns.parse(value.text, value.origin), value.origin
    typos = [
        f"rename {key} ({found.file_name}, line {found.lines[key]}) to {meant}"
        for key in found.lines
        if (meant := alike(key, DSN_VARIABLES))
    ]
    raise UsageError(
        "no database is named: neither --dsn, nor POSTGRES_ADMIN_DSN or POSTGRES_DSN in the environment or in "
        f"{found.file_name}, nor --local",
        "; or ".join([*typos, "for a throwaway server on this machine, add --local"])
        + f"; else put POSTGRES_ADMIN_DSN into {found.file_name} (see .env.example)",
    )


def app_dsn(found: Sources) -> tuple[Dsn, str] | None:
    """The application's DSN, POSTGRES_DSN, and its origin, where there is one. Raises UsageError when it can't be meant."""
    value = found.get(APP_DSN)
    return (dsns.parse(value.text, value.origin), value.origin) if value else None


def app_user(flag: str | None, found: Sources) -> str:
    """The name of the application's login role: a flag, else POSTGRES_BACKTEST_SERVICE_USER, else the default."""
    value = found.get("POSTGRES_BACKTEST_SERVICE_USER")
    found_name = value or Value(DEFAULT_APP_USER, "")
    return _readable(*((flag, "--backtest-service-user") if flag is not None else (found_name.text, found_name.origin)))


def _from_stdin(read: Callable[[TextIO], str], flag: str) -> str:
    """What `FLAG -` reads; at a terminal, it is asked for, and not shown as it is typed."""
    if sys.stdin.isatty():
        import getpass

        try:
            return getpass.getpass(f"{flag.removesuffix(' -')} (isn't shown): ")
        except EOFError:
            return ""
    # On Windows, what comes through a pipe would be read in the system's code page, as other characters than were meant.
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")
    try:
        return read(sys.stdin)
    except UnicodeDecodeError:
        raise UsageError(f"{flag} reads stdin, which isn't UTF-8 text", "send it as UTF-8") from None


def _readable(text: str, what: str) -> str:
    if re.search(r"[\ud800-\udfff]", text):  # how Python keeps bytes that it can't read
        raise UsageError(f"{what} isn't UTF-8 text", "save it, or set the terminal, as UTF-8")
    return text


def password(name: str, flag: str | None, file: str | None, found: Sources, *, keep: bool = False) -> tuple[Secret, str] | None:
    """A password that is given, and its origin; None when none is.

    `name` is the flag's name without dashes before it: --NAME, whose value may be `-` for stdin, --NAME-file, or the
    setting POSTGRES_NAME. One line end behind the password is no part of it. `keep` is --keep-password, which stands above
    the setting, and beside a flag makes no sense. Raises UsageError.
    """
    if keep and (flag is not None or file is not None):
        given = f"--{name}" if flag is not None else f"--{name}-file"
        raise UsageError(f"--keep-password, and {given} gives a password", "leave one of them away")
    if "" in (flag, file):
        raise UsageError(f"--{name}{'' if flag == '' else '-file'} is empty", "give it a value, or leave it away")
    if flag is not None and file is not None:
        raise UsageError(f"--{name} and --{name}-file both give a password", "leave one away")
    setting = found.get(f"POSTGRES_{name.upper().replace('-', '_')}")
    if flag == "-":
        text, origin = _from_stdin(lambda stdin: stdin.read(), f"--{name} -"), "stdin"
    elif flag is not None:
        text, origin = flag, f"--{name}"
    elif file is not None:
        try:
            text, origin = Path(file).read_text(encoding="utf-8-sig"), file
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
            hint = f"name a file that you may read, or give it by stdin: --{name} -"
            raise UsageError(f"--{name}-file {file} can't be read: {reason}", hint) from None
    elif setting and not keep:
        text, origin = setting.text, setting.origin
    else:
        return None
    text = _readable(re.sub(r"\r?\n\Z", "", text), f"the password of {origin}")
    if not text or re.search(r"[\x00-\x1f\x7f]", text):
        what = "holds a line break or another control character, which libpq's password file can't hold" if text else "is empty"
        raise UsageError(f"the password of {origin} {what}", "give a password of one line")
    return Secret(text), origin


def in_github_actions(env: Mapping[str, str] | None = None) -> bool:
    """Whether a workflow of GitHub Actions runs this."""
    return (os.environ if env is None else env).get("GITHUB_ACTIONS") == "true"


def has_colour(out: TextIO, env: Mapping[str, str] | None = None) -> bool:
    """Whether an output takes colours: a terminal, unless NO_COLOR is set (https://no-color.org) or it is a plain one."""
    known = os.environ if env is None else env
    plain = known.get("NO_COLOR") or known.get("TERM") == "dumb" or (shell.WINDOWS and not known.get("WT_SESSION"))
    return out.isatty() and not plain


def in_ci(env: Mapping[str, str]) -> bool:
    """Whether a CI system runs this: they set CI, and Azure Pipelines TF_BUILD."""
    return any(env.get(name, "").lower() not in ("", "0", "false") for name in ("CI", "TF_BUILD"))


def image(found: Sources, version: int = DEFAULT_VERSION) -> str:
    """The Docker image for a server or a psql: POSTGRES_IMAGE, else the official one."""
    value = found.get("POSTGRES_IMAGE")
    return value.text if value else DEFAULT_IMAGE.format(version=version)
