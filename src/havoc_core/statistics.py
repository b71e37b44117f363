"""How sure a score is: intervals for shares and for bits per byte. Closed forms and numpy, no scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
"""Draws of a bootstrap: the ends of a 95 % interval then wander by about a twentieth of its width between seeds."""

_DRAWN_AT_ONCE = 4_000_000
"""Indices held at once (32 MB), however many values there are."""


@dataclass(frozen=True)
class Interval:
    """A range that covers the true value in `confidence` of all repetitions."""

    low: float
    high: float
    confidence: float


def wilson_interval(correct: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Interval for the share of successes; honest near 0 and 1 and for few trials. Wilson 1927, JASA 22, 209-212.

    Args:
        correct: successes.
        total: trials, at least one.
        confidence: in (0, 1).

    Raises:
        ValueError: there are no trials, more successes than trials, or a confidence outside (0, 1).
    """
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(f"{correct} of {total} is no share: successes lie in [0, total], and total is at least 1")
    z = _normal_quantile(confidence)
    share = correct / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1.0 - share) / total + z * z / (4 * total * total))
    scale = 1.0 + z * z / total
    # The formula gives exactly 0 and 1 at the ends; floating point would miss them by a hair.
    low = 0.0 if correct == 0 else (centre - half) / scale
    high = 1.0 if correct == total else (centre + half) / scale
    return Interval(low, high, confidence)


def bootstrap_mean_interval(
    values: Sequence[float], *, seed: int, confidence: float = 0.95, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """Percentile bootstrap of a mean. Efron 1979, Annals of Statistics 7, 1-26.

    Raises:
        ValueError: there are no values, or a confidence outside (0, 1).
    """
    draws = bootstrap_ratios(values, [1.0] * len(values), seed=seed, num_resamples=num_resamples)
    return interval_of_draws(draws, confidence=confidence)


def bootstrap_ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    seed: int,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Percentile bootstrap of sum(numerators) / sum(denominators), as nats over bytes: documents are drawn, not bytes.

    Raises:
        ValueError: as `bootstrap_ratios`, or a confidence outside (0, 1).
    """
    draws = bootstrap_ratios(numerators, denominators, seed=seed, num_resamples=num_resamples)
    return interval_of_draws(draws, confidence=confidence)


def bootstrap_ratios(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> NDArray[np.float64]:
    """sum(numerators) / sum(denominators) of samples drawn with replacement, pairs kept together.

    Args:
        numerators: of n items.
        denominators: of the same items, each above 0.
        seed: equal seeds give equal draws.
        num_resamples: how many samples.

    Returns:
        [num_resamples] float64.

    Raises:
        ValueError: there are no items, the two differ in number, or a denominator is not above 0.
    """
    over, under = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if len(over) == 0 or over.shape != under.shape:
        raise ValueError(
            f"a ratio needs as many denominators as numerators and at least one, found {len(over)} and {len(under)}"
        )
    if not (under > 0.0).all():
        raise ValueError("a denominator is not above 0: leave items without weight out")
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // len(over))
    out = np.empty(num_resamples)
    for start in range(0, num_resamples, at_once):
        stop = min(start + at_once, num_resamples)
        drawn = generator.integers(len(over), size=(stop - start, len(over)))
        out[start:stop] = over[drawn].sum(1) / under[drawn].sum(1)
    return out


def interval_of_draws(draws: NDArray[np.float64], *, confidence: float = 0.95) -> Interval:
    """The middle `confidence` of bootstrap draws.

    Raises:
        ValueError: a confidence outside (0, 1).
    """
    _normal_quantile(confidence)
    low, high = np.quantile(draws, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return Interval(float(low), float(high), confidence)


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Compression by a model: nats of its surprise / (ln 2 * UTF-8 bytes). The same for every tokenizer.

    Args:
        nats: sum of -log p over the tokens of the text.
        num_bytes: of the text, in UTF-8.

    Raises:
        ValueError: there are no bytes.
    """
    if num_bytes < 1:
        raise ValueError(f"bits per byte of {num_bytes} bytes do not exist")
    return nats / (math.log(2.0) * num_bytes)


def _normal_quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence lies in (0, 1), found {confidence}")
    return NormalDist().inv_cdf((1.0 + confidence) / 2.0)
