"""A figure beyond its limit is an error; one that is not a number too."""

from __future__ import annotations

import pytest

from havoc_core.errors import CheckpointError
from havoc_inference.export.comparison import Comparison, Figure, require_agreement


def test_figures_within_their_limits_and_those_only_reported_pass():
    require_agreement(Comparison("x", "", (Figure("a", 1e-5, 1e-4), Figure("b", 3.0), Figure("c", 0, 0))))


@pytest.mark.parametrize("measured", [2e-4, float("nan"), float("inf")])
def test_a_disagreement_is_an_error_with_its_figures(measured):
    with pytest.raises(
        CheckpointError, match=r"x 1: does not agree with the checkpoint: a logit .*No export was written"
    ):
        require_agreement(Comparison("x 1", "", (Figure("a logit", measured, 1e-4), Figure("b", 1, 0))))


def test_a_comparison_that_was_not_made_says_so():
    missing = Comparison("transformers", "it is not installed. To have it made: pip install transformers.")
    assert not missing.made
    assert missing.lines() == [
        "NOT compared with transformers: it is not installed. To have it made: pip install transformers."
    ]


def test_numbers_are_short():
    assert Figure("", 2.14e-6, 1e-4).text() == "2.1e-06 (limit 1.0e-04)"
    assert Figure("", 0, 0).text() == "0 (limit 0)"
    assert Figure("", 0.98765).text() == "0.9877"
