"""Rule: no absolute path and no machine's name is a default."""

from __future__ import annotations

import ast
import importlib
import re

import pytest
from pydantic import BaseModel

from havoc_core.config import SourceConfig, TrainingConfig
from havoc_core.config_files import setting_docs

ABSOLUTE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)")
SOMEBODYS_FOLDER = re.compile(
    r"(?<![\w.])/(home|root|Users|mnt|media|scratch|workspace|work|tmp|opt|data)/|[A-Z]:\\\\?Users"
)
A_MACHINE = re.compile(r"\w://\w|\b(?!127\.0\.0\.1|0\.0\.0\.0)\d{1,3}(\.\d{1,3}){3}\b|\b[\w-]+\.(local|internal|lan)\b")


def texts_in(value):
    """Every string in a default, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, BaseModel):
        yield from texts_in(value.model_dump())
    elif isinstance(value, dict):
        yield from (text for item in value.items() for part in item for text in texts_in(part))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (text for part in value for text in texts_in(part))


def defaults_in(module):
    """(line, string) of every default of a parameter, and of every value of a class's field."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            values = [*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)]
        elif isinstance(node, ast.ClassDef):
            values = [each.value for each in node.body if isinstance(each, ast.Assign | ast.AnnAssign) and each.value]
        else:
            continue
        for value in values:
            for part in ast.walk(value):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def is_somebodys(text):
    return bool(ABSOLUTE.search(text) or A_MACHINE.search(text))


def test_no_setting_has_an_absolute_path_or_a_machine_as_its_default():
    for path, _, default, _ in [*setting_docs(TrainingConfig), *setting_docs(SourceConfig)]:
        assert not any(is_somebodys(text) for text in texts_in(default)), path


@pytest.mark.parametrize("shelf", ["havoc_data.sources", "havoc_problems.families", "havoc_training.optimizers"])
def test_no_option_of_a_component_has_one_either(shelf, modules):
    for name in modules:
        if name.rpartition(".")[0] == shelf and not name.rpartition(".")[2].startswith("_"):
            for path, _, default, _ in setting_docs(importlib.import_module(name).Options):
                assert not any(is_somebodys(text) for text in texts_in(default)), f"{name}: {path}"


def test_no_parameter_and_no_field_has_one_either(modules):
    for module in modules.values():
        assert [each for each in defaults_in(module) if is_somebodys(each[1])] == [], module.path


def test_no_file_names_a_folder_of_somebodys_machine(root):
    kinds = {".py", ".yaml", ".toml", ".md", ".txt", ".cfg"}
    named = [root / name for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "CONTRIBUTING.md")]
    inside = [
        path for folder in ("src", "scripts", "configs", "docs", "benchmarks") for path in (root / folder).rglob("*")
    ]
    for path in [*named, *inside]:
        if path.is_file() and (path.suffix in kinds or path in named):
            found = SOMEBODYS_FOLDER.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.relative_to(root)}: {found}"


@pytest.mark.parametrize("text", ["/data/run1", "~/runs", "C:\\runs", "http://gpu7:8000", "10.1.2.3", "gpu7.local"])
def test_such_a_default_is_found(text, parse):
    assert is_somebodys(text)
    assert [found for _, found in defaults_in(parse(f"def load(path={text!r}): ..."))] == [text]


@pytest.mark.parametrize("text", ["data", "checkpoints", "<|assistant|>", "**/draft_*", "127.0.0.1", "3.0.1"])
def test_what_is_relative_passes(text):
    assert not is_somebodys(text)
