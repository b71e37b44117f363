"""The loop: Trainer. It is put together by `build.py`; one update is `step.py`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from havoc_core.device import Precision, memory_peaks, peak_memory_bytes
from havoc_core.distributed import World
from havoc_core.errors import HavocError, PlanError, TrainingError
from havoc_core.log import LOGGER
from havoc_core.model import Decoder
from havoc_data.loading.ledger import batch_hash
from havoc_data.loading.loader import Batch, Loader, Row
from havoc_training.batch_plan import BatchPlan, halve_micro_batch
from havoc_training.checkpointing import CheckpointKeeper
from havoc_training.interrupts import StopRequest
from havoc_training.metrics import Clock, Yardstick
from havoc_training.observers import Observer, RunFacts, StepRecord, ValidationRecord
from havoc_training.schedules import Schedule
from havoc_training.state import TrainState
from havoc_training.step import HalfUpdateError, StepSettings, UnreadStep, is_out_of_memory, start_step
from havoc_training.updater import Updater
from havoc_training.validation import ValidationResult, validate


@dataclass(frozen=True)
class Intervals:
    """Updates between events."""

    save: int
    validate: int


@dataclass(frozen=True)
class HeldOut:
    """What a validation needs."""

    batches: Mapping[str, Sequence[Batch]]
    ratios: Mapping[str, float]
    token_lengths: Tensor
    """[V] bytes of each id."""

    def cut(self, size: int) -> HeldOut:
        """The same rows in the same order, no more than `size` of them together."""
        return replace(
            self,
            batches={
                group: [part for b in batches for part in _cut(b, size)] for group, batches in self.batches.items()
            },
        )


@dataclass(frozen=True)
class FitResult:
    """How training ended."""

    state: TrainState
    stopped_by: int | None
    """Number of the signal that stopped it; None: it reached its last step."""
    checkpoint: Path
    """Where the final state is."""
    seconds: float
    """Of this call, validations and checkpoints included."""
    compute_seconds: float
    """Of the updates alone."""


@dataclass(frozen=True)
class _Asked:
    """An update that was asked for and whose numbers have not been read."""

    step: UnreadStep
    before: TrainState
    number: int
    began: float
    data_seconds: float
    epoch: float
    hashes: list[bytes]
    slots: tuple[int, int]


class Trainer:
    """Trains a model on the rows of a loader.

    The parts are handed in whole; see `build.py` for where they come from.
    """

    def __init__(
        self,
        *,
        model: Decoder,
        optimizer: Updater,
        loader: Loader,
        plan: BatchPlan,
        schedule: Schedule,
        keeper: CheckpointKeeper,
        observers: Sequence[Observer],
        held_out: HeldOut,
        step_settings: StepSettings,
        intervals: Intervals,
        precision: Precision,
        state: TrainState,
        facts: RunFacts,
        yardstick: Yardstick,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loader = loader
        self.plan = plan
        self.schedule = schedule
        self.keeper = keeper
        self.observers = observers
        self.held_out = held_out
        self.step_settings = step_settings
        self.intervals = intervals
        self.precision = precision
        self.state = state
        self.facts = facts
        self.yardstick = yardstick
        self._clock = Clock()
        self._asked: _Asked | None = None
        self._read_at = 0.0
        self._compute_seconds = 0.0

    def fit(self) -> FitResult:
        """Train to the last step, a stop request, or an error. Safe to call again after either.

        Raises:
            HavocError: training failed; checkpoint_error was saved where that was possible.
        """
        began = time.perf_counter()
        name, first_step = "", self.state.step
        self._clock = Clock()
        for observer in self.observers:
            observer.started(replace(self.facts, first_step=first_step))
        try:
            with StopRequest() as stop:
                while self.state.step < self.plan.total_steps and not self.world.any(stop.requested):
                    self._update()
                    if self.state.step % self.intervals.validate == 0 or self.state.step == self.plan.total_steps:
                        self._validate()
                    if self.state.step % self.intervals.save == 0 or self.state.step == self.plan.total_steps:
                        name = f"checkpoint_step_{self.state.step}"
                        self._save(name)
                if self.state.step < self.plan.total_steps:
                    name = "checkpoint_interrupted"
                    self._save(name)
            self._summarize(first_step)
        except BaseException as error:
            self._save_after(error)
            raise
        finally:
            for observer in self.observers:
                observer.closed()
        folder = self.keeper.folder / (name or f"checkpoint_step_{self.state.step}")
        stopped_by = stop.signal if self.state.step < self.plan.total_steps else None
        return FitResult(self.state, stopped_by, folder, time.perf_counter() - began, self._compute_seconds)

    @property
    def world(self) -> World:
        """The processes that train together."""
        return self.step_settings.world

    def _update(self) -> None:
        began = time.perf_counter()
        before = self.state
        unread, rows, data_seconds = self._start()
        earlier = self._asked
        if earlier is not None and not earlier.step.is_there:
            data_seconds = 0.0  # the device was still at work: nothing waited for the batch
        joined = b"".join(self.world.gather_bytes(b"".join(row.hash() for row in rows)))
        hashes = [joined[i : i + 16] for i in range(0, len(joined), 16)]
        scales = self.precision.scales_loss
        self.state = self.state.after(
            rows=hashes,
            scored_tokens=unread.scored_tokens,
            overflow=scales and unread.read().overflow,
            scales_loss=scales,
        )
        slots = (self.state.next_slot - len(hashes), self.state.next_slot)
        epoch = self.state.next_slot / self.loader.rows_per_epoch
        self._asked = _Asked(unread, before, self.state.step, began, data_seconds, epoch, hashes, slots)
        # A GPU works on this update while the host reads the numbers of the one before.
        if earlier is not None:
            self._tell(earlier)
        if not self.step_settings.reads_late:
            self._tell_the_last()

    def _start(self) -> tuple[UnreadStep, list[Row], float]:
        """Ask for an update; where memory runs out, with half the rows at a time."""
        while True:
            began = time.perf_counter()
            batches, rows = self.loader.micro_batches(
                self.state.next_slot,
                rows_per_step=self.plan.rows_per_step,
                micro_batch_size=self.plan.micro_batch_size,
                rank=self.world.rank,
                world_size=self.world.size,
            )
            data_seconds = time.perf_counter() - began
            try:
                unread = start_step(
                    self.model,
                    self.optimizer,
                    batches,
                    lr_factor=self.schedule(self.state.step),
                    settings=self.step_settings,
                    loss_scale=self.state.scale.scale if self.precision.scales_loss else 1.0,
                )
                return unread, rows, data_seconds
            except HalfUpdateError as error:
                raise PlanError(
                    "memory",
                    f"ran out while the weights were updated, which fewer rows at a time do not help ({error}).",
                    "Use a preset that needs less (`havoc plan` shows them), and go on from the last checkpoint.",
                ) from error
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # Outside of the handler: the error holds on to the tensors of the step that did not fit.
            self._halve(reason)

    def _halve(self, reason: str) -> None:
        if self.world.size > 1:
            raise PlanError(
                "memory",
                f"ran out at a micro-batch of {self.plan.micro_batch_size} rows ({reason}), and devices that train together "
                "do not halve it by themselves.",
                "Lower batch_size and raise gradient_accumulation_steps by the same factor.",
            )
        smaller = halve_micro_batch(self.plan)
        if smaller is None:
            raise PlanError(
                "memory",
                f"ran out at a micro-batch of 1 row, which cannot be halved ({reason}).",
                "Use a preset that needs less (`havoc plan` shows them), `recompute: full`, or shorter rows.",
            )
        self.model.zero_grad(set_to_none=True)
        if self.model.head.device.type == "cuda":
            torch.cuda.empty_cache()
        LOGGER.warning(
            "Out of memory at step %d (%s). Going on with %d rows at a time instead of %d; the tokens of a step stay the "
            "same, the last bits do not.",
            self.state.step + 1, reason, smaller.micro_batch_size, self.plan.micro_batch_size,
        )  # fmt: skip
        self.plan = smaller
        # As many rows without a backward pass may need more than a few with one.
        self.held_out = self.held_out.cut(smaller.micro_batch_size)
        self.keeper.note_halving(step=self.state.step + 1, micro_batch_size=smaller.micro_batch_size)

    def _tell_the_last(self) -> None:
        """Read and report what has not been read yet."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._tell(asked)

    def _tell(self, asked: _Asked) -> None:
        try:
            result = asked.step.read()
        except TrainingError:
            # This update and those asked for after it were left out: the state is that before them.
            self.optimizer.take_back(self.state.step - asked.before.step)
            self.state, self._asked = asked.before, None
            raise
        now = time.perf_counter()
        # The update before this one may have been read after this one began: its time is not counted twice.
        seconds, self._read_at = now - max(asked.began, self._read_at), now
        self._compute_seconds += seconds
        self._clock.add_update(seconds, data_seconds=asked.data_seconds, scored_tokens=result.scored_tokens)
        shares = self.yardstick.utilisation(result.scored_tokens / seconds)
        device = self.model.head.device
        peaks = memory_peaks(device)
        record = StepRecord(
            step=asked.number,
            loss=result.loss,
            learning_rate=result.learning_rate,
            grad_norm=result.grad_norm,
            scored_tokens=result.scored_tokens,
            seconds=seconds,
            memory_bytes=peak_memory_bytes(device),
            epoch=asked.epoch,
            batch_hash=batch_hash(asked.hashes).hex(),
            slots=asked.slots,
            first_slot=self.loader.first_slot,
            overflow=result.overflow,
            data_seconds=asked.data_seconds,
            mfu=shares.mfu,
            mfu_measured=shares.mfu_measured,
            memory_allocated=peaks.allocated,
            memory_reserved=peaks.reserved,
            memory_used=peaks.used,
        )
        for observer in self.observers:
            observer.stepped(record)

    def _summarize(self, first_step: int) -> None:
        self._tell_the_last()
        summary = self._clock.summary(
            first_step=first_step,
            step=self.state.step,
            yardstick=self.yardstick,
            memory=memory_peaks(self.model.head.device),
        )
        for observer in self.observers:
            observer.summarized(summary)

    def _validate(self) -> None:
        self._tell_the_last()
        began = time.perf_counter()
        with self._clock.during("validation"):
            result = validate(
                self.model,
                self.held_out.batches,
                ratios=self.held_out.ratios,
                token_lengths=self.held_out.token_lengths,
                world=self.world,
            )
        before = self.state.best_loss
        self.state = self.state.validated(result.total.loss)
        is_best = before is None or result.total.loss < before
        record = _record(self.state.step, result, time.perf_counter() - began, is_best)
        for observer in self.observers:
            observer.validated(record)
        if is_best:
            self._save("checkpoint_best")

    def _save(self, name: str) -> None:
        self._tell_the_last()
        with self._clock.during("checkpoints"):
            if self.world.rank == 0:
                self.keeper.save(name, self.model, self.optimizer, self.state, scales_loss=self.precision.scales_loss)
            self.world.barrier()

    def _save_after(self, error: BaseException) -> None:
        """checkpoint_error, where possible. The error itself is shown by the caller and must not be hidden by another."""
        if isinstance(error, KeyboardInterrupt | SystemExit) or self.world.rank != 0:
            return
        if self.model.head.device.type == "cuda":
            torch.cuda.synchronize()  # weights on the host may still be on their way
        weights = self.model.state_dict().values()
        # Other HavocErrors are raised between updates or before one; anything else may have cut an update in two.
        between = isinstance(error, HavocError) and not isinstance(error.__cause__, HalfUpdateError)
        consistent = between and all(bool(torch.isfinite(w).all()) for w in weights)
        try:
            folder = self.keeper.save(
                "checkpoint_error",
                self.model,
                self.optimizer,
                self.state,
                scales_loss=self.precision.scales_loss,
                consistent=consistent,
            )
            LOGGER.info("Saved %s (after %d steps).", folder, self.state.step)
        except Exception as second:
            LOGGER.warning("checkpoint_error could not be saved: %s", second)


def _cut(batch: Batch, size: int) -> list[Batch]:
    starts = range(0, len(batch.inputs), size)
    return [Batch(batch.inputs[i : i + size], batch.labels[i : i + size], batch.lengths[i : i + size]) for i in starts]


def _record(step: int, result: ValidationResult, seconds: float, is_best: bool) -> ValidationRecord:
    groups = {
        name: {"loss": score.loss, "perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte}
        for name, score in result.groups.items()
    }
    total = result.total
    return ValidationRecord(step, total.loss, total.perplexity, total.bits_per_byte, groups, seconds, is_best)
