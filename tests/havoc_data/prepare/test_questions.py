"""Which examination questions are looked for."""

from __future__ import annotations

import json

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.errors import DataError
from havoc_data.prepare.exams import EXAM_SUITE, read_exam
from havoc_data.prepare.questions import ExamQuestions, read_questions


@pytest.fixture
def exam(tmp_path):
    """A file of two questions."""
    path = tmp_path / "finals.jsonl"
    rows = [
        {"id": f"q{i}", "question": f"What is {i} + {i}? Explain é∑\u2028 it.", "answer": str(2 * i)} for i in (1, 2)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_those_of_a_run_are_its_files_and_the_exam_of_its_evaluation(exam):
    values = {"data": {"decontamination": {"exams": [str(exam)]}}, "evaluation": {"exam_problems": 3}}
    questions = ExamQuestions.of(TrainingConfig.model_validate(values))
    items = questions.items()
    assert [item.suite for item in items] == [EXAM_SUITE] * 3 + ["finals"] * 2
    assert items[3:] == read_exam(exam)


def test_what_is_written_for_other_processes_comes_back(exam, tmp_path):
    questions = ExamQuestions((exam,), 2)
    questions.write(tmp_path / "exams.json")
    assert tuple(read_questions(tmp_path / "exams.json")) == questions.items()
    assert {path.name for path in tmp_path.iterdir()} == {"finals.jsonl", "exams.json"}


def test_the_key_follows_contents_and_number_and_not_where_the_file_lies(exam, tmp_path):
    key = ExamQuestions((exam,), 3).key
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / exam.name
    copy.write_bytes(exam.read_bytes())
    assert ExamQuestions((copy,), 3).key == key
    assert ExamQuestions((exam,), 4).key != key
    assert ExamQuestions((exam,)).key != key
    assert ExamQuestions((), 3).key != key
    exam.write_bytes(exam.read_bytes() + b"\n")
    assert ExamQuestions((exam,), 3).key != key


def test_no_questions_have_no_key():
    assert ExamQuestions().key == ""
    assert ExamQuestions().items() == ()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        _ = ExamQuestions((tmp_path / "nowhere.json",)).key
    assert caught.value.where == str(tmp_path / "nowhere.json")
    assert caught.value.found == "a file of examination questions cannot be read (No such file or directory)."
    assert caught.value.remedy == "Correct data.decontamination.exams."
