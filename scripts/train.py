"""`python scripts/train.py …` is `havoc train …`; also for torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

from havoc_cli.main import main

if __name__ == "__main__":
    config = Path(__file__).resolve().parent.parent / "configs" / "training" / "default_training.yaml"
    sys.exit(main(["train", *sys.argv[1:]], default_config=str(config)))
