"""Config -> Trainer: the only place that knows every part."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from havoc_core import checkpoint
from havoc_core.config import TrainingConfig
from havoc_core.costs import num_parameters, training_flops_per_token
from havoc_core.device import Precision, choose_device, choose_precision, set_seeds
from havoc_core.distributed import World
from havoc_core.errors import CheckpointError
from havoc_core.log import LOGGER
from havoc_core.model import FirstWeights
from havoc_core.models import havoc
from havoc_core.run_files import RunFiles
from havoc_data.loading.loader import Loader
from havoc_data.prepare.build import PreparedData, prepare, prepare_to_continue
from havoc_training.batch_plan import BatchPlan, plan_batches
from havoc_training.checkpointing import CheckpointKeeper, Identity, SavedRun, restore
from havoc_training.continuation import (
    announce_changes,
    put_later_ones_aside,
    refuse_another_run,
    refuse_to_do_nothing,
    refuse_to_overwrite,
)
from havoc_training.data_stages import saved_stages, staged_loader
from havoc_training.memory.presets import MemoryPlan
from havoc_training.memory_choice import MemoryChoice, choose_memory, machine_of
from havoc_training.metrics import Yardstick
from havoc_training.observers import MetricsFile, Observer, RunFacts, Screen
from havoc_training.placement import Compilation, choose_compilation, place
from havoc_training.planner.device_rates import measure_matmul_rate
from havoc_training.repetition import check_repetition, repetition_warnings
from havoc_training.run_plan import plan_run, write_plan
from havoc_training.schedules import Schedule, choose
from havoc_training.shelves import TRACKERS
from havoc_training.state import TrainState
from havoc_training.step import StepSettings
from havoc_training.threads import choose_threads
from havoc_training.tracker import TrackerSettings
from havoc_training.trainer import HeldOut, Intervals, Trainer
from havoc_training.updater import Updater


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes."""

    device: torch.device
    precision: Precision
    threads: int
    world: World


def build_trainer(
    config: TrainingConfig,
    *,
    saved: SavedRun | None = None,
    fine_tune: bool = False,
    memory_plan: MemoryPlan | None = None,
) -> Trainer:
    """Everything put together, ready to `fit`.

    Args:
        config: the run.
        saved: a checkpoint to continue from, or to take the weights of.
        fine_tune: take only the weights of `saved`; optimizer, schedule and data are new.
        memory_plan: how to keep what is kept; None: as the config's `memory` says.

    Raises:
        HavocError: a setting, the data or the checkpoint is wrong, or it does not fit into memory.
    """
    continued = saved if not fine_tune else None
    machine = choose_machine(config, continued)
    kept = _choose_memory(config, continued, machine, memory_plan)
    refuse_to_overwrite(config, continued)
    data = _prepare(config, continued, machine.world)
    earlier, next_slot = ((), 0) if continued is None else (saved_stages(continued.state), continued.state["next_slot"])
    loader, stages = staged_loader(config, data, earlier=earlier, next_slot=next_slot)
    if continued is not None:
        announce_changes(config, continued)
    plan = _plan(config, continued, machine.world, loader=loader, micro_batch_size=kept.micro_batch_size)
    check_repetition(loader, config.data, num_slots=plan.total_steps * plan.rows_per_step, total_steps=plan.total_steps)
    compilation = _compilation(config, continued, machine.device, total_flops=_total_flops(config, plan))
    _write_plan(config, kept, machine, continued, batches=plan, loader=loader)
    identity = _identity(config, data, loader)
    if continued is not None:
        refuse_another_run(config, identity, continued)
    model, optimizer = _model_and_updater(config, saved, machine, kept=kept, compilation=compilation)
    state = TrainState() if continued is None else _restored(config, continued, optimizer, plan, machine.world)
    num_held_out = _num_held_out(config, continued)
    resolved = _resolved(plan, machine, kept, compilation, continued)
    resolved |= {"validation_rows": num_held_out, "data_stages": [dict(stage) for stage in stages]}
    return Trainer(
        model=model,
        optimizer=optimizer,
        loader=loader,
        plan=plan,
        schedule=_schedule(config, plan),
        keeper=_keeper(config, data, loader, identity, resolved),
        observers=_observers(config) if machine.world.rank == 0 else [],
        held_out=_held_out(loader, data, plan, num_rows=num_held_out),
        step_settings=_step_settings(config, machine, compilation),
        intervals=Intervals(save=config.save_every_n_steps, validate=config.eval_every_n_steps),
        precision=machine.precision,
        state=state,
        facts=_facts(config, plan, machine, data, loader),
        yardstick=_yardstick(config, machine, kept),
    )


def _step_settings(config: TrainingConfig, machine: Machine, compilation: Compilation) -> StepSettings:
    late = machine.device.type == "cuda"
    return StepSettings(
        config.max_grad_norm, config.z_loss_weight, machine.world, loss_kernel=compilation.loss, reads_late=late
    )


def _model_and_updater(
    config: TrainingConfig, saved: SavedRun | None, machine: Machine, *, kept: MemoryChoice, compilation: Compilation
) -> tuple[havoc.HavocModel, Updater]:
    set_seeds(config.seed + machine.world.rank)
    model = havoc.build(config.model)
    weights = _starting_weights(model, config, saved)
    updater = place(model, weights, config=config, memory=kept.memory, device=machine.device, compilation=compilation)
    return model, updater


def _resolved(
    plan: BatchPlan, machine: Machine, kept: MemoryChoice, compilation: Compilation, continued: SavedRun | None
) -> dict[str, Any]:
    """What was chosen automatically, for the checkpoint."""
    return {
        "rows_per_step": plan.rows_per_step,
        "total_steps": plan.total_steps,
        "threads": machine.threads,
        "precision": machine.precision.name,
        "compile": asdict(compilation),
        "device": machine.device.type,
        **kept.to_json(),
        "halvings": list(continued.resolved.get("halvings", [])) if continued is not None else [],
    }


def _num_held_out(config: TrainingConfig, continued: SavedRun | None) -> int:
    """Rows of a validation. Kept, so that they stay the same when a resume changes the micro-batch."""
    if continued is None:
        return config.eval_samples * config.batch_size
    return int(continued.resolved["validation_rows"])


def _write_plan(
    config: TrainingConfig,
    kept: MemoryChoice,
    machine: Machine,
    continued: SavedRun | None,
    *,
    batches: BatchPlan,
    loader: Loader,
) -> None:
    plan = plan_run(
        config,
        kept,
        batches=batches,
        loader=loader,
        device=machine.device,
        matmul_flops_per_s=_matmul_rate(machine.device, machine.precision.working),
    )
    if plan is not None and machine.world.rank == 0:
        write_plan(plan, config, first_step=0 if continued is None else continued.state["step"])


def _choose_memory(
    config: TrainingConfig, continued: SavedRun | None, machine: Machine, given: MemoryPlan | None
) -> MemoryChoice:
    if given is not None:
        return MemoryChoice(given, config.batch_size)
    same_device = continued is not None and continued.resolved["device"] == machine.device.type
    chosen = choose_memory(
        config,
        machine_of(machine.device, config),
        working=machine.precision.working_name,
        world_size=machine.world.size,
        kept=continued.resolved if continued is not None and same_device else None,
        kept_config=continued.config if continued is not None else None,
    )
    if chosen.choice is not None:
        ledger = chosen.choice.ledger
        LOGGER.info(
            "Plan: %.2f GiB at the worst moment of a step (%s)%s.",
            ledger.peak_bytes / 2**30,
            ledger.peak.name,
            f", {ledger.host_bytes / 2**30:.1f} GiB of host memory" if ledger.host_bytes else "",
        )
        for reason in chosen.choice.reasons:
            LOGGER.info("      %s", reason)
    return chosen


@functools.cache
def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measured once a process: it takes half a second."""
    return measure_matmul_rate(device, dtype)


def _yardstick(config: TrainingConfig, machine: Machine, kept: MemoryChoice) -> Yardstick:
    card = kept.machine.card if kept.machine is not None else None
    return Yardstick.of(
        config.model,
        sequence_length=config.data.max_sequence_length,
        recompute=kept.memory.recompute,
        datasheet_flops_per_s=card.peak_flops_per_s(machine.precision.working_name) if card is not None else None,
        measured_flops_per_s=_matmul_rate(machine.device, machine.precision.working),
        num_devices=machine.world.size,
    )


def _plan(
    config: TrainingConfig, continued: SavedRun | None, world: World, *, loader: Loader, micro_batch_size: int
) -> BatchPlan:
    kept = continued.resolved["rows_per_step"] if continued is not None else None
    rows = config.rows_per_step or kept or config.batch_size * config.gradient_accumulation_steps * world.size
    cut = config.model_copy(update={"batch_size": micro_batch_size, "rows_per_step": rows})
    plan = plan_batches(cut, world_size=world.size, rows_per_epoch=loader.rows_per_epoch)
    own = config.batch_size * config.gradient_accumulation_steps * world.size
    if config.rows_per_step is None and plan.rows_per_step != own:
        LOGGER.info("A step keeps its %d rows; set rows_per_step to change that.", plan.rows_per_step)
    return plan


def _schedule(config: TrainingConfig, plan: BatchPlan) -> Schedule:
    return choose(
        config.lr_scheduler_type,
        warmup_steps=plan.warmup_steps,
        total_steps=plan.total_steps,
        floor=config.min_learning_rate / config.learning_rate,
        decay_fraction=config.decay_fraction,
    )


def _keeper(
    config: TrainingConfig, data: PreparedData, loader: Loader, identity: Identity, resolved: Mapping[str, Any]
) -> CheckpointKeeper:
    return CheckpointKeeper(
        RunFiles.of(config).checkpoints,
        keep_last=config.keep_last_n_checkpoints,
        config=config,
        tokenizer=data.tokenizer,
        identity=identity,
        resolved=resolved,
        dummy_data=bool(data.store.manifest["dummy"]),
        rows_per_epoch=loader.rows_per_epoch,
    )


def check_fit(config: TrainingConfig) -> None:
    """Whether a fresh run fits into the machine, before any work is done.

    Raises:
        ConfigError: the device is not there, or lacks what the settings ask for.
        PlanError: it does not fit; names the nearest setting that does.
    """
    machine = choose_machine(config, None)
    choose_memory(config, machine_of(machine.device, config), working=machine.precision.working_name)


def choose_machine(config: TrainingConfig, continued: SavedRun | None) -> Machine:
    """Device, precision and threads; what was chosen automatically at the first start is kept.

    Raises:
        ConfigError: the device is not there.
    """
    device = choose_device(config.device)
    kept = continued.resolved if continued is not None and continued.resolved["device"] == device.type else {}
    precision = choose_precision(config, device)
    if config.use_amp == "auto" and kept:
        precision = choose_precision(config.model_copy(update={"use_amp": kept["precision"] != "float32"}), device)
    threads = choose_threads(config.threads or kept.get("threads"))
    return Machine(device, precision, threads, World.start(device))


def _restored(
    config: TrainingConfig, continued: SavedRun, optimizer: Updater, plan: BatchPlan, world: World
) -> TrainState:
    state = restore(continued, optimizer)
    refuse_to_do_nothing(config, continued, state, plan)
    if world.rank == 0:
        put_later_ones_aside(config, state)
    else:  # the checkpoint holds rank 0's generators: the others must not draw the same
        set_seeds((config.seed + world.rank + 1_000_003 * state.step) % 2**31)
    return state


def _prepare(config: TrainingConfig, continued: SavedRun | None, world: World) -> PreparedData:
    def ready() -> PreparedData:
        if continued is None:
            return prepare(config)
        return prepare_to_continue(config, store_id=continued.state["identity"]["store_id"])

    if world.rank == 0:
        data = ready()
        world.barrier()
        return data
    world.barrier()  # rank 0 builds, the others then find everything current
    return ready()


def _identity(config: TrainingConfig, data: PreparedData, loader: Loader) -> Identity:
    return Identity(
        store_id=data.store.id,
        plan_id=loader.plan.id,
        tokenizer=data.tokenizer.fingerprint(),
        seed=config.seed,
        row_length=config.data.max_sequence_length,
        model=config.model.model_dump(mode="json"),
    )


def _starting_weights(model: havoc.HavocModel, config: TrainingConfig, saved: SavedRun | None) -> Mapping[str, Tensor]:
    if saved is None:
        return FirstWeights(model, seed=config.seed)
    weights = saved.weights()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = {name: tuple(w.shape) for name, w in weights.items() if name in shapes or name != "lm_head.weight"}
    if shapes != found:
        name = next(n for n in sorted({*shapes, *found}) if shapes.get(n) != found.get(n))
        raise CheckpointError(
            str(saved.folder),
            f"{name} is {found.get(name, 'missing')} there and {shapes.get(name, 'missing')} in this model.",
            "Use the checkpoint's own model settings: leave --config out.",
        )
    # The masters hold more than the rounded weights, and the names are the same.
    masters = checkpoint.load_tensors(saved.folder, "optimizer.pt")
    return {name: masters[name]["master"] if name in masters else weights[name] for name in shapes}


def _total_flops(config: TrainingConfig, plan: BatchPlan) -> float:
    length = config.data.max_sequence_length
    return plan.total_steps * plan.rows_per_step * length * training_flops_per_token(config.model, length)


def _compilation(
    config: TrainingConfig, continued: SavedRun | None, device: torch.device, *, total_flops: float
) -> Compilation:
    chosen = choose_compilation(config.compile, device=device, total_flops=total_flops)
    if continued is None or config.compile != "auto" or continued.resolved["device"] != device.type:
        return chosen
    kept = Compilation(**continued.resolved["compile"])
    if kept.cpu_attention and not chosen.cpu_attention:
        LOGGER.info("The attention kernel cannot be built here: the last bits will differ from the run so far.")
        return Compilation(blocks=kept.blocks, cpu_attention=False, loss=kept.loss and chosen.loss)
    return kept


def _held_out(loader: Loader, data: PreparedData, plan: BatchPlan, *, num_rows: int) -> HeldOut:
    lengths = torch.from_numpy(data.tokenizer.token_lengths())
    return HeldOut(loader.validation_batches(num_rows, plan.micro_batch_size), loader.plan.ratios, lengths)


def _observers(config: TrainingConfig) -> list[Observer]:
    files = RunFiles.of(config)
    out: list[Observer] = [Screen(config.log_every_n_steps), MetricsFile(files.metrics)]
    run_name = config.tracking.run_name or files.run_dir.resolve().name
    settings = TrackerSettings(files.logs, run_name, config.log_every_n_steps)
    for name in config.tracking.trackers:
        module = TRACKERS.module(name)
        out.append(module.build(settings, TRACKERS.options(name, {})))
    return out


def _facts(config: TrainingConfig, plan: BatchPlan, machine: Machine, data: PreparedData, loader: Loader) -> RunFacts:
    tokens = plan.rows_per_step * config.data.max_sequence_length
    lines = [
        f"Model {config.model.size}: {num_parameters(config.model) / 1e6:,.2f} M parameters, "
        f"{machine.precision.name} on {machine.device.type} ({machine.threads} threads).",
        f"{plan.total_steps:,} steps of {plan.rows_per_step} rows x {config.data.max_sequence_length} tokens = "
        f"{plan.total_steps * tokens / 1e6:,.2f} M tokens.",
    ]
    if plan.warmup_steps != config.warmup_steps:
        lines.append(f"The warm-up of {config.warmup_steps} steps was cut to {plan.warmup_steps}, a tenth of the run.")
    epochs = loader.epochs_after(plan.total_steps * plan.rows_per_step)
    lines.append("Epochs: " + "  ".join(f"{name} {times:.2f}" for name, times in epochs.items()))
    lines += repetition_warnings(epochs)
    missing = data.store.manifest["missing_groups"]
    if missing:
        lines.append(f"No text for {', '.join(missing)}: its share went to the other groups.")
    dummy = bool(data.store.manifest["dummy"])
    if dummy:
        lines.insert(0, "DUMMY DATA: random words, good for testing only. Put real text into data/<group>/.")
    return RunFacts(plan.total_steps, 0, "\n".join(lines), config.model_dump(mode="json"), dummy)
