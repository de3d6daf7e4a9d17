"""The only place that starts a process: a list of arguments in, a `Result` or a `Process` out. Never a shell."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from scripts.errors import OpsError

WINDOWS = os.name == "nt"
BOOTSTRAP = f"{'py' if WINDOWS else 'python3'} scripts/bootstrap.py"  # what runs a command in the project's environment
# What ends a command in order, beside Ctrl-C: a request to end, and a terminal that is closed (on Windows, SIGBREAK says so).
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
# A process of ours gets a group of its own, so that Ctrl-C at the terminal reaches us alone and we end it in order.
_OWN_GROUP: dict[str, Any] = {"creationflags": 0x00000200} if WINDOWS else {"start_new_session": True}  # CREATE_NEW_PROCESS_GROUP


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a process ended: its exit code (negative: a signal's number) and what it wrote, as text."""

    code: int
    out: str
    err: str
    raw: bytes = field(default=b"", repr=False)  # what `out` is the text of, to the byte


Run = Callable[..., Result]


def quoted(word: object) -> str:
    """A word as this system's shell takes it, for commands that a user is told to run."""
    return subprocess.list2cmdline([str(word)]) if WINDOWS else shlex.quote(str(word))


def which(program: str, env: Mapping[str, str]) -> str | None:
    """The program's path as `env`'s PATH has it, or None."""
    return shutil.which(program, path=env.get("PATH", os.defpath))


def is_broken_pipe(error: OSError) -> bool:
    """Whether the reader of our output, `head` say, has gone. Windows calls a write to nobody an invalid argument."""
    return isinstance(error, BrokenPipeError) or (WINDOWS and error.errno == errno.EINVAL)


def command_line(argv: Sequence[str | Path], env: Mapping[str, str] | None = None, *, windows: bool = WINDOWS) -> list[str] | str:
    """The arguments as a process is started with them.

    On Windows, a name is looked up as POSIX does it: in `env`'s PATH, where a program may also end in .cmd or .bat. Such a
    batch file is run by cmd.exe, which reads its arguments again: in quotes, all of them arrive but those that hold a quote, a
    line end or a variable's mark, for which this raises OpsError. Source:
    https://flatt.tech/research/posts/batbadbut-you-cant-securely-execute-commands-on-windows/.
    """
    program, *words = map(str, argv)
    if not windows:
        return [program, *words]
    if env is not None and not re.search(r"[\\/:]", program):
        program = which(program, env) or program
    if not program.lower().endswith((".bat", ".cmd")):
        return [program, *words]
    if unsafe := next((word for word in (program, *words) if re.search(r'["%!\0\r\n]', word)), None):
        raise OpsError(
            f'{program} is a batch file, and cmd.exe would change an argument with one of " % ! or a line end in it: {unsafe!r}',
            "write it without them, or have PATH lead to the program itself (.exe)",
        )
    return " ".join(map(_in_quotes, (program, *words)))


def _in_quotes(word: str) -> str:
    # A single backslash before the closing quote would make it an ordinary one to the program behind the batch file.
    at_the_end = word[len(word.rstrip("\\")) :]
    return f'"{word}{at_the_end}"'


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
    user: str | None = None,
    timeout: float | None = None,
) -> Result:
    """Runs a program to its end.

    `user` (POSIX, as root) is the account to run as; `timeout` is in seconds. Raises OpsError when the program can't
    be started or doesn't end in time. A non-zero exit is no error here: the caller knows what it means.
    """
    with _Running(argv, env=env, cwd=cwd, user=user) as running:
        return running.result(stdin, timeout)


def run_together(
    argvs: Sequence[Sequence[str | Path]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> list[Result]:
    """Runs programs side by side and waits for all; `timeout` is in seconds, for each. Raises OpsError as `run` does."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_Running(argv, env=env, cwd=cwd)) for argv in argvs]
        return [running.result(b"", timeout) for running in started]


def end_all() -> None:
    """Kills the programs that other threads are waiting for: at its end, the process waits for none of these threads."""
    for running in list(_running):
        running.kill()


def _not_started(argv: Sequence[str | Path], error: OSError) -> OpsError:
    hint = "see that it is a program of this machine, and that you may run it"
    return OpsError(f"{argv[0]} can't be started: {error.strerror or error}", hint)


class _Running:
    """A program that runs to its end; leaving it early kills it.

    Its output goes through files, so that a daemon which it leaves behind can't hold us.
    """

    def __init__(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None, cwd: Path | None, user: str | None = None
    ) -> None:
        self._program = str(argv[0])
        self._env = env
        with contextlib.ExitStack() as stack:
            self._out, self._err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            try:
                self._popen = subprocess.Popen(
                    command_line(argv, env),
                    stdin=subprocess.PIPE,
                    stdout=self._out,
                    stderr=self._err,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    **({} if user is None else {"user": user, "group": user, "extra_groups": []}),
                    **_OWN_GROUP,  # type: ignore[call-overload]
                )
            except OSError as error:
                raise _not_started(argv, error) from None
            self._files = stack.pop_all()
        _running.add(self)

    def __enter__(self) -> _Running:
        return self

    def kill(self) -> None:
        """Ends it, and what it has started, unless it has ended."""
        if self._popen.poll() is None:
            _kill_all(self._popen, self._env or {})

    def __exit__(self, *_: object) -> None:
        self.kill()
        _running.discard(self)
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):  # what was still to be written to it
                self._popen.stdin.close()
        self._files.close()

    def result(self, stdin: bytes, timeout: float | None) -> Result:
        """How it ended."""
        try:
            self._popen.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            problem = f"{self._program} did not answer within {timeout:g} s"
            raise OpsError(
                problem, "run the same command again; if it is slow when you run it yourself, too, mend that first"
            ) from None
        self._out.seek(0)
        self._err.seek(0)
        out = self._out.read()
        return Result(code=self._popen.returncode, out=_text(out), err=_text(self._err.read()), raw=out)


_running: set[_Running | Process] = set()  # in any thread


def _kill_all(popen: subprocess.Popen[bytes], env: Mapping[str, str]) -> None:
    """Kills a program and what it has started: az is often a script that starts the real one, which would go on writing."""
    if WINDOWS:
        # By its path: a name alone would be looked for in the folder at hand first.
        program = Path(env.get("SYSTEMROOT", r"C:\Windows"), "System32", "taskkill.exe")
        command = [str(program), "/T", "/F", "/PID", str(popen.pid)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)  # it leads a session of its own
    popen.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # an interrupt may have left Popen's own lock behind, for good
        popen.wait(timeout=5)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


class Process:
    """A program that is talked to line by line over its pipes.

    Threads read both outputs into one queue, so that neither side ever blocks on a full pipe, and Ctrl-C is noticed
    while waiting, on Windows too.
    """

    def __init__(self, argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path | None = None) -> None:
        try:
            self._popen = subprocess.Popen(
                command_line(argv, env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(env),
                cwd=cwd,
                **_OWN_GROUP,
            )
        except OSError as error:
            raise _not_started(argv, error) from None
        self._env = env
        _running.add(self)
        self._lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self._open_streams = 2
        for name, stream in (("out", self._popen.stdout), ("err", self._popen.stderr)):
            threading.Thread(target=self._pump, args=(name, stream), daemon=True).start()

    def _pump(self, name: str, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError), stream:
            for line in stream:
                self._lines.put((name, line.decode("utf-8", "replace").rstrip("\r\n")))
        self._lines.put((name, None))

    def send(self, text: str) -> None:
        """Writes to the program's standard input. A program that is gone already shows at the next `lines()`."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError, OSError, ValueError):
            self._popen.stdin.write(text.encode("utf-8"))
            self._popen.stdin.flush()

    def lines(self) -> Iterator[tuple[str, str]]:
        """("out" or "err", line) as they come, until both outputs are closed."""
        while self._open_streams:
            try:
                name, line = self._lines.get(timeout=1.0)  # a bounded wait is one that Ctrl-C can end on Windows
            except queue.Empty:
                continue
            if line is None:
                self._open_streams -= 1
            else:
                yield name, line

    def interrupt(self) -> None:
        """What Ctrl-C would do to the program (psql asks its server to cancel the statement)."""
        with contextlib.suppress(ProcessLookupError, OSError):
            if WINDOWS:
                self._popen.send_signal(signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined,unused-ignore]
            else:
                self._popen.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends it, unless it has ended; whoever reads its lines sees them end."""
        if self._popen.poll() is None:
            _kill_all(self._popen, self._env)

    def close(self, timeout: float) -> int:
        """Ends its input, waits up to `timeout` seconds, kills it when it is still there; returns the exit code."""
        _running.discard(self)
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError, OSError):
            self._popen.stdin.close()
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()


class Attached:
    """A program at the terminal in our place, with our own input and output, until it ends by itself.

    Ctrl-C and Ctrl-\\ are the program's: psql cancels its statement with the one, and ends with the other.
    """

    def __init__(self, argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path | None = None) -> None:  # noqa: ARG002
        # `cwd` is for programs of ours; somebody at a terminal names files from where he is.
        typed = (signal.SIGINT, *((signal.SIGQUIT,) if hasattr(signal, "SIGQUIT") else ()))
        before = {number: signal.signal(number, lambda *_: None) for number in typed}
        process = None
        try:
            with uninterrupted():
                process = subprocess.Popen(command_line(argv, env), env=dict(env))
            self.code = process.wait()
        except OSError as error:
            raise _not_started(argv, error) from None
        except BaseException:  # SIGTERM, SIGHUP
            if process is not None:
                with uninterrupted():
                    self._end(process)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        # First as Ctrl-C: a psql that merely dies leaves its statement running on the server.
        steps = ([] if WINDOWS else [(signal.SIGINT, 1.0)]) + [(signal.SIGTERM, 5.0)]
        for number, seconds in steps:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                return
        process.kill()
        process.wait()

    def close(self, timeout: float) -> int:  # noqa: ARG002
        """The exit code; there is nothing left to end."""
        return self.code


class Finished:
    """A program that has run to its end, with what came of it; for what starts programs without knowing which kind."""

    def __init__(self, argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path | None = None) -> None:
        self.result = run(argv, env=env, cwd=cwd)

    def close(self, timeout: float) -> int:  # noqa: ARG002
        """The exit code; there is nothing left to end."""
        return self.result.code


def let_in(folder: Path) -> str:
    """What to do about a folder in which something belongs to another user, as after one run under sudo."""
    if WINDOWS:
        return f"run this as the user who owns {folder}"
    return f"run this as the user who owns it, or, with its server stopped, take it over: {take_over(folder)}"


def take_over(folder: Path) -> str:
    """The command that makes a folder this user's, where there is sudo."""
    return f'sudo chown -R "$(id -un)" {quoted(folder)}'


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, at no moment readable by others and at none half-written."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        new.replace(path)
    except BaseException:  # a full disk, say: what is half written may hold a secret
        new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM, and SIGHUP unless it is ignored (nohup), end a command as Ctrl-C does: through every `finally`."""

    def raise_interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, raise_interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets a clean-up, which is bounded in time, finish: Ctrl-C, SIGTERM and SIGHUP are put off until it has."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    heeded = [number for number in (signal.SIGINT, *_ENDING) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])
