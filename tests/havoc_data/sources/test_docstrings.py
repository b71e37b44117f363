from __future__ import annotations

import pytest

from havoc_data.sources._docstrings import read_module

LONG = "It says a good deal about what it does and why. " * 6


def test_a_module_is_its_own_words_and_those_of_its_public_functions() -> None:
    source = f'''
"""About the module. {LONG}"""

def area(width, height: float = 1.0, *, unit="m", **more) -> float:
    """
    Area of a rectangle.

        indented
    """

def _hidden():
    """Not for users."""

def silent():
    return 1
'''
    (document,) = read_module(source.encode(), "shapes.flat").documents
    assert document == (
        f"shapes.flat\n\nAbout the module. {LONG.strip()}\n\n\n"
        "shapes.flat.area(width, height: float=1.0, *, unit='m', **more)\n\nArea of a rectangle.\n\n    indented"
    )


def test_a_class_with_enough_to_say_is_a_document_of_its_own() -> None:
    source = f'''
"""About the module. {LONG}"""

class Circle(Shape):
    """A circle. {LONG}"""

    def __init__(self, radius):
        """Make it."""

    @property
    def area(self):
        """Its area."""

    @classmethod
    def unit(cls):
        """The one of radius 1."""

    async def grow(self, by=1):
        """Make it larger."""

    def _secret(self):
        """Not for users."""

    class Arc:
        """A part of it."""

class Small:
    """Too little for a document."""
'''
    module, circle = read_module(source.encode(), "shapes").documents
    assert module.endswith("\n\n\nshapes.Small\n\nToo little for a document.")
    assert [part.split("\n")[0] for part in circle.split("\n\n\n")] == [
        "shapes.Circle(radius)",
        "shapes.Circle.__init__(radius)",
        "shapes.Circle.area",
        "shapes.Circle.unit()",
        "shapes.Circle.grow(by=1)",
        "shapes.Circle.Arc",
    ]


def test_names_are_those_that_users_meet() -> None:
    source = f'def minimize(fun):\n    """Minimise. {LONG}"""\n'
    (document,) = read_module(source.encode(), "scipy.optimize._minimize").documents
    assert document.startswith("scipy.optimize.minimize(fun)\n\nMinimise.")


def test_definitions_inside_if_try_and_with_are_found() -> None:
    parts = [
        f'if A:\n    def a():\n        """A. {LONG}"""\nelse:\n    def b():\n        """B. {LONG}"""\n',
        f'try:\n    def c():\n        """C. {LONG}"""\nexcept E:\n    def d():\n        """D. {LONG}"""\n',
        f'with w:\n    def e():\n        """E. {LONG}"""\n',
    ]
    (document,) = read_module("".join(parts).encode(), "m").documents
    assert [part.split("(")[0] for part in document.split("\n\n\n")] == ["m.a", "m.b", "m.c", "m.d", "m.e"]


def test_docs_of_compiled_functions_are_read_where_they_are_added() -> None:
    source = f'''
add_newdoc("airy", """Airy functions. {LONG}""")
add_newdoc("_secret", """Not for users. {LONG}""")
add_newdoc("numpy._core.multiarray", "dtype", ("base", """The base. {LONG}"""))
add_newdoc(name, TEXT)
other("x", """No documentation. {LONG}""")
'''
    (document,) = read_module(source.encode(), "scipy.special._add_newdocs").documents
    assert [part.split("\n")[0] for part in document.split("\n\n\n")] == [
        "scipy.special.airy",
        "numpy.multiarray.dtype.base",
    ]


def test_two_modules_of_nothing_but_texts_are_read_whole() -> None:
    source = f'pi = r"""\nThe number. {LONG}"""\n'.encode()
    (document,) = read_module(source, "mpmath.function_docs").documents
    assert document.startswith("mpmath.pi\n\nThe number.")
    assert read_module(source, "mpmath.other").documents == ()
    topics = f"topics = {{'assert': 'The assert statement\\n' '*****\\n{LONG}', 'x': y}}".encode()
    (document,) = read_module(topics, "pydoc_data.topics").documents
    assert document.startswith("The assert statement\n*****\n")


def test_lines_that_a_package_fills_in_when_it_is_imported_are_left_out() -> None:
    docstring = f"A normal variable. {LONG}\n\n    %(before_notes)s\n\n    ${{LIKE}}\n    50 %(sure)s.\n    "
    source = f'class norm_gen(rv):\n    """{docstring}"""\n'
    (document,) = read_module(source.encode(), "m").documents
    assert document.endswith(f"A normal variable. {LONG}\n\n\n50 %(sure)s.")


def test_what_is_too_little_for_a_document_is_counted() -> None:
    read = read_module('"""Short but süß."""'.encode(), "tiny")
    assert read.documents == ()
    assert read.left_over_bytes == len("tiny\n\nShort but süß.".encode())


def test_long_modules_are_several_documents_and_no_part_is_torn() -> None:
    source = "".join(f'def f{n}():\n    """Number {n}. {LONG}"""\n\n' for n in range(700))
    documents = read_module(source.encode(), "m").documents
    assert len(documents) == 4
    assert all(document.startswith("m.f") and len(document) <= 64 * 1024 for document in documents)
    assert sum(document.count("Number ") for document in documents) == 700


def test_a_single_text_of_300_kb_is_cut_like_a_file() -> None:
    source = '"""' + "A line of text.\n\n" * 20_000 + '"""'
    documents = read_module(source.encode(), "m").documents
    assert len(documents) > 4
    assert max(map(len, documents)) <= 64 * 1024


def test_bad_escapes_in_strings_of_others_warn_nobody() -> None:
    """The tests turn every warning into an error."""
    assert read_module(b'"""' + b"\\d is no escape. " * 20 + b'"""', "m").documents[0].startswith("m\n\n\\d is no")


@pytest.mark.parametrize(
    "source", [b'"""a"""\ndef (:\n', b'"""a"""\0', '# -*- coding: latin-1 -*-\nprint "é" """x"""'.encode()]
)
def test_what_is_no_python_of_this_version_is_an_error_of_python(source: bytes) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        read_module(source, "m")
