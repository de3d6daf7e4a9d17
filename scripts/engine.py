"""The engine behind the docker command: of which kind it is, where it runs, and how its containers come to this machine.

Docker on Linux, Docker Desktop, rootless Docker, an engine elsewhere, and Podman, be it behind its socket or as the docker
command itself. Source: https://docs.docker.com/engine/security/rootless/, https://docs.podman.io/en/latest/markdown/podman-run.1.html.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from scripts.dsn import Dsn
from scripts.errors import UsageError

Ask = Callable[..., str]  # `docker WORDS`: its output; raises OpsError
_WAY_OUT = "use --psql local or --psql embedded, or a DSN with an address that the engine's containers can reach"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What an engine says of itself."""

    name: str  # of the machine that it runs on
    system: str  # of that machine
    elsewhere: str | None  # the other machine, as its address has it
    is_podman: bool
    is_rootless: bool

    def route(self, dsn: Dsn, *, platform: str, ask: Ask) -> tuple[Dsn, list[str]]:
        """A DSN of this machine as a container of the engine must have it, and the words for its network.

        `platform` is this machine's, as in sys.platform. Raises UsageError when no container gets there.
        """
        if self.elsewhere is not None:
            raise UsageError(
                f"the DSN leads to this machine, and the Docker engine runs on another ({self.name}, {self.elsewhere})",
                "use --psql local, or a DSN that the engine's machine can reach",
            )
        if platform != "linux" or "Docker Desktop" in self.system:  # the engine is in a virtual machine
            host = "host.containers.internal" if self.is_podman else "host.docker.internal"
            return dsn.with_host(",".join([host] * len(dsn.hosts))), []
        # Rootless Podman's network of the host is the host's own; rootless Docker's has a loopback for itself, in which only what
        # its own containers publish can be reached.
        if self.is_rootless and not self.is_podman:
            ports = list(dict.fromkeys(dsn.ports))
            if any(not ask("ps", "--quiet", "--filter", f"publish={port}") for port in ports):
                raise UsageError(
                    "the Docker engine is rootless: its containers have a loopback of their own, and none of them is the server "
                    f"of the DSN (port {', '.join(ports)} of this machine's)",
                    _WAY_OUT,
                )
        return dsn, ["--network", "host"]


def look(ask: Ask, env: Mapping[str, str]) -> Engine:
    """Asks the docker command about its engine. Raises OpsError when none answers."""
    info = json.loads(ask("info", "--format", "{{json .}}"))
    if "host" in info:  # Podman's own command, under the name of docker
        return _podman(info["host"])
    version = json.loads(ask("version", "--format", "{{json .}}"))
    endpoint = env.get("DOCKER_HOST") or ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
    components = [part.get("Name", "") for part in (version.get("Server") or {}).get("Components") or []]
    return Engine(
        name=info.get("Name") or "?",
        system=info.get("OperatingSystem") or "",
        elsewhere=elsewhere(endpoint),
        is_podman=any("Podman" in name for name in components),
        is_rootless=any("rootless" in option for option in info.get("SecurityOptions") or []),
    )


def elsewhere(endpoint: str) -> str | None:
    """The machine that an engine's address names; None for this one: a socket, a named pipe, a loopback address."""
    machine = urlsplit(endpoint).hostname
    return None if machine in (None, "", "localhost", "127.0.0.1", "::1") else machine


def _podman(host: Mapping[str, Any]) -> Engine:
    remote = (host.get("remoteSocket") or {}).get("path", "") if host.get("serviceIsRemote") else ""
    return Engine(
        name=host.get("hostname") or "?",
        system=(host.get("distribution") or {}).get("distribution", ""),
        elsewhere=elsewhere(remote),
        is_podman=True,
        is_rootless=bool((host.get("security") or {}).get("rootless")),
    )
