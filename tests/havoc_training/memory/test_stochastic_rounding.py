"""Random bits by counter, and rounding to bfloat16 with them and without."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from havoc_training.memory.stochastic_rounding import (
    keys_of,
    lies_within,
    random_bits,
    round_stochastically,
    round_to_nearest,
    round_with_bits,
    scramble,
    seed_of,
)

MAX_BFLOAT16 = 3.3895313892515355e38  # 0x7F7F
patterns = st.integers(0, 2**32 - 1)


def bits_of(count, *, seed=1, first=0):
    return random_bits(count, seed=seed, first=first, device="cpu")


def from_patterns(*numbers):
    return torch.tensor([n - 2**32 if n >= 2**31 else n for n in numbers], dtype=torch.int32).view(torch.float32)


def sigmas_off_uniform(counts):
    """Chi-square against equal counts, in standard deviations from its mean."""
    counts = np.asarray(counts, dtype=np.float64)
    freedom = counts.size - 1
    chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    return abs(chi_square - freedom) / math.sqrt(2 * freedom)


def sigmas_off_independence(one, other):
    """Of the upper four bits of two streams, as a table of 16 x 16."""
    table = np.bincount((((one >> 12) << 4) | (other >> 12)).numpy(), minlength=256)
    return sigmas_off_uniform(table)


# Random bits. Seeds are fixed, so the statistics never change; 4 standard deviations are exceeded once in 15,000 trials.


def test_every_16_bit_number_is_as_frequent_as_any_other():
    assert sigmas_off_uniform(np.bincount(bits_of(2**22).numpy(), minlength=65536)) < 4


def test_bits_are_uniform_at_other_seeds_and_places_too():
    for seed, first in ((0, 0), (2**64 - 1, 7), (12345, 2**31 - 2**17), (12345, 2**32 - 2**17), (3, 10**12)):
        counts = np.bincount((bits_of(2**18, seed=seed, first=first) >> 6).numpy(), minlength=1024)
        assert sigmas_off_uniform(counts) < 4, (seed, first)


def test_no_two_of_the_sixteen_bits_go_together():
    n = 2**20
    signs = 1.0 - 2.0 * ((bits_of(n)[:, None] >> torch.arange(16)) & 1).float()
    together = (signs.T @ signs / n - torch.eye(16)).abs().max()
    assert together < 5 / math.sqrt(n)  # 120 pairs: 5 standard deviations


@pytest.mark.parametrize("distance", [2**power for power in range(21)] + [3, 255, 1000])
def test_neighbours_are_independent(distance):
    n = 2**20
    assert sigmas_off_independence(bits_of(n), bits_of(n, first=distance)) < 4


@pytest.mark.parametrize("other", [0, 2, 3, 257, 1 + 2**16, 1 + 2**32, 1 + 2**63])
def test_streams_of_similar_seeds_are_independent(other):
    n = 2**20
    assert sigmas_off_independence(bits_of(n, seed=1), bits_of(n, seed=other)) < 4


def test_a_stream_is_not_another_one_read_from_a_different_place():
    """With a single key added to the counter, every seed would read the same sequence from a place of its own."""
    n = 2**20
    one, other = bits_of(n, seed=5).long(), bits_of(n, seed=6).long()
    triples = {tuple(t) for t in torch.stack([other[:1000], other[1:1001], other[2:1002]], dim=1).tolist()}
    found = one[:-2] * 2**32 + one[1:-1] * 2**16 + one[2:]
    wanted = torch.tensor([a * 2**32 + b * 2**16 + c for a, b, c in triples])
    # 10**6 places x 1000 triples in 2**48 possible ones: 4e-6 hits by chance.
    assert not torch.isin(found, wanted).any()


@pytest.mark.parametrize("bit", range(32))
def test_one_changed_bit_of_the_counter_changes_half_of_the_bits(bit):
    n = 2**16
    counters = torch.arange(n, dtype=torch.int32) * 65537
    flipped = counters ^ torch.tensor(1 << bit).to(torch.int32)
    keys = keys_of(9)
    difference = scramble(counters, *keys) ^ scramble(flipped, *keys)
    share = ((difference[:, None] >> torch.arange(16)) & 1).float().mean(dim=0)
    assert (share - 0.5).abs().max() < 0.02  # 10 standard deviations; a weak mixer is off by tenths


def test_counters_that_differ_in_upper_bits_alone_are_mixed_as_well():
    numbers = scramble(torch.arange(2**16, dtype=torch.int32) << 16, *keys_of(4))
    assert sigmas_off_uniform(np.bincount((numbers >> 8).numpy(), minlength=256)) < 4
    assert sigmas_off_uniform(np.bincount((numbers & 255).numpy(), minlength=256)) < 4


@given(first=st.integers(0, 2**40), cuts=st.lists(st.integers(0, 300), max_size=4), seed=st.integers(0, 2**64 - 1))
def test_pieces_have_the_bits_of_the_whole(first, cuts, seed):
    whole = bits_of(300, seed=seed, first=first)
    edges = sorted({0, 300, *cuts})
    pieces = [bits_of(b - a, seed=seed, first=first + a) for a, b in zip(edges, edges[1:], strict=False)]
    assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("edge", [2**31, 2**32, 2**33])
def test_pieces_have_the_bits_of_the_whole_where_the_counter_wraps(edge):
    whole = bits_of(200, seed=8, first=edge - 100)
    assert torch.equal(whole, torch.cat([bits_of(100, seed=8, first=edge - 100), bits_of(100, seed=8, first=edge)]))


def test_places_four_billion_apart_have_other_bits():
    assert sigmas_off_independence(bits_of(2**18, first=0), bits_of(2**18, first=2**32)) < 4
    assert not torch.equal(bits_of(64, first=0), bits_of(64, first=2**32))


def test_the_bits_never_change():
    """A resumed run must round as the run that was interrupted: this is part of the format."""
    expected = [1932, 27464, 20071, 23990, 36734, 2781]
    assert bits_of(6, seed=42, first=1000).tolist() == expected


def test_bits_are_the_mixer_worked_out_in_unlimited_integers():
    def reference(seed, place):
        first_key, second_key = keys_of(seed, place)
        x = (place + first_key) % 2**32
        x = ((x ^ (x >> 17)) * 0xED5AD4BB + second_key) % 2**32
        x = ((x ^ (x >> 11)) * 0xAC4C1B51) % 2**32
        x = ((x ^ (x >> 15)) * 0x31848BAB) % 2**32
        return x >> 16

    for first in (0, 2**31 - 20, 2**32 - 20, 5 * 2**32 + 3):
        assert bits_of(40, seed=77, first=first).tolist() == [reference(77, first + i) for i in range(40)]


def test_no_bits_are_no_bits():
    assert bits_of(0).shape == (0,)


def test_seeds_differ_by_run_name_step_and_use():
    variants = [
        (run, name, step, what)
        for run in (0, 1, 42)
        for name in ("blocks.0.attention.q.weight", "blocks.1.attention.q.weight", "")
        for step in (0, 1, 11, 10**6)
        for what in ("weight", "first moment", "second moment", "gradient")
    ]
    assert len({seed_of(*variant) for variant in variants}) == len(variants)


def test_the_parts_of_a_seed_do_not_run_into_each_other():
    assert seed_of(1, "1", 2, "x") != seed_of(11, "", 2, "x")
    assert seed_of(0, "a', 1, 'b", 1, "b") != seed_of(0, "a", 1, "b', 1, 'b")


def test_a_seed_never_changes():
    assert seed_of(42, "embedding.weight", 7, "weight") == 3792009344235826503


# Rounding, stochastically.


@pytest.mark.parametrize("upper", [0x0000, 0x0001, 0x007F, 0x0080, 0x3F80, 0x3FFF, 0x4049, 0x7F7E])
@pytest.mark.parametrize("sign", [0x0000, 0x8000])
@pytest.mark.parametrize("lower", [0x0000, 0x0001, 0x1234, 0x7FFF, 0x8000, 0xFFFF])
def test_of_all_random_numbers_exactly_the_share_that_is_dropped_rounds_up(upper, sign, lower):
    """Zero and subnormals, powers of two, the carry into the exponent and the last value below the largest included."""
    value = from_patterns(((sign | upper) << 16) | lower).expand(65536).contiguous()
    rounded = round_with_bits(value, torch.arange(65536, dtype=torch.int32)).view(torch.int16).int() & 0xFFFF
    assert (rounded == (sign | upper) + 1).sum() == lower
    assert (rounded == (sign | upper)).sum() == 65536 - lower


@given(pattern=patterns, seed=st.integers(0, 2**32))
def test_the_result_is_one_of_the_two_neighbours(pattern, seed):
    value = from_patterns(pattern)
    rounded = round_stochastically(value, seed=seed)
    if value.isnan():
        assert rounded.isnan()
        return
    if value.isinf() or value.bfloat16().float() == value:
        assert rounded.float() == value
        return
    toward_zero = from_patterns(pattern & 0xFFFF0000)
    away = min(abs(from_patterns((pattern & 0xFFFF0000) + 0x10000).item()), MAX_BFLOAT16)
    assert abs(rounded.item()) in (abs(toward_zero.item()), away)
    assert rounded.signbit() == value.signbit()


def test_exact_values_stay():
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    exact = every[every.isfinite()]
    for seed in range(5):
        rounded = round_stochastically(exact.float(), seed=seed)
        assert torch.equal(rounded.view(torch.int16), exact.view(torch.int16))


def test_rounding_is_right_on_average():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(64, generator=generator) * 10.0 ** torch.randint(-6, 6, (64,), generator=generator)
    times = 4096
    rounded = round_stochastically(values.repeat(times), seed=3).float().view(times, 64)
    ulp = 2.0 ** (torch.floor(torch.log2(values.abs())) - 7)
    # A rounding error has at most half an ulp of deviation; 64 means stay within 4 of theirs.
    assert ((rounded.mean(dim=0) - values).abs() < 4 * 0.5 * ulp / math.sqrt(times)).all()


def test_signs_are_treated_alike():
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(round_stochastically(-values, seed=4), -round_stochastically(values, seed=4))


def test_large_values_stop_at_the_largest_bfloat16():
    huge = from_patterns(0x7F7F0000, 0x7F7F0001, 0x7F7F8000, 0x7F7FFFFF).repeat(1000)
    for values, limit in ((huge, MAX_BFLOAT16), (-huge, -MAX_BFLOAT16)):
        assert (round_stochastically(values, seed=5).float() == limit).all()


def test_infinity_and_every_nan_pass():
    """The patterns of a NaN are next to those of infinity and of minus zero: a carry would make numbers of them."""
    for pattern in (0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF):
        assert round_stochastically(from_patterns(pattern).repeat(1000), seed=6).isnan().all()
    infinite = torch.tensor([math.inf, -math.inf]).repeat(1000)
    assert torch.equal(round_stochastically(infinite, seed=6).float(), infinite)


@pytest.mark.parametrize("odd", [math.nan, math.inf, 3.4e38])
def test_an_odd_value_changes_nothing_for_the_others(odd):
    """It takes the way with masks, which is the only one where the device is not the CPU."""
    values = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    beside = torch.cat([values, torch.tensor([odd])])
    assert torch.equal(round_stochastically(values, seed=7), round_stochastically(beside, seed=7)[:-1])
    assert torch.equal(round_to_nearest(values), round_to_nearest(beside)[:-1])


def test_rounding_in_pieces_is_rounding_in_one_go():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(3))
    pieces = [round_stochastically(values[a : a + 300], seed=8, first=50 + a) for a in range(0, 1000, 300)]
    assert torch.equal(torch.cat(pieces), round_stochastically(values, seed=8, first=50))


def test_values_are_left_as_they_are():
    values = torch.randn(100, generator=torch.Generator().manual_seed(4))
    before = values.clone()
    round_stochastically(values, seed=1)
    round_to_nearest(values)
    assert torch.equal(values, before)


@pytest.mark.parametrize("rate", [1e-4, 1e-5])
def test_small_updates_arrive_stochastically_and_are_lost_to_nearest(rate):
    """100 steps of `rate` down from weights whose last bit is worth far more: the reason for all this."""
    weights = 0.5 + 0.5 * torch.rand(20_000, generator=torch.Generator().manual_seed(5))
    start = weights.bfloat16()
    stochastic, nearest = start.clone(), start.clone()
    for step in range(100):
        stochastic = round_stochastically(stochastic.float() - rate, seed=seed_of(0, "w", step, "weight"))
        nearest = round_to_nearest(nearest.float() - rate)
    moved = (start.float() - stochastic.float()).mean().item()
    # Steps of 2**-8 at random: deviation of the mean sqrt(100 * rate / 2**8 / 20000).
    assert abs(moved - 100 * rate) < 4 * math.sqrt(100 * rate / 2**8 / 20_000)
    assert (start.float() - nearest.float()).mean().item() < 0.1 * 100 * rate


# To nearest.


def test_nearest_takes_ties_away_from_zero():
    given_, expected = from_patterns(0x3F808000, 0x3F818000, 0xBF808000, 0x00008000), (0x3F81, 0x3F82, 0xBF81, 0x0001)
    assert tuple(round_to_nearest(given_).view(torch.int16).int().bitwise_and(0xFFFF).tolist()) == expected


@given(pattern=patterns)
def test_nearest_is_torch_own_rounding_but_at_ties(pattern):
    value = from_patterns(pattern)
    rounded = round_to_nearest(value)
    if value.isnan():
        assert rounded.isnan()
    elif pattern & 0xFFFF != 0x8000:
        assert rounded.view(torch.int16) == value.bfloat16().view(torch.int16)
    else:
        assert rounded.float() == from_patterns(pattern + 0x8000)


def test_nearest_keeps_the_shape_and_makes_infinities_of_the_largest_values():
    largest = struct.unpack("<f", struct.pack("<I", 0x7F7FFFFF))[0]
    rounded = round_to_nearest(torch.tensor([[1.0, -2.5], [largest, -largest]]))
    assert rounded.tolist() == [[1.0, -2.5], [math.inf, -math.inf]]


# What is known of a tensor.


def test_on_the_cpu_a_bound_is_looked_up_and_nan_is_within_none():
    assert lies_within(torch.tensor([-2.0, 2.0]), 2.0)
    assert not lies_within(torch.tensor([-2.0, 2.0]), 1.9)
    assert not lies_within(torch.tensor([-2.0, math.nan]), math.inf)


def test_elsewhere_nothing_is_known_since_the_answer_would_have_to_be_waited_for():
    assert not lies_within(torch.zeros(3, device="meta"), 1.0)


def test_nothing_is_rounded_to_nothing():
    assert round_stochastically(torch.zeros(0), seed=1).shape == (0,)
    assert round_to_nearest(torch.zeros(0)).shape == (0,)
