"""The keyed shuffle: a bijection, and an order that never changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.loading.permutation import permute, spread

# (key, n, index) -> place. The order of a run's text rests on these: they are a format.
GOLDEN = {
    (b"", 1, 0): 0,
    (b"k", 2, 0): 0,
    (b"k", 2, 1): 1,
    (b"key", 3, 2): 1,
    (b"42/store/math/0", 10, 0): 3,
    (b"42/store/math/1", 10, 0): 8,
    (b"42/store/math/0", 1000, 999): 736,
    (b"\xff\x00", 4096, 1): 2224,
    (b"a", 1048577, 1048576): 379317,
    (b"a", 1000000000, 123456789): 649307739,
    (b"a", 4294967296, 2147483648): 4275586449,
    (b"a", 1099511627776, 1000000000000): 698353456425,
    (b"\xc3\x9f", 1099511627775, 7): 867510106104,
}
SPREAD = {
    (b"", 1, 0): 0,
    (b"k", 7, 3): 1,
    (b"k", 8, 0): 0,
    (b"key", 13, 12): 8,
    (b"42/store/math/0", 100, 0): 3,
    (b"42/store/math/1", 100, 0): 10,
    (b"42/store/math/0", 1001, 1000): 500,
    (b"a", 1048577, 524288): 34976,
    (b"a", 1000000000, 123456789): 787561604,
    (b"a", 1099511627776, 1000000000000): 97665720700,
}
BOTH = pytest.mark.parametrize("shuffle", [permute, spread])


@BOTH
def test_it_is_a_bijection_for_every_length_up_to_600(shuffle):
    for n in range(1, 601):
        assert np.array_equal(np.sort(shuffle(np.arange(n), n, b"key")), np.arange(n)), n


@BOTH
@settings(max_examples=60, deadline=None)
@given(n=st.integers(601, 2**40), key=st.binary(max_size=40), seed=st.integers(0, 2**32 - 1))
def test_places_are_distinct_and_inside_for_any_length(shuffle, n, key, seed):
    indices = np.unique(np.random.default_rng(seed).integers(0, n, 2000))
    places = shuffle(indices, n, key)
    assert places.dtype == np.int64
    assert places.min() >= 0
    assert places.max() < n
    assert len(np.unique(places)) == len(indices)


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_the_order_is_a_format(case):
    key, n, index = case
    assert int(permute(np.array([index]), n, key)[0]) == GOLDEN[case]


@pytest.mark.parametrize("case", SPREAD, ids=str)
def test_the_spread_order_is_a_format(case):
    key, n, index = case
    assert int(spread(np.array([index]), n, key)[0]) == SPREAD[case]


@pytest.mark.parametrize("n", [8, 13, 64, 95, 1001])
def test_every_eight_neighbours_come_one_from_each_eighth(n):
    places = spread(np.arange(n), n, b"k")
    rest = n % 8
    middle = (n - rest) // 2
    assert sorted(places[n - rest :].tolist()) == list(range(middle, middle + rest))
    without = np.where(places >= middle + rest, places - rest, places)[: n - rest]
    assert (np.sort(without.reshape(-1, 8) // (n // 8), axis=1) == np.arange(8)).all()


def test_neighbours_add_up_to_nearly_the_same():
    """For rows in order of their fill: 40 neighbours of 1,000 hold their share to within one row, in every stretch."""
    values = np.arange(1000) / 999
    sums = np.concatenate([[0], values[spread(np.arange(1000), 1000, b"k")].cumsum()])
    assert np.abs(sums[40:] - sums[:-40] - 20).max() < 1
    plain = np.concatenate([[0], values[permute(np.arange(1000), 1000, b"k")].cumsum()])
    assert np.abs(plain[40:] - plain[:-40] - 20).max() > 3


def test_one_at_a_time_is_the_same_as_all_at_once():
    together = permute(np.arange(100).reshape(4, 25), 1000, b"k")
    assert together.shape == (4, 25)
    assert [int(permute(np.array([i]), 1000, b"k")[0]) for i in range(100)] == together.ravel().tolist()
    assert [int(spread(np.array([i]), 1000, b"k")[0]) for i in range(100)] == spread(
        np.arange(100), 1000, b"k"
    ).tolist()


def test_the_indices_that_were_handed_in_stay_as_they_were():
    indices = np.arange(50, dtype=np.uint64)
    permute(indices, 50, b"k")
    spread(indices, 50, b"k")
    assert np.array_equal(indices, np.arange(50))


def test_another_key_is_another_order():
    for shuffle in (permute, spread):
        orders = {tuple(shuffle(np.arange(50), 50, f"7/store/a/{epoch}".encode()).tolist()) for epoch in range(20)}
        assert len(orders) == 20


def test_the_order_looks_random():
    """Over 2,000 keys each of 8 x 8 (index, place) pairs comes 250 times, give or take 6 standard deviations."""
    counts = np.zeros((8, 8))
    for key in range(2000):
        counts[np.arange(8), permute(np.arange(8), 8, str(key).encode())] += 1
    assert np.abs(counts - 250).max() < 6 * np.sqrt(250 * 7 / 8)


def test_neighbours_are_torn_apart():
    places = permute(np.arange(10_000), 10_000, b"k").astype(float)
    assert abs(np.corrcoef(np.arange(10_000), places)[0, 1]) < 0.05
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.05


def test_an_empty_question_has_an_empty_answer():
    assert permute(np.array([], dtype=np.int64), 10, b"k").tolist() == []
