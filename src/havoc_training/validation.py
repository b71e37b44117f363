"""Loss, perplexity and bits per byte on held-out rows, in all and per group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from havoc_core.distributed import World
from havoc_core.labels import IGNORE_INDEX
from havoc_core.loss import label_log_probs
from havoc_core.model import Decoder
from havoc_data.loading.loader import Batch
from havoc_training.step import DeviceBatch


@dataclass(frozen=True)
class Score:
    """How well some text was predicted."""

    loss: float
    """Nats per scored token."""
    bits_per_byte: float
    """Comparable between tokenizers; special tokens count neither as bits nor as bytes."""

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True)
class ValidationResult:
    """Scores at one step."""

    total: Score
    """Mean of the groups, weighted by the mixture."""
    groups: dict[str, Score]


@torch.no_grad()
def validate(
    model: Decoder,
    batches: Mapping[str, Sequence[Batch]],
    *,
    ratios: Mapping[str, float],
    token_lengths: Tensor,
    world: World,
) -> ValidationResult:
    """Score the held-out rows.

    Args:
        model: left in evaluation mode; `train_step` sets the mode it needs.
        batches: group -> the same batches at every validation; ranks take turns.
        ratios: group -> mixture weight.
        token_lengths: [V] bytes of each id, 0 for special tokens.
        world: ranks.
    """
    model.eval()
    groups = {}
    for group, rows in batches.items():
        sums = torch.zeros(4, dtype=torch.float64)  # nats, tokens, nats of text, bytes
        for batch in rows[world.rank :: world.size]:
            sums += _sums(model, batch, token_lengths)
        nats, tokens, text_nats, text_bytes = world.sum(sums).tolist()
        groups[group] = Score(nats / tokens, text_nats / (math.log(2) * max(1.0, text_bytes)))
    whole = sum(ratios[group] for group in groups)
    total = Score(
        sum(ratios[group] * score.loss for group, score in groups.items()) / whole,
        sum(ratios[group] * score.bits_per_byte for group, score in groups.items()) / whole,
    )
    return ValidationResult(total, groups)


def _sums(model: Decoder, rows: Batch, token_lengths: Tensor) -> Tensor:
    batch = DeviceBatch.of(rows, model.head.device)
    nats = -label_log_probs(model(batch.inputs, segments=batch.segments), model.head, batch.labels).double().cpu()
    labels = batch.labels.cpu()
    scored = labels != IGNORE_INDEX
    lengths = token_lengths[labels.clamp_min(0)] * scored
    return torch.stack([nats.sum(), scored.sum().double(), nats[lengths > 0].sum(), lengths.sum().double()])
