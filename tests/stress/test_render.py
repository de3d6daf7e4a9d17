"""Ten thousand templates that nobody wrote by hand."""

from __future__ import annotations

import pytest

from tests import templates


@pytest.mark.timeout(3600)
def test_what_is_accepted_says_what_was_meant_and_what_is_safe_equals_envsubst() -> None:
    counts = templates.compare(10_000)
    assert min(counts.values()) > 500, counts
    assert sum(counts.values()) > 9_500, counts
