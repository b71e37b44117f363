"""What is written about a request: never what was asked or answered."""

from __future__ import annotations

import traceback

from havoc_core.errors import HavocError
from havoc_core.log import LOGGER
from havoc_inference.server.errors import ApiError


def log_failure(error: Exception) -> None:
    """Where something of ours failed; the words of the error stay out, for they may quote a prompt."""
    if isinstance(error, ApiError | TimeoutError):
        return
    if isinstance(error, HavocError):
        LOGGER.error("The model failed: %s", error)
        return
    places = "".join(traceback.format_tb(error.__traceback__))
    LOGGER.error("The server failed with %s at\n%s", type(error).__name__, places.rstrip())
