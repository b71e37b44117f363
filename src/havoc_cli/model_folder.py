"""What a folder on the command line means: a checkpoint, a run, or a model that was exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from havoc_inference.load import LoadedModel


@dataclass(frozen=True)
class OpenedModel:
    """A model, and where it was found."""

    loaded: LoadedModel
    folder: Path
    """Of the run, where the checkpoint lies in one; else the model's own."""

    @property
    def name(self) -> str:
        """What to call it."""
        return self.folder.name


def folder_of_run(checkpoint: Path) -> Path:
    """The run that a checkpoint lies in; a checkpoint that was taken elsewhere stands for itself."""
    folder = checkpoint.resolve()
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder


def open_model(path: Path, *, device: str) -> OpenedModel:
    """Load the model that a path means; says so if it learnt from random words.

    Args:
        path: a checkpoint, the folder of a run (its newest checkpoint), or a Hugging Face folder.
        device: setting of the device.

    Raises:
        CheckpointError, DataError: there is none, or it is damaged.
    """
    from havoc_core.device import choose_device
    from havoc_inference.exported import is_exported, load_exported
    from havoc_inference.load import find_checkpoint, load_checkpoint

    place = choose_device(device)
    if is_exported(path):
        opened = OpenedModel(load_exported(path, device=place), path.resolve())
    else:
        folder = find_checkpoint(path)
        opened = OpenedModel(load_checkpoint(folder, device=place), folder_of_run(folder))
    if opened.loaded.dummy_data:
        print("DUMMY DATA: this model learnt from random words.", flush=True)
    return opened
