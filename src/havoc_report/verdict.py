"""What the figures of a run say, in plain words, whichever way they fall."""

from __future__ import annotations

import math
from collections.abc import Sequence

from havoc_report.run_record import Comparison, CompressionRow, Compressor, Exam
from havoc_report.tables import count, data_size, fixed, percent, significant

_bits = fixed(3)


def total_row(comparison: Comparison) -> CompressionRow | None:
    """All held-out text in one row: the given total, or the rows weighted by their bytes.

    What one row lacks, the sum lacks too (None), and a sum has no interval: those of the groups do not add up.
    """
    if comparison.total is not None or not comparison.rows:
        return comparison.total
    rows, sizes = comparison.rows, [row.text_bytes for row in comparison.rows]
    compressors = tuple(
        Compressor(
            first.name,
            _weighted([row.compressors[position].alone for row in rows], sizes),
            _weighted([row.compressors[position].primed for row in rows], sizes),
        )
        for position, first in enumerate(rows[0].compressors)
    )
    return CompressionRow("all", sum(sizes), _weighted([row.model for row in rows], sizes), None, None, compressors)


def _weighted(values: Sequence[float | None], sizes: Sequence[int]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or sum(sizes) == 0:
        return None
    return sum(value * size for value, size in zip(known, sizes, strict=True)) / sum(sizes)


def best_compressor(row: CompressionRow) -> tuple[str, float, bool] | None:
    """Name and bits per byte of the best one, and whether it had read the training text first.

    Those that had are preferred: only they knew what the model knew. None when nothing was measured.
    """
    for primed in (True, False):
        figures = [(c.primed if primed else c.alone, c.name) for c in row.compressors]
        known = [(value, name) for value, name in figures if value is not None and math.isfinite(value)]
        if known:
            value, name = min(known)
            return name, value, primed
    return None


def compression_verdict(comparison: Comparison | None) -> str:
    """Model against the best general compressor on all held-out text; better, worse, or not to be told."""
    row = None if comparison is None else total_row(comparison)
    if comparison is None or row is None or row.model is None or not math.isfinite(row.model):
        return "The model was not measured on held-out text, so nothing can be said about what it has learnt."
    interval = ""
    if row.low is not None and row.high is not None:
        interval = f" (95 % interval {_bits(row.low)} to {_bits(row.high)}, {comparison.interval_method})"
    said = (
        f"On {data_size(row.text_bytes)} of held-out text the model needs {_bits(row.model)} bits per byte{interval}. "
    )
    best = best_compressor(row)
    if best is None:
        return said + "No general compressor was measured beside it."
    name, value, primed = best
    reading = "given the same training text" if primed else "without having seen the training text"
    said += f"The best general compressor {reading}, {name}, needs {_bits(value)}. "
    apart = significant(100 * abs(row.model / value - 1), digits=2) if value > 0 else "0"
    if row.low is not None and row.high is not None and row.low <= value <= row.high:
        return said + "That lies inside the model's interval: which of the two is better cannot be told."
    if row.model == value:
        return said + "The model is exactly as good."
    if row.model < value:
        return said + f"The model is better: it needs {apart} % fewer bits."
    return said + f"The model is worse: it needs {apart} % more bits."


def exam_verdict(exam: Exam | None) -> str:
    """Score against guessing: better, worse, or not to be told."""
    if exam is None or exam.count == 0:
        return "No exam was taken."
    said = (
        f"In the exam it gave {count(exam.correct)} of {count(exam.count)} right answers: {percent(exam.score)} "
        f"(95 % {exam.interval_method} interval {percent(exam.low)} to {percent(exam.high)}). "
        f"Guessing scores {percent(exam.guess)}. "
    )
    if exam.low > exam.guess:
        return said + "That is better than guessing."
    if exam.high < exam.guess:
        return said + "That is worse than guessing."
    return said + "That cannot be told from guessing."


def learning_verdict(loss: Sequence[float], vocabulary: int) -> str:
    """First and last loss beside that of a model that has learnt nothing."""
    finite = [value for value in loss if math.isfinite(value)]
    if not finite:
        return "No loss was recorded."
    tail = finite[-max(1, len(finite) // 20) :]
    said = (
        f"A model that has learnt nothing gives each of {count(vocabulary)} tokens the same chance: a loss of "
        f"{math.log(vocabulary):.2f} nats per token. This one began at {finite[0]:.2f} and ended at "
        f"{sum(tail) / len(tail):.2f} (mean of the last {count(len(tail))} steps)."
    )
    lost = len(loss) - len(finite)
    return said if lost == 0 else said + f" In {count(lost)} step{'s' * (lost != 1)} the loss was not a finite number."


def limits_of(parameters: int, tokens: int) -> tuple[str, ...]:
    """What a model of so many parameters, trained on so many tokens, cannot do; sentences for the last section."""
    scale = f"{count(parameters)} parameters and {count(tokens)} training tokens"
    trust = "Do not rely on any number, formula, name or reference that it writes."
    if parameters < 50_000_000:
        first = (
            f"With {scale} it has learnt the shape of the text, not the mathematics: its sentences and formulas look "
            "like those it read, and whether they are true is another matter. It cannot calculate, prove, check a "
            "design or know a fact; an answer that happens to be right is no evidence that the next one will be."
        )
    elif parameters < 1_000_000_000:
        first = (
            f"With {scale} it may write fluently, but it does not reason reliably: a chain of several steps usually "
            "contains a mistake, and it is told as surely as the rest."
        )
    else:
        first = f"Even with {scale} it states false things in the same tone as true ones."
    ratio = tokens / max(parameters, 1)
    reading = (
        f"It learnt from {significant(ratio, digits=2)} tokens for each parameter. About 20 is where training compute "
        "was best spent in Hoffmann et al. 2022 (arXiv:2203.15556)"
        + ("; with fewer, a smaller model on more text would have done better." if ratio < 20 else ".")
    )
    perplexity = (
        "Perplexity is per token of this model's own tokenizer. It cannot be compared with that of another tokenizer, "
        "and targets stated for large models do not apply; bits per byte of the same text can be compared."
    )
    elsewhere = (
        "Held-out text comes from the same sources as the training text. On other text it will probably do worse, "
        "and this page does not say by how much."
    )
    origin = (
        "It may repeat passages of its training text word for word; their licences then apply. It was not trained "
        "to refuse or to be safe."
    )
    return (first, trust, reading, perplexity, elsewhere, origin)
