"""The folder against the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.errors import UsageError
from scripts.ledger import Row
from scripts.plan import Plan, State, make_plan
from scripts.sql import Folder, Migration, Problem, duplicates


def migration(version: str, checksum: str = "same") -> Migration:
    return Migration(version, "a", f"{version}_a.sql", checksum, "SELECT 1;")


def folder(*versions: str, problems: tuple[Problem, ...] = ()) -> Folder:
    return Folder(Path("migrations"), tuple(map(migration, versions)), problems)


def row(version: str, state: str = "applied", checksum: str | None = "same") -> Row:
    return Row(version=version, name="a", state=state, checksum=checksum)


def path(file: str) -> str:
    return str(Path("migrations") / file)


CHANGED = (
    f"0001_a.sql: was changed after it was applied (git restore {path('0001_a.sql')} undoes what isn't committed; "
    "if it is meant: invoke migrations.repair 0001)"
)


def states(plan: Plan) -> list[tuple[str, str]]:
    return [(entry.version, entry.state.value) for entry in plan.entries]


def pending(plan: Plan) -> list[str]:
    return [item.version for item in plan.pending]


def problems(plan: Plan) -> list[str]:
    return [str(problem) for problem in plan.problems]


def test_an_empty_ledger_leaves_everything_pending() -> None:
    plan = make_plan(folder("0001", "0002"), [])
    assert (pending(plan), problems(plan), plan.count(State.PENDING)) == (["0001", "0002"], [], 2)


def test_what_is_applied_is_not_pending() -> None:
    plan = make_plan(folder("0001", "0002"), [row("0001")])
    assert states(plan) == [("0001", "applied"), ("0002", "pending")]
    assert pending(plan) == ["0002"]


def test_versions_are_compared_as_numbers() -> None:
    assert states(make_plan(folder("2", "0010"), [row("0002"), row("10_a")])) == [("2", "applied"), ("0010", "applied")]


def test_a_file_that_changed_is_a_problem() -> None:
    plan = make_plan(folder("0001"), [row("0001", checksum="other")])
    assert states(plan) == [("0001", "changed")]
    assert problems(plan) == [CHANGED]


def test_what_is_said_of_a_problem_leads_to_the_same_database() -> None:
    def command(words: str) -> str:
        return f"invoke {words} --local"

    (said,) = problems(make_plan(folder("0001"), [row("0001", checksum="other")], command=command))
    assert "invoke migrations.repair 0001 --local)" in said
    with pytest.raises(UsageError) as raised:
        make_plan(folder("0001"), [], command=command, to="99")
    assert raised.value.hint == "the newest is 0001; invoke status --local lists them"


@pytest.mark.parametrize(
    ("recorded", "first", "second"),
    [
        (Row(version="0004", name="x", state="applied", checksum="b's"), "0004_b.sql", "0004_a.sql"),  # renamed since
        (Row(version="0004", name="a", state="applied", checksum="a's"), "0004_a.sql", "0004_b.sql"),
        (Row(version="0004", name="b", state="applied", checksum="x"), "0004_b.sql", "0004_a.sql"),  # changed since
        (Row(version="0004", name="b", state="applied"), "0004_b.sql", "0004_a.sql"),  # an older ledger
    ],
)
def test_of_two_files_of_one_number_the_ledger_says_which_is_the_second(recorded: Row, first: str, second: str) -> None:
    files = tuple(Migration("0004", name, f"0004_{name}.sql", f"{name}'s", "SELECT 1;") for name in ("a", "b"))
    both = Folder(Path("migrations"), files, (Problem("x.sql", None, "is empty"), *duplicates(files)))
    plan = make_plan(both, [recorded, row("0005")])
    said = f"{second}: has the same version as {first}, which the ledger has: rename it, to 0006_{second[5:]} for instance"
    changed = [problem for problem in problems(plan) if "was changed" in problem]
    assert [problem for problem in problems(plan) if problem not in changed and "0005_a.sql: " not in problem] == [
        "x.sql: is empty",
        said,
    ]
    assert [problem.split(":")[0] for problem in changed] == ([first] if recorded.checksum == "x" else [])
    assert [entry.state for entry in plan.entries if entry.file == second] == [State.PENDING]
    assert make_plan(both, []).problems == both.problems


def test_an_older_ledger_has_no_checksums_to_compare() -> None:
    assert states(make_plan(folder("0001"), [row("0001", checksum=None)])) == [("0001", "applied")]


@pytest.mark.parametrize(
    ("gone", "file", "way"),
    [
        (
            row("0002"),
            "0002_a.sql",
            f" (git restore {path('0002_a.sql')}, or where that is committed: git log -- {path('0002_a.sql')})",
        ),
        (Row(version="0002"), "0002", ""),
        (Row(version="v2"), "v2", ""),
    ],
)
def test_a_file_that_is_gone_is_a_problem(gone: Row, file: str, way: str) -> None:
    plan = make_plan(folder("0001"), [row("0001"), gone])
    assert plan.count(State.MISSING) == 1
    assert problems(plan) == [f"{file}: is applied, and its file is gone{way}"]


def test_a_file_that_can_not_be_read_is_not_gone_as_well() -> None:
    unread = Problem("0002_a.sql", None, "can't be read: Permission denied")
    plan = make_plan(folder("0001", problems=(unread,)), [row("0001"), row("0002")])
    assert problems(plan) == [str(unread)]
    others = Problem("0001_a.sql", 1, "unknown directive"), Problem("x.sql", None, "is empty")
    gone = make_plan(folder("0001", problems=others), [row("0001"), row("0002")])
    assert [problem.split(":")[0] for problem in problems(gone)] == ["0001_a.sql", "x.sql", "0002_a.sql"]


def test_a_file_that_started_runs_again() -> None:
    plan = make_plan(folder("0001", "0002"), [row("0001"), row("0002", "started", "other")])
    assert [entry.version for entry in plan.started] == ["0002"]
    assert (pending(plan), problems(plan)) == (["0002"], [])


def test_a_pending_file_older_than_the_newest_applied_is_a_problem() -> None:
    plan = make_plan(folder("0001", "0002", "0003"), [row("0001"), row("0003")])
    assert states(plan) == [("0001", "applied"), ("0002", "out of order"), ("0003", "applied")]
    assert len(problems(plan)) == 1
    assert "the newer 0003 is applied already (--allow-out-of-order" in problems(plan)[0]


def test_allow_out_of_order_lets_it_through() -> None:
    plan = make_plan(folder("0001", "0002"), [row("0002")], allow_out_of_order=True)
    assert (pending(plan), problems(plan)) == (["0001"], [])


def test_a_file_that_only_started_is_not_the_newest_applied() -> None:
    plan = make_plan(folder("0001", "0002"), [row("0002", "started")])
    assert (pending(plan), problems(plan)) == (["0001", "0002"], [])


@pytest.mark.parametrize(("to", "expected"), [("1", ["0001"]), ("0002", ["0001", "0002"]), ("3", ["0001", "0002", "0003"])])
def test_to_is_where_the_run_ends(to: str, expected: list[str]) -> None:
    assert pending(make_plan(folder("0001", "0002", "0003"), [], to=to)) == expected


@pytest.mark.parametrize("to", ["4", "x", "", "-1", "²", "1.0"])
def test_to_names_a_file_that_is_there(to: str) -> None:
    with pytest.raises(UsageError) as raised:
        make_plan(folder("0001", "0003"), [], to=to)
    assert raised.value.message == f"--to {to}: no migration has that version"
    assert "the newest is 0003" in raised.value.hint


def test_what_is_out_of_order_behind_to_stands_in_nobodys_way() -> None:
    assert problems(make_plan(folder("0001", "0002", "0003"), [row("0003")], to="1")) == problems(
        make_plan(folder("0001", "0003"), [row("0003")])
    )


def test_what_is_wrong_with_the_folder_comes_first() -> None:
    plan = make_plan(folder("0001", problems=(Problem("x.sql", None, "is empty"),)), [row("0001", checksum="other")])
    assert problems(plan) == [
        "x.sql: is empty",
        CHANGED,
    ]


versions = st.lists(st.integers(0, 30), unique=True).map(sorted)


@given(versions, versions)
def test_every_file_and_every_row_has_one_entry_in_order(files: list[int], rows: list[int]) -> None:
    plan = make_plan(folder(*(f"{number:04}" for number in files)), [row(str(number)) for number in rows])
    assert [int(entry.version) for entry in plan.entries] == sorted({*files, *rows})
    assert [item.number for item in plan.pending] == sorted(set(files) - set(rows))
    assert plan.count(State.MISSING) == len(set(rows) - set(files))
    late = [number for number in files if number not in rows and number < max(rows, default=-1)]
    assert len(plan.problems) == len(late) + plan.count(State.MISSING)


def test_two_rows_of_one_number_are_a_problem() -> None:
    plan = make_plan(folder("0001"), [row("0001"), row("1")])
    assert [str(problem) for problem in plan.problems] == [
        "0001 and 1: are two rows of the ledger for one number: delete the wrong one"
    ]
