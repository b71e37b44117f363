"""Bfloat16 weight and 16-bit remainder, together the float32 master."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from havoc_training.memory.split_master import join, join_into, split, split_into
from havoc_training.memory.stochastic_rounding import round_to_nearest

LOWER = torch.arange(65536, dtype=torch.int32)


def from_patterns(*numbers):
    return torch.tensor([n - 2**32 if n >= 2**31 else n for n in numbers], dtype=torch.int32).view(torch.float32)


def same_bits(one, other):
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


@pytest.mark.parametrize(
    "upper", [0x0000, 0x0001, 0x007F, 0x0080, 0x3C00, 0x3F7F, 0x3F80, 0x4049, 0x7F00, 0x7F7E, 0x7F7F]
)
@pytest.mark.parametrize("sign", [0, -0x8000])
def test_all_65536_lower_halves_come_back(upper, sign):
    """Of zero, subnormals, the carry into the exponent, and the largest values, whose working half is infinite."""
    master = (((sign + upper) << 16) | LOWER).view(torch.float32)
    working, remainder = split(master)
    assert same_bits(join(working, remainder), master)


@pytest.mark.parametrize("upper", [0x0000, 0x0080, 0x3F7F, 0x3F80, 0x7F7E])
@pytest.mark.parametrize("sign", [0, -0x8000])
def test_the_working_half_is_rounded_to_nearest_as_torch_does_but_at_exact_ties(upper, sign):
    master = (((sign + upper) << 16) | LOWER).view(torch.float32)
    working, _ = split(master)
    differs = working.view(torch.int16) != master.bfloat16().view(torch.int16)
    # At a tie torch goes to the even one of the two: down from an even upper half, up as we do from an odd one.
    assert differs.nonzero().flatten().tolist() == ([0x8000] if upper % 2 == 0 else [])
    assert torch.equal(working, round_to_nearest(master))


@given(pattern=st.integers(0, 2**32 - 1))
def test_every_pattern_that_is_a_number_or_an_infinity_comes_back(pattern):
    master = from_patterns(pattern)
    back = join(*split(master))
    assert back.isnan() if master.isnan() else same_bits(back, master)


def test_a_random_million_comes_back():
    generator = torch.Generator().manual_seed(0)
    master = torch.randint(-(2**31), 2**31, (10**6,), generator=generator).to(torch.int32).view(torch.float32)
    master = master[master.isfinite()]
    assert same_bits(join(*split(master)), master)


def test_the_remainder_is_the_lower_half_as_a_signed_number():
    master = from_patterns(0x3F800001, 0x3F807FFF, 0x3F808000, 0x3F80FFFF, 0xBF80FFFF)
    working, remainder = split(master)
    assert remainder.tolist() == [1, 32767, -32768, -1, -1]
    assert (working.view(torch.int16).int() & 0xFFFF).tolist() == [0x3F80, 0x3F80, 0x3F81, 0x3F81, 0xBF81]


def test_a_master_near_the_largest_float_is_kept_beside_an_infinite_working_half():
    master = from_patterns(0x7F7FFFFF, 0xFF7F8000)
    working, remainder = split(master)
    assert working.tolist() == [math.inf, -math.inf]
    assert same_bits(join(working, remainder), master)


def test_infinities_come_back():
    master = torch.tensor([math.inf, -math.inf])
    assert torch.equal(join(*split(master)), master)


@pytest.mark.parametrize(
    "pattern", [0x7F800001, 0x7F80FFFF, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFF8000, 0xFFFFFFFF]
)
def test_a_nan_stays_a_nan_in_both_halves_put_together(pattern):
    """Rounded by its bits, 0x7FFFFFFF would be computed with as minus zero, and nobody would notice."""
    working, remainder = split(from_patterns(pattern, 0x3F800001))
    assert working.isnan().tolist() == [True, False]
    assert remainder.tolist() == [0, 1]
    assert join(working, remainder).isnan().tolist() == [True, False]


def test_a_nan_changes_nothing_for_the_others():
    """It takes the way with masks, which is the only one where the device is not the CPU."""
    master = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    working, remainder = split(torch.cat([master, torch.tensor([math.nan])]))
    alone, rest = split(master)
    assert torch.equal(working[:-1], alone)
    assert torch.equal(remainder[:-1], rest)


def test_given_tensors_are_written_in_place_and_sources_are_left_alone():
    master = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    before = master.clone()
    room = torch.empty(4000, dtype=torch.int16)
    working, remainder = room[:2000].view(torch.bfloat16)[1000:], room[2000:3000]
    split_into(master, working=working, remainder=remainder)
    assert torch.equal(working, round_to_nearest(master))
    halves = working.clone(), remainder.clone()
    back = torch.full((1000,), math.nan)
    join_into(working, remainder, master=back)
    assert same_bits(back, master)
    assert same_bits(master, before)
    assert torch.equal(working, halves[0])
    assert torch.equal(remainder, halves[1])


def test_a_split_master_costs_four_bytes_in_the_stated_formats():
    working, remainder = split(torch.zeros(7))
    assert (working.dtype, remainder.dtype) == (torch.bfloat16, torch.int16)
    assert working.nbytes + remainder.nbytes == 4 * 7
    assert join(working, remainder).dtype == torch.float32


def test_an_update_far_below_the_last_bit_of_the_working_half_is_kept():
    master = torch.full((10,), 0.75)
    working, remainder = split(master)
    for _ in range(1000):
        working, remainder = split(join(working, remainder) - 1e-6)
    expected = torch.full((10,), 0.75)
    for _ in range(1000):
        expected -= 1e-6
    assert same_bits(join(working, remainder), expected)
    assert abs(expected[0].item() - 0.749) < 2e-5  # float32 itself rounds 1e-6 to 17 steps of 2**-24


def test_nothing_splits_into_nothing():
    working, remainder = split(torch.zeros(0))
    assert join(working, remainder).shape == (0,)
