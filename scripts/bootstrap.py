"""Makes `.venv` from the lock files and runs a command inside it.

    python3 scripts/bootstrap.py invoke quickstart      (Windows: py scripts/bootstrap.py ...)
    python3 scripts/bootstrap.py nox

Standard library only, so that a fresh clone needs nothing but Python. The environment is made again whenever a
lock file or the Python version changed, when something of it is gone, or when making it was interrupted.
`requirements/azure.txt` is left out: azure-cli gets an environment of its own.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / ".made-from"  # written last: what .venv was made from, and a line for each program and package that it got
LOCKS = [ROOT / "requirements" / name for name in ("runtime.txt", "dev.txt")]
OLDEST_PYTHON = (3, 11)
NEWER_PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")  # as they are called where several are installed


def stop(problem, way_out):
    """Ends with what happened and the next step."""
    raise SystemExit(f"bootstrap: {problem}\nnext:      {way_out}")


def fingerprint():
    """What the environment depends on: the Python that it is made with and the text of every lock file."""
    # base_prefix: the same Python, whether or not it is `.venv`'s own that runs this. VENV: scripts in it name its path.
    digest = hashlib.sha256(os.fsencode(f"listed {sys.version} {sys.base_prefix} {VENV}"))
    for lock in LOCKS:
        try:
            # Line ends normalised, so that a checkout with CRLF is no other lock.
            digest.update(lock.read_bytes().replace(b"\r\n", b"\n"))
        except OSError as error:
            stop(f"{lock} can't be read: {error.strerror}", f'git -C "{ROOT}" restore requirements/{lock.name}')
    return digest.hexdigest()


def contents():
    """The environment's programs, and its packages with their versions, as paths in it."""
    folders = [BIN, *VENV.glob("lib/*/site-packages"), VENV / "Lib" / "site-packages"]
    return {path.relative_to(VENV).as_posix() for folder in folders for path in folder.glob("*") if path.name != "__pycache__"}


def reason_to_make(wanted):
    """Why the environment has to be made; None when it stands, matches, and has all that it got."""
    try:
        made_from, *listed = STAMP.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    if made_from != wanted:
        return ""
    return next((f": {name} is missing" for name in listed if not (VENV / name).exists()), None)


def make_environment():
    """Makes `.venv` unless it stands already and matches. Raises SystemExit with the way out."""
    wanted = fingerprint()
    reason = reason_to_make(wanted)
    if reason is None:
        return
    print(f"bootstrap: making {VENV} from {', '.join(lock.name for lock in LOCKS)}{reason}", file=sys.stderr, flush=True)
    try:
        venv.create(VENV, clear=True, with_pip=True, symlinks=os.name != "nt")
    except PermissionError as error:
        closed = VENV if VENV.exists() else ROOT
        own = f"run this as the user who owns {closed}" if os.name == "nt" else f'sudo chown -R "$(id -un)" "{closed}"'
        stop(f"could not make {VENV}: {error}", f"{own}; or run this in a copy of the project of your own")
    except (subprocess.CalledProcessError, OSError) as error:
        stop(
            f"could not make {VENV}: {error}", "mend that, and run the same command again. Debian, Ubuntu: install python3-venv."
        )
    python = BIN / ("python.exe" if os.name == "nt" else "python")
    bare = contents()  # what isn't locked, pip say, may be another one later
    install([str(python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"])
    got = sorted({python.relative_to(VENV).as_posix()} | contents() - bare)
    STAMP.write_text("\n".join([wanted, *got]), encoding="utf-8")


def install(command):
    """Has pip install what the lock files say. Raises SystemExit with the way out."""
    if not sys.dont_write_bytecode:  # else what is used would be compiled at each start
        command.append("--no-compile")  # a quarter of pip's time, for modules of which most are never imported
    for lock in LOCKS:
        command += ["--requirement", str(lock)]
    said = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as pip:
        for line in pip.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            said.append(line)
    if pip.returncode == 0:
        return
    text = "".join(said)
    if "hashes" in text.lower() or "Invalid requirement" in text:
        stop(
            "pip failed (above): the packages and the lock files don't agree",
            f'git -C "{ROOT}" restore requirements, and the same command again. If nothing was changed there, what serves\n'
            "           the packages has other ones than were locked: PIP_INDEX_URL names another mirror.",
        )
    stop(
        "pip failed (above). Nothing is half-made",
        "run the same command again. It takes packages from PyPI; HTTPS_PROXY names a proxy, PIP_INDEX_URL a mirror.",
    )


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
        newer = next((name for name in NEWER_PYTHONS if shutil.which(name)), None)
        stop(
            f"Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable})",
            " ".join([newer, "scripts/bootstrap.py", *arguments]) if newer else "install one: https://www.python.org/downloads/",
        )
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
        stop(
            f"no command {arguments[0]!r} in {BIN} or on PATH",
            f"name one that is there; all tasks: {'py' if os.name == 'nt' else 'python3'} scripts/bootstrap.py invoke --list",
        )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
