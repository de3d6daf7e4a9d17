"""A pytest plugin (`-p tests.windows`) that has the product's modules believe that they run on Windows.

They get `os`, `sys` and `signal` without the names that Windows lacks and with those that it has alone, and find no module that
it lacks. So a POSIX-only call on a path that Windows takes is an error here as it is there. Paths, processes and files stay this
system's: what depends on those is for the jobs of CI that run on Windows. The tests' own modules, and all libraries, see the
system as it is. What Hypothesis looks for doesn't depend on it, and is left out.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

# Source: the availability notes of https://docs.python.org/3/library/os.html and signal.html.
NO_MODULES = {"_posixsubprocess", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
KEPT_SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
NO_NAMES = {
    "os": {
        *(
            "chown",
            "chroot",
            "confstr",
            "ctermid",
            "fchdir",
            "fchmod",
            "fchown",
            "fork",
            "forkpty",
            "getegid",
            "geteuid",
            "getgid",
        ),
        *("getgrouplist", "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority", "getresgid", "getresuid", "getsid"),
        *("getuid", "initgroups", "killpg", "lchmod", "lchown", "lockf", "major", "makedev", "minor", "mkfifo", "mknod", "nice"),
        *("openpty", "pathconf", "pidfd_open", "posix_fadvise", "posix_fallocate", "posix_spawn", "posix_spawnp", "pread"),
        *("preadv", "pwrite", "pwritev", "readv", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sched_yield"),
        *("sendfile", "setegid", "seteuid", "setgid", "setgroups", "setpgid", "setpriority", "setregid", "setresgid"),
        *(
            "setresuid",
            "setreuid",
            "setsid",
            "setuid",
            "statvfs",
            "sync",
            "sysconf",
            "tcgetpgrp",
            "tcsetpgrp",
            "ttyname",
            "uname",
        ),
        *("wait", "wait3", "wait4", "waitid", "writev", "WNOHANG", "WUNTRACED", "WIFEXITED", "WEXITSTATUS", "WIFSIGNALED"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_SYNC", "O_DSYNC", "O_TMPFILE"),
    },
    "signal": {
        *{name for name in dir(signal) if name.startswith("SIG") and name.isupper()} - KEPT_SIGNALS - {"SIG_DFL", "SIG_IGN"},
        *("alarm", "getitimer", "setitimer", "pause", "pthread_kill", "pthread_sigmask", "sigpending", "sigwait", "sigwaitinfo"),
        *("sigtimedwait", "siginterrupt", "ITIMER_REAL", "ITIMER_PROF", "ITIMER_VIRTUAL"),
    },
    "sys": {"getdlopenflags", "setdlopenflags", "abiflags"},
}
OWN_NAMES: dict[str, dict[str, Any]] = {
    "os": {"name": "nt"},
    "signal": {"CTRL_C_EVENT": 0, "CTRL_BREAK_EVENT": 1, "SIGBREAK": getattr(signal, "SIGBREAK", None) or signal.SIGUSR1},
    "sys": {"platform": "win32"},
}


class Seen(ModuleType):
    """A module as Windows has it."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real.__name__)
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        here = self.__name__
        if name in OWN_NAMES[here]:
            return OWN_NAMES[here][name]
        if name in NO_NAMES[here]:
            raise AttributeError(f"module '{here}' has no attribute '{name}' on Windows")
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)  # a test that puts another stdin in the place of sys's


def is_product(name: str) -> bool:
    """Whether a module is one that users run."""
    return name.partition(".")[0] in ("tasks", "bootstrap", "scripts")


def pytest_collection_finish() -> None:
    from scripts import shell

    assert shell.WINDOWS, "the product was imported before this plugin, and sees the system as it is"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if getattr(getattr(item, "obj", None), "is_hypothesis_test", False)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pretend() -> None:
    """From now on, and for whatever of the product is imported from now on."""
    assert not any(is_product(name) for name in sys.modules), "the product is imported already, as on this system"
    seen: Mapping[str, Seen] = {name: Seen(module) for name, module in (("os", os), ("signal", signal), ("sys", sys))}
    real = builtins.__import__

    def import_(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0 and is_product(str((globals or {}).get("__name__", ""))):
            if name in NO_MODULES:
                raise ModuleNotFoundError(f"No module named '{name}' on Windows", name=name)
            if name in seen:
                return seen[name]
        return real(name, globals, locals, fromlist, level)

    builtins.__import__ = import_


pretend()
