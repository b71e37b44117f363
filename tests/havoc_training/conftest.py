"""A tiny run on random words: its text, tokenizer and store are made once and copied for every test."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from havoc_core.config import TrainingConfig
from havoc_core.config_files import merge
from havoc_data.prepare.build import prepare
from havoc_training.build import build_trainer
from havoc_training.continuation import find_checkpoint
from havoc_training.trainer import Trainer

SETTINGS: dict[str, Any] = {
    "model": {
        "size": "nano", "vocab_size": 520, "num_layers": 2, "d_model": 32, "max_seq_len": 64,
        "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 16}, "mlp": {"hidden_dim": 48},
    },
    "data": {
        "max_sequence_length": 64, "num_workers": 1,
        "sources": [
            {"kind": "dummy", "name": group, "group": group, "options": {"documents": 150, "words": 100, "seed": seed}}
            for seed, group in enumerate(("domain", "general", "dialog"))
        ],
    },
    "batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 6, "warmup_steps": 2, "learning_rate": 1e-3,
    "eval_every_n_steps": 3, "eval_samples": 6, "save_every_n_steps": 3, "log_every_n_steps": 2, "threads": 1, "device": "cpu",
    "use_amp": False, "compile": "off", "tracking": {"trackers": []},
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings_of(run_dir: Path, **changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(merge({**SETTINGS, "run_dir": str(run_dir)}, changes))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with text, tokenizer and store. Not to be changed."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(settings_of(folder))
    return folder


@dataclass
class StopAt:
    """An observer that asks the run to stop in a certain step, as SIGTERM does."""

    step: int

    def started(self, facts: object) -> None: ...

    def validated(self, record: object) -> None: ...

    def summarized(self, summary: object) -> None: ...

    def closed(self) -> None: ...

    def stepped(self, record: Any) -> None:
        if record.step == self.step:
            signal.raise_signal(signal.SIGTERM)


@dataclass(frozen=True)
class Run:
    """A run folder of a test."""

    folder: Path

    def config(self, **changes: Any) -> TrainingConfig:
        return settings_of(self.folder, **changes)

    def trainer(self, *, fine_tune: bool = False, **changes: Any) -> Trainer:
        config = self.config(**changes)
        return build_trainer(config, saved=find_checkpoint(config), fine_tune=fine_tune)

    def resumed(self, name: str = "auto", **changes: Any) -> Trainer:
        folder = name if name == "auto" else str(self.checkpoints / name)
        return self.trainer(resume_from_checkpoint=folder, **changes)

    def stopped_at(self, step: int, **changes: Any) -> Trainer:
        trainer = self.trainer(**changes)
        trainer.observers = [*trainer.observers, StopAt(step)]
        trainer.fit()
        return trainer

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.checkpoints.iterdir()}


@pytest.fixture
def new_run(prepared: Path, tmp_path: Path) -> Callable[..., Run]:
    """A fresh run folder with everything prepared."""

    def make(name: str = "run") -> Run:
        shutil.copytree(prepared, tmp_path / name)
        return Run(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def run_in() -> Callable[[Path], Run]:
    """A run in a folder that is there."""
    return Run


@pytest.fixture
def run(new_run: Callable[..., Run]) -> Run:
    return new_run()
