"""What is asked of a model may have stood in what it learnt from: the training text, and who looks it through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from havoc_problems.problem import Problem


@dataclass(frozen=True, kw_only=True)
class TrainingText:
    """What a model learnt from."""

    texts: Callable[[], Iterable[str]]
    """Gives the training documents, afresh at each call."""
    touched: Callable[[Sequence[Problem]], frozenset[str]]
    """Statements of those problems that were found in it. Documents that were left out because a problem stood in them
    count too: others like them may have stayed."""
