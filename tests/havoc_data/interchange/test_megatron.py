"""Megatron's .bin and .idx, against the layout that NVIDIA publishes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import DataError
from havoc_data.interchange.megatron import Options, build
from havoc_data.token_format import WrittenDocument

CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "uint16": 8}


def index(lengths, documents, **changes):
    """An .idx, put together from the published layout; with some part of it changed."""
    parts = {"magic": b"MMIDIDX\x00\x00", "version": 1, "code": 8, "width": 2, **changes}
    pointers = parts.get("pointers", [parts["width"] * sum(lengths[:i]) for i in range(len(lengths))])
    return (
        parts["magic"]
        + struct.pack("<Q", parts["version"])
        + struct.pack("<B", parts["code"])
        + struct.pack("<Q", len(lengths))
        + struct.pack("<Q", len(documents))
        + struct.pack(f"<{len(lengths)}i", *lengths)
        + struct.pack(f"<{len(pointers)}q", *pointers)
        + struct.pack(f"<{len(documents)}q", *documents)
    )


def write_pair(folder, ids=(5, 6, 1, 7, 1), **changes):
    """A pair of two documents, (5 6 1) and (7 1), with some part of it changed."""
    (folder / "a.bin").write_bytes(struct.pack(f"<{len(ids)}H", *ids))
    (folder / "a.idx").write_bytes(index(**{"lengths": [3, 2], "documents": [0, 1, 2], **changes}))
    return folder / "a.bin"


def read(path, vocabulary):
    return [found.ids.tolist() for found in build(Options()).read(path, vocabulary())]


def test_what_is_written_is_the_published_layout(tmp_path, documents, outgoing, vocabulary):
    build(Options()).write(outgoing(documents), tmp_path / "web.bin", vocabulary())
    raw = (tmp_path / "web.idx").read_bytes()
    assert raw[:9] == b"MMIDIDX\x00\x00"
    assert struct.unpack_from("<QBQQ", raw, 9) == (1, 8, 4, 5)  # version, uint16, sequences, documents + 1
    assert struct.unpack_from("<4i", raw, 34) == (3, 2, 6, 2)
    assert struct.unpack_from("<4q", raw, 50) == (0, 6, 10, 22)
    assert struct.unpack_from("<5q", raw, 82) == (0, 1, 2, 3, 4)
    assert len(raw) == 122
    tokens = np.frombuffer((tmp_path / "web.bin").read_bytes(), dtype="<u2")
    assert tokens.tolist() == [token for ids in documents for token in ids]


def test_what_megatron_writes_is_read_and_sentences_are_joined(tmp_path, vocabulary, listed):
    path = write_pair(tmp_path, [5, 6, 7, 1, 8, 1], lengths=[2, 1, 1, 2], documents=[0, 3, 4])
    assert listed(build(Options()), path, vocabulary()) == [[5, 6, 7, 1], [8, 1]]


@pytest.mark.parametrize("name", CODES)
def test_every_dtype_of_whole_numbers_is_read(tmp_path, vocabulary, name):
    ids = np.array([5, 6, 1, 7, 1], dtype=name)
    (tmp_path / "a.bin").write_bytes(ids.tobytes())
    (tmp_path / "a.idx").write_bytes(index([3, 2], [0, 1, 2], code=CODES[name], width=ids.itemsize))
    assert read(tmp_path / "a.bin", vocabulary) == [[5, 6, 1], [7, 1]]


@settings(max_examples=30, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 65_499), min_size=1, max_size=9), min_size=1, max_size=9),
    dtype=st.sampled_from(["auto", "uint16", "int32", "int64"]),
)
def test_documents_come_back(tmp_path_factory, outgoing, vocabulary, listed, documents, dtype):
    path = tmp_path_factory.mktemp("m") / "web.bin"
    interchange = build(Options(dtype=dtype))
    interchange.write(outgoing(documents), path, vocabulary(65_500))
    assert listed(interchange, path, vocabulary(65_500)) == documents


@pytest.mark.parametrize(("size", "code", "width"), [(65_499, 8, 2), (65_500, 4, 4), (70_000, 4, 4)])
def test_tokens_are_as_wide_as_megatron_itself_would_write_them(tmp_path, outgoing, vocabulary, size, code, width):
    build(Options()).write(outgoing([[size - 1, 1]]), tmp_path / "a.bin", vocabulary(size))
    assert (tmp_path / "a.idx").read_bytes()[17] == code
    assert (tmp_path / "a.bin").stat().st_size == 2 * width
    assert read(tmp_path / "a.bin", vocabulary) == [[size - 1, 1]]


def test_a_dtype_too_narrow_for_the_vocabulary_is_refused(tmp_path, outgoing, vocabulary):
    with pytest.raises(DataError, match="uint16 holds ids up to 65,535, and the vocabulary has 70,000") as caught:
        build(Options(dtype="uint16")).write(outgoing([[5]]), tmp_path / "a.bin", vocabulary(70_000))
    assert caught.value.where == "format_options.dtype"
    assert caught.value.remedy == "Leave it at auto, or choose a wider one."


def test_more_documents_than_are_looked_at_at_once(tmp_path, vocabulary):
    """2^16 entries are one piece: here are 2^16 + 3, every document one token long but for one across the border."""
    count = 2**16 + 3
    ids = (np.arange(count + 1) % 500).astype(np.uint16)
    bounds = [*range(2**16), *range(2**16 + 1, count + 2)]
    given = (WrittenDocument(ids[a:b], {}) for a, b in zip(bounds, bounds[1:], strict=False))
    build(Options()).write(given, tmp_path / "a.bin", vocabulary())
    found = list(build(Options()).read(tmp_path / "a.bin", vocabulary()))
    assert [one.start for one in found] == [2 * begin for begin in bounds[:-1]]
    assert found[2**16 - 1].ids.tolist() == ids[2**16 - 1 : 2**16 + 1].tolist()
    assert found[-1].end == 2 * (count + 1)


def test_a_document_that_is_longer_than_megatron_can_count_is_refused(tmp_path, vocabulary):
    ids = np.broadcast_to(np.uint16(5), 2**31)  # takes no memory
    with pytest.raises(
        DataError, match="a document of 2,147,483,648 tokens is longer than the 2,147,483,647"
    ) as caught:
        build(Options()).write([WrittenDocument(ids, {})], tmp_path / "a.bin", vocabulary())
    assert caught.value.where == str(tmp_path / "a.bin")
    assert caught.value.remedy == "Cut it, or choose another format."


@pytest.mark.parametrize(
    ("changes", "file", "message"),
    [
        ({"magic": b"TNTIDX\x00\x00\x00"}, "a.idx", r"is no index of Megatron: it begins with b'TNTIDX"),
        ({"version": 2}, "a.idx", "is of version 2; version 1 is known"),
        ({"code": 7}, "a.idx", "names 7 as the dtype of its tokens, which is none of 1 uint8"),
        ({"code": 0}, "a.idx", "names 0 as the dtype"),
        ({"pointers": [0, 4]}, "a.idx", "sequence 1 begins at byte 4, and the one before it ends at 6"),
        ({"pointers": [6, 0]}, "a.idx", "sequence 0 begins at byte 6, and the one before it ends at 0"),
        ({"pointers": [0, 1000]}, "a.idx", "sequence 1 begins at byte 1,000"),
        ({"lengths": [5, -2], "pointers": [0, 6]}, "a.idx", "sequence 1 is -2 tokens long"),
        ({"lengths": [3, 3]}, "a.bin", "10 bytes, its index says 12"),
        ({"lengths": [3, 1]}, "a.bin", "10 bytes, its index says 8"),
        ({"code": 4, "width": 4}, "a.bin", "10 bytes, its index says 20"),
        ({"documents": [0, 2, 1, 2]}, "a.idx", "its documents do not ascend from sequence 0 to 2, the last one"),
        ({"documents": [1, 2]}, "a.idx", "its documents do not ascend"),
        ({"documents": [0, 1]}, "a.idx", "its documents do not ascend"),
        ({"documents": []}, "a.idx", "its documents do not ascend"),
    ],
)
def test_a_damaged_index_is_named_with_what_is_wrong(tmp_path, vocabulary, changes, file, message):
    path = write_pair(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read(path, vocabulary)
    assert caught.value.where == str(tmp_path / file)
    assert caught.value.remedy


def test_an_index_that_breaks_off_anywhere_is_refused(tmp_path, vocabulary):
    path = write_pair(tmp_path)
    whole = (tmp_path / "a.idx").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "a.idx").write_bytes(whole[:size])
        with pytest.raises(DataError, match="is no index|inside its header|its header counts entries for 82") as caught:
            read(path, vocabulary)
        assert caught.value.where == str(tmp_path / "a.idx")
    (tmp_path / "a.idx").write_bytes(whole[:20])
    with pytest.raises(DataError, match="ends after 20 bytes, inside its header. It broke off or was changed"):
        read(path, vocabulary)


def test_any_flipped_bit_of_an_index_is_an_answer_of_ours(tmp_path, vocabulary):
    path = write_pair(tmp_path)
    whole = (tmp_path / "a.idx").read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.idx").write_bytes(damaged)
        try:
            found = [token for ids in read(path, vocabulary) for token in ids]
        except DataError:
            continue
        assert found == [5, 6, 1, 7, 1], "of two documents one may be made, and nothing else"


def test_a_dataset_of_images_and_text_is_refused_with_its_reason(tmp_path, vocabulary):
    path = write_pair(tmp_path)
    with (tmp_path / "a.idx").open("ab") as file:
        file.write(bytes(2))  # a mode for each sequence
    with pytest.raises(DataError, match="84 bytes; its header counts entries for 82. It may hold the modes of images"):
        read(path, vocabulary)


def test_tokens_without_an_index_are_refused(tmp_path, vocabulary):
    path = write_pair(tmp_path)
    (tmp_path / "a.idx").unlink()
    with pytest.raises(DataError, match="is missing; a.bin means nothing without it") as caught:
        read(path, vocabulary)
    assert caught.value.where == str(tmp_path / "a.idx")
    assert caught.value.remedy == "Copy both into one folder."


def test_a_pair_without_any_document_is_refused(tmp_path, vocabulary):
    path = write_pair(tmp_path, (), lengths=[], documents=[0])
    with pytest.raises(DataError, match=r"a\.bin: holds no tokens"):
        read(path, vocabulary)


def test_a_document_without_tokens_is_given_as_it_is(tmp_path, vocabulary):
    path = write_pair(tmp_path, lengths=[3, 0, 2], documents=[0, 1, 2, 2, 3])
    assert read(path, vocabulary) == [[5, 6, 1], [], [], [7, 1]]
