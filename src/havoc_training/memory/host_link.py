"""Copies between the host and the device that run beside the computation.

One stream each way, made once: streams that come and go each leave a pool of memory behind. On a CPU there is one
memory and one order of events; the same calls copy at once and the marks are empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Mark = torch.cuda.Event | None
"""A moment in the work of the device, to wait for; None on a CPU, where everything before has happened."""
Copies = Sequence[tuple[Tensor, Tensor]]
"""(to, from), of equal shape and dtype."""


class HostLink:
    """The way between host and device.

    Args:
        device: the other end. The host's end should be registered memory, or copies wait for each other.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._in = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._out = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def to_device(self, copies: Copies, *, after: Mark = None) -> Mark:
        """Start copies to the device, once `after` has happened; give the moment when they are there."""
        return _copy(self._in, copies, after)

    def to_host(self, copies: Copies, *, after: Mark = None) -> Mark:
        """Start copies to the host, once `after` has happened; give the moment when they are there."""
        return _copy(self._out, copies, after)

    def mark(self) -> Mark:
        """The moment when all computation asked for so far is done."""
        return None if self._in is None else torch.cuda.current_stream(self.device).record_event()

    def wait(self, mark: Mark) -> None:
        """Let the computation go on only after a moment."""
        if mark is not None:
            torch.cuda.current_stream(self.device).wait_event(mark)

    def settle(self) -> None:
        """Let later copies to the device see what was copied to the host before."""
        if self._in is not None and self._out is not None:
            self._in.wait_stream(self._out)

    def finish(self) -> None:
        """Wait, on the host, until every copy is done; before the host reads what it was sent."""
        if self._out is not None:
            self._out.synchronize()


def _copy(stream: torch.cuda.Stream | None, copies: Copies, after: Mark) -> Mark:
    if stream is None:
        for target, source in copies:
            target.copy_(source)
        return None
    if after is not None:
        stream.wait_event(after)
    with torch.cuda.stream(stream):
        for target, source in copies:
            target.copy_(source, non_blocking=True)
    done: Mark = stream.record_event()
    return done
