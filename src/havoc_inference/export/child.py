"""A question to other software, asked in a process of its own: its memory, its threads and its crashes stay there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from havoc_core.errors import CheckpointError


@dataclass(frozen=True)
class Answers:
    """What a runtime said."""

    plain: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def ask(program: str, request: Mapping[str, Any], *, runtime: str, python_path: Path | None = None) -> Answers:
    """Run one of the programs beside this file.

    Args:
        program: its name, such as "ask_transformers".
        request: plain values.
        runtime: what errors call it.
        python_path: folder whose packages come before the installed ones.

    Raises:
        CheckpointError: the runtime could not load the export or died over it.
    """
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    with TemporaryDirectory() as name:
        question, answer = Path(name) / "request.json", Path(name) / "answers.npz"
        question.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, str(Path(__file__).with_name(f"{program}.py")), str(question), str(answer)]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode != 0 or not answer.is_file():
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            reason = said[-1].strip() if said else f"exit code {done.returncode}"
            raise CheckpointError(
                runtime,
                f"could not load what was exported ({reason}).",
                "No export was written. Please report it with the version of that software.",
            )
        with np.load(answer) as arrays:
            values = {key: arrays[key] for key in arrays.files}
    return Answers(json.loads(str(values.pop("answers"))), values)
