"""A checkpoint folder -> a model that is ready to generate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from havoc_core import checkpoint
from havoc_core.config import ModelConfig
from havoc_core.errors import CheckpointError, DataError
from havoc_core.log import LOGGER
from havoc_core.model import Decoder, place_weights
from havoc_core.models import havoc
from havoc_core.tokenizer import Tokenizer

_MAX_NAMED = 3
"""Differences that a message lists before it only counts."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with what belongs to it."""

    model: Decoder
    """In evaluation mode, without gradients."""
    tokenizer: Tokenizer
    config: ModelConfig
    step: int
    """Updates that made it."""
    dummy_data: bool
    """Whether it learnt from random words; every screen says so."""


@dataclass(frozen=True)
class CheckpointContents:
    """A verified checkpoint whose weights still lie in its file."""

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    step: int
    dummy_data: bool
    weights: Mapping[str, Tensor]
    """Memory-mapped, by name; they have the shapes that the config asks for."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices."""
        return next(values.dtype for values in self.weights.values() if values.dim() > 1)


def open_checkpoint(path: Path) -> CheckpointContents:
    """Compare all of a checkpoint with its checksums and map its weights, without reading them into memory.

    Args:
        path: a checkpoint, a folder of checkpoints, or the folder of a run (see `find_checkpoint`).

    Raises:
        CheckpointError: there is none, it is damaged, or its weights do not fit its config; says what differs.
    """
    folder = find_checkpoint(path)
    checkpoint.verify(folder)
    config = _model_config(folder)
    tokenizer = _tokenizer(folder, config)
    step, dummy_data = _state(folder)
    weights = checkpoint.load_tensors(folder, "model.pt")
    _require_same_shapes(folder, havoc.build(config), weights)
    return CheckpointContents(folder, config, tokenizer, step, dummy_data, weights)


def load_checkpoint(path: Path, *, device: torch.device, dtype: torch.dtype | None = None) -> LoadedModel:
    """Read a checkpoint after comparing all of it with its checksums. Runs no code from a file.

    Args:
        path: a checkpoint, a folder of checkpoints, or the folder of a run (see `find_checkpoint`).
        device: where the weights go.
        dtype: of the matrices; None: as they were saved. bfloat16 is slow on a CPU without instructions for it.

    Raises:
        CheckpointError: there is none, it is damaged, or its weights do not fit its config; says what differs.
    """
    found = open_checkpoint(path)
    model = havoc.build(found.config)
    place_weights(model, found.weights, dtype=dtype or found.dtype, device=device)
    model.requires_grad_(False).eval()
    return LoadedModel(model, found.tokenizer, found.config, found.step, found.dummy_data)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means.

    A checkpoint folder is itself. In a run's folder (its `checkpoints/`) or a folder of checkpoints it is the
    newest valid one that was saved at a step or at an interruption, else the best; a damaged one is named in the
    log and passed over.

    Raises:
        CheckpointError: there is none that is whole.
    """
    if (checkpoint.resolve(path) / "manifest.json").is_file():
        return path
    container = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    candidates = _newest_first(container)
    if not candidates and container == path:
        checkpoint.read_manifest(path)  # says that there is no such folder, or that it is no checkpoint
    for folder in candidates:
        try:
            checkpoint.verify(folder)
        except CheckpointError as error:
            LOGGER.warning("Passed over: %s", error)
        else:
            return folder
    found = f"none of its {len(candidates)} checkpoints is whole" if candidates else "holds no checkpoint"
    raise CheckpointError(str(container), f"{found}.", "Train first (havoc train), or name another folder.")


def _newest_first(container: Path) -> list[Path]:
    steps = [(checkpoint.step_of(folder) or 0, folder) for folder in checkpoint.step_checkpoints(container)]
    interrupted, best = container / "checkpoint_interrupted", container / "checkpoint_best"
    if checkpoint.resolve(interrupted).is_dir():
        try:
            steps.append((_state(interrupted)[0], interrupted))
        except CheckpointError as error:
            LOGGER.warning("Passed over: %s", error)
    ordered = [folder for _, folder in sorted(steps, key=lambda item: item[0], reverse=True)]
    return [*ordered, best] if checkpoint.resolve(best).is_dir() else ordered


def _model_config(folder: Path) -> ModelConfig:
    values = checkpoint.load_json(folder, "config.json")
    try:
        return ModelConfig.model_validate(values["model"])
    except (ValidationError, KeyError, TypeError) as error:
        raise CheckpointError(
            str(folder / "config.json"),
            f"has no valid `model` section ({str(error).splitlines()[0]}).",
            "Use another checkpoint: havoc checkpoint list.",
        ) from None


def _tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    inside = checkpoint.resolve(folder) / "tokenizer"
    try:
        tokenizer = Tokenizer.load(inside)
    except DataError as error:
        raise CheckpointError(error.where, error.found, "Use another checkpoint: havoc checkpoint list.") from None
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            str(inside),
            f"has {tokenizer.vocab_size:,} ids, the model only {config.vocab_size:,}.",
            "It belongs to another model; use another checkpoint: havoc checkpoint list.",
        )
    return tokenizer


def _state(folder: Path) -> tuple[int, bool]:
    state = checkpoint.load_json(folder, "training_state.json")
    step = state.get("step") if isinstance(state, dict) else None
    if not isinstance(step, int):
        raise CheckpointError(
            str(folder / "training_state.json"),
            f"says no step (found {json.dumps(step)}).",
            "Use another checkpoint: havoc checkpoint list.",
        )
    return step, bool(state.get("dummy_data", False))


def _require_same_shapes(folder: Path, model: Decoder, weights: Any) -> None:
    where, remedy = (
        str(folder / "model.pt"),
        "It belongs to another config; use another checkpoint: havoc checkpoint list.",
    )
    if not isinstance(weights, Mapping) or not all(isinstance(values, Tensor) for values in weights.values()):
        raise CheckpointError(where, "holds no weights by name.", remedy)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    # A tied head has two names for one parameter; a file may hold the second or leave it out.
    known = {name: tuple(values.shape) for name, values in model.state_dict().items()}
    faults = [f"{name} is missing" for name in wanted if name not in weights]
    faults += [f"{name} is not part of the model" for name in weights if name not in known]
    faults += [
        f"{name} is {list(values.shape)}, the config says {list(known[name])}"
        for name, values in weights.items()
        if name in known and tuple(values.shape) != known[name]
    ]
    if faults:
        more = f" and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
        raise CheckpointError(where, f"does not fit its config: {'; '.join(faults[:_MAX_NAMED])}{more}.", remedy)
