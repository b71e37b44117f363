"""The shelves of this package. Apart from what is on them, so that a name can be checked before torch is loaded."""

from __future__ import annotations

from havoc_core.registry import Shelf

OPTIMIZERS = Shelf("havoc_training.optimizers", "optimizer", "an optimizer")
TRACKERS = Shelf("havoc_training.trackers", "tracking.trackers", "a tracker")
