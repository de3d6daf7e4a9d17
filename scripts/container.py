"""A throwaway PostgreSQL server in a Docker container, through the docker package."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import PRODUCT, shell
from scripts.archive import tar
from scripts.dsn import Dsn
from scripts.embedded import ADMIN, DATABASE, HOST, VERSIONS
from scripts.engine import elsewhere
from scripts.errors import OpsError, UsageError
from scripts.secret import Secret

_PORT = "5432/tcp"
_EMBEDDED = f"invoke up --postgres-version {min(VERSIONS)}"
_PASSWORD_FILE = "postgres-serving-split.password"  # in the container's /etc: `docker inspect` shows the path alone
# As Docker and Podman say that they don't reach a registry.
_NO_REGISTRY = re.compile("dial tcp|dial udp|no such host|i/o timeout|TLS handshake|deadline exceeded|request canceled")
_NO_REGISTRY_HINT = (
    "mend the engine's network or proxy; or have POSTGRES_IMAGE name an image that is here (`docker images`); "
    f"or without Docker: {_EMBEDDED}"
)
_LOOK = f"see what stands there: docker ps --all --filter label={PRODUCT}"
_READY_DEADLINE = 90.0  # seconds from the container's start until it accepts connections
# By TCP: while the image sets itself up, its server listens on the socket alone.
_PROBE = ["pg_isready", "--quiet", "--host=127.0.0.1", f"--username={ADMIN}", f"--dbname={DATABASE}", "--timeout=3"]


@dataclass(frozen=True)
class Container:
    """A server of `image`. `home` keeps its password and the id that names its container and its volume."""

    home: Path
    image: str
    env: Mapping[str, str]
    say: Callable[[str], None] = lambda text: None

    def start(self) -> bool:
        """Makes the server run and accept connections; False when it did already. Raises OpsError."""
        engine = self.engine()
        with _engine_errors(self.image):
            container = self._find(engine)
            # "created": an interruption may have come before its password file. Its data stay in a volume of their own.
            if container is not None and (container.status == "created" or container.image.id != self._image_id(engine)):
                container.remove(force=True, v=True)
                container = None
            if container is not None and container.status == "running" and _is_ready(container):
                return False
            if container is None:
                container = self._create(engine)
            if container.status != "running":
                container.start()
            self._await_ready(container)
        return True

    def engine(self) -> Any:
        """A client of the engine on which it would run. Raises OpsError when there is none, or not on this machine."""
        if machine := elsewhere(_endpoint(self.env).address):
            raise UsageError(
                f"the Docker engine runs on another machine ({machine}), where a local server is of no use",
                "leave --docker away, or choose a local engine (DOCKER_HOST, docker context)",
            )
        return connect(self.env)

    def running(self) -> bool:
        """Whether its container runs."""
        try:
            with _engine_errors(self.image):
                container = self._find(connect(self.env))
        except OpsError:  # without an engine, none runs
            return False
        return container is not None and container.status == "running"

    def stop(self) -> bool:
        """Stops and removes the container; False when there was none. The volume with its data stays."""
        with _engine_errors(self.image, _LOOK):
            container = self._find(connect(self.env))
            if container is None:
                return False
            container.stop(timeout=20)
            container.remove(force=True, v=True)
        return True

    def purge(self) -> None:
        """Deletes its volume and its password. The container must be gone."""
        import docker.errors

        with _engine_errors(self.image, _LOOK):
            for volume in connect(self.env).volumes.list(filters={"label": f"{PRODUCT}={self._id()}"}):
                try:
                    volume.remove()
                except docker.errors.NotFound:  # removed by somebody else meanwhile
                    continue
        shutil.rmtree(self.home)

    def dsn(self) -> Dsn:
        """The administrator's DSN; the port is the one that the engine chose."""
        with _engine_errors(self.image, _LOOK):
            container = self._find(connect(self.env))
        places = container.ports.get(_PORT) if container is not None else None
        if not places:  # it has stopped meanwhile, say
            raise OpsError("the Docker server doesn't run", "invoke up --docker")
        port = places[0]["HostPort"]
        params = {"user": ADMIN, "host": HOST, "port": port, "dbname": DATABASE}
        return Dsn(params, Secret(self._state()["password"]))

    @property
    def password_file(self) -> Path:
        """The owner-only file with its password."""
        return self.home / "server.json"

    def _state(self) -> dict[str, str]:
        path = self.password_file
        if not path.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            shell.write_private(path, json.dumps({"id": secrets.token_hex(4), "password": secrets.token_urlsafe(24)}))
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            hint = f"docker ps --all --filter label={PRODUCT} shows the container that it is of; move the file away for a new one"
            raise OpsError(f"{path} can't be read: {error}", hint) from None

    def _id(self) -> str:
        return self._state()["id"]

    @property
    def name(self) -> str:
        """The container's name; the volume's begins with it."""
        return f"{PRODUCT}-{self._id()}"

    def _find(self, engine: Any) -> Any:
        import docker.errors

        try:
            return engine.containers.get(self.name)
        except docker.errors.NotFound:
            return None

    def _image_id(self, engine: Any) -> str:
        import docker.errors

        try:
            return str(engine.images.get(self.image).id)
        except docker.errors.ImageNotFound:
            self.say(f"pulling the image {self.image}")
            return str(engine.images.pull(self.image).id)

    def _create(self, engine: Any) -> Any:
        self._image_id(engine)
        volume = f"{self.name}-{re.sub('[^A-Za-z0-9_.-]', '-', self.image)}"
        labels = {PRODUCT: self._id()}
        engine.volumes.create(volume, labels=labels)
        container = engine.containers.create(
            self.image,
            name=self.name,
            labels=labels,
            environment={
                "POSTGRES_USER": ADMIN,
                "POSTGRES_DB": DATABASE,
                "POSTGRES_PASSWORD_FILE": f"/etc/{_PASSWORD_FILE}",
                "PGDATA": "/pgdata/data",
            },
            ports={_PORT: (HOST, None)},
            volumes={volume: {"bind": "/pgdata", "mode": "rw"}},
        )
        container.put_archive("/etc", tar({_PASSWORD_FILE: self._state()["password"].encode("utf-8")}))
        return container

    def _await_ready(self, container: Any) -> None:
        deadline = time.monotonic() + _READY_DEADLINE
        while True:
            container.reload()
            if container.status == "running" and _is_ready(container):
                return
            if container.status == "exited" or time.monotonic() > deadline:
                log = container.logs(tail=8).decode("utf-8", "replace").strip()
                raise OpsError(
                    f"the container {container.name} of {self.image} is {container.status} and not ready:\n{log}",
                    f"its whole log: docker logs {container.name}",
                )
            time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class _Endpoint:
    """Where an engine is, and with which certificates it is spoken to."""

    address: str
    tls: Any = False


def _endpoint(env: Mapping[str, str]) -> _Endpoint:
    """The engine that the docker command would use: DOCKER_HOST, else its current context. Raises OpsError."""
    import docker.utils
    from docker.context import ContextAPI
    from docker.errors import DockerException

    try:
        if env.get("DOCKER_HOST"):
            found = docker.utils.kwargs_from_env(environment=dict(env))
            return _Endpoint(address=found["base_url"], tls=found.get("tls", False))
        context = ContextAPI.get_context(env.get("DOCKER_CONTEXT"))
    except (DockerException, OSError, ValueError) as error:
        raise OpsError(f"the settings of docker can't be read: {error}", "`docker context ls` says") from None
    if context is None:
        raise OpsError(f"there is no Docker context {env.get('DOCKER_CONTEXT')}", "docker context ls")
    return _Endpoint(address=context.Host or "", tls=context.TLSConfig or False)


def connect(env: Mapping[str, str]) -> Any:
    """A client of the engine that the docker command would use. Raises OpsError."""
    import docker
    from docker.errors import DockerException

    endpoint = _endpoint(env)
    try:
        engine = docker.DockerClient(base_url=endpoint.address or None, tls=endpoint.tls)
        engine.ping()
    except DockerException as error:
        raise OpsError(
            f"no Docker engine answers: {error}",
            f"start Docker (or Podman's socket, and name it in DOCKER_HOST), or without Docker: {_EMBEDDED}",
        ) from None
    return engine


@contextlib.contextmanager
def _engine_errors(image: str, hint: str = "") -> Iterator[None]:
    """Turns what the engine refuses, or has no answer to, into an OpsError; without a hint, the image stands in the way."""
    import docker.errors
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException) as error:
        what = str(getattr(error, "explanation", None) or error)
        about_image = _NO_REGISTRY_HINT if _NO_REGISTRY.search(what) else "another image: set POSTGRES_IMAGE"
        raise OpsError(f"the Docker engine refused ({image}): {what}", hint or about_image) from None


def _is_ready(container: Any) -> bool:
    """Whether its server accepts connections. Not by a healthcheck, which Podman without systemd doesn't run."""
    import docker.errors

    try:
        return bool(container.exec_run(_PROBE).exit_code == 0)
    except docker.errors.APIError:  # it has ended meanwhile
        return False
