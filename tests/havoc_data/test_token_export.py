"""A store goes out whole, with its tokenizer, or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from havoc_core.errors import DataError
from havoc_core.tokenizer import Tokenizer
from havoc_data.prepare.train_tokenizer import train_bpe
from havoc_data.shard_writer import ShardWriter
from havoc_data.store import SourceRecord, TokenStore, checksum_of_manifest, write_manifest
from havoc_data.token_export import export_store
from havoc_data.token_format import TOKEN_FORMATS

TEXTS = {"web": ["one two three", "four", "σ² ≥ 0"], "math": ["x = 1"], "general": ["held out", "this too"]}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train_bpe(iter(["one two three four five"]), vocab_size=520))


@pytest.fixture
def store(tmp_path, tokenizer):
    """Two sources of several shards and a held-out group; every document is BOS text EOS."""
    records = {}
    for name, texts in TEXTS.items():
        place = tmp_path / "store" / ("validation/general" if name == "general" else name)
        writer = ShardWriter(place, dtype=np.dtype("uint16"), shard_bytes=20)
        for number, ids in enumerate(stored(tokenizer, name)):
            writer.add(np.array(ids), {"id": f"{number:032x}", "source": name, "origin": "a.txt", "ordinal": number})
        writer.seal()
        tokens = sum(len(ids) for ids in stored(tokenizer, name))
        records[name] = SourceRecord("general", tokens, len(texts), 9, shards=writer.shards)
    facts = {"dtype": "uint16", "ratios": {"general": 1.0}, "dummy": False, "missing_groups": [], "inputs_key": "k"}
    write_manifest(
        tmp_path / "store",
        sources={name: records[name] for name in ("web", "math")},
        validation={"general": records["general"]},
        facts={**facts, "tokenizer": tokenizer.fingerprint()},
    )
    return TokenStore(tmp_path / "store")


def stored(tokenizer, name):
    return [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in TEXTS[name]]


def interchange(name, **options):
    return TOKEN_FORMATS.module(name).build(TOKEN_FORMATS.options(name, options))


def out_of(folder, raw):
    return np.frombuffer((folder / raw).read_bytes(), dtype="<u2").tolist()


@pytest.mark.parametrize(("name", "suffix"), [("megatron", ".bin"), ("datatrove", ".ds"), ("olmo", ".npy")])
@pytest.mark.parametrize("bos", [False, True])
def test_every_source_and_every_held_out_group_has_its_files(store, tokenizer, tmp_path, name, suffix, bos):
    done = export_store(store, tokenizer, folder=tmp_path / "out", interchange=interchange(name), bos=bos)
    assert [source.path for source in done] == [
        tmp_path / "out" / f"{place}{suffix}" for place in ("math", "web", "validation/general")
    ]
    for source, key in zip(done, ("math", "web", "general"), strict=True):
        wanted = [ids if bos else ids[1:] for ids in stored(tokenizer, key)]
        assert out_of(tmp_path, source.path) == [token for ids in wanted for token in ids]
        assert (source.documents, source.tokens) == (len(wanted), sum(map(len, wanted)))


def test_the_tokenizer_goes_with_the_ids(store, tokenizer, tmp_path):
    export_store(store, tokenizer, folder=tmp_path / "out", interchange=interchange("datatrove"))
    assert Tokenizer.load(tmp_path / "out" / "tokenizer").fingerprint() == tokenizer.fingerprint()
    name = (tmp_path / "out" / "web.ds.metadata").read_text().split("|")[0]
    assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize(
    ("name", "endings"),
    [
        ("megatron", {".bin", ".idx"}),
        ("datatrove", {".ds", ".ds.index", ".ds.metadata"}),
        ("olmo", {".npy", ".csv.gz"}),
    ],
)
def test_what_stands_beside_the_tokens_is_there_too(store, tokenizer, tmp_path, name, endings):
    export_store(store, tokenizer, folder=tmp_path / "out", interchange=interchange(name))
    for place in ("web", "math", "validation/general"):
        stem = tmp_path / "out" / place
        assert {path.name.removeprefix(stem.name) for path in stem.parent.glob(stem.name + ".*")} == endings


def test_a_folder_that_is_there_is_left_as_it_is(store, tokenizer, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="out: is there already") as caught:
        export_store(store, tokenizer, folder=tmp_path / "out", interchange=interchange("olmo"))
    assert caught.value.remedy == "Name a folder that does not exist yet."
    assert list((tmp_path / "out").iterdir()) == []


def test_another_tokenizer_is_refused(store, tmp_path):
    other = Tokenizer(train_bpe(iter(["something else entirely"]), vocab_size=520))
    with pytest.raises(DataError, match="was made with another tokenizer") as caught:
        export_store(store, other, folder=tmp_path / "out", interchange=interchange("olmo"))
    assert caught.value.where == str(store.folder)
    assert "Put its own back" in caught.value.remedy


def changed(store, change):
    """The store with another manifest."""
    values = json.loads((store.folder / "manifest.json").read_text())
    change(values)
    values["checksum"] = checksum_of_manifest(values)
    (store.folder / "manifest.json").write_text(json.dumps(values))
    return TokenStore(store.folder)


@pytest.mark.parametrize("key", ["tokens", "documents"])
def test_a_store_that_does_not_hold_what_it_promises_leaves_nothing_behind(store, tokenizer, tmp_path, key):
    def more(values):
        values["sources"]["web"][key] += 1

    with pytest.raises(DataError, match="web has 3 documents of .* tokens, the manifest says") as caught:
        export_store(changed(store, more), tokenizer, folder=tmp_path / "out", interchange=interchange("megatron"))
    assert caught.value.remedy == "Build the store again: havoc data build."
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_id_that_the_tokenizer_does_not_have_is_refused(store, tmp_path):
    """A store whose tokenizer was put in the place of its own, name and all."""
    small = Tokenizer(train_bpe(iter(["a"]), vocab_size=512))
    spoilt = changed(store, lambda values: values.update(tokenizer=small.fingerprint()))
    with pytest.raises(
        DataError, match=r"document 0 of the store holds id 51\d, and the tokenizer ends at 511"
    ) as caught:
        export_store(spoilt, small, folder=tmp_path / "out", interchange=interchange("datatrove"))
    assert caught.value.where == "web"
    assert not (tmp_path / "out").exists()


def test_a_token_that_is_beginning_and_end_is_refused_where_it_would_cut(store, tokenizer, tmp_path):
    """OLMo cuts at every end of text; exported without it, the beginning is no trouble."""
    folder = tmp_path / "gpt"
    tokenizer.save(folder)
    names = json.loads((folder / "tokenizer.json").read_text())
    for token in names["added_tokens"]:
        if token["content"] in {"<|bos|>", "<|eos|>"}:
            token["content"] = {"<|bos|>": "<|endoftext|>", "<|eos|>": "<|unneeded|>"}[token["content"]]
    names["model"]["vocab"] = {
        {"<|bos|>": "<|endoftext|>", "<|eos|>": "<|unneeded|>"}.get(name, name): number
        for name, number in names["model"]["vocab"].items()
    }
    (folder / "tokenizer.json").write_text(json.dumps(names))
    one = Tokenizer.load(folder)
    assert one.bos_id == one.eos_id == 0
    spoilt = changed(store, lambda values: values.update(tokenizer=one.fingerprint()))
    with pytest.raises(DataError, match="leave --bos out"):
        export_store(spoilt, one, folder=tmp_path / "out", interchange=interchange("olmo"), bos=True)
