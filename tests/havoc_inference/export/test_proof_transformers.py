"""transformers, today's and 4.57, loads the export and agrees; and a wrong export is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from havoc_core.errors import CheckpointError
from havoc_inference.export import hugging_face, proof_transformers
from havoc_inference.export.comparison import require_agreement
from havoc_inference.export.exported_weights import ExportedWeights

TRANSFORMERS_4 = Path(__file__).resolve().parents[3] / ".venv" / "transformers-4"


def compared(contents, folder, dtype=None, **arguments):
    folder.mkdir(exist_ok=True)
    weights = ExportedWeights(contents, dtype or contents.dtype)
    if not (folder / "config.json").exists():
        hugging_face.write(contents, weights, folder)
    return proof_transformers.compare(contents, weights, folder, **arguments)


def measured(comparison):
    return {figure.what: figure.measured for figure in comparison.figures}


def test_where_it_is_not_installed_that_is_said(make, tmp_path, monkeypatch):
    monkeypatch.setattr(proof_transformers, "is_installed", lambda package: package != "transformers")
    comparison = compared(make(), tmp_path / "out")
    assert not comparison.made
    assert "it is not installed. To have it made: pip install transformers, then export again." in comparison.how


@pytest.mark.slow
def test_a_model_that_is_too_large_to_be_loaded_whole_is_compared_block_by_block(make, tmp_path):
    contents = make(dtype=torch.bfloat16, attention={"qk_norm": False}, tie_embeddings=True)
    comparison = compared(contents, tmp_path / "out", whole_bytes=0)
    require_agreement(comparison)
    assert comparison.runtime.startswith("transformers 5.")
    assert "LlamaForCausalLM" in comparison.how and "one block in memory" in comparison.how
    assert measured(comparison)["largest difference of a logit"] <= 1e-4


@pytest.mark.slow
def test_the_generation_before_agrees_too(make, tmp_path):
    if not TRANSFORMERS_4.is_dir():
        pytest.skip(f"{TRANSFORMERS_4} is not there; `make test` installs it")
    comparison = compared(make(), tmp_path / "out", python_path=TRANSFORMERS_4)
    require_agreement(comparison)
    assert comparison.runtime == "transformers 4.57.6"
    assert measured(comparison)["largest difference of a logit"] <= 1e-4
    assert measured(comparison)["of 200 lines, encoded otherwise"] == 0


@pytest.mark.slow
def test_a_wrong_export_is_found(make, tmp_path):
    """The rotary base in one spelling only, and another chat template: what other exporters got wrong."""
    contents = make()
    compared_folder = tmp_path / "out"
    compared_folder.mkdir()
    hugging_face.write(contents, ExportedWeights(contents, torch.float32), compared_folder)
    config = json.loads((compared_folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = config["rope_theta"] = 1e4
    (compared_folder / "config.json").write_text(json.dumps(config))
    (compared_folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    comparison = compared(contents, compared_folder)
    with pytest.raises(CheckpointError, match=r"does not agree with the checkpoint: largest difference of a logit"):
        require_agreement(comparison)
    assert measured(comparison)["of 2 dialogs, rendered otherwise"] == 2
