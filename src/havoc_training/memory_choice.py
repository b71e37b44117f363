"""How this run keeps what it keeps: chosen at its first start from what the machine has, and kept when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from havoc_core.config import TrainingConfig
from havoc_core.log import LOGGER
from havoc_training.memory.presets import MemoryPlan, Working
from havoc_training.planner.choice import Choice, choose
from havoc_training.planner.machine import CONTEXT_BYTES, Gpu, Machine, machine_here, machine_of_gpu, read_host


@dataclass(frozen=True)
class MemoryChoice:
    """What was chosen."""

    memory: MemoryPlan
    micro_batch_size: int
    """Rows that go through the model together on one device."""
    choice: Choice | None = None
    """With ledger and reasons; None where a run goes on as it was."""
    machine: Machine | None = None
    """What it was chosen for."""

    def to_json(self) -> dict[str, Any]:
        """For `resolved` in training_state.json."""
        return {"memory": asdict(self.memory), "micro_batch_size": self.micro_batch_size}


def choose_memory(
    config: TrainingConfig,
    machine: Machine,
    *,
    working: Working,
    world_size: int = 1,
    kept: Mapping[str, Any] | None = None,
    kept_config: TrainingConfig | None = None,
) -> MemoryChoice:
    """What the planner chooses, or what a run that is resumed was started with.

    Args:
        config: the run.
        machine: what there is.
        working: format of the weights that are computed with.
        world_size: devices.
        kept: `resolved` of the checkpoint that is resumed on the same kind of device.
        kept_config: its settings.

    Raises:
        ConfigError: the settings do not go together, or ask for what the machine has not.
        PlanError: nothing fits; names the nearest setting that does.
    """
    if kept and kept_config is not None and "memory" in kept and _asks_for_the_same(config, kept_config):
        memory = MemoryPlan(**kept["memory"])
        if memory.working == working:
            return MemoryChoice(memory, int(kept["micro_batch_size"]), machine=machine)
    if kept and config.rows_per_step is None:  # a step keeps its rows
        config = config.model_copy(update={"rows_per_step": int(kept["rows_per_step"])})
    choice = choose(config, machine, working=working, world_size=world_size)
    if kept and "memory" in kept and kept["memory"]["preset"] != choice.memory.preset:
        LOGGER.info("memory is %s from here on; it was %s.", choice.memory.preset, kept["memory"]["preset"])
    return MemoryChoice(choice.memory, choice.micro_batch_size, choice, machine)


def _asks_for_the_same(config: TrainingConfig, saved: TrainingConfig) -> bool:
    names = (
        "memory",
        "memory_options",
        "recompute",
        "fp8",
        "batch_size",
        "gradient_accumulation_steps",
        "rows_per_step",
    )
    return all(getattr(config, name) == getattr(saved, name) for name in names)


def machine_of(device: torch.device, config: TrainingConfig) -> Machine:
    """What the planner is told: of a GPU by torch, which knows which one is meant and whether others hold memory there."""
    if device.type != "cuda":
        return machine_here(config.device)
    free, total = torch.cuda.mem_get_info(device)
    others = max(0, total - free - CONTEXT_BYTES)
    gpu = Gpu(torch.cuda.get_device_name(device), total, others, free)
    return machine_of_gpu(gpu, read_host())
