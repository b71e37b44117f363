"""One update: micro-batches -> gradients -> weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from havoc_core.config import TrainingConfig
from havoc_core.distributed import World
from havoc_core.errors import TrainingError
from havoc_core.loss import IGNORE_INDEX
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_data.loading.loader import Batch
from havoc_training.optimizer import Optimizer
from havoc_training.step import DeviceBatch, StepSettings, train_step

T = 16
SMALL = {
    "size": "nano", "vocab_size": 512, "d_model": 16, "num_layers": 2, "max_seq_len": T, "initializer_range": 0.1,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
}  # fmt: skip
CPU = torch.device("cpu")


def make(dtype=torch.float32, **values):
    config = TrainingConfig.model_validate({"model": SMALL, "data": {"max_sequence_length": T}, **values})
    model = havoc.build(config.model)
    weights = first_weights(model, seed=3)
    place_weights(model, weights, dtype=dtype, device=CPU)
    return model, Optimizer(model, weights if dtype != torch.float32 else None, config)


def rows_of(lengths, seed=0):
    """One batch with rows that hold documents of these lengths; what is left is padding."""
    draw = np.random.default_rng(seed)
    inputs = draw.integers(0, 512, (len(lengths), T))
    labels = draw.integers(0, 512, (len(lengths), T))
    for row, parts in enumerate(lengths):
        labels[row, sum(parts) :] = IGNORE_INDEX
    return Batch(inputs, labels, tuple(tuple(parts) for parts in lengths))


def split(batch, size):
    return [
        Batch(batch.inputs[i : i + size], batch.labels[i : i + size], batch.lengths[i : i + size])
        for i in range(0, len(batch.inputs), size)
    ]


def step(model, optimizer, batches, *, loss_scale=1.0, lr_factor=1.0, max_grad_norm=1.0):
    settings = StepSettings(max_grad_norm, 0.0, World())
    return train_step(model, optimizer, batches, lr_factor=lr_factor, settings=settings, loss_scale=loss_scale)


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


UNEVEN = rows_of([[16], [3], [5, 2], [1]])


def test_a_step_says_loss_norm_rate_and_tokens():
    model, optimizer = make(learning_rate=2e-3)
    result = step(model, optimizer, [UNEVEN], lr_factor=0.5)
    assert result.scored_tokens == 16 + 3 + 7 + 1
    assert result.learning_rate == pytest.approx(1e-3)
    assert result.loss == pytest.approx(math.log(512), rel=0.1)
    assert result.grad_norm > 0
    assert not result.overflow


@pytest.mark.parametrize("size", [1, 2, 3])
def test_splitting_a_step_into_micro_batches_changes_no_gradient(size):
    """Rows with 16, 3, 7 and 1 scored tokens: means of means would weigh the short ones too much."""
    whole_model, whole_optimizer = make()
    split_model, split_optimizer = make()
    whole = step(whole_model, whole_optimizer, [UNEVEN])
    parts = step(split_model, split_optimizer, split(UNEVEN, size))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    for (name, one), two in zip(whole_model.named_parameters(), split_model.parameters(), strict=True):
        torch.testing.assert_close(
            one, two, rtol=0, atol=3e-5, msg=name
        )  # Adam's first step: +-lr wherever there is a sign


def test_the_rate_is_the_peak_times_the_factor_for_every_group():
    model, optimizer = make(optimizer="muon", optimizer_options={"learning_rate_factor": 2.0}, learning_rate=1e-3)
    step(model, optimizer, [UNEVEN], lr_factor=0.25)
    assert [group["lr"] for group in optimizer.param_groups()] == pytest.approx([5e-4, 2.5e-4, 2.5e-4])


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_that_is_no_number_raises_before_any_weight_changes(poison, dtype):
    model, optimizer = make(dtype)
    step(model, optimizer, [UNEVEN])
    with torch.no_grad():
        model.model.norm.weight[0] = poison
    before, state = (
        weights_of(model),
        {n: {k: v.clone() for k, v in s.items()} for n, s in optimizer.state_dict().items()},
    )
    with pytest.raises(TrainingError, match="loss: is (nan|inf), and the gradient's norm nan") as caught:
        step(model, optimizer, [UNEVEN])
    assert "The weights are those before this step." in caught.value.remedy
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) or weight.isnan().any(), name
    for name, values in optimizer.state_dict().items():
        assert all(torch.equal(values[key], state[name][key]) for key in values if key != "master"), name


def test_float16_gradients_come_back_unscaled():
    plain_model, plain_optimizer = make()
    half_model, half_optimizer = make(torch.float16)
    plain = step(plain_model, plain_optimizer, [UNEVEN])
    half = step(half_model, half_optimizer, [UNEVEN], loss_scale=4096.0)
    assert half.loss == pytest.approx(plain.loss, rel=1e-3)
    assert half.grad_norm == pytest.approx(plain.grad_norm, rel=1e-2)
    assert not half.overflow


def test_an_overflow_leaves_weights_moments_and_adams_count_alone():
    model, optimizer = make(torch.float16)
    step(model, optimizer, [UNEVEN], loss_scale=1024.0)
    before = {n: {k: v.clone() for k, v in s.items()} for n, s in optimizer.state_dict().items()}
    weights = weights_of(model)
    result = step(model, optimizer, [UNEVEN], loss_scale=2.0**40)
    assert result.overflow
    assert not math.isfinite(result.grad_norm)
    assert math.isfinite(result.loss)
    for name, values in optimizer.state_dict().items():
        assert all(torch.equal(values[key], before[name][key]) for key in values), name
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())
    assert step(model, optimizer, [UNEVEN], loss_scale=1024.0).overflow is False


def test_what_overflows_at_a_scale_of_one_is_no_overflow_but_divergence():
    model, optimizer = make(torch.float16)
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    assert step(model, optimizer, [UNEVEN], loss_scale=2.0).overflow
    with pytest.raises(TrainingError, match="training has diverged"):
        step(model, optimizer, [UNEVEN], loss_scale=1.0)


def test_gradients_are_clipped_to_the_norm():
    """AdamW does not notice a clip in its first step; its moments do."""
    model, optimizer = make()
    result = step(model, optimizer, [UNEVEN], max_grad_norm=1e-3)
    squares = sum(float(s["exp_avg"].square().sum()) for s in optimizer.state_dict().values())
    assert result.grad_norm > 1e-3
    assert math.sqrt(squares) == pytest.approx((1 - 0.9) * 1e-3, rel=1e-3)


def test_no_gradient_is_left_on_the_parameters():
    model, optimizer = make()
    step(model, optimizer, split(UNEVEN, 2))
    assert all(p.grad is None for p in model.parameters())
    assert all(m.grad is None for m in optimizer.masters.values())


def test_a_batch_comes_to_the_device_with_its_documents():
    batch = DeviceBatch.of(UNEVEN, CPU)
    assert torch.equal(batch.inputs, torch.from_numpy(UNEVEN.inputs))
    assert batch.segments.starts[2].tolist() == [0] * 5 + [5] * 2 + [7] * 9


def test_training_mode_is_set_for_dropout():
    model, optimizer = make()
    model.eval()
    step(model, optimizer, [UNEVEN])
    assert model.training
