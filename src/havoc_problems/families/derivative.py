"""Derivatives of polynomials: of a quadratic as an expression, of a cubic at a point.

Truth: SymPy's Poly.diff, and central differences in whole numbers, which know nothing of the power rule.
"""

from __future__ import annotations

from fractions import Fraction

from pydantic import BaseModel, ConfigDict, Field
from sympy import Poly, Symbol

from havoc_problems.problem import Answer, Problem, Subject, family_random
from havoc_problems.rounding import factor_text
from havoc_problems.verification import require_agreement

NAME = "derivative"
FIELD: Subject = "math"
VERSION = 1

_EXPRESSION_PHRASES = (
    "Find the derivative of f(x) = {f}.",
    "Differentiate f(x) = {f} with respect to x.",
    "Let f(x) = {f}. What is f'(x)?",
    "What is d/dx of {f}?",
)
_POINT_PHRASES = (
    "Let f(x) = {f}. Find f'({p}).",
    "What is the slope of f(x) = {f} at x = {p}?",
    "Differentiate f(x) = {f} and evaluate the derivative at x = {p}.",
    "Find the slope of the tangent to y = {f} at x = {p}.",
)
_POINT_GUESS_RATE = 0.009
"""Share of the most frequent value of f'(p) among 20,000 seeds with the default options, rounded up."""


class Options(BaseModel):
    """How large the numbers get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_coefficient: int = Field(default=9, ge=2, le=50)
    """Coefficients are whole and at most this in size; only the leading one is never zero."""
    max_point: int = Field(default=3, ge=1, le=10)
    """The point is whole, not zero, and at most this in size."""


def build(seed: int, options: Options | None = None) -> Problem:
    """The problem of a seed.

    The degree decides the question, so that no polynomial is differentiated in a training solution and asked for
    in the exam.

    Raises:
        AssertionError: the two computations of the derivative disagree.
    """
    options = options or Options()
    random = family_random(NAME, version=VERSION, seed=seed)
    most = options.max_coefficient
    degree = random.choice((2, 3))
    leading = random.choice((-1, 1)) * random.randint(1, most)
    coefficients = [leading, *(random.randint(-most, most) for _ in range(degree))]
    derivative = _verified(coefficients, seed)
    if degree == 2:
        statement = random.choice(_EXPRESSION_PHRASES).format(f=polynomial_text(coefficients))
        answer = Answer(kind="symbolic", text=polynomial_text(derivative))
        steps = []
        guess_rate = 1.0 / (2 * most * (2 * most + 1))  # exact: the leading coefficient and the next are drawn evenly
    else:
        point = random.choice((-1, 1)) * random.randint(1, options.max_point)
        statement = random.choice(_POINT_PHRASES).format(f=polynomial_text(coefficients), p=point)
        truth = sum(c * point ** (2 - i) for i, c in enumerate(derivative))
        require_agreement(truth, _slope_by_differences(coefficients, point), problem=f"{NAME} {seed}, at {point}")
        answer = Answer(kind="numeric", text=str(truth), value=float(truth))
        steps = [_evaluation(derivative, point, truth)]
        guess_rate = _POINT_GUESS_RATE
    solution = "\n".join(
        (
            "The derivative of c x^n is n c x^(n-1); a constant has derivative 0.",
            *_power_rule(coefficients),
            f"f'(x) = {polynomial_text(derivative)}",
            *steps,
        )
    )
    return Problem(
        family=NAME,
        seed=seed,
        field=FIELD,
        statement=statement,
        solution=solution,
        answer=answer,
        guess_rate=guess_rate,
    )


def polynomial_text(coefficients: list[int]) -> str:
    """A polynomial in x, highest power first: [3, 0, -1] -> "3x^2 - 1"; [0] -> "0"."""
    text = ""
    for index, coefficient in enumerate(coefficients):
        power = len(coefficients) - 1 - index
        if coefficient == 0:
            continue
        letters = "" if power == 0 else "x" if power == 1 else f"x^{power}"
        size = "" if abs(coefficient) == 1 and power else str(abs(coefficient))
        sign = "-" if coefficient < 0 else "+"
        text += f" {sign} {size}{letters}" if text else f"{'-' if coefficient < 0 else ''}{size}{letters}"
    return text or "0"


def _verified(coefficients: list[int], seed: int) -> list[int]:
    derivative = [int(c) for c in Poly(coefficients, Symbol("x")).diff().all_coeffs()]
    # A polynomial of degree n - 1 is known from n of its values.
    for point in range(len(derivative)):
        value = sum(c * point ** (len(derivative) - 1 - i) for i, c in enumerate(derivative))
        require_agreement(value, _slope_by_differences(coefficients, point), problem=f"{NAME} {seed}, slope at {point}")
    return derivative


def _slope_by_differences(coefficients: list[int], point: int) -> Fraction:
    # Central differences with steps 1 and 2; their Richardson extrapolation is exact up to degree 4.
    def f(x: int) -> int:
        value = 0
        for coefficient in coefficients:
            value = value * x + coefficient
        return value

    near = Fraction(f(point + 1) - f(point - 1), 2)
    far = Fraction(f(point + 2) - f(point - 2), 4)
    return (4 * near - far) / 3


def _power_rule(coefficients: list[int]) -> list[str]:
    degree = len(coefficients) - 1
    lines = []
    for index, coefficient in enumerate(coefficients[:-1]):
        if coefficient:
            power = degree - index
            term = polynomial_text([coefficient] + [0] * power)
            slope = polynomial_text([coefficient * power] + [0] * (power - 1))
            lines.append(f"{term} gives {slope}")
    return lines


def _evaluation(derivative: list[int], point: int, truth: int) -> str:
    p = factor_text(point)
    a, b, c = derivative
    terms = [(f"{factor_text(a)}*{p}^2", a * point**2)]
    if b:
        terms.append((f"{factor_text(b)}*{p}", b * point))
    if c:
        terms.append((factor_text(c), c))
    written = " + ".join(text for text, _ in terms)
    worked = " + ".join(factor_text(value) for _, value in terms)
    return f"f'({point}) = {written} = {worked} = {truth}" if len(terms) > 1 else f"f'({point}) = {written} = {truth}"
