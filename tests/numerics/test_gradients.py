"""Loss and gradients of the whole model against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.distributed import World
from havoc_core.layers.segments import Segments
from havoc_core.loss import IGNORE_INDEX
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_core.tensor_file import TensorSource
from havoc_data.loading.loader import Batch
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory
from havoc_training.optimizer import WholeOptimizer
from havoc_training.step import StepSettings, train_step

T, V = 64, 512
MODEL = {
    "size": "nano", "vocab_size": V, "d_model": 64, "num_layers": 2, "max_seq_len": T, "initializer_range": 0.1,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 32}, "mlp": {"hidden_dim": 96},
}  # fmt: skip


def make(dtype):
    model = havoc.build(ModelConfig.model_validate(MODEL))
    place_weights(model, first_weights(model, seed=4), dtype=dtype, device=torch.device("cpu"))
    return model


def batch():
    draw = np.random.default_rng(0)
    lengths = ((40, 24), (10, 20, 5), (64,))
    labels = draw.integers(0, V, (3, T))
    labels[1, 35:] = IGNORE_INDEX
    return Batch(draw.integers(0, V, (3, T)), labels, lengths)


def in_float64(z_loss_weight):
    model = make(torch.float64).double()
    rows = batch()
    hidden = model(torch.from_numpy(rows.inputs), segments=Segments.of_lengths(rows.lengths, T))
    logits, labels = (hidden @ model.head.t()).flatten(0, 1), torch.from_numpy(rows.labels).flatten()
    scored = labels != IGNORE_INDEX
    loss = functional.cross_entropy(logits[scored], labels[scored])
    loss = loss + z_loss_weight * logits[scored].logsumexp(-1).square().mean()
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}


def made(value):
    """A value as a checkpoint has it."""
    if isinstance(value, TensorSource):
        out = torch.empty(value.shape, dtype=value.dtype)
        value.fill(out)
        return out
    return value


def updater_of(kind, config):
    if kind == "whole":
        model = make(torch.float32)
        return model, WholeOptimizer(model, None, config)
    model = havoc.build(config.model)
    plan = plan_memory(config, preset="fp32_master", working="float32")
    return model, FlatOptimizer(model, first_weights(model, seed=4), config, plan, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["whole", "flat"])
@pytest.mark.parametrize("z_loss_weight", [0.0, 1e-2])
def test_a_steps_loss_and_gradient_are_those_of_float64(z_loss_weight, kind):
    """The gradient is read from Adam's first moment, which is (1 - beta1) times it after one step."""
    config = TrainingConfig.model_validate({"model": MODEL, "data": {"max_sequence_length": T}})
    model, optimizer = updater_of(kind, config)
    settings = StepSettings(0.0, z_loss_weight, World())
    result = train_step(model, optimizer, [batch()], lr_factor=1.0, settings=settings)
    loss, gradients = in_float64(z_loss_weight)
    assert result.loss == pytest.approx(loss, rel=1e-6)
    assert result.scored_tokens == 64 + 35 + 64
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    assert result.grad_norm == pytest.approx(float(norm), rel=1e-5)
    for name, state in optimizer.state_dict().items():
        error = (made(state["exp_avg"]).double() / (1 - 0.9) - gradients[name]).abs().max() / gradients[
            name
        ].abs().max()
        assert float(error) < 1e-5, name
