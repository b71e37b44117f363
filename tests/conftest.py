"""What all tests share: one thread a process, a quiet collector of garbage, and an ear for what is logged."""

from __future__ import annotations

import gc
import logging
import os

import pytest

# Before torch is imported by anything. The tests run side by side, and tiny tensors gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from havoc_core.log import LOGGER


def pytest_collection_finish() -> None:
    """Nothing that was imported or collected is garbage: looking through its million objects took most of the time of
    tests that collect garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def said():
    """What LOGGER says."""
    out = []
    handler = logging.Handler()
    handler.emit = lambda record: out.append(record.getMessage())
    before = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(handler)
    yield out
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(before)
