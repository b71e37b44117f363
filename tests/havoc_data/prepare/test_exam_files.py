"""Questions are read from whatever people keep them in, and what cannot be read is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from havoc_core.errors import DataError
from havoc_data.prepare.exam_files import ExamItem, problem_items, read_exam
from havoc_problems.catalog import exam_problems


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_lines_of_json_with_a_solution_that_ends_in_the_answer(tmp_path: Path) -> None:
    rows = [{"question": "How many?\u2028Say.", "answer": "3 + 4 = 7\n#### 7"}, {"question": "And now?", "answer": 8.0}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    assert read_exam(written(tmp_path, "school.jsonl", text)) == (
        ExamItem("school", "1", "How many?\u2028Say.", "7"),
        ExamItem("school", "2", "And now?", "8"),
    )


def test_a_list_whose_questions_are_told_in_two_parts(tmp_path: Path) -> None:
    rows = [{"ID": "chal-1", "Body": "Ann has 3 eggs.", "Question": "How many are left?", "Answer": 51.0}]
    found = read_exam(written(tmp_path, "svamp.json", rows))
    assert found == (ExamItem("svamp", "chal-1", "Ann has 3 eggs. How many are left?", "51"),)


@pytest.mark.parametrize(
    "content",
    [
        {"Problem": ["What?", "Why?"], "index": [4, 5], "answer": ["a", "b"]},
        {
            "test": [{"problem": "What?", "id": 4, "correct": "a"}],
            "dev": [{"problem": "Why?", "id": 5, "target": ["b"]}],
        },
        [{"statement": "What?", "id": "4", "solution": "a"}, {"prompt": "Why?", "id": "5", "answer": "b"}],
    ],
)
def test_columns_named_lists_and_rows_are_read_alike(content: object, tmp_path: Path) -> None:
    assert read_exam(written(tmp_path, "e.json", content)) == (
        ExamItem("e", "4", "What?", "a"),
        ExamItem("e", "5", "Why?", "b"),
    )


def test_a_table_with_a_byte_order_mark_and_quoted_line_breaks(tmp_path: Path) -> None:
    text = '\ufeffid,Question,answer\r\n7,"Two lines:\n3, 4?",x\r\n8,And?\r\n'
    assert read_exam(written(tmp_path, "e.csv", text)) == (
        ExamItem("e", "7", "Two lines:\n3, 4?", "x"),
        ExamItem("e", "8", "And?", ""),
    )


def test_a_question_comes_before_other_texts_of_a_row(tmp_path: Path) -> None:
    path = written(tmp_path, "e.json", {"text": "context", "question": "What?", "answer": True})
    assert read_exam(path) == (ExamItem("e", "1", "What?", ""),)


def test_verified_problems_are_named_by_family_and_seed() -> None:
    problem = exam_problems(1, families=["derivative"])[0]
    assert problem_items([problem]) == (
        ExamItem("exam", f"derivative {problem.seed}", problem.statement, problem.answer.text),
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.json", [{"stem": "What?", "key": "a"}], r"e\.json, row 1: has no question: its keys are 'stem', 'key'\. Call the "
         r"question one of: question, problem"),
        ("e.json", [{}], r"row 1: has no question: its keys are none\."),
        ("e.json", [{"question": "a b"}, {"question": " "}], r"row 2: 'question' is empty or no text\. Give every row a "),
        ("e.json", [{"question": {"stem": "x"}}], r"row 1: 'question' is empty or no text\."),
        ("e.json", ["What?"], r'row 1: is no object with a question in it\. Write it as \{"question": \.\.\.\}\.'),
        ("e.json", [], r"e\.json: holds no questions\. Leave it out of data\.decontamination\.exams, or mend it\."),
        ("e.json", "{", r"e\.json: the file is no JSON \(.*\)\. Mend the file of questions\."),
        ("e.jsonl", '{"question": "a"}\n{"quest', r"e\.jsonl: line 2 is no JSON \(.*\)\. Mend the file"),
        ("e.csv", 'question\n"What', r"e\.csv: is no table \(.*\)\. Save the questions as CSV with a header\."),
        ("e.csv", "", r"e\.csv: holds no questions\."),
        ("e.jsonl", b"\xff\xfe\x00", r"e\.jsonl: is not UTF-8 at byte 0\. Save the questions as UTF-8 text\."),
        ("e.parquet", "", r"e\.parquet: '\.parquet' is no ending of a file of questions\. Use one of: \.json, \.jsonl, \.csv\."),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(name: str, content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_exam(written(tmp_path, name, content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none\.json: cannot be opened \(No such file.*\)\. Name a file of questions\."
    ):
        read_exam(tmp_path / "none.json")
