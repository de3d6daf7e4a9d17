"""Whether a server of ours runs, by what it leaves in its folder."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scripts import embedded, shell
from scripts.embedded import Embedded

# As PostgreSQL writes it: PID, data directory, start time, port, socket folder, address, shared memory, status.
PID_FILE = "4711\n{folder}\n1764312000\n{port}\n\n127.0.0.1\n  1 2\n{status}\n"


@pytest.mark.parametrize(
    ("folder", "encoding", "status", "control", "expected"),
    [
        ("/home/me/data", "utf-8", "ready   ", 0, True),
        ("C:/Users/Jürgen/data", "cp1252", "ready   ", 0, True),  # on Windows, in the system's code page
        ("/home/me/data", "utf-8", "starting", 0, False),
        ("/home/me/data", "utf-8", "ready   ", 3, False),  # the file of one that was killed
    ],
)
def test_a_server_runs_when_its_file_says_so_its_port_answers_and_pg_ctl_finds_it(
    folder: str, encoding: str, status: str, control: int, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_account", lambda: None)  # as a user who isn't root
    server = Embedded(tmp_path, 16, {}, run=lambda *_, **__: shell.Result(code=control, out="", err=""))
    server.data.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (tmp_path / "port").write_text(f"{port}\n")
        (server.data / "postmaster.pid").write_bytes(PID_FILE.format(folder=folder, port=port, status=status).encode(encoding))
        assert server.running() is expected


def test_a_server_that_left_nothing_does_not_run(tmp_path: Path) -> None:
    assert not Embedded(tmp_path, 16, {}).running()
