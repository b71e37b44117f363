"""Rule: every setting is read outside the config module, has a docstring and is on the settings page."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from havoc_core.config import RulesConfig, SourceConfig, TrainingConfig
from havoc_core.config_files import setting_docs
from havoc_data.prepare.rules import describe

CONFIG = "havoc_core.config"
SHELVES = (
    "havoc_data.interchange",
    "havoc_data.readers",
    "havoc_data.runners",
    "havoc_data.sources",
    "havoc_eval.tasks",
    "havoc_problems.families",
    "havoc_training.optimizers",
    "havoc_training.trackers",
)


def every_setting():
    return [*setting_docs(TrainingConfig), *setting_docs(SourceConfig, "data.sources[].")]


def attributes_read(tree):
    """Every name after a dot whose value is used."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def read_by_properties(tree, used):
    """What the config module's own properties read, of those properties that are themselves in `used`."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    properties = [each for each in functions if any(ast.unparse(mark) == "property" for mark in each.decorator_list)]
    return {name for each in properties if each.name in used for name in attributes_read(each)}


def never_read(modules):
    used = {name for module in modules.values() if module.name != CONFIG for name in attributes_read(module.tree)}
    used |= read_by_properties(modules[CONFIG].tree, used)
    # The limits of rules are read by the name of the rule; the next test looks after them.
    rules = "data.cleaning.rules."
    return [path for path, *_ in every_setting() if path.rpartition(".")[2] not in used and not path.startswith(rules)]


def test_every_limit_of_a_rule_belongs_to_a_rule():
    for name in RulesConfig.model_fields:
        assert describe(name)


def test_every_setting_is_read_outside_the_config_module(modules):
    assert never_read(modules) == []


def test_a_setting_that_nobody_reads_is_found(modules, parse):
    """`getattr(config, "seed")` and writing it do not count; a property that is read does."""
    config = parse("class C:\n    @property\n    def ratios(self):\n        return self.general_ratio", CONFIG)
    reader = parse(
        "x = config.ratios\ny = config.batch_size\nconfig.max_steps = 3\ngetattr(config, 'seed')", "havoc_data.x"
    )
    unread = never_read({module.name: module for module in (config, reader)})
    assert {"seed", "max_steps", "data.domain_ratio"} <= set(unread)
    assert {"batch_size", "data.general_ratio"}.isdisjoint(unread)


def test_every_setting_has_a_docstring():
    for path, _, _, doc in every_setting():
        assert len(doc.split()) >= 1 and doc.rstrip().endswith((".", "!")), f"{path}: {doc!r} is no sentence"


def fields_of_options(module):
    """(name, whether a docstring follows it) of the fields of a component's `Options`, if they are written there."""
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Options":
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    yield field.target.id, isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)


@pytest.mark.parametrize("shelf", SHELVES)
def test_every_option_of_a_component_has_a_docstring_and_is_read_in_its_file(shelf, modules):
    for name, module in modules.items():
        if name.rpartition(".")[0] == shelf and not name.rpartition(".")[2].startswith("_"):
            read = attributes_read(module.tree)
            for option, explained in fields_of_options(module):
                assert explained, f"{name}: {option} has no docstring"
                assert option in read, f"{name}: {option} is never read"


def test_every_setting_is_on_the_settings_page(root):
    page = (root / "docs/reference/settings.md").read_text(encoding="utf-8")
    for path, *_ in setting_docs(TrainingConfig):
        assert f"| `{path}` |" in page, path
    for path, *_ in setting_docs(SourceConfig):
        assert f"| `{path}` |" in page, path


def test_the_settings_page_is_what_the_docstrings_say(root):
    done = subprocess.run(
        [sys.executable, str(root / "docs/settings_page.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
