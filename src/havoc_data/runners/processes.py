"""Several processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from havoc_core.config import Section
from havoc_data.runner import Record, Task, use_one_thread, worker_died


class Options(Section):
    """This runner has no settings of its own; `data.num_workers` is its size."""


def build(num_workers: int | None, options: Options) -> Processes:
    """The runner; None: one process per core."""
    return Processes(num_workers or os.cpu_count() or 1)


@dataclass(frozen=True)
class Processes:
    """Works in several processes. A `Runner`."""

    num_workers: int
    """Processes at once."""

    def map(self, function: Callable[[Task], Record], tasks: Sequence[Task]) -> Iterator[Record]:
        """As in Runner. A single task, or a single worker, needs no process of its own."""
        if self.num_workers == 1 or len(tasks) <= 1:
            yield from map(function, tasks)
            return
        # Spawned, not forked: a fork copies locks that the threads of a library may hold.
        context = multiprocessing.get_context("spawn")
        workers = min(self.num_workers, len(tasks))
        with ProcessPoolExecutor(workers, context, initializer=use_one_thread) as pool:
            waiting: deque[Future[Any]] = deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(function, task))
                    if len(waiting) > 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool as error:
                raise worker_died(str(error).rstrip(".")) from None
            finally:
                for future in waiting:
                    future.cancel()
