"""What works on the parts of the text: this process, several, or the machines of a cluster.

A stage of the pipeline is a function from a task to a record of what it wrote. It depends on its task alone and
writes its files whole or not at all, so that it does not matter where, when or how often it runs. A runner gives the
records in the order of the tasks: the result is the same, byte for byte, with each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from havoc_core.config import DataMixtureConfig
from havoc_core.errors import DataError
from havoc_core.registry import Shelf

RUNNERS = Shelf("havoc_data.runners", "data.runner", "a runner")

Task = TypeVar("Task")
Record = TypeVar("Record")


class Runner(Protocol):
    """A file on the shelf `runners/` has `Options` and `build(num_workers, options) -> Runner`.

    num_workers: processes at once; None: one per core.
    """

    def map(self, function: Callable[[Task], Record], tasks: Sequence[Task]) -> Iterator[Record]:
        """function(task) of every task, in their order; a few at once.

        Args:
            function: at the top level of a module; it and the tasks can be sent to another process.

        Raises:
            DataError: a process that worked on a task died. Whatever `function` raises is raised here.
        """
        ...


def runner_of(data: DataMixtureConfig) -> Runner:
    """The runner that the settings name.

    Raises:
        ConfigError: there is none of that name, or an option is wrong.
    """
    options = RUNNERS.options(data.runner, data.runner_options)
    runner: Runner = RUNNERS.module(data.runner).build(data.num_workers, options)
    return runner


class KeyedTask(Protocol):
    """A task whose result is a folder."""

    @property
    def key(self) -> str:
        """Name of the folder."""
        ...


Keyed = TypeVar("Keyed", bound=KeyedTask)


def run_each(runner: Runner, function: Callable[[Keyed], str], tasks: Sequence[Keyed]) -> list[str]:
    """function(task) of every task, in their order. Tasks with one key, such as those of a folder that was named twice,
    are one: two processes must not write into the same place.

    Raises:
        DataError: as `Runner.map`.
    """
    keys = [task.key for task in tasks]
    once = dict(zip(keys, tasks, strict=True))
    done = dict(zip(once, runner.map(function, list(once.values())), strict=True))
    return [done[key] for key in keys]


def use_one_thread() -> None:
    """Tell the libraries of a process that it is one of many: the processes are the parallelism, and threads of each would
    fight for the same cores. Called before the libraries are imported."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"


def worker_died(reason: str) -> DataError:
    """The error for a process that ended in the middle of its work."""
    return DataError(
        "data.runner",
        f"a process that worked on the text died ({reason}).",
        "Most often memory ran out: lower data.num_workers. What was finished is kept; call it again to go on.",
    )
