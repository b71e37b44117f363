"""Does it fit? Asked before anything is built, from closed forms."""

from __future__ import annotations

from havoc_core.config import MODEL_SIZES, ModelConfig, TrainingConfig
from havoc_core.costs import activation_bytes, num_parameters, state_bytes
from havoc_core.errors import PlanError

_GIB = 2**30


def check_memory(config: TrainingConfig, *, working_bytes: int, available_bytes: int | None, device: str) -> None:
    """Refuse a run that cannot fit.

    Args:
        config: the run.
        working_bytes: of one weight while training: 2 or 4.
        available_bytes: memory of the device; None: unknown, nothing is refused.
        device: what it is called.

    Raises:
        PlanError: weights, gradients, optimizer and one micro-batch need more; names what would fit.
    """
    if available_bytes is None:
        return
    needed = _needed(config.model, config, working_bytes, config.batch_size)
    if needed <= available_bytes:
        return
    found = (
        f"this run needs about {needed / _GIB:.1f} GiB ({num_parameters(config.model) / 1e9:.2f} B parameters, "
        f"exact AdamW, {config.batch_size} rows of {config.data.max_sequence_length}); "
        f"the {device} has {available_bytes / _GIB:.1f} GiB."
    )
    smaller = list(range(config.batch_size - 1, 0, -1))
    for rows in smaller:
        if _needed(config.model, config, working_bytes, rows) <= available_bytes:
            raise PlanError("memory", found, f"Set batch_size to {rows} and raise gradient_accumulation_steps instead.")
    fitting = [
        size
        for size in MODEL_SIZES
        if _needed(ModelConfig.model_validate(size), config, working_bytes, 1) <= available_bytes
    ]
    remedy = f"The largest named model that fits is '{fitting[0]}': --model.size {fitting[0]}." if fitting else ""
    raise PlanError("memory", found, remedy or "Use a device with more memory.")


def _needed(model: ModelConfig, config: TrainingConfig, working_bytes: int, rows: int) -> int:
    length = min(config.data.max_sequence_length, model.max_seq_len)
    return state_bytes(model, working_bytes=working_bytes) + activation_bytes(
        model, rows=rows, sequence_length=length, working_bytes=working_bytes
    )
