"""Verified problems, answered and graded. Share of right answers; more is better."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from havoc_core import chat_format
from havoc_core.statistics import wilson_interval
from havoc_eval.language_model import LanguageModel
from havoc_eval.task import TOTAL, UNTOUCHED, Reply, Score, TaskResult
from havoc_problems.catalog import exam_problems
from havoc_problems.grading import grade
from havoc_problems.problem import Problem

NAME = "exam"
VERSION = 1
METRIC = "accuracy"


class Options(BaseModel):
    """How long the exam is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    num_problems: int = Field(200, ge=1)
    """Problems in all, shared evenly among the families."""
    families: list[str] | None = None
    """Files in havoc_problems/families/; null: all."""
    max_new_tokens: int = Field(300, ge=1)
    """Length of an answer at most, in tokens; worked solutions have up to 480 characters, some 250 tokens."""


class Exam:
    """The task. Build it with `build(options)`.

    Every problem is asked by itself, answered greedily and graded strictly: the answer is what follows the last
    "Answer:". Intervals are Wilson's; the baseline is the expected share for a guesser who knows only what answers
    look like. Problems that were found in the training text stay in all scores but one, which is over the others.

    Args:
        problems: what is asked.
        max_new_tokens: length of an answer at most.
        touched: statements that were found in the training text; None: it was not looked.
    """

    name = NAME
    version = VERSION

    def __init__(
        self, problems: Sequence[Problem], *, max_new_tokens: int, touched: frozenset[str] | None = None
    ) -> None:
        self._problems = tuple(problems)
        self._max_new_tokens = max_new_tokens
        self._touched = touched

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is asked, to look for it in the training text."""
        return self._problems

    def with_touched(self, touched: frozenset[str]) -> Exam:
        """The same exam, which knows what was found in the training text."""
        return Exam(self._problems, max_new_tokens=self._max_new_tokens, touched=touched)

    def run(self, model: LanguageModel) -> TaskResult:
        """Ask everything and grade it.

        Raises:
            CheckpointError: the model gives no finite numbers.
        """
        as_dialog = chat_format.has_chat_tokens(model.tokenizer)
        fitting = [problem for problem in self._problems if _fits(model, problem, as_dialog=as_dialog)]
        if as_dialog:
            dialogs = [[("user", problem.statement)] for problem in fitting]
            texts = model.answer(dialogs, max_new_tokens=self._max_new_tokens)
        else:
            prompts = [f"{problem.statement}\n" for problem in fitting]
            texts = model.generate_text(prompts, max_new_tokens=self._max_new_tokens)
        said = {id(problem): text for problem, text in zip(fitting, texts, strict=True)}
        replies = [_reply(problem, said.get(id(problem))) for problem in self._problems]
        asked = "as dialogs" if as_dialog else "as plain text, since the tokenizer has no tokens for dialogs"
        notes = [f"Asked {asked}; answers of at most {self._max_new_tokens:,} tokens, greedy."]
        if len(fitting) < len(self._problems):
            notes.append(f"{len(self._problems) - len(fitting)} problems do not fit the context and count as wrong.")
        pairs = list(zip(self._problems, replies, strict=True))
        families = sorted({problem.family for problem in self._problems})
        of_families = [_score(family, [pair for pair in pairs if pair[0].family == family]) for family in families]
        left = [(problem, reply) for problem, reply in pairs if problem.statement not in (self._touched or ())]
        result = TaskResult(
            task=NAME,
            version=VERSION,
            scores=(*of_families, _score(TOTAL, pairs)),
            replies=tuple(replies),
            notes=tuple(notes),
        )
        guess = _guess_rate([problem for problem, _ in left]) if left else None
        return result if self._touched is None else with_untouched(result, self._touched, baseline=guess)


def build(options: Options) -> Exam:
    """The task.

    Raises:
        ConfigError: a family does not exist, or has fewer problems than its share.
    """
    problems = exam_problems(options.num_problems, families=options.families)
    return Exam(problems, max_new_tokens=options.max_new_tokens)


def with_untouched(result: TaskResult, touched: frozenset[str], *, baseline: float | None) -> TaskResult:
    """A result that says what was found in the training text, and the score over the replies to everything else.

    Args:
        result: of an exam.
        touched: prompts that were found; others than those of the exam are passed over.
        baseline: of the replies that are left; None: it is not known.
    """
    found = tuple(reply.prompt for reply in result.replies if reply.prompt in touched)
    left = [reply for reply in result.replies if reply.prompt not in touched]
    untouched = _accuracy(UNTOUCHED, left, baseline=baseline) if found and left else None
    return dataclasses.replace(result, touched=found, untouched=untouched)


def _fits(model: LanguageModel, problem: Problem, *, as_dialog: bool) -> bool:
    if as_dialog:
        length = len(chat_format.prompt(model.tokenizer, [("user", problem.statement)]))
    else:
        length = 1 + len(model.tokenizer.encode(f"{problem.statement}\n"))
    return length < model.max_seq_len


def _reply(problem: Problem, text: str | None) -> Reply:
    graded = grade(problem.answer, text or "")
    return Reply(
        group=problem.family,
        prompt=problem.statement,
        expected=problem.answer.text,
        text=text or "",
        extracted=graded.extracted,
        correct=graded.correct,
        reason=graded.reason if text is not None else "the problem does not fit the model's context",
    )


def _score(group: str, pairs: Sequence[tuple[Problem, Reply]]) -> Score:
    return _accuracy(group, [reply for _, reply in pairs], baseline=_guess_rate([problem for problem, _ in pairs]))


def _guess_rate(problems: Sequence[Problem]) -> float:
    return sum(problem.guess_rate for problem in problems) / len(problems)


def _accuracy(group: str, replies: Sequence[Reply], *, baseline: float | None) -> Score:
    correct = sum(reply.correct for reply in replies)
    interval = wilson_interval(correct, len(replies))
    return Score(
        group=group,
        metric=METRIC,
        value=correct / len(replies),
        low=interval.low,
        high=interval.high,
        baseline=baseline,
        counts={"problems": len(replies), "correct": correct},
    )
