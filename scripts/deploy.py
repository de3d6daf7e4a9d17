"""Brings a Container App to what its template says: observe, plan, apply, re-check.

Every change makes a new revision with a name of ours, as Azure makes none for a changed secret, and as that tells what to
wait for. The rendered template stands in a file of its own as long as az reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts import PRODUCT, apps, az, changes, containerapp, identities, manifest, request, settings, shell
from scripts import dsn as dsns
from scripts.apps import App, Revision
from scripts.az import Az, AzError
from scripts.changes import Change, Extra
from scripts.console import Console, one_line
from scripts.errors import OpsError, UsageError
from scripts.failures import Way
from scripts.manifest import Manifest

_PAUSE = 3.0  # seconds between two looks at a new revision
_TRIES = 5  # of an update, while Azure is at another one
_WAIT = 10.0  # seconds between them


@dataclass(frozen=True, kw_only=True)
class There:
    """The app as it stands, and the revisions that could be gone back to."""

    tree: Mapping[str, Any]
    revisions: list[Revision]

    @property
    def latest(self) -> Revision | None:
        """The newest revision, whether it came to run or not."""
        return self.revision(self.tree["properties"].get("latestRevisionName"))

    @property
    def ready(self) -> Revision | None:
        """The newest revision that came to run."""
        return self.revision(self.tree["properties"].get("latestReadyRevisionName"))

    @property
    def address(self) -> str | None:
        """Where the app can be reached, if anywhere."""
        ingress = (self.tree["properties"].get("configuration") or {}).get("ingress") or {}
        return f"https://{ingress['fqdn']}" if ingress.get("fqdn") else None

    @property
    def secrets(self) -> list[dict[str, Any]]:
        """Its secrets, with their values."""
        return containerapp.secrets_of(self.tree)

    def revision(self, name: str | None) -> Revision | None:
        """One of its revisions."""
        return next((revision for revision in self.revisions if revision.name == name), None)

    def serves(self, name: str) -> bool:
        """Whether a revision is the one that came to run last, and runs."""
        return self.ready is not None and self.ready.name == name and self.ready.is_healthy


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done, and why."""

    action: str  # create, update or keep
    reason: str
    changes: list[Change]
    kept: list[Extra]
    dropped: list[Extra]


def command(flags: Mapping[str, Any], again: str, console: Console) -> None:
    """What `invoke deploy` does with its flags. Raises UsageError and OpsError."""
    found = settings.sources(flags["env_file"])
    client = Az(found.env, redact=console.redact)  # before all that is asked for, which would be for nothing without it
    reader = request.Reader(flags, found, task="deploy")
    subscription, group = request.group_of_apps(reader)
    deadline = request.deadline(reader)
    from_key_vault = reader.switch("from_key_vault")
    reader.finish()
    wanted = manifest.build(manifest.template(flags, from_key_vault=from_key_vault), found, console)
    app = App(name=wanted.tree["name"], group=group, subscription=subscription)
    with client:
        run(
            app,
            wanted,
            client,
            console,
            plan_only=flags["plan"],
            prune=flags["prune"],
            new_revision=flags["new_revision"],
            deadline=deadline,
            again=again,
        )


def run(
    app: App,
    wanted: Manifest,
    client: Az,
    console: Console,
    *,
    plan_only: bool = False,
    prune: bool = False,
    new_revision: bool = False,
    deadline: float = 360.0,
    again: str = "invoke deploy",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Deploys the app and waits until its new revision is ready, `deadline` seconds at most. Raises OpsError."""
    there = _observe(client, app, console)
    if there is None:
        _refuse_identities(app, wanted.tree, again)
        _look_for_the_rest(client, app, wanted.tree, again)
    plan = decide(wanted.tree, there, prune=prune, new_revision=new_revision)
    _show(app, plan, console)
    facts: dict[str, Any] = {
        "app": app.name,
        "action": plan.action,
        "reason": plan.reason,
        "changes": [asdict(change) for change in plan.changes],
        "kept": [str(extra) for extra in plan.kept],
        "dropped": [str(extra) for extra in plan.dropped],
    }
    if plan_only:
        console.say("this was the plan; nothing is written")
        console.document({**facts, "revision": None, "address": there.address if there else None})
        return
    if plan.action == "keep":
        assert there is not None
        assert there.latest is not None
        name = there.latest.name
    else:
        suffix = f"{now():%Y%m%d-%H%M%S}-{_digest(wanted.tree)}"
        name = f"{app.name}--{suffix}"
        _apply(client, app, wanted.tree, plan, suffix, there, console, sleep, again)
    if there is None or not there.serves(name):
        next_one = f"{again} --new-revision" if plan.action == "keep" and not new_revision else again
        there = _until_ready(client, app, name, there, deadline, console, clock, sleep, next_one)
    left = list(changes.differences(wanted.tree, there.tree))
    if left:
        listed = "\n".join(f"  {change}" for change in left)
        raise OpsError(f"Azure took the update of {app.name}, and {name} runs, but this differs:\n{listed}", again)
    serves = f" at {there.address}" if there.address else ""
    console.say(f"{'unchanged' if plan.action == 'keep' else 'deployed'}: {name} serves{serves}")
    console.document({**facts, "revision": name, "address": there.address})


def decide(tree: Mapping[str, Any], there: There | None, *, prune: bool = False, new_revision: bool = False) -> Plan:
    """What is to be done. Pure."""
    if there is None:
        new = list(changes.differences(tree, {}))
        return Plan(action="create", reason="there is no such app", changes=new, kept=[], dropped=[])
    extras = list(changes.extras(tree, there.tree))
    found = [*changes.differences(tree, there.tree), *changes.secret_changes(tree, there.secrets)]
    kept, dropped = ([], extras) if prune else (extras, [])
    latest = there.latest
    if found or dropped:
        action, reason = "update", "the template differs from what stands"
    elif latest is not None and not _has_secrets(latest, tree):
        action, reason = "update", f"{latest.name} was started with other secrets"
    elif new_revision:
        action, reason = "update", "a new revision is asked for"
    elif there.tree["properties"].get("provisioningState") in ("Failed", "Canceled"):
        action, reason = "update", "the last change of it failed, and what stands need not be what runs"
    elif latest is None or latest.has_failed:
        action, reason = "update", f"the newest revision isn't healthy ({latest or 'there is none'})"
    else:
        still = "" if there.serves(latest.name) else f"; {latest.name} isn't ready yet ({latest})"
        action, reason = "keep", f"it is as the template says{still}"
    return Plan(action=action, reason=reason, changes=found, kept=kept, dropped=dropped)


def _digest(tree: Mapping[str, Any]) -> str:
    """What a revision's name tells of the secrets that it is made for, by which a deployment that was cut off between the two
    is gone on with: 16 bits, the same each time. Any more would let whoever sees the names try passwords out.
    """
    listed = sorted(
        (secret["name"], secret.get("value") or secret.get("keyVaultUrl")) for secret in containerapp.secrets_of(tree)
    )
    return hashlib.blake2s(json.dumps(listed).encode(), digest_size=2).hexdigest()


def _has_secrets(revision: Revision, tree: Mapping[str, Any]) -> bool:
    """Whether a revision was made for these secrets; of one that somebody else has named, nobody knows."""
    ours = re.fullmatch(r"\d{8}-\d{6}-([0-9a-f]{4})", revision.name.rpartition("--")[2])
    return ours is None or ours[1] == _digest(tree)


def _refuse_identities(app: App, tree: Mapping[str, Any], again: str) -> None:
    """Measured with azure-cli 2.91.0: `create --yaml` makes apiPuller of api_puller in the key that an identity's id is."""
    altered = [identity for identity in changes.new_identities(tree, {}) if "_" in identity]
    if altered:
        raise UsageError(
            f"az would spell an identity with a _ in its id otherwise, when it makes an app of a file: {', '.join(altered)}",
            f"{apps.by_flags(app, tree, altered)}; then: {again}",
        )


def _look_for_the_rest(client: Az, app: App, tree: Mapping[str, Any], again: str) -> None:
    """Sees to it that what a new app rests on is there; az's own messages don't say what is to be done. Raises OpsError."""
    environment = tree["properties"]["environmentId"]
    wanted = changes.new_identities(tree, {})
    answers = client.ask(az.group(app), apps.environment(environment), *(identities.show(identities.at(one)) for one in wanted))
    names = [f"the resource group {app.group}", f"the environment {environment}", *(f"the identity {one}" for one in wanted)]
    missing = [name for name, is_there in zip(names, answers, strict=True) if is_there is None]
    if missing:
        raise OpsError(
            "for a new app, this isn't there:\n" + "\n".join(f"  {name}" for name in missing), f"make it, then: {again}"
        )


def _observe(client: Az, app: App, console: Console) -> There | None:
    """The app and its revisions, asked side by side; None where there is no such app."""
    tree, revisions = client.try_ask(apps.show(app), apps.revisions(app))
    if isinstance(tree, AzError):
        raise tree
    if tree is None:
        return None
    if isinstance(revisions, AzError):
        raise revisions
    there = There(tree=tree, revisions=revisions or [])
    console.conceal(*(part for secret in there.secrets if secret.get("value") for part in dsns.to_conceal(secret["value"])))
    return there


def _show(app: App, plan: Plan, console: Console) -> None:
    console.say(f"{plan.action} {app.name} in {app.group}: {plan.reason}")
    for change in plan.changes:
        console.say(f"  change {one_line(str(change))}")
    for extra in plan.dropped:
        console.say(f"  drop   {one_line(str(extra))}, which the template doesn't name")
    for extra in plan.kept:
        console.say(f"  keep   {one_line(str(extra))}, which the template doesn't name (--prune drops it)")


def _apply(
    client: Az,
    app: App,
    tree: Mapping[str, Any],
    plan: Plan,
    suffix: str,
    before: There | None,
    console: Console,
    sleep: Callable[[float], None],
    again: str,
) -> None:
    import yaml

    whole = changes.merged(tree, plan.kept)
    whole["properties"]["template"]["revisionSuffix"] = suffix
    in_vault = [] if before is None else _by_reference_alone(whole, tree, before)
    with tempfile.TemporaryDirectory(prefix=f"{PRODUCT}-deploy-") as folder:  # entered by its owner alone
        path = Path(folder) / f"{app.name}.yaml"
        # In ASCII, as az reads it in whatever encoding the system has.
        shell.write_private(path, yaml.safe_dump(whole, sort_keys=False))
        new = changes.new_identities(tree, before.tree) if before else []
        with console.working(f"{'making' if plan.action == 'create' else 'updating'} {app.name} ..."):
            for left in reversed(range(_TRIES)):
                try:
                    if before is None:
                        return apps.create(client, app, path)
                    if new:
                        apps.assign(client, app, new)
                    if in_vault:
                        apps.refer_to_vault(client, app, in_vault)
                    return apps.update(client, app, path)
                except AzError as error:
                    if error.failure.way is not Way.AGAIN or not left:
                        hint = again if error.failure.way is Way.AGAIN else error.hint or again
                        good = before.ready if before else None
                        if good is None:
                            raise OpsError(error.message, hint, error.facts) from None
                        back = f"{good.name} still serves; to make it the newest again: {apps.go_back(app, good.name)}"
                        raise OpsError(f"{error.message}\n{back}", hint, {**error.facts, "last_good": good.name}) from None
                sleep(_WAIT)
    return None


def _by_reference_alone(whole: dict[str, Any], tree: Mapping[str, Any], before: There) -> list[dict[str, Any]]:
    """The secrets in a Key Vault that have to be set; takes all secrets out of what is sent, where no other one changes.

    `update --yaml` ends with a KeyError where Azure doesn't tell the value of one in a Key Vault (azure-cli 2.91.0); a list that
    isn't sent stays as it is.
    """
    changed = changes.changed_secrets(tree, before.secrets)
    left = {secret["name"] for secret in containerapp.secrets_of(whole)}
    is_dropped = any(secret["name"] not in left for secret in before.secrets)
    if is_dropped or not left or not all("keyVaultUrl" in secret for secret in changed):
        return []
    del whole["properties"]["configuration"]["secrets"]
    return changed


def _until_ready(
    client: Az,
    app: App,
    name: str,
    before: There | None,
    deadline: float,
    console: Console,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    again: str,
) -> There:
    """Looks until a revision is ready. Raises OpsError when it has failed, or isn't at the deadline."""
    until = clock() + deadline
    with console.working(f"waiting up to {deadline:g} s until {name} is ready ..."):
        while True:
            answers = client.try_ask(apps.show(app), apps.revisions(app))
            lost = next((answer for answer in answers if isinstance(answer, AzError)), None)
            if lost is not None:
                if lost.failure.way is not Way.AGAIN or clock() > until:
                    raise OpsError(f"whether {name} is ready isn't known: {lost.message}", again, lost.facts)
                sleep(_PAUSE)
                continue
            tree, revisions = answers
            if tree is None:
                raise OpsError(f"the app {app.name} is gone", again)
            there = There(tree=tree, revisions=revisions or [])
            if there.serves(name):
                return there
            revision = there.revision(name)
            if (revision is not None and revision.has_failed) or clock() > until:
                raise _not_ready(app, name, revision, before, again)
            sleep(_PAUSE)


def _not_ready(app: App, name: str, revision: Revision | None, before: There | None, again: str) -> OpsError:
    state = f"{revision}" if revision else "it hasn't appeared"
    message = f"the revision {name} isn't ready: {one_line(state)}"
    good = before.ready if before else None
    logs = apps.logs(app, name)
    if good is None or good.name == name:
        return OpsError(f"{message}\nthere is no former one to go back to", f"{logs}; then: {again}")
    message += f"\nwhy: {logs}\nthe last good one is {good.name}, which still serves"
    return OpsError(message, apps.go_back(app, good.name), {"last_good": good.name})
