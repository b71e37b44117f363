"""Config -> Trainer: the only place that knows every part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from havoc_core import checkpoint
from havoc_core.config import TrainingConfig
from havoc_core.costs import num_parameters
from havoc_core.device import Precision, choose_device, choose_precision, memory_bytes, set_seeds, set_threads
from havoc_core.distributed import World
from havoc_core.errors import CheckpointError, ConfigError
from havoc_core.log import LOGGER
from havoc_core.model import first_weights
from havoc_core.models import havoc
from havoc_core.run_files import RunFiles
from havoc_data.loading.loader import Loader
from havoc_data.prepare.build import PreparedData, prepare, prepare_to_continue
from havoc_training.batch_plan import BatchPlan, plan_batches
from havoc_training.checkpointing import CheckpointKeeper, Identity, SavedRun, find_newest, restore
from havoc_training.data_stages import saved_stages, staged_loader
from havoc_training.memory_check import check_memory
from havoc_training.observers import MetricsFile, Observer, RunFacts, Screen
from havoc_training.optimizer import Optimizer
from havoc_training.placement import Compilation, choose_compilation, place
from havoc_training.repetition import check_repetition, repetition_warnings
from havoc_training.schedules import Schedule, choose
from havoc_training.shelves import TRACKERS
from havoc_training.state import TrainState
from havoc_training.step import StepSettings
from havoc_training.tracker import TrackerSettings
from havoc_training.trainer import HeldOut, Intervals, Trainer

_FOLLOWED = (
    "learning_rate", "min_learning_rate", "lr_scheduler_type", "decay_fraction", "warmup_steps", "max_steps", "max_epochs",
    "weight_decay", "max_grad_norm", "rows_per_step", "adam_beta1", "adam_beta2", "adam_epsilon", "z_loss_weight",
    "decay_embeddings", "optimizer_options", "use_amp", "amp_dtype",
)  # fmt: skip
"""Settings that may change between two parts of a run; each change is announced."""


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes."""

    device: torch.device
    precision: Precision
    threads: int
    world: World


def build_trainer(config: TrainingConfig, *, saved: SavedRun | None = None, fine_tune: bool = False) -> Trainer:
    """Everything put together, ready to `fit`.

    Args:
        config: the run.
        saved: a checkpoint to continue from, or to take the weights of.
        fine_tune: take only the weights of `saved`; optimizer, schedule and data are new.

    Raises:
        HavocError: a setting, the data or the checkpoint is wrong, or it does not fit into memory.
    """
    continued = saved if not fine_tune else None
    machine = choose_machine(config, continued)
    _refuse_to_overwrite(config, continued)
    data = _prepare(config, continued, machine.world)
    earlier, next_slot = ((), 0) if continued is None else (saved_stages(continued.state), continued.state["next_slot"])
    loader, stages = staged_loader(config, data, earlier=earlier, next_slot=next_slot)
    if continued is not None:
        _announce_changes(config, continued)
    plan = _plan(config, continued, machine.world, rows_per_epoch=loader.rows_per_epoch)
    check_repetition(loader, config.data, num_slots=plan.total_steps * plan.rows_per_step, total_steps=plan.total_steps)
    compilation = _compilation(config, continued, machine.device, plan)
    identity = _identity(config, data, loader)
    if continued is not None:
        _refuse_another_run(config, identity, continued)
    set_seeds(config.seed + machine.world.rank)
    model = havoc.build(config.model)
    masters = _starting_weights(model, config, saved)
    place(model, masters, precision=machine.precision, device=machine.device, compilation=compilation)
    optimizer = Optimizer(model, masters if machine.precision.has_master else None, config)
    state = TrainState() if continued is None else _restored(config, continued, optimizer, plan, machine.world)
    # Kept, so that the held-out rows stay the same when a resume changes the micro-batch.
    num_held_out = config.eval_samples * config.batch_size
    num_held_out = num_held_out if continued is None else int(continued.resolved["validation_rows"])
    resolved = {
        "rows_per_step": plan.rows_per_step,
        "total_steps": plan.total_steps,
        "validation_rows": num_held_out,
        "data_stages": [dict(stage) for stage in stages],
        "threads": machine.threads,
        "precision": machine.precision.name,
        "compile": asdict(compilation),
        "device": machine.device.type,
    }
    return Trainer(
        model=model,
        optimizer=optimizer,
        loader=loader,
        plan=plan,
        schedule=_schedule(config, plan),
        keeper=_keeper(config, data, loader, identity, resolved),
        observers=_observers(config) if machine.world.rank == 0 else [],
        held_out=_held_out(loader, data, plan, num_rows=num_held_out),
        step_settings=StepSettings(config.max_grad_norm, config.z_loss_weight, machine.world),
        intervals=Intervals(save=config.save_every_n_steps, validate=config.eval_every_n_steps),
        precision=machine.precision,
        state=state,
        facts=_facts(config, plan, machine, data, loader),
    )


def _plan(config: TrainingConfig, continued: SavedRun | None, world: World, *, rows_per_epoch: int) -> BatchPlan:
    kept = continued.resolved["rows_per_step"] if continued is not None else None
    plan = plan_batches(config, world_size=world.size, rows_per_epoch=rows_per_epoch, kept_rows_per_step=kept)
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


def choose_machine(config: TrainingConfig, continued: SavedRun | None) -> Machine:
    """Device, precision and threads; what was chosen automatically at the first start is kept.

    Raises:
        ConfigError: the device is not there.
        PlanError: the run does not fit into its memory.
    """
    device = choose_device(config.device)
    kept = continued.resolved if continued is not None and continued.resolved["device"] == device.type else {}
    precision = choose_precision(config, device)
    if config.use_amp == "auto" and kept:
        precision = choose_precision(config.model_copy(update={"use_amp": kept["precision"] != "float32"}), device)
    threads = set_threads(config.threads or kept.get("threads"))
    check_memory(
        config,
        working_bytes=precision.working.itemsize,
        available_bytes=memory_bytes(device),
        device="GPU" if device.type == "cuda" else "machine",
    )
    return Machine(device, precision, threads, World.start(device))


def find_checkpoint(config: TrainingConfig) -> SavedRun | None:
    """What `resume_from_checkpoint` means: nothing, a folder, or the newest valid one.

    Raises:
        CheckpointError: the folder is missing or damaged.
    """
    wanted = config.resume_from_checkpoint
    if wanted is None:
        return None
    if wanted == "auto":
        newest = find_newest(RunFiles.of(config).checkpoints)
        LOGGER.info("Nothing to resume: starting fresh." if newest is None else f"Resuming from {newest}.")
        return None if newest is None else SavedRun.open(newest)
    return SavedRun.open(Path(wanted))


def _refuse_to_overwrite(config: TrainingConfig, continued: SavedRun | None) -> None:
    folder = RunFiles.of(config).checkpoints
    # What `auto` could not continue from, a lone best one or the wreck of an update, is no reason not to start.
    names = ["checkpoint_interrupted"]
    names += [] if config.resume_from_checkpoint == "auto" else ["checkpoint_best", "checkpoint_error"]
    named = [name for name in names if checkpoint.resolve(folder / name).exists()]
    if continued is None and config.resume_from_checkpoint == "auto" and (named or checkpoint.step_checkpoints(folder)):
        raise CheckpointError(
            str(folder), "none of the checkpoints in it is whole.", "Move them away, or start elsewhere: --run-dir NEW."
        )
    if continued is None and (named or checkpoint.step_checkpoints(folder)):
        raise ConfigError(
            "checkpoint_dir",
            f"{folder} already holds checkpoints of a run.",
            "Continue it with --resume auto, or start elsewhere with --run-dir NEW.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another rank may have been faster
    except OSError as error:
        raise CheckpointError(
            str(folder),
            f"cannot be written to ({error.strerror}).",
            "Choose another folder: checkpoint_dir or --run-dir.",
        ) from None


def _restored(
    config: TrainingConfig, continued: SavedRun, optimizer: Optimizer, plan: BatchPlan, world: World
) -> TrainState:
    state = restore(continued, optimizer)
    _refuse_to_do_nothing(config, continued, state, plan)
    if world.rank == 0:
        _put_later_ones_aside(config, state)
    else:  # the checkpoint holds rank 0's generators: the others must not draw the same
        set_seeds((config.seed + world.rank + 1_000_003 * state.step) % 2**31)
    return state


def _refuse_to_do_nothing(config: TrainingConfig, continued: SavedRun, state: TrainState, plan: BatchPlan) -> None:
    """A finished run cannot be trained with other settings by calling it again; a report must not claim so."""
    changed = [name for name in _FOLLOWED if getattr(continued.config, name) != getattr(config, name)]
    if changed and state.step >= plan.total_steps:
        raise ConfigError(
            changed[0],
            f"was changed, but the run has made its {state.step:,} steps and would end after {plan.total_steps:,}.",
            "Raise max_steps to train on, or start elsewhere: --run-dir NEW.",
        )


def _put_later_ones_aside(config: TrainingConfig, state: TrainState) -> None:
    """Checkpoints beyond the step that is resumed belong to a course that was given up: `auto` must not find them."""
    folder = RunFiles.of(config).checkpoints
    later = [path for path in checkpoint.step_checkpoints(folder) if (checkpoint.step_of(path) or 0) > state.step]
    for path in later:
        aside = path.with_name(f"{path.name}.abandoned")
        number = 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.abandoned{number}")
        path.rename(aside)
        LOGGER.info("%s lies beyond step %d: put aside as %s.", path.name, state.step, aside.name)


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


def _starting_weights(model: havoc.HavocModel, config: TrainingConfig, saved: SavedRun | None) -> dict[str, Tensor]:
    if saved is None:
        return first_weights(model, seed=config.seed)
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


def _compilation(
    config: TrainingConfig, continued: SavedRun | None, device: torch.device, plan: BatchPlan
) -> Compilation:
    chosen = choose_compilation(config.compile, device=device, total_steps=plan.total_steps)
    if continued is None or config.compile != "auto" or continued.resolved["device"] != device.type:
        return chosen
    kept = Compilation(**continued.resolved["compile"])
    if kept.cpu_attention and not chosen.cpu_attention:
        LOGGER.info("The attention kernel cannot be built here: the last bits will differ from the run so far.")
        return Compilation(blocks=kept.blocks, cpu_attention=False)
    return kept


def _other_parts(config: TrainingConfig, saved: TrainingConfig) -> list[str]:
    """Optimizer and tokenizer, whose settings would be passed over: the ones of the run go on as they are."""
    pairs = {
        "optimizer": (config.optimizer, saved.optimizer),
        "tokenizer.kind": (config.tokenizer.kind, saved.tokenizer.kind),
        "tokenizer.vocab_size": (config.tokenizer.vocab_size, saved.tokenizer.vocab_size),
    }
    return [f"{name} is {now}, was {was}" for name, (now, was) in pairs.items() if now != was]


def _refuse_another_run(config: TrainingConfig, identity: Identity, continued: SavedRun) -> None:
    was = dict(continued.state["identity"])
    if config.data.growing:  # another store begins a new stage of the same run
        was |= {"store_id": identity.store_id, "plan_id": identity.plan_id}
    differences = identity.differences(was) + _other_parts(config, continued.config)
    if differences:
        raise CheckpointError(
            str(continued.folder),
            f"belongs to another run: {'; '.join(differences)}.",
            "Use the settings of the checkpoint, or take only its weights: --fine-tune --run-dir NEW.",
        )


def _announce_changes(config: TrainingConfig, continued: SavedRun) -> None:
    for name in _FOLLOWED:
        was, now = getattr(continued.config, name), getattr(config, name)
        if was != now:
            LOGGER.info("%s is %s from here on; it was %s.", name, now, was)
    if config.model.dropout != continued.config.model.dropout:
        now, was = config.model.dropout, continued.config.model.dropout
        LOGGER.info("model.dropout is %s from here on; it was %s.", now, was)


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
