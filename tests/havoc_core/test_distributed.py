"""On one process the collective calls do nothing."""

from __future__ import annotations

import torch

from havoc_core.distributed import World


def test_alone_a_process_is_rank_zero_of_one_and_calls_are_no_ops():
    world = World.start(torch.device("cpu"))
    assert (world.rank, world.size) == (0, 1)
    value = torch.tensor([1.5, 2.0])
    assert world.sum(value) is value
    assert world.gather_bytes(b"abc") == [b"abc"]
    assert (world.any(True), world.any(False)) == (True, False)
    world.barrier()
    world.close()
