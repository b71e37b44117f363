"""A float32 master in four bytes, two of which are the bfloat16 weight that is computed with.

The working half is the master rounded to nearest, ties away from zero. What rounding took or gave is the difference of the
bit patterns; it lies between -32,768 and 32,767 and is, as a signed number, the lower half of the master's pattern.
"""

from __future__ import annotations

import torch
from torch import Tensor

from havoc_training.memory.stochastic_rounding import lies_within, round_to_nearest


def split(master: Tensor) -> tuple[Tensor, Tensor]:
    """Working half and remainder, from which `join` restores the master.

    Every number and infinity is restored bit for bit, also the largest ones, whose working half is infinite. NaN becomes
    NaN with remainder 0: that it is NaN survives, its payload does not.

    Args:
        master: [n], float32.

    Returns:
        [n], bfloat16, and [n], int16.
    """
    working = torch.empty_like(master, dtype=torch.bfloat16)
    remainder = torch.empty_like(master, dtype=torch.int16)
    split_into(master, working=working, remainder=remainder)
    return working, remainder


def split_into(master: Tensor, *, working: Tensor, remainder: Tensor) -> None:
    """`split` into given tensors.

    Args:
        master: [n], float32; left as it is.
        working: [n], bfloat16; overwritten.
        remainder: [n], int16; overwritten.
    """
    working.copy_(round_to_nearest(master))
    remainder.copy_(master.view(torch.int32))
    if not lies_within(master, float("inf")):
        # Added to the pattern of a NaN, a remainder could make a number of it.
        remainder.masked_fill_(working.isnan(), 0)


def join(working: Tensor, remainder: Tensor) -> Tensor:
    """The master that was split.

    Args:
        working: [n], bfloat16.
        remainder: [n], int16.

    Returns:
        [n], float32.
    """
    master = torch.empty_like(working, dtype=torch.float32)
    join_into(working, remainder, master=master)
    return master


def join_into(working: Tensor, remainder: Tensor, *, master: Tensor) -> None:
    """`join` into a given tensor.

    Args:
        working: [n], bfloat16; left as it is.
        remainder: [n], int16; left as it is.
        master: [n], float32; overwritten.
    """
    bits = master.view(torch.int32)
    bits.copy_(working.view(torch.int16)).bitwise_left_shift_(16).add_(remainder)
