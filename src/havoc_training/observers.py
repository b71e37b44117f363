"""Those who are told about a run: screen, files, trackers. They get frozen records and are never asked anything."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from havoc_core.log import LOGGER
from havoc_training.metrics import PartSummary, TimeLedger, Utilisation, redone_line


@dataclass(frozen=True)
class RunFacts:
    """What is known when a run starts or resumes."""

    total_steps: int
    first_step: int
    """Updates already made."""
    description: str
    """One line: model, data, device."""
    settings: dict[str, Any]
    dummy_data: bool


@dataclass(frozen=True)
class StepRecord:
    """One completed update."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    scored_tokens: int
    seconds: float
    memory_bytes: int
    epoch: float
    batch_hash: str
    slots: tuple[int, int]
    """(first, one past the last) of the rows that were learnt from, for `havoc data replay`."""
    first_slot: int
    """The first slot of the store that they are from; not 0 where the text has grown under the run."""
    overflow: bool
    data_seconds: float = 0.0
    """Of `seconds`, what went by before there was a batch."""
    mfu: float | None = None
    """Share of the datasheet's peak, by `costs.MODEL_CONVENTION`; None where the device is not known."""
    mfu_measured: float | None = None
    """Share of the rate of matrix products measured at the start."""
    memory_allocated: int | None = None
    """Most bytes of tensors so far (GPU), see `device.MemoryPeaks`."""
    memory_reserved: int | None = None
    memory_used: int | None = None

    @property
    def tokens_per_s(self) -> float:
        """Scored tokens a second in this step."""
        return self.scored_tokens / self.seconds


@dataclass(frozen=True)
class ValidationRecord:
    """One validation."""

    step: int
    loss: float
    perplexity: float
    bits_per_byte: float
    groups: Mapping[str, Mapping[str, float]]
    """Group -> loss, perplexity, bits_per_byte."""
    seconds: float
    is_best: bool


class Observer(Protocol):
    """Told about a run."""

    def started(self, facts: RunFacts) -> None:
        """A run starts or resumes."""

    def stepped(self, record: StepRecord) -> None:
        """An update was made."""

    def validated(self, record: ValidationRecord) -> None:
        """A validation was made."""

    def summarized(self, summary: PartSummary) -> None:
        """The run ends here, for good or until it is resumed."""

    def closed(self) -> None:
        """The run ended, however it ended."""


class Screen:
    """A live line on a terminal; plain lines, every `interval_steps`, anywhere else and in train.log."""

    def __init__(self, interval_steps: int) -> None:
        self._interval = interval_steps
        self._live = sys.stdout.isatty()
        self._total = 0
        self._dummy = ""
        self._recent: list[StepRecord] = []

    def started(self, facts: RunFacts) -> None:
        """Say what begins."""
        self._total = facts.total_steps
        self._dummy = "DUMMY DATA  " if facts.dummy_data else ""
        LOGGER.info(facts.description)

    def stepped(self, record: StepRecord) -> None:
        """Show progress."""
        self._recent = [*self._recent[-19:], record]
        line = self._line(record)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r" + line[:width].ljust(width))
            sys.stdout.flush()
        if record.step % self._interval == 0 or record.step == self._total:
            self._clear()
            LOGGER.info(line)

    def validated(self, record: ValidationRecord) -> None:
        """Show scores."""
        self._clear()
        groups = "  ".join(f"{name} {scores['bits_per_byte']:.3f}" for name, scores in record.groups.items())
        LOGGER.info(
            "%svalidation at step %d: loss %.4f  perplexity %.1f  bits per byte %.4f (%s)%s",
            self._dummy, record.step, record.loss, record.perplexity, record.bits_per_byte, groups,
            "  best so far" if record.is_best else "",
        )  # fmt: skip

    def summarized(self, summary: PartSummary) -> None:
        """Two lines: how fast, and where the time went."""
        self._clear()
        for line in _summary_lines(summary):
            LOGGER.info("%s%s", self._dummy, line)

    def closed(self) -> None:
        """Leave the terminal clean."""
        self._clear()

    def _line(self, record: StepRecord) -> str:
        seconds = sum(r.seconds for r in self._recent)
        rate = sum(r.scored_tokens for r in self._recent) / seconds
        eta = (self._total - record.step) * seconds / len(self._recent)
        overflow = "  overflow: step left out" if record.overflow else ""
        return (
            f"{self._dummy}step {record.step}/{self._total}  loss {record.loss:.4f}  lr {record.learning_rate:.2e}  "
            f"grad norm {record.grad_norm:.2f}  {rate:,.0f} tokens/s{_utilisation_of(record)}  ETA {_duration(eta)}  "
            f"memory {record.memory_bytes / 2**30:.2f} GiB{overflow}"
        )

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()


def _utilisation_of(record: StepRecord) -> str:
    """Of the datasheet where the device is known, else of what was measured, else nothing."""
    if record.mfu is not None:
        return f"  MFU {record.mfu:.1%}"
    return "" if record.mfu_measured is None else f"  {record.mfu_measured:.0%} of the matmul rate"


def _summary_lines(summary: PartSummary) -> tuple[str, str]:
    steady, overall = summary.steady_tokens_per_s, summary.overall_tokens_per_s
    parts = ["not measured"] if overall is None else [f"{overall:,.0f} tokens/s overall"]
    if overall is not None and steady is not None:
        parts = [f"{steady:,.0f} tokens/s in the steady state, {overall:,.0f} overall"]
    if summary.time.goodput is not None:
        parts.append(f"goodput {summary.time.goodput:.1%}")
    parts += _utilisation_words(summary.utilisation)
    memory = summary.memory.used if summary.memory.allocated is None else summary.memory.allocated
    parts.append(f"peak memory {memory / 2**30:.2f} GiB")
    return f"Speed: {'; '.join(parts)}.", f"Time: {_time_words(summary.time)}."


def _utilisation_words(share: Utilisation) -> list[str]:
    words = []
    for name, mfu, hfu in (
        ("of the datasheet's peak", share.mfu, share.hfu),
        ("of the measured matmul rate", share.mfu_measured, share.hfu_measured),
    ):
        if mfu is not None:
            again = f", {hfu:.1%} with recompute" if hfu is not None and hfu > mfu else ""
            words.append(f"MFU {mfu:.1%} {name}{again}")
    return words


def _time_words(ledger: TimeLedger) -> str:
    """Whole and parts; what took no time is left out."""
    parts = [f"{kind} {_duration(seconds)}" for kind, seconds in ledger.seconds().items() if seconds >= 0.5]
    return f"{_duration(ledger.total)}" + (f", of which {', '.join(parts)}" if parts else "")


class MetricsFile:
    """metrics.jsonl: a line for every step, every validation and the end of every part, written at once.

    A number that is not finite is null: JSON knows no Infinity. On resume, lines beyond the resumed step are moved to
    metrics.jsonl.1, .2, …, and one line says how much time was lost with them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def started(self, facts: RunFacts) -> None:
        """Put lines of steps that will be made again aside."""
        if self._path.exists():
            kept, later = _split_lines(self._path.read_text(encoding="utf-8", errors="replace"), facts.first_step)
            if later:
                number = 1
                while (aside := self._path.with_name(f"{self._path.name}.{number}")).exists():
                    number += 1
                redone = redone_line(_parsed(later), first_step=facts.first_step)
                kept += [] if redone is None else [json.dumps(redone) + "\n"]
                # In this order, so that whatever kills the run, every line is in one of the two, at worst in both.
                _replace(aside, "".join(later))
                _replace(self._path, "".join(kept))

    def stepped(self, record: StepRecord) -> None:
        """Add a line."""
        self._add(
            {
                "kind": "train",
                "step": record.step,
                "loss": record.loss,
                "learning_rate": record.learning_rate,
                "grad_norm": record.grad_norm,
                "tokens": record.scored_tokens,
                "tokens_per_s": record.tokens_per_s,
                "seconds": record.seconds,
                "data_seconds": record.data_seconds,
                "mfu": record.mfu,
                "mfu_measured": record.mfu_measured,
                "memory_bytes": record.memory_bytes,
                "memory_allocated": record.memory_allocated,
                "memory_reserved": record.memory_reserved,
                "memory_used": record.memory_used,
                "epoch": record.epoch,
                "batch_hash": record.batch_hash,
                "slots": list(record.slots),
                "first_slot": record.first_slot,
                "overflow": record.overflow,
                "time": time.time(),
            }
        )

    def validated(self, record: ValidationRecord) -> None:
        """Add a line."""
        self._add(
            {
                "kind": "validation",
                "step": record.step,
                "loss": record.loss,
                "perplexity": record.perplexity,
                "bits_per_byte": record.bits_per_byte,
                "groups": {name: dict(scores) for name, scores in record.groups.items()},
                "seconds": record.seconds,
            }
        )

    def summarized(self, summary: PartSummary) -> None:
        """Add a line."""
        self._add({**summary.to_json(), "time": time.time()})

    def closed(self) -> None:
        """Nothing is held open."""

    def _add(self, values: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(values), allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """The same values, None in place of infinities and NaN, however deep they lie."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
    """Write a file beside, then give it its name: under that name there is always a whole one."""
    beside = path.with_name(f".{path.name}.writing")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _split_lines(text: str, step: int) -> tuple[list[str], list[str]]:
    """Lines up to a step, and the others; a line that a kill cut short belongs to the others."""
    kept: list[str] = []
    later: list[str] = []
    for line in text.splitlines(keepends=True):
        try:
            known = int(json.loads(line)["step"]) <= step and line.endswith("\n")
        except (ValueError, KeyError, TypeError):
            known = False
        (kept if known else later).append(line if line.endswith("\n") else line + "\n")
    return kept, later


def _parsed(lines: Iterable[str]) -> list[Mapping[str, Any]]:
    """The lines that are whole."""
    whole: list[Mapping[str, Any]] = []
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        whole += [values] if isinstance(values, dict) else []
    return whole


def _duration(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{whole % 60:02d}s"
