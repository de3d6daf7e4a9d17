"""A Docker engine behind TCP, as a remote one is: nothing can be mounted from this machine, files travel by copy."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.context import ContextAPI

from tests import database as databases
from tests.database import Database, invoke

pytestmark = pytest.mark.once  # it is about the way of the files


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _serve(listener: socket.socket, engine_socket: str, opened: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):  # the listener is closed when the test ends
        while True:
            client, _ = listener.accept()
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(engine_socket)
            opened += [client, engine]
            for pair in ((client, engine), (engine, client)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()


@pytest.fixture
def engine_by_tcp() -> Iterator[str]:
    """DOCKER_HOST of a TCP port that leads to this machine's engine."""
    databases.require_docker()
    endpoint = ContextAPI.get_current_context().Host or ""
    assert endpoint.startswith("unix://"), "this proxy leads to a unix socket"
    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        args = (listener, endpoint.removeprefix("unix://"), opened)
        threading.Thread(target=_serve, args=args, daemon=True).start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in opened:
            connection.close()


def test_files_and_includes_reach_psql_without_a_mount(database: Database, folder: Path, engine_by_tcp: str) -> None:
    (folder / "parts").mkdir()
    (folder / "parts" / "table.sql").write_text("CREATE TABLE colours (name text);\n")
    (folder / "parts" / "colours.csv").write_text("red\ngreen\n")
    (folder / "0001_colours.sql").write_text("\\ir parts/table.sql\n\\copy colours FROM 'parts/colours.csv'\n")
    words = ("migrate", "--dsn", "-", "--docker", "--migrations-dir", str(folder))
    result = invoke(*words, env={"DOCKER_HOST": engine_by_tcp}, stdin=database.uri)
    assert result.returncode == 0, result.stderr
    assert database.execute("SELECT name FROM colours ORDER BY 1") == [("green",), ("red",)]
    assert "nothing to do" in invoke(*words, env={"DOCKER_HOST": engine_by_tcp}, stdin=database.uri).stdout
