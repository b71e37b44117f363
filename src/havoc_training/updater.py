"""What the loop needs of whatever updates the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor

from havoc_training.memory.gradients import GradientSums


class Updater(Protocol):
    """Sums gradients and updates weights: FlatOptimizer for AdamW, WholeOptimizer for any optimizer of torch's kind."""

    @property
    def gradients(self) -> GradientSums:
        """Where the gradients of the model's parameters are summed."""

    @property
    def leaves_out(self) -> bool:
        """Whether `update` can be told on the device that a gradient was not finite, without the host waiting."""

    def param_groups(self) -> Iterable[dict[str, Any]]:
        """Groups with `lr`, and the `initial_lr` that the schedule multiplies."""

    def begin(self) -> None:
        """Begin the sums of the next update; those of one that was given up are dropped."""

    def update(self, factor: Tensor, *, left_out: Tensor | None = None) -> None:
        """Update every weight from the gradients' sums times `factor`; 1 in `left_out` leaves all as it is."""

    def take_back(self, updates: int) -> None:
        """Count no longer the last updates that were asked for and left out."""

    def state_dict(self) -> Mapping[str, Mapping[str, Any]]:
        """Per parameter name: `master` and whatever is remembered of it."""

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Continue where `state_dict` left off."""
