"""AdamW: Adam with decoupled weight decay. Loshchilov & Hutter 2019, arXiv:1711.05101; torch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict

from havoc_training.optimizer import OptimizerSettings, ParameterGroup


class Options(BaseModel):
    """AdamW has no settings besides the shared ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def build(
    groups: Sequence[ParameterGroup], settings: OptimizerSettings, options: BaseModel
) -> list[torch.optim.Optimizer]:
    """One AdamW over all groups."""
    return [
        torch.optim.AdamW(
            [
                {"params": list(group.masters), "weight_decay": settings.weight_decay if group.decayed else 0.0}
                for group in groups
            ],
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.epsilon,
            fused=True,
        )
    ]
