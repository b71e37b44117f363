"""When to save, what to keep, how to continue."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from havoc_core import checkpoint
from havoc_core.config import TrainingConfig
from havoc_core.config_files import from_json, to_json
from havoc_core.errors import CheckpointError
from havoc_core.log import LOGGER
from havoc_core.model import Decoder
from havoc_core.tensor_file import TensorSource
from havoc_core.tokenizer import Tokenizer
from havoc_training.gradient_scaler import GradientScale
from havoc_training.state import TrainState
from havoc_training.updater import Updater


@dataclass(frozen=True)
class Identity:
    """What a run may not change when it continues."""

    store_id: str
    plan_id: str
    tokenizer: str
    seed: int
    row_length: int
    model: Mapping[str, Any]
    """The model section of the config."""

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """What is not as it was, in words: "data: store 1a2b… was 3c4d…"."""
        names = {
            "store_id": "data (token store)",
            "plan_id": "data mixture",
            "tokenizer": "tokenizer",
            "seed": "seed",
            "row_length": "data.max_sequence_length",
        }
        out = [
            f"{words} is {_short(getattr(self, key))}, was {_short(saved.get(key))}"
            for key, words in names.items()
            if getattr(self, key) != saved.get(key)
        ]
        return out + _nested_differences("model", self.model, saved.get("model", {}))


def _nested_differences(path: str, now: Mapping[str, Any], was: Mapping[str, Any]) -> list[str]:
    out = []
    for key in sorted(set(now) | set(was)):
        old, new = was.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            out += _nested_differences(f"{path}.{key}", new, old)
        elif old != new and key not in _NOT_A_SHAPE:
            out.append(f"{path}.{key} is {new}, was {old}")
    return out


_NOT_A_SHAPE = ("size", "dropout", "initializer_range")
"""Settings of the model section that may change between two parts of a run."""


def _short(value: object) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) > 16 else text


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint that a run continues from."""

    folder: Path
    state: dict[str, Any]
    """training_state.json."""
    config: TrainingConfig

    @classmethod
    def open(cls, folder: Path) -> SavedRun:
        """Verify a checkpoint and read what it says of the run.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        checkpoint.verify(folder)
        config = from_json(
            (checkpoint.resolve(folder) / "config.json").read_text("utf-8"), where=f"{folder}/config.json"
        )
        return cls(folder, checkpoint.load_json(folder, "training_state.json"), config)

    @property
    def resolved(self) -> dict[str, Any]:
        """What was chosen automatically at the first start."""
        chosen: dict[str, Any] = self.state["resolved"]
        return chosen

    def weights(self) -> dict[str, Tensor]:
        """model.pt: working weights by name."""
        loaded: dict[str, Tensor] = checkpoint.load_tensors(self.folder, "model.pt")
        return loaded


def find_newest(folder: Path) -> Path | None:
    """What `--resume auto` takes: the highest step among valid step, interrupted and error checkpoints.

    Damaged ones are named and passed over. checkpoint_error counts only if it was saved between updates and is finite.
    """
    named = [folder / name for name in ("checkpoint_interrupted", "checkpoint_error")]
    candidates = [path for path in named if checkpoint.resolve(path).is_dir()] + checkpoint.step_checkpoints(folder)
    found: list[tuple[int, Path]] = []
    for path in candidates:
        try:
            checkpoint.read_manifest(path)
            state = checkpoint.load_json(path, "training_state.json")
            if path.name == "checkpoint_error" and not state.get("consistent", False):
                continue
            found.append((int(state["step"]), path))
        except (CheckpointError, KeyError, TypeError, ValueError, AttributeError) as error:
            LOGGER.warning("Passed over: %s: %s", path, error)
    for _, path in sorted(found, key=lambda pair: pair[0], reverse=True):
        try:
            checkpoint.verify(path)
        except CheckpointError as error:
            LOGGER.warning("Passed over: %s", error)
            continue
        return path
    return None


class CheckpointKeeper:
    """Saves the state of one run under the names that users know.

    Args:
        folder: of the checkpoints.
        keep_last: step checkpoints that stay.
        config: written into each.
        tokenizer: written into each.
        identity: what a continuation must share.
        resolved: what was chosen automatically.
        dummy_data: whether the text is made up.
        rows_per_epoch: rows of the training side, for the epoch in training_state.json.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int,
        config: TrainingConfig,
        tokenizer: Tokenizer,
        identity: Identity,
        resolved: Mapping[str, Any],
        dummy_data: bool,
        rows_per_epoch: int,
    ) -> None:
        self.folder = folder
        self._keep_last = keep_last
        self._config = config
        self._tokenizer = tokenizer
        self._identity = identity
        self._facts: dict[str, Any] = {"resolved": dict(resolved), "dummy_data": dummy_data}
        self._rows_per_epoch = rows_per_epoch

    def note_halving(self, *, step: int, micro_batch_size: int) -> None:
        """Write into later checkpoints that memory ran out in a step, and how many rows go together from then on.

        A resume goes on with these; equal bits are no longer promised.
        """
        resolved = self._facts["resolved"]
        halvings = [*resolved.get("halvings", []), {"step": step, "micro_batch_size": micro_batch_size}]
        self._facts["resolved"] = {**resolved, "micro_batch_size": micro_batch_size, "halvings": halvings}

    def save(
        self,
        name: str,
        model: Decoder,
        optimizer: Updater,
        state: TrainState,
        *,
        scales_loss: bool,
        consistent: bool = True,
    ) -> Path:
        """Write a checkpoint called `name`, or checkpoint_step_N for N = state.step if that is its name.

        Raises:
            CheckpointError: it cannot be written; earlier ones are untouched.
        """
        target = self.folder / name
        remembered = optimizer.state_dict()  # first: it waits for weights that are on their way to the host
        with checkpoint.writing(target) as folder:
            # As sources: written one at a time, and a view without all of the storage behind it.
            checkpoint.save_tensors(
                folder / "model.pt", {name: TensorSource.of(weight) for name, weight in model.state_dict().items()}
            )
            checkpoint.save_tensors(folder / "optimizer.pt", remembered)
            rates = [group["lr"] for group in optimizer.param_groups()]
            checkpoint.save_tensors(
                folder / "scheduler.pt",
                {"step": state.step, "type": self._config.lr_scheduler_type, "learning_rates": rates},
            )
            if scales_loss:
                checkpoint.save_tensors(
                    folder / "scaler.pt", {"scale": state.scale.scale, "good_steps": state.scale.good_steps}
                )
            checkpoint.save_tensors(folder / "random_states.pt", random_states())
            facts = {
                **self._facts,
                "identity": vars(self._identity),
                "consistent": consistent,
                "epoch": state.next_slot / self._rows_per_epoch,
                "best_val_loss": state.best_loss,
            }
            checkpoint.save_json(folder / "training_state.json", state.to_json() | facts)
            (folder / "config.json").write_text(to_json(self._config), encoding="utf-8")
            self._tokenizer.save(folder / "tokenizer")
        self._drop_old(target)
        return target

    def _drop_old(self, newest: Path) -> None:
        """Delete step checkpoints but the last ones; `newest` stays, though others may have a higher step.

        They do where a run went on from an earlier checkpoint than its last.
        """
        steps = checkpoint.step_checkpoints(self.folder)
        others = [path for path in steps if path != newest]
        for path in others[: max(0, len(steps) - self._keep_last)]:
            shutil.rmtree(path, ignore_errors=True)


def restore(saved: SavedRun, optimizer: Updater) -> TrainState:
    """Optimizer, random states and position of a saved run; the model was built with its weights already."""
    optimizer.load_state_dict(checkpoint.load_tensors(saved.folder, "optimizer.pt"))
    set_random_states(checkpoint.load_tensors(saved.folder, "random_states.pt"))
    scale = GradientScale()
    if (checkpoint.resolve(saved.folder) / "scaler.pt").is_file():
        scale = GradientScale(**checkpoint.load_tensors(saved.folder, "scaler.pt"))
    return TrainState.from_json(saved.state, scale)


def random_states() -> dict[str, Any]:
    """States of Python's, numpy's and torch's generators, as tensors and plain values."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators back to where `random_states` found them."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"].clone())
    if "cuda" in states and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
