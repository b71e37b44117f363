"""How many CPU threads a run computes with: as set, as before, or the faster of two numbers on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from havoc_core.device import set_threads

_CLEARLY_FASTER = 1.1
"""More threads than cores must gain this much: they also take what the rest of the machine needs."""
_SIZE, _ROUNDS = 512, 5


def choose_threads(wanted: int | None, *, cpuinfo: Path | None = None) -> int:
    """Set torch's threads and give their number.

    As wanted; else OMP_NUM_THREADS; else one for every core. Where cores run two threads each, both numbers are measured
    on a matrix product followed by a pass over its result, and the larger one must be clearly faster.

    Args:
        wanted: by the settings, or by the run that goes on.
        cpuinfo: what Linux says of the processors; None: its own file.
    """
    if wanted is not None or os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return set_threads(wanted)
    logical, physical = set_threads(None), count_cores(cpuinfo or Path("/proc/cpuinfo"))
    if physical is None or not physical < logical <= 2 * physical:
        return logical
    return set_threads(faster_of(physical, logical, seconds_with))


def faster_of(fewer: int, more: int, seconds: Callable[[int], float]) -> int:
    """The larger number of threads if it takes clearly less time, else the smaller."""
    return more if seconds(more) * _CLEARLY_FASTER < seconds(fewer) else fewer


def seconds_with(threads: int) -> float:
    """Seconds of a product of two float32 matrices and a pass over it, the best of some rounds; sets torch's threads."""
    torch.set_num_threads(threads)
    matrix = torch.ones(_SIZE, _SIZE)
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(4):
            (matrix @ matrix).sigmoid_()
        best = min(best, time.perf_counter() - began)
    return best


def count_cores(cpuinfo: Path) -> int | None:
    """Cores that are not the second thread of another, as Linux reports them; None where it does not say."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    cores = set()
    for processor in text.split("\n\n"):
        values = dict(line.split(":", 1) for line in processor.splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in values.items()}
        if "core id" in fields:
            cores.add((fields.get("physical id", "0"), fields["core id"]))
    return len(cores) or None
