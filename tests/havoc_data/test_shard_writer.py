"""Shards: whoever wrote which part, the bytes are the same."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.shard_writer import SUFFIXES, ShardWriter

DOCUMENTS = st.lists(st.lists(st.integers(0, 65_535), min_size=1, max_size=9), max_size=10)


def provenance(number):
    return {"origin": f"{number}\u2028é.txt", "ordinal": number}


def write(folder, documents, *, shard_bytes=20, first=0):
    writer = ShardWriter(folder, dtype=np.dtype("<u2"), shard_bytes=shard_bytes)
    for number, ids in enumerate(documents, start=first):
        writer.add(np.array(ids, dtype=np.uint32), provenance(number))
    writer.seal()
    return writer.shards


def lines(folder, shards):
    out = []
    for shard in shards:
        raw = (folder / f"{shard['name']}.prov.zst").read_bytes()
        stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw), read_across_frames=True)
        out += [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n")]
    return out


def tokens(folder, shards):
    out = []
    for shard in shards:
        ids = np.fromfile(folder / f"{shard['name']}.tok", dtype="<u2")
        ends = np.fromfile(folder / f"{shard['name']}.doc", dtype="<u8")
        assert (int(ends[0]), int(ends[-1])) == (0, len(ids)) == (0, shard["tokens"])
        out += [ids[int(a) : int(b)].tolist() for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return out


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(DOCUMENTS, min_size=1, max_size=4), inner=st.integers(1, 60), outer=st.integers(1, 60))
def test_shards_that_are_put_together_hold_all_documents_in_their_order(tmp_path_factory, parts, inner, outer):
    folder = tmp_path_factory.mktemp("shards")
    whole = ShardWriter(folder / "whole", dtype=np.dtype("<u2"), shard_bytes=outer)
    first = 0
    for number, documents in enumerate(parts):
        shards = write(folder / str(number), documents, shard_bytes=inner, first=first)
        whole.append(folder / str(number), shards)
        first += len(documents)
    whole.seal()
    every = [ids for documents in parts for ids in documents]
    assert tokens(folder / "whole", whole.shards) == every
    assert lines(folder / "whole", whole.shards) == [provenance(number) for number in range(len(every))]
    assert sum(shard["documents"] for shard in whole.shards) == len(every)


@settings(max_examples=20, deadline=None)
@given(documents=DOCUMENTS, cut=st.integers(0, 10))
def test_documents_may_be_added_before_and_after_a_shard_is_appended(tmp_path_factory, documents, cut):
    folder = tmp_path_factory.mktemp("shards")
    shards = write(folder / "part", documents[cut:], first=cut)
    whole = ShardWriter(folder / "whole", dtype=np.dtype("<u2"))
    for number, ids in enumerate(documents[:cut]):
        whole.add(np.array(ids), provenance(number))
    whole.append(folder / "part", shards)
    whole.add(np.array([7]), provenance(len(documents)))
    whole.seal()
    assert tokens(folder / "whole", whole.shards) == [*documents, [7]]
    assert lines(folder / "whole", whole.shards) == [provenance(number) for number in range(len(documents) + 1)]


def test_sizes_and_checksums_are_those_of_the_files(tmp_path):
    shards = write(tmp_path, [[1, 2, 3], [4] * 20, [5]])
    assert [shard["documents"] for shard in shards] == [2, 1]
    for shard in shards:
        assert shard["files"].keys() == set(SUFFIXES)
        for suffix, (size, digest) in shard["files"].items():
            raw = (tmp_path / (shard["name"] + suffix)).read_bytes()
            assert (size, digest) == (len(raw), hashlib.sha256(raw).hexdigest())


def test_without_documents_there_is_no_file(tmp_path):
    assert write(tmp_path / "none", []) == []
    assert list((tmp_path / "none").iterdir()) == []


def test_a_writer_that_was_sealed_begins_another_shard(tmp_path):
    writer = ShardWriter(tmp_path, dtype=np.dtype("<u2"))
    for number in range(2):
        writer.add(np.array([number]), provenance(number))
        writer.seal()
        writer.seal()
    assert [shard["name"] for shard in writer.shards] == ["00000", "00001"]
    assert tokens(tmp_path, writer.shards) == [[0], [1]]
