"""Muon for the matrices inside the blocks, AdamW for embedding, head and norms.

Jordan et al. 2024: momentum, orthogonalised by five Newton-Schulz steps. torch's implementation. Learning rates are
those of AdamW: each update is scaled to AdamW's usual root mean square (Liu et al. 2025, arXiv:2502.16982).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from havoc_training.optimizer import OptimizerSettings, ParameterGroup
from havoc_training.optimizers import adamw


class Options(BaseModel):
    """What Muon alone understands."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    momentum: float = Field(0.95, ge=0.0, lt=1.0)
    """Of the gradient, with Nesterov's look ahead."""
    learning_rate_factor: float = Field(1.0, gt=0.0)
    """Times the shared learning rate, for the matrices."""


def build(
    groups: Sequence[ParameterGroup], settings: OptimizerSettings, options: Options
) -> list[torch.optim.Optimizer]:
    """Muon over the matrices, AdamW over the rest."""
    matrices = [group for group in groups if group.kind == "matrices"]
    rest = [group for group in groups if group.kind != "matrices"]
    muon = torch.optim.Muon(
        [{"params": list(group.masters)} for group in matrices],
        lr=settings.learning_rate * options.learning_rate_factor,
        weight_decay=settings.weight_decay,
        momentum=options.momentum,
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, *adamw.build(rest, settings, adamw.Options())]
