"""Rule: every file on a shelf has `Options`, a frozen pydantic model that knows all its keys, and `build`."""

from __future__ import annotations

import importlib
import inspect

import pytest
from pydantic import BaseModel

SHELVES = (
    "havoc_core.models",
    "havoc_data.interchange",
    "havoc_data.readers",
    "havoc_data.runners",
    "havoc_data.sources",
    "havoc_eval.tasks",
    "havoc_problems.families",
    "havoc_training.optimizers",
    "havoc_training.trackers",
)


def files_on(shelf, modules):
    inside = [name for name in modules if name.rpartition(".")[0] == shelf and not modules[name].is_package]
    return [name for name in inside if not name.rpartition(".")[2].startswith("_")]


@pytest.mark.parametrize("shelf", SHELVES)
def test_every_file_on_a_shelf_has_options_and_build(shelf, modules):
    names = files_on(shelf, modules)
    assert names, f"{shelf} is empty"
    for name in names:
        module = importlib.import_module(name)
        assert issubclass(module.Options, BaseModel), name
        assert module.Options.model_config.get("frozen"), f"{name}.Options is not frozen"
        assert module.Options.model_config.get("extra") == "forbid", f"{name}.Options takes unknown keys"
        assert inspect.isfunction(module.build), name
        assert inspect.getdoc(module.build), f"{name}.build says nothing"


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_file_on_a_shelf_shows_nothing_else_that_could_be_taken_for_its_settings(shelf, modules):
    """One Options a file: whoever looks for a component's settings looks in one place."""
    for name in files_on(shelf, modules):
        module = importlib.import_module(name)
        models = {
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == name
        }
        assert models <= {"Options"}, name


def test_every_shelf_of_the_source_is_looked_at(modules):
    """A folder whose package is named by a Shelf is on the list above."""
    named = {
        name
        for module in modules.values()
        for name in modules
        if modules[name].is_package and f'Shelf("{name}"' in module.text.replace("\n", "").replace("( ", "(")
    }
    assert named <= set(SHELVES)
    assert len(named) >= 3
