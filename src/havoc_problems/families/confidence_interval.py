"""Student's t interval for a mean, from a small sample.

Truth: NumPy and scipy.stats.t, and fractions with a quantile found by bisection in the finite series of the
t distribution for whole degrees of freedom (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from havoc_problems.problem import Answer, Problem, Subject, family_random
from havoc_problems.rounding import decimal_text, rounded, short_text
from havoc_problems.verification import require_agreement

NAME = "confidence_interval"
FIELD: Subject = "stats"
VERSION = 1
DECIMALS = 2
CONFIDENCES = (90, 95, 99)
"""In percent."""

_PHRASES = (
    "A sample is {data}. Find the {side} limit of the {level}% t confidence interval for the mean.",
    "The measurements {data} come from a normal population. What is the {side} end of the {level}% confidence interval "
    "for its mean (sigma unknown)?",
    "For the data {data}, find the {side} bound of the two-sided {level}% confidence interval for the mean, using t.",
    "Weights in grams: {data}. Find the {side} limit of the {level}% t interval for the mean weight.",
)
_ASK = " Give the answer to 2 decimals."
_GUESS_RATE = 0.004
"""Share of 20,000 seeds with the default options that the best single guess gets right, rounded up."""


class Options(BaseModel):
    """How large the sample and its values get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_size: int = Field(default=8, ge=4, le=20)
    """Sizes lie between 4 and this."""
    max_value: int = Field(default=30, ge=20, le=1000)
    """Values are whole and lie within 10 of one another, between 1 and this."""


@dataclass(frozen=True)
class Question:
    """A sample, the confidence in percent, and the side of the interval: +1 upper, -1 lower."""

    data: list[int]
    level: int
    side: int

    def shown_steps(self) -> tuple[Fraction, Fraction, Fraction, Fraction]:
        """Mean, standard deviation, quantile and margin, rounded as the solution shows them; t as in a table."""
        size = len(self.data)
        mean = rounded(Fraction(sum(self.data), size), 4)
        deviation = rounded(math.sqrt(_sum_of_squared_deviations(self.data) / (size - 1)), 4)
        quantile = rounded(t_quantile_by_series(size - 1, level=self.level), 3)
        return mean, deviation, quantile, rounded(float(quantile * deviation) / math.sqrt(size), 4)


def build(seed: int, options: Options | None = None) -> Problem:
    """The problem of a seed: the lower or the upper limit.

    Raises:
        AssertionError: the two computations of the limit disagree.
    """
    options = options or Options()
    random = family_random(NAME, version=VERSION, seed=seed)
    while True:
        low = random.randint(1, options.max_value - 10)
        data = [random.randint(low, low + 10) for _ in range(random.randint(4, options.max_size))]
        question = Question(data, random.choice(CONFIDENCES), random.choice((-1, 1)))
        if len(set(data)) == 1:
            continue
        truth = _by_series(question)
        mean, _, _, margin = question.shown_steps()
        # Redrawn where the steps as shown would round to another last digit.
        if decimal_text(mean + question.side * margin, DECIMALS) == decimal_text(truth, DECIMALS):
            break
    require_agreement(truth, _by_scipy(question), problem=f"{NAME} {seed}")
    phrase = random.choice(_PHRASES).format(
        data=", ".join(map(str, data)), side="upper" if question.side > 0 else "lower", level=question.level
    )
    return Problem(
        family=NAME,
        seed=seed,
        field=FIELD,
        statement=phrase + _ASK,
        solution=_solution(question),
        answer=Answer(kind="numeric", text=decimal_text(truth, DECIMALS), value=truth, tolerance=0.001),
        guess_rate=_GUESS_RATE,
    )


@lru_cache(maxsize=128)
def t_quantile_by_series(degrees: int, *, level: int) -> float:
    """The t with P(|T| <= t) = level percent, for whole degrees of freedom; within 1e-12, without SciPy."""
    low, high = 0.0, 1000.0
    while high - low > 1e-13 * max(1.0, high):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _central_probability(middle, degrees) < level / 100:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _central_probability(t: float, degrees: int) -> float:
    angle = math.atan(t / math.sqrt(degrees))
    square = math.cos(angle) ** 2
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= square * (power + 1) / (power + 2)
    series = math.sin(angle) * total
    return 2 / math.pi * (angle + series) if odd else series


def _sum_of_squared_deviations(data: list[int]) -> Fraction:
    mean = Fraction(sum(data), len(data))
    return sum(((value - mean) ** 2 for value in data), Fraction(0))


def _by_series(question: Question) -> float:
    size = len(question.data)
    error = math.sqrt(_sum_of_squared_deviations(question.data) / (size - 1) / size)
    margin = t_quantile_by_series(size - 1, level=question.level) * error
    return statistics.fmean(question.data) + question.side * margin


@lru_cache(maxsize=128)
def _t_quantile_by_scipy(degrees: int, level: int) -> float:
    return float(stats.t.ppf((1 + level / 100) / 2, degrees))


def _by_scipy(question: Question) -> float:
    sample = np.asarray(question.data, dtype=np.float64)
    margin = _t_quantile_by_scipy(len(sample) - 1, question.level) * sample.std(ddof=1) / np.sqrt(len(sample))
    return float(sample.mean() + question.side * margin)


def _solution(question: Question) -> str:
    data, size = question.data, len(question.data)
    mean, deviation, quantile, margin = question.shown_steps()
    squares, total = _sum_of_squared_deviations(data), sum(value * value for value in data)
    m, s, t, e = short_text(mean, 4), short_text(deviation, 4), decimal_text(quantile, 3), short_text(margin, 4)
    limit = mean + question.side * margin
    sign = "+" if question.side > 0 else "-"
    return "\n".join(
        (
            f"n = {size}, degrees of freedom = {size} - 1 = {size - 1}",
            f"Mean = ({' + '.join(map(str, data))}) / {size} = {sum(data)} / {size} = {m}",
            f"Sum of squares = {' + '.join(f'{value}^2' for value in data)} = {total}",
            f"Sum of squared deviations = {total} - {sum(data)}^2 / {size} = {short_text(squares, 4)}",
            f"s = sqrt({short_text(squares, 4)} / {size - 1}) = {s}",
            f"t for {question.level}% and {size - 1} degrees of freedom = {t}",
            f"Margin = {t} * {s} / sqrt({size}) = {e}",
            f"Limit = {m} {sign} {e} = {short_text(limit, 4)}",
            f"Rounded to 2 decimals: {decimal_text(limit, DECIMALS)}",
        )
    )
