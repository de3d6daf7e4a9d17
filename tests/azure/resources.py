"""What a Resource Manager knows: groups, flexible servers and their children, and the operations under way."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.azure.apps import ContainerApps
from tests.azure.faults import Refusal
from tests.azure.regions import Region, every_region

SUBSCRIPTION = "11111111-1111-4111-8111-111111111111"
PROVIDER = "Microsoft.DBforPostgreSQL"
SYSTEM_DATABASES = ("azure_maintenance", "azure_sys", "postgres")
PARAMETERS = {
    "azure.fabric_mirror_enabled": ("Boolean", "off", "on,off"),
    "azure.extensions": ("Set", "", "pgcrypto,vector,pg_trgm"),
    "max_connections": ("Integer", "50", "25-5000"),
    "pgbouncer.enabled": ("Boolean", "false", "true,false"),
    "require_secure_transport": ("Boolean", "on", "on,off"),
    "ssl_min_protocol_version": ("Enumeration", "TLSv1.2", "TLSv1.2,TLSv1.3"),
}
ISO_TIME = "2026-01-02T03:04:05.678Z"

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A status, a JSON body and headers beyond the usual ones; `~` in a header stands for the emulator's address."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """A flexible server. Its password stands here for the hooks; no answer holds it."""

    subscription: str
    group: str
    name: str
    location: str
    sku: Json
    login: str
    password: str = field(repr=False)
    version: str
    storage: Json
    backup: Json
    high_availability: Json
    network: Json
    tags: Json | None = None
    zone: str = "1"
    state: str = "Provisioning"
    fqdn: str | None = None
    databases: dict[str, Json] = field(default_factory=dict)
    rules: dict[str, Json] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/{PROVIDER}/flexibleServers/{self.name}"

    def json(self, title: str) -> Json:
        """As GET shows it; the location by its title, as Azure has it for servers (and not for groups)."""
        return {
            "id": self.id,
            "name": self.name,
            "type": f"{PROVIDER}/flexibleServers",
            "location": title,
            "tags": self.tags,
            "sku": self.sku,
            "systemData": {"createdAt": ISO_TIME},
            "properties": {
                "administratorLogin": self.login,
                "authConfig": {"activeDirectoryAuth": "Disabled", "passwordAuth": "Enabled"},
                "availabilityZone": self.zone,
                "backup": {**self.backup, "earliestRestoreDate": ISO_TIME},
                "dataEncryption": {"type": "SystemManaged"},
                "fullyQualifiedDomainName": self.fqdn,
                "highAvailability": self.high_availability,
                "maintenanceWindow": {"customWindow": "Disabled", "dayOfWeek": 0, "startHour": 0, "startMinute": 0},
                "minorVersion": "4",
                "network": self.network,
                "privateEndpointConnections": [],
                "replica": {"capacity": 0, "role": "Primary"},
                "replicaCapacity": 0,
                "replicationRole": "Primary",
                "state": self.state,
                "storage": self.storage,
                "version": self.version,
            },
        }

    def child(self, kind: str, name: str, properties: Json) -> Json:
        path = f"{self.id}/{kind}/{name}"
        return {"id": path, "name": name, "type": f"{PROVIDER}/flexibleServers/{kind}", "properties": properties}


@dataclass
class Hooks:
    """The data plane: what happens to the real database behind the emulated server."""

    on_server: Callable[[Server], str] | None = None  # returns the FQDN that the server reports
    on_password: Callable[[Server], None] | None = None
    on_database: Callable[[Server, str], None] | None = None
    on_database_deleted: Callable[[Server, str], None] | None = None
    on_server_deleted: Callable[[Server], None] | None = None


@dataclass
class Operation:
    """A long operation: it ends when it is due, whether or not anybody still asks."""

    due: float
    target: str  # the id of what it works on
    finish: Callable[[], None]
    refusal: Refusal | None
    done: bool = False


class Resources:
    """One tenant. `handlers.answer` holds the lock while it answers a request."""

    def __init__(self, hooks: Hooks, seconds: float, retry_ms: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.hooks, self.seconds, self.retry_ms, self.clock = hooks, seconds, retry_ms, clock
        self.subscriptions = {SUBSCRIPTION: "Emulated"}
        self.regions: dict[str, Region] = every_region()
        self.unregistered: set[str] = set()  # subscriptions where the provider is not registered
        self.registering_polls = 0  # how many `provider show` say Registering after `provider register`
        self.registering: dict[str, int] = {}
        self.taken: set[str] = set()  # names of servers in subscriptions that nobody sees
        self.created: list[str] = []  # ids, in the order in which they came into being
        self.groups: dict[str, Json] = {}
        self.servers: dict[str, Server] = {}
        self.container = ContainerApps()
        self.credentials: dict[str, dict[str, Json]] = {}  # of each identity, by name
        self.assignments: dict[str, Json] = {}  # of roles, by id in lower case
        self.permissions: list[Json] = [{"actions": ["*"], "notActions": []}]  # of whoever asks, in every group
        self.operations: dict[str, Operation] = {}
        self.lock = threading.RLock()

    def settle(self) -> None:
        """Ends the operations that are due."""
        with self.lock:
            for operation in list(self.operations.values()):
                if not operation.done and self.clock() >= operation.due:
                    operation.done = True
                    operation.finish()

    def begin(self, request: Request, target: str, finish: Callable[[], None], undo: Callable[[], None]) -> str:
        """A long operation; its name."""
        name = str(uuid.uuid4())
        refusal = request.doom
        self.operations[name] = Operation(self.clock() + self.seconds, target, undo if refusal else finish, refusal)
        self.settle()
        return name

    def start(self, request: Request, target: str, finish: Callable[[], None], undo: Callable[[], None]) -> Answer:
        """202 with the addresses to poll."""
        name = self.begin(request, target, finish, undo)
        base = f"~/subscriptions/{request.words['subscription']}/providers/{PROVIDER}/locations/eastus"
        query = "?api-version=2026-04-01-preview"
        headers = {
            "Azure-AsyncOperation": f"{base}/azureAsyncOperation/{name}{query}",
            "Location": f"{base}/operationResults/{name}{query}",
            "Retry-After-Ms": str(self.retry_ms),
        }
        return Answer(202, {"operation": "Operation", "startTime": ISO_TIME}, headers)

    # What every handler asks first.

    def group(self, request: Request) -> Json:
        name = request.words["group"]
        found = self.groups.get(key(request.words["subscription"], name))
        if found is None:
            raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
        return found

    def registered(self, request: Request) -> None:
        if request.words["subscription"] in self.unregistered:
            message = (
                f"The subscription is not registered to use namespace '{PROVIDER}'. "
                "See https://aka.ms/rps-not-found for how to register subscriptions."
            )
            raise Refusal(409, "MissingSubscriptionRegistration", message)

    def server(self, request: Request, *, parent: str = "") -> Server:
        self.group(request)
        words = request.words
        found = self.servers.get(key(words["subscription"], words["group"], words["server"]))
        if found is not None:
            return found
        if parent:
            path = f"/subscriptions/{words['subscription']}/resourceGroups/{words['group']}/providers/{PROVIDER}"
            message = (
                f"Failed to perform '{parent}' on resource(s) of type 'flexibleServers/{words['kind']}', because the parent "
                f"resource '{path}/flexibleServers/{words['server']}' could not be found."
            )
            raise Refusal(404, "ParentResourceNotFound", message)
        message = (
            f"The Resource '{PROVIDER}/flexibleServers/{words['server']}' under resource group '{words['group']}' was not found. "
            "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
        )
        raise Refusal(404, "ResourceNotFound", message)

    def idle(self, server: Server) -> None:
        """One operation at a time on one server."""
        if any(not operation.done and operation.target == server.id for operation in self.operations.values()):
            message = (
                f"Cannot complete operation while server '{server.name}' is busy processing another operation. Try again later."
            )
            raise Refusal(409, "ServerIsBusy", message)

    def show(self, server: Server) -> Json:
        return server.json(self.regions[server.location].title)


@dataclass(frozen=True)
class Request:
    """The words of the path, the body, and the failure that its long operation is to end in."""

    words: dict[str, str]
    body: Json
    doom: Refusal | None


def key(*words: str) -> str:
    """Names don't differ by case."""
    return "/".join(words).lower()
