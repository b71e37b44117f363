"""Largest deflection of a beam under one force, in millimetres.

Truth: the textbook formulas (Gere & Goodno, Mechanics of Materials, appendix H), and SymPy integrating
EI w'' = M(x) twice with the conditions of the supports.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from random import Random

import sympy
from pydantic import BaseModel, ConfigDict, Field

from havoc_problems.problem import Answer, Problem, Subject, family_random
from havoc_problems.rounding import decimal_text, rounded, short_text
from havoc_problems.verification import require_agreement

NAME = "beam_deflection"
FIELD: Subject = "engineering"
VERSION = 1
DECIMALS = 2

MATERIALS = {"steel": 200, "aluminium": 70, "timber": 10, "cast iron": 100}
"""Young's modulus in GPa, rounded as in exercises; the statement tells it."""
DIVISORS = {"cantilever": 3, "simply supported": 48}
"""k of deflection = F L^3 / (k E I): force at the free end, force at midspan."""

_PHRASES = (
    "A {support} {material} beam of length {length} m carries a force of {force} kN {place}. "
    "E = {modulus} GPa and I = {inertia} cm^4. Find the largest deflection.",
    "A force of {force} kN acts {place} of a {support} {material} beam, {length} m long, with E = {modulus} GPa and "
    "I = {inertia} cm^4. What is its largest deflection?",
    "Compute the maximum deflection of a {support} beam of {material} (L = {length} m, E = {modulus} GPa, "
    "I = {inertia} cm^4) loaded by {force} kN {place}.",
    "How far does a {support} {material} beam bend under {force} kN {place}? Length {length} m, E = {modulus} GPa, "
    "I = {inertia} cm^4.",
)
_PLACES = {"cantilever": "at the free end", "simply supported": "at midspan"}
_ASK = " Give the answer in mm to 2 decimals."
_GUESS_RATE = 0.006
"""Share of 20,000 seeds with the default options that the best single guess gets right, rounded up."""


class Options(BaseModel):
    """How large the numbers get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_force_kn: int = Field(default=12, ge=3, le=100)
    """Forces are whole kilonewtons from 1 to this."""
    max_length_m: int = Field(default=5, ge=2, le=10)
    """Lengths lie between 1 m and this, in steps of half a metre."""


@dataclass(frozen=True)
class Beam:
    """Force in kN, length in m, modulus in GPa, second moment of area in cm^4."""

    support: str
    material: str
    force: int
    length: Fraction
    inertia: int

    def stiffness(self) -> Fraction:
        """E I in kN m^2: 1 GPa is 1e6 kN/m^2 and 1 cm^4 is 1e-8 m^4."""
        return Fraction(MATERIALS[self.material] * self.inertia, 100)

    def deflection(self, divisor: int | Fraction) -> Fraction:
        """F L^3 / (divisor E I), in mm."""
        return 1000 * self.force * self.length**3 / (divisor * self.stiffness())


def build(seed: int, options: Options | None = None) -> Problem:
    """The problem of a seed.

    Raises:
        AssertionError: the formula and the integration disagree.
    """
    options = options or Options()
    random = family_random(NAME, version=VERSION, seed=seed)
    while True:
        beam = _draw(random, options)
        truth = beam.deflection(DIVISORS[beam.support])
        # Outside, a hundredth of a millimetre says too little or small-deflection theory does not hold.
        if Fraction(1, 2) <= truth <= 60:
            break
    require_agreement(truth, beam.deflection(divisor_by_integration(beam.support)), problem=f"{NAME} {seed}")
    phrase = random.choice(_PHRASES).format(
        support=beam.support,
        material=beam.material,
        length=short_text(beam.length),
        force=beam.force,
        place=_PLACES[beam.support],
        modulus=MATERIALS[beam.material],
        inertia=beam.inertia,
    )
    text = f"{decimal_text(truth, DECIMALS)} mm"
    return Problem(
        family=NAME,
        seed=seed,
        field=FIELD,
        statement=phrase + _ASK,
        solution=_solution(beam),
        answer=Answer(kind="numeric", text=text, value=float(truth), tolerance=0.001, unit="mm"),
        guess_rate=_GUESS_RATE,
    )


@lru_cache(maxsize=4)
def divisor_by_integration(support: str) -> Fraction:
    """k of deflection = F L^3 / (k E I), from SymPy: w'' = M / (EI) with F = L = EI = 1, deflection positive."""
    x, slope, offset = sympy.symbols("x slope offset")
    # The moment is taken on 0 <= x <= 1 from the clamp, and on the left half, which symmetry mirrors.
    moment, level, still = {"cantilever": (1 - x, 0, 0), "simply supported": (-x / 2, 0, sympy.Rational(1, 2))}[support]
    turn = sympy.integrate(moment, x) + slope
    bend = sympy.integrate(turn, x) + offset
    constants = sympy.solve([turn.subs(x, still), bend.subs(x, level)], [slope, offset])
    where = 1 if support == "cantilever" else still
    deflection = sympy.Rational(bend.subs(constants).subs(x, where))
    return Fraction(int(deflection.q), int(deflection.p))


def _draw(random: Random, options: Options) -> Beam:
    return Beam(
        support=random.choice(tuple(DIVISORS)),
        material=random.choice(tuple(MATERIALS)),
        force=random.randint(1, options.max_force_kn),
        length=Fraction(random.randint(2, 2 * options.max_length_m), 2),
        inertia=50 * random.randint(2, 40),
    )


def _solution(beam: Beam) -> str:
    k = DIVISORS[beam.support]
    force, length, stiffness = str(beam.force), short_text(beam.length), short_text(beam.stiffness())
    cube = short_text(beam.length**3)
    above, below = short_text(beam.force * beam.length**3 * 1000), short_text(k * beam.stiffness())
    truth = beam.deflection(k)
    return "\n".join(
        (
            f"Deflection = F L^3 / ({k} E I)",
            f"E I = {MATERIALS[beam.material]} * {beam.inertia} / 100 = {stiffness} kN m^2",
            f"L^3 = {length}^3 = {cube} m^3",
            f"1000 * F L^3 = 1000 * {force} * {cube} = {above}",
            f"{k} E I = {k} * {stiffness} = {below}",
            f"Deflection in mm = {above} / {below} = {decimal_text(rounded(truth, DECIMALS), DECIMALS)}",
        )
    )
