"""`havoc checkpoint list | verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from havoc_cli.flags import parse
from havoc_cli.subcommands import pick
from havoc_core.errors import CheckpointError


@dataclass(frozen=True)
class ListFlags:
    """Flags of `havoc checkpoint list`."""

    folder: Annotated[str, tyro.conf.Positional] = "checkpoints"
    """Folder of the checkpoints, or of a run."""


@dataclass(frozen=True)
class VerifyFlags:
    """Flags of `havoc checkpoint verify`."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """Folder of one checkpoint."""


def run(argv: Sequence[str]) -> int:
    """Show what was saved, or compare one checkpoint with its checksums."""
    return pick("checkpoint", {"list": _list, "verify": _verify}, argv)


def _list(argv: Sequence[str]) -> int:
    flags = parse(ListFlags, argv, prog="havoc checkpoint list", description="What was saved.")
    from havoc_core import checkpoint

    folder = Path(flags.folder)
    folder = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    steps = checkpoint.step_checkpoints(folder)
    others = [folder / f"checkpoint_{name}" for name in ("best", "interrupted", "error")]
    found = [path for path in [*steps, *others] if checkpoint.resolve(path).is_dir()]
    if not found:
        raise CheckpointError(str(folder), "holds no checkpoints.", "Train first: havoc run, or havoc train.")
    for path in found:
        try:
            manifest = checkpoint.read_manifest(path)
            state = checkpoint.load_json(path, "training_state.json")
            size = sum(size for size, _ in manifest.files.values())
            best = "" if state["best_loss"] is None else f"  best validation loss {state['best_loss']:.4f}"
            print(f"{path}  step {state['step']:,}  {size / 2**20:,.1f} MiB{best}")
        except CheckpointError as error:
            print(f"{path}  damaged: {error.found}")
        except (KeyError, TypeError, ValueError):
            print(f"{path}  damaged: training_state.json is not ours.")
    return 0


def _verify(argv: Sequence[str]) -> int:
    flags = parse(
        VerifyFlags, argv, prog="havoc checkpoint verify", description="Compare all files with their checksums."
    )
    from havoc_core import checkpoint

    manifest = checkpoint.verify(Path(flags.checkpoint))
    print(f"{flags.checkpoint}: {len(manifest.files)} files, all as they were written.")
    return 0
