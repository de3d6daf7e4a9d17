"""`invoke WORDS` without the start of Python: a process that has imported what commands need forks one for each of them.

Starting Python and importing is most of what a small command costs. The process that forks never runs a command itself, so that
nothing of one is left for the next. Like a new process, a command's has the environment, folder, input and outputs (pipes) that
it is given, and Python's own handlers of signals, loads tasks.py by Invoke's own loader, is in the caller's process group, and
waits for its threads, calls what is to be called at its end, collects what is left, and flushes.

What differs: `scripts` and libraries are imported already, in an order of their own (test_warm.py has each command import what it
needs); modules that are imported later aren't kept compiled; strings hash alike in all commands of one worker; the parent is the
process that forks; limits, umask and ignored signals are those that the worker had at its first command; and modules aren't taken
apart at the end, which would take as long as a small command.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Windows can't fork, and macOS not safely: https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods
POSSIBLE = sys.platform not in ("win32", "darwin") and os.environ.get("COLD") != "1"
# What Python, the C library, OpenSSL and psycopg read once, as they start.
AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "GLIBC_", "MALLOC_", "OPENSSL_", "PSYCOPG_")
LIBRARIES = ("invoke.main", "dotenv", "filelock", "psycopg")


def at_start(env: Mapping[str, str]) -> dict[str, str]:
    """What a process can't be told of any more when it runs already."""
    return {name: value for name, value in env.items() if name.startswith(AT_START)}


class Warm:
    """The process that forks. It ends with this one."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                stdin=subprocess.PIPE,  # as each command will have, and Python fits its buffers to what it finds at its start
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env=dict(env),
            )
        atexit.register(self.close)

    def close(self) -> str:
        """Ends it, and returns what it complained of."""
        atexit.unregister(self.close)
        self._control.close()
        return self._process.communicate()[1].decode(errors="replace")

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str, cwd: Path, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """As subprocess.run does it with text, where argv is `python -m invoke WORDS`.

        Raises RuntimeError when the process that forks has died, and subprocess.TimeoutExpired after `timeout` seconds.
        """
        with contextlib.ExitStack() as stack:
            reply, theirs = map(stack.enter_context, socket.socketpair())
            (given_in, feed), (out, given_out), (err, given_err) = (
                [stack.enter_context(io.FileIO(end, mode)) for end, mode in zip(os.pipe(), "rw", strict=True)] for _ in range(3)
            )
            given: list[io.FileIO | socket.socket] = [given_in, given_out, given_err, theirs]
            got = {end.fileno(): b"" for end in (out, err, reply)}
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died; then no exit code comes
                    socket.send_fds(self._control, [b"!"], [end.fileno() for end in given])
                    reply.sendall(json.dumps({"words": argv[3:], "env": dict(env), "cwd": str(cwd)}).encode())
                    reply.shutdown(socket.SHUT_WR)
                for end in given:
                    end.close()
                _exchange(feed, stdin.encode(), got, timeout)
            except BaseException as error:
                if len(told := got[reply.fileno()].split()) == 1:  # its number, and no exit code yet
                    os.kill(int(told[0]), signal.SIGKILL)
                    reply.recv(16)
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired(argv, timeout or 0) from None
                raise
            told = got[reply.fileno()].split()
            if len(told) != 2:
                raise RuntimeError(f"the process that forks has died:\n{self.close()}")
            texts = [io.TextIOWrapper(io.BytesIO(got[end.fileno()])).read() for end in (out, err)]
            return subprocess.CompletedProcess(argv, int(told[1]), *texts)


def _exchange(feed: io.FileIO, stdin: bytes, got: dict[int, bytes], timeout: float | None) -> None:
    """Writes the input and reads all outputs to their ends."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with selectors.DefaultSelector() as ends:
        ends.register(feed, selectors.EVENT_WRITE)
        for end in got:
            ends.register(end, selectors.EVENT_READ)
        while ends.get_map():
            ready = ends.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is feed:
                    with contextlib.suppress(BrokenPipeError):  # nobody wants the rest
                        stdin = stdin[feed.write(stdin[: select.PIPE_BUF]) :]
                        if stdin:
                            continue
                    ends.unregister(feed)
                    feed.close()
                    continue
                more = b""
                with contextlib.suppress(ConnectionResetError):  # the process that forks has died
                    more = os.read(key.fd, 65536)
                got[key.fd] += more
                if not more:
                    ends.unregister(key.fd)


def serve(control: socket.socket) -> list[str]:
    """Forks for each request; returns in the new process alone, with the command's words."""
    running: dict[int, socket.socket] = {}

    def ended(*_: object) -> None:
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with running.pop(pid) as reply, contextlib.suppress(OSError):  # nobody waits for it any more
                reply.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())

    signal.signal(signal.SIGCHLD, ended)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is for pytest and for the commands
    while True:
        _, given, _, _ = socket.recv_fds(control, 1, 4)
        if not given:
            sys.exit()  # pytest has ended
        reply = socket.socket(fileno=given.pop())
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            break
        with contextlib.suppress(OSError):
            reply.sendall(f"{pid}\n".encode())
        running[pid] = reply
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for end in given:
            os.close(end)

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for number, end in enumerate(given):
        os.dup2(end, number)
        os.close(end)
    with reply.makefile() as file:
        request = json.load(file)
    for connection in (control, reply, *running.values()):
        connection.close()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    return list(request["words"])


def main() -> None:
    """The process that forks, until pytest ends; and each that it has forked."""
    for name in (*LIBRARIES, *(f"scripts.{path.stem}" for path in sorted((ROOT / "scripts").glob("*.py")))):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what isn't touched isn't copied
    words = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.path[0] = str(Path.cwd())
    sys.argv = ["invoke", *words]
    code = None
    try:
        runpy.run_module("invoke", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    if code is None or isinstance(code, int):
        end_with(code or 0)
    sys.exit(code)


def end_with(code: int) -> None:
    """Ends the process, as Python does it, but for its modules. Returns when it can't print: let Python say that."""
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing ends its processes
    atexit._run_exitfuncs()
    gc.collect()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
