"""`invoke deploy`, with the real az and an emulated Azure."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.azure.apps import App
from tests.azure.resources import SUBSCRIPTION
from tests.azure.world import World, eventually, failed, writes
from tests.conftest import ROOT

PASSWORD = "s3cret pass#word: &x é"
ENCODED = "s3cret%20pass%23word%3A%20%26x%20%C3%A9"
DSN = f"postgresql://backtest_service:{ENCODED}@s.postgres.database.azure.com:5432/serving?sslmode=require"
SECRET = {"place": "secret postgres-dsn", "before": None, "after": None, "is_hidden": True}
NEW = DSN.replace("s3cret", "an0ther-n3w")


@pytest.fixture
def team(world: World) -> World:
    """A team with an environment, an identity and a registry, and no app yet."""
    world.emulator.add_group("rg")
    world.env |= {
        "AZURE_RESOURCE_GROUP": "rg",
        "CONTAINER_APP_NAME": "api",
        "CONTAINER_APP_ENVIRONMENT": world.emulator.add_environment("env")["id"],
        "CONTAINER_APP_IDENTITY": world.emulator.add_identity("puller"),
        "CONTAINER_REGISTRY": "registry.azurecr.io",
        "API_IMAGE": "registry.azurecr.io/api:1",
        "POSTGRES_DSN": DSN,
    }
    return world


def deployed(team: World, *words: str, **env: str) -> dict[str, Any]:
    """The document of a deployment that went well, which left no file behind and no secret anywhere."""
    result = team.invoke("deploy", "--json", *words, env=env)
    assert result.returncode == 0, result.stderr
    clean(team, result.stdout + result.stderr)
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def clean(team: World, output: str) -> None:
    """No secret in an argv, an environment, a file or the output, and nothing left in the folder for temporary files."""
    traces = {**team.traces(), "output": output}
    assert [name for name, text in traces.items() if "s3cret" in text or "an0ther-n3w" in text] == []
    assert list((team.home / "tmp").iterdir()) == []


def only(team: World) -> App:
    (app,) = team.emulator.apps
    return app


def test_the_first_deployment_an_unchanged_one_and_a_changed_secret(team: World) -> None:
    first = deployed(team)
    assert first["action"] == "create"
    app = only(team)
    assert [revision.name for revision in app.revisions] == [first["revision"]]
    assert re.fullmatch(r"api--\d{8}-\d{6}-[0-9a-f]{4}", first["revision"])
    assert app.revisions[0].env == {"POSTGRES_DSN": DSN}
    assert first["address"].startswith("https://api.calmsea")

    team.forget_calls()
    wrote = writes(team.emulator)
    again = deployed(team)
    assert (again["action"], again["changes"], again["revision"]) == ("keep", [], first["revision"])
    assert writes(team.emulator) == wrote
    assert len(app.revisions) == 1
    assert len(team.calls()) == 2

    rotated = deployed(team, POSTGRES_DSN=NEW)
    assert (rotated["action"], rotated["changes"]) == ("update", [SECRET])
    assert [revision.env["POSTGRES_DSN"] for revision in app.revisions] == [DSN, NEW]
    assert app.serving is app.revisions[1]
    assert rotated["revision"] == app.revisions[1].name


def test_what_the_template_does_not_name_in_a_list_stays_unless_it_is_told_to_go(team: World) -> None:
    deployed(team)
    app = only(team)
    domain = {"name": "api.example.com", "bindingType": "Disabled"}
    app.configuration["ingress"]["customDomains"] = [domain]
    app.configuration["secrets"].append({"name": "token", "value": "by hand"})
    app.document["properties"]["template"]["containers"][0]["env"].append({"name": "TOKEN", "secretRef": "token"})

    said = team.invoke("deploy", env={"API_IMAGE": "registry.azurecr.io/api:2"})
    assert said.returncode == 0, said.stderr
    assert (
        "  change properties.template.containers.api.image: registry.azurecr.io/api:1 -> registry.azurecr.io/api:2" in said.stdout
    )
    for name in ("properties.template.containers.api.env[TOKEN]", "properties.configuration.secrets[token]"):
        assert f"keep   {name}, which the template doesn't name (--prune drops it)" in said.stdout
    assert "by hand" not in said.stdout + said.stderr
    assert app.revisions[-1].env == {"POSTGRES_DSN": DSN, "TOKEN": "by hand"}

    pruned = deployed(team, "--prune", API_IMAGE="registry.azurecr.io/api:2")
    assert pruned["dropped"] == ["properties.configuration.secrets[token]", "properties.template.containers.api.env[TOKEN]"]
    assert app.revisions[-1].env == {"POSTGRES_DSN": DSN}
    assert app.secrets == {"postgres-dsn": DSN}


def test_a_plan_writes_nothing(team: World) -> None:
    planned = deployed(team, "--plan")
    assert (planned["action"], planned["revision"]) == ("create", None)
    assert writes(team.emulator) == []
    deployed(team)
    wrote = writes(team.emulator)
    assert deployed(team, "--plan", POSTGRES_DSN=NEW)["changes"] == [SECRET]
    assert writes(team.emulator) == wrote


@pytest.mark.parametrize("illness", ["provisioning-failed", "crashing", "unhealthy"])
def test_an_unhealthy_revision_and_the_way_back(team: World, illness: str) -> None:
    good = deployed(team)["revision"]
    app = only(team)
    team.emulator.next_revision(illness)
    result = team.invoke("deploy", "--ready-deadline", "4", env={"API_IMAGE": "registry.azurecr.io/api:bad"})
    new = app.revisions[-1].name
    back = f"az containerapp revision copy --name api --resource-group rg --subscription {SUBSCRIPTION} --from-revision {good}"
    failed(result, 1, f"the revision {new} isn't ready", f"the last good one is {good}, which still serves", f"next:  {back}")
    clean(team, result.stdout + result.stderr)
    assert app.serving is not None
    assert app.serving.name == good

    if illness == "crashing":
        went = team.run(*shlex.split(back), "--output", "none")
        assert went.returncode == 0, went.stderr
        assert app.serving is app.revisions[-1]
        assert app.serving.template["containers"][0]["image"] == "registry.azurecr.io/api:1"
        assert app.serving.env == {"POSTGRES_DSN": DSN}


def test_after_an_unhealthy_revision_the_same_template_makes_a_new_one(team: World) -> None:
    team.emulator.next_revision("crashing")
    result = team.invoke("deploy")
    failed(result, 1, "isn't ready", "there is no former one to go back to", "az containerapp logs show")
    mended = deployed(team)
    assert mended["action"] == "update"
    assert "isn't healthy" in mended["reason"]
    assert len(only(team).revisions) == 2
    assert len(only(team).revisions) == len({revision.name for revision in only(team).revisions})


@pytest.mark.parametrize("action", ["create", "update"])
def test_az_fails_half_way(team: World, action: str) -> None:
    if action == "update":
        deployed(team)
    method = "PUT" if action == "create" else "PATCH"
    team.emulator.fail(method, "/containerApps/api$", "operation-failed")
    result = team.invoke("deploy", env={"POSTGRES_DSN": NEW})
    failed(result, 1)
    clean(team, result.stdout + result.stderr)
    done = deployed(team, POSTGRES_DSN=NEW)
    assert only(team).serving is not None
    assert only(team).serving.env == {"POSTGRES_DSN": NEW}  # type: ignore[union-attr]
    assert done["revision"] == only(team).serving.name  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_file_behind(team: World, number: signal.Signals) -> None:
    team.emulator.state.seconds = 60
    process = team.start("deploy")
    eventually(lambda: bool(writes(team.emulator)))
    (folder,) = (team.home / "tmp").glob("*-deploy-*")
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert file.stat().st_mode & 0o077 == 0
    rendered = file.read_bytes()
    assert rendered.isascii()
    assert yaml.safe_load(rendered)["properties"]["configuration"]["secrets"] == [{"name": "postgres-dsn", "value": DSN}]
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    clean(team, out + err)


@pytest.mark.long
def test_from_a_key_vault_no_value_is_needed_and_none_passes(team: World) -> None:
    team.emulator.add_vault("team")["POSTGRES-DSN"] = [DSN]
    url = "https://team.vault.azure.net/secrets/POSTGRES-DSN"
    env = {"POSTGRES_DSN": "", "POSTGRES_DSN_SECRET_URL": url}
    first = deployed(team, "--from-key-vault", **env)
    assert only(team).serving is not None
    assert only(team).serving.env == {"POSTGRES_DSN": DSN}  # type: ignore[union-attr]
    assert deployed(team, **env, POSTGRES_FROM_KEY_VAULT="on")["action"] == "keep"
    assert only(team).serving.name == first["revision"]  # type: ignore[union-attr]
    # az can't update by file what it isn't told the value of.
    renewed = deployed(team, "--from-key-vault", "--new-revision", **env)
    assert only(team).serving.name == renewed["revision"] != first["revision"]  # type: ignore[union-attr]
    team.emulator.add_vault("other")["DSN"] = [NEW]
    moved = {**env, "POSTGRES_DSN_SECRET_URL": "https://other.vault.azure.net/secrets/DSN"}
    assert deployed(team, "--from-key-vault", **moved)["changes"] == [SECRET]
    assert only(team).serving.env == {"POSTGRES_DSN": NEW}  # type: ignore[union-attr]
    assert deployed(team)["changes"] == [SECRET]  # back to a value of its own
    assert only(team).serving.env == {"POSTGRES_DSN": DSN}  # type: ignore[union-attr]
    assert deployed(team, "--from-key-vault", **env)["changes"] == [SECRET]
    assert deployed(team, "--from-key-vault", **env)["action"] == "keep"


def test_what_is_wrong_is_found_before_az_is_started(team: World, tmp_path: Path) -> None:
    template = tmp_path / "bad.yaml"
    text = (ROOT / "deploy" / "app_api.yaml").read_text(encoding="utf-8")
    template.write_text(text.replace("secretRef:", "secretref:").replace("maxReplicas: 3", "maxReplicas: 0"))
    result = team.invoke("deploy", "--template", str(template))
    failed(result, 2, f"{template}:{line(template, 'secretref')}: ", "did you mean secretRef?", "at least 1 is meant")
    failed(team.invoke("deploy", env={"POSTGRES_DSN": DSN.partition("?")[0]}), 2, "without TLS")
    failed(team.invoke("deploy", env={"POSTGRES_DSN": "", "API_IMAGE": ""}), 2, "POSTGRES_DSN is not set", "API_IMAGE is not set")
    failed(
        team.invoke("deploy", env={"AZURE_RESOURCE_GROUP": "", "AZURE_SUBSCRIPTION_ID": ""}),
        2,
        "--resource-group",
        "--subscription-id",
    )
    assert team.calls() == []


def line(path: Path, word: str) -> int:
    return next(number for number, text in enumerate(path.read_text().splitlines(), 1) if word in text)


def test_what_azure_refuses_is_told_with_the_next_command(team: World) -> None:
    nowhere = team.env["CONTAINER_APP_ENVIRONMENT"].replace("/env", "/nowhere")
    refused = team.invoke("deploy", env={"CONTAINER_APP_ENVIRONMENT": nowhere})
    failed(refused, 1, "for a new app, this isn't there:", nowhere)
    elsewhere = team.invoke("deploy", "--plan", env={"AZURE_RESOURCE_GROUP": "nowhere"})
    failed(elsewhere, 1, "for a new app, this isn't there:\n  the resource group nowhere\n")
    team.emulator.fail("PUT", "/containerApps/api$", "image-unauthorized")
    failed(team.invoke("deploy"), 1, "the image can't be pulled", "give the Container App's identity the role AcrPull")
    team.emulator.fail("GET", "/containerApps/api$", "forbidden", times=None)
    failed(team.invoke("deploy"), 1, "the login has no right to do this")
    assert team.emulator.apps == []


@pytest.mark.long
def test_an_operation_of_somebody_else_is_waited_for(team: World) -> None:
    deployed(team)
    team.emulator.fail("PATCH", "/containerApps/api$", "app-busy")
    assert deployed(team, POSTGRES_DSN=NEW)["action"] == "update"
    assert only(team).serving is only(team).revisions[-1]


def test_another_identity_for_an_app_that_stands(team: World) -> None:
    deployed(team)
    other = team.emulator.add_identity("other")
    changed = deployed(team, CONTAINER_APP_IDENTITY=other)
    assert f"identity.userAssignedIdentities.{other}" in [change["place"] for change in changed["changes"]]
    assert {name.lower() for name in only(team).document["identity"]["userAssignedIdentities"]} >= {other.lower()}
    assert deployed(team, CONTAINER_APP_IDENTITY=other)["action"] == "keep"


def test_an_identity_whose_id_az_would_alter(team: World) -> None:
    team.env |= {"CONTAINER_APP_NAME": "serving", "CONTAINER_APP_IDENTITY": team.emulator.add_identity("api_puller")}
    result = team.invoke("deploy")
    failed(result, 2, "az would spell an identity with a _ in its id otherwise", "api_puller", "next:  az containerapp create")
    assert writes(team.emulator) == []
    command = result.stderr.partition("next:  ")[2].partition("; then:")[0]
    made = team.run(*shlex.split(command))
    assert made.returncode == 0, made.stderr
    team.forget_calls()
    done = deployed(team)
    assert (done["action"], done["kept"]) == ("update", [])
    (identity,) = only(team).document["identity"]["userAssignedIdentities"]
    assert identity.endswith("/api_puller")
    assert deployed(team)["action"] == "keep"
