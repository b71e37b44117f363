"""Two linear equations with whole solutions. Truth: SymPy's linsolve, and Cramer's rule in fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from sympy import linsolve, symbols

from havoc_problems.problem import Answer, Problem, Subject, family_random
from havoc_problems.rounding import factor_text
from havoc_problems.verification import require_agreement

NAME = "linear_system"
FIELD: Subject = "math"
VERSION = 1

_PHRASES = (
    "Solve for {ask}: {first} and {second}.",
    "Given {first} and {second}, find {ask}.",
    "Two lines cross where {first} and {second}. What is {ask} at that point?",
    "The numbers x and y satisfy {first} and {second}. Find {ask}.",
    "Use Cramer's rule to find {ask} from the system {first} and {second}.",
)


class Options(BaseModel):
    """How large the numbers get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_solution: int = Field(default=9, ge=2, le=99)
    """x and y lie between minus this and this; all values are equally likely."""
    max_coefficient: int = Field(default=5, ge=2, le=20)
    """Coefficients are whole, not zero, and at most this in size."""


class System(NamedTuple):
    """a x + b y = e and c x + d y = f."""

    a: int
    b: int
    e: int
    c: int
    d: int
    f: int


def build(seed: int, options: Options | None = None) -> Problem:
    """The problem of a seed: find x, or y.

    Raises:
        AssertionError: the two computations of the solution disagree.
    """
    options = options or Options()
    random = family_random(NAME, version=VERSION, seed=seed)
    sizes = range(1, options.max_coefficient + 1)
    x, y = (random.randint(-options.max_solution, options.max_solution) for _ in "xy")
    while True:
        a, b, c, d = (random.choice((-1, 1)) * random.choice(sizes) for _ in "abcd")
        if a * d != b * c:
            break
    system = System(a, b, a * x + b * y, c, d, c * x + d * y)
    ask = random.choice("xy")
    truth = _verified(system, seed)[ask]
    statement = random.choice(_PHRASES).format(
        ask=ask, first=_equation(a, b, system.e), second=_equation(c, d, system.f)
    )
    return Problem(
        family=NAME,
        seed=seed,
        field=FIELD,
        statement=statement,
        solution=_solution(system, ask),
        answer=Answer(kind="numeric", text=str(truth), value=float(truth)),
        guess_rate=1.0 / (2 * options.max_solution + 1),  # exact: the solution is drawn first, evenly
    )


def _verified(system: System, seed: int) -> dict[str, Fraction]:
    a, b, e, c, d, f = system
    determinant = a * d - b * c
    cramer = {"x": Fraction(e * d - b * f, determinant), "y": Fraction(a * f - e * c, determinant)}
    x, y = symbols("x y")
    (solution,) = linsolve([a * x + b * y - e, c * x + d * y - f], x, y)
    for name, value in zip("xy", solution, strict=True):
        require_agreement(float(value), cramer[name], problem=f"{NAME} {seed}, {name}")
    return cramer


def _solution(system: System, ask: str) -> str:
    a, b, e, c, d, f = system
    below = _determinant("D", (a, d), (b, c))
    above = _determinant("Dx", (e, d), (b, f)) if ask == "x" else _determinant("Dy", (a, f), (e, c))
    top, bottom = (int(line.rsplit("= ", 1)[1]) for line in (above, below))
    last = f"{ask} = D{ask} / D = {factor_text(top)} / {factor_text(bottom)} = {top // bottom}"
    return "\n".join(("Use Cramer's rule.", below, above, last))


def _determinant(name: str, plus: tuple[int, int], minus: tuple[int, int]) -> str:
    first, second = plus[0] * plus[1], minus[0] * minus[1]
    products = " - ".join(f"{factor_text(left)}*{factor_text(right)}" for left, right in (plus, minus))
    return f"{name} = {products} = {first} - {factor_text(second)} = {first - second}"


def _equation(a: int, b: int, right: int) -> str:
    left = f"{'-' if a < 0 else ''}{_coefficient(a)}x {'-' if b < 0 else '+'} {_coefficient(b)}y"
    return f"{left} = {right}"


def _coefficient(value: int) -> str:
    return "" if abs(value) == 1 else str(abs(value))
