"""What a task is, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from havoc_core.registry import Shelf
from havoc_eval.language_model import LanguageModel

TASKS = Shelf("havoc_eval.tasks", setting="task", thing="a task")

TOTAL = "total"
"""Group of the score over everything in a task."""
UNTOUCHED = "untouched"
"""Group of the score over the items that were not found in the training text."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number with its interval."""

    group: str
    """What it is about: a group of held-out text, a family of problems, or TOTAL."""
    metric: str
    """"bits_per_byte" (less is better) or "accuracy" (in [0, 1])."""
    value: float
    low: float | None
    """Ends of the 95 % interval; None where one document is all there is, which says nothing about others."""
    high: float | None
    baseline: float | None = None
    """What knowing nothing scores; None where that has no meaning."""
    counts: dict[str, int] = field(default_factory=dict)
    """What it was measured on, such as {"documents": 20, "bytes": 40000}."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model answered to one problem."""

    group: str
    """The family."""
    prompt: str
    expected: str
    text: str
    """All that the model said."""
    extracted: str | None
    """What was taken for its answer; None: there was none."""
    correct: bool
    reason: str
    """Why it counts as right or wrong."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What a task found."""

    task: str
    version: int
    """Of the task: results of different versions are not compared."""
    scores: tuple[Score, ...]
    """One for each group, sorted by name, then the total."""
    replies: tuple[Reply, ...] = ()
    notes: tuple[str, ...] = ()
    """What the reader of the numbers must know, in sentences."""
    touched: tuple[str, ...] | None = None
    """Prompts of the items that were found in the training text: () is the proof that there are none. None: it was not
    looked."""
    untouched: Score | None = None
    """The score over the other items; None where that is the total, where no item is left, or where it was not looked."""

    @property
    def total(self) -> Score:
        """The score over everything."""
        return self.scores[-1]


class Task(Protocol):
    """Something that a model is measured on. A file on the shelf gives one: `Options` and `build(options)`."""

    @property
    def name(self) -> str:
        """The file in havoc_eval/tasks/."""

    @property
    def version(self) -> int:
        """Raised whenever the same model would score differently."""

    def run(self, model: LanguageModel) -> TaskResult:
        """Measure a model. The same model gives the same result."""
