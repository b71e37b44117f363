"""A Hugging Face folder comes in as it went out, and what it asks for in vain is named."""

from __future__ import annotations

import json

import pytest
import torch

from havoc_core import checkpoint
from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError, DataError
from havoc_core.model import first_weights
from havoc_core.models import havoc
from havoc_inference import exported
from havoc_inference.export import hugging_face
from havoc_inference.export.exported_weights import ExportedWeights
from havoc_inference.load import load_checkpoint, open_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def out(folder, tmp_path):
    """The checkpoint of the conftest as a Hugging Face folder."""
    contents = open_checkpoint(folder)
    (tmp_path / "out").mkdir()
    hugging_face.write(contents, ExportedWeights(contents, contents.dtype), tmp_path / "out")
    return tmp_path / "out"


def change(out, **values):
    config = json.loads((out / "config.json").read_text())
    config.update(values)
    (out / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value != "GONE"}))
    return out


def test_what_went_out_comes_back(out, folder):
    wanted = load_checkpoint(folder, device=CPU)
    (out / "havoc_export.json").write_text(json.dumps({"format": "havoc-export", "step": 7, "dummy_data": True}))
    found = exported.load_exported(out, device=CPU)
    assert found.config.model_copy(update={"size": wanted.config.size}) == wanted.config
    assert found.tokenizer.fingerprint() == wanted.tokenizer.fingerprint()
    assert (found.step, found.dummy_data) == (7, True)
    assert not found.model.training
    for name, parameter in wanted.model.named_parameters():
        assert torch.equal(found.model.get_parameter(name), parameter)


def test_a_folder_of_others_has_no_step_and_another_dtype_can_be_asked_for(out):
    found = exported.load_exported(out, device=CPU, dtype=torch.bfloat16)
    assert (found.step, found.dummy_data, found.model.head.dtype) == (0, False, torch.bfloat16)


def test_an_export_and_a_checkpoint_are_told_apart(out, folder, tmp_path):
    assert exported.is_exported(out)
    assert not exported.is_exported(folder / "checkpoints" / "checkpoint_step_7")
    assert not exported.is_exported(tmp_path)
    (out / "config.json").write_text("{")
    assert not exported.is_exported(out)


def test_an_imported_folder_is_a_checkpoint_with_its_tokenizer(out, folder, tmp_path):
    target = tmp_path / "run" / "checkpoints" / "checkpoint_step_0"
    exported.import_folder(out, target)
    wanted, found = load_checkpoint(folder, device=CPU), load_checkpoint(tmp_path / "run", device=CPU)
    assert found.tokenizer.fingerprint() == wanted.tokenizer.fingerprint()
    for name, parameter in wanted.model.named_parameters():
        assert torch.equal(found.model.get_parameter(name), parameter)
    settings = TrainingConfig.model_validate(checkpoint.load_json(target, "config.json"))
    assert settings.data.max_sequence_length == settings.model.max_seq_len == 96
    with pytest.raises(ConfigError, match=r"checkpoint_step_0 is there already\. Name another folder"):
        exported.import_folder(out, target)


def test_every_spelling_of_plain_rotary_positions_is_read(out):
    """Regression: a base inside `rope_scaling` was passed over, and the model read with 10,000."""
    path = out / "config.json"
    values = json.loads(path.read_text())
    for name in ("rope_theta", "rope_parameters", "rope_scaling"):
        values.pop(name, None)
    for spelling in (
        {"rope_theta": 2e6},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 2e6}},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 2e6}, "rope_parameters": None},
    ):
        path.write_text(json.dumps({**values, **spelling}))
        assert exported.read_config(out).attention.rope_theta == 2e6


def test_a_model_that_transformers_wrote_comes_in_with_the_same_logits(tmp_path, tokenizer):
    """Old spelling, no head_dim, float16, a tied head: as most Llamas of the hub are."""
    reference = pytest.importorskip("safetensors.torch")
    values = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 640, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 64,
        "rope_theta": 5e5, "rope_scaling": None, "tie_word_embeddings": True, "torch_dtype": "float16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = exported.read_config(tmp_path)
    assert (config.head_dim, config.attention.num_kv_heads, config.attention.rope_theta) == (8, 4, 5e5)
    weights = {name: value.half() for name, value in first_weights(havoc.build(config), seed=1).items()}
    inverse = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    reference.save_file({**weights, **inverse}, tmp_path / "model.safetensors")
    tokenizer.save(tmp_path)
    found = exported.load_exported(tmp_path, device=CPU)
    assert found.model.head.dtype == torch.float32
    assert torch.equal(found.model.head, weights["model.embed_tokens.weight"].float())


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, r"rope_scaling is .*llama3"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope_scaling is .*linear"),
        ({"rope_parameters": {"rope_type": "yarn"}}, r"rope_parameters is .*yarn"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, r"rope_parameters.partial_rotary_factor is 0\.25"),
        ({"attention_bias": True, "hidden_act": "gelu"}, r"attention_bias is true; hidden_act is \"gelu\""),
        ({"mlp_bias": True}, r"mlp_bias is true"),
        ({"use_sliding_window": True}, r"use_sliding_window is true"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types is .*sliding_attention"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config is "),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(out, values, named):
    with pytest.raises(DataError, match=rf"asks for what this model does not have: {named}.*Only plain rotary"):
        exported.load_exported(change(out, **values), device=CPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}, r"is of architecture .*Mixtral"),
        (
            {"architectures": ["Qwen3ForSequenceClassification"]},
            r"is of architecture .*Only Qwen3ForCausalLM and Llama",
        ),
        ({"hidden_size": "GONE"}, r"lacks a width of the model, or has a wrong one \('hidden_size'\)"),
        ({"head_dim": 7}, r"describes no model that can be built here \(.*odd"),
        (
            {"vocab_size": 512},
            r"its weights do not fit its config.json: .*embed_tokens.weight is \[640, 32\], the config says",
        ),
        (
            {"num_hidden_layers": 3},
            r"its weights do not fit its config.json: model.layers.2.*is missing.* and \d+ more",
        ),
        ({"num_hidden_layers": 1}, r"its weights do not fit its config.json: model.layers.1.*is not part of the model"),
    ],
)
def test_a_config_of_another_model_is_said(out, values, message):
    with pytest.raises(DataError, match=message):
        exported.load_exported(change(out, **values), device=CPU)


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_file_that_is_no_config_is_said(out, content):
    (out / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"is no config of a model \("):
        exported.load_exported(out, device=CPU)


def test_a_tokenizer_of_another_model_is_refused(out, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "vocab_size", 641)
    monkeypatch.setattr(exported, "_tokenizer", lambda _: tokenizer)
    with pytest.raises(DataError, match=r"its tokenizer has 641 ids, its model only 640\."):
        exported.load_exported(out, device=CPU)
