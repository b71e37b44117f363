"""Logits -> the next token. Pure functions; randomness comes from generators that the caller holds.

B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from havoc_core.errors import CheckpointError, ConfigError
from havoc_core.tokenizer import Tokenizer


def _check(name: str, value: object, holds: bool, remedy: str) -> None:
    if not holds:
        raise ConfigError(name, f"{value} is out of range.", remedy)


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen.

    The steps are taken in the order of the fields: the logits are divided by the temperature, then the candidates
    are narrowed by top_k, top_p and min_p, each on the probabilities that the one before left over.

    Raises:
        ConfigError: a value is out of range; names it.
    """

    temperature: float = 0.8
    """0: always the most probable token. Above 1 flattens the distribution."""
    top_k: int | None = 50
    """Only the k most probable tokens; None: all."""
    top_p: float | None = 0.95
    """Only the smallest set of tokens that holds this probability (nucleus, arXiv:1904.09751); None: all."""
    min_p: float | None = None
    """Only tokens with at least this share of the most probable one's probability (arXiv:2407.01082); None: all."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens that occurred, prompt included (CTRL,
    arXiv:1909.05858); 1.0: off."""
    seed: int = 0
    """Of the draws. Prompt number i of a call has a stream of its own, made of (seed, i)."""
    max_new_tokens: int = 200
    """Tokens to generate at most, for each prompt."""

    def __post_init__(self) -> None:
        """Check every value."""
        _check(
            "temperature",
            self.temperature,
            0.0 <= self.temperature < math.inf,
            "Use 0 (greedy) or a number above it, such as 0.8.",
        )
        _check(
            "top_k", self.top_k, self.top_k is None or self.top_k >= 1, "Use 1 or more, or leave it out for all tokens."
        )
        _check(
            "top_p",
            self.top_p,
            self.top_p is None or 0.0 < self.top_p <= 1.0,
            "Use a number above 0 and up to 1, such as 0.95.",
        )
        _check(
            "min_p",
            self.min_p,
            self.min_p is None or 0.0 <= self.min_p <= 1.0,
            "Use a number from 0 to 1, such as 0.05.",
        )
        _check(
            "repetition_penalty",
            self.repetition_penalty,
            0.0 < self.repetition_penalty < math.inf,
            "Use 1 (off) or a little more, such as 1.1.",
        )
        _check("seed", self.seed, 0 <= self.seed < 2**63, "Use a whole number from 0 to 2^63 - 1.")
        _check("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "Use 1 or more.")


GREEDY = SamplingOptions(temperature=0.0, top_k=None, top_p=None)
"""The most probable token, every time."""


def row_generator(seed: int, row: int) -> torch.Generator:
    """The random stream of prompt number `row`; it depends on nothing else that is generated beside it."""
    digest = hashlib.blake2b(f"{seed}/{row}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


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


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Lower the logits of tokens that occurred.

    Args:
        logits: [B, V].
        seen: [B, V] bool, true for tokens that occurred in the row.
        penalty: as `SamplingOptions.repetition_penalty`.

    Returns:
        [B, V], a new tensor.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def sample(logits: Tensor, options: SamplingOptions, generators: Sequence[torch.Generator]) -> Tensor:
    """Choose one token for each row.

    Args:
        logits: [B, V], any float dtype; computed in float32. -inf where a token may not be chosen.
        options: how; `repetition_penalty` is `penalize`'s and not looked at here.
        generators: one for each row, on the CPU, each advanced by one draw; not looked at when temperature is 0.

    Returns:
        [B] int64.

    Raises:
        CheckpointError: a row's largest logit is not a finite number.
    """
    logits = logits.float()
    if options.temperature == 0.0:
        best, ids = logits.max(-1)
        _require_finite(best)
        return ids
    # Sorted, so that every filter is a cut; candidates are few when top_k is given.
    if options.top_k is None:
        values, ids = logits.sort(-1, descending=True)
    else:
        values, ids = logits.topk(min(options.top_k, logits.shape[-1]), -1)
    _require_finite(values[:, 0])
    # The largest becomes 0 before the division: at a temperature of 1e-30 it would overflow.
    probs = ((values - values[:, :1]) / max(options.temperature, 1e-30)).softmax(-1)
    if options.top_p is not None and options.top_p < 1.0:
        kept = probs.cumsum(-1) - probs < options.top_p  # the token that crosses the bound is kept
        kept[:, 0] = True  # also where top_p is 0 in float32
        probs = probs * kept
    if options.min_p is not None:
        probs = probs * (probs >= options.min_p * probs[:, :1])
    cdf = probs.cumsum(-1)
    draws = torch.stack([torch.rand((), generator=generator) for generator in generators]).to(cdf.device)
    # right=True never lands on a token without probability; a draw is below 1, so it lies below the last entry.
    at = torch.searchsorted(cdf, (draws * cdf[:, -1])[:, None], right=True).clamp_max(cdf.shape[-1] - 1)
    # Rounding can carry draw * total up to the total itself, and past the last token that has probability.
    last = (probs > 0).sum(-1, keepdim=True) - 1
    return ids.gather(-1, torch.minimum(at, last)).squeeze(-1)


class Sampler:
    """Chooses tokens for a batch whose rows end at different times.

    Args:
        options: how.
        allowed: [V] bool, on the logits' device; see `allowed_ids`.
        prompts: the ids of each row, for the repetition penalty.
        streams: number of the random stream of each row.
    """

    def __init__(
        self, options: SamplingOptions, *, allowed: Tensor, prompts: Sequence[Sequence[int]], streams: Sequence[int]
    ) -> None:
        self._options = options
        self._forbidden = ~allowed
        self._generators = [row_generator(options.seed, stream) for stream in streams]
        self._seen: Tensor | None = None
        if options.repetition_penalty != 1.0:
            self._seen = torch.zeros(len(prompts), len(allowed), dtype=torch.bool, device=allowed.device)
            for row, ids in enumerate(prompts):
                self._seen[row, torch.tensor(ids, device=allowed.device)] = True

    @torch.inference_mode()
    def choose(self, logits: Tensor) -> list[int]:
        """The next token of each row, from [B, V] logits.

        Raises:
            CheckpointError: a row's largest logit is not a finite number.
        """
        if self._seen is not None:
            logits = penalize(logits, self._seen, self._options.repetition_penalty)
        tokens = sample(logits.masked_fill(self._forbidden, -math.inf), self._options, self._generators)
        if self._seen is not None:
            self._seen[torch.arange(len(tokens), device=tokens.device), tokens] = True
        out: list[int] = tokens.tolist()
        return out

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        self._generators = [self._generators[row] for row in rows]
        if self._seen is not None:
            self._seen = self._seen[list(rows)]


def _require_finite(largest: Tensor) -> None:
    if not bool(torch.isfinite(largest).all()):
        raise CheckpointError(
            "model",
            "its logits are not finite numbers.",
            "Its weights are damaged, or training diverged: use an earlier checkpoint (havoc checkpoint list).",
        )
