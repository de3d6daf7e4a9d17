"""What is mutated is the module as it is, and a survivor is known by its lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests import mutation
from tests.conftest import ROOT
from tests.mutation import Mutant

DIFF = """\
# scripts.sql.x_a__mutmut_1: survived
--- scripts/sql.py
+++ scripts/sql.py
@@ -1,2 +1,2 @@
 def a():
-    return -1
+    return +1
"""
DECORATED = """\
class A:
    @property
    def a(self):
        return [1]

    @cached_property
    def b(self):
        return 2
    @staticmethod
    def c():
        @property
        def d(self): pass
"""
UNDECORATED = """\
class A:
    def a(self):
        return [1]
    a = property(a)

    def b(self):
        return 2
    b = cached_property(b)
    @staticmethod
    def c():
        def d(self): pass
        d = property(d)
"""


def test_a_diff_is_the_lines_that_it_changes() -> None:
    assert mutation.of_diff("sql", DIFF) == Mutant("sql", "return -1", "return +1")


def test_a_property_is_made_behind_its_function() -> None:
    assert mutation.undecorated(DECORATED) == UNDECORATED


def test_each_explanation_is_about_a_line_of_its_module() -> None:
    explained = mutation.explained(mutation.EXPLAINED.read_text(encoding="utf-8"))
    for mutant, why in explained:
        lines = (ROOT / "scripts" / f"{mutant.module}.py").read_text(encoding="utf-8").splitlines()
        assert set(mutant.line.splitlines()) <= {line.strip() for line in lines}, mutant
        assert why


def test_a_module_that_is_not_mutated_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutation.main(["sql", "sqll"]) == 2
    assert "sqll; there are sql, dsn," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("survivors", "code", "said"),
    [
        ([], 1, "explains what is no survivor"),
        ([DIFF], 0, ""),
        ([DIFF, DIFF.replace("-1", "-2")], 1, "return -2"),
        ([DIFF] * 2, 1, DIFF),
    ],
)
def test_only_survivors_that_are_explained_may_stay(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    survivors: list[str],
    code: int,
    said: str,
) -> None:
    path = tmp_path / "mutants.toml"
    path.write_text("[[explained]]\nmodule = 'sql'\nline = 'return -1'\nmutant = 'return +1'\nwhy = 'x'\n", encoding="utf-8")
    found = [(mutation.of_diff("sql", diff), diff) for diff in survivors]
    monkeypatch.setattr(mutation, "EXPLAINED", path)
    monkeypatch.setattr(mutation, "tried", lambda module: (Counter({"killed": 3, "survived": len(found)}), found))
    assert mutation.main(["sql"]) == code
    out = capsys.readouterr().out
    assert said in out
    assert out.splitlines()[-1].split()[:5] == ["sql", str(3 + len(found)), "3", str(len(found)), str(min(len(found), 1))]
