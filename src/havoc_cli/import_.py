"""`havoc import`: a Hugging Face folder -> a checkpoint, to generate with or to train on. (`import` is a word of Python's.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from havoc_cli.flags import parse


@dataclass(frozen=True)
class ImportFlags:
    """Flags of `havoc import`."""

    folder: Annotated[str, tyro.conf.Positional]
    """Hugging Face folder of the Qwen3 or the Llama architecture: config.json, tokenizer, safetensors."""
    out: str
    """Folder of the run to make; the checkpoint is `checkpoints/checkpoint_step_0` in it."""


def run(argv: Sequence[str]) -> int:
    """Write the checkpoint, and say how to go on with it."""
    flags = parse(
        ImportFlags, argv, prog="havoc import", description="A Hugging Face folder -> a checkpoint, tokenizer included."
    )
    from havoc_core.costs import num_parameters
    from havoc_inference.exported import import_folder

    target = Path(flags.out) / "checkpoints" / "checkpoint_step_0"
    config = import_folder(Path(flags.folder), target)
    print(f"{num_parameters(config):,} parameters, context {config.max_seq_len:,}.")
    print(f"Try it:    havoc generate {flags.out}")
    print(f"Tune it:   havoc train --resume {target} --fine-tune --run-dir NEW --data.data-dir FOLDER")
    print(target)
    return 0
