"""Device, number formats by name, threads, seeds."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError
from havoc_core.processor import has_fast_bfloat16


@dataclass(frozen=True)
class Precision:
    """Number formats of a run. There is no autocast: these are the formats of the weights themselves."""

    working: torch.dtype
    """Of matrices, activations and logits."""
    has_master: bool
    """Whether the optimizer keeps a float32 copy of the working weights."""
    scales_loss: bool
    """Whether the loss is scaled up because small gradients would vanish (float16)."""

    @property
    def name(self) -> str:
        """Such as "bfloat16"."""
        return str(self.working).removeprefix("torch.")

    @property
    def working_name(self) -> Literal["bfloat16", "float16", "float32"]:
        """The same, as one of the three that there are."""
        return "float16" if self.scales_loss else "bfloat16" if self.has_master else "float32"


def choose_device(name: str) -> torch.device:
    """The device that a setting means.

    Raises:
        ConfigError: the device was asked for by name and is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return _this_gpu()
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there[name]:
        built = "" if name != "cuda" or torch.version.cuda else " and this torch was built without CUDA"
        raise ConfigError(
            "device",
            f"'{name}' was asked for, but there is none here{built}.",
            "Use `--device auto` or `--device cpu`.",
        )
    return _this_gpu() if name == "cuda" else torch.device(name)


def _this_gpu() -> torch.device:
    """With its number: a device without one is not equal to that of a tensor on it. torchrun gives each rank its own."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def choose_precision(config: TrainingConfig, device: torch.device) -> Precision:
    """Number formats for a config on a device.

    `use_amp: auto` takes bfloat16 where matrix products are faster in it: on a GPU that has it, and on a CPU
    with AMX or AVX512-BF16 instructions. float16 works on a CPU too, slowly.
    """
    wanted = config.use_amp
    if wanted == "auto":
        wanted = has_fast_bfloat16() if device.type == "cpu" else True
    if not wanted:
        return Precision(torch.float32, has_master=False, scales_loss=False)
    if config.amp_dtype == "float16":
        return Precision(torch.float16, has_master=True, scales_loss=True)
    return Precision(torch.bfloat16, has_master=True, scales_loss=False)


def set_threads(threads: int | None) -> int:
    """Set the CPU threads of torch and give their number.

    None: OMP_NUM_THREADS if it is set, else one per core that this process may use.
    """
    if threads is None:
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = int(wanted) if wanted.isdigit() and int(wanted) > 0 else cores
    torch.set_num_threads(threads)
    return threads


def set_seeds(seed: int) -> None:
    """Seed Python, numpy and torch (CPU and every CUDA device)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def memory_bytes(device: torch.device) -> int | None:
    """Memory of the device, or of the machine for a CPU; None where it cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if not hasattr(os, "sysconf"):
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return int(total)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # Linux counts in KiB, macOS in bytes


@dataclass(frozen=True)
class MemoryPeaks:
    """Most memory that was taken, in bytes; None where a device does not tell."""

    allocated: int | None
    """Of tensors, at their most (GPU)."""
    reserved: int | None
    """Held by torch's allocator for tensors, at its most (GPU)."""
    used: int
    """Taken on the device now, by all that runs there, the driver's own included (GPU; torch's allocator keeps what it
    once reserved, so this hardly falls); the most that this process had resident (CPU)."""


def memory_peaks(device: torch.device) -> MemoryPeaks:
    """What has been taken so far; waits for nothing on the device."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return MemoryPeaks(
            int(torch.cuda.max_memory_allocated(device)), int(torch.cuda.max_memory_reserved(device)), int(total - free)
        )
    return MemoryPeaks(None, None, peak_memory_bytes(device))
