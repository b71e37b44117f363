"""Curves over the steps of a run: the raw values faint, their moving mean strong."""

from __future__ import annotations

import math
from collections.abc import Sequence

from havoc_report.plots import Series


def smoothed(steps: Sequence[int], values: Sequence[float], *, tone: int) -> list[Series]:
    """Every value as a faint line and their moving mean as a strong one; one line if there are few."""
    reach = len(values) // 100
    if reach == 0:
        return [Series("each step", steps, values, tone=tone)]
    return [
        Series("each step", steps, values, faint=True, tone=tone),
        Series(f"mean of {2 * reach + 1} steps", steps, moving_mean(values, reach), tone=tone),
    ]


def moving_mean(values: Sequence[float], reach: int) -> tuple[float, ...]:
    """Mean of each value and its `reach` neighbours on either side, as far as there are any.

    What is not finite is left out; NaN if nothing is left.
    """
    sums, counts = [0.0], [0]
    for value in values:
        known = math.isfinite(value)
        sums.append(sums[-1] + (value if known else 0.0))
        counts.append(counts[-1] + known)
    means = []
    for position in range(len(values)):
        first, end = max(0, position - reach), min(len(values), position + reach + 1)
        known_here = counts[end] - counts[first]
        means.append((sums[end] - sums[first]) / known_here if known_here else math.nan)
    return tuple(means)
