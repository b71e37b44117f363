"""Twenty steps of our optimizer against torch.optim.AdamW on a float32 model, with clipping and schedule."""

from __future__ import annotations

import pytest
import torch

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.distributed import World
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_core.tensor_file import TensorSource
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory
from havoc_training.memory.stochastic_rounding import round_to_nearest
from havoc_training.optimizer import WholeOptimizer
from havoc_training.schedules import cosine
from havoc_training.step import clipping

MODEL = {
    "size": "nano", "vocab_size": 512, "d_model": 16, "num_layers": 2, "max_seq_len": 32,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
}  # fmt: skip
CONFIG = TrainingConfig.model_validate(
    {
        "model": MODEL, "data": {"max_sequence_length": 32}, "learning_rate": 1e-2, "weight_decay": 0.1, "adam_beta1": 0.8,
        "adam_beta2": 0.97, "adam_epsilon": 1e-7, "decay_embeddings": False,
    }
)  # fmt: skip


def make(kind, dtype):
    model = havoc.build(ModelConfig.model_validate(MODEL))
    weights = dict(first_weights(model, seed=2))
    if kind == "flat":
        plan = plan_memory(CONFIG, preset="fp32_master", working=str(dtype).removeprefix("torch."))
        return model, FlatOptimizer(model, weights, CONFIG, plan, torch.device("cpu")), weights
    place_weights(model, weights, dtype=dtype, device=torch.device("cpu"))
    return model, WholeOptimizer(model, weights if dtype != torch.float32 else None, CONFIG), weights


def made(value):
    """A value as a checkpoint has it."""
    if isinstance(value, TensorSource):
        out = torch.empty(value.shape, dtype=value.dtype)
        value.fill(out)
        return out
    return value


def reference_of(weights):
    """Plain parameters, decayed if they are matrices inside the blocks, under torch's own AdamW."""
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in weights.items()}
    decayed = [p for name, p in parameters.items() if p.dim() == 2 and "layers" in name]
    others = [p for name, p in parameters.items() if p.dim() == 1 or "layers" not in name]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return parameters, torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.97), eps=1e-7, foreach=False)


@pytest.mark.parametrize("kind", ["whole", "flat"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trajectory_is_that_of_torchs_adamw(dtype, kind):
    model, optimizer, weights = make(kind, dtype)
    parameters, reference = reference_of(weights)
    for step in range(20):
        generator = torch.Generator().manual_seed(step)
        optimizer.begin()
        for name, p in parameters.items():
            p.grad = torch.randn(p.shape, generator=generator)
            optimizer.gradients.add(name, p.grad)
        factor = cosine(step, warmup_steps=5, total_steps=20)
        torch.nn.utils.clip_grad_norm_(parameters.values(), 2.0)
        for group in (*reference.param_groups, *optimizer.param_groups()):
            group["lr"] = 1e-2 * factor
        reference.step()
        optimizer.update(clipping(optimizer.gradients.finish(World()), 2.0))
    masters = {name: made(kept["master"]) for name, kept in optimizer.state_dict().items()}
    for name, master in masters.items():
        # 20 updates of at most 1e-2 each; float32 has 7 digits of every one.
        torch.testing.assert_close(master, parameters[name].detach(), rtol=2e-6, atol=2e-7, msg=name)
    for name, weight in model.named_parameters():
        if weight.dtype == torch.bfloat16:
            assert torch.equal(weight, round_to_nearest(masters[name]))
