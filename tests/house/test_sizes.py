"""Rule: a file has at most 400 lines, a function at most 60 lines and 6 parameters (self and cls are not counted)."""

from __future__ import annotations

import ast

import pytest

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6


def long_files(modules):
    return {module.path for module in modules if len(module.text.splitlines()) > MAX_FILE_LINES}


def long_functions(modules):
    return {where for where, function, _ in functions(modules) if lines_of(function) > MAX_FUNCTION_LINES}


def wide_functions(modules):
    return {
        where for where, function, in_class in functions(modules) if parameters_of(function, in_class) > MAX_PARAMETERS
    }


def functions(modules):
    """(path:Class.name, node, whether it is a method) of every function, nested ones included."""
    for module in modules:
        yield from walk(module.tree, module.path + ":", in_class=False)


def walk(node, prefix, *, in_class):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child, in_class
            yield from walk(child, f"{prefix}{child.name}.", in_class=False)
        elif isinstance(child, ast.ClassDef):
            yield from walk(child, f"{prefix}{child.name}.", in_class=True)
        else:
            yield from walk(child, prefix, in_class=in_class)


def lines_of(function):
    return function.end_lineno - function.lineno + 1


def parameters_of(function, in_class):
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    stars = [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in function.decorator_list)
    return len(every) + len(stars) - (1 if in_class and not static else 0)


RULES = {"file length": long_files, "function length": long_functions, "parameters": wide_functions}


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_larger_than_a_reader_can_hold(rule, modules, other_python, allowed):
    found = RULES[rule]([*modules.values(), *other_python])
    assert found - allowed(rule) == set(), f"too much ({rule}): split it, a part is missing"


@pytest.mark.parametrize("rule", RULES)
def test_no_exception_is_stale(rule, modules, other_python, allowed):
    assert allowed(rule) - RULES[rule]([*modules.values(), *other_python]) == set(), "take these lines out of the list"


def test_a_long_file_a_long_function_and_a_wide_method_are_found(parse):
    long = "def tall():\n" + "    pass\n" * 60 + "x = 1\n" * 400
    wide = "class Thing:\n    def make(self, a, b, c, d, *, e, f, g): ...\n    def fits(self, a, b, c, *, d, e, f): ..."
    assert long_files([parse(long)]) == {"havoc_core/example.py"}
    assert long_functions([parse(long)]) == {"havoc_core/example.py:tall"}
    assert wide_functions([parse(wide)]) == {"havoc_core/example.py:Thing.make"}
