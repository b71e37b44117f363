from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havoc_report.data_rules import (
    REPEAT_DECAY,
    effective_tokens,
    epochs_verdict,
    estimated_tokens,
    supported_parameters,
)


@pytest.mark.parametrize(
    ("epochs", "worth"),
    [
        (0.0, 0.0),
        (0.25, 250.0),
        (1.0, 1000.0),
        (4.0, 3725.673),  # 1000 (1 + 15.387756 (1 - e^(-3/15.387756)))
        (16.0, 10582.457),
        (40.0, 15167.465),
        (1e9, 16387.756),  # never more than 1 + R*
    ],
)
def test_repeated_tokens_are_worth_what_the_paper_s_formula_says(epochs: float, worth: float) -> None:
    assert effective_tokens(1000.0, epochs) == pytest.approx(worth, abs=0.001)


def test_after_r_star_repetitions_the_next_one_is_worth_a_share_of_1_over_e() -> None:
    at, step = 1 + REPEAT_DECAY, 1e-6
    slope = (effective_tokens(1.0, at + step) - effective_tokens(1.0, at)) / step
    assert slope == pytest.approx(math.exp(-1), rel=1e-5)  # the difference quotient itself is off by step / (2 R*)


@given(st.floats(0, 1e15), st.floats(0, 1e4))
def test_reading_again_is_never_worth_more_than_fresh_text_and_never_harms(unique: float, epochs: float) -> None:
    worth = effective_tokens(unique, epochs)
    assert worth <= unique * epochs * (1 + 1e-12)
    assert worth >= unique * min(epochs, 1.0) * (1 - 1e-12)


@pytest.mark.parametrize(("unique", "epochs"), [(-1.0, 1.0), (1.0, -0.5), (math.nan, 1.0), (1.0, math.inf)])
def test_tokens_and_epochs_that_cannot_be_are_refused(unique: float, epochs: float) -> None:
    with pytest.raises(ValueError, match="neither tokens nor epochs can be negative or infinite"):
        effective_tokens(unique, epochs)


def test_a_parameter_wants_twenty_tokens() -> None:
    assert supported_parameters(20_000_000, 1.0) == 1_000_000.0
    assert supported_parameters(20_000_000) == pytest.approx(3_725_673, abs=1)


@pytest.mark.parametrize(
    ("epochs", "verdict"),
    [
        (0.1, "fine"),
        (4.0, "fine"),
        (4.01, "warning"),
        (16.0, "warning"),
        (16.01, "strong warning"),
        (40.0, "strong warning"),
        (40.01, "refused"),
        (math.inf, "refused"),
    ],
)
def test_above_4_readings_warn_above_16_strongly_and_above_40_are_refused(epochs: float, verdict: str) -> None:
    assert epochs_verdict(epochs) == verdict


def test_before_there_is_a_tokenizer_a_token_is_four_bytes() -> None:
    assert estimated_tokens(4_000_002) == 1_000_000
