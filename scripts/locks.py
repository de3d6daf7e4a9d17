"""Which statements of a file take a lock that others feel, told beforehand. Pure.

Source: https://www.postgresql.org/docs/current/explicit-locking.html and the pages of the statements. What a function or
a DO block does can't be seen here; a rehearsal runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scripts import lexer
from scripts.safety import Checked

ACCESS_EXCLUSIVE, EXCLUSIVE = "ACCESS EXCLUSIVE", "EXCLUSIVE"
SHARE_ROW_EXCLUSIVE, SHARE = "SHARE ROW EXCLUSIVE", "SHARE"
# What each keeps others from, as long as the transaction lasts.
BLOCKS = {
    ACCESS_EXCLUSIVE: "reads and writes",
    EXCLUSIVE: "writes",
    SHARE_ROW_EXCLUSIVE: "writes",
    SHARE: "writes",
}
_SHOWN = 70  # characters of a statement
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = r'(?:"(?:[^"]|"")*"|[\w$]+)(?:\s*\.\s*(?:"(?:[^"]|"")*"|[\w$]+))*'
# The statement as it begins -> the lock. The first that fits counts; None: nobody feels it.
_LOCKS: tuple[tuple[re.Pattern[str], str | None], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), mode)
    for pattern, mode in (
        (rf"create\s+(?:unique\s+)?index\s+concurrently\b.*?\bon\s+(?:only\s+)?(?P<name>{_NAME})", None),
        (rf"create\s+(?:unique\s+)?index\b.*?\bon\s+(?:only\s+)?(?P<name>{_NAME})", SHARE),
        (r"drop\s+index\s+concurrently\b", None),
        (r"reindex\b.*?\bconcurrently\b", None),
        (rf"reindex\s+(?:\(.*?\)\s*)?(?:index|table|schema|database|system)\s+(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
        (rf"create\s+(?:or\s+replace\s+)?(?:constraint\s+)?trigger\b.*?\bon\s+(?P<name>{_NAME})", SHARE_ROW_EXCLUSIVE),
        (rf"create\s+(?:or\s+replace\s+)?(?:rule|policy)\b.*?\b(?:on|to)\s+(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
        (rf"(?:alter|drop)\s+(?:policy|rule|trigger)\b.*?\bon\s+(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
        (rf"create\s+or\s+replace\s+view\s+(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
        (rf"refresh\s+materialized\s+view\s+concurrently\s+(?P<name>{_NAME})", EXCLUSIVE),
        (rf"refresh\s+materialized\s+view\s+(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
        (rf"create\s+table\b.*?\breferences\s+(?P<name>{_NAME})", SHARE_ROW_EXCLUSIVE),
        (rf"create\s+table\b.*?\bpartition\s+of\s+(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
        (rf"alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<name>{_NAME})\s*\*?\s+validate\s+constraint\b", None),
        (rf"alter\s+table\s+(?:if\s+exists\s+)?(?P<name>{_NAME})\s+attach\s+partition\b", None),
        (rf"alter\s+table\s+(?:if\s+exists\s+)?(?P<name>{_NAME})\s+detach\s+partition\s+{_NAME}\s+concurrently\b", None),
        (
            rf"alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<name>{_NAME})\s*\*?\s+(?:enable|disable)\s+trigger\b",
            SHARE_ROW_EXCLUSIVE,
        ),
        (
            rf"alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<name>{_NAME})\s*\*?\s+add\s+(?:constraint\s+{_NAME}\s+)?foreign\s+key\b",
            SHARE_ROW_EXCLUSIVE,
        ),
        (
            rf"alter\s+(?:foreign\s+)?(?:table|view|materialized\s+view)\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<name>{_NAME})",
            ACCESS_EXCLUSIVE,
        ),
        (
            rf"drop\s+(?:foreign\s+)?(?:table|view|materialized\s+view|index|sequence)\s+(?:if\s+exists\s+)?(?P<name>{_NAME})",
            ACCESS_EXCLUSIVE,
        ),
        (rf"truncate\s+(?:table\s+)?(?:only\s+)?(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
        (rf"cluster\s+(?:verbose\s+)?(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
        (rf"vacuum\s+(?:\([^)]*\bfull\b[^)]*\)|full)\s*(?:freeze\s+|verbose\s+|analyze\s+)*(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
    )
)
_LOCK_TABLE = re.compile(
    rf"lock\s+(?:table\s+)?(?:only\s+)?(?P<name>{_NAME}).*?(?:\bin\s+(?P<mode>[a-z\s]+?)\s+mode\b|$)", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A statement with the lock that it takes, and keeps until the file's end."""

    file: str
    line: int
    statement: str  # on one line, its first 70 characters
    mode: str  # "ACCESS EXCLUSIVE"

    @property
    def blocks(self) -> str:
        """What others can't do meanwhile."""
        return BLOCKS[self.mode]


def of(checked: Checked) -> list[Lock]:
    """The locks of a file and of what it includes, in order; those that keep nobody from reading or writing aren't told."""
    texts = {checked.migration.file: checked.script, **checked.includes}
    made: set[str] = set()  # by the file itself: nobody else sees them yet
    return [lock for file, text in texts.items() for lock in _in(file, text, made)]


def _in(file: str, text: str, made: set[str]) -> Iterator[Lock]:
    for statement in lexer.lex(text).statements:
        sql = _COMMENT.sub(" ", text[statement.start : statement.end]).strip()
        new = re.match(
            rf"create\s+(?:unlogged\s+|temp(?:orary)?\s+)?(?:table|materialized\s+view)\s+(?!if\b)(?P<name>{_NAME})",
            sql,
            re.IGNORECASE,
        )
        found = _lock(sql)
        if found and found[1] not in made:
            shown = " ".join(sql.rstrip("; \n").split())
            shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
            yield Lock(file=file, line=statement.line, statement=shown, mode=found[0])
        if new:
            made.add(new["name"])


def _lock(sql: str) -> tuple[str, str] | None:
    table = _LOCK_TABLE.match(sql)
    if table:
        mode = " ".join((table["mode"] or ACCESS_EXCLUSIVE).upper().split())
        return (mode, table["name"]) if mode in BLOCKS else None
    for pattern, taken in _LOCKS:
        match = pattern.match(sql)
        if match:
            return None if taken is None else (taken, match["name"])
    return None
