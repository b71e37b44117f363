"""A compiled attention for training on the CPU: two to six times torch's own, and aware of documents.

`attention_cpu.cpp` is built once per machine, torch and source with the C++ compiler of the machine, and kept in the user's
cache folder. Where there is no compiler or no AVX-512, masked SDPA does the same work.

B batch, T positions, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    command = _build_command()
    if command is None:
        return None
    identity = [_source().read_text(encoding="utf-8"), *command, torch.__version__, _cpu_flags()]
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "havoc" / "kernels"
    library = cache / f"attention_{digest}.so"
    try:
        if not library.exists():
            cache.mkdir(parents=True, exist_ok=True)
            beside = library.with_suffix(f".{os.getpid()}")
            subprocess.run([*command, "-o", str(beside)], check=True, capture_output=True, timeout=120)
            beside.replace(library)
        function = ctypes.CDLL(str(library)).attention
    except (OSError, subprocess.SubprocessError):
        return None
    function.argtypes = [ctypes.POINTER(_Arguments), ctypes.c_int, ctypes.c_int]
    function.restype = None
    return function


def _source() -> Path:
    return Path(__file__).with_name("attention_cpu.cpp")


def _build_command() -> list[str] | None:
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    # The matrix products behind it need AVX-512; bfloat16 ones its BF16 instructions.
    if compiler is None or platform.system() != "Linux" or "avx512_bf16" not in _cpu_flags():
        return None
    libraries = Path(torch.__file__).parent / "lib"
    options = "-O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -std=c++17 -shared -fPIC"
    return [compiler, *options.split(), "-fopenmp", str(_source()), f"-L{libraries}", "-ltorch_cpu"]


@functools.cache
def _cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("flags")), "")


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
