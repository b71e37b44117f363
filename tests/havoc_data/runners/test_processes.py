"""Several processes on this machine. Functions are those of modules that the processes can import."""

from __future__ import annotations

import math
import os

import pytest

from havoc_core.errors import ConfigError, DataError
from havoc_data.runner import RUNNERS
from havoc_data.runners.processes import Options, build


def test_without_a_number_there_is_one_process_a_core():
    assert build(None, Options()).num_workers == os.cpu_count()
    assert build(3, Options()).num_workers == 3


def test_more_tasks_than_wait_at_once_come_back_in_their_order():
    tasks = [float(number * number) for number in range(20, 0, -1)]
    assert list(build(2, Options()).map(math.sqrt, tasks)) == [float(number) for number in range(20, 0, -1)]


def test_one_worker_or_one_task_needs_no_process_of_its_own():
    done = []
    assert list(build(1, Options()).map(lambda task: done.append(task), [1, 2])) == [None, None]
    assert list(build(2, Options()).map(lambda task: done.append(task), [3])) == [None]
    assert list(build(2, Options()).map(lambda task: done.append(task), [])) == []
    assert done == [1, 2, 3]


def test_other_processes_do_the_work_with_one_thread_each():
    found = list(build(2, Options()).map(os.getenv, ["TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"]))
    assert found == ["false", "1", "1"]


def test_what_a_task_raises_is_raised_here_with_all_its_parts():
    with pytest.raises(ConfigError, match="data.runner: 'nosuch' is not a runner here. There are: inline") as caught:
        list(build(2, Options()).map(RUNNERS.check, ["inline", "nosuch", "ray"]))
    assert caught.value.where == "data.runner"


def test_a_process_that_dies_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match="data.runner: a process that worked on the text died") as caught:
        list(build(2, Options()).map(os._exit, [9, 9]))
    assert "lower data.num_workers. What was finished is kept" in caught.value.remedy
