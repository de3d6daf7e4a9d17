"""A SQL file as psql sees it: statements, meta-commands, COPY data. Pure.

psql finds the end of a statement, and every meta-command, on the client. Whoever wants to say before the run what a
file will do must split it in exactly psql's way: strings, dollar quotes, nested comments, parentheses, BEGIN ATOMIC
bodies, variables, and the data lines of COPY. Source of the rules: psqlscan.l, psqlscanslash.l and copy.c of
PostgreSQL 14 to 18. What no reading of a file can decide is reported as a problem instead of guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# Letters are what isn't another ASCII character: a set of so few ranges compiles ten times as fast.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"  # A-Z a-z _ and all beyond ASCII
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-^`{-\x7f]"
_IDENT = rf"{_LETTER}(?:{_LETTER_OR_DIGIT}|\$)*"
_VAR = rf"{_LETTER_OR_DIGIT}+"  # the characters of a psql variable's name
BLANKS = " \t\n\f\v"  # what psql splits arguments at; str.split() and \s know others

# One token of SQL. Order matters where two could match at one place, as longest-match does in psql's own lexer.
_TOKENS = rf"""
      (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<estring>[eE]'(?:[^'\\]|''|\\.)*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<open>[eE]?'|")                                     # a quote without its end
    | (?P<dollar>\$(?:{_LETTER}{_LETTER_OR_DIGIT}*)?\$)
    | (?P<paramjunk>\$[0-9]+{_LETTER})
    | (?P<param>\$[0-9]+)
    | (?P<word>{_IDENT})
    | (?P<number>[0-9][0-9A-Za-z_.]*)
    | (?P<cast>::|:=)
    | (?P<safevar>:'{_VAR}'|:"{_VAR}"|:\{{\?{_VAR}\}})
    | (?P<var>:{_VAR})
    | (?P<literal>\\[;:])                                    # \; joins two statements into one message
    | (?P<meta>\\)
    | (?P<other>.)
    """
_BLANK = r"[ \t\n\f\v]"
_TOKEN = re.compile(rf"{_BLANK}*(?:(?P<end>\Z)|{_TOKENS})", re.VERBOSE | re.DOTALL)  # with the blanks before it
_SPACE = re.compile(rf"{_BLANK}*")
_ROUTINE = re.compile(r"CREATE (OR REPLACE )?(FUNCTION|PROCEDURE)\b")
_NUMBER = re.compile(r"[0-9][0-9_]*(\.[0-9_]*)?([eE][0-9_]*)?|0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+")
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_ANY_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_META_NAME = re.compile(r"[^ \t\n\f\v\\]*")
_WHOLE_LINE = frozenset({"copy", "!", "h", "help", "ef", "ev", "sf", "sv"})  # their argument is the rest of the line
# Meta-commands that send what stands before them, as a semicolon does.
_SENDERS = frozenset({"g", "gx", "gset", "gexec", "gdesc", "crosstabview", "crosstab", "watch"})
_END_OF_DATA = re.compile(r"^\\\.$", re.MULTILINE)
# The tokens of \copy's arguments, as copy.c of psql asks strtokx() for them: what quotes and separates differs by place.
_COPY_NAME = re.compile(r"""[ \t\n\r]*("(?:[^"]|"")*"?|[.,()]|[^ \t\n\r.,()"]+)""")
_COPY_COLUMN = re.compile(r"""[ \t\n\r]*("(?:[^"]|"")*"?|[()]|[^ \t\n\r()"]+)""")
_COPY_QUERY = re.compile(
    r"""[ \t\n\r]*([eE]'(?:[^'\\]|''|\\.)*'?|'(?:[^']|'')*'?|"(?:[^"]|"")*"?|[()]|[^ \t\n\r()"']+)""", re.DOTALL
)
_COPY_TARGET = re.compile(r"""[ \t\n\r]*('(?:[^']|'')*'?|;|[^ \t\n\r;']+)""")
_MENTION = re.compile(rf""":['"]?({_VAR})|:\{{\?({_VAR})""")
_WORDLIKE = re.compile(rf"{_LETTER_OR_DIGIT}|\$")
_STDIN = frozenset({"STDIN", "STDOUT"})  # COPY takes either word in either direction
CONDITIONALS = frozenset({"if", "elif", "else", "endif"})


@dataclass(frozen=True)
class Statement:
    """One SQL statement: its first words in upper case (comments skipped) and where it stands."""

    words: tuple[str, ...]
    line: int  # of its first word
    sent_line: int  # of the first character that psql sends, which is that of a block comment before the word
    end_line: int
    start: int  # offset of the first character that psql sends
    end: int  # offset behind its last character, the terminator included
    depth: int  # how many \if it stands in
    copies_stdin: bool = False
    plain: bool = True  # made of words alone, as BEGIN and COMMIT WORK are


@dataclass(frozen=True)
class Meta:
    """One meta-command: its name without the backslash, and its argument text as written."""

    name: str
    args: str
    line: int
    start: int  # offset of its backslash
    depth: int


@dataclass
class Lexed:
    """What a file is made of."""

    items: list[Statement | Meta] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)  # (line, what psql and we could see differently)
    raw_variables: list[tuple[int, str]] = field(default_factory=list)  # (line, name) of :name put into SQL unquoted
    joined_variables: list[tuple[int, str]] = field(default_factory=list)  # those that touch another word or a quote
    variables: set[str] = field(default_factory=set)  # every psql variable that SQL or an argument mentions
    ambiguous: bool = False  # without standard_conforming_strings, strings would end elsewhere
    # (kind, start, end) of what is psql's own and no SQL: "meta", "sender" (which ends a statement), "data", "variable"
    foreign: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def statements(self) -> Iterator[Statement]:
        """The SQL statements alone, in order."""
        return (item for item in self.items if isinstance(item, Statement))

    @property
    def metas(self) -> Iterator[Meta]:
        """The meta-commands alone, in order."""
        return (item for item in self.items if isinstance(item, Meta))


def lex(text: str) -> Lexed:
    """Splits a file's text, line ends normalised to LF, into statements and meta-commands."""
    return _Lexer(text).run()


def as_sql(text: str, *, variables: bool = True) -> str:
    """The text with blanks for what is psql's own, so that what reads plain SQL can read it; each line stays where it is.

    A variable becomes a name, a string or `true`, as it was quoted, unless `variables` says to leave them.
    """
    pieces, at = [], 0
    for kind, start, end in lex(text).foreign:
        if kind == "variable" and not variables:
            continue
        found = text[start:end]
        if kind == "variable":
            kept = "true".ljust(len(found)) if found.startswith(":{") else f" {found[1:]}"
        else:
            kept = (";" if kind == "sender" else "") + re.sub(r"[^\n]", " ", found[kind == "sender" :])
        pieces += [text[at:start], kept]
        at = end
    return "".join([*pieces, text[at:]])


def uncommented(text: str, statement: Statement) -> str:
    """A statement's text with a blank for each comment."""
    return _ANY_COMMENT.sub(" ", text[statement.start : statement.end]).strip()


def tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """(kind, token, offset) of a text of SQL alone, comments included, blanks not; kinds are the names in _TOKEN."""
    at = 0
    while (token := _TOKEN.match(text, at)) and token.lastgroup != "end":
        kind = token.lastgroup or ""
        start, at = token.span(kind)
        if kind == "block":
            at = _comment_end(text, at) or len(text)
        elif kind == "dollar":
            closing = text.find(token[kind], at)
            at = len(text) if closing < 0 else closing + len(token[kind])
        elif kind == "open":
            at = len(text)
        yield kind, text[start:at], start


def _comment_end(text: str, at: int) -> int | None:
    """The offset behind a block comment, of which `at` is inside; such comments nest. None when it isn't closed."""
    nested = 1
    while nested:
        edge = _BLOCK_EDGE.search(text, at)
        if edge is None:
            return None
        nested += 1 if edge.group() == "/*" else -1
        at = edge.end()
    return at


class _Lexer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.out = Lexed()
        self.depth = 0  # of \if
        self._line_at = (0, 1)
        self._batch: list[Statement] = []  # ended by \; and not sent yet
        self._data_due: list[int] = []  # lines of what was sent and now reads data, from the next line on
        self._unsure = False  # whether psql may still have words of an earlier statement in mind
        self._begin_statement()

    def _begin_statement(self) -> None:
        self.start: int | None = None  # offset of the first token, a block comment included (psql sends it)
        self.content = False  # whether there is more than comments
        self.first = 0  # offset of the first token that is no comment
        self.words: list[str] = []
        self.plain = True
        self.parens = 0
        self.routine = False  # CREATE [OR REPLACE] FUNCTION or PROCEDURE, whose BEGIN ATOMIC body keeps its semicolons
        self.begins = 0  # open BEGIN ATOMIC bodies and CASEs in them
        self.begun = False  # whether the token before was the BEGIN of a body
        self.escapes = False  # whether the token before was an E'' string, which a string on the next line continues
        self.copy = ""  # of a COPY: "", then "COPY", then "FROM", then "STDIN" as the words come by

    def _line(self, offset: int) -> int:
        """The 1-based line of an offset. Offsets mostly rise, so the count goes on from the last one."""
        before, line = self._line_at
        if offset < before:
            return self.text.count("\n", 0, offset) + 1
        line += self.text.count("\n", before, offset)
        self._line_at = (offset, line)
        return line

    def _problem(self, offset: int, what: str) -> None:
        self.out.problems.append((self._line(offset), what))

    def run(self) -> Lexed:
        text, size = self.text, len(self.text)
        while self.at < size:
            if self._data_due and self._data_begins():
                continue
            token = _TOKEN.match(text, self.at)
            assert token is not None  # `other` matches anything
            kind = token.lastgroup or ""
            start, self.at = token.span(kind)
            if kind in ("comment", "end"):
                continue
            value = token[kind]
            if self._data_due:
                self._problem(start, "text behind COPY ... FROM STDIN on the same line: psql reads the data first")
                self._data_due.clear()
            if kind == "meta":
                self._meta(start)
            elif value == "\\;":
                self.out.foreign.append(("sender", start, self.at))
                self._expect_closed(start, "\\;")
                self._end_statement(start, self.at)
                self._unsure = True
            elif value == ";" and not self.parens and not self.begins:
                self._end_statement(start, self.at)
                self._send()
                self._unsure = False
            else:
                if self.start is None:
                    self.start = start
                self._part(kind, value, start)
        if self.start is not None:
            if self.begins:
                self._problem(self.start, "a BEGIN inside CREATE FUNCTION or PROCEDURE has no END")
            elif self.parens:
                self._problem(self.start, "a parenthesis is not closed")
            self._end_statement(size, size)
        self._send()
        self._skip_data()
        if self.depth:
            self._problem(size, "an \\if is not closed by \\endif")
        return self.out

    def _part(self, kind: str, value: str, start: int) -> None:
        """Takes one token into the statement under way."""
        if kind == "block":
            self._block_comment(start)
            return
        if not self.content:
            self.content, self.first = True, start
        word = keyword(value) if kind == "word" else ""
        if self.begun and word != "ATOMIC":
            self._problem(start, "BEGIN in CREATE FUNCTION or PROCEDURE without ATOMIC: psql takes it for a body; quote the name")
        self.begun = False
        if self.escapes and kind == "string" and "\\" in value:
            self._problem(
                start, "a string that continues an E'' string holds a backslash, which psql and the server read differently"
            )
        self.escapes = kind == "estring" or (self.escapes and kind == "string")
        if kind == "word":
            self._word(word, start)
            return
        self.plain = False
        if kind == "dollar":
            end = self.text.find(value, self.at)
            if end < 0:
                self._problem(start, f"the dollar quote {value} is not closed")
            self.at = len(self.text) if end < 0 else end + len(value)
        elif kind == "open":
            self._problem(start, "a quote is not closed")
            self.at = len(self.text)
        elif kind == "string":
            self.out.ambiguous = self.out.ambiguous or "\\'" in value
        elif kind == "number" and value[-1] in "eE" and self.text.startswith("'", self.at):
            self._problem(start, "a number runs into a string, which versions of psql read differently")
        elif kind == "paramjunk" or (kind == "number" and not _NUMBER.fullmatch(value)):
            self._problem(start, "a number runs into a word, which versions of psql read differently")
        elif kind == "safevar":
            self.out.foreign.append(("variable", start, self.at))
            self.out.variables |= variables_in(value)
        elif kind == "var":
            self.out.foreign.append(("variable", start, self.at))
            self.out.variables.add(value[1:])
            self.out.raw_variables.append((self._line(start), value[1:]))
            if _WORDLIKE.match(self.text[start - 1 : start]) or self.text[self.at : self.at + 1] in tuple("'\"$&"):
                self.out.joined_variables.append((self._line(start), value[1:]))
        elif value == "(":
            self.parens += 1
        elif value == ")" and self.parens:
            self.parens -= 1
        elif value == ";" and self.begins > 1:
            self._problem(
                start, "a semicolon inside CASE or a second BEGIN of a function's body: psql misses its END; quote the name"
            )

    def _word(self, word: str, start: int) -> None:
        if len(self.words) < 6:
            self.words.append(word)
        if len(self.words) <= 4:
            self.routine = self.words[0] == "CREATE" and _ROUTINE.match(" ".join(self.words)) is not None
        else:
            self.plain = False
        if self.parens:
            return
        if word == "BEGIN" and self._unsure:
            self._problem(
                start, "BEGIN after \\; or a \\g... inside \\if, where psql may miss it: end the statement before with ;"
            )
        if self.routine:
            if word == "BEGIN" or (word == "CASE" and self.begins):
                self.begins += 1
                self.begun = word == "BEGIN"
            elif word == "END" and self.begins:
                self.begins -= 1
        elif self.words[0] == "COPY" and self.copy != "STDIN":
            reads = word in _STDIN and self.copy == "FROM"
            self.copy = "STDIN" if reads else "FROM" if word == "FROM" else "COPY"

    def _block_comment(self, start: int) -> None:
        end = _comment_end(self.text, self.at)
        if end is None:
            self._problem(start, "a comment is not closed")
        self.at = len(self.text) if end is None else end

    def _expect_closed(self, start: int, what: str) -> None:
        """Notes when a statement ends inside of something; psql would carry on with it or not, by version and branch."""
        if self.parens or self.begins:
            self._problem(start, f"{what} inside parentheses or a function's body")

    def _end_statement(self, last: int, end: int) -> None:
        """Records the statement under way; `last` is the offset at which psql notices its end."""
        if self.start is not None and self.content:
            statement = Statement(
                words=tuple(self.words),
                line=self._line(self.first),
                sent_line=self._line(self.start),
                end_line=self._line(last),
                start=self.start,
                end=end,
                depth=self.depth,
                copies_stdin=self.copy == "STDIN",
                plain=self.plain,
            )
            self.out.items.append(statement)
            self._batch.append(statement)
        self._begin_statement()

    def _send(self) -> None:
        """psql sends what it has gathered; each COPY FROM STDIN in it then reads data."""
        for statement in self._batch:
            if statement.copies_stdin:
                self._expect_data(statement.line)
        self._batch.clear()

    def _expect_data(self, line: int) -> None:
        self._data_due.append(line)
        if self.depth:
            # In a branch that is skipped, psql reads the data lines as SQL and may lose its way in their quotes.
            self.out.problems.append((line, "COPY FROM STDIN inside \\if: put it outside, or use \\copy from a file"))

    def _data_begins(self) -> bool:
        """Whether the line of what reads data ends here; then the data are skipped."""
        blanks = _SPACE.match(self.text, self.at)
        assert blanks is not None  # it matches the empty string
        if "\n" not in blanks[0]:
            return False
        self.at += blanks[0].index("\n") + 1
        self._skip_data()
        return True

    def _skip_data(self) -> None:
        """Jumps over the data of every COPY that waits, each up to its line of backslash and full stop."""
        begin = self.at
        for line in self._data_due:
            end = _END_OF_DATA.search(self.text, self.at)
            if end is None:
                self.out.problems.append((line, "the data of COPY FROM STDIN does not end with a line \\."))
                self.at = len(self.text)
                break
            self.at = min(end.end() + 1, len(self.text))
        if self._data_due:
            self.out.foreign.append(("data", begin, self.at))
        self._data_due.clear()

    def _meta(self, start: int) -> None:
        found = _META_NAME.match(self.text, self.at)
        assert found is not None  # it matches the empty string
        name, args_from = found.group(), found.end()
        if not name and self.text.startswith("\\", args_from):  # `\\` only separates
            self.at = args_from + 1
            self.out.foreign.append(("meta", start, self.at))
            return
        line_end = self.text.find("\n", args_from)
        line_end = len(self.text) if line_end < 0 else line_end
        self.at = line_end if name in _WHOLE_LINE else self._end_of_args(args_from, line_end)
        self.out.foreign.append(("sender" if name in _SENDERS else "meta", start, self.at))
        args = self.text[args_from : self.at].strip(BLANKS)
        if name in CONDITIONALS and self.content:
            self._problem(start, f"\\{name} in the middle of a statement")
        if name == "endif":
            self.depth = max(0, self.depth - 1)
        if name in _SENDERS:
            self._sender(name, start)
        self.out.variables |= variables_in(args)
        self.out.items.append(Meta(name, args, self._line(start), start, self.depth))
        if name == "if":
            self.depth += 1
        if name == "copy":
            self.out.ambiguous = self.out.ambiguous or "\\" in args
            direction, target = copy_target(args) or ("", "")
            if direction == "FROM" and keyword(target) in _STDIN:
                self._expect_data(self._line(start))

    def _sender(self, name: str, start: int) -> None:
        """A meta-command that sends what stands before it."""
        if not self.content and not self._batch:
            self._problem(start, f"\\{name} without a statement before it repeats the last one")
        self._expect_closed(start, f"\\{name}")
        self._end_statement(start, start)
        if name != "g" and any(statement.copies_stdin for statement in self._batch):
            self._problem(start, f"\\{name} behind COPY FROM STDIN: end it with a semicolon")
        self._send()
        self._unsure = self.depth > 0  # a branch that is skipped sends nothing, and psql keeps the words in mind

    def _end_of_args(self, at: int, line_end: int) -> int:
        """Where a meta-command's arguments end: at the line's end or at the next backslash outside quotes."""
        quote = ""
        while at < line_end:
            char = self.text[at]
            if quote:
                if char == "\\" and quote == "'":
                    at += 1
                elif char == quote:
                    quote = ""
            elif char in "'\"`":
                quote = char
            elif char == "\\":
                return at
            at += 1
        return line_end


def copy_target(args: str) -> tuple[str, str] | None:
    """("FROM" or "TO", the token behind it, quotes included) of a \\copy, or None where psql finds neither."""
    at = 0

    def token(pattern: re.Pattern[str]) -> str:
        nonlocal at
        match = pattern.match(args, at)
        at = match.end() if match else len(args)
        return match[1] if match else ""

    word = token(_COPY_NAME)
    if keyword(word) == "BINARY":
        word = token(_COPY_NAME)
    depth = 1 if word == "(" else 0
    while depth and word:
        word = token(_COPY_QUERY)
        depth += (word == "(") - (word == ")")
    word = token(_COPY_NAME)
    if word == ".":  # schema . table
        token(_COPY_NAME)
        word = token(_COPY_NAME)
    if word == "(":
        while word not in (")", ""):
            word = token(_COPY_COLUMN)
        word = token(_COPY_NAME)
    target = token(_COPY_TARGET)
    return (keyword(word), target) if keyword(word) in ("FROM", "TO") and target else None


def keyword(word: str) -> str:
    """A word in upper case, as keywords are compared: letters beyond ASCII have no case, and no keyword has one."""
    return word.upper() if word.isascii() else word


def variables_in(args: str) -> set[str]:
    """The names of the psql variables that :name, :'name', :"name" or :{?name} in an argument mention."""
    return {name for pair in _MENTION.findall(args) for name in pair if name}
