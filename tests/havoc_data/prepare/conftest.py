"""A folder of text, small enough to be prepared in a second; a source of the user's own; a process that can be killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.config_files import merge
from havoc_data.prepare.build import prepare

WORDS = [
    "the",
    "mean",
    "of",
    "a",
    "sample",
    "variance",
    "estimate",
    "is",
    "unbiased",
    "when",
    "n",
    "grows",
    "and",
    "σ²",
    "stays",
    "σ",
    "∑",
    "x_i",
    "/",
    "n\n",
]


def words(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count)) + f" {seed}\n"


def write_data(folder: Path) -> Path:
    """math and stats (domain), general and dialog: 70 files of 2 kB each, and the dialog as JSON lines."""
    for number, name in enumerate(("math", "stats", "general")):
        (folder / name).mkdir(parents=True)
        for i in range(70):
            (folder / name / f"{i:02}.txt").write_text(words(1000 * number + i, 400), encoding="utf-8")
    (folder / "dialog").mkdir()
    lines = []
    for i in range(70):
        question, answer = words(9000 + i, 20), words(9500 + i, 300)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages}) + "\n")
    (folder / "dialog" / "talk.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def config_of(data: Path, run_dir: Path) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "run_dir": str(run_dir),
            "model": {"size": "nano", "vocab_size": 600},
            "data": {"data_dir": str(data), "max_sequence_length": 64, "validation_fraction": 0.05, "num_workers": 1},
            "evaluation": {"exam_problems": 0},
        }
    )


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder of text that a test may change."""
    return write_data(tmp_path / "data")


@pytest.fixture
def config(data, tmp_path) -> TrainingConfig:
    """A run on that folder."""
    return config_of(data, tmp_path / "run")


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> TrainingConfig:
    """A run with tokenizer and store made. Not to be changed."""
    folder = tmp_path_factory.mktemp("ready")
    config = config_of(write_data(folder / "data"), folder / "run")
    prepare(config)
    return config


@pytest.fixture(scope="session")
def make_run() -> Callable[[Path], tuple[TrainingConfig, Path]]:
    """A folder -> (a run on text in it, the folder of the text)."""

    def make(folder: Path) -> tuple[TrainingConfig, Path]:
        data = write_data(folder / "data")
        return config_of(data, folder / "run"), data

    return make


@pytest.fixture(scope="session")
def changed() -> Callable[..., TrainingConfig]:
    """A run with other settings of its data, sections inside them merged; and of all else."""

    def change(config: TrainingConfig, data: dict[str, Any] | None = None, **others: Any) -> TrainingConfig:
        return TrainingConfig.model_validate(merge(config.model_dump(), {"data": data or {}, **others}))

    return change


LAB = '''
"""A source of the user's own: one part a file, one document a line."""

import hashlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from havoc_core.config import Section
from havoc_data.document import Document, Rejected


class Options(Section):
    journal: str
    fault: str = ""


def build(path, options):
    return Lab(Path(path), Path(options.journal), options.fault)


@dataclass(frozen=True)
class Lab:
    folder: Path
    journal: Path
    fault: str

    def parts(self):
        files = [] if self.fault == "no parts" else sorted(self.folder.iterdir())
        return tuple(Part(each, self.journal, self.fault) for each in files)

    def rejected(self):
        return ()

    def fingerprint(self):
        return hashlib.blake2b(" ".join(part.key for part in self.parts()).encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    path: Path
    journal: Path
    fault: str

    @property
    def key(self):
        named = f"{self.fault} {self.path.name} ".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(named + self.path.read_bytes()).hexdigest()

    def sizes(self):
        return {self.path.name: (0, self.path.stat().st_size)}

    def documents(self):
        name, position = self.path.name, 0
        with self.journal.open("a") as journal:
            journal.write(name + "\\n")
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True)):
            self._trap(number)
            start, position = position, position + len(line)
            if (number, self.fault) == (3, "drops"):
                continue
            if (number, self.fault) == (3, "doubles"):
                yield Document(name, line.decode(), ordinal=99, start=start, end=position)
            if (number, self.fault) == (3, "names another file"):
                name = "elsewhere.txt"
            if (number, self.fault) == (3, "goes too far"):
                position += 7
            if (number, self.fault) == (3, "rejects"):
                yield Rejected(name, "half a pair \\ud800", len(line), start, rule="a_rule")
                continue
            text = line.decode() if self.fault != "invents" else line.decode() + "more"
            licence = "my \\ud800 licence" if self.fault == "rejects" else None
            yield Document(name, text, ordinal=number, start=start, end=position, licence=licence)

    def _trap(self, number):
        trap = self.journal.with_name("trap")
        if trap.is_file() and trap.read_text() == f"{self.path.name} {number}":
            trap.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
'''


@dataclass(frozen=True)
class Lab:
    """A source of the user's own that writes down which files it reads."""

    folder: Path
    """One file a part; one document a line."""
    journal: Path

    def source(self, **options: Any) -> dict[str, Any]:
        """For `data.sources`."""
        return {
            "kind": "lab.source",
            "path": str(self.folder),
            "name": "lab",
            "options": {"journal": str(self.journal), **options},
        }

    def read(self) -> list[str]:
        """Names of the files that were read since the last call, sorted."""
        names = sorted(self.journal.read_text().split()) if self.journal.is_file() else []
        self.journal.unlink(missing_ok=True)
        return names

    def trap(self, name: str, document: int) -> None:
        """Whoever comes to this document of this file kills its process; once."""
        self.journal.with_name("trap").write_text(f"{name} {document}")


def lines(seed: int, count: int) -> str:
    """Documents of about 600 bytes, one a line."""
    return "".join(words(seed + i, 120).replace("\n", " ") + "\n" for i in range(count))


@pytest.fixture(scope="session")
def lab_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the module of that source lies."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "lab").mkdir()
    (folder / "lab" / "source.py").write_text(LAB)
    return folder


def make_lab(folder: Path) -> Lab:
    """Five files of 30 documents."""
    (folder / "texts").mkdir()
    for number in range(5):
        (folder / "texts" / f"{number}.txt").write_text(lines(100 * number, 30), encoding="utf-8")
    return Lab(folder / "texts", folder / "journal")


def lab_run(lab: Lab, run_dir: Path, data: dict[str, Any] | None = None, **options: Any) -> TrainingConfig:
    """A run on that source."""
    settings = {"sources": [lab.source(**options)], "validation_fraction": 0.05, "num_workers": 1, **(data or {})}
    return TrainingConfig.model_validate(
        {
            "run_dir": str(run_dir),
            "model": {"size": "nano", "vocab_size": 520},
            "data": settings,
            "evaluation": {"exam_problems": 0},
        }
    )


@pytest.fixture
def lab(tmp_path: Path, lab_module: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A source of the user's own; its module is on the path."""
    monkeypatch.syspath_prepend(lab_module)
    return make_lab(tmp_path)


@pytest.fixture
def lab_config(lab: Lab, tmp_path: Path) -> Callable[..., TrainingConfig]:
    """A run on that source. data: changes to the settings of the data; options: of the source."""

    def make(run_dir: str = "run", *, data: dict[str, Any] | None = None, **options: Any) -> TrainingConfig:
        return lab_run(lab, tmp_path / run_dir, data, **options)

    return make


@pytest.fixture(scope="session")
def undisturbed(lab_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on that source that nothing befell. Not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(lab_module)
        prepare(lab_run(make_lab(folder), folder / "run", {"runner": "inline"}))
    return folder / "run"


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Name -> bytes of every file below a folder."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return read


ATTEMPTS = """
import json, os, re, signal, sys
from pathlib import Path
from havoc_core.config import TrainingConfig
from havoc_data.prepare.build import prepare

def attempt(config, pattern, moment, journal, error):
    out = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(error, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    left = moment

    def watch(event, arguments):
        nonlocal left
        if event not in {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"} or not isinstance(arguments[0], str):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if event == "os.mkdir":
            os.write(out, arguments[0].encode() + b"\\n")
        if re.search(pattern, f"{event} {arguments[0]}"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    prepare(TrainingConfig.model_validate_json(config))

if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            attempt(*json.loads(line))
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Reads what to attempt, a line each, and makes each attempt in a process of its own. Forked from one in which everything is
imported, and no thread runs, a process costs no start of Python."""


@dataclass(frozen=True)
class Attempt:
    """How a process that prepared a run ended, and the folders that it made."""

    code: int
    folders: tuple[str, ...]
    error: str

    def worked_on(self, stage: str) -> int:
        """Parts that a stage made: parts, settled or .store.parts."""
        made = {Path(folder) for folder in self.folders if folder.endswith(".writing")}
        return sum(folder.parent.name == stage for folder in made)


@pytest.fixture(scope="session")
def attempts(tmp_path_factory: pytest.TempPathFactory, lab_module: Path) -> Iterator[Callable[[str, list[Any]], int]]:
    """(Hash seed, arguments of an attempt) -> its exit code."""
    program = tmp_path_factory.mktemp("attempts") / "attempts.py"
    program.write_text(ATTEMPTS)
    roots = [each for each in sys.path if each.endswith("src")]
    path = os.pathsep.join([*roots, str(lab_module)])
    running: dict[str, subprocess.Popen[str]] = {}

    def make(seed: str, arguments: list[Any]) -> int:
        if seed not in running:
            running[seed] = subprocess.Popen(
                [sys.executable, str(program)],
                env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        process = running[seed]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(arguments) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield make
    for process in running.values():
        process.communicate()


@pytest.fixture
def attempt(tmp_path: Path, attempts: Callable[[str, list[Any]], int]) -> Callable[..., Attempt]:
    """`prepare` in a process of its own, killed just before the `moment`-th time that it writes, makes, moves or removes
    something whose path (after the name of the event) fits the pattern."""

    def start(config: TrainingConfig, pattern: str = "$^", moment: int = 0, *, seed: str = "0") -> Attempt:
        journal, error = (tmp_path / name for name in ("attempt.log", "attempt.error"))
        journal.unlink(missing_ok=True)
        code = attempts(seed, [config.model_dump_json(), pattern, moment, str(journal), str(error)])
        return Attempt(code, tuple(journal.read_text().splitlines()), error.read_text())

    return start
