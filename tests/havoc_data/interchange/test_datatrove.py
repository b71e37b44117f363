"""datatrove's .ds, .ds.index and .ds.metadata, against the layout that its tokenizer writes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import DataError
from havoc_data.interchange.datatrove import Options, build


def write_set(folder, ids=(5, 6, 1, 7, 1), ends=(3, 5), metadata="gpt2|2\n5\n5 T", letter="H"):
    """A set of two documents, (5 6 1) and (7 1), with some part of it changed."""
    (folder / "a.ds").write_bytes(struct.pack(f"<{len(ids)}{letter}", *ids))
    (folder / "a.ds.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    if metadata is not None:
        (folder / "a.ds.metadata").write_text(metadata)
    return folder / "a.ds"


def read(path, vocabulary, token_size="auto"):
    return [found.ids.tolist() for found in build(Options(token_size=token_size)).read(path, vocabulary())]


def test_what_is_written_is_the_published_layout(tmp_path, documents, outgoing, vocabulary):
    build(Options()).write(outgoing(documents), tmp_path / "web.ds", vocabulary())
    tokens = [token for ids in documents for token in ids]
    assert (tmp_path / "web.ds").read_bytes() == struct.pack("<13H", *tokens)
    assert (tmp_path / "web.ds.index").read_bytes() == struct.pack("<4Q", 3, 5, 11, 13)
    assert (tmp_path / "web.ds.metadata").read_text() == "tokenizer/tokenizer.json|2\n13\n13 T"


@pytest.mark.parametrize(("size", "width"), [(65_536, 2), (65_537, 4)])
def test_tokens_are_as_wide_as_datatrove_itself_would_write_them(tmp_path, outgoing, vocabulary, size, width):
    build(Options()).write(outgoing([[size - 1, 1]]), tmp_path / "a.ds", vocabulary(size))
    assert (tmp_path / "a.ds").stat().st_size == 2 * width
    assert (tmp_path / "a.ds.metadata").read_text().startswith(f"tokenizer/tokenizer.json|{width}\n2\n")
    assert read(tmp_path / "a.ds", vocabulary) == [[size - 1, 1]], "the metadata say how wide, whatever the vocabulary"


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999 T"), (1000, "1.00 kT"), (1_234_567, "1.23 MT"), (5 * 10**9, "5.00 GT")]
)
def test_the_number_for_people_is_short(tmp_path, vocabulary, count, shown):
    from havoc_data.interchange.datatrove import _for_people

    assert _for_people(count) == shown


@pytest.mark.parametrize(
    "metadata", ["gpt2|2\n5\n5 T", "gpt2\n5\n5 T", "Unknown Tokenizer|2|2\n5\n5 T", "a|b|2\n5", None]
)
def test_what_any_version_of_datatrove_writes_is_read(tmp_path, vocabulary, listed, metadata):
    path = write_set(tmp_path, metadata=metadata)
    assert listed(build(Options()), path, vocabulary()) == [[5, 6, 1], [7, 1]]


def test_four_bytes_a_token_are_read_by_metadata_by_vocabulary_and_by_option(tmp_path, vocabulary):
    path = write_set(tmp_path, (5, 70_000, 1, 7, 1), letter="I", metadata="llama|4\n5\n5 T")
    assert read(path, vocabulary) == [[5, 70_000, 1], [7, 1]]
    (tmp_path / "a.ds.metadata").unlink()
    assert read(path, vocabulary, token_size=4) == [[5, 70_000, 1], [7, 1]]
    large = build(Options()).read(path, vocabulary(70_001))
    assert [found.ids.tolist() for found in large] == [[5, 70_000, 1], [7, 1]]


@settings(max_examples=30, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 69_999), min_size=1, max_size=9), min_size=1, max_size=9),
    token_size=st.sampled_from(["auto", 4]),
)
def test_documents_come_back(tmp_path_factory, outgoing, vocabulary, listed, documents, token_size):
    path = tmp_path_factory.mktemp("d") / "web.ds"
    interchange = build(Options(token_size=token_size))
    interchange.write(outgoing(documents), path, vocabulary(70_000))
    assert listed(interchange, path, vocabulary(70_000)) == documents


def test_more_documents_than_are_looked_at_at_once(tmp_path, vocabulary):
    """2^16 entries are one piece; a fall at its border is found as well."""
    count = 2**16 + 2
    (tmp_path / "a.ds").write_bytes(np.zeros(count, dtype="<u2").tobytes())
    ends = np.arange(1, count + 1, dtype="<u8")
    (tmp_path / "a.ds.index").write_bytes(ends.tobytes())
    assert sum(len(found.ids) for found in build(Options()).read(tmp_path / "a.ds", vocabulary())) == count
    ends[2**16] = 5
    (tmp_path / "a.ds.index").write_bytes(ends.tobytes())
    with pytest.raises(DataError, match="document 65,536 ends at token 5, before the one in front of it"):
        read(tmp_path / "a.ds", vocabulary)


@pytest.mark.parametrize(
    ("changes", "file", "message"),
    [
        ({"ends": (3, 4)}, "a.ds.index", "its last document ends at token 4, and the file has 5 of 2 bytes"),
        ({"ends": (3, 6)}, "a.ds.index", "its last document ends at token 6"),
        ({"ends": (3,)}, "a.ds.index", "its last document ends at token 3"),
        ({"ends": (4, 3, 5)}, "a.ds.index", "document 1 ends at token 3, before the one in front of it"),
        ({"ends": (2**63, 5)}, "a.ds.index", "document 1 ends at token 5, before"),
        ({"ends": ()}, "a.ds.index", "0 bytes are no list of numbers of 8 bytes"),
        ({"metadata": "gpt2|2\n6\n6 T"}, "a.ds", r"5 tokens of 2 bytes, .metadata says 6"),
        ({"metadata": "gpt2|3\n5\n5 T"}, "a.ds.metadata", "names no size of a token and no number of tokens"),
        ({"metadata": "gpt2|2\nmany"}, "a.ds.metadata", "names no size of a token and no number of tokens"),
        ({"metadata": "gpt2|2"}, "a.ds.metadata", "names no size of a token and no number of tokens"),
        ({"metadata": ""}, "a.ds.metadata", "names no size of a token and no number of tokens"),
        ({"metadata": "gpt2|4\n5"}, "a.ds", "10 bytes are no whole number of tokens of 4 bytes"),
        ({"ids": ()}, "a.ds", "holds no tokens"),
    ],
)
def test_a_damaged_set_is_named_with_what_is_wrong(tmp_path, vocabulary, changes, file, message):
    path = write_set(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read(path, vocabulary)
    assert caught.value.where == str(tmp_path / file)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["a.ds", "a.ds.index"])
def test_a_file_that_breaks_off_anywhere_is_refused(tmp_path, vocabulary, name):
    path = write_set(tmp_path, metadata=None)
    whole = (tmp_path / name).read_bytes()
    for size in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(
            DataError, match="holds no tokens|are no whole number|are no list of numbers|its last document"
        ):
            read(path, vocabulary)


def test_tokens_without_an_index_are_refused(tmp_path, vocabulary):
    path = write_set(tmp_path)
    (tmp_path / "a.ds.index").unlink()
    with pytest.raises(DataError, match="is missing; a.ds means nothing without it") as caught:
        read(path, vocabulary)
    assert caught.value.where == str(tmp_path / "a.ds.index")


def test_a_mask_of_tokens_that_are_not_learnt_is_not_passed_over(tmp_path, vocabulary):
    path = write_set(tmp_path)
    (tmp_path / "a.ds.loss").write_bytes(bytes(5))
    with pytest.raises(
        DataError, match="says which tokens are not learnt, and a token store cannot hold that"
    ) as caught:
        read(path, vocabulary)
    assert caught.value.where == str(tmp_path / "a.ds.loss")
    assert caught.value.remedy == "Move it elsewhere to learn all of them."


def test_a_document_without_tokens_is_given_as_it_is(tmp_path, vocabulary):
    path = write_set(tmp_path, ends=(0, 3, 3, 5))
    assert read(path, vocabulary) == [[], [5, 6, 1], [], [7, 1]]
