"""The shelf holds tasks, each with options that refuse what they do not know."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from havoc_core.errors import ConfigError
from havoc_eval.task import TASKS


def test_the_tasks_are_the_files_on_the_shelf() -> None:
    assert TASKS.names() == ["exam", "held_out"]


@pytest.mark.parametrize("name", ["exam", "held_out"])
def test_options_are_frozen_and_refuse_unknown_keys(name: str) -> None:
    options = TASKS.module(name).Options
    with pytest.raises(ValidationError, match="extra_forbidden"):
        options(nonsense=1, **({"files": {}} if name == "held_out" else {}))
    assert options.model_config["frozen"]


def test_an_option_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"task_options\.num_problems: .*greater than or equal to 1"):
        TASKS.options("exam", {"num_problems": 0})
