"""Stopping cleanly: the first signal finishes the step and saves, the second Ctrl+C stops at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from havoc_core.log import LOGGER


class StopRequest:
    """While entered, SIGINT and SIGTERM ask the loop to stop after the step it is in."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The signal that asked."""
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        LOGGER.info("\nStopping after this step; saving checkpoint_interrupted. Ctrl+C again stops at once.")
