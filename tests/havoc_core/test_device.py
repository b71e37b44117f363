"""Devices, number formats, threads, seeds."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from havoc_core.config import TrainingConfig
from havoc_core.device import (
    choose_device,
    choose_precision,
    memory_bytes,
    memory_peaks,
    peak_memory_bytes,
    set_seeds,
    set_threads,
)
from havoc_core.errors import ConfigError
from havoc_core.processor import has_fast_bfloat16

CPU = torch.device("cpu")


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in {"cuda", "mps", "cpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="device: 'cuda' was asked for, but there is none here") as caught:
        choose_device("cuda")
    assert "--device cpu" in caught.value.remedy


@pytest.mark.parametrize(
    ("values", "dtype", "has_master", "scales_loss"),
    [
        ({"use_amp": False}, torch.float32, False, False),
        ({"use_amp": True}, torch.bfloat16, True, False),
        ({"use_amp": True, "amp_dtype": "float16"}, torch.float16, True, True),
    ],
)
def test_use_amp_and_amp_dtype_give_the_format_of_the_weights(values, dtype, has_master, scales_loss):
    precision = choose_precision(TrainingConfig.model_validate(values), CPU)
    assert (precision.working, precision.has_master, precision.scales_loss) == (dtype, has_master, scales_loss)
    assert precision.name == str(dtype).split(".")[1]


def test_auto_takes_bfloat16_where_it_is_fast():
    expected = torch.bfloat16 if has_fast_bfloat16() else torch.float32
    assert choose_precision(TrainingConfig(use_amp="auto"), CPU).working == expected
    assert choose_precision(TrainingConfig(use_amp="auto"), torch.device("cuda")).working == torch.bfloat16


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == 1
        assert torch.get_num_threads() == 1
        assert set_threads(None) >= 1
    finally:
        torch.set_num_threads(before)


def test_a_seed_fixes_every_generator():
    def draws():
        set_seeds(5)
        return random.random(), float(np.random.random()), float(torch.rand(()))

    assert draws() == draws()


def test_memory_can_be_told():
    assert memory_bytes(CPU) > 2**28
    assert 2**20 < peak_memory_bytes(CPU) < memory_bytes(CPU) * 4


def test_a_cpu_tells_what_the_process_had_resident_and_nothing_of_an_allocator():
    peaks = memory_peaks(CPU)
    assert (peaks.allocated, peaks.reserved) == (None, None)
    assert 2**20 < peaks.used <= peak_memory_bytes(CPU)
