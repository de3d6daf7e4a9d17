"""A deployment against a small Azure behind fake runs: what is decided, sent, waited for, shown and left behind."""

from __future__ import annotations

import copy
import io
import json
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import deploy, render, shell
from scripts.apps import App, Revision, go_back, logs
from scripts.az import Az
from scripts.console import Console
from scripts.deploy import There
from scripts.errors import OpsError
from scripts.manifest import Manifest
from scripts.shell import Result
from tests.azure import apps
from tests.unit.azure import SUBSCRIPTION, Fault, az_in, failed, ok, parsed

ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers"
DSN = "postgresql://app:s3cr%C3%A9t@db.example:5432/app?sslmode=require"
APP = App(name="api", group="rg", subscription=SUBSCRIPTION)
UPDATE, CREATE, SHOW, REVISIONS = (f"containerapp {verb}" for verb in ("update", "create", "show", "revision list"))
BUSY = "ERROR: (ContainerAppOperationInProgress) Cannot modify a container app because another operation is in progress."
BROKEN = "ERROR: ('Connection aborted.', RemoteDisconnected('x'))"
REFUSED = "ERROR: (AuthorizationFailed) The client does not have authorization."
Json = dict[str, Any]


def wanted(dsn: str = DSN, **more: Any) -> Json:
    """A template's tree."""
    return {
        "name": "api",
        "properties": {
            "environmentId": f"{ID}/Microsoft.App/managedEnvironments/env",
            "configuration": {
                "ingress": {"external": True, "targetPort": 8000},
                "secrets": [{"name": "dsn", "value": dsn}],
            },
            "template": {
                "containers": [
                    {
                        "name": "api",
                        "image": "r.io/api:1",
                        "env": [{"name": "POSTGRES_DSN", "secretRef": "dsn"}, {"name": "MODE", "value": "0123 é yes"}],
                        "resources": {"cpu": 0.5, "memory": "1.0Gi"},
                    }
                ],
                "scale": {"minReplicas": 1, "maxReplicas": 3},
                **more,
            },
        },
    }


def revision(name: str, provisioning: str = "Provisioned", running: str = "Running", health: str = "Healthy") -> Revision:
    return Revision(name=name, provisioning=provisioning, running=running, health=health, error="")


@dataclass
class Clock:
    """Time that passes by being waited for."""

    seconds: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds


@dataclass
class Cloud:
    """One Container App, or none, behind a fake `run`. `states`: how the next revision is seen, look by look."""

    document: Json | None = None
    secrets: list[Json] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    ready: str | None = None
    states: list[Revision] = field(default_factory=lambda: [revision("")])
    faults: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    at_write: Callable[[Path], None] = lambda path: None

    @classmethod
    def deployed(cls, tree: Json | None = None) -> Cloud:
        """With the app as an earlier deployment left it."""
        cloud = cls()
        cloud.take(tree or wanted(), "old")
        return cloud

    def take(self, tree: Json, suffix: str) -> None:
        given = tree["properties"]["configuration"].get("secrets", self.secrets)
        known = {secret["name"]: secret.get("value") for secret in self.secrets}
        self.secrets = [{**secret, "value": secret.get("value") or known.get(secret["name"])} for secret in given]
        self.document = apps.completed(apps.merged(self.document or {}, tree))
        self.document["name"] = tree["name"]
        self.document["properties"]["configuration"]["secrets"] = [{"name": secret["name"]} for secret in given]
        self.document["properties"]["configuration"]["ingress"]["fqdn"] = "api.example.io"
        self.revisions.append(revision(f"api--{suffix}"))
        self.document["properties"]["latestRevisionName"] = f"api--{suffix}"
        if not self.ready:
            self.ready = f"api--{suffix}"

    def run(self, argv: Sequence[str], **_: object) -> Result:
        verb, flags = parsed(argv[1:])
        self.calls.append(verb)
        if verb in (CREATE, UPDATE):
            path = Path(flags["yaml"])
            self.files.append(path)
            self.texts.append(path.read_text(encoding="ascii"))
            self.at_write(path)
        fault = next((fault for fault in self.faults if fault.times and verb == fault.words), None)
        if fault is None or fault.after:
            answer = self.answer(verb, flags)
        if fault is None:
            return answer
        fault.times -= 1
        if isinstance(fault.result, BaseException):
            raise fault.result
        return fault.result

    def run_together(self, argvs: Sequence[Sequence[str]], **more: object) -> list[Result]:
        return [self.run(argv, **more) for argv in argvs]

    def answer(self, verb: str, flags: dict[str, str]) -> Result:
        if verb in ("group show", "containerapp env show"):
            return ok()
        assert (flags["name"], flags["resource-group"], flags["subscription"]) == ("api", "rg", SUBSCRIPTION)
        if verb in (CREATE, UPDATE):
            assert (self.document is None) == (verb == CREATE)
            tree = yaml.safe_load(self.texts[-1])
            self.take(tree, tree["properties"]["template"]["revisionSuffix"])
            return ok()
        if self.document is None:
            return failed("ERROR: (ResourceNotFound) The Resource 'Microsoft.App/containerApps/api' was not found.", 3)
        if verb == REVISIONS:
            if UPDATE in self.calls or CREATE in self.calls:
                state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
                self.revisions[-1] = replace(state, name=self.revisions[-1].name)
                if state.is_healthy:
                    self.ready = self.revisions[-1].name
            return ok(json.dumps([revision_json(one) for one in self.revisions]))
        assert "show-secrets" in flags
        shown = copy.deepcopy(self.document)
        shown["properties"]["configuration"]["secrets"] = self.secrets
        shown["properties"]["latestReadyRevisionName"] = self.ready
        if self.states[0].is_healthy and (UPDATE in self.calls or CREATE in self.calls):
            shown["properties"]["latestReadyRevisionName"] = self.revisions[-1].name
        return ok(json.dumps(shown))

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if call in (CREATE, UPDATE)]


def revision_json(item: Revision) -> Json:
    properties = {
        "active": True,
        "provisioningState": item.provisioning,
        "runningState": item.running,
        "healthState": item.health or "None",
        "runningStateDetails": item.error,
    }
    return {"name": item.name, "properties": properties}


@dataclass
class Deployment:
    """What one `invoke deploy` would do and say."""

    folder: Path
    cloud: Cloud
    clock: Clock = field(default_factory=Clock)
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)
    moment: datetime = datetime(2026, 11, 25, 1, 2, 3, tzinfo=UTC)

    def run(self, tree: Json | None = None, *, as_json: bool = False, **more: Any) -> Deployment:
        console = Console(as_json=as_json, out=self.out, err=self.err)
        tree = tree or wanted()
        manifest = Manifest(render.parse("a: b\n", "t.yaml"), "", tree, [])
        before = copy.deepcopy(tree)
        redact = console.redact
        with Az(az_in(self.folder), redact=redact, run=self.cloud.run, run_together=self.cloud.run_together) as client:
            deploy.run(
                APP,
                manifest,
                client,
                console,
                now=lambda: self.moment,
                clock=self.clock.now,
                sleep=self.clock.sleep,
                again="invoke deploy --app api",
                **more,
            )
        assert tree == before
        return self

    def refused(self, tree: Json | None = None, **more: Any) -> OpsError:
        with pytest.raises(OpsError) as caught:
            self.run(tree, **more)
        assert "s3cr" not in f"{caught.value.message}{caught.value.hint}{caught.value.facts}{self.said}"
        return caught.value

    @property
    def said(self) -> str:
        return self.out.getvalue() + self.err.getvalue()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go; it is empty in the end."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def deployment(tmp_path: Path, temporary: Path) -> Callable[[Cloud], Deployment]:
    return lambda cloud: Deployment(tmp_path, cloud)


Make = Callable[[Cloud], Deployment]

# --- What is decided --------------------------------------------------------------------------------------------------


def there(tree: Json | None = None, *revisions: Revision, dsn: str = DSN) -> There:
    """The app as Azure has it; its newest revision is the last one."""
    known = revisions or (revision("api--1"),)
    shown = apps.completed(tree or wanted())
    shown["properties"]["configuration"]["secrets"] = [{"name": "dsn", "value": dsn}]
    shown["properties"].update(latestRevisionName=known[-1].name, latestReadyRevisionName=known[0].name)
    return There(tree={"name": "api", **shown}, revisions=list(known))


def test_what_is_not_there_is_made() -> None:
    plan = deploy.decide(wanted(), None)
    assert (plan.action, plan.reason, plan.kept, plan.dropped) == ("create", "there is no such app", [], [])
    said = [str(change) for change in plan.changes]
    assert "secret dsn: nothing -> new" in said
    assert "properties.template.scale.maxReplicas: nothing -> 3" in said
    assert not any("s3cr" in line for line in said)


def test_what_is_as_the_template_says_is_kept() -> None:
    plan = deploy.decide(wanted(), there())
    assert (plan.action, plan.reason, plan.changes) == ("keep", "it is as the template says", [])


def test_what_differs_is_updated_and_named() -> None:
    plan = deploy.decide(wanted(scale={"minReplicas": 2, "maxReplicas": 3}), there())
    assert (plan.action, plan.reason) == ("update", "the template differs from what stands")
    assert [str(change) for change in plan.changes] == ["properties.template.scale.minReplicas: 1 -> 2"]


def test_a_changed_secret_alone_is_a_change_and_shows_nothing() -> None:
    plan = deploy.decide(wanted(), there(dsn=DSN.replace("s3cr", "s3cr2")))
    assert plan.action == "update"
    assert [str(change) for change in plan.changes] == ["secret dsn"]
    assert "s3cr" not in repr(plan)


def test_a_new_revision_that_is_asked_for_is_made() -> None:
    plan = deploy.decide(wanted(), there(), new_revision=True)
    assert (plan.action, plan.reason, plan.changes) == ("update", "a new revision is asked for", [])


@pytest.mark.parametrize(
    ("newest", "is_tried_again"),
    [
        (revision("api--2", provisioning="Failed", running="Failed", health=""), True),
        (revision("api--2", running="Failed", health="Unhealthy"), True),
        (revision("api--2", running="ScaledToZero", health=""), False),
        (revision("api--2", running="Activating", health=""), False),
        (revision("api--2"), False),
    ],
)
def test_a_newest_revision_that_failed_is_replaced(newest: Revision, is_tried_again: bool) -> None:
    plan = deploy.decide(wanted(), there(None, revision("api--1"), newest))
    assert (plan.action == "update") == is_tried_again
    kept = f"it is as the template says; api--2 isn't ready yet ({newest})"
    assert plan.reason == (f"the newest revision isn't healthy ({newest})" if is_tried_again else kept)


@pytest.mark.parametrize("state", ["Failed", "Canceled"])
def test_an_app_whose_last_change_failed_is_changed_again(state: str) -> None:
    """Azure may show what was asked for, although no revision came of it."""
    known = there()
    known.tree["properties"]["provisioningState"] = state
    assert deploy.decide(wanted(), known).action == "update"


def test_an_app_without_a_revision_gets_one() -> None:
    known = replace(there(), revisions=[])
    assert (known.latest, known.ready) == (None, None)
    assert deploy.decide(wanted(), known).reason == "the newest revision isn't healthy (there is none)"


def with_more() -> Json:
    tree = wanted()
    tree["properties"]["template"]["containers"][0]["env"].append({"name": "DEBUG", "value": "s3cr"})
    return tree


def test_what_others_added_stays_unless_it_is_to_go() -> None:
    plan = deploy.decide(wanted(), there(with_more()))
    assert (plan.action, [str(extra) for extra in plan.kept], plan.dropped) == (
        "keep",
        ["properties.template.containers.api.env[DEBUG]"],
        [],
    )
    plan = deploy.decide(wanted(), there(with_more()), prune=True)
    assert (plan.action, plan.kept, [str(extra) for extra in plan.dropped]) == (
        "update",
        [],
        ["properties.template.containers.api.env[DEBUG]"],
    )


# --- What is done -----------------------------------------------------------------------------------------------------


def test_the_first_deployment_makes_the_app(deployment: Make) -> None:
    done = deployment(Cloud()).run()
    assert done.cloud.writes == [CREATE]
    assert done.out.getvalue().startswith("create api in rg: there is no such app\n")
    assert re.search(r"deployed: api--20261125-010203-[0-9a-f]{4} serves at https://api\.example\.io\n$", done.out.getvalue())
    assert "s3cr" not in done.said


def test_an_unchanged_app_is_left_alone(deployment: Make) -> None:
    done = deployment(Cloud.deployed()).run()
    assert done.cloud.writes == []
    assert done.out.getvalue().endswith("unchanged: api--old serves at https://api.example.io\n")
    assert done.clock.pauses == []


def test_a_changed_secret_makes_a_new_revision(deployment: Make) -> None:
    done = deployment(Cloud.deployed()).run(wanted(DSN.replace("s3cr", "s3cr2")))
    assert done.cloud.writes == [UPDATE]
    assert "change secret dsn\n" in done.said
    assert "s3cr" not in done.said
    assert done.cloud.secrets[0]["value"] == DSN.replace("s3cr", "s3cr2")
    assert len(done.cloud.revisions) == 2


def test_a_second_run_finds_nothing_to_do(deployment: Make) -> None:
    cloud = Cloud()
    deployment(cloud).run()
    cloud.calls.clear()
    deployment(cloud).run()
    assert cloud.writes == []


def test_what_others_added_is_sent_too_and_said(deployment: Make) -> None:
    cloud = Cloud.deployed(with_more())
    done = deployment(cloud).run(new_revision=True)
    [container] = yaml.safe_load(cloud.texts[-1])["properties"]["template"]["containers"]
    assert {"name": "DEBUG", "value": "s3cr"} in container["env"]
    assert "keep   properties.template.containers.api.env[DEBUG], which the template doesn't name (--prune drops it)" in done.said
    pruned = deployment(cloud).run(prune=True)
    assert "drop   properties.template.containers.api.env[DEBUG], which the template doesn't name\n" in pruned.said
    assert "DEBUG" not in cloud.texts[-1]
    assert "s3cr" not in done.said + pruned.said


@pytest.mark.parametrize("cloud", [Cloud(), Cloud.deployed(), Cloud.deployed(with_more())])
def test_a_plan_writes_nothing(deployment: Make, cloud: Cloud) -> None:
    done = deployment(cloud).run(wanted("postgresql://s3cr@x/y"), plan_only=True, prune=True, new_revision=True)
    assert cloud.writes == []
    assert done.out.getvalue().endswith("this was the plan; nothing is written\n")
    assert "s3cr" not in done.said


@pytest.mark.parametrize("plan_only", [True, False])
def test_json_says_the_same_without_a_secret(deployment: Make, plan_only: bool) -> None:
    done = deployment(Cloud.deployed(with_more())).run(wanted(DSN + "&x=s3cr"), as_json=True, plan_only=plan_only)
    facts = json.loads(done.out.getvalue())
    assert facts["changes"] == [{"place": "secret dsn", "before": None, "after": None, "is_hidden": True}]
    assert (facts["app"], facts["action"], facts["dropped"]) == ("api", "update", [])
    assert facts["kept"] == ["properties.template.containers.api.env[DEBUG]"]
    assert (facts["revision"] is None) == plan_only
    assert facts["address"] == "https://api.example.io"
    assert "s3cr" not in done.said


def test_names_of_others_do_not_steer_the_terminal(deployment: Make) -> None:
    tree = wanted()
    tree["properties"]["template"]["containers"][0]["env"].append({"name": "A\n::add-mask::\x1b[2J", "value": "x"})
    done = deployment(Cloud.deployed(tree)).run()
    assert r"env[A\n::add-mask::\x1b[2J]" in done.said


# --- The file ---------------------------------------------------------------------------------------------------------


def merged(text: str) -> Json:
    tree: Json = yaml.safe_load(text)
    del tree["properties"]["template"]["revisionSuffix"]
    return tree


@pytest.mark.parametrize(
    "odd", ["é\u2028\x07", "yes", "0123", "p #x", "a\nb\n", "$X ${X}", "\U0001f600", "x" * 5_000, " a ", "a: b"]
)
def test_the_file_is_ascii_and_says_exactly_what_is_wanted(deployment: Make, odd: str) -> None:
    tree = wanted()
    tree["properties"]["template"]["containers"][0]["env"].append({"name": "ODD", "value": odd})
    cloud = deployment(Cloud()).run(tree).cloud
    assert cloud.texts[0].isascii()
    assert merged(cloud.texts[0]) == tree
    assert yaml.safe_load(cloud.texts[0])["properties"]["template"]["revisionSuffix"].startswith("20261125-010203-")


@pytest.mark.skipif(sys.platform == "win32", reason="who may read a file, Windows says otherwise")
def test_only_its_owner_can_read_the_file(deployment: Make) -> None:
    modes: list[int] = []
    cloud = Cloud(at_write=lambda path: modes.extend(stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)))
    deployment(cloud).run()
    assert modes == [0o600, 0o700]


@pytest.mark.parametrize(
    "result", [ok(), failed(REFUSED), failed(BUSY), KeyboardInterrupt(), SystemExit(1), RuntimeError("a bug")], ids=repr
)
@pytest.mark.parametrize("after", [True, False])
def test_the_file_is_gone_whatever_happens(
    deployment: Make, temporary: Path, result: Result | BaseException, after: bool
) -> None:
    cloud = Cloud.deployed()
    cloud.faults.append(Fault(UPDATE, result, after=after or result == ok(), times=9))
    raised: list[BaseException] = []
    try:
        deployment(cloud).run(new_revision=True)
    except BaseException as error:
        raised.append(error)
    assert cloud.files
    assert not any(path.exists() or path.parent.exists() for path in cloud.files)
    assert list(temporary.iterdir()) == []
    if isinstance(result, BaseException):
        assert raised == [result]
    else:
        assert [isinstance(error, OpsError) for error in raised] == ([] if result == ok() else [True])


# --- az fails ---------------------------------------------------------------------------------------------------------


def test_while_azure_is_at_another_update_it_is_tried_again(deployment: Make) -> None:
    cloud = Cloud.deployed()
    cloud.faults.append(Fault(UPDATE, failed(BUSY), times=4))
    done = deployment(cloud).run(new_revision=True)
    assert cloud.writes == [UPDATE] * 5
    assert done.clock.pauses == [10.0] * 4
    assert len(set(cloud.texts)) == 1, "the same revision, so that none is made twice"


def test_an_azure_that_stays_busy_is_given_up_with_our_own_command(deployment: Make) -> None:
    cloud = Cloud.deployed()
    cloud.faults.append(Fault(UPDATE, failed(BUSY), times=9))
    error = deployment(cloud).refused(new_revision=True)
    assert cloud.writes == [UPDATE] * 5
    assert "ContainerAppOperationInProgress" in error.message
    assert error.hint == "invoke deploy --app api"


@pytest.mark.parametrize("cloud", [Cloud(), Cloud.deployed()])
def test_another_refusal_is_shown_at_once_without_the_secret(deployment: Make, cloud: Cloud) -> None:
    cloud = copy.deepcopy(cloud)
    console_knows = wanted()
    for verb in (CREATE, UPDATE):
        cloud.faults.append(Fault(verb, failed(REFUSED)))
    error = deployment(cloud).refused(console_knows, new_revision=True)
    assert len(cloud.writes) == 1
    assert "(AuthorizationFailed)" in error.message
    assert "Contributor" in error.hint


@pytest.mark.parametrize("question", [SHOW, REVISIONS])
def test_what_can_not_be_looked_at_is_not_written(deployment: Make, question: str) -> None:
    cloud = Cloud.deployed()
    cloud.faults.append(Fault(question, failed(REFUSED)))
    assert "(AuthorizationFailed)" in deployment(cloud).refused(new_revision=True).message
    assert cloud.writes == []


def test_a_secret_that_azure_has_is_taken_out_of_what_az_says(deployment: Make) -> None:
    cloud = Cloud.deployed()
    cloud.faults.append(Fault(UPDATE, failed(f"ERROR: bad value {DSN} in the file")))
    error = deployment(cloud).refused(new_revision=True)
    assert "bad value **** in the file" in error.message


# --- The wait ---------------------------------------------------------------------------------------------------------

ACTIVATING = revision("", provisioning="Provisioning", running="Activating", health="")
CRASHED = replace(revision("", running="Failed", health="Unhealthy"), error="The container exited with exit code 1.\n::x")
UNHEALTHY = revision("", health="Unhealthy")


def test_a_new_revision_is_waited_for(deployment: Make) -> None:
    cloud = Cloud.deployed()
    cloud.states = [ACTIVATING, ACTIVATING, UNHEALTHY, revision("")]
    done = deployment(cloud).run(new_revision=True)
    assert done.clock.pauses == [3.0] * len(done.clock.pauses)
    assert 3 <= len(done.clock.pauses) <= 4
    assert "deployed: " in done.said
    assert "waiting up to 360 s until api--2026" in done.said


def test_a_failed_revision_ends_the_wait_with_the_way_back(deployment: Make) -> None:
    cloud = Cloud.deployed()
    cloud.states = [ACTIVATING, CRASHED]
    waiting = deployment(cloud)
    error = waiting.refused(new_revision=True)
    name = cloud.revisions[-1].name
    why = (
        f"az containerapp logs show --name api --resource-group rg --subscription {SUBSCRIPTION} --revision {name} --type system"
    )
    assert error.message == (
        f"the revision {name} isn't ready: Provisioned, Failed, Unhealthy: The container exited with exit code 1.\\n::x\n"
        f"why: {why}\n"
        "the last good one is api--old, which still serves"
    )
    back = f"az containerapp revision copy --name api --resource-group rg --subscription {SUBSCRIPTION} --from-revision api--old"
    assert error.hint == back
    assert error.facts == {"last_good": "api--old"}
    assert waiting.clock.pauses == [3.0]


@pytest.mark.parametrize("state", [ACTIVATING, UNHEALTHY])
def test_the_deadline_ends_the_wait(deployment: Make, state: Revision) -> None:
    cloud = Cloud.deployed()
    cloud.states = [state]
    waiting = deployment(cloud)
    error = waiting.refused(new_revision=True, deadline=30.0)
    assert "isn't ready: " in error.message
    assert "the last good one is api--old" in error.message
    assert 30 <= sum(waiting.clock.pauses) <= 33


def test_without_a_former_revision_there_is_none_to_go_back_to(deployment: Make) -> None:
    cloud = Cloud(states=[CRASHED])
    error = deployment(cloud).refused()
    assert error.message.endswith("there is no former one to go back to")
    assert re.fullmatch(r"az containerapp logs show .* --type system; then: invoke deploy --app api", error.hint)


def test_an_answer_that_is_lost_does_not_end_the_wait(deployment: Make) -> None:
    cloud = Cloud.deployed()
    cloud.states = [ACTIVATING, revision("")]
    losing = deployment(cloud)
    cloud.at_write = lambda path: cloud.faults.extend(Fault(verb, failed(BROKEN)) for verb in (SHOW, REVISIONS))
    losing.run(new_revision=True)
    assert "deployed: " in losing.said


@pytest.mark.parametrize("text", [BROKEN, REFUSED])
def test_answers_that_stay_away_end_it_and_say_what_is_not_known(deployment: Make, text: str) -> None:
    cloud = Cloud.deployed()
    cloud.at_write = lambda path: cloud.faults.append(Fault(SHOW, failed(text), times=999))
    waiting = deployment(cloud)
    error = waiting.refused(new_revision=True, deadline=30.0)
    assert re.match(r"whether api--2026\S+ is ready isn't known: ", error.message)
    assert error.hint == "invoke deploy --app api"
    assert (sum(waiting.clock.pauses) >= 30) == (text == BROKEN)


def test_an_app_that_is_deleted_meanwhile_is_gone(deployment: Make) -> None:
    cloud = Cloud.deployed()
    cloud.faults.append(Fault(UPDATE, ok()))
    cloud.at_write = lambda path: setattr(cloud, "document", None)
    assert deployment(cloud).refused(new_revision=True).message == "the app api is gone"


def test_what_azure_took_and_did_not_do_is_an_error(deployment: Make) -> None:
    cloud = Cloud.deployed()
    waiting = deployment(cloud)
    take = cloud.take

    def half(tree: Json, suffix: str) -> None:
        tree["properties"]["template"]["scale"]["maxReplicas"] = 3
        take(tree, suffix)

    cloud.take = half  # type: ignore[method-assign]
    error = waiting.refused(wanted(scale={"minReplicas": 1, "maxReplicas": 5}))
    assert re.match(r"Azure took the update of api, and api--\S+ runs, but this differs:\n", error.message)
    assert error.message.endswith("  properties.template.scale.maxReplicas: 3 -> 5")
    assert error.hint == "invoke deploy --app api"


def test_an_unchanged_app_whose_newest_revision_does_not_come_up_is_an_error(deployment: Make) -> None:
    cloud = Cloud.deployed()
    cloud.revisions.append(revision("api--new", health="Unhealthy"))
    assert cloud.document is not None
    cloud.document["properties"]["latestRevisionName"] = "api--new"
    error = deployment(cloud).refused(deadline=9.0)
    assert "the revision api--new isn't ready" in error.message
    assert "the last good one is api--old" in error.message
    assert cloud.writes == []


def test_a_newest_revision_that_was_started_with_other_secrets_is_replaced(deployment: Make) -> None:
    """As when az was cut off between the secrets and the revision; whoever named one otherwise is left alone."""
    cloud = Cloud.deployed()
    deployment(cloud).run(wanted("postgresql://app:other@db.example:5432/app?sslmode=require"))
    cloud.secrets[0]["value"] = DSN  # by hand: no revision comes of it
    done = deployment(cloud).run()
    assert f"{cloud.revisions[1].name} was started with other secrets" in done.said
    assert len(cloud.revisions) == 3


def test_the_names_of_all_revisions_tell_the_same_16_bits_of_a_secret(deployment: Make) -> None:
    """Names can be seen by many: 16 bits more with each would soon be enough to find a password out by trying."""
    cloud = Cloud()
    for day in (1, 2, 3):
        made = deployment(cloud)
        made.moment = datetime(2026, 11, day, tzinfo=UTC)
        made.run(new_revision=True)
    deployment(cloud).run(wanted(DSN.replace("s3cr", "s3cr2")))
    *same, other = [item.name.rpartition("-")[2] for item in cloud.revisions]
    assert len(same) == 3
    assert len(set(same)) == 1
    assert other != same[0]


def test_the_commands_to_run_next_are_as_a_shell_takes_them() -> None:
    app = replace(APP, group="team(west)")
    back = f"az containerapp revision copy --name api --resource-group {shell.quoted('team(west)')} --subscription {SUBSCRIPTION}"
    assert go_back(app, "api--1") == f"{back} --from-revision api--1"
    assert f" --resource-group {shell.quoted('team(west)')} " in logs(app, "api--1")
