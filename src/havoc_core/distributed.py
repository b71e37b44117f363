"""Rank and world size, and the few collective calls; on one process they are no-ops.

A process started alone is rank 0 of 1. `torchrun` sets RANK, WORLD_SIZE and LOCAL_RANK; `World.start` then
joins the group (nccl on CUDA, gloo elsewhere).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """The processes that train together."""

    rank: int = 0
    size: int = 1

    @classmethod
    def start(cls, device: torch.device) -> World:
        """Join the group that torchrun described, or stand alone."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            if device.type == "cuda":
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(rank=dist.get_rank(), size=size)

    def sum(self, value: Tensor) -> Tensor:
        """`value` summed over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def gather_bytes(self, value: bytes) -> list[bytes]:
        """The bytes of every rank, in rank order."""
        if self.size == 1:
            return [value]
        out: list[bytes | None] = [None] * self.size
        dist.all_gather_object(out, value)
        return [part for part in out if part is not None]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        return any(part == b"1" for part in self.gather_bytes(b"1" if flag else b"0"))

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
