"""The only module that knows az's words and what its JSON looks like.

Written for azure-cli 2.87 and newer, which named the arguments anew. A call costs a quarter to half a second, so questions
that don't depend on each other are asked side by side. No secret stands in an argv: passwords go to az's stdin, as `@-`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from scripts import PRODUCT, failures, shell
from scripts.dsn import clean_env
from scripts.errors import OpsError, UsageError
from scripts.failures import PROVIDER, Failure, Way
from scripts.firewall import Rule
from scripts.flexible import Region, Server, Wanted, location_key
from scripts.secret import Secret
from scripts.shell import Result

OLDEST = (2, 87)
_PAGE = "https://learn.microsoft.com/cli/azure/install-azure-cli"
# It weighs hundreds of megabytes, and forbids the Invoke that runs this: so an environment of its own.
_BY_PIP = (
    "python3 -m venv ~/azure-cli && ~/azure-cli/bin/pip install --require-hashes -r requirements/azure.txt, "
    f"and put ~/azure-cli/bin on PATH; or as {_PAGE} says"
)
INSTALL_HINT = f"install azure-cli 2.87 or newer: {_PAGE if shell.WINDOWS else _BY_PIP}"
_SERVER = ("postgres", "flexible-server")
_ASKING = 180.0  # seconds for an answer; az itself retries for some of them
_DOING = 3600.0  # seconds for a long operation
# az asks nothing, prints no advice, and writes no log of its own: with --debug or a log file, it would hold the password.
_SETTINGS = {
    "AZURE_CORE_NO_COLOR": "true",
    "AZURE_CORE_ONLY_SHOW_ERRORS": "true",
    "AZURE_CORE_SURVEY_MESSAGE": "false",
    "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
    "AZURE_LOGGING_ENABLE_LOG_FILE": "false",
    "PYTHONIOENCODING": "utf-8",  # of the password on its stdin
}
Answer = TypeVar("Answer")


class AzError(OpsError):
    """An az call that failed; `failure` says what it means."""

    def __init__(self, failure: Failure) -> None:
        shown = "\n".join(f"  {line}" for line in failure.text.splitlines())
        super().__init__(
            f"{failure.cause}:\n{shown}" if shown else failure.cause,
            failure.hint,
            {"failure": failure.kind, "refused": failure.is_refusal},
        )
        self.failure = failure


class InGroup(Protocol):
    """What stands in a resource group: a server, an app."""

    @property
    def group(self) -> str:
        """The group's name."""

    @property
    def subscription(self) -> str:
        """The subscription's id."""


@dataclass(frozen=True)
class Permission:
    """What one of the login's roles gives it: actions such as `Microsoft.DBforPostgreSQL/*/read`, and those left out again."""

    actions: tuple[str, ...]
    but: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question(Generic[Answer]):
    """One call that reads: its arguments, and what its output comes to; nothing where the resource isn't there."""

    words: tuple[str, ...]
    parse: Callable[[str], Answer]


class Az:
    """az, started in a folder of its own: in one that holds a file named `azure`, it wouldn't start. Use it as a context manager.

    `redact` takes secrets out of what az says.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        redact: Callable[[str], str] = lambda text: text,
        run: shell.Run = shell.run,
        run_together: Callable[..., list[Result]] = shell.run_together,
    ) -> None:
        program = shell.which("az", env)
        if program is None:
            raise UsageError("the az command is not on PATH", INSTALL_HINT)
        self._command = command(Path(program).absolute())  # it is started elsewhere, and PATH may be relative
        self._env = {**clean_env(env), **_SETTINGS}
        self._redact = redact
        self._run = run
        self._run_together = run_together

    def __enter__(self) -> Az:
        self._folder = tempfile.TemporaryDirectory(prefix=f"{PRODUCT}-az-", ignore_cleanup_errors=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.cleanup()

    def ask(self, *questions: Question[Any]) -> list[Any]:
        """The answers, None where a resource isn't there. Raises AzError for the first that failed otherwise."""
        return [self._raised(answer) for answer in self.try_ask(*questions)]

    def try_ask(self, *questions: Question[Any]) -> list[Any]:
        """As `ask`, with an AzError in the place of an answer that failed."""
        argvs = [[*self._command, *question.words] for question in questions]
        with _ended():
            results = self._run_together(argvs, env=self._env, cwd=self._path, timeout=_ASKING)
        return [self._parsed(question, result) for question, result in zip(questions, results, strict=True)]

    def do(self, *words: str, stdin: Secret | None = None, timeout: float = _DOING) -> str:
        """A call that changes something; returns what it printed. `timeout` is in seconds. Raises AzError."""
        with _ended():
            result = self._run(
                [*self._command, *words],
                env=self._env,
                cwd=self._path,
                stdin=stdin.reveal().encode("utf-8") if stdin else b"",
                timeout=timeout,
            )
        if result.code != 0:
            raise self._error(result)
        # A refused delete says so and exits with 0: the caller looks whether it is gone.
        return result.out

    @property
    def _path(self) -> Path:
        return Path(self._folder.name)

    def _parsed(self, question: Question[Any], result: Result) -> Any:
        if result.code == 0:
            return question.parse(result.out)
        error = self._error(result)
        return None if error.failure.kind in ("missing", "private") else error

    def _error(self, result: Result) -> AzError:
        return AzError(failures.classify(self._redact(result.err or result.out), result.code))

    @staticmethod
    def _raised(answer: Any) -> Any:
        if isinstance(answer, AzError):
            raise answer
        return answer


def command(program: Path) -> list[str]:
    """How az is started: on Windows, past its batch file, by the Python beside or above it, as that would do.

    cmd.exe reads a batch file's arguments again, and would change some: the name of a resource group may hold parentheses. And
    `-I` has that Python ignore PYTHONIOENCODING, so that it is told by `-X` in which encoding a password comes.
    """
    if program.suffix.lower() in (".cmd", ".bat"):
        for folder in (program.parent, program.parent.parent):  # of pip's in an environment, and of the installer's and the ZIP's
            if (folder / "python.exe").is_file():
                return [str(folder / "python.exe"), "-X", "utf8", "-IBm", "azure.cli"]
    return [str(program)]


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """An az that doesn't start or doesn't end is a failure like any other: who called it knows what stands."""
    try:
        yield
    except OpsError as error:
        raise AzError(Failure(kind="unanswered", way=Way.STOP, cause=error.message, hint="", text="")) from None


# What can be asked.


def version() -> Question[tuple[int, ...]]:
    """The version of azure-cli itself."""
    return Question(
        ("version", "--output", "json"), lambda out: tuple(map(int, re.findall(r"\d+", json.loads(out)["azure-cli"])[:3]))
    )


def login(subscription: str | None = None) -> Question[str]:
    """The subscription's id, as the login sees it; the token that proves the login stays with az."""
    words = ("account", "get-access-token", "--query", "subscription", "--output", "tsv")
    return Question((*words, *(("--subscription", subscription) if subscription else ())), str.strip)


def provider(subscription: str) -> Question[bool]:
    """Whether the subscription is registered for PostgreSQL."""
    words = ("provider", "show", "--namespace", PROVIDER, "--query", "registrationState", "--output", "tsv")
    return Question((*words, "--subscription", subscription), lambda out: out.strip() == "Registered")


def group(wanted: InGroup) -> Question[str]:
    """The resource group's location."""
    words = ("group", "show", "--name", wanted.group, "--query", "location", "--output", "tsv")
    return Question((*words, "--subscription", wanted.subscription), str.strip)


def server(wanted: Wanted) -> Question[Server]:
    """The flexible server."""
    return Question((*_SERVER, "show", "--name", wanted.server, *_in_group(wanted), "--output", "json"), _server)


def database(wanted: Wanted) -> Question[bool]:
    """Whether the database is there (nothing: it isn't)."""
    words = (*_SERVER, "db", "show", "--server-name", wanted.server, "--name", wanted.database, *_in_group(wanted))
    return Question((*words, "--output", "none"), lambda out: True)


def rules(wanted: Wanted) -> Question[tuple[Rule, ...]]:
    """The firewall rules; nothing for a server without public access, which has none."""
    words = (*_SERVER, "firewall-rule", "list", "--server-name", wanted.server, *_in_group(wanted), "--output", "json")
    return Question(words, lambda out: tuple(map(_rule, json.loads(out))))


def rule(wanted: Wanted, name: str) -> Question[Rule]:
    """One firewall rule."""
    words = (*_SERVER, "firewall-rule", "show", "--server-name", wanted.server, "--name", name, *_in_group(wanted))
    return Question((*words, "--output", "json"), lambda out: _rule(json.loads(out)))


def region(wanted: Wanted, location: str) -> Question[Region]:
    """What a region offers."""
    words = (*_SERVER, "list-skus", "--location", location, "--subscription", wanted.subscription, "--output", "json")
    return Question(words, lambda out: _region(location, json.loads(out)))


def name_is_free(wanted: Wanted) -> Question[bool]:
    """Whether no server anywhere in Azure has the name: az itself asks so before it makes one, and has no command for it.

    Source: https://learn.microsoft.com/rest/api/postgresql/name-availability/check-globally
    """
    body = json.dumps({"name": wanted.server, "type": f"{PROVIDER}/flexibleServers"})
    place = f"/subscriptions/{wanted.subscription}/providers/{PROVIDER}/checkNameAvailability?api-version=2024-08-01"
    return Question(("rest", "--method", "post", "--url", place, "--body", body), _name_is_free)


def permissions(wanted: InGroup) -> Question[tuple[Permission, ...]]:
    """What the login may do in the resource group; nothing where that isn't there.

    Source: https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource-group
    """
    place = f"/subscriptions/{wanted.subscription}/resourceGroups/{wanted.group}/providers/Microsoft.Authorization/permissions"
    return Question(("rest", "--method", "get", "--url", f"{place}?api-version=2022-04-01"), _permissions)


# What can be done.


def register(az: Az, wanted: Wanted) -> None:
    """Registers the subscription for PostgreSQL; takes a minute or two."""
    az.do("provider", "register", "--namespace", PROVIDER, "--wait", "--subscription", wanted.subscription, "--output", "none")


def create_group(az: Az, wanted: Wanted, location: str) -> None:
    """Makes the resource group."""
    words = ("--name", wanted.group, "--location", location, "--subscription", wanted.subscription, "--output", "none")
    az.do("group", "create", *words)


def create_server(az: Az, wanted: Wanted, values: Sequence[tuple[str, str]], password: Secret) -> None:
    """Makes the server, reachable by firewall rules and with none. Its output would hold the password: there is none."""
    words = (*_SERVER, "create", "--name", wanted.server, *_in_group(wanted), *_flags(values), "--admin-user", wanted.new_admin)
    az.do(*words, "--admin-password", "@-", "--public-access", "Enabled", "--yes", "--output", "none", stdin=password)


def update_server(az: Az, wanted: Wanted, values: Sequence[tuple[str, str]]) -> None:
    """Changes the server."""
    az.do(*_SERVER, "update", "--name", wanted.server, *_in_group(wanted), *_flags(values), "--yes", "--output", "none")


def reset_password(az: Az, wanted: Wanted, password: Secret) -> None:
    """Gives the administrator a new password."""
    words = (*_SERVER, "update", "--name", wanted.server, *_in_group(wanted), "--admin-password", "@-", "--yes")
    az.do(*words, "--output", "none", stdin=password)


def create_database(az: Az, wanted: Wanted) -> None:
    """Makes the database."""
    words = (*_SERVER, "db", "create", "--server-name", wanted.server, "--name", wanted.database, *_in_group(wanted))
    az.do(*words, "--output", "none")


def set_rule(az: Az, wanted: Wanted, item: Rule) -> None:
    """Makes a firewall rule, or changes the one of that name."""
    words = (*_SERVER, "firewall-rule", "create", "--server-name", wanted.server, "--name", item.name, *_in_group(wanted))
    addresses = ("--start-ip-address", str(item.start), "--end-ip-address", str(item.end))
    az.do(*words, *addresses, "--output", "none", timeout=_ASKING)


def delete_rule(az: Az, wanted: Wanted, name: str) -> None:
    """Removes a firewall rule; az exits with 0 when it was refused, so look afterwards."""
    words = (*_SERVER, "firewall-rule", "delete", "--server-name", wanted.server, "--name", name, *_in_group(wanted))
    az.do(*words, "--yes", "--output", "none", timeout=_ASKING)


def delete_server(az: Az, wanted: Wanted) -> None:
    """Deletes the server with its databases and backups."""
    az.do(*_SERVER, "delete", "--name", wanted.server, *_in_group(wanted), "--yes", "--output", "none")


def delete_group(az: Az, wanted: Wanted) -> None:
    """Deletes the resource group with all that is in it."""
    az.do("group", "delete", "--name", wanted.group, "--subscription", wanted.subscription, "--yes", "--output", "none")


def contents(wanted: Wanted) -> Question[list[str]]:
    """What is in the resource group: type and name of each resource."""
    words = ("resource", "list", "--resource-group", wanted.group, "--subscription", wanted.subscription, "--output", "json")
    return Question(words, lambda out: [f"{item['type']} {item['name']}" for item in json.loads(out)])


def put_secret(az: Az, vault: str, name: str, value: Secret) -> str:
    """Sets a secret of a Key Vault; returns its id without the version, which always means the newest one.

    az takes the value in an argv or in a file, so it is a file that only its owner can read, gone afterwards.
    """
    with tempfile.TemporaryDirectory(prefix=f"{PRODUCT}-secret-") as folder:  # entered by its owner alone
        path = Path(folder) / "value"
        shell.write_private(path, value.reveal())
        words = ("--vault-name", vault, "--name", name, "--file", str(path), "--encoding", "utf-8")
        out = az.do("keyvault", "secret", "set", *words, "--query", "id", "--output", "tsv")
    return re.sub(r"(/secrets/[^/]+)/.*", r"\1", out.strip())


def vault(name: str) -> Question[str]:
    """Whether the login is let into a Key Vault; the name of one of its secrets, or nothing, is the answer."""
    words = ("keyvault", "secret", "list", "--vault-name", name, "--maxresults", "1", "--query", "[0].name", "--output", "tsv")
    return Question(words, str.strip)


def check_version(found: tuple[int, ...]) -> None:
    """Raises UsageError when az is too old to take the arguments as they are given here."""
    if found[:2] < OLDEST:
        said, wanted = (".".join(map(str, number)) for number in (found, OLDEST))
        raise UsageError(f"azure-cli {said} names its arguments otherwise: {wanted} or newer is needed", "az upgrade")


def _in_group(wanted: Wanted) -> tuple[str, ...]:
    return ("--resource-group", wanted.group, "--subscription", wanted.subscription)


def _flags(values: Sequence[tuple[str, str]]) -> list[str]:
    return [word for name, value in values for word in (f"--{name}", value)]


def _server(out: str) -> Server:
    facts = json.loads(out)
    network = facts.get("network") or {}
    return Server(
        name=facts["name"],
        location=location_key(facts["location"]),
        state=facts.get("state") or "Ready",
        host=facts["fullyQualifiedDomainName"] or "",
        admin=facts["administratorLogin"] or "",
        sku=facts["sku"]["name"],
        tier=facts["sku"]["tier"],
        storage=facts["storage"]["storageSizeGb"],
        version=int(facts["version"]),
        retention=facts["backup"]["backupRetentionDays"],
        zonal=((facts.get("highAvailability") or {}).get("mode") or "Disabled") != "Disabled",
        is_public=network.get("publicNetworkAccess") != "Disabled",
        in_vnet=bool(network.get("delegatedSubnetResourceId")),
    )


def _name_is_free(out: str) -> bool:
    return bool(json.loads(out)["nameAvailable"])


def _permissions(out: str) -> tuple[Permission, ...]:
    found = json.loads(out)["value"]
    return tuple(Permission(tuple(item.get("actions") or ()), tuple(item.get("notActions") or ())) for item in found)


def _rule(facts: Mapping[str, Any]) -> Rule:
    return Rule(facts["name"], ipaddress.IPv4Address(facts["startIpAddress"]), ipaddress.IPv4Address(facts["endIpAddress"]))


def _region(location: str, facts: Sequence[Mapping[str, Any]]) -> Region:
    """Element 0 holds everything; none at all is one of the ways to say that the region is closed."""
    if not facts:
        return Region(location=location, restricted="restricted: it offers no SKU")
    offer = facts[0]
    features = {item["name"]: item["status"] for item in offer.get("supportedFeatures") or []}
    editions = {item["name"]: item for item in offer.get("supportedServerEditions") or []}
    skus = {name: [sku["name"] for sku in item.get("supportedServerSkus") or []] for name, item in editions.items()}
    restricted = None
    if features.get("OfferRestricted") == "Enabled" or offer.get("reason"):
        restricted = f"restricted: {offer.get('reason') or 'not offered to this subscription'}"
    elif not any(skus.values()):
        restricted = "restricted: it offers no SKU"
    return Region(
        location=location,
        restricted=restricted,
        skus=skus,
        versions=[int(item["name"]) for item in offer.get("supportedServerVersions") or [] if item["name"].isdigit()],
        storage={name: _sizes(item) for name, item in editions.items()},
        zones=features.get("ZoneRedundantHa") == "Enabled",
    )


def _sizes(edition: Mapping[str, Any]) -> list[int]:
    """The GiB that a tier offers on its usual disks."""
    disks = [item for item in edition.get("supportedStorageEditions") or [] if item["name"] == "ManagedDisk"]
    return [size["storageSizeMb"] // 1024 for disk in disks for size in disk.get("supportedStorageMb") or []]
