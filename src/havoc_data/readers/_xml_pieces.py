"""Pieces of text that elements of XML become when they end, and how they are put together to lines and paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

BLANKS = re.compile(r"[ \t\r\n]+")
"""Blanks as XML knows them; a no-break space is none."""
_STOPS = (".", ",", ";", ":")


@dataclass(frozen=True)
class Piece:
    """Some of the text of an element that has ended."""

    kind: Literal["words", "exact", "display", "either", "block", "item", "cell", "aside", "mrow", "alt", "tex"]
    """words: part of a line, in which blanks do not count; exact: part of a line; display: a formula on lines of its own
    in a paragraph; block: a paragraph or several; item: lines that follow one another without a blank line; either: a
    block, or with its `parts` some of a line; aside: entry of an index; cell, mrow, alt, tex: for the element around."""
    text: str
    parts: tuple[Piece, ...] = ()


def in_line(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """The pieces with each `either` taken as part of a line."""
    parts: list[Piece] = []
    for piece in pieces:
        parts += piece.parts if piece.kind == "either" else (piece,)
    return tuple(parts)


def without(pieces: Iterable[Piece], *kinds: str) -> list[Piece]:
    """The pieces that are of other kinds."""
    return [piece for piece in pieces if piece.kind not in kinds]


def lines_of(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Each `either` as one piece of words."""
    for piece in pieces:
        yield Piece("words", line_of(piece.parts)) if piece.kind == "either" else piece


def longest_run(code: str) -> int:
    """Most backticks that follow one another in a piece of code: its fence needs one more."""
    return max(map(len, re.findall("`+", code)), default=0)


def blocks_of(pieces: Sequence[Piece], *, among_words: bool = False) -> list[str]:
    """Paragraphs and what else stands for itself, in order.

    Args:
        pieces: contents of an element.
        among_words: whether every `either` is part of a line; else it is if there are words beside it.
    """
    among_words = among_words or any(
        piece.kind in ("words", "exact", "display") and piece.text.strip() for piece in pieces
    )
    blocks: list[str] = []
    line: list[Piece] = []
    asides: list[str] = []
    items: list[str] = []

    has_line = False  # whether there is more in `line` than blanks

    def close() -> None:
        nonlocal has_line
        if items:
            blocks.append("\n".join(items))
            items.clear()
        if has_line:
            blocks.append(line_of(line))
        line.clear()
        has_line = False
        if asides:
            blocks.append("Index: " + "; ".join(asides))
            asides.clear()

    for piece in in_line(pieces) if among_words else pieces:
        if piece.kind == "aside":
            asides += [piece.text] if piece.text else []
        elif piece.kind == "item":
            if not items:
                close()
            items.append(piece.text)
        elif piece.kind in ("words", "exact", "display"):
            if piece.text.strip() and (items or (asides and not has_line)):
                close()
            has_line = has_line or bool(piece.text.strip())
            line.append(piece)
        elif piece.text.strip():
            close()
            blocks.append(piece.text)
    close()
    return blocks


def line_of(pieces: Sequence[Piece]) -> str:
    """A paragraph: blanks in words made one, formulas on lines of their own where they want them."""
    text: list[str] = []
    last, after_display = "\n", False
    for piece in pieces:
        new = piece.text
        if piece.kind == "words":
            new = BLANKS.sub(" ", new)
            new = new.lstrip(" ") if last in " \n" else new
            if after_display and new[:1] in _STOPS:  # the full stop that ends the formula
                text[-1] = text[-1][:-1]
                stop, new = new[:1], new[1:].lstrip(" ")
                text.append(stop + "\n")
        elif piece.kind == "display":
            if text:
                text[-1] = text[-1].rstrip(" ")
            new = f"{new}\n" if last == "\n" else f"\n{new}\n"
        if new:
            text.append(new)
            last, after_display = new[-1], piece.kind == "display"
    return "".join(text).strip(" \n")
