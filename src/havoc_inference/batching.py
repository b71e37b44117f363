"""Many texts at once: which go together, and how a batch of them grows.

B rows, K key/value heads, T columns, V vocabulary. Prompts are padded on the left, so that the next token of every
row belongs in the same column.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from havoc_core.model import Decoder

_EMPTY_COLUMNS = (1, 1, 0, 1)
"""Shape of no new keys: [B, K, 0, E], broadcast."""


def batches(widths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Put texts of like width together, widest first.

    Args:
        widths: tokens that each text needs.
        max_tokens: rows times the widest row, at most; a text that is wider goes alone.

    Returns:
        Indices into `widths`, each once.
    """
    order = sorted(range(len(widths)), key=lambda index: widths[index], reverse=True)
    out: list[list[int]] = []
    for index in order:
        if out and (len(out[-1]) + 1) * widths[out[-1][0]] <= max_tokens:
            out[-1].append(index)
        else:
            out.append([index])
    return out


class Decoding:
    """A batch of texts that grow by one token a step; each token costs one token's work.

    Args:
        model: on the device where this happens.
        prompts: ids of each row, at least one id each.
        max_columns: room for the longest prompt and what is generated; the model's max_seq_len at most.
        max_step_tokens: tokens that go through the model at once while prompts are read, which bounds the memory.
    """

    def __init__(
        self, model: Decoder, prompts: Sequence[Sequence[int]], *, max_columns: int, max_step_tokens: int
    ) -> None:
        self._model = model
        self._device = model.head.device
        self._max_columns = max_columns
        self._max_step_tokens = max_step_tokens
        longest = max(len(ids) for ids in prompts)
        self._prompts = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, ids in enumerate(prompts):
            self._prompts[row, longest - len(ids) :] = torch.tensor(ids)
        self._padding = torch.tensor([longest - len(ids) for ids in prompts], device=self._device)
        self._cache = model.new_cache(self._padding, max_columns)

    @property
    def is_full(self) -> bool:
        """Whether no column is left; `keep` makes room when the longest rows have ended."""
        return self._cache.length >= self._max_columns

    @torch.inference_mode()
    def read_prompts(self) -> Tensor:
        """[B, V] logits of the first new token."""
        rows, columns = self._prompts.shape
        at_once = max(1, self._max_step_tokens // rows)
        hidden = torch.empty(0)
        for start in range(0, columns, at_once):
            hidden = self._model(self._prompts[:, start : start + at_once].to(self._device), cache=self._cache)
        return self._model.logits(hidden[:, -1])

    @torch.inference_mode()
    def extend(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each row: [B, V] logits of the one after it."""
        hidden = self._model(torch.tensor(tokens, device=self._device)[:, None], cache=self._cache)
        return self._model.logits(hidden[:, -1])

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, and the columns that are padding in every one of them."""
        chosen = torch.tensor(rows, device=self._device)
        padding = self._padding[chosen]
        common = int(padding.min())
        smaller = self._model.new_cache(padding - common, self._max_columns)
        nothing = torch.empty(_EMPTY_COLUMNS, device=self._device)
        for layer in range(len(self._model.blocks)):
            # Extending by no columns gives those that are there. Keys were rotated by their place in their own
            # text, so they stay right when the columns move.
            keys, values = self._cache.extend(layer, nothing, nothing)
            smaller.extend(layer, keys[chosen, :, common:], values[chosen, :, common:])
        smaller.advance(self._cache.length - common)
        self._padding, self._cache = padding - common, smaller
