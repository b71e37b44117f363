"""The documentation inside Python source: read as text, never imported, never run."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from havoc_data.sections import SECTION_BYTES, cut_into_sections

LEAST_BYTES = 200
"""Documentation shorter than this is no document of its own."""
_BETWEEN = "\n\n\n"
_PLACEHOLDER = re.compile(r"^[ \t]*(?:%\(\w+\)s|\$?\{\w+\})[ \t]*\n?", re.MULTILINE)
"""Lines that a package fills in when it is imported: `%(before_notes)s`, `${ARRAY_FUNCTION_LIKE}`."""
_TEXT_MODULES = ("mpmath.function_docs", "pydoc_data.topics")
"""Modules that hold documentation as assigned strings: of mpmath's functions, and the reference of the language."""


@dataclass(frozen=True)
class Documented:
    """What a module says about itself."""

    documents: tuple[str, ...]
    """The module with its functions, in documents of at most 64 KiB where its parts allow; then each class with
    its methods. Every part is `qualified.name(signature)`, an empty line, the docstring."""
    left_over_bytes: int
    """UTF-8 bytes of documentation that was too little for a document."""


def read_module(source: bytes, module: str) -> Documented:
    """The documentation in one file: docstrings, and what the file gives to `add_newdoc`.

    Args:
        source: the file's bytes.
        module: dotted name. Parts that begin with an underscore are left out of what readers see, because what
            `scipy.optimize._minimize` defines is met as `scipy.optimize.minimize`.

    Raises:
        SyntaxError: it is not Python of this version.
        ValueError: it holds zero bytes.
        RecursionError: its expressions are nested too deep.
    """
    if b'"""' not in source and b"'''" not in source and module not in _TEXT_MODULES:
        return Documented((), 0)  # docstrings of one short line are not worth the time of parsing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "invalid escape sequence" is between the file and its author
        tree = ast.parse(source)
    public = ".".join(part for part in module.split(".") if not _is_private(part))
    own = _docstring_part(tree, public)
    classes: list[list[str]] = []
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef):
            parts = list(_class_parts(node, public))
            if _size(parts) >= LEAST_BYTES:
                classes.append(parts)
            else:
                own += parts
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own += _function_part(node, public)
        elif module in _TEXT_MODULES:
            own += _assigned_texts(node, public)
        else:
            own += _added_part(node, public)
    documents = [document for parts in (own, *classes) for document in _packed(parts)]
    kept = tuple(document for document in documents if _size([document]) >= LEAST_BYTES)
    return Documented(kept, _size(documents) - _size(kept))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module or class, and those inside its `if`, `try` and `with`."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from _statements(
                node.body + [each for handler in node.handlers for each in handler.body] + node.orelse
            )
        elif isinstance(node, ast.With):
            yield from _statements(node.body)
        else:
            yield node


def _class_parts(node: ast.ClassDef, prefix: str) -> Iterator[str]:
    """The class, its public methods and the classes in it."""
    if _is_private(node.name):
        return
    name = f"{prefix}.{node.name}" if prefix else node.name
    methods = [each for each in _statements(node.body) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    constructor = next((each for each in methods if each.name == "__init__"), None)
    yield from _docstring_part(node, name + (_signature(constructor) if constructor else ""))
    for each in methods:
        yield from _function_part(each, name)
    for inner in _statements(node.body):
        if isinstance(inner, ast.ClassDef):
            yield from _class_parts(inner, name)


def _function_part(node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str) -> list[str]:
    if _is_private(node.name):
        return []
    text = _docstring(node)
    if not text:
        return []
    name = f"{prefix}.{node.name}" if prefix else node.name
    decorators = {
        each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in node.decorator_list
    }
    is_value = not decorators.isdisjoint(("property", "cached_property"))
    return [_part(name if is_value else name + _signature(node), text)]


def _docstring_part(node: ast.Module | ast.ClassDef, heading: str) -> list[str]:
    text = _docstring(node)
    return [_part(heading, text)] if text else []


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return _clean(ast.get_docstring(node, clean=False) or "")


def _assigned_texts(node: ast.stmt, prefix: str) -> Iterator[str]:
    """`name = "text"` and `name = {"key": "text", ...}`."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return
    if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        yield _part(f"{prefix}.{node.targets[0].id}".replace(".function_docs.", "."), _clean(node.value.value))
    elif isinstance(node.value, ast.Dict):
        for value in node.value.values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield _clean(value.value)  # begins with its own heading


def _added_part(node: ast.stmt, prefix: str) -> list[str]:
    """Docs of compiled functions: `add_newdoc("airy", "text")`, `add_newdoc("numpy", "dtype", ("base", "text"))`."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return []
    called = node.value.func
    if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) != "add_newdoc":
        return []
    texts = [
        each.value
        for argument in node.value.args
        for each in (argument.elts if isinstance(argument, ast.Tuple) else [argument])
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]
    if len(texts) < 2:
        return []
    *names, text = texts
    dotted = ".".join(names) if "." in names[0] else f"{prefix}.{'.'.join(names)}"
    parts = dotted.split(".")
    if _is_private(parts[-1]):
        return []
    return [_part(".".join(part for part in parts if not _is_private(part)), _clean(text))]


def _part(heading: str, text: str) -> str:
    return f"{heading}\n\n{text}"


def _clean(text: str) -> str:
    return _PLACEHOLDER.sub("", inspect.cleandoc(text)).strip()


def _is_private(name: str) -> bool:
    """Whether a name says that it is not for users; names such as __init__ do not say so."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Its arguments as they are called, in parentheses, without self and cls."""
    written = ast.unparse(node.args)
    for bound in ("self", "cls"):
        if written == bound or written.startswith((f"{bound}, ", f"{bound}:")):
            written = written.partition(", ")[2]
    return f"({written})"


def _size(texts: list[str] | tuple[str, ...]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def _packed(parts: list[str]) -> Iterator[str]:
    """The parts in order, as many to a document as fit into 64 KiB; a part that is very long is cut as files are."""
    waiting: list[str] = []
    size = 0
    for part in parts:
        if waiting and size + _size([part]) > SECTION_BYTES:
            yield _BETWEEN.join(waiting)
            waiting, size = [], 0
        waiting.append(part)
        size += _size([part]) + len(_BETWEEN)
    text = _BETWEEN.join(waiting)
    for start, end in cut_into_sections(text):
        yield text[start:end]
