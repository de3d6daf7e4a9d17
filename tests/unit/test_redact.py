"""A secret is taken out of a text in every form in which it could stand there, and nothing else is."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scripts.dsn import Dsn
from scripts.redact import Redactor, forms
from scripts.secret import Secret

PASSWORDS = ["true", "error", '"quoted"', "a'b'c", "p@ss/w%rd", "back\\slash", "größe🔑", " both ", "a b+c", "a b/c", "x" * 40]
# Not of the mask's own character: what is left of such a secret can't be told from the mask.
secrets = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), min_size=4, max_size=30)
texts = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), max_size=10)


def redactor(*values: str) -> Redactor:
    made = Redactor()
    for value in values:
        made.add(Secret(value))
    return made


def written(secret: str) -> dict[str, str]:
    """The secret as others write it, by what they are."""
    return {
        "raw": secret,
        "percent-encoded": quote(secret, safe=""),
        "percent-encoded, but for slashes": quote(secret),
        "form-encoded": quote_plus(secret),
        "JSON in ASCII": json.dumps(secret)[1:-1],
        "JSON": json.dumps(secret, ensure_ascii=False)[1:-1],
        "SQL": secret.replace("'", "''"),
        "base64": base64.b64encode(secret.encode()).decode().rstrip("="),
        "base64 for URLs": base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
    }


def whole_characters(encoded: bytes, before: int, length: int) -> str:
    """The characters of a base64 text that say something of `length` bytes behind the first `before`, and of nothing else."""
    return encoded.decode()[-(-before * 8 // 6) : (before + length) * 8 // 6]


@given(secrets, texts, texts)
def test_no_form_of_a_secret_survives_in_a_text(secret: str, before: str, after: str) -> None:
    made = redactor(secret)
    for form in written(secret).values():
        assert form not in made.text(f"{before}{form}{after}")


@pytest.mark.parametrize("secret", PASSWORDS)
def test_a_text_around_a_secret_stays(secret: str) -> None:
    for form in written(secret).values():
        assert redactor(secret).text(f"({form}) [{form}]") == "(****) [****]"


@given(secrets, st.binary(max_size=8), st.binary(max_size=8))
def test_the_base64_of_a_text_that_holds_a_secret_says_nothing_of_it(secret: str, before: bytes, after: bytes) -> None:
    data = secret.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + data + after)
        part = whole_characters(encoded, len(before), len(data))
        assert part not in redactor(secret).text(encoded.decode())


def test_the_credentials_of_a_basic_authorization_are_not_shown() -> None:
    header = base64.b64encode(b"me:correct horse").decode()
    assert redactor("correct horse").text(f"Authorization: Basic {header}").startswith("Authorization: Basic bWU6****")


@pytest.mark.parametrize("secret", ["", "a", "no", "abc"])
def test_a_short_secret_takes_nothing_out(secret: str) -> None:
    assert forms(secret) == []
    assert redactor(secret).text("a notable abc") == "a notable abc"


@given(st.lists(secrets, max_size=4), texts)
def test_a_text_without_secrets_stays_as_it_is(values: list[str], text: str) -> None:
    assume(not any(form in text for value in values for form in forms(value)))
    assert redactor(*values).text(text) == text


@given(secrets)
def test_a_secret_s_forms_are_new_once_the_secret_itself_first(secret: str) -> None:
    made = Redactor()
    new = made.add(Secret(secret))
    assert new[0] == secret
    assert sorted(new) == sorted(set(new))
    assert made.add(Secret(secret)) == []


@given(secrets, st.permutations([0, 1]))
def test_a_dsn_is_one_mask_whether_it_is_known_before_or_after_its_password(password: str, order: list[int]) -> None:
    dsn = Dsn({"user": "me", "host": "h", "dbname": "d"}, Secret(password))
    uri = dsn.uri().reveal()
    values = [password, uri]
    made = redactor(*(values[index] for index in order))
    assert made.text(f"<{uri}>") == "<****>"
    assert password not in made.text(f"{uri} {password} {uri}")


def test_a_secret_inside_another_is_taken_out_with_it() -> None:
    assert redactor("pass", "password1").text("password1 pass word1") == "**** **** word1"


# Values of JSON.

leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)


@given(secrets, st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=10))
def test_a_json_value_keeps_its_shape_and_its_names(secret: str, value: Any) -> None:
    def same(one: Any, other: Any) -> bool:
        if isinstance(one, dict):
            return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
        if isinstance(one, list):
            return len(one) == len(other) and all(map(same, one, other))
        return one == other or isinstance(one, str)

    found = redactor(secret).value({secret: value, "list": [secret, {"deep": f"<{secret}>"}]})
    assert list(found) == [secret, "list"]
    assert same(value, found[secret])
    assert found["list"] == ["****", {"deep": "<****>"}]


class Place:
    """An object of ours that is shown as text."""

    def __str__(self) -> str:
        return "at correct horse"


def test_what_json_shows_as_text_holds_no_secret_either() -> None:
    assert redactor("correct horse").value({"place": Place(), "both": (Place(), 1)}) == {
        "place": "at ****",
        "both": ["at ****", 1],
    }


@pytest.mark.parametrize("secret", ["true", "null", "1234", "1234.5"])
def test_numbers_and_truths_are_no_secrets(secret: str) -> None:
    value = {"on": True, "none": None, "count": 1234, "size": 1234.5}
    assert redactor(secret).value(value) == value
