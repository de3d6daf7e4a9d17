"""Sets up what the deployment needs: the environment in GitHub with its secrets and variables, and the identity in Azure that the
workflow logs in as. Observe, plan, apply, re-check.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scripts import dsn as dsns
from scripts import flexible, github, identities, logins, request, settings, target, wiring
from scripts.az import Az, AzError
from scripts.console import Console, one_line
from scripts.errors import OpsError, Pending, counted
from scripts.gh import Gh
from scripts.github import CREDENTIAL, ENVIRONMENT, FROM_KEY_VAULT, IDENTITY, Entry
from scripts.identities import Place
from scripts.request import Reader
from scripts.secret import Secret
from scripts.settings import Sources
from scripts.wiring import CLIENT_ID, TENANT_ID, Identity, Plan, Seen, Step, Wanted

_RESOURCES = ("CONTAINER_APP_ENVIRONMENT", "CONTAINER_APP_IDENTITY")  # which are named by their ids
_LOOKS, _PAUSE = 5, 3.0  # at what was done, and seconds between them: lists are not always up to date at once


@dataclass(frozen=True, kw_only=True)
class Known:
    """What flags and settings say; what they don't is taken from GitHub's own variables."""

    identity: str
    server_role: str | None
    variables: Mapping[str, str]
    secrets: Mapping[str, Secret]
    unusable: Mapping[str, str]  # secrets that are at hand, and why they can't be meant


def command(flags: Mapping[str, Any], again: str, console: Console) -> None:
    """What `invoke github.setup` does with its flags. Raises UsageError, OpsError, and Pending when something is left to do."""
    found = settings.sources(flags["env_file"])
    client, gh = Az(found.env, redact=console.redact), Gh(found.env)  # before all that is asked for
    known = read(flags, found, console)
    repo, prefix = gh.repository(flags["repo"])
    with client:
        setup = Setup(known, repo, f"{prefix}:environment:{ENVIRONMENT}", gh, client, console, again, flags["set_secrets"])
        setup.run(plan_only=flags["plan"], yes=flags["yes"])


def read(flags: Mapping[str, Any], found: Sources, console: Console) -> Known:
    """What flags and settings say. Raises UsageError that lists every problem with them."""
    reader = Reader(flags, found, task="github.setup")
    given = {
        "AZURE_SUBSCRIPTION_ID": reader.checked("subscription_id", request.subscription_problem),
        "AZURE_RESOURCE_GROUP": reader.checked("resource_group", flexible.group_name_problem),
        "POSTGRES_SERVER_NAME": reader.checked("server_name", flexible.server_name_problem),
        FROM_KEY_VAULT: "on" if reader.switch("from_key_vault") else "off" if found.get(FROM_KEY_VAULT) else None,
    }
    for entry in github.EVERYTHING:
        value = found.get(entry.name)
        # Whoever has an AZURE_CLIENT_ID in his environment may mean another identity by it.
        if value is None or entry.is_secret or entry.name in (*given, CLIENT_ID, TENANT_ID):
            continue
        problem = wiring.resource_problem(value.text) if entry.name in _RESOURCES else None
        reader.problems += [f"{value.origin} {problem}"] if problem else []
        given[entry.name] = value.text
    name, role = reader.checked("identity_name", _name_problem, IDENTITY), reader.checked("server_role", _role_problem)
    if flags["repo"] is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", flags["repo"], re.ASCII):
        reader.problems.append(f"--repo {flags['repo']!r}: OWNER/NAME is meant")
    reader.finish()
    secrets, unusable = _secrets(found, console)
    return Known(
        identity=name or IDENTITY,
        server_role=role,
        variables={name: value for name, value in given.items() if value},
        secrets=secrets,
        unusable=unusable,
    )


def _secrets(found: Sources, console: Console) -> tuple[dict[str, Secret], dict[str, str]]:
    """The DSNs that are at hand, and why which of them can't be meant. Raises UsageError for one of the wrong role."""
    usable, unusable = {}, {}
    for entry in (github.ADMIN_DSN, github.APP_DSN):
        value = found.get(entry.name)
        if value is None:
            continue
        dsn = dsns.parse(value.text, value.origin)
        console.conceal(dsn.password, dsn.uri())
        if dsn.is_local:
            unusable[entry.name] = f"{value.origin} leads to this machine, which GitHub can't reach"
            continue
        if entry is github.APP_DSN:
            target.check_app(dsn, value.origin, logins.wanted(settings.app_user(None, found), None, {}).names)
        usable[entry.name] = dsn.uri()
    return usable, unusable


@dataclass
class Setup:
    """One run."""

    known: Known
    repo: str
    subject: str
    gh: Gh
    client: Az
    console: Console
    again: str
    anew: bool = False
    sleep: Callable[[float], None] = time.sleep
    identity: Identity | None = None
    left: list[tuple[Step, str, str]] = field(default_factory=list)  # why it couldn't be done, and the command that does it

    def run(self, *, plan_only: bool, yes: bool) -> None:
        """Does what is missing or differs. Raises Pending when something is left that it can't do."""
        say = self.console.say
        say(f"target: the environment {ENVIRONMENT} of {self.repo}, and the identity {self.known.identity}, for {self.subject}")
        seen, wanted = self._observe()
        plan = wiring.plan(wanted, seen)
        self._show(plan)
        missing = self._missing(wanted, seen)
        if plan_only:
            for entry in missing:
                say(f"  missing: the {entry.kind} {entry.name}: {self._reason(entry)}")
            say("this was the plan; nothing is written")
            self.console.document(self._facts(plan, missing))
            return
        if plan.steps:
            self.console.confirm(f"Do {counted(len(plan.steps), 'step')} for {self.repo}?", yes=yes, again=self.again)
            place = self._place(wanted.variables, seen)
            for step in plan.steps:
                self._take(step, wanted, place)
            self._re_check()
        facts = self._facts(plan, missing)
        if missing or self.left:
            raise self._pending(missing, facts)
        say("all that the deployment needs stands")
        self.console.document(facts)

    # What stands, and what is wanted.

    def _observe(self) -> tuple[Seen, Wanted]:
        known = self.known
        seen = Seen(environment=self.gh.environment(self.repo, ENVIRONMENT))
        values = self._values(known.variables, seen)
        place = self._place(known.variables, seen)
        if place is not None:
            self.identity, credentials = self.client.ask(identities.show(place), identities.credentials(place))
            if self.identity is not None:
                (granted,) = self.client.ask(identities.granted(place, self.identity.principal))
                seen = replace(seen, identity=self.identity, credentials=credentials or (), granted=granted or frozenset())
        needed = github.needed(from_key_vault=values.get(FROM_KEY_VAULT) == "on")
        return seen, Wanted(
            environment=ENVIRONMENT,
            subject=self.subject,
            identity=place.name if place else None,
            credential=CREDENTIAL,
            assignments=wiring.assignments(place.subscription, place.group, values, known.server_role) if place else (),
            variables=known.variables,
            secrets=tuple(entry.name for entry in needed if entry.name in known.secrets),
            anew=self.anew,
        )

    def _values(self, given: Mapping[str, str], seen: Seen) -> dict[str, str]:
        return {**(seen.environment.variables if seen.environment else {}), **given}

    def _place(self, given: Mapping[str, str], seen: Seen) -> Place | None:
        """Where the identity stands, when that is known."""
        values = self._values(given, seen)
        subscription, group = values.get("AZURE_SUBSCRIPTION_ID"), values.get("AZURE_RESOURCE_GROUP")
        return Place(name=self.known.identity, group=group, subscription=subscription) if subscription and group else None

    def _missing(self, wanted: Wanted, seen: Seen) -> list[Entry]:
        """What neither stands in GitHub nor is about to."""
        variables = self._values(wanted.variables, seen)
        there = {*variables, *wanted.secrets, *(seen.environment.secrets if seen.environment else ())}
        there |= {CLIENT_ID, TENANT_ID} if wanted.identity else set()
        needed = github.needed(from_key_vault=variables.get(FROM_KEY_VAULT) == "on")
        return [entry for entry in needed if entry.name not in there]

    def _show(self, plan: Plan) -> None:
        if plan.steps:
            self.console.table([[one_line(cell) for cell in row] for row in plan.rows()])
        else:
            self.console.say("  nothing differs")
        for note in plan.notes:
            self.console.note(f"note: {one_line(note)}")

    # What is done.

    def _take(self, step: Step, wanted: Wanted, place: Place | None) -> None:
        try:
            is_done = (
                self._in_azure(step, place) if step.kind in ("identity", "credential", "role") else self._in_github(step, wanted)
            )
        except OpsError as error:
            hint = "; then: ".join(filter(None, (error.hint, self.again)))
            raise OpsError(f"{step.action} {step.kind} {step.name}: {error.message}", hint, error.facts) from None
        if is_done:
            self.console.say(f"done: {step.action} {step.kind} {step.name}")

    def _in_azure(self, step: Step, place: Place | None) -> bool:
        assert place is not None
        if step.kind == "identity":
            words = identities.create(place)
        elif step.kind == "credential":
            words = identities.federate(place, step.name, self.subject)
        elif self.identity is not None:
            words = identities.grant(self.identity.principal, step.item)
        if step.kind != "identity" and self.identity is None:
            return self._leave(step, "the identity isn't there", "")
        try:
            out = self.client.do(*words, "--output", "json")
        except AzError as error:
            if error.failure.kind not in ("forbidden", "missing"):
                raise
            said = error.failure.text.partition("\n")[0]
            return self._leave(step, f"{error.failure.cause}: {said}", identities.command(words))
        if step.kind == "identity":
            self.identity = identities.read(out)
        return True

    def _in_github(self, step: Step, wanted: Wanted) -> bool:
        gh, repo = self.gh, self.repo
        if step.kind == "environment":
            environment = gh.environment(repo, ENVIRONMENT)
            gh.put_environment(repo, ENVIRONMENT, environment.rules if environment else {})
        elif step.kind == "policy" and step.action == "remove":
            gh.remove_policy(repo, ENVIRONMENT, step.item)
        elif step.kind == "policy":
            gh.allow_branch(repo, ENVIRONMENT, step.name)
        elif step.kind == "secret":
            gh.set_secret(repo, ENVIRONMENT, step.name, self.known.secrets[step.name])
        else:
            from_identity = step.name in (CLIENT_ID, TENANT_ID)
            if from_identity and self.identity is None:
                return self._leave(step, "the identity isn't there", "")
            assert self.identity is not None or not from_identity
            given = {CLIENT_ID: self.identity.client, TENANT_ID: self.identity.tenant} if self.identity else {}
            gh.set_variable(repo, ENVIRONMENT, step.name, {**wanted.variables, **given}[step.name], is_new=step.item)
        return True

    def _leave(self, step: Step, why: str, command: str) -> bool:
        self.left.append((step, why, command))
        return False

    def _re_check(self) -> None:
        left = {_key(step) for step, _, _ in self.left}
        for number in range(_LOOKS):
            seen, wanted = self._observe()
            rest = [step for step in wiring.plan(replace(wanted, anew=False), seen).steps if _key(step) not in left]
            if not rest:
                return
            if number < _LOOKS - 1:
                self.sleep(_PAUSE)
        listed = "\n".join(f"  {step.kind} {step.name}: {step.why}" for step in rest)
        raise OpsError(f"everything was taken, and this still differs:\n{listed}", self.again)

    # What is said of it.

    def _reason(self, entry: Entry) -> str:
        if entry.name in self.known.unusable:
            return self.known.unusable[entry.name]
        if entry.name in (CLIENT_ID, TENANT_ID):
            return f"{entry.what}; it is made when AZURE_SUBSCRIPTION_ID and AZURE_RESOURCE_GROUP are known"
        return entry.what

    def _facts(self, plan: Plan, missing: list[Entry]) -> dict[str, Any]:
        steps = [{"action": step.action, "kind": step.kind, "name": step.name, "why": step.why} for step in plan.steps]
        return {
            "repository": self.repo,
            "environment": ENVIRONMENT,
            "subject": self.subject,
            "identity": self.known.identity,
            "client_id": self.identity.client if self.identity else None,
            "steps": steps,
            "notes": list(plan.notes),
            "missing": [entry.name for entry in missing],
            "left": [command for _, _, command in self.left if command],
        }

    def _pending(self, missing: list[Entry], facts: Mapping[str, Any]) -> Pending:
        lines, hints = [], []
        if missing:
            lines.append(f"the deployment needs {len(missing)} more of the environment {ENVIRONMENT}, set nowhere:")
            for entry in missing:
                lines += [f"  {entry.kind:<8}  {entry.name}: {self._reason(entry)}", f"            {entry.command(self.repo)}"]
            hints.append("put them into .env (see .env.example), or run the commands above")
        if commands := [(step, why, command) for step, why, command in self.left if command]:
            lines.append(f"{len(commands)} of the steps could not be taken; their commands are:")
            for step, why, command in commands:
                lines += [f"  {step.kind} {step.name} ({step.why}): {why}", f"    {command}"]
            hints.append("let an owner of the resource group run the az commands above, when what they name is there")
        return Pending("\n".join(lines), f"{'; '.join(hints)}; then: {self.again}", facts)


def _key(step: Step) -> tuple[str, str, Any]:
    return step.kind, step.name, step.item


def _name_problem(text: str) -> str | None:
    fits = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{2,127}", text)
    return None if fits else f"{text!r}: an identity's name has 3 to 128 letters, digits, - and _"


def _role_problem(text: str) -> str | None:
    return (
        None
        if request.UUID.fullmatch(text)
        else f"{text!r}: a role's id is meant (az role definition list --name NAME --query [0].name)"
    )
