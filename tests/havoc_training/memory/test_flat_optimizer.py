"""AdamW in arenas: what it keeps and what it updates."""

from __future__ import annotations

import math

import pytest
import torch

from havoc_core.model import FirstWeights, first_weights
from havoc_core.models import havoc
from havoc_training.memory.adamw_update import Kept, Rule, Streams, keep_master, parts_of, update, widen_master
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory
from havoc_training.memory.stochastic_rounding import round_to_nearest

CPU = torch.device("cpu")
PRESETS = ("fp32_master", "fp32_master_bf16m", "offload", "stream", "8bit", "bf16_sr", "float32")
"""float32: the first with working weights of that format."""
EXACT = ("fp32_master", "offload", "stream", "float32")


# What it keeps.


@pytest.mark.parametrize("preset", EXACT)
def test_the_working_weights_are_the_masters_rounded_and_vectors_are_their_own(flat, preset):
    model, optimizer = flat.make(preset)
    flat.learn(model, optimizer, [0, 1])
    masters = {name: kept["master"] for name, kept in flat.state_of(optimizer).items()}
    for name, weight in model.named_parameters():
        assert masters[name].dtype == torch.float32
        if weight.dim() == 1 or preset == "float32":
            assert weight.dtype == torch.float32
            assert torch.equal(weight, masters[name])
        else:
            assert torch.equal(weight, round_to_nearest(masters[name]))


@pytest.mark.parametrize("preset", PRESETS)
def test_it_starts_from_the_weights_that_it_is_given(flat, preset):
    model, optimizer = flat.make(preset)
    exact = optimizer.plan.master != "none"
    for name, weight in first_weights(model, seed=3).items():
        master = flat.state_of(optimizer)[name]["master"]
        assert torch.equal(master, weight if exact or weight.dim() == 1 else round_to_nearest(weight)), name


@pytest.mark.parametrize("preset", PRESETS)
def test_vectors_are_float32_with_float32_moments_under_every_plan(flat, preset):
    model, optimizer = flat.make(preset)
    state = flat.state_of(flat.learn(model, optimizer, [0]))
    for name, kept in state.items():
        if "norm" in name:
            assert {kept[key].dtype for key in ("master", "exp_avg", "exp_avg_sq")} == {torch.float32}
    for name, parameter in model.named_parameters():
        assert (parameter.dtype == torch.float32) == (preset == "float32" or parameter.dim() == 1), name


def test_weights_are_asked_for_one_at_a_time(flat):
    """Those of a 7B model would not lie in memory all at once: no two may be alive together."""
    import weakref
    from collections.abc import Mapping

    class OneAtATime(Mapping):
        def __init__(self, inner):
            self.inner, self.last, self.together = inner, None, []

        def __getitem__(self, name):
            if self.last is not None and self.last() is not None:
                self.together.append(name)
            value = self.inner[name]
            self.last = weakref.ref(value)
            return value

        def __iter__(self):
            return iter(self.inner)

        def __len__(self):
            return len(self.inner)

    config = flat.config_of()
    model = havoc.build(config.model)
    weights = OneAtATime(FirstWeights(model, seed=3))
    FlatOptimizer(model, weights, config, plan_memory(config, preset="fp32_master", working="bfloat16"), CPU)
    assert weights.last is not None
    assert weights.together == []


def test_what_it_holds_beside_the_model_are_the_bytes_of_the_plan(flat):
    """Summed over the storages that its tensors lie in: padding to whole blocks is all that comes on top."""
    for preset in ("fp32_master", "8bit", "bf16_sr"):
        model, optimizer = flat.make(preset)
        kept = [tensor for each in optimizer._kept.values() for tensor in each.tensors()]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
        plan = optimizer.plan
        matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
        vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
        wanted = matrices * (2 + plan.master_bytes + plan.moment_bytes) + vectors * 12
        number = len(list(model.parameters()))
        assert wanted <= sum(storages.values()) <= wanted + number * 256 * 16


# What it updates.


@pytest.mark.parametrize("decay_embeddings", [True, False])
def test_decay_reaches_matrices_and_embeddings_as_configured_and_never_norms(flat, decay_embeddings):
    model, optimizer = flat.make(decay_embeddings=decay_embeddings, weight_decay=0.5, learning_rate=0.1)
    before = flat.state_of(optimizer)
    optimizer.begin()
    for name, parameter in model.named_parameters():
        optimizer.gradients.add(name, torch.zeros(parameter.shape))
    optimizer.update(torch.ones(()))
    for name, kept in flat.state_of(optimizer).items():
        embedding = name in {"model.embed_tokens.weight", "lm_head.weight"}
        decays = kept["master"].dim() == 2 and (decay_embeddings or not embedding)
        torch.testing.assert_close(
            kept["master"], before[name]["master"] * (1 - 0.1 * 0.5) if decays else before[name]["master"]
        )


@pytest.mark.parametrize("preset", EXACT)
def test_small_steps_add_up_in_the_master(flat, preset):
    """A step far below the last bit of bfloat16 must not be lost: 100 of them move the weight."""
    model, optimizer = flat.make(preset, learning_rate=1e-5, min_learning_rate=0.0, weight_decay=0.0)
    name = "model.layers.0.mlp.up_proj.weight"
    before, master = dict(model.named_parameters())[name].detach().clone(), flat.state_of(optimizer)[name]["master"]
    for _ in range(100):
        optimizer.begin()
        for each, parameter in model.named_parameters():
            optimizer.gradients.add(each, torch.ones(parameter.shape))
        optimizer.update(torch.ones(()))
    assert torch.allclose(flat.state_of(optimizer)[name]["master"], master - 100 * 1e-5, atol=1e-6)
    assert not torch.equal(dict(model.named_parameters())[name], before)


def test_the_rate_is_that_of_the_group_when_the_update_is_made(flat):
    model, optimizer = flat.make(weight_decay=0.0)
    before = flat.state_of(optimizer)
    for group in optimizer.param_groups():
        group["lr"] = 0.0 if "lm_head.weight" in group["names"] else 1e-2
    flat.learn(model, optimizer, [0])
    after = flat.state_of(optimizer)
    for name in before:
        moved = float((after[name]["master"] - before[name]["master"]).abs().max())
        embedding = name in {"model.embed_tokens.weight", "lm_head.weight"}
        assert moved == 0.0 if embedding else moved == pytest.approx(1e-2, rel=1e-2), name


def test_the_groups_have_the_rate_that_the_schedule_multiplies(flat):
    _, optimizer = flat.make(learning_rate=2e-3, weight_decay=0.2)
    groups = list(optimizer.param_groups())
    assert [(group["lr"], group["initial_lr"]) for group in groups] == [(2e-3, 2e-3)] * 3
    assert [group["weight_decay"] for group in groups] == [0.2, 0.2, 0.0]
    assert optimizer.leaves_out


def test_the_sums_times_a_factor_are_what_is_updated_with(flat):
    model, optimizer = flat.make()
    other_model, other = flat.make()
    flat.learn(model, optimizer, [0], factor=0.25)
    other.begin()
    for name, gradient in flat.gradients_of(other_model).items():
        other.gradients.add(name, gradient * 0.25)  # a power of two: no rounding
    other.update(torch.ones(()))
    flat.assert_same(flat.state_of(optimizer), flat.state_of(other))


def test_a_parameter_of_many_pieces_is_updated_as_in_one_go(flat):
    """16,384 x 24 values are more than one piece, and the last one is short."""
    model, optimizer = flat.make("8bit", model={"vocab_size": 16_400, "d_model": 24})
    name = "lm_head.weight"
    count, start = 16_400 * 24, first_weights(model, seed=3)[name].reshape(-1)
    kept = Kept(**{what: torch.zeros(n, dtype=dtype) for what, (n, dtype) in parts_of(count, optimizer.plan).items()})
    keep_master(kept, start)
    flat.learn(model, optimizer, [0])
    gradient = flat.gradients_of(model)[name].bfloat16().float().reshape(-1)
    config = flat.config_of()
    rule = Rule(
        1, (config.adam_beta1, config.adam_beta2), config.adam_epsilon, config.learning_rate, config.weight_decay
    )
    update(kept, gradient, rule=rule, streams=Streams(config.seed, name, 1, 0), rounding="stochastic")
    assert torch.equal(flat.state_of(optimizer)[name]["master"].reshape(-1).float(), widen_master(kept))
    for one, other in zip(optimizer._kept[name].tensors(), kept.tensors(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("preset", ["fp32_master", "stream", "float32"])
def test_an_update_that_is_left_out_changes_nothing(flat, preset):
    model, optimizer = flat.make(preset)
    flat.learn(model, optimizer, [0, 1])
    before = {
        name: {key: v for key, v in kept.items() if key != "step"} for name, kept in flat.state_of(optimizer).items()
    }
    flat.learn(model, optimizer, [2], factor=math.nan, left_out=torch.ones(()))
    after = {
        name: {key: v for key, v in kept.items() if key != "step"} for name, kept in flat.state_of(optimizer).items()
    }
    flat.assert_same(after, before)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_update_that_is_not_left_out_is_the_one_without_the_question(flat, preset):
    one, other = flat.make(preset), flat.make(preset)
    flat.assert_same(
        flat.state_of(flat.learn(*one, [0, 1])), flat.state_of(flat.learn(*other, [0, 1], left_out=torch.zeros(())))
    )


def test_whenever_weights_change_there_is_a_new_version(flat):
    model, optimizer = flat.make("stream")
    versions = [optimizer.version]
    flat.learn(model, optimizer, [0])
    versions.append(optimizer.version)
    optimizer.load_state_dict(flat.state_of(optimizer))
    versions.append(optimizer.version)
    optimizer.begin()
    assert versions == sorted(set(versions))
    assert optimizer.version == versions[-1]


def test_a_tied_pair_is_one_parameter(flat):
    model, optimizer = flat.make(tied=True)
    state = flat.state_of(flat.learn(model, optimizer, [0]))
    assert "lm_head.weight" not in state
    assert model.head is model.get_submodule("model.embed_tokens").weight
    assert torch.equal(model.head, round_to_nearest(state["model.embed_tokens.weight"]["master"]))
