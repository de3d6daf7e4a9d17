"""Where a DSN goes: the terminal, a dotenv file, a secret of GitHub or of a Key Vault."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import az, shell
from scripts.az import Az
from scripts.console import Console
from scripts.dsn import Dsn
from scripts.errors import OpsError, UsageError
from scripts.gh import INSTALL_HINT, LOGIN_HINT, Gh
from scripts.secret import Secret
from scripts.settings import APP_DSN

FORMER = "POSTGRES_DSN_FORMER"  # beside it on a server of this machine: the one before, to which a rotation can go back
_FILE_HINT = "name a file of your own, which need not be there yet"
_LONGEST = 4096  # bytes that a line with a DSN is allowed for


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """What the flags say. `run` starts gh."""

    emit: bool = False
    secrets_file: Path | None = None
    github_secret: str | None = None
    github_environment: str | None = None
    repo: str | None = None
    key_vault: str | None = None
    secret_name: str | None = None
    app_file: Path | None = None  # of a server of this machine, which always keeps its application's DSN
    env: Mapping[str, str]
    run: shell.Run = shell.run

    def __bool__(self) -> bool:
        return self.emit or any((self.secrets_file, self.github_secret, self.key_vault, self.app_file))

    def check(self) -> None:
        """Sees to it that a DSN would arrive, before one is made. Raises UsageError and OpsError."""
        if (self.github_environment or self.repo) and self.github_secret is None:
            raise UsageError("--github-environment and --repo say where --github-secret is", f"add --github-secret {APP_DSN}")
        if self.secrets_file is not None:
            _check_file(self.secrets_file)
        for path in filter(None, (self.app_file, self.secrets_file)):
            _check_room(path)
        if self.github_secret is not None:
            name = self.github_secret
            if not re.fullmatch(r"(?!GITHUB_)[A-Z_][A-Z0-9_]*", name, re.IGNORECASE | re.ASCII):
                problem = "GitHub takes letters, digits and _, and no name that begins with GITHUB_"
                raise UsageError(f"--github-secret {name}: {problem}", f"such as --github-secret {APP_DSN}")
            if not Gh(self.env).is_there:
                raise UsageError("--github-secret needs the gh command, which is not on PATH", INSTALL_HINT)
            self._gh("list")
        if self.secret_name and self.key_vault is None:
            raise UsageError("--secret-name says which secret of --key-vault is meant", "add --key-vault NAME")
        if self.key_vault is not None:
            if not re.fullmatch(r"[A-Za-z](-?[A-Za-z0-9]){2,23}", self.key_vault):
                problem = "a vault's name has 3 to 24 letters, digits and -, a letter first"
                raise UsageError(f"--key-vault {self.key_vault}: {problem}", "az keyvault list --query [].name")
            if not re.fullmatch(r"[A-Za-z0-9-]{1,127}", self._vault_secret):
                problem = "Key Vault takes letters, digits and -, 127 at most"
                raise UsageError(f"--secret-name {self.secret_name}: {problem}", "such as --secret-name POSTGRES-DSN")
            with Az(self.env) as client:
                client.ask(az.vault(self.key_vault))

    def deliver(self, dsn: Dsn, console: Console) -> Iterator[str]:
        """Puts the DSN everywhere; yields where it has arrived, for a sentence. Raises OpsError when one doesn't take it."""
        value = dsn.uri()
        for path in (self.app_file, self.secrets_file):
            if path is not None:
                set_in_file(path, APP_DSN, value)
                yield f"{APP_DSN} in {path}"
        if self.github_secret is not None:
            self._gh("set", self.github_secret, stdin=value)
            yield self._github
        if self.key_vault is not None:
            with Az(self.env, redact=console.redact) as client:
                yield f"the Key Vault secret {az.put_secret(client, self.key_vault, self._vault_secret, value)}"
        if self.emit:
            console.emit(APP_DSN, value)
            yield "this terminal"

    @property
    def _vault_secret(self) -> str:
        return self.secret_name or APP_DSN.replace("_", "-")

    @property
    def _github(self) -> str:
        environment = f" of the environment {self.github_environment}" if self.github_environment else ""
        return f"the GitHub secret {self.github_secret}{environment}" + (f" in {self.repo}" if self.repo else "")

    def flags(self) -> Iterator[str]:
        """The flags that name the same destinations, as a shell takes them."""
        if self.emit:
            yield "--emit-secrets"
        if self.secrets_file is not None:
            yield f"--secrets-file {shell.quoted(self.secrets_file)}"
        for flag, value in (
            ("github-secret", self.github_secret),
            ("github-environment", self.github_environment),
            ("repo", self.repo),
            ("key-vault", self.key_vault),
            ("secret-name", self.secret_name),
        ):
            if value is not None:
                yield f"--{flag} {shell.quoted(value)}"

    def _gh(self, verb: str, *words: str, stdin: Secret | None = None) -> None:
        gh = Gh(self.env, run=self.run)
        result = gh.secret(verb, *words, environment=self.github_environment, repo=self.repo, value=stdin)
        if result.code != 0:
            what = "can't be written" if verb == "set" else "can't be reached"
            hint = LOGIN_HINT if self.repo else f"{LOGIN_HINT}; --repo OWNER/NAME names another repository than this folder's"
            raise OpsError(f"{self._github} {what}: {result.err.strip() or f'gh ended with {result.code}'}", hint)


def destinations(flags: Mapping[str, Any], *, env: Mapping[str, str], app_file: Path | None = None) -> Destinations:
    """What the flags say. Raises UsageError when one of them is empty, as an unset variable in a script makes it."""
    for name in ("secrets_file", "github_secret", "github_environment", "repo", "key_vault", "secret_name"):
        if flags[name] == "":
            raise UsageError(f"--{name.replace('_', '-')} is empty", "give it a value, or leave it away")
    return Destinations(
        emit=flags["emit_secrets"],
        secrets_file=Path(flags["secrets_file"]) if flags["secrets_file"] else None,
        github_secret=flags["github_secret"],
        github_environment=flags["github_environment"],
        repo=flags["repo"],
        key_vault=flags["key_vault"],
        secret_name=flags["secret_name"],
        app_file=app_file,
        env=env,
    )


def push(dsn: Dsn, destinations: Destinations, console: Console) -> None:
    """Puts a DSN that is at hand where the flags say."""
    if not any(destinations.flags()):
        raise UsageError("nothing says where the DSN goes", f"--secrets-file PATH, --github-secret {APP_DSN} or --emit-secrets")
    destinations.check()
    if dsn.is_local and destinations.github_secret:
        console.note(f"warning: {dsn} leads to this machine, which GitHub can't reach")
    places = []
    for place in destinations.deliver(dsn, console):
        console.say(f"handed over: {place}")
        places.append(place)
    facts = {"dsn": str(dsn), "handed_over": places}
    console.document(facts, {APP_DSN: dsn.uri()} if destinations.emit else {})


def _check_file(path: Path) -> None:
    try:
        real = path.resolve()
        if real.is_symlink():  # Python 3.13 and newer
            raise RuntimeError
        there = real.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: older ones
        reason = error.strerror if isinstance(error, OSError) else "its symbolic links lead round in a circle"
        raise UsageError(f"--secrets-file {path}: {reason}", _FILE_HINT) from None
    if there and not real.is_file():  # a pipe would be waited for, and /dev/null replaced
        raise UsageError(f"--secrets-file {path}: it is {'a folder' if real.is_dir() else 'no regular file'}", _FILE_HINT)
    if not real.parent.is_dir():
        raise UsageError(f"--secrets-file {path}: there is no folder {real.parent}", "make it, or name another file")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--secrets-file {path}: you may not write into the folder {real.parent}", _FILE_HINT)
    if there:
        _read(path)


def _check_room(path: Path) -> None:
    """Writes as much beside the file as it will hold: on a disk that is full, no password is to be changed first."""
    path = path.resolve()
    trial = path.with_name(f"{path.name}.{os.getpid()}.room")
    try:
        _write(trial, "#" * ((path.stat().st_size if path.exists() else 0) + _LONGEST), path)
    finally:
        trial.unlink(missing_ok=True)


def _write(path: Path, text: str, meant: Path) -> None:
    try:
        shell.write_private(path, text)
    except OSError as error:
        hint = "make room for it, or name another file"
        raise OpsError(f"{meant} can't be written: {error.strerror}; it is as it was", hint) from None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # with its line ends
    except UnicodeDecodeError:
        raise UsageError(f"--secrets-file {path} isn't UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        raise OpsError(f"--secrets-file {path} can't be read: {error.strerror}", _FILE_HINT) from None


def set_in_file(path: Path, name: str, value: Secret | None) -> None:
    """Sets one key of a dotenv file, which afterwards only its owner can read; comments and other keys stay as they are.

    None takes the key away. The value must need no quotes, as a percent-encoded URI doesn't. Through a symbolic link, the
    file behind it is written. Raises OpsError when it can't be.
    """
    from dotenv.parser import parse_stream

    path = path.resolve()
    before = _read(path) if path.exists() else ""
    end = "\r\n" if "\r\n" in before else "\n"
    line = f"{name}={value.reveal()}{end}" if value is not None else ""
    parts, placed = ["\ufeff" if before.startswith("\ufeff") else ""], False  # which the parser drops
    for binding in parse_stream(io.StringIO(before)):
        text = binding.original.string
        if binding.key == name:
            lead = re.match(r"((?:\s*[\r\n])?)[^\S\r\n]*(?:export[^\S\r\n]+)?", text)
            assert lead is not None  # it may be empty
            # The blank lines above a second one stay.
            text = lead.group(1) if placed or not line else lead.group() + line
            placed = True
        parts.append(text)
    whole = "".join(parts)
    if not placed and line:
        whole += ("" if not whole or whole.endswith("\n") else end) + line
    _write(path, whole, path)
