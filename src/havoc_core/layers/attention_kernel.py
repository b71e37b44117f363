"""A compiled attention for training on the CPU: two to six times torch's own, and aware of documents.

`attention_cpu.cpp` is built at first use (`cpu_library.py`). Where there is no compiler or no AVX-512, masked SDPA does the
same work. Matrix products are torch's own `brgemm`, which torch does not document: decision 0013.

B batch, T positions, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from havoc_core import cpu_library

NEEDS = "avx512_bf16"
"""What the CPU must have: the matrix products behind the kernel need AVX-512, bfloat16 ones its BF16 instructions."""

_TILE_ROWS, _TILE_COLUMNS = 64, 512
"""Scores worked on at once: 64 queries x 512 keys in float32 are 128 KiB, which stays in the L2 cache."""


class _Arguments(ctypes.Structure):
    """`struct Args` of the source, field by field."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("q", "k", "v", "o", "go", "out", "dq", "dk", "dv", "lse", "first")]
        + [(name, ctypes.c_long) for name in ("B", "T", "H", "K", "E")]
        + [(name, ctypes.c_long) for name in ("qb", "qt", "qh", "kb", "kt", "kh", "vb", "vt", "vh", "rows", "cols")]
        + [("scale", ctypes.c_float)]
    )


def is_supported(weights: Tensor, tokens: Tensor, head_dim: int) -> bool:
    """Whether the kernel can take a batch.

    Args:
        weights: any matrix of the model, for device and dtype.
        tokens: [B, T].
        head_dim: E.
    """
    fits = tokens.shape[1] % 64 == 0 and head_dim % 32 == 0
    return fits and weights.device.type == "cpu" and weights.dtype in (torch.bfloat16, torch.float32)


def document_attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
    """Causal attention in which token t sees the tokens starts[b, t] .. t.

    Args:
        q: [B, T, H, E], bfloat16 or float32, on the CPU; T a multiple of 64, E of 32.
        k, v: [B, T, K, E], same dtype.
        starts: [B, T] int32, never decreasing in t.

    Returns:
        [B, T, H, E].
    """
    out: Tensor = _DocumentAttention.apply(q, k, v, starts)  # type: ignore[no-untyped-call]
    return out


@functools.cache
def load() -> Any:
    """The compiled function, built if need be; None where it cannot be built. Says nothing: the caller does."""
    library = cpu_library.load(Path(__file__).with_name("attention_cpu.cpp"), needs=NEEDS, with_torch=True)
    if library is None:
        return None
    function = library.attention
    function.argtypes = [ctypes.POINTER(_Arguments), ctypes.c_int, ctypes.c_int]
    function.restype = None
    return function


def _call(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, *, backward: bool, others: dict[str, Tensor]) -> None:
    arguments = _Arguments()
    for name, tensor in {"q": q, "k": k, "v": v, "first": starts, **others}.items():
        setattr(arguments, name, tensor.data_ptr())
    arguments.B, arguments.T, arguments.H, arguments.E = q.shape
    arguments.K, arguments.scale = k.shape[2], q.shape[3] ** -0.5
    arguments.rows, arguments.cols = _TILE_ROWS, _TILE_COLUMNS
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        for axis, stride in zip("bth", tensor.stride(), strict=False):
            setattr(arguments, name + axis, stride)
    function = load()
    assert function is not None, "the kernel is chosen only after it was loaded"
    function(ctypes.byref(arguments), int(q.dtype == torch.bfloat16), int(backward))


@torch.library.custom_op("havoc::document_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    out = torch.empty(q.shape, dtype=q.dtype)
    log_sums = torch.empty(q.shape[0], q.shape[2], q.shape[1])  # [B, H, T], base 2
    _call(q, k, v, starts.contiguous(), backward=False, others={"out": out, "lse": log_sums})
    return out, log_sums


@_forward.register_fake
def _forward_shapes(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)


@torch.library.custom_op("havoc::document_attention_backward", mutates_args=())
def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, out: Tensor, log_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grads = {"dq": torch.empty(q.shape, dtype=q.dtype), "dk": torch.empty(k.shape, dtype=k.dtype)}
    grads["dv"] = torch.empty(v.shape, dtype=v.dtype)
    others = {"o": out, "go": grad.contiguous(), "lse": log_sums, **grads}
    _call(q, k, v, starts.contiguous(), backward=True, others=others)
    return grads["dq"], grads["dk"], grads["dv"]


@_backward.register_fake
def _backward_shapes(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, out: Tensor, log_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


class _DocumentAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
        out, log_sums = _forward(q, k, v, starts)
        ctx.save_for_backward(q, k, v, starts, out, log_sums)
        result: Tensor = out
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, starts, out, log_sums = ctx.saved_tensors
        return (*_backward(grad, q, k, v, starts, out, log_sums), None)
