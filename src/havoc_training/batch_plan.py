"""Rows per step, ranks and micro-batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError


@dataclass(frozen=True)
class BatchPlan:
    """How the rows of a step are shared out, and how many steps there are."""

    rows_per_step: int
    """Over all ranks and micro-batches."""
    micro_batch_size: int
    """Rows that go through the model together on one rank."""
    micro_batches: int
    """Of each rank in a step."""
    total_steps: int
    """Updates in the whole run."""
    warmup_steps: int
    """Updates of the warm-up, after it was cut to the run."""


def plan_batches(
    config: TrainingConfig, *, world_size: int, rows_per_epoch: int, kept_rows_per_step: int | None = None
) -> BatchPlan:
    """The plan of a run.

    Args:
        config: batch_size, gradient_accumulation_steps, rows_per_step, max_steps, max_epochs, warmup_steps.
        world_size: ranks.
        rows_per_epoch: rows of the training side of the store.
        kept_rows_per_step: what a checkpoint was trained with; kept unless the config sets rows_per_step.

    Raises:
        ConfigError: rows_per_step cannot be shared out evenly; names the nearest that can.
    """
    rows = config.rows_per_step or kept_rows_per_step
    rows = rows or config.batch_size * config.gradient_accumulation_steps * world_size
    if rows % world_size:
        below, above = rows // world_size * world_size, -(-rows // world_size) * world_size
        raise ConfigError(
            "rows_per_step",
            f"{rows:,} rows cannot be shared evenly by {world_size} devices.",
            f"Use {above:,}{f' or {below:,}' if below else ''}.",
        )
    mine = rows // world_size
    micro = min(config.batch_size, mine)
    if mine % micro:
        fitting = [size for size in range(1, mine + 1) if mine % size == 0]
        near = sorted(sorted(fitting, key=lambda size: abs(size - micro))[:2])
        raise ConfigError(
            "batch_size",
            f"{mine:,} rows a device and step are not a multiple of {micro}.",
            f"Use {' or '.join(str(size) for size in near)}.",
        )
    total = config.max_steps or math.ceil(config.max_epochs * rows_per_epoch / rows)
    warmup = config.warmup_steps if config.warmup_steps <= total else max(1, total // 10)
    return BatchPlan(rows, micro, mine // micro, total, warmup)


def halve_micro_batch(plan: BatchPlan) -> BatchPlan | None:
    """The same step in micro-batches of half the rows, or the most below that; None: one row cannot be halved."""
    mine = plan.micro_batch_size * plan.micro_batches
    smaller = [size for size in range(1, plan.micro_batch_size // 2 + 1) if mine % size == 0]
    return replace(plan, micro_batch_size=smaller[-1], micro_batches=mine // smaller[-1]) if smaller else None
