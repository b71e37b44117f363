"""Learning-rate schedules against the formulas of the decisions."""

from __future__ import annotations

import math

import pytest

from havoc_training.schedules import choose, constant, cosine, linear, wsd

TOTAL, WARMUP, FLOOR = 1000, 100, 0.1


def decay_progress(step):
    return (step - WARMUP) / (TOTAL - WARMUP)


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_the_first_step_already_learns_and_the_last_of_the_warm_up_is_the_peak(kind):
    schedule = choose(kind, warmup_steps=WARMUP, total_steps=TOTAL, floor=FLOOR, decay_fraction=0.2)
    assert schedule(0) == 1 / WARMUP
    assert schedule(99) == 1.0
    assert [schedule(s) for s in range(WARMUP)] == [(s + 1) / WARMUP for s in range(WARMUP)]


def test_cosine_is_half_a_cosine_down_to_the_floor():
    for step in range(WARMUP, TOTAL):
        wanted = FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * decay_progress(step))) / 2
        assert cosine(step, warmup_steps=WARMUP, total_steps=TOTAL, floor=FLOOR) == pytest.approx(wanted, abs=1e-15)
    assert cosine(TOTAL, warmup_steps=WARMUP, total_steps=TOTAL, floor=FLOOR) == pytest.approx(FLOOR)
    assert cosine(550, warmup_steps=WARMUP, total_steps=TOTAL, floor=FLOOR) == pytest.approx(0.55)


def test_linear_goes_straight_down_to_the_floor():
    for step in range(WARMUP, TOTAL):
        wanted = 1 - (1 - FLOOR) * decay_progress(step)
        assert linear(step, warmup_steps=WARMUP, total_steps=TOTAL, floor=FLOOR) == pytest.approx(wanted, abs=1e-15)
    assert linear(TOTAL, warmup_steps=WARMUP, total_steps=TOTAL, floor=FLOOR) == pytest.approx(FLOOR)


def test_constant_stays_at_the_peak():
    assert {constant(step, warmup_steps=WARMUP) for step in range(99, 5000)} == {1.0}


def test_wsd_stays_at_the_peak_and_goes_down_in_its_last_part():
    rates = [
        wsd(step, warmup_steps=WARMUP, total_steps=TOTAL, decay_fraction=0.2, floor=FLOOR) for step in range(TOTAL + 1)
    ]
    assert set(rates[99:801]) == {1.0}
    for step in range(800, TOTAL + 1):
        assert rates[step] == pytest.approx(1 - 0.9 * (step - 800) / 200)


def test_wsd_whose_decay_would_begin_in_the_warm_up_decays_after_it():
    assert wsd(100, warmup_steps=100, total_steps=200, decay_fraction=1.0, floor=0.0) == 1.0
    assert wsd(150, warmup_steps=100, total_steps=200, decay_fraction=1.0, floor=0.0) == 0.5


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (1, 1), (0, 5), (5, 5), (1, 2)])
def test_the_shortest_runs_have_rates_between_zero_and_one(kind, warmup, total):
    schedule = choose(kind, warmup_steps=warmup, total_steps=total, floor=0.0, decay_fraction=0.5)
    assert all(0 < schedule(step) <= 1 for step in range(total))


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd"])
def test_beyond_the_end_the_rate_stays_at_the_floor(kind):
    schedule = choose(kind, warmup_steps=WARMUP, total_steps=TOTAL, floor=FLOOR, decay_fraction=0.2)
    assert schedule(TOTAL + 500) == pytest.approx(FLOOR)
