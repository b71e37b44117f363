"""Many tensors in one."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import PlanError
from havoc_training.memory.arena import ALIGNMENT, Arena, register

CPU = torch.device("cpu")


@settings(deadline=None)  # the first example pays for torch's first use
@given(counts=st.lists(st.integers(0, 3 * ALIGNMENT), max_size=6))
def test_parts_are_zero_as_long_as_asked_for_and_start_at_whole_blocks(counts):
    arena = Arena({f"part {n}": count for n, count in enumerate(counts)}, dtype=torch.float32, device=CPU)
    assert arena.flat.numel() % ALIGNMENT == 0
    assert not arena.flat.any()
    for number, count in enumerate(counts):
        part = arena[f"part {number}"]
        assert part.shape == (count,)
        assert part.storage_offset() % ALIGNMENT == 0
        part.fill_(number + 1.0)  # each value has one owner: nobody else's is overwritten
    written = sum((number + 1.0) * count for number, count in enumerate(counts))
    assert float(arena.flat.sum()) == written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16, torch.uint8])
def test_a_part_is_a_view_in_the_format_asked_for(dtype):
    arena = Arena({"a": 3, "b": 5}, dtype=dtype, device=CPU)
    assert arena["b"].dtype == arena.flat.dtype == dtype
    arena["b"].fill_(7)
    assert arena.flat[ALIGNMENT : ALIGNMENT + 5].tolist() == [7] * 5
    assert arena.flat.numel() == 2 * ALIGNMENT


def test_names_are_known_and_others_are_not():
    arena = Arena({"a": 3}, dtype=torch.float32, device=CPU)
    assert "a" in arena
    assert "b" not in arena
    with pytest.raises(KeyError, match="b"):
        arena["b"]


def test_an_arena_of_nothing_is_empty():
    assert Arena({}, dtype=torch.float32, device=CPU).flat.shape == (0,)
    # Registering nothing asks nothing of a GPU that is not there.
    assert Arena({}, dtype=torch.float32, device=CPU, registered=True).flat.shape == (0,)


def test_memory_lives_as_long_as_a_part_of_it():
    part = Arena({"a": 3}, dtype=torch.float32, device=CPU)["a"]
    gc.collect()
    assert part.tolist() == [0.0] * 3


def test_memory_that_cannot_be_had_is_a_plan_that_cannot_work():
    with pytest.raises(PlanError) as caught:
        Arena({"huge": 2**60}, dtype=torch.float32, device=CPU)
    error = caught.value
    assert (error.where, error.exit_code) == ("memory", 3)
    assert error.found.startswith("4294967296.0 GiB more could not be had on cpu (")
    assert "alloc" in error.found
    assert error.remedy == "Close other programs, or choose a preset that needs less: `havoc plan` shows them."


class Runtime:
    """Of CUDA, as far as it is asked; remembers what is registered."""

    def __init__(self, *, refuses=False):
        self.refuses = refuses
        self.registered = {}

    def cudaHostRegister(self, address, size, flags):
        if not self.refuses:
            self.registered[address] = size
        return int(self.refuses)

    def cudaHostUnregister(self, address):
        del self.registered[address]


def test_registered_memory_is_given_back_when_the_last_part_of_it_goes():
    runtime, flat = Runtime(), torch.zeros(1000)
    register(flat, runtime)
    address = flat.data_ptr()
    part = flat[10:20].view(2, 5)
    del flat
    gc.collect()
    assert runtime.registered == {address: 4000}, "a part may still be copied from"
    assert part.shape == (2, 5)
    del part
    gc.collect()
    assert runtime.registered == {}


def test_memory_that_cannot_be_locked_is_a_plan_that_cannot_work():
    with pytest.raises(PlanError) as caught:
        register(torch.zeros(2**28), Runtime(refuses=True))
    error = caught.value
    assert (error.where, error.exit_code) == ("memory", 3)
    assert error.found == "1.0 GiB of host memory could not be locked for copies to the GPU."
    assert error.remedy.startswith("Raise the limit of locked memory (`ulimit -l unlimited`), or choose a preset that")
