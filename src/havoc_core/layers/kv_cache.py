"""Keys and values of tokens already seen, so that a new token costs one token's work."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Room for `max_tokens` columns in every layer, for a batch of prompts padded on the left.

    Args:
        num_layers, num_kv_heads, head_dim: shape of the model.
        padding: [B] int64, columns of padding before each prompt.
        max_tokens: columns in all, padding included.
        dtype: of keys and values; they lie on the device of `padding`.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        padding: Tensor,
        max_tokens: int,
        dtype: torch.dtype,
    ) -> None:
        shape = (num_layers, len(padding), num_kv_heads, max_tokens, head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=padding.device)
        self._values = torch.zeros(shape, dtype=dtype, device=padding.device)
        self._padding = padding
        self.length = 0
        """Columns in use."""

    def positions(self, num_new: int) -> Tensor:
        """[B, num_new] int64: position of each new token in its own text; 0 in the padding."""
        columns = torch.arange(self.length, self.length + num_new, device=self._padding.device)
        return (columns[None, :] - self._padding[:, None]).clamp_min(0)

    def mask(self, num_new: int) -> Tensor:
        """[B, 1, num_new, length + num_new] bool: columns that each new token may look at.

        A padding token looks at itself, so that no row of the softmax is empty.
        """
        total = self.length + num_new
        columns = torch.arange(total, device=self._padding.device)
        rows = columns[self.length :]
        seen = (columns[None, None, :] >= self._padding[:, None, None]) & (
            columns[None, None, :] <= rows[None, :, None]
        )
        return (seen | (columns[None, None, :] == rows[None, :, None]))[:, None]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add [B, K, num_new, E] to a layer and give all of its columns; `advance` after the last layer."""
        end = self.length + keys.shape[2]
        self._keys[layer, :, :, self.length : end] = keys
        self._values[layer, :, :, self.length : end] = values
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def advance(self, num_new: int) -> None:
        """Count the new columns as seen."""
        self.length += num_new
