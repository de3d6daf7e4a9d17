"""Our own rules for a migration's text, beside what `safety` refuses. Pure.

They ask what a reader of the repository would: what is this file for, whom does it let in, does it hold a password.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scripts import lexer
from scripts.lexer import Lexed
from scripts.sql import Problem

ERROR, WARNING = "error", "warning"
REFUSED = "refused"  # what `invoke migrate` would not run: no comment excepts it, as none would make it run
HEADER, PUBLIC, PASSWORD, UNUSED = "header", "grant-to-public", "password", "unused-ignore"

_LEADING = re.compile(r"\s+|--[^\n]*|/\*.*?\*/", re.DOTALL)
_NOT_SAID = re.compile(r"^[\s*/-]*(migrate:|lint-ignore\b|squawk-).*$", re.MULTILINE)  # lines of a comment for programs alone
_SAID = re.compile(r"[^\W\d_]{2}")
_IGNORE = re.compile(r"(?:--|/\*)[ \t]*lint-ignore[ \t]+([a-z-]+(?:[ \t]*,[ \t]*[a-z-]+)*)")
_NO_CODE = re.compile(r"\s*(--.*|/\*.*\*/\s*)?")  # a whole line
_VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+")
# A scheme of any length would be looked for from each letter of a long word to its end.
_URI = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s:/@'\"]*:(?P<password>[^\s/@'\"]+)@")
_CONNINFO = re.compile(r"\bpassword=(?:'+(?P<quoted>[^']*)'|(?P<plain>[^\s'\"(,;)]+)(?![(\w]))", re.IGNORECASE)
_CONNINFO_OTHERS = re.compile(r"\b(host|hostaddr|port|user|dbname|service)=", re.IGNORECASE)
# What stands for a password in an example, a format() or a template.
_PLACEHOLDER = re.compile(r"[A-Z_]+|<.*>|\*+|\.+|x+|\$?\{.*\}|\$\w+|:.*|%(\d+\$)?[sIL]")
_STRINGS = frozenset({"string", "estring", "dollar"})
_HOLDS_CODE = frozenset({"DO", "CREATE"})  # statements whose strings are code: DO and the bodies of functions


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule says about a line."""

    file: str  # its path below the migrations folder
    line: int
    level: str  # "error" or "warning"
    rule: str
    message: str
    help: str = ""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int

    @property
    def word(self) -> str:
        """A keyword in upper case; empty for what is none."""
        return lexer.keyword(self.text) if self.kind == "word" else ""


def refused(problem: Problem) -> Finding:
    """What keeps a file from being run, as a finding."""
    return Finding(file=problem.file, line=problem.line or 1, level=ERROR, rule=REFUSED, message=problem.what)


def header(file: str, text: str) -> Iterator[Finding]:
    """Asks a migration to begin with a comment that tells a person something."""
    at = 0
    while comment := _LEADING.match(text, at):
        at = comment.end()
    if text.strip() and not _SAID.search(_NOT_SAID.sub("", text[:at])):
        yield Finding(
            file=file,
            line=1,
            level=WARNING,
            rule=HEADER,
            message="the file doesn't begin with a comment that says what it is for",
            help="write one line above everything else: -- what this changes, and why",
        )


def contents(file: str, text: str) -> list[Finding]:
    """What a file that psql reads gives away: rights to everybody, and passwords. Their values are never repeated."""
    lexed = lexer.lex(text)
    statements = list(_statements_of(text, lexed))
    found = {(line, PUBLIC) for statement in statements for line in _grants_to_public(statement)}
    found |= {(line, PASSWORD) for line, _ in _all_passwords(text, lexed, statements)}
    return [_FINDINGS[rule](file, line) for line, rule in sorted(found)]


def passwords(text: str) -> set[str]:
    """The passwords that stand in a file which psql reads, for whoever shows a piece of it."""
    lexed = lexer.lex(text)
    return {value for _, value in _all_passwords(text, lexed, list(_statements_of(text, lexed)))}


def _statements_of(text: str, lexed: Lexed) -> Iterator[list[_Token]]:
    top = _tokens(lexer.as_sql(text, variables=False), 1)
    return _all_statements(top, all_code=any(meta.name == "gexec" for meta in lexed.metas))


def _all_passwords(text: str, lexed: Lexed, statements: Sequence[Sequence[_Token]]) -> Iterator[tuple[int, str]]:
    """(line, password) of each."""
    yield from _passwords_anywhere(text)
    asked: set[str] = set()  # variables that a PASSWORD is taken from
    for statement in statements:
        yield from _passwords(statement, asked)
    for meta in lexed.metas:
        name, value = (*meta.args.split(maxsplit=1), "", "")[:2]
        if meta.name == "set" and name in asked and value.strip("'") and not value.startswith(":"):
            yield meta.line, value.strip().strip("'").replace("''", "'")


def _public(file: str, line: int) -> Finding:
    what = "a grant to PUBLIC is one to every role of the server, those that are made later too"
    help_ = "name a role: serving_reader, serving_writer"
    return Finding(file=file, line=line, level=ERROR, rule=PUBLIC, message=what, help=help_)


def _password(file: str, line: int) -> Finding:
    what = "a password stands here, for everybody who can read the repository, and for good in its history"
    help_ = "change that password where it is in use; passwords are set by `invoke roles`, not by a migration"
    return Finding(file=file, line=line, level=ERROR, rule=PASSWORD, message=what, help=help_)


_FINDINGS = {PUBLIC: _public, PASSWORD: _password}


def is_placeholder(password: str) -> bool:
    """Whether it stands for a password in an example, a format() or a template, and is none."""
    return _PLACEHOLDER.fullmatch(password) is not None


def without_excepted(findings: Iterable[Finding], file: str, text: str) -> list[Finding]:
    """Leaves out what a `-- lint-ignore RULE` of the file excepts, and names each of those that excepts nothing.

    It holds for its own line and, where that is a comment alone, for the next one that isn't.
    """
    ignores = list(_ignores(text))
    used: set[tuple[int, str]] = set()
    kept = []
    for finding in findings:
        fitting = {(line, rule) for line, rule, covered in ignores if rule == finding.rule and finding.line in covered}
        if not fitting or finding.rule == REFUSED:
            kept.append(finding)
        used |= fitting
    for line, rule, _ in ignores:
        if (line, rule) not in used or rule == REFUSED:
            what = f"lint-ignore {rule} excepts nothing here"
            if rule == REFUSED:
                what = f"nothing excepts what is {REFUSED}: `invoke migrate` would not run it"
            kept.append(Finding(file=file, line=line, level=WARNING, rule=UNUSED, message=what))
    return sorted(kept, key=lambda finding: finding.line)


def _ignores(text: str) -> Iterator[tuple[int, str, set[int]]]:
    """(line, rule, lines that it holds for) of every exception."""
    if "lint-ignore" not in text:
        return
    lines = text.split("\n")
    for number, content in enumerate(lines, 1):
        for match in _IGNORE.finditer(content):
            covered = {number}
            if _NO_CODE.fullmatch(content):
                following = range(number, len(lines))
                covered.add(next((index + 1 for index in following if not _NO_CODE.fullmatch(lines[index])), number))
            yield from ((number, rule.strip(), covered) for rule in match[1].split(","))


def _tokens(text: str, line: int) -> list[_Token]:
    found, at = [], 0
    for kind, token, start in lexer.tokens(text):
        line += text.count("\n", at, start)
        at = start
        if kind not in ("comment", "block"):
            found.append(_Token(kind, token, line))
    return found


def _all_statements(tokens: Sequence[_Token], *, all_code: bool) -> Iterator[list[_Token]]:
    """Every statement, and those inside the strings that are code: bodies, and what EXECUTE or \\gexec puts together."""
    statement: list[_Token] = []
    for token in [*tokens, _Token("other", ";", 0)]:
        if token.text != ";":
            statement.append(token)
            continue
        yield statement
        if statement and (all_code or statement[0].word in _HOLDS_CODE):
            # As one: what EXECUTE runs is often put together from several, with names between them.
            strings = [string for string in statement if string.kind in _STRINGS]
            inner = [token for string in strings for token in _tokens(_content(string), string.line)]
            if inner:
                yield from _all_statements(inner, all_code=True)
        statement = []


def _content(string: _Token) -> str:
    if string.kind == "dollar":
        tag = string.text.index("$", 1) + 1
        return string.text[tag : -tag if string.text.endswith(string.text[:tag]) and len(string.text) >= 2 * tag else None]
    return string.text[string.text.index("'") + 1 : -1].replace("''", "'")


def _grants_to_public(statement: Sequence[_Token]) -> Iterator[int]:
    words = [token.word for token in statement]
    if "GRANT" not in words:
        return
    for index, token in enumerate(statement):
        if token.word != "TO" or "GRANT" not in words[:index]:
            continue
        expected = True  # whether a role's name comes next
        for grantee in statement[index + 1 :]:
            if grantee.text == ",":
                expected = True
            elif grantee.word == "GROUP" and expected:
                continue
            elif not expected:
                break
            else:
                if grantee.text.strip('"').lower() == "public":  # a quoted "public" is PUBLIC too
                    last = max(before for before in range(index) if words[before] == "GRANT")
                    yield statement[last].line
                expected = False


def _passwords(statement: Sequence[_Token], asked: set[str]) -> Iterator[tuple[int, str]]:
    for before, token in itertools.pairwise(statement):
        if before.word != "PASSWORD":
            continue
        if token.kind == "safevar":
            asked.add(token.text[2:-1])
        elif token.kind == "var":
            asked.add(token.text[1:])
        elif token.kind in _STRINGS:
            value = _content(token)
            if value and not re.fullmatch(r"%(\d+\$)?[sIL]", value):
                yield token.line, value


def _passwords_anywhere(text: str) -> Iterator[tuple[int, str]]:
    """Verifiers, and passwords of DSNs, wherever they stand: in a comment or in data they are as public."""
    for match in _VERIFIER.finditer(text):
        yield _line(text, match.start()), match[0]
    for match in _URI.finditer(text):
        if not is_placeholder(match["password"]):
            yield _line(text, match.start()), match["password"]
    looked_at, has_others = (-1, -1), False  # a line is looked at once, whatever number of matches it has
    for match in _CONNINFO.finditer(text):
        begin, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
        if (begin, end) != looked_at:
            looked_at = begin, end
            has_others = _CONNINFO_OTHERS.search(text, begin, end if end >= 0 else len(text)) is not None
        value = match["quoted"] or match["plain"] or ""
        if value and not is_placeholder(value) and has_others:
            yield _line(text, match.start()), value


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
