"""A template and its values: what comes of them, what is refused, and that no message holds a part of a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from scripts import render
from scripts.errors import ExitCode, UsageError

AWKWARD = [
    *("yes", "No", "on", "null", "~", "0123", "1_000", "0x1f", "1e3", "1.5", ".inf", "2026-11-25", "12:30:45", "=", "<<", "---"),
    *("p #x", "#x", "a: b", "a:", ": b", "- a", "-", "? a", "&a b", "&a", "*a", "!t b", "!!int 3", "%a", "@a", "`a", "|", ">"),
    *("'", '"', "it's", 'say "so"', "\\", "\\n", "a\\", "{}", "[]", "{", "}", "[", "]", "a, b", "{{ x }}"),
    *("$", "$$", "$1", "${X}", "$X", "${", "${X", "pa$$w0rd", "\\1", "\\g<0>"),
    *("a\nb", "\n", "a\n", "\na", "a\r\nb", "a\rb", "a\n\n  b\n", "a\tb", "\t", " a", "a ", " ", "a  b", "...\n--- x"),
    *("\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "é", "日本", "\U0001f600", "e\u0301"),
    *("x0000z", "x0001z"),
]
LONG = ["x" * 20_000, "a b " * 2_000, "[" * 500, "- " * 500]
SAFE = ["v", "postgresql://u:p%2F@h.example:5432/d?sslmode=require&x=y", "/subscriptions/1/a.b", "registry.io/api:1.2@sha256:0a"]
PLACES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "plain": ("k: ${V}\n", lambda value: {"k": value}),
    "unbraced": ("k: $V\n", lambda value: {"k": value}),
    "within": ("k: a/${V}/b\n", lambda value: {"k": f"a/{value}/b"}),
    "single quotes": ("k: '${V}'\n", lambda value: {"k": value}),
    "double quotes": ('k: "${V}"\n', lambda value: {"k": value}),
    "twice": ("k: ${V}${V}\n", lambda value: {"k": value + value}),
    "item": ("- ${V}\n- z\n", lambda value: [value, "z"]),
    "flow": ("k: [a, ${V}, {b: ${V}}]\n", lambda value: {"k": ["a", value, {"b": value}]}),
    "tag": ("k: !!str ${V}\n", lambda value: {"k": value}),
    "anchor": ("k: &a ${V}\nl: *a\n", lambda value: {"k": value, "l": value}),
    "before a comment": ("k: ${V} # a comment\nl: z\n", lambda value: {"k": value, "l": "z"}),
    "literal block": ("k: |\n  a ${V}\nl: z\n", lambda value: {"k": f"a {value}\n", "l": "z"}),
    "folded block": ("k: >-\n  a ${V}\nl: z\n", lambda value: {"k": f"a {value}", "l": "z"}),
    "CRLF": ("k: ${V}\r\nl: z\r\n", lambda value: {"k": value, "l": "z"}),
    "BOM": ("\ufeffk: ${V}\n", lambda value: {"k": value}),
    "no end": ("k: ${V}", lambda value: {"k": value}),
    "document": ("--- # ${U}\nk: ${V}\n...\n", lambda value: {"k": value}),
}


def rendered(text: str, **values: str) -> str:
    return render.parse(text, "t.yaml").render(values)


def refused_by(text: str, **values: str) -> UsageError | None:
    try:
        rendered(text, **values)
    except UsageError as error:
        return error
    return None


def refusal(text: str, **values: str) -> str:
    with pytest.raises(UsageError) as caught:
        rendered(text, **values)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "x000" not in caught.value.message, "a mark of ours"
    return caught.value.message


# --- Values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_what_is_parsed_is_the_template_with_exactly_the_given_string(place: str) -> None:
    text, meant = PLACES[place]
    shift = list(PLACES).index(place)  # a third of them in each place, all in the first
    for value in [*(AWKWARD[shift % 3 :: 3] if shift else AWKWARD), *SAFE]:
        assert yaml.safe_load(rendered(text, V=value, U="u")) == meant(value), value[:40]


@pytest.mark.parametrize("value", LONG, ids=["word", "words", "brackets", "dashes"])
def test_a_value_may_be_as_long_as_it_likes(value: str) -> None:
    assert yaml.safe_load(rendered("k: ${V}\n", V=value)) == {"k": value}


@pytest.mark.parametrize("place", PLACES)
def test_a_safe_value_is_put_in_as_it_stands(place: str) -> None:
    text, _ = PLACES[place]
    for value in SAFE:
        if place != "flow" or "?" not in value:
            assert rendered(text, V=value, U="u") == re.sub(r"\$\{V\}|\$V", value, text).replace("${U}", "u")


def test_only_the_scalar_with_the_awkward_value_is_written_anew() -> None:
    text = "# keeps  its   blanks\nb:   'x ${SAFE}'  # why ${SAFE}\r\nk:  ${ODD}   # kept\nl: >\n  folded\n  ${SAFE}\n"
    assert rendered(text, SAFE="v", ODD="p #x") == text.replace("${SAFE}", "v").replace("${ODD}", '"p #x"')


def test_what_envsubst_leaves_alone_stays() -> None:
    assert rendered("k: $$V $1 $(V) $ $-\n", V="v") == "k: $v $1 $(V) $ $-\n"


def test_a_value_is_never_looked_through_for_variables() -> None:
    assert yaml.safe_load(rendered("a: ${A}\nb: $B\n", A="${B}$B", B="${A}")) == {"a": "${B}$B", "b": "${A}"}


@pytest.mark.parametrize("value", ["yes", "0123", "p #x", "a\nb", "it's", "null", "2026-11-25", "\U0001f600"])
def test_a_value_as_a_key(value: str) -> None:
    assert yaml.safe_load(rendered("${V}: {}\nb: ${V}\n", V=value)) == {value: {}, "b": value}
    assert yaml.safe_load(rendered("? ${V}\n: a\n", V=value)) == {value: "a"}


def test_two_keys_that_are_the_same_now_are_refused() -> None:
    message = refusal("x: 1\n${A}: a\n${B}: b\n", A="s3cret", B="s3cret")
    assert "t.yaml:3: the value of B is a key that stands in this mapping twice" in message
    assert "s3cret" not in message
    assert "t.yaml:1: the value of A is a key" in refusal("${A}: 1\nfixed: 2\n", A="fixed")


def test_a_key_too_long_for_yaml_is_refused_by_its_variable_alone() -> None:
    message = refusal("a: ${B}\n${A}: x\n", A="s3cret" * 200, B="yes")
    assert message == "t.yaml can't be rendered: 1 problem:\n  t.yaml:2: the value of A can't stand here"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k: v # ${A}\n", "x\ns3cret: y"),
        ("k: &${A} v\n", "s3cret v"),
        ("--- # ${A}\nk: v\n", "\n--- s3cret"),
    ],
)
def test_a_value_outside_of_a_scalar_can_not_change_what_is_said(text: str, value: str) -> None:
    message = refusal(text, A=value)
    assert "t.yaml:1: the value of A can't stand outside of a scalar" in message
    assert "s3cret" not in message


def test_only_the_value_that_changes_what_is_said_is_named() -> None:
    message = refusal("# ${A}\n# ${B}\nk: &${C} v\n", A="fine", B="x\ns3cret: y", C="fine")
    assert message == "t.yaml can't be rendered: 1 problem:\n  t.yaml:2: the value of B can't stand outside of a scalar"


def test_values_that_only_together_change_what_is_said_are_refused() -> None:
    message = refusal("a: &qq 1\nb: &${A}${B} 2\nc: *qq\n", A="q", B="q")
    assert message == "t.yaml can't be rendered: 1 problem:\n  the values of A, B change what it says"


def test_all_variables_of_a_scalar_are_named() -> None:
    message = refusal("k: !!int ${A}${B}${A}\n", A="s3cret", B="1")
    assert message == "t.yaml can't be rendered: 1 problem:\n  t.yaml:1: A, B is no int"


def test_what_the_template_says_is_never_taken_for_a_mark_of_ours() -> None:
    assert rendered("x0000z: xq0000z ${A}\n", A="xqq0000z") == "x0000z: xq0000z xqq0000z\n"


def test_a_harmless_value_stands_in_comments_and_anchors_as_by_envsubst() -> None:
    assert rendered("k: &${A} v # it's ${A}: #\n", A="b-1") == "k: &b-1 v # it's b-1: #\n"


@pytest.mark.parametrize(
    ("tag", "kind", "good", "bad"),
    [
        ("!!int", "int", ["3", "-5", "0"], ["0x1f", "010", "+5", "1_000", "1:30", "3.0", "yes", "s3cret", "\uff17", "3 ", "3\n"]),
        ("!!float", "float", ["0.5", "3", "1e3"], ["s3cret", "1,5", "0.5 cores", "0.5\n#"]),
        ("!!bool", "bool", ["true", "no"], ["s3cret", "1"]),
        ("!!timestamp", "timestamp", ["2026-11-25"], ["s3cret", "2026-13-45"]),
        ("!mine", "!mine", [], ["s3cret"]),
        ("!!python/name:os.system", "os.system", [], ["s3cret"]),
    ],
)
def test_a_tag_is_a_promise_about_the_value(tag: str, kind: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        assert rendered(f"k: {tag} ${{A}}\n", A=value) == f"k: {tag} {value}\n"
    for value in bad:
        message = refusal(f"x: y\nk: {tag} ${{A}}\n", A=value)
        assert message == f"t.yaml can't be rendered: 1 problem:\n  t.yaml:2: A is no {kind}"


def test_a_number_by_its_tag_is_a_number() -> None:
    template = render.parse("a: !!int ${A}\nb: !!float $B\nc: ${C}\n", "t.yaml")
    assert [template.kind(name) for name in "ABC"] == ["int", "float", None]
    assert yaml.safe_load(template.render({"A": "3", "B": "0.5", "C": "3"})) == {"a": 3, "b": 0.5, "c": "3"}


# --- Variables --------------------------------------------------------------------------------------------------------


def test_unset_empty_unreadable_and_unfilled_variables_are_all_listed_with_their_lines() -> None:
    text = "a: ${UNSET}\r\nb: ${EMPTY} # ${UNSET}\r\n\r\nc: $BYTES\r\nd: ${HOLE}${UNSET}${UNSET}\r\ne: ${GOOD}\r\n"
    message = refusal(text, EMPTY="", BYTES="s3cret\udc80", HOLE="s3cret<server-name>", GOOD="s3cret", OTHER="")
    assert message.splitlines() == [
        "t.yaml can't be rendered: 4 problems:",
        "  UNSET is not set (t.yaml:1, t.yaml:2, t.yaml:5)",
        "  EMPTY is empty (t.yaml:2)",
        "  BYTES isn't UTF-8 text (t.yaml:4)",
        "  HOLE still holds a placeholder, a name between < and > (t.yaml:5)",
    ]


def test_a_refusal_says_how_to_see_what_is_needed() -> None:
    with pytest.raises(UsageError) as caught:
        rendered("a: ${A}\n")
    way, _, shows = caught.value.hint.partition("; ")
    assert way == "put them into .env, or into a file that --env-file names (.env.example explains each)"
    assert shows.startswith("invoke render --variables --template t.yaml ")


def test_the_variables_are_those_of_envsubst_in_their_order() -> None:
    template = render.parse("# $Z\na: ${_b}$C3 ${_b}\nd: $é $9 ${d1}_x $e-f\n", "t.yaml")
    assert template.variables == {"Z": [1], "_b": [2], "C3": [2], "d1": [3], "e": [3]}
    assert render.parse("${A}: $B\n", "t.yaml").variables == {"A": [1], "B": [1]}


def test_secrets_that_stand_in_the_template_are_known_by_their_lines() -> None:
    text = """\
secrets:
  - value: s3cret
  - {name: a, value: $A}
  - {name: b, value: ''}
  - value: [c]
  - value: 0123
"""
    assert render.parse(text, "t.yaml").literal_secrets == {2: "s3cret", 6: "0123"}


@pytest.mark.parametrize(
    ("path", "variables"),
    [
        (("a",), {"A"}),
        (("b", "c", 0), {"B", "C"}),
        (("b", "c", 1), set()),
        (("b", "c", 7), set()),
        (("b", "c"), set()),
        (("b", "nowhere"), set()),
        (("b", "nowhere", "at", "all"), set()),
        (("what the key may say",), {"V"}),
        (("resources", "cpu"), {"CPU", "DISK"}),
        (("resources", "nowhere"), {"CPU", "DISK"}),
        (("resources", "disk", "size"), {"DISK"}),
        (("resources", "disk", "kind"), set()),
        (("list", 0, "resources", "memory"), {"CPU", "MEMORY"}),
    ],
)
def test_the_variables_at_a_place_are_those_of_its_scalar_and_of_all_resources(
    path: tuple[str | int, ...], variables: set[str]
) -> None:
    text = """\
a: x${A}
b: {c: ['${B}${C}', z]}
${K}: ${V}
resources: {cpu: $CPU, memory: 1Gi, disk: {size: $DISK, kind: ssd}}
list:
  - name: ${NAME}
    resources: {cpu: $CPU, memory: $MEMORY}
"""
    assert render.parse(text, "t.yaml").variables_at(path) == variables


def test_secrets_are_known_by_their_place_and_by_their_name() -> None:
    text = (
        "a: [$MY_DSN, $password, $API_TOKEN, $A_KEY, $CLIENT_SECRET, $KEYS, $IMAGE, $DSN_NAME]\n"
        "properties: {configuration: {secrets: [{name: a, value: 'x${PLACE}'}, {name: $NAME, keyVaultUrl: $URL}]}}\n"
    )
    assert render.parse(text, "t.yaml").secrets == {"MY_DSN", "password", "API_TOKEN", "A_KEY", "CLIENT_SECRET", "PLACE"}


# --- Templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "left", ["${V:-s}", "${V-}", "${V:?x}", "${}", "${1}", "${ V}", "${V }", "${V", "${V.a}", "${é}", "${V[0]}"]
)
def test_what_looks_like_a_variable_and_is_none_is_refused(left: str) -> None:
    message = refusal(f"a: b\n# {left}\n", V="v")
    assert message.splitlines() == [
        "t.yaml is no template that could be rendered:",
        f"  t.yaml:2: {left} is no variable: a name between braces is meant, without a default",
    ]


@pytest.mark.parametrize("text", ["k: <password>\n", "k: 'x <server-name>'\n", "k: [a, <Your Name>]\n", "<a_b>: x\n"])
def test_a_placeholder_in_the_template_is_refused(text: str) -> None:
    assert "t.yaml:1: <" in refusal(text)
    assert "is a placeholder" in refusal(text)


@pytest.mark.parametrize("text", ["k: a < b > c\n", "k: <1>\n", "k: <>\n", "k: v # <password>\n", "k: x<y\n"])
def test_what_is_no_placeholder_stays(text: str) -> None:
    assert rendered(text) == text


def test_a_variable_between_angle_brackets_is_no_placeholder() -> None:
    assert rendered("k: <${A}>\n", A="v") == "k: <v>\n"


def test_every_problem_of_a_template_is_listed_in_the_order_of_its_lines() -> None:
    text = "a: ${B:-x}\nb: <password>\na: c\nd: !mine x\ne: 0x_\nf: 2026-13-45\n? [g]\n: h\ni: !mine [j]\n"
    assert refusal(text).splitlines()[1:] == [
        "  t.yaml:1: ${B:-x} is no variable: a name between braces is meant, without a default",
        "  t.yaml:1: a key that stands in this mapping twice",
        "  t.yaml:2: <password> is a placeholder: a ${VARIABLE} is meant, or the value itself",
        "  t.yaml:4: this is no !mine",
        "  t.yaml:5: this is no int",
        "  t.yaml:6: this is no timestamp",
        "  t.yaml:7: a key is a word, not a list or a mapping",
        "  t.yaml:9: the tag !mine means nothing to az",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: b\n\tc: ${A}\n", 2, r"'\\t'"),
        ("a: b\nc: [${A}\n", 3, "expected ',' or ']'"),
        ("a: ${A}: b\n", 1, "mapping values are not allowed here"),
        ("a: b\nc: *${A}\n", 2, re.escape("undefined alias '${A}'")),
        ("a: ${A}\n---\nb: c\n", 2, "another document"),
        ("a: ${A}\nb: \x07\n", 2, r"U\+0007"),
        ("\na: ${A}\nb: \x07\n", 3, r"U\+0007"),
        ("a: @${A}\n", 1, "cannot start any token"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_line_and_without_its_text(text: str, line: int, words: str) -> None:
    message = refusal(text, A="v")
    assert re.fullmatch(rf"t\.yaml:{line}: no YAML that az takes: .*{words}.*", message), message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "deploy/app_api.yaml is one that works"),
        ("a: ${A}: b\n", "mend that line of the template"),
        ("a: \x07\n", "take it out of the template"),
        ("a: &a {b: *a}\n", "an alias (*name) in it, mostly: take it out"),
        ("a: <password>\n", "mend those lines; docs/deploy.md has the rules"),
        ("secrets:\n  - value: fixed\n", "write it as: value: ${VARIABLE}"),
    ],
)
def test_each_refusal_of_a_template_says_what_to_do(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        render.parse(text, "t.yaml").from_key_vault("ID")
    assert caught.value.hint == hint


@pytest.mark.parametrize("text", ["", "\n", "# only ${A}\n", "\ufeff"])
def test_an_empty_template_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"t\.yaml is empty"):
        rendered(text, A="v")


@pytest.mark.parametrize("text", ["a: &a [*a, '${A}']\n", f"a: {'[' * 500}\n", "a: &a {b: *a}\n"])
def test_a_template_without_an_end_is_refused(text: str) -> None:
    assert refusal(text, A="v") == "t.yaml is nested too deeply, or holds itself"


def test_numbers_and_dates_of_the_template_itself_stay_what_yaml_makes_of_them() -> None:
    text = "a: 0x1f90\nb: 010\nc: 2026-11-25\nd: yes\ne: ~\nf:\ng: .inf\nbase: &base {h: 1}\ni: {<<: *base}\n"
    assert rendered(text) == text


def test_a_place_of_the_tree_has_its_line() -> None:
    template = render.parse("a:\n  ${K}: x\n  b:\n    - c: 1\n\n    - c: ${V}\n  d: &d {e: f}\n", "t.yaml")
    lines = {("a",): 1, ("a", "b"): 3, ("a", "b", 0): 4, ("a", "b", 1, "c"): 6, ("a", "the key's value"): 2, ("a", "d", "e"): 7}
    assert {path: template.line_of(path) for path in lines} == lines
    assert template.line_of(("a", "b", 7)) == 3
    assert template.line_of(()) == 1


# --- From a Key Vault -------------------------------------------------------------------------------------------------

VAULT = """\
configuration:
  secrets:
    - name: dsn
      value: ${A_DSN} # the DSN
    - value: '${B}'
      name: b
next: ${NEXT}
"""


def test_from_a_key_vault_each_value_is_an_address_and_an_identity() -> None:
    template = render.parse(VAULT, "t.yaml").from_key_vault("ID")
    assert template.text == (
        VAULT.replace("value: ${A_DSN}", "keyVaultUrl: ${A_DSN_SECRET_URL}\n      identity: ${ID}").replace(
            "value: '${B}'", "keyVaultUrl: ${B_SECRET_URL}\n      identity: ${ID}"
        )
    )
    values = {"A_DSN_SECRET_URL": "https://a", "B_SECRET_URL": "yes", "ID": "p #x", "NEXT": "n"}
    assert yaml.safe_load(template.render(values))["configuration"]["secrets"] == [
        {"name": "dsn", "keyVaultUrl": "https://a", "identity": "p #x"},
        {"name": "b", "keyVaultUrl": "yes", "identity": "p #x"},
    ]
    assert template.secrets == set()
    assert template.name == "t.yaml"


def test_from_a_key_vault_the_lines_are_still_those_of_the_file() -> None:
    template = render.parse(VAULT, "t.yaml").from_key_vault("ID")
    assert template.variables == {"A_DSN_SECRET_URL": [4], "ID": [4, 5], "B_SECRET_URL": [5], "NEXT": [7]}
    assert template.line_of(("next",)) == 7
    assert template.line_of(("configuration", "secrets", 1, "name")) == 6


@pytest.mark.parametrize(
    "secret",
    [
        "value: x${A}",
        "value: fixed",
        "value: ${A}${A}",
        "value: |\n      ${A}",
        "value:\n      ${A}",
        "value: [$A]",
        "value: *a",
        "? value\n    : $A",
    ],
)
def test_from_a_key_vault_a_value_that_is_no_variable_is_refused(secret: str) -> None:
    text = f"a: &a ${{A}}\nsecrets:\n  - name: dsn\n    {secret}\n"
    with pytest.raises(UsageError, match=r"t\.yaml:4: a secret's value has to be one variable"):
        render.parse(text, "t.yaml").from_key_vault("ID")


@pytest.mark.parametrize("braces", ["{name: dsn, value: $A}", "{name: dsn,\nvalue: $A}", "{name: dsn,\n  value: $A\n}"])
def test_from_a_key_vault_a_value_in_braces_is_refused(braces: str) -> None:
    with pytest.raises(UsageError, match=r"t\.yaml:[12]: .* on a line of its own"):
        render.parse(f"secrets: [{braces}]\n", "t.yaml").from_key_vault("ID")


@pytest.mark.parametrize("key", ["&k value", "!!str value", '"value"'])
def test_from_a_key_vault_a_key_may_be_written_in_any_way(key: str) -> None:
    template = render.parse(f"secrets:\n  - {key}: $A\n    name: dsn\n", "t.yaml").from_key_vault("ID")
    assert template.text == "secrets:\n  - keyVaultUrl: ${A_SECRET_URL}\n    identity: ${ID}\n    name: dsn\n"


def test_a_template_without_secrets_is_the_same_from_a_key_vault() -> None:
    assert render.parse("a: ${A}\n", "t.yaml").from_key_vault("ID").text == "a: ${A}\n"


# --- Messages ---------------------------------------------------------------------------------------------------------


def test_no_refusal_holds_a_part_of_a_value() -> None:
    templates = ["k: ${V}\n", "k: !!int ${V}\n", "${V}: a\n${W}: b\n", "k: &${V} x\n", "# $V\na: b\n"]
    values = [*(f"s3cret{odd}s3cret" for odd in AWKWARD), "s3cret" * 300, "s3cret\udc80", "s3cret<a>"]
    refused = 0
    for text in templates:
        for value in values:
            error = refused_by(text, V=value, W=value, U="u")
            if error is not None:
                refused += 1
                assert "s3cret" not in f"{error.message} {error.hint} {error.facts} {error.__cause__}"
                assert error.__suppress_context__ or error.__context__ is None
                assert re.search(r"\b[VW]\b", error.message)
    assert refused > 100
