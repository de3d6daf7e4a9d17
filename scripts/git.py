"""The only module that knows git's words: which commit this is, which files it tracks, and which other branches have.

It only reads, asks nobody, and is no condition for anything: without git, outside a repository, or in one that can't
say, the answer is that nothing is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts import shell
from scripts.dsn import clean_env
from scripts.errors import OpsError
from scripts.shell import Result, quoted

# Where a branch that is made today comes from: the first of these that exists and isn't the commit at hand.
_BASES = (
    "refs/remotes/origin/HEAD",
    "refs/remotes/origin/main",
    "refs/remotes/origin/master",
    "refs/heads/main",
    "refs/heads/master",
)
_DEADLINE = 20.0  # seconds for one answer


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A branch, by the name that people call it, with the names of the files that it has in a folder."""

    name: str
    files: frozenset[str]


def revision(folder: Path, env: Mapping[str, str]) -> str | None:
    """The commit that a folder's files came from, where that can be known."""
    said = _ask(folder, env, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    return said.strip() if said else None


def root(folder: Path, env: Mapping[str, str]) -> Path | None:
    """The top folder of the repository that a folder is in."""
    said = _ask(folder, env, "rev-parse", "--show-toplevel")
    return Path(said.rstrip("\n")) if said else None


def distrusted(folder: Path, env: Mapping[str, str]) -> Path | None:
    """The repository that a folder is in, where git leaves it alone because it belongs to another user.

    Source: https://git-scm.com/docs/git-config#Documentation/git-config.txt-safedirectory; in whatever language git says it, the
    command that has it trusted is the same.
    """
    result = _call(folder, env, "rev-parse", "--show-toplevel")
    match = result and result.code != 0 and re.search(r"--add safe\.directory '?(.+?)'?$", result.err, re.MULTILINE)
    return Path(match[1]) if match else None


def tracks(folder: Path, file: str, env: Mapping[str, str]) -> bool:
    """Whether git knows a file of a folder, so that `git mv` can rename it."""
    return bool(_ask(folder, env, "ls-files", "-z", "--", file))


def ignores(folder: Path, file: str, env: Mapping[str, str]) -> bool:
    """Whether git leaves a file of a folder alone, by what its lists of such files say."""
    return _ask(folder, env, "check-ignore", "--quiet", "--", file) is not None


def lines(folder: Path, env: Mapping[str, str], patterns: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """The lines of tracked files in and below a folder that fit one of several POSIX patterns: file, number, and text.

    Raises OpsError when git can't search, so that nothing found is told from nothing looked at.
    """
    wanted = [word for pattern in patterns for word in ("-e", pattern)]
    # A user's own grep.column would put a number more into each line.
    search = ("-c", "grep.column=false", "grep", "-z", "-n", "-I", "-i", "-E", "--no-color", "--full-name", *wanted, "--", ".")
    result = _call(folder, env, *search)
    if result is None or result.code > 1:  # 1: no line fits
        problem = f"git can't search {folder}: {result.err.strip() if result else 'it has no answer'}"
        raise OpsError(problem, f"see what it says: git -C {quoted(folder)} status")
    for found in re.finditer(r"([^\0\n]+)\0(\d+)\0([^\n]*)\n", result.out):
        yield found[1], int(found[2]), found[3]


def remotes(folder: Path, env: Mapping[str, str]) -> list[str]:
    """The addresses of the repositories that a folder's pushes to and fetches from."""
    said = _ask(folder, env, "config", "--get-regexp", r"^remote\..*\.url$")
    return [line.partition(" ")[2] for line in (said or "").splitlines()]


def base(folder: Path, env: Mapping[str, str]) -> Branch | None:
    """What the branch at hand is to be merged into, with its files in the folder."""
    head = revision(folder, env)
    said = _ask(folder, env, "for-each-ref", "--format=%(objectname) %(refname)", *_BASES)
    commits = {ref: commit for commit, _, ref in (line.partition(" ") for line in (said or "").splitlines())}
    ref = next((ref for ref in _BASES if ref in commits and commits[ref] != head), None)
    return None if head is None or ref is None else Branch(name=_called(ref), files=_files(folder, env, ref))


def others(folder: Path, env: Mapping[str, str]) -> list[Branch]:
    """The branches, here and on remotes as last fetched, that have added files to the folder which HEAD lacks."""
    adding = ("log", "--no-color", "--no-show-signature", "--no-renames", "--diff-filter=A", "--format=%S")
    refs = _ask(folder, env, *adding, "--branches", "--remotes", "--not", "HEAD", "--", ".")
    # As they stand there now: a branch may have renamed or dropped since what a commit of it added.
    return [Branch(name=_called(ref), files=_files(folder, env, ref)) for ref in sorted({*(refs or "").split()})]


def _files(folder: Path, env: Mapping[str, str], ref: str) -> frozenset[str]:
    """The names of what a commit has in the folder."""
    return frozenset((_ask(folder, env, "ls-tree", "-z", "--name-only", ref) or "").split("\0")) - {""}


def _called(ref: str) -> str:
    return ref.removeprefix("refs/heads/").removeprefix("refs/remotes/")


def _ask(folder: Path, env: Mapping[str, str], *words: str) -> str | None:
    """What git says, or None where it has nothing to say."""
    result = _call(folder, env, *words)
    return result.out if result is not None and result.code == 0 else None


def _call(folder: Path, env: Mapping[str, str], *words: str) -> Result | None:
    program = shell.which("git", env)
    if program is None:
        return None
    try:
        return shell.run([program, "--no-pager", *words], env=_env(env), cwd=folder, timeout=_DEADLINE)
    except OpsError:  # it hangs, or can't be started
        return None


def _env(env: Mapping[str, str]) -> dict[str, str]:
    """Without what a hook of git sets (its repository, its index) and what could make git ask, fetch or write."""
    own = {name: value for name, value in clean_env(env).items() if not name.upper().startswith("GIT_")}
    return {**own, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ASKPASS": os.devnull}
