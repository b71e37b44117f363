"""OLMo's .npy and .csv.gz, against the layout that the Dolma toolkit writes."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import DataError
from havoc_data.interchange.olmo import Options, build
from havoc_data.token_format import WrittenDocument


def write_set(folder, ids=(5, 6, 1, 7, 1), lines="0,3,x,a.gz,1\r\n3,5,y,a.gz,2\r\n"):
    """Two documents, (5 6 1) and (7 1), as Dolma writes them; or without boundaries."""
    (folder / "a.npy").write_bytes(struct.pack(f"<{len(ids)}H", *ids))
    if lines is not None:
        (folder / "a.csv.gz").write_bytes(gzip.compress(lines.encode()))
    return folder / "a.npy"


def read(path, vocabulary, **options):
    return [found.ids.tolist() for found in build(Options(**options)).read(path, vocabulary())]


def test_what_is_written_is_the_published_layout(tmp_path, documents, outgoing, vocabulary):
    build(Options()).write(outgoing(documents), tmp_path / "web.npy", vocabulary())
    tokens = [token for ids in documents for token in ids]
    assert (tmp_path / "web.npy").read_bytes() == struct.pack("<13H", *tokens)
    lines = gzip.decompress((tmp_path / "web.csv.gz").read_bytes()).decode().splitlines()
    # OLMo cuts at line ends and commas and takes the first two: a comma or a line end in a name must not disturb it.
    assert [[int(part) for part in line.split(",")[:2]] for line in lines] == [[0, 3], [3, 5], [5, 11], [11, 13]]
    assert lines[1] == f'3,5,{1:032x},"1, with a comma.txt",3'


def test_equal_documents_make_equal_files(tmp_path, documents, outgoing, vocabulary):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build(Options()).write(outgoing(documents), tmp_path / name / "a.npy", vocabulary())
    for file in ("a.npy", "a.csv.gz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_olmo_finds_the_documents_without_boundaries_too(tmp_path, documents, outgoing, vocabulary, listed):
    """OLMo-core looks for the end-of-text token if the file is on its own disk."""
    path = tmp_path / "web.npy"
    build(Options()).write(outgoing(documents), path, vocabulary())
    (tmp_path / "web.csv.gz").unlink()
    assert listed(build(Options()), path, vocabulary()) == documents


def test_what_dolma_writes_is_read(tmp_path, vocabulary, listed):
    path = write_set(tmp_path)
    assert listed(build(Options()), path, vocabulary()) == [[5, 6, 1], [7, 1]]
    moved = write_set(tmp_path, lines="0,2\n2,5\n")  # boundaries win; OLMo-core itself writes two columns
    assert listed(build(Options()), moved, vocabulary()) == [[5, 6], [1, 7, 1]]


@settings(max_examples=30, deadline=None)
@given(documents=st.lists(st.lists(st.integers(2, 69_999), max_size=9), min_size=1, max_size=9))
@pytest.mark.parametrize("with_boundaries", [True, False])
def test_documents_come_back(tmp_path_factory, outgoing, vocabulary, listed, documents, with_boundaries):
    path, ended = tmp_path_factory.mktemp("o") / "web.npy", [[*ids, 1] for ids in documents]
    build(Options()).write(outgoing(ended), path, vocabulary(70_000))
    if not with_boundaries:
        path.with_suffix(".csv.gz").unlink()
    assert listed(build(Options()), path, vocabulary(70_000)) == ended


@pytest.mark.parametrize(
    ("size", "dtype", "width"),
    [(65_536, "auto", 2), (65_537, "auto", 4), (600, "uint32", 4), (600, "uint64", 8), (256, "uint8", 1)],
)
def test_tokens_have_the_width_of_the_vocabulary_or_the_one_that_was_chosen(tmp_path, vocabulary, size, dtype, width):
    interchange, path = build(Options(dtype=dtype)), tmp_path / "a.npy"
    interchange.write([WrittenDocument(np.array([size - 1, 1]), {})], path, vocabulary(size))
    assert path.stat().st_size == 2 * width
    assert [found.ids.tolist() for found in interchange.read(path, vocabulary(size))] == [[size - 1, 1]]


def test_documents_are_found_across_the_pieces_that_are_looked_at(tmp_path, vocabulary):
    """2^16 tokens are one piece: one document ends on its border, the next one goes over a second."""
    ids = np.full(3 * 2**16, 9, dtype="<u2")
    ends = [5, 2**16, 2**17 + 7, len(ids)]
    ids[np.array(ends) - 1] = 1
    (tmp_path / "a.npy").write_bytes(ids.tobytes())
    assert [found.end // 2 for found in build(Options()).read(tmp_path / "a.npy", vocabulary())] == ends


def test_an_array_of_numpys_own_format_is_refused_with_the_reason(tmp_path, vocabulary):
    np.save(tmp_path / "a.npy", np.array([5, 6, 1], dtype=np.uint16))
    with pytest.raises(
        DataError, match="has the header of numpy's own .npy format, which OLMo would read as"
    ) as caught:
        read(tmp_path / "a.npy", vocabulary)
    assert caught.value.where == str(tmp_path / "a.npy")
    assert caught.value.remedy == "Write its numbers without one: numpy.load(...).tofile(...)."


@pytest.mark.parametrize("document", [[5, 1, 6, 1], [5, 6], [1, 5, 1]])
def test_what_olmo_would_cut_elsewhere_is_not_written(tmp_path, outgoing, vocabulary, document):
    with pytest.raises(DataError, match="has the end-of-text token at .* places or not at its end") as caught:
        build(Options()).write(outgoing([[7, 1], document]), tmp_path / "a.npy", vocabulary())
    assert caught.value.where == str(tmp_path / "a.npy")
    assert "leave --bos out" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        ({"lines": None, "ids": (5, 6, 1, 7)}, "a.npy", r"1 tokens stand after the last end-of-text token \(id 1\)"),
        ({"lines": None, "ids": (5, 6)}, "a.npy", "2 tokens stand after the last end-of-text token"),
        ({"ids": ()}, "a.npy", "holds no tokens"),
        ({"lines": "0,3\n"}, "a.csv.gz", "its documents end at token 3, the file at 5"),
        ({"lines": ""}, "a.csv.gz", "its documents end at token 0, the file at 5"),
        (
            {"lines": "0,3\n3,6\n"},
            "a.csv.gz:2",
            "a document from token 3 to 6; the one before it ends at 3, the file at 5",
        ),
        ({"lines": "0,3\n4,5\n"}, "a.csv.gz:2", "a document from token 4 to 5; the one before it ends at 3"),
        ({"lines": "0,3\n2,5\n"}, "a.csv.gz:2", "a document from token 2 to 5; the one before it ends at 3"),
        ({"lines": "0,-3\n"}, "a.csv.gz:1", "a document from token 0 to -3"),
        ({"lines": "0,3\nthree,5\n"}, "a.csv.gz:2", "is no line of first token, last token, id, source, place"),
        ({"lines": "0\n"}, "a.csv.gz:1", "is no line of first token"),
        ({"lines": "\n"}, "a.csv.gz:1", "is no line of first token"),
    ],
)
def test_a_damaged_set_is_named_with_what_is_wrong(tmp_path, vocabulary, changes, where, message):
    path = write_set(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read(path, vocabulary)
    assert caught.value.where == str(tmp_path / where)
    assert caught.value.remedy


def test_half_a_token_is_refused(tmp_path, vocabulary):
    path = write_set(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="9 bytes are no whole number of tokens of 2 bytes"):
        read(path, vocabulary)


def test_boundaries_that_cannot_be_read_are_refused(tmp_path, vocabulary):
    path = write_set(tmp_path)
    packed = (tmp_path / "a.csv.gz").read_bytes()
    for damaged in (
        packed[:-12],
        b"0,3\n3,5\n",
        packed[:12] + b"\xff" * 9 + packed[21:],
        gzip.compress(b"\xff,3\n"),
        gzip.compress(b"0," + bytes(2**18)),
    ):
        (tmp_path / "a.csv.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read after line") as caught:
            read(path, vocabulary)
        assert caught.value.where == str(tmp_path / "a.csv.gz")
