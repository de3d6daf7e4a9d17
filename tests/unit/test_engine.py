"""What engines say of themselves, as recorded, and how their containers come to a server of this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from scripts import dsn, engine
from scripts.dsn import Dsn
from scripts.errors import OpsError, UsageError

LOCAL = "postgresql://me:x@127.0.0.1:5433/db"
ENGINE = {"Server": {"Components": [{"Name": "Engine"}, {"Name": "containerd"}, {"Name": "runc"}, {"Name": "docker-init"}]}}
PODMAN = {"Server": {"Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}, {"Name": "OCI Runtime (runc)"}]}}
SECCOMP = "name=seccomp,profile=default"
ON_LINUX = {"OperatingSystem": "Debian GNU/Linux 12 (bookworm)", "Name": "vm", "SecurityOptions": [SECCOMP]}
ROOTLESS = {**ON_LINUX, "SecurityOptions": [SECCOMP, "name=rootless"]}
DESKTOP = {"OperatingSystem": "Docker Desktop", "Name": "docker-desktop", "SecurityOptions": [SECCOMP, "name=cgroupns"]}
BY_SOCKET = {
    "OperatingSystem": "debian",
    "Name": "vm",
    "SecurityOptions": [SECCOMP],
}  # of rootless Podman 4.3.1, which doesn't say so
HOST_NETWORK = ["--network", "host"]


def podman_itself(*, rootless: bool = True, remote: str = "") -> dict[str, Any]:
    """`podman info`, which has other keys than Docker's."""
    host = {
        "hostname": "vm",
        "distribution": {"distribution": "debian", "version": "12"},
        "security": {"rootless": rootless},
        "serviceIsRemote": bool(remote),
        "remoteSocket": {"path": remote or "/run/user/1001/podman/podman.sock"},
    }
    return {"host": host, "store": {}, "version": {"Version": "4.3.1"}}


@dataclass
class Docker:
    """A docker command with the answers of one engine."""

    info: Mapping[str, Any]
    version: Mapping[str, Any] = field(default_factory=lambda: ENGINE)
    endpoint: str = "unix:///var/run/docker.sock"
    published: frozenset[str] = frozenset()  # ports
    asked: list[str] = field(default_factory=list)

    def __call__(self, *words: str) -> str:
        self.asked.append(words[0])
        if words[0] == "ps":
            return "c0ffee\n" if words[-1].removeprefix("publish=") in self.published else ""
        if words[0] == "context" and "host" in self.info:
            raise OpsError("docker context failed: Error: unrecognized command `docker context`")
        answers: dict[str, Callable[[], str]] = {
            "info": lambda: json.dumps(self.info),
            "version": lambda: json.dumps(self.version),
            "context": lambda: f"{self.endpoint}\n",
        }
        return answers[words[0]]()


def local(uri: str = LOCAL) -> Dsn:
    return dsn.parse(uri, "a test")


def route(docker: Docker, *, platform: str = "linux", uri: str = LOCAL, **env: str) -> tuple[list[str], list[str]]:
    """The hosts as a container has them, and the words for its network."""
    moved, network = engine.look(docker, env).route(local(uri), platform=platform, ask=docker)
    return moved.hosts, network


@pytest.mark.parametrize(
    ("docker", "platform", "expected"),
    [
        (Docker(ON_LINUX), "linux", (["127.0.0.1"], HOST_NETWORK)),
        (Docker(DESKTOP, endpoint="unix:///home/me/.docker/desktop/docker.sock"), "linux", (["host.docker.internal"], [])),
        (Docker(DESKTOP, endpoint="unix:///Users/me/.docker/run/docker.sock"), "darwin", (["host.docker.internal"], [])),
        (Docker(DESKTOP, endpoint="npipe:////./pipe/dockerDesktopLinuxEngine"), "win32", (["host.docker.internal"], [])),
        # Podman has the host's own network, rootless too; its machine, on macOS and Windows, another name for the host.
        (Docker(BY_SOCKET, PODMAN), "linux", (["127.0.0.1"], HOST_NETWORK)),
        (Docker({**BY_SOCKET, "OperatingSystem": "fedora"}, PODMAN), "darwin", (["host.containers.internal"], [])),
        (Docker(podman_itself()), "linux", (["127.0.0.1"], HOST_NETWORK)),
        (Docker(podman_itself(rootless=False)), "linux", (["127.0.0.1"], HOST_NETWORK)),
        (Docker(podman_itself(remote="unix:///run/user/1001/podman/podman.sock")), "linux", (["127.0.0.1"], HOST_NETWORK)),
        (
            Docker(podman_itself(remote="ssh://core@127.0.0.1:52417/run/user/501/podman/podman.sock")),
            "darwin",
            (["host.containers.internal"], []),
        ),
    ],
)
def test_a_server_of_this_machine_is_reached(docker: Docker, platform: str, expected: tuple[list[str], list[str]]) -> None:
    assert route(docker, platform=platform) == expected


def test_what_a_rootless_engine_s_own_containers_publish_is_reached() -> None:
    docker = Docker(ROOTLESS, published=frozenset({"5433"}))
    assert route(docker) == (["127.0.0.1"], HOST_NETWORK)


@pytest.mark.parametrize("uri", [LOCAL, LOCAL.replace("127.0.0.1:5433", "127.0.0.1:5433,localhost:5434")])
def test_another_server_of_this_machine_is_out_of_a_rootless_engine_s_reach(uri: str) -> None:
    docker = Docker(ROOTLESS, published=frozenset({"5434"}))
    with pytest.raises(UsageError, match=r"engine is rootless: .* \(port 5433") as caught:
        route(docker, uri=uri)
    assert caught.value.hint.startswith("use --psql local or --psql embedded")


def test_a_rootless_engine_in_a_virtual_machine_reaches_the_host_by_name() -> None:
    assert route(Docker({**DESKTOP, "SecurityOptions": ["name=rootless"]})) == (["host.docker.internal"], [])


@pytest.mark.parametrize(
    ("docker", "env", "machine"),
    [
        (Docker(ON_LINUX, endpoint="ssh://me@box:22"), {}, "box"),
        (Docker(ON_LINUX), {"DOCKER_HOST": "tcp://10.0.0.7:2376"}, "10.0.0.7"),
        (Docker(BY_SOCKET, PODMAN), {"DOCKER_HOST": "ssh://core@box/run/podman/podman.sock"}, "box"),
        (Docker(podman_itself(remote="ssh://core@box/run/podman/podman.sock")), {}, "box"),
    ],
)
def test_an_engine_elsewhere_is_named(docker: Docker, env: dict[str, str], machine: str) -> None:
    with pytest.raises(UsageError, match=rf"engine runs on another \(vm, {machine}\)"):
        route(docker, **env)


def test_docker_s_own_variable_goes_before_its_context() -> None:
    docker = Docker(ON_LINUX, endpoint="ssh://me@box")
    assert route(docker, DOCKER_HOST="tcp://localhost:2375") == (["127.0.0.1"], HOST_NETWORK)
    assert "context" not in docker.asked


@pytest.mark.parametrize(
    "endpoint",
    [
        *("", "unix:///var/run/docker.sock", "npipe:////./pipe/docker_engine", "http+docker://localhost", "tcp://127.0.0.1:2375"),
        *("tcp://[::1]:2375", "ssh://me@localhost", "/run/user/1001/podman/podman.sock"),
    ],
)
def test_an_engine_of_this_machine_is_not_elsewhere(endpoint: str) -> None:
    assert engine.elsewhere(endpoint) is None
