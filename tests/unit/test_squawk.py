"""What squawk is asked, and what is made of its answer; what the real one answers is seen in tests/integration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scripts import squawk
from scripts.errors import OpsError
from scripts.rules import Finding
from scripts.shell import Result
from scripts.squawk import Rules, Text


@dataclass
class Fake:
    """A squawk that says the same of every file: `out`, where it isn't None, else one entry for each."""

    out: str | None = None
    err: str = ""
    asked: list[list[str]] = field(default_factory=list)
    read: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, argv: Sequence[Any], *, env: dict[str, str], cwd: Path, **_: float) -> Result:
        assert env["SQUAWK_DISABLE_GITHUB_ANNOTATIONS"] == "1"
        self.asked.append([str(word) for word in argv[1:]])
        files = sorted(cwd.glob(str(argv[-1])))
        self.read.append({path.relative_to(cwd).as_posix(): path.read_text(encoding="utf-8") for path in files})
        said = [
            {"file": path, "line": 4, "level": "Warning", "message": "a\n b", "help": None, "rule_name": "r"}
            for path in self.read[-1]
        ]
        return Result(code=1, out=json.dumps(said) if self.out is None else self.out, err=self.err)


def text(file: str, sql: str = "SELECT 1;", *, in_transaction: bool = True) -> Text:
    return Text(file=file, sql=sql, in_transaction=in_transaction)


def test_one_process_for_each_mode_and_findings_by_the_files_own_names() -> None:
    run = Fake()
    texts = [text("0001_a.sql"), text("0002_b.sql", in_transaction=False), text("parts/x y.sql", "SELECT 'ü';")]
    found = squawk.lint(texts, Rules(), env={}, run=run)
    assert [words[-2:] for words in run.asked] == [
        ["--assume-in-transaction", "in/*.sql"],
        ["--no-assume-in-transaction", "out/*.sql"],
    ]
    assert [list(read.values()) for read in run.read] == [["SELECT 1;", "SELECT 'ü';"], ["SELECT 1;"]]
    assert [finding.file for finding in found] == ["0001_a.sql", "parts/x y.sql", "0002_b.sql"]
    assert found[0] == Finding(file="0001_a.sql", line=5, level="warning", rule="r", message="a b")


@pytest.mark.parametrize(
    ("in_transaction", "expected"), [(True, "--assume-in-transaction"), (False, "--no-assume-in-transaction")]
)
def test_no_process_for_a_mode_that_no_file_has(in_transaction: bool, expected: str) -> None:
    run = Fake()
    squawk.lint([text("a", in_transaction=in_transaction)], Rules(), env={}, run=run)
    ((*_, mode, _),) = run.asked
    assert mode == expected
    assert squawk.lint([], Rules(), env={}, run=run) == []
    assert len(run.asked) == 1


def test_the_users_rules_come_on_top_of_ours() -> None:
    run = Fake()
    wanted = Rules(excluded=("prefer-text-field", "transaction-nesting"), included=("require-table-schema",), postgres="15.0")
    squawk.lint([text("a")], wanted, env={}, run=run)
    ((reporter, config, exclude, *others, _, _),) = run.asked
    assert (reporter, config) == ("--reporter=json", "--config=none.toml")
    assert exclude == f"--exclude={','.join(squawk.EXCLUDED)},prefer-text-field"
    assert others == ["--include=require-table-schema", "--pg-version=15.0"]


def test_a_comment_does_not_change_the_mode() -> None:
    run = Fake()
    squawk.lint([text("a", "-- squawk-enable-assume-in-transaction\n-- squawk-ignore x\n")], Rules(), env={}, run=run)
    assert run.read == [{"in/000000.sql": "-- squawk enable-assume-in-transaction\n-- squawk-ignore x\n"}]


@pytest.mark.parametrize(("err", "said"), [("\nerror: invalid rule x\nmore", "invalid rule x"), ("", "exit code 1")])
def test_what_is_no_report_is_a_failure(err: str, said: str) -> None:
    with pytest.raises(OpsError, match=said) as raised:
        squawk.lint([text("a")], Rules(source=Path("x/.squawk.toml")), env={}, run=Fake(out="", err=err))
    assert "x/.squawk.toml" in raised.value.hint.replace("\\", "/")


def test_the_nearest_rules_above_a_folder_are_taken(folder: Path) -> None:
    (folder.parent / ".squawk.toml").write_text('excluded_rules = ["far"]\nexcluded_paths = ["*"]\n', encoding="utf-8")
    assert squawk.rules(folder).excluded == ("far",)
    (folder / ".squawk.toml").write_text('included_rules = ["near"]\npg_version = "15.0"\n', encoding="utf-8")
    expected = Rules(source=folder / ".squawk.toml", included=("near",), postgres="15.0")
    assert squawk.rules(folder) == expected
