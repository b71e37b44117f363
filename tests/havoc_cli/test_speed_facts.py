"""Speed, memory and plan, gathered from the files of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import pytest

from havoc_cli.speed_facts import plan_note, plan_rows, read_plan, speed_of, stage_times, training_times
from havoc_core.config import TrainingConfig
from havoc_training.memory.presets import plan_memory
from havoc_training.metrics import TimeLedger
from havoc_training.planner.plan import Plan

LINES = [
    {"kind": "train", "step": 1, "seconds": 6.0, "data_seconds": 1.0, "tokens": 100, "memory_bytes": 50},
    {"kind": "train", "step": 2, "seconds": 2.0, "data_seconds": 1.0, "tokens": 100, "memory_bytes": 70},
    {"kind": "train", "step": 3, "seconds": 4.0, "data_seconds": 1.0, "tokens": 100, "memory_bytes": 60},
    {"kind": "validation", "step": 3, "seconds": 3.0},
]
SUMMARY = {
    "kind": "summary", "step": 3, "first_step": 0, "mfu": 0.4, "hfu": 0.5, "mfu_measured": 0.6, "hfu_measured": 0.7,
    "memory_allocated": 40, "memory_reserved": 45, "memory_used": 48,
    "seconds": TimeLedger(updates=6.0, data=3.0, compile=3.0, validation=3.0, checkpoints=4.0, other=1.0).seconds(),
}  # fmt: skip
STATE = {
    "step": 3, "scored_tokens": 300,
    "resolved": {
        "total_steps": 3, "rows_per_step": 4, "precision": "float32", "micro_batch_size": 1,
        "memory": {"preset": "offload", "recompute": "none"},
    },
}  # fmt: skip
PLAN = {
    "pieces": {"preset": "offload", "recompute": "full"}, "micro_batch_size": 2, "total_steps": 3, "peak_bytes": 44,
    "tokens_per_s": 60.0, "rate_origin": "probe", "derived": {"total_tokens": 320, "seconds": 5.0},
}  # fmt: skip
CONFIG = TrainingConfig.model_validate({"model": "nano"})


def times(stages):
    return [(stage.name, stage.seconds) for stage in stages]


def rows(plan, lines=(*LINES, SUMMARY), state=STATE, stages=None):
    found = plan_rows(plan, config=CONFIG, state=state, lines=list(lines), stages=stages or {})
    return {row.what: (row.planned, row.actual) for row in found}


def test_a_run_with_a_summary_tells_all():
    speed = speed_of([*LINES, SUMMARY], {"data": 5.0, "train": 24.0})
    assert speed.steady_tokens_per_s == (100 / 2 + 100 / 4) / 2
    assert speed.overall_tokens_per_s == 300 / 24
    assert (speed.peak_memory_bytes, speed.total_s, speed.goodput) == (70, 29.0, 6 / 24)
    assert (speed.mfu, speed.hfu, speed.mfu_measured, speed.hfu_measured) == (0.4, 0.5, 0.6, 0.7)
    assert (speed.memory_allocated, speed.memory_reserved, speed.memory_used) == (40, 45, 48)


def test_of_several_parts_the_last_one_says_what_share_of_the_device_was_reached():
    assert speed_of([*LINES, SUMMARY, {**SUMMARY, "first_step": 3, "mfu": 0.8}], {}).mfu == 0.8


def test_an_older_run_without_a_summary_tells_what_its_lines_say():
    speed = speed_of(LINES, {})
    assert (speed.overall_tokens_per_s, speed.peak_memory_bytes) == (300 / 15, 70)
    assert (speed.goodput, speed.mfu, speed.memory_allocated) == (None, None, None)


def test_a_run_without_a_step_has_no_speed():
    speed = speed_of([], {})
    assert (speed.steady_tokens_per_s, speed.overall_tokens_per_s, speed.peak_memory_bytes) == (None, None, None)


def test_all_of_the_training_time_is_accounted_for():
    stages = {"train": 24.0}
    assert times(training_times([*LINES, SUMMARY], stages)) == [
        ("updates", 6.0), ("waiting for data", 3.0), ("compiling and warming up", 3.0), ("validation", 3.0),
        ("checkpoints", 4.0), ("other", 1.0), ("start", 4.0),
    ]  # fmt: skip
    # Of a run without a summary nobody wrote down what checkpoints took: first step's excess 5 - 2, three waits of 1.
    assert times(training_times(LINES, stages)) == [
        ("updates", 6.0), ("waiting for data", 3.0), ("compiling and warming up", 3.0), ("validation", 3.0),
        ("start and checkpoints", 9.0),
    ]  # fmt: skip
    assert sum(seconds for _, seconds in times(training_times(LINES, {}))) == 15.0


def test_work_that_was_lost_is_named():
    redone = {"kind": "redone", "step": 3, "seconds": 7.0}
    assert ("lost and made again", 7.0) in times(training_times([*LINES, redone], {}))


def test_stages_stand_in_the_order_of_the_run():
    found = stage_times({"train": 1.0, "data": 2.0, "mine": 3.0, "evaluate": 4.0, "store": 5.0, "tokenizer": 6.0})
    assert [name for name, _ in times(found)] == ["data", "tokenizer", "store", "train", "evaluate", "mine"]


def test_the_plan_stands_beside_what_happened():
    assert rows(PLAN, stages={"train": 24.0}) == {
        "Memory preset": ("offload", "offload"),
        "Recomputation": ("full", "none"),
        "Rows in a micro-batch": (2, 1),
        "Updates": (3, 3),
        "Tokens learnt from": (320, 300),
        "Peak memory of tensors": (44, 40),
        "Speed, steady state": (60.0, 37.5),
        "Speed, everything counted": (60.0, 300 / 24),
        "Training time": (5.0, 24.0),
    }


def test_on_a_cpu_the_tensors_of_the_plan_are_not_compared_with_the_whole_process():
    found = rows(PLAN, lines=LINES)
    assert (found["Peak memory of tensors"], found["Peak memory of the process"]) == ((44, None), (None, 70))


def test_a_run_without_a_plan_has_what_follows_from_its_settings():
    state = {**STATE, "resolved": {k: STATE["resolved"][k] for k in ("total_steps", "rows_per_step", "precision")}}
    found = rows(None, lines=LINES, state=state)
    assert found["Updates"] == (3, 3)
    assert found["Tokens learnt from"] == (3 * 4 * 2048, 300)
    assert found["Peak memory of tensors"][0] > 3e6 * 20
    assert "There was no plan" in plan_note(None, state=state)


def test_a_plan_that_knows_little_leaves_dashes():
    found = rows({"version": 9, "pieces": None, "derived": []}, state={**STATE, "resolved": {"total_steps": 3}})
    assert found["Memory preset"] == (None, None)
    assert found["Speed, steady state"] == (None, 37.5)


@pytest.mark.parametrize(
    ("origin", "said"),
    [("probe", "from a probe of a few seconds"), ("predicted", "measured nowhere"), (None, "No speed was predicted")],
)
def test_where_the_predicted_speed_is_from_is_said(origin, said):
    assert said in plan_note({**PLAN, "rate_origin": origin}, state=STATE)


def test_a_run_that_was_stopped_is_compared_as_far_as_it_came():
    assert "made 2 of 3 updates" in plan_note(PLAN, state={**STATE, "step": 2})
    assert "updates: what" not in plan_note(PLAN, state=STATE)


@pytest.mark.parametrize("text", [None, "", "{ half", "[1]"])
def test_a_plan_that_is_not_there_or_cannot_be_read_is_none(tmp_path, text):
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    assert read_plan(path) is None


def test_the_names_that_are_read_are_those_that_a_plan_writes():
    written = json.loads(_plan().to_json())
    found = rows(written)
    assert PLAN.keys() <= written.keys()
    assert found["Tokens learnt from"] == (3 * 4 * 20, 300)
    assert found["Training time"][0] == 3 * 4 * 20 / 60.0
    assert found["Memory preset"] == ("fp32_master", "offload")


def _plan():
    known = {
        "pieces": asdict(plan_memory(CONFIG, preset="fp32_master", working="float32")), "rows_per_step": 4,
        "sequence_length": 20, "total_steps": 3, "tokens_per_s": 60.0, "begins_at": "2026-01-01T00:00:00+00:00",
        "micro_batch_size": 2, "power_w": None, "checkpoint_bytes": 1, "num_checkpoints": 1, "reasons": (),
    }  # fmt: skip
    return Plan(**{field.name: known.get(field.name) for field in fields(Plan)})


def test_a_plan_is_read_as_it_stands(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    assert read_plan(tmp_path / "plan.json") == PLAN
