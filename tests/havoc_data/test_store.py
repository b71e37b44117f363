"""The token store on disk: what goes in comes out, and every damage is found."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import DataError
from havoc_data.shard_writer import ShardWriter
from havoc_data.store import SourceRecord, TokenStore, open_store, replace_folder, write_manifest

DOCUMENTS = [[0, 300, 1], [0, 1], [0, 400, 401, 402, 1], [0, 500, 1]]
FACTS = {"dtype": "uint16", "ratios": {"domain": 1.0}, "dummy": False, "missing_groups": [], "inputs_key": "k"}


def write(folder, documents=DOCUMENTS, *, shard_bytes=10, dtype="uint16"):
    records = {}
    for part, place in (("a", folder / "a"), ("domain", folder / "validation" / "domain")):
        writer = ShardWriter(place, dtype=np.dtype(dtype), shard_bytes=shard_bytes)
        for number, ids in enumerate(documents):
            writer.add(np.array(ids, dtype=np.uint32), {"origin": f"{part}/{number}\u2028\x85é.txt", "ordinal": number})
        writer.seal()
        tokens = sum(len(ids) for ids in documents)
        records[part] = SourceRecord("domain", tokens, len(documents), 9, shards=writer.shards)
    write_manifest(
        folder, sources={"a": records["a"]}, validation={"domain": records["domain"]}, facts={**FACTS, "dtype": dtype}
    )
    return TokenStore(folder)


def test_documents_come_back_across_shards(tmp_path):
    source = write(tmp_path).training["a"]
    assert [shard["documents"] for shard in source.record.shards] == [2, 1, 1]  # 6 + 4, 10, and 6 bytes
    offsets = source.offsets()
    assert offsets.tolist() == [0, 3, 5, 10, 13]
    found = [source.tokens(int(a), int(b)).tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    assert found == DOCUMENTS


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 70_000), min_size=2, max_size=9), min_size=1, max_size=12),
    shard_bytes=st.integers(1, 100),
)
def test_any_documents_come_back_whatever_the_size_of_a_shard(tmp_path_factory, documents, shard_bytes):
    source = write(tmp_path_factory.mktemp("s"), documents, shard_bytes=shard_bytes, dtype="uint32").training["a"]
    offsets = source.offsets()
    found = [source.tokens(int(a), int(b)).tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    assert found == documents
    assert [line["ordinal"] for line in source.provenance()] == list(range(len(documents)))


def test_tokens_are_little_endian_without_header(tmp_path):
    write(tmp_path, shard_bytes=1000)
    raw = (tmp_path / "a" / "00000.tok").read_bytes()
    assert raw[:6] == bytes([0, 0, 300 % 256, 1, 1, 0])
    assert len(raw) == 2 * 13
    assert np.frombuffer((tmp_path / "a" / "00000.doc").read_bytes(), "<u8").tolist() == [0, 3, 5, 10, 13]


def test_provenance_comes_back_even_with_line_separators_in_a_name(tmp_path):
    """Regression: U+2028 or U+0085 in a file's name broke its line in two."""
    source = write(tmp_path).training["a"]
    assert [line["origin"] for line in source.provenance()] == [f"a/{n}\u2028\x85é.txt" for n in range(4)]


def test_the_id_is_the_sha_of_the_manifest_and_the_manifest_has_the_sha_of_every_file(tmp_path):
    store = write(tmp_path)
    raw = (tmp_path / "manifest.json").read_bytes()
    assert store.id == hashlib.sha256(raw).hexdigest()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "manifest.json"]
    named = {}
    for place, part in ((tmp_path, "sources"), (tmp_path / "validation", "validation")):
        for name, record in store.manifest[part].items():
            for shard in record["shards"]:
                for suffix, (size, digest) in shard["files"].items():
                    named[place / name / (shard["name"] + suffix)] = (size, digest)
    assert sorted(named) == sorted(files)
    for path, (size, digest) in named.items():
        assert (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) == (size, digest)


def test_equal_documents_give_equal_ids_wherever_they_are(tmp_path):
    assert write(tmp_path / "x").id == write(tmp_path / "y").id
    assert write(tmp_path / "z", [*DOCUMENTS, [0, 1]]).id != write(tmp_path / "x").id


@pytest.mark.parametrize(
    "name", ["a/00000.tok", "a/00001.tok", "a/00000.doc", "a/00001.prov.zst", "validation/domain/00000.tok"]
)
def test_one_flipped_bit_is_found_when_the_store_is_opened(tmp_path, name):
    store = write(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / name).write_bytes(content)
    for call in (store.verify, lambda: TokenStore(tmp_path)):
        with pytest.raises(DataError, match="its checksum is not the manifest's") as caught:
            call()
        assert caught.value.where == str(tmp_path / name)
        assert f"Delete {tmp_path} and build it again" in caught.value.remedy


def test_a_shard_that_is_cut_or_missing_is_found(tmp_path):
    write(tmp_path)
    path = tmp_path / "a" / "00001.tok"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="8 bytes, the manifest says 10"):
        TokenStore(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"00001\.tok: is missing\. Delete"):
        TokenStore(tmp_path)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no token store. Build it: havoc data build."):
        TokenStore(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON .* Build it again: havoc data build."):
        TokenStore(tmp_path)
    for content in ({"format": "another"}, {"format": "havoc-token-store", "version": 2}, [1], "x"):
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match="is no token store of this version. Build it again"):
            TokenStore(tmp_path)


def test_one_flipped_bit_anywhere_in_the_manifest_is_found_or_makes_it_another_store(tmp_path):
    """Regression: a damaged key ended in a KeyError, a manifest that is a list in an AttributeError."""
    store = write(tmp_path)
    good = (tmp_path / "manifest.json").read_bytes()
    for at in range(0, len(good), 7):
        damaged = bytearray(good)
        damaged[at] ^= 1 << (at % 7)
        (tmp_path / "manifest.json").write_bytes(damaged)
        try:
            assert TokenStore(tmp_path).id != store.id
        except DataError as error:
            assert error.remedy


def test_a_manifest_without_its_parts_is_refused(tmp_path):
    write(tmp_path)
    values = json.loads((tmp_path / "manifest.json").read_text())
    del values["sources"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"manifest\.json: is damaged \(.*\)\. Delete .* and build it again"):
        TokenStore(tmp_path)


def rewrite(folder, change):
    """Change the manifest."""
    values = json.loads((folder / "manifest.json").read_text())
    change(values)
    (folder / "manifest.json").write_text(json.dumps(values))


def rename_source(values, name):
    values["sources"][name] = values["sources"].pop("a")


def rename_group(values, name):
    values["validation"][name] = values["validation"].pop("domain")


def name_group(values, name):
    values["sources"]["a"]["group"] = name


def rename_shard(values, name):
    values["sources"]["a"]["shards"][0]["name"] = name


def rename_file(values, name):
    files = values["sources"]["a"]["shards"][0]["files"]
    files[name] = files.pop(".tok")


@pytest.mark.parametrize("change", [rename_source, rename_group, name_group, rename_shard, rename_file])
@pytest.mark.parametrize("name", ["../a", "b/../a", "/etc/a", "x/"])
def test_a_name_that_is_a_path_is_refused(tmp_path, change, name):
    """Regression: names of the manifest were joined unseen, and files outside the store were read."""
    write(tmp_path / "store")
    write(tmp_path)  # what "../a" leads to is a whole source
    rewrite(tmp_path / "store", lambda values: change(values, name))
    with pytest.raises(DataError, match="is not the plain name of a file") as caught:
        TokenStore(tmp_path / "store")
    assert caught.value.where == str(tmp_path / "store" / "manifest.json")
    assert f"delete {tmp_path / 'store'} and build it again" in caught.value.remedy


@pytest.mark.parametrize("name", ["..", ".", "", "a\0b"])
def test_a_source_called_like_no_file_is_refused(tmp_path, name):
    write(tmp_path)
    rewrite(tmp_path, lambda values: rename_source(values, name))
    with pytest.raises(DataError, match="is not the plain name of a file"):
        TokenStore(tmp_path)


@pytest.mark.parametrize(
    "name", ["a", "validation", "validation/domain", "a/00000.tok", "a/00001.doc", "validation/domain/00000.prov.zst"]
)
def test_a_link_is_refused_even_if_its_target_is_right(tmp_path, name):
    store = tmp_path / "store"
    write(store)
    (store / name).rename(tmp_path / "elsewhere")
    (store / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link, and a token store follows none") as caught:
        TokenStore(store)
    assert caught.value.where == str(store / name)
    assert "It does not come from havoc data build" in caught.value.remedy


def test_held_out_text_that_is_a_link_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "validation" / "domain.jsonl.zst").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(DataError, match=r"domain\.jsonl\.zst: is a link"):
        TokenStore(tmp_path)


def test_a_store_behind_a_link_is_opened(tmp_path):
    store = write(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert TokenStore(tmp_path / "link").id == store.id


def test_a_folder_is_replaced_whole(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "x").write_text("new")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "y").write_text("old")
    replace_folder(tmp_path / "new", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["x"]


def test_nothing_to_seal_writes_nothing(tmp_path):
    writer = ShardWriter(tmp_path / "a", dtype=np.dtype("uint16"))
    writer.seal()
    assert writer.shards == []
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("wanted", [[], [0], [3], [1, 2], [3, 0, 3], [0, 1, 2, 3]])
def test_where_some_documents_came_from_is_found_in_their_own_shards(tmp_path, wanted):
    source = write(tmp_path).training["a"]
    found = source.provenance_of(wanted)
    everything = list(source.provenance())
    assert found == {number: everything[number] for number in wanted}


def test_a_shard_in_which_nothing_is_wanted_is_not_read(tmp_path):
    source = write(tmp_path).training["a"]
    (tmp_path / "a" / "00001.prov.zst").unlink()
    assert sorted(source.provenance_of([0, 1, 3])) == [0, 1, 3]
    with pytest.raises(FileNotFoundError):
        source.provenance_of([2])


def test_boundaries_of_a_shard_are_counted_in_the_source(tmp_path):
    source = write(tmp_path).training["a"]
    assert [source.offsets_of_shard(number).tolist() for number in range(source.num_shards)] == [
        [0, 3, 5],
        [5, 10],
        [10, 13],
    ]
    assert source.offsets().tolist() == [0, 3, 5, 10, 13]


def test_equal_checksums_are_of_equal_rows(tmp_path):
    one, same, other = write(tmp_path / "x"), write(tmp_path / "y"), write(tmp_path / "z", DOCUMENTS[::-1])
    assert one.training["a"].checksums() == same.training["a"].checksums() != other.training["a"].checksums()
    assert len(one.training["a"].checksums()) == 2 * 3
    # Where a text came from changes no row.
    assert one.training["a"].checksums() == one.validation["domain"].checksums()


def test_what_lies_here_is_not_fetched_ahead(tmp_path):
    source = write(tmp_path).training["a"]
    source.read_ahead([(0, 3), (5, 10), (10, 13)])
    assert source.tokens(5, 10).tolist() == DOCUMENTS[2]
    assert not write(tmp_path).is_far


def test_a_store_in_a_folder_is_opened_where_it_lies(tmp_path):
    store = write(tmp_path / "store")
    assert open_store(str(tmp_path / "store"), copies=tmp_path / "copies").id == store.id
    assert not (tmp_path / "copies").exists()
    with pytest.raises(DataError, match=r"nowhere: holds no token store\. Build it: havoc data build\."):
        open_store(str(tmp_path / "nowhere"), copies=tmp_path / "copies")


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 60_000), min_size=2, max_size=9), min_size=1, max_size=12),
    parts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    shard_bytes=st.integers(1, 80),
)
def test_shards_of_several_writers_join_to_those_of_one(tmp_path_factory, documents, parts, shard_bytes):
    """Whoever tokenized which part, the store is the same: its tokens, its boundaries, its provenance."""
    folder = tmp_path_factory.mktemp("s")
    joined = ShardWriter(folder / "joined", dtype=np.dtype("uint16"), shard_bytes=10**6)
    at = 0
    for number, size in enumerate([*parts, len(documents)]):
        writer = ShardWriter(folder / f"part{number}", dtype=np.dtype("uint16"), shard_bytes=shard_bytes)
        for ids in documents[at : at + size]:
            writer.add(np.array(ids), {"ordinal": documents.index(ids)})
        at += size
        writer.seal()
        joined.append(folder / f"part{number}", writer.shards)
    joined.seal()
    (shard,) = joined.shards
    tokens = np.fromfile(folder / "joined" / "00000.tok", "<u2")
    offsets = np.fromfile(folder / "joined" / "00000.doc", "<u8").tolist()
    assert [tokens[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)] == documents
    assert (shard["tokens"], shard["documents"]) == (sum(map(len, documents)), len(documents))
    for suffix, (size, digest) in shard["files"].items():
        content = (folder / "joined" / f"00000{suffix}").read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest)


def test_any_flipped_bit_of_a_manifest_is_refused(tmp_path):
    """Regression: another share of the mixture was read from a damaged manifest, and trained on."""
    write(tmp_path)
    whole = (tmp_path / "manifest.json").read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 7)
        (tmp_path / "manifest.json").write_bytes(damaged)
        try:
            store = TokenStore(tmp_path)
        except DataError:
            continue
        # White space between the values says nothing: the store is the one that was written.
        assert json.loads(bytes(damaged)) == json.loads(whole), (place, store.id)


def test_a_held_out_text_that_was_changed_is_refused_with_its_name(tmp_path):
    """Regression: nobody compared it with anything."""
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "domain.jsonl.zst").write_bytes(b"packed text")
    write(tmp_path)
    (tmp_path / "validation" / "domain.jsonl.zst").write_bytes(b"packed tExt")
    with pytest.raises(DataError, match=r"domain\.jsonl\.zst: its checksum is not the manifest's"):
        TokenStore(tmp_path)


def test_a_manifest_whose_checksum_is_wrong_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"domain": 1.0', '"domain": 0.5'), encoding="utf-8")
    with pytest.raises(DataError, match="its checksum is not that of what it says") as caught:
        TokenStore(tmp_path)
    assert "build it again: havoc data build." in caught.value.remedy
