"""`az WORDS` without its imports: a process that has imported az and its libraries forks one az for each call.

Nine tenths of what a call of az costs are imports, and a second of CPU for each of two thousand calls is most of what tests/azure
takes. As in tests/warm.py, the one that forks never runs a command: each az has the environment, folder and files of its caller.
But az's own modules keep the path of its folder (AZURE_CONFIG_DIR) as they are imported. So that path is a link, which leads to
the folder of whoever calls; while another's az runs, a call with another folder gets the real az.

What the caller starts is `az`, a small program that hands itself over: it passes signals on, ends as the forked az ends, and
takes it along when it is killed. It differs from the real one in its process group, its parent, and in that it ends at once,
as the processes of multiprocessing do: to take all modules apart first is a third of what is left. `COLD=1` does without.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# What Python, the C library and OpenSSL read as they start, and az as its libraries are imported.
AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "GLIBC_", "MALLOC_", "OPENSSL_")
ENCODING = {"PYTHONIOENCODING": "utf-8"}  # as the product has it; without it, the locale of the tests comes to the same
# Of az's own, what the commands of this product run. What these import of others' modules is imported beforehand.
COMMANDS = ("postgresql", "containerapp", "keyvault", "identity", "role", "resource", "profile")
MODULES = (
    "azure.cli.command_modules.postgresql.aaz.latest.network.vnet.subnet",
    "azure.cli.command_modules.postgresql.utils._flexible_server_util",
    "azure.cli.command_modules.serviceconnector.commands",
    "azure.cli.core.intercept_survey",
    "azure.cli.core.sdk.policies",
    "azure.cli.core.telemetry",
    "azure.core.pipeline.transport._requests_basic",
    "azure.core.rest._requests_basic",
    "azure.keyvault.keys",
    "azure.keyvault.secrets",
    "azure.mgmt.keyvault",
    "azure.mgmt.resource.resources.v2024_11_01",
    "jmespath",
    "pkgutil",
    "unittest.mock",
)
PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
env = {{**os.environ, **{encoding}}}
if {{name: value for name, value in env.items() if name.startswith({at_start})}} != {start}:
    os.execv({az!r}, [{az!r}, *sys.argv[1:]])  # it has to begin otherwise
passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"!"], [0, 1, 2])
    server.sendall(json.dumps({{"words": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}}).encode() + b"\\n")
    with server.makefile() as told:
        pid = int(told.readline())
        if pid == 0:
            os.execv({az!r}, [{az!r}, *sys.argv[1:]])
        for number in passed_on:
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
        code = int(told.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Warm:
    """The process that forks, and `program`, the az that is led to it. It ends with this one."""

    def __init__(self, az: str, home: Path, env: dict[str, str]) -> None:
        folder = Path(az).resolve().parent
        address = home / "az.sock"
        path = home / "az"
        link = home / "folder"
        (home / "nobody").mkdir()
        link.symlink_to(home / "nobody")
        env = {**env, **ENCODING}
        start = {name: value for name, value in env.items() if name.startswith(AT_START)}
        python = sys.executable
        text = PROGRAM.format(python=python, at_start=AT_START, encoding=ENCODING, start=start, az=az, address=str(address))
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        self.program = str(path)
        alive, self._end = socket.socketpair()
        with alive:
            self._process = subprocess.Popen(
                [str(folder / "python3"), "-P", str(Path(__file__).resolve()), str(address), str(alive.fileno()), str(link)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=[alive.fileno()],
                cwd=home,
                env={**env, **_folders(link), "AZ_INSTALLER": "PIP"},  # as az's own script says it
            )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():  # it would say that it listens
            raise RuntimeError(f"the process that forks az has ended with {self._process.wait()}; COLD=1 does without it")

    def close(self) -> None:
        self._end.close()
        self._process.communicate(timeout=60)


def _folders(folder: Path) -> dict[str, str]:
    """What leads az to a folder: all that its modules read as they are imported."""
    return {"AZURE_CONFIG_DIR": str(folder), "AZURE_EXTENSION_DIR": str(folder / "cliextensions")}


def listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    return listener


def import_all() -> None:
    """Imports what the product's commands of az do."""
    parts = [f"azure.cli.command_modules.{name}.{part}" for name in COMMANDS for part in ("commands", "custom", "_params")]
    for name in (*parts, *MODULES):
        with contextlib.suppress(ModuleNotFoundError):  # another az has others
            importlib.import_module(name)


class Server:
    """Forks for each caller, and tells it how the az that it got has ended."""

    def __init__(self, listener: socket.socket, alive: socket.socket, link: Path) -> None:
        self._ends = selectors.DefaultSelector()
        self._ends.register(listener, selectors.EVENT_READ, self._called)
        self._ends.register(alive, selectors.EVENT_READ, self._end)
        self._listener, self._alive, self._link = listener, alive, link
        self._folder = ""  # where the link leads
        self._running: dict[int, tuple[int, socket.socket]] = {}  # PID -> a descriptor of the process, and who called

    def words(self) -> list[str]:
        """Serves; returns in a new process alone, with the words of its command."""
        while True:
            for key, _ in self._ends.select():
                words: list[str] | None = key.data()
                if words is not None:
                    return words

    def _called(self) -> list[str] | None:
        caller, _ = self._listener.accept()
        _, given, _, _ = socket.recv_fds(caller, 1, 3)
        with caller.makefile() as file:
            request = json.loads(file.readline())
        if not self._lead_to(request["env"]):
            with caller, contextlib.suppress(OSError):  # it was killed
                caller.sendall(b"0\n")
            for end in given:
                os.close(end)
            return None
        pid = os.fork()
        if pid == 0:
            self._become(request, given, caller)
            return list(request["words"])
        for end in given:
            os.close(end)
        descriptor = os.pidfd_open(pid)
        self._running[pid] = descriptor, caller
        self._ends.register(descriptor, selectors.EVENT_READ, functools.partial(self._ended, pid))
        self._ends.register(caller, selectors.EVENT_READ, functools.partial(self._left, pid))
        with contextlib.suppress(OSError):  # it was killed
            caller.sendall(f"{pid}\n".encode())
        return None

    def _lead_to(self, env: dict[str, str]) -> bool:
        """Has the link lead to a caller's folder; False while it has to lead to another's."""
        folder = env.get("AZURE_CONFIG_DIR", "")
        wanted = _folders(Path(folder))
        if {name: env.get(name) for name in wanted} != wanted or (folder != self._folder and self._running):
            return False
        if folder != self._folder:
            new = self._link.with_name("folder.new")
            new.symlink_to(folder)
            new.replace(self._link)
            self._folder = folder
        return True

    def _become(self, request: dict[str, Any], given: list[int], caller: socket.socket) -> None:
        self._ends.close()
        for descriptor, other in self._running.values():
            os.close(descriptor)
            other.close()
        for end in (self._listener, self._alive, caller):
            end.close()
        for number, file in enumerate(given):
            os.dup2(file, number)
            os.close(file)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update({**request["env"], **_folders(self._link)})

    def _ended(self, pid: int) -> None:
        descriptor, caller = self._running.pop(pid)
        self._ends.unregister(descriptor)
        os.close(descriptor)
        if caller in self._ends.get_map():
            self._ends.unregister(caller)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with caller, contextlib.suppress(OSError):  # it was killed
            caller.sendall(f"{code}\n".encode())

    def _left(self, pid: int) -> None:
        """Whoever called was killed: its az is, too."""
        if pid in self._running:  # and hasn't ended in the same moment
            self._ends.unregister(self._running[pid][1])
            os.kill(pid, signal.SIGKILL)

    def _end(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        sys.exit()


def main(address: str, alive: int, link: str) -> None:
    """The process that forks, until `alive` is closed; and each that it has forked."""
    import_all()
    gc.collect()
    gc.freeze()  # what isn't touched isn't copied
    signal.signal(signal.SIGINT, signal.default_int_handler)
    listener = listen(address)
    print("ready", flush=True)
    words = Server(listener, socket.socket(fileno=alive), Path(link)).words()
    sys.argv = ["az", *words]
    sys.path.insert(0, str(Path.cwd()))  # as `-m` does it
    try:
        runpy.run_module("azure.cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
