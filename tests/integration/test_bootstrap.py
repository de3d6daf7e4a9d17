"""What is missing in an environment is put right, and what can't be is said.

By `bootstrap.py`, with real environments of one small package, and by the commands where a package is missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.database import ROOT, USERS_ENV, Machine

pytestmark = pytest.mark.once
INFO = "tiny-1.0.dist-info"
FILES = {
    "tiny.py": "def main():\n    print('tiny runs')\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
}
# A Python in which python-dotenv isn't to be found as long as a file is there, which a run of pip takes away.
WITHOUT_DOTENV = """
import importlib.metadata, os, pathlib, sys

missing = pathlib.Path(os.environ["TEST_MISSING"])
if "pip" in sys.orig_argv:
    missing.unlink()
found = importlib.metadata.version

def version(name):
    if name == "python-dotenv" and missing.exists():
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

class Missing:
    def find_spec(name, path, target=None):
        if name == "dotenv" and missing.exists():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

importlib.metadata.version = version
sys.meta_path.insert(0, Missing)
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose lock file has one package, which stands beside it."""
    wheel = tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        record = [f"{INFO}/RECORD,,"]
        for name, text in FILES.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            record.append(f"{name},sha256={digest},{len(text)}")
        archive.writestr(f"{INFO}/RECORD", "\n".join(record) + "\n")
    root = tmp_path / "project"
    for folder in ("scripts", "requirements"):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "bootstrap.py", root / "scripts")
    locked = f"tiny==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    (root / "requirements" / "runtime.txt").write_text(locked)
    (root / "requirements" / "dev.txt").write_text("# none\n")
    return root


@pytest.fixture
def run(project: Path) -> Run:
    """Runs `bootstrap.py WORDS` there; no package comes from elsewhere."""
    wheels = str(project.parent / "wheels")
    env = {key: value for key, value in USERS_ENV.items() if not key.startswith("PIP_") and key != "VIRTUAL_ENV"}
    env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels, "PIP_CONFIG_FILE": os.devnull}
    program = [getattr(sys, "_base_executable", sys.executable), str(project / "scripts" / "bootstrap.py")]

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*program, *words], env=env, capture_output=True, text=True, check=False, timeout=90)

    return start


@pytest.mark.long
def test_what_is_missing_in_an_environment_has_it_made_anew_once(project: Path, run: Run) -> None:
    programs = project / ".venv" / ("Scripts" if os.name == "nt" else "bin")

    def uninstalled() -> str:
        assert run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "tiny").returncode == 0
        return "tiny"

    def without_python() -> str:
        for path in programs.glob("python*"):
            path.unlink()
        return "python"

    first = run("tiny")
    assert (first.returncode, first.stdout) == (0, "tiny runs\n"), first.stderr
    for spoil in (uninstalled, without_python):
        name = spoil()
        again = run("tiny")
        assert (again.returncode, again.stdout) == (0, "tiny runs\n"), again.stderr
        assert again.stderr.startswith(f"bootstrap: making {project / '.venv'} ")
        assert name in again.stderr.splitlines()[0].partition("missing")[2]
        assert run("tiny").stderr == ""
    nowhere = run("tinny")
    assert nowhere.returncode == 1
    assert "making" not in nowhere.stderr, "a word that was misspelt is no reason to"
    assert "no command 'tinny'" in nowhere.stderr
    assert "\nnext:" in nowhere.stderr


def test_a_lock_file_that_is_missing_is_said_with_the_command_that_brings_it_back(project: Path, run: Run) -> None:
    lock = project / "requirements" / "runtime.txt"
    lock.unlink()
    ended = run("tiny")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"bootstrap: {lock} can't be read: No such file or directory",
        f'next:      git -C "{project}" restore requirements/runtime.txt',
    ]


@pytest.mark.long
def test_a_package_that_is_not_the_locked_one_sends_nobody_to_a_proxy(project: Path, run: Run) -> None:
    lock = project / "requirements" / "runtime.txt"
    lock.write_text("tiny==1.0 --hash=sha256:" + 64 * "0" + "\n")
    ended = run("tiny")
    assert ended.returncode == 1
    assert "Expected sha256 0000" in ended.stderr, "pip's own words are shown"
    way_out = ended.stderr.rpartition("bootstrap: ")[2]
    assert f'git -C "{project}" restore requirements' in way_out
    assert "HTTPS_PROXY" not in way_out


@pytest.fixture
def lacking(machine: Machine, tmp_path: Path) -> dict[str, str]:
    """A project whose environment lacks python-dotenv until pip has run; what leads a command there."""
    shutil.copytree(ROOT / "requirements", machine.project / "requirements")
    (machine.project / ".env").write_text("POSTGRES_SSLMODE=require\n")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_DOTENV)
    (tmp_path / "missing").touch()
    return {"PYTHONPATH": str(tmp_path), "TEST_MISSING": str(tmp_path / "missing")}


def test_a_command_that_lacks_a_package_says_so_and_leads_to_where_it_is_made_good(
    machine: Machine, lacking: dict[str, str]
) -> None:
    ended = machine.invoke("status", env=lacking)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"error: the Python package of `dotenv` is missing in {sys.prefix}",
        "next:  python3 scripts/bootstrap.py invoke status, which makes .venv anew; in another environment: invoke doctor --fix",
    ]


def test_doctor_names_a_package_that_is_missing_and_with_fix_goes_on(machine: Machine, lacking: dict[str, str]) -> None:
    named = machine.invoke("doctor", env=lacking)
    assert named.returncode == 1
    assert "is not in step with runtime.txt: python-dotenv is missing\nnext:  invoke doctor --fix\n" in named.stderr
    fixed = machine.invoke("doctor", "--fix", "--json", env=lacking)
    document = json.loads(fixed.stdout)
    assert document["fixed"][0] == "installed what runtime.txt locks", fixed.stderr
    assert {check["name"]: check["state"] for check in document["checks"]}["python"] == "ok"
    assert machine.invoke("doctor", "--json", env=lacking).stderr == ""
