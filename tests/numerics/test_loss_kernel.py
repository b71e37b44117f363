"""The CPU cross-entropy kernel against the formula in float64, and against torch's operations on the same logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from havoc_core.cpu_library import is_buildable
from havoc_core.labels import IGNORE_INDEX
from havoc_core.loss_kernel import NEEDS, is_supported, load, replace_by_gradient

# Not skipped where it could be built and was not: that is a failure.
pytestmark = pytest.mark.skipif(not is_buildable(NEEDS), reason="no C++ compiler or no AVX2 on this machine")


def problem(rows, vocab, dtype, *, scale=3.0):
    generator = torch.Generator().manual_seed(rows * 100_003 + vocab)
    logits = (torch.randn(rows, vocab, generator=generator) * scale).to(dtype)
    labels = torch.randint(0, vocab, (rows,), generator=generator)
    labels[1::5] = IGNORE_INDEX
    return logits, labels


def plain(logits, labels, z_loss_weight=0.0):
    """Sum and gradient of the formula in float64, on the very numbers that the kernel sees."""
    wide = logits.double().requires_grad_()
    loss = functional.cross_entropy(wide, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    loss = loss + z_loss_weight * wide.logsumexp(-1)[labels != IGNORE_INDEX].square().sum()
    loss.backward()
    return float(loss.detach()), wide.grad


def by_torch(logits, labels):
    """The gradient as torch's operations give it: softmax in float32, rounded once."""
    grad = logits.float().softmax(-1)
    grad.scatter_add_(1, labels.clamp_min(0)[:, None], torch.full((len(labels), 1), -1.0))
    return (grad * (labels != IGNORE_INDEX)[:, None]).to(logits.dtype)


def largest_error(found, wanted):
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


def test_where_there_is_a_compiler_it_is_built():
    assert load() is not None


# Widths around the 16 lanes of a vector and the 512 columns of a partial sum, and a real vocabulary.
@pytest.mark.parametrize("vocab", [1, 2, 15, 16, 17, 500, 513, 8192, 50_257])
@pytest.mark.parametrize("z_loss_weight", [0.0, 1e-3])
def test_value_and_gradient_are_those_of_the_formula_in_float32(vocab, z_loss_weight):
    logits, labels = problem(7, vocab, torch.float32)
    value, gradient = plain(logits, labels, z_loss_weight)
    found = replace_by_gradient(logits, labels, z_loss_weight=z_loss_weight)
    # Row sums and losses are added up in float64; what is left is the float32 exponential.
    assert found == pytest.approx(value, rel=1e-6, abs=1e-6)
    # Of at least 1: with one column, softmax minus one-hot is zero but for rounding.
    assert float((logits.double() - gradient).abs().max()) < 1e-6 * max(1.0, float(gradient.abs().max()))


@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_every_entry_of_a_gradient_is_right_and_not_only_the_large_ones(scale):
    """The exponential's own error, down to 2^-60 of the largest: an absolute bound would not see it."""
    logits, labels = problem(8, 4096, torch.float32, scale=scale)
    _, gradient = plain(logits, labels)
    below = (logits.amax(-1, keepdim=True) - logits).double()
    replace_by_gradient(logits, labels)
    checked = (gradient.abs() > 2.0**-60) & (torch.arange(4096) != labels[:, None])  # p - 1 may cancel
    assert int(checked.sum()) > 1000
    error = (logits.double() - gradient).abs() / gradient.abs().clamp_min(1e-30)
    # Three roundings and the polynomial; and the difference to the maximum, rounded to float32, goes into an exponent.
    assert bool((error < 4e-7 + below * 2.0**-24)[checked].all())


@pytest.mark.parametrize("vocab", [17, 513, 8192])
@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_in_bfloat16_it_is_as_near_to_float64_as_torch_is(vocab, scale):
    logits, labels = problem(40, vocab, torch.bfloat16, scale=scale)
    value, gradient = plain(logits, labels)
    theirs = by_torch(logits, labels)
    ours = logits.clone()
    assert replace_by_gradient(ours, labels) == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert ours.dtype == torch.bfloat16
    # Both round once from float32, so they differ only where that falls on the edge between two numbers.
    mean = lambda found: float((found.double() - gradient).abs().mean())  # noqa: E731
    assert mean(ours) <= mean(theirs) * 1.001
    assert largest_error(ours, gradient) <= largest_error(theirs, gradient) * 1.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_without_a_label_cost_nothing_and_get_no_gradient_whatever_they_hold(dtype):
    logits, labels = problem(6, 100, dtype)
    logits[1] = math.nan
    found = replace_by_gradient(logits, labels)
    assert math.isfinite(found)
    assert not logits[1].any()
    assert bool(logits[0].any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_but_ignored_rows_is_zero(dtype):
    logits, labels = problem(5, 33, dtype)
    assert replace_by_gradient(logits, torch.full_like(labels, IGNORE_INDEX), z_loss_weight=1.0) == 0.0
    assert not logits.any()


def test_no_rows_at_all_are_zero():
    assert replace_by_gradient(torch.empty(0, 10), torch.empty(0, dtype=torch.int64)) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_that_cannot_come_gets_no_gradient(dtype):
    logits, labels = problem(4, 64, dtype)
    labels[labels >= 0] %= 32
    logits[:, 32:] = -math.inf
    value, gradient = plain(logits, labels)
    assert replace_by_gradient(logits, labels) == pytest.approx(value, rel=1e-6)
    assert not logits[:, 32:].any()
    assert largest_error(logits, gradient) < (1e-6 if dtype == torch.float32 else 4e-3)


def test_a_label_that_cannot_come_costs_infinity():
    logits, labels = torch.zeros(1, 8), torch.tensor([3])
    logits[0, 3] = -math.inf
    assert replace_by_gradient(logits, labels) == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_has_diverged_is_noticed(value, dtype):
    """The trainer stops when the loss is not finite: the kernel must not lose a NaN in a maximum or a cast."""
    for column in (0, 5, 40):
        logits, labels = problem(3, 41, dtype)
        logits[0, column] = value
        assert math.isnan(replace_by_gradient(logits, labels))
        assert bool(logits[0].isnan().any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits_stay_finite(dtype, size):
    logits, labels = problem(9, 300, dtype, scale=size)
    value, gradient = plain(logits, labels)
    assert replace_by_gradient(logits, labels) == pytest.approx(value, rel=1e-6)
    assert bool(logits.isfinite().all())
    assert float((logits.double() - gradient).abs().max()) < (1e-6 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_does_not_depend_on_the_number_of_threads(dtype):
    logits, labels = problem(101, 700, dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            copy = logits.clone()
            found.append((replace_by_gradient(copy, labels, z_loss_weight=1e-2), copy))
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == found[1][0] == found[2][0]
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][1], found[2][1])


def test_a_row_gives_the_same_bits_whatever_is_beside_it():
    logits, labels = problem(10, 1000, torch.bfloat16)
    one = logits[3:4].clone()
    replace_by_gradient(one, labels[3:4])
    replace_by_gradient(logits, labels)
    assert torch.equal(logits[3:4], one)


@pytest.mark.parametrize("label", [-1, 10, 1 << 40])
def test_a_label_outside_the_vocabulary_is_refused_before_anything_is_written(label):
    logits = torch.ones(2, 10)
    with pytest.raises(IndexError, match="labels are not all in 0 .. 9"):
        replace_by_gradient(logits, torch.tensor([0, label]))
    assert bool((logits == 1).all())


def test_logits_that_cannot_be_overwritten_are_refused():
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="not contiguous"):
        replace_by_gradient(torch.zeros(6, 4).t(), labels)
    with pytest.raises(ValueError, match=r"torch.float64 logits \[4, 6\]"):
        replace_by_gradient(torch.zeros(4, 6, dtype=torch.float64), labels)
    with pytest.raises(ValueError, match=r"torch.int32 labels \[4\]"):
        replace_by_gradient(torch.zeros(4, 6), labels.int())
    with pytest.raises(ValueError, match=r"labels \[3\]"):
        replace_by_gradient(torch.zeros(4, 6), labels[:3])


@pytest.mark.parametrize(
    ("dtype", "fits"),
    [(torch.float32, True), (torch.bfloat16, True), (torch.float16, False), (torch.float64, False)],
)
def test_what_it_cannot_take_is_left_to_torch(dtype, fits):
    assert is_supported(torch.zeros(2, 2, dtype=dtype)) is fits
    assert not is_supported(torch.zeros(2, 2, dtype=dtype, device="meta"))
