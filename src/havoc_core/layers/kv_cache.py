"""What a layer asks of whoever keeps keys and values of tokens already seen, so that a new token costs one token's work."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class KVCache(ABC):
    """Keys and values of B texts that grow together by the same number of tokens; havoc_inference keeps them in pages.

    B texts, T new tokens of each, S the most tokens of a text, the new ones included.
    """

    @abstractmethod
    def positions(self, num_new: int) -> Tensor:
        """[B, T] int64: position of each new token in its own text."""

    @abstractmethod
    def mask(self, num_new: int) -> Tensor:
        """[B, 1, T, S] bool: what each new token may look at."""

    @abstractmethod
    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add [B, K, T, E] to a layer and give all of it: two [B, K, S, E], finite beyond a text's end."""

    @abstractmethod
    def advance(self, num_new: int) -> None:
        """Count the new tokens as seen; called after the last layer."""
