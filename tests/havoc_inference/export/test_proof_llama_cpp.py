"""llama.cpp loads the export and agrees; and a wrong export is found."""

from __future__ import annotations

import pytest
import torch

from havoc_core.errors import CheckpointError
from havoc_inference.export import gguf, proof_llama_cpp
from havoc_inference.export.comparison import require_agreement
from havoc_inference.export.exported_weights import ExportedWeights

pytest.importorskip("gguf")


def compared(contents, path, kind):
    weights = ExportedWeights(contents, contents.dtype)
    if not path.exists():
        gguf.write(path, weights, contents.config, contents.tokenizer, kind=kind)
    return proof_llama_cpp.compare(contents, weights, path, kind=kind, subject="The file")


def measured(comparison):
    return {figure.what: figure.measured for figure in comparison.figures}


def test_where_it_is_not_installed_that_is_said(make, tmp_path, monkeypatch):
    monkeypatch.setattr(proof_llama_cpp, "is_installed", lambda package: package != "xllamacpp")
    comparison = compared(make(), tmp_path / "x.gguf", "f32")
    assert not comparison.made
    assert "xllamacpp is not installed. To have it made: pip install xllamacpp, then export again." in comparison.how


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"attention": {"qk_norm": False}, "tie_embeddings": True}])
def test_in_float32_log_probabilities_and_greedy_text_are_equal(make, tmp_path, changes):
    pytest.importorskip("xllamacpp")
    comparison = compared(make(**changes), tmp_path / "x.gguf", "f32")
    require_agreement(comparison)
    figures = measured(comparison)
    assert figures["largest difference of a log-probability"] <= 1e-3
    assert figures["of 200 lines, encoded otherwise"] == figures["of 2 dialogs, rendered otherwise"] == 0
    assert next(value for what, value in figures.items() if "greedy" in what) == 0


@pytest.mark.slow
def test_quantized_weights_are_measured_and_have_no_limit(make, tmp_path):
    pytest.importorskip("xllamacpp")
    comparison = compared(make(), tmp_path / "x.gguf", "q8_0")
    require_agreement(comparison)
    limits = {figure.what: figure.limit for figure in comparison.figures}
    assert limits["mean KL divergence in nats"] is None
    # Random weights exaggerate: 1e-3 here, 1e-6 on trained ones.
    assert 0 < measured(comparison)["mean KL divergence in nats"] < 0.01


@pytest.mark.slow
def test_a_llama_without_its_permutation_is_found(make, tmp_path, monkeypatch):
    """It loads without a word and talks nonsense (ggml-org/llama.cpp#22611)."""
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(gguf, "_neighbours", lambda values, head_dim: values)
    comparison = compared(make(attention={"qk_norm": False}), tmp_path / "x.gguf", "f32")
    with pytest.raises(CheckpointError, match=r"llama.cpp .*does not agree with the checkpoint"):
        require_agreement(comparison)


@pytest.mark.slow
def test_a_file_that_breaks_off_is_an_answer(make, tmp_path):
    pytest.importorskip("xllamacpp")
    contents = make()
    path = tmp_path / "x.gguf"
    gguf.write(path, ExportedWeights(contents, torch.float32), contents.config, contents.tokenizer, kind="f32")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"llama.cpp: could not load what was exported"):
        compared(contents, path, "f32")
