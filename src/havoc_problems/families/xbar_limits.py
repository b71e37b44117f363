"""Control limits of the X-bar chart from subgroup ranges: grand mean +- A2 * mean range.

Truth: A2 from the published table (Montgomery, Introduction to Statistical Quality Control, appendix VI), and
A2 = 3 / (d2 sqrt(n)) with d2, the mean range of n standard normal values, integrated by SciPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from random import Random

from pydantic import BaseModel, ConfigDict, Field
from scipy.integrate import quad
from scipy.special import ndtr

from havoc_problems.problem import Answer, Problem, Subject, family_random
from havoc_problems.rounding import decimal_text, rounded, short_text
from havoc_problems.verification import require_agreement

NAME = "xbar_limits"
FIELD: Subject = "spc"
VERSION = 1
DECIMALS = 2

A2_TABLE = {2: "1.880", 3: "1.023", 4: "0.729", 5: "0.577", 6: "0.483", 7: "0.419", 8: "0.373"}
"""Subgroup size -> A2 as printed."""

_PHRASES = (
    "Subgroups of size {n} have means {means} and ranges {ranges}. Find the {side} control limit of the X-bar chart.",
    "An X-bar and R chart uses subgroups of {n}. The subgroup means are {means} and the ranges are {ranges}. "
    "What is the {side} control limit for the means?",
    "A process is sampled in subgroups of {n} parts. Means: {means}. Ranges: {ranges}. "
    "Compute the {side} X-bar control limit with the A2 factor.",
    "With subgroup size {n}, subgroup means {means} and subgroup ranges {ranges}, find the {side} 3-sigma limit "
    "of the X-bar chart.",
)
_LIMITS = {1: ("upper", "UCL"), -1: ("lower", "LCL")}
_ASK = " Give the answer to 2 decimals."
_GUESS_RATE = 0.0025
"""Share of 20,000 seeds with the default options that the best single guess gets right, rounded up."""


class Options(BaseModel):
    """How many subgroups there are, and how large they get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_subgroup_size: int = Field(default=6, ge=3, le=8)
    """Sizes lie between 2 and this."""
    max_subgroups: int = Field(default=5, ge=3, le=12)
    """There are between 3 subgroups and this many."""


@dataclass(frozen=True)
class Question:
    """Subgroups of `size` values; means and ranges have one decimal; side is +1 upper or -1 lower."""

    size: int
    means: list[Fraction]
    ranges: list[Fraction]
    side: int

    def limit(self, a2: Fraction | float) -> float:
        """The limit that an A2 gives, unrounded."""
        count = len(self.means)
        return float(sum(self.means) / count) + self.side * float(a2) * float(sum(self.ranges) / count)

    def shown_steps(self) -> tuple[Fraction, Fraction, Fraction]:
        """Grand mean, mean range and A2 times mean range, rounded as the solution shows them."""
        mean, mean_range = (rounded(sum(v, Fraction(0)) / len(v), 4) for v in (self.means, self.ranges))
        return mean, mean_range, rounded(Fraction(A2_TABLE[self.size]) * mean_range, 4)


def build(seed: int, options: Options | None = None) -> Problem:
    """The problem of a seed: the upper or the lower limit.

    Raises:
        AssertionError: the table of A2 and the integral disagree.
    """
    options = options or Options()
    random = family_random(NAME, version=VERSION, seed=seed)
    while True:
        question = _draw(random, options)
        truth = question.limit(Fraction(A2_TABLE[question.size]))
        mean, _, margin = question.shown_steps()
        texts = {
            decimal_text(truth, DECIMALS),
            decimal_text(mean + question.side * margin, DECIMALS),
            decimal_text(question.limit(a2_by_integration(question.size)), DECIMALS),
        }
        # Redrawn where the table's third decimal, or a step as shown, decides the last digit.
        if len(texts) == 1:
            break
    table, integral = float(A2_TABLE[question.size]), a2_by_integration(question.size)
    require_agreement(table, integral, problem=f"{NAME} {seed}, A2", relative=0.0, absolute=0.0005)  # printed to 0.001
    phrase = random.choice(_PHRASES).format(
        n=question.size, means=_listed(question.means), ranges=_listed(question.ranges), side=_side(question)
    )
    return Problem(
        family=NAME,
        seed=seed,
        field=FIELD,
        statement=phrase + _ASK,
        solution=_solution(question),
        answer=Answer(kind="numeric", text=decimal_text(truth, DECIMALS), value=truth, tolerance=0.0005),
        guess_rate=_GUESS_RATE,
    )


@lru_cache(maxsize=16)
def a2_by_integration(size: int) -> float:
    """A2 of subgroups of so many values; d2 is the integral of 1 - (1 - F)^n - F^n over the line (Tippett 1925)."""

    def range_density(x: float) -> float:
        below, above = ndtr(x), ndtr(-x)
        return float(1.0 - above**size - below**size)

    d2, _ = quad(range_density, -10.0, 10.0)
    return float(3.0 / (d2 * math.sqrt(size)))


def _draw(random: Random, options: Options) -> Question:
    count = random.randint(3, options.max_subgroups)
    centre = random.randint(50, 400)
    means = [Fraction(centre + random.randint(-9, 9), 10) for _ in range(count)]
    ranges = [Fraction(random.randint(5, 40), 10) for _ in range(count)]
    return Question(random.randint(2, options.max_subgroup_size), means, ranges, random.choice((-1, 1)))


def _side(question: Question) -> str:
    return _LIMITS[question.side][0]


def _listed(values: list[Fraction]) -> str:
    return ", ".join(short_text(value) for value in values)


def _solution(question: Question) -> str:
    count, size = len(question.means), question.size
    mean, mean_range, margin = question.shown_steps()
    sign = "+" if question.side > 0 else "-"
    limit = mean + question.side * margin
    a2 = A2_TABLE[size]
    m, r, e = short_text(mean, 4), short_text(mean_range, 4), short_text(margin, 4)

    def average(values: list[Fraction]) -> str:
        total = short_text(sum(values, Fraction(0)))
        return f"({' + '.join(short_text(value) for value in values)}) / {count} = {total} / {count}"

    return "\n".join(
        (
            f"Grand mean = {average(question.means)} = {m}",
            f"Mean range = {average(question.ranges)} = {r}",
            f"A2 for subgroups of {size} = {a2}",
            f"A2 * mean range = {a2} * {r} = {e}",
            f"{_LIMITS[question.side][1]} = {m} {sign} {e} = {short_text(limit, 4)}",
            f"Rounded to 2 decimals: {decimal_text(limit, DECIMALS)}",
        )
    )
