"""From a model on the meta device to one that trains: formats and places, then compilation, then the way through it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from havoc_core import loss_kernel
from havoc_core.config import TrainingConfig
from havoc_core.layers import attention_kernel
from havoc_core.layers.fp8_linear import use_fp8
from havoc_core.log import LOGGER
from havoc_core.model import place_weights
from havoc_core.models.havoc import HavocModel
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.host_link import HostLink
from havoc_training.memory.presets import MemoryPlan
from havoc_training.memory.recompute import FullRecompute, SelectiveRecompute
from havoc_training.memory.streaming import StreamedBlocks, make_slots
from havoc_training.optimizer import WholeOptimizer
from havoc_training.updater import Updater

_WORTH_COMPILING_FLOPS = 3.0e13
"""On a CPU, compiling the blocks takes about half a minute, cold, and saves about 15 % of a step; shorter runs do not get it
back. A fixed number and no measured rate: the same settings give the same code, and so the same bits, at every start."""


@dataclass(frozen=True)
class Compilation:
    """What is compiled; chosen at the first start and kept on resume, because it decides the last bits."""

    blocks: bool
    """torch.compile of each block."""
    cpu_attention: bool
    """The attention kernel for the CPU."""
    loss: bool = False
    """What lies between the loss's matrix products: a kernel on a CPU, torch.compile elsewhere. Checkpoints of before this
    was there have none."""


def place(
    model: HavocModel,
    weights: Mapping[str, Tensor],
    *,
    config: TrainingConfig,
    memory: MemoryPlan,
    device: torch.device,
    compilation: Compilation,
) -> Updater:
    """Give the model its weights and choose how batches go through it, in place; give what updates it.

    Args:
        model: on the meta device.
        weights: float32 starting values by name, asked for one at a time.
        config: the optimizer and its settings.
        memory: formats, places, recomputation.
        device: that computes.
        compilation: what is compiled.
    """
    working = getattr(torch, memory.working)
    slots = make_slots(model, dtype=working, device=device) if memory.streams else []
    updater: Updater
    if config.optimizer == "adamw" and memory.working != "float16":
        updater = flat = FlatOptimizer(model, weights, config, memory, device)
    else:
        place_weights(model, weights, dtype=working, device=device)
        updater = WholeOptimizer(model, weights if memory.master == "separate" else None, config)
    blocks = slots or list(model.blocks)
    if config.fp8:
        use_fp8(blocks, row_length=config.data.max_sequence_length)
    if compilation.cpu_attention:
        model.use_cpu_kernel()
    if compilation.blocks and device.type == "cuda":
        model.use_block_masks()
    if compilation.blocks:
        keep_compiled_code()
        # A block that is recomputed selectively is compiled with its recomputation.
        for block in blocks if memory.recompute != "selective" else []:
            # Blocks are alike, so they share one compilation. dynamic=False: a second shape (the last, smaller batch of
            # a validation) gets code of its own instead of slower code for all.
            block.compile(fullgraph=True, dynamic=False)
    full = FullRecompute(offload_to=HostLink(device) if memory.offload_activations else None)
    if memory.streams:
        model.run_blocks_with(StreamedBlocks(model, flat, slots, recompute=full))
    elif memory.recompute == "full":
        model.run_blocks_with(full)
    elif memory.recompute == "selective":
        model.run_blocks_with(SelectiveRecompute(compiled=compilation.blocks))
    return updater


def choose_compilation(setting: str, *, device: torch.device, total_flops: float) -> Compilation:
    """What `compile` means here: off compiles nothing, on everything that can be, auto what repays it.

    Args:
        setting: off, on or auto.
        device: that computes.
        total_flops: of the whole run.
    """
    if setting == "off":
        return Compilation(blocks=False, cpu_attention=False)
    kernel = device.type == "cpu" and attention_kernel.load() is not None
    loss = device.type == "cuda" or (device.type == "cpu" and loss_kernel.load() is not None)
    repaid = device.type == "cuda" or (
        device.type == "cpu" and has_cpp_compiler() and total_flops >= _WORTH_COMPILING_FLOPS
    )
    return Compilation(blocks=setting == "on" or repaid, cpu_attention=kernel, loss=loss)


def has_cpp_compiler() -> bool:
    """Whether torch.compile could build code for this CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++", "clang++"))


def keep_compiled_code() -> None:
    """Keep compiled code in the user's cache folder, so that the next run starts warm; TORCHINDUCTOR_CACHE_DIR wins."""
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "havoc" / "inductor"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        LOGGER.info("Compiled code is kept in %s.", cache)
