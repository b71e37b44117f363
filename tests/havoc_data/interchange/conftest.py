"""Documents made of numbers, and the vocabularies that they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from havoc_data.token_format import Vocabulary, WrittenDocument

DOCUMENTS = [[300, 301, 1], [7, 1], [400, 401, 402, 403, 599, 1], [500, 1]]


@pytest.fixture
def documents() -> list[list[int]]:
    """Four documents that end with id 1."""
    return DOCUMENTS


@pytest.fixture(scope="session")
def vocabulary() -> Callable[..., Vocabulary]:
    """A vocabulary of some size; texts begin with id 0 and end with id 1."""

    def make(size: int = 600, bos_id: int = 0, eos_id: int = 1) -> Vocabulary:
        return Vocabulary(size, bos_id, eos_id, "tokenizer/tokenizer.json")

    return make


@pytest.fixture(scope="session")
def outgoing() -> Callable[..., Iterator[WrittenDocument]]:
    """Documents as a store gives them."""

    def make(documents: list[list[int]]) -> Iterator[WrittenDocument]:
        for number, ids in enumerate(documents):
            provenance = {
                "id": f"{number:032x}",
                "source": "web",
                "origin": f"{number}, with\na comma.txt",
                "ordinal": 3,
            }
            yield WrittenDocument(np.array(ids, dtype=np.uint32), provenance)

    return make


@pytest.fixture(scope="session")
def listed() -> Callable[..., list[list[int]]]:
    """The ids of the documents of a file, after a look at their bytes."""

    def read(interchange, path: Path, vocabulary: Vocabulary) -> list[list[int]]:
        out, end = [], 0
        for found in interchange.read(path, vocabulary):
            assert found.start == end, "documents lie side by side"
            end = found.end
            out.append(found.ids.tolist())
        assert end == path.stat().st_size, "and cover the file"
        return out

    return read
