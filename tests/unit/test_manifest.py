"""`invoke render` from its flags to what is printed and written, and what a template of ours comes to."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import manifest, render
from scripts.console import Console
from scripts.errors import ExitCode, OpsError, UsageError
from scripts.settings import Sources
from tests.conftest import ROOT

ID = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers"
DSN = "postgresql://app:s3cret%23@db.example:5432/app?sslmode=require"
SETTINGS = {
    "CONTAINER_APP_NAME": "api",
    "CONTAINER_APP_ENVIRONMENT": f"{ID}/Microsoft.App/managedEnvironments/env",
    "CONTAINER_APP_IDENTITY": f"{ID}/Microsoft.ManagedIdentity/userAssignedIdentities/puller",
    "CONTAINER_REGISTRY": "r.azurecr.io",
    "API_IMAGE": "r.azurecr.io/api:1@sha256:0a",
    "POSTGRES_DSN": DSN,
}
VAULT = "https://v.vault.azure.net/secrets/DSN"
FLAGS: dict[str, Any] = {
    "app": "api",
    "template": None,
    "out": None,
    "check": False,
    "variables": False,
    "from_key_vault": False,
    "env_file": None,
    "json": False,
}


@dataclass
class Face:
    """What one `invoke render` says."""

    monkeypatch: pytest.MonkeyPatch
    folder: Path
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)

    def render(self, env: Mapping[str, str] = SETTINGS, *, as_json: bool = False, in_actions: bool = False, **flags: Any) -> str:
        self.monkeypatch.setattr(os, "environ", dict(env))
        (self.folder / ".env").touch()
        console = Console(as_json=as_json, in_actions=in_actions, out=self.out, err=self.err)
        try:
            manifest.command({**FLAGS, "env_file": str(self.folder / ".env"), **flags}, console)
        except OpsError as error:
            console.failure(error)
            raise
        return self.out.getvalue()

    def refused(self, env: Mapping[str, str] = SETTINGS, **flags: Any) -> str:
        with pytest.raises(UsageError) as caught:
            self.render(env, **flags)
        assert caught.value.exit_code == ExitCode.USAGE
        assert "s3cret" not in self.out.getvalue() + self.err.getvalue()
        return caught.value.message

    def template(self, text: str) -> str:
        path = self.folder / "t.yaml"
        path.write_bytes(text.encode("utf-8"))
        return str(path)


@pytest.fixture
def face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Face:
    monkeypatch.chdir(tmp_path)
    return Face(monkeypatch, tmp_path)


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in SETTINGS.items() if name not in names}


# --- What is printed --------------------------------------------------------------------------------------------------


def test_what_is_printed_is_the_template_with_its_settings_and_a_masked_secret(face: Face) -> None:
    template = (ROOT / "deploy" / "app_api.yaml").read_text(encoding="utf-8")
    expected = template
    for name, value in SETTINGS.items():
        expected = expected.replace(f"${{{name}}}", '"****"' if value == DSN else value)
    assert face.render() == expected
    assert "s3cret" not in face.err.getvalue()


def test_a_secret_is_masked_wherever_its_value_stands(face: Face) -> None:
    text = "a: ${X_PASSWORD}\nb: x${X_PASSWORD}x # ${X_PASSWORD}\nc: ${PLAIN}\n"
    said = face.render({"X_PASSWORD": "s3cret#1", "PLAIN": "has s3cret#1 in it"}, template=face.template(text))
    assert said == 'a: "****"\nb: x****x # ****\nc: has **** in it\n'


def test_a_short_secret_is_masked_too(face: Face) -> None:
    assert face.render({"A_KEY": "abc"}, template=face.template("a: ${A_KEY}\n")) == 'a: "****"\n'


def test_json_has_the_masked_text(face: Face) -> None:
    facts = json.loads(face.render(as_json=True))
    assert (facts["template"], facts["out"]) == (str(ROOT / "deploy" / "app_api.yaml"), None)
    assert "s3cret" not in facts["text"]
    assert 'value: "****"' in facts["text"]


def test_in_github_actions_the_secret_is_masked_before_anything_is_printed(face: Face) -> None:
    face.render(in_actions=True)
    assert face.err.getvalue().splitlines()[0] == f"::add-mask::{DSN.replace('%', '%25')}"


def test_every_missing_variable_is_named_with_its_lines(face: Face) -> None:
    message = face.refused({"POSTGRES_DSN": DSN, "API_IMAGE": ""})
    lines = (ROOT / "deploy" / "app_api.yaml").read_text(encoding="utf-8").splitlines()
    for name in ("CONTAINER_APP_NAME", "CONTAINER_APP_IDENTITY", "CONTAINER_APP_ENVIRONMENT", "CONTAINER_REGISTRY", "API_IMAGE"):
        places = [f"app_api.yaml:{number}" for number, line in enumerate(lines, 1) if f"${{{name}}}" in line]
        assert places
        [said] = [line for line in message.splitlines() if f"{name} is not set" in line]
        assert [place.partition("deploy/")[2] for place in said.split("(")[1].rstrip(")").split(", ")] == places
    assert "5 problems" in message


# --- --out ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["\ufeffa: ${A}\r\nb: '${B_KEY}' # é\r\n", "a: ${A}\nb: ${B_KEY}", "a: |\n  ${A}\n\n\nb: $B_KEY\n"]
)
def test_a_file_holds_exactly_what_envsubst_makes(face: Face, text: str) -> None:
    said = face.render({"A": "v", "B_KEY": "s3cret"}, template=face.template(text), out="out.yaml")
    written = (face.folder / "out.yaml").read_bytes()
    assert written == text.replace("${A}", "v").replace("${B_KEY}", "s3cret").replace("$B_KEY", "s3cret").encode()
    assert said == "rendered t.yaml into out.yaml, which only you can read\n"


@pytest.mark.skipif(sys.platform == "win32", reason="who may read a file, Windows says otherwise")
def test_a_file_is_its_owners_alone_also_where_one_stood(face: Face) -> None:
    out = face.folder / "out.yaml"
    out.write_text("old")
    out.chmod(0o666)
    said = face.render(out=str(out))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert yaml.safe_load(out.read_text(encoding="utf-8"))["properties"]["configuration"]["secrets"][0]["value"] == DSN
    assert "s3cret" not in said


def test_json_of_a_file_does_not_hold_its_text(face: Face) -> None:
    facts = json.loads(face.render(as_json=True, out="out.yaml"))
    assert (facts["out"], facts["text"]) == ("out.yaml", None)


def test_a_file_that_can_not_be_written_is_an_error_and_leaves_nothing(face: Face) -> None:
    with pytest.raises(OpsError, match=r"no/out\.yaml can't be written: No such file") as caught:
        face.render(out="no/out.yaml")
    assert caught.value.hint == "--out names another file"


def test_nothing_is_written_when_a_value_is_refused(face: Face) -> None:
    face.refused(without("API_IMAGE"), out="out.yaml")
    assert not (face.folder / "out.yaml").exists()


# --- --check ----------------------------------------------------------------------------------------------------------


def test_a_check_needs_no_setting(face: Face) -> None:
    said = face.render({}, check=True)
    assert said.rstrip("\n").endswith(
        "app_api.yaml: nothing is wrong with it; dummies stood in for CONTAINER_APP_NAME, CONTAINER_APP_IDENTITY, "
        "CONTAINER_APP_ENVIRONMENT, CONTAINER_REGISTRY, POSTGRES_DSN, API_IMAGE"
    )
    assert face.render(SETTINGS, check=True).endswith("app_api.yaml: nothing is wrong with it\n")


def test_a_check_from_a_key_vault_needs_none_either(face: Face) -> None:
    said = face.render({}, check=True, from_key_vault=True)
    assert "POSTGRES_DSN_SECRET_URL" in said
    assert "POSTGRES_DSN," not in said


def test_a_check_in_json(face: Face) -> None:
    facts = json.loads(face.render(without("API_IMAGE"), check=True, as_json=True))
    assert (facts["problems"], facts["dummies"]) == ([], ["API_IMAGE"])


def test_problems_have_the_line_of_the_file(face: Face) -> None:
    template = (ROOT / "deploy" / "app_api.yaml").read_text(encoding="utf-8")
    spoilt = (
        template.replace("secretRef:", "secretref:")
        .replace("minReplicas: 1", "minReplicas: 4")
        .replace("memory: 1Gi", "memory: 3Gi")
    )
    lines = {
        word: next(n for n, line in enumerate(spoilt.splitlines(), 1) if word in line)
        for word in ("secretref:", "minReplicas:", "memory:")
    }
    for from_key_vault in (False, True):
        message = face.refused({}, check=True, template=face.template(spoilt), from_key_vault=from_key_vault)
        api = "properties.template.containers[0]"
        dropped = "unknown key secretref, which az would drop without a word: did you mean secretRef?"
        assert message.splitlines() == [
            "t.yaml is no Container App that Azure would take; 3 problems:",
            f"  t.yaml:{lines['memory:']}: {api}.resources.memory: 3Gi doesn't go with 0.5 cores: 1Gi does",
            f"  t.yaml:{lines['secretref:']}: {api}.env[0].secretref: {dropped}",
            f"  t.yaml:{lines['minReplicas:']}: properties.template.scale.minReplicas: 4 is more than maxReplicas, 3",
        ]


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        (DSN.replace("require", "prefer"), "goes to another host without TLS"),
        (DSN.replace("%23", "@"), "holds an unencoded @"),
        ("s3cret", "is not a Postgres URI"),
    ],
)
def test_a_dsn_that_will_not_do_is_refused_by_its_line_and_not_shown(face: Face, dsn: str, words: str) -> None:
    message = face.refused({**SETTINGS, "POSTGRES_DSN": dsn}, check=True)
    line = next(
        n for n, text in enumerate((ROOT / "deploy" / "app_api.yaml").read_text().splitlines(), 1) if "${POSTGRES_DSN}" in text
    )
    assert (
        f"app_api.yaml:{line}: properties.configuration.secrets[0].value: the DSN of the secret postgres-dsn {words}" in message
    )


def test_a_secret_in_the_place_of_a_name_is_not_shown(face: Face) -> None:
    template = (ROOT / "deploy" / "app_api.yaml").read_text(encoding="utf-8")
    face.refused(template=face.template(template.replace("secretRef: postgres-dsn", "secretRef: ${POSTGRES_DSN}")), check=True)
    assert "there is no secret ****" in face.err.getvalue()


def test_what_is_no_tree_at_all_does_not_show_the_text(face: Face) -> None:
    message = face.refused(template=face.template("a: {value: '${POSTGRES_DSN}', <<: x}\n"), check=True)
    assert message == "t.yaml is no YAML that az takes: expected a mapping or list of mappings for merging, but found scalar"


# --- Dummies ----------------------------------------------------------------------------------------------------------


def test_a_dummy_has_the_shape_of_what_is_meant(face: Face) -> None:
    text = (
        (ROOT / "deploy" / "app_api.yaml")
        .read_text(encoding="utf-8")
        .replace("minReplicas: 1", "minReplicas: !!int ${LEAST}")
        .replace("cpu: 0.5", "cpu: !!float ${CPU}")
        .replace("memory: 1Gi", "memory: 2Gi")
    )
    assert "LEAST" in face.render({}, check=True, template=face.template(text))


def test_a_setting_goes_before_its_dummy(face: Face) -> None:
    assert "name: 2 to 32 of a-z" in face.refused({"CONTAINER_APP_NAME": "Api"}, check=True)


# --- --variables ------------------------------------------------------------------------------------------------------


def test_the_variables_are_listed_with_their_lines_and_without_their_values(face: Face) -> None:
    text = "# ${A}\na: ${B_KEY}\nb: ${A}\n"
    said = face.render({"B_KEY": "s3cret", "OTHER": "x"}, variables=True, template=face.template(text))
    assert said.splitlines() == [
        "t.yaml needs:",
        "  A              not set            line 1, 3",
        "  B_KEY  secret  set (environment)  line 2",
    ]


def test_the_variables_in_json(face: Face) -> None:
    facts = json.loads(face.render({}, variables=True, as_json=True, template=face.template("a: ${A}\nb: ${A}\nc: ${B_KEY}\n")))
    assert facts["variables"] == [
        {"name": "A", "secret": False, "set": False, "lines": [1, 2]},
        {"name": "B_KEY", "secret": True, "set": False, "lines": [3]},
    ]


def test_settings_of_the_file_count_and_the_environment_wins(face: Face) -> None:
    (face.folder / ".env").write_text("A='p #x'\nB=file\n", encoding="utf-8")
    text = face.template("a: ${A}\nb: ${B}\n")
    assert face.render({"B": "environment"}, template=text) == 'a: "p #x"\nb: environment\n'


# --- Templates and flags ----------------------------------------------------------------------------------------------


def test_from_a_key_vault_no_value_of_a_secret_is_needed(face: Face) -> None:
    env = {**without("POSTGRES_DSN"), "POSTGRES_DSN_SECRET_URL": VAULT}
    found = yaml.safe_load(face.render(env, from_key_vault=True))
    assert found["properties"]["configuration"]["secrets"] == [
        {"name": "postgres-dsn", "keyVaultUrl": VAULT, "identity": SETTINGS["CONTAINER_APP_IDENTITY"]}
    ]


@pytest.mark.parametrize(("setting", "is_on"), [("on", True), ("enabled", True), ("off", False), ("", False)])
def test_the_key_vault_may_be_a_setting(face: Face, setting: str, is_on: bool) -> None:
    env = {**SETTINGS, "POSTGRES_DSN_SECRET_URL": VAULT, "POSTGRES_FROM_KEY_VAULT": setting}
    assert ("keyVaultUrl" in yaml.safe_load(face.render(env))["properties"]["configuration"]["secrets"][0]) == is_on


def test_a_setting_that_is_neither_on_nor_off_is_refused(face: Face) -> None:
    assert "POSTGRES_FROM_KEY_VAULT" in face.refused({**SETTINGS, "POSTGRES_FROM_KEY_VAULT": "maybe"})


def test_a_template_that_is_not_there_names_those_that_are(face: Face) -> None:
    with pytest.raises(UsageError, match=r"app_web\.yaml can't be read: No such file") as caught:
        face.render(app="web")
    assert caught.value.hint == "--template FILE, or --app with one of: api"


def test_a_template_that_is_no_text_is_refused(face: Face) -> None:
    (face.folder / "t.yaml").write_bytes("a: ü\n".encode("latin-1"))
    assert face.refused(template="t.yaml") == "t.yaml isn't UTF-8 text"
    (face.folder / "u.yaml").write_bytes("a: b\n".encode("utf-16"))
    assert face.refused(template="u.yaml") == "u.yaml isn't UTF-8 text"


@pytest.mark.parametrize(
    "flags", [{"check": True, "out": "x"}, {"check": True, "variables": True}, {"variables": True, "out": "x"}, {"out": ""}]
)
def test_flags_that_make_no_sense_together_are_refused(face: Face, flags: dict[str, Any]) -> None:
    assert "--out" in face.refused(**flags)
    assert not (face.folder / "x").exists()


def test_the_settings_of_a_template_are_concealed_from_then_on(face: Face) -> None:
    console = Console(out=face.out, err=face.err)
    template = render.parse("a: ${A_KEY}\nb: ${B}\n", "t.yaml")
    found = Sources({"A_KEY": "s3cret", "B": "plain"}, {}, ".env")
    assert manifest.values(template, found, console) == {"A_KEY": "s3cret", "B": "plain"}
    console.say("s3cret plain")
    assert face.out.getvalue() == "**** plain\n"


# --- What a user would get wrong --------------------------------------------------------------------------------------


def shipped(face: Face, **changes: str) -> str:
    """The shipped template with texts replaced."""
    text = (ROOT / "deploy" / "app_api.yaml").read_text(encoding="utf-8")
    for before, after in changes.items():
        text = text.replace(f"${{{before}}}", after)
    return face.template(text)


def test_a_secret_that_stands_in_the_template_is_named_and_masked(face: Face) -> None:
    template = shipped(face, POSTGRES_DSN=DSN)
    assert "t.yaml:38: secrets: a secret's value stands in the template" in face.refused(template=template, check=True)
    face.render(template=template)
    assert "s3cret" not in face.out.getvalue()


@pytest.mark.parametrize("name", ["t.yaml", ".env"])
def test_what_is_read_is_not_written_over(face: Face, name: str) -> None:
    template = face.template("a: ${API_IMAGE}\n")
    face.refused(template=template, out=str(face.folder / name))
    assert (face.folder / "t.yaml").read_text() == "a: ${API_IMAGE}\n"
    assert (face.folder / ".env").read_text() == ""


@pytest.mark.parametrize("dsn", [f"{DSN}\n", f" {DSN}"])
def test_a_dsn_with_a_line_break_at_its_end_is_refused(face: Face, dsn: str) -> None:
    assert "begins or ends with a blank or a line break" in face.refused({**SETTINGS, "POSTGRES_DSN": dsn}, check=True)


def test_nothing_is_said_of_the_value_of_a_dummy(face: Face) -> None:
    text = (ROOT / "deploy" / "app_api.yaml").read_text(encoding="utf-8")
    for before, after in (
        ("${CONTAINER_APP_NAME}", "${MY_NAME}"),
        ("${CONTAINER_APP_ENVIRONMENT}", "${ENV_ID}"),
        ("cpu: 0.5", "cpu: !!float ${CPU}"),
        ("activeRevisionsMode: Single", "activeRevisionsMode: ${MODE}"),
        ("external: true", "external: !!bool ${EXTERNAL}"),
    ):
        assert before in text
        text = text.replace(before, after)
    template = face.template(text)
    assert "nothing is wrong with it; dummies stood in for MY_NAME" in face.render({}, template=template, check=True)
    given = {"CPU": "0.6", "MODE": "Singel", "EXTERNAL": "true", "MY_NAME": "Api"}
    message = face.refused(given, template=template, check=True)
    assert all(text in message for text in ("0.6 cores", "did you mean Single?", "name: 2 to 32"))
    assert "environmentId" not in message


def test_the_problems_stand_in_the_json(face: Face) -> None:
    with pytest.raises(UsageError):
        face.render(template=shipped(face, CONTAINER_APP_NAME="Api"), check=True, as_json=True)
    assert [(one["line"], one["place"]) for one in json.loads(face.out.getvalue())["problems"]] == [(5, "name")]
