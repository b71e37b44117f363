"""A small model under AdamW in arenas, as the tests of this folder want it."""

from __future__ import annotations

import pytest
import torch

from havoc_core.config import TrainingConfig
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_core.tensor_file import TensorSource
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory
from havoc_training.optimizer import WholeOptimizer

CPU = torch.device("cpu")
SMALL = {
    "size": "nano", "vocab_size": 512, "d_model": 16, "num_layers": 2, "max_seq_len": 32,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
}  # fmt: skip


def config_of(*, tied=False, **values):
    model = {**SMALL, **values.pop("model", {}), "tie_embeddings": tied}
    return TrainingConfig.model_validate({"model": model, "data": {"max_sequence_length": 32}, **values})


def make(preset="fp32_master", **values):
    config = config_of(**values)
    working = "float32" if preset == "float32" else "bfloat16"
    plan = plan_memory(config, preset="fp32_master" if preset == "float32" else preset, working=working)
    model = havoc.build(config.model)
    return model, FlatOptimizer(model, first_weights(model, seed=3), config, plan, CPU)


def whole(**values):
    """The same run under an optimizer of torch's."""
    config = config_of(**values)
    model = havoc.build(config.model)
    weights = first_weights(model, seed=3)
    place_weights(model, weights, dtype=torch.bfloat16, device=CPU)
    return model, WholeOptimizer(model, weights, config)


def gradients_of(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def learn(model, optimizer, seeds, *, factor=1.0, left_out=None):
    for seed in seeds:
        optimizer.begin()
        for name, gradient in gradients_of(model, seed).items():
            optimizer.gradients.add(name, gradient.to(optimizer.gradients[name].dtype))
        optimizer.update(torch.tensor(factor), **({} if left_out is None else {"left_out": left_out}))
    return optimizer


def made(value):
    if isinstance(value, TensorSource):
        out = torch.empty(value.shape, dtype=value.dtype)
        value.fill(out)
        return out
    return value.clone()


def state_of(optimizer):
    """As a checkpoint has it."""
    return {name: {key: made(value) for key, value in kept.items()} for name, kept in optimizer.state_dict().items()}


def assert_same(one, other):
    assert list(one) == list(other)
    for name, kept in one.items():
        assert list(kept) == list(other[name]), name
        for key, value in kept.items():
            assert value.dtype == other[name][key].dtype, (name, key)
            assert torch.equal(value, other[name][key]), (name, key)


class Flat:
    """The functions above, for tests, which cannot import them."""

    config_of = staticmethod(config_of)
    make = staticmethod(make)
    whole = staticmethod(whole)
    gradients_of = staticmethod(gradients_of)
    learn = staticmethod(learn)
    made = staticmethod(made)
    state_of = staticmethod(state_of)
    assert_same = staticmethod(assert_same)


@pytest.fixture
def flat():
    """How to make, teach and compare optimizers."""
    return Flat
