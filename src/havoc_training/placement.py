"""From a model on the meta device to one that trains: precision, then compilation, in that order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from havoc_core.device import Precision
from havoc_core.log import LOGGER
from havoc_core.model import Decoder, place_weights

_WORTH_COMPILING_STEPS = 1000
"""On a CPU, compiling the blocks takes about half a minute; shorter runs do not get it back."""


def place(
    model: Decoder, weights: Mapping[str, Tensor], *, precision: Precision, device: torch.device, compile_blocks: bool
) -> None:
    """Give the model its weights and, if asked, compile each block in place (parameter names stay)."""
    place_weights(model, weights, dtype=precision.working, device=device)
    if compile_blocks:
        keep_compiled_code()
        for block in model.blocks:
            # Blocks are alike, so they share one compilation. dynamic=False: a second shape (the last, smaller batch of
            # a validation) gets code of its own instead of slower code for all.
            block.compile(dynamic=False)


def should_compile(setting: str, *, device: torch.device, total_steps: int) -> bool:
    """What `compile: auto` means here; "on" and "off" are taken at their word."""
    if setting != "auto":
        return setting == "on"
    if device.type == "cuda":
        return True
    return device.type == "cpu" and has_cpp_compiler() and total_steps >= _WORTH_COMPILING_STEPS


def has_cpp_compiler() -> bool:
    """Whether torch.compile could build code for this CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++", "clang++"))


def keep_compiled_code() -> None:
    """Keep compiled code in the user's cache folder, so that the next run starts warm; TORCHINDUCTOR_CACHE_DIR wins."""
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "havoc" / "inductor"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        LOGGER.info("Compiled code is kept in %s.", cache)
