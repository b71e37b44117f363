"""`havoc export`: a checkpoint in the formats of other software, proven to say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from havoc_cli.flags import parse
from havoc_cli.model_folder import folder_of_run

if TYPE_CHECKING:
    from havoc_inference.export.card import CardFacts, ScoreLine, SourceBill
    from havoc_inference.load import CheckpointContents


@dataclass(frozen=True)
class ExportFlags:
    """Flags of `havoc export`."""

    to: Literal["hf", "gguf"]
    """hf: a folder for transformers, vLLM, SGLang, MLX. gguf: a file for llama.cpp and Ollama."""
    checkpoint: Annotated[str, tyro.conf.Positional] = "."
    """A checkpoint, or the folder of a run: its newest checkpoint."""
    out: str | None = None
    """Folder to write; an earlier export in it is replaced. None: `export/` and the format, in the run's folder."""
    dtype: Literal["f32", "bf16", "f16", "q8_0", "q4_0"] | None = None
    """Numbers of the matrices: f32 or bf16, for gguf also q8_0 and q4_0; None: as in the checkpoint."""


def run(argv: Sequence[str]) -> int:
    """Write the export, load it back, compare, and say what was measured."""
    flags = parse(
        ExportFlags,
        argv,
        prog="havoc export",
        description="A checkpoint in the formats of other software, loaded back and compared with the model.",
    )
    from havoc_inference.export.exporting import Order, export
    from havoc_inference.export.output_folder import refuse_to_overwrite
    from havoc_inference.load import find_checkpoint, open_checkpoint

    if flags.out is not None:
        refuse_to_overwrite(Path(flags.out))  # said before gigabytes are read
    contents = open_checkpoint(find_checkpoint(Path(flags.checkpoint)))
    run_dir = folder_of_run(contents.folder)
    name = flags.to if flags.dtype is None else f"{flags.to}-{flags.dtype}"
    out = run_dir / "export" / name if flags.out is None else Path(flags.out)
    if contents.dummy_data:
        print("DUMMY DATA: this model learnt from random words.")
    order = Order(flags.to, out, flags.dtype, _facts(contents, run_dir))
    made = export(contents, order, say=print)
    for file in made.files:
        print(f"{out / file}  {(out / file).stat().st_size:,} bytes")
    print(out)
    return 0


def _facts(contents: CheckpointContents, run_dir: Path) -> CardFacts:
    from havoc_core import checkpoint
    from havoc_inference.export.card import CardFacts

    state = checkpoint.load_json(contents.folder, "training_state.json")
    tokens = state.get("scored_tokens")
    return CardFacts(
        title=run_dir.name,
        sources=_sources(run_dir),
        scores=_scores(run_dir / "logs" / "evaluation.json"),
        scored_tokens=tokens if isinstance(tokens, int) else None,
        imported=bool(state.get("imported")),
    )


def _sources(run_dir: Path) -> tuple[SourceBill, ...]:
    """What the model learnt from, as far as the run's folder still knows it."""
    from havoc_core.errors import DataError
    from havoc_data.prepare.corpus import open_corpus
    from havoc_data.store import TokenStore
    from havoc_inference.export.card import SourceBill

    corpus = open_corpus(run_dir / "corpus")
    if corpus is None:
        return ()
    try:
        tokens = {name: source.record.tokens for name, source in TokenStore(run_dir / "store").training.items()}
    except DataError:
        tokens = {}
    return tuple(
        SourceBill(
            name=ledger.name,
            group=ledger.group,
            documents=ledger.sums.documents.get("kept", 0),
            text_bytes=ledger.sums.text_bytes.get("kept", 0),
            tokens=tokens.get(ledger.name),
            licences=ledger.licences,
        )
        for ledger in corpus.ledgers
    )


def _scores(path: Path) -> tuple[ScoreLine, ...]:
    from havoc_eval.runner import from_json
    from havoc_inference.export.card import ScoreLine

    if not path.is_file():
        return ()
    evaluation = from_json(path.read_text(encoding="utf-8"), where=str(path))
    return tuple(
        ScoreLine(result.task, score.group, score.metric, score.value, score.low, score.high)
        for result in evaluation.results
        for score in result.scores
    )
