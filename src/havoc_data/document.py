"""Text and where it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text that is learnt as a whole: attention never leaves it.

    Either `text` or `messages` is given; a dialog is rendered later, by the chat format.
    """

    origin: str
    """Where it came from: a path relative to the source's folder with forward slashes, or "scipy.stats.norm"."""
    text: str = ""
    """The text, with \\n line ends and no invalid bytes."""
    messages: tuple[tuple[str, str], ...] = ()
    """(role, content) pairs of a dialog; roles are system, user, assistant."""
    ordinal: int = 0
    """Its number among the documents of the same origin."""
    start: int = 0
    """First byte in the origin, if the origin is a file that is read as it stands."""
    end: int = 0
    """One past the last byte in the origin; equal to start where bytes mean nothing."""
    licence: str | None = None
    """SPDX name, where known."""


@dataclass(frozen=True)
class Rejected:
    """Something in a source that did not become a document. It is named in the ledger, never passed over in silence."""

    origin: str
    """As in Document."""
    reason: str
    """Why, in words for the user."""
    bytes: int = 0
    """How much was left out."""
