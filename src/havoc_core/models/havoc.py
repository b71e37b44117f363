"""HAVOC's decoder: RMSNorm, RoPE, grouped-query attention with QK-norm, SwiGLU.

With `qk_norm` it is Hugging Face's Qwen3, without it Llama, parameter for parameter.
B batch, T positions, D model width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from havoc_core.config import ModelConfig
from havoc_core.layers.attention import Attention, Sight
from havoc_core.layers.attention_kernel import is_supported
from havoc_core.layers.block import Block, BlockRunner, run_in_order
from havoc_core.layers.embedding import Embedding
from havoc_core.layers.feed_forward import FeedForward
from havoc_core.layers.kv_cache import KVCache
from havoc_core.layers.norm import RMSNorm
from havoc_core.layers.rope import rotary_table
from havoc_core.layers.segments import Segments
from havoc_core.model import Decoder

Options = ModelConfig
"""This model's settings are the page's own `model:` section."""


class Backbone(nn.Module):
    """Everything but the head; its name in a state dict is `model`, as in Hugging Face's models."""

    def __init__(self, embed_tokens: Embedding, layers: nn.ModuleList, norm: RMSNorm) -> None:
        super().__init__()
        self.embed_tokens = embed_tokens
        self.layers = layers
        self.norm = norm


class Head(nn.Module):
    """[V, D] output weights; `weight` may be the embedding's own."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight


class HavocModel(Decoder):
    """Tokens -> hidden states. Build it with `build(config)`.

    Args:
        model: embedding, blocks, last norm.
        lm_head: the head.
        config: the shape.
    """

    def __init__(self, model: Backbone, lm_head: Head, config: ModelConfig) -> None:
        super().__init__()
        self.model = model
        self.lm_head = lm_head
        self.config = config
        self._cpu_kernel = False
        self._block_masks = False
        self._runner: BlockRunner = run_in_order
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def forward(self, tokens: Tensor, *, segments: Segments | None = None, cache: KVCache | None = None) -> Tensor:
        """[B, T] int64 -> [B, T, D]."""
        num_tokens = tokens.shape[1]
        cos, sin = self._rotary(tokens.device)
        x = self.model.embed_tokens(tokens)
        if cache is None:
            rotary = (cos[:num_tokens], sin[:num_tokens])
            x = self._runner(self.model.layers, x, rotary, self._sight(tokens, segments))
        else:
            positions = cache.positions(num_tokens)
            rotary, sight = (cos[positions], sin[positions]), Sight(mask=cache.mask(num_tokens))
            for number, block in enumerate(self.model.layers):
                x = block(x, rotary, sight, (cache, number))
            cache.advance(num_tokens)
        out: Tensor = self.model.norm(x)
        return out

    def run_blocks_with(self, runner: BlockRunner) -> None:
        """Send batches through the blocks with another runner; generation with a cache always goes in order."""
        self._runner = runner

    def use_cpu_kernel(self) -> None:
        """Attend with the compiled kernel wherever it takes the shapes; the caller has loaded it."""
        self._cpu_kernel = True

    def use_block_masks(self) -> None:
        """Attend with FlexAttention on CUDA wherever rows hold several documents; it compiles code for that."""
        self._block_masks = True

    def _sight(self, tokens: Tensor, segments: Segments | None) -> Sight:
        # Without any mask torch chooses its fastest attention, which is cuDNN's on Hopper.
        if segments is None or (tokens.is_cuda and segments.one_each):
            return Sight()
        if self._cpu_kernel and is_supported(self.head, tokens, self.config.head_dim):
            return Sight(starts=segments.starts)
        if self._block_masks and tokens.is_cuda:
            return Sight(blocks=segments.blocks)
        return Sight(mask=segments.mask)

    def _rotary(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # Kept out of the state dict and of the meta device: a table can always be computed.
        if device not in self._tables:
            attention = self.config.attention
            table = rotary_table(
                self.config.max_seq_len, attention.rotary_dim or self.config.head_dim, attention.rope_theta
            )
            self._tables[device] = (table[0].to(device), table[1].to(device))
        return self._tables[device]

    @property
    def head(self) -> nn.Parameter:
        """[V, D]."""
        return self.lm_head.weight

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks in order."""
        return self.model.layers

    def init_std(self, name: str) -> float | None:
        """`initializer_range`; projections into the residual stream over sqrt(2 * num_layers), as in GPT-2."""
        if name.endswith("norm.weight"):
            return None
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            return self.config.initializer_range / math.sqrt(2 * self.config.num_layers)
        return self.config.initializer_range


def build(config: ModelConfig) -> HavocModel:
    """The model on the meta device: shapes without memory. `place_weights` fills it."""
    attention, eps = config.attention, config.layer_norm_eps
    with torch.device("meta"):
        layers = nn.ModuleList(
            Block(
                config.d_model,
                eps=eps,
                dropout=config.dropout,
                self_attn=Attention(
                    config.d_model,
                    num_heads=attention.num_heads,
                    num_kv_heads=attention.num_kv_heads,
                    head_dim=config.head_dim,
                    qk_norm=attention.qk_norm,
                    eps=eps,
                ),
                mlp=FeedForward(config.d_model, hidden_dim=config.mlp.hidden_dim, activation=config.mlp.activation),
            )
            for _ in range(config.num_layers)
        )
        backbone = Backbone(Embedding(config.vocab_size, config.d_model), layers, RMSNorm(config.d_model, eps=eps))
        own = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        head = Head(backbone.embed_tokens.weight if config.tie_embeddings else own)
        return HavocModel(backbone, head, config)
