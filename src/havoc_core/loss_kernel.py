"""A compiled cross-entropy for training on the CPU: one call takes logits and leaves their gradient in their place.

`cross_entropy_cpu.cpp` is built at first use (`cpu_library.py`). Where there is no compiler or no AVX2, and for other dtypes,
torch's operations in `loss.py` do the same work in about ten passes over the logits, half of them in float32.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from havoc_core import cpu_library
from havoc_core.labels import IGNORE_INDEX

NEEDS = "avx2"
"""What the CPU must have: loops without vectors would be slower than torch's."""


def is_supported(hidden: Tensor) -> bool:
    """Whether the kernel can take the logits of these hidden states: by device and dtype."""
    return hidden.device.type == "cpu" and hidden.dtype in (torch.bfloat16, torch.float32)


def replace_by_gradient(logits: Tensor, labels: Tensor, *, z_loss_weight: float = 0.0) -> float:
    """Sum over scored rows of -log p(label) + z_loss_weight * log(Z)^2; the logits become its gradient, in place.

    Exponentials are worked out in float32, row sums and losses added up in float64. The result does not depend on the
    number of threads. Rows without a label have no loss, whatever they hold, and a gradient of zero.

    Args:
        logits: [N, V], bfloat16 or float32, contiguous, on the CPU. -inf is a token that cannot come.
        labels: [N] int64; IGNORE_INDEX where nothing is to be predicted.
        z_loss_weight: of the squared log-normaliser.

    Returns:
        The sum; NaN if a scored row holds NaN, +inf, or nothing but -inf.

    Raises:
        IndexError: a label is neither IGNORE_INDEX nor the number of a column.
        ValueError: logits or labels are of another dtype or shape, or not contiguous.
    """
    rows, vocab_size = logits.shape
    if not is_supported(logits) or labels.dtype != torch.int64 or labels.shape != (rows,):
        raise ValueError(f"{logits.dtype} logits {list(logits.shape)} and {labels.dtype} labels {list(labels.shape)}")
    if not logits.is_contiguous():
        raise ValueError("the logits are not contiguous: their gradient could not be written over them")
    labels = labels.contiguous()
    if bool(((labels != IGNORE_INDEX) & ((labels < 0) | (labels >= vocab_size))).any()):
        raise IndexError(f"labels are not all in 0 .. {vocab_size - 1}")
    function = load()
    assert function is not None, "the kernel is chosen only after it was loaded"
    is_bf16, threads = int(logits.dtype == torch.bfloat16), torch.get_num_threads()
    return float(
        function(logits.data_ptr(), labels.data_ptr(), rows, vocab_size, IGNORE_INDEX, z_loss_weight, is_bf16, threads)
    )


@functools.cache
def load() -> Any:
    """The compiled function, built if need be; None where it cannot be built. Says nothing: the caller does."""
    library = cpu_library.load(Path(__file__).with_name("cross_entropy_cpu.cpp"), needs=NEEDS)
    if library is None:
        return None
    function = library.cross_entropy
    pointer, number = ctypes.c_void_p, ctypes.c_long
    function.argtypes = [pointer, pointer, number, number, ctypes.c_int64, ctypes.c_double, ctypes.c_int, ctypes.c_int]
    function.restype = ctypes.c_double
    return function
