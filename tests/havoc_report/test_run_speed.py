from __future__ import annotations

import dataclasses
import html
import re

import pytest

from havoc_report.page import Part
from havoc_report.run_record import (
    Machine,
    ModelFacts,
    PlanRow,
    Reproduction,
    RunRecord,
    Speed,
    StageTime,
    TrainingCurve,
    ValidationCurve,
)
from havoc_report.run_speed import plan_parts, speed_parts

GIB = 2**30
CPU = RunRecord(
    title="A run",
    started="",
    finished="",
    command="havoc run",
    machine=Machine("a processor", 2, 8 * GIB, "2.13.0", "CPU", "bfloat16"),
    model=ModelFacts(3_000_000, 4, 192, 6, 2, 4096, 512),
    sources=(),
    tokens_trained=1000,
    training=TrainingCurve((1, 2), (3.0, 2.0), (1.0, 1.0), (500.0, 600.0), (1.0, 1.0)),
    validation=ValidationCurve(),
    speed=Speed(6520.0, 5830.0, 2 * GIB, 489.0, goodput=0.882, mfu_measured=0.312, hfu_measured=0.312),
    reproduction=Reproduction("a", "b", "c", 1),
    stages=(StageTime("data", 30.0), StageTime("train", 400.0)),
    training_time=(StageTime("updates", 353.0), StageTime("validation", 17.0), StageTime("checkpoints", 30.0)),
    plan=(
        PlanRow("Memory preset", "stream", "stream", ""),
        PlanRow("Recomputation", "full", "none", ""),
        PlanRow("Rows in a micro-batch", 4, None, ""),
        PlanRow("Another preset", "stream", None, ""),
        PlanRow("Peak memory of tensors", 4 * GIB, 3 * GIB, "bytes"),
        PlanRow("Speed, steady state", 7120.0, 6520.0, "tokens/s"),
        PlanRow("Training time", 345.0, 400.0, "s"),
    ),
    plan_note="The speed was predicted from a probe.",
)
GPU = dataclasses.replace(
    CPU,
    speed=Speed(
        13_000.0, 12_000.0, 90 * GIB, 9e5, goodput=0.95, mfu=0.41, hfu=0.55, mfu_measured=0.5, hfu_measured=0.67,
        memory_allocated=90 * GIB, memory_reserved=100 * GIB, memory_used=101 * GIB,
    ),
)  # fmt: skip


def shown(parts: tuple[Part, ...]) -> str:
    """The text as a reader sees it, tags as spaces."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", " ".join(part.html() for part in parts))).split())


@pytest.mark.parametrize(
    "said",
    [
        "Steady speed 6,520 tokens per second, the median",
        "Overall speed 5,830 tokens per second, everything counted",
        "Goodput 88.2 % of the training time spent on updates",
        "Of the matmul rate 31.2 % measured on this device at the start",
        "Peak memory 2.00 GiB of 8.00 GiB",
        "There is no datasheet figure for this device, so its share is of what was measured.",
        "Where 7 min 10 s went: the stages of the run",
    ],
)
def test_a_run_on_a_cpu_says(said: str) -> None:
    assert said in shown(speed_parts(CPU))


def test_of_a_device_without_a_datasheet_there_is_no_mfu() -> None:
    assert "MFU" not in shown(speed_parts(CPU))
    unmeasured = dataclasses.replace(CPU, speed=Speed(None, None, None, 0.0), stages=(), training=TrainingCurve())
    text = shown(speed_parts(unmeasured))
    assert "MFU" not in text and "matmul" not in text and "Operations are counted" not in text
    assert "Goodput –" in text


@pytest.mark.parametrize(
    "said",
    [
        "MFU 41.0 % of the datasheet's peak",
        "Of the matmul rate 50.0 %",
        "Peak memory 90.0 GiB of tensors; 100 GiB reserved",
        "Used on the device 101 GiB the driver's own included",
        "With those that were made again in the backward pass, it is 55.0 % of the datasheet's peak and 67.0 % of the "
        "matmul rate.",
    ],
)
def test_a_run_on_a_gpu_says(said: str) -> None:
    text = shown(speed_parts(GPU))
    assert said in text
    assert "no datasheet figure" not in text


@pytest.mark.parametrize(
    "said",
    [
        "What Predicted Happened Difference",
        "What was predicted was said before the first step.",
        "Memory preset stream stream same",
        "Recomputation full none another",
        "Rows in a micro-batch 4 – –",
        "Another preset stream – –",
        "Peak memory of tensors 4.00 GiB 3.00 GiB −25.0 %",
        "Speed, steady state 7,120 tokens/s 6,520 tokens/s −8.4 %",
        "Training time 5 min 45 s 6 min 40 s +15.9 %",
        "The speed was predicted from a probe.",
        "Where 6 min 40 s of training went",
    ],
)
def test_plan_and_fact_stand_side_by_side(said: str) -> None:
    assert said in shown(plan_parts(CPU))


def test_a_run_without_a_plan_still_tells_where_its_time_went() -> None:
    text = shown(plan_parts(dataclasses.replace(CPU, plan=(), plan_note="")))
    assert text.startswith("No plan was made before this run.")
    assert "Where 6 min 40 s of training went" in text


def test_one_stage_is_no_division() -> None:
    assert "stages of the run" not in shown(speed_parts(dataclasses.replace(CPU, stages=(StageTime("train", 4.0),))))
