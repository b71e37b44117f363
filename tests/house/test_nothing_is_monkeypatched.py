"""Rule: nothing is monkeypatched: no module and no class of somebody else is altered."""

from __future__ import annotations

import ast


def patches(module):
    """path:line of every assignment to, or deletion of, an attribute of something imported; and of setattr on it."""
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    classes = {node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"setattr", "delattr"}:
            target = node.args[0]
        else:
            continue
        while isinstance(target, ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name) and target.id in imported | classes:
            yield f"{module.path}:{node.lineno}"


def test_nothing_is_monkeypatched(modules):
    assert [where for module in modules.values() for where in patches(module)] == []


def test_a_patch_is_found(parse):
    text = (
        "import torch\nfrom a import Thing\nclass Own: ...\n"
        "torch.load = None\ntorch.nn.Linear.forward = None\nsetattr(Thing, 'x', 1)\nOwn.x = 2\ndel torch.save\n"
        "own = Own()\nown.x = 3\ntorch.environ['x'] = 4"
    )
    assert len(list(patches(parse(text)))) == 5
