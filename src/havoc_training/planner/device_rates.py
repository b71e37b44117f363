"""How fast this device multiplies, updates and copies: measured in a fraction of a second each.

All but the first call count, and the best of several: what a device can do, not what it did while something else ran.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from havoc_core.config import ModelConfig
from havoc_training.memory.adamw_update import Kept, Rule, Streams, parts_of, update
from havoc_training.memory.presets import UPDATE_PIECE, UPDATE_PIECE_CPU, MemoryPlan

_MATMUL_BUDGET_S = {"cuda": 1.0, "cpu": 0.4}
_UPDATE_PIECES = 8


def measure_matmul_rate(
    device: torch.device, dtype: torch.dtype, *, model: ModelConfig | None = None, budget_s: float | None = None
) -> float:
    """Floating-point operations a second in matrix products: the best of several shapes and tries.

    Args:
        device: at rest, or what runs beside is measured too.
        dtype: of both factors; the sum is kept wider inside, as in training.
        model: its feed-forward layer is tried as well as square products.
        budget_s: what it may take; None: 0.4 on a CPU, 1 on a GPU.

    Returns:
        2 m n k over the seconds of the fastest product. First calls do not count.
    """
    ends = time.perf_counter() + (_MATMUL_BUDGET_S.get(device.type, 1.0) if budget_s is None else budget_s)
    small, best = (256, 256, 256), 0.0
    rate = _matmul_rate(device, dtype, small, tries=2)
    for shape in _matmul_shapes(device, model):
        predicted = 2.0 * math.prod(shape) / rate
        # One call to warm up and one that counts, or there is no use in beginning.
        left = ends - time.perf_counter()
        if 2 * predicted > left:
            continue
        rate = _matmul_rate(device, dtype, shape, tries=max(1, min(6, int(left / 3 / predicted) - 1)))
        best = max(best, rate)
    return max(best, rate)


def _matmul_shapes(device: torch.device, model: ModelConfig | None) -> list[tuple[int, int, int]]:
    """(m, n, k), small ones first: what a large one takes is predicted from the one before."""
    squares = (2048, 4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    tokens = 8192 if device.type == "cuda" else 1024
    shapes = [(size, size, size) for size in squares]
    if model is not None:
        shapes += [(tokens, model.mlp.hidden_dim, model.d_model), (tokens, model.d_model, model.mlp.hidden_dim)]
    return sorted(shapes, key=math.prod)


def _matmul_rate(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int], *, tries: int) -> float:
    rows, columns, inner = shape
    generator = torch.Generator(device).manual_seed(0)
    left = torch.randn(rows, inner, dtype=torch.float32, device=device, generator=generator).to(dtype)
    right = torch.randn(columns, inner, dtype=torch.float32, device=device, generator=generator).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype, device=device)

    def product() -> None:
        torch.mm(left, right.t(), out=out)  # the second factor lies as a linear layer's weight does

    product()
    return 2.0 * math.prod(shape) / min(seconds_of(product, device) for _ in range(tries))


def _piece(device: torch.device) -> int:
    return UPDATE_PIECE_CPU if device.type == "cpu" else UPDATE_PIECE


def num_updated_values(device: torch.device) -> int:
    """On how many values `measure_update` works."""
    return _UPDATE_PIECES * _piece(device)


def measure_update(memory: MemoryPlan, device: torch.device) -> float:
    """Seconds a parameter: the gradients' norm, clipping, and the update, on flat values."""
    count, piece = num_updated_values(device), _piece(device)
    if memory.working == "float16":  # updated as float32 masters and rounded afterwards
        memory = replace(memory, working="float32", master="own")
    kept = Kept(
        **{what: torch.zeros(n, dtype=dtype, device=device) for what, (n, dtype) in parts_of(count, memory).items()}
    )
    total = torch.full(
        (count,), 1e-3, dtype=torch.float32 if memory.gradients == "float32" else torch.bfloat16, device=device
    )
    rule = Rule(1, (0.9, 0.95), 1e-8, 1e-3, 0.1)

    def step() -> None:
        norm = torch.linalg.vector_norm(total, dtype=torch.float32)
        factor = torch.clamp(1.0 / (norm + 1e-6), max=1.0)
        for start in range(0, count, piece):
            gradient = total[start : start + piece].to(torch.float32, copy=True).mul_(factor)
            streams = Streams(0, "probe", 1, start)
            update(kept.piece(start, piece), gradient, rule=rule, streams=streams, rounding=memory.rounding)

    step()
    return min(seconds_of(step, device) for _ in range(3)) / count


def measure_link_rate(device: torch.device) -> float | None:
    """Bytes a second from pinned host memory to the device; None where they are one memory."""
    if device.type != "cuda":
        return None
    host = torch.empty(2**27, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=device)

    def copy() -> None:
        there.copy_(host, non_blocking=True)

    copy()
    return host.numel() / min(seconds_of(copy, device) for _ in range(3))


def seconds_of(work: Callable[[], None], device: torch.device) -> float:
    """Of some work, until the device has done it."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
