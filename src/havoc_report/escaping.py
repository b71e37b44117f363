"""Any text, made safe to stand in HTML and in SVG.

What a model writes is hostile text: tags, NULs, terminal escapes, halves of surrogate pairs, and
characters that turn the reading direction of what follows. Nothing is dropped: what cannot be shown
is shown by a stand-in, so that a reader sees that it was there.
"""

from __future__ import annotations

import html
import re

_UNSHOWABLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\ud800-\udfff\ufffe\uffff"  # surrogates, and the two code points that XML forbids
    # Marks, embeddings, overrides and isolates: they make a line read as something it is not (CVE-2021-42574).
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "]"
)


def clean(text: str) -> str:
    """`text` without characters that break HTML, XML or UTF-8; tabs and newlines stay.

    Control characters, lone surrogates and characters that change the reading direction are spelt out:
    NUL becomes ⟨U+0000⟩. The line end of Windows becomes a newline.
    """
    # Spelt out, not the Unicode pictures of control characters: few fonts of code have those.
    return _UNSHOWABLE.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text.replace("\r\n", "\n"))


def escape(text: str) -> str:
    """`text` cleaned, with & < > and both quotation marks as entities: fit for content and attributes."""
    return html.escape(clean(text), quote=True)


def one_line(text: str) -> str:
    """`text` cleaned, with every run of white space as one space: fit for a label in a plot."""
    return " ".join(clean(text).split())
