"""What evaluation needs of a model; havoc_inference's `Engine` happens to fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from havoc_core.tokenizer import Tokenizer


class LanguageModel(Protocol):
    """Three methods, and the two facts without which nobody can call them rightly."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids, as the model learnt them."""

    @property
    def max_seq_len(self) -> int:
        """Tokens of context, prompt and answer together."""

    def token_log_probs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability, in nats, of each token given those before it in its row.

        Args:
            rows: ids; at most max_seq_len + 1 in a row, since the last one is only predicted.

        Returns:
            For each row one number less than it has ids.
        """

    def answer(self, dialogs: Sequence[Sequence[tuple[str, str]]], *, max_new_tokens: int) -> list[str]:
        """The assistant's most probable next message in each dialog of (role, content) pairs."""

    def generate_text(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """The most probable continuation of each text, without the text itself."""
