"""The only module that knows squawk's words: SQL texts in, what it says of them out.

squawk reads files or one text on its input; many files in one process are the fast way. So the texts are written to a
folder of our own, which also keeps it from finding a `.squawk.toml` that isn't meant.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import shell
from scripts.dsn import clean_env
from scripts.errors import OpsError, UsageError
from scripts.rules import ERROR, WARNING, Finding

CONFIG = ".squawk.toml"
# Rules that don't fit what `invoke migrate` does, each with the reason.
EXCLUDED = {
    "require-lock-timeout": "the runner has a lock_timeout of its own in its session, and tries again",
    "require-statement-timeout": "likewise, for those who want one",
    "transaction-nesting": "what is refused says it, and knows that a file may be wrapped whole",
    "ban-uncommitted-transaction": "likewise",
    "ban-concurrent-index-creation-in-transaction": "likewise, with the line to write into the file",
}
# A comment by which squawk would take another view of the transaction than the runner does.
_OF_ITS_OWN_MODE = re.compile(r"squawk-(?=(?:en|dis)able-assume-in-transaction)")
_DEADLINE = 300.0  # seconds; it reads some ten thousand files in one


@dataclass(frozen=True, kw_only=True)
class Text:
    """One file for squawk: plain SQL, whose lines stand where the file has them."""

    file: str  # its path below the migrations folder
    sql: str
    in_transaction: bool


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a `.squawk.toml` asks for; our own exclusions come on top."""

    source: Path | None = None
    excluded: tuple[str, ...] = ()
    included: tuple[str, ...] = ()
    postgres: str = ""


def rules(folder: Path) -> Rules:
    """The rules of the `.squawk.toml` next to a folder, or next above it, as squawk looks for one.

    Of its other keys, the transaction mode is told by each file and the paths by the folder. Raises UsageError when it
    can't be read.
    """
    path = next((place / CONFIG for place in (folder, *folder.parents) if (place / CONFIG).is_file()), None)
    if path is None:
        return Rules()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {error}", "mend it as TOML, or move it away") from None
    lists = {key: found.get(key, []) for key in ("excluded_rules", "included_rules")}
    for key, value in lists.items():
        if not isinstance(value, list) or not all(isinstance(rule, str) for rule in value):
            raise UsageError(f"{path}: {key} isn't a list of names", f'such as {key} = ["prefer-bigint-over-int"]')
    return Rules(
        source=path,
        excluded=tuple(lists["excluded_rules"]),
        included=tuple(lists["included_rules"]),
        postgres=str(found.get("pg_version", "")),
    )


def program() -> Path:
    """Where the wheel `squawk-cli` has put its one program. Raises UsageError when it isn't installed here."""
    try:
        files = importlib.metadata.files("squawk-cli") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [Path(str(file.locate())).resolve() for file in files if file.stem == "squawk" and file.suffix in ("", ".exe")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise UsageError("squawk (squawk-cli) is not installed here", f"run this through `{shell.BOOTSTRAP}`")
    return found


def lint(texts: Sequence[Text], wanted: Rules, *, env: Mapping[str, str], run: shell.Run = shell.run) -> list[Finding]:
    """What squawk says of the texts, by at most two processes: one for each transaction mode. Raises OpsError."""
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="lint-") as name:
        work = Path(name)
        (work / "none.toml").touch()
        for in_transaction, folder in ((True, "in"), (False, "out")):
            chosen = {
                f"{folder}/{index:06}.sql": text for index, text in enumerate(texts) if text.in_transaction == in_transaction
            }
            if not chosen:
                continue
            (work / folder).mkdir()
            for path, text in chosen.items():
                (work / path).write_text(_OF_ITS_OWN_MODE.sub("squawk ", text.sql), encoding="utf-8", newline="\n")
            words = [*_words(wanted), f"--{'' if in_transaction else 'no-'}assume-in-transaction", f"{folder}/*.sql"]
            result = run([program(), *words], env=_env(env), cwd=work, timeout=_DEADLINE)
            findings += [_finding(said, chosen) for said in _document(result, wanted)]
    return findings


def _words(wanted: Rules) -> Iterator[str]:
    yield "--reporter=json"
    yield "--config=none.toml"
    yield f"--exclude={','.join(dict.fromkeys([*EXCLUDED, *wanted.excluded]))}"
    if wanted.included:
        yield f"--include={','.join(wanted.included)}"
    if wanted.postgres:
        yield f"--pg-version={wanted.postgres}"


def _env(env: Mapping[str, str]) -> dict[str, str]:
    return {**clean_env(env), "SQUAWK_DISABLE_GITHUB_ANNOTATIONS": "1"}


def _document(result: shell.Result, wanted: Rules) -> list[dict[str, Any]]:
    """Its report; the exit code is 1 both for findings and for a failure, and only a report is JSON."""
    try:
        found = json.loads(result.out)
    except ValueError:
        said = next((line for line in result.err.splitlines() if line.strip()), f"exit code {result.code}")
        hint = f"its rules come from {wanted.source}" if wanted.source else ""
        raise OpsError(f"squawk failed: {said.removeprefix('error: ')}", hint) from None
    return list(found)


def _finding(said: Mapping[str, Any], chosen: Mapping[str, Text]) -> Finding:
    """One entry of its report, whose lines are counted from 0."""
    return Finding(
        file=chosen[str(said["file"]).replace("\\", "/")].file,
        line=int(said["line"]) + 1,
        level=ERROR if said["level"] == "Error" else WARNING,
        rule=said["rule_name"],
        message=" ".join(str(said["message"]).split()),
        help=" ".join(str(said["help"] or "").split()),
    )
