"""The script that measures a GPU runs, in its small form, without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "one_gpu.py"


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_in_its_small_form(tmp_path):
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--only", "fidelity", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    assert '"bit_equal_to_resident": {"stream": true, "offload": true}' in row
