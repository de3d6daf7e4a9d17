"""az's words: the exact command of every question and action, what its answers come to, and what never reaches it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from scripts import az
from scripts.az import Az, AzError, Question
from scripts.errors import ExitCode, OpsError, UsageError
from scripts.failures import Way
from scripts.flexible import Server
from scripts.secret import Secret
from scripts.settings import ROOT
from scripts.shell import WINDOWS, Result
from tests.azure.regions import Region as EmulatedRegion
from tests.unit.azure import (
    SKUS,
    SUBSCRIPTION,
    az_in,
    failed,
    ok,
    program_in,
    region,
    rule,
    rule_json,
    server,
    server_json,
    wanted,
)

PASSWORD = "S3cret,@odd/&chars"
WANTED = wanted()
IN_GROUP = ["--resource-group", "rg", "--subscription", SUBSCRIPTION]
FLEXIBLE = ["postgres", "flexible-server"]
MISSING = failed("ERROR: (ResourceNotFound) The Resource was not found.", 3)


@dataclass
class Calls:
    """Stands for `run` and `run_together`: notes what is started, and where, and ends it with results in their order."""

    results: list[Result] = field(default_factory=list)
    argvs: list[list[str]] = field(default_factory=list)
    together: list[int] = field(default_factory=list)
    envs: list[dict[str, str]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    held: list[list[str]] = field(default_factory=list)
    stdins: list[bytes] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)

    def run(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout: float, stdin: bytes = b"") -> Result:
        self.argvs.append(list(argv))
        self.envs.append(dict(env))
        self.folders.append(cwd)
        self.held.append([path.name for path in cwd.iterdir()])
        self.stdins.append(stdin)
        self.timeouts.append(timeout)
        return self.results.pop(0) if self.results else ok()

    def run_together(self, argvs: Sequence[Sequence[str]], **more: Any) -> list[Result]:
        self.together.append(len(argvs))
        return [self.run(argv, **more) for argv in argvs]

    def client(self, folder: Path, env: Mapping[str, str] | None = None, **more: Any) -> Az:
        return Az({**az_in(folder), **(env or {})}, run=self.run, run_together=self.run_together, **more)


# --- How az is started ------------------------------------------------------------------------------------------------


def test_without_az_there_is_a_way_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="az command is not on PATH") as caught:
        Az({"PATH": str(tmp_path)})
    assert caught.value.hint.startswith("install azure-cli 2.87")
    assert "https://learn.microsoft.com/" in caught.value.hint
    lock = re.search(r"-r (\S+),", caught.value.hint)
    assert WINDOWS or (lock is not None and "azure-cli==" in (ROOT / lock[1]).read_text(encoding="utf-8"))


def test_az_runs_in_an_empty_folder_that_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "azure").mkdir()  # would shadow the package of az
    calls = Calls([ok("a"), ok("b")])
    with calls.client(tmp_path) as client:
        client.ask(az.group(WANTED))
        client.do("group", "list")
    assert calls.held == [[], []]
    assert calls.folders[0] not in (tmp_path, *tmp_path.parents)
    assert [folder.exists() for folder in calls.folders] == [False, False]


def test_the_folder_is_gone_after_a_failure_too(tmp_path: Path) -> None:
    calls = Calls([failed("ERROR: odd")])
    with pytest.raises(AzError), calls.client(tmp_path) as client:
        client.do("group", "list")
    assert not calls.folders[0].exists()


def test_az_is_found_from_its_own_folder_where_path_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    az_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    calls = Calls()
    with calls.client(tmp_path, {"PATH": "."}) as client:
        client.do("group", "list")
    assert calls.argvs == [[str(program_in(tmp_path, "az")), "group", "list"]]


@pytest.mark.parametrize("batch", ["wbin/az.cmd", "az.cmd", "az.bat"])  # of the installer; of an environment, older and newer
def test_on_windows_az_is_started_past_its_batch_file_whose_arguments_would_be_read_again(tmp_path: Path, batch: str) -> None:
    (tmp_path / "wbin").mkdir()
    for file in (batch, "python.exe"):
        (tmp_path / file).touch()
    assert az.command(tmp_path / batch) == [str(tmp_path / "python.exe"), "-X", "utf8", "-IBm", "azure.cli"]


@pytest.mark.parametrize("program", ["az.cmd", "az", "az.exe"])
def test_an_az_without_a_python_beside_it_is_started_itself(tmp_path: Path, program: str) -> None:
    assert az.command(tmp_path / program) == [str(tmp_path / program)]


def test_azs_environment_has_no_database_of_ours_and_no_log_file(tmp_path: Path) -> None:
    env = {
        "HOME": "/home/me",
        "AZURE_CONFIG_DIR": "/home/me/.az",
        "PGPASSWORD": "x",
        "POSTGRES_ADMIN_PASSWORD": "x",
        "POSTGRES_DSN": "postgresql://x",
        "postgres_admin_dsn": "postgresql://x",
        "AZURE_LOGGING_ENABLE_LOG_FILE": "true",
        "AZURE_CORE_ONLY_SHOW_ERRORS": "false",
        "AZURE_CORE_NO_COLOR": "false",
    }
    calls = Calls()
    with calls.client(tmp_path, env) as client:
        client.ask(az.group(WANTED))
        client.do("group", "list")
    for found in calls.envs:
        assert {name for name in found if name.upper().startswith(("PG", "POSTGRES"))} == set()
        assert (found["HOME"], found["AZURE_CONFIG_DIR"], found["PATH"]) == ("/home/me", "/home/me/.az", str(tmp_path))
        assert found["AZURE_LOGGING_ENABLE_LOG_FILE"] == "false"
        assert (found["AZURE_CORE_ONLY_SHOW_ERRORS"], found["AZURE_CORE_NO_COLOR"]) == ("true", "true")


def test_independent_questions_are_asked_at_once_and_end_in_time(tmp_path: Path) -> None:
    calls = Calls([ok("eastus2\n"), MISSING, ok("Registered\n")])
    with calls.client(tmp_path) as client:
        assert client.ask(az.group(WANTED), az.server(WANTED), az.provider(SUBSCRIPTION)) == ["eastus2", None, True]
    assert calls.together == [3]
    assert set(calls.timeouts) == {180.0}
    assert calls.stdins == [b""] * 3


# --- Questions --------------------------------------------------------------------------------------------------------

QUESTIONS: list[tuple[Question[Any], list[str], str, Any]] = [
    (az.version(), ["version", "--output", "json"], '{"azure-cli": "2.91.0", "extensions": {}}', (2, 91, 0)),
    (
        az.login(SUBSCRIPTION),
        ["account", "get-access-token", "--query", "subscription", "--output", "tsv", "--subscription", SUBSCRIPTION],
        f"{SUBSCRIPTION}\n",
        SUBSCRIPTION,
    ),
    (
        az.provider(SUBSCRIPTION),
        [
            *("provider", "show", "--namespace", "Microsoft.DBforPostgreSQL", "--query", "registrationState"),
            *("--output", "tsv", "--subscription", SUBSCRIPTION),
        ],
        "NotRegistered\n",
        False,
    ),
    (
        az.group(WANTED),
        ["group", "show", "--name", "rg", "--query", "location", "--output", "tsv", "--subscription", SUBSCRIPTION],
        "northeurope\n",
        "northeurope",
    ),
    (
        az.server(WANTED),
        [*FLEXIBLE, "show", "--name", "srv1", *IN_GROUP, "--output", "json"],
        json.dumps(server_json(server())),
        server(),
    ),
    (
        az.database(WANTED),
        [*FLEXIBLE, "db", "show", "--server-name", "srv1", "--name", "serving", *IN_GROUP, "--output", "none"],
        "",
        True,
    ),
    (
        az.rules(WANTED),
        [*FLEXIBLE, "firewall-rule", "list", "--server-name", "srv1", *IN_GROUP, "--output", "json"],
        json.dumps([rule_json(rule("a", "203.0.113.0", "203.0.113.255")), rule_json(rule("b", "0.0.0.0"))]),
        (rule("a", "203.0.113.0", "203.0.113.255"), rule("b", "0.0.0.0")),
    ),
    (
        az.rule(WANTED, "a"),
        [*FLEXIBLE, "firewall-rule", "show", "--server-name", "srv1", "--name", "a", *IN_GROUP, "--output", "json"],
        json.dumps(rule_json(rule("a", "203.0.113.7"))),
        rule("a", "203.0.113.7"),
    ),
    (
        az.region(WANTED, "westus2"),
        [*FLEXIBLE, "list-skus", "--location", "westus2", "--subscription", SUBSCRIPTION, "--output", "json"],
        "[]",
        region("westus2", restricted="restricted: it offers no SKU", skus=None, versions=(), storage=None, zones=False),
    ),
    (
        az.contents(WANTED),
        ["resource", "list", "--resource-group", "rg", "--subscription", SUBSCRIPTION, "--output", "json"],
        '[{"type": "Microsoft.Web/sites", "name": "app", "tags": null}]',
        ["Microsoft.Web/sites app"],
    ),
    (
        az.login(),
        ["account", "get-access-token", "--query", "subscription", "--output", "tsv"],
        f"{SUBSCRIPTION}\n",
        SUBSCRIPTION,
    ),
]


@pytest.mark.parametrize(("question", "argv", "out", "answer"), QUESTIONS, ids=[" ".join(row[1][:4]) for row in QUESTIONS])
def test_a_question(tmp_path: Path, question: Question[Any], argv: list[str], out: str, answer: Any) -> None:
    calls = Calls([ok(out)])
    with calls.client(tmp_path) as client:
        assert client.ask(question) == [answer]
    assert calls.argvs == [[str(program_in(tmp_path, "az")), *argv]]


@pytest.mark.parametrize(
    "result",
    [
        MISSING,
        failed("ERROR: (ResourceGroupNotFound) Resource group 'rg' could not be found.", 3),
        failed("ERROR: (ParentResourceNotFound) Failed to perform 'read' on resource(s).", 3),
        failed("ERROR: (ResourceNotFound) The Resource was not found."),
        failed("ERROR: Firewall rule operations are not supported for a server without public access enabled."),
    ],
)
def test_what_is_not_there_is_no_error(tmp_path: Path, result: Result) -> None:
    with Calls([result, result]).client(tmp_path) as client:
        assert client.ask(az.server(WANTED), az.rules(WANTED)) == [None, None]


@pytest.mark.parametrize(
    "found",
    [
        server(),
        server(location="westus2", state="Updating", zonal=True, sku="Standard_D2ds_v5", tier="GeneralPurpose", version=17),
        server(is_public=False),
        server(is_public=False, in_vnet=True, storage=32767, retention=35),
    ],
)
def test_a_server_is_read_out_of_azs_json(tmp_path: Path, found: Server) -> None:
    with Calls([ok(json.dumps(server_json(found)))]).client(tmp_path) as client:
        assert client.ask(az.server(WANTED)) == [found]


def test_a_server_that_is_being_made_leaves_things_out(tmp_path: Path) -> None:
    facts = server_json(server()) | {"state": None, "highAvailability": None, "network": None, "fullyQualifiedDomainName": None}
    with Calls([ok(json.dumps(facts))]).client(tmp_path) as client:
        assert client.ask(az.server(WANTED)) == [server(host="", is_public=True)]


def offer(**changes: Any) -> list[dict[str, Any]]:
    """What list-skus prints of a region, in the shape that Azure gives it."""
    return [{**EmulatedRegion("eastus2", "East US 2").capabilities()[0], **changes}]


def test_a_regions_offer_is_read_out_of_its_first_element(tmp_path: Path) -> None:
    with Calls([ok(json.dumps(offer()))]).client(tmp_path) as client:
        [found] = client.ask(az.region(WANTED, "eastus2"))
    assert (found.location, found.restricted, found.zones) == ("eastus2", None, True)
    assert set(SKUS["Burstable"]) <= set(found.skus["Burstable"])
    assert list(found.versions) == [13, 14, 15, 16, 17, 18]
    assert found.storage["Burstable"][:2] == [32, 64]
    assert found.storage["Burstable"][-1] == 32767
    assert found.obstacle(WANTED) is None


@pytest.mark.parametrize(
    ("offers", "why"),
    [
        ([], "restricted: it offers no SKU"),
        (offer(supportedFeatures=[{"name": "OfferRestricted", "status": "Enabled"}]), "not offered to this subscription"),
        (
            offer(supportedFeatures=[{"name": "OfferRestricted", "status": "Enabled"}], reason="Not here."),
            "restricted: Not here.",
        ),
        (offer(reason="Not here."), "restricted: Not here."),
        (offer(supportedServerEditions=[]), "restricted: it offers no SKU"),
        (offer(supportedServerEditions=None, supportedFeatures=None, supportedServerVersions=None), "it offers no SKU"),
        (offer(supportedServerVersions=[]), "PostgreSQL 16 is not offered"),
        (offer(supportedServerVersions=[{"name": "16"}, {"name": "Citus 12"}]), None),
    ],
)
def test_a_region_that_is_closed_says_why(tmp_path: Path, offers: list[dict[str, Any]], why: str | None) -> None:
    with Calls([ok(json.dumps(offers))]).client(tmp_path) as client:
        [found] = client.ask(az.region(WANTED, "eastus2"))
    obstacle = found.obstacle(WANTED)
    assert (obstacle is None) == (why is None)
    assert why is None or why in obstacle


@pytest.mark.parametrize(
    ("version", "problem"),
    [((2, 87, 0), None), ((2, 91, 0), None), ((3, 0, 0), None), ((2, 86, 9), "azure-cli 2.86.9"), ((1, 99, 0), "1.99.0")],
)
def test_an_older_az_is_refused_with_the_way_to_a_newer_one(version: tuple[int, ...], problem: str | None) -> None:
    if problem is None:
        az.check_version(version)
        return
    with pytest.raises(UsageError, match=f"{problem}.*2.87 or newer") as caught:
        az.check_version(version)
    assert caught.value.hint == "az upgrade"


# --- Actions ----------------------------------------------------------------------------------------------------------

SERVER_VALUES = (("location", "eastus2"), ("tier", "Burstable"), ("sku-name", "Standard_B1ms"))
ACTIONS: list[tuple[Callable[[Az], object], list[str], bytes]] = [
    (
        lambda client: az.register(client, WANTED),
        [
            *("provider", "register", "--namespace", "Microsoft.DBforPostgreSQL", "--wait"),
            *("--subscription", SUBSCRIPTION, "--output", "none"),
        ],
        b"",
    ),
    (
        lambda client: az.create_group(client, WANTED, "eastus2"),
        ["group", "create", "--name", "rg", "--location", "eastus2", "--subscription", SUBSCRIPTION, "--output", "none"],
        b"",
    ),
    (
        lambda client: az.create_server(client, WANTED, SERVER_VALUES, Secret(PASSWORD)),
        [
            *(*FLEXIBLE, "create", "--name", "srv1", *IN_GROUP, "--location", "eastus2", "--tier", "Burstable"),
            *("--sku-name", "Standard_B1ms", "--admin-user", "serving_admin", "--admin-password", "@-"),
            *("--public-access", "Enabled", "--yes", "--output", "none"),
        ],
        PASSWORD.encode(),
    ),
    (
        lambda client: az.update_server(client, WANTED, (("storage-size", "64"), ("public-access", "Enabled"))),
        [
            *(*FLEXIBLE, "update", "--name", "srv1", *IN_GROUP, "--storage-size", "64", "--public-access", "Enabled"),
            *("--yes", "--output", "none"),
        ],
        b"",
    ),
    (
        lambda client: az.reset_password(client, WANTED, Secret(PASSWORD)),
        [*FLEXIBLE, "update", "--name", "srv1", *IN_GROUP, "--admin-password", "@-", "--yes", "--output", "none"],
        PASSWORD.encode(),
    ),
    (
        lambda client: az.create_database(client, WANTED),
        [*FLEXIBLE, "db", "create", "--server-name", "srv1", "--name", "serving", *IN_GROUP, "--output", "none"],
        b"",
    ),
    (
        lambda client: az.set_rule(client, WANTED, rule("a", "203.0.113.0", "203.0.113.255")),
        [
            *(*FLEXIBLE, "firewall-rule", "create", "--server-name", "srv1", "--name", "a", *IN_GROUP),
            *("--start-ip-address", "203.0.113.0", "--end-ip-address", "203.0.113.255", "--output", "none"),
        ],
        b"",
    ),
    (
        lambda client: az.delete_rule(client, WANTED, "a"),
        [
            *(*FLEXIBLE, "firewall-rule", "delete", "--server-name", "srv1", "--name", "a", *IN_GROUP),
            *("--yes", "--output", "none"),
        ],
        b"",
    ),
    (
        lambda client: az.delete_server(client, WANTED),
        [*FLEXIBLE, "delete", "--name", "srv1", *IN_GROUP, "--yes", "--output", "none"],
        b"",
    ),
    (
        lambda client: az.delete_group(client, WANTED),
        ["group", "delete", "--name", "rg", "--subscription", SUBSCRIPTION, "--yes", "--output", "none"],
        b"",
    ),
]


@pytest.mark.parametrize(("action", "argv", "stdin"), ACTIONS, ids=[" ".join(row[1][:4]) for row in ACTIONS])
def test_an_action(tmp_path: Path, action: Callable[[Az], object], argv: list[str], stdin: bytes) -> None:
    calls = Calls()
    with calls.client(tmp_path) as client:
        action(client)
    assert calls.argvs == [[str(program_in(tmp_path, "az")), *argv]]
    assert calls.stdins == [stdin]
    assert "".join(argv).find(PASSWORD) == -1
    assert not any(PASSWORD in value for value in calls.envs[0].values())
    assert calls.timeouts == [180.0 if "firewall-rule" in argv else 3600.0]


def test_a_server_is_made_for_the_administrator_that_is_asked_for(tmp_path: Path) -> None:
    calls = Calls()
    with calls.client(tmp_path) as client:
        az.create_server(client, replace(WANTED, admin="me"), (), Secret(PASSWORD))
    argv = calls.argvs[0]
    assert argv[argv.index("--admin-user") + 1] == "me"


@pytest.mark.parametrize("value", [PASSWORD, "@-", "-x", "a\nb", "größe"])
def test_a_secret_goes_to_a_vault_in_a_file_that_only_its_owner_can_read(tmp_path: Path, value: str) -> None:
    seen: list[tuple[bytes, int, int]] = []
    files: list[Path] = []

    class Vault(Calls):
        def run(self, argv: Sequence[str], **more: Any) -> Result:
            file = Path(argv[argv.index("--file") + 1])
            files.append(file)
            seen.append((file.read_bytes(), file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777))
            return super().run(argv, **more)

    calls = Vault([ok("https://v1.vault.azure.net/secrets/POSTGRES-DSN/0123456789abcdef\n")])
    with calls.client(tmp_path) as client:
        found = az.put_secret(client, "v1", "POSTGRES-DSN", Secret(value))
    assert found == "https://v1.vault.azure.net/secrets/POSTGRES-DSN"
    assert seen == [(value.encode(), 0o600, 0o700)]
    assert not files[0].parent.exists()
    assert calls.argvs == [
        [
            *(str(program_in(tmp_path, "az")), "keyvault", "secret", "set", "--vault-name", "v1", "--name", "POSTGRES-DSN"),
            *("--file", str(files[0]), "--encoding", "utf-8", "--query", "id", "--output", "tsv"),
        ]
    ]


def test_the_file_for_a_vault_is_gone_after_a_failure_too(tmp_path: Path) -> None:
    calls = Calls([failed("ERROR: (Forbidden) ForbiddenByRbac")])
    with calls.client(tmp_path) as client, pytest.raises(AzError, match="may not set a secret"):
        az.put_secret(client, "v1", "POSTGRES-DSN", Secret(PASSWORD))
    argv = calls.argvs[0]
    assert not Path(argv[argv.index("--file") + 1]).parent.exists()


# --- Failures ---------------------------------------------------------------------------------------------------------


def test_a_failure_is_classified_and_holds_no_secret(tmp_path: Path) -> None:
    calls = Calls([failed(f"ERROR: (QuotaExceeded) exceeding approved 10 Cores quota\nadministratorLoginPassword: {PASSWORD}")])
    with (
        calls.client(tmp_path, redact=lambda text: text.replace(PASSWORD, "****")) as client,
        pytest.raises(AzError) as caught,
    ):
        az.create_server(client, WANTED, (), Secret(PASSWORD))
    error = caught.value
    assert (error.failure.kind, error.exit_code, error.facts) == ("quota", ExitCode.FAILED, {"failure": "quota", "refused": True})
    assert error.message.splitlines() == [
        "the quota of the subscription is used up:",
        "  (QuotaExceeded) exceeding approved 10 Cores quota",
        "  administratorLoginPassword: ****",
    ]
    assert PASSWORD not in repr((error, error.args, error.hint, vars(error)))


def test_a_failure_that_only_stdout_tells_is_shown(tmp_path: Path) -> None:
    with Calls([Result(code=1, out="odd", err="")]).client(tmp_path) as client, pytest.raises(AzError, match="odd"):
        client.do("group", "list")


def test_of_several_questions_each_has_its_own_failure(tmp_path: Path) -> None:
    results = [ok("eastus2"), failed("ERROR: Please run 'az login' to setup account."), failed("ERROR: odd"), MISSING]
    questions: list[Question[Any]] = [az.group(WANTED), az.login(SUBSCRIPTION), az.server(WANTED), az.database(WANTED)]
    with Calls(list(results)).client(tmp_path) as client:
        group, login, found, database = client.try_ask(*questions)
    assert (group, database) == ("eastus2", None)
    assert (login.failure.kind, found.failure.kind) == ("login", "unknown")
    with Calls(list(results)).client(tmp_path) as client, pytest.raises(AzError, match="not logged in"):
        client.ask(*questions)


def test_an_action_on_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with Calls([MISSING]).client(tmp_path) as client, pytest.raises(AzError) as caught:
        az.create_database(client, WANTED)
    assert caught.value.failure.kind == "missing"


def test_an_az_that_does_not_end_is_a_failure_like_any_other(tmp_path: Path) -> None:
    def late(*_: Any, **__: Any) -> Any:
        raise OpsError("az did not answer within 180 s")

    with Az(az_in(tmp_path), run=late, run_together=late) as client:
        for call in (lambda: client.do("group", "list"), lambda: client.ask(az.group(WANTED))):
            with pytest.raises(AzError, match=r"^az did not answer within 180 s\Z") as caught:
                call()
            assert caught.value.failure.way is Way.STOP
