"""Precision and compilation."""

from __future__ import annotations

import pytest
import torch

from havoc_training.placement import choose_compilation

CPU = torch.device("cpu")


@pytest.mark.parametrize("total_steps", [1, 10**6])
def test_off_compiles_nothing(total_steps):
    made = choose_compilation("off", device=CPU, total_steps=total_steps)
    assert (made.blocks, made.cpu_attention) == (False, False)


def test_on_compiles_even_a_short_run():
    assert choose_compilation("on", device=CPU, total_steps=1).blocks


def test_auto_compiles_where_the_run_repays_it():
    assert not choose_compilation("auto", device=CPU, total_steps=999).blocks
    assert choose_compilation("auto", device=torch.device("cuda"), total_steps=1).blocks
    assert not choose_compilation("auto", device=torch.device("mps"), total_steps=10**6).blocks
    assert not choose_compilation("auto", device=torch.device("cuda"), total_steps=1).cpu_attention
