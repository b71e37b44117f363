"""A folder of text, small enough to be prepared in a second."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from havoc_core.config import TrainingConfig
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
