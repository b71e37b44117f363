"""`havoc train`, and `python scripts/train.py`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from havoc_cli.flags import ConfigFlags, load_config, parse_with_settings, with_dummy_data
from havoc_cli.run_lock import locked
from havoc_core.config import TrainingConfig
from havoc_core.config_files import ResolvedConfig, from_json, resolve
from havoc_core.errors import CheckpointError, ConfigError
from havoc_core.run_files import RunFiles

DEFAULT_CONFIG = Path("configs/training/default_training.yaml")


@dataclass(frozen=True)
class TrainFlags(ConfigFlags):
    """Flags of `havoc train` besides the settings."""

    resume: str | None = None
    """Checkpoint folder to continue from, or auto: the newest valid one. Without --config its settings are used."""
    fine_tune: bool = False
    """With --resume PATH: take only the weights; optimizer, schedule and data are new."""


def run(argv: Sequence[str], default_config: str | None = None) -> int:
    """Train, and give the exit code."""
    flags, given = parse_with_settings(
        TrainFlags,
        argv,
        prog="havoc train",
        description="Train a model; makes tokenizer and store when they are missing.",
    )
    if flags.resume is not None:
        given["resume_from_checkpoint"] = flags.resume
    default = Path(default_config) if default_config else DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
    resolved = _resolve(flags, given, default)
    config = resolved.config
    if flags.fine_tune and config.resume_from_checkpoint in {None, "auto"}:
        raise ConfigError("--fine-tune", "needs a checkpoint to take weights from.", "Add --resume PATH.")
    if _rank() > 0:  # torchrun: rank 0 holds the folder for all
        return train(config, fine_tune=flags.fine_tune)
    with locked(RunFiles.of(config)):
        return train(config, fine_tune=flags.fine_tune)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def train(config: TrainingConfig, *, fine_tune: bool = False, go_on_with: str | None = None) -> int:
    """Train as configured; logs to screen and file; gives 0, or 128 + the signal that stopped it.

    Args:
        config: the run.
        fine_tune: take only the weights of the checkpoint.
        go_on_with: command that continues a run that was stopped; None: `scripts/train.py --resume`.
    """
    from havoc_core import log
    from havoc_inference.export.exportable import unexportable, unexportable_tokenizer
    from havoc_training.build import build_trainer  # torch comes in here, after the settings are right
    from havoc_training.continuation import find_checkpoint

    files = RunFiles.of(config)
    log.to_screen(rank=_rank())
    try:
        handler = log.to_file(files.train_log) if _rank() == 0 else None
    except OSError as error:
        raise ConfigError(
            "log_dir", f"{files.logs} cannot be written to ({error.strerror}).", "Choose another: log_dir or --run-dir."
        ) from None
    try:
        for found in (*unexportable(config.model), *unexportable_tokenizer(config.tokenizer.kind)):
            log.LOGGER.info("Not for export: %s.", found)
        saved = find_checkpoint(config)
        if saved is not None and not fine_tune and saved.state.get("imported"):
            raise CheckpointError(
                str(saved.folder),
                "was imported, and has no course of its own to go on with.",
                "Take its weights: --fine-tune --run-dir NEW.",
            )
        if fine_tune and saved is not None:
            config = _with_tokenizer_of(config, saved.folder)
        trainer = build_trainer(config, saved=saved, fine_tune=fine_tune)
        result = trainer.fit()
        trainer.world.close()
        if result.stopped_by is not None:
            log.LOGGER.info("Saved %s after %d steps. Continue with:", result.checkpoint, result.state.step)
            command = go_on_with or f"python scripts/train.py --resume {shlex.quote(str(result.checkpoint))}"
            log.LOGGER.info("    %s", command)
            return 128 + result.stopped_by
        log.LOGGER.info("Done: %s steps, %s.", f"{result.state.step:,}", result.checkpoint)
        return 0
    except Exception as error:
        log.LOGGER.debug("training ended with %r", error)
        raise
    finally:
        if handler is not None:
            log.close_file(handler)


def _resolve(flags: TrainFlags, given: Mapping[str, Any], default: Path | None) -> ResolvedConfig:
    if flags.resume is not None and flags.config is None:
        path = _checkpoint_config(flags.resume, given)
        if path is not None:
            # What is no text is no JSON either: the checksums come later, and from_json has the message.
            text = path.read_text(encoding="utf-8", errors="replace")
            values = from_json(text, where=str(path)).model_dump(mode="json")
            values["run_dir"] = _run_dir_of(path.parent, values)
            return resolve(values, with_dummy_data(given) if flags.dummy_data else given, file_name=str(path))
    return load_config(flags, given, default_file=default)


def _run_dir_of(folder: Path, values: Mapping[str, Any]) -> str:
    """The run that a checkpoint lies in: it may have been moved, or be called from another folder than it was made in."""
    inner = Path(values["checkpoint_dir"])
    place = folder.parent
    if not inner.is_absolute() and place.parts[-len(inner.parts) :] == inner.parts:
        return str(Path(*place.parts[: -len(inner.parts)]))
    return str(values["run_dir"])


def _checkpoint_config(resume: str, given: Mapping[str, Any]) -> Path | None:
    """config.json of the checkpoint that will be resumed; None if `auto` finds nothing."""
    from havoc_core import checkpoint

    if resume != "auto":
        path = checkpoint.resolve(Path(resume)) / "config.json"
        if not path.is_file():
            raise CheckpointError(
                resume, "is no checkpoint (no config.json).", "`havoc checkpoint list` shows what there is."
            )
        return path
    # A null here is answered when all settings are checked.
    base = Path(given.get("run_dir") or ".") / (given.get("checkpoint_dir") or "checkpoints")
    if not base.is_dir():
        return None
    from havoc_training.checkpointing import find_newest

    newest = find_newest(base)
    return None if newest is None else checkpoint.resolve(newest) / "config.json"


def _with_tokenizer_of(config: TrainingConfig, folder: Path) -> TrainingConfig:
    """The same run with the checkpoint's tokenizer: its weights mean nothing with another."""
    from havoc_core import checkpoint

    inside = [checkpoint.resolve(folder) / "tokenizer" / name for name in ("tokenizer.json", "tokenizer.model")]
    path = next((path for path in inside if path.is_file()), None)
    if path is None:
        raise CheckpointError(str(folder), "holds no tokenizer.", "Use another checkpoint: havoc checkpoint list.")
    tokenizer = config.tokenizer.model_copy(update={"path": str(path)})
    return config.model_copy(update={"tokenizer": tokenizer})
