"""Cross-entropy that owns the head: logits exist for one chunk of tokens at a time.

N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from havoc_core import loss_kernel
from havoc_core.costs import LOSS_CHUNK, LOSS_CHUNK_CPU
from havoc_core.labels import IGNORE_INDEX


def cross_entropy_sum(
    hidden: Tensor, head: Tensor, labels: Tensor, *, z_loss_weight: float = 0.0, kernel: bool = False
) -> Tensor:
    """Sum over scored tokens of -log p(label), plus z_loss_weight * log(Z)^2.

    Summed, not averaged: micro-batches hold different numbers of scored tokens, so the division happens once a step.
    Gradients are worked out chunk by chunk on the way forward; the head's is added up in float32.

    Args:
        hidden: [..., D], any float dtype; softmax is computed in float32 (float64 for float64).
        head: [V, D], same dtype.
        labels: [...] int64; IGNORE_INDEX where nothing is to be predicted.
        z_loss_weight: of the squared log-normaliser (PaLM, arXiv:2204.02311, section 5).
        kernel: with gradients, compute what lies between the matrix products in compiled code: on a CPU by the kernel,
            where it takes the dtype (the caller has loaded it: `loss_kernel.load`), elsewhere by torch.compile.

    Returns:
        A scalar, float32 or wider.
    """
    flat = hidden.reshape(-1, hidden.shape[-1])
    if torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad):
        on_cpu = flat.device.type == "cpu"
        function: Any = _CrossEntropySum
        if kernel and (loss_kernel.is_supported(flat) or not on_cpu):
            function = _KernelCrossEntropySum if on_cpu else _CompiledCrossEntropySum
        out: Tensor = function.apply(flat, head, labels.reshape(-1), z_loss_weight)
        return out
    rows = label_log_probs(hidden, head, labels)
    if z_loss_weight:
        raise ValueError("z-loss belongs to training: validation reports the plain cross-entropy")
    return -rows.sum()


@torch.no_grad()
def label_log_probs(hidden: Tensor, head: Tensor, labels: Tensor) -> Tensor:
    """Log-probability, in nats, that the model gave to each label; 0 where the label is IGNORE_INDEX.

    Args:
        hidden: [..., D].
        head: [V, D].
        labels: [...] int64.

    Returns:
        The shape of `labels`, float32 or wider.
    """
    flat, flat_labels = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    out = torch.zeros(flat_labels.shape, dtype=wide, device=hidden.device)
    for rows in _chunks(flat, head.shape[0]):
        log_probs = (flat[rows] @ head.t()).to(wide).log_softmax(-1)
        scored = flat_labels[rows] != IGNORE_INDEX
        picked = log_probs.gather(1, flat_labels[rows].clamp_min(0)[:, None]).squeeze(1)
        out[rows] = torch.where(scored, picked, 0.0)
    return out.reshape(labels.shape)


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, z_loss_weight: float) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros(head.shape, dtype=wide, device=head.device)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for rows in _chunks(hidden, head.shape[0]):
            chunk, chunk_labels = hidden[rows], labels[rows]
            scored = (chunk_labels != IGNORE_INDEX)[:, None]
            picked = chunk_labels.clamp_min(0)[:, None]
            raw = chunk @ head.t()
            log_probs = raw.to(wide).log_softmax(-1)
            label_log_prob = log_probs.gather(1, picked)
            total -= torch.where(scored, label_log_prob, 0.0).sum()
            grad = log_probs.exp_()
            if z_loss_weight:
                log_z = raw.gather(1, picked).to(wide) - label_log_prob
                total += z_loss_weight * torch.where(scored, log_z.square(), 0.0).sum()
                grad *= 1.0 + 2.0 * z_loss_weight * log_z
            grad.scatter_add_(1, picked, torch.full_like(label_log_prob, -1.0))
            grad *= scored
            narrow = grad.to(hidden.dtype)
            grad_hidden[rows] = narrow @ head
            _add_product(grad_head, narrow.t(), chunk)
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_dtype = head.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        # In place: both are ours alone, and the head's is the largest tensor of a step.
        # Not rounded to the hidden states' dtype first: 1 / tokens in bfloat16 is up to 0.4 % off.
        return grad_hidden.mul_(grad), grad_head.mul_(grad).to(ctx.head_dtype), None, None


class _KernelCrossEntropySum(_CrossEntropySum):
    """The same with the compiled kernel: what is left beside it are the three matrix products."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, z_loss_weight: float) -> Tensor:
        chunks = _chunks(hidden, head.shape[0])
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros(head.shape, dtype=torch.float32)
        # One buffer for all chunks: its pages are touched for the first time once.
        buffer = hidden.new_empty(chunks[0].stop if chunks else 0, head.shape[0])
        total = 0.0
        for rows in chunks:
            logits = torch.mm(hidden[rows], head.t(), out=buffer[: rows.stop - rows.start])
            total += loss_kernel.replace_by_gradient(logits, labels[rows], z_loss_weight=z_loss_weight)
            torch.mm(logits, head, out=grad_hidden[rows])
            _add_product(grad_head, logits.t(), hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_dtype = head.dtype
        return torch.tensor(total, dtype=torch.float32)


class _CompiledCrossEntropySum(_CrossEntropySum):
    """The same with everything between the products in compiled code, which reads the logits twice and writes them once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, z_loss_weight: float) -> Tensor:
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for rows in _chunks(hidden, head.shape[0]):
            loss, grad = _compiled_gradient()(hidden[rows] @ head.t(), labels[rows], z_loss_weight)
            total += loss
            grad_hidden[rows] = grad @ head
            _add_product(grad_head, grad.t(), hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_dtype = head.dtype
        return total


@functools.cache
def _compiled_gradient() -> Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]:
    return torch.compile(gradient_of_logits, dynamic=False)


def gradient_of_logits(logits: Tensor, labels: Tensor, z_loss_weight: float) -> tuple[Tensor, Tensor]:
    """Sum of the losses of some rows, float32, and its gradient by the logits.

    Args:
        logits: [n, V], bfloat16, float16 or float32.
        labels: [n] int64; IGNORE_INDEX where nothing is to be predicted.
        z_loss_weight: as in `cross_entropy_sum`.

    Returns:
        A float32 scalar; [n, V] in the dtype of the logits.
    """
    wide, scored = logits.float(), labels != IGNORE_INDEX
    picked = labels.clamp_min(0)
    log_z = wide.logsumexp(-1)
    of_label = wide.gather(1, picked[:, None]).squeeze(1)
    loss = torch.where(scored, log_z - of_label + z_loss_weight * log_z.square(), 0.0).sum()
    is_label = torch.arange(logits.shape[1], device=logits.device)[None, :] == picked[:, None]
    grad = (wide - log_z[:, None]).exp() * (1.0 + 2.0 * z_loss_weight * log_z)[:, None] - is_label.float()
    return loss, torch.where(scored[:, None], grad, 0.0).to(logits.dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _chunks(hidden: Tensor, vocab_size: int) -> list[slice]:
    num_tokens = len(hidden)
    size = max(64, (LOSS_CHUNK_CPU if hidden.device.type == "cpu" else LOSS_CHUNK) // vocab_size)
    return [slice(start, min(start + size, num_tokens)) for start in range(0, num_tokens, size)]
