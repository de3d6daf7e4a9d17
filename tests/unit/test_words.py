"""What is said of words that no task takes."""

from __future__ import annotations

import shlex

import pytest

from scripts import words
from scripts.words import Grammar

GRAMMAR = Grammar(
    tasks={
        "migrate": {"--to": True, "--local": False, "--plan": False, "--dsn": True, "--lock-wait": True},
        "status": {"--local": False, "--dsn": True},
        "roles": {"--local": False, "--dsn": True, "--admin-password": True},
        "provision": {"--sku-name": True, "--local": False, "--plan": False, "--abort": False},
        "migrations.new": {"--name": True, "--json": False},
        "migrations.drift": {"--to": True},
        "migrations.reset": {"--plan": False},
    },
    own={"--list": True, "-l": True, "--help": True, "-h": True, "--echo": False, "-e": False},
)


def said(line: str, word: str, task: str | None = None) -> str:
    problem = words.unknown(word, task, shlex.split(line), GRAMMAR)
    assert problem.exit_code == 2
    assert problem.hint.startswith("invoke ") or problem.hint.startswith("leave ")
    return problem.message


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("migrat", "there is no task 'migrat'; did you mean migrate?"),
        ("Status", "there is no task 'Status'; did you mean status?"),
        ("new", "there is no task 'new'; did you mean migrations.new?"),
        ("migrations.drft", "there is no task 'migrations.drft'; did you mean migrations.drift?"),
        ("xyzzy", "there is no task 'xyzzy'"),
        ("migrations", "migrations is a group of tasks: migrations.new, migrations.drift, migrations.reset"),
        ("--lsit", "there is no flag --lsit; did you mean --list?"),
        ("--sku-name", "--sku-name is a flag of provision, and stands behind the task"),
        ("--local", "--local is a flag of migrate, status, roles and 1 other, and stands behind the task"),
    ],
)
def test_in_the_place_of_a_task(word: str, expected: str) -> None:
    assert said(word, word) == expected


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("migrate --lokal", "--lokal", "migrate has no flag --lokal; did you mean --local?"),
        ("migrate --lock_wait", "--lock_wait", "migrate has no flag --lock_wait; did you mean --lock-wait?"),
        ("migrate --hlep", "--hlep", "migrate has no flag --hlep; did you mean --help?"),
        ("migrate --sku-name", "--sku-name", "--sku-name is a flag of provision, and not of migrate"),
        ("migrate --sku-nmae", "--sku-nmae", "migrate has no flag --sku-nmae; --sku-name is a flag of provision"),
        ("migrate --xyzzy", "--xyzzy", "migrate has no flag --xyzzy"),
        ("migrate --port", "--port", "migrate has no flag --port"),  # --abort is something else
        ("migrate now", "now", "migrate doesn't take 'now'"),
        ("migrate -", "-", "migrate doesn't take '-'"),
        ("migrate -p hunter2", "hunter2", "migrate doesn't take an argument (not shown: it may be secret)"),
        ("migrate plan", "plan", "migrate doesn't take 'plan'; did you mean --plan?"),
        ("migrate statsu", "statsu", "migrate doesn't take 'statsu'; did you mean the task status?"),
        ("migrate --plan=yes", "yes", "--plan takes no value"),
        ("migrate --plan yes", "yes", "--plan takes no value, and migrate doesn't take 'yes'"),
        ("migrate --to 1 --to 2", "2", "--to is given twice"),
        ("migrations.new a b", "b", "migrations.new doesn't take 'b'; a value of several words stands between quotes"),
        ("migrate --to 1 2", "2", "migrate doesn't take '2'; a value of several words stands between quotes"),
    ],
)
def test_behind_a_task(line: str, word: str, expected: str) -> None:
    assert said(line, word, line.split(maxsplit=1)[0]) == expected


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("migrate postgresql://me:pa55@h/d", "postgresql://me:pa55@h/d"),
        ("roles --admin-password My pa55", "pa55"),
        ("roles --admin-password=My pa55", "pa55"),
        ("migrate --dsn postgresql://me:a pa55@h/d", "pa55@h/d"),
        ("migrate me:pa55@h/d", "me:pa55@h/d"),
        ("migrate password=pa55", "password=pa55"),
        ("migrate PGPASSWORD=pa55", "PGPASSWORD=pa55"),
        ("migrate --password:pa55", "--password:pa55"),
    ],
)
def test_what_may_be_a_secret_is_not_repeated(line: str, word: str) -> None:
    task = line.split(maxsplit=1)[0]
    problem = words.unknown(word, task, shlex.split(line), GRAMMAR)
    assert "pa55" not in problem.message + problem.hint
    assert task in problem.message
    alone = words.unknown(word, None, shlex.split(word), GRAMMAR)
    assert "pa55" not in alone.message or word in ("pa55", "pa55@h/d")  # nothing says of these what they are


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("migrate -local", "migrate has no flag -local; did you mean --local?"),
        ("migrate -plna", "migrate has no flag -plna; did you mean --plan?"),
        ("migrate --plan -lokal", "migrate has no flag -lokal; did you mean --local?"),
        ("migrations.new --jsno x", "migrations.new has no flag --jsno; did you mean --json?"),
        ("status migrate --sku-name=x", "--sku-name is a flag of provision, and not of migrate"),
        ("migrate --to -local", None),
        ("migrate --to --plan", None),  # Invoke says that its value isn't there
        ("-el migrate --dsn -", None),
        ("migrate --echo --list", None),
        ("migrate --lock-wait=3 --help", None),
    ],
)
def test_the_first_misspelt_flag_is_the_one_that_is_named(line: str, expected: str | None) -> None:
    problem = words.misspelt(line.split(), GRAMMAR)
    assert (problem and problem.message) == expected


def test_a_value_that_looks_like_a_flag_can_be_given_all_the_same() -> None:
    assert "--to=--lokal" in words.looks_like_a_flag("--to", "--lokal", "migrate").hint
    problem = words.looks_like_a_flag("--admin-password", "--pa55", "roles")
    assert "--admin-password=VALUE" in problem.hint
    assert "pa55" not in problem.message + problem.hint


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("--dsn=postgresql://me:pa55@h/d", "--dsn=..."),
        ("--admin-password=pa55", "--admin-password=..."),
        ("--lokal=pa55", "--lokal=..."),
        ("--postgresql://me:pa55@h/d?a=b", "what looks like a flag"),
    ],
)
def test_of_a_flag_in_the_place_of_a_value_only_the_name_is_shown(value: str, got: str) -> None:
    problem = words.looks_like_a_flag("--to", value, "migrate")
    assert problem.message == f"--to needs a value, and got {got}"
    assert problem.hint == "--to=VALUE, if that is its value; else invoke --help migrate"


@pytest.mark.parametrize("word", ["-phunter2", "-Phunter2", "-Whunter2"])
def test_what_is_joined_to_another_program_s_flag_for_a_password_is_not_shown(word: str) -> None:
    assert said(f"migrate {word}", word, "migrate") == f"migrate has no flag {word[:2]}"
    assert said(word, word) == f"there is no flag {word[:2]}"


@pytest.mark.parametrize(
    ("flag", "task", "hint"),
    [
        ("--dry", "migrate", "invoke migrate --plan"),
        ("--dry", "status", "invoke --help status"),
        ("--version", "status", "invoke --version"),
        ("--collection", "psql", "invoke psql < FILE: a script goes to psql by stdin"),
        ("--collection", "status", "invoke --help status"),
    ],
)
def test_what_is_meant_by_a_flag_of_invoke(flag: str, task: str, hint: str) -> None:
    problem = words.of_invoke(flag, "-x", task, GRAMMAR)
    assert problem.message.startswith("-x is a flag of Invoke's own, ")
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("task", "message", "hint"),
    [
        ("migrate", "migrate takes nothing behind --", "leave the -- away; invoke --help migrate"),
        ("psql", "psql takes nothing behind --", "invoke psql < FILE: a script goes to psql by stdin"),
        ("", "no task takes what stands behind --", "leave the -- away; invoke --list"),
    ],
)
def test_what_stands_behind_dashes_is_refused_and_not_shown(task: str, message: str, hint: str) -> None:
    problem = words.behind_dashes(task)
    assert (problem.message, problem.hint) == (message, hint)
