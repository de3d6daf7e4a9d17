"""Begins a migration: the next number, which nobody else has, and a file to write in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts import git, naming, settings, shell, sql
from scripts.console import Console
from scripts.errors import OpsError, UsageError
from scripts.git import Branch
from scripts.naming import Taken
from scripts.settings import folder_flag, shown


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the new file is to be."""

    folder: Path
    name: str  # what it does, in a person's words
    number: int | None = None
    transactional: bool = True


def run(options: Options, env: Mapping[str, str], console: Console) -> None:
    """Writes the file, unless its number is taken here, on the git base or on another branch. Raises OpsError."""
    with _alone():
        _run(options, env, console)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One at a time on this machine: two would find the same number free. Where no lock can be kept, without one."""
    from filelock import FileLock

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            settings.LOCAL.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(settings.LOCAL / "new.lock"))
        yield


def _run(options: Options, env: Mapping[str, str], console: Console) -> None:
    if options.name.startswith("R__"):
        raise UsageError(
            f"{options.name}: a repeatable file has no number", f"begin {options.name}.sql yourself (rules: migrations/README.md)"
        )
    words = naming.slug(options.name)
    local = sql.file_names(options.folder)
    base = git.base(options.folder, env)
    branches = [branch for branch in git.others(options.folder, env) if base is None or branch.name != base.name]
    number = naming.next_number(local) if options.number is None else options.number
    of_base = {} if base is None else {base.name: base.files}
    of_others = {branch.name: branch.files for branch in branches}
    everything = [*local, *(file for files in (*of_base.values(), *of_others.values()) for file in files)]
    free = naming.next_number(everything)
    again = _again(options)

    here = naming.taken(number, {"this folder": local})
    if here:
        raise UsageError(f"{_named(number, local)} is taken: {here[0].file} is here already", again(free))
    if base is not None:
        _check_base(options, local, base, number, free, again, console, env)
    elsewhere = naming.taken(number, of_others)
    if elsewhere and options.number is None:
        raise OpsError(f"the number {_named(number, local)} is taken: {_whose(elsewhere)}", again(free), _facts(elsewhere))
    if elsewhere:
        console.note(f"warning: {_whose(elsewhere)}")
    if number < naming.next_number(local) - 1:
        newest = max(naming.numbers(local))[1]
        console.note(
            f"warning: {newest} is here already; where it is applied, this one wants `invoke migrate --allow-out-of-order`"
        )
    _write(options, naming.file_name(number, words, local), base, console)


def _check_base(
    options: Options,
    local: list[str],
    base: Branch,
    number: int,
    free: int,
    again: Callable[[int], str],
    console: Console,
    env: Mapping[str, str],
) -> None:
    """Refuses a number of the base, and files that will collide with the base's when the two come together."""
    problems = naming.taken(number, {base.name: base.files})
    colliding = naming.collisions(local, base.name, base.files)
    renames = []
    for later, (file, _) in enumerate(colliding):
        target = naming.file_name(free + later, file[len(sql.version_of(file) or "") + 1 :].removesuffix(".sql"), local)
        paths = [shell.quoted(shown(options.folder / name)) for name in (file, target)]
        program = "git mv" if git.tracks(options.folder, file, env) else "move" if shell.WINDOWS else "mv"
        renames.append(f"{program} {' '.join(paths)}")
    said = "; ".join(f"{file}, which {base.name} lacks, has the number of {found.file} there" for file, found in colliding)
    if problems:
        way_out = [*renames, f"git merge {base.name}, then {again(0)}; or {again(free + len(colliding))}"]
        what = [f"the number {_named(number, local)} is taken: {_whose(problems)}", *([said] if said else [])]
        raise OpsError("; ".join(what), "; ".join(way_out), _facts([*problems, *(found for _, found in colliding)]))
    if colliding and options.number is None:
        way_out = [*renames, f"then {again(0)}"]
        raise OpsError(said, "; ".join(way_out), _facts([found for _, found in colliding]))
    if colliding:
        console.note(f"warning: {said}; rename it: {'; '.join(renames)}")


def _write(options: Options, file: str, base: Branch | None, console: Console) -> None:
    path = options.folder / file
    try:
        with path.open("x", encoding="utf-8", newline="\n") as target:
            target.write(naming.text(options.name, transactional=options.transactional))
    except FileExistsError:
        raise OpsError(f"{shown(path)} is there by now, and was left alone", _again(options)(0)) from None
    except OSError as error:
        hint = "make the folder one that you may write, or name another: --migrations-dir FOLDER"
        raise OpsError(f"{shown(path)} can't be written: {error.strerror}", hint) from None
    version = sql.version_of(file) or ""
    compared = base.name if base else None
    console.say(f"{shown(path)}" + (f" (compared with {compared})" if compared else ""))
    console.say(f"write it, then: invoke migrations.lint{_folder_flag(options)}")
    console.document(
        {
            "file": file,
            "path": str(path),
            "version": version,
            "transactional": options.transactional,
            "compared_with": compared,
        }
    )


def _named(number: int, local: list[str]) -> str:
    """A number as the file's name would have it."""
    return sql.version_of(naming.file_name(number, "x", local)) or str(number)


def _whose(found: list[Taken]) -> str:
    return ", ".join(f"{entry.where} has {entry.file}" for entry in found)


def _facts(found: list[Taken]) -> dict[str, list[dict[str, str]]]:
    return {"taken": [{"where": entry.where, "file": entry.file} for entry in found]}


def _again(options: Options) -> Callable[[int], str]:
    """The command once more, as a shell takes it, with another number (0: with none)."""

    def command(number: int) -> str:
        words = ["invoke migrations.new", shell.quoted(options.name)]
        words += [] if options.transactional else ["--no-transaction"]
        words += [f"--number {number}"] if number else []
        return " ".join(words) + _folder_flag(options)

    return command


def _folder_flag(options: Options) -> str:
    return "".join(f" {flag}" for flag in folder_flag(options.folder))
