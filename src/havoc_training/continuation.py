"""Going on with a run: which checkpoint, what may have changed, what may not be overwritten."""

from __future__ import annotations

from pathlib import Path

from havoc_core import checkpoint
from havoc_core.config import TrainingConfig
from havoc_core.errors import CheckpointError, ConfigError
from havoc_core.log import LOGGER
from havoc_core.run_files import RunFiles
from havoc_training.batch_plan import BatchPlan
from havoc_training.checkpointing import Identity, SavedRun, find_newest
from havoc_training.state import TrainState

_FOLLOWED = (
    "learning_rate", "min_learning_rate", "lr_scheduler_type", "decay_fraction", "warmup_steps", "max_steps", "max_epochs",
    "weight_decay", "max_grad_norm", "rows_per_step", "adam_beta1", "adam_beta2", "adam_epsilon", "z_loss_weight",
    "decay_embeddings", "optimizer_options", "use_amp", "amp_dtype", "recompute", "fp8",
)  # fmt: skip
"""Settings that may change between two parts of a run; each change is announced."""


def refuse_to_overwrite(config: TrainingConfig, continued: SavedRun | None) -> None:
    """Make the folder of the checkpoints; a fresh start finds it empty, and writable.

    Raises:
        ConfigError: it holds checkpoints already.
        CheckpointError: none of them is whole, or the folder cannot be written to.
    """
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


def refuse_to_do_nothing(config: TrainingConfig, continued: SavedRun, state: TrainState, plan: BatchPlan) -> None:
    """A finished run cannot be trained with other settings by calling it again; a report must not claim so."""
    changed = [name for name in _FOLLOWED if getattr(continued.config, name) != getattr(config, name)]
    if changed and state.step >= plan.total_steps:
        raise ConfigError(
            changed[0],
            f"was changed, but the run has made its {state.step:,} steps and would end after {plan.total_steps:,}.",
            "Raise max_steps to train on, or start elsewhere: --run-dir NEW.",
        )


def put_later_ones_aside(config: TrainingConfig, state: TrainState) -> None:
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


def _other_parts(config: TrainingConfig, saved: TrainingConfig) -> list[str]:
    """Optimizer and tokenizer, whose settings would be passed over: the ones of the run go on as they are."""
    pairs = {
        "optimizer": (config.optimizer, saved.optimizer),
        "tokenizer.kind": (config.tokenizer.kind, saved.tokenizer.kind),
        "tokenizer.vocab_size": (config.tokenizer.vocab_size, saved.tokenizer.vocab_size),
    }
    return [f"{name} is {now}, was {was}" for name, (now, was) in pairs.items() if now != was]


def refuse_another_run(config: TrainingConfig, identity: Identity, continued: SavedRun) -> None:
    """A run goes on with its own model, text, mixture, tokenizer and seed.

    Raises:
        CheckpointError: one of them is not the checkpoint's; names all that are not.
    """
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


def announce_changes(config: TrainingConfig, continued: SavedRun) -> None:
    """Say which settings are other than in the checkpoint and are followed from here on."""
    for name in _FOLLOWED:
        was, now = getattr(continued.config, name), getattr(config, name)
        if was != now:
            LOGGER.info("%s is %s from here on; it was %s.", name, now, was)
    if config.model.dropout != continued.config.model.dropout:
        now, was = config.model.dropout, continued.config.model.dropout
        LOGGER.info("model.dropout is %s from here on; it was %s.", now, was)


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
