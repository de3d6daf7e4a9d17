"""What a user sees, and where: sentences on stdout, or one JSON document there and everything else on stderr."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from scripts.console import Console, one_line
from scripts.dsn import Dsn
from scripts.errors import OpsError, UsageError
from scripts.secret import Secret


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Screen:
    """A console and what it wrote."""

    def __init__(self, *, as_json: bool = False, terminal: bool = False, in_actions: bool = False) -> None:
        self._out: io.StringIO = Terminal() if terminal else io.StringIO()
        self._err = io.StringIO()
        self.console = Console(as_json=as_json, in_actions=in_actions, out=self._out, err=self._err)

    @property
    def out(self) -> str:
        return self._out.getvalue()

    @property
    def err(self) -> str:
        return self._err.getvalue()


def test_sentences_go_to_stdout_and_notes_beside_it() -> None:
    screen = Screen()
    screen.console.say("done")
    screen.console.note("warning")
    screen.console.document({"done": True})
    assert (screen.out, screen.err) == ("done\n", "warning\n")


def test_with_json_stdout_holds_the_document_alone() -> None:
    screen = Screen(as_json=True)
    screen.console.say("done")
    screen.console.table([["a", "b"]])
    screen.console.note("warning")
    screen.console.document({"name": "größe", "path": io})
    assert json.loads(screen.out)["name"] == "größe"
    assert "größe" in screen.out
    assert screen.err == "warning\n"


def test_a_table_is_aligned_and_has_no_blanks_at_its_end() -> None:
    screen = Screen()
    screen.console.table([["a", "bbb", ""], ["aaaa", "b", "c"]])
    assert screen.out == "  a     bbb\n  aaaa  b    c\n"


@pytest.mark.parametrize(("hint", "expected"), [("try again", "error: no\nnext:  try again\n"), ("", "error: no\n")])
def test_a_failure_comes_with_its_way_out(hint: str, expected: str) -> None:
    screen = Screen()
    screen.console.failure(OpsError("no", hint))
    assert (screen.out, screen.err) == ("", expected)


def test_a_failure_is_a_document_too() -> None:
    screen = Screen(as_json=True)
    screen.console.failure(UsageError("no", "try again"))
    assert json.loads(screen.out) == {"error": "no", "hint": "try again", "exit_code": 2}
    assert screen.err == "error: no\nnext:  try again\n"


def test_progress_is_a_line_for_each_item_where_there_is_no_terminal() -> None:
    screen = Screen()
    with screen.console.progress(2) as advance:
        advance("", "one")
        advance("one done", "two")
        screen.console.say("said on the way")
        advance("two done", "")
    assert screen.out == "one done\nsaid on the way\ntwo done\n"


def test_progress_says_nothing_with_json() -> None:
    screen = Screen(as_json=True, terminal=True)
    with screen.console.progress(1) as advance:
        advance("one done", "")
    assert screen.out == ""


def test_on_a_terminal_a_bar_shows_the_current_item_and_lines_stand_above_it() -> None:
    screen = Screen(terminal=True)
    with screen.console.progress(2) as advance:
        advance("", "0001_a.sql")
        screen.console.say("a [line] above")
        screen.console.note("a [note] above")
        advance("0001 done", "[bold]0002_b.sql")
    screen.console.say("after")
    assert "1/2" in screen.out
    assert "[bold]0002_b.sql" in screen.out
    assert "a [line] above" in screen.out
    assert "a [note] above" in screen.out
    assert screen.out.endswith("after\n")
    assert screen.err == ""


# Secrets.

PASSWORDS = [
    "true",
    "error",
    '"',
    "'" * 4,
    '{"error": 1}',
    "p@ss/w%rd",
    "a'b",
    "back\\slash",
    "größe🔑",
    "trailing  ",
    "hint",
    "x" * 40,
]
ENCODED = "p%r\rd\n:/@"


def dsn(password: str) -> Dsn:
    return Dsn({"user": "me", "host": "db", "dbname": "d"}, Secret(password))


def written(password: str) -> list[str]:
    """A password and its DSN as a text may have them."""
    return [
        form
        for secret in (password, dsn(password).uri().reveal())
        for form in (
            secret,
            quote(secret, safe=""),
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            secret.replace("'", "''"),
            base64.b64encode(secret.encode()).decode().rstrip("="),
        )
    ]


def say_all(console: Console, text: str) -> None:
    """Has everything printed that a console can print, with this text in it."""
    console.say(f"said {text}")
    console.note(f"noted {text}")
    console.table([["a", text], [text, "b"], [f"{text} and more", text]])
    with console.progress(1) as advance:
        advance("", f"under way {text}")
        console.note(f"noted above {text}")
        advance(f"done {text}", f"then {text}")
    console.failure(OpsError(f"failed {text}", f"do {text}", {"applied": [text, {"deep": text}], "count": 1}))


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("password", [password for password in PASSWORDS if len(password) >= 4])
def test_nothing_that_is_printed_holds_a_secret(password: str, terminal: bool) -> None:
    screen = Screen(terminal=terminal)
    screen.console.conceal(Secret(password), dsn(password).uri())
    for form in written(password):
        say_all(screen.console, f"<{form}>")
    for form in written(password):
        assert form not in (screen.out + screen.err).replace("error: failed", "")  # the console's own words stay
    assert "<****>" in screen.out
    assert "<****>" in screen.err


@pytest.mark.parametrize("password", PASSWORDS)
def test_with_secrets_a_document_is_json_with_the_same_names(password: str) -> None:
    facts: dict[str, Any] = {
        "error": None,
        "true": True,
        "hint": 1,
        "forms": [f"<{form}>" for form in written(password)],
        "inner": {"error": f"it's {password}", "number": 1.5},
        "path": Path(f"/a {password}"),
    }
    screen = Screen(as_json=True)
    screen.console.conceal(Secret(password), dsn(password).uri())
    screen.console.document(facts)
    found = json.loads(screen.out)
    assert list(found) == list(facts)
    assert list(found["inner"]) == ["error", "number"]
    assert (found["error"], found["true"], found["hint"], found["inner"]["number"]) == (None, True, 1, 1.5)
    if len(password) >= 4:
        assert set(found["forms"]) == {"<****>"}
        assert (found["inner"]["error"], found["path"]) == ("it's ****", str(Path("/a ****")))


@pytest.mark.parametrize("password", PASSWORDS)
def test_with_secrets_a_failure_is_json_with_the_same_names(password: str) -> None:
    screen = Screen(as_json=True)
    screen.console.conceal(Secret(password), dsn(password).uri())
    uri = dsn(password).uri().reveal()
    screen.console.failure(UsageError(f"no {uri}", f"not {uri}", {"applied": [uri], "failed": {"error": uri}}))
    assert json.loads(screen.out) == {
        "error": "no ****",
        "hint": "not ****",
        "exit_code": 2,
        "applied": ["****"],
        "failed": {"error": "****"},
    }
    assert uri not in screen.err


def test_a_secret_that_ends_in_blanks_is_taken_out_of_a_table_before_the_blanks_are() -> None:
    screen = Screen()
    screen.console.conceal(Secret("trailing  "))
    screen.console.table([["1", "trailing  "], ["trailing  ", "x"]])
    assert screen.out == "  1     ****\n  ****  x\n"


def test_a_secret_that_was_asked_for_is_shown_once() -> None:
    uri = dsn("correct horse").uri()
    screen = Screen()
    screen.console.conceal(uri)
    screen.console.emit("POSTGRES_DSN", uri)
    screen.console.document({}, {"POSTGRES_DSN": uri})
    assert screen.out == f"POSTGRES_DSN={uri.reveal()}\n"

    screen = Screen(as_json=True)
    screen.console.conceal(uri)
    screen.console.emit("POSTGRES_DSN", uri)
    screen.console.document({"dsn": uri.reveal()}, {"POSTGRES_DSN": uri})
    assert json.loads(screen.out) == {"dsn": "****", "secrets": {"POSTGRES_DSN": uri.reveal()}}


def decoded(lines: str) -> list[str]:
    """What the runner of GitHub Actions takes the lines for, each a mask."""
    masks = []
    for line in lines.splitlines():
        command, found, value = line.partition("::add-mask::")
        assert (command, found) == ("", "::add-mask::")
        masks.append(value.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%"))
    return masks


def test_github_actions_is_told_of_every_form_of_a_secret_in_its_own_encoding() -> None:
    screen = Screen(in_actions=True)
    screen.console.conceal(Secret(ENCODED), dsn(ENCODED).uri())
    assert screen.err.splitlines()[0] == "::add-mask::p%25r%0Dd%0A:/@"
    masks = decoded(screen.err)
    assert masks[0] == ENCODED
    assert set(written(ENCODED)) <= set(masks)
    assert screen.out == "", "it may be kept in a file"


def test_github_actions_is_told_of_a_secret_once() -> None:
    screen = Screen(in_actions=True)
    screen.console.conceal(Secret("correct"), Secret("correct"))
    screen.console.conceal(Secret("correct"))
    assert len(decoded(screen.out)) == len(set(decoded(screen.out)))


def test_github_actions_is_not_told_to_mask_what_stands_in_every_sentence() -> None:
    screen = Screen(in_actions=True)
    screen.console.conceal(Secret(""), Secret("a"), Secret("no"))
    assert (screen.out, screen.err) == ("", "")


def test_with_json_github_actions_is_told_beside_the_document() -> None:
    screen = Screen(as_json=True, in_actions=True)
    screen.console.conceal(Secret(ENCODED))
    screen.console.document({"dsn": ENCODED})
    assert json.loads(screen.out) == {"dsn": "****"}
    assert decoded(screen.err)[0] == ENCODED


@pytest.mark.parametrize("as_json", [False, True])
def test_outside_of_github_actions_nobody_is_told_of_a_secret(as_json: bool) -> None:
    screen = Screen(as_json=as_json)
    screen.console.conceal(Secret(ENCODED), dsn(ENCODED).uri())
    assert (screen.out, screen.err) == ("", "")


# Parts of another command, what takes long, and questions.


@pytest.mark.parametrize("as_json", [False, True])
def test_documents_of_the_parts_of_a_command_are_gathered_and_hold_no_secret(as_json: bool) -> None:
    screen = Screen(as_json=as_json)
    screen.console.conceal(Secret("correct horse"))
    with screen.console.gathering() as documents:
        screen.console.document({"one": "a correct horse"})
        screen.console.document({"two": 2}, {"POSTGRES_DSN": Secret("correct horse")})
    assert documents == [{"one": "a ****"}, {"two": 2, "secrets": {"POSTGRES_DSN": "correct horse"}}]
    assert screen.out == ""


def test_after_a_part_that_failed_documents_are_printed_again() -> None:
    screen = Screen(as_json=True)
    with pytest.raises(OpsError), screen.console.gathering():
        raise OpsError("no")
    screen.console.document({"whole": True})
    assert json.loads(screen.out) == {"whole": True}


@pytest.mark.parametrize(("terminal", "as_json", "out"), [(False, False, "making ****\nmade\n"), (True, True, "")])
def test_what_takes_long_is_said_beforehand_where_there_is_no_terminal(terminal: bool, as_json: bool, out: str) -> None:
    screen = Screen(terminal=terminal, as_json=as_json)
    screen.console.conceal(Secret("correct horse"))
    with screen.console.working("making correct horse"):
        assert screen.out == out.partition("made")[0]
        screen.console.say("made")
    assert (screen.out, screen.err) == (out, "")


def test_on_a_terminal_what_takes_long_has_a_clock_and_stays_as_a_line() -> None:
    screen = Screen(terminal=True)
    screen.console.conceal(Secret("correct horse"))
    with screen.console.working("making [bold]correct horse"):
        pass
    assert "0:00:0" in screen.out
    assert screen.out.endswith("making [bold]****\n")
    assert "correct horse" not in screen.out


def test_what_took_long_and_failed_leaves_no_line() -> None:
    screen = Screen(terminal=True)
    with pytest.raises(OpsError), screen.console.working("making"):
        raise OpsError("no")
    assert not screen.out.endswith("making\n")


def test_beside_a_bar_what_takes_long_is_a_line() -> None:
    screen = Screen(terminal=True)
    with screen.console.progress(1) as advance, screen.console.working("making"):
        advance("made", "")
    assert "making" in screen.out


def test_yes_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    screen = Screen()
    screen.console.confirm("Delete it?", yes=True, again="invoke it")
    screen.console.confirm_by_name("This can't be undone.", "srv1", yes=True, again="invoke it")
    assert (screen.out, screen.err) == ("", "")


@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), (" YES ", True), ("", False), ("n", False), ("yep", False)])
def test_a_question_is_answered_by_y(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    screen = Screen()
    if goes_on:
        screen.console.confirm("Delete it?", yes=False, again="invoke it")
    else:
        with pytest.raises(OpsError, match="nothing was changed"):
            screen.console.confirm("Delete it?", yes=False, again="invoke it")
    assert screen.out == "Delete it? [y/N] "


@pytest.mark.parametrize(("answer", "goes_on"), [("srv1", True), ("srv1 ", True), ("SRV1", False), ("y", False), ("", False)])
def test_what_can_not_be_undone_is_answered_by_its_name(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    screen = Screen()
    if goes_on:
        screen.console.confirm_by_name("This can't be undone.", "srv1", yes=False, again="invoke it")
    else:
        with pytest.raises(OpsError, match="that is not its name; nothing was changed"):
            screen.console.confirm_by_name("This can't be undone.", "srv1", yes=False, again="invoke it")
    assert screen.out == "This can't be undone. Type srv1 to go on: "


def test_the_end_of_the_input_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    with pytest.raises(OpsError, match="nothing was changed"):
        screen.console.confirm("Delete it?", yes=False, again="invoke it")
    with pytest.raises(OpsError, match="nothing was changed"):
        screen.console.confirm_by_name("This can't be undone.", "srv1", yes=False, again="invoke it")


def test_with_json_a_question_stands_beside_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    screen = Screen(as_json=True)
    screen.console.confirm("Delete it?", yes=False, again="invoke it")
    assert (screen.out, screen.err) == ("", "Delete it? [y/N] ")


def test_where_nobody_is_there_a_question_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\nsrv1\n"))
    screen = Screen()
    with pytest.raises(UsageError, match="Delete it\\? Nobody is at the terminal"):
        screen.console.confirm("Delete it?", yes=False, again="invoke it")
    with pytest.raises(UsageError, match="Nobody is at the terminal") as caught:
        screen.console.confirm_by_name("This can't be undone.", "srv1", yes=False, again="invoke it")
    assert caught.value.hint == "invoke it --yes"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('größe 密🔑 \\n "a b"', 'größe 密🔑 \\n "a b"'),
        ("a\n::error::b\r\tc", "a\\n::error::b\\r\\tc"),
        ("\x1b[31m\x9b\x7f\x00", "\\x1b[31m\\x9b\\x7f\\x00"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
    ],
)
def test_a_text_of_others_is_one_line_that_steers_no_terminal(text: str, shown: str) -> None:
    assert one_line(text) == shown
    assert len(one_line(text).splitlines()) == 1


def test_a_problem_is_annotated_in_actions_alone_on_one_line_and_without_secrets() -> None:
    screen, elsewhere = Screen(in_actions=True), Screen()
    for each in (screen, elsewhere):
        each.console.conceal(Secret("hunter22"))
    before = len(screen.err)
    for each in (screen, elsewhere):
        each.console.annotate("100% of hunter22\nis gone")
    assert screen.err[before:] == "::error::100%25 of ****%0Ais gone\n"
    assert (screen.out, elsewhere.out, elsewhere.err) == ("", "", "")


@pytest.mark.parametrize("as_json", [False, True])
def test_an_annotation_stands_beside_a_line_and_begins_no_command_of_its_own(as_json: bool) -> None:
    screen = Screen(as_json=as_json)
    screen.console.conceal(Secret("hunter22"))
    screen.console.point_at(level="warning", file="a,b:100%.sql", line=3, title="x:\ny", text="of hunter22:\n::stop, 5%")
    said = "::warning file=a%2Cb%3A100%25.sql,line=3,title=x%3A%0Ay::of ****:%0A::stop, 5%25\n"
    assert (screen.err if as_json else screen.out) == said
    assert (screen.out if as_json else screen.err) == ""


def in_code_page(encoding: str, *, as_json: bool = False) -> tuple[Console, io.BytesIO]:
    """A console on a pipe that Python gives the system's code page, as on Windows."""
    written = io.BytesIO()
    return Console(as_json=as_json, out=io.TextIOWrapper(written, encoding=encoding)), written


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "größe схема"), ("cp1252", "größe \\u0441\\u0445\\u0435\\u043c\\u0430")]
)
def test_what_an_encoding_lacks_is_no_reason_to_fail(encoding: str, shown: str) -> None:
    console, written = in_code_page(encoding)
    console.say("größe схема")
    assert written.getvalue().decode(encoding).splitlines() == [shown]


@pytest.mark.parametrize("encoding", ["utf-8", "UTF_8", "cp1252", "ascii"])
def test_a_document_says_the_same_in_every_encoding(encoding: str) -> None:
    console, written = in_code_page(encoding, as_json=True)
    console.document({"a": "größe схема", "b": "\udcff"})  # the second is a byte of a file's name that is no UTF-8
    assert json.loads(written.getvalue().decode(encoding)) == {"a": "größe схема", "b": "\udcff"}
    assert ("größe".encode() in written.getvalue()) == (encoding.lower()[:3] == "utf")
