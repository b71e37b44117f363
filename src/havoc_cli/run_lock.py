"""One run at a time in a folder. The lock goes with the process, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from havoc_core.errors import ConfigError
from havoc_core.run_files import RunFiles


@contextmanager
def locked(files: RunFiles) -> Iterator[None]:
    """Hold the folder of a run.

    Raises:
        ConfigError: another run holds it, or it cannot be written to.
    """
    import fcntl

    try:
        files.run_dir.mkdir(parents=True, exist_ok=True)
        file = files.lock.open("w")
    except OSError as error:
        raise ConfigError(
            "run_dir", f"{files.run_dir} cannot be written to ({error.strerror}).", "Choose another: --run-dir."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                "run_dir",
                f"another run works in {files.run_dir.resolve()}.",
                "Wait for it, or choose another: --run-dir.",
            ) from None
        yield
