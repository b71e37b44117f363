"""How often a run reads its text, and when that is too often.

Text that is read up to four times is worth nearly as much as fresh text, at sixteen times hardly anything is gained, and by
forty nothing (Muennighoff et al. 2023, arXiv:2305.16264).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from havoc_core.config import DataMixtureConfig
from havoc_core.errors import PlanError
from havoc_data.loading.loader import Loader
from havoc_report.data_rules import FREE_EPOCHS, MAX_EPOCHS, USEFUL_EPOCHS


def check_repetition(loader: Loader, data: DataMixtureConfig, *, num_slots: int, total_steps: int) -> None:
    """Refuse a plan that reads a source more than 40 times, unless that was asked for or the text is random words.

    Args:
        loader: of the run.
        data: allow_repeats.
        num_slots: rows of the whole run.
        total_steps: of the run, for the remedy.

    Raises:
        PlanError: a source is read too often; the remedy names the number of steps that would not.
    """
    epochs = loader.epochs_after(num_slots)
    if loader.store.manifest["dummy"] or data.allow_repeats or not epochs:
        return
    worst = max(epochs, key=lambda name: epochs[name])
    if epochs[worst] > MAX_EPOCHS:
        steps = max(1, math.floor(total_steps * MAX_EPOCHS / epochs[worst]))
        raise PlanError(
            "data",
            f"the run would read '{worst}' {epochs[worst]:,.0f} times over; after {MAX_EPOCHS} times there is nothing to gain.",
            f"Give it more text or a smaller share, train {steps:,} steps at most (max_steps), or set data.allow_repeats.",
        )


def repetition_warnings(epochs: Mapping[str, float]) -> list[str]:
    """A line for every source that is read more than four times."""
    lines = []
    for name, times in epochs.items():
        if times > USEFUL_EPOCHS:
            lines.append(
                f"WARNING: '{name}' is read {times:.1f} times; beyond {USEFUL_EPOCHS} hardly anything is gained."
            )
        elif times > FREE_EPOCHS:
            lines.append(f"'{name}' is read {times:.1f} times; beyond {FREE_EPOCHS} each reading is worth less.")
    return lines
