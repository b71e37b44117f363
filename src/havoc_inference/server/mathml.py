"""Formulas in LaTeX -> MathML that is safe to put on a page."""

from __future__ import annotations

import html
import re
from xml.etree.ElementTree import Element

from latex2mathml.converter import Converter

MAX_CHARACTERS = 4_000
"""A longer formula is shown as its source."""

_TAGS = re.compile(
    "math|mrow|mi|mn|mo|ms|mtext|mspace|mfrac|msqrt|mroot|msub|msup|msubsup|munder|mover|munderover|mmultiscripts|"
    "mprescripts|none|mtable|mtr|mtd|mstyle|mpadded|mphantom|menclose"
)
_ATTRIBUTES = re.compile(
    "display|displaystyle|scriptlevel|stretchy|accent|accentunder|fence|separator|symmetric|largeop|movablelimits|"
    "form|lspace|rspace|linethickness|minsize|maxsize|columnalign|columnlines|rowlines|notation|mathcolor|width|"
    "height|depth|voffset"
)
_VALUE = re.compile(r"[a-z -]{1,40}|#[0-9a-fA-F]{3,6}|[+-]?\d{0,2}(\.\d{0,4})?([a-z]{2}|%)?")
"""Words, colours, and lengths of two digits: none makes a page wider than anybody can read."""

_LIMITS = re.compile("[∑∏∐⋂⋃⋁⋀⨁⨂]|lim|max|min|sup|inf|arg.?max|arg.?min")
_ABOVE_AND_BELOW = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
"""Limits of a sum stand above and below it on a line of its own, which latex2mathml forgets inside `\\left[ \\right]`."""

_NUM_CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
"""What a browser needs; latex2mathml lets `\\frac{a}` pass."""

_DEFINITION = re.compile(r"\\(?:def|g?let|(?:re)?newcommand|newenvironment|DeclareMathOperator)\b")
"""A few lines of macros can expand to gigabytes, so there are none."""

_UNWRAPPED = re.compile(r"\\(?:begin|end)\{(?:equation|multline|displaymath|math)\*?\}")
"""Surroundings that only number a formula or break its lines; latex2mathml does not know them."""

_RENAMED = (
    (re.compile(r"\\(begin|end)\{(?:align|aligned|alignedat|flalign|eqnarray)\*?\}"), r"\\\1{align*}"),
    (re.compile(r"\\(begin|end)\{(?:gather|gathered)\*?\}"), r"\\\1{matrix}"),
)
"""Surroundings -> the nearest that latex2mathml knows. Starred: an answer's equations carry no numbers."""


def from_latex(formula: str, *, display: bool) -> str | None:
    """A formula as MathML; None where it cannot be read, and is to be shown as it was written.

    Only elements and attributes that are known to be harmless come through: latex2mathml itself passes on `\\href`,
    `\\style` and, since it unescapes what it wrote, any tag inside `\\text`.

    Args:
        formula: LaTeX without its dollars or brackets.
        display: on a line of its own.
    """
    formula = _UNWRAPPED.sub("", formula).strip()
    for pattern, name in _RENAMED:
        formula = pattern.sub(name, formula)
    if not formula or len(formula) > MAX_CHARACTERS or _DEFINITION.search(formula):
        return None
    try:
        root = Converter(display="block" if display else "inline").convert_to_element(formula)
        parts: list[str] = []
        _write(root, parts)
    except Exception:  # latex2mathml fails on wrong input in a dozen ways: its own errors, ValueError, IndexError …
        return None
    return "".join(parts)


def _write(element: Element, parts: list[str]) -> None:
    """Append an element. The children of an unknown one come without it."""
    tag = element.tag if _TAGS.fullmatch(element.tag) else "mrow"
    if len(element) != _NUM_CHILDREN.get(tag, len(element)):
        raise ValueError(f"<{tag}> with {len(element)} children")
    operator = _text(element[0].text) if len(element) and element[0].tag == "mo" else ""
    if _LIMITS.fullmatch(operator) and tag in _ABOVE_AND_BELOW:
        tag = _ABOVE_AND_BELOW[tag]
        element[0].set("movablelimits", "true")
    attributes = "".join(
        f' {name}="{value}"'
        for name, value in element.attrib.items()
        if _ATTRIBUTES.fullmatch(name) and _VALUE.fullmatch(value)
    )
    parts.append(f"<{tag}{attributes}>{_text(element.text)}")
    for child in element:
        _write(child, parts)
        parts.append(_text(child.tail))
    parts.append(f"</{tag}>")


def _text(text: str | None) -> str:
    """latex2mathml writes symbols as `&#x003B2;`: read, and then escaped like anything else."""
    return html.escape(html.unescape(text)) if text else ""
