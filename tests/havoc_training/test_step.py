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
from havoc_core.tensor_file import TensorSource
from havoc_data.loading.loader import Batch
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory
from havoc_training.optimizer import WholeOptimizer
from havoc_training.step import (
    DeviceBatch,
    StepSettings,
    UnreadStep,
    clipping,
    is_out_of_memory,
    start_step,
    train_step,
)

T = 16
SMALL = {
    "size": "nano", "vocab_size": 512, "d_model": 16, "num_layers": 2, "max_seq_len": T, "initializer_range": 0.1,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
}  # fmt: skip
CPU = torch.device("cpu")
both_kinds = pytest.mark.parametrize("kind", ["whole", "flat"])


def make(dtype=torch.float32, kind="whole", **values):
    config = TrainingConfig.model_validate({"model": SMALL, "data": {"max_sequence_length": T}, **values})
    model = havoc.build(config.model)
    weights = first_weights(model, seed=3)
    if kind == "flat":
        plan = plan_memory(config, preset="fp32_master", working=str(dtype).removeprefix("torch."))
        return model, FlatOptimizer(model, weights, config, plan, CPU)
    place_weights(model, weights, dtype=dtype, device=CPU)
    return model, WholeOptimizer(model, weights if dtype != torch.float32 else None, config)


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


def made(value):
    """A value as a checkpoint has it."""
    if isinstance(value, TensorSource):
        out = torch.empty(value.shape, dtype=value.dtype)
        value.fill(out)
        return out
    return value


def state_of(optimizer):
    return {
        name: {key: made(value).clone() for key, value in kept.items()} for name, kept in optimizer.state_dict().items()
    }


UNEVEN = rows_of([[16], [3], [5, 2], [1]])


@both_kinds
def test_a_step_says_loss_norm_rate_and_tokens(kind):
    model, optimizer = make(kind=kind, learning_rate=2e-3)
    result = step(model, optimizer, [UNEVEN], lr_factor=0.5)
    assert result.scored_tokens == 16 + 3 + 7 + 1
    assert result.learning_rate == pytest.approx(1e-3)
    assert result.loss == pytest.approx(math.log(512), rel=0.1)
    assert result.grad_norm > 0
    assert not result.overflow


@both_kinds
@pytest.mark.parametrize("size", [1, 2, 3])
def test_splitting_a_step_into_micro_batches_changes_no_gradient(size, kind):
    """Rows with 16, 3, 7 and 1 scored tokens: means of means would weigh the short ones too much."""
    whole_model, whole_optimizer = make(kind=kind)
    split_model, split_optimizer = make(kind=kind)
    whole = step(whole_model, whole_optimizer, [UNEVEN])
    parts = step(split_model, split_optimizer, split(UNEVEN, size))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    for (name, one), two in zip(whole_model.named_parameters(), split_model.parameters(), strict=True):
        torch.testing.assert_close(
            one, two, rtol=0, atol=3e-5, msg=name
        )  # Adam's first step: +-lr wherever there is a sign


@both_kinds
def test_what_one_step_summed_is_not_in_the_next(kind):
    """Seen by the norm, which is that of the same gradients again: at a rate of 0 no weight moves."""
    model, optimizer = make(kind=kind)
    first = step(model, optimizer, split(UNEVEN, 2), lr_factor=0.0)
    assert step(model, optimizer, split(UNEVEN, 2), lr_factor=0.0).grad_norm == first.grad_norm


def test_the_rate_is_the_peak_times_the_factor_for_every_group():
    model, optimizer = make(optimizer="muon", optimizer_options={"learning_rate_factor": 2.0}, learning_rate=1e-3)
    step(model, optimizer, [UNEVEN], lr_factor=0.25)
    assert [group["lr"] for group in optimizer.param_groups()] == pytest.approx([5e-4, 2.5e-4, 2.5e-4])
    model, optimizer = make(kind="flat", learning_rate=1e-3)
    step(model, optimizer, [UNEVEN], lr_factor=0.25)
    assert [group["lr"] for group in optimizer.param_groups()] == pytest.approx([2.5e-4] * 3)


@both_kinds
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_that_is_no_number_raises_before_any_weight_changes(poison, dtype, kind):
    model, optimizer = make(dtype, kind)
    step(model, optimizer, [UNEVEN])
    with torch.no_grad():
        model.model.norm.weight[0] = poison
    before, state = weights_of(model), state_of(optimizer)
    with pytest.raises(TrainingError, match="loss: is (nan|inf), and the gradient's norm nan") as caught:
        step(model, optimizer, [UNEVEN])
    assert "The weights are those before this step." in caught.value.remedy
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) or weight.isnan().any(), name
    for name, values in state_of(optimizer).items():
        assert all(torch.equal(values[key], state[name][key]) for key in values if key != "master"), name


@both_kinds
def test_a_step_after_one_that_diverged_has_nothing_of_it(kind):
    """As after a checkpoint is loaded into the same optimizer: the sums of the step that was given up are dropped."""
    model, optimizer = make(kind=kind)
    other_model, other = make(kind=kind)
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(TrainingError):
        step(model, optimizer, [UNEVEN])
    with torch.no_grad():
        model.model.norm.weight[0] = 1.0
    assert step(model, optimizer, [UNEVEN]) == step(other_model, other, [UNEVEN])
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other_model.parameters(), strict=True))


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
    before, weights = state_of(optimizer), weights_of(model)
    result = step(model, optimizer, [UNEVEN], loss_scale=2.0**40)
    assert result.overflow
    assert not math.isfinite(result.grad_norm)
    assert math.isfinite(result.loss)
    for name, values in state_of(optimizer).items():
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


@both_kinds
def test_gradients_are_clipped_to_the_norm(kind):
    """AdamW does not notice a clip in its first step; its moments do."""
    model, optimizer = make(kind=kind)
    result = step(model, optimizer, [UNEVEN], max_grad_norm=1e-3)
    squares = sum(float(s["exp_avg"].square().sum()) for s in state_of(optimizer).values())
    assert result.grad_norm > 1e-3
    assert math.sqrt(squares) == pytest.approx((1 - 0.9) * 1e-3, rel=1e-3)


@both_kinds
@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e6])
def test_clipping_is_that_of_torch(max_norm, kind):
    model, optimizer = make(kind=kind)
    generator = torch.Generator().manual_seed(0)
    ours = {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}
    theirs = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in ours.values()]
    optimizer.begin()
    for parameter, (name, gradient) in zip(theirs, ours.items(), strict=True):
        parameter.grad = gradient.clone()
        optimizer.gradients.add(name, gradient)
    wanted = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    norm = optimizer.gradients.finish(World())
    factor = clipping(norm, max_norm)
    torch.testing.assert_close(norm, wanted, rtol=1e-6, atol=0)
    for parameter, gradient in zip(theirs, optimizer.gradients.shaped().values(), strict=True):
        torch.testing.assert_close(gradient * factor, parameter.grad, rtol=1e-6, atol=0)


def test_a_norm_of_zero_never_clips():
    assert float(clipping(torch.tensor(1e30), 0.0)) == 1.0
    assert float(clipping(torch.tensor(0.0), 1.0)) == 1.0, "nothing to clip, and nothing to divide by either"


@both_kinds
def test_no_gradient_is_left_on_the_parameters(kind):
    model, optimizer = make(kind=kind)
    step(model, optimizer, split(UNEVEN, 2))
    assert all(p.grad is None for p in model.parameters())
    if kind == "whole":
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


# What was asked for and is read later, as on a GPU.


def unread(loss_sum=30.0, norm=2.0, *, scales_loss=False):
    return UnreadStep.of(torch.tensor([loss_sum, norm]), learning_rate=1e-3, scored_tokens=10, scales_loss=scales_loss)


class Arrival:
    """As of an event of a GPU: it has not happened until somebody waits for it; then the numbers are there."""

    def __init__(self, numbers):
        self.numbers, self.happened = numbers, False

    def query(self):
        return self.happened

    def synchronize(self):
        self.numbers.copy_(torch.tensor([30.0, 2.0]))
        self.happened = True


def test_numbers_that_are_on_their_way_are_waited_for():
    numbers = torch.full((2,), math.nan)
    made = UnreadStep(numbers, Arrival(numbers), 1e-3, 10, False)
    assert not made.is_there
    assert made.read().loss == 3.0
    assert made.is_there


def test_on_a_cpu_they_are_there_at_once():
    assert unread().is_there


def test_numbers_that_are_read_are_those_of_a_token():
    result = unread().read()
    assert (result.loss, result.grad_norm, result.learning_rate, result.scored_tokens) == (3.0, 2.0, 1e-3, 10)
    assert not result.overflow


def test_reading_twice_gives_the_same():
    assert unread().read() == unread().read()
    made = unread()
    assert made.read() == made.read()


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, math.nan), (30.0, math.inf), (math.inf, math.nan)])
def test_divergence_is_met_when_the_numbers_are_read(loss, norm):
    with pytest.raises(TrainingError) as caught:
        unread(loss, norm).read()
    error = caught.value
    assert error.where == "loss"
    assert error.found == f"is {loss / 10}, and the gradient's norm {norm}: training has diverged."
    assert error.remedy == (
        "The weights are those before this step. Lower learning_rate, lengthen warmup_steps, or check the data."
    )


def test_where_the_loss_is_scaled_it_is_an_overflow():
    result = unread(30.0, math.inf, scales_loss=True).read()
    assert (result.overflow, result.grad_norm, result.loss) == (True, math.inf, 3.0)


@both_kinds
def test_on_a_cpu_a_step_is_made_when_the_call_returns(kind):
    model, optimizer = make(kind=kind)
    before = weights_of(model)
    made = start_step(model, optimizer, [UNEVEN], lr_factor=1.0, settings=StepSettings(1.0, 0.0, World()))
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert made.read().grad_norm > 0


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
    ids=["gpu", "cpu", "shapes", "illegal access"],
)
def test_only_memory_that_cannot_be_had_is_out_of_memory(error, is_it):
    assert is_out_of_memory(error) is is_it


def test_what_torch_says_when_the_machine_has_no_memory_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
