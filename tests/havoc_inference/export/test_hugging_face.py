"""What stands in config.json and its neighbours. That transformers agrees with it is in test_proof_transformers.py."""

from __future__ import annotations

import json

import torch

from havoc_inference.export import hugging_face
from havoc_inference.export.exported_weights import ExportedWeights


def written(contents, folder, dtype=None, **arguments):
    folder.mkdir()
    files = hugging_face.write(contents, ExportedWeights(contents, dtype or contents.dtype), folder, **arguments)
    return files, json.loads((folder / "config.json").read_text())


def test_the_rotary_base_is_there_in_both_spellings(make, tmp_path):
    """Regression of others: with the new one alone, transformers 4.57 takes 10,000 and says nothing."""
    _, config = written(make(), tmp_path / "out")
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5e5
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert (config["architectures"], config["head_dim"]) == (["Qwen3ForCausalLM"], 16)


def test_without_norms_on_heads_it_is_a_llama(make, tmp_path):
    _, config = written(make(attention={"qk_norm": False}, dtype=torch.bfloat16), tmp_path / "out")
    assert (config["architectures"], config["model_type"], config["dtype"]) == (
        ["LlamaForCausalLM"],
        "llama",
        "bfloat16",
    )


def test_generation_ends_at_both_ends_and_never_gives_an_id_without_text(make, tmp_path, tokenizer):
    written(make(), tmp_path / "out")
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [tokenizer.eos_id, tokenizer.special["<|end|>"]]
    never = set(generation["suppress_tokens"])
    assert {0, 2, 255, 639} <= never and not never & {tokenizer.eos_id, tokenizer.encode("a")[0]}


def test_a_tied_head_is_left_out_and_large_models_take_several_files(make, tmp_path):
    contents = make(tie_embeddings=True, dtype=torch.bfloat16)
    files, config = written(contents, tmp_path / "out", max_shard_bytes=50_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(files) > 2 and config["tie_word_embeddings"] is True
    assert set(index["weight_map"].values()) == set(files)
    assert "lm_head.weight" not in index["weight_map"]


def test_weights_are_rounded_to_the_dtype_that_is_asked_for_and_norms_are_not(make):
    contents = make()
    weights = ExportedWeights(contents, torch.bfloat16)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(weights[name], contents.weights[name].bfloat16())
    assert weights["model.norm.weight"].dtype == torch.float32
    made = weights.sources()[name].made()
    assert made.dtype == torch.bfloat16 and torch.equal(made, weights[name])
