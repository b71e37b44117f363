"""Rules: no file is a drawer for odds and ends, nothing is left to do, own types are never asked what they have."""

from __future__ import annotations

import ast
import re

DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc"}
LEFT_TO_DO = re.compile(r"\b(" + "|".join(("TO" "DO", "FIX" "ME", "XX" "X", "HA" "CK")) + r")\b")  # fmt: skip


def questions(module):
    """path:line of every hasattr whose object is not a module of somebody else."""
    foreign = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if not alias.name.startswith("havoc_")
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
            asked = node.args[0]
            if not (isinstance(asked, ast.Name) and asked.id in foreign):
                yield f"{module.path}:{node.lineno}"


def test_no_file_and_no_folder_is_a_drawer_for_odds_and_ends(modules, other_python):
    for module in [*modules.values(), *other_python]:
        assert DRAWERS.isdisjoint(module.path.removesuffix(".py").split("/")), module.path


def test_nothing_is_left_to_be_done(root):
    kinds = {".py", ".md", ".yaml", ".toml", ".txt"}
    for folder in ("src", "scripts", "configs", "docs", "benchmarks", "tests"):
        for path in (root / folder).rglob("*"):
            if path.suffix in kinds and path.is_file():
                found = LEFT_TO_DO.search(path.read_text(encoding="utf-8"))
                assert found is None, f"{path.relative_to(root)}: {found}"


def test_own_types_are_never_asked_what_they_have(modules):
    """Only the registry asks, because what it loads may be a module of the user's own."""
    asking = [where for module in modules.values() for where in questions(module)]
    assert [where for where in asking if not where.startswith("havoc_core/registry.py:")] == []


def test_a_question_is_found(parse):
    text = "import os\nfrom havoc_core import log\nhasattr(os, 'a')\nhasattr(log, 'b')\nhasattr(thing, 'c')"
    assert list(questions(parse(text))) == ["havoc_core/example.py:4", "havoc_core/example.py:5"]
