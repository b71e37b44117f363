"""One record for everything, which survives the way through JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from havoc_core.errors import DataError
from havoc_core.tokenizer import Tokenizer
from havoc_eval.runner import Evaluation, evaluate, from_json, to_json


@pytest.fixture
def evaluation(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> Evaluation:
    """With everything in it."""
    files = {"domain": write("domain", ["The mean is μ.", "A sum."]), "dialog": write("dialog", [(("user", "Hi"),)])}
    return evaluate(
        fake(tokenizer, say=lambda _: "Answer: B"),
        held_out=files,
        ratios={"domain": 0.9, "dialog": 0.1},
        exam_problems=8,
        training_texts=lambda: ["The mean is μ.", "Other text."],
    )


def test_everything_is_measured(evaluation: Evaluation) -> None:
    assert [result.task for result in evaluation.results] == ["held_out", "exam"]
    held_out, exam = evaluation.result("held_out"), evaluation.result("exam")
    assert held_out is not None and exam is not None
    assert held_out.total.value == pytest.approx(2.0)
    assert exam.total.counts["problems"] == 8
    assert evaluation.result("poetry") is None
    assert evaluation.contaminated == ()
    # three compressors, two groups, alone and primed
    assert len(evaluation.compression) == 12


def test_json_gives_the_same_record_back(evaluation: Evaluation) -> None:
    text = to_json(evaluation)
    assert from_json(text, where="x") == evaluation
    assert json.loads(text)["version"] == 1
    assert to_json(from_json(text, where="x")) == text


def test_a_statement_in_the_training_text_is_found(tokenizer: Tokenizer, fake: Any, evaluation: Evaluation) -> None:
    exam = evaluation.result("exam")
    assert exam is not None
    leaked = exam.replies[3].prompt
    calls: list[int] = []

    def texts() -> Iterator[str]:
        calls.append(1)
        yield from ("nothing", f"before\n{leaked}\nafter")

    again = evaluate(fake(tokenizer), held_out={}, ratios={}, exam_problems=8, training_texts=texts)
    assert again.contaminated == (leaked,)
    assert calls == [1]


def test_without_training_text_nothing_is_claimed(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> None:
    files = {"domain": write("domain", ["abc"])}
    found = evaluate(fake(tokenizer), held_out=files, ratios={"domain": 1.0}, exam_problems=8)
    assert found.contaminated is None
    assert {score.primed for score in found.compression} == {False}


def test_what_is_not_asked_for_is_not_measured(tokenizer: Tokenizer, fake: Any) -> None:
    assert evaluate(fake(tokenizer), held_out={}, ratios={}, exam_problems=0) == Evaluation(results=())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "results": [{"task": "x"}]}'])
def test_what_is_no_evaluation_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"e\.json: is no evaluation \(.*\)\. Evaluate again: havoc evaluate"):
        from_json(text, where="e.json")


def test_a_later_version_is_refused() -> None:
    with pytest.raises(DataError, match=r"e\.json: has version 2; this HAVOC reads 1\. Evaluate again"):
        from_json('{"version": 2, "results": []}', where="e.json")
