"""Binomial probabilities. Truth: scipy.stats.binom, and the sum of the terms in fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from havoc_problems.problem import Answer, Problem, Subject, family_random
from havoc_problems.rounding import decimal_text, rounded, short_text
from havoc_problems.verification import require_agreement

NAME = "binomial_probability"
FIELD: Subject = "stats"
VERSION = 1
DECIMALS = 4

_PHRASES = (
    "A test has {n} independent trials, each a success with probability {p}. "
    "What is the probability of {event} successes?",
    "Each of {n} parts is defective with probability {p}, independently. "
    "Find the probability of {event} defective parts.",
    "X is binomial with n = {n} and p = {p}. Find the probability of {event} successes.",
    "A player makes {n} shots and hits each with probability {p}, independently. "
    "What is the probability of {event} hits?",
    "A survey asks {n} people; each says yes with probability {p}, independently. Find the probability of {event} yes.",
)
_ASK = " Give the answer to 4 decimals."
_GUESS_RATE = 0.012
"""Share of 20,000 seeds with the default options that the best single guess gets right, rounded up."""


class Options(BaseModel):
    """How large the numbers get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_trials: int = Field(default=12, ge=6, le=30)
    """Trials lie between 3 and this."""


class Question(NamedTuple):
    """P(X in `counts`) for X binomial(`n`, `p`); `relation` is "exactly", "at most" or "at least"."""

    n: int
    p: Fraction
    relation: str
    k: int
    counts: range


def build(seed: int, options: Options | None = None) -> Problem:
    """The problem of a seed: exactly, at most or at least k; never more than three terms to add.

    Raises:
        AssertionError: the two computations of the probability disagree.
    """
    options = options or Options()
    random = family_random(NAME, version=VERSION, seed=seed)
    while True:
        question = _draw(random, options)
        truth = sum(_term(question, k) for k in question.counts)
        # Rarer events leave no digits in four decimals; and the steps as shown must lead to the truth as rounded.
        if not Fraction(1, 200) <= truth <= Fraction(199, 200):
            continue
        shown = sum((rounded(_term(question, k), 6) for k in question.counts), Fraction(0))
        if decimal_text(shown, DECIMALS) == decimal_text(truth, DECIMALS):
            break
    require_agreement(truth, _by_scipy(question), problem=f"{NAME} {seed}")
    event = f"{question.relation} {question.k}"
    phrase = random.choice(_PHRASES).format(n=question.n, p=short_text(question.p), event=event)
    return Problem(
        family=NAME,
        seed=seed,
        field=FIELD,
        statement=phrase + _ASK,
        solution=_solution(question, shown),
        answer=Answer(kind="numeric", text=decimal_text(truth, DECIMALS), value=float(truth), tolerance=0.001),
        guess_rate=_GUESS_RATE,
    )


def _draw(random: Random, options: Options) -> Question:
    # "Exactly" asks for counts that no sum contains: a training solution that adds terms must not show the very
    # number that the exam asks for.
    relation = random.choice(("exactly", "at most", "at least"))
    n = random.randint(6 if relation == "exactly" else 3, options.max_trials)
    p = Fraction(random.randint(1, 19), 20)
    if relation == "exactly":
        k = random.randint(3, n - 3)
        return Question(n, p, relation, k, range(k, k + 1))
    few = random.randint(1, 2)
    if relation == "at most":
        return Question(n, p, relation, few, range(few + 1))
    return Question(n, p, relation, n - few, range(n - few, n + 1))


def _term(question: Question, k: int) -> Fraction:
    n, p = question.n, question.p
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def _by_scipy(question: Question) -> float:
    n, p, k = question.n, float(question.p), question.k
    if question.relation == "exactly":
        return float(stats.binom.pmf(k, n, p))
    return float(stats.binom.cdf(k, n, p) if question.relation == "at most" else stats.binom.sf(k - 1, n, p))


def _solution(question: Question, total: Fraction) -> str:
    n, p = question.n, question.p
    lines = ["P(k) = C(n,k) * p^k * (1-p)^(n-k)", f"1 - p = 1 - {short_text(p)} = {short_text(1 - p)}"]
    for k in question.counts:
        powers = f"{short_text(p)}^{k} * {short_text(1 - p)}^{n - k}"
        lines.append(f"C({n},{k}) = {math.comb(n, k)}")
        lines.append(f"P({k}) = {math.comb(n, k)} * {powers} = {decimal_text(_term(question, k), 6)}")
    if len(question.counts) > 1:
        terms = " + ".join(decimal_text(_term(question, k), 6) for k in question.counts)
        lines.append(f"Sum = {terms} = {decimal_text(total, 6)}")
    lines.append(f"Rounded to 4 decimals: {decimal_text(total, DECIMALS)}")
    return "\n".join(lines)
