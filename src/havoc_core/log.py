"""Logging: rank zero to the screen, everything to the file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

LOGGER = logging.getLogger("havoc")


def to_screen(*, rank: int = 0) -> None:
    """Show messages on the terminal; on rank zero only. Safe to call twice."""
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    if rank == 0 and not any(type(h) is logging.StreamHandler for h in LOGGER.handlers):
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        LOGGER.addHandler(handler)


def to_file(path: Path) -> logging.Handler:
    """Append messages, with time and level, to a file; the caller closes the handler with `close_file`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(handler)
    return handler


class _LogFile(logging.FileHandler):
    """A log that cannot be written, on a full disk say, stays short: what needs the disk says so, once."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Leave the line out; logging would print a traceback for each."""

    def close(self) -> None:
        """Close the file, with what it could hold."""
        try:
            super().close()
        except OSError:  # raised here, it would take the place of the error that ended the run
            pass


def close_file(handler: logging.Handler) -> None:
    """Stop writing to a file that `to_file` opened."""
    LOGGER.removeHandler(handler)
    handler.close()
