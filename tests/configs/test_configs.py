"""Every YAML in configs/ loads, binds, and builds its model on the meta device, as large as its comment says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from havoc_core import config
from havoc_core.config_files import leaves, read_yaml, resolve
from havoc_core.costs import num_parameters
from havoc_core.model import count_parameters
from havoc_core.models import havoc
from havoc_core.registry import Shelf

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
SAID = re.compile(r"#.*?(\d[\d,]*(?:\.(\d+))?) ?([BM])\b")


def load(path):
    return resolve(read_yaml(path), {}, file_name=path.name).config


def half_of_the_last_digit(match):
    return 0.5 * {"B": 1e9, "M": 1e6}[match[3]] / 10 ** len(match[2] or "")


def said_parameters(text):
    """(number, tolerance) of the first "# ... 7.01 B parameters" in a text."""
    match = re.search(SAID.pattern + " parameters", text)
    assert match, "no comment says how many parameters the model has: write '# 3.1 M parameters'"
    return float(match[1].replace(",", "")) * {"B": 1e9, "M": 1e6}[match[3]], half_of_the_last_digit(match)


def test_there_are_configs_for_the_founding_command_and_for_the_first_run():
    assert {"default_training.yaml", "first_run.yaml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_builds_the_model_that_its_comment_promises(path):
    built = count_parameters(havoc.build(load(path).model).parameters())
    said, tolerance = said_parameters(path.read_text(encoding="utf-8"))
    assert abs(built - said) <= tolerance, f"{built:,} parameters were built"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_components_that_a_config_names_exist_and_take_their_options(path):
    loaded = load(path)
    Shelf("havoc_training.optimizers", "optimizer", "an optimizer").options(loaded.optimizer, loaded.optimizer_options)
    for name in loaded.tracking.trackers:
        Shelf("havoc_training.trackers", "tracking.trackers", "a tracker").module(name)
    for source in loaded.data.sources or []:
        Shelf("havoc_data.sources", "data.sources.kind", "a kind of source").options(source.kind, source.options)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_writes_into_relative_folders_and_gives_no_setting_twice(path):
    loaded = load(path)
    for folder in (loaded.run_dir, loaded.checkpoint_dir, loaded.log_dir, loaded.data.data_dir):
        assert not Path(folder).is_absolute()
    names = [name for name, _ in leaves(read_yaml(path))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("size", config.MODEL_SIZES)
def test_a_named_size_is_as_large_as_the_comment_in_its_line(size):
    text = (ROOT / "src/havoc_core/config.py").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.strip().startswith(f'"{size}": _size('))
    match = SAID.search(line)
    assert match, line
    model = config.ModelConfig.model_validate(size)
    said = float(match[1]) * {"B": 1e9, "M": 1e6}[match[3]]
    assert abs(num_parameters(model) - said) <= half_of_the_last_digit(match)
    assert count_parameters(havoc.build(model).parameters()) == num_parameters(model)


def test_the_closed_form_counts_what_is_built_for_a_tied_head_and_without_qk_norm():
    model = config.ModelConfig.model_validate({"size": "nano", "tie_embeddings": True, "attention": {"qk_norm": False}})
    assert count_parameters(havoc.build(model).parameters()) == num_parameters(model)
