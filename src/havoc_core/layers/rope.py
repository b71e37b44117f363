"""Rotary positions. Su et al. 2021, arXiv:2104.09864; halves are paired as in Hugging Face's models."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(num_positions: int, rotary_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every angle: two [num_positions, rotary_dim / 2], float32, on the CPU.

    Channel pair i turns by position * theta^(-2i / rotary_dim).
    """
    frequencies = 1.0 / (theta ** (torch.arange(0, rotary_dim, 2, dtype=torch.int64).float() / rotary_dim))
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first rotary_dim channels of every head by its position; the others pass.

    Args:
        x: [B, T, heads, E].
        cos, sin: [T, rotary_dim / 2] or [B, T, rotary_dim / 2], float32.

    Returns:
        [B, T, heads, E] in x's dtype; computed in float32.
    """
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)
    return turned if rest.shape[-1] == 0 else torch.cat((turned, rest), -1)
