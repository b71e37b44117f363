"""All tasks on one model: the record that the report shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from havoc_core.errors import DataError
from havoc_eval.compression import PRIMING_BYTES, CompressorScore, compare_compressors, even_sample
from havoc_eval.contamination import TrainingText
from havoc_eval.held_out_text import read_held_out
from havoc_eval.language_model import LanguageModel
from havoc_eval.task import TASKS, TaskResult

VERSION = 2
"""Of the JSON."""
_WITHOUT_DUAL_SCORES = 1
"""The version that named the statements found in the training text beside the results, without a score for the others."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found about a model."""

    version: int = VERSION
    results: tuple[TaskResult, ...]
    """One for each task."""
    compression: tuple[CompressorScore, ...] = ()
    """Other compressors on the same held-out text."""

    def result(self, task: str) -> TaskResult | None:
        """What a task found; None if it was not run."""
        return next((result for result in self.results if result.task == task), None)


def evaluate(
    model: LanguageModel,
    *,
    held_out: Mapping[str, Path],
    ratios: Mapping[str, float],
    exam_problems: int,
    training: TrainingText | None = None,
    window_tokens: int | None = None,
) -> Evaluation:
    """Measure a model on held-out text and on the exam, beside compressors.

    Args:
        model: such as havoc_inference's `Engine`.
        held_out: group -> file of held-out documents; none: no bits per byte.
        ratios: group -> weight in the total bits per byte.
        exam_problems: problems in the exam; 0: no exam.
        training: what the model learnt from: compressors are primed with an even sample of it, and the exam has a
            second score over the problems that were not found in it.
        window_tokens: context for held-out text, such as the length of the rows in training; None: the model's.

    Raises:
        ConfigError: the ratios or the window do not fit.
        DataError: a held-out file is missing or damaged.
        CheckpointError: the model gives no finite numbers.
    """
    results: list[TaskResult] = []
    compression: tuple[CompressorScore, ...] = ()
    if held_out:
        values = {"files": dict(held_out), "ratios": dict(ratios), "window_tokens": window_tokens}
        results.append(TASKS.module("held_out").build(TASKS.options("held_out", values)).run(model))
        texts = {group: _all_text(path) for group, path in held_out.items()}
        primer = even_sample(training.texts(), max_bytes=PRIMING_BYTES) if training else b""
        compression = compare_compressors(texts, training=primer)
    if exam_problems:
        exam = TASKS.module("exam").build(TASKS.options("exam", {"num_problems": exam_problems}))
        if training is not None:
            exam = exam.with_touched(training.touched(exam.problems))
        results.append(exam.run(model))
    return Evaluation(results=tuple(results), compression=compression)


def to_json(evaluation: Evaluation) -> str:
    """Plain JSON with sorted keys; `from_json` gives the same record back."""
    values = dataclasses.asdict(evaluation)
    return json.dumps(values, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str, *, where: str) -> Evaluation:
    """A record that `to_json` wrote, or its first version.

    Raises:
        DataError: it is none, or of a version that this HAVOC does not read.
    """
    try:
        evaluation = TypeAdapter(Evaluation).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            where, f"is no evaluation ({place}: {first['msg']}).", "Evaluate again: havoc evaluate."
        ) from None
    if evaluation.version == _WITHOUT_DUAL_SCORES:
        return _with_dual_scores(evaluation, json.loads(text).get("contaminated"))
    if evaluation.version != VERSION:
        raise DataError(
            where, f"has version {evaluation.version}; this HAVOC reads {VERSION}.", "Evaluate again: havoc evaluate."
        )
    return evaluation


def _with_dual_scores(evaluation: Evaluation, contaminated: list[str] | None) -> Evaluation:
    """A record of the first version as one of today: the replies say what the score over the other problems was."""
    from havoc_eval.tasks.exam import NAME, with_untouched

    results = tuple(
        with_untouched(result, frozenset(contaminated), baseline=None)
        if result.task == NAME and contaminated is not None
        else result
        for result in evaluation.results
    )
    return dataclasses.replace(evaluation, version=VERSION, results=results)


def _all_text(path: Path) -> bytes:
    return "".join(content for document in read_held_out(path) for content in document.contents).encode()
