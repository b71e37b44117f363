"""Whole float32 masters, their groups and the rounding back."""

from __future__ import annotations

import math
import struct

import pytest
import torch

from havoc_core.config import TrainingConfig
from havoc_core.errors import CheckpointError, ConfigError
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_training.memory.stochastic_rounding import round_to_nearest
from havoc_training.optimizer import WholeOptimizer, parameter_groups

SMALL = {
    "size": "nano", "vocab_size": 512, "d_model": 16, "num_layers": 2, "max_seq_len": 32,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
}  # fmt: skip


def make(dtype=torch.float32, *, tied=False, **values):
    config = TrainingConfig.model_validate(
        {"model": {**SMALL, "tie_embeddings": tied}, "data": {"max_sequence_length": 32}, **values}
    )
    model = havoc.build(config.model)
    weights = first_weights(model, seed=3)
    place_weights(model, weights, dtype=dtype, device=torch.device("cpu"))
    return model, WholeOptimizer(model, weights if dtype != torch.float32 else None, config)


def gradients_of(model, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator) * scale for name, p in model.named_parameters()}


def from_bits(*bits):
    return torch.tensor([struct.unpack("<f", struct.pack("<I", b))[0] for b in bits])


def bits_of(values):
    return [b & 0xFFFF for b in values.view(torch.int16).tolist()]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (0x3F800000, 0x3F80),  # 1 is kept
        (0x3F807FFF, 0x3F80),  # just below the middle
        (0x3F808000, 0x3F81),  # the middle: away from zero, where torch would go to the even 0x3F80
        (0x3F818000, 0x3F82),  # the middle above an odd number: both agree
        (0xBF808000, 0xBF81),  # and away from zero below it
        (0x00008000, 0x0001),  # the smallest
        (0x00007FFF, 0x0000),
        (0x80000000, 0x8000),  # -0
        (0x7F7FFFFF, 0x7F80),  # the largest becomes infinite
        (0x7F7F7FFF, 0x7F7F),
        (0x7F800000, 0x7F80),  # infinity
        (0xFF800000, 0xFF80),
    ],
)
def test_rounding_is_to_nearest_with_ties_away_from_zero(wide, narrow):
    assert bits_of(round_to_nearest(from_bits(wide))) == [narrow]


def test_rounding_keeps_what_is_no_number():
    values = round_to_nearest(torch.tensor([math.nan, -math.nan, 1.0]))
    assert values.isnan().tolist() == [True, True, False]
    # Payloads that adding half a bit would turn into infinity or zero.
    worst = torch.tensor([0x7FFFFFFF, 0x7F800001, -1], dtype=torch.int32).view(torch.float32)
    assert round_to_nearest(worst).isnan().all()


def test_rounding_agrees_with_torch_everywhere_but_on_ties():
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    values = bits.view(torch.float32)
    values = values[values.isfinite() & ((bits & 0xFFFF) != 0x8000)]
    assert torch.equal(round_to_nearest(values), values.to(torch.bfloat16))


def test_a_signed_16_bit_remainder_always_restores_the_master():
    bits = torch.randint(0, 0x7F000000, (200_000,), generator=torch.Generator().manual_seed(1)).to(torch.int32)
    bits = torch.cat([bits, bits | -(2**31), torch.arange(0x3F800000, 0x3F810001, dtype=torch.int32)])
    rounded = round_to_nearest(bits.view(torch.float32)).view(torch.int16).to(torch.int32) << 16
    remainder = bits - rounded
    assert int(remainder.min()) >= -(2**15)
    assert int(remainder.max()) < 2**15


def test_the_working_weights_are_the_masters_rounded():
    model, optimizer = make(torch.bfloat16)
    optimizer.step(gradients_of(model))
    for name, weight in model.named_parameters():
        master = optimizer.masters[name]
        assert master.dtype == torch.float32
        if weight.dim() == 1:
            assert weight.data_ptr() == master.data_ptr()  # norms are float32 themselves
        else:
            assert torch.equal(weight, round_to_nearest(master))


def test_small_steps_add_up_in_the_master():
    """A step far below the last bit of bfloat16 must not be lost: 100 of them move the weight."""
    model, optimizer = make(torch.bfloat16, learning_rate=1e-5, min_learning_rate=0.0, weight_decay=0.0)
    name = "model.layers.0.mlp.up_proj.weight"
    before, master = dict(model.named_parameters())[name].clone(), optimizer.masters[name].clone()
    constant = {n: torch.ones_like(m) for n, m in optimizer.masters.items()}
    for _ in range(100):
        optimizer.step(constant)
    assert torch.allclose(optimizer.masters[name], master - 100 * 1e-5, atol=1e-6)
    assert not torch.equal(dict(model.named_parameters())[name], before)


def test_in_float32_master_and_weight_are_one():
    model, optimizer = make()
    assert all(p.data_ptr() == optimizer.masters[n].data_ptr() for n, p in model.named_parameters())


@pytest.mark.parametrize("decay_embeddings", [True, False])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decay_reaches_matrices_and_embeddings_as_configured_and_never_norms(name, decay_embeddings):
    _, optimizer = make(optimizer=name, decay_embeddings=decay_embeddings, weight_decay=0.5, learning_rate=0.1)
    before = {n: m.clone() for n, m in optimizer.masters.items()}
    nothing = {n: torch.zeros_like(m) for n, m in optimizer.masters.items()}
    optimizer.step(nothing)
    for n, m in optimizer.masters.items():
        embedding = n in {"model.embed_tokens.weight", "lm_head.weight"}
        decays = m.dim() == 2 and (decay_embeddings or not embedding)
        torch.testing.assert_close(m, before[n] * (1 - 0.1 * 0.5) if decays else before[n])


@pytest.mark.parametrize("tied", [True, False])
def test_the_groups_are_matrices_embeddings_and_vectors(tied):
    model, optimizer = make(tied=tied)
    groups = {g.kind: g for g in parameter_groups(model, optimizer.masters, decay_embeddings=False)}
    assert set(groups["embeddings"].names) == {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    assert len(groups["matrices"].names) == 2 * 7
    assert all("layers" in name and "norm" not in name for name in groups["matrices"].names)
    assert all("norm" in name for name in groups["vectors"].names)
    assert [groups[kind].decayed for kind in ("matrices", "embeddings", "vectors")] == [True, False, False]
    assert sum(len(g.names) for g in groups.values()) == len(list(model.parameters()))


def test_the_sums_times_a_factor_are_what_is_stepped_with():
    model, optimizer = make(torch.bfloat16)
    other_model, other = make(torch.bfloat16)
    given = gradients_of(model)
    optimizer.begin()
    for name, gradient in given.items():
        optimizer.gradients.add(name, gradient)
    optimizer.update(torch.tensor(0.25))
    other.step({name: gradient * 0.25 for name, gradient in given.items()})
    for (name, one), two in zip(model.named_parameters(), other_model.parameters(), strict=True):
        assert torch.equal(one, two), name
        assert torch.equal(optimizer.masters[name], other.masters[name]), name


def test_an_update_that_is_to_be_left_out_is_refused():
    """Optimizers of torch's kind would count it."""
    _, optimizer = make()
    assert not optimizer.leaves_out
    with pytest.raises(ValueError, match="cannot leave an update out; see `leaves_out`"):
        optimizer.update(torch.ones(()), left_out=torch.ones(()))


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_state_that_is_loaded_goes_on_as_before(name, dtype, tmp_path):
    model, optimizer = make(dtype, optimizer=name)
    for seed in range(3):
        optimizer.step(gradients_of(model, seed))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    other_model, other = make(dtype, optimizer=name)
    other.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for seed in range(3, 6):
        optimizer.step(gradients_of(model, seed))
        other.step(gradients_of(model, seed))
    for (n, one), two in zip(model.named_parameters(), other_model.parameters(), strict=True):
        assert torch.equal(one, two), n
        assert torch.equal(optimizer.masters[n], other.masters[n]), n


def test_a_state_before_the_first_step_can_be_loaded_too():
    model, optimizer = make()
    _, other = make()
    other.load_state_dict(optimizer.state_dict())
    other.step(gradients_of(model))


def test_the_state_is_filed_by_name():
    _, optimizer = make()
    model, _ = make()
    optimizer.step(gradients_of(model))
    state = optimizer.state_dict()
    assert set(state) == set(dict(model.named_parameters()))
    assert set(state["lm_head.weight"]) == {"master", "step", "exp_avg", "exp_avg_sq"}


def test_the_state_of_another_model_is_refused():
    _, optimizer = make()
    _, other = make(tied=True)
    with pytest.raises(
        CheckpointError, match=r"optimizer.pt: lm_head.weight is in one of model and file only. Resume with"
    ):
        optimizer.load_state_dict(other.state_dict())


def test_a_misspelt_optimizer_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match="optimizer: 'adm' is not an optimizer here. Did you mean 'adamw'?"):
        make(optimizer="adm")


def test_a_wrong_option_is_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"optimizer_options.momentun: .* Options of 'muon': momentum, learning_rate_factor"
    ):
        make(optimizer="muon", optimizer_options={"momentun": 0.9})
    with pytest.raises(ConfigError, match="optimizer_options.momentum"):
        make(optimizer="muon", optimizer_options={"momentum": 1.5})


@pytest.mark.parametrize("moments", [torch.bfloat16, torch.float32])
def test_adamws_state_is_float32_whatever_format_it_was_saved_in(moments):
    """A run goes on in float16 from a preset that keeps rounded moments: torch's fused kernel wants one dtype."""
    model, optimizer = make(torch.float16)
    optimizer.step(gradients_of(model))
    state = {
        name: {key: value.to(moments) if key.startswith("exp") else value for key, value in kept.items()}
        for name, kept in optimizer.state_dict().items()
    }
    other_model, other = make(torch.float16)
    other.load_state_dict(state)
    kept = other.state_dict()
    assert all(values["exp_avg"].dtype == values["exp_avg_sq"].dtype == torch.float32 for values in kept.values())
    other.step(gradients_of(other_model))
