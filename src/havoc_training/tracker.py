"""What a tracker is given: an observer that shows a run somewhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrackerSettings:
    """What every tracker is given. A file on the shelf has `build(settings, options) -> Observer`."""

    log_dir: Path
    run_name: str
    interval_steps: int
    """Steps between points."""
