"""Muon runs on the matrices inside the blocks, AdamW on the rest."""

from __future__ import annotations

import pytest
import torch

from havoc_training.optimizer import OptimizerSettings, ParameterGroup
from havoc_training.optimizers import adamw, muon

SETTINGS = OptimizerSettings(1e-2, 0.0, (0.9, 0.95), 1e-8)


def groups_of():
    matrix, embedding, vector = torch.zeros(8, 8), torch.zeros(16, 8), torch.zeros(8)
    return [
        ParameterGroup("matrices", ("m",), (matrix,), True),
        ParameterGroup("embeddings", ("e",), (embedding,), True),
        ParameterGroup("vectors", ("v",), (vector,), False),
    ]


def test_each_kind_has_its_optimizer():
    groups = groups_of()
    first, second = muon.build(groups, SETTINGS, muon.Options(momentum=0.9, learning_rate_factor=3.0))
    assert isinstance(first, torch.optim.Muon)
    assert [id(p) for g in first.param_groups for p in g["params"]] == [id(groups[0].masters[0])]
    assert first.param_groups[0]["lr"] == pytest.approx(3e-2)
    assert first.param_groups[0]["momentum"] == 0.9
    assert isinstance(second, torch.optim.AdamW)
    assert [id(p) for g in second.param_groups for p in g["params"]] == [
        id(groups[1].masters[0]),
        id(groups[2].masters[0]),
    ]


def test_an_update_of_a_matrix_is_orthogonal_with_adamws_root_mean_square():
    groups = groups_of()
    first, _ = muon.build(groups, SETTINGS, muon.Options())
    matrix = groups[0].masters[0]
    matrix.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    first.step()
    singular = torch.linalg.svdvals(matrix)
    # 0.2 * sqrt(8) * lr for each singular value; five Newton-Schulz steps leave them within 0.6 to 1.3 of it.
    wanted = 0.2 * 8**0.5 * 1e-2
    assert 0.6 * wanted < float(singular.min()) <= float(singular.max()) < 1.3 * wanted


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_in_float32_it_does_what_torchs_own_does_in_bfloat16(shape):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    both = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    options = {"lr": 1e-2, "weight_decay": 0.1, "momentum": 0.9, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}
    exact, rounded = muon.Float32Muon([both[0]], **options), torch.optim.Muon([both[1]], **options)
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        grad = torch.randn(shape, generator=generator)
        for parameter, optimizer in zip(both, (exact, rounded), strict=True):
            parameter.grad = grad.clone()
            optimizer.step()
    # bfloat16 has 8 bits, five steps of three products each: a few percent of what was added in all.
    assert (both[0] - both[1]).norm() < 0.05 * (both[1] - start).norm()
    assert exact.state_dict()["state"][0].keys() == rounded.state_dict()["state"][0].keys()
    assert torch.equal(*(opt.state_dict()["state"][0]["momentum_buffer"] for opt in (exact, rounded)))


def test_orthogonalised_matrices_have_singular_values_near_one():
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    singular = torch.linalg.svdvals(muon.orthogonalised(matrix, (3.4445, -4.775, 2.0315), steps=5, eps=1e-7))
    assert 0.6 < float(singular.min()) <= float(singular.max()) < 1.3


@pytest.mark.parametrize("fast", [True, False])
def test_the_dtype_of_its_steps_follows_the_processor(fast, monkeypatch):
    """Regression: bfloat16 products are twenty times slower than float32 ones where the CPU has no instructions for them, and
    the first run took an hour instead of minutes."""
    monkeypatch.setattr(muon, "has_fast_bfloat16", lambda: fast)
    first, _ = muon.build(groups_of(), SETTINGS, muon.Options())
    assert type(first) is (torch.optim.Muon if fast else muon.Float32Muon)


def test_adamw_has_all_groups_and_no_decay_on_vectors():
    (only,) = adamw.build(groups_of(), OptimizerSettings(1e-2, 0.3, (0.8, 0.9), 1e-6), adamw.Options())
    assert [g["weight_decay"] for g in only.param_groups] == [0.3, 0.3, 0.0]
    assert {(g["lr"], g["betas"], g["eps"]) for g in only.param_groups} == {(1e-2, (0.8, 0.9), 1e-6)}
