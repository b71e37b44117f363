"""Rule: one line assigns the learning rate, in havoc_training/step.py."""

from __future__ import annotations

import ast


def lines_that_assign_it(modules):
    """path:line of every assignment to ...["lr"], however it is written, and of every .lr = and update(lr=)."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store) and names_it(node):
                yield f"{module.path}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
                keys = [keyword.arg for keyword in node.keywords]
                keys += [
                    key.value for each in node.args if isinstance(each, ast.Dict) for key in each.keys if constant(key)
                ]
                if "lr" in keys:
                    yield f"{module.path}:{node.lineno}"


def names_it(node):
    if isinstance(node, ast.Attribute):
        return node.attr == "lr"
    return constant(node.slice) and node.slice.value == "lr"


def constant(node):
    return isinstance(node, ast.Constant)


def test_one_line_assigns_the_learning_rate(modules):
    found = list(lines_that_assign_it(modules.values()))
    assert len(found) == 1, found
    assert found[0].startswith("havoc_training/step.py:")


def test_every_way_of_assigning_it_is_found(parse):
    text = (
        'g["lr"] = 1\nx = y = g["lr"] = 2\ng["lr"] *= 3\ng.update(lr=4)\ng.update({"lr": 5})\ng.lr = 6\nprint(g["lr"])'
    )
    assert len(list(lines_that_assign_it([parse(text)]))) == 6
