"""Step -> fraction of the peak learning rate: pure functions.

`step` counts updates from 0. Warm-up is min(1, (step + 1) / warmup_steps): the first step already learns and the last step of
the warm-up is the peak. After it, progress is (step - warmup_steps) / (total_steps - warmup_steps).
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def cosine(step: int, *, warmup_steps: int, total_steps: int, floor: float = 0.1) -> float:
    """Linear up, half a cosine down to `floor`. Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * _progress(step, warmup_steps, total_steps)))


def linear(step: int, *, warmup_steps: int, total_steps: int, floor: float = 0.1) -> float:
    """Linear up, linear down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 1.0 - (1.0 - floor) * _progress(step, warmup_steps, total_steps)


def constant(step: int, *, warmup_steps: int) -> float:
    """Linear up, then the peak."""
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


def wsd(step: int, *, warmup_steps: int, total_steps: int, decay_fraction: float = 0.2, floor: float = 0.1) -> float:
    """Warmup, stable, decay: linear up, the peak, linear down to `floor` in the last `decay_fraction` of the run.

    Hu et al. 2024 (MiniCPM), arXiv:2404.06395. A run can be extended from any point of the stable part.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    decay_start = max(warmup_steps, total_steps - math.ceil(decay_fraction * total_steps))
    if step < decay_start:
        return 1.0
    return 1.0 - (1.0 - floor) * _progress(step, decay_start, total_steps)


def choose(kind: str, *, warmup_steps: int, total_steps: int, floor: float, decay_fraction: float) -> Schedule:
    """The schedule that `lr_scheduler_type` names, as a function of the step alone."""
    if kind == "constant":
        return lambda step: constant(step, warmup_steps=warmup_steps)
    if kind == "wsd":
        return lambda step: wsd(
            step, warmup_steps=warmup_steps, total_steps=total_steps, decay_fraction=decay_fraction, floor=floor
        )
    shape = {"cosine": cosine, "linear": linear}[kind]
    return lambda step: shape(step, warmup_steps=warmup_steps, total_steps=total_steps, floor=floor)


def _progress(step: int, start: int, end: int) -> float:
    return min(1.0, (step - start) / max(1, end - start))
