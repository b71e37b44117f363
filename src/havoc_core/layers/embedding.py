"""Token embedding whose gradient is summed in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Lookup(torch.autograd.Function):
    """Rows of a table. In bfloat16 the sum over a frequent token's hundreds of gradients would stop growing."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return weight[tokens]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        wide = torch.promote_types(ctx.dtype, torch.float32)
        total = torch.zeros(ctx.shape, dtype=wide, device=grad.device)
        total.index_add_(0, tokens.reshape(-1), grad.reshape(-1, ctx.shape[1]).to(wide))
        return total.to(ctx.dtype), None


class Embedding(nn.Module):
    """[V, D] table.

    Args:
        num_tokens: V.
        d_model: D.
    """

    def __init__(self, num_tokens: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_tokens, d_model))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] int64 -> [B, T, D]."""
        if torch.is_grad_enabled():
            out: Tensor = _Lookup.apply(self.weight, tokens)  # type: ignore[no-untyped-call]
            return out
        return self.weight[tokens]
