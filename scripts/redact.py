"""Takes secrets out of text that is about to be shown, in every form in which they could stand there. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from scripts.secret import Secret

_SHORTEST = 4  # characters; less would be found in every sentence
_MASK = "****"


# The literal that is plain to see behind PASSWORD.
_LITERAL = re.compile(r"\bpassword\s+'(?P<password>(?:[^'\\]|'')*)'(?!')", re.IGNORECASE)


def password_literals(sql: str) -> set[str]:
    """The literals behind the word PASSWORD in statements, or in what the server says of them."""
    return {match["password"].replace("''", "'") for match in _LITERAL.finditer(sql)}


def without_password_literals(sql: str) -> str:
    """The same with a mask for each of them, however short it is."""
    return _LITERAL.sub(f"PASSWORD '{_MASK}'", sql)


class Redactor:
    """Knows the secrets of one command."""

    def __init__(self) -> None:
        self._forms: list[str] = []  # the longest first: a DSN before the password in it

    def add(self, secret: Secret) -> list[str]:
        """Takes a secret in; returns the forms of it that weren't known, the secret itself first."""
        new = [form for form in forms(secret.reveal()) if form not in self._forms]
        self._forms = sorted({*self._forms, *new}, key=len, reverse=True)
        return new

    def text(self, text: str) -> str:
        """The text without secrets."""
        for form in self._forms:
            text = text.replace(form, _MASK)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value without secrets in its strings; the names in it are ours and stay. What JSON lacks becomes text."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return self.text(str(value))


def forms(secret: str) -> list[str]:
    """How a secret may stand in a text: raw, percent-encoded, in JSON, in SQL, and in base64 of a text that holds it."""
    if len(secret) < _SHORTEST:
        return []
    found = [secret, quote(secret, safe=""), quote(secret), quote_plus(secret), secret.replace("'", "''")]
    found += [json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    return list(dict.fromkeys([*found, *_base64(secret.encode("utf-8"))]))


def _base64(data: bytes) -> Iterator[str]:
    """Its base64, and the parts of it that are the same wherever in a longer text the secret begins."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).decode().rstrip("=")
        for before in range(3):
            whole = encode(b"\0" * before + data).decode().rstrip("=")
            first = (before * 8 + 5) // 6  # characters that hold a bit of what comes before
            last = (before + len(data)) * 8 // 6  # and those whole bits are the secret's
            if last - first >= _SHORTEST:
                yield whole[first:last]
