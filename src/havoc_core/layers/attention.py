"""Grouped-query attention with rotary positions and optional QK-norm.

B batch, T positions, D model width, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from havoc_core.layers.attention_kernel import document_attention
from havoc_core.layers.fp8_linear import Linear
from havoc_core.layers.kv_cache import KVCache
from havoc_core.layers.norm import RMSNorm
from havoc_core.layers.rope import rotate


@dataclass(frozen=True)
class Sight:
    """What each token may look at; one of the three, or none: everything before it.

    Given as tensors and worked out once a batch, so that a compiled block takes it as it is.
    """

    mask: Tensor | None = None
    """[B or 1, 1, T, S] bool, true where query t may look at key s."""
    starts: Tensor | None = None
    """[B, T] int32: first token that t may look at; for the CPU kernel."""
    blocks: BlockMask | None = None
    """Blocks of T x T that are looked at; for FlexAttention, on CUDA."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q: [B, H, T, E].
        k, v: [B, K, S, E]; each key/value head serves H / K query heads.
        mask: [B or 1, 1, T, S] bool, true where a query may look; None: causal, with T == S.

    Returns:
        [B, H, T, E].
    """
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1]
    )


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, blocks: BlockMask) -> Tensor:
    """The same by FlexAttention, which passes over blocks that nobody may look at and holds no [T, T].

    Compiled on CUDA, inside a compiled block or by itself; elsewhere not, and then it holds every score: for tests. Values
    were compared with masked attention on a CPU, which has no backward for it; on CUDA nothing of it has been run.
    Dong et al. 2024, arXiv:2412.05496.

    Args:
        q: [B, H, T, E].
        k, v: [B, K, T, E].
        blocks: made from [B, T] starts.

    Returns:
        [B, H, T, E].
    """
    flex: Callable[..., Tensor] = flex_attention
    if q.is_cuda and not torch.compiler.is_compiling():
        flex = _compiled_flex_attention()
    return flex(q, k, v, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])


@functools.cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


class Attention(nn.Module):
    """Attention layer without biases; parameter names are those of Hugging Face's Qwen3.

    Args:
        d_model: width of the residual stream (D).
        num_heads, num_kv_heads, head_dim: H, K and E.
        qk_norm: RMSNorm over E on every query and key head.
        eps: of those norms.
    """

    def __init__(
        self, d_model: int, *, num_heads: int, num_kv_heads: int, head_dim: int, qk_norm: bool, eps: float
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = Linear(d_model, num_heads * head_dim)
        self.k_proj = Linear(d_model, num_kv_heads * head_dim)
        self.v_proj = Linear(d_model, num_kv_heads * head_dim)
        self.o_proj = Linear(num_heads * head_dim, d_model)
        self.q_norm = RMSNorm(head_dim, eps=eps) if qk_norm else None
        self.k_norm = RMSNorm(head_dim, eps=eps) if qk_norm else None

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight, cache: tuple[KVCache, int] | None = None
    ) -> Tensor:
        """[B, T, D] -> [B, T, D].

        Args:
            x: normalised input.
            rotary: cosines and sines, each [T, R/2] or [B, T, R/2].
            sight: what each token may look at.
            cache: the cache and the number of this layer in it, when generating.
        """
        batch, num_tokens, _ = x.shape
        heads = (batch, num_tokens, -1, self.head_dim)
        q, k, v = self.q_proj(x).view(heads), self.k_proj(x).view(heads), self.v_proj(x).view(heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if sight.starts is not None:
            out = document_attention(q, k, v, sight.starts)
        else:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            if cache is not None:
                k, v = cache[0].extend(cache[1], k, v)
            blocks = sight.blocks
            out = attend(q, k, v, sight.mask) if blocks is None else attend_in_blocks(q, k, v, blocks)
            out = out.transpose(1, 2)
        out = out.reshape(batch, num_tokens, -1)
        projected: Tensor = self.o_proj(out)
        return projected
