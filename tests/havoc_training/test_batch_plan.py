"""Rows, ranks, micro-batches and steps."""

from __future__ import annotations

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError
from havoc_training.batch_plan import BatchPlan, halve_micro_batch, plan_batches


def plan(world_size=1, rows_per_epoch=1000, kept=None, **values):
    config = TrainingConfig.model_validate({"warmup_steps": 0, **values})
    return plan_batches(config, world_size=world_size, rows_per_epoch=rows_per_epoch, kept_rows_per_step=kept)


def test_rows_of_a_step_are_rows_of_a_device_times_accumulation_times_devices():
    made = plan(world_size=2, batch_size=3, gradient_accumulation_steps=4, max_steps=5)
    assert (made.rows_per_step, made.micro_batch_size, made.micro_batches, made.total_steps) == (24, 3, 4, 5)


def test_rows_per_step_decides_if_it_is_given():
    made = plan(world_size=2, rows_per_step=16, batch_size=4, gradient_accumulation_steps=99, max_steps=5)
    assert (made.rows_per_step, made.micro_batch_size, made.micro_batches) == (16, 4, 2)


@pytest.mark.parametrize(
    ("world_size", "batch_size", "micro_batches"), [(1, 2, 8), (1, 16, 1), (2, 4, 2), (4, 2, 2), (1, 99, 1)]
)
def test_a_resume_keeps_the_rows_and_derives_the_accumulation(world_size, batch_size, micro_batches):
    made = plan(world_size=world_size, batch_size=batch_size, kept=16, max_steps=5)
    assert (made.rows_per_step, made.micro_batches) == (16, micro_batches)
    assert made.micro_batch_size * made.micro_batches * world_size == 16


def test_rows_that_are_asked_for_win_over_those_that_were_kept():
    assert plan(rows_per_step=8, batch_size=2, kept=16, max_steps=5).rows_per_step == 8


def test_rows_that_ranks_cannot_share_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="rows_per_step: 10 rows cannot be shared evenly by 4 devices. Use 12 or 8."):
        plan(world_size=4, rows_per_step=10, batch_size=1, max_steps=5)
    with pytest.raises(ConfigError, match=r"3 rows cannot be shared evenly by 4 devices\. Use 4\."):
        plan(world_size=4, rows_per_step=3, batch_size=1, max_steps=5)


def test_rows_that_micro_batches_cannot_share_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="batch_size: 12 rows a device and step are not a multiple of 5. Use 4 or 6."):
        plan(rows_per_step=12, batch_size=5, max_steps=5)


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 250), (2.0, 500), (0.5, 125), (0.001, 1), (1.001, 251)])
def test_epochs_become_steps_rounded_up(epochs, steps):
    assert plan(max_epochs=epochs, batch_size=2, gradient_accumulation_steps=2).total_steps == steps


def test_steps_win_over_epochs():
    assert plan(max_epochs=50.0, max_steps=3).total_steps == 3


@pytest.mark.parametrize(
    ("warmup", "total", "made"),
    [(99, 100, 99), (100, 100, 100), (101, 100, 10), (2000, 55, 5), (2000, 5, 1), (0, 5, 0), (9, 1, 1)],
)
def test_a_warm_up_longer_than_the_run_is_cut_to_a_tenth_of_it(warmup, total, made):
    assert plan(warmup_steps=warmup, max_steps=total).warmup_steps == made


@pytest.mark.parametrize(
    ("rows", "size", "smaller"),
    [(8, 8, 4), (8, 2, 1), (12, 6, 3), (12, 4, 2), (9, 9, 3), (15, 5, 1), (6, 3, 1), (7, 7, 1)],
)
def test_half_a_micro_batch_or_the_most_below_that_leaves_the_step_as_it_was(rows, size, smaller):
    before = BatchPlan(
        rows_per_step=rows, micro_batch_size=size, micro_batches=rows // size, total_steps=9, warmup_steps=2
    )
    after = halve_micro_batch(before)
    assert after == BatchPlan(rows, smaller, rows // smaller, 9, 2)
    assert after.micro_batch_size * after.micro_batches == rows


def test_on_several_ranks_the_rows_of_one_are_cut():
    two_ranks = plan(world_size=2, batch_size=6, gradient_accumulation_steps=1, max_steps=5)
    after = halve_micro_batch(two_ranks)
    assert (after.rows_per_step, after.micro_batch_size, after.micro_batches) == (12, 3, 2)


def test_one_row_cannot_be_halved():
    assert halve_micro_batch(plan(batch_size=1, gradient_accumulation_steps=4, max_steps=5)) is None
