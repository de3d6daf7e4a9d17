"""What a migration may not hold, told before anything runs: file, line and reason.

Two promises rest on this module and on the guard in the ledger's SQL behind it: nothing in a file runs a program on
the client, and nothing in it makes the ledger say what isn't so. A meta-command is refused unless it is known to keep
both. Pure but for reading the files that a migration includes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from scripts import lexer, sql
from scripts.errors import OpsError, counted
from scripts.lexer import Lexed, Meta, Statement
from scripts.sql import Folder, Migration, Problem

_BLANKS = re.compile(f"[{lexer.BLANKS}]+")


def _words(args: str) -> list[str]:
    """The words of an argument as psql separates them; str.split() knows other blanks too."""
    return [word for word in _BLANKS.split(args) if word]


_INCLUDES = frozenset({"i", "include", "ir", "include_relative"})
# Harmless whatever their arguments, as long as those run nothing.
_HARMLESS = frozenset(
    _words(
        "a bind conninfo echo elif else endif errverbose f gdesc gexec gset if pset qecho restrict t timing unrestrict "
        "unset warn x"
    )
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
# Variables that psql sets itself or heeds. They are not unset before a file, so that another file's value may be in them.
_PSQL_VARIABLES = frozenset(_OWN_VARIABLES) | frozenset(
    _words(
        "COMP_KEYWORD_CASE DBNAME ECHO ECHO_HIDDEN ENCODING ERROR FETCH_COUNT HIDE_TABLEAM HIDE_TOAST_COMPRESSION HISTCONTROL "
        "HISTFILE HISTSIZE HOST IGNOREEOF LASTOID LAST_ERROR_MESSAGE LAST_ERROR_SQLSTATE PIPELINE_COMMAND_COUNT "
        "PIPELINE_RESULT_COUNT PIPELINE_SYNC_COUNT PORT PROMPT1 PROMPT2 PROMPT3 QUIET ROW_COUNT SERVER_VERSION_NAME "
        "SERVER_VERSION_NUM SERVICE SERVICEFILE SHELL_ERROR SHELL_EXIT_CODE SHOW_ALL_RESULTS SHOW_CONTEXT SQLSTATE USER "
        "VERBOSITY VERSION VERSION_NAME VERSION_NUM WATCH_INTERVAL"
    )
)
_TRANSACTION_WORDS = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"})
_TRANSACTION_PAIRS = frozenset({("START", "TRANSACTION"), ("PREPARE", "TRANSACTION"), ("SET", "TRANSACTION")})
_OPENINGS = frozenset({("BEGIN",), ("BEGIN", "WORK"), ("BEGIN", "TRANSACTION"), ("START", "TRANSACTION")})
_CLOSINGS = frozenset((word, *rest) for word in ("COMMIT", "END") for rest in ((), ("WORK",), ("TRANSACTION",)))
# A :name outside quotes is lexed by psql again. These values can't change what psql makes of the text around them.
_SAFE_VALUE = re.compile(r"[A-Za-z0-9_.]+(?: [A-Za-z0-9_.]+)*")
_UNSAFE_WORDS = _TRANSACTION_WORDS | frozenset(
    _words("START PREPARE SET TRANSACTION DISCARD ALL COPY FROM STDIN STDOUT CASE CREATE OR REPLACE FUNCTION PROCEDURE ATOMIC E")
)
# Settings by which psql finds the end of a string: what to look for in a SET, and why it is refused.
_SETTINGS = {
    "CLIENT_ENCODING": (r"client_encoding\s*(=|to)\s*'?(utf-?8|unicode)\b", "changes client_encoding, and migrations are UTF-8"),
    "NAMES": (r"names\s*'?(utf-?8|unicode)\b", "changes client_encoding, and migrations are UTF-8"),
    "STANDARD_CONFORMING_STRINGS": (
        r"standard_conforming_strings\s*(=|to)\s*'?(on|true|1)\b",
        "changes standard_conforming_strings, by which psql finds the end of a string",
    ),
}
# Where a function changes those settings, or \gexec makes psql read lines as data, psql may come to read what are strings,
# comments or data here: these may then not hide in them. The name of a meta-command ends at a blank or a backslash.
_HIDDEN = re.compile(
    rf"\\(?=(!|i|ir|include|include_relative|copy|set|unset|setenv|gset|q|quit|c|connect|e|ef|ev|edit|prompt|cd|watch"
    rf"|password|if|elif|else|endif|lo_import|lo_export|(?:g|gx|w|write|o|out)(?=[{lexer.BLANKS}]))(?:[{lexer.BLANKS}\\]|\Z)|[^\n]*`)"
)
_UNLOCK = re.compile(r"\bpg_advisory_unlock_all\b", re.IGNORECASE)
# In an encoding such as BIG5, psql takes the character behind one beyond ASCII for a part of it.
_SWALLOWED = re.compile(r"""[^\x00-\x7f]['"$\\*/:0-9-]""")
_PLAIN_ARGS = re.compile(r"[A-Za-z0-9_:{}?. ]*")
_RAW_MENTION = re.compile(r"\\[:;]|::|:=|:((?:[A-Za-z0-9_]|[^\x00-\x7f])+)")


@dataclass(frozen=True)
class Checked:
    """A migration that was read through, ready to be handed to psql."""

    migration: Migration
    script: str = field(repr=False)  # the text to run: the migration's own, without an outer BEGIN and COMMIT
    includes: Mapping[str, str] = field(default_factory=dict, repr=False)  # path below the folder -> text
    # All that psql will read, by path below the folder: the text that was checked, or which file of data is copied from.
    files: Mapping[str, Path | bytes] = field(default_factory=dict, repr=False)
    variables: frozenset[str] = frozenset()  # psql variables it mentions
    uses_metas: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    def texts(self) -> dict[str, str]:
        """The text to run and those that it includes, by file."""
        return {self.migration.file: self.script, **self.includes}


def read_folder(path: Path) -> tuple[Folder, dict[str, Checked]]:
    """Reads a folder, and its repeatable files through: whether one has changed depends on what it includes and copies, too.

    Raises UsageError as `sql.read_folder` does. The second is what was read through, by file.
    """
    folder = sql.read_folder(path)
    checked = {migration.file: _with_all_it_reads(check(migration, path)) for migration in folder.repeatables}
    return replace(folder, repeatables=tuple(item.migration for item in checked.values())), checked


def _with_all_it_reads(checked: Checked) -> Checked:
    """The same with a checksum over everything that psql reads for it."""
    migration = checked.migration
    others = {path: content for path, content in checked.files.items() if path != migration.file}
    if not others:
        return checked
    whole = hashlib.sha256(migration.checksum.encode("ascii"))
    for path, content in sorted(others.items()):
        try:
            data = content if isinstance(content, bytes) else content.read_bytes()
        except OSError as error:
            problem = Problem(migration.file, None, f"reads {path}, which can't be read: {error.strerror}")
            return replace(checked, problems=(*checked.problems, problem))
        whole.update(f"\n{path} {hashlib.sha256(data).hexdigest()}".encode())
    return replace(checked, migration=replace(migration, checksum=whole.hexdigest()))


def refusal(problems: Sequence[Problem], folder: Path, again: str) -> OpsError:
    """What is said of files that may not run; `again` is the command to repeat."""
    listed = "\n".join(f"  {problem}" for problem in problems)
    return OpsError(
        f"{counted(len(problems), 'problem')} in {folder}; nothing was applied:\n{listed}",
        f"mend the files (rules: migrations/README.md), then: {again}",
    )


def check_all(migrations: Iterable[Migration], folder: Path, checked: dict[str, Checked]) -> list[Problem]:
    """What is wrong with files. Those that are not in `checked` yet are read through, and kept there."""
    problems: list[Problem] = []
    for migration in migrations:
        if migration.file not in checked:
            checked[migration.file] = check(migration, folder)
        problems += checked[migration.file].problems
    return problems


def check(migration: Migration, folder: Path) -> Checked:
    """Reads a migration and everything that it includes, and lists what would have to change before it may run."""
    walk = _Walk(migration, folder)
    lexed = walk.visit(migration.file, migration.text, ())
    script = migration.text
    if not lexed.items and migration.text.strip():
        walk.problem(migration.file, None, "holds nothing to run")
    wrapper = _wrapper(script, list(lexed.statements)) if migration.transactional else []
    for statement in wrapper:
        script = _without(script, statement, lexed)
    walk.transaction_control(migration.file, lexed, allowed=wrapper)
    walk.outside_a_transaction(migration.file, migration.text, lexed)
    walk.raw_variables()
    walk.files[migration.file] = _as_psql_reads_it(script)
    problems = tuple(sorted(walk.problems, key=lambda problem: (problem.file, problem.line or 0)))
    variables = frozenset(walk.variables) - _PSQL_VARIABLES
    return Checked(migration, script, walk.includes, walk.files, variables, walk.uses_metas, problems)


def _as_psql_reads_it(text: str) -> bytes:
    """With the end of the last line, without which psql doesn't take `\\.` there for the end of COPY's data."""
    return (text if text.endswith("\n") else f"{text}\n").encode("utf-8")


def _wrapper(text: str, statements: list[Statement]) -> list[Statement]:
    """The BEGIN and the COMMIT of a file that is wrapped whole in the two, else nothing."""
    if len(statements) < 2:
        return []
    first, last = statements[0], statements[-1]
    whole = first.plain and first.words in _OPENINGS and last.plain and last.words in _CLOSINGS
    if not whole or first.depth or last.depth or any(_controls_transaction(inner) for inner in statements[1:-1]):
        return []
    if any(text[statement.end - 1] != ";" and statement.end < len(text) for statement in (first, last)):
        return []  # a \\g ends it, which alone would repeat what was sent before
    return [first, last]


def _without(text: str, statement: Statement, lexed: Lexed) -> str:
    """The text with blanks for a statement, but for meta-commands in it: one may stand behind the comment that it begins with."""
    blank = [*re.sub(r"[^\n]", " ", text[statement.start : statement.end])]
    for _, start, end in lexed.foreign:
        if statement.start <= start < statement.end:
            blank[start - statement.start : end - statement.start] = text[start:end]
    return text[: statement.start] + "".join(blank) + text[statement.end :]


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
        self._joined: list[tuple[str, int, str]] = []
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
        self._joined += [(file, line, name) for line, name in lexed.joined_variables]
        self.variables |= lexed.variables
        for meta in lexed.metas:
            self.uses_metas = True
            self._meta(file, meta, (*above, file))
        restrict, unrestrict = ([meta for meta in lexed.metas if meta.name == name] for name in ("restrict", "unrestrict"))
        if [meta.args for meta in restrict] != [meta.args for meta in unrestrict]:  # pg_dump writes one of each
            self.problem(file, (restrict or unrestrict)[0].line, "\\restrict and \\unrestrict don't come in pairs of one key")
        for statement in lexed.statements:
            self._setting(file, text, statement)
        unlock = "pg_advisory_unlock_all" in text.lower() and _UNLOCK.search(text)  # a search without case takes 40 times as long
        if unlock:
            self.problem(file, text.count("\n", 0, unlock.start()) + 1, "pg_advisory_unlock_all gives up the runner's lock")
        uses_gexec = any(meta.name == "gexec" for meta in lexed.metas)
        if uses_gexec or lexed.ambiguous or _SWALLOWED.search(text):
            self._hidden(file, text, lexed)
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
            elif statement.words[:1] == ("DISCARD",) and statement.words[1:] in ((), ("ALL",)):
                self.problem(file, statement.line, "DISCARD ALL gives up the runner's lock; every file has a clean session")

    def outside_a_transaction(self, file: str, text: str, lexed: Lexed) -> None:
        """Refuses what the server would refuse only after the files before it were applied."""
        for statement in lexed.statements:
            words = tuple(word for word in statement.words if word != "UNIQUE")
            concurrently = words[1:3] == ("INDEX", "CONCURRENTLY") and words[0] in ("CREATE", "DROP")
            if self.migration.transactional and (concurrently or words[:1] == ("VACUUM",) or words[:2] == ("ALTER", "SYSTEM")):
                what = " ".join(words[:3] if concurrently else words[:2] if words[0] == "ALTER" else words[:1])
                self.problem(
                    file,
                    statement.line,
                    f"{what} can't run in a transaction: put `-- migrate: no-transaction` into the first comment",
                )
            elif concurrently and re.search(r"\bconcurrently\s+on\b", text[statement.start : statement.end], re.IGNORECASE):
                self.problem(
                    file, statement.line, "CREATE INDEX CONCURRENTLY without a name: nobody could tell what a cut-off run left"
                )

    def raw_variables(self) -> None:
        """Refuses a :name in SQL whose value could change how psql splits the text around it."""
        for file, line, name in self._raw:
            if name in _PSQL_VARIABLES or not self._is_safe(name):
                self.problem(file, line, f"""the value of :{name} is put into the SQL as it is: write :'{name}' or :"{name}\"""")
        for file, line, name in self._joined:
            if name in self._set_safely:
                self.problem(
                    file, line, f":{name} touches a word or a quote, with which its value runs together: put a blank between"
                )

    def _is_safe(self, name: str) -> bool:
        return self._set_safely.get(name, True) and not any(name.startswith(prefix) for prefix in self._gset_prefixes)

    def _setting(self, file: str, text: str, statement: Statement) -> None:
        words = tuple(word for word in statement.words[:3] if word not in ("SESSION", "LOCAL"))
        if words[:1] == ("SET",) and words[1:2] and words[1] in _SETTINGS:
            pattern, what = _SETTINGS[words[1]]
            if not re.search(pattern, text[statement.start : statement.end], re.IGNORECASE):
                self.problem(file, statement.line, what)

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
        elif name == "unset" and meta.args and not self._may_set(_words(meta.args)[0], None):
            self.problem(file, meta.line, f"\\unset {meta.args} changes how psql works under the runner")
        elif name == "gset":
            if re.fullmatch(r"[A-Za-z0-9_]*", meta.args):
                self._gset_prefixes.append(meta.args)
            else:
                self.problem(file, meta.line, "\\gset: write the prefix plainly, in letters, digits and _")
        elif name == "encoding" and meta.args.strip("'").lower() in ("utf8", "utf-8", "unicode"):
            pass
        elif not (name in _HARMLESS or (name in _NO_ARGUMENT and not meta.args) or re.fullmatch(r"d[A-Za-z+]*", name)):
            reason = _REASONS.get(_ALIASES.get(name, name), "is not known to be safe in a migration")
            self.problem(file, meta.line, f"\\{name} {reason}")

    def _set(self, file: str, meta: Meta) -> None:
        name, value = (*_BLANKS.split(meta.args, maxsplit=1), "")[:2]
        if name and not self._may_set(name, value):
            self.problem(file, meta.line, f"\\set {meta.args} changes how psql works under the runner")
        # Several words without quotes are joined without the space between them.
        plain = value[1:-1] if re.fullmatch(r"'[^'\\]*'", value) else "".join(_words(value))
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
            text = sql.normalise((self.folder / path).read_bytes())
        except ValueError:
            self.problem(file, meta.line, f"includes {path}, which isn't UTF-8 text")
            return
        self.includes[path] = text
        self.files[path] = _as_psql_reads_it(text)
        lexed = self.visit(path, text, above)
        self.transaction_control(path, lexed, allowed=[])
        self.outside_a_transaction(path, text, lexed)

    def _path(self, file: str, meta: Meta, argument: str, base: PurePosixPath) -> str | None:
        """The path below the folder that an argument names, or None after a problem was noted."""
        quoted = re.fullmatch(r"'((?:[^'\\]|'')+)'", argument)
        name = quoted[1].replace("''", "'") if quoted else argument
        if not quoted and not re.fullmatch(r"[^\s'\":;\\|`]+", argument):  # psql drops a semicolon at the end
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
            # `-` is standard input, by which psql is driven, ~ somebody's home, and C: on Windows a disk.
            outside = name == "-" or path.startswith("/") or name.startswith("~") or PureWindowsPath(path).drive
            if not outside and (self.folder / path).is_file():
                return path
        self.problem(file, meta.line, f"\\{meta.name} {name}: not a file inside the migrations folder, from which paths count")
        return None

    def _copy(self, file: str, meta: Meta) -> None:
        source = lexer.copy_target(meta.args)
        if re.search(r"(?<![A-Za-z0-9_])program(?![A-Za-z0-9_])", meta.args, re.IGNORECASE):
            self.problem(file, meta.line, "\\copy with PROGRAM runs a program on the client")
            return
        if source is None:
            self.problem(file, meta.line, "\\copy: neither FROM nor TO is found in it")
            return
        direction, target = source
        if lexer.keyword(target) in ("STDIN", "STDOUT"):
            return
        if direction == "TO":
            self.problem(file, meta.line, "\\copy TO a file writes on the client")
        elif lexer.keyword(target) == "PSTDIN":
            self.problem(file, meta.line, "\\copy FROM pstdin reads the runner's own input")
        else:
            path = self._path(file, meta, target, PurePosixPath())
            if path is not None:
                self.files[path] = self.folder / path

    def _hidden(self, file: str, text: str, lexed: Lexed) -> None:
        """Refuses meta-commands in what is a string, a comment or data only as long as psql reads the file as we do."""
        seen = {meta.start for meta in lexed.metas}
        for match in _HIDDEN.finditer(text):
            if match.start() not in seen:
                name = f"\\{match[1]}" if match[1] else "a backslash before `"
                what = (
                    f"{name} inside a string, a comment or data: write it otherwise; settings decide where those end in this file"
                )
                self.problem(file, _line(text, match.start()), what)
        for meta in lexed.metas:  # what can be nothing else doesn't count below
            if _PLAIN_ARGS.fullmatch(meta.args) and text[: meta.start][-1:].isascii():
                end = text.index(meta.args, meta.start + 1 + len(meta.name)) + len(meta.args)
                text = text[: meta.start] + " " * (end - meta.start) + text[end:]
        for match in _RAW_MENTION.finditer(text):
            if match[1]:
                self.variables.add(match[1])
                self._raw.append((file, _line(text, match.start()), match[1]))


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
