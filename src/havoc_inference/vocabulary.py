"""What of a tokenizer the drawing of tokens needs to know."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from havoc_core.tokenizer import Tokenizer


@dataclass(frozen=True)
class Vocabulary:
    """Ids of a model: which may be generated, which end a text, which bytes they stand for.

    Args:
        tokenizer: the model's own.
        size: V, rows of the model's head; at least the tokenizer's ids.
    """

    tokenizer: Tokenizer
    size: int
    ends: frozenset[int]
    """Ids that end a text."""
    forbidden: Tensor
    """[V] bool, on the CPU: ids that are never generated."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, size: int) -> Vocabulary:
        """The vocabulary of a model with V ids."""
        ends = stop_ids(tokenizer)
        return cls(tokenizer, size, ends, ~allowed_ids(tokenizer, size))

    def bytes_of(self, token: int) -> bytes:
        """Bytes that a token stands for."""
        return self.tokenizer.decode_bytes([token])


def allowed_ids(tokenizer: Tokenizer, vocab_size: int) -> Tensor:
    """[vocab_size] bool: ids that may be generated.

    Those that stand for bytes, which special tokens never do, and the ends (see `stop_ids`). Never unused ids,
    or rows of the embedding that the tokenizer does not know.
    """
    allowed = torch.zeros(vocab_size, dtype=torch.bool)
    lengths = torch.from_numpy(tokenizer.token_lengths()[:vocab_size])
    allowed[: len(lengths)] = lengths > 0
    allowed[sorted(stop_ids(tokenizer))] = True
    return allowed


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that end a text: the end of text, and the end of a message where the tokenizer has one."""
    end = tokenizer.special.get("<|end|>")
    return frozenset({tokenizer.eos_id} if end is None else {tokenizer.eos_id, end})
