"""`bootstrap.py` with real environments, of one small package: what is missing is put right, and what can't be is said."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.database import ROOT, USERS_ENV

pytestmark = pytest.mark.once
INFO = "tiny-1.0.dist-info"
FILES = {
    "tiny.py": "def main():\n    print('tiny runs')\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
}
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


def test_a_package_that_is_not_the_locked_one_sends_nobody_to_a_proxy(project: Path, run: Run) -> None:
    lock = project / "requirements" / "runtime.txt"
    lock.write_text("tiny==1.0 --hash=sha256:" + 64 * "0" + "\n")
    ended = run("tiny")
    assert ended.returncode == 1
    assert "Expected sha256 0000" in ended.stderr, "pip's own words are shown"
    way_out = ended.stderr.rpartition("bootstrap: ")[2]
    assert f'git -C "{project}" restore requirements' in way_out
    assert "HTTPS_PROXY" not in way_out
