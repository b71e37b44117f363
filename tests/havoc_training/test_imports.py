from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_training_on_a_finished_store_needs_torch_and_little_else(tmp_path):
    """A GPU machine has a store, torch, and none of the packages that text and problems are made with."""
    code = f"""
import sys
from havoc_core.config_files import resolve
from havoc_data.prepare.build import prepare
from havoc_training.build import build_trainer
values = {{
    "run_dir": {str(tmp_path)!r}, "max_steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "eval_samples": 1,
    "model": {{"size": "nano", "num_layers": 1, "max_seq_len": 64, "vocab_size": 600}},
    "data": {{"max_sequence_length": 64, "num_workers": 1, "sources": [
        {{"kind": "dummy", "name": "a", "group": "domain", "options": {{"documents": 99, "seed": 0}}}},
        {{"kind": "dummy", "name": "b", "group": "general", "options": {{"documents": 99, "seed": 1}}}},
        {{"kind": "problems", "group": "dialog", "options": {{"count": 300}}}}]}},
    "tracking": {{"trackers": []}}, "evaluation": {{"exam_problems": 8}},
}}
if len(sys.argv) == 1:
    prepare(resolve(values, {{}}).config)
else:
    build_trainer(resolve(values, {{}}).config).fit()
    # Not SymPy: torch needs it itself.
    print(sorted({{"scipy", "pandas", "statsmodels", "matplotlib", "transformers"}} & set(sys.modules)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
    out = subprocess.run([sys.executable, "-c", code, "train"], check=True, capture_output=True, text=True, timeout=120)
    assert out.stdout.splitlines()[-1] == "[]"
