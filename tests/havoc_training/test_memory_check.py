"""A run that cannot fit is refused before anything is built, with the nearest plan that does."""

from __future__ import annotations

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.errors import PlanError
from havoc_training.memory_check import check_memory

GIB = 2**30


def check(gib, **values):
    config = TrainingConfig.model_validate(values)
    check_memory(config, working_bytes=2, available_bytes=int(gib * GIB), device="machine")


def test_what_fits_is_let_through():
    check(1, model="nano")
    check(200, model="havoc_7b", batch_size=1)


def test_nothing_is_refused_where_memory_is_unknown():
    check_memory(TrainingConfig(), working_bytes=2, available_bytes=None, device="machine")


def test_the_7b_on_a_laptop_is_refused_with_the_largest_model_that_fits():
    with pytest.raises(PlanError, match="memory: this run needs about .* GiB .7.01 B parameters") as caught:
        check(16, batch_size=1)
    assert "the machine has 16.0 GiB" in caught.value.found
    assert "The largest named model that fits is '300m': --model.size 300m." in caught.value.remedy
    assert caught.value.exit_code == 3
    check(16, batch_size=1, model="300m")  # the remedy works


def test_too_many_rows_are_answered_with_the_number_that_fits():
    with pytest.raises(PlanError) as caught:
        check(2, model="nano", batch_size=512)
    rows = int(caught.value.remedy.split()[3])
    assert caught.value.remedy == f"Set batch_size to {rows} and raise gradient_accumulation_steps instead."
    check(2, model="nano", batch_size=rows)
    with pytest.raises(PlanError):
        check(2, model="nano", batch_size=rows + 1)


def test_where_nothing_fits_that_is_said():
    with pytest.raises(PlanError, match="Use a device with more memory."):
        check(0.01)
