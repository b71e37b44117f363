r"""MathML as LaTeX: the source that the page carries with it, or else the tree written in one line.

Works on elements of lxml, whatever namespace or prefix they have, and imports no library. Symbols stay the
Unicode characters that they are: `<mi>α</mi>` is α, not \alpha. Presentation MathML: www.w3.org/TR/mathml-core.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

DEEPEST = 150
"""Nesting below which only the characters of a formula are kept."""
_TEX = frozenset({"application/x-tex", "application/x-latex", "tex", "latex", "text/x-tex", "text/latex"})
_FUNCTIONS = frozenset({
    "arccos", "arcsin", "arctan", "arg", "cos", "cosh", "cot", "coth", "csc", "deg", "det", "dim", "exp", "gcd", "hom",
    "inf", "ker", "lg", "lim", "liminf", "limsup", "ln", "log", "max", "min", "sec", "sin", "sinh", "sup", "tan", "tanh",
    "Pr",
})  # fmt: skip
_VARIANTS = {
    "double-struck": r"\mathbb",
    "bold": r"\mathbf",
    "bold-italic": r"\boldsymbol",
    "script": r"\mathcal",
    "fraktur": r"\mathfrak",
    "sans-serif": r"\mathsf",
    "monospace": r"\mathtt",
}
_OVER = {
    "\u00af": r"\overline", "\u02c9": r"\overline", "\u203e": r"\overline", "\u0305": r"\overline", "_": r"\overline",
    "^": r"\hat", "\u02c6": r"\hat", "\u0302": r"\hat", "~": r"\tilde", "\u02dc": r"\tilde", "\u0303": r"\tilde",
    "\u2192": r"\vec", "\u20d7": r"\vec", "\u02d9": r"\dot", "\u0307": r"\dot", "\u00a8": r"\ddot", "\u0308": r"\ddot",
    "\u02c7": r"\check", "\u02d8": r"\breve", "\u23de": r"\overbrace",
}  # fmt: skip
_UNDER = {"_": r"\underline", "\u0332": r"\underline", "\u00af": r"\underline", "\u23df": r"\underbrace"}
_LIMITS = frozenset("∑∏∐∫∬∭∮⋂⋃⋀⋁⨁⨂") | frozenset(rf"\{name}" for name in _FUNCTIONS)
_INVISIBLE = re.compile("[\u200b\u2061-\u2064\ufeff]")
_SPECIAL = re.compile(r"[{}%#&_$]")
_SILENT = frozenset({"annotation", "annotation-xml", "mphantom", "mspace", "none", "mprescripts", "malignmark"})


def local_name(element: Any) -> str:
    """Name of an element without namespace or prefix, in lower case; "" for what is no element, such as a comment."""
    tag = element.tag
    return tag.rpartition("}")[2].rpartition(":")[2].lower() if isinstance(tag, str) else ""


def latex_of(math: Any) -> str:
    """The LaTeX of a `math` element: its TeX annotation, its `alttext`, or its tree in one line; "" if it is empty."""
    for element in math.iter():
        if local_name(element) == "annotation" and (element.get("encoding") or "").lower() in _TEX:
            source = "".join(element.itertext()).strip()
            if source:
                return source
    return (math.get("alttext") or "").strip() or _row(math, 0)


def _linear(element: Any, depth: int) -> str:
    name = local_name(element)
    if name in _SILENT or not name:
        return ""
    if depth > DEEPEST:
        return _escaped(" ".join("".join(element.itertext()).split()))
    if name in ("mi", "mn", "mo", "mtext", "ms"):
        return _leaf(element, name)
    write = _WRITERS.get(name)
    return write(element, depth + 1) if write else _row(element, depth)


def _leaf(element: Any, name: str) -> str:
    text = _INVISIBLE.sub("", " ".join("".join(element.itertext()).split()))
    if not text:
        return ""
    if name in ("mtext", "ms"):
        return rf"\text{{{_escaped(text)}}}"
    variant = _VARIANTS.get(element.get("mathvariant") or "")
    if variant:
        return f"{variant}{{{_escaped(text)}}}"
    if text in _FUNCTIONS:
        return rf"\{text}"
    if name == "mi" and len(text) > 1 and text.isalpha():
        return rf"\mathrm{{{text}}}"
    return _escaped(text)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], text.replace("\\", r"\backslash "))


def _row(element: Any, depth: int) -> str:
    """The children one after another, with a space where a command would swallow the next letter."""
    line = _escaped(" ".join((element.text or "").split())) if local_name(element) not in ("math", "mrow") else ""
    for child in element:
        piece = _linear(child, depth + 1)
        if piece[:1].isalnum() and re.search(r"\\[A-Za-z]+$", line):
            line += " "
        line += piece
    return line


def _parts(element: Any, depth: int, count: int) -> list[str]:
    """The first `count` children; "" for those that are missing."""
    children = [child for child in element if local_name(child)]
    parts = [_linear(child, depth) for child in children[:count]]
    return parts + [""] * (count - len(parts))


def _base(text: str) -> str:
    """Something that can carry an index."""
    return text if len(text) == 1 or re.fullmatch(r"\\[A-Za-z]+(?:\{[^{}]*\})?", text) else f"{{{text}}}"


def _script(mark: str, text: str) -> str:
    return f"{mark}{{{text}}}" if text else ""


def _scripts(element: Any, depth: int, marks: str) -> str:
    base, *scripts = _parts(element, depth, len(marks) + 1)
    return _base(base) + "".join(map(_script, marks, scripts))


def _superscript(element: Any, depth: int) -> str:
    return _scripts(element, depth, "^")


def _subscript(element: Any, depth: int) -> str:
    return _scripts(element, depth, "_")


def _both_scripts(element: Any, depth: int) -> str:
    return _scripts(element, depth, "_^")


def _fraction(element: Any, depth: int) -> str:
    over, under = _parts(element, depth, 2)
    if re.fullmatch(r"0+(\.0*)?[a-z%]*", element.get("linethickness") or ""):
        return rf"{{{over} \atop {under}}}"
    return rf"\frac{{{over}}}{{{under}}}"


def _square_root(element: Any, depth: int) -> str:
    return rf"\sqrt{{{_row(element, depth)}}}"


def _root(element: Any, depth: int) -> str:
    base, index = _parts(element, depth, 2)
    return rf"\sqrt[{index}]{{{base}}}"


def _above(element: Any, depth: int) -> str:
    base, over = _parts(element, depth, 2)
    if base in _LIMITS:
        return base + _script("^", over)
    return (
        f"{_OVER[over.lstrip(chr(92))]}{{{base}}}" if over.lstrip("\\") in _OVER else rf"\overset{{{over}}}{{{base}}}"
    )


def _below(element: Any, depth: int) -> str:
    base, under = _parts(element, depth, 2)
    if base in _LIMITS:
        return base + _script("_", under)
    mark = _UNDER.get(under.lstrip("\\"))
    return f"{mark}{{{base}}}" if mark else rf"\underset{{{under}}}{{{base}}}"


def _below_and_above(element: Any, depth: int) -> str:
    base, under, over = _parts(element, depth, 3)
    if base in _LIMITS:
        return base + _script("_", under) + _script("^", over)
    return rf"\underset{{{under}}}{{\overset{{{over}}}{{{base}}}}}"


def _fenced(element: Any, depth: int) -> str:
    parts = [_linear(child, depth) for child in element if local_name(child)]
    separators = "".join(element.get("separators", ",").split())
    line = parts[0] if parts else ""
    for number, part in enumerate(parts[1:]):
        line += (separators[min(number, len(separators) - 1)] if separators else "") + part
    return _escaped(element.get("open", "(")) + line + _escaped(element.get("close", ")"))


def _table(element: Any, depth: int) -> str:
    rows = []
    for row in element:
        if local_name(row) in ("mtr", "mlabeledtr"):
            cells = [child for child in row if local_name(child)]
            labels = 1 if local_name(row) == "mlabeledtr" else 0
            rows.append(" & ".join(_row(cell, depth) for cell in cells[labels:]))
    lines = r" \\ ".join(rows)
    return rf"\begin{{matrix}} {lines} \end{{matrix}}"


def _many_scripts(element: Any, depth: int) -> str:
    names = [local_name(child) for child in element if local_name(child)]
    parts = _parts(element, depth, len(names))
    base = _base(parts[0]) if parts else "{}"
    middle = names.index("mprescripts") if "mprescripts" in names else len(names)
    after, before = parts[1:middle], parts[middle + 1 :]
    return ("{}" + _pairs(before) if before else "") + base + _pairs(after)


def _pairs(scripts: list[str]) -> str:
    return "".join(_script("^" if number % 2 else "_", text) for number, text in enumerate(scripts))


def _first(element: Any, depth: int) -> str:
    return _parts(element, depth, 1)[0]


_WRITERS: dict[str, Callable[[Any, int], str]] = {
    "mfrac": _fraction,
    "msup": _superscript,
    "msub": _subscript,
    "msubsup": _both_scripts,
    "msqrt": _square_root,
    "mroot": _root,
    "mover": _above,
    "munder": _below,
    "munderover": _below_and_above,
    "mfenced": _fenced,
    "mtable": _table,
    "mmultiscripts": _many_scripts,
    "semantics": _first,
    "maction": _first,
}
