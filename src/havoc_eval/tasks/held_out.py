"""Bits per byte on held-out text: how well the model predicts what it has not seen. Less is better."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from havoc_core.errors import ConfigError, DataError
from havoc_core.statistics import bits_per_byte, bootstrap_ratios, interval_of_draws
from havoc_eval.held_out_text import read_held_out
from havoc_eval.language_model import LanguageModel
from havoc_eval.scoring import ScoredDocument, score_documents
from havoc_eval.task import TOTAL, Score, TaskResult

NAME = "held_out"
VERSION = 1
METRIC = "bits_per_byte"


class Options(BaseModel):
    """What held-out text is measured, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    files: dict[str, Path]
    """Group -> file of held-out documents."""
    ratios: dict[str, float] = {}
    """Group -> weight in the total, such as `data.ratios`; shared among the groups that there are. Empty: by bytes."""
    window_tokens: int | None = Field(None, ge=1)
    """Tokens of context; null: the model's max_seq_len. A model trained on shorter rows should be given theirs."""
    seed: int = Field(0, ge=0)
    """Of the bootstrap."""


class HeldOut:
    """The task. Build it with `build(options)`.

    A group's value is the nats of all its documents over all their bytes. Its interval is a bootstrap over documents:
    how much other documents of the same kind would have changed it. The total is the groups' values, weighted by the
    ratios.
    """

    name = NAME
    version = VERSION

    def __init__(self, options: Options) -> None:
        self._options = options
        self._shares = _shares(options)

    def run(self, model: LanguageModel) -> TaskResult:
        """Score every group.

        Raises:
            ConfigError: the window is longer than the model's context.
            DataError: a file is missing, damaged, or holds no text.
            CheckpointError: the model gives a probability that is no number.
        """
        window = self._options.window_tokens or model.max_seq_len
        if window > model.max_seq_len:
            raise ConfigError(
                "window_tokens",
                f"{window:,} is longer than the model's context of {model.max_seq_len:,}.",
                f"Use {model.max_seq_len} or less, or leave it out.",
            )
        scored = {}
        for group, path in sorted(self._options.files.items()):
            scored[group] = list(score_documents(model, read_held_out(path), window_tokens=window))
            if not scored[group]:
                raise DataError(
                    str(path), "holds no text.", "Raise `data.validation_fraction`, or leave the group out."
                )
        return self._result(scored, window)

    def _result(self, scored: Mapping[str, list[ScoredDocument]], window: int) -> TaskResult:
        scores, draws = [], {}
        for number, (group, documents) in enumerate(scored.items()):
            nats = [document.nats for document in documents]
            sizes = [document.num_bytes for document in documents]
            # Each group its own stream, or equal numbers of documents would be drawn alike in every group.
            ratios = bootstrap_ratios(nats, sizes, seed=self._options.seed + number)
            draws[group] = np.array([bits_per_byte(float(ratio), 1) for ratio in ratios])
            value = bits_per_byte(sum(nats), sum(sizes))
            scores.append(_score(group, value, draws[group], _counts(documents)))
        total_bytes = sum(score.counts["bytes"] for score in scores)
        shares = self._shares or {score.group: score.counts["bytes"] / total_bytes for score in scores}
        everything = [document for documents in scored.values() for document in documents]
        value = sum(shares[score.group] * score.value for score in scores)
        mixed = np.sum([shares[group] * of_group for group, of_group in draws.items()], axis=0)
        scores.append(_score(TOTAL, value, mixed, _counts(everything)))
        weighting = ", ".join(f"{group} {share:.1%}" for group, share in shares.items())
        notes = (
            f"Windows of {window:,} tokens; a longer document goes on in the next, without the context before it.",
            f"The total weighs the groups: {weighting}.",
        )
        return TaskResult(task=NAME, version=VERSION, scores=tuple(scores), notes=notes)


def build(options: Options) -> HeldOut:
    """The task.

    Raises:
        ConfigError: there are no groups, or the ratios give none of them a weight.
    """
    return HeldOut(options)


def _shares(options: Options) -> dict[str, float]:
    """Weight of each group in the total, adding up to 1; empty: by bytes."""
    if not options.files:
        raise ConfigError("files", "there is no group of held-out text.", "Build it: havoc data build.")
    if not options.ratios:
        return {}
    weights = {group: options.ratios.get(group, 0.0) for group in sorted(options.files)}
    total = sum(weights.values())
    if min(weights.values()) < 0.0 or not 0.0 < total < float("inf"):
        raise ConfigError(
            "ratios",
            f"{options.ratios} gives {', '.join(weights)} no weights.",
            "Use positive numbers, such as `data.ratios`.",
        )
    return {group: weight / total for group, weight in weights.items()}


def _score(group: str, value: float, draws: np.ndarray, counts: dict[str, int]) -> Score:
    interval = interval_of_draws(draws) if counts["documents"] > 1 else None
    return Score(
        group=group,
        metric=METRIC,
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        baseline=8.0,  # bits in a byte: a model that says nothing at all about the next one
        counts=counts,
    )


def _counts(documents: list[ScoredDocument]) -> dict[str, int]:
    return {"documents": len(documents), "bytes": sum(document.num_bytes for document in documents)}
