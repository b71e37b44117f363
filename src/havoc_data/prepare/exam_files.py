"""Examination questions, and the files that they come in: .json, .jsonl and .csv of anyone's making."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from havoc_core.errors import DataError
from havoc_problems.problem import Problem

EXAM_SUITE = "exam"
"""Suite of the verified problems that are asked in an evaluation."""
SUFFIXES = (".json", ".jsonl", ".csv")

_QUESTIONS = ("question", "problem", "prompt", "statement", "text", "input")
"""Keys of a question, in whatever case; the first that a row has is taken."""
_BEFORE_QUESTION = "body"
"""Key of what is told before the question is asked, as in SVAMP."""
_ANSWERS = ("answer", "correct", "target", "solution")
_NAMES = ("id", "index")
_FINAL = "####"
"""What stands before the answer where a solution comes first, as in GSM8K."""


@dataclass(frozen=True)
class ExamItem:
    """One question of an examination."""

    suite: str
    """The examination: name of its file without the ending, or EXAM_SUITE."""
    name: str
    """Its id in the file, or the number of its row, from 1."""
    question: str
    answer: str = ""
    """Where it is known."""


def read_exam(path: Path) -> tuple[ExamItem, ...]:
    """The questions in a file.

    Args:
        path: .json (a list of objects, objects of lists, or lists under names such as "test"), .jsonl or .csv.

    Raises:
        DataError: it cannot be read, is none of these, holds no questions, or a row lacks one.
    """
    items = tuple(_item(path, number, row) for number, row in enumerate(_rows(path), start=1))
    if not items:
        raise DataError(str(path), "holds no questions.", "Leave it out of data.decontamination.exams, or mend it.")
    return items


def problem_items(problems: Iterable[Problem]) -> tuple[ExamItem, ...]:
    """Verified problems as items, named by family and seed: the same in every exam that has them."""
    return tuple(
        ExamItem(EXAM_SUITE, f"{problem.family} {problem.seed}", problem.statement, problem.answer.text)
        for problem in problems
    )


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            str(path), f"'{path.suffix}' is no ending of a file of questions.", f"Use one of: {', '.join(SUFFIXES)}."
        )
    text = _text(path)
    if suffix == ".csv":
        rows: Iterable[Any] = _csv_rows(path, text)
    elif suffix == ".jsonl":
        # Not splitlines: U+2028 and the like may stand inside a JSON text.
        lines = enumerate(text.split("\n"), start=1)
        rows = (_json(path, line, f"line {number}") for number, line in lines if line.strip())
    else:
        rows = _json_rows(_json(path, text, "the file"))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, row {number}", "is no object with a question in it.", 'Write it as {"question": ...}.'
            )
        yield row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(str(path), f"cannot be opened ({error.strerror}).", "Name a file of questions.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            str(path), f"is not UTF-8 at byte {error.start:,}.", "Save the questions as UTF-8 text."
        ) from None


def _json(path: Path, text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), f"{place} is no JSON ({error}).", "Mend the file of questions.") from None


def _json_rows(value: Any) -> list[Any]:
    """Rows of a list, of the lists in an object, or of an object whose lists are columns."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return [value]
    lists = {key: held for key, held in value.items() if isinstance(held, list)}
    if not lists:
        return [value]
    if all(isinstance(row, dict) for held in lists.values() for row in held):
        return [row for held in lists.values() for row in held]
    length = max(map(len, lists.values()))
    return [{key: held[i] for key, held in lists.items() if i < len(held)} for i in range(length)]


def _csv_rows(path: Path, text: str) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DataError(str(path), f"is no table ({error}).", "Save the questions as CSV with a header.") from None
    return [{key: held for key, held in row.items() if key is not None and held is not None} for row in rows]


def _item(path: Path, number: int, row: Mapping[str, Any]) -> ExamItem:
    folded = {str(key).casefold(): held for key, held in row.items()}
    key = next((key for key in _QUESTIONS if key in folded), None)
    if key is None:
        raise DataError(
            f"{path}, row {number}",
            f"has no question: its keys are {', '.join(map(repr, row)) or 'none'}.",
            f"Call the question one of: {', '.join(_QUESTIONS)}.",
        )
    question = folded[key]
    before = folded.get(_BEFORE_QUESTION, "")
    if not isinstance(question, str) or not question.strip():
        raise DataError(
            f"{path}, row {number}", f"{key!r} is empty or no text.", "Give every row a question, or leave the row out."
        )
    if isinstance(before, str) and before.strip():
        question = f"{before} {question}"
    name = next((_word(folded[key]) for key in _NAMES if key in folded), "") or str(number)
    return ExamItem(path.stem, name, question, _answer([folded[key] for key in _ANSWERS if key in folded]))


def _answer(values: Sequence[Any]) -> str:
    """The first of the values that says something; of a solution, what it ends in."""
    words = (_word(value) for value in values)
    return next((word.rpartition(_FINAL)[2].strip() for word in words if word), "")


def _word(value: Any) -> str:
    """A value of JSON as text: 51.0 is 51, of a list the first; "" for what is none."""
    if isinstance(value, list) and value:
        return _word(value[0])
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
