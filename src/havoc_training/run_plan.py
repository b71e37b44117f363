"""The plan of a run, made silently at its start and kept beside its metrics, so that plan and fact can be compared."""

from __future__ import annotations

from datetime import datetime

import torch

from havoc_core.config import TrainingConfig
from havoc_core.costs import training_flops_per_token
from havoc_core.run_files import RunFiles
from havoc_data.loading.loader import Loader
from havoc_training.batch_plan import BatchPlan
from havoc_training.memory_choice import MemoryChoice
from havoc_training.planner.plan import Plan, Schedule, make_plan
from havoc_training.planner.probe import probe_tokens_per_s
from havoc_training.planner.rates import Rate, predict_rate, probed_rate

_WORTH_A_PROBE_S = 120.0
"""A run that is expected to take less is started without one."""
_PROBE_S = 4.0


def plan_run(
    config: TrainingConfig,
    kept: MemoryChoice,
    *,
    batches: BatchPlan,
    loader: Loader,
    device: torch.device,
    matmul_flops_per_s: float,
) -> Plan | None:
    """What this run will need; None where it goes on as it was begun, since its plan was made then.

    Args:
        config: the run.
        kept: how memory is used.
        batches: steps and micro-batches.
        loader: of the text, for epochs.
        device: that computes; it is at rest and the model is not on it yet.
        matmul_flops_per_s: measured there; decides whether the run is long enough for a probe.
    """
    if kept.choice is None or kept.machine is None:
        return None
    tokens = batches.total_steps * batches.rows_per_step * config.data.max_sequence_length
    flops = tokens * training_flops_per_token(config.model, config.data.max_sequence_length)
    rate: Rate | None
    if device.type == "cpu" and flops / matmul_flops_per_s > _WORTH_A_PROBE_S:
        probe = probe_tokens_per_s(
            config, kept.memory, micro_batch_size=batches.micro_batch_size, device=device, budget_s=_PROBE_S
        )
        rate = probed_rate(probe.tokens_per_s)
    else:
        rate = predict_rate(config, kept.choice, kept.machine)
    schedule = Schedule(
        total_steps=batches.total_steps,
        rate=rate,
        begins_at=datetime.now().astimezone(),
        epochs=loader.epochs_after(batches.total_steps * batches.rows_per_step),
    )
    return make_plan(config, kept.choice, kept.machine, schedule)


def write_plan(plan: Plan, config: TrainingConfig, *, first_step: int = 0) -> None:
    """Keep a plan as logs/plan.json; that of a later part, from a step on, as logs/plan_from_step_N.json beside it."""
    path = RunFiles.of(config).plan
    path = path.with_name(f"plan_from_step_{first_step}.json") if first_step else path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plan.to_json(), encoding="utf-8")
