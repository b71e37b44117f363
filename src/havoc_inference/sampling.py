"""Logits -> the next token. Pure functions; randomness comes from generators that the caller holds.

B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from havoc_core.errors import CheckpointError, ConfigError


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
    presence_penalty: float = 0.0
    """Taken once from the logit of every token that was generated before; the prompt does not count."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time that it was generated before."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(id, number added to its logit); -100 forbids a token in effect, 100 forces it."""
    seed: int = 0
    """Of the draws. Prompt number i of a call has a stream of its own, made of (seed, i)."""
    max_new_tokens: int = 200
    """Tokens to generate at most, for each prompt; 0: none, to have a prompt scored."""

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
            1e-6 <= self.repetition_penalty <= 1e6,  # a logit must stay finite
            "Use 1 (off) or a little more, such as 1.1.",
        )
        for name, penalty in (
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ):
            _check(name, penalty, -2.0 <= penalty <= 2.0, "Use a number from -2 to 2, such as 0.5.")
        for number, bias in self.logit_bias:
            _check(
                "logit_bias", f"{number}: {bias}", number >= 0 and -100.0 <= bias <= 100.0, "Use -100 to 100 for ids."
            )
        _check("seed", self.seed, 0 <= self.seed < 2**63, "Use a whole number from 0 to 2^63 - 1.")
        _check("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 0, "Use 1 or more.")

    @property
    def way(self) -> SamplingOptions:
        """What rows must have in common to be drawn together: temperature and filters."""
        return SamplingOptions(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    @property
    def changes_logits(self) -> bool:
        """Whether logits are changed before anything is drawn."""
        penalties = self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0
        return penalties or bool(self.logit_bias)


GREEDY = SamplingOptions(temperature=0.0, top_k=None, top_p=None)
"""The most probable token, every time."""


def row_generator(seed: int, row: int) -> torch.Generator:
    """The random stream of prompt number `row`; it depends on nothing else that is generated beside it."""
    digest = hashlib.blake2b(f"{seed}/{row}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def sample(logits: Tensor, options: SamplingOptions, generators: Sequence[torch.Generator]) -> Tensor:
    """Choose one token for each row.

    Args:
        logits: [B, V], any float dtype; computed in float32. -inf where a token may not be chosen.
        options: how; penalties and bias are `RowSampler`'s and not looked at here.
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


class Constraint(Protocol):
    """What else forbids tokens of one text; `havoc_inference.grammar` gives one."""

    def forbidden(self) -> Tensor:
        """[V] bool: ids that cannot come next."""

    def take(self, token: int) -> None:
        """A token came."""

    @property
    def is_broken(self) -> bool:
        """Whether it can be followed no further, and all but the end of the text is forbidden."""


class RowSampler:
    """What one text's draws depend on: its options, its random stream, and the tokens that occurred.

    Args:
        options: how tokens are chosen.
        stream: number of the random stream under `options.seed`.
        prompt: its ids, for the repetition penalty.
        vocab_size: V.
        constraint: what forbids tokens by those before; None: nothing does.
    """

    def __init__(
        self,
        options: SamplingOptions,
        *,
        stream: int,
        prompt: Sequence[int],
        vocab_size: int,
        constraint: Constraint | None = None,
    ) -> None:
        self.options = options
        self.way = options.way
        self.constraint = constraint
        self.generator = row_generator(options.seed, stream)
        self._bias: Tensor | None = None
        self._seen: Tensor | None = None
        self._counts: Tensor | None = None
        if options.logit_bias:
            self._bias = torch.zeros(vocab_size)
            for number, bias in options.logit_bias:
                self._bias[number] = bias
        if options.repetition_penalty != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool)
            self._seen[torch.tensor(prompt, dtype=torch.int64)] = True
        if options.presence_penalty != 0.0 or options.frequency_penalty != 0.0:
            self._counts = torch.zeros(vocab_size)

    def changed(self, logits: Tensor) -> Tensor:
        """[V] float32 -> [V]: after penalties and bias."""
        if self._seen is not None:
            penalty = self.options.repetition_penalty
            lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self._seen, lowered, logits)
        if self._counts is not None:
            logits = logits - self.options.frequency_penalty * self._counts
            logits -= self.options.presence_penalty * (self._counts > 0)
        return logits if self._bias is None else logits + self._bias

    @property
    def is_broken(self) -> bool:
        """Whether what binds this text can be followed no further."""
        return self.constraint is not None and self.constraint.is_broken

    def count(self, token: int) -> None:
        """A token was generated."""
        if self.constraint is not None:
            self.constraint.take(token)
        if self._seen is not None:
            self._seen[token] = True
        if self._counts is not None:
            self._counts[token] += 1.0


@torch.inference_mode()
def choose(logits: Tensor, rows: Sequence[RowSampler], *, forbidden: Tensor) -> list[int]:
    """The next token of each row. A row's token does not depend on the others: those of one way are only drawn together.

    Args:
        logits: [B, V] float32 on the CPU.
        rows: one for each.
        forbidden: [V] bool, true for ids that may not be generated (see `Vocabulary`).

    Raises:
        CheckpointError: a row's largest logit is not a finite number.
    """
    logits = logits.masked_fill(forbidden, -math.inf)
    for at, row in enumerate(rows):
        if row.options.changes_logits:
            logits[at] = row.changed(logits[at])
        if row.constraint is not None:
            logits[at].masked_fill_(row.constraint.forbidden(), -math.inf)
    ways: dict[SamplingOptions, list[int]] = {}
    for at, row in enumerate(rows):
        ways.setdefault(row.way, []).append(at)
    out = [0] * len(rows)
    for way, members in ways.items():
        mine = logits if len(members) == len(rows) else logits[members]
        drawn = sample(mine, way, [rows[at].generator for at in members])
        for at, token in zip(members, drawn.tolist(), strict=True):
            out[at] = token
            rows[at].count(token)
    return out


def has_finite_logits(logits: Tensor) -> list[bool]:
    """Whether the largest of each row of [B, V] is a finite number, which it is not where one is none."""
    found: list[bool] = torch.isfinite(logits.max(-1).values).tolist()
    return found


def not_finite() -> CheckpointError:
    """What to say of a row without finite logits."""
    return CheckpointError(
        "model",
        "its logits are not finite numbers.",
        "Its weights are damaged, or training diverged: use an earlier checkpoint (havoc checkpoint list).",
    )


def _require_finite(largest: Tensor) -> None:
    if not bool(torch.isfinite(largest).all()):
        raise not_finite()
