"""Which tokens of a row belong together.

A row of a batch holds several documents. Attention stays inside one; that is a fact about the batch, worked out once
and handed to every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

_BLOCK = 128
"""Queries and keys on a side of a block; what FlexAttention's kernels are made for."""


@dataclass(frozen=True)
class Segments:
    """The documents in the rows of a batch.

    Positions are counted from the start of the row, not of the document: rotary attention depends on differences
    alone, so inside a document both give the same scores.
    """

    starts: Tensor
    """[B, T] int32: index of the first token of the document that token t belongs to; never decreasing in t."""
    one_each: bool = False
    """Whether every row is known to be one document. Known on the host, so that nobody has to ask the device."""

    @cached_property
    def mask(self) -> Tensor:
        """[B, 1, T, T] bool: row t may look at column s if s <= t and both are in one document."""
        at = torch.arange(self.starts.shape[1], dtype=torch.int32, device=self.starts.device)
        inside = at[None, None, :] >= self.starts[:, :, None]
        return (inside & (at[None, None, :] <= at[None, :, None]))[:, None]

    @cached_property
    def blocks(self) -> BlockMask:
        """The same as `mask` for FlexAttention: which blocks of 128 x 128 are to be looked at, which of them whole.

        [B, 1, T / 128, T / 128] and smaller; [T, T] is never held. Made on the device of `starts` without asking it
        for anything: documents are contiguous, so the first and the last query of a block tell all about it.
        """
        starts, num_tokens = self.starts, self.starts.shape[1]
        padded = torch.cat((starts, starts[:, -1:].expand(-1, -num_tokens % _BLOCK)), 1)
        earliest, latest = padded[:, ::_BLOCK, None], padded[:, _BLOCK - 1 :: _BLOCK, None]
        edges = torch.arange(0, num_tokens, _BLOCK, device=starts.device)
        rows, columns = edges[None, :, None], edges[None, None, :]
        seen = (columns + _BLOCK > earliest) & (columns <= rows)
        # A block that juts out over the end is never whole, as in torch's own masks.
        whole = (columns >= latest) & (columns < rows) & (rows + _BLOCK <= num_tokens)

        def may_look(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (starts[row, query] <= key) & (key <= query)

        return BlockMask.from_kv_blocks(
            *_listed(seen & ~whole), *_listed(whole), _BLOCK, may_look, seq_lengths=(num_tokens, num_tokens)
        )

    @classmethod
    def of_lengths(cls, lengths: Sequence[Sequence[int]], num_tokens: int) -> Segments:
        """From the lengths of the documents in each row; what is left of a row is padding, a segment of its own.

        Raises:
            ValueError: the documents of a row are longer than the row.
        """
        starts = torch.empty(len(lengths), num_tokens, dtype=torch.int32)
        for row, parts in enumerate(lengths):
            at = 0
            for length in parts:
                starts[row, at : at + length] = at
                at += length
            if at > num_tokens:
                raise ValueError(f"row {row} holds {at} tokens of documents, more than its {num_tokens}")
            starts[row, at:] = at
        return cls(starts, all(len(parts) == 1 and parts[0] == num_tokens for parts in lengths))

    def to(self, device: torch.device) -> Segments:
        """The same on another device."""
        return Segments(self.starts.to(device), self.one_each)


def _listed(wanted: Tensor) -> tuple[Tensor, Tensor]:
    """[B, N, N] bool -> how many in each row, [B, 1, N] int32, and which, the wanted ones first, [B, 1, N, N] int32."""
    order = wanted.to(torch.int32).argsort(dim=-1, descending=True, stable=True)
    return wanted.sum(-1, dtype=torch.int32)[:, None], order.to(torch.int32)[:, None]
