"""What the tests of sources share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from havoc_data.document import Document
from havoc_data.sources._parts import FilePart

Tiled = Callable[[Sequence[FilePart]], dict[str, int]]


@pytest.fixture(scope="session")
def tiled() -> Tiled:
    """Checks that every byte of every file belongs to one document or reject; gives origin -> bytes."""
    return check_tiled


def check_tiled(parts: Sequence[FilePart]) -> dict[str, int]:
    """Every byte of every file belongs to one document or reject; origin -> bytes."""
    spans: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for part in parts:
        for origin, (start, end) in part.sizes().items():
            known = sizes.get(origin, (start, start))
            assert known[1] == start, "pieces lie side by side"
            sizes[origin] = known[0], end
        for item in part.documents():
            for span in item.spans if isinstance(item, Document) else (item,):
                spans.setdefault(span.origin, []).append((span.start, span.end))
    assert spans.keys() == sizes.keys()
    for origin, (start, end) in sizes.items():
        position = start
        for first, last in sorted(spans[origin]):
            assert first == position, (origin, first, position)
            position = last
        assert (start, position) == (0, end), origin
    return {origin: end for origin, (_, end) in sizes.items()}
