"""The order of events: write, compare, and only then give it its name. Real runtimes are asked in test_proof_*.py."""

from __future__ import annotations

import json

import pytest
import torch

from havoc_core.errors import CheckpointError, ConfigError
from havoc_inference.export import exporting, proof_llama_cpp, proof_transformers
from havoc_inference.export.comparison import Comparison, Figure
from havoc_inference.export.exporting import Order, export

pytest.importorskip("gguf")


@pytest.fixture
def asked(monkeypatch):
    """Both runtimes agree, and what they were asked about is noted."""
    seen = []

    def transformers(contents, weights, folder):
        seen.append(("hf", weights.dtype, sorted(path.name for path in folder.iterdir())))
        return Comparison("transformers 5", "How.", (Figure("a logit", 1e-6, 1e-4),))

    def llama_cpp(contents, weights, file, *, kind, subject):
        seen.append((kind, weights.dtype, file.stat().st_size))
        return Comparison("llama.cpp", subject, (Figure("a log-probability", 1e-6, 1e-3),))

    monkeypatch.setattr(proof_transformers, "compare", transformers)
    monkeypatch.setattr(proof_llama_cpp, "compare", llama_cpp)
    return seen


def test_a_folder_for_transformers_has_weights_tokenizer_card_and_record(make, tmp_path, asked):
    said: list[str] = []
    made = export(make(dtype=torch.bfloat16), Order("hf", tmp_path / "out"), say=said.append)
    assert asked[0][:2] == ("hf", torch.bfloat16)
    record = json.loads((tmp_path / "out" / "havoc_export.json").read_text())
    assert (record["kind"], record["step"], record["dummy_data"]) == ("bf16", 7, True)
    assert record["comparisons"] == [{"runtime": "transformers 5", "made": True, "figures": {"a logit": [1e-6, 1e-4]}}]
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(
        record["files"]
    )
    assert made.files == ("model.safetensors",)
    assert "transformers 5: a logit: 1.0e-06 (limit 1.0e-04)" in said


def test_a_checkpoint_in_bfloat16_can_be_written_in_float32_and_the_other_way(make, tmp_path, asked):
    export(make(dtype=torch.bfloat16), Order("hf", tmp_path / "a", "f32"), say=lambda _: None)
    export(make(name="other"), Order("hf", tmp_path / "b", "bf16"), say=lambda _: None)
    assert [dtype for _, dtype, _ in asked] == [torch.float32, torch.bfloat16]
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("kind", ["f32", "bf16", "q8_0", "q4_0"])
def test_what_is_not_float32_is_proven_by_a_float32_copy_of_the_same_values(make, tmp_path, asked, kind):
    export(make(dtype=torch.bfloat16), Order("gguf", tmp_path / "out", kind), say=lambda _: None)
    assert [each[0] for each in asked] == ([kind] if kind == "f32" else [kind, "f32"])
    assert {each[1] for each in asked} == {torch.float32 if kind == "f32" else torch.bfloat16}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Modelfile", "README.md", "havoc_export.json", f"model-{kind}.gguf",
    ]  # fmt: skip


def test_where_the_copy_would_be_too_large_that_is_said(make, tmp_path, asked, monkeypatch):
    monkeypatch.setattr(exporting, "COPY_BYTES", 1000)
    made = export(make(), Order("gguf", tmp_path / "out", "q8_0"), say=lambda _: None)
    assert not made.comparisons[1].made
    assert "To have it made, export with --dtype f32." in (tmp_path / "out" / "README.md").read_text()


def test_a_disagreement_leaves_nothing_behind(make, tmp_path, monkeypatch):
    wrong = Comparison("transformers 5", "How.", (Figure("a logit", 0.3, 1e-4),))
    monkeypatch.setattr(proof_transformers, "compare", lambda *_: wrong)
    contents = make()
    with pytest.raises(CheckpointError, match=r"a logit 0\.3000 \(limit 1\.0e-04\)"):
        export(contents, Order("hf", tmp_path / "out"), say=lambda _: None)
    assert not (tmp_path / "out").exists() and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_quantized_weights_are_for_gguf_alone(make, tmp_path):
    with pytest.raises(ConfigError, match=r"--dtype: q8_0 is not written to hf\. Use one of: f32, bf16"):
        export(make(), Order("hf", tmp_path / "out", "q8_0"), say=lambda _: None)


def test_a_model_that_cannot_be_exported_is_refused_before_anything_is_written(make, tmp_path):
    with pytest.raises(ConfigError, match="neither a Qwen3 nor a Llama"):
        export(make(mlp={"activation": "geglu"}), Order("gguf", tmp_path / "out"), say=lambda _: None)
    assert not (tmp_path / "out").exists()
