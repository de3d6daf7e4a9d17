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
_IN_PARENTHESES = re.compile(r"\([^()]*\)|'(?:[^']|'')*'")
_NAME = r'(?:"(?:[^"]|"")*"|[\w$]+)(?:\s*\.\s*(?:"(?:[^"]|"")*"|[\w$]+))*'
# The statement as it begins -> the lock. The first that fits counts; None: nobody feels it.
_LOCKS: tuple[tuple[str, str | None], ...] = (
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
    (rf"drop\s+schema\s+(?:if\s+exists\s+)?(?P<name>{_NAME}).*\bcascade\b", ACCESS_EXCLUSIVE),
    (rf"truncate\s+(?:table\s+)?(?:only\s+)?(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
    (rf"cluster\s+(?:verbose\s+)?(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
    (rf"vacuum\s+(?:\([^)]*\bfull\b[^)]*\)|full)\s*(?:freeze\s+|verbose\s+|analyze\s+)*(?P<name>{_NAME})", ACCESS_EXCLUSIVE),
)
_LOCK_TABLE = re.compile(
    rf"lock\s+(?:table\s+)?(?:only\s+)?(?P<name>{_NAME}).*?(?:\bin\s+(?P<mode>[a-z\s]+?)\s+mode\b|$)", re.IGNORECASE | re.DOTALL
)
_CONCURRENT = re.compile(
    rf"""create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?(?P<made>{_NAME})\s+on\s+(?:only\s+)?(?P<on>{_NAME})
    |drop\s+index\s+concurrently\s+(?:if\s+exists\s+)?(?P<dropped>{_NAME}(?:\s*,\s*{_NAME})*)
    |reindex\s+(?:\([^)]*\)\s*)?(?P<kind>index|table|schema|database|system)\s+concurrently\s+(?P<again>{_NAME})""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
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
    made: set[str] = set()  # by the file itself: nobody else sees them yet
    return [lock for file, text in checked.texts.items() for lock in _in(file, text, made)]


def _in(file: str, text: str, made: set[str]) -> Iterator[Lock]:
    for statement in lexer.lex(text).statements:
        sql = lexer.uncommented(text, statement)
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
    several = sql[:11].lower().startswith("alter") and "," in _IN_PARENTHESES.sub("", sql)
    for pattern, taken in _LOCKS:
        match = re.match(pattern, sql, re.IGNORECASE | re.DOTALL)  # compiled once it is needed: all of them take 15 ms
        if match and several and taken != ACCESS_EXCLUSIVE:
            continue  # one action takes a weaker lock, and another may not
        if match:
            return None if taken is None else (taken, match["name"])
    return None


@dataclass(frozen=True, kw_only=True)
class Concurrent:
    """An index that a file makes, makes anew or drops CONCURRENTLY, and that is left INVALID when it is cut off."""

    index: str | None  # as the catalog has it; None: any of the table's
    table: str | None  # likewise; None: not said

    def is_left(self, index: str, table: str) -> bool:
        """Whether an INVALID index may be what is left; REINDEX leaves NAME_ccnew, or NAME_ccold."""
        new = re.fullmatch(r"(.*?)_cc(?:new|old)\d*", index)
        if self.index is None:
            return new is not None and self.table in (None, table)
        return self.index in (index, new[1] if new else index) and self.table in (None, table)


def concurrent(checked: Checked) -> list[Concurrent]:
    """Those of a file and of what it includes."""
    found = []
    for text in checked.texts.values():
        for statement in lexer.lex(text).statements:
            match = _CONCURRENT.match(lexer.uncommented(text, statement))
            if match and match["made"]:
                found.append(Concurrent(index=_last(match["made"]), table=_last(match["on"])))
            elif match and match["dropped"]:
                found += [Concurrent(index=_last(name), table=None) for name in re.findall(_NAME, match["dropped"])]
            elif match:
                what, name = match["kind"].upper(), _last(match["again"])
                found.append(Concurrent(index=name if what == "INDEX" else None, table=name if what == "TABLE" else None))
    return found


def _last(name: str) -> str:
    """The last part of a name, as the catalog has it."""
    part: str = re.findall(r'"(?:[^"]|"")*"|[\w$]+', name)[-1]
    return part[1:-1].replace('""', '"') if part.startswith('"') else part.lower()
