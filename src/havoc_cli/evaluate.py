"""`havoc evaluate`: a checkpoint -> scores with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from havoc_cli.flags import parse
from havoc_core.config_files import from_json
from havoc_core.errors import ConfigError

if TYPE_CHECKING:
    from havoc_eval.runner import Evaluation


@dataclass(frozen=True)
class EvaluateFlags:
    """Flags of `havoc evaluate`."""

    checkpoint: Annotated[str, tyro.conf.Positional] = "."
    """A checkpoint, or the folder of a run: its newest checkpoint."""
    store: str | None = None
    """Folder of the token store, for held-out text; None: `store` beside the checkpoints."""
    exam_problems: int = 200
    """Problems in the exam; 0: no exam."""
    out: str | None = None
    """JSON file to write; None: `logs/evaluation.json` beside the checkpoints."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to compute."""


def run(argv: Sequence[str]) -> int:
    """Score a checkpoint, print the scores and write them."""
    flags = parse(EvaluateFlags, argv, prog="havoc evaluate", description="A checkpoint -> scores with 95 % intervals.")
    if flags.exam_problems < 0:
        raise ConfigError("--exam-problems", f"{flags.exam_problems} is below 0.", "Use 0 for no exam.")
    from havoc_core import log
    from havoc_inference.load import find_checkpoint

    log.to_screen()
    folder = find_checkpoint(Path(flags.checkpoint))
    run_dir = folder.resolve().parent.parent
    out = Path(flags.out) if flags.out else run_dir / "logs" / "evaluation.json"
    store = Path(flags.store) if flags.store else run_dir / "store"
    evaluation = evaluate_checkpoint(
        folder, store=store, corpus=run_dir / "corpus", exam_problems=flags.exam_problems, device=flags.device
    )
    save(evaluation, out)
    for result in evaluation.results:
        for score in result.scores:
            interval = "" if score.low is None or score.high is None else f"  [{score.low:.4f}, {score.high:.4f}]"
            print(f"{result.task:<10} {score.group:<24} {score.metric} {score.value:.4f}{interval}")
    if evaluation.contaminated is not None:
        print(f"exam       statements that occur in the training text: {len(evaluation.contaminated)}")
    print(out)
    return 0


def evaluate_checkpoint(folder: Path, *, store: Path, corpus: Path, exam_problems: int, device: str) -> Evaluation:
    """Held-out text, compressors and the exam.

    Args:
        folder: of the checkpoint.
        store: its validation/ holds the held-out text; without one there are no bits per byte.
        corpus: collected training text, to prime compressors and to prove that no exam statement is in it; may be missing.
        exam_problems: 0 for no exam.
        device: setting of the device.
    """
    from havoc_core import checkpoint
    from havoc_core.device import choose_device
    from havoc_data.prepare.collect import document_text, open_corpus
    from havoc_data.store import TokenStore
    from havoc_eval.runner import evaluate
    from havoc_inference.engine import Engine
    from havoc_inference.load import load_checkpoint

    loaded = load_checkpoint(folder, device=choose_device(device))
    held_out = {
        path.name.removesuffix(".jsonl.zst"): path for path in sorted((store / "validation").glob("*.jsonl.zst"))
    }
    shares: dict[str, float] = TokenStore(store).manifest["ratios"] if held_out else {}
    collected = open_corpus(corpus)

    def training_texts() -> Iterator[str]:
        assert collected is not None, "called only where there is a corpus"
        for source in collected.groups:
            for identity, document in collected.documents(source):
                if not collected.is_held_out(source, identity):
                    yield document_text(document)

    path = checkpoint.resolve(folder) / "config.json"
    config = from_json(path.read_text(encoding="utf-8"), where=str(path))
    ratios = {group: share for group, share in shares.items() if group in held_out}
    return evaluate(
        Engine(loaded),
        held_out=held_out,
        ratios=ratios,
        exam_problems=exam_problems,
        training_texts=training_texts if collected is not None else None,
        window_tokens=config.data.max_sequence_length,
    )


def save(evaluation: Evaluation, path: Path) -> None:
    """Write the scores as JSON.

    Raises:
        ConfigError: the file cannot be written.
    """
    from havoc_eval.runner import to_json

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(evaluation), encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written ({error.strerror}).", "Name another file: --out.") from None
