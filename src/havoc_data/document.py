"""Text and where it came from."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = ("domain", "general", "dialog")
"""The shares of the mixture."""
MIN_HELD_OUT_BYTES = 32 * 1024
"""Text of a group that is held out at least; less says too little about it."""


@dataclass(frozen=True)
class Span:
    """A range of bytes of a file."""

    origin: str
    """Path relative to the source's folder with forward slashes; of a file in an archive "archive.zip!/inner/path"."""
    start: int
    """First byte, in the unpacked file."""
    end: int
    """One past the last byte."""


@dataclass(frozen=True)
class Document:
    """One text that is learnt as a whole: attention never leaves it.

    Either `text` or `messages` is given; a dialog is rendered later, by the chat format.
    """

    origin: str
    """Where it came from: as in Span, or "scipy.stats.norm" where there is no file."""
    text: str = ""
    """The text, with \\n line ends and no invalid bytes."""
    messages: tuple[tuple[str, str], ...] = ()
    """(role, content) pairs of a dialog; roles are system, user, assistant."""
    ordinal: int = 0
    """Its number among the documents of the same origin."""
    start: int = 0
    """First byte in the origin that it was made from, markup around it included; the ranges of a file's documents and
    rejects lie side by side and cover the file."""
    end: int = 0
    """One past the last byte in the origin; equal to start where there is no file."""
    licence: str | None = None
    """SPDX name, where known."""
    includes: tuple[Span, ...] = ()
    """Further bytes that it was made from: files that were included in this one."""
    counts: tuple[tuple[str, int], ...] = ()
    """What the reader counted while it made the text, such as ("formulas", 12), ("formulas_lost", 1)."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """All bytes that it was made from."""
        return (Span(self.origin, self.start, self.end), *self.includes)


@dataclass(frozen=True)
class Rejected:
    """Something in a source that did not become a document. It is named in the ledger, never passed over in silence."""

    origin: str
    """As in Document; for one row of a file "rows.jsonl:17" is allowed only in `reason`."""
    reason: str
    """Why, in words for the user."""
    bytes: int = 0
    """How much was left out."""
    start: int = 0
    """First byte of what was left out, in the origin."""
    rule: str = "unreadable"
    """Why, in one word: unreadable, or the name of the rule that fired."""

    @property
    def end(self) -> int:
        """One past the last byte that was left out."""
        return self.start + self.bytes


def document_text(document: Document) -> str:
    """The text of a document; of a dialog, its contents one after another."""
    return document.text or "\n".join(content for _, content in document.messages)
