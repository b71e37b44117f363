"""Rule: no module does work at import. It says what there is: imports, functions, classes, constants."""

from __future__ import annotations

import ast

import pytest

PURE = {
    "re.compile", "logging.getLogger", "np.dtype", "np.array", "torch.finfo", "torch.device", "frozenset", "tuple", "dict", "set",
    "list", "range", "len", "max", "min", "sorted", "str", "int", "float", "bytes", "zip", "enumerate", "math.log",
    "math.sqrt", "str.maketrans", "bytes.maketrans", "dict.fromkeys", "field", "_size", "fixed", "_variables", "_words",
    "_table",
}  # fmt: skip
"""Calls that give a value and do nothing else. Ours: `_size` is a row of the table of model sizes, `fixed` a way of
writing numbers, `_variables` the colours of a page, `_words` a set of the words of a text,
`_table` which method writes which element."""
PURE_METHODS = {"split", "lower", "replace", "encode", "items"}
"""Methods of texts and tables that give a value, whatever they are called on."""


def work(body, path):
    """path:line of every statement that does more than to name something."""
    for statement in body:
        match statement:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Pass():
                continue
            case ast.ClassDef():
                yield from work(statement.body, path)
                continue
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Assign(value=value) if only_names(statement.targets):
                pure = is_pure(value)
            case ast.AnnAssign(value=value):
                pure = value is None or is_pure(value)
            case _:
                pure = False
        if not pure:
            yield f"{path}:{statement.lineno}"


def only_names(targets):
    return all(isinstance(target, ast.Name | ast.Tuple) for target in targets)


def is_pure(value):
    return all(is_pure_call(node) for node in ast.walk(value) if isinstance(node, ast.Call))


def is_pure_call(call):
    """A constructor (a name in capitals), a method of a literal, or a function on the list."""
    name = ast.unparse(call.func)
    last = name.split(".")[-1].lstrip("_")
    literal = isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Constant)
    method = isinstance(call.func, ast.Attribute) and call.func.attr in PURE_METHODS
    return name in PURE or last[:1].isupper() or literal or method


def test_no_module_does_work_at_import(modules, allowed):
    found = {where for module in modules.values() for where in work(module.tree.body, module.path)}
    files = {where.rpartition(":")[0] for where in found}
    assert {where for where in found if where.rpartition(":")[0] not in allowed("work at import")} == set()
    assert allowed("work at import") <= files, "take these lines out of the list"


@pytest.mark.parametrize(
    "line",
    [
        "print('hello')",
        "DATA = open('file').read()",
        "torch.set_num_threads(1)",
        "for name in NAMES: register(name)",
        "TABLE['x'] = 1",
        "class Thing:\n    value = compute()",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "global_list += [1]",
        "assert True",
    ],
)
def test_work_is_found(line, parse):
    assert len(list(work(parse(line).tree.body, "file"))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "X = 3 * 2**20",
        "Y: Any = None",
        "P = re.compile('a')",
        "S = Shelf('a', 'b', 'c')",
        "N = ('a', *OTHERS)",
        "C = ' '.join(N)",
    ],
)
def test_a_constant_is_no_work(line, parse):
    assert list(work(parse(line).tree.body, "file")) == []
