"""Where a run keeps what: paths only, nothing is created here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from havoc_core.config import TrainingConfig


@dataclass(frozen=True)
class RunFiles:
    """The folders and files of one run, all below `run_dir` unless the config says otherwise."""

    run_dir: Path
    checkpoints: Path
    logs: Path

    @classmethod
    def of(cls, config: TrainingConfig) -> RunFiles:
        """Paths of the run that this config describes."""
        base = Path(config.run_dir)
        return cls(run_dir=base, checkpoints=base / config.checkpoint_dir, logs=base / config.log_dir)

    @property
    def tokenizer(self) -> Path:
        """Folder with tokenizer.json and what belongs to it."""
        return self.run_dir / "tokenizer"

    @property
    def store(self) -> Path:
        """Folder of the token store."""
        return self.run_dir / "store"

    @property
    def stages(self) -> Path:
        """What `havoc run` has finished."""
        return self.run_dir / "stages.json"

    @property
    def lock(self) -> Path:
        """Held while a run works in the folder."""
        return self.run_dir / "havoc.lock"

    @property
    def train_log(self) -> Path:
        """Everything that was said."""
        return self.logs / "train.log"

    @property
    def metrics(self) -> Path:
        """One JSON line a step."""
        return self.logs / "metrics.jsonl"

    @property
    def plan(self) -> Path:
        """What was planned before the first step: memory, time, money."""
        return self.logs / "plan.json"

    @property
    def evaluation(self) -> Path:
        """Scores of the final model."""
        return self.logs / "evaluation.json"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.logs / "report.html"

    @property
    def data_card(self) -> Path:
        """The page about the text."""
        return self.logs / "card.html"
