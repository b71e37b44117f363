"""`havoc generate`: continue a text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from havoc_cli.flags import parse
from havoc_core.errors import ConfigError

if TYPE_CHECKING:
    from havoc_inference.engine import Engine
    from havoc_inference.load import LoadedModel
    from havoc_inference.sampling import SamplingOptions


@dataclass(frozen=True)
class SamplingFlags:
    """How the next token is chosen, and where it is computed."""

    checkpoint: Annotated[str, tyro.conf.Positional] = "."
    """A checkpoint, the folder of a run (its newest checkpoint), or a Hugging Face folder."""
    max_new_tokens: int = 200
    """Tokens to write at most."""
    temperature: float = 0.8
    """0: always the most probable token."""
    top_k: int | None = 50
    """Only the k most probable tokens; None: all."""
    top_p: float | None = 0.95
    """Only the smallest set of tokens that holds this probability; None: all."""
    seed: int = 0
    """The same seed gives the same text."""
    int8: bool = False
    """Read the matrices as 8-bit integers: faster on a CPU, and close to the full model's answers."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to compute."""

    def options(self) -> SamplingOptions:
        """These flags, checked.

        Raises:
            ConfigError: a value is out of range; names it.
        """
        from havoc_inference.sampling import SamplingOptions

        if self.max_new_tokens < 1:
            raise ConfigError("max_new_tokens", f"{self.max_new_tokens} is out of range.", "Write at least one token.")
        return SamplingOptions(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
            max_new_tokens=self.max_new_tokens,
        )


@dataclass(frozen=True)
class GenerateFlags(SamplingFlags):
    """Flags of `havoc generate`."""

    prompt: str = ""
    """The beginning of the text; empty: whatever begins a document."""


def run(argv: Sequence[str]) -> int:
    """Write a continuation to the terminal, token by token."""
    flags = parse(GenerateFlags, argv, prog="havoc generate", description="Continue a text.")
    (engine, _), options = open_engine(flags), flags.options()
    sys.stdout.write(flags.prompt)
    for piece in engine.stream(engine.encode_prompt(flags.prompt), options):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def open_engine(flags: SamplingFlags) -> tuple[Engine, LoadedModel]:
    """Load the checkpoint that the flags mean; says so if it learnt from random words."""
    from havoc_core.device import choose_device
    from havoc_inference.engine import Engine, EngineOptions
    from havoc_inference.exported import is_exported, load_exported
    from havoc_inference.load import load_checkpoint

    flags.options()  # a wrong number is said before gigabytes are read
    path = Path(flags.checkpoint)
    load = load_exported if is_exported(path) else load_checkpoint
    loaded = load(path, device=choose_device(flags.device))
    if loaded.dummy_data:
        print("DUMMY DATA: this model learnt from random words.", file=sys.stderr)
    return Engine(loaded, EngineOptions(int8=flags.int8)), loaded
