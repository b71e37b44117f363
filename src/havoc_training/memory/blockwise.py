"""Moments in eight bits: a byte for each value and a float32 scale for each block of 256.

A scale of its own keeps an outlier from costing any but its own block its precision: Dettmers et al. 2022, arXiv:2110.02861.
The levels are ours. As in a floating-point number, an octave (a factor of two) is divided evenly, so that the relative error
has one bound over many decades; a linear code would send small second moments to zero, and the update, which is divided by
their root, would explode.

                 levels in an octave   octaves   smallest level   gap to the next level   nearest is off by at most
    signed                         7        18      3.8e-6 (1/2**18)    7.7 to 14.3 %                         6.7 %
    not signed                    11        23      1.2e-7 (1/2**23)    4.8 to  9.1 %                         4.4 %

Below its smallest level a first moment is rounded to zero or to that level, stochastically or to nearest: zero is a safe
first moment. A second moment that is not zero becomes the smallest level at least: an overestimate makes a step smaller, an
underestimate makes it explode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch._guards import active_fake_mode

from havoc_training.memory.presets import INT8_BLOCK
from havoc_training.memory.stochastic_rounding import random_bits

_CELL_BITS = 23
"""Gaps between levels are numbered in fixed point with this many fractional bits: those of a float32 mantissa."""
_PATTERN_OF_ONE = 0x3F800000
_SMALLEST_SCALE = 2.0**-96
"""So that no level times its scale is a subnormal, which some devices take for zero."""


class _Code(NamedTuple):
    """How the levels between 0 and 1 lie: level k >= 1 is the (k - 1)th of those that divide each octave evenly."""

    steps: int
    """Levels in an octave."""
    octaves: int

    @property
    def smallest(self) -> float:
        return 2.0**-self.octaves


# Fixed point must hold steps * octaves + 2 cells of 2**23 in 31 bits, and a byte the numbers of the levels (and a sign).
_SIGNED = _Code(steps=7, octaves=18)
_NOT_SIGNED = _Code(steps=11, octaves=23)


def levels(*, signed: bool, device: torch.device) -> Tensor:
    """What each code stands for, as a share of its block's scale.

    Returns:
        [256], float32. Code 0 is 0; 1 is the smallest level and the last level is 1; signed codes from 128 on are the
        negatives of those from 0 on. NaN where a code is never written.
    """
    # Made anew where tensors are fake: a fake table belongs to its mode alone, and kept, it would be met outside of it.
    return _kept_table(signed, device) if active_fake_mode() is None else _table(signed, device)


def _table(signed: bool, device: torch.device) -> Tensor:
    code = _SIGNED if signed else _NOT_SIGNED
    positive = [0.0] + [
        2.0 ** (octave - code.octaves) * (1.0 + step / code.steps)
        for octave in range(code.octaves)
        for step in range(code.steps)
    ]
    positive.append(1.0)
    table = torch.full((256,), float("nan"))
    table[: len(positive)] = torch.tensor(positive)
    if signed:
        table[128 : 128 + len(positive)] = -table[: len(positive)]
    return table.to(device)


@cache
def _kept_table(signed: bool, device: torch.device) -> Tensor:
    return _table(signed, device)


def encode(values: Tensor, *, signed: bool, seed: int | None, first: int = 0) -> tuple[Tensor, Tensor]:
    """Codes and scales of moments.

    A block's scale is its largest magnitude, which is kept exactly. Pieces that start at multiples of 256 give the codes of
    the whole. A block with an infinity or a NaN decodes to NaN throughout; its codes mean nothing.

    Args:
        values: [n], float32; the last block may be short.
        signed: the first moment is; the second moment is not, and negative values count as zero.
        seed: of the stochastic rounding between neighbouring levels, which is right on average; None: the nearest level,
            which gives a decoded moment its codes back.
        first: place of the first value in the stream of the seed.

    Returns:
        [n], uint8, and [ceil(n / 256)], float32.
    """
    bits = None if seed is None else random_bits(values.numel(), seed=seed, first=first, device=values.device)
    return encode_with_bits(values, bits, signed=signed)


def encode_with_bits(values: Tensor, bits: Tensor | None, *, signed: bool) -> tuple[Tensor, Tensor]:
    """`encode` with given bits.

    Args:
        values: [n], float32.
        bits: [n], int32, 0 to 65,535, overwritten; None: the nearest level.
        signed: as for `encode`.

    Returns:
        [n], uint8, and [ceil(n / 256)], float32.
    """
    code = _SIGNED if signed else _NOT_SIGNED
    # abs_: a clamped minus zero stays one, and its pattern is not below but above all others.
    magnitudes = values.abs() if signed else values.clamp(min=0.0).abs_()
    scales = _largest(magnitudes).clamp_(min=_SMALLEST_SCALE)
    scales = torch.where(scales.isfinite(), scales, float("nan"))
    shares = _by_block(torch.div, magnitudes, scales)
    # Inside an octave a pattern grows evenly with its value, and no gap between two levels spans two octaves: so a place
    # between two levels is linear in the value, as it must be for the right average.
    places = shares.view(torch.int32) - (_PATTERN_OF_ONE - (code.octaves << _CELL_BITS))
    places.clamp_(min=0).mul_(code.steps)
    # The gap between zero and the smallest level comes below: passed evenly, or by everything that is not zero.
    if signed:
        places.add_(shares.clamp_(max=code.smallest).mul_(2.0**_CELL_BITS / code.smallest).to(torch.int32))
    else:
        places.add_(magnitudes > 0.0, alpha=1 << _CELL_BITS)
    if bits is None:
        places.add_(1 << (_CELL_BITS - 1))
    else:
        # In the middle of their 2**16 cells: a quotient that is off by its last bit stays on its level.
        shift = _CELL_BITS - 16
        places.add_(bits.bitwise_left_shift_(shift)).add_(1 << (shift - 1))
    places.bitwise_right_shift_(_CELL_BITS)
    if signed:
        places.bitwise_or_((values.view(torch.int32) >> 24).bitwise_and_(0x80))
    return places.to(torch.uint8), scales


def decode(codes: Tensor, scales: Tensor, *, signed: bool) -> Tensor:
    """The moments that codes and scales stand for.

    Args:
        codes: [n], uint8.
        scales: [ceil(n / 256)], float32.
        signed: as it was encoded.

    Returns:
        [n], float32.
    """
    table = levels(signed=signed, device=codes.device)
    return _by_block(torch.mul, table.index_select(0, codes.to(torch.int32)), scales)


def _largest(magnitudes: Tensor) -> Tensor:
    """[n] -> [ceil(n / 256)]: the largest of each block; NaN where one is NaN."""
    whole = magnitudes.numel() // INT8_BLOCK * INT8_BLOCK
    largest = magnitudes[:whole].view(-1, INT8_BLOCK).amax(dim=1)
    if whole == magnitudes.numel():
        return largest
    return torch.cat([largest, magnitudes[whole:].amax().view(1)])


def _by_block(operation: Callable[..., Tensor], values: Tensor, scales: Tensor) -> Tensor:
    """[n] and [ceil(n / 256)] -> [n]: `operation` (torch.mul or torch.div) of each value and its block's scale."""
    whole = values.numel() // INT8_BLOCK * INT8_BLOCK
    result = torch.empty_like(values)
    blocks = result[:whole].view(-1, INT8_BLOCK)
    operation(values[:whole].view(-1, INT8_BLOCK), scales[: len(blocks), None], out=blocks)
    if whole < values.numel():
        operation(values[whole:], scales[-1], out=result[whole:])
    return result
