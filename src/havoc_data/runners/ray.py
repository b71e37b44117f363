"""Ray: the machines of a cluster, or processes of this one where there is no cluster.

Every machine must see the run's folder under the same path, since tasks write files there.
"""

from __future__ import annotations

import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from havoc_core.config import Positive, Section
from havoc_core.errors import ConfigError, MissingPackageError
from havoc_data.runner import Record, Task, use_one_thread, worker_died


class Options(Section):
    """Settings of this runner."""

    address: str | None = None
    """Of a cluster that runs, such as "auto" or "ray://host:10001"; null: Ray is started here and ended afterwards."""
    at_once: Positive = 64
    """Tasks that are handed to a cluster at once."""


def build(num_workers: int | None, options: Options) -> RayRunner:
    """The runner.

    Raises:
        MissingPackageError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "data.runner", "'ray' needs the package ray, which is not installed.", "pip install 'havoc[cluster]'"
        ) from None
    return RayRunner(num_workers, options.address, options.at_once)


@dataclass(frozen=True)
class RayRunner:
    """Works on Ray. A `Runner`."""

    num_workers: int | None
    """Processes where Ray is started here; None: one per core."""
    address: str | None
    """Of the cluster; None: none."""
    at_once: int
    """Tasks handed over at once."""

    def map(self, function: Callable[[Task], Record], tasks: Sequence[Task]) -> Iterator[Record]:
        """As in Runner."""
        import ray

        started = not ray.is_initialized()
        if started:
            self._start()
        # A task that dies with its machine is repeated elsewhere: it writes its files whole or not at all.
        remote: Any = ray.remote(num_cpus=1, max_retries=3)(_run)
        waiting: deque[Any] = deque()
        try:
            for task in tasks:
                waiting.append(remote.remote(sys.path, pickle.dumps((function, task))))
                if len(waiting) > self.at_once:
                    yield ray.get(waiting.popleft())
            while waiting:
                yield ray.get(waiting.popleft())
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise worker_died(str(error).splitlines()[0]) from None
        finally:
            if started:
                ray.shutdown()

    def _start(self) -> None:
        import ray

        try:
            ray.init(
                address=self.address or "local",
                num_cpus=None if self.address else self.num_workers,
                include_dashboard=None if self.address else False,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                "data.runner_options.address",
                f"Ray does not answer at {self.address!r} ({str(error).splitlines()[0]}).",
                "Start a cluster (ray start --head) and name it, or leave it out: Ray is then started here.",
            ) from None


def _run(path: Sequence[str], packed: bytes) -> Any:
    """Do a task in a process of Ray's, which knows none of the folders in which this one finds modules of the user's own."""
    use_one_thread()
    sys.path.extend(folder for folder in path if folder not in sys.path)
    function, task = pickle.loads(packed)
    return function(task)
