from __future__ import annotations

import math

import pytest

from havoc_report.run_record import Comparison, CompressionRow, Compressor, Exam
from havoc_report.verdict import (
    best_compressor,
    compression_verdict,
    exam_verdict,
    learning_verdict,
    limits_of,
    total_row,
)


def row(
    model: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    text_bytes: int = 2048,
    primed: float | None = 2.0,
) -> CompressionRow:
    compressors = (Compressor("gzip", 3.0, None), Compressor("xz", 2.5, primed))
    return CompressionRow("domain", text_bytes, model, low, high, compressors)


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_a_better_model_is_called_better_by_how_much() -> None:
    said = plain(compression_verdict(Comparison((row(1.5, 1.4, 1.6),), total=row(1.5, 1.4, 1.6))))
    assert said == (
        "On 2.00 KiB of held-out text the model needs 1.500 bits per byte (95 % interval 1.400 to 1.600, "
        "bootstrap over documents). The best general compressor given the same training text, xz, needs 2.000. "
        "The model is better: it needs 25 % fewer bits."
    )


def test_a_worse_model_is_called_worse() -> None:
    assert compression_verdict(Comparison((row(2.5),))).endswith("The model is worse: it needs 25 % more bits.")


def test_an_interval_that_holds_the_compressor_leaves_it_open() -> None:
    said = compression_verdict(Comparison((row(1.9),), total=row(1.9, 1.7, 2.1), interval_method="jackknife"))
    assert said.endswith("inside the model's interval: which of the two is better cannot be told.")
    assert "1.700 to 2.100, jackknife" in said


def test_without_primed_compressors_the_verdict_says_that_they_had_not_seen_the_text() -> None:
    said = compression_verdict(Comparison((row(1.5, primed=None),)))
    assert "without having seen the training text, xz, needs 2.500" in said


@pytest.mark.parametrize("comparison", [None, Comparison(()), Comparison((row(None),)), Comparison((row(math.nan),))])
def test_no_measurement_is_no_verdict(comparison: Comparison | None) -> None:
    assert compression_verdict(comparison).startswith("The model was not measured on held-out text")


def test_a_row_without_compressors_claims_nothing_about_them() -> None:
    bare = CompressionRow("domain", 10, 1.0, None, None, (Compressor("xz", None, math.nan),))
    assert best_compressor(bare) is None
    assert compression_verdict(Comparison((bare,))).endswith("No general compressor was measured beside it.")


def test_the_total_weighs_groups_by_their_bytes() -> None:
    total = total_row(Comparison((row(1.0, text_bytes=300), row(2.0, text_bytes=100, primed=4.0))))
    assert total is not None
    assert (total.model, total.text_bytes) == (1.25, 400)  # (1 x 300 + 2 x 100) / 400
    assert total.compressors[1].primed == 2.5  # (2 x 300 + 4 x 100) / 400
    assert total.compressors[0].primed is None  # one group lacks it
    assert (total.low, total.high) == (None, None)  # intervals of groups do not add up


@pytest.mark.parametrize(
    ("low", "high", "judgement"),
    [
        (0.26, 0.35, "That is better than guessing."),
        (0.20, 0.30, "That cannot be told from guessing."),
        (0.10, 0.24, "That is worse than guessing."),
    ],
)
def test_an_exam_is_judged_by_its_interval_not_by_its_score(low: float, high: float, judgement: str) -> None:
    said = plain(exam_verdict(Exam(30, 100, 0.30, low, high, guess=0.25)))
    assert said.endswith(judgement)
    assert "30 of 100 right answers: 30.0 % (95 % Wilson interval" in said
    assert "Guessing scores 25.0 %" in said


@pytest.mark.parametrize("exam", [None, Exam(0, 0, math.nan, 0, 1, 0.25)])
def test_no_exam_is_said(exam: Exam | None) -> None:
    assert exam_verdict(exam) == "No exam was taken."


def test_learning_is_told_beside_a_model_that_knows_nothing() -> None:
    said = learning_verdict([9.0, *[3.0] * 39], 8192)
    assert "a loss of 9.01 nats" in said  # ln 8192 = 9.0109
    assert "began at 9.00 and ended at 3.00 (mean of the last 2 steps)" in said


def test_a_loss_that_was_not_finite_is_counted_aloud() -> None:
    assert learning_verdict([9.0, math.nan, 3.0], 10).endswith("In 1 step the loss was not a finite number.")
    assert learning_verdict([math.nan], 10) == "No loss was recorded."


def test_a_small_model_is_said_to_know_no_mathematics() -> None:
    first, trust, reading, *_ = limits_of(12_600_000, 10_500_000)
    assert "12,600,000 parameters and 10,500,000 training tokens" in first
    assert "the shape of the text, not the mathematics" in first
    assert trust.startswith("Do not rely on any number")
    assert "0.83 tokens for each parameter" in reading and "with fewer, a smaller model" in reading


def test_limits_follow_the_size_of_the_model() -> None:
    assert "does not reason reliably" in limits_of(300_000_000, 10**10)[0]
    large = limits_of(7_010_000_000, 10**12)
    assert "states false things in the same tone" in large[0]
    assert large[2].endswith("(arXiv:2203.15556).")  # 143 tokens a parameter: nothing to blame
