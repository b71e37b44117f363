from __future__ import annotations

import pytest

from havoc_report.run_record import GroupCurve, TrainingCurve, ValidationCurve


def test_a_list_as_long_as_the_steps_or_empty_is_a_curve() -> None:
    assert TrainingCurve(steps=(1, 2), loss=(3.0, 2.0)).grad_norm == ()


def test_a_training_curve_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="grad_norm: 1 values for 2 steps"):
        TrainingCurve(steps=(1, 2), loss=(3.0, 2.0), grad_norm=(1.0,))


def test_a_validation_curve_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="group 'domain': 2 bits per byte and 1 perplexities for 2 steps"):
        ValidationCurve((1, 2), (GroupCurve("domain", (2.0, 1.0), (9.0,)),))
