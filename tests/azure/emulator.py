"""An Azure Resource Manager on this machine, which the unmodified `az` can't tell from the real one.

    python -m tests.azure.emulator      # prints what to export, and serves until Ctrl-C

HTTPS on a loopback port of its own with a throwaway CA. It keeps what az makes, takes long operations as long as it is
told, and fails as Azure does where a test asks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import ssl
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import trustme

from tests.azure import app_handlers, apps, handlers, login, vaults
from tests.azure.apps import OUTCOMES, App, ContainerApps
from tests.azure.faults import FAULTS, Plan, Refusal
from tests.azure.login import TENANT, without_azure
from tests.azure.regions import SHAPES, Region
from tests.azure.resources import PROVIDER, SUBSCRIPTION, Answer, Hooks, Json, Resources, Server, key

# Below five minutes MSAL asks for a new token at each call, so that a login that expires does so at once.
TOKEN_SECONDS = 240


@dataclass(frozen=True)
class Recorded:
    """One request: its path without the query, its body without passwords, and its status (0: nothing was done)."""

    method: str
    path: str
    body: Any
    status: int
    answered: bool = True  # or the connection was dropped

    @property
    def wrote(self) -> bool:
        """Whether it changed something; a DELETE of what isn't there is answered with 204."""
        actions = ("/register", "/activate", "/deactivate", "/restart")
        writes = self.method in ("PUT", "PATCH", "DELETE") or self.path.endswith(actions)
        return writes and self.status in (200, 201, 202)


class Emulator:
    """See the module. A context manager; every hook may be left out, and then no real database stands behind a server."""

    def __init__(
        self,
        *,
        on_server: Callable[[Server], str] | None = None,
        on_password: Callable[[Server], None] | None = None,
        on_database: Callable[[Server, str], None] | None = None,
        on_database_deleted: Callable[[Server, str], None] | None = None,
        on_server_deleted: Callable[[Server], None] | None = None,
        operation_seconds: float = 0,
        retry_ms: int = 20,
        token_seconds: int = TOKEN_SECONDS,
    ) -> None:
        """`operation_seconds`: how long an operation takes, asked for or not; `retry_ms`: how long az waits between polls."""
        hooks = Hooks(on_server, on_password, on_database, on_database_deleted, on_server_deleted)
        self.state = Resources(hooks, operation_seconds, retry_ms)
        self.token_seconds = token_seconds
        self.requests: list[Recorded] = []
        self.secret = secrets.token_urlsafe(16)
        self._plans: list[Plan] = []
        self._tokens: set[str] = set()
        self._lock = threading.Lock()
        self._ca = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert("127.0.0.1", "localhost", f"*{vaults.SUFFIX}").configure_cert(context)
        self._server = Listener(self, context)
        self._proxy: vaults.Proxy | None = None  # once there is a vault
        self.vaults = vaults.Vaults()
        self.state.container.vaults = self.vaults.secrets
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.close()
        if self._proxy is not None:
            self._proxy.shutdown()
            self._proxy.server_close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    @property
    def servers(self) -> list[Server]:
        """As they stand now."""
        self.state.settle()
        return list(self.state.servers.values())

    @property
    def regions(self) -> dict[str, Region]:
        """By name; change one to make it poorer."""
        return self.state.regions

    def restrict(self, location: str, shape: str) -> None:
        """Closes a location in one of the shapes (regions.SHAPES), or with a fault that answers the PUT, as "exhausted"."""
        assert shape in SHAPES or FAULTS[shape].kind == "answer", f"one of {', '.join(SHAPES)}"
        self.state.regions[location].restriction = shape

    def fail(self, method: str, path: str, fault: str, *, times: int | None = 1, skip: int = 0) -> Plan:
        """Meets the next `times` requests (None: all) of a method whose path the pattern finds with a fault of faults.FAULTS."""
        plan = Plan(method, re.compile(path, re.IGNORECASE), FAULTS[fault], times, skip)
        with self._lock:
            self._plans.append(plan)
        return plan

    def add_group(self, name: str, location: str = "eastus2", subscription: str = SUBSCRIPTION) -> None:
        """A resource group that is there already."""
        handlers.answer(self.state, "PUT", f"/subscriptions/{subscription}/resourcegroups/{name}", {"location": location})

    def add_server(self, group: str, name: str, subscription: str = SUBSCRIPTION, **changes: Any) -> Server:
        """A server that is there already. `changes`: location, sku, tier, version, login, password, storage (GiB)."""
        body = {
            "location": changes.get("location", "eastus2"),
            "sku": {"name": changes.get("sku", "Standard_B1ms"), "tier": changes.get("tier", "Burstable")},
            "properties": {
                "version": changes.get("version", "16"),
                "administratorLogin": changes.get("login", "pgadmin"),
                "administratorLoginPassword": changes.get("password", "Emulated-1234"),
                "storage": {"storageSizeGB": changes.get("storage", 32)},
            },
        }
        path = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{PROVIDER}/flexibleServers/{name}"
        with self.state.lock:
            seconds, self.state.seconds = self.state.seconds, 0
            handlers.answer(self.state, "PUT", path, body)
            self.state.seconds = seconds
        return self.state.servers[key(subscription, group, name)]

    def add_vault(self, name: str) -> dict[str, list[str]]:
        """An empty key vault: secret -> its values. From now on `env` holds a proxy that leads to vaults and nowhere else."""
        if self._proxy is None:
            self._proxy = vaults.Proxy(self._server.server_address[1])
            serve = threading.Thread(target=self._proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            serve.start()
        return self.vaults.secrets.setdefault(name, {})

    @property
    def container(self) -> ContainerApps:
        """What the tenant has of Microsoft.App, and how it behaves there."""
        return self.state.container

    @property
    def apps(self) -> list[App]:
        """The container apps, as they stand now."""
        self.state.settle()
        return list(self.container.apps.values())

    def add_environment(self, name: str, group: str = "rg", location: str = "eastus2", subscription: str = SUBSCRIPTION) -> Json:
        """An environment for container apps that is there already; its JSON, which may be changed."""
        title = self.regions[location].title
        environment = apps.environment_json(subscription, group, name, title, location)
        return self.container.environments.setdefault(key(subscription, group, name), environment)

    def add_identity(self, name: str, group: str = "rg", location: str = "eastus2", subscription: str = SUBSCRIPTION) -> str:
        """A user-assigned identity that is there already; its id."""
        identity = apps.identity_json(subscription, group, name, location)
        self.container.identities[identity["id"].lower()] = identity
        return str(identity["id"])

    def add_app(self, group: str, name: str, body: Json, subscription: str = SUBSCRIPTION) -> App:
        """A container app that is there already, out of the body of a PUT."""
        return app_handlers.add(self.state, f"/subscriptions/{subscription}/resourceGroups/{group}/containerApps/{name}", body)

    def next_revision(self, outcome: str, *, times: int = 1) -> None:
        """How the next revisions come out, one of apps.OUTCOMES; the operation that makes them succeeds all the same."""
        self.container.outcomes += [OUTCOMES[outcome]] * times

    @property
    def created(self) -> list[str]:
        """The id of every group, server, database, rule, app and revision that came into being, in their order."""
        return list(self.state.created)

    def expire_login(self, fault: str = "expired-login") -> Plan:
        """From now on there is no token to be had."""
        return self.fail("POST", "/oauth2/v2.0/token$", fault, times=None)

    def writes(self) -> list[tuple[str, str]]:
        """Method and path of every request that changed something, in their order."""
        return [(recorded.method, recorded.path) for recorded in list(self.requests) if recorded.wrote]

    def env(self, config_dir: Path, *, logged_in: bool = True) -> dict[str, str]:
        """Writes az's own folder, logged in as a service principal; returns the variables that lead az there."""
        subscriptions = self.state.subscriptions if logged_in else {}
        variables = login.write(config_dir, self.url, self._ca.cert_pem.bytes(), subscriptions, self.secret)
        proxy = {"HTTPS_PROXY": f"http://127.0.0.1:{self._proxy.server_address[1]}"} if self._proxy else {}
        return {**variables, **proxy}

    # What follows is for the handler's threads.

    def strike(self, method: str, path: str) -> Plan | None:
        """The fault that meets this request, if one is due."""
        with self._lock:
            return next((plan for plan in self._plans if plan.strikes(method, path)), None)

    def hide(self, plan: Plan, path: str) -> None:
        """Another plan, in which the path isn't found as often as this one has times left."""
        with self._lock:
            hidden = Plan("GET", re.compile(f"^{re.escape(path)}$", re.IGNORECASE), FAULTS["not-found"], plan.times)
            plan.times = plan.hits  # spent
            self._plans.append(hidden)

    def record(self, method: str, path: str, body: Any, status: int, *, answered: bool = True) -> None:
        with self._lock:
            self.requests.append(Recorded(method, path, redacted(body), status, answered))

    def token(self) -> Answer:
        token = f"emulated.{secrets.token_hex(16)}"
        self._tokens.add(token)
        return Answer(200, {"token_type": "Bearer", "expires_in": self.token_seconds, "access_token": token})

    def discovery(self) -> Answer:
        base = f"{self.url}/{TENANT}"
        return Answer(
            200,
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            },
        )

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], body: Json, plan: Plan | None) -> Answer:
        """What the request gets when its connection isn't dropped."""
        words = words_of(method, path, body)
        try:
            if plan and plan.fault.kind == "body":
                return Answer(plan.fault.status, plan.fault.body)
            if plan and plan.fault.kind == "answer":
                raise plan.fault.refusal(words)
            if path.endswith("/.well-known/openid-configuration"):
                return self.discovery()
            if path.endswith("/oauth2/v2.0/token"):
                return self.token()
            if headers.get("Authorization", "").removeprefix("Bearer ") not in self._tokens:
                message = "Authentication failed. The 'Authorization' header is missing or invalid."
                raise Refusal(401, "AuthenticationFailed", message)
            if (host := headers.get("Host", "").partition(":")[0]).endswith(vaults.SUFFIX):
                return Answer(200, self.vaults.answer(method, host, path, body))
            if "api-version=" not in query:
                raise Refusal(400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required.")
            group = re.search(r"resourceGroup eq '([^']+)'", unquote(query).replace("+", " "))
            if group and path.endswith("/resources"):  # how az asks what is in a group
                path = f"{path.removesuffix('resources')}resourcegroups/{group[1]}/resources"
            if path.lower().endswith("/roleassignments") and (whose := re.search(r"\$filter=([^&]+)", unquote(query))):
                body = {"filter": whose[1].replace("+", " ")}
            doom = plan.fault.refusal(words) if plan and plan.fault.kind == "operation" else None
            return handlers.answer(self.state, method, path, body, doom)
        except Refusal as refusal:
            # az waits as long as it is told to before it tries again.
            extra = {"Retry-After-Ms": str(self.state.retry_ms)} if refusal.status == 429 or refusal.status >= 500 else {}
            if refusal.status == 401:  # az asks a vault where its tokens are to be had
                resource = f"https://{vaults.SUFFIX.removeprefix('.')}"
                extra = {"WWW-Authenticate": f'Bearer authorization="{self.url}/{TENANT}", resource="{resource}"'}
            return Answer(refusal.status, {"error": refusal.error()}, extra)
        except Exception as error:
            return Answer(400, {"error": {"code": "EmulatorFailed", "message": f"{type(error).__name__}: {error}"}})


def redacted(body: Any, within: str = "") -> Any:
    """Without the values whose name says password or secret, and those of a list of secrets."""
    if isinstance(body, dict):
        return {
            name: "****"
            if isinstance(value, str)
            and (re.search("(password|secret)$", name, re.IGNORECASE) or (within, name) == ("secrets", "value"))
            else redacted(value, name)
            for name, value in body.items()
        }
    return [redacted(item, within) for item in body] if isinstance(body, list) else body


def words_of(method: str, path: str, body: Json) -> dict[str, str]:
    """What a fault's text may name."""
    words = {"path": path, "location": str(body.get("location", "")), "sku": str((body.get("sku") or {}).get("name", ""))}
    segments = {"subscription": "subscriptions", "group": "resourceGroups", "server": "flexibleServers", "app": "containerApps"}
    for name, segment in segments.items():
        if match := re.search(f"/{segment}/([^/]+)", path, re.IGNORECASE):
            words[name] = match[1]
    kind = re.sub("^.*/providers/", "", path) if "/providers/" in path else f"Microsoft.Resources{path}"
    words["resource"], words["namespace"] = kind, kind.partition("/")[0]
    if containers := ((body.get("properties") or {}).get("template") or {}).get("containers"):
        words["container"], words["image"] = containers[0].get("name", ""), containers[0].get("image", "")
        words["tag"] = words["image"].rpartition(":")[2]
    verb = {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(method, "write")
    words["action"] = "/".join([*kind.split("/")[:1], *kind.split("/")[1::2], verb])
    return words


class Listener(ThreadingHTTPServer):
    """The sockets: TLS is spoken by each connection's thread, and all connections are closed in the end."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, emulator: Emulator, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.emulator, self.context = emulator, context
        self.open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        wrapped = self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self.open.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def close(self) -> None:
        self.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class Connection(BaseHTTPRequestHandler):
    """One kept-alive connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: Listener

    def setup(self) -> None:
        self.request.settimeout(self.timeout)
        self.request.do_handshake()
        super().setup()

    def meet(self) -> None:
        """One request, from its first line to the answer, or to none."""
        emulator = self.server.emulator
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        form = "json" not in self.headers.get("Content-Type", "")
        body: Json = {} if form or not raw else json.loads(raw)
        plan = emulator.strike(self.command, path)
        kind = plan.fault.kind if plan else ""
        if kind == "drop":
            return self.drop(path, body, 0)
        answer = emulator.answer(self.command, path, parts.query, dict(self.headers), body, plan)
        if kind == "drop-after":
            return self.drop(path, body, answer.status)
        if plan and kind == "hide":
            emulator.hide(plan, path)
        emulator.record(self.command, path, {} if path.startswith("/secrets/") else body, answer.status)
        self.send(answer)
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = meet  # noqa: N815

    def drop(self, path: str, body: Json, status: int) -> None:
        self.server.emulator.record(self.command, path, body, status, answered=False)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, answer: Answer) -> None:
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value.replace("~", self.server.emulator.url, 1))
        self.send_header("x-ms-request-id", str(uuid.uuid4()))
        self.send_header("Content-Type", "application/json; charset=utf-8")
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and answer.status != 204:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """The recorded requests are the log."""


def main() -> None:
    """An emulator for the developer's own `az`; there is no Postgres behind its servers."""
    home = Path(tempfile.mkdtemp(prefix="serving-azure-"))
    try:
        with Emulator(operation_seconds=2, retry_ms=1000) as emulator:
            leading = [name for name in os.environ if name not in without_azure(os.environ)]
            if leading:
                print("unset", *leading)
            for name, value in emulator.env(home / "az").items():
                print(f"export {name}={shlex.quote(value)}")
            print(
                f"# {emulator.url}, subscription {SUBSCRIPTION}. Run az in a folder without one called azure. Ctrl-C ends it.",
                flush=True,
            )
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
