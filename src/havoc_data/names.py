"""Which names can be part of a path that HAVOC makes."""

from __future__ import annotations


def is_file_name(name: object) -> bool:
    """Whether a name stays in its folder: text, no part of a path, and no way up."""
    return isinstance(name, str) and name not in ("", ".", "..") and {"/", "\\", "\0"}.isdisjoint(name)
