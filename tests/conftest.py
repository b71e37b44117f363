"""What all tests share: one thread a process, a quiet collector of garbage, an ear for what is logged, and processes that
start with torch in them."""

from __future__ import annotations

import gc
import logging
import multiprocessing
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


OUTPUT = """
import os
for number in (1, 2):
    os.dup2(output.fileno(), number)
output.close()
"""


@pytest.fixture(scope="session")
def forked():
    """(Python code) -> (a process that runs it, its stdout and stderr as one text file).

    Forked from a process in which torch and the trainer are imported and no thread runs, it spares the seconds that a start
    of Python and their import take. A process like any other in all else: it is killed by real signals, and its exit code is
    that of sys.exit.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["havoc_training.build"])

    def start(code):
        reading, writing = context.Pipe(duplex=False)
        process = context.Process(target=exec, args=(OUTPUT + code, {"output": writing}))
        process.start()
        writing.close()
        said = os.fdopen(os.dup(reading.fileno()))
        reading.close()
        return process, said

    return start
