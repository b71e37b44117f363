"""The exam against models that know everything, nothing, and half."""

from __future__ import annotations

from typing import Any

import pytest

from havoc_core.errors import ConfigError
from havoc_core.statistics import wilson_interval
from havoc_core.tokenizer import Tokenizer
from havoc_eval.tasks.exam import Exam, Options, build
from havoc_problems.problem import Problem

FAMILIES = ["linear_system", "derivative"]


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    """Ten of two families."""
    from havoc_problems.catalog import exam_problems

    return exam_problems(10, families=FAMILIES)


@pytest.fixture
def exam(problems: list[Problem]) -> Exam:
    return Exam(problems, max_new_tokens=2000)


@pytest.fixture
def solutions(problems: list[Problem]) -> dict[str, str]:
    """Statement -> the whole worked solution."""
    return {problem.statement: problem.messages()[1]["content"] for problem in problems}


def test_a_model_that_knows_the_solutions_gets_everything_right(
    exam: Exam, solutions: dict[str, str], tokenizer: Tokenizer, fake: Any
) -> None:
    result = exam.run(fake(tokenizer, say=solutions.__getitem__))
    assert [(score.group, score.value) for score in result.scores] == [
        ("derivative", 1.0),
        ("linear_system", 1.0),
        ("total", 1.0),
    ]
    assert result.total.counts == {"problems": 10, "correct": 10}
    interval = wilson_interval(10, 10)
    assert (result.total.low, result.total.high) == (interval.low, interval.high)


@pytest.mark.parametrize("say", [lambda _: "Answer: 123456789", lambda _: "", lambda _: "I do not know."])
def test_a_model_that_always_says_the_same_gets_nothing(exam: Exam, tokenizer: Tokenizer, fake: Any, say: Any) -> None:
    result = exam.run(fake(tokenizer, say=say))
    assert result.total.value == 0.0
    assert all(not reply.correct and reply.reason for reply in result.replies)


def test_right_and_wrong_are_counted_by_family_and_every_reply_is_kept(
    exam: Exam, problems: list[Problem], solutions: dict[str, str], tokenizer: Tokenizer, fake: Any
) -> None:
    knows = {problem.statement for problem in problems if problem.family == "derivative"}
    result = exam.run(fake(tokenizer, say=lambda q: solutions[q] if q in knows else "Answer: no"))
    assert [score.value for score in result.scores] == [1.0, 0.0, 0.5]
    assert [reply.prompt for reply in result.replies] == [problem.statement for problem in problems]
    assert [reply.text for reply in result.replies if not reply.correct] == ["Answer: no"] * 5
    assert all(reply.extracted == "no" for reply in result.replies if not reply.correct)
    assert [reply.expected for reply in result.replies] == [problem.answer.text for problem in problems]


def test_the_baseline_is_the_mean_of_what_guessing_gives(
    exam: Exam, problems: list[Problem], tokenizer: Tokenizer, fake: Any
) -> None:
    result = exam.run(fake(tokenizer))
    assert result.total.baseline == pytest.approx(sum(problem.guess_rate for problem in problems) / 10)
    assert result.scores[0].baseline == pytest.approx(
        sum(problem.guess_rate for problem in problems if problem.family == "derivative") / 5
    )


def test_answers_are_cut_at_their_limit(
    problems: list[Problem], solutions: dict[str, str], tokenizer: Tokenizer, fake: Any
) -> None:
    """The model of this test counts characters; ten are too few for any solution here."""
    result = Exam(problems, max_new_tokens=10).run(fake(tokenizer, say=solutions.__getitem__))
    assert result.total.value == 0.0


def test_a_problem_that_does_not_fit_the_context_is_wrong_and_said(
    exam: Exam, problems: list[Problem], solutions: dict[str, str], tokenizer: Tokenizer, fake: Any
) -> None:
    lengths = sorted(len(problem.statement.encode()) + 4 for problem in problems)  # BOS, role, end, role
    too_long = sum(length >= lengths[5] for length in lengths)
    result = exam.run(fake(tokenizer, say=solutions.__getitem__, max_seq_len=lengths[5]))
    assert result.total.counts == {"problems": 10, "correct": 10 - too_long}
    wrong = [reply for reply in result.replies if not reply.correct]
    assert {reply.reason for reply in wrong} == {"the problem does not fit the model's context"}
    assert result.notes[-1] == f"{too_long} problems do not fit the context and count as wrong."


def test_without_tokens_for_dialogs_the_problem_is_a_text_to_continue(
    exam: Exam, problems: list[Problem], solutions: dict[str, str], plain_tokenizer: Tokenizer, fake: Any
) -> None:
    model = fake(plain_tokenizer, say=lambda prompt: solutions[prompt.rstrip("\n")])
    result = exam.run(model)
    assert result.total.value == 1.0
    assert model.prompts == [f"{problem.statement}\n" for problem in problems]
    assert "as plain text" in result.notes[0]


def test_problems_that_the_training_text_held_are_scored_apart(
    exam: Exam, problems: list[Problem], solutions: dict[str, str], tokenizer: Tokenizer, fake: Any
) -> None:
    """It knows four problems by heart and answers one other: 5 of 10, and 1 of 6 without those that it had read."""
    read = frozenset(problem.statement for problem in problems[:4])
    knows = {*read, problems[7].statement}
    model = fake(tokenizer, say=lambda q: solutions[q] if q in knows else "Answer: no")
    result = exam.with_touched(read | {"a problem of another exam"}).run(model)
    assert result.touched == tuple(problem.statement for problem in problems[:4])
    assert result.untouched is not None
    interval = wilson_interval(1, 6)
    assert result.untouched.group == "untouched"
    assert (result.untouched.value, result.untouched.counts) == (1 / 6, {"problems": 6, "correct": 1})
    assert (result.untouched.low, result.untouched.high) == (interval.low, interval.high)
    assert result.untouched.baseline == pytest.approx(sum(problem.guess_rate for problem in problems[4:]) / 6)
    alone = exam.run(model)
    assert result.scores == alone.scores, "all problems stay in all other scores"
    assert (alone.touched, alone.untouched) == (None, None), "it was not looked"


def test_one_score_is_enough_where_nothing_or_everything_was_found(
    exam: Exam, problems: list[Problem], tokenizer: Tokenizer, fake: Any
) -> None:
    nothing = exam.with_touched(frozenset()).run(fake(tokenizer))
    assert (nothing.touched, nothing.untouched) == ((), None)
    everything = exam.with_touched(frozenset(problem.statement for problem in problems)).run(fake(tokenizer))
    assert everything.touched is not None and len(everything.touched) == 10
    assert everything.untouched is None


def test_the_exam_is_built_from_its_options_and_is_the_same_every_time() -> None:
    first, again = (build(Options(num_problems=6, families=FAMILIES)) for _ in range(2))
    assert first.problems == again.problems
    assert len({problem.statement for problem in first.problems}) == 6


def test_a_family_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"family: 'derivatives' is not .* Did you mean 'derivative'"):
        build(Options(families=["derivatives"]))
