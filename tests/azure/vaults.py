"""Key vaults, which have a host name each: a proxy leads every `NAME.vault.emulated` to the emulator."""

from __future__ import annotations

import contextlib
import re
import secrets
import select
import socket
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.azure.faults import Refusal

SUFFIX = ".vault.emulated"


@dataclass
class Vaults:
    """vault -> secret -> its values, the newest last."""

    secrets: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def answer(self, method: str, host: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What a vault says; the value stands in it, as Azure has it. Raises Refusal."""
        vault = host.lower().removesuffix(SUFFIX)
        if path.rstrip("/") == "/secrets" and method == "GET" and vault in self.secrets:
            names = self.secrets[vault]
            return {
                "value": [{"id": f"https://{vault}{SUFFIX}/secrets/{name}", "attributes": {"enabled": True}} for name in names]
            }
        match = re.fullmatch(r"/secrets/([^/]+)(?:/([0-9a-f]*))?", path)
        if match is None or vault not in self.secrets:
            raise Refusal(404, "VaultNotFound", f"The emulator has no {method} {path} in the vault {vault}")
        name = match[1]
        values = self.secrets[vault].get(name, [])
        if method == "PUT":
            values = self.secrets[vault].setdefault(name, [])
            values.append(str(body["value"]))
        if not values:
            message = f"A secret with (name/id) {name} was not found in this key vault."
            raise Refusal(404, "SecretNotFound", message)
        attributes = {"enabled": True, "created": 1767323045, "updated": 1767323045, "recoveryLevel": "Recoverable+Purgeable"}
        address = f"https://{vault}{SUFFIX}/secrets/{name}/{secrets.token_hex(16)}"
        return {"value": values[-1], "id": address, "attributes": attributes, "tags": body.get("tags") or {}}


class Proxy(ThreadingHTTPServer):
    """CONNECT to a vault's name, and nowhere else."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, target: int) -> None:
        """`target`: the emulator's port."""
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.target = target

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Tunnel(BaseHTTPRequestHandler):
    """One connection through the proxy."""

    server: Proxy

    def do_CONNECT(self) -> None:
        if not self.path.partition(":")[0].endswith(SUFFIX):
            self.send_error(502, "the emulator's proxy leads to vaults only")
            return
        with socket.create_connection(("127.0.0.1", self.server.target)) as other:
            self.send_response(200)
            self.end_headers()
            ways = {self.connection: other, other: self.connection}
            with contextlib.suppress(OSError):
                while True:
                    for source in select.select(list(ways), [], [], 60)[0]:
                        data = source.recv(65536)
                        if not data:
                            return
                        ways[source].sendall(data)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """The emulator records the requests."""
