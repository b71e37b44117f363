"""The file against the `gguf` package's own reader; that llama.cpp agrees with it is in test_proof_llama_cpp.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from havoc_core.errors import ConfigError, MissingPackageError
from havoc_core.tokenizer import BpeEngine, Tokenizer
from havoc_inference.export import gguf as ours
from havoc_inference.export.exported_weights import ExportedWeights
from havoc_inference.export.gguf_tokens import CONTROL, NORMAL, UNUSED, gguf_tokens
from havoc_inference.export.tokenizer_files import byte_level_spec

package = pytest.importorskip("gguf")


def written(contents, path, kind, dtype=torch.float32):
    ours.write(path, ExportedWeights(contents, dtype), contents.config, contents.tokenizer, kind=kind)
    reader = package.GGUFReader(path)
    return {tensor.name: tensor for tensor in reader.tensors}, reader.fields


def values(tensor):
    return package.quants.dequantize(tensor.data, tensor.tensor_type)


def test_float32_is_every_value_as_it_was(make, tmp_path):
    contents = make()
    tensors, fields = written(contents, tmp_path / "x.gguf", "f32")
    assert len(tensors) == len(contents.weights) == 2 * 11 + 3
    for theirs, name in (
        ("blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight"),
        ("output.weight", "lm_head.weight"),
    ):
        assert np.array_equal(values(tensors[theirs]), contents.weights[name].numpy())
    assert fields["general.architecture"].contents() == "qwen3"
    assert fields["qwen3.rope.freq_base"].contents() == 5e5
    assert fields["qwen3.attention.key_length"].contents() == 16
    assert fields["tokenizer.ggml.pre"].contents() == "qwen2"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True


def test_rows_of_a_llama_are_in_the_order_of_neighbouring_channels(make, tmp_path):
    contents = make(attention={"qk_norm": False})
    tensors, _ = written(contents, tmp_path / "x.gguf", "f32")
    mine = contents.weights["model.layers.0.self_attn.q_proj.weight"].numpy()
    theirs = values(tensors["blk.0.attn_q.weight"])
    # Head 1 of 16 channels: channel 3 of its first half lies in row 6, of its second half in row 7.
    assert np.array_equal(theirs[16 + 6], mine[16 + 3]) and np.array_equal(theirs[16 + 7], mine[16 + 8 + 3])
    assert np.array_equal(
        values(tensors["blk.0.attn_v.weight"]), contents.weights["model.layers.0.self_attn.v_proj.weight"]
    )


@pytest.mark.parametrize(("kind", "error"), [("bf16", 0.004), ("q8_0", 0.01), ("q4_0", 0.15)])
def test_narrower_numbers_are_near_and_norms_are_exact(make, tmp_path, kind, error):
    """Largest rounding over the largest value of a block: 2^-9, 1/254 and 1/16, with room for float16 scales."""
    contents = make()
    tensors, _ = written(contents, tmp_path / "x.gguf", kind)
    weights = contents.weights["model.layers.0.mlp.gate_proj.weight"].numpy()
    found = values(tensors["blk.0.ffn_gate.weight"])
    assert 0 < np.abs(found - weights).max() < error * np.abs(weights).max()
    assert np.array_equal(values(tensors["output_norm.weight"]), contents.weights["model.norm.weight"].numpy())
    assert tensors["token_embd.weight"].tensor_type.name == ("Q8_0" if kind == "q4_0" else kind.upper())


def test_rows_that_cannot_be_cut_into_blocks_stay_bfloat16_and_are_named(make, tmp_path):
    contents = make(mlp={"hidden_dim": 100})
    tensors, _ = written(contents, tmp_path / "x.gguf", "q8_0")
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == "BF16"
    weights = ExportedWeights(contents, torch.float32)
    assert ours.kept_wide(weights, contents.config, "q8_0") == [
        f"model.layers.{n}.mlp.down_proj.weight" for n in (0, 1)
    ]
    assert ours.kept_wide(weights, contents.config, "bf16") == []


def test_every_row_of_the_embedding_has_a_token_of_its_own(tokenizer):
    found = gguf_tokens(tokenizer, vocab_size=640)
    assert len(set(found.tokens)) == len(found.types) == 640
    assert (found.tokens[1], found.types[1]) == ("<|eos|>", CONTROL)
    assert found.types[300] == NORMAL
    assert (found.tokens[639], found.types[639]) == ("<|unused_639|>", UNUSED)
    assert all(merge.count(" ") == 1 for merge in found.merges)


@pytest.mark.parametrize(
    ("pre_tokenizer", "ignore_merges", "name"),
    [
        ({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, False, "gpt-2"),
        ("digits", True, "llama-bpe"),
    ],
)
def test_the_splits_of_others_have_their_names(tokenizer, pre_tokenizer, ignore_merges, name):
    assert gguf_tokens(changed(tokenizer, pre_tokenizer, ignore_merges), vocab_size=640).pre == name


def test_a_split_without_a_name_is_refused(tokenizer):
    for before, ignore in (
        ("digits", False),
        ({"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}, False),
    ):
        with pytest.raises(ConfigError, match=r"in a way that llama.cpp has no name for here\."):
            gguf_tokens(changed(tokenizer, before, ignore), vocab_size=640)


def changed(tokenizer, pre_tokenizer, ignore_merges):
    import json

    from tokenizers import Tokenizer as FastTokenizer

    spec = byte_level_spec(tokenizer)
    if pre_tokenizer == "digits":  # Llama 3 takes up to three together
        split = spec["pre_tokenizer"]["pretokenizers"][0]
        split["pattern"]["Regex"] = split["pattern"]["Regex"].replace(r"|\p{N}|", r"|\p{N}{1,3}|")
    else:
        spec["pre_tokenizer"] = {"trim_offsets": True, **pre_tokenizer}
    spec["model"]["ignore_merges"] = ignore_merges
    return Tokenizer(BpeEngine(FastTokenizer.from_str(json.dumps(spec))))


def test_a_sentencepiece_model_is_refused_by_name(monkeypatch, tokenizer):
    monkeypatch.setattr("havoc_inference.export.gguf_tokens.byte_level_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"the tokenizer is a SentencePiece model, and only byte-level BPE"):
        gguf_tokens(tokenizer, vocab_size=640)


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingPackageError, match=r"the package gguf is not installed\. pip install 'havoc\[export\]'"):
        ours.require_package()


def test_ollama_is_told_where_a_message_ends(make):
    contents = make()
    text = ours.modelfile("x.gguf", contents.config, contents.tokenizer)
    assert "FROM ./x.gguf" in text and 'PARAMETER stop "<|end|>"' in text and "num_ctx 96" in text
    assert "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>" in text
