"""Looks at migrations as a reviewer would, before anything runs: what is refused, our own rules, and squawk's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts import git, lexer, rules, safety, sql, squawk
from scripts.console import Console, one_line
from scripts.errors import ExitCode, counted
from scripts.rules import Finding
from scripts.settings import shown


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file that psql would read: a migration, or what one includes."""

    text: str
    transactional: bool


def run(folder: Path, *, github: bool, env: Mapping[str, str], console: Console) -> ExitCode:
    """Prints what is wrong with the files of a folder, and how many; FAILED unless nothing is."""
    files, findings = _look(folder)
    wanted = squawk.rules(folder)
    texts = [
        squawk.Text(file=name, sql=lexer.as_sql(file.text), in_transaction=file.transactional) for name, file in files.items()
    ]
    findings += squawk.lint(texts, wanted, env=env)
    ordered = _in_order(files, findings)
    if wanted.source:
        console.note(f"with the rules of {shown(wanted.source)}")
    # GitHub takes paths from the repository's top; a person clicks on them from where he is.
    above = (git.root(folder, env) if github else None) or Path.cwd()
    for finding in ordered:
        _show(finding, _path(folder / finding.file, above), console, github=github)
    checked = len({*files, *(finding.file for finding in ordered)})
    summary = f"{counted(len(ordered), 'problem') if ordered else 'no problems'} in {counted(checked, 'file')}"
    console.say(summary)
    problems = [{**asdict(finding), "path": _path(folder / finding.file, above)} for finding in ordered]
    console.document({"folder": str(folder), "files": checked, "summary": summary, "problems": problems})
    return ExitCode.FAILED if ordered else ExitCode.OK


def _look(folder: Path) -> tuple[dict[str, _File], list[Finding]]:
    """Every file that would be read, in the order in which that happens, each once, with what we ourselves say of it."""
    found = sql.read_folder(folder)
    files: dict[str, _File] = {}
    findings = {rules.refused(problem) for problem in found.problems}
    for migration in (*found.migrations, *found.repeatables):
        checked = safety.check(migration, folder)
        findings |= {rules.refused(problem) for problem in checked.problems}
        findings |= set(rules.header(migration.file, migration.text))
        read = {migration.file: _File(text=migration.text, transactional=migration.transactional)}
        for name, text in checked.includes.items():
            read[name] = _File(text=text, transactional=migration.transactional)
        for name, file in read.items():
            # Of an include of several files, what the strictest of them asks: that it can be run again.
            if name not in files or files[name].transactional > file.transactional:
                files[name] = file
    for name, file in files.items():
        findings |= set(rules.contents(name, file.text))
    return files, list(findings)


def _in_order(files: Mapping[str, _File], findings: list[Finding]) -> list[Finding]:
    """The findings without what the files except: in the order of the files, then of the lines."""
    of_file: dict[str, list[Finding]] = {name: [] for name in files}
    for finding in sorted(findings, key=lambda finding: (finding.line, finding.rule, finding.message)):
        of_file.setdefault(finding.file, []).append(finding)
    return [
        finding
        for name, those in of_file.items()
        for finding in rules.without_excepted(those, name, files[name].text if name in files else "")
    ]


def _show(finding: Finding, path: str, console: Console, *, github: bool) -> None:
    message, help_ = one_line(finding.message), one_line(finding.help)
    if github:
        text = f"{message}\n{help_}" if help_ else message
        console.point_at(level=finding.level, file=path, line=finding.line, title=finding.rule, text=text)
        return
    console.say(f"{one_line(path)}:{finding.line}: {finding.level}: {finding.rule}: {message}")
    if help_:
        console.say(f"  help: {help_}")


def _path(path: Path, above: Path) -> str:
    """A path as seen from a folder above it, with the slashes of URLs."""
    above, whole = Path(os.path.realpath(above)), Path(os.path.realpath(path.parent)) / path.name
    return whole.relative_to(above).as_posix() if whole.is_relative_to(above) else str(path)
