"""Makes `.venv` from the lock files and runs a command inside it.

    python3 scripts/bootstrap.py invoke quickstart      (Windows: py scripts/bootstrap.py ...)
    python3 scripts/bootstrap.py nox

Standard library only, so that a fresh clone needs nothing but Python. The environment is made again whenever a
lock file or the Python version changed, or when making it was interrupted. `requirements/azure.txt` is left out:
azure-cli gets an environment of its own.
"""

import hashlib
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / ".made-from"  # written last: what .venv was made from
LOCKS = [ROOT / "requirements" / name for name in ("runtime.txt", "dev.txt")]
OLDEST_PYTHON = (3, 11)


def fingerprint():
    """What the environment depends on: the Python that it is made with and the text of every lock file."""
    # base_prefix: the same Python, whether or not it is `.venv`'s own that runs this. VENV: scripts in it name its path.
    digest = hashlib.sha256(os.fsencode(f"{sys.version} {sys.base_prefix} {VENV}"))
    for lock in LOCKS:
        # Line ends normalised, so that a checkout with CRLF is no other lock.
        digest.update(lock.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def make_environment():
    """Makes `.venv` unless it stands already and matches. Raises SystemExit with the way out."""
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted:
        return
    print(f"bootstrap: making {VENV} from {', '.join(lock.name for lock in LOCKS)}", file=sys.stderr, flush=True)
    try:
        venv.create(VENV, clear=True, with_pip=True, symlinks=os.name != "nt")
    except (subprocess.CalledProcessError, OSError) as error:
        hint = "" if isinstance(error, PermissionError) else "\n           Debian, Ubuntu: install python3-venv."
        raise SystemExit(f"bootstrap: could not make {VENV}: {error}{hint}") from None
    python = BIN / ("python.exe" if os.name == "nt" else "python")
    install = [str(python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    if not sys.dont_write_bytecode:  # else what is used would be compiled at each start
        install.append("--no-compile")  # a quarter of pip's time, for modules of which most are never imported
    for lock in LOCKS:
        install += ["--requirement", str(lock)]
    if subprocess.call(install) != 0:
        raise SystemExit(
            "bootstrap: pip failed (above). Nothing is half-made: run the same command again. It takes packages from PyPI;\n"
            "           HTTPS_PROXY names a proxy, PIP_INDEX_URL a mirror."
        )
    STAMP.write_text(wanted, encoding="utf-8")


def find_command(name):
    """The program of that name in `.venv`, else the name itself, which is then looked up on PATH."""
    for suffix in ("", ".exe"):
        program = BIN / (name + suffix)
        if program.is_file():
            return str(program)
    return name


def where(program):
    """What tells Invoke and Nox the project from a folder outside of it, from which paths in flags are meant all the same."""
    here = Path.cwd()
    if here == ROOT or ROOT in here.parents:
        return []
    return {"invoke": ["--search-root", str(ROOT)], "nox": ["--noxfile", str(ROOT / "noxfile.py")]}.get(program, [])


def main(arguments):
    """Runs `arguments` inside `.venv`; returns the exit code."""
    if sys.version_info < OLDEST_PYTHON:
        raise SystemExit(f"bootstrap: Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable})")
    if not arguments:
        raise SystemExit(f"{__doc__}\nbootstrap: say which command to run")
    if arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    make_environment()
    os.environ["VIRTUAL_ENV"] = str(VENV)
    os.environ["PATH"] = str(BIN) + os.pathsep + os.environ.get("PATH", "")
    command = [find_command(arguments[0]), *where(arguments[0]), *arguments[1:]]
    try:
        if os.name == "nt":  # exec on Windows returns to the shell before the command ends
            signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the command's, which ends in order, or goes on
            return subprocess.call(command)
        os.execvp(command[0], command)
    except FileNotFoundError:
        raise SystemExit(f"bootstrap: no command {arguments[0]!r} in {BIN} or on PATH") from None


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
