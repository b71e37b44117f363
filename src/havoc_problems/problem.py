"""What a problem is, and what a family of problems is."""

from __future__ import annotations

import math
import random
import string
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["numeric", "choice", "symbolic"]
Subject = Literal["math", "stats", "spc", "doe", "engineering"]

ANSWER_MARKER = "Answer:"
"""What stands before the answer, on the last line of a solution and of a reply."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The right answer to a problem, and how far from it is still right.

    Args:
        kind: how it is graded.
        text: as a careful student writes it, unit included: "12.35 mm", "B", "6x + 2".
        value: the unrounded truth in `unit`; for the kind "numeric" only.
        tolerance: relative to `value`. 0.0 means the answer is exact; otherwise half a unit in the last
            decimal of `text` is allowed on top, since that much is lost by rounding as asked.
        unit: a unit that the grader knows, such as "mm"; None for a pure number.
        choices: what the letters A, B, C ... stand for; for the kind "choice" only.

    Raises:
        ValueError: the parts do not belong to an answer of this kind.
    """

    kind: Kind
    text: str
    value: float | None = None
    tolerance: float = 0.0
    unit: str | None = None
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.text or "\n" in self.text:
            raise ValueError(f"an answer is one line of text, found {self.text!r}")
        if (self.kind == "numeric") != (self.value is not None):
            raise ValueError(
                f"an answer has a value when it is numeric and only then, found {self.kind} and {self.value}"
            )
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"the value of an answer is finite, found {self.value}")
        if not 0.0 <= self.tolerance < 1.0:
            raise ValueError(f"a tolerance lies in [0, 1), found {self.tolerance}")
        letters = string.ascii_uppercase[: len(self.choices)]
        if self.kind == "choice" and (len(self.text) != 1 or self.text not in letters):
            raise ValueError(f"the answer of a choice is one of the letters {letters!r}, found {self.text!r}")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One verified problem.

    Args:
        family: name of the family, a file in havoc_problems/families/.
        seed: what the family made it from.
        field: the subject.
        statement: what is asked; never says the answer.
        solution: the worked steps, one a line, without the line of the answer.
        answer: the truth.
        guess_rate: expected accuracy, in [0, 1], of a guesser that knows only the form of the answer and the
            best single guess; for the family's default options. A model must beat it before it knows anything.
    """

    family: str
    seed: int
    field: Subject
    statement: str
    solution: str
    answer: Answer
    guess_rate: float

    def messages(self) -> list[dict[str, str]]:
        """The problem as a dialog: the user states it; the assistant solves it and ends in `Answer: <text>`."""
        reply = f"{self.solution}\n{ANSWER_MARKER} {self.answer.text}"
        return [{"role": "user", "content": self.statement}, {"role": "assistant", "content": reply}]


class Family(Protocol):
    """Makes problems of one sort: the same seed, the same problem, on every machine."""

    @property
    def name(self) -> str:
        """The file in havoc_problems/families/, or the dotted name of a module of the user's own."""

    @property
    def field(self) -> Subject:
        """The subject."""

    @property
    def version(self) -> int:
        """Raised whenever a seed gives another problem than before."""

    def build(self, seed: int) -> Problem:
        """The problem of a seed.

        Raises:
            AssertionError: the two computations of the truth disagree; a bug of the family.
        """


def family_random(name: str, *, version: int, seed: int) -> random.Random:
    """The source of every draw of one problem; no two families, versions or seeds share a stream.

    A text as seed goes through SHA-512 inside `random.Random`, so near seeds are unrelated and
    the stream does not depend on PYTHONHASHSEED.
    """
    return random.Random(f"{name}/{version}/{seed}")
