"""What the comparison of all documents needs of each."""

from __future__ import annotations

import numpy as np
import pytest

from havoc_data.document import Document
from havoc_data.prepare.comparable import ARRAYS, LookedAt, arrays_of, empty_array

PARAGRAPH = "The variance of a sum of independent variables is the sum of their variances, whatever they are. " * 3


def looked_at(text="", *, origin="a", ordinal=0, messages=()):
    document = Document(origin, text, messages=messages, ordinal=ordinal)
    text = text or "\n".join(content for _, content in messages)
    return LookedAt(document, text, text.encode(), ())


def test_every_array_has_the_type_and_the_columns_that_are_promised():
    batch = [looked_at(PARAGRAPH + "\n\n" + PARAGRAPH[::-1]), looked_at("short", origin="b")]
    for near in (True, False):
        arrays = arrays_of(batch, source="math", near=near)
        assert arrays.keys() == ARRAYS.keys()
        for name, array in arrays.items():
            empty = empty_array(name)
            assert (array.dtype, array.shape[1:]) == (empty.dtype, empty.shape[1:]), name
            assert len(empty) == 0


@pytest.mark.parametrize("near", [True, False])
def test_documents_together_are_the_documents_one_by_one(near):
    """What a document is compared by must not depend on the batch that it came in."""
    batch = [looked_at(PARAGRAPH * (i + 1) + f"\n\n{i} " + "x y z " * 60 * i, origin=str(i)) for i in range(4)]
    together = arrays_of(batch, source="math", near=near)
    for name in ARRAYS:
        one_by_one = np.concatenate([arrays_of([each], source="math", near=near)[name] for each in batch])
        assert np.array_equal(together[name], one_by_one), name


def test_shingles_and_paragraphs_are_as_many_as_is_said():
    batch = [looked_at(PARAGRAPH + "\n\n" + PARAGRAPH.upper()), looked_at("short")]
    arrays = arrays_of(batch, source="math", near=True)
    assert arrays["num_paragraphs"].tolist() == [2, 0]
    assert arrays["paragraph_bytes"].tolist() == [len(PARAGRAPH.strip())] * 2
    assert len(arrays["paragraphs"]) == 2
    assert len(arrays["shingles"]) == arrays["num_shingles"].sum() == 18
    first = arrays["shingles"][: arrays["num_shingles"][0]]
    assert (np.diff(first.astype(np.int64)) >= 0).all(), "ascending"


def test_without_the_search_for_near_duplicates_there_are_no_shingles():
    arrays = arrays_of([looked_at(PARAGRAPH)], source="math", near=False)
    assert (arrays["num_shingles"].tolist(), len(arrays["shingles"])) == ([0], 0)
    assert arrays["num_paragraphs"].tolist() == [1]


def test_nothing_is_cut_out_of_a_dialog():
    talk = looked_at(messages=(("user", PARAGRAPH), ("assistant", PARAGRAPH)))
    arrays = arrays_of([talk], source="talk", near=True)
    assert arrays["num_paragraphs"].tolist() == [0]
    assert arrays["num_shingles"][0] == 17


def test_ids_tell_texts_and_places_apart():
    one = looked_at("x", origin="a")
    assert one.digest == looked_at("x", origin="b").digest != looked_at("y", origin="a").digest
    assert one.digest != looked_at(messages=(("user", "x"),)).digest
    places = {
        one.stable_id("math"),
        one.stable_id("stats"),
        looked_at("x", origin="b").stable_id("math"),
        looked_at("x", origin="a", ordinal=1).stable_id("math"),
        looked_at("x", origin="caf\udce9").stable_id("math"),
    }
    assert len(places) == 5
    assert {len(place) for place in places} == {16}
