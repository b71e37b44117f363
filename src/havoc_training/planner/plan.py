"""What a run will need, as one record: memory, disk, time, energy, money. Imports no torch.

`logs/plan.json` holds it, so that the report can show the plan beside what then happened.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from havoc_core.config import TrainingConfig
from havoc_core.costs import num_parameters, training_flops_per_token
from havoc_core.errors import DataError
from havoc_training.memory.presets import MemoryPlan
from havoc_training.planner.choice import Choice, described
from havoc_training.planner.ledger import checkpoint_bytes
from havoc_training.planner.machine import Machine
from havoc_training.planner.rates import Rate, peak_share

VERSION = 1


@dataclass(frozen=True)
class Prices:
    """What time and energy cost; None: not known, or free."""

    per_hour: float | None = None
    """Of one device."""
    per_kwh: float | None = None
    currency: str = "EUR"

    @property
    def known(self) -> bool:
        """Whether anything costs anything."""
        return self.per_hour is not None or self.per_kwh is not None


@dataclass(frozen=True)
class Outlook:
    """The loss to expect at the end, as fitted on runs of the user's own."""

    loss: float
    low: float
    high: float
    note: str = ""
    """What it rests on."""


@dataclass(frozen=True)
class Schedule:
    """How long a run is and what is known about it beforehand."""

    total_steps: int | None
    """None: not known before the text has been read."""
    rate: Rate | None
    begins_at: datetime
    prices: Prices = Prices()
    epochs: Mapping[str, float] | None = None
    """Source -> how often it is read; None: there is no store yet."""
    outlook: Outlook | None = None


@dataclass(frozen=True)
class Plan:
    """What a run will need and how long it will take."""

    machine: str
    device: str
    """cuda or cpu."""
    world_size: int
    device_bytes: int
    """Usable on one device."""
    host_found_bytes: int | None
    """None: taken to be enough."""
    pieces: dict[str, Any]
    """The MemoryPlan, by the names of its fields."""
    description: str
    """The same in words."""
    micro_batch_size: int
    micro_batches: int
    rows_per_step: int
    sequence_length: int
    phases: dict[str, dict[str, int]]
    """Phase of a step -> part -> bytes on one device."""
    peak_phase: str
    peak_bytes: int
    host: dict[str, int]
    """Part -> bytes in host memory."""
    host_bytes: int
    checkpoint_bytes: int
    num_checkpoints: int
    """Kept ones, the best one, and one that is being written."""
    disk_free_bytes: int | None
    """None: the machine is another one."""
    parameters: int
    flops_per_token: float
    """Model FLOPs: 6N + causal attention."""
    total_steps: int | None
    tokens_per_s: float | None
    """None: nothing is known of the device's speed."""
    rate_origin: str | None
    """probe or predicted."""
    limited_by: str | None
    """compute, host link or latency, for a predicted rate."""
    peak_share: float | None
    """MFU; None for an unknown device."""
    power_w: float | None
    """Board power of one card; None: unknown."""
    begins_at: str
    """ISO 8601, with the offset from UTC."""
    money: float | None
    currency: str
    epochs: dict[str, float] | None
    outlook: dict[str, Any] | None
    reasons: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def memory(self) -> MemoryPlan:
        """The pieces as a value."""
        return MemoryPlan(**self.pieces)

    @property
    def tokens_per_step(self) -> int:
        """Over all devices."""
        return self.rows_per_step * self.sequence_length

    @property
    def total_tokens(self) -> int | None:
        """Of the whole run."""
        return None if self.total_steps is None else self.total_steps * self.tokens_per_step

    @property
    def disk_bytes(self) -> int:
        """Of all checkpoints together."""
        return self.checkpoint_bytes * self.num_checkpoints

    @property
    def seconds(self) -> float | None:
        """Of pure training; validation, checkpoints and compiling come on top."""
        if self.total_tokens is None or self.tokens_per_s is None:
            return None
        return self.total_tokens / self.tokens_per_s

    @property
    def ends_at(self) -> datetime | None:
        """If it began at `begins_at` and were never interrupted; None also where no calendar reaches that far."""
        if self.seconds is None:
            return None
        try:
            return datetime.fromisoformat(self.begins_at) + timedelta(seconds=self.seconds)
        except OverflowError:
            return None

    @property
    def energy_kwh(self) -> float | None:
        """Of the cards at full board power, without the machine around them."""
        if self.seconds is None or self.power_w is None:
            return None
        return self.seconds / 3600 * self.power_w / 1000 * self.world_size

    @property
    def days_per_billion_tokens(self) -> float | None:
        """None: nothing is known of the device's speed."""
        return None if self.tokens_per_s is None else 1e9 / self.tokens_per_s / 86400

    def to_json(self) -> str:
        """Canonical JSON. What follows from the rest stands beside it for other readers, and is not read back."""
        values = asdict(self)
        values["derived"] = {
            "tokens_per_step": self.tokens_per_step,
            "total_tokens": self.total_tokens,
            "disk_bytes": self.disk_bytes,
            "seconds": self.seconds,
            "ends_at": self.ends_at.isoformat() if self.ends_at else None,
            "energy_kwh": self.energy_kwh,
            "days_per_billion_tokens": self.days_per_billion_tokens,
        }
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "plan.json") -> Plan:
        """A plan that `to_json` wrote.

        Raises:
            DataError: it is no such file, or of another version.
        """
        try:
            values = json.loads(text)
            if values["version"] != VERSION:
                raise ValueError(f"version {values['version']}")
            known = {name.name: values[name.name] for name in fields(cls)}
            return cls(**{**known, "reasons": tuple(known["reasons"])})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                where, f"is no plan of this version ({error!r}).", "Make it again: havoc plan --json."
            ) from None


def make_plan(
    config: TrainingConfig, choice: Choice, machine: Machine, schedule: Schedule, *, world_size: int = 1
) -> Plan:
    """Put together what is known before a run starts.

    Args:
        config: the run.
        choice: how it uses the device.
        machine: to train on.
        schedule: length, speed, prices, and what the caller knows of text and loss.
        world_size: devices like this one.
    """
    rate, ledger, card = schedule.rate, choice.ledger, machine.card
    plan = Plan(
        machine=machine.name,
        device=machine.kind,
        world_size=world_size,
        device_bytes=machine.device_bytes,
        host_found_bytes=machine.host_bytes,
        pieces=asdict(choice.memory),
        description=described(choice.memory),
        micro_batch_size=choice.micro_batch_size,
        micro_batches=choice.micro_batches,
        rows_per_step=choice.micro_batch_size * choice.micro_batches * world_size,
        sequence_length=config.data.max_sequence_length,
        phases={phase.name: dict(phase.parts) for phase in ledger.phases},
        peak_phase=ledger.peak.name,
        peak_bytes=ledger.peak_bytes,
        host=dict(ledger.host),
        host_bytes=ledger.host_bytes,
        checkpoint_bytes=checkpoint_bytes(config.model, choice.memory),
        num_checkpoints=config.keep_last_n_checkpoints + 2,
        disk_free_bytes=_free_bytes(Path(config.run_dir) / config.checkpoint_dir) if machine.here else None,
        parameters=num_parameters(config.model),
        flops_per_token=training_flops_per_token(config.model, config.data.max_sequence_length),
        total_steps=schedule.total_steps,
        tokens_per_s=rate.tokens_per_s if rate else None,
        rate_origin=rate.origin if rate else None,
        limited_by=rate.limited_by if rate else None,
        peak_share=peak_share(config, rate, card, working=choice.memory.working, world_size=world_size)
        if rate
        else None,
        power_w=card.power_w if card else None,
        begins_at=schedule.begins_at.isoformat(timespec="seconds"),
        money=None,
        currency=schedule.prices.currency,
        epochs=dict(schedule.epochs) if schedule.epochs is not None else None,
        outlook=asdict(schedule.outlook) if schedule.outlook else None,
        reasons=choice.reasons,
    )
    return plan if plan.seconds is None else _with_money(plan, schedule.prices)


def money_per_second(prices: Prices, *, power_w: float | None, world_size: int = 1) -> float | None:
    """What a second costs; None where no price is given, or only that of energy and the power is unknown."""
    if not prices.known or (prices.per_hour is None and power_w is None):
        return None
    energy = (prices.per_kwh or 0.0) * (power_w or 0.0) / 1000
    return world_size * ((prices.per_hour or 0.0) + energy) / 3600


def _with_money(plan: Plan, prices: Prices) -> Plan:
    each = money_per_second(prices, power_w=plan.power_w, world_size=plan.world_size)
    return plan if each is None or plan.seconds is None else replace(plan, money=plan.seconds * each)


def _free_bytes(folder: Path) -> int | None:
    """Of the disk that a folder will lie on."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), None)
    return shutil.disk_usage(there).free if there else None
