"""What `invoke migrations.new` makes of a name, in folders and repositories of every kind."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import git
from tests.database import ENV, invoke
from tests.repository import Repository, without_git

pytestmark = pytest.mark.once  # no server has a part in it


def new(folder: Path, *words: str, name: str = "add runs", **env: str) -> subprocess.CompletedProcess[str]:
    return invoke("migrations.new", name, "--migrations-dir", str(folder), *words, env=env, cwd=folder)


def made(folder: Path, *words: str, name: str = "add runs", **env: str) -> str:
    """The name of the file that was made; nothing else is said on stderr."""
    result = new(folder, *words, "--json", name=name, **env)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    file = json.loads(result.stdout)["file"]
    assert (folder / file).read_text(encoding="utf-8").startswith(f"-- {name}\n")
    return str(file)


def refused(folder: Path, *words: str, code: int = 1) -> tuple[str, str]:
    """The message and the way out; nothing was written."""
    before = sorted(path.name for path in folder.iterdir())
    result = new(folder, *words, "--json")
    assert result.returncode == code, result.stdout + result.stderr
    assert sorted(path.name for path in folder.iterdir()) == before
    facts = json.loads(result.stdout)
    return facts["error"], facts["hint"]


def test_a_new_file_has_the_next_number_and_passes_but_for_being_empty(folder: Path) -> None:
    (folder / "0007_before.sql").write_text("-- What was before.\nSELECT 1;\n", encoding="utf-8")
    result = new(folder, name="Läufe: add table")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "0008_laufe_add_table.sql",
        f"write it, then: invoke migrations.lint --migrations-dir {shlex.quote(str(folder))}",
    ]
    file = folder / "0008_laufe_add_table.sql"
    assert b"\r" not in file.read_bytes()
    linted = invoke("migrations.lint", "--migrations-dir", str(folder), cwd=folder)
    assert linted.stdout.splitlines() == [
        "0008_laufe_add_table.sql:1: error: refused: holds nothing to run",
        "1 problem in 2 files",
    ]
    with file.open("a", encoding="utf-8") as text:
        text.write("SELECT 1;\n")
    assert invoke("migrations.lint", "--migrations-dir", str(folder)).returncode == 0


def test_json_says_what_was_made(folder: Path) -> None:
    result = new(folder, "--json", "--no-transaction")
    assert json.loads(result.stdout) == {
        "file": "0001_add_runs.sql",
        "path": str(folder / "0001_add_runs.sql"),
        "version": "0001",
        "transactional": False,
        "compared_with": None,
    }
    assert "\n-- migrate: no-transaction\n" in (folder / "0001_add_runs.sql").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["!?"], 2, "leaves nothing"),
        (["схемы"], 2, "leaves nothing"),
        (["x", "--number", "two"], 2, "--number two"),
        (["x", "--number", "1"], 2, "0001_before.sql is here already"),
        (["x", "--migrations-dir", "nowhere"], 2, "can't be read"),
        ([], 2, "needs NAME"),
    ],
)
def test_what_can_not_be_meant_is_refused(folder: Path, words: list[str], code: int, what: str) -> None:
    (folder / "0001_before.sql").write_text("SELECT 1;\n", encoding="utf-8")
    place = [] if "--migrations-dir" in words else ["--migrations-dir", str(folder)]
    result = invoke("migrations.new", *words, *place, cwd=folder)
    assert result.returncode == code
    assert what in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in folder.iterdir()] == ["0001_before.sql"]


def test_a_number_before_the_newest_is_made_with_a_warning(folder: Path) -> None:
    (folder / "0009_before.sql").write_text("SELECT 1;\n", encoding="utf-8")
    result = new(folder, "--number", "3")
    assert result.returncode == 0
    assert (folder / "0003_add_runs.sql").is_file()
    assert "0009_before.sql is here already" in result.stderr
    assert "--allow-out-of-order" in result.stderr


def test_what_is_there_and_is_no_file_is_left_alone(folder: Path) -> None:
    (folder / "0001_add_runs.sql").mkdir()
    error, hint = refused(folder)
    assert error == "0001_add_runs.sql is there by now, and was left alone"
    assert hint.startswith("invoke migrations.new 'add runs' ")


def test_several_at_once_each_have_a_number_of_their_own(folder: Path) -> None:
    argv = [sys.executable, "-m", "invoke", "--search-root", str(Path(__file__).parents[2])]
    running = [
        subprocess.Popen(
            [*argv, "migrations.new", name, "--migrations-dir", str(folder)],
            env=ENV,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("add runs", "add runs", "add fills", "add orders")
    ]
    ended = [(Path(process.communicate()[0].splitlines()[0]).name, process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * 4
    assert sorted(file for file, _ in ended) == sorted(path.name for path in folder.iterdir())
    assert sorted(file[:4] for file, _ in ended) == ["0001", "0002", "0003", "0004"]


# Without anything to compare with.


def test_without_git_the_folder_alone_counts(repository: Repository) -> None:
    repository.commit("0001_a.sql")
    repository.git("checkout", "--quiet", "-b", "topic")
    repository.git("checkout", "--quiet", "main")
    repository.commit("0002_theirs.sql")
    repository.git("checkout", "--quiet", "topic")
    assert made(repository.folder, PATH=without_git(repository.path)) == "0002_add_runs.sql"


def test_a_repository_without_a_commit_is_none(repository: Repository) -> None:
    repository.write("0001_a.sql")
    assert made(repository.folder) == "0002_add_runs.sql"


def test_a_folder_outside_of_any_repository_is_looked_at_alone(tmp_path: Path, repository: Repository) -> None:
    """Also where a hook of git says which repository is meant."""
    repository.commit("0001_theirs.sql")
    folder = tmp_path / "outside"
    folder.mkdir()
    env = {"GIT_DIR": str(repository.path / ".git"), "GIT_WORK_TREE": str(repository.path), "GIT_INDEX_FILE": "x"}
    assert made(folder, **env) == "0001_add_runs.sql"


def test_lines_are_found_whatever_the_user_has_set_for_searching(repository: Repository) -> None:
    repository.commit("0001_first.sql")
    repository.git("config", "grep.column", "true")
    assert list(git.lines(repository.folder, ENV, ["^-- 0"])) == [("migrations/0001_first.sql", 1, "-- 0001_first.sql")]


def test_a_folder_that_git_ignores_is_looked_at_alone(repository: Repository) -> None:
    repository.commit("0001_a.sql")
    repository.git("branch", "topic")
    (repository.path / ".gitignore").write_text("/scratch/\n", encoding="utf-8")
    repository.commit("0002_b.sql")
    repository.git("checkout", "--quiet", "topic")
    folder = repository.path / "scratch"
    folder.mkdir()
    (folder / "0001_x.sql").write_text("SELECT 1;\n", encoding="utf-8")
    assert made(folder) == "0002_add_runs.sql"


def test_a_broken_repository_is_no_reason_to_fail(repository: Repository) -> None:
    (repository.path / ".git" / "HEAD").write_text("nonsense\n", encoding="utf-8")
    assert made(repository.folder) == "0001_add_runs.sql"


def test_a_git_that_fails_is_no_reason_to_fail(folder: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / ("git.bat" if os.name == "nt" else "git")
    program.write_text("@exit 1\n" if os.name == "nt" else "#!/bin/sh\necho refs/heads/x; exit 1\n", encoding="utf-8")
    program.chmod(0o755)
    assert made(folder, PATH=str(programs)) == "0001_add_runs.sql"
    assert git.revision(folder, {**ENV, "PATH": str(programs)}) is None


def test_the_commit_at_hand_is_told_where_there_is_one(repository: Repository, tmp_path: Path) -> None:
    assert git.revision(repository.folder, ENV) is None
    repository.commit("0001_a.sql")
    commit = repository.git("rev-parse", "HEAD").strip()
    hook = {**ENV, "GIT_DIR": str(tmp_path / "nowhere")}
    assert git.revision(repository.folder, hook) == commit
    assert git.revision(tmp_path, ENV) is None
    assert git.revision(tmp_path / "nowhere", ENV) is None
    assert git.revision(repository.folder, {**ENV, "PATH": without_git(tmp_path)}) is None


# With a base.


@pytest.fixture
def topic(repository: Repository) -> Repository:
    """The branch `topic` of main's first commit, which has 0001."""
    repository.commit("0001_a.sql")
    repository.git("checkout", "--quiet", "-b", "topic")
    return repository


def on(repository: Repository, branch: str, *files: str, start: str = "main") -> None:
    """Commits files on a branch, and comes back."""
    exists = branch in repository.git("branch", "--format=%(refname:short)").split()
    repository.git("checkout", "--quiet", *([branch] if exists else ["-b", branch, start]))
    repository.commit(*files)
    repository.git("checkout", "--quiet", "topic")


def test_a_base_that_has_nothing_new_is_named(topic: Repository) -> None:
    topic.commit("0002_b.sql")
    result = new(topic.folder)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0] == "0003_add_runs.sql (compared with main)"


def test_a_branch_that_is_the_current_commit_is_no_base(topic: Repository, tmp_path: Path) -> None:
    clone = topic.clone(tmp_path / "clone", "--branch=main")
    clone.commit("0002_mine.sql")
    clone.git("checkout", "--quiet", "-b", "topic", "origin/main")
    _, hint = refused(clone.folder)
    assert hint.startswith("git merge main, then ")
    clone.git("branch", "--force", "main", "topic")
    assert json.loads(new(clone.folder, "--json").stdout)["compared_with"] is None


def test_a_number_that_the_base_took_is_refused_with_both_ways_out(topic: Repository) -> None:
    on(topic, "main", "0002_theirs.sql", "0003_more.sql")
    error, hint = refused(topic.folder)
    assert error == "the number 0002 is taken: main has 0002_theirs.sql"
    again = f"invoke migrations.new 'add runs' --migrations-dir {shlex.quote(str(topic.folder))}"
    other = f"invoke migrations.new 'add runs' --number 4 --migrations-dir {shlex.quote(str(topic.folder))}"
    assert hint == f"git merge main, then {again}; or {other}"
    assert made(topic.folder, "--number", "4") == "0004_add_runs.sql"


def test_merging_the_base_is_a_way_out(topic: Repository) -> None:
    on(topic, "main", "0002_theirs.sql")
    refused(topic.folder)
    topic.git("merge", "--quiet", "main")
    assert made(topic.folder) == "0003_add_runs.sql"


def test_a_number_that_is_asked_for_is_compared_too(topic: Repository) -> None:
    on(topic, "main", "0005_theirs.sql")
    assert refused(topic.folder, "--number", "5")[0] == "the number 0005 is taken: main has 0005_theirs.sql"


def test_a_file_of_ours_with_a_number_of_the_base_is_named_with_the_command_that_renames_it(topic: Repository) -> None:
    on(topic, "main", "0002_theirs.sql", "0004_more.sql")
    topic.commit("0002_mine.sql")
    topic.write("0004_new here.sql")
    error, hint = refused(topic.folder)
    assert "0002_mine.sql, which main lacks, has the number of 0002_theirs.sql there" in error
    assert "0004_new here.sql, which main lacks, has the number of 0004_more.sql there" in error
    commands = hint.split("; ")
    assert commands[:2] == ["git mv 0002_mine.sql 0005_mine.sql", "mv '0004_new here.sql' '0006_new here.sql'"]
    for command in commands[:2]:
        subprocess.run(command, shell=True, check=True, cwd=topic.folder)
    assert made(topic.folder) == "0007_add_runs.sql"


def test_a_number_that_is_asked_for_goes_before_renaming(topic: Repository) -> None:
    on(topic, "main", "0002_theirs.sql")
    topic.commit("0002_mine.sql")
    result = new(topic.folder, "--number", "9")
    assert result.returncode == 0
    assert (topic.folder / "0009_add_runs.sql").is_file()
    assert "rename it: git mv 0002_mine.sql 0003_mine.sql" in result.stderr


def test_what_a_remote_has_comes_before_what_is_here(topic: Repository, tmp_path: Path) -> None:
    topic.git("checkout", "--quiet", "main")
    clone = topic.clone(tmp_path / "clone")
    topic.commit("0002_theirs.sql")
    clone.git("fetch", "--quiet")
    error, hint = refused(clone.folder)
    assert error == "the number 0002 is taken: origin/HEAD has 0002_theirs.sql"
    assert hint.startswith("git merge origin/HEAD, then ")
    clone.git("remote", "set-head", "origin", "--delete")
    assert refused(clone.folder)[0] == "the number 0002 is taken: origin/main has 0002_theirs.sql"


def test_paths_beyond_ascii_come_out_as_they_are(repository: Repository) -> None:
    folder = repository.path / "größe, db" / "läufe"
    folder.mkdir(parents=True)
    (folder / "0001_a.sql").write_text("SELECT 1;\n", encoding="utf-8")
    repository.commit()
    repository.git("checkout", "--quiet", "-b", "topic")
    repository.git("checkout", "--quiet", "main")
    (folder / "0002_übergröße.sql").write_text("SELECT 1;\n", encoding="utf-8")
    repository.commit()
    repository.git("checkout", "--quiet", "topic")
    assert refused(folder)[0] == "the number 0002 is taken: main has 0002_übergröße.sql"


# With other branches.


def test_a_number_that_another_branch_took_is_refused(topic: Repository) -> None:
    on(topic, "feature/one", "0002_one.sql", "0003_x.sql")
    on(topic, "two", "0002_two.sql")
    error, hint = refused(topic.folder)
    assert error == "the number 0002 is taken: feature/one has 0002_one.sql, two has 0002_two.sql"
    assert hint.startswith("invoke migrations.new 'add runs' --number 4 ")
    facts = json.loads(new(topic.folder, "--json").stdout)
    assert facts["taken"] == [
        {"where": "feature/one", "file": "0002_one.sql"},
        {"where": "two", "file": "0002_two.sql"},
    ]


def test_a_number_that_is_asked_for_is_not_held_up_by_a_branch_that_may_never_be_merged(topic: Repository) -> None:
    on(topic, "stale", "0002_stale.sql")
    result = new(topic.folder, "--number", "2")
    assert result.returncode == 0
    assert (topic.folder / "0002_add_runs.sql").is_file()
    assert "stale has 0002_stale.sql" in result.stderr


def test_a_branch_that_gave_its_number_up_has_it_no_more(topic: Repository) -> None:
    on(topic, "renamed", "0002_x.sql")
    topic.git("checkout", "--quiet", "renamed")
    topic.git("mv", "migrations/0002_x.sql", "migrations/0007_x.sql")
    topic.commit()
    topic.git("checkout", "--quiet", "topic")
    assert made(topic.folder) == "0002_add_runs.sql"
    assert "renamed has 0007_x.sql" in new(topic.folder, "--number", "7").stderr


def test_a_branch_that_gave_a_file_another_number_has_that_one(topic: Repository) -> None:
    topic.git("checkout", "--quiet", "-b", "renamed")
    topic.git("mv", "migrations/0001_a.sql", "migrations/0002_a.sql")
    topic.commit()
    topic.git("checkout", "--quiet", "topic")
    assert refused(topic.folder)[0] == "the number 0002 is taken: renamed has 0002_a.sql"


def test_a_branch_that_is_merged_is_nobody_elses(topic: Repository) -> None:
    on(topic, "merged", "0002_x.sql")
    topic.git("merge", "--quiet", "merged")
    assert made(topic.folder) == "0003_add_runs.sql"


def test_a_detached_head_is_compared_as_well(topic: Repository) -> None:
    on(topic, "main", "0002_theirs.sql")
    topic.git("checkout", "--quiet", "--detach")
    assert refused(topic.folder)[0] == "the number 0002 is taken: main has 0002_theirs.sql"


def test_a_shallow_clone_is_compared_with_what_it_has(topic: Repository, tmp_path: Path) -> None:
    on(topic, "main", "0002_theirs.sql")
    clone = topic.clone(tmp_path / "shallow", "--depth=1", "--no-single-branch", "--branch=topic")
    assert refused(clone.folder)[0] == "the number 0002 is taken: origin/main has 0002_theirs.sql"
    alone = topic.clone(tmp_path / "alone", "--depth=1", "--branch=topic")
    assert made(alone.folder) == "0002_add_runs.sql"


def test_a_hook_of_git_and_the_users_settings_change_nothing(topic: Repository, tmp_path: Path) -> None:
    on(topic, "main", "0002_theirs.sql")
    topic.git("config", "log.showSignature", "true")
    topic.git("config", "color.ui", "always")
    topic.git("config", "core.quotePath", "true")
    topic.git("config", "log.follow", "true")
    before = (topic.path / ".git" / "index").read_bytes()
    env = {"GIT_DIR": str(tmp_path / "nowhere"), "GIT_INDEX_FILE": str(tmp_path / "index"), "GIT_PREFIX": "x/"}
    assert made(topic.folder, "--number", "3", **env) == "0003_add_runs.sql"
    result = new(topic.folder, "--number", "2", **env)
    assert "main has 0002_theirs.sql" in result.stderr
    assert (topic.path / ".git" / "index").read_bytes() == before
    assert not (tmp_path / "index").exists()
