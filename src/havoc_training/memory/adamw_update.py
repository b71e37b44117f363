"""AdamW on one piece of one parameter, whatever the format of what is kept.

What is kept is widened to float32, updated by torch's fused kernel (Loshchilov & Hutter 2019, arXiv:1711.05101), and
narrowed again. Every operation is element by element and every random bit depends on the element's index alone, so pieces
of any size, on any device, give the same bits as the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from havoc_training.memory import blockwise, split_master
from havoc_training.memory.presets import INT8_BLOCK, MemoryPlan
from havoc_training.memory.stochastic_rounding import round_stochastically, round_to_nearest, seed_of


@dataclass(frozen=True)
class Kept:
    """What is kept of some values of a parameter, all flat and of n values; formats as the memory plan has them."""

    working: Tensor
    """What is computed with: bfloat16, or float32 where it is the master itself."""
    first: Tensor
    """Mean of the gradients: float32, bfloat16, or codes."""
    second: Tensor
    """Mean of the squared gradients."""
    remainder: Tensor | None = None
    """int16: what makes a bfloat16 weight the float32 master."""
    first_scales: Tensor | None = None
    """[ceil(n / 256)] float32, with codes."""
    second_scales: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """All that is there, in a fixed order."""
        every = (self.working, self.first, self.second, self.remainder, self.first_scales, self.second_scales)
        return tuple(tensor for tensor in every if tensor is not None)

    def piece(self, start: int, count: int) -> Kept:
        """Values start .. start + count; a start is a multiple of 256."""
        values = slice(start, start + count)
        blocks = slice(start // INT8_BLOCK, -(-(start + count) // INT8_BLOCK))
        return Kept(
            self.working[values],
            self.first[values],
            self.second[values],
            None if self.remainder is None else self.remainder[values],
            None if self.first_scales is None else self.first_scales[blocks],
            None if self.second_scales is None else self.second_scales[blocks],
        )


@dataclass(frozen=True)
class Rule:
    """One update's numbers."""

    step: int
    """Of this update, counted from 1, as Adam's bias correction does."""
    betas: tuple[float, float]
    epsilon: float
    rate: float
    decay: float
    """Decoupled, times the rate."""
    left_out: Tensor | None = None
    """Float32 scalar on the device; 1: the update is not made, because a gradient was not finite."""


@dataclass(frozen=True)
class Streams:
    """Where a piece's random bits come from."""

    run_seed: int
    name: str
    """Of the parameter."""
    step: int
    first: int
    """Index of the piece's first value in the parameter."""

    def seed(self, what: str) -> int:
        """A seed for one use, independent of every other parameter, step and use."""
        return seed_of(self.run_seed, self.name, self.step, what)


@torch.no_grad()
def update(kept: Kept, gradient: Tensor, *, rule: Rule, streams: Streams, rounding: str) -> None:
    """Make one update, in place.

    Args:
        kept: n values.
        gradient: [n] float32, scaled and clipped; its values may be lost.
        rule, streams: as above.
        rounding: of bfloat16: stochastic or nearest.
    """
    master = widen_master(kept)
    first = widen_moment(kept.first, kept.first_scales, signed=True)
    second = widen_moment(kept.second, kept.second_scales, signed=False)
    adamw(
        [master], [gradient], [first], [second], [],
        [torch.full((), float(rule.step - 1), device=master.device)],
        fused=True, amsgrad=False, maximize=False, found_inf=rule.left_out,
        lr=rule.rate, beta1=rule.betas[0], beta2=rule.betas[1], weight_decay=rule.decay, eps=rule.epsilon,
    )  # fmt: skip
    _narrow_master(kept, master, streams, rounding)
    _narrow_moment(kept.first, kept.first_scales, first, streams, rounding, "first moment")
    _narrow_moment(kept.second, kept.second_scales, second, streams, rounding, "second moment")


def widen_master(kept: Kept) -> Tensor:
    """[n] float32 master; the working weight itself where that is the master."""
    if kept.remainder is not None:
        master = torch.empty(kept.working.shape, dtype=torch.float32, device=kept.working.device)
        # Where the remainder lies on the host (a checkpoint is written or read), it comes over for a moment.
        split_master.join_into(kept.working, kept.remainder.to(master.device), master=master)
        return master
    return kept.working.float()


def widen_moment(values: Tensor, scales: Tensor | None, *, signed: bool) -> Tensor:
    """[n] float32; the kept values themselves where they are float32."""
    return values.float() if scales is None else blockwise.decode(values, scales, signed=signed)


def keep_master(kept: Kept, master: Tensor) -> None:
    """Keep a given master, float32 or bfloat16; bfloat16 without a remainder takes the nearest.

    The two may lie on different devices.
    """
    if kept.remainder is not None:
        working, remainder = split_master.split(master.float())
        kept.working.copy_(working)
        kept.remainder.copy_(remainder)
    elif kept.working.dtype == torch.bfloat16:
        kept.working.copy_(master if master.dtype == torch.bfloat16 else round_to_nearest(master))
    else:
        kept.working.copy_(master)


def keep_moment(values: Tensor, scales: Tensor | None, moment: Tensor, *, signed: bool) -> None:
    """Keep a given moment, the nearest that the format has."""
    if scales is not None:
        codes, new_scales = blockwise.encode(moment.float(), signed=signed, seed=None)
        values.copy_(codes)
        scales.copy_(new_scales)
    elif values.dtype == torch.bfloat16 and moment.dtype != torch.bfloat16:
        values.copy_(round_to_nearest(moment.float()))
    else:
        values.copy_(moment)


def _narrow_master(kept: Kept, master: Tensor, streams: Streams, rounding: str) -> None:
    if kept.remainder is not None:
        split_master.split_into(master, working=kept.working, remainder=kept.remainder)
    elif kept.working.dtype == torch.bfloat16:
        kept.working.copy_(_rounded(master, streams, rounding, "weight"))


def _narrow_moment(
    values: Tensor, scales: Tensor | None, moment: Tensor, streams: Streams, rounding: str, what: str
) -> None:
    if scales is not None:
        seed, signed = streams.seed(what), what == "first moment"
        codes, new_scales = blockwise.encode(moment, signed=signed, seed=seed, first=streams.first)
        values.copy_(codes)
        scales.copy_(new_scales)
    elif values.dtype == torch.bfloat16:
        values.copy_(_rounded(moment, streams, rounding, what))


def _rounded(values: Tensor, streams: Streams, rounding: str, what: str) -> Tensor:
    if rounding == "nearest":
        return round_to_nearest(values)
    return round_stochastically(values, seed=streams.seed(what), first=streams.first)


def parts_of(count: int, plan: MemoryPlan) -> dict[str, tuple[int, torch.dtype]]:
    """What is kept of n values under a plan: field of `Kept` -> (values, dtype)."""
    working = torch.bfloat16 if plan.working == "bfloat16" else torch.float32
    if plan.moments == "int8":
        scales = (-(-count // INT8_BLOCK), torch.float32)
        parts = {"working": (count, working), "first": (count, torch.uint8), "second": (count, torch.uint8)}
        parts |= {"first_scales": scales, "second_scales": scales}
    else:
        moment = torch.float32 if plan.moments == "float32" else torch.bfloat16
        parts = {"working": (count, working), "first": (count, moment), "second": (count, moment)}
    return parts | ({"remainder": (count, torch.int16)} if plan.master == "split" else {})
