"""Effects in a 2^2 or 2^3 factorial experiment: one effect as a number, or the largest one as a choice.

An effect is the mean response where its contrast is +1, less the mean where it is -1. Truth: those means in
fractions, and twice the coefficient of NumPy's least-squares fit to the columns of +1 and -1.
"""

from __future__ import annotations

import itertools
import math
import string
from dataclasses import dataclass
from fractions import Fraction
from random import Random

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from havoc_problems.problem import Answer, Problem, Subject, family_random
from havoc_problems.rounding import short_text
from havoc_problems.verification import require_agreement

NAME = "factorial_effect"
FIELD: Subject = "doe"
VERSION = 1

Effect = tuple[int, ...]
"""Positions of the factors in it: (0,) is the main effect of the first, (0, 1) the interaction of the first two."""

_FACTORS = ("temperature", "pressure", "time", "speed", "concentration", "pH", "load", "feed")
_SETTINGS = (
    "A full factorial experiment at two levels gave these responses.",
    "An engineer ran every combination of two levels and measured the yield.",
    "These are the runs of an unreplicated two-level factorial design.",
    "Responses of a two-level full factorial design:",
)
_EFFECT_GUESS_RATE = 0.017
"""Share of the most frequent effect among 20,000 seeds with the default options, rounded up."""


class Options(BaseModel):
    """How many factors there are, and how large the responses get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_factors: int = Field(default=3, ge=2, le=3)
    """There are two factors, or up to this many."""
    max_response: int = Field(default=40, ge=20, le=500)
    """Responses are whole, from 1 to this."""


@dataclass(frozen=True)
class Experiment:
    """Factors and the response of every run, the first factor changing fastest (standard order)."""

    factors: tuple[str, ...]
    responses: tuple[int, ...]

    def levels(self) -> list[tuple[int, ...]]:
        """-1 or +1 of every factor, one tuple a run."""
        return [run[::-1] for run in itertools.product((-1, 1), repeat=len(self.factors))]

    def sides(self, effect: Effect) -> tuple[list[int], list[int]]:
        """Responses where the contrast of the effect is +1, and where it is -1."""
        signs = [math.prod(run[i] for i in effect) for run in self.levels()]
        pairs = list(zip(signs, self.responses, strict=True))
        return [y for sign, y in pairs if sign > 0], [y for sign, y in pairs if sign < 0]

    def size(self, effect: Effect) -> Fraction:
        """The effect: mean at +1 less mean at -1."""
        plus, minus = self.sides(effect)
        return Fraction(sum(plus) - sum(minus), len(plus))

    def name(self, effect: Effect) -> str:
        """Such as "temperature", or "temperature x pressure" for an interaction."""
        return " x ".join(self.factors[i] for i in effect)


def build(seed: int, options: Options | None = None) -> Problem:
    """The problem of a seed.

    Raises:
        AssertionError: the two computations of an effect disagree.
    """
    options = options or Options()
    random = family_random(NAME, version=VERSION, seed=seed)
    number = random.randint(2, options.max_factors)
    factors = tuple(random.sample(_FACTORS, number))
    asks_choice = random.random() < 0.5
    while True:
        experiment = Experiment(factors, tuple(random.randint(1, options.max_response) for _ in range(2**number)))
        effects = _asked_effects(random, number)
        sizes = sorted((abs(experiment.size(effect)) for effect in effects), reverse=True)
        if not asks_choice or sizes[0] > sizes[1]:  # a choice needs one winner
            break
    _verify(experiment, effects, seed)
    make = _choice if asks_choice else _number
    question, solution, answer, guess_rate = make(experiment, effects)
    return Problem(
        family=NAME,
        seed=seed,
        field=FIELD,
        statement=f"{random.choice(_SETTINGS)}\n{_table(experiment)}\n{question}",
        solution=solution,
        answer=answer,
        guess_rate=guess_rate,
    )


def _asked_effects(random: Random, number: int) -> list[Effect]:
    # The main effects and one interaction of two, in a shuffled order.
    effects: list[Effect] = [(i,) for i in range(number)]
    effects.append(random.choice(list(itertools.combinations(range(number), 2))))
    random.shuffle(effects)
    return effects


def _number(experiment: Experiment, effects: list[Effect]) -> tuple[str, str, Answer, float]:
    effect = effects[0]
    kind = "main effect of" if len(effect) == 1 else "interaction effect"
    truth = experiment.size(effect)
    answer = Answer(kind="numeric", text=short_text(truth), value=float(truth))
    question = f"What is the {kind} {experiment.name(effect)}? Give the exact decimal."
    return question, f"{_rule(effects[:1])}\n{_steps(experiment, effect)}", answer, _EFFECT_GUESS_RATE


def _choice(experiment: Experiment, effects: list[Effect]) -> tuple[str, str, Answer, float]:
    names = tuple(experiment.name(effect) for effect in effects)
    largest = max(range(len(effects)), key=lambda i: abs(experiment.size(effects[i])))
    letters = string.ascii_uppercase[: len(effects)]
    listed = "\n".join(f"{letter}) {name}" for letter, name in zip(letters, names, strict=True))
    steps = "\n".join(_steps(experiment, effect) for effect in effects)
    size = short_text(abs(experiment.size(effects[largest])))
    solution = f"{_rule(effects)}\n{steps}\nThe largest size is {size}, of {names[largest]}: choice {letters[largest]}."
    question = f"Which effect is largest in size? Answer with its letter.\n{listed}"
    answer = Answer(kind="choice", text=letters[largest], choices=names)
    return question, solution, answer, 1.0 / len(effects)  # exact: the order is shuffled


def _verify(experiment: Experiment, effects: list[Effect], seed: int) -> None:
    number = len(experiment.factors)
    model = [e for size in range(number + 1) for e in itertools.combinations(range(number), size)]
    levels = np.asarray(experiment.levels(), dtype=np.float64)
    columns = np.stack([levels[:, list(effect)].prod(axis=1) for effect in model], axis=1)
    coefficients = np.linalg.lstsq(columns, np.asarray(experiment.responses, dtype=np.float64), rcond=None)[0]
    for effect in effects:
        fitted = 2.0 * float(coefficients[model.index(effect)])
        require_agreement(experiment.size(effect), fitted, problem=f"{NAME} {seed}, effect {effect}")


def _table(experiment: Experiment) -> str:
    rows = zip(experiment.levels(), experiment.responses, strict=True)
    lines = (
        ", ".join(
            f"{name} {'high' if level > 0 else 'low'}" for name, level in zip(experiment.factors, run, strict=True)
        )
        + f": {response}"
        for run, response in rows
    )
    return "\n".join(lines)


def _rule(effects: list[Effect]) -> str:
    rule = "Effect = mean at + minus mean at -."
    return f"{rule} An interaction is + where both factors agree." if any(len(e) > 1 for e in effects) else rule


def _steps(experiment: Experiment, effect: Effect) -> str:
    plus, minus = experiment.sides(effect)
    means = [Fraction(sum(side), len(side)) for side in (plus, minus)]
    written = " - ".join(f"({' + '.join(map(str, side))})/{len(side)}" for side in (plus, minus))
    worked = " - ".join(short_text(mean) for mean in means)
    return f"{experiment.name(effect)}: {written} = {worked} = {short_text(experiment.size(effect))}"
