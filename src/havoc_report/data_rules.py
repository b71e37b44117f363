"""How much text a model needs, and how often a text may be read: published rules as small pure functions."""

from __future__ import annotations

import math
from typing import Literal

TOKENS_PER_PARAMETER = 20.0
"""Tokens for each parameter where training compute is best spent: Hoffmann et al. 2022, arXiv:2203.15556."""
REPEAT_DECAY = 15.387756
"""R_D* of Muennighoff et al. 2023, arXiv:2305.16264, appendix A: by then a repetition is worth 1/e of fresh text."""
FREE_EPOCHS = 4.0
"""Up to here reading again is nearly as good as fresh text (the same paper)."""
USEFUL_EPOCHS = 16.0
"""Beyond this, reading again gives little (the same paper)."""
MAX_EPOCHS = 40.0
"""Beyond this, reading again gives nothing and is refused unless `data.allow_repeats` says otherwise."""
ESTIMATED_BYTES_PER_TOKEN = 4.0
"""Bytes of text a token, before there is a tokenizer. On the high side for mathematics and for small vocabularies, so
that the estimate is of few tokens rather than of many."""

EpochsVerdict = Literal["fine", "warning", "strong warning", "refused"]


def effective_tokens(unique_tokens: float, epochs: float) -> float:
    """Fresh tokens that would teach as much as `unique_tokens` read `epochs` times.

    D' = U + U R* (1 - exp(-R / R*)) with R = epochs - 1 repetitions: equation 5 of Muennighoff et al. 2023,
    arXiv:2305.16264. Less than one epoch reads that share of the text, each token once.

    Raises:
        ValueError: one of the two is negative or not finite.
    """
    for name, value in (("unique_tokens", unique_tokens), ("epochs", epochs)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value!r}, and neither tokens nor epochs can be negative or infinite")
    if epochs <= 1:
        return unique_tokens * epochs
    # expm1: for few repetitions 1 - exp() would lose the digits that matter.
    return unique_tokens * (1 - REPEAT_DECAY * math.expm1(-(epochs - 1) / REPEAT_DECAY))


def supported_parameters(unique_tokens: float, epochs: float = FREE_EPOCHS) -> float:
    """Parameters of the model that so much text suffices for: 20 effective tokens each.

    Args:
        unique_tokens: tokens of text that differ from each other, without what is held out.
        epochs: how often the text is read; four is as far as that is nearly free.
    """
    return effective_tokens(unique_tokens, epochs) / TOKENS_PER_PARAMETER


def epochs_verdict(epochs: float) -> EpochsVerdict:
    """Whether a text may be read so often: fine up to 4, a warning up to 16, a strong one up to 40, then refused."""
    if epochs <= FREE_EPOCHS:
        return "fine"
    if epochs <= USEFUL_EPOCHS:
        return "warning"
    return "strong warning" if epochs <= MAX_EPOCHS else "refused"


def estimated_tokens(text_bytes: int) -> int:
    """Tokens that a text will have once there is a tokenizer: an estimate, to be shown as one."""
    return round(text_bytes / ESTIMATED_BYTES_PER_TOKEN)
