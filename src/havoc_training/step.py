"""One update: micro-batches -> gradients -> weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from havoc_core.distributed import World
from havoc_core.errors import TrainingError
from havoc_core.labels import IGNORE_INDEX
from havoc_core.layers.segments import Segments
from havoc_core.loss import cross_entropy_sum
from havoc_core.model import Decoder
from havoc_data.loading.loader import Batch
from havoc_training.optimizer import Optimizer, clip, gradient_norm


@dataclass(frozen=True)
class StepSettings:
    """What an update depends on besides weights and batches."""

    max_grad_norm: float
    z_loss_weight: float
    world: World


@dataclass(frozen=True)
class StepResult:
    """What an update was like."""

    loss: float
    """Nats per scored token over the whole step, z-loss included."""
    grad_norm: float
    """Before clipping; infinite where float16 overflowed."""
    learning_rate: float
    """Of the first group."""
    scored_tokens: int
    """Over all ranks."""
    overflow: bool
    """Whether float16 gradients overflowed, so that the weights were left alone."""


@dataclass(frozen=True)
class DeviceBatch:
    """A batch as tensors on the device; B rows of T."""

    inputs: Tensor
    """[B, T] int64."""
    labels: Tensor
    """[B, T] int64."""
    segments: Segments

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> DeviceBatch:
        """Copy to the device."""
        return cls(
            torch.from_numpy(batch.inputs).to(device),
            torch.from_numpy(batch.labels).to(device),
            Segments.of_lengths(batch.lengths, batch.inputs.shape[1]).to(device),
        )


def train_step(
    model: Decoder,
    optimizer: Optimizer,
    micro_batches: Sequence[Batch],
    *,
    lr_factor: float,
    settings: StepSettings,
    loss_scale: float = 1.0,
) -> StepResult:
    """Learn from this rank's micro-batches.

    The gradient is that of the mean over all scored tokens of all ranks: sums are divided once, so the split into
    micro-batches changes nothing but rounding. It is added up in float32.

    Raises:
        TrainingError: the loss or the gradient is not finite (without loss scaling); the weights are untouched.
    """
    device = model.head.device
    scored = int(settings.world.sum(torch.tensor(sum(int((b.labels != IGNORE_INDEX).sum()) for b in micro_batches))))
    model.train()
    gradients: dict[str, Tensor] = {}
    total = torch.zeros((), device=device)
    for micro_batch in micro_batches:
        batch = DeviceBatch.of(micro_batch, device)
        hidden = model(batch.inputs, segments=batch.segments)
        loss = cross_entropy_sum(hidden, model.head, batch.labels, z_loss_weight=settings.z_loss_weight)
        (loss * (loss_scale / scored)).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        _accumulate(model, gradients)
    loss_value = float(settings.world.sum(total)) / scored
    for gradient in gradients.values():
        settings.world.sum(gradient)
    if loss_scale != 1.0:
        torch._foreach_mul_(list(gradients.values()), 1.0 / loss_scale)
    norm = gradient_norm(gradients.values())
    overflow = not bool(torch.isfinite(norm))
    if overflow and loss_scale == 1.0:
        raise TrainingError(
            "loss",
            f"is {loss_value}, and the gradient's norm {float(norm)}: training has diverged.",
            "The weights are those before this step. Lower learning_rate, lengthen warmup_steps, or check the data.",
        )
    clip(gradients, norm, settings.max_grad_norm)
    rate = 0.0
    for group in reversed(list(optimizer.param_groups())):
        rate = group["lr"] = group["initial_lr"] * lr_factor
    if not overflow:
        optimizer.step(gradients)
    return StepResult(loss_value, float(norm), rate, scored, overflow)


def _accumulate(model: Decoder, gradients: dict[str, Tensor]) -> None:
    """Add the parameters' gradients to the float32 sums and drop them."""
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, f"{name} got no gradient: it does not take part in the loss"
        if name in gradients:
            gradients[name] += gradient
        else:
            gradients[name] = gradient.to(torch.float32)
        parameter.grad = None
