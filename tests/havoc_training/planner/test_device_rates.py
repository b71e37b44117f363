"""What this device does in a fraction of a second."""

from __future__ import annotations

import time

import pytest
import torch

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_training.memory.presets import plan_memory
from havoc_training.planner.device_rates import (
    measure_link_rate,
    measure_matmul_rate,
    measure_update,
    num_updated_values,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_rate_of_products_is_measured_in_about_half_a_second(dtype):
    """Twice that is allowed, because a machine that does other things too may stop for long at the wrong moment."""
    began = time.process_time()
    rate = measure_matmul_rate(CPU, dtype, model=ModelConfig.model_validate("nano"))
    assert time.process_time() - began < 1.0 * torch.get_num_threads()
    # A million to a hundred million million a second: a machine of today, and the unit is not a thousand off.
    assert 1e6 < rate < 1e14


def test_the_rate_of_products_is_that_of_a_product():
    """2 n^3 operations over the seconds of one product, timed apart; a factor of 5 for a machine that does other things."""
    left, right = torch.randn(512, 512), torch.randn(512, 512)
    best = min(_seconds(lambda: left @ right.t()) for _ in range(10))
    rate = max(measure_matmul_rate(CPU, torch.float32) for _ in range(2))
    assert 2 * 512**3 / best / 5 < rate < 2 * 512**3 / best * 5


def _seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@pytest.mark.parametrize("preset", ["fp32_master", "fp32_master_bf16m", "8bit", "bf16_sr"])
def test_an_update_takes_nanoseconds_a_parameter_in_every_preset(preset):
    config = TrainingConfig()
    per_parameter = measure_update(plan_memory(config, preset=preset, working="bfloat16"), CPU)
    assert 1e-11 < per_parameter < 3e-6
    assert num_updated_values(CPU) >= 2**20  # more than a cache holds


@pytest.mark.parametrize("working", ["float32", "float16"])
def test_an_update_of_other_formats_is_timed_too(working):
    assert measure_update(plan_memory(TrainingConfig(), preset="fp32_master", working=working), CPU) > 0


def test_a_cpu_has_no_link_to_its_own_memory():
    assert measure_link_rate(CPU) is None
