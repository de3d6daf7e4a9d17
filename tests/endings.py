"""One run for each way in which a command can end, and for each document that it can print; but for interruptions.

tests/unit/test_output.py sees to it that none is left out; test_output.py in tests/integration and tests/azure run them, in this
order, each list on one database or machine. 130 is the same for all of them (tasks.command); tests of their own interrupt what
has something to lose: migrate, roles, rotate, psql, provision, deploy.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from scripts import github
from tests import shapes

UNREACHABLE = "postgresql://me:word@127.0.0.1:1/serving"
APP = "postgresql://backtest_service:word@db.example.com:5432/serving?sslmode=require"
SET = {entry.name: "set" for entry in github.needed(from_key_vault=False)}
NO_ENGINE = {"DOCKER_HOST": "tcp://127.0.0.1:1"}
FAILURE = f"{shapes.ERROR}.json"


@dataclass(frozen=True)
class Ending:
    """A command as it is typed, `--json` aside; its exit code; and the address of the schema that its document fits."""

    line: str  # {names} stand for what the test has made
    code: int
    prints: str = FAILURE  # empty where the command has no --json
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    before: str = ""  # SQL that is run first

    @property
    def command(self) -> str:
        return self.line.split()[0]

    def words(self, names: Mapping[str, object]) -> list[str]:
        """What is run."""
        return [word.format_map(names) for word in self.line.split()] + (["--json"] if self.prints else [])

    def hold(self, result: subprocess.CompletedProcess[str]) -> None:
        """Raises AssertionError when it ended otherwise. That it fits its schema at all is checked wherever a command is run."""
        assert result.returncode == self.code, f"{self.line}\n{result.stdout}{result.stderr}"
        if self.prints:
            assert shapes.fits(self.prints, json.loads(result.stdout)), f"{self.line}\n{result.stdout}"


ON_A_DATABASE = [
    Ending("status", 3, "status.json"),
    Ending("migrations.baseline --to 0002", 3),
    Ending("migrate --plan", 0, "migrate.json#/$defs/plan"),
    Ending("migrate --rehearse", 0, "migrate.json#/$defs/rehearsal"),
    Ending("migrate", 0, "migrate.json#/$defs/result"),
    Ending("migrate --migrations-dir {broken}", 1),
    Ending("migrate --migrations-dir {nowhere}", 2),
    Ending("status", 0, "status.json"),
    Ending("migrations.baseline --to 0003", 0, "migrations.baseline.json"),
    Ending("migrations.baseline --to 0001 --migrations-dir {broken}", 1),
    Ending("migrations.baseline", 2),
    Ending(
        "migrations.repair 0002 --target {place}",
        0,
        "migrations.repair.json",
        before="UPDATE public.schema_migrations SET checksum = repeat('0', 64) WHERE version = '0002'",
    ),
    Ending("migrations.repair 0001", 1),
    Ending("migrations.repair 9999", 2),
    Ending("migrations.drift", 0, "migrations.drift.json"),
    Ending("migrations.drift", 3, "migrations.drift.json", before="CREATE INDEX by_hand ON public.schema_migrations (name)"),
    Ending("migrations.drift --dsn -", 1, stdin=UNREACHABLE),
    Ending("migrations.drift --migrations-dir {nowhere}", 2),
    Ending("migrations.dump --out {file}", 0, "migrations.dump.json", before="DROP INDEX public.by_hand"),
    Ending("migrations.dump --out {nowhere}/schema.sql", 1),
    Ending("migrations.dump --out {broken}", 2),
    Ending("status --dsn -", 1, stdin=UNREACHABLE),
    Ending("status --migrations-dir {nowhere}", 2),
    Ending("psql", 0, "", stdin="SELECT 1;"),
    Ending("psql --dsn -", 1, "", stdin=UNREACHABLE),
    Ending("psql --psql nonsense", 2, ""),
    Ending("roles --backtest-service-user {role} --plan", 0, "roles.json#/$defs/plan"),
    Ending("roles --backtest-service-user {role}", 2),
    Ending("roles --backtest-service-user {role} --emit-secrets", 0, "roles.json#/$defs/result"),
    Ending(
        "roles --backtest-service-user {role} --check",
        3,
        "roles.json#/$defs/result",
        before="GRANT TEMPORARY ON DATABASE {database} TO {role}",
    ),
    Ending("roles --dsn - --check", 1, stdin=UNREACHABLE),
    Ending(
        "rotate --backtest-service-user {role} --emit-secrets",
        0,
        "rotate.json",
        before="REVOKE TEMPORARY ON DATABASE {database} FROM {role}",
    ),
    Ending("rotate --backtest-service-user {role} --emit-secrets", 3),
    Ending("rotate --finish --abort", 2),
    Ending("rotate --dsn - --plan", 1, stdin=UNREACHABLE),
    Ending("migrations.reset --yes", 0, "migrations.reset.json"),
    Ending("migrations.reset", 2),
    Ending("migrations.reset --dsn - --yes", 1, stdin=UNREACHABLE),
]

ANYWHERE = [
    Ending("status --explain", 0, "explain.json", env={"POSTGRES_ADMIN_DSN": UNREACHABLE}),
    Ending("render --template {template}", 0, "render.json#/$defs/text", {"CONTAINER_APP_NAME": "api"}),
    Ending("render --check", 0, "render.json#/$defs/check"),
    Ending("render --variables", 0, "render.json#/$defs/variables"),
    Ending("render --template {template} --out {nowhere}/app.yaml", 1, env={"CONTAINER_APP_NAME": "api"}),
    Ending("render --template {template} --check", 2),
    Ending("migrations.new a_table --migrations-dir {empty}", 0, "migrations.new.json"),
    Ending("migrations.new a_table --migrations-dir {nowhere}", 2),
    Ending("migrations.lint", 0, "migrations.lint.json"),
    Ending("migrations.lint --migrations-dir {broken}", 1, "migrations.lint.json"),
    Ending("migrations.lint --migrations-dir {nowhere}", 2),
    Ending("migrations.prove --migrations-dir {one}", 0, "migrations.prove.json"),
    Ending("migrations.prove --migrations-dir {empty}", 1),
    Ending("migrations.prove --migrations-dir {nowhere}", 2),
    Ending("deploy", 2),
    Ending("doctor", 0, "doctor.json"),
    Ending("doctor", 1, "doctor.json", {"POSTGRES_DSN": "nonsense"}),
    Ending("doctor --check-deadline never", 2),
    Ending("secret.push --secrets-file {file}", 0, "secret.push.json", {"POSTGRES_DSN": APP}),
    Ending("secret.push --emit-secrets", 0, "secret.push.json", {"POSTGRES_DSN": APP}),
    Ending("secret.push --github-secret X", 1, env={"POSTGRES_DSN": APP, "PATH": "{failing_gh}"}),
    Ending("secret.push", 2, env={"POSTGRES_DSN": APP}),
    Ending("firewall.close", 2),
    Ending("github.check", 0, "github.check.json", SET),
    Ending("github.check", 2),
    Ending("github.setup --repo nonsense", 2),
]

ON_A_MACHINE = [
    Ending("down", 0, "down.json"),
    Ending("up --postgres-version 12", 2),
    Ending("provision --local --plan", 0, "provision.json#/$defs/plan"),
    Ending("up", 0, "up.json"),
    Ending("quickstart", 0, "quickstart.json"),
    Ending("quickstart --postgres-version 12", 2),
    Ending("provision --local --apply-migrations --create-app-users --keep-password", 0, "provision.json#/$defs/result"),
    Ending("provision --local --location eastus2", 2),
    Ending("psql --local", 0, "", stdin="GRANT TEMPORARY ON DATABASE serving TO backtest_service;"),
    Ending("quickstart", 3, "quickstart.json"),
    Ending("provision --local --create-app-users --keep-password", 3, "provision.json#/$defs/result"),
    Ending("teardown --local", 2),
    Ending("down --purge", 2),
    Ending("down --purge --yes", 0, "down.json"),
    Ending("teardown --local --yes", 0, "teardown.json"),
]
WITH_A_BROKEN_FILE = [Ending("quickstart", 1), Ending("provision --local --apply-migrations", 1)]
WITHOUT_AN_ENGINE = [  # a container was up, by what is remembered of it
    Ending("up", 1, env=NO_ENGINE),
    Ending("down", 1, env=NO_ENGINE),
    Ending("teardown --local --yes", 1, env=NO_ENGINE),
]

IN_AZURE = [
    Ending("deploy --plan", 0, "deploy.json"),
    Ending("deploy", 1, env={"AZURE_RESOURCE_GROUP": "nowhere"}),
    Ending("deploy", 0, "deploy.json"),
    Ending("firewall.close", 0, "firewall.close.json"),
    Ending("firewall.close --server-name nowhere", 1),
    Ending("github.setup --plan", 0, "github.setup.json"),
    Ending("github.setup --yes", 3, env={"API_IMAGE": ""}),
    Ending("github.setup --repo o/nothing", 1),
]

# What needs more than a line: the test that has it.
ELSEWHERE = {("migrations.new", 1): "tests/integration/test_new.py"}

ALL = [*ON_A_DATABASE, *ANYWHERE, *ON_A_MACHINE, *WITH_A_BROKEN_FILE, *WITHOUT_AN_ENGINE, *IN_AZURE]
