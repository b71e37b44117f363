"""What all runners share."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from havoc_core.errors import ConfigError, DataError
from havoc_data.runner import RUNNERS, run_each, worker_died


@dataclass(frozen=True)
class Task:
    key: str
    place: int


class Recording:
    """A runner that keeps what it was given."""

    def __init__(self):
        self.given = []

    def map(self, function, tasks):
        self.given += tasks
        return map(function, tasks)


def test_every_runner_can_be_named_and_another_gets_the_nearest_name():
    assert RUNNERS.names() == ["inline", "processes", "ray"]
    with pytest.raises(ConfigError, match="data.runner: 'proceses' is not a runner here. Did you mean 'processes'?"):
        RUNNERS.module("proceses")


def test_an_unknown_option_of_a_runner_is_refused():
    with pytest.raises(ConfigError, match="data.runner_options.cores: .* Options of 'inline': none."):
        RUNNERS.options("inline", {"cores": 3})


def test_results_come_in_the_order_of_the_tasks():
    tasks = [Task(key, place) for place, key in enumerate("cab")]
    assert run_each(Recording(), lambda task: f"{task.key}{task.place}", tasks) == ["c0", "a1", "b2"]


def test_tasks_with_one_key_are_worked_on_once():
    """Two processes would write into the same folder, and remove what the other one has just written."""
    runner = Recording()
    tasks = [Task("a", 0), Task("b", 1), Task("a", 2)]
    assert run_each(runner, lambda task: task.key, tasks) == ["a", "b", "a"]
    assert [task.key for task in runner.given] == ["a", "b"]


def test_no_task_is_no_result():
    assert run_each(Recording(), lambda task: task.key, []) == []


def test_a_worker_that_died_says_what_to_do():
    error = worker_died("it was terminated")
    assert isinstance(error, DataError)
    assert error.where == "data.runner"
    assert error.found == "a process that worked on the text died (it was terminated)."
    assert error.remedy == (
        "Most often memory ran out: lower data.num_workers. What was finished is kept; call it again to go on."
    )
