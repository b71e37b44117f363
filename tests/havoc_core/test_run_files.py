"""Where a run keeps what."""

from __future__ import annotations

from pathlib import Path

from havoc_core.config import TrainingConfig
from havoc_core.run_files import RunFiles


def test_everything_is_below_run_dir():
    files = RunFiles.of(TrainingConfig(run_dir="runs/a"))
    base = Path("runs/a")
    assert (files.checkpoints, files.logs, files.tokenizer, files.store) == (
        base / "checkpoints", base / "logs", base / "tokenizer", base / "store",
    )  # fmt: skip
    assert (files.train_log, files.metrics, files.report) == (
        base / "logs/train.log", base / "logs/metrics.jsonl", base / "logs/report.html",
    )  # fmt: skip
    assert (files.stages, files.lock, files.evaluation) == (
        base / "stages.json", base / "havoc.lock", base / "logs/evaluation.json",
    )  # fmt: skip


def test_an_absolute_folder_stays_where_it_is(tmp_path):
    assert RunFiles.of(TrainingConfig(run_dir="runs", checkpoint_dir=str(tmp_path))).checkpoints == tmp_path


def test_nothing_is_created(tmp_path):
    RunFiles.of(TrainingConfig(run_dir=str(tmp_path / "new")))
    assert list(tmp_path.iterdir()) == []
