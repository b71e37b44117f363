from __future__ import annotations

import dataclasses
import html
import math
import re

import pytest

from havoc_report.page import Paragraph, render
from havoc_report.run_page import run_page
from havoc_report.run_record import (
    Comparison,
    CompressionRow,
    Compressor,
    Exam,
    ExamFamily,
    ExamPart,
    GroupCurve,
    Machine,
    ModelFacts,
    PlanRow,
    Reproduction,
    RunRecord,
    SampleText,
    SourceFacts,
    Speed,
    StageTime,
    TrainingCurve,
    ValidationCurve,
)

STEPS = tuple(range(1, 301))
COMPRESSORS = (Compressor("gzip", 2.41, None), Compressor("xz", 2.3, 1.86))

FULL = RunRecord(
    title="A first run",
    started="2026-07-12T09:14:03+00:00",
    finished="yesterday",
    command="havoc run --config configs/training/first_run.yaml",
    machine=Machine("a processor", 2, 8 * 2**30, "2.13.0", "cpu", "bfloat16", "Python 3.11"),
    model=ModelFacts(12_600_000, 6, 320, 5, 5, 8192, 512),
    sources=(
        SourceFacts("sympy", "domain", 400, 6_000_000, 1_600_000, "BSD-3-Clause", 0.6, 0.601, 1.9, 120_000),
        SourceFacts("python", "general", 700, 4_000_000, 1_000_000, "PSF-2.0", 0.4, None, None, 80_000),
    ),
    tokens_trained=10_485_760,
    training=TrainingCurve(
        STEPS,
        tuple(9.0 - step / 60 if step != 50 else math.nan for step in STEPS),
        tuple(step * 1e-5 for step in STEPS),
        tuple(30_000.0 + step for step in STEPS),
        tuple(1.0 for _ in STEPS),
    ),
    validation=ValidationCurve((0, 300), (GroupCurve("domain", (8.0, 1.625), (8192.0, 51.5)),)),
    speed=Speed(34_120.0, 31_877.0, 2**31, 328.9),
    reproduction=Reproduction("config-5f1c", "store-90aa", "chain-c0ff", 1234),
    comparison=Comparison(
        (CompressionRow("domain", 512_000, 1.62, 1.59, 1.65, COMPRESSORS),)
    ),
    exam=Exam(31, 100, 0.31, 0.2278, 0.4063, 0.25, (ExamFamily("control charts", 31, 100, 0.2278, 0.4063, 0.25),)),
    samples=(SampleText("The variance of", " a <b>sum</b>", "temperature 0.8"),),
    stages=(StageTime("tokenizer", 40.0), StageTime("train", 328.9)),
    plan=(
        PlanRow("training time", 300.0, 328.9, "s"),
        PlanRow("peak memory", 2.0**31, 2.0**30, "bytes"),
        PlanRow("tokens", 10_485_760, 10_485_760, "tokens"),
        PlanRow("energy", None, 3.0, "Wh"),
        PlanRow("lost steps", 0, 2, ""),
    ),
)  # fmt: skip

EMPTY = dataclasses.replace(
    FULL,
    sources=(),
    training=TrainingCurve(),
    validation=ValidationCurve(),
    speed=Speed(None, None, None, 0.0),
    comparison=None,
    exam=None,
    samples=(),
    stages=(),
    plan=(),
)


def shown(record: RunRecord) -> str:
    """The page's text as a reader sees it, tags as spaces."""
    body = render(run_page(record)).partition("</head>")[2]
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", body)).split())


def test_the_same_record_gives_the_same_bytes() -> None:
    assert render(run_page(FULL)) == render(run_page(FULL))


def test_the_verdict_comes_first_and_the_limits_last() -> None:
    page = run_page(FULL)
    first = page.sections[0].parts[0]
    assert isinstance(first, Paragraph) and first.text.endswith("The model is better: it needs 13 % fewer bits.")
    assert [section.title for section in page.sections] == [
        "In short", "How it learnt", "Text it had not seen", "Exam", "What it writes", "What it read",
        "Speed, memory, time", "Plan and what happened", "To run it again", "What it cannot do",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        "2026-07-12 09:14 UTC to yesterday, on a processor",
        "1.590 to 1.650",
        "95 %, bootstrap over documents",
        "95 % Wilson interval",
        "22.8 % to 40.6 %",
        "That cannot be told from guessing.",
        "domain 1.625 51.5",
        "The variance of a <b>sum</b>",
        "sympy domain 60.0 % 60.1 % 1.90 BSD-3-Clause",
        "python general 40.0 % – – PSF-2.0",
        "all 1,100 9.54 MiB 2,600,000 195 KiB",
        "training time 5 min 00 s 5 min 29 s +9.6 %",
        "peak memory 2.00 GiB 1.00 GiB −50.0 %",
        "tokens 10,485,760 tokens 10,485,760 tokens ±0.0 %",
        "energy – 3 Wh –",
        "lost steps 0 2 –",
        "config-5f1c",
        "store-90aa",
        "chain-c0ff",
        "1234",
        "havoc run --config configs/training/first_run.yaml",
        "In 1 step the loss was not a finite number.",
        "the shape of the text, not the mathematics",
    ],
)
def test_the_page_says(said: str) -> None:
    assert said in shown(FULL)


def with_exam(**values: object) -> str:
    assert FULL.exam is not None
    return shown(dataclasses.replace(FULL, exam=dataclasses.replace(FULL.exam, **values)))


def test_an_exam_that_the_training_text_held_in_part_has_two_scores() -> None:
    text = with_exam(touched=12, untouched=ExamPart(20, 88, 0.1520, 0.3250))
    assert "12 of the 100 questions were found in the training text, or in documents that were left out of it." in text
    assert "all items 31 100 31.0 % 22.8 % to 40.6 %" in text
    assert "items not found in the training text 20 88 22.7 % 15.2 % to 32.5 %" in text


def test_an_exam_that_was_not_held_has_one_score_and_says_why() -> None:
    text = with_exam(touched=0)
    assert "None of the 100 questions was found in the training text: all of it was searched" in text
    assert "items not found" not in text


def test_an_exam_that_was_held_whole_says_that_nothing_is_left() -> None:
    text = with_exam(touched=100)
    assert "100 of the 100 questions were found in the training text: there is no score without them" in text
    assert "items not found" not in text


def test_an_exam_that_was_not_looked_for_says_so() -> None:
    assert "Whether the training text holds its questions was not looked at." in with_exam(touched=None)


def test_a_clean_run_has_no_warning() -> None:
    assert 'role="note"' not in render(run_page(FULL))


def test_dummy_data_is_said_above_everything_else() -> None:
    text = shown(dataclasses.replace(FULL, dummy_data=True))
    assert text.startswith("DUMMY DATA")
    assert "DUMMY DATA" not in shown(FULL)


def test_missing_groups_and_an_early_end_are_warned_of_before_the_verdict() -> None:
    text = shown(dataclasses.replace(FULL, missing_groups=("dialog", "general"), ending="Stopped by Ctrl+C at step 9."))
    verdict = text.index("of held-out text the model needs")
    assert text.index("There was no text for dialog, general") < verdict
    assert text.index("Stopped by Ctrl+C at step 9.") < verdict


def test_a_run_that_measured_nothing_still_has_a_page_that_says_so() -> None:
    text = shown(EMPTY)
    for said in (
        "The model was not measured on held-out text",
        "No exam was taken.",
        "No loss was recorded.",
        "The model was not compared with general compressors.",
        "No samples were drawn.",
        "No sources were recorded.",
        "No plan was made before this run.",
    ):
        assert said in text
    assert "<svg" not in render(run_page(EMPTY))


def test_limits_that_are_given_replace_the_usual_ones() -> None:
    text = shown(dataclasses.replace(FULL, limits=("It only knows limericks.",)))
    assert text.count("It only knows limericks.") == 1
    assert "the shape of the text" not in text
