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
    from havoc_data.prepare.corpus import Corpus
    from havoc_eval.contamination import TrainingText
    from havoc_eval.runner import Evaluation
    from havoc_eval.task import TaskResult
    from havoc_problems.problem import Problem


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
    harness: str | None = None
    """Tasks of EleutherAI's lm-eval, separated by commas, in place of all of the above. Writes logs/harness.json."""
    harness_include: str | None = None
    """Folder with tasks of your own, which are then the only ones; None: lm-eval's."""
    harness_limit: int | None = None
    """Items of each task; None: all."""
    harness_few_shot: int | None = None
    """Worked items before each question; None: as the task says."""
    harness_bos: bool = False
    """Put the beginning-of-text token before every text; lm-eval's own default is not to."""


def run(argv: Sequence[str]) -> int:
    """Score a checkpoint, print the scores and write them."""
    flags = parse(EvaluateFlags, argv, prog="havoc evaluate", description="A checkpoint -> scores with 95 % intervals.")
    if flags.exam_problems < 0:
        raise ConfigError("--exam-problems", f"{flags.exam_problems} is below 0.", "Use 0 for no exam.")
    from havoc_core import log
    from havoc_inference.load import find_checkpoint

    log.to_screen()
    if flags.harness is not None:
        return _run_harness(flags)
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
        for line in _dual_lines(result):
            print(f"{result.task:<10} {line}")
    print(out)
    return 0


def _run_harness(flags: EvaluateFlags) -> int:
    """EleutherAI's tasks in place of ours."""
    from havoc_cli.harness import run_harness
    from havoc_cli.model_folder import open_model
    from havoc_eval.harness import HarnessOptions
    from havoc_inference.engine import Engine

    opened = open_model(Path(flags.checkpoint), device=flags.device)
    options = HarnessOptions(
        tasks=tuple(name.strip() for name in (flags.harness or "").split(",") if name.strip()),
        include=Path(flags.harness_include) if flags.harness_include else None,
        limit=flags.harness_limit,
        num_few_shot=flags.harness_few_shot,
        add_bos=flags.harness_bos,
    )
    out = Path(flags.out) if flags.out else opened.folder / "logs" / "harness.json"
    return run_harness(Engine(opened.loaded), options, out=out)


def evaluate_checkpoint(folder: Path, *, store: Path, corpus: Path, exam_problems: int, device: str) -> Evaluation:
    """Held-out text, compressors and the exam.

    Args:
        folder: of the checkpoint.
        store: its validation/ holds the held-out text; without one there are no bits per byte.
        corpus: collected training text, to prime compressors and to look for the problems of the exam; may be missing.
        exam_problems: 0 for no exam.
        device: setting of the device.
    """
    from havoc_core import checkpoint
    from havoc_core.device import choose_device
    from havoc_data.prepare.corpus import open_corpus
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

    path = checkpoint.resolve(folder) / "config.json"
    config = from_json(path.read_text(encoding="utf-8"), where=str(path))
    ratios = {group: share for group, share in shares.items() if group in held_out}
    return evaluate(
        Engine(loaded),
        held_out=held_out,
        ratios=ratios,
        exam_problems=exam_problems,
        training=None if collected is None else _training_text(collected, overlap=config.data.decontamination.overlap),
        window_tokens=config.data.max_sequence_length,
    )


def _training_text(corpus: Corpus, *, overlap: float) -> TrainingText:
    """What a model learnt from, and who looks for the exam in it: as it is, and as it was before anything was left out.

    Questions that were looked for when the corpus was made are in its records; for the others it is looked through.
    """
    from havoc_data.document import document_text
    from havoc_data.prepare.collect import questions_of
    from havoc_data.prepare.exams import ExamIndex, problem_items, touched_items
    from havoc_eval.contamination import TrainingText

    def texts() -> Iterator[str]:
        for source in corpus.groups:
            for _, document in corpus.documents(source, held_out=False):
                yield document_text(document)

    def touched(problems: Sequence[Problem]) -> frozenset[str]:
        asked = problem_items(problems)
        known = questions_of(corpus)
        new = [item for item in asked if item not in known]
        found = {new[number] for number in touched_items(ExamIndex.of(new, overlap=overlap), texts())} if new else set()
        before = {(record.suite, record.name) for record in corpus.contamination}
        return frozenset(item.question for item in asked if item in found or (item.suite, item.name) in before)

    return TrainingText(texts=texts, touched=touched)


def _dual_lines(result: TaskResult) -> list[str]:
    """The score with and without the items that the training text held; nothing where it was not looked."""
    if result.touched is None:
        return []
    asked = len(result.replies)
    if not result.touched:
        return [f"items not found in the training text: all {asked:,}"]
    if result.untouched is None:
        return [f"items not found in the training text: none of {asked:,}, so there is no score without the others"]
    parts = [("all items", result.total), ("items not found in the training text", result.untouched)]
    return [
        f"{name}: {score.metric} {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]"
        f"  {score.counts['correct']:,} of {score.counts['problems']:,}"
        for name, score in parts
    ]


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
