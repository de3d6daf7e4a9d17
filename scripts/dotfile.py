"""The `.env` file: whether its keys are read by anything, who else can read it, and whether git would publish it."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from scripts import checkup, git, shell
from scripts.checkup import Verdict
from scripts.errors import counted
from scripts.settings import alike, is_broken, line_of, shown
from scripts.shell import quoted

_EXAMPLE = re.compile(r"^#? ?([A-Z][A-Z0-9_]+)=", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_OWN = re.compile(r"POSTGRES_ADMIN_PASSWORD_OF_[A-Z0-9_]+|POSTGRES_DSN_FORMER")  # which commands keep there themselves
_EVERYBODY, _GROUP = stat.S_IRWXO, stat.S_IRWXG


def known(example: str, templates: Collection[str], others: Collection[str]) -> set[str]:
    """The names that something reads: those of .env.example, the variables of templates, and others."""
    variables = {name for template in templates for name in _VARIABLE.findall(template)}
    return {*_EXAMPLE.findall(example), *variables, *others}


def keys(path: Path, names: Collection[str]) -> Verdict:
    """Whether every line is KEY=value, and every key one that something reads. No value is looked at."""
    from dotenv.parser import parse_stream

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return checkup.unset(f"there is no {shown(path)}", "copy .env.example to .env, or use the environment alone")
    except UnicodeDecodeError:
        return checkup.problem(f"{shown(path)} isn't UTF-8 text", "save it as UTF-8")
    except OSError as error:
        return checkup.problem(f"{shown(path)} can't be read: {error.strerror}", f"see who owns it: ls -l {quoted(shown(path))}")
    broken: list[str] = []
    mistyped: list[str] = []
    strange: list[str] = []
    double: list[str] = []
    seen: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        line, key = line_of(binding), binding.key
        if is_broken(binding):
            broken.append(f"line {line}")
        elif key is not None and key not in names and not _OWN.fullmatch(key):
            meant = alike(key, names)
            (mistyped if meant else strange).append(f"line {line}: {key}" + (f" (did you mean {meant}?)" if meant else ""))
        elif key is not None and key in seen:
            double.append(f"{key} (lines {seen[key]} and {line})")
        if key is not None:
            seen.setdefault(key, line)
    file = shown(path)
    if broken:
        return checkup.problem(
            f"{file} has lines that are no KEY=value: {', '.join(broken)}", f"mend them in {file}; .env.example shows how"
        )
    if mistyped:
        return checkup.problem(
            f"{file} has keys that nothing reads: {', '.join([*mistyped, *strange])}", f"rename them in {file}"
        )
    if double:
        return checkup.warning(f"{file} says twice: {', '.join(double)}; the last one counts", f"take one out of {file}")
    if strange:
        return checkup.warning(
            f"{file} has keys that nothing here reads: {', '.join(strange)}",
            "they do no harm; .env.example has all that are read",
        )
    return checkup.ok(f"{file}: {counted(len(seen), 'key')}, all of them known")


def is_there(path: Path) -> bool:
    """Whether it is a file that can be looked at; of one in a folder that this user may not enter, pathlib would raise."""
    return os.path.isfile(path)  # noqa: PTH113


def rights(path: Path, *, windows: bool = shell.WINDOWS) -> Verdict:
    """Whether its owner alone can read it."""
    if not is_there(path):
        return checkup.skipped(f"there is no {shown(path)}")
    if windows:  # where rights are inherited from the user's own folder, and no mode says them
        return checkup.ok(f"{shown(path)} has the rights of its folder")
    mode = stat.S_IMODE(path.stat().st_mode)

    def mend() -> str:
        path.chmod(0o600)
        return f"chmod 600 {shown(path)}"

    if mode & _EVERYBODY:
        return checkup.problem(f"everybody on this machine can read {shown(path)}", f"chmod 600 {quoted(shown(path))}", mend)
    if mode & _GROUP:
        return checkup.warning(f"the file's group can read {shown(path)}", f"chmod 600 {quoted(shown(path))}", mend)
    return checkup.ok(f"{shown(path)} is its owner's alone")


def in_git(path: Path, env: Mapping[str, str], ignore: Callable[[Path, str], str]) -> Verdict:
    """Whether git tracks it, or would with the next `git add .`. `ignore` adds a line to the repository's .gitignore."""
    if not is_there(path):
        return checkup.skipped(f"there is no {shown(path)}")
    real = path.resolve()  # a link to a file elsewhere publishes nothing; that file may
    folder, name = real.parent, real.name
    top = git.root(folder, env)
    if top is None and git.distrusted(folder, env):
        return checkup.skipped("see tracked files")
    if top is None:
        return checkup.ok(f"{shown(path)} is in no git repository")
    if git.tracks(folder, name, env):
        here = [] if folder == Path.cwd() else ["-C", quoted(shown(folder))]  # it may be another repository than this one
        untrack = " ".join(["git", *here, "rm --cached", quoted(name)])
        way = f"{untrack}; and set new passwords where these are in use: the history keeps them"
        return checkup.problem(f"git tracks {shown(path)}, and shows it to everybody who can read the repository", way)
    if not git.ignores(folder, name, env):
        # As a pattern it would mean other files: https://git-scm.com/docs/gitignore
        line = "/" + re.sub(r"[\\*?\[]| $", r"\\\g<0>", real.relative_to(top.resolve()).as_posix())
        way = f"add the line {line} to {shown(top / '.gitignore')}"
        return checkup.warning(f"git doesn't ignore {shown(path)}: the next `git add .` takes it", way, lambda: ignore(top, line))
    return checkup.ok(f"git ignores {shown(path)}")


def ignore(top: Path, line: str) -> str:
    """Adds a line to the .gitignore of a repository. What stands there stays, in whatever encoding and with its line ends."""
    path = top / ".gitignore"
    before = path.read_bytes() if path.exists() else b""
    end = b"\r\n" if b"\r\n" in before else b"\n"
    with path.open("ab") as file:
        file.write((b"" if not before or before.endswith(b"\n") else end) + line.encode("utf-8") + end)
    return f"added {line} to {shown(path)}"
