"""Cross-entropy in chunks against the plain formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from havoc_core import loss_kernel
from havoc_core.loss import (
    IGNORE_INDEX,
    _CompiledCrossEntropySum,
    cross_entropy_sum,
    gradient_of_logits,
    label_log_probs,
)

needs_kernel = pytest.mark.skipif(
    loss_kernel.load() is None, reason="this machine has no C++ compiler or no AVX2: torch does the work"
)
WAYS = [pytest.param(False, id="torch"), pytest.param(True, id="kernel", marks=needs_kernel)]

# 12,000 logits columns: 349 rows a chunk, so that 500 rows are a whole chunk and a rest.
ROWS, WIDTH, VOCAB = 500, 16, 12_000


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gave."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.values = max(self.values, tensor.numel())
        return out


def problem(dtype=torch.float32, *, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(4, ROWS // 4, WIDTH, generator=generator) * scale).to(dtype).requires_grad_()
    head = (torch.randn(VOCAB, WIDTH, generator=generator) * 0.3).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCAB, (4, ROWS // 4), generator=generator)
    labels[1, 100:180] = IGNORE_INDEX
    labels[3] = IGNORE_INDEX
    return hidden, head, labels


def plain(hidden, head, labels, z_loss_weight=0.0):
    """The formula, in float64, with all logits at once."""
    wide, weights = hidden.detach().double().requires_grad_(), head.detach().double().requires_grad_()
    logits = (wide @ weights.t()).flatten(0, -2)
    loss = functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    log_z = logits.logsumexp(-1)[labels.flatten() != IGNORE_INDEX]
    loss = loss + z_loss_weight * log_z.square().sum()
    loss.backward()
    return float(loss.detach()), wide.grad, weights.grad


def largest_error(found, wanted):
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("kernel", WAYS)
@pytest.mark.parametrize("z_loss_weight", [0.0, 1e-2])
def test_value_and_gradients_are_those_of_the_plain_formula_in_float64(z_loss_weight, kernel):
    hidden, head, labels = problem()
    loss = cross_entropy_sum(hidden, head, labels, z_loss_weight=z_loss_weight, kernel=kernel)
    loss.backward()
    value, grad_hidden, grad_head = plain(hidden, head, labels, z_loss_weight)
    assert abs(float(loss.detach()) - value) < 1e-6 * value
    assert largest_error(hidden.grad, grad_hidden) < 1e-5
    assert largest_error(head.grad, grad_head) < 1e-5


def test_in_float64_the_agreement_is_that_of_float64():
    hidden, head, labels = problem(torch.float64)
    loss = cross_entropy_sum(hidden, head, labels, z_loss_weight=1e-3)
    loss.backward()
    value, grad_hidden, grad_head = plain(hidden, head, labels, 1e-3)
    assert loss.dtype == torch.float64
    assert abs(float(loss.detach()) - value) < 1e-12 * value
    assert largest_error(hidden.grad, grad_hidden) < 1e-12
    assert largest_error(head.grad, grad_head) < 1e-12


@pytest.mark.parametrize("kernel", WAYS)
def test_the_gradient_from_above_is_passed_through(kernel):
    hidden, head, labels = problem()
    (cross_entropy_sum(hidden, head, labels, kernel=kernel) * 0.37).backward()
    _, grad_hidden, grad_head = plain(hidden, head, labels)
    assert largest_error(hidden.grad, 0.37 * grad_hidden) < 1e-5
    assert largest_error(head.grad, 0.37 * grad_head) < 1e-5


@pytest.mark.parametrize("kernel", WAYS)
def test_all_logits_are_never_held_at_once(kernel):
    hidden, head, labels = problem()
    with Largest() as largest:
        cross_entropy_sum(hidden, head, labels, kernel=kernel).backward()
        with torch.no_grad():
            label_log_probs(hidden, head, labels)
            cross_entropy_sum(hidden, head, labels)
    assert 0 < largest.values <= 4_194_304  # 349 rows of 12,000; all of them would be 6,000,000
    assert largest.values < ROWS * VOCAB * 0.75


@pytest.mark.parametrize("kernel", WAYS)
def test_rows_without_a_label_have_no_loss_and_no_gradient(kernel):
    hidden, head, labels = problem()
    cross_entropy_sum(hidden, head, labels, z_loss_weight=0.1, kernel=kernel).backward()
    ignored = labels == IGNORE_INDEX
    assert bool((hidden.grad[ignored] == 0).all())
    assert bool((hidden.grad[~ignored].abs().sum(-1) > 0).all())
    only = cross_entropy_sum(hidden.detach()[~ignored], head.detach(), labels[~ignored])
    assert float(only) == pytest.approx(float(cross_entropy_sum(hidden.detach(), head.detach(), labels)), rel=1e-6)


@pytest.mark.parametrize("kernel", WAYS)
def test_nothing_but_ignored_rows_costs_nothing(kernel):
    hidden, head, labels = problem()
    loss = cross_entropy_sum(hidden, head, torch.full_like(labels, IGNORE_INDEX), kernel=kernel)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not hidden.grad.any()
    assert not head.grad.any()


@pytest.mark.parametrize("kernel", WAYS)
def test_the_heads_gradient_is_added_up_in_float32(kernel):
    """Ten chunks of 64 equal rows: added up chunk by chunk in bfloat16, the sum would stop at 512."""
    vocab = 4_194_304 // 64  # 64 rows a chunk
    hidden = torch.ones(64 * 10, 1, dtype=torch.bfloat16)
    head = torch.zeros(vocab, 1, dtype=torch.bfloat16, requires_grad=True)
    cross_entropy_sum(hidden, head, torch.zeros(64 * 10, dtype=torch.int64), kernel=kernel).backward()
    # -(1 - 1/V) * 640, which bfloat16 rounds to 640 at the very end.
    assert float(head.grad[0, 0]) == -640.0


@pytest.mark.parametrize("kernel", WAYS)
def test_bfloat16_gradients_are_near_those_of_float64_on_the_same_numbers(kernel):
    hidden, head, labels = problem(torch.bfloat16)
    loss = cross_entropy_sum(hidden, head, labels, kernel=kernel)
    loss.backward()
    value, grad_hidden, grad_head = plain(hidden, head, labels)
    assert loss.dtype == torch.float32
    assert abs(float(loss.detach()) - value) < 2e-3 * value  # logits are rounded to 8 bits
    assert largest_error(hidden.grad, grad_hidden) < 2e-2
    assert largest_error(head.grad, grad_head) < 2e-2


def test_the_division_by_the_number_of_tokens_is_not_rounded_to_bfloat16():
    """Regression: 1/3 was rounded to bfloat16 before it met the gradient: all of it was 0.2 % too large."""
    hidden, head, labels = problem(torch.bfloat16)
    cross_entropy_sum(hidden, head, labels).backward()
    whole = hidden.grad.clone()
    hidden.grad = None
    (cross_entropy_sum(hidden, head, labels) * (1 / 3)).backward()
    assert torch.equal(hidden.grad, (whole.float() / 3).to(torch.bfloat16))


def test_only_the_gradients_that_are_wanted_are_needed():
    hidden, head, labels = problem()
    cross_entropy_sum(hidden.detach(), head, labels).backward()
    _, _, grad_head = plain(hidden, head, labels)
    assert largest_error(head.grad, grad_head) < 1e-5


def test_huge_logits_stay_finite():
    hidden, head, labels = problem(scale=1e4)
    loss = cross_entropy_sum(hidden, head, labels)
    loss.backward()
    value, grad_hidden, _ = plain(hidden, head, labels)
    assert abs(float(loss.detach()) - value) < 1e-6 * value
    assert largest_error(hidden.grad, grad_hidden) < 1e-3  # logits of 1e5 carry an error of 1e-2


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_gives_what_torch_gives(dtype):
    found = []
    for kernel in (False, True):
        hidden, head, labels = problem(dtype)
        loss = cross_entropy_sum(hidden, head, labels, z_loss_weight=1e-3, kernel=kernel)
        loss.backward()
        found.append((loss.detach(), hidden.grad, head.grad))
    assert found[0][0].dtype == found[1][0].dtype == torch.float32
    assert float(found[1][0]) == pytest.approx(float(found[0][0]), rel=2e-6)
    for theirs, ours in zip(found[0][1:], found[1][1:], strict=True):
        assert ours.dtype == theirs.dtype
        # In bfloat16 a softmax on the edge between two numbers may round to the other: 2^-8 of it, then a sum over many.
        assert largest_error(ours, theirs.double()) < (1e-5 if dtype == torch.float32 else 4e-3)


@needs_kernel
def test_a_dtype_that_the_kernel_cannot_take_is_left_to_torch():
    results = []
    for kernel in (False, True):
        hidden, head, labels = problem(torch.float64)
        loss = cross_entropy_sum(hidden, head, labels, kernel=kernel)
        loss.backward()
        results.append((loss.detach(), hidden.grad, head.grad))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@needs_kernel
def test_the_kernel_does_not_touch_what_it_was_given():
    hidden, head, labels = problem(torch.bfloat16)
    before = [tensor.detach().clone() for tensor in (hidden, head, labels)]
    cross_entropy_sum(hidden, head, labels, kernel=True).backward()
    assert all(torch.equal(was, now) for was, now in zip(before, (hidden, head, labels), strict=True))


@needs_kernel
def test_the_kernel_takes_no_rows_at_all():
    hidden, head = torch.empty(0, WIDTH, requires_grad=True), torch.ones(VOCAB, WIDTH, requires_grad=True)
    loss = cross_entropy_sum(hidden, head, torch.empty(0, dtype=torch.int64), kernel=True)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not head.grad.any()


def test_log_probabilities_of_labels():
    hidden, head, labels = problem()
    found = label_log_probs(hidden, head, labels)
    logits = hidden.detach().double() @ head.detach().double().t()
    wanted = logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    assert found.shape == labels.shape
    assert found.dtype == torch.float32
    assert bool((found[labels == IGNORE_INDEX] == 0).all())
    scored = labels != IGNORE_INDEX
    assert float((found.double() - wanted)[scored].abs().max()) < 1e-5
    assert not found.requires_grad


def test_z_loss_is_refused_where_nothing_is_learnt():
    hidden, head, labels = problem()
    with torch.no_grad(), pytest.raises(ValueError, match="z-loss belongs to training"):
        cross_entropy_sum(hidden, head, labels, z_loss_weight=0.1)


@pytest.mark.parametrize("z_loss_weight", [0.0, 1e-2])
def test_what_is_compiled_for_a_gpu_is_the_loss_and_its_gradient(z_loss_weight):
    """Run as it is written; against autograd through the plain formula in float64."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(64, 300, generator=generator) * 4.0
    labels = torch.randint(0, 300, (64,), generator=generator)
    labels[::7] = IGNORE_INDEX
    loss, grad = gradient_of_logits(logits, labels, z_loss_weight)
    exact = logits.double().requires_grad_()
    scored = labels != IGNORE_INDEX
    log_z = exact.logsumexp(-1)
    wanted = functional.cross_entropy(exact, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    wanted = wanted + z_loss_weight * log_z[scored].square().sum()
    wanted.backward()
    assert float(loss) == pytest.approx(wanted.item(), rel=1e-5)
    assert (grad.double() - exact.grad).abs().max() <= 1e-5 * exact.grad.abs().max()
    assert not grad[~scored].any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_is_what_the_loss_gives_without(dtype):
    """The way of a GPU, compiled for this CPU: value and both gradients."""
    hidden, head, labels = problem(dtype)
    plain = cross_entropy_sum(hidden, head, labels, z_loss_weight=1e-3)
    plain.backward()
    grads = [hidden.grad.double(), head.grad.double()]
    hidden.grad = head.grad = None
    flat = hidden.reshape(-1, WIDTH)
    compiled = _CompiledCrossEntropySum.apply(flat, head, labels.reshape(-1), 1e-3)
    compiled.backward()
    # bfloat16: the logits' gradients are rounded to 8 bits in both ways, of values that differ in the last float32 bits.
    near = 1e-5 if dtype == torch.float32 else 1e-2
    assert compiled.item() == pytest.approx(plain.item(), rel=1e-5)
    for one, other in zip([hidden.grad.double(), head.grad.double()], grads, strict=True):
        assert (one - other).abs().max() <= near * other.abs().max()
