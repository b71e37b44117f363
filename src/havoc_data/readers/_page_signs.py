"""Signs that the text of a PDF page has lost its formulas.

A PDF holds where glyphs stand, not what they mean. A fraction comes out as lines of one letter, x² as x2, and a glyph
without a Unicode value as rubbish. Whatever is read of such a page teaches wrong mathematics, so it is better left out
than read. The thresholds are set so that prose with a variable here and there passes: it reads as it should.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WORST_UNREADABLE = 0.01
"""Share of characters without a meaning: U+FFFD, private use, control, or no Unicode value; at least three of them."""
WORST_MATHS_FONTS = 0.05
"""Share of characters in fonts of mathematics. Prose that names a variable in every line has about 0.02."""
WORST_INDICES = 4
"""Small characters right after a letter that stands alone, or a bracket: x2 that was x². A footnote or two are fewer."""
WORST_FRAGMENTS = 0.2
"""Share of lines of up to three characters that are no number and no list mark; at least six of them."""

_MATHS_FONT = re.compile(
    r"(?:CM(?:MI|SY|EX|MIB|BSY)|MSAM|MSBM|EU[FSR][MB]|RSFS|LASY|STMARY|ESINT|WASY|MTMI|MTSY|MTEX|MnSymbol|"
    r"(?:new)?[tp]x(?:mi|sy|ex)|TeX_|Symbol|STIX\w*(?:Sym|Size)|.*Math)",
    re.IGNORECASE,
)
_NO_MATHS = frozenset("•·∗*-–—©®™.,")
"""Taken from these fonts for lists and marks; the dots of a table of contents too."""
_LIST_MARK = re.compile(r"\(?\d{2,}[.)]?|\(?\w[.)]|[ivxlcIVXLC]{2,}[.)]?|[•·–—*]|\d+%|[A-Z]")
"""Capital letters stand alone in the index of a book."""


@dataclass(frozen=True)
class Glyph:
    """One character of a page, in the order of its text."""

    character: str
    font: str
    """Name of its font, with the tag of its subset ("ABCDEF+CMMI10"); "" where there is none."""
    height: float
    """Of its line in the font, in points; 0.0 where it is not known."""
    unmapped: bool = False
    """Whether the font does not say what character it is."""


def sign_of_loss(text: str, glyphs: Sequence[Glyph]) -> str | None:
    """Why the formulas of a page are taken for lost, or None.

    Args:
        text: of the page.
        glyphs: of the page, without those that the reader of the PDF made up, such as line ends.
    """
    visible = [glyph for glyph in glyphs if not glyph.character.isspace()]
    if not visible:
        return None
    unreadable = sum(glyph.unmapped or _meaningless(glyph.character) for glyph in visible)
    if unreadable >= 3 and unreadable > WORST_UNREADABLE * len(visible):
        return f"{unreadable / len(visible):.1%} of its characters have no meaning"
    maths = sum(_is_maths(glyph) for glyph in visible)
    if maths > WORST_MATHS_FONTS * len(visible):
        return f"{maths / len(visible):.1%} of its characters are in fonts of mathematics"
    indices = _indices(glyphs)
    if indices >= WORST_INDICES:
        return f"{indices} indices lost their place, such as x2 for x²"
    lines = ["".join(line.split()) for line in text.split("\n") if line.strip()]
    fragments = sum(len(line) <= 3 and not _LIST_MARK.fullmatch(line) for line in lines)
    if fragments >= 6 and fragments > WORST_FRAGMENTS * len(lines):
        return f"{fragments} of its {len(lines)} lines are fragments of one to three characters"
    return None


def _meaningless(character: str) -> bool:
    code = ord(character)
    return code == 0xFFFD or 0xE000 <= code <= 0xF8FF or code >= 0xF0000 or (code < 32 and code not in (2, 9, 10, 13))


def _is_maths(glyph: Glyph) -> bool:
    name = glyph.font.rpartition("+")[2]
    return glyph.character not in _NO_MATHS and _MATHS_FONT.match(name) is not None


def _indices(glyphs: Iterable[Glyph]) -> int:
    """Letters and digits that are smaller than what they follow: a letter alone, or a closing bracket."""
    count = 0
    before, last = " ", Glyph(" ", "", 0.0)
    for glyph in glyphs:
        smaller = 0.0 < glyph.height < 0.85 * last.height
        base = last.character in ")]" or (last.character.isalpha() and not before.isalnum())
        if smaller and base and glyph.character.isalnum():
            count += 1
        before, last = last.character, glyph
    return count
