"""Gated feed-forward layer. Shazeer 2020, arXiv:2002.05202."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from havoc_core.layers.fp8_linear import Linear


class FeedForward(nn.Module):
    """down(gate(x) * up(x)), without biases.

    Args:
        d_model: width of the residual stream.
        hidden_dim: inner width.
        activation: "swiglu" (SiLU gate) or "geglu" (exact GELU gate).
    """

    def __init__(self, d_model: int, *, hidden_dim: int, activation: str) -> None:
        super().__init__()
        self.gate_proj = Linear(d_model, hidden_dim)
        self.up_proj = Linear(d_model, hidden_dim)
        self.down_proj = Linear(hidden_dim, d_model)
        gates: dict[str, Callable[[Tensor], Tensor]] = {"swiglu": F.silu, "geglu": F.gelu}
        self._gate = gates[activation]

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        out: Tensor = self.down_proj(self._gate(self.gate_proj(x)) * self.up_proj(x))
        return out
