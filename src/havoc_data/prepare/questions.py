"""Which examination questions are looked for in the text: those of files, and the exam of the evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from havoc_core.config import TrainingConfig
from havoc_core.errors import DataError
from havoc_data.prepare.exams import ExamItem, problem_items, read_exam
from havoc_problems.catalog import exam_problems, family_names, family_version


@dataclass(frozen=True)
class ExamQuestions:
    """What is looked for; the questions are read and made only when a text is examined."""

    files: tuple[Path, ...] = ()
    """Files of questions."""
    num_problems: int = 0
    """Verified problems of the exam."""

    @classmethod
    def of(cls, config: TrainingConfig) -> ExamQuestions:
        """The questions of a run: `data.decontamination.exams` and `evaluation.exam_problems`."""
        return cls(tuple(map(Path, config.data.decontamination.exams)), config.evaluation.exam_problems)

    @property
    def key(self) -> str:
        """Hex digest of the files' contents and of the problems, without making any; "" if there are no questions.

        Raises:
            DataError: a file cannot be read.
        """
        if not self.files and not self.num_problems:
            return ""
        versions = [f"{name} {family_version(name)}" for name in family_names()] if self.num_problems else []
        values = [self.num_problems, versions, [[path.name, _content_digest(path)] for path in self.files]]
        return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()

    def items(self) -> tuple[ExamItem, ...]:
        """Every question.

        Raises:
            DataError: a file cannot be read, or holds no questions.
        """
        made = problem_items(exam_problems(self.num_problems)) if self.num_problems else ()
        return (*made, *(item for path in self.files for item in read_exam(path)))

    def write(self, path: Path) -> None:
        """Write the questions for the processes that look for them."""
        text = json.dumps([asdict(item) for item in self.items()], ensure_ascii=False)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        beside = path.with_name(f".{path.name}.writing")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)


def read_questions(path: Path) -> Sequence[ExamItem]:
    """The questions that `ExamQuestions.write` wrote."""
    return [ExamItem(**values) for values in json.loads(path.read_text(encoding="utf-8"))]


def _content_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            str(path),
            f"a file of examination questions cannot be read ({error.strerror}).",
            "Correct data.decontamination.exams.",
        ) from None
