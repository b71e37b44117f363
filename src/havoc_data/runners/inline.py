"""One task after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from havoc_core.config import Section
from havoc_data.runner import Record, Task


class Options(Section):
    """This runner has no settings."""


def build(num_workers: int | None, options: Options) -> Inline:
    """The runner; num_workers has no meaning here."""
    return Inline()


@dataclass(frozen=True)
class Inline:
    """Works in this process. A `Runner`."""

    def map(self, function: Callable[[Task], Record], tasks: Sequence[Task]) -> Iterator[Record]:
        """As in Runner."""
        return map(function, tasks)
