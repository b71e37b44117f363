"""Intervals against statsmodels, bootstrap against what it promises, bits per byte by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from havoc_core.statistics import (
    bits_per_byte,
    bootstrap_mean_interval,
    bootstrap_ratio_interval,
    bootstrap_ratios,
    wilson_interval,
)


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 1), (0, 1), (37, 200), (199, 200), (500, 999)])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_wilson_is_the_interval_of_statsmodels(correct: int, total: int, confidence: float) -> None:
    low, high = proportion_confint(correct, total, alpha=1.0 - confidence, method="wilson")
    interval = wilson_interval(correct, total, confidence=confidence)
    # Two formulas for one number in float64, and NormalDist's quantile is good to 1e-15 or so.
    assert interval.low == pytest.approx(low, rel=1e-9, abs=1e-12)
    assert interval.high == pytest.approx(high, rel=1e-9, abs=1e-12)


def test_wilson_ends_exactly_at_zero_and_one() -> None:
    assert wilson_interval(0, 7).low == 0.0
    assert wilson_interval(7, 7).high == 1.0
    assert wilson_interval(0, 7).high > 0.3


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_a_share_that_cannot_be_is_refused(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson_interval(correct, total)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.1, math.nan])
def test_a_confidence_outside_zero_and_one_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="a confidence lies in"):
        wilson_interval(1, 2, confidence=confidence)
    with pytest.raises(ValueError, match="a confidence lies in"):
        bootstrap_mean_interval([1.0, 2.0], seed=0, confidence=confidence)


def test_a_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    samples = generator.exponential(2.0, size=(300, 60))
    intervals = [bootstrap_mean_interval(list(sample), seed=n, num_resamples=400) for n, sample in enumerate(samples)]
    covered = sum(interval.low <= 2.0 <= interval.high for interval in intervals) / 300
    # 95 % wanted; percentiles of 60 skewed values give about 92 %, and 300 trials have a standard error of 1.5 points.
    assert 0.87 <= covered <= 0.98


def test_a_bootstrap_of_a_mean_has_the_width_of_the_normal_theory() -> None:
    values = list(np.random.default_rng(2).normal(5.0, 1.0, size=400))
    interval = bootstrap_mean_interval(values, seed=3)
    expected = 2 * 1.959964 * np.std(values) / math.sqrt(400)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.08)  # 2000 draws: a few per cent


def test_a_ratio_is_weighted_by_its_denominators() -> None:
    draws = bootstrap_ratios([10.0, 1.0], [1.0, 99.0], seed=0, num_resamples=500)
    assert {round(float(draw), 6) for draw in draws} == {10.0, 0.11, round(1 / 99, 6)}


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    over, under = [1.0, 5.0, 2.0, 8.0], [2.0, 4.0, 6.0, 1.0]
    assert bootstrap_ratio_interval(over, under, seed=4) == bootstrap_ratio_interval(over, under, seed=4)
    first, second = (bootstrap_ratios(over, under, seed=seed, num_resamples=50) for seed in (4, 5))
    assert not np.array_equal(first, second)


def test_one_item_has_an_interval_without_width() -> None:
    interval = bootstrap_ratio_interval([3.0], [2.0], seed=0)
    assert (interval.low, interval.high) == (1.5, 1.5)


def test_drawing_in_pieces_gives_as_many_draws_as_asked() -> None:
    draws = bootstrap_ratios([1.0] * 30_000, [2.0] * 30_000, seed=0, num_resamples=150)  # 133 at once, then 17
    assert draws.tolist() == [0.5] * 150


@pytest.mark.parametrize(("over", "under"), [([], []), ([1.0], [1.0, 2.0])])
def test_a_ratio_without_items_or_pairs_is_refused(over: list[float], under: list[float]) -> None:
    with pytest.raises(ValueError, match="as many denominators as numerators"):
        bootstrap_ratios(over, under, seed=0)


def test_an_item_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="not above 0"):
        bootstrap_ratios([1.0, 1.0], [1.0, 0.0], seed=0)


def test_bits_per_byte_by_hand() -> None:
    assert bits_per_byte(math.log(256.0) * 10, 10) == pytest.approx(8.0)  # a fair guess among 256 bytes
    assert bits_per_byte(0.0, 3) == 0.0


def test_bits_per_byte_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="bits per byte of 0 bytes"):
        bits_per_byte(1.0, 0)


def test_statistics_load_no_scipy() -> None:
    """Training imports this file on machines that have torch and little else."""
    code = "import sys, havoc_core.statistics; sys.exit('scipy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
