"""Twenty steps of our optimizer against torch.optim.AdamW on a float32 model, with clipping and schedule."""

from __future__ import annotations

import pytest
import torch

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_training.optimizer import Optimizer, clip, gradient_norm, round_to_bfloat16
from havoc_training.schedules import cosine

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


def make(dtype):
    model = havoc.build(ModelConfig.model_validate(MODEL))
    weights = first_weights(model, seed=2)
    place_weights(model, weights, dtype=dtype, device=torch.device("cpu"))
    return model, Optimizer(model, weights if dtype != torch.float32 else None, CONFIG), weights


def reference_of(weights):
    """Plain parameters, decayed if they are matrices inside the blocks, under torch's own AdamW."""
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in weights.items()}
    decayed = [p for name, p in parameters.items() if p.dim() == 2 and "layers" in name]
    others = [p for name, p in parameters.items() if p.dim() == 1 or "layers" not in name]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return parameters, torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.97), eps=1e-7, foreach=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trajectory_is_that_of_torchs_adamw(dtype):
    model, optimizer, weights = make(dtype)
    parameters, reference = reference_of(weights)
    for step in range(20):
        generator = torch.Generator().manual_seed(step)
        gradients = {name: torch.randn(p.shape, generator=generator) for name, p in parameters.items()}
        factor = cosine(step, warmup_steps=5, total_steps=20)
        for name, p in parameters.items():
            p.grad = gradients[name].clone()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 2.0)
        for group in (*reference.param_groups, *optimizer.param_groups()):
            group["lr"] = 1e-2 * factor
        reference.step()
        clip(gradients, gradient_norm(gradients.values()), 2.0)
        optimizer.step(gradients)
    for name, master in optimizer.masters.items():
        # 20 updates of at most 1e-2 each; float32 has 7 digits of every one.
        torch.testing.assert_close(master, parameters[name].detach(), rtol=2e-6, atol=2e-7, msg=name)
    for name, weight in model.named_parameters():
        if weight.dtype == torch.bfloat16:
            assert torch.equal(weight, round_to_bfloat16(optimizer.masters[name]))
