"""What is asked of the engine, and what comes back, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from havoc_inference.sampling import SamplingOptions

FinishReason = Literal["stop", "length"]
"""stop: the model ended it, or a stop string came. length: `max_new_tokens` or the end of the context."""


@dataclass(frozen=True)
class Request:
    """A prompt to be continued."""

    prompt: tuple[int, ...]
    """Ids, BOS included (`Engine.encode_prompt`, `chat_format.prompt`)."""
    options: SamplingOptions
    """How tokens are chosen, and how many."""
    stream: int = 0
    """Number of the random stream under the options' seed: answer i of n takes i."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; neither they nor what follows is part of it."""
    top_log_probs: int | None = None
    """Give every token its log-probability, and so many of the most probable ones beside it; None: no scores."""
    score_prompt: bool = False
    """Score the tokens of the prompt too."""
    json_schema: str | None = None
    """JSON text of a schema: the answer is JSON that fits it, if it is not cut off by its length."""
    ignore_end: bool = False
    """Go on where the model would end, to the last token asked for; for measurements."""

    def __post_init__(self) -> None:
        """A text is a sequence of texts too, and would stop at each of its characters."""
        assert not isinstance(self.stop, str), "stop is a tuple of texts"


@dataclass(frozen=True)
class TokenScore:
    """A token and how probable the model held it, before any sampling option."""

    id: int
    log_prob: float
    """In nats."""
    top: tuple[tuple[int, float], ...]
    """(id, log-probability) of the most probable tokens, best first."""


@dataclass(frozen=True)
class Piece:
    """What is new in an answer since the piece before."""

    text: str
    """Whole characters only, and nothing that may become a stop string."""
    ids: tuple[int, ...] = ()
    """Tokens that `text` is made of; a token whose text is held back comes with it."""
    scores: tuple[TokenScore, ...] = ()
    """One for each of `ids`, where they were asked for."""
    prompt_scores: tuple[TokenScore | None, ...] = ()
    """In the first piece, where they were asked for: one for each token of the prompt; None for the first."""
    finish_reason: FinishReason | None = None
    """In the last piece."""
