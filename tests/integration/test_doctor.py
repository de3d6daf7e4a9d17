"""`invoke doctor` on set-ups that are broken in one place each: it names that one, and nothing else.

In a project of the test's own, with a real server, psql, git and Docker; az and gh are programs that answer from a table.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts import embedded, github
from scripts.dsn import Dsn
from scripts.secret import Secret
from tests import database as databases
from tests import proofs, shapes
from tests import repository as repositories
from tests.database import ENV, ROOT, Database
from tests.integration.test_pooler import PGBOUNCER, pgbouncer
from tests.repository import Repository

pytestmark = pytest.mark.once  # of the server, only that it answers plays a part
TOKEN = secrets.token_hex(8)  # the part of the passwords that is found nowhere by chance
SUBSCRIPTION = "11111111-1111-4111-8111-111111111111"
SUBJECT = "repo:o/r:environment:production"
FILES = ("tasks.py", ".env.example", ".gitignore", "requirements/runtime.txt", "migrations", "deploy", "scripts")
SERVER = {
    "administratorLogin": "serving_admin",
    "backup": {"backupRetentionDays": 7},
    "fullyQualifiedDomainName": "serving.postgres.database.azure.com",
    "location": "East US 2",
    "name": "serving",
    "sku": {"name": "Standard_B1ms", "tier": "Burstable"},
    "state": "Ready",
    "storage": {"storageSizeGb": 32},
    "version": "16",
}
OFFER = {
    "supportedFeatures": [{"name": "OfferRestricted", "status": "Disabled"}],
    "supportedServerEditions": [{"name": "Burstable", "supportedServerSkus": [{"name": "Standard_B1ms"}]}],
    "supportedServerVersions": [{"name": "16"}],
}


@dataclass(frozen=True)
class Reply:
    """What a program answers."""

    out: Any = ""
    err: str = ""
    code: int = 0
    seconds: int = 0

    def script(self) -> str:
        text = self.out if isinstance(self.out, str) else json.dumps(self.out)
        lines = [f"exec sleep {self.seconds}"] if self.seconds else []
        return "\n".join([*lines, f"cat <<'END'\n{text}\nEND", f"cat >&2 <<'END'\n{self.err}\nEND", f"exit {self.code}"])


Answers = dict[str, Reply]  # by the words with which a call begins
GONE = Reply(err="ERROR: (ResourceNotFound) The Resource 'serving' was not found.", code=3)
AZ: Answers = {
    "version": Reply({"azure-cli": "2.91.0"}),
    "account get-access-token": Reply(SUBSCRIPTION),
    "postgres flexible-server show": Reply(SERVER),
    "postgres flexible-server list-skus": Reply([OFFER]),
    "provider show": Reply("Registered"),
    "rest --method post": Reply({"nameAvailable": True}),
    "rest --method get": Reply({"value": [{"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Write"]}]}),
    "identity federated-credential list": Reply(
        [
            {
                "name": "github-production",
                "issuer": "https://token.actions.githubusercontent.com",
                "subject": SUBJECT,
                "audiences": ["api://AzureADTokenExchange"],
            }
        ]
    ),
}
NEEDED = github.needed(from_key_vault=False)
PLACE = "api --paginate repos/o/r/environments/production/"
GH: Answers = {
    "api repos/{owner}/{repo}/actions": Reply({"use_default": True}),
    "api repos/{owner}/{repo}": Reply({"id": 1, "full_name": "o/r", "owner": {"id": 2}}),
    "api repos/o/r/environments/production": Reply({"deployment_branch_policy": {"custom_branch_policies": True}}),
    f"{PLACE}deployment-branch-policies": Reply({"branch_policies": [{"id": 1, "name": "main"}]}),
    f"{PLACE}variables": Reply({"variables": [{"name": one.name, "value": "v"} for one in NEEDED if not one.is_secret]}),
    f"{PLACE}secrets": Reply({"secrets": [{"name": one.name} for one in NEEDED if one.is_secret]}),
}


@dataclass
class Setup:
    """A project in which everything is as it should be, until a test breaks something."""

    project: Path
    database: Database
    app: Dsn
    settings: dict[str, str] = field(default_factory=dict)  # of its .env
    env: dict[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"  # of the .env
    mode: int = 0o600
    az: Answers = field(default_factory=lambda: dict(AZ))
    gh: Answers = field(default_factory=lambda: dict(GH))

    def __post_init__(self) -> None:
        for name in FILES:
            source, target = ROOT / name, self.project / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        self.repository = Repository(self.project)
        self.repository.git("init", "--quiet", "--initial-branch=main")
        self.repository.git("add", "--all")
        self.settings = {
            "POSTGRES_ADMIN_DSN": self.database.uri,
            "POSTGRES_DSN": self.app.uri().reveal(),
            "POSTGRES_BACKTEST_SERVICE_USER": self.app.params["user"],
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_RESOURCE_GROUP": "rg",
            "POSTGRES_SERVER_NAME": "serving",
        }
        self.programs = self.project.parent / "programs"
        self.programs.mkdir()
        self.env = {"PATH": f"{self.programs}{os.pathsep}{ENV['PATH']}", "GH_REPO": "o/r"}
        self.write()

    @property
    def dotenv(self) -> Path:
        return self.project / ".env"

    def write(self) -> None:
        """Its .env, and its az and gh, as they are to be."""
        self.dotenv.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()), encoding=self.encoding)
        self.dotenv.chmod(self.mode)
        for name, answers in (("az", self.az), ("gh", self.gh)):
            longest = sorted(answers.items(), key=lambda item: -len(item[0]))
            cases = "".join(f"'{words}'*)\n{reply.script()}\n;;\n" for words, reply in longest)
            program = self.programs / name
            program.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}esac\necho "no answer to $*" >&2\nexit 9\n')
            program.chmod(0o755)

    def invoke(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "invoke", "--search-root", str(self.project), "doctor", *words]
        result = subprocess.run(
            argv, env={**ENV, **self.env}, input="", capture_output=True, text=True, cwd=self.project, check=False
        )
        assert TOKEN not in result.stdout + result.stderr
        assert "Traceback" not in result.stderr, result.stderr
        shapes.check(argv, result.returncode, result.stdout, result.stderr)
        return result

    def look(self, *words: str) -> dict[str, dict[str, Any]]:
        """The checks by their names; the exit code says whether one is a problem."""
        result = self.invoke("--json", *words)
        checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
        assert result.returncode == any(check["state"] == "problem" for check in checks.values()), result.stderr
        return checks


@pytest.fixture
def database(server: Dsn) -> Iterator[Database]:
    yield from databases.new_database(server, migrated=True)


@pytest.fixture
def setup(database: Database, tmp_path: Path) -> Setup:
    role, password = f"app_{secrets.token_hex(4)}", f"of the app: /@% {TOKEN}"
    database.made_roles.append(role)
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    database.execute(f"GRANT CONNECT ON DATABASE {database.dsn.database} TO {role}")
    return Setup(tmp_path / "project", database, replace(database.dsn.with_params(user=role), password=Secret(password)))


def of(state: str, checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["says"] for name, check in checks.items() if check["state"] == state}


def test_where_all_is_well_nothing_is_a_problem(setup: Setup) -> None:
    checks = setup.look()
    assert of("problem", checks) == of("unset", checks) == of("skipped", checks) == {}
    assert set(of("warning", checks)) <= {"docker", "pg_dump"}, checks  # this machine's own
    said = setup.invoke()
    assert said.returncode == 0
    assert f"{len(checks)} checks: no problems" in said.stdout
    assert re.search(r"^  ok +login +postgres at PostgreSQL 16", said.stdout, re.MULTILINE), said.stdout


# One break each: what it does, and the check that has to name it, with a part of what it says and of what mends it.

Break = Callable[[Setup], None]
BROKEN: dict[str, tuple[str, str, str, Break]] = {}


def breaks(check: str, says: str, mend: str) -> Callable[[Break], Break]:
    def keep(body: Break) -> Break:
        BROKEN[body.__name__] = (check, says, mend, body)
        return body

    return keep


def set_dsn(setup: Setup, **changes: str) -> None:
    """The administrator's DSN with other parameters, and no application beside it."""
    setup.settings["POSTGRES_ADMIN_DSN"] = setup.database.dsn.with_params(**changes).uri().reveal()
    del setup.settings["POSTGRES_DSN"]


@breaks("python", "invoke 3.", "-m pip install")
def another_version_is_locked(setup: Setup) -> None:
    lock = setup.project / "requirements" / "runtime.txt"
    text = lock.read_text()
    lock.write_text(text.replace("\ninvoke==", "\ninvoke==9"))


@breaks("python", "no-such-package is missing", "-m pip install")
def a_package_is_missing(setup: Setup) -> None:
    with (setup.project / "requirements" / "runtime.txt").open("a") as lock:
        lock.write("no-such-package==1.0 \\\n    --hash=sha256:0\nnot-here==1.0 ; sys_platform == 'nowhere' \\\n")


@breaks("docker", "POSTGRES_DOCKER (.env) asks for it", "start Docker")
def no_engine_where_docker_is_asked_for(setup: Setup) -> None:
    setup.settings["POSTGRES_DOCKER"] = "on"
    setup.env["DOCKER_HOST"] = "tcp://127.0.0.1:1"


@breaks("psql", "has no TLS", "install psql")
def a_psql_without_tls(setup: Setup) -> None:
    set_dsn(setup, sslmode="require")
    setup.env["PATH"] = os.pathsep.join([str(setup.programs), str(embedded.program("psql").parent), ENV["PATH"]])


@breaks(".env keys", "line 3: POSTGRES_BACKTST_SERVICE_USER (did you mean POSTGRES_BACKTEST_SERVICE_USER?)", "rename")
def a_mistyped_key(setup: Setup) -> None:
    names = {"POSTGRES_BACKTEST_SERVICE_USER": "POSTGRES_BACKTST_SERVICE_USER"}
    setup.settings = {names.get(name, name): value for name, value in setup.settings.items() if name != "POSTGRES_DSN"}
    setup.settings = {"A_OF_MINE": "1", **setup.settings}


@breaks(".env keys", "lines that are no KEY=value: line 7", ".env.example")
def half_a_dsn_in_a_line(setup: Setup) -> None:
    setup.settings[f"postgresql://u:{TOKEN}@h/d?sslmode"] = "require"


@breaks(".env keys", "isn't UTF-8 text", "save it as UTF-8")
def a_dotenv_in_another_encoding(setup: Setup) -> None:
    setup.env |= setup.settings
    setup.settings = {"AZURE_LOCATION": "größe"}
    setup.encoding = "latin-1"


@breaks(".env rights", "everybody on this machine can read .env", "chmod 600 .env")
def a_dotenv_that_everybody_can_read(setup: Setup) -> None:
    setup.mode = 0o644


@breaks(".env in git", "git tracks .env", "git rm --cached .env")
def a_tracked_dotenv(setup: Setup) -> None:
    setup.repository.git("add", "--force", ".env")


@breaks("tracked files", "deploy/notes.md:2 (a password in a URI)", "set a new one")
def a_secret_in_a_tracked_file(setup: Setup) -> None:
    text = f"Notes.\nThe database: postgresql://me:{TOKEN}@db.contoso.com/serving\n"
    (setup.project / "deploy" / "notes.md").write_text(text)
    setup.repository.git("add", "--all")


@breaks("database", "unencoded @", "percent-encode")
def an_unencoded_password(setup: Setup) -> None:
    setup.settings["POSTGRES_ADMIN_DSN"] = f"postgresql://me:{TOKEN}@1@db.contoso.com:5432/serving?sslmode=require"
    del setup.settings["POSTGRES_DSN"]


@breaks("database", "without TLS", "its shape")
def another_host_without_tls(setup: Setup) -> None:
    set_dsn(setup, host="db.contoso.com", sslmode="disable")


@breaks("database", "nowhere.pem: No such file", "sslrootcert")
def roots_that_are_nowhere(setup: Setup) -> None:
    set_dsn(setup, sslmode="verify-full", sslrootcert="nowhere.pem")


@breaks("database", "the pooler of Azure", "put port 5432")
def the_port_of_the_pooler(setup: Setup) -> None:
    set_dsn(setup, host="serving.postgres.database.azure.com", port="6432", sslmode="require")


@breaks("host", "nothing listens at 127.0.0.1:1", "start the server")
def a_port_where_nothing_listens(setup: Setup) -> None:
    for name, dsn in (("POSTGRES_ADMIN_DSN", setup.database.dsn), ("POSTGRES_DSN", setup.app)):
        setup.settings[name] = dsn.with_params(port="1").uri().reveal()


@breaks("host", "the name nowhere.invalid isn't known here", "mend the host's name in POSTGRES_ADMIN_DSN (.env)")
def a_host_that_nobody_knows(setup: Setup) -> None:
    set_dsn(setup, host="nowhere.invalid", sslmode="require")


@breaks("login", "password authentication failed", "check the DSN")
def the_wrong_password(setup: Setup) -> None:
    wrong = replace(setup.database.dsn, password=Secret(TOKEN))
    setup.settings["POSTGRES_ADMIN_DSN"] = wrong.uri().reveal()


@breaks("login", 'database "nope" does not exist', "check the DSN")
def a_database_that_is_not_there(setup: Setup) -> None:
    set_dsn(setup, dbname="nope")


@breaks("migrations", "0002_init_schemas.sql: was changed after it was applied", "invoke status")
def a_migration_that_was_changed(setup: Setup) -> None:
    with (setup.project / "migrations" / "0002_init_schemas.sql").open("a") as file:
        file.write("SELECT 1;\n")


@breaks("migrations", "0099_broken.sql: holds nothing to run", "invoke status")
def a_pending_file_that_migrate_refuses(setup: Setup) -> None:
    (setup.project / "migrations" / "0099_broken.sql").write_text("-- nothing\n")


@breaks("app dsn", "the application's login roles are", "backtest-service-user")
def an_administrator_as_the_application(setup: Setup) -> None:
    setup.settings["POSTGRES_DSN"] = setup.database.uri


@breaks("app login", "password authentication failed", "check the DSN")
def a_password_that_was_rotated(setup: Setup) -> None:
    setup.settings["POSTGRES_DSN"] = replace(setup.app, password=Secret(TOKEN)).uri().reveal()


@breaks("azure", "--tier MemoryOptimized", "invoke --help provision")
def settings_that_do_not_go_together(setup: Setup) -> None:
    setup.settings |= {"POSTGRES_SKU_NAME": "standard_b1ms", "POSTGRES_TIER": "MemoryOptimized"}


@breaks("azure", "not a subscription's id", "invoke --help provision")
def a_subscription_by_its_name(setup: Setup) -> None:
    setup.settings["AZURE_SUBSCRIPTION_ID"] = "Development"


@breaks("azure", "POSTGRES_DOCKER (.env) 'perhaps': on or off is meant", "invoke --help provision")
def neither_on_nor_off(setup: Setup) -> None:
    setup.settings["POSTGRES_DOCKER"] = "perhaps"


@breaks("az", "azure-cli 2.60.0", "az upgrade")
def an_old_az(setup: Setup) -> None:
    setup.az["version"] = Reply({"azure-cli": "2.60.0"})


@breaks("az login", "az is not logged in", "az login")
def az_is_logged_out(setup: Setup) -> None:
    refusal = Reply(err="ERROR: Please run 'az login' to setup account.", code=1)
    setup.az = {words: reply if words == "version" else refusal for words, reply in setup.az.items()}


@breaks("server name", "the name serving is taken", "another POSTGRES_SERVER_NAME")
def the_name_is_taken(setup: Setup) -> None:
    setup.az |= {"postgres flexible-server show": GONE, "rest --method post": Reply({"nameAvailable": False})}


@breaks("server name", "serving: Stopped", "az postgres flexible-server start")
def the_server_is_stopped(setup: Setup) -> None:
    setup.az["postgres flexible-server show"] = Reply({**SERVER, "state": "Stopped"})


@breaks("region", "eastus2: restricted", "AZURE_LOCATION")
def every_region_is_closed(setup: Setup) -> None:
    closed = {**OFFER, "supportedFeatures": [{"name": "OfferRestricted", "status": "Enabled"}]}
    setup.az |= {"postgres flexible-server show": GONE, "postgres flexible-server list-skus": Reply([closed])}


@breaks("rights", "flexibleServers/firewallRules/write", "az role assignment create")
def a_login_that_may_only_read(setup: Setup) -> None:
    setup.az |= {
        "postgres flexible-server show": GONE,
        "rest --method get": Reply({"value": [{"actions": ["*/read"], "notActions": []}]}),
    }


@breaks("gh", "gh is not logged in", "gh auth login")
def gh_is_logged_out(setup: Setup) -> None:
    refusal = Reply(err="To get started with GitHub CLI, please run:  gh auth login", code=4)
    setup.gh = dict.fromkeys(setup.gh, refusal)


@breaks("subject", f"takes no token of {SUBJECT} (it takes repo:o/former:", "invoke github.setup")
def a_credential_for_the_former_name(setup: Setup) -> None:
    (credential,) = AZ["identity federated-credential list"].out
    former = {**credential, "subject": "repo:o/former:environment:production"}
    setup.az["identity federated-credential list"] = Reply([former])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_set_up_is_named_and_nothing_else(setup: Setup, name: str) -> None:
    check, says, mend, body = BROKEN[name]
    body(setup)
    setup.write()
    checks = setup.look()
    assert list(of("problem", checks)) == [check], of("problem", checks)
    assert says in checks[check]["says"]
    assert mend in checks[check]["next"]


def test_a_pooler_in_which_no_lock_holds(setup: Setup) -> None:
    if PGBOUNCER is None:
        pytest.skip("needs PgBouncer (Debian: apt-get install pgbouncer)")
    with pgbouncer(PGBOUNCER, setup.database.dsn, {"pool_mode": "transaction"}) as dsn:
        setup.settings["POSTGRES_ADMIN_DSN"] = dsn.uri().reveal()
        del setup.settings["POSTGRES_DSN"]
        setup.write()
        assert list(of("problem", setup.look())) == ["pooler"]


# What is no problem.


def test_nothing_configured_is_no_failure_and_says_what_comes_next(setup: Setup) -> None:
    setup.dotenv.unlink()
    for program in setup.programs.iterdir():
        program.unlink()
    setup.env = {"PATH": ENV["PATH"]}
    checks = setup.look()
    assert of("problem", checks) == {}
    assert {"database", "app dsn", "azure", ".env keys"} <= set(of("unset", checks))
    assert checks["database"]["next"].startswith("invoke quickstart")
    assert set(of("skipped", checks)) >= {"host", "login", "migrations", "server name", "region", "rights"}
    assert checks["app dsn"]["next"] == "invoke quickstart makes it; for another server, POSTGRES_ADMIN_DSN in .env comes first"
    said = setup.invoke().stdout
    assert "next: invoke quickstart" in said
    assert "(see database)" in said


def test_what_makes_the_application_s_role_keeps_its_dsn_where_it_is_looked_for(setup: Setup) -> None:
    del setup.settings["POSTGRES_DSN"]
    setup.write()
    assert setup.look()["app dsn"]["next"] == "invoke roles --secrets-file .env"
    setup.dotenv.rename(setup.project / "my settings")
    checks = setup.look("--env-file", "my settings")
    assert checks["app dsn"]["next"] == "invoke roles --env-file 'my settings' --secrets-file 'my settings'"


def test_a_template_in_another_encoding_hides_no_check(setup: Setup) -> None:
    setup.write()
    (setup.project / "deploy" / "app_more.yaml").write_bytes(b"# caf\xe9\nname: ${MY_OWN}\n")
    assert of("problem", setup.look()) == {}


def test_what_is_pending_or_cannot_be_asked_for_is_a_warning(setup: Setup) -> None:
    (setup.project / "migrations" / "0004_more.sql").write_text("-- More.\nSELECT 1;\n")
    setup.gh[f"{PLACE}variables"] = Reply({"variables": []})
    setup.az |= {"postgres flexible-server show": GONE, "provider show": Reply("NotRegistered")}
    setup.write()
    warned = of("warning", checks := setup.look())
    assert of("problem", checks) == {}
    assert warned["migrations"] == "1 pending: 0004_more.sql"
    assert checks["migrations"]["next"] == "invoke migrate --plan"
    assert "lacks AZURE_CLIENT_ID" in warned["environment"]
    assert "isn't registered" in warned["provider"]


def test_a_clone_of_another_user_is_a_repository_all_the_same(setup: Setup) -> None:
    setup.write()
    git = setup.programs / "git"  # with git's own switch for this very case
    git.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"\n')
    git.chmod(0o755)
    checks = setup.look()
    said = checks["tracked files"]
    assert (said["state"], checks[".env in git"]["state"]) == ("warning", "skipped")
    assert said["says"] == f"git leaves {setup.project} alone, as it belongs to another user: what it tracks isn't known"
    assert said["next"] == f"if you trust it: git config --global --add safe.directory {setup.project}"


def test_what_hangs_holds_nothing_up(setup: Setup) -> None:
    setup.az = dict.fromkeys(setup.az, Reply(seconds=300))
    setup.write()
    began = time.monotonic()
    checks = setup.look("--check-deadline", "3")
    assert time.monotonic() - began < 60  # and not 300
    assert of("problem", checks) == {}
    assert checks["az"]["says"] == "took longer than 3 s"
    assert checks["az"]["next"] == "az version; or: invoke doctor --check-deadline 60"
    assert {"az login", "server name", "rights"} <= set(of("skipped", checks))
    assert checks["login"]["state"] == "ok"


def test_an_engine_that_hangs_holds_nothing_up_either(setup: Setup) -> None:
    del setup.settings["POSTGRES_ADMIN_DSN"], setup.settings["POSTGRES_DSN"]
    setup.write()
    (setup.project / ".local").mkdir()
    up_last = {"kind": "docker", "version": 16, "image": "postgres:16"}
    (setup.project / ".local" / "server.json").write_text(json.dumps(up_last))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and answers none
        setup.env["DOCKER_HOST"] = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        checks = setup.look("--check-deadline", "2")
    assert checks["database"]["says"] == "took longer than 2 s"  # and not what it found in a minute
    assert checks["disk"]["state"] == "ok"


def test_an_interrupt_leaves_nothing_behind(setup: Setup) -> None:
    setup.az = dict.fromkeys(setup.az, Reply(seconds=2897))
    setup.write()
    argv = [sys.executable, "-m", "invoke", "--search-root", str(setup.project), "doctor", "--check-deadline", "300"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, env={**ENV, **setup.env}, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=setup.project)

    def hangs(child: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):  # it has ended
            return "2897" in child.cmdline()
        return False

    def hanging() -> list[psutil.Process]:
        return [child for child in psutil.Process(process.pid).children(recursive=True) if hangs(child)]

    try:
        proofs.wait_until(lambda: len(hanging()) > 1, "az hangs, and another")
        left = hanging()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (
        130,
        "error: interrupted\nnext:  run the same command again: it goes on from what stands\n",
    )
    proofs.wait_until(lambda: not any(map(hangs, left)), "az is gone")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupt_takes_the_password_file_of_a_session_along(setup: Setup, tmp_path: Path) -> None:
    folder = tmp_path / "temp"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and never says a word
        setup.settings["POSTGRES_ADMIN_DSN"] = f"postgresql://me:{TOKEN}@127.0.0.1:{deaf.getsockname()[1]}/d"
        setup.write()
        argv = [sys.executable, "-m", "invoke", "--search-root", str(setup.project), "doctor", "--check-deadline", "100"]
        env = {**ENV, **setup.env, "TMPDIR": str(folder)}
        process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=setup.project)
        try:
            proofs.wait_until(lambda: any(folder.glob("*/pgpass")), "psql is about to connect")
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (
        130,
        "error: interrupted\nnext:  run the same command again: it goes on from what stands\n",
    )
    assert list(folder.glob("*/pgpass")) == []


def test_what_a_login_that_hangs_says_is_next_means_the_same_database(setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        setup.settings["POSTGRES_ADMIN_DSN"] = f"postgresql://me:{TOKEN}@127.0.0.1:{deaf.getsockname()[1]}/d"
        setup.write()
        setup.dotenv.rename(setup.project / "other.env")
        checks = setup.look("--env-file", "other.env", "--check-deadline", "2")
    again = "invoke doctor --env-file other.env --check-deadline 60"
    assert checks["login"]["next"] == f"invoke psql --env-file other.env; or: {again}"


# --fix.


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_fix_mends_what_is_safe_and_looks_again(setup: Setup) -> None:
    setup.mode = 0o644
    setup.write()
    ignored = setup.project / ".gitignore"
    ignored.write_text("*.pyc")
    checks = setup.look()
    assert list(of("problem", checks)) == [".env rights"]
    assert checks[".env in git"]["state"] == "warning"
    result = setup.invoke("--fix", "--json")
    assert result.returncode == 0
    document = json.loads(result.stdout)
    assert document["fixed"] == ["chmod 600 .env", "added /.env to .gitignore"]
    assert setup.dotenv.stat().st_mode & 0o777 == 0o600
    assert ignored.read_text() == "*.pyc\n/.env\n"
    checks = {check["name"]: check for check in document["checks"]}
    assert checks[".env rights"]["state"] == checks[".env in git"]["state"] == "ok"
    again = setup.invoke("--fix")
    assert "fixed:" not in again.stdout
    assert ignored.read_text() == "*.pyc\n/.env\n"


@pytest.mark.skipif(os.name == "nt", reason="on Windows, links are for those who may make them")
def test_of_a_link_the_file_is_looked_at(setup: Setup) -> None:
    setup.dotenv.rename(setup.project / "real.conf")
    setup.dotenv.symlink_to("real.conf")
    setup.repository.git("add", "--force", "real.conf")
    checks = setup.look()
    assert checks[".env in git"]["state"] == "problem"
    assert checks[".env in git"]["next"].startswith("git rm --cached real.conf;")


@pytest.mark.parametrize("name", ["other.env", "other [1] *.env"])
def test_what_mends_a_file_in_another_repository_does(setup: Setup, tmp_path: Path, name: str) -> None:
    other = repositories.make(tmp_path / "another one")
    file = other.path / name
    shutil.copy(setup.dotenv, file)
    assert setup.look("--env-file", str(file))[".env in git"]["state"] == "warning"
    assert len(json.loads(setup.invoke("--fix", "--json", "--env-file", str(file)).stdout)["fixed"]) == 1
    assert setup.look("--env-file", str(file))[".env in git"]["state"] == "ok"
    other.git("add", "--force", name)
    check = setup.look("--env-file", str(file))[".env in git"]
    assert check["state"] == "problem"
    command = shlex.split(check["next"].partition(";")[0])
    assert command[0] == "git"
    setup.repository.git(*command[1:])
    assert other.git("ls-files") == ""


def test_fix_leaves_the_rest_alone(setup: Setup) -> None:
    setup.repository.git("add", "--force", ".env")
    before = setup.repository.git("status", "--porcelain")
    assert json.loads(setup.invoke("--fix", "--json").stdout)["fixed"] == []
    assert setup.repository.git("status", "--porcelain") == before
