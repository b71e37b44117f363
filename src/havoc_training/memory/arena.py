"""One flat tensor for many: weights, remainders, moments and gradients lie side by side, each kind in its own arena."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from havoc_core.errors import PlanError

ALIGNMENT = 256
"""Values between possible starts: whole vectors of the processor, and whole blocks of 8-bit codes."""


class Arena:
    """A flat tensor with named parts, zero at first.

    Args:
        counts: name -> number of values.
        dtype: of all of them.
        device: where it lies.
        registered: whether memory of the host is registered with the GPU, so that copies run beside the computation.
            It is registered as it is, not allocated pinned: torch rounds pinned memory up to a power of two.

    Raises:
        PlanError: the memory cannot be had, or not registered.
    """

    def __init__(
        self, counts: Mapping[str, int], *, dtype: torch.dtype, device: torch.device, registered: bool = False
    ) -> None:
        self._spans: dict[str, tuple[int, int]] = {}
        total = 0
        for name, count in counts.items():
            self._spans[name] = (total, count)
            total += -(-count // ALIGNMENT) * ALIGNMENT
        try:
            self.flat = torch.zeros(total, dtype=dtype, device=device)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; so is what the host's allocator raises
            raise PlanError(
                "memory",
                f"{total * dtype.itemsize / 2**30:.1f} GiB more could not be had on {device} "
                f"({str(error).splitlines()[0]}).",
                "Close other programs, or choose a preset that needs less: `havoc plan` shows them.",
            ) from error
        if registered and total:
            register(self.flat, torch.cuda.cudart())  # type: ignore[no-untyped-call]

    def __getitem__(self, name: str) -> Tensor:
        """[n] the values of one name, a view."""
        start, count = self._spans[name]
        return self.flat[start : start + count]

    def __contains__(self, name: str) -> bool:
        return name in self._spans


def register(flat: Tensor, runtime: Any) -> None:
    """Lock the pages of a host tensor and tell the GPU's driver where they are; undone when the tensor goes.

    Args:
        flat: whole and contiguous.
        runtime: of CUDA, as `torch.cuda.cudart()` gives it.

    Raises:
        PlanError: the system does not lock that much.
    """
    address, size = flat.data_ptr(), flat.numel() * flat.element_size()
    if int(runtime.cudaHostRegister(address, size, 0)) != 0:
        raise PlanError(
            "memory",
            f"{size / 2**30:.1f} GiB of host memory could not be locked for copies to the GPU.",
            "Raise the limit of locked memory (`ulimit -l unlimited`), or choose a preset that needs less host memory.",
        )
    weakref.finalize(flat, runtime.cudaHostUnregister, address)
