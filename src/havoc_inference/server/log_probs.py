"""Scores of tokens in OpenAI's two shapes: the old one of completions and that of chat."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from havoc_core.tokenizer import Tokenizer
from havoc_inference.request import TokenScore
from havoc_inference.server.protocol import Json

_LEAST = -9999.0
"""What OpenAI writes for "impossible": JSON has no infinity."""


class TokenNames:
    """How a token is written where it stands alone.

    A special token by its name, bytes that are no whole character as `bytes:\\xe2\\x82`, as OpenAI does: with U+FFFD
    for them, several tokens would share one key.

    Args:
        tokenizer: the model's.
        as_ids: write `token_id:N` instead.
    """

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool = False) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids
        self._special = {i: name for name, i in tokenizer.special.items()}

    def name(self, token: int) -> str:
        """One token."""
        if self._as_ids:
            return f"token_id:{token}"
        if token in self._special:
            return self._special[token]
        piece = self._tokenizer.decode_bytes([token])
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)

    def bytes_of(self, token: int) -> list[int]:
        """What it stands for; nothing for a special token."""
        return list(self._tokenizer.decode_bytes([token]))


@dataclass(frozen=True)
class Scored:
    """A token and its score; None for the first of a prompt, before which there is nothing."""

    id: int
    score: TokenScore | None


class TextOffsets:
    """Where tokens begin in the text, in characters; goes on from call to call."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._length = 0

    def of(self, tokens: Sequence[int]) -> list[int]:
        """Offsets of the next tokens; one that begins inside a character has the offset of that character."""
        out = []
        for token in tokens:
            out.append(self._length)
            self._length += len(self._decoder.decode(self._tokenizer.decode_bytes([token])))
        return out


def completion_log_probs(tokens: Sequence[Scored], *, top: int, names: TokenNames, offsets: TextOffsets) -> Json:
    """The old shape: four lists with an entry for each token.

    Args:
        tokens: of the prompt, where it is echoed, and of the answer.
        top: most probable ones beside each. The token itself is always among them, with the very same number:
            clients compare the two to see whether it was the most probable.
        names: how tokens are written.
        offsets: where the text stands.
    """
    scores = [token.score for token in tokens]
    return {
        "tokens": [names.name(token.id) for token in tokens],
        "token_logprobs": [None if score is None else _number(score.log_prob) for score in scores],
        "top_logprobs": [None if score is None else _top(score, top, names) for score in scores],
        "text_offset": offsets.of([token.id for token in tokens]),
    }


def chat_log_probs(scores: Sequence[TokenScore], *, top: int, names: TokenNames) -> Json:
    """The shape of chat: a list with an entry for each token of the answer."""

    def entry(token: int, log_prob: float) -> Json:
        return {"token": names.name(token), "logprob": _number(log_prob), "bytes": names.bytes_of(token)}

    return {
        "content": [
            {
                **entry(score.id, score.log_prob),
                "top_logprobs": [entry(token, value) for token, value in (_with_chosen(score, top) if top else ())],
            }
            for score in scores
        ],
        "refusal": None,
    }


def _top(score: TokenScore, top: int, names: TokenNames) -> dict[str, float]:
    return {names.name(token): _number(value) for token, value in _with_chosen(score, top)}


def _with_chosen(score: TokenScore, top: int) -> list[tuple[int, float]]:
    best = [(token, value) for token, value in score.top[:top] if token != score.id]
    # Sorted by value, the token itself first among equals; the sort is stable.
    return sorted([(score.id, score.log_prob), *best], key=lambda pair: -pair[1])


def _number(log_prob: float) -> float:
    return max(log_prob, _LEAST)
