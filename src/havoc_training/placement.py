"""From a model on the meta device to one that trains: precision, then compilation, in that order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from havoc_core.device import Precision
from havoc_core.layers import attention_kernel
from havoc_core.log import LOGGER
from havoc_core.model import place_weights
from havoc_core.models.havoc import HavocModel

_WORTH_COMPILING_STEPS = 2000
"""On a CPU, compiling the blocks takes about half a minute; shorter runs do not get it back."""


@dataclass(frozen=True)
class Compilation:
    """What is compiled; chosen at the first start and kept on resume, because it decides the last bits."""

    blocks: bool
    """torch.compile of each block."""
    cpu_attention: bool
    """The attention kernel for the CPU."""


def place(
    model: HavocModel,
    weights: Mapping[str, Tensor],
    *,
    precision: Precision,
    device: torch.device,
    compilation: Compilation,
) -> None:
    """Give the model its weights and compile what is to be compiled, in place (parameter names stay)."""
    place_weights(model, weights, dtype=precision.working, device=device)
    if compilation.cpu_attention:
        model.use_cpu_kernel()
    if compilation.blocks:
        keep_compiled_code()
        for block in model.blocks:
            # Blocks are alike, so they share one compilation. dynamic=False: a second shape (the last, smaller batch of
            # a validation) gets code of its own instead of slower code for all.
            block.compile(dynamic=False)


def choose_compilation(setting: str, *, device: torch.device, total_steps: int) -> Compilation:
    """What `compile` means here: off compiles nothing, on everything that can be, auto what repays it."""
    if setting == "off":
        return Compilation(blocks=False, cpu_attention=False)
    kernel = device.type == "cpu" and attention_kernel.load() is not None
    repaid = device.type == "cuda" or (
        device.type == "cpu" and has_cpp_compiler() and total_steps >= _WORTH_COMPILING_STEPS
    )
    return Compilation(blocks=setting == "on" or repaid, cpu_attention=kernel)


def has_cpp_compiler() -> bool:
    """Whether torch.compile could build code for this CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++", "clang++"))


def keep_compiled_code() -> None:
    """Keep compiled code in the user's cache folder, so that the next run starts warm; TORCHINDUCTOR_CACHE_DIR wins."""
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "havoc" / "inductor"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        LOGGER.info("Compiled code is kept in %s.", cache)
