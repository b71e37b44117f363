"""Tokens per second: measured by a probe, or predicted from a card's datasheet. Imports no torch.

The prediction is the slower of two clocks for each micro-batch, compute and the link to the host, plus what the update moves
over the link. Compute is the datasheet's peak times a share that cards of a family were seen to reach:

    geforce      0.85   RTX 4090, Qwen2.5-7B, states offloaded, blocks recomputed: 2,523 tokens/s
    workstation  0.50   L40S, Qwen2.5-7B: 3,900 tokens/s
    ampere       0.64   A100-80, MPT-7B and Llama-2-7B without recompute: 64 and 67 % of the peak
    hopper       0.60   H100, Qwen2.5-7B without recompute: 13,870 tokens/s, 60 to 61 % of the peak
    blackwell    0.47   B200, Llama-3 8B: 21,919 tokens/s, 47 % of the peak
    volta, turing 0.50  an assumption: no run of this kind is published

They are published figures of other programs; what is computed with them is labelled as predicted wherever it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.costs import hardware_flops_per_token, num_parameters, training_flops_per_token
from havoc_training.memory.presets import WORKING_BYTES, MemoryPlan
from havoc_training.planner.cards import Card, Family
from havoc_training.planner.choice import Choice
from havoc_training.planner.machine import Machine

PEAK_SHARE: dict[Family, float] = {
    "geforce": 0.85, "workstation": 0.50, "volta": 0.50, "turing": 0.50, "ampere": 0.64, "hopper": 0.60, "blackwell": 0.47,
}  # fmt: skip
"""Of the datasheet's peak, counting what is recomputed as work. GeForce cards clock higher than their datasheet says."""
FP8_SPEEDUP = 1.35
"""Of a whole step; 1.25 to 1.56 are published for 7B models."""
SELECTIVE_COST = 1.03
"""Norms and activations once more: little arithmetic, some memory traffic."""
BLOCK_LATENCY_S = 0.2e-3
"""Least time of one block, forward and backward: about forty kernels of five microseconds. Decides for small models only."""


Clock = Literal["compute", "host link", "latency"]


@dataclass(frozen=True)
class Rate:
    """How fast a run will be."""

    tokens_per_s: float
    """Over all devices."""
    origin: Literal["probe", "predicted"]
    limited_by: Clock | None = None
    """What the prediction waits for most; None where it was measured."""


def probed_rate(tokens_per_s: float) -> Rate:
    """A rate that was measured."""
    return Rate(tokens_per_s, "probe")


def predict_rate(config: TrainingConfig, choice: Choice, machine: Machine, *, world_size: int = 1) -> Rate | None:
    """The rate to expect, or None where nothing is known of the device's speed in the run's number format.

    Args:
        config: the run.
        choice: how it uses the device.
        machine: with the card.
        world_size: devices; each is taken to be as fast as one alone.
    """
    peak = machine.card.peak_flops_per_s(choice.memory.working) if machine.card else None
    if machine.card is None or peak is None:
        return None
    tokens = choice.micro_batch_size * config.data.max_sequence_length
    work = hardware_flops_per_token(config.model, config.data.max_sequence_length, choice.memory.recompute)
    work *= SELECTIVE_COST if choice.memory.recompute == "selective" else 1.0
    speed = peak * PEAK_SHARE[machine.card.family] * (FP8_SPEEDUP if config.fp8 and machine.card.has_fp8 else 1.0)
    clocks: dict[Clock, float] = {
        "compute": tokens * work / speed,
        "host link": _micro_batch_traffic(config.model, choice.memory) / (machine.card.link_gb_per_s * 1e9),
        "latency": config.model.num_layers * BLOCK_LATENCY_S,
    }
    update = _update_traffic(config.model, choice.memory) / (machine.card.link_gb_per_s * 1e9)
    slowest = max(clocks, key=lambda name: clocks[name])
    step_s = choice.micro_batches * clocks[slowest] + update
    limited: Clock = "host link" if update > choice.micro_batches * clocks[slowest] else slowest
    rate = choice.micro_batches * tokens * world_size / step_s
    return Rate(rate, "predicted", limited)


def peak_share(
    config: TrainingConfig, rate: Rate, card: Card | None, *, working: str, world_size: int = 1
) -> float | None:
    """Model FLOPs as a share of the datasheet's peak ("6N + causal attention", MFU); None for an unknown device."""
    peak = card.peak_flops_per_s(working) if card else None
    if peak is None:
        return None
    return (
        rate.tokens_per_s * training_flops_per_token(config.model, config.data.max_sequence_length) / peak / world_size
    )


def _block_parameters(model: ModelConfig) -> int:
    heads = model.vocab_size * model.d_model * (1 if model.tie_embeddings else 2)
    return num_parameters(model) - heads


def _micro_batch_traffic(model: ModelConfig, plan: MemoryPlan) -> float:
    """Bytes over the link in the busier direction: weights in for the forward and the backward pass, gradients in and out."""
    weights = 2.0 * WORKING_BYTES[plan.working] * _block_parameters(model) if plan.streams else 0.0
    gradients = plan.gradient_bytes * _block_parameters(model) if plan.gradients_on == "host" else 0.0
    return weights + gradients


def _update_traffic(model: ModelConfig, plan: MemoryPlan) -> float:
    """Bytes of an update over the link, one way; in and out go at the same time. Taken as hidden behind nothing."""
    if plan.states_on == "device":
        return 0.0
    count = num_parameters(model)
    return count * (plan.master_bytes + plan.moment_bytes) + (
        _block_parameters(model) * WORKING_BYTES[plan.working] if plan.streams else 0.0
    )
