"""Secrets in files that git tracks: where one seems to stand, and of which kind. It itself is never shown, nor a part of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts import checkup, git, rules
from scripts.checkup import Verdict
from scripts.console import one_line
from scripts.errors import some
from scripts.shell import quoted

_EXCEPTED = "not-a-secret"  # in a line, says that what stands there opens nothing
_SHOWN = 5  # places that are named; of more, the number
_SHORTEST = 8  # characters of a password: the fewest that Azure takes
# Hosts of this machine or this network alone, and those kept for examples: https://www.rfc-editor.org/rfc/rfc2606
_NOWHERE = re.compile(
    r"[^.]*|127\..*|\[?::1\]?|(.*\.)?example(\.(com|net|org))?|.*\.(test|invalid|localhost)|\W.*", re.IGNORECASE
)


def _any(match: re.Match[str]) -> bool:
    return bool(match)


def _is_password(match: re.Match[str]) -> bool:
    """Whether it is no placeholder, and long enough for one that is in use."""
    password = match["password"].strip("'\"")
    return len(password) >= _SHORTEST and not rules.is_placeholder(password) and "$" not in password[:1] and "{" not in password


def _leads_somewhere(match: re.Match[str]) -> bool:
    return _is_password(match) and not _NOWHERE.fullmatch(match["host"])


def _is_random(match: re.Match[str]) -> bool:
    """Whether the characters are as mixed as those of a key: `xxxxxxxx` and `EXAMPLE` aren't."""
    text = match[0]
    bits = -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
    return bits > 3 and "EXAMPLE" not in text.upper()


@dataclass(frozen=True)
class Kind:
    """How a kind of secret looks: to git, which finds the lines, and exactly."""

    name: str
    pattern: str  # a POSIX one; case doesn't count
    exact: re.Pattern[str]
    means_it: Callable[[re.Match[str]], bool] = _is_random


# Sources: https://docs.github.com/authentication/keeping-your-account-and-data-secure/about-authentication-to-github,
# https://learn.microsoft.com/purview/sit-defn-azure-ad-client-secret and https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
KINDS = (
    Kind("a private key", "PRIVATE KEY-----", re.compile(r"^[^\w]*-----BEGIN [A-Z ]*PRIVATE KEY-----\s*(\\n|$)"), _any),
    Kind(
        "a password in a URI",
        "://[^:/@[:space:]]*:[^/@[:space:]]+@",
        # Begun where a word begins alone: at each of its letters, a line of 200,000 would take minutes, and hold up every thread.
        re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://[^\s:/@'\"]*:(?P<password>[^\s/@'\"]+)@(?P<host>[^\s/:?'\"`,)]+)"),
        _leads_somewhere,
    ),
    Kind(
        "a password",
        "^[^[:alnum:]_]*(export[[:space:]]+)?[A-Z0-9_]*(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY)=.",
        re.compile(
            r"^\ufeff?\s*(?:export\s+)?[A-Z0-9_]*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY)=(?P<password>[^\s#]+)\s*(#.*)?$"
        ),
        _is_password,
    ),
    Kind(
        "a token of GitHub",
        "gh[pousr]_[A-Za-z0-9]{36}|github_pat_",
        re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,})"),
    ),
    Kind("a client secret of Azure", "[0-9]Q~", re.compile(r"\b[\w~.-]{3}\dQ~[\w~.-]{31,34}")),
    Kind(
        "a key of an Azure account",
        "(AccountKey|SharedAccessKey)=",
        re.compile(r"\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40,}=*"),
    ),
    Kind("a signature of Azure Storage", "[?&]sig=", re.compile(r"[?&]sig=[A-Za-z0-9%+/]{40,}")),
    Kind("a key of AWS", "AKIA[0-9A-Z]{16}", re.compile(r"\bAKIA[0-9A-Z]{16}\b")),
    Kind("a token of Slack", "xox[abprs]-", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{20,}")),
    Kind(
        "a password's verifier",
        "SCRAM-SHA-256",
        re.compile(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]{20,}\$[A-Za-z0-9+/=]{40,}:[A-Za-z0-9+/=]{40,}"),
    ),
)


def kind_of(line: str) -> str | None:
    """Which kind of secret seems to stand in a line."""
    if _EXCEPTED in line:
        return None
    return next((kind.name for kind in KINDS for match in kind.exact.finditer(line) if kind.means_it(match)), None)


def tracked(folder: Path, env: Mapping[str, str], *, but: Path) -> Verdict:
    """Whether something that looks like a secret stands in a tracked file: named by file, line and kind alone.

    `but` is the file of the settings, which has a check of its own.
    """
    top = git.root(folder, env)
    if top is None and (theirs := git.distrusted(folder, env)):
        said = f"git leaves {theirs} alone, as it belongs to another user: what it tracks isn't known"
        return checkup.warning(said, f"if you trust it: git config --global --add safe.directory {quoted(theirs)}")
    if top is None:
        return checkup.unset("no git repository here, or no git", "git init, and .env stays out of it by .gitignore")
    places = []
    for file, number, text in git.lines(folder, env, [kind.pattern for kind in KINDS]):
        if (kind := kind_of(text)) and (top / file).resolve() != but.resolve():
            places.append(f"{one_line(file)}:{number} ({kind})")
    if not places:
        return checkup.ok("no tracked file holds what looks like a secret")
    way = f"set a new one where it is in use, as the history keeps this one; take it out, or put {_EXCEPTED} into the line"
    return checkup.problem(f"what looks like a secret stands in {some(places, _SHOWN)}", way)
