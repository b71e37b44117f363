"""Which preset, which micro-batch and how much recompute: the first that fits, with the reasons. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from havoc_core.config import MODEL_SIZES, ModelConfig, TrainingConfig
from havoc_core.costs import num_parameters
from havoc_core.errors import ConfigError, PlanError
from havoc_training.batch_plan import plan_batches
from havoc_training.memory.presets import AUTO_ORDER, MemoryPlan, Recompute, Working, plan_memory
from havoc_training.planner.block_tape import Kernels
from havoc_training.planner.cards import FP8_CAPABILITY, GIB
from havoc_training.planner.ledger import Ledger, memory_ledger
from havoc_training.planner.machine import Machine

MARGIN = 0.02
"""Share of the device that a plan leaves free: for what the allocator cannot place, and for libraries' workspaces."""
ENOUGH_TOKENS = 4096
"""Tokens of a micro-batch that fill a GPU; beyond, recompute costs more than a larger micro-batch gains."""

_LEVELS: tuple[Recompute, ...] = ("none", "selective", "full")
_FORMATS: dict[str, tuple[dict[str, Any], ...]] = {
    "offload": ({}, {"gradients": "bfloat16"}),
    "fp32_master_bf16m": ({}, {"gradients": "bfloat16"}),
    "stream": ({}, {"gradients": "float32", "gradients_on": "host"}),
}
"""What `memory: auto` tries of a preset besides its own formats, where memory_options leave it open."""
_OTHER_SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("fp32_master", {}),
    ("offload", {}),
    ("stream", {}),
    ("offload", {"gradients": "bfloat16"}),
    ("stream", {"moments": "bfloat16"}),
    ("fp32_master_bf16m", {"gradients": "bfloat16"}),
    ("8bit", {}),
    ("bf16_sr", {}),
    ("stream", {"moments": "int8"}),
    ("stream", {"gradients_on": "host"}),
    ("stream", {"moments": "bfloat16", "gradients_on": "host"}),
    ("stream", {"moments": "int8", "gradients_on": "host"}),
)
"""What is proposed instead of something that does not fit, exact ones first."""


@dataclass(frozen=True)
class Choice:
    """How a run will use its device."""

    memory: MemoryPlan
    micro_batch_size: int
    """Rows that go through the model together on one device."""
    micro_batches: int
    """Of one device in a step."""
    ledger: Ledger
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Room:
    """A run and the machine that it is to fit."""

    config: TrainingConfig
    machine: Machine
    working: Working
    rows: int
    """Of one device in a step."""

    @property
    def device_bytes(self) -> int:
        return int(self.machine.device_bytes * (1.0 - MARGIN))

    @property
    def device(self) -> str:
        """Of what the device's memory is."""
        return "on the GPU" if self.machine.kind == "cuda" else "of memory"

    @property
    def divisors(self) -> list[int]:
        """Micro-batches that a step can be cut into, largest first."""
        return [size for size in range(self.rows, 0, -1) if self.rows % size == 0]

    def plan(self, preset: str, options: dict[str, Any] | None = None) -> MemoryPlan | None:
        """The pieces of a preset with some options set; None where they do not go together."""
        try:
            return plan_memory(_with_options(self.config, options or {}), preset=preset, working=self.working)
        except ConfigError:
            return None

    def ledger(self, memory: MemoryPlan, rows: int, *, length: int = 0, model: ModelConfig | None = None) -> Ledger:
        length = length or self.config.data.max_sequence_length
        kernels: Kernels = "cpu" if self.machine.kind == "cpu" else "gpu"
        return memory_ledger(model or self.config.model, memory, rows=rows, length=length, kernels=kernels)

    def needs(self, ledger: Ledger) -> tuple[int, int]:
        """Bytes on the device and on the host; on a CPU they are one."""
        if self.machine.kind == "cpu":
            return ledger.peak_bytes + ledger.host_bytes, 0
        return ledger.peak_bytes, ledger.host_bytes

    def fits(self, ledger: Ledger) -> bool:
        device, host = self.needs(ledger)
        return device <= self.device_bytes and self.fits_host(host)

    def fits_host(self, host: int) -> bool:
        return self.machine.host_bytes is None or host <= self.machine.host_bytes

    def levels(self, memory: MemoryPlan) -> list[MemoryPlan]:
        """The same plan with every recompute that the settings leave open, least first."""
        if self.config.recompute != "auto" or memory.streams or memory.offload_activations:
            return [memory]
        return [_with_recompute(memory, level) for level in _LEVELS]

    def best(self, memory: MemoryPlan, sizes: Sequence[int]) -> tuple[MemoryPlan, int] | None:
        """The least recompute at the largest of the micro-batches that has tokens enough; else the largest that fits at all."""
        length = self.config.data.max_sequence_length
        levels = self.levels(memory)
        least = min(ENOUGH_TOKENS, self.rows * length)
        enough = [size for size in sizes if size * length >= least and self.machine.kind == "cuda"]
        order = [(level, size) for level in levels for size in enough]
        order += [(level, size) for size in sizes for level in levels]
        return next(((level, size) for level, size in order if self.fits(self.ledger(level, size))), None)


def choose(config: TrainingConfig, machine: Machine, *, working: Working, world_size: int = 1) -> Choice:
    """How a run uses a machine.

    `memory: auto` takes the first of AUTO_ORDER that fits device and host, then the largest micro-batch with the same rows
    a step, then the least recompute; a micro-batch of 4,096 tokens is enough, and is preferred to a larger one with more
    recompute. On a CPU it is fp32_master with the micro-batch as set. A named preset keeps the micro-batch, and only
    `recompute: auto` is chosen.

    Args:
        config: the run; rows_per_step counts if it is set.
        machine: to train on.
        working: format of the weights that are computed with.
        world_size: devices like this one.

    Raises:
        ConfigError: the settings ask for what the machine has not.
        PlanError: nothing fits; names the nearest setting that does.
    """
    _refuse_what_is_not_there(config, machine)
    if config.memory_options.offload_activations and config.recompute == "auto":
        config = config.model_copy(update={"recompute": "full"})  # there is nothing else to move
    chooses_rows = config.memory == "auto" and machine.kind == "cuda"
    rows = config.rows_per_step or config.batch_size * config.gradient_accumulation_steps * world_size
    one_row = config.model_copy(update={"rows_per_step": rows, "batch_size": 1})
    batches = plan_batches(one_row if chooses_rows else config, world_size=world_size, rows_per_epoch=1)
    mine = batches.rows_per_step // world_size
    room = _Room(config, machine, working, mine)
    if config.memory == "auto":
        sizes = [size for size in room.divisors if chooses_rows or size <= batches.micro_batch_size]
        tried = list(_candidates(room))
    else:
        sizes = [batches.micro_batch_size]
        tried = [plan_memory(config, preset=config.memory, working=working)]
    for number, memory in enumerate(tried):
        if (found := room.best(memory, sizes)) is not None:
            plan, size = found
            ledger = room.ledger(plan, size)
            reasons = (*_passed_over(room, tried[:number]), *_reasons(room, plan, size, sizes))
            return Choice(plan, size, mine // size, ledger, reasons)
    raise _refusal(room, tried, sizes)


def _candidates(room: _Room) -> Iterator[MemoryPlan]:
    """What auto tries, in order.

    Raises:
        ConfigError: no preset goes with the settings; as the first of them says it.
    """
    presets = AUTO_ORDER if room.machine.kind == "cuda" else ("fp32_master",)
    options = room.config.memory_options
    plans: list[MemoryPlan] = []
    for preset in presets:
        for formats in _FORMATS.get(preset, ({},)):
            if formats and (options.gradients is not None or options.gradients_on is not None):
                continue
            plan = room.plan(preset, formats)
            if plan is not None and plan not in plans:
                plans.append(plan)
    if not plans:
        plans.append(plan_memory(room.config, preset=presets[0], working=room.working))
    yield from plans


def _with_options(config: TrainingConfig, options: dict[str, Any]) -> TrainingConfig:
    merged = config.memory_options.model_copy(update=options)
    return config.model_copy(update={"memory_options": merged})


def _with_recompute(memory: MemoryPlan, level: Recompute) -> MemoryPlan:
    return replace(memory, recompute=level)


def _refuse_what_is_not_there(config: TrainingConfig, machine: Machine) -> None:
    if config.memory in {"offload", "stream"} and machine.kind == "cpu" and config.device != "cpu":
        raise ConfigError(
            "memory",
            f"'{config.memory}' moves states between a GPU and the host, and there is no GPU here.",
            "Use `memory: auto`, or try it out without one: `--device cpu`.",
        )
    capability = machine.card.capability if machine.card else None
    if config.fp8 and (machine.kind == "cpu" or (capability is not None and capability < FP8_CAPABILITY)):
        has = f"compute capability {capability[0]}.{capability[1]}" if capability else "no such instructions"
        raise ConfigError(
            "fp8",
            f"true, but the {machine.name} ({has}) does not multiply 8-bit floats.",
            "Set `fp8: false`; it takes a GPU of compute capability 8.9 or newer, such as an RTX 4090 or an H100.",
        )


def gib(size: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{size / GIB:,.1f}"


def described(memory: MemoryPlan) -> str:
    """A plan as the settings that make it, where they differ from its preset's own."""
    own = {"stream": "bfloat16", "8bit": "bfloat16", "bf16_sr": "bfloat16"}.get(memory.preset, "float32")
    says = []
    if memory.gradients != own and memory.working == "bfloat16":
        says.append(f"{memory.gradients} gradients")
    if memory.gradients_on == "host":
        says.append("gradients on the host")
    if memory.moments != {"fp32_master_bf16m": "bfloat16", "8bit": "int8", "bf16_sr": "bfloat16"}.get(
        memory.preset, "float32"
    ):
        says.append(f"{memory.moments} moments")
    return f"`memory: {memory.preset}`" + (f" with {' and '.join(says)}" if says else "")


def _passed_over(room: _Room, tried: Sequence[MemoryPlan]) -> Iterator[str]:
    """Why those before the chosen one were not taken."""
    for memory in tried:
        device, host = room.needs(room.ledger(room.levels(memory)[-1], 1))
        if device > room.device_bytes:
            yield f"{described(memory)} needs {gib(device)} GiB {room.device} at least, of {gib(room.device_bytes)}."
        else:
            yield f"{described(memory)} needs {gib(host)} GiB of host memory; {gib(room.machine.host_bytes or 0)} are free."


def _reasons(room: _Room, plan: MemoryPlan, size: int, sizes: Sequence[int]) -> Iterator[str]:
    """What was chosen, and why not more."""
    machine, length = room.machine, room.config.data.max_sequence_length
    if room.config.memory == "auto":
        yield f"{described(plan)} is the first that fits: {_character(plan, room.config.optimizer)}."
    larger = [other for other in sizes if other > size]
    level = room.levels(plan)[-1]
    more = next((other for other in reversed(larger) if room.fits(room.ledger(level, other))), None)
    if more is not None:
        yield (
            f"{size} x {length:,} tokens with recompute {plan.recompute}: {size * length:,} tokens keep the device busy, and "
            f"{more} rows would fit only with more recompute."
        )
    elif larger:
        needed = room.needs(room.ledger(level, larger[-1]))[0]
        yield f"{size} rows are the most that fit: {larger[-1]} would need {gib(needed)} GiB {room.device}."
    elif size == room.rows > 1:
        yield f"All {size} rows of a step go through together."
    if plan.recompute != "none" and room.config.recompute == "auto":
        if plan.streams:
            yield "Streamed weights are computed with again in the backward pass: recompute is full."
        elif more is None:
            yield f"Recompute {plan.recompute} is the least that fits."
    spare = f"{MARGIN:.0%} of {gib(machine.device_bytes)} GiB is kept free"
    guess = machine.card is not None and machine.card.usable_is_estimate
    yield spare + (f"; how much of the {machine.name} is usable is an estimate." if guess else ".")
    if machine.held_bytes:
        yield f"Other processes hold {gib(machine.held_bytes)} GiB of the GPU; the plan leaves them alone."
    if machine.card and machine.card.peak_flops_per_s(plan.working) is None and plan.working == "bfloat16":
        yield f"The {machine.name} has no bfloat16 units; `amp_dtype: float16` is what it is made for."


def _character(plan: MemoryPlan, optimizer: str) -> str:
    """How close its updates are to those of the optimizer by the book."""
    if plan.exact:
        exact = "textbook AdamW" if optimizer == "adamw" else f"{optimizer} on whole float32 masters"
    else:
        exact = f"{'an exact master' if plan.master != 'none' else 'no master'} and {plan.moments} moments"
    return exact + (", gradients summed in bfloat16" if plan.gradients == "bfloat16" else "")


def _refusal(room: _Room, tried: Sequence[MemoryPlan], sizes: Sequence[int]) -> PlanError:
    """The message when nothing fits: what is needed, what there is, and what comes nearest."""
    first = room.levels(tried[0])[-1]
    at = next(size for size in room.divisors if size <= room.config.batch_size)  # the micro-batch as set
    found = _found(room, room.ledger(first, sizes[-1]))
    remedy = _smaller_micro_batch(room, first, at) or _usual_formats(room) or _other_setting(room, at)
    if remedy:
        return PlanError("memory", found, remedy)
    if (shorter := _shorter_rows(room, tried)) is not None:
        length = room.config.data.max_sequence_length
        found += f" One row of {length:,} tokens is too much, and a micro-batch of 1 row cannot be halved."
        return PlanError("memory", found, f"Rows of {shorter:,} tokens fit: --data.max-sequence-length {shorter}.")
    name = _largest_model(room, tried)
    remedy = f"The largest named model that fits is '{name}': --model.size {name}." if name else ""
    return PlanError("memory", found, remedy or "Use a device with more memory.")


def _found(room: _Room, ledger: Ledger) -> str:
    device, host = room.needs(ledger)
    machine = room.machine
    here = f"{gib(room.machine.device_bytes)} GiB"
    who = "the machine" if machine.kind == "cpu" else "it"
    text = f"this run needs {gib(device)} GiB {room.device}"
    text += f" and {gib(host)} GiB of RAM" if host else ""
    text += f"; {who} has {here}" + (f" ({machine.name})" if machine.kind == "cuda" else " available")
    if host and machine.host_bytes is not None:
        text += f" and {gib(machine.host_bytes)} GiB of RAM"
    if device <= machine.device_bytes and device > room.device_bytes:
        text += f", {MARGIN:.0%} of it kept free"
    if machine.held_bytes:
        text += f", {gib(machine.held_bytes)} GiB of it held by other processes"
    short = not room.fits_host(host) or (machine.kind == "cpu" and not room.fits(ledger))
    return text + (", and no swap." if short and machine.swap_bytes == 0 else ".")


def _smaller_micro_batch(room: _Room, memory: MemoryPlan, at: int) -> str:
    size = next((s for s in room.divisors if s < at and room.fits(room.ledger(memory, s))), None)
    if size is None:
        return ""
    return (
        f"Set batch_size to {size} and gradient_accumulation_steps to {room.rows // size}: a step stays the same "
        f"{room.rows} rows."
    )


def _usual_formats(room: _Room) -> str:
    """AdamW on bfloat16 weights, where other settings shut out the presets that keep state on the host."""
    config = room.config
    usual = {"optimizer": "adamw", "optimizer_options": {}, "use_amp": True, "amp_dtype": "bfloat16"}
    why = f"optimizer '{config.optimizer}'" if config.optimizer != "adamw" else f"{room.working} weights"
    try:
        if room.machine.kind == "cpu" or why == "bfloat16 weights":
            return ""
        choice = choose(config.model_copy(update=usual), room.machine, working="bfloat16")
    except (ConfigError, PlanError):
        return ""
    return (
        f"With AdamW on bfloat16 weights (--optimizer adamw --use-amp true --amp-dtype bfloat16) {described(choice.memory)} "
        f"fits: {gib(choice.ledger.peak_bytes)} GiB. State on the host does not go with {why}."
    )


def _other_setting(room: _Room, at: int) -> str:
    """The settings nearest to textbook AdamW that fit; before them, the one that would fit with more host memory."""
    near, found = "", room.machine.host_bytes
    for preset, options in () if room.machine.kind == "cpu" else _OTHER_SETTINGS:
        memory = room.plan(preset, options)
        if memory is None:
            continue
        leanest = room.levels(memory)[-1]
        sizes = [at, *(size for size in room.divisors if size < at)]
        size = next((s for s in sizes if room.needs(room.ledger(leanest, s))[0] <= room.device_bytes), None)
        if size is None:
            continue
        device, host = room.needs(room.ledger(leanest, size))
        begin = f"{near}; with" if near else "With"
        setting = described(memory).replace(" with ", " and ")
        needs = f"it needs {gib(device)} GiB" + (f" and {gib(host)} GiB of RAM" if host else " and no RAM to speak of")
        if room.fits_host(host):
            return f"{begin} {setting} {needs}: {_as_flags(room, preset, options, size)}."
        near = near or f"With {setting} {needs} ({gib(found or 0)} found)"
    return f"{near}." if near else ""


def _as_flags(room: _Room, preset: str, options: dict[str, Any], size: int) -> str:
    flags = [f"--memory {preset}"]
    flags += [f"--memory-options.{name.replace('_', '-')} {value}" for name, value in options.items()]
    # A named preset keeps the micro-batch as set.
    if size != min(room.config.batch_size, room.rows):
        flags.append(f"--batch-size {size} --gradient-accumulation-steps {room.rows // size}")
    return " ".join(flags)


def _shorter_rows(room: _Room, tried: Sequence[MemoryPlan]) -> int | None:
    """The longest half, quarter, ... of a row that fits under one of the plans."""
    length = room.config.data.max_sequence_length // 2
    while length >= 128:
        if any(room.fits(room.ledger(room.levels(memory)[-1], 1, length=length)) for memory in tried):
            return length
        length //= 2
    return None


def _largest_model(room: _Room, tried: Sequence[MemoryPlan]) -> str | None:
    most = num_parameters(room.config.model)
    for name in MODEL_SIZES:
        model = ModelConfig(size=name)  # type: ignore[arg-type]
        length = min(room.config.data.max_sequence_length, model.max_seq_len)
        plans = (room.levels(memory)[-1] for memory in tried)
        if num_parameters(model) < most and any(
            room.fits(room.ledger(plan, 1, length=length, model=model)) for plan in plans
        ):
            return name
    return None
