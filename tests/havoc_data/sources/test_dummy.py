from __future__ import annotations

import hashlib
import pickle

import pytest
from pydantic import ValidationError

from havoc_core.errors import ConfigError
from havoc_data.document import Document
from havoc_data.sources.dummy import Options, build


def texts(**options: int) -> list[str]:
    documents = list(build(None, Options(**options)).documents())
    return [document.text for document in documents if isinstance(document, Document)]


def test_there_are_as_many_documents_and_words_as_asked_for() -> None:
    made = texts(documents=30, words=50)
    assert len(set(made)) == 30
    assert {len(text.split(" ")) for text in made} == {50}
    assert set("".join(made)) == set("abcdefghijkl ")


def test_the_words_are_the_same_on_every_machine() -> None:
    """A pinned digest: whoever changes the words must raise the number in the fingerprint too."""
    digest = hashlib.sha256("\n".join(texts(documents=5, words=20)).encode()).hexdigest()
    assert digest[:16] == "8f7d3937f75974f2"


def test_a_longer_source_begins_like_a_shorter_one() -> None:
    assert texts(documents=8)[:3] == texts(documents=3)


def test_another_seed_gives_other_words_and_another_fingerprint() -> None:
    assert not set(texts(documents=5)) & set(texts(documents=5, seed=1))
    prints = {
        build(None, Options(**options)).fingerprint() for options in ({}, {"seed": 1}, {"words": 3}, {"documents": 3})
    }
    assert len(prints) == 4
    assert build(None, Options()).fingerprint() == build(None, Options()).fingerprint()


def test_random_words_come_from_nowhere() -> None:
    with pytest.raises(
        ConfigError, match=r"data.sources.path: 'x' is given, but .*'dummy' reads no files. Leave path out"
    ):
        build("x", Options())
    with pytest.raises(ValidationError):
        Options(documents=0)


def test_a_part_that_was_sent_elsewhere_gives_the_documents_of_the_source() -> None:
    source = build(None, Options(documents=5, words=3))
    (part,) = source.parts()
    assert list(pickle.loads(pickle.dumps(part)).documents()) == list(source.documents())
    assert (part.key, part.sizes(), source.rejected()) == (source.fingerprint(), {}, ())
