"""One block of the decoder: attention, then feed-forward, each on a normalised copy of the residual stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor, nn

from havoc_core.layers.attention import Attention, Sight
from havoc_core.layers.feed_forward import FeedForward
from havoc_core.layers.kv_cache import KVCache
from havoc_core.layers.norm import RMSNorm


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)).

    Args:
        d_model: width of the residual stream.
        eps: of both norms.
        dropout: share of each layer's output that is dropped in training.
        self_attn, mlp: the two layers.
    """

    def __init__(self, d_model: int, *, eps: float, dropout: float, self_attn: Attention, mlp: FeedForward) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(d_model, eps=eps)
        self.self_attn = self_attn
        self.post_attention_layernorm = RMSNorm(d_model, eps=eps)
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight, cache: tuple[KVCache, int] | None = None
    ) -> Tensor:
        """[B, T, D] -> [B, T, D]; arguments as in `Attention.forward`."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), rotary, sight, cache))
        out: Tensor = x + self.dropout(self.mlp(self.post_attention_layernorm(x)))
        return out


class BlockRunner(Protocol):
    """How the rows of a batch go through the blocks: one after the other, recomputed, or with streamed weights."""

    def __call__(self, blocks: Iterable[nn.Module], x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight) -> Tensor:
        """[B, T, D] -> [B, T, D] through all blocks in order."""


def run_in_order(blocks: Iterable[nn.Module], x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight) -> Tensor:
    """Block after block; autograd keeps what each needs for its backward pass."""
    for block in blocks:
        x = block(x, rotary, sight)
    return x
