"""The flags of tasks, as Invoke has them. A task gives their help away once, to whoever asks first; so copies are asked."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import tasks

if TYPE_CHECKING:
    from invoke.parser.argument import Argument
    from invoke.parser.context import ParserContext


def arguments(task: str) -> list[Argument]:
    """The flags of a task, and its bare words."""
    return list(copy.deepcopy(tasks.namespace[task]).get_arguments())


def contexts() -> list[ParserContext]:
    """All tasks, for a parser."""
    return copy.deepcopy(tasks.namespace).to_contexts()
