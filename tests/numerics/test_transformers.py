"""Logits against transformers' Qwen3 and Llama with the same weights."""

from __future__ import annotations

import warnings

import pytest
import torch

from havoc_core.config import ModelConfig
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc

pytestmark = pytest.mark.slow

V, T = 640, 48
SHAPE = {
    "size": "nano", "vocab_size": V, "d_model": 64, "num_layers": 3, "max_seq_len": 64, "initializer_range": 0.15,
    "layer_norm_eps": 1e-5, "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "rope_theta": 5e4},
    "mlp": {"hidden_dim": 96},
}  # fmt: skip


def ours(**changes):
    attention = {**SHAPE["attention"], **changes.pop("attention", {})}
    config = ModelConfig.model_validate({**SHAPE, **changes, "attention": attention})
    model = havoc.build(config)
    weights = first_weights(model, seed=11)
    for name, value in weights.items():  # norms of one would hide a norm that is not applied
        if value.dim() == 1:
            value.mul_(torch.linspace(0.5, 1.5, len(value)))
        assert name in dict(model.named_parameters())
    place_weights(model, weights, dtype=torch.float32, device=torch.device("cpu"))
    return model.eval()


def theirs(model, *, qk_norm, tied):
    """Their model, with our state dict loaded name by name, nothing missing and nothing left over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside transformers are theirs
        import transformers

        shape = {
            "vocab_size": V, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
            "rope_theta": 5e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}, "tie_word_embeddings": tied,
            "attention_bias": False,
        }  # fmt: skip
        kind = "Qwen3" if qk_norm else "Llama"
        config = getattr(transformers, kind + "Config")(**shape)
        model_class = getattr(transformers, kind + "ForCausalLM")
        built = model_class(config).eval()
        missing, unexpected = built.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"} if tied else not missing
    return built


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_logits_are_those_of_qwen3_and_of_llama(qk_norm, tied):
    model = ours(attention={"qk_norm": qk_norm}, tie_embeddings=tied)
    ids = torch.randint(0, V, (3, T), generator=torch.Generator().manual_seed(0))
    wanted = theirs(model, qk_norm=qk_norm, tied=tied)(ids).logits
    found = model.logits(model(ids))
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@torch.no_grad()
def test_the_comparison_can_fail():
    """Other positions, other epsilon: the same weights give other logits."""
    ids = torch.randint(0, V, (3, T), generator=torch.Generator().manual_seed(0))
    model = ours()
    wanted = theirs(model, qk_norm=True, tied=False)(ids).logits
    for changed in (ours(attention={"rope_theta": 1e4}), ours(attention={"rotary_dim": 8}), ours(layer_norm_eps=1e-2)):
        assert float((changed.logits(changed(ids)) - wanted).abs().max()) > 1e-3 * float(wanted.abs().max())


def test_gradients_are_theirs_too():
    model = ours()
    reference = theirs(model, qk_norm=True, tied=False)
    ids = torch.randint(0, V, (2, T), generator=torch.Generator().manual_seed(1))
    for one in (model, reference):
        one.zero_grad()
    from havoc_core.loss import cross_entropy_sum

    cross_entropy_sum(model(ids[:, :-1]), model.head, ids[:, 1:]).backward()
    logits = reference(ids[:, :-1]).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()
    wanted = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        error = (parameter.grad - wanted[name].grad).abs().max() / wanted[name].grad.abs().max()
        assert float(error) < 2e-5, name  # two float32 computations, each within 1e-5 of the truth
