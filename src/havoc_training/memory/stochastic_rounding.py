"""Float32 -> bfloat16: stochastically, with bits that depend on a seed and a place alone, and to nearest.

Rounding up with the probability of the dropped part makes the rounded value right on average, so that updates smaller than
half of the last bit are not lost. Gupta et al. 2015, arXiv:1502.02551; for bfloat16 weights Zamirai et al. 2020,
arXiv:2010.06192.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

_MAX_BFLOAT16 = torch.finfo(torch.bfloat16).max
_FACTORS = (0xED5AD4BB - 2**32, 0xAC4C1B51 - 2**32, 0x31848BAB)
_SHIFTS = (17, 11, 15)
"""Of a 32-bit xor-shift-multiply mixer of three rounds (the constants of triple32, found by search: C. Wellons,
hash-prospector). With two rounds, values 4,096 places apart are not independent; the tests see it."""


def seed_of(run_seed: int, name: str, step: int, what: str) -> int:
    """Seed of one stream of bits, 0 to 2**64 - 1.

    Args:
        run_seed: of the whole run.
        name: of the parameter.
        step: optimizer step; where something is rounded several times in a step, `what` must say which time it is.
        what: is rounded: "weight", "first moment", "second moment", "gradient".
    """
    return int.from_bytes(blake2b(repr((run_seed, name, step, what)).encode(), digest_size=8).digest(), "little")


def keys_of(seed: int, place: int = 0) -> tuple[int, int]:
    """Two signed 32-bit keys for `scramble`; places 2**32 or more apart have keys of their own.

    Args:
        seed: taken modulo 2**64.
        place: number of a value in its stream, at least 0.
    """
    words = (seed % 2**64).to_bytes(8, "little") + (place >> 32).to_bytes(8, "little")
    digest = blake2b(words, digest_size=8).digest()
    return int.from_bytes(digest[:4], "little", signed=True), int.from_bytes(digest[4:], "little", signed=True)


def scramble(counters: Tensor, first_key: int | Tensor, second_key: int | Tensor) -> Tensor:
    """Counters -> 16 random bits each, in place; wrapping 32-bit arithmetic, so that every device agrees.

    A key enters before the first multiplication and one after it: with the first alone, the streams of two seeds would be
    one sequence read from two places.

    Args:
        counters: [n], int32; overwritten.
        first_key, second_key: from `keys_of`; tensors (int32 scalars) where the caller is compiled and keys change.

    Returns:
        [n], int32, 0 to 65,535: `counters` itself.
    """
    counters.add_(first_key)
    room = torch.empty_like(counters)
    for number, (shift, factor) in enumerate(zip(_SHIFTS, _FACTORS, strict=True)):
        torch.bitwise_right_shift(counters, shift, out=room)
        # A right shift of a negative number draws in ones; the mask takes them away.
        counters.bitwise_xor_(room.bitwise_and_((1 << (32 - shift)) - 1)).mul_(factor)
        if number == 0:
            counters.add_(second_key)
    # The upper half of a product depends on all bits of its factors, the lower half does not.
    return counters.bitwise_right_shift_(16).bitwise_and_(0xFFFF)


def random_bits(count: int, *, seed: int, first: int, device: torch.device | str) -> Tensor:
    """16 uniform random bits for each of `count` places.

    Value i depends on (seed, first + i) alone: a tensor that is rounded in pieces gets the bits that it gets in one go,
    and every device gives the same.

    Args:
        count: how many.
        seed: of the stream, from `seed_of`.
        first: place of the first value in the stream, at least 0.
        device: where they are made.

    Returns:
        [count], int32, 0 to 65,535.
    """
    bits = torch.arange(count, dtype=torch.int32, device=device)
    start = 0
    while start < count:
        place = first + start
        end = min(count, start + 2**32 - place % 2**32)
        # The counter is the place modulo 2**32, as a signed number, less what arange has counted already.
        offset = (place - start + 2**31) % 2**32 - 2**31
        scramble(bits[start:end].add_(offset), *keys_of(seed, place))
        start = end
    return bits


def round_stochastically(values: Tensor, *, seed: int, first: int = 0) -> Tensor:
    """Float32 -> bfloat16, up or down at random, so that the expected result is the value itself.

    Exact values stay. Magnitudes above the largest bfloat16 become the largest bfloat16; infinity and NaN pass.

    Args:
        values: [n], float32.
        seed: of the stream, from `seed_of`.
        first: place of the first value in the stream.

    Returns:
        [n], bfloat16.
    """
    return round_with_bits(values, random_bits(values.numel(), seed=seed, first=first, device=values.device))


def round_with_bits(values: Tensor, bits: Tensor) -> Tensor:
    """`round_stochastically` with given bits.

    Args:
        values: [n], float32.
        bits: [n], int32, 0 to 65,535; overwritten.

    Returns:
        [n], bfloat16.
    """
    # Added below the kept bits of sign and magnitude, they carry into the magnitude with the probability of what is dropped.
    rounded = bits.add_(values.view(torch.int32)).bitwise_right_shift_(16).to(torch.int16).view(torch.bfloat16)
    if lies_within(values, _MAX_BFLOAT16):
        return rounded
    passed = torch.where(values.isfinite(), values.clamp(-_MAX_BFLOAT16, _MAX_BFLOAT16), values).to(torch.bfloat16)
    return torch.where(values.abs() <= _MAX_BFLOAT16, rounded, passed)


def round_to_nearest(values: Tensor) -> Tensor:
    """Float32 -> bfloat16, to nearest, ties away from zero (torch's own conversion takes ties to even).

    Half of the last kept bit is added to the magnitude and the lower 16 bits are dropped. Finite magnitudes nearer to the
    next power of two than to the largest bfloat16 become infinite; infinity and NaN pass.

    Args:
        values: any shape, float32.

    Returns:
        The same shape, bfloat16.
    """
    rounded = (values.view(torch.int32) + 0x8000).bitwise_right_shift_(16).to(torch.int16).view(torch.bfloat16)
    if lies_within(values, float("inf")):
        return rounded
    return torch.where(values.isnan(), values.to(torch.bfloat16), rounded)


def lies_within(values: Tensor, bound: float) -> bool:
    """Whether all magnitudes are known to be at most `bound`; NaN is not.

    Looked up on the CPU alone, where this pass is cheap and a masked one is not. Elsewhere the answer would have to be
    waited for: there it is always False.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling() or values.numel() == 0:
        return False
    low, high = torch.aminmax(values)
    return bool(low >= -bound) and bool(high <= bound)
