"""`havoc tokenizer train | report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from havoc_cli.flags import ConfigFlags, load_config, parse, parse_with_settings
from havoc_cli.run_lock import locked
from havoc_cli.subcommands import pick
from havoc_core.errors import DataError
from havoc_core.run_files import RunFiles

MATHEMATICS = (
    "∑ᵢ₌₁ⁿ (xᵢ − x̄)² / (n − 1)",
    "E[X] = ∫ x f(x) dx, Var(X) = σ²",
    "10⁻³ ≤ α ≤ ½, x ∈ ℝ ∖ {0}",
    "∂²u/∂t² = c²∇²u",
    "\\frac{d}{dx} \\int_0^x f(t)\\,dt = f(x)",
    "UCL = x̄ + A₂R̄ = 74.001 + 0.577 × 0.023",
)
"""Fixed texts whose cost in tokens is reported."""


@dataclass(frozen=True)
class ReportFlags:
    """Flags of `havoc tokenizer report`."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional] = ("tokenizer",)
    """Tokenizers to compare: folders, tokenizer.json files, SentencePiece models."""
    text: str | None = None
    """File to measure on; None: the held-out text of the store in the run's folder."""
    run_dir: str = "."
    """Folder of the run, for its held-out text."""


def run(argv: Sequence[str]) -> int:
    """Train a tokenizer on the text of the settings, or compare tokenizers."""
    return pick("tokenizer", {"train": _train, "report": _report}, argv)


def _train(argv: Sequence[str]) -> int:
    flags, given = parse_with_settings(
        ConfigFlags,
        argv,
        prog="havoc tokenizer train",
        description="Learn a vocabulary from the training side of your text.",
    )
    config = load_config(flags, given).config
    from havoc_data.prepare.build import collect_corpus
    from havoc_data.prepare.train_tokenizer import make_tokenizer

    files = RunFiles.of(config)
    with locked(files):
        tokenizer = make_tokenizer(config, collect_corpus(config), folder=files.tokenizer)
    print(f"{files.tokenizer}: {tokenizer.vocab_size:,} ids.")
    return 0


def _report(argv: Sequence[str]) -> int:
    flags = parse(
        ReportFlags, argv, prog="havoc tokenizer report", description="Bytes per token, and what mathematics costs."
    )
    from havoc_core.tokenizer import Tokenizer

    texts = _texts(flags)
    tokenizers = {path: Tokenizer.load(Path(path)) for path in flags.paths}
    width = max(len(name) for name in (*texts, "mathematical notation", *(repr(m) for m in MATHEMATICS)))
    print(" " * width, *(f"{path:>16.16}" for path in tokenizers))
    print("ids".ljust(width), *(f"{t.vocab_size:>16,}" for t in tokenizers.values()))
    for name, text in texts.items():
        size = len(text.encode())
        rates = [size / max(1, len(t.encode(text))) for t in tokenizers.values()]
        print(name.ljust(width), *(f"{rate:>16.3f}" for rate in rates), " bytes per token")
    for text in MATHEMATICS:
        print(repr(text).ljust(width), *(f"{len(t.encode(text)):>16}" for t in tokenizers.values()), " tokens")
    return 0


def _texts(flags: ReportFlags) -> dict[str, str]:
    if flags.text is not None:
        path = Path(flags.text)
        try:
            return {path.name: path.read_text(encoding="utf-8", errors="replace")}
        except OSError as error:
            raise DataError(
                str(path), f"cannot be read ({error.strerror}).", "Check the path given to --text."
            ) from None
    from havoc_eval.held_out_text import read_held_out

    folder = Path(flags.run_dir) / "store" / "validation"
    found = sorted(folder.glob("*.jsonl.zst"))
    if not found:
        raise DataError(
            str(folder), "holds no held-out text.", "Build a store (havoc data build), or name a file: --text."
        )
    return {
        path.name.removesuffix(".jsonl.zst"): "\n".join(
            content for document in read_held_out(path) for content in document.contents
        )
        for path in found
    }
