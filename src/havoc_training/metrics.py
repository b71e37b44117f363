"""Numbers about a run that can be believed: where its time went, how fast it was, and what share of the device that is.

Imports no torch. A run that was stopped and resumed has several parts; what is known of all of them together is added up
from the lines of metrics.jsonl (`run_time`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from havoc_core.config import ModelConfig
from havoc_core.costs import hardware_flops_per_token, training_flops_per_token

if TYPE_CHECKING:
    from havoc_core.device import MemoryPeaks

WARM_UP_STEPS = 5
"""First steps of a part that are no steady state: caches fill, memory is laid out, clocks settle."""

Timed = Literal["validation", "checkpoints", "other"]
"""What a clock is told about besides updates."""


@dataclass(frozen=True)
class TimeLedger:
    """Where wall time went, in seconds."""

    updates: float = 0.0
    """In updates, without the two below."""
    data: float = 0.0
    """Waiting for batches."""
    compile: float = 0.0
    """What the first update of a part took more than the median: compilation, autotuning, first allocations."""
    validation: float = 0.0
    checkpoints: float = 0.0
    redone: float = 0.0
    """In updates and validations that were lost, because the run was killed after its last checkpoint, and made again."""
    other: float = 0.0
    """Everything else."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.seconds().values())

    @property
    def goodput(self) -> float | None:
        """Share of the wall time that went into updates which were kept; None where no time has passed."""
        return self.updates / self.total if self.total > 0 else None

    def seconds(self) -> dict[str, float]:
        """Kind -> seconds."""
        return asdict(self)

    @classmethod
    def of(cls, seconds: Mapping[str, float]) -> TimeLedger:
        """From kind -> seconds; a kind that is not known counts as other."""
        known = {each.name for each in fields(cls)}
        values = {name: seconds.get(name, 0.0) for name in known}
        values["other"] += sum(value for name, value in seconds.items() if name not in known)
        return cls(**values)

    def __add__(self, other: TimeLedger) -> TimeLedger:
        return TimeLedger(**{name: value + getattr(other, name) for name, value in self.seconds().items()})


@dataclass(frozen=True)
class Utilisation:
    """Shares of what a device can do; None where that is not known.

    `mfu` counts by `costs.MODEL_CONVENTION`, `hfu` by `costs.HARDWARE_CONVENTION`.
    """

    mfu: float | None = None
    """Of the datasheet's peak."""
    hfu: float | None = None
    mfu_measured: float | None = None
    """Of the rate of matrix products measured at the start."""
    hfu_measured: float | None = None


@dataclass(frozen=True)
class Yardstick:
    """What the speed of a run is measured against."""

    model_flops: float
    """A token, by `costs.MODEL_CONVENTION`."""
    hardware_flops: float
    """A token, by `costs.HARDWARE_CONVENTION`."""
    datasheet_flops_per_s: float | None
    """Of one device in the working format; None for an unknown device, and for a CPU, which has no such figure."""
    measured_flops_per_s: float | None
    """Matrix products on one device, measured at the start."""
    num_devices: int = 1

    @classmethod
    def of(
        cls,
        model: ModelConfig,
        *,
        sequence_length: int,
        recompute: Literal["none", "selective", "full"],
        datasheet_flops_per_s: float | None,
        measured_flops_per_s: float | None,
        num_devices: int = 1,
    ) -> Yardstick:
        """For a model that learns from rows of so many tokens."""
        return cls(
            training_flops_per_token(model, sequence_length),
            hardware_flops_per_token(model, sequence_length, recompute),
            datasheet_flops_per_s,
            measured_flops_per_s,
            num_devices,
        )

    def utilisation(self, tokens_per_s: float | None) -> Utilisation:
        """The shares at a speed over all devices; None everywhere where there is no speed."""
        if tokens_per_s is None:
            return Utilisation()

        def share(flops: float, peak: float | None) -> float | None:
            return flops * tokens_per_s / (peak * self.num_devices) if peak else None

        return Utilisation(
            mfu=share(self.model_flops, self.datasheet_flops_per_s),
            hfu=share(self.hardware_flops, self.datasheet_flops_per_s),
            mfu_measured=share(self.model_flops, self.measured_flops_per_s),
            hfu_measured=share(self.hardware_flops, self.measured_flops_per_s),
        )


@dataclass(frozen=True)
class PartSummary:
    """A part of a run, from its start or a resume to where it ended."""

    first_step: int
    """Updates that had been made before."""
    step: int
    """Updates that have been made since the run began."""
    scored_tokens: int
    """In this part."""
    time: TimeLedger
    steady_tokens_per_s: float | None
    overall_tokens_per_s: float | None
    utilisation: Utilisation
    """At the steady speed, or overall where too few updates were made to tell one."""
    memory: MemoryPeaks

    def to_json(self) -> dict[str, Any]:
        """The line of metrics.jsonl."""
        return {
            "kind": "summary",
            "step": self.step,
            "first_step": self.first_step,
            "tokens": self.scored_tokens,
            "goodput": self.time.goodput,
            "steady_tokens_per_s": self.steady_tokens_per_s,
            "overall_tokens_per_s": self.overall_tokens_per_s,
            "seconds": self.time.seconds(),
            **asdict(self.utilisation),
            "memory_allocated": self.memory.allocated,
            "memory_reserved": self.memory.reserved,
            "memory_used": self.memory.used,
        }


@dataclass(frozen=True)
class _Step:
    seconds: float
    data_seconds: float
    tokens: int

    @property
    def working_seconds(self) -> float:
        return max(0.0, self.seconds - self.data_seconds)


class Clock:
    """Adds up where the time of one part of a run goes. It runs from when it is made.

    Args:
        now: seconds since any moment.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._began = now()
        self._steps: list[_Step] = []
        self._seconds: dict[str, float] = {}
        self._inside: list[float] = []

    def add_update(self, seconds: float, *, data_seconds: float, scored_tokens: int) -> None:
        """An update was made in so many seconds, of which so many went by before there was a batch."""
        self._steps.append(_Step(seconds, data_seconds, scored_tokens))

    def add(self, kind: Timed, seconds: float) -> None:
        """So many seconds went into something else."""
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    @contextmanager
    def during(self, kind: Timed) -> Iterator[None]:
        """Time what happens inside. Where one lies inside another, every second counts once, for the inner one."""
        began = self._now()
        self._inside.append(0.0)
        try:
            yield
        finally:
            seconds = self._now() - began
            self.add(kind, seconds - self._inside.pop())
            if self._inside:
                self._inside[-1] += seconds

    @property
    def scored_tokens(self) -> int:
        """In all updates so far."""
        return sum(step.tokens for step in self._steps)

    def ledger(self) -> TimeLedger:
        """Where the time went so far; what nobody spoke for is `other`."""
        known = _ledger_of_steps(self._steps) + TimeLedger.of(self._seconds)
        unspoken = self._now() - self._began - known.total
        return known + TimeLedger(other=max(0.0, unspoken))

    def summary(self, *, first_step: int, step: int, yardstick: Yardstick, memory: MemoryPeaks) -> PartSummary:
        """What there is to say when the part ends."""
        ledger, steady = self.ledger(), _median_rate(_steady(self._steps))
        overall = self.scored_tokens / ledger.total if self._steps and ledger.total > 0 else None
        return PartSummary(
            first_step=first_step,
            step=step,
            scored_tokens=self.scored_tokens,
            time=ledger,
            steady_tokens_per_s=steady,
            overall_tokens_per_s=overall,
            utilisation=yardstick.utilisation(steady if steady is not None else overall),
            memory=memory,
        )


@dataclass(frozen=True)
class RunTime:
    """All parts of a run together."""

    ledger: TimeLedger
    steady_tokens_per_s: float | None
    """Median over the updates, without the first of each part."""
    overall_tokens_per_s: float | None
    scored_tokens: int
    num_parts: int


def run_time(lines: Iterable[Mapping[str, Any]]) -> RunTime:
    """Add up the lines of metrics.jsonl.

    A part that came to its end has a summary line, which knows all of its time. Of a part that was killed there are the
    lines of its updates and validations; the time of its checkpoints is not known and not counted.
    """
    every = list(lines)
    summaries = [line for line in every if line.get("kind") == "summary"]
    redone = [line for line in every if line.get("kind") == "redone"]
    # Where a part is known to begin: a run's first step, and whatever a resume or an end has left a line about.
    starts = {int(line[key]) for line in summaries for key in ("first_step", "step")}
    starts |= {0, *(int(line["step"]) for line in redone)}
    parts: list[list[_Step]] = []
    ledger = TimeLedger(redone=sum(line["seconds"] for line in redone))
    for line in summaries:
        ledger += TimeLedger.of(line["seconds"])
    uncovered: list[_Step] = []
    for line in (line for line in every if line.get("kind") == "train"):
        step = _Step(line["seconds"], line.get("data_seconds") or 0.0, line["tokens"])
        if not parts or int(line["step"]) - 1 in starts:
            parts.append([])
            ledger += _ledger_of_steps(uncovered)
            uncovered = []
        parts[-1].append(step)
        if not _is_covered(int(line["step"]), summaries):
            uncovered.append(step)
    ledger += _ledger_of_steps(uncovered)
    for line in every:
        if line.get("kind") == "validation" and not _is_covered(int(line["step"]), summaries):
            ledger += TimeLedger(validation=line["seconds"])
    tokens = sum(step.tokens for part in parts for step in part)
    return RunTime(
        ledger,
        _median_rate([step for part in parts for step in _steady(part)]),
        tokens / ledger.total if tokens and ledger.total > 0 else None,
        tokens,
        len(parts),
    )


def redone_line(later: Iterable[Mapping[str, Any]], *, first_step: int) -> dict[str, Any] | None:
    """The line that tells of work which was lost.

    Args:
        later: the lines beyond the step that is resumed.
        first_step: that step.

    Returns:
        None where nothing was lost: no lines, or a run that starts afresh, for which they are another run's.
    """
    # A summary that reaches back before the resumed step speaks of time that was not lost too: its lines alone count then.
    lost = [line for line in later if line.get("kind") != "summary" or int(line["first_step"]) >= first_step]
    seconds = run_time(lost).ledger.total if first_step > 0 else 0.0
    return {"kind": "redone", "step": first_step, "seconds": seconds} if seconds > 0 else None


def _is_covered(step: int, summaries: Sequence[Mapping[str, Any]]) -> bool:
    return any(int(line["first_step"]) < step <= int(line["step"]) for line in summaries)


def _steady(steps: Sequence[_Step]) -> Sequence[_Step]:
    """The steps of a part after its warm-up; of a very short one, all but the first."""
    return steps[WARM_UP_STEPS:] or steps[1:]


def _median_rate(steps: Sequence[_Step]) -> float | None:
    rates = [step.tokens / step.seconds for step in steps if step.seconds > 0]
    return median(rates) if rates else None


def _ledger_of_steps(steps: Sequence[_Step]) -> TimeLedger:
    """The steps of one part, the excess of its first over the median taken out."""
    working = sum(step.working_seconds for step in steps)
    steady = [step.working_seconds for step in _steady(steps)]
    compiling = max(0.0, steps[0].working_seconds - median(steady)) if steady else 0.0
    return TimeLedger(
        updates=working - compiling,
        data=sum(step.seconds - step.working_seconds for step in steps),
        compile=compiling,
    )
