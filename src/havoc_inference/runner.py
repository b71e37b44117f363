"""What computes: tokens of several texts in, logits out. Keys and values stay with the runner, in pages.

B texts, K key/value heads, E head width, D model width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from havoc_core.config import ModelConfig
from havoc_core.layers.kv_cache import KVCache
from havoc_core.model import Decoder

PAGE_SIZE = 16
"""Tokens in a page: half a page is lost on average for each text, and a shared beginning is found to 16 tokens."""
_BLOCK = 64
"""Tokens that torch computes at once of a prompt on a CPU: always the same cut, so that a text gets the same shapes in any
company."""


@dataclass(frozen=True)
class Chunk:
    """New tokens of one text."""

    ids: Sequence[int]
    start: int
    """Position of the first of them; what is before lies in the pages already."""
    pages: Sequence[int]
    """Pages of the text, at least up to the end of these tokens."""
    wanted: Sequence[int]
    """Indices into `ids` whose logits are wanted."""


class Runner(ABC):
    """Computes chunks. One text's numbers must not depend on its company where `alignment` is kept (see `TorchRunner`)."""

    num_pages: int
    """Pages that there are."""
    alignment: int
    """A chunk begins at a multiple of this; it ends at one or at the end of what is known of the text."""
    grows_exactly: bool
    """Whether a token that comes by itself leaves in the pages what it would leave in a chunk, to the bit."""

    @abstractmethod
    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        """[total of wanted, V] float32 on the CPU, in order; puts keys and values of all new tokens into the pages."""


class TorchRunner(Runner):
    """The model's own layers on any device.

    On a CPU texts are computed one by one, in blocks of 64 tokens: the same numbers in any company, unless a text has to
    be read again because pages ran out. On a GPU texts that grow by one token go together, and the last bits may depend on
    how many there are.

    Args:
        model: in evaluation mode, on its device.
        config: its shape.
        num_pages: of keys and values.
        together: whether texts that grow by one token go together; None: not on a CPU.
    """

    alignment = _BLOCK
    grows_exactly = False

    def __init__(self, model: Decoder, config: ModelConfig, *, num_pages: int, together: bool | None = None) -> None:
        self._model = model
        self._device = model.head.device
        self._together = self._device.type != "cpu" if together is None else together
        self.num_pages = num_pages
        shape = (config.num_layers, num_pages, config.attention.num_kv_heads, PAGE_SIZE, config.head_dim)
        self._keys, self._values = (torch.empty(shape, dtype=model.head.dtype, device=self._device) for _ in range(2))

    @torch.inference_mode()
    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        """[total of wanted, V] float32 on the CPU, in order."""
        out: list[list[Tensor]] = [[] for _ in chunks]
        growing = [at for at, chunk in enumerate(chunks) if len(chunk.ids) == 1 and self._together]
        if growing:
            hidden = self._hidden([chunks[at] for at in growing])
            for row, at in enumerate(growing):
                out[at] += [hidden[row, i] for i in chunks[at].wanted]
        for at, chunk in enumerate(chunks):
            if at in growing:
                continue
            for first in range(0, len(chunk.ids), _BLOCK):
                ids = chunk.ids[first : first + _BLOCK]
                hidden = self._hidden([Chunk(ids, chunk.start + first, chunk.pages, ())])
                out[at] += [hidden[0, i - first] for i in chunk.wanted if first <= i < first + len(ids)]
        rows = [row for found in out for row in found]
        return self._logits_of(rows)

    def _hidden(self, chunks: Sequence[Chunk]) -> Tensor:
        tokens = torch.tensor([list(chunk.ids) for chunk in chunks], device=self._device)
        cache = _PagedCache(self._keys, self._values, chunks)
        hidden: Tensor = self._model(tokens, cache=cache)
        return hidden

    def _logits_of(self, rows: Sequence[Tensor]) -> Tensor:
        if not rows:
            return torch.empty(0, self._model.head.shape[0])
        if not self._together:  # one by one, as they would be alone
            return torch.cat([self._model.logits(row[None]).float() for row in rows])
        return self._model.logits(torch.stack(list(rows))).float().cpu()


class _PagedCache(KVCache):
    """Keys and values of the texts of some chunks of equal length, gathered from their pages."""

    def __init__(self, keys: Tensor, values: Tensor, chunks: Sequence[Chunk]) -> None:
        device = keys.device
        num_new = len(chunks[0].ids)
        self._keys, self._values = keys, values
        starts = torch.tensor([chunk.start for chunk in chunks])
        self._positions = (starts[:, None] + torch.arange(num_new)[None]).to(device)
        self._most = int(starts.max()) + num_new
        num_pages = -(-self._most // PAGE_SIZE)
        tables = [[*chunk.pages[:num_pages], *[0] * (num_pages - len(chunk.pages))] for chunk in chunks]
        self._pages = torch.tensor(tables, device=device)
        # What another text has left beyond the end of a shorter one may be NaN, and NaN times a weight of 0 is NaN.
        ends = self._positions[:, -1:, None, None]
        self._beyond = None if len(chunks) == 1 else torch.arange(self._most, device=device)[None, None, :, None] > ends
        places = self._positions // PAGE_SIZE
        self._rows = self._pages.gather(1, places).reshape(-1)
        self._columns = (self._positions % PAGE_SIZE).reshape(-1)

    def positions(self, num_new: int) -> Tensor:
        """[B, T] int64."""
        return self._positions

    def mask(self, num_new: int) -> Tensor:
        """[B, 1, T, S] bool: what stands before a token in its text, and the token itself."""
        columns = torch.arange(self._most, device=self._positions.device)
        return (columns[None, None, :] <= self._positions[:, :, None])[:, None]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [B, K, T, E] into the pages and gather [B, K, S, E]."""
        return self._extend(self._keys[layer], keys), self._extend(self._values[layer], values)

    def _extend(self, pool: Tensor, new: Tensor) -> Tensor:
        pool[self._rows, :, self._columns] = new.transpose(1, 2).flatten(0, 1)
        gathered = pool[self._pages]  # [B, pages, K, page, E]
        columns = gathered.transpose(1, 2).flatten(2, 3)[:, :, : self._most]
        return columns if self._beyond is None else columns.masked_fill(self._beyond, 0.0)

    def advance(self, num_new: int) -> None:
        """Nothing to count: a cache serves one call."""
