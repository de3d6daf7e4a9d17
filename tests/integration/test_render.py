"""Templates and values against GNU envsubst and against the parser that az uses; `nox -s stress` has more of them."""

from __future__ import annotations

import pytest

from tests import templates


@pytest.mark.once
def test_what_is_accepted_says_what_was_meant_and_what_is_safe_equals_envsubst() -> None:
    counts = templates.compare(200)
    assert all(counts.values()), counts
