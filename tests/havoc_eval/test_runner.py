"""One record for everything, which survives the way through JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from havoc_core.errors import DataError
from havoc_core.tokenizer import Tokenizer
from havoc_eval.contamination import TrainingText
from havoc_eval.runner import Evaluation, evaluate, from_json, to_json
from havoc_problems.problem import Problem


@pytest.fixture
def evaluation(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> Evaluation:
    """With everything in it."""
    files = {"domain": write("domain", ["The mean is μ.", "A sum."]), "dialog": write("dialog", [(("user", "Hi"),)])}
    return evaluate(
        fake(tokenizer, say=lambda _: "Answer: B"),
        held_out=files,
        ratios={"domain": 0.9, "dialog": 0.1},
        exam_problems=8,
        training=TrainingText(texts=lambda: ["The mean is μ.", "Other text."], touched=lambda _: frozenset()),
    )


def test_everything_is_measured(evaluation: Evaluation) -> None:
    assert [result.task for result in evaluation.results] == ["held_out", "exam"]
    held_out, exam = evaluation.result("held_out"), evaluation.result("exam")
    assert held_out is not None and exam is not None
    assert held_out.total.value == pytest.approx(2.0)
    assert exam.total.counts["problems"] == 8
    assert evaluation.result("poetry") is None
    assert exam.touched == ()
    assert exam.untouched is None
    # three compressors, two groups, alone and primed
    assert len(evaluation.compression) == 12


def test_json_gives_the_same_record_back(evaluation: Evaluation) -> None:
    text = to_json(evaluation)
    assert from_json(text, where="x") == evaluation
    assert json.loads(text)["version"] == 2
    assert to_json(from_json(text, where="x")) == text


def test_what_was_found_in_the_training_text_has_its_own_score(tokenizer: Tokenizer, fake: Any) -> None:
    asked: list[Problem] = []

    def touched(problems: Sequence[Problem]) -> frozenset[str]:
        asked.extend(problems)
        return frozenset({problems[3].statement})

    training = TrainingText(texts=list, touched=touched)
    found = evaluate(fake(tokenizer), held_out={}, ratios={}, exam_problems=8, training=training)
    exam = found.result("exam")
    assert exam is not None and exam.untouched is not None
    assert [problem.statement for problem in asked] == [reply.prompt for reply in exam.replies]
    assert exam.touched == (exam.replies[3].prompt,)
    assert (exam.total.counts["problems"], exam.untouched.counts["problems"]) == (8, 7)
    assert from_json(to_json(found), where="x") == found


def first_version(evaluation: Evaluation, contaminated: list[str] | None) -> str:
    """As HAVOC 0.1.0 wrote it."""
    values = json.loads(to_json(evaluation)) | {"version": 1, "contaminated": contaminated}
    for result in values["results"]:
        del result["touched"], result["untouched"]
    return json.dumps(values)


def test_a_record_of_the_first_version_is_read_as_one_of_today(evaluation: Evaluation) -> None:
    exam = evaluation.result("exam")
    assert exam is not None
    read = from_json(first_version(evaluation, [exam.replies[3].prompt]), where="x")
    old = read.result("exam")
    assert old is not None and old.untouched is not None
    assert old.touched == (exam.replies[3].prompt,)
    others = [reply.correct for n, reply in enumerate(exam.replies) if n != 3]
    assert old.untouched.counts == {"problems": 7, "correct": sum(others)}
    assert old.scores == exam.scores
    assert from_json(first_version(evaluation, []), where="x") == evaluation
    not_looked = from_json(first_version(evaluation, None), where="x").result("exam")
    assert not_looked is not None and not_looked.touched is None
    assert json.loads(to_json(read))["version"] == 2


def test_without_training_text_nothing_is_claimed(tokenizer: Tokenizer, fake: Any, write: Callable[..., Path]) -> None:
    files = {"domain": write("domain", ["abc"])}
    found = evaluate(fake(tokenizer), held_out=files, ratios={"domain": 1.0}, exam_problems=8)
    exam = found.result("exam")
    assert exam is not None and exam.touched is None
    assert {score.primed for score in found.compression} == {False}


def test_what_is_not_asked_for_is_not_measured(tokenizer: Tokenizer, fake: Any) -> None:
    assert evaluate(fake(tokenizer), held_out={}, ratios={}, exam_problems=0) == Evaluation(results=())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "results": [{"task": "x"}]}'])
def test_what_is_no_evaluation_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"e\.json: is no evaluation \(.*\)\. Evaluate again: havoc evaluate"):
        from_json(text, where="e.json")


def test_a_later_version_is_refused() -> None:
    with pytest.raises(DataError, match=r"e\.json: has version 3; this HAVOC reads 2\. Evaluate again"):
        from_json('{"version": 3, "results": []}', where="e.json")
