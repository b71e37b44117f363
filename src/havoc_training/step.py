"""One update: micro-batches -> gradients -> weights."""

from __future__ import annotations

import math
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
from havoc_training.updater import Updater


@dataclass(frozen=True)
class StepSettings:
    """What an update depends on besides weights and batches."""

    max_grad_norm: float
    z_loss_weight: float
    world: World
    loss_kernel: bool = False
    """Use the compiled cross-entropy of the CPU where it takes the format; it has been loaded."""
    reads_late: bool = False
    """Ask for the next step before the numbers of this one are read, as a GPU allows; an update whose gradient is not
    finite is then left out on the device."""


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
        """Copy to the device; to a GPU from pinned memory, so that the host does not wait."""
        inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
        segments = Segments.of_lengths(batch.lengths, batch.inputs.shape[1])
        if device.type != "cuda":
            return cls(inputs.to(device), labels.to(device), segments.to(device))
        starts = segments.starts.pin_memory().to(device, non_blocking=True)
        return cls(
            inputs.pin_memory().to(device, non_blocking=True),
            labels.pin_memory().to(device, non_blocking=True),
            Segments(starts, segments.one_each),
        )


class HalfUpdateError(RuntimeError):
    """Memory ran out in the middle of an update: some weights may have moved and others not, so it cannot be tried again."""


@dataclass(frozen=True)
class UnreadStep:
    """An update that was asked for. Its numbers may still be on their way from the device; reading them waits for them,
    not for what was asked for after them."""

    numbers: Tensor
    """[2] on the host: sum of the losses, norm of the gradient."""
    arrived: torch.cuda.Event | None
    """When they are there; None: now."""
    learning_rate: float
    scored_tokens: int
    scales_loss: bool

    @classmethod
    def of(cls, numbers: Tensor, *, learning_rate: float, scored_tokens: int, scales_loss: bool) -> UnreadStep:
        """Send numbers that are being worked out on the device to the host."""
        arrived = None
        if numbers.device.type == "cuda":
            numbers = numbers.to("cpu", non_blocking=True)  # into pinned memory
            arrived = torch.cuda.current_stream().record_event()
        return cls(numbers, arrived, learning_rate, scored_tokens, scales_loss)

    @property
    def is_there(self) -> bool:
        """Whether the numbers have arrived, so that the device has nothing left to do for them."""
        return self.arrived is None or bool(self.arrived.query())  # type: ignore[no-untyped-call]

    def read(self) -> StepResult:
        """The numbers.

        Raises:
            TrainingError: loss or gradient is not finite (without loss scaling); that update left the weights alone.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        loss_sum, norm = self.numbers.tolist()
        loss = loss_sum / self.scored_tokens
        overflow = not math.isfinite(norm)
        if overflow and not self.scales_loss:
            raise TrainingError(
                "loss",
                f"is {loss}, and the gradient's norm {norm}: training has diverged.",
                "The weights are those before this step. Lower learning_rate, lengthen warmup_steps, or check the data.",
            )
        return StepResult(loss, norm, self.learning_rate, self.scored_tokens, overflow)


def train_step(
    model: Decoder,
    optimizer: Updater,
    micro_batches: Sequence[Batch],
    *,
    lr_factor: float,
    settings: StepSettings,
    loss_scale: float = 1.0,
) -> StepResult:
    """Learn from this rank's micro-batches and wait for the numbers; see `start_step`.

    Raises:
        TrainingError: the loss or the gradient is not finite (without loss scaling); the weights are untouched.
    """
    return start_step(
        model, optimizer, micro_batches, lr_factor=lr_factor, settings=settings, loss_scale=loss_scale
    ).read()


def start_step(
    model: Decoder,
    optimizer: Updater,
    micro_batches: Sequence[Batch],
    *,
    lr_factor: float,
    settings: StepSettings,
    loss_scale: float = 1.0,
) -> UnreadStep:
    """Learn from this rank's micro-batches; on a GPU the work is only asked for, and the host goes on.

    The gradient is that of the mean over all scored tokens of all ranks: sums are divided once, so the split into
    micro-batches changes nothing but rounding.

    Raises:
        TrainingError: where the numbers are there at once, as in `UnreadStep.read`.
        HalfUpdateError: memory ran out after weights had begun to change.
    """
    device = model.head.device
    scored = int(settings.world.sum(torch.tensor(sum(int((b.labels != IGNORE_INDEX).sum()) for b in micro_batches))))
    model.train()
    optimizer.begin()
    total = torch.zeros((), device=device)
    for micro_batch in micro_batches:
        batch = DeviceBatch.of(micro_batch, device)
        loss = cross_entropy_sum(
            # Not kept under a name: the gradient of the hidden states, worked out on the way, is all that is needed of them.
            model(batch.inputs, segments=batch.segments),
            model.head,
            batch.labels,
            z_loss_weight=settings.z_loss_weight,
            kernel=settings.loss_kernel,
        )
        (loss * (loss_scale / scored)).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    settings.world.sum(total)
    norm = optimizer.gradients.finish(settings.world, scale=1.0 / loss_scale)
    rate = 0.0
    for group in reversed(list(optimizer.param_groups())):
        rate = group["lr"] = group["initial_lr"] * lr_factor
    step = UnreadStep.of(
        torch.stack([total, norm]), learning_rate=rate, scored_tokens=scored, scales_loss=loss_scale != 1.0
    )
    factor = clipping(norm, settings.max_grad_norm)
    if settings.reads_late and optimizer.leaves_out and not step.scales_loss:
        _update(optimizer, factor, left_out=(~torch.isfinite(norm)).float())
    elif not step.read().overflow:
        _update(optimizer, factor)
    return step


def _update(optimizer: Updater, factor: Tensor, *, left_out: Tensor | None = None) -> None:
    try:
        optimizer.update(factor, left_out=left_out)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise HalfUpdateError(str(error).splitlines()[0]) from error


def clipping(norm: Tensor, max_norm: float) -> Tensor:
    """Scalar by which gradients of this norm are multiplied so that it is at most `max_norm`; 0: leave them."""
    return torch.clamp(max_norm / (norm + 1e-6), max=1.0) if max_norm > 0 else torch.ones_like(norm)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch means that memory could not be had: of a GPU, or of the machine."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
