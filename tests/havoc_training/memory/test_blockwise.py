"""Moments in a byte each: error bounds, averages, blocks, and whether they keep moving."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from havoc_training.memory.blockwise import decode, encode, encode_with_bits, levels
from havoc_training.memory.stochastic_rounding import round_stochastically, round_to_nearest, seed_of

CPU = torch.device("cpu")
# Half a gap between two levels, as a share of its middle: 1/14 of 1 + 1/14, and 1/22 of 1 + 1/22.
NEAREST_BOUND = {True: 1 / 15, False: 1 / 23}
GAP_BOUND = {True: 1 / 7, False: 1 / 11}
RANGE = {True: 2.0**-18, False: 2.0**-23}
both = pytest.mark.parametrize("signed", [True, False])


def normal(count, *, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def log_uniform(count, *, decades, seed=0):
    """Positive values evenly over `decades` below 1, and 1 itself first in each block."""
    values = 10.0 ** (-decades * torch.rand(count, generator=torch.Generator().manual_seed(seed)))
    values[::256] = 1.0
    return values


def round_trip(values, *, signed, seed=None, first=0):
    return decode(*encode(values, signed=signed, seed=seed, first=first), signed=signed)


# Levels.


@both
def test_levels_rise_from_zero_to_one_and_reach_five_decades_down(signed):
    table = levels(signed=signed, device=CPU)
    positive = table[:128] if signed else table[:255]
    assert positive[0] == 0.0
    assert (positive.diff() > 0).all()
    assert positive[-1] == 1.0
    assert positive[1] == RANGE[signed] < 1e-5
    assert (positive[2:] / positive[1:-1] - 1).max() <= GAP_BOUND[signed] + 1e-6


def test_signed_levels_are_mirrored_and_one_code_of_the_other_table_is_never_written():
    signed, unsigned = levels(signed=True, device=CPU), levels(signed=False, device=CPU)
    assert torch.equal(signed[128:], -signed[:128])
    assert unsigned[255].isnan()
    assert not unsigned[:255].isnan().any()


# Errors.


@both
@pytest.mark.parametrize("block_maximum", [1.0, 3e-4, 1.7e-12, 8e20])
def test_the_relative_error_is_bounded_over_more_than_five_decades(signed, block_maximum):
    values = log_uniform(256 * 64, decades=5.4) * block_maximum
    if signed:
        values[1::2] *= -1
    nearest, stochastic = round_trip(values, signed=signed), round_trip(values, signed=signed, seed=1)
    assert ((nearest - values) / values).abs().max() <= NEAREST_BOUND[signed] + 1e-5
    assert ((stochastic - values) / values).abs().max() <= GAP_BOUND[signed] + 1e-5


@both
def test_levels_met_under_a_fake_mode_stay_in_it(signed):
    """Regression: the first table of a device was kept for all, and a fake one broke what was real, or another mode."""
    device = torch.device("meta")
    with FakeTensorMode():
        first = levels(signed=signed, device=device)
    real = levels(signed=signed, device=device)
    with FakeTensorMode() as mode:
        second = levels(signed=signed, device=device)
    assert isinstance(first, FakeTensor)
    assert not isinstance(real, FakeTensor)
    assert isinstance(second, FakeTensor)
    assert second.fake_mode is mode


@both
def test_nearest_is_the_nearest_of_all_levels(signed):
    values = normal(256 * 20)
    values = (
        values if signed else values**2 + 1e-4
    )  # within the range: below it, second moments are not rounded to zero
    codes, scales = encode(values, signed=signed, seed=None)
    table = levels(signed=signed, device=CPU).nan_to_num(math.inf)
    shares = (values.view(-1, 256) / scales[:, None]).flatten().double()
    best = (shares[:, None] - table.double()).abs().min(dim=1).values
    assert ((shares - table.double()[codes.long()]).abs() <= best + 1e-7 * shares.abs()).all()


@both
def test_stochastic_is_one_of_the_two_levels_beside_the_value(signed):
    values = normal(256 * 20).abs()
    codes, scales = encode(values, signed=signed, seed=2)
    table = levels(signed=signed, device=CPU)[: 128 if signed else 255]
    shares = (values.view(-1, 256) / scales[:, None]).flatten()
    above = torch.searchsorted(table, shares).clamp(min=1)
    assert ((codes == above) | (codes == above - 1)).all()


@both
def test_the_largest_of_a_block_is_kept_exactly(signed):
    values = normal(256 * 50, seed=3).abs() + 1e-3
    blocks = values.view(-1, 256)
    places = blocks.argmax(dim=1, keepdim=True)
    for seed in (None, *range(20)):
        decoded = round_trip(values, signed=signed, seed=seed).view(-1, 256)
        assert torch.equal(decoded.gather(1, places), blocks.gather(1, places))


@pytest.mark.parametrize("seed", [None, 4])
def test_a_second_moment_that_is_not_zero_never_becomes_zero(seed):
    """The update is divided by its root: zero would make it explode, too much only makes it small."""
    values = torch.tensor([1.0, 1e-6, 1e-8, 1e-20, 1e-38, 1e-45, 0.0]).repeat(50)[:256]
    decoded = round_trip(values, signed=False, seed=seed)
    assert (decoded[values > 0] > 0).all()
    assert (decoded[values == 0] == 0).all()
    below = (values > 0) & (values < RANGE[False])
    assert torch.equal(decoded[below], torch.full_like(decoded[below], RANGE[False]))


def test_a_tiny_first_moment_becomes_zero_or_the_smallest_level_and_is_right_on_average():
    values = torch.full((256 * 400,), -0.3 * RANGE[True])
    values[::256] = 1.0
    decoded = round_trip(values, signed=True, seed=5)
    tiny = decoded.view(-1, 256)[:, 1:] / RANGE[True]
    assert set(tiny.unique().tolist()) == {-1.0, 0.0}
    n = tiny.numel()
    assert abs(tiny.mean().item() + 0.3) < 3 * math.sqrt(0.3 * 0.7 / n)


def test_negative_second_moments_count_as_zero():
    assert round_trip(torch.tensor([1.0, -1.0, -0.0]), signed=False).tolist() == [1.0, 0.0, 0.0]


def test_signs_are_treated_alike():
    values = normal(1000)
    assert torch.equal(round_trip(-values, signed=True, seed=6), -round_trip(values, signed=True, seed=6))


# Averages.


@both
def test_stochastic_codes_are_right_on_average(signed):
    """Of 250 values over five decades, each 4,096 times; 3 standard deviations of each, with 250 chances: 4."""
    values = log_uniform(256, decades=5.0, seed=7) * 0.37
    values[0] = 0.37
    if signed:
        values[1::2] *= -1
    times = 4096
    decoded = round_trip(values.repeat(times), signed=signed, seed=8).view(times, 256).double()
    error = decoded.mean(dim=0) - values.double()
    deviation = decoded.std(dim=0) / math.sqrt(times)
    assert (error.abs() <= 4 * deviation + 1e-6 * values.abs()).all()
    relative = error / values.double()
    spread = (deviation / values.double().abs()).square().sum().sqrt() / 256
    assert relative.mean().abs() < 3 * spread


@both
def test_of_all_random_numbers_the_share_that_is_passed_rounds_up(signed):
    """Between two neighbouring levels the probability is linear in the value, within the 2**-16 that 16 bits can tell."""
    table = levels(signed=signed, device=CPU)
    every = torch.arange(65536, dtype=torch.int32)
    for low in (1, 2, 50, 125):
        for share in (0.001, 0.25, 0.5, 0.9):
            value = table[low] + share * (table[low + 1] - table[low])
            values = value.repeat(65536)
            values[::256] = 1.0
            codes, _ = encode_with_bits(values, every.clone(), signed=signed)
            codes = codes.view(-1, 256)[:, 1:].int()
            assert ((codes == low) | (codes == low + 1)).all()
            # One in 256 random numbers went to a block's largest value, evenly spread over all.
            assert abs((codes == low + 1).float().mean().item() - share) < 1e-4


# Blocks.


@both
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 512, 1000])
def test_there_is_a_byte_for_each_value_and_a_scale_for_each_begun_block(signed, count):
    codes, scales = encode(normal(count).abs(), signed=signed, seed=1)
    assert (codes.shape, codes.dtype) == ((count,), torch.uint8)
    assert (scales.shape, scales.dtype) == ((math.ceil(count / 256),), torch.float32)
    decoded = decode(codes, scales, signed=signed)
    assert (decoded.shape, decoded.dtype) == ((count,), torch.float32)


@both
@given(
    cuts=st.lists(st.integers(1, 4), max_size=3),
    seed=st.none() | st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**33),
)
def test_pieces_that_start_at_blocks_give_the_codes_of_the_whole(signed, cuts, seed, first):
    values = normal(1100)
    codes, scales = encode(values, signed=signed, seed=seed, first=first)
    edges = sorted({0, 1100, *(256 * cut for cut in cuts)})
    pieces = [
        encode(values[a:b], signed=signed, seed=seed, first=first + a) for a, b in zip(edges, edges[1:], strict=False)
    ]
    assert torch.equal(torch.cat([c for c, _ in pieces]), codes)
    assert torch.equal(torch.cat([s for _, s in pieces]), scales)


@both
def test_a_short_last_block_is_coded_as_if_zeros_followed(signed):
    values = normal(300).abs()
    padded = torch.cat([values, torch.zeros(212)])
    codes, scales = encode(values, signed=signed, seed=9)
    more, same = encode(padded, signed=signed, seed=9)
    assert torch.equal(more[:300], codes)
    assert torch.equal(same, scales)


@both
def test_zeros_stay_zeros_and_so_does_fresh_memory(signed):
    codes, scales = encode(torch.zeros(300), signed=signed, seed=10)
    assert not codes.any()
    assert torch.equal(decode(codes, scales, signed=signed), torch.zeros(300))
    fresh = decode(torch.zeros(300, dtype=torch.uint8), torch.zeros(2), signed=signed)
    assert torch.equal(fresh, torch.zeros(300))


@both
def test_an_outlier_costs_its_own_block_alone_its_range(signed):
    values = normal(512).abs() + 0.1
    clean = round_trip(values, signed=signed)
    values[3] = 1e9
    decoded = round_trip(values, signed=signed)
    assert torch.equal(decoded[256:], clean[256:])
    assert decoded[3] == 1e9
    # Below the range: first moments are lost, second moments are overestimated, which is the safe side.
    others = torch.cat([decoded[:3], decoded[4:256]])
    assert torch.equal(others, torch.full((255,), 0.0 if signed else 1e9 * RANGE[False]))


@both
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_block_with_a_value_that_is_no_number_decodes_to_nan_and_no_other_does(odd, signed):
    values = normal(700).abs()
    values[300] = odd
    decoded = round_trip(values, signed=signed, seed=11)
    assert decoded[256:512].isnan().all()
    assert not decoded[:256].isnan().any()
    assert not decoded[512:].isnan().any()


@both
def test_moments_near_the_smallest_floats_stay_clear_of_subnormals(signed):
    values = torch.tensor([1e-44, 1e-40, 1e-36, 1e-33])
    codes, scales = encode(values, signed=signed, seed=None)
    assert scales[0] * RANGE[signed] > torch.finfo(torch.float32).tiny
    decoded = decode(codes, scales, signed=signed)
    if not signed:
        assert (decoded > 0).all()
    assert decoded[-1].item() == pytest.approx(1e-33, rel=NEAREST_BOUND[signed])


# Again and again.


@both
@pytest.mark.parametrize("again", [None, 12, 13])
@pytest.mark.parametrize("scale", [1.0, 3.3e-7, 1e-30, 7e15])
def test_what_was_decoded_is_given_its_codes_back_by_nearest_and_by_chance(signed, again, scale):
    """A checkpoint that holds decoded moments loses nothing, and a step that is left out changes nothing."""
    values = normal(256 * 40, seed=14) * log_uniform(256 * 40, decades=4.0) * scale
    values = values if signed else values.square() / scale
    codes, scales = encode(values, signed=signed, seed=15)
    decoded = decode(codes, scales, signed=signed)
    codes_again, scales_again = encode(decoded, signed=signed, seed=again)
    assert torch.equal(codes_again, codes)
    assert torch.equal(decode(codes_again, scales_again, signed=signed), decoded)


@both
def test_every_code_is_given_back(signed):
    codes = torch.arange(256 if signed else 255, dtype=torch.int32).to(torch.uint8)
    for scale in (1.0, 0.3, 1.1e-5, 9.9e9):
        decoded = decode(codes, torch.tensor([scale]), signed=signed)
        again, scales = encode(decoded, signed=signed, seed=None)
        assert torch.equal(again, codes)
        assert scales.item() == torch.tensor(scale).item()


@both
@pytest.mark.parametrize("random_number", [0, 65535])
def test_no_random_number_moves_a_value_that_lies_on_a_level(signed, random_number):
    """Levels and quotients are rounded, and the smallest number took one in 65,536 a level down."""
    codes = torch.arange(256 if signed else 255, dtype=torch.int32).to(torch.uint8)
    for scale in torch.logspace(-20, 20, 200):
        decoded = decode(codes, scale.view(1), signed=signed)
        again, _ = encode_with_bits(decoded, torch.full((len(codes),), random_number, dtype=torch.int32), signed=signed)
        assert torch.equal(again, codes)


@both
def test_the_same_seed_gives_the_same_codes_and_another_seed_others(signed):
    values = normal(1000)
    one, other = encode(values, signed=signed, seed=16)[0], encode(values, signed=signed, seed=17)[0]
    assert torch.equal(one, encode(values, signed=signed, seed=16)[0])
    assert not torch.equal(one, other)


@both
@pytest.mark.parametrize("seed", [None, 18])
def test_values_are_left_as_they_are(signed, seed):
    values = normal(300)
    before = values.clone()
    encode(values, signed=signed, seed=seed)
    assert torch.equal(values, before)


# Moving: a second moment that decays from 1 to 0.25.


def decayed(beta2, keep, values):
    """Mean of the ones after 7 time constants, when 0.1 % of the way is left; larger values stay where they are."""
    ones = values == 1.0
    targets = torch.where(ones, 0.25, values)
    for step in range(int(7 / (1 - beta2))):
        values = keep(torch.lerp(targets, values, beta2), step)
    return values[ones].mean().item()


def seed_at(step):
    return seed_of(0, "w", step, "second moment")


def blocks_with_an_outlier():
    """Ones in blocks whose scale stays 100: without it, a block of equal values is always exact."""
    values = torch.ones(256 * 6)
    values[::256] = 100.0
    return values


@pytest.mark.parametrize("beta2", [0.95, 0.99, 0.999])
def test_a_second_moment_in_a_byte_arrives_stochastically(beta2):
    end = decayed(
        beta2, lambda v, step: round_trip(v, signed=False, seed=seed_at(step)), blocks_with_an_outlier()
    )  # fmt: skip
    assert end == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize(("beta2", "at_least"), [(0.95, 0.5), (0.99, 0.98), (0.999, 0.98)])
def test_a_second_moment_in_a_byte_stands_still_when_rounded_to_nearest(beta2, at_least):
    """At 0.95 where 5 % of what is left is less than half of a gap between levels, else at the first level."""
    assert decayed(beta2, lambda v, _: round_trip(v, signed=False), blocks_with_an_outlier()[:256]) > at_least


@pytest.mark.parametrize("beta2", [0.95, 0.99, 0.999])
def test_a_bfloat16_second_moment_arrives_stochastically(beta2):
    end = decayed(beta2, lambda v, step: round_stochastically(v, seed=seed_at(step)).float(), torch.ones(256))
    assert end == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize(("beta2", "stops_at"), [(0.95, 0.268), (0.99, 0.348), (0.999, 1.0)])
def test_a_bfloat16_second_moment_stops_on_the_way_when_rounded_to_nearest(beta2, stops_at):
    end = decayed(beta2, lambda v, _: round_to_nearest(v).float(), torch.ones(16))
    assert end == pytest.approx(stops_at, rel=0.01)
