"""The decoder as a whole: positions, dropout, documents, cache, first weights."""

from __future__ import annotations

import math

import pytest
import torch

from havoc_core.config import ModelConfig
from havoc_core.layers.segments import Segments
from havoc_core.model import count_parameters, first_weights, place_weights
from havoc_core.models import havoc

CPU = torch.device("cpu")
SMALL = {
    "size": "nano", "vocab_size": 512, "d_model": 32, "num_layers": 2, "max_seq_len": 64, "initializer_range": 0.2,
    "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8}, "mlp": {"hidden_dim": 48},
}  # fmt: skip


def make(dtype=torch.float32, **changes):
    config = ModelConfig.model_validate({**SMALL, **changes})
    model = havoc.build(config)
    place_weights(model, first_weights(model, seed=1), dtype=dtype, device=CPU)
    return model.eval()


def tokens(*shape, seed=0):
    return torch.randint(0, 512, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_later_token_changes_nothing_before_it():
    model, ids = make(), tokens(2, 16)
    before = model(ids)
    ids[:, 10:] = tokens(2, 6, seed=9)
    after = model(ids)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


@torch.no_grad()
def test_a_document_is_unaffected_by_the_others_in_its_row():
    model = make()
    segments = Segments.of_lengths([[5, 7]], 16)
    one, other = tokens(1, 16, seed=1), tokens(1, 16, seed=2)
    one[:, 5:12] = other[:, 5:12]
    assert torch.equal(model(one, segments=segments)[:, 5:12], model(other, segments=segments)[:, 5:12])
    assert not torch.allclose(model(one)[:, 5:12], model(other)[:, 5:12])


@torch.no_grad()
def test_a_document_in_the_middle_of_a_row_gives_what_it_gives_alone():
    model, ids = make(), tokens(1, 20)
    packed = model(ids, segments=Segments.of_lengths([[6, 9]], 20))[:, 6:15]
    alone = model(ids[:, 6:15])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5 * float(alone.abs().max()))


def test_the_gradient_of_one_document_does_not_reach_another():
    model, ids = make(), tokens(1, 12)
    model(ids, segments=Segments.of_lengths([[4, 8]], 12))[:, 4:].sum().backward()
    reached = set(ids[0, 4:].tolist())
    gradient = model.model.embed_tokens.weight.grad
    assert {int(i) for i in gradient.abs().sum(1).nonzero()} <= reached


@torch.no_grad()
def test_dropout_works_in_training_only():
    model, ids = make(dropout=0.5), tokens(1, 8)
    assert torch.equal(model(ids), make(dropout=0.0)(ids))
    model.train()
    torch.manual_seed(0)
    first, second = model(ids), model(ids)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(first, model(ids))


@torch.no_grad()
def test_without_dropout_training_and_evaluation_agree():
    model, ids = make(), tokens(1, 8)
    assert torch.equal(model(ids), model.train()(ids))


@torch.no_grad()
def test_layer_norm_eps_reaches_every_norm():
    model = make(layer_norm_eps=0.25)
    norms = [module for module in model.modules() if type(module).__name__ == "RMSNorm"]
    assert len(norms) == 2 * 4 + 1
    assert {norm.eps for norm in norms} == {0.25}


@torch.no_grad()
def test_channels_beyond_rotary_dim_know_no_position():
    attention = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
    model = make(num_layers=1, attention={**attention, "rotary_dim": 2})
    for name in ("q_proj", "k_proj"):  # only channels that are not rotated are left
        weight = getattr(model.model.layers[0].self_attn, name).weight.view(-1, 8, 32)
        weight[:, :2] = 0.0
    ids = tokens(1, 8)
    swapped = ids[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    assert torch.allclose(model(ids)[:, 2:], model(swapped)[:, 2:], atol=1e-5)  # order is invisible
    whole = make(num_layers=1, attention=attention)
    assert not torch.allclose(whole(ids)[:, 2:], whole(swapped)[:, 2:], atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_the_embedding_if_tied(tied):
    model = make(tie_embeddings=tied)
    assert (model.head is model.model.embed_tokens.weight) == tied
    assert count_parameters(model.parameters()) == count_parameters(make().parameters()) - tied * 512 * 32
    hidden = torch.randn(2, 3, 32)
    torch.testing.assert_close(model.logits(hidden), hidden @ model.head.t())


def test_first_weights_depend_on_seed_and_name_alone():
    small = first_weights(make(), seed=7)
    deeper = first_weights(make(num_layers=5, tie_embeddings=True), seed=7)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(small[name], deeper[name])
    assert torch.equal(small["model.embed_tokens.weight"], deeper["model.embed_tokens.weight"])
    torch.manual_seed(123)
    assert torch.equal(first_weights(make(torch.bfloat16), seed=7)[name], small[name])
    assert not torch.equal(first_weights(make(), seed=8)[name], small[name])
    assert not torch.equal(small[name], small[name.replace("layers.1", "layers.0")])


def test_first_weights_are_a_format():
    """These numbers may not change: a seed names a run."""
    weights = first_weights(make(), seed=42)
    found = weights["model.layers.0.mlp.up_proj.weight"].flatten()[:3].tolist()
    assert found == pytest.approx([-0.0905105, -0.1401722, -0.2522387], rel=1e-5)  # the last bit is the processor's


def test_first_weights_have_the_configured_spread():
    model = havoc.build(ModelConfig.model_validate({"size": "nano", "initializer_range": 0.02}))
    weights = first_weights(model, seed=0)
    for name, values in weights.items():
        if name.endswith("norm.weight"):
            assert bool((values == 1).all())
            continue
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        wanted = 0.02 / math.sqrt(2 * 4) if residual else 0.02
        assert abs(float(values.std()) / wanted - 1) < 0.03, name
        assert abs(float(values.mean())) < wanted * 0.03, name


def test_matrices_take_the_working_format_and_norms_stay_float32():
    model = make(torch.bfloat16)
    assert {p.dtype for p in model.parameters() if p.dim() == 2} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.dim() == 1} == {torch.float32}
    assert model(tokens(1, 4)).dtype == torch.bfloat16
    assert not any(p.is_meta for p in model.parameters())


def test_a_model_is_built_without_memory():
    assert all(p.is_meta for p in havoc.build(ModelConfig()).parameters())


def test_the_names_are_those_of_qwen3():
    names = set(dict(make().named_parameters()))
    block = "model.layers.1."
    assert {
        "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", block + "input_layernorm.weight",
        block + "post_attention_layernorm.weight", block + "self_attn.q_norm.weight", block + "self_attn.k_norm.weight",
        *(block + f"self_attn.{x}_proj.weight" for x in "qkvo"), *(block + f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
    } <= names  # fmt: skip
    assert len(names) == 3 + 2 * 11


@torch.no_grad()
def test_bfloat16_logits_follow_float32_to_its_own_precision():
    ids = tokens(1, 16)
    wide, narrow = make(), make(torch.bfloat16)
    a, b = wide.logits(wide(ids)), narrow.logits(narrow(ids)).float()
    assert float((a - b).abs().max()) < 0.05 * float(a.abs().max())  # 8 bits of mantissa through two blocks
