"""TensorBoard event files in logs/tensorboard/."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict

from havoc_training.metrics import PartSummary
from havoc_training.observers import Observer, RunFacts, StepRecord, ValidationRecord
from havoc_training.tracker import TrackerSettings

_OF_STEPS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_s", "data_seconds", "mfu", "mfu_measured", "memory_bytes",
    "memory_allocated", "memory_reserved", "memory_used",
)  # fmt: skip
"""What is drawn of every step; what is not known has no point."""


class Options(BaseModel):
    """TensorBoard has no settings of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorBoard:
    """Scalars under train/, validation/ and summary/. A resumed run hides the points that will be made again."""

    def __init__(self, settings: TrackerSettings) -> None:
        self._settings = settings
        self._writer: _Events | None = None

    def started(self, facts: RunFacts) -> None:
        """Open the event file."""
        self._writer = _Events(self._settings, first_step=facts.first_step)

    def stepped(self, record: StepRecord) -> None:
        """Points every `interval_steps`."""
        if self._writer is None or record.step % self._settings.interval_steps:
            return
        for name in _OF_STEPS:
            value = getattr(record, name)
            if value is not None:
                self._writer.scalar(f"train/{name}", value, record.step)

    def validated(self, record: ValidationRecord) -> None:
        """Points for all and for each group."""
        if self._writer is None:
            return
        for name in ("loss", "perplexity", "bits_per_byte"):
            self._writer.scalar(f"validation/{name}", getattr(record, name), record.step)
        for group, scores in record.groups.items():
            for name, value in scores.items():
                self._writer.scalar(f"validation/{group}/{name}", value, record.step)

    def summarized(self, summary: PartSummary) -> None:
        """Points for speed, goodput and where the time went."""
        if self._writer is None:
            return
        values = {
            "goodput": summary.time.goodput,
            "steady_tokens_per_s": summary.steady_tokens_per_s,
            "overall_tokens_per_s": summary.overall_tokens_per_s,
            **{f"seconds/{kind}": seconds for kind, seconds in summary.time.seconds().items()},
        }
        for name, value in values.items():
            if value is not None:
                self._writer.scalar(f"summary/{name}", value, summary.step)

    def closed(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class _Events:
    """torch's writer; importing it loads much, so only here."""

    def __init__(self, settings: TrackerSettings, *, first_step: int) -> None:
        # TensorBoard looks for TensorFlow unless told not to, and a broken one on the machine would stop a run.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from torch.utils.tensorboard import SummaryWriter

        folder = settings.log_dir / "tensorboard" / settings.run_name
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None)

    def scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def build(settings: TrackerSettings, options: BaseModel) -> Observer:
    """An observer that writes event files."""
    return TensorBoard(settings)
