"""`havoc report`: one self-contained HTML page about a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from havoc_cli.flags import parse
from havoc_cli.stages import StageLog
from havoc_core.config import TrainingConfig
from havoc_core.config_files import from_json
from havoc_core.errors import CheckpointError
from havoc_core.run_files import RunFiles


@dataclass(frozen=True)
class ReportFlags:
    """Flags of `havoc report`."""

    run_dir: Annotated[str, tyro.conf.Positional] = "."
    """Folder of the run."""


def run(argv: Sequence[str]) -> int:
    """Write logs/report.html of a run and print its path."""
    flags = parse(ReportFlags, argv, prog="havoc report", description="One self-contained HTML page about a run.")
    from havoc_core import checkpoint
    from havoc_training.checkpointing import find_newest

    folder = Path(flags.run_dir)
    newest = find_newest(folder / "checkpoints") or find_newest(folder)
    if newest is None:
        raise CheckpointError(str(folder), "holds no checkpoints.", "Train first: havoc run, or havoc train.")
    newest = checkpoint.resolve(newest)
    saved = from_json((newest / "config.json").read_text(encoding="utf-8"), where=str(newest / "config.json"))
    config = saved.model_copy(update={"run_dir": str(folder)}) if (folder / "checkpoints").is_dir() else saved
    stages = StageLog.open(RunFiles.of(config).stages).seconds()
    print(write_report(config, command=f"havoc report {flags.run_dir}", checkpoint=newest, stages=stages))
    return 0


def write_report(config: TrainingConfig, *, command: str, checkpoint: Path, stages: Mapping[str, float]) -> Path:
    """Write the page about a run; gives its path.

    Args:
        config: the run.
        command: shown on the page.
        checkpoint: whose state is reported.
        stages: stage -> seconds.
    """
    from havoc_cli.run_facts import gather
    from havoc_report.page import write_page
    from havoc_report.run_page import run_page

    path = RunFiles.of(config).report
    write_page(path, run_page(gather(config, command=command, checkpoint=checkpoint, stages=stages)))
    return path
