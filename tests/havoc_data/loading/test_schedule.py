"""Slots -> sources: shares kept at every prefix, exact in every period, no state."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.loading.schedule import PERIOD, ExactSchedule

WEIGHTS = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.001, 1000.0), min_size=1, max_size=8)


def counts_of(schedule, length):
    which, _ = schedule.locate(np.arange(length))
    return np.array([(which == i).cumsum() for i in range(len(schedule.names))])


@settings(max_examples=15, deadline=None)
@given(WEIGHTS)
def test_after_every_prefix_each_has_had_its_share_to_within_one(weights):
    schedule = ExactSchedule(weights)
    counts = counts_of(schedule, 2 * PERIOD)
    shares = counts_of(schedule, PERIOD)[:, -1] / PERIOD  # what one period of 4096 gives
    deviation = np.abs(counts - np.outer(shares, np.arange(1, 2 * PERIOD + 1)))
    assert deviation.max() < 1


@settings(max_examples=15, deadline=None)
@given(WEIGHTS)
def test_a_period_has_the_shares_that_were_asked_for(weights):
    schedule = ExactSchedule(weights)
    counts = counts_of(schedule, PERIOD)[:, -1]
    assert counts.sum() == PERIOD
    total = sum(Fraction(w) for w in weights.values())
    exact = [Fraction(weights[name]) / total * PERIOD for name in schedule.names]
    lifted = sum(share < 1 for share in exact)  # to one slot, which the largest pay for
    for count, share in zip(counts.tolist(), exact, strict=True):
        assert count >= 1
        assert abs(count - share) < 1 + lifted


def test_60_30_10_is_exact_to_one_slot_in_4096():
    schedule = ExactSchedule({"domain": 0.6, "general": 0.3, "dialog": 0.1})
    assert counts_of(schedule, PERIOD)[:, -1].tolist() == [2457, 1229, 410]  # 2457.6, 1228.8, 409.6


def test_equal_weights_take_turns():
    which, ordinals = ExactSchedule({"a": 1.0, "b": 1.0}).locate(np.arange(6))
    assert sorted(which[:2].tolist()) == sorted(which[2:4].tolist()) == [0, 1]
    assert ordinals.tolist() == [0, 0, 1, 1, 2, 2]


@settings(max_examples=20, deadline=None)
@given(WEIGHTS, st.integers(0, 10**12))
def test_ordinals_count_the_slots_of_a_name_without_gaps(weights, start):
    schedule = ExactSchedule(weights)
    which, ordinals = schedule.locate(np.arange(start, start + 5000))
    for number in range(len(schedule.names)):
        mine = ordinals[which == number]
        assert np.array_equal(mine, np.arange(mine[0], mine[0] + len(mine))) if len(mine) else True


def test_seeking_to_slot_ten_to_the_twelve_costs_nothing_and_is_exact():
    schedule = ExactSchedule({"a": 1.0, "b": 3.0})
    which, ordinals = schedule.locate(np.array([10**12, 10**12 + 1, 10**12 + 2, 10**12 + 3]))
    assert sorted(which.tolist()) == [0, 1, 1, 1]
    assert ordinals[which == 0].tolist() == [10**12 // 4]
    assert ordinals[which == 1].tolist() == [3 * 10**12 // 4 + i for i in range(3)]


def test_a_share_of_zero_gets_no_slot():
    schedule = ExactSchedule({"a": 0.0, "b": 2.0})
    assert schedule.names == ("b",)
    which, ordinals = schedule.locate(np.arange(5))
    assert (which.tolist(), ordinals.tolist()) == ([0] * 5, [0, 1, 2, 3, 4])


def test_even_the_smallest_share_comes_in_every_period():
    counts = counts_of(ExactSchedule({"a": 1e9, "b": 1e-9, "c": 1e-9}), PERIOD)[:, -1]
    assert counts.tolist() == [PERIOD - 2, 1, 1]


@pytest.mark.parametrize("slots", [[5], [[0, 1], [2, 3]]])
def test_any_shape_of_slots_can_be_asked_for(slots):
    which, ordinals = ExactSchedule({"a": 1.0, "b": 1.0}).locate(np.array(slots))
    assert which.shape == ordinals.shape == np.array(slots).shape
