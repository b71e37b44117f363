"""Loss scaling follows torch's GradScaler, step by step."""

from __future__ import annotations

import random

import pytest
import torch

from havoc_training.gradient_scaler import GradientScale


@pytest.mark.parametrize("overflow_every", [400, 1999, 2001, 10**9])
def test_the_sequence_of_scales_is_that_of_torch(overflow_every):
    """torch._amp_update_scale_ is what torch.amp.GradScaler.update calls."""
    scale, tracker = torch.tensor(65536.0), torch.tensor(0, dtype=torch.int32)
    ours, draw = GradientScale(), random.Random(overflow_every)
    for _ in range(6500):
        overflow = draw.randrange(overflow_every) == 0
        torch._amp_update_scale_(scale, tracker, torch.tensor(float(overflow)), 2.0, 0.5, 2000)
        ours = ours.after(overflow=overflow)
        assert (ours.scale, ours.good_steps) == (scale.item(), tracker.item())


def test_it_begins_as_torchs_does():
    theirs = torch.amp.GradScaler("cpu")
    assert GradientScale().scale == theirs.get_scale()
    assert theirs.get_growth_factor() == 2.0
    assert theirs.get_backoff_factor() == 0.5
    assert theirs.get_growth_interval() == 2000
