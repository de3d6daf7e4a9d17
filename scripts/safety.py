"""What a migration may not hold, told before anything runs: file, line and reason.

Two promises rest on this module and on the guard in the ledger's SQL behind it: nothing in a file runs a program on
the client, and nothing in it makes the ledger say what isn't so. A meta-command is refused unless it is known to keep
both. Pure but for reading the files that a migration includes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from scripts import lexer, sql
from scripts.lexer import Lexed, Meta, Statement
from scripts.sql import Migration, Problem

_INCLUDES = frozenset({"i", "include", "ir", "include_relative"})
# Harmless whatever their arguments, as long as those run nothing.
_HARMLESS = frozenset(
    {
        "a",
        "bind",
        "conninfo",
        "echo",
        "elif",
        "else",
        "endif",
        "errverbose",
        "f",
        "gdesc",
        "gexec",
        "gset",
        "if",
        "pset",
        "qecho",
        "t",
        "timing",
        "unset",
        "warn",
        "x",
    }
)
_NO_ARGUMENT = frozenset({"g", "gx", "o"})  # with one they write a file, or start a program
_REASONS = {
    "!": "runs a program on the client",
    "q": "ends psql half-way, and what follows would count as applied",
    "c": "changes the connection under the runner",
    "o": "writes to a file or a program on the client",
    "w": "writes to a file or a program on the client",
    "e": "starts an editor on the client",
    "prompt": "waits for somebody at a terminal",
    "password": "waits for somebody at a terminal",
    "setenv": "changes the environment of programs on the client",
    "cd": "changes the folder under the runner",
    "watch": "never ends",
}
_ALIASES = {"quit": "q", "connect": "c", "out": "o", "g": "o", "gx": "o", "write": "w", "ef": "e", "ev": "e", "edit": "e"}
# Variables that change how psql itself works: (name, the values that are as the runner has them).
_OWN_VARIABLES = {
    "ON_ERROR_STOP": {"on", "1", "true", "yes"},
    "ON_ERROR_ROLLBACK": {"off", "0", "false", "no"},
    "AUTOCOMMIT": {"on", "1", "true", "yes"},
    "SINGLELINE": {"off", "0", "false", "no"},
    "SINGLESTEP": {"off", "0", "false", "no"},
}
_TRANSACTION_WORDS = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"})
_TRANSACTION_PAIRS = frozenset({("START", "TRANSACTION"), ("PREPARE", "TRANSACTION"), ("SET", "TRANSACTION")})
_OPENINGS = frozenset({("BEGIN",), ("BEGIN", "WORK"), ("BEGIN", "TRANSACTION"), ("START", "TRANSACTION")})
_CLOSINGS = frozenset((word, *rest) for word in ("COMMIT", "END") for rest in ((), ("WORK",), ("TRANSACTION",)))
# A :name outside quotes is lexed by psql again. These values can't change what psql makes of the text around them.
_SAFE_VALUE = re.compile(r"[A-Za-z0-9_.]+(?: [A-Za-z0-9_.]+)*")
_UNSAFE_WORDS = _TRANSACTION_WORDS | {"START", "PREPARE", "SET", "COPY", "STDIN", "CASE", "CREATE"}
_ENCODING = re.compile(
    r"\bclient_encoding\b(?!\s*(?:=|to)\s*'?(?:utf-?8|unicode)\b)|\bset\s+names\b(?!\s*'utf-?8')", re.IGNORECASE
)
_STRINGS = re.compile(r"\bstandard_conforming_strings\b(?!\s*(?:=|to)\s*'?on\b)", re.IGNORECASE)
# In a file with \gexec, which can make psql read lines as data that look like SQL here, these may not hide in strings.
_HIDDEN = re.compile(
    r"\\(?:!|(?:i|ir|include|include_relative|copy|set|unset|o|out|q|quit|c|connect|e|ef|ev|edit|setenv|prompt|cd"
    r"|watch|if|elif|else|endif)\b|(?:g|gx|w|write)\b\s*\|)"
)


@dataclass(frozen=True)
class Checked:
    """A migration that was read through, ready to be handed to psql."""

    migration: Migration
    script: str = field(repr=False)  # the text to run: the migration's own, without an outer BEGIN and COMMIT
    includes: Mapping[str, str] = field(default_factory=dict, repr=False)  # path below the folder -> text
    # All that psql will read, by path below the folder: a file as it stands, or the text to put in its place.
    files: Mapping[str, Path | bytes] = field(default_factory=dict, repr=False)
    variables: frozenset[str] = frozenset()  # psql variables it mentions
    uses_metas: bool = False
    problems: tuple[Problem, ...] = ()


def check(migration: Migration, folder: Path) -> Checked:
    """Reads a migration and everything that it includes, and lists what would have to change before it may run."""
    walk = _Walk(migration, folder)
    lexed = walk.visit(migration.file, migration.text, ())
    script = migration.text
    if not lexed.items and migration.text.strip():
        walk.problem(migration.file, None, "holds nothing to run")
    wrapper = _wrapper(list(lexed.statements)) if migration.transactional else []
    for statement in wrapper:
        blank = re.sub(r"[^\n]", " ", script[statement.start : statement.end])
        script = script[: statement.start] + blank + script[statement.end :]
    walk.transaction_control(migration.file, lexed, allowed=wrapper)
    walk.raw_variables()
    as_is = migration.as_is and script is migration.text
    walk.files[migration.file] = folder / migration.file if as_is else script.encode("utf-8")
    problems = tuple(sorted(walk.problems, key=lambda problem: (problem.file, problem.line or 0)))
    return Checked(migration, script, walk.includes, walk.files, frozenset(walk.variables), walk.uses_metas, problems)


def _wrapper(statements: list[Statement]) -> list[Statement]:
    """The BEGIN and the COMMIT of a file that is wrapped whole in the two, else nothing."""
    if len(statements) < 2:
        return []
    first, last = statements[0], statements[-1]
    whole = first.plain and first.words in _OPENINGS and last.plain and last.words in _CLOSINGS
    if not whole or first.depth or last.depth or any(_controls_transaction(inner) for inner in statements[1:-1]):
        return []
    return [first, last]


def _controls_transaction(statement: Statement) -> bool:
    return statement.words[:1] != () and (statement.words[0] in _TRANSACTION_WORDS or statement.words[:2] in _TRANSACTION_PAIRS)


class _Walk:
    """One migration with its includes, as they are read through."""

    def __init__(self, migration: Migration, folder: Path) -> None:
        self.migration = migration
        self.folder = folder
        self.problems: set[Problem] = set()
        self.includes: dict[str, str] = {}
        self.files: dict[str, Path | bytes] = {}
        self.variables: set[str] = set()
        self.uses_metas = False
        self._raw: list[tuple[str, int, str]] = []  # (file, line, name)
        self._set_safely: dict[str, bool] = {}
        self._gset_prefixes: list[str] = []

    def problem(self, file: str, line: int | None, what: str) -> None:
        self.problems.add(Problem(file, line, what))

    def visit(self, file: str, text: str, above: tuple[str, ...]) -> Lexed:
        """Reads one file through; `above` are the files that include it."""
        lexed = lexer.lex(text)
        for line, what in lexed.problems:
            self.problem(file, line, what)
        self._raw += [(file, line, name) for line, name in lexed.raw_variables]
        self.variables |= lexed.variables
        for meta in lexed.metas:
            self.uses_metas = True
            self._meta(file, meta, (*above, file))
        for pattern, what in (
            (_ENCODING, "changes client_encoding, and migrations are UTF-8"),
            (_STRINGS, "changes standard_conforming_strings, by which psql finds the end of a string"),
        ):
            match = pattern.search(text)
            if match:
                self.problem(file, _line(text, match.start()), what)
        if any(meta.name == "gexec" for meta in lexed.metas):
            self._hidden_metas(file, text, lexed)
        return lexed

    def transaction_control(self, file: str, lexed: Lexed, allowed: list[Statement]) -> None:
        """Refuses statements that begin or end a transaction: the runner's own holds the file and its ledger row."""
        for statement in lexed.statements:
            if _controls_transaction(statement) and statement not in allowed:
                what = " ".join(statement.words[:2])
                self.problem(
                    file,
                    statement.line,
                    f"{what}: the runner begins and commits; a file may only be wrapped whole in one BEGIN; ... COMMIT;",
                )
            elif statement.words[:2] == ("DISCARD", "ALL"):
                self.problem(file, statement.line, "DISCARD ALL gives up the runner's lock; every file has a clean session")

    def raw_variables(self) -> None:
        """Refuses a :name in SQL whose value could change how psql splits the text around it."""
        for file, line, name in self._raw:
            by_gset = any(name.startswith(prefix) for prefix in self._gset_prefixes)
            if by_gset or not self._set_safely.get(name, True):
                self.problem(file, line, f"""the value of :{name} is put into the SQL as it is: write :'{name}' or :"{name}\"""")

    def _meta(self, file: str, meta: Meta, above: tuple[str, ...]) -> None:
        name = meta.name
        if "`" in meta.args and name != "copy":
            self.problem(file, meta.line, f"\\{name} with `...` runs a program on the client")
        elif name in _INCLUDES:
            self._include(file, meta, above)
        elif name == "copy":
            self._copy(file, meta)
        elif name == "set":
            self._set(file, meta)
        elif name == "unset" and meta.args.split()[:1] and not self._may_set(meta.args.split()[0], None):
            self.problem(file, meta.line, f"\\unset {meta.args} changes how psql works under the runner")
        elif name == "gset":
            self._gset_prefixes.append(meta.args.strip("'\""))
        elif name == "encoding" and meta.args.strip("'").lower() in ("utf8", "utf-8", "unicode"):
            pass
        elif not (name in _HARMLESS or (name in _NO_ARGUMENT and not meta.args) or re.fullmatch(r"d[A-Za-z+]*", name)):
            reason = _REASONS.get(_ALIASES.get(name, name), "is not known to be safe in a migration")
            self.problem(file, meta.line, f"\\{name} {reason}")

    def _set(self, file: str, meta: Meta) -> None:
        name, value = (*meta.args.split(None, 1), "", "")[:2]
        if name and not self._may_set(name, value):
            self.problem(file, meta.line, f"\\set {meta.args} changes how psql works under the runner")
        # Several words without quotes are joined without the space between them.
        plain = value[1:-1] if re.fullmatch(r"'[^'\\]*'", value) else "".join(value.split())
        safe = _SAFE_VALUE.fullmatch(plain) is not None and not _UNSAFE_WORDS & set(plain.upper().split())
        self._set_safely[name] = safe and self._set_safely.get(name, True)

    @staticmethod
    def _may_set(name: str, value: str | None) -> bool:
        if not re.fullmatch(r"[A-Za-z0-9_\x80-\U0010ffff]+", name):  # a name put together from quotes or variables
            return False
        return name not in _OWN_VARIABLES or (value or "").strip("'").lower() in _OWN_VARIABLES[name]

    def _include(self, file: str, meta: Meta, above: tuple[str, ...]) -> None:
        relative = meta.name in ("ir", "include_relative")
        path = self._path(file, meta, meta.args, PurePosixPath(file).parent if relative else PurePosixPath())
        if path is None:
            return
        if path in above:
            self.problem(file, meta.line, f"includes {path}, which includes it")
            return
        if path in self.includes:
            return
        try:
            data = (self.folder / path).read_bytes()
            text = sql.normalise(data)
        except ValueError:
            self.problem(file, meta.line, f"includes {path}, which isn't UTF-8 text")
            return
        self.includes[path] = text
        self.files[path] = self.folder / path if data == text.encode("utf-8") else text.encode("utf-8")
        lexed = self.visit(path, text, above)
        self.transaction_control(path, lexed, allowed=[])

    def _path(self, file: str, meta: Meta, argument: str, base: PurePosixPath) -> str | None:
        """The path below the folder that an argument names, or None after a problem was noted."""
        quoted = re.fullmatch(r"'((?:[^'\\]|'')+)'", argument)
        name = quoted[1].replace("''", "'") if quoted else argument
        if not quoted and not re.fullmatch(r"[^\s'\":\\|`]+", argument):
            self.problem(file, meta.line, f"\\{meta.name} {argument}: write the path plainly, or in single quotes")
            return None
        parts: list[str] = []
        for part in (base / name).parts:
            if part == "..":
                if not parts:
                    break
                parts.pop()
            else:
                parts.append(part)
        else:
            path = "/".join(parts)
            if not path.startswith(("/", "~")) and (self.folder / path).is_file():
                return path
        self.problem(file, meta.line, f"\\{meta.name} {name}: no such file in the migrations folder, from which paths count")
        return None

    def _copy(self, file: str, meta: Meta) -> None:
        source = _copy_target(meta.args)
        if source is None:
            self.problem(file, meta.line, "\\copy: neither FROM nor TO is found in it")
            return
        direction, target = source
        if direction == "FROM" and target.upper() == "STDIN":
            return
        if direction == "TO" and target.upper() == "STDOUT":
            return
        if target.upper() == "PROGRAM":
            self.problem(file, meta.line, "\\copy with PROGRAM runs a program on the client")
        elif direction == "TO":
            self.problem(file, meta.line, "\\copy TO a file writes on the client")
        elif target.upper() == "PSTDIN":
            self.problem(file, meta.line, "\\copy FROM pstdin reads the runner's own input")
        else:
            path = self._path(file, meta, target, PurePosixPath())
            if path is not None:
                self.files[path] = self.folder / path

    def _hidden_metas(self, file: str, text: str, lexed: Lexed) -> None:
        seen = {meta.start for meta in lexed.metas}
        for match in _HIDDEN.finditer(text):
            if match.start() not in seen:
                what = f"{match.group()} inside a string, a comment or data, in a file that uses \\gexec"
                self.problem(file, _line(text, match.start()), what)


def _copy_target(args: str) -> tuple[str, str] | None:
    """("FROM" or "TO", what follows it) of a \\copy, parentheses and quotes skipped as psql's copy.c does."""
    depth, direction = 0, ""
    for token in _copy_tokens(args):
        if direction:
            return direction, token
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
        elif not depth and token.upper() in ("FROM", "TO"):
            direction = token.upper()
    return None


def _copy_tokens(args: str) -> Iterator[str]:
    for match in re.finditer(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[()]|[^\s()'"]+|['"]""", args):
        yield match.group()


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
