"""A folder of text, small enough to be prepared in a second."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from havoc_core.config import TrainingConfig

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


@pytest.fixture
def data(tmp_path) -> Path:
    """data/ with math and stats (domain), general and dialog: 70 files of 2.5 kB each, and the dialog as JSON lines."""
    folder = tmp_path / "data"
    for number, name in enumerate(("math", "stats", "general")):
        (folder / name).mkdir(parents=True)
        for i in range(70):
            (folder / name / f"{i:02}.txt").write_text(words(1000 * number + i, 400), encoding="utf-8")
    (folder / "dialog").mkdir()
    import json

    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": words(9000 + i, 20)},
                    {"role": "assistant", "content": words(9500 + i, 300)},
                ]
            }
        )
        for i in range(70)
    ]
    (folder / "dialog" / "talk.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def config(data, tmp_path) -> TrainingConfig:
    """A run on that folder."""
    return TrainingConfig.model_validate(
        {
            "run_dir": str(tmp_path / "run"),
            "model": {"size": "nano", "vocab_size": 600},
            "data": {"data_dir": str(data), "max_sequence_length": 64, "validation_fraction": 0.05, "num_workers": 1},
        }
    )
