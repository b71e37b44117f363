"""Copies between host and device, here on one memory: at once, in order, and with nothing to wait for."""

from __future__ import annotations

import torch

from havoc_training.memory.host_link import HostLink

LINK = HostLink(torch.device("cpu"))


def test_copies_are_there_when_the_call_returns():
    near, far = torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])
    for copy in (LINK.to_device, LINK.to_host):
        near.zero_()
        mark = copy([(near, far)])
        far.fill_(9.0)  # later: what was copied stays
        LINK.wait(mark)
        assert near.tolist() == [1.0, 2.0, 3.0]
        far.copy_(torch.tensor([1.0, 2.0, 3.0]))


def test_copies_are_made_in_the_order_in_which_they_are_named():
    first, second, third = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    LINK.to_device([(first, second), (second, third)])
    assert (first.item(), second.item()) == (1.0, 2.0)


def test_a_way_there_and_back_changes_no_bit_of_any_format():
    for dtype in (torch.float32, torch.bfloat16, torch.int16, torch.uint8):
        values = torch.arange(100).to(dtype)
        near, back = torch.empty_like(values), torch.empty_like(values)
        arrived = LINK.to_device([(near, values)], after=LINK.mark())
        LINK.to_host([(back, near)], after=arrived)
        LINK.settle()
        LINK.finish()
        assert torch.equal(back, values)


def test_no_copies_are_no_copies():
    LINK.wait(LINK.to_host([]))


def test_on_a_cpu_there_is_no_moment_to_wait_for():
    assert LINK.mark() is None
    assert LINK.to_device([(torch.zeros(1), torch.ones(1))], after=None) is None
