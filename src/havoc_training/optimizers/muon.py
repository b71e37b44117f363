"""Muon for the matrices inside the blocks, AdamW for embedding, head and norms.

Jordan et al. 2024: momentum, orthogonalised by five Newton-Schulz steps. torch's implementation, which takes these steps in
bfloat16; on a CPU without instructions for that, where they take twenty times as long, the same steps in float32. Learning
rates are those of AdamW: each update is scaled to AdamW's usual root mean square (Liu et al. 2025, arXiv:2502.16982).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from havoc_core.processor import has_fast_bfloat16
from havoc_training.optimizer import OptimizerSettings, ParameterGroup
from havoc_training.optimizers import adamw


class Options(BaseModel):
    """What Muon alone understands."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    momentum: float = Field(0.95, ge=0.0, lt=1.0)
    """Of the gradient, with Nesterov's look ahead."""
    learning_rate_factor: float = Field(1.0, gt=0.0)
    """Times the shared learning rate, for the matrices."""


class Float32Muon(torch.optim.Muon):
    """torch's Muon with its Newton-Schulz steps in float32: settings, state and order of operations are torch's."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; nothing is evaluated again, so there is no closure."""
        assert closure is None, "a step is one evaluation"
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)

    def _update(self, matrix: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        momentum, buffer = group["momentum"], state["momentum_buffer"]
        buffer.lerp_(grad, 1 - momentum)
        update = grad.lerp(buffer, momentum) if group["nesterov"] else buffer
        direction = orthogonalised(update, group["ns_coefficients"], steps=group["ns_steps"], eps=group["eps"])
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        # As in `match_rms_adamw`: the root mean square of AdamW's updates.
        matrix.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))


def orthogonalised(matrix: Tensor, coefficients: Sequence[float], *, steps: int, eps: float) -> Tensor:
    """Nearly U V^T of the singular value decomposition U S V^T, by a quintic Newton-Schulz iteration in the matrix's dtype.

    Args:
        matrix: [m, n].
        coefficients: of the odd polynomial that each step applies to the singular values.
        steps: of the iteration.
        eps: the least norm that is divided by.

    Returns:
        [m, n]; singular values between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    wide = matrix.t() if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.t()
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.t() if matrix.shape[0] > matrix.shape[1] else wide


def build(
    groups: Sequence[ParameterGroup], settings: OptimizerSettings, options: Options
) -> list[torch.optim.Optimizer]:
    """Muon over the matrices, AdamW over the rest."""
    matrices = [group for group in groups if group.kind == "matrices"]
    rest = [group for group in groups if group.kind != "matrices"]
    on_slow_cpu = not has_fast_bfloat16() and all(p.device.type == "cpu" for group in matrices for p in group.masters)
    kind = Float32Muon if on_slow_cpu else torch.optim.Muon
    muon = kind(
        [{"params": list(group.masters)} for group in matrices],
        lr=settings.learning_rate * options.learning_rate_factor,
        weight_decay=settings.weight_decay,
        momentum=options.momentum,
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, *adamw.build(rest, settings, adamw.Options())]
