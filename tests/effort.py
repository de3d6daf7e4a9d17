"""How the work of a function grows."""

from __future__ import annotations

import time
from collections.abc import Callable


def grows_with_the_length(work: Callable[[str], object], word: str) -> bool:
    """Whether a text 16 times as long is some 16 times the work, and not 256 times."""

    def effort(count: int) -> float:
        began = time.thread_time()
        work(word * count)
        return time.thread_time() - began

    # The smallest of three, as the first may warm up.
    return min(effort(4_000) for _ in range(3)) < 64 * max(min(effort(250) for _ in range(3)), 0.0005)
