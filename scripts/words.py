"""What is wrong with the words of a command line that no task takes, and what was probably meant. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scripts.errors import UsageError

LIST = "invoke --list"
_SCRIPT = "invoke psql < FILE: a script goes to psql by stdin"
# An address, with or without its scheme (me:word@host/db), or a part of a conninfo (password=word).
_SECRET = re.compile(r"://|:[^/]*@|(pass\w*|pwd|secret|token)[=:]", re.IGNORECASE)


@dataclass(frozen=True)
class Grammar:
    """What can be said: for each task its flags (`--to`), and for each flag whether it takes a value; and Invoke's own flags."""

    tasks: Mapping[str, Mapping[str, bool]]
    own: Mapping[str, bool]

    def owners(self, flag: str) -> list[str]:
        """The tasks that have a flag."""
        return [task for task, flags in self.tasks.items() if flag in flags]

    def group(self, word: str) -> list[str]:
        """The tasks of a group, such as `migrations`."""
        return [task for task in self.tasks if task.startswith(f"{word}.")]


def near(word: str, names: Iterable[str]) -> list[str]:
    """The names, two at most, that a word comes nearest to; of `migrations.new`, `new` is enough."""
    from difflib import SequenceMatcher

    matcher, scores = SequenceMatcher(autojunk=False), {}
    matcher.set_seq2(word.lower().replace("_", "-"))
    for name in names:
        ratios = []
        for text in {name, name.rpartition(".")[2]}:
            matcher.set_seq1(text)
            ratios.append(matcher.ratio())
        scores[name] = max(ratios)
    enough = max(0.7, max(scores.values(), default=0.0) - 0.05)
    return sorted((name for name, score in scores.items() if score >= enough), key=lambda name: -scores[name])[:2]


def _meant(found: Sequence[str], what: str = "") -> str:
    return f"; did you mean {what}{' or '.join(found)}?" if found else ""


def _listed(names: Sequence[str]) -> str:
    shown, more = list(names[:3]), len(names) - 3
    shown += [f"{more} other{'s' if more > 1 else ''}"] if more > 0 else []
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _help(task: str | None) -> str:
    return f"invoke --help {task}" if task else LIST


def unknown(word: str, task: str | None, line: Sequence[str], grammar: Grammar) -> UsageError:
    """A word that nobody takes, behind a task or before all of them; `line` is the whole command line."""
    if word.startswith("-") and word != "-":
        return _unknown_flag(word, task, grammar)
    return _stray(word, task, line, grammar) if task else _unknown_task(word, grammar)


def misspelt(line: Sequence[str], grammar: Grammar) -> UsageError | None:
    """The first flag behind a task that nobody has. Invoke would say something of a later word, or nothing: it takes `-local`
    apart, into flags of its own (-l, -c) and whatever comes, and `--plna` for the word that a task like migrations.new needs.
    """
    task: str | None = None
    flags: Mapping[str, bool] = {}
    for before, word in zip(["", *line], line, strict=False):
        name = word.partition("=")[0]
        is_flag = re.fullmatch(r"-[A-Za-z][\w-]+|--.+", name) is not None and not flags.get(before)
        if task and is_flag and name not in flags:
            return _unknown_flag(name, task, grammar)
        if word in grammar.tasks:
            task, flags = word, {**grammar.own, **grammar.tasks[word]}
    return None


def _unknown_task(word: str, grammar: Grammar) -> UsageError:
    """A word in the place of a task."""
    if group := grammar.group(word):
        return UsageError(f"{word} is a group of tasks: {', '.join(group)}", f"{LIST} {word}")
    if "://" in word:
        return UsageError("a task is meant, and that is an address", LIST)
    if may_be_secret(word, [word]):
        return UsageError("there is no such task (not shown: it may be secret)", LIST)
    return UsageError(f"there is no task {word!r}{_meant(near(word, grammar.tasks))}", LIST)


def _unknown_flag(typed: str, task: str | None, grammar: Grammar) -> UsageError:
    typed = re.split("[=:]", typed, maxsplit=1)[0]  # behind them stands a value
    flag = f"--{typed.lstrip('-').lower().replace('_', '-')}"
    owners = grammar.owners(flag)
    every = dict.fromkeys(flag for flags in grammar.tasks.values() for flag in flags)
    if _takes_secret(typed[:2]) and not near(flag, every):  # -pSECRET, as other programs have it
        typed = typed[:2]
    if task is None:
        if owners:
            return UsageError(f"{typed} is a flag of {_listed(owners)}, and stands behind the task", f"invoke TASK {flag}")
        return UsageError(f"there is no flag {typed}{_meant(near(flag, {**grammar.own, **every}))}", LIST)
    flags = grammar.tasks[task]
    if flag in flags:
        return UsageError(f"{task} has no flag {typed}{_meant([flag])}", _help(task))
    if owners:
        return UsageError(f"{typed} is a flag of {_listed(owners)}, and not of {task}", _help(task))
    if found := near(flag, [*flags, "--help"]):
        return UsageError(f"{task} has no flag {typed}{_meant(found)}", _help(task))
    elsewhere = [f"--{name}" for name in near(flag[2:], [name[2:] for name in every])]  # the dashes, all have in common
    where = f"; {elsewhere[0]} is a flag of {_listed(grammar.owners(elsewhere[0]))}" if elsewhere else ""
    return UsageError(f"{task} has no flag {typed}{where}", _help(task))


def _stray(word: str, task: str, line: Sequence[str], grammar: Grammar) -> UsageError:
    flags = grammar.tasks[task]
    for flag, takes_value in flags.items():
        if not takes_value and f"{flag}={word}" in line:
            return UsageError(f"{flag} takes no value", f"leave what stands behind {flag} away")
    hidden = may_be_secret(word, line)
    refused = f"{task} doesn't take {'an argument (not shown: it may be secret)' if hidden else repr(word)}"
    before = line[line.index(word) - 1] if word in line[1:] else ""
    if flags.get(before):
        return UsageError(f"{before} is given twice", f"leave one of them away; {_help(task)}")
    if before in flags:
        return UsageError(f"{before} takes no value, and {refused}", _help(task))
    if "://" in word:
        return UsageError(f"{task} doesn't take a bare address{_meant(['--dsn -'] if '--dsn' in flags else [])}", _help(task))
    if f"--{word}" in flags:
        return UsageError(f"{refused}{_meant([f'--{word}'])}", _help(task))
    if before and not before.startswith("-") and before not in grammar.tasks:
        return UsageError(f"{refused}; a value of several words stands between quotes", _help(task))
    found = [] if hidden else near(word, grammar.tasks)
    return UsageError(f"{refused}{_meant(found, 'the task ')}", _help(task))


def may_be_secret(word: str, line: Sequence[str]) -> bool:
    """Whether a word had better not be repeated: it may be the rest of a password, or a DSN."""
    before = line[: line.index(word)] if word in line else line
    return _SECRET.search(word) is not None or any(_takes_secret(one.partition("=")[0]) for one in before)


def _takes_secret(flag: str) -> bool:
    return flag in ("--dsn", "-p", "-P", "-W") or flag.endswith("password")  # other programs have passwords behind -p


def without_value(flag: str, task: str | None) -> UsageError:
    """A flag whose value isn't there."""
    return UsageError(f"{flag} needs a value", _help(task))


def looks_like_a_flag(flag: str, value: str, task: str) -> UsageError:
    """A value that was probably meant as a flag of its own; behind its `=` may stand a DSN or a password."""
    name, has_value, _ = value.partition("=")
    hidden = may_be_secret(name, [flag])
    shown = "VALUE" if hidden or has_value else value
    got = "what looks like a flag" if hidden else f"{name}=..." if has_value else value
    return UsageError(f"{flag} needs a value, and got {got}", f"{flag}={shown}, if that is its value; else {_help(task)}")


def of_invoke(flag: str, typed: str, task: str, grammar: Grammar) -> UsageError:
    """A flag of Invoke's own behind a task, where it does nothing, and something of ours may be meant (`--dry`, `-c`)."""
    meant = {
        "--dry": f"invoke {task} --plan" if "--plan" in grammar.tasks.get(task, {}) else "",
        "--version": "invoke --version",
        "--collection": _SCRIPT if task == "psql" else "",
    }
    return UsageError(f"{typed} is a flag of Invoke's own, and does nothing for {task}", meant.get(flag) or _help(task))


def behind_dashes(task: str) -> UsageError:
    """Words behind a `--`, which Invoke leaves to the task, where nothing reads them. They may be meant for psql."""
    hint = _SCRIPT if task == "psql" else f"leave the -- away; {_help(task or None)}"
    return UsageError(f"{task or 'no task'} takes {'nothing' if task else 'what stands'} behind --", hint)


def missing_words(task: str, names: Sequence[tuple[str, str]], example: str) -> UsageError:
    """Words that a task can't do without; `names` are they, with what each of them is."""
    said = "; ".join(f"{name.upper()}: {what}" for name, what in names)
    return UsageError(f"{task} needs {said.rstrip('.')}", f"such as: {example}")
