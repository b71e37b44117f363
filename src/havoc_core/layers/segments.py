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


@dataclass(frozen=True)
class Segments:
    """The documents in the rows of a batch.

    Positions are counted from the start of the row, not of the document: rotary attention depends on differences
    alone, so inside a document both give the same scores.
    """

    starts: Tensor
    """[B, T] int32: index of the first token of the document that token t belongs to."""

    @cached_property
    def mask(self) -> Tensor:
        """[B, 1, T, T] bool: row t may look at column s if s <= t and both are in one document."""
        at = torch.arange(self.starts.shape[1], dtype=torch.int32, device=self.starts.device)
        inside = at[None, None, :] >= self.starts[:, :, None]
        return (inside & (at[None, None, :] <= at[None, :, None]))[:, None]

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
        return cls(starts)

    def to(self, device: torch.device) -> Segments:
        """The same on another device."""
        return Segments(self.starts.to(device))
