"""What `invoke --list` and `invoke --help TASK` say: the pipeline's stages, the examples, and the shape of both pages. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

# The order in which one meets the verbs. Every task stands in one of them (tests/unit/test_guide.py).
STAGES = {
    "Start": ("quickstart", "up", "down", "doctor"),
    "Provision": ("provision", "teardown", "firewall.close"),
    "Migrate": (
        *("migrations.new", "migrations.lint", "migrate", "status", "migrations.dump", "migrations.drift", "migrations.prove"),
        *("migrations.baseline", "migrations.repair", "migrations.reset"),
    ),
    "Roles and secrets": ("roles", "rotate", "secret.push"),
    "Deploy": ("render", "deploy"),
    "GitHub": ("github.setup", "github.check"),
    "Tools": ("psql",),
}
# One or two of each task, and what they do. All of them are parsed by a test.
EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "quickstart": {
        "invoke quickstart": "on an embedded PostgreSQL 16",
        "invoke quickstart --docker --postgres-version 17": "on a container",
    },
    "up": {
        "invoke up": "the one that was up last, or an embedded PostgreSQL 16",
        "invoke up --docker": "a container of POSTGRES_IMAGE",
    },
    "doctor": {
        "invoke doctor": "a table of all checks",
        "invoke doctor --fix": "and mend what is safe to mend",
    },
    "down": {
        "invoke down": "its data stay",
        "invoke down --purge --yes": "its data go too, without a question",
    },
    "provision": {
        "invoke provision --subscription-id ID --server-name NAME --plan": "show what would be made",
        "invoke provision --local --apply-migrations --create-app-users": "the same on this machine",
    },
    "teardown": {
        "invoke teardown --server-name NAME": "the server; its name is asked for",
        "invoke teardown --server-name NAME --delete-group": "the resource group with all that is in it",
    },
    "firewall.close": {"invoke firewall.close --server-name NAME": "this machine's leftovers, and stale ones"},
    "migrations.new": {
        'invoke migrations.new "add runs table"': "NNNN_add_runs_table.sql",
        'invoke migrations.new "index runs" --no-transaction': "for CREATE INDEX CONCURRENTLY",
    },
    "migrations.lint": {
        "invoke migrations.lint": "before a commit",
        "invoke migrations.lint --github": "in a pull request, beside its lines",
    },
    "migrate": {
        "invoke migrate --local --plan": "show what would run on the server of `invoke up`",
        "invoke migrate --env-file staging.env --wait 60": "apply, once that server answers",
    },
    "status": {
        "invoke status": "of the database of POSTGRES_ADMIN_DSN",
        "invoke status --local --json": "for a script",
    },
    "migrations.dump": {
        "invoke migrations.dump --local": "write migrations/schema.sql",
        "invoke migrations.dump --out now.sql": "write another file",
    },
    "migrations.drift": {
        "invoke migrations.drift": "against all applied files",
        "invoke migrations.drift --to 0007 --roles": "against those up to 0007, with owners and all rights",
    },
    "migrations.prove": {
        "invoke migrations.prove": "all checks",
        "invoke migrations.prove --no-replay": "files that aren't meant to be run twice",
    },
    "migrations.baseline": {
        "invoke migrations.baseline --to 0007 --plan": "compare only",
        "invoke migrations.baseline --to 0007": "record the files up to 0007",
    },
    "migrations.repair": {
        "invoke migrations.repair 0005 --plan": "show the row as it would be",
        "invoke migrations.repair 0005 --target HOST/DATABASE": "without a question",
    },
    "migrations.reset": {
        "invoke migrations.reset --local": "as a new database; its name is asked for",
        "invoke migrations.reset --local --plan": "show what would be dropped",
    },
    "roles": {
        "invoke roles --secrets-file app.env": "its new DSN goes into app.env",
        "invoke roles --check": "compare with the design; exit code 3 when something differs",
    },
    "rotate": {
        "invoke rotate --github-secret POSTGRES_DSN": "begin: a new DSN, beside the old one",
        "invoke rotate --finish": "end, once the new one is deployed",
    },
    "secret.push": {
        "invoke secret.push --github-secret POSTGRES_DSN --github-environment production": "to GitHub",
        "invoke secret.push --key-vault VAULT": "to a Key Vault",
    },
    "render": {
        "invoke render --variables": "what the template needs, and what of it is set",
        "invoke render --out app.yaml": "into a file that only you can read",
    },
    "deploy": {
        "invoke deploy --plan": "show what would change",
        "invoke deploy --ready-deadline 600": "give it ten minutes",
    },
    "github.setup": {
        "invoke github.setup --plan": "show what is missing or differs",
        "invoke github.setup --repo OWNER/NAME --yes": "for another repository, without a question",
    },
    "github.check": {"invoke github.check": "what the workflow begins with"},
    "psql": {
        "invoke psql --local --as-app": "as the application, on the server of `invoke up`",
        "invoke psql < report.sql": "a script, by stdin",
    },
}
BEGIN = (
    "From nothing to a migrated, least-privileged Postgres; every command may be run again.",
    "Begin with:  invoke quickstart",
)
END = "invoke --help TASK shows its flags, their settings, its exit codes and examples."


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag of a task as its page shows it."""

    name: str  # as it is typed: --to, or TO where it is a bare word
    takes_value: bool
    help: str
    settings: Sequence[str] = ()  # that stand in for it


def _bold(text: str, *, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else text


def _rows(rows: Iterable[tuple[str, str]], width: int, column: int) -> Iterator[str]:
    """Two columns; the second is wrapped, and stands on lines of its own where there is no room beside the first."""
    for left, right in rows:
        beside = width - column - 4 >= 24 and len(left) <= column
        indent = " " * (column + 4 if width - column - 4 >= 24 else 6)
        lines = textwrap.wrap(right, max(12, width - len(indent)), break_long_words=False, break_on_hyphens=False) or [""]
        if beside:
            yield f"  {left:<{column}}  {lines[0]}".rstrip()
            lines = lines[1:]
        else:
            yield f"  {left}"
        yield from (f"{indent}{line}" for line in lines)


def listing(said: Mapping[str, str], *, width: int, colour: bool, begin: bool) -> str:
    """The tasks that are `said`, with a line each, by stages; `begin` adds the way to begin."""
    column = max(map(len, said))
    lines = [*(part for text in BEGIN for part in textwrap.wrap(text, max(12, width))), ""] if begin else []
    for stage, names in STAGES.items():
        rows = [(name, said[name]) for name in names if name in said]
        if rows:
            lines += [_bold(stage, colour=colour), *_rows(rows, width, column), ""]
    return "\n".join([*lines, *textwrap.wrap(END, max(12, width))])


def page(
    task: str, doc: str, flags: Sequence[Flag], codes: Mapping[str, str], *, width: int, colour: bool, more: Sequence[str] = ()
) -> str:
    """Everything about one task; `more` are settings that have no flag."""
    words = [flag.name for flag in flags if not flag.name.startswith("-")]
    usage = " ".join(["invoke", task, *words, *(["[--flags]"] if len(flags) > len(words) else [])])
    lines = [usage, ""]
    for paragraph in doc.split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), max(12, width)), ""]

    def section(title: str, rows: Sequence[tuple[str, str]], limit: int) -> None:
        column = max((len(left) for left, _ in rows if len(left) <= limit), default=limit)
        lines.extend([_bold(title, colour=colour), *_rows(rows, width, column), ""])

    rows = []
    for flag in flags:
        left = f"{flag.name} VALUE" if flag.takes_value and flag.name.startswith("-") else flag.name
        rows.append((left, " ".join([flag.help, *([f"[{', '.join(flag.settings)}]"] if flag.settings else [])])))
    section("Flags" if not words else "Words and flags", rows, 36)
    notes = []
    if any(flag.settings for flag in flags):
        notes.append("In square brackets: the setting that counts where a flag isn't given.")
    if more:
        notes.append(f"Settings without a flag: {', '.join(more)}.")
    if notes:
        notes.append("Settings stand in the environment, or else in .env (.env.example says more).")
        lines += [*textwrap.wrap(" ".join(notes), max(12, width), break_on_hyphens=False), ""]
    section("Exit codes", list(codes.items()), 36)
    section("Examples", list(EXAMPLES[task].items()), 58)
    return "\n".join(lines).rstrip()
