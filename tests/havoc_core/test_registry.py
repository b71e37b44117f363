"""A name is a file."""

from __future__ import annotations

import sys

import pytest

from havoc_core.errors import ConfigError
from havoc_core.registry import Shelf

SOURCES = Shelf("havoc_data.sources", "data.sources.kind", "a kind of source")


@pytest.fixture
def own(tmp_path):
    """A folder with a user's own modules, importable for one test."""
    (tmp_path / "own_lab").mkdir()
    (tmp_path / "own_lab" / "__init__.py").write_text("")
    (tmp_path / "own_lab" / "fine.py").write_text(
        "from pydantic import BaseModel, ConfigDict, Field\n"
        "class Options(BaseModel):\n    model_config = ConfigDict(extra='forbid')\n    size: int = Field(1, ge=1)\n"
        "def build(): ...\n"
    )
    (tmp_path / "own_lab" / "bare.py").write_text("class Options: ...\n")
    (tmp_path / "own_lab" / "needy.py").write_text("import no_such_package_at_all\n")
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("own_lab")]:
        del sys.modules[name]


def test_the_names_are_the_files():
    assert {"dummy", "jsonl", "text_files"} <= set(SOURCES.names())
    assert not any(name.startswith("_") for name in SOURCES.names())


def test_a_name_gives_its_file():
    assert SOURCES.module("dummy").__name__ == "havoc_data.sources.dummy"


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'dummy'") as caught:
        SOURCES.module("dumy")
    assert caught.value.where == "data.sources.kind"
    assert "'dumy' is not a kind of source here" in caught.value.found


@pytest.mark.parametrize("name", ["zzzz", "", "_files", "../dummy", ".dummy", "."])
def test_what_is_no_name_is_answered_with_the_list(name):
    """Regression: a name that begins with a dot ended in a TypeError."""
    with pytest.raises(ConfigError) as caught:
        SOURCES.module(name)
    assert caught.value.remedy


def test_a_dotted_name_is_a_module_of_the_users_own(own):
    assert SOURCES.module("own_lab.fine").__name__ == "own_lab.fine"
    assert SOURCES.options("own_lab.fine", {"size": 3}).size == 3


@pytest.mark.parametrize("name", ["own_lab.missing", "no_such_lab.lion"])
def test_a_dotted_name_that_is_nowhere_is_refused(own, name):
    with pytest.raises(ConfigError, match=f"there is no module '{name}'") as caught:
        SOURCES.module(name)
    assert "Python can import" in caught.value.remedy


def test_a_module_without_build_is_refused(own):
    with pytest.raises(ConfigError, match="has no `build`") as caught:
        SOURCES.module("own_lab.bare")
    assert "`Options` and `build`" in caught.value.remedy


def test_what_a_module_itself_misses_is_not_hidden(own):
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        SOURCES.module("own_lab.needy")


@pytest.mark.parametrize(("values", "key"), [({"siez": 1}, "siez"), ({"size": 0}, "size")])
def test_a_wrong_option_names_its_path_and_the_known_ones(own, values, key):
    with pytest.raises(ConfigError) as caught:
        SOURCES.options("own_lab.fine", values)
    assert caught.value.where == f"data.sources.kind_options.{key}"
    assert str(values[key]) in caught.value.found
    assert "size" in caught.value.remedy
