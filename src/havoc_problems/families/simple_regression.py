"""The least-squares line through a few points. Truth: scipy.stats.linregress, and the closed form in fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from havoc_problems.problem import Answer, Problem, Subject, family_random
from havoc_problems.rounding import decimal_text, factor_text
from havoc_problems.verification import require_agreement

NAME = "simple_regression"
FIELD: Subject = "stats"
VERSION = 1
DECIMALS = 3

_PHRASES = (
    "Fit y = a + b x by least squares to the points {points}. What is the {ask}?",
    "Find the {ask} of the least-squares line through {points}.",
    "The pairs (x, y) are {points}. Compute the {ask} of the simple linear regression of y on x.",
    "A dose x gives a response y: {points}. Find the {ask} of the regression of y on x.",
    "Regress y on x for the data {points}. Give the {ask}.",
)
_ASK = " Give the answer to 3 decimals."
_GUESS_RATE = 0.006
"""Share of 20,000 seeds with the default options that the best single guess gets right, rounded up."""


class Options(BaseModel):
    """How many points there are, and how large the numbers get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_points: int = Field(default=6, ge=3, le=12)
    """There are between 3 points and this many."""
    max_value: int = Field(default=12, ge=12, le=100)
    """x and y are whole, from 0 to this; no x comes twice."""


class Sums(NamedTuple):
    """What the closed form is made of; all whole numbers."""

    n: int
    x: int
    y: int
    xx: int
    xy: int

    def below(self) -> int:
        """n Sxx - Sx^2, the denominator of both coefficients."""
        return self.n * self.xx - self.x**2

    def slope(self) -> Fraction:
        """b of y = a + b x."""
        return Fraction(self.n * self.xy - self.x * self.y, self.below())

    def intercept(self) -> Fraction:
        """a of y = a + b x."""
        return Fraction(self.y * self.xx - self.x * self.xy, self.below())


def build(seed: int, options: Options | None = None) -> Problem:
    """The problem of a seed: the slope or the intercept.

    Raises:
        AssertionError: the two computations of the line disagree.
    """
    options = options or Options()
    random = family_random(NAME, version=VERSION, seed=seed)
    count = random.randint(3, options.max_points)
    xs = sorted(random.sample(range(options.max_value + 1), count))
    ys = [random.randint(0, options.max_value) for _ in xs]
    ask = random.choice(("slope", "intercept"))
    sums = Sums(count, sum(xs), sum(ys), sum(x * x for x in xs), sum(x * y for x, y in zip(xs, ys, strict=True)))
    line = stats.linregress(xs, ys)
    require_agreement(sums.slope(), float(line.slope), problem=f"{NAME} {seed}, slope")
    require_agreement(sums.intercept(), float(line.intercept), problem=f"{NAME} {seed}, intercept")
    truth = sums.slope() if ask == "slope" else sums.intercept()
    points = ", ".join(f"({x}, {y})" for x, y in zip(xs, ys, strict=True))
    return Problem(
        family=NAME,
        seed=seed,
        field=FIELD,
        statement=random.choice(_PHRASES).format(points=points, ask=ask) + _ASK,
        solution=_solution(sums, ask, products=list(zip(xs, ys, strict=True))),
        answer=Answer(kind="numeric", text=decimal_text(truth, DECIMALS), value=float(truth), tolerance=0.001),
        guess_rate=_GUESS_RATE,
    )


def _solution(sums: Sums, ask: str, *, products: list[tuple[int, int]]) -> str:
    n, x, y, xx, xy = sums
    if ask == "slope":
        truth, name, formula = sums.slope(), "b", "(n*Sxy - Sx*Sy)"
        above, written = n * xy - x * y, f"{n}*{xy} - {x}*{y}"
    else:
        truth, name, formula = sums.intercept(), "a", "(Sy*Sxx - Sx*Sxy)"
        above, written = y * xx - x * xy, f"{y}*{xx} - {x}*{xy}"
    quotient = f"{factor_text(above)} / {sums.below()}"
    return "\n".join(
        (
            f"n = {n}",
            f"Sx = {' + '.join(str(px) for px, _ in products)} = {x}",
            f"Sy = {' + '.join(str(py) for _, py in products)} = {y}",
            f"Sxx = {' + '.join(f'{px}^2' for px, _ in products)} = {xx}",
            f"Sxy = {' + '.join(f'{px}*{py}' for px, py in products)} = {xy}",
            f"n*Sxx - Sx^2 = {n}*{xx} - {x}^2 = {sums.below()}",
            f"{formula} = {written} = {above}",
            f"{name} = {quotient} = {decimal_text(truth, DECIMALS)}",
        )
    )
