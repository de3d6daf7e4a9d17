"""A template of deploy/ with its settings: which variables it needs, what it comes to, and whether Azure would take that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import containerapp, render, request, settings, shell
from scripts import dsn as dsns
from scripts.console import Console
from scripts.errors import OpsError, UsageError, counted
from scripts.render import Template
from scripts.secret import Secret
from scripts.settings import Sources

IDENTITY = "CONTAINER_APP_IDENTITY"  # reads the Key Vault, in the variant with one
_GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/group/providers"
# What stands in for a variable that isn't set, where only the shape is looked at.
_DUMMIES = {
    "CONTAINER_APP_NAME": "app",
    "CONTAINER_APP_ENVIRONMENT": f"{_GROUP}/Microsoft.App/managedEnvironments/environment",
    IDENTITY: f"{_GROUP}/Microsoft.ManagedIdentity/userAssignedIdentities/identity",
}
_DUMMY_ENDS = {
    "_DSN": "postgresql://user:password@server.example:5432/database?sslmode=require",
    "_SECRET_URL": "https://vault.vault.azure.net/secrets/name",
}


@dataclass(frozen=True)
class Manifest:
    """A rendered template that Azure would take."""

    template: Template
    text: str
    tree: dict[str, Any]
    missing: list[str]  # the variables for which dummies stand


def template(flags: Mapping[str, Any], *, from_key_vault: bool) -> Template:
    """The template of an app, `deploy/app_NAME.yaml`, or the one that --template names. Raises UsageError."""
    app = "api" if flags["app"] is None else flags["app"]
    path = Path(flags["template"]) if flags.get("template") else settings.DEPLOY / f"app_{app}.yaml"
    name = settings.shown(path)
    try:
        text = path.read_bytes().decode("utf-8")  # with its line ends
    except UnicodeDecodeError:
        raise UsageError(f"{name} isn't UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        there = ", ".join(sorted(file.stem.removeprefix("app_") for file in settings.DEPLOY.glob("app_*.yaml")))
        hint = f"--template FILE, or --app with one of: {there}"
        raise UsageError(f"the template {name} can't be read: {error.strerror}", hint) from None
    parsed = render.parse(text, name)
    return parsed.from_key_vault(IDENTITY) if from_key_vault else parsed


def build(template: Template, found: Sources, console: Console, *, dummies: bool = False) -> Manifest:
    """Renders and lints. With `dummies`, variables that aren't set are no problem. Raises UsageError with every problem."""
    import yaml

    given = values(template, found, console)
    missing = [name for name in template.variables if name not in given] if dummies else []
    text = template.render({**given, **{name: _dummy(template, name) for name in missing}})
    try:
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        problem = f"{template.name} is no YAML that az takes: {error.problem}"  # the error itself shows the text
        raise UsageError(problem, "mend the template, or the value that breaks it") from None
    problems = [
        (template.line_of(path), containerapp.spelled(path), text)
        for path, text in containerapp.lint(tree)
        if template.variables_at(path).isdisjoint(missing)  # of a dummy's value, nothing can be said
    ]
    literal = "a secret's value stands in the template: a ${VARIABLE} is meant"
    problems += [(line, "secrets", literal) for line in template.literal_secrets]
    if problems:
        problems.sort()
        listed = "\n".join(f"  {template.name}:{line}: {f'{place}: ' if place else ''}{text}" for line, place, text in problems)
        facts = {"problems": [{"line": line, "place": place, "problem": text} for line, place, text in problems]}
        again = f"mend it, then: invoke render --check --template {shell.quoted(template.name)}"
        raise UsageError(
            f"{template.name} is no Container App that Azure would take; {counted(len(problems), 'problem')}:\n{listed}",
            again,
            facts,
        )
    return Manifest(template, text, tree, missing)


def values(template: Template, found: Sources, console: Console) -> dict[str, str]:
    """The settings that the template's variables name; the secrets among them are kept out of all output from here on."""
    given = {name: value.text for name in template.variables if (value := found.get(name))}
    texts = [*(given[name] for name in template.secrets if name in given), *template.literal_secrets.values()]
    console.conceal(*(secret for text in texts for secret in dsns.to_conceal(text)))
    return given


def command(flags: Mapping[str, Any], console: Console) -> None:
    """What `invoke render` does with its flags. Raises UsageError and OpsError."""
    found = settings.sources(flags["env_file"])
    if sum(bool(flags[name]) for name in ("check", "variables", "out")) > 1:
        raise UsageError("--check, --variables and --out are three different things", "give one of them")
    if flags["out"] == "":
        raise UsageError("--out is empty", "give it a value, or leave it away")
    reader = request.Reader(flags, found, task="render")
    from_key_vault = reader.switch("from_key_vault")
    reader.finish()
    chosen = template(flags, from_key_vault=from_key_vault)
    if flags["variables"]:
        _show_variables(chosen, found, console)
    elif flags["check"]:
        manifest = build(chosen, found, console, dummies=True)
        stood_in = f"; dummies stood in for {', '.join(manifest.missing)}" if manifest.missing else ""
        console.say(f"{chosen.name}: nothing is wrong with it{stood_in}")
        console.document({"template": chosen.name, "problems": [], "dummies": manifest.missing})
    else:
        _show(chosen, found, Path(flags["out"]) if flags["out"] else None, console)


def _show(template: Template, found: Sources, out: Path | None, console: Console) -> None:
    given = values(template, found, console)
    text = template.render(given)
    if out is not None and out.resolve() in (Path(template.name).resolve(), Path(found.file_name).resolve()):
        raise UsageError(f"--out {out} is what is read, and would be lost", "--out names another file, such as app.yaml")
    if out is None:
        # Masked before it is rendered: a masked value is quoted where it has to be, as the value itself is.
        text = template.render({**given, **{name: str(Secret(given[name])) for name in template.secrets}})
        console.say(text.removesuffix("\n"))
    else:
        try:
            shell.write_private(out, text)
        except OSError as error:
            raise OpsError(f"{out} can't be written: {error.strerror}", "--out names another file") from None
        console.say(f"rendered {template.name} into {out}, which only you can read")
    facts = {"template": template.name, "out": str(out) if out else None, "text": None if out else text}
    console.document(facts)


def _show_variables(template: Template, found: Sources, console: Console) -> None:
    rows, facts = [], []
    for name, lines in template.variables.items():
        value = found.get(name)
        secret = name in template.secrets
        state = f"set ({value.origin.partition('(')[2]}" if value else "not set"
        rows.append([name, "secret" if secret else "", state, f"line {', '.join(map(str, lines))}"])
        facts.append({"name": name, "secret": secret, "set": value is not None, "lines": lines})
    console.say(f"{template.name} needs:")
    console.table(rows)
    console.document({"template": template.name, "variables": facts})


def _dummy(template: Template, name: str) -> str:
    if name in _DUMMIES:
        return _DUMMIES[name]
    if (kind := template.kind(name)) is not None:
        return {"bool": "true"}.get(kind, "1")
    return next((dummy for end, dummy in _DUMMY_ENDS.items() if name.endswith(end)), "x")
