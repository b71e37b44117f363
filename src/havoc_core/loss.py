"""Cross-entropy that owns the head: logits exist for one chunk of tokens at a time.

N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from havoc_core import loss_kernel
from havoc_core.labels import IGNORE_INDEX

_CHUNK_VALUES = 4_194_304
"""Logits held at once (16 MiB in float32): large enough for the matrix product, small enough for the cache."""


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
        kernel: with gradients, use the compiled kernel where it takes the device and dtype; the caller has loaded it
            (`loss_kernel.load`).

    Returns:
        A scalar, float32 or wider.
    """
    flat = hidden.reshape(-1, hidden.shape[-1])
    if torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad):
        function = _KernelCrossEntropySum if kernel and loss_kernel.is_supported(flat) else _CrossEntropySum
        out: Tensor = function.apply(flat, head, labels.reshape(-1), z_loss_weight)  # type: ignore[no-untyped-call]
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
    for rows in _chunks(len(flat), head.shape[0]):
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
        for rows in _chunks(len(hidden), head.shape[0]):
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
        return _scale_gradients(ctx, grad)


class _KernelCrossEntropySum(torch.autograd.Function):
    """The same with the compiled kernel: what is left beside it are the three matrix products."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, z_loss_weight: float) -> Tensor:
        chunks = _chunks(len(hidden), head.shape[0])
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

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return _scale_gradients(ctx, grad)


def _scale_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    grad_hidden, grad_head = ctx.saved_tensors
    # In place: both are ours alone, and the head's is the largest tensor of a step.
    # Not rounded to the hidden states' dtype first: 1 / tokens in bfloat16 is up to 0.4 % off.
    return grad_hidden.mul_(grad), grad_head.mul_(grad).to(ctx.head_dtype), None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _chunks(num_tokens: int, vocab_size: int) -> list[slice]:
    size = max(64, _CHUNK_VALUES // vocab_size)
    return [slice(start, min(start + size, num_tokens)) for start in range(0, num_tokens, size)]
