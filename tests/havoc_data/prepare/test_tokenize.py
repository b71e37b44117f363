"""Corpus -> store: BOS text EOS, the same bytes for any number of workers, provenance for every document."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zstandard

from havoc_core.chat_format import render
from havoc_core.errors import DataError
from havoc_core.run_files import RunFiles
from havoc_core.tokenizer import Tokenizer
from havoc_data.prepare.build import collect_corpus, prepare
from havoc_data.prepare.collect import document_text
from havoc_data.prepare.tokenize import build_store, is_current, store_key
from havoc_data.prepare.train_tokenizer import make_tokenizer
from havoc_data.store import TokenStore


def documents_of(source):
    offsets = source.offsets()
    return [source.tokens(int(a), int(b)).tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_stored_document_is_bos_text_eos(ready):
    prepared = prepare(ready)
    tokenizer, corpus = prepared.tokenizer, collect_corpus(ready)
    wanted = [
        [tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id]
        for identity, document in corpus.documents("math")
        if not corpus.is_held_out("math", identity)
    ]
    assert documents_of(prepared.store.training["math"]) == wanted
    dialogs = [
        render(tokenizer, document.messages).ids
        for identity, document in corpus.documents("dialog")
        if not corpus.is_held_out("dialog", identity)
    ]
    assert documents_of(prepared.store.training["dialog"]) == dialogs


def test_the_two_sides_together_are_the_corpus_and_share_nothing(ready):
    store, corpus = prepare(ready).store, collect_corpus(ready)
    training = [line["id"] for source in store.training.values() for line in source.provenance()]
    held_out = [line["id"] for source in store.validation.values() for line in source.provenance()]
    assert set(training).isdisjoint(held_out)
    everything = [identity for source in corpus.groups for identity, _ in corpus.documents(source)]
    assert sorted(training + held_out) == sorted(everything)
    for group, source in store.validation.items():
        assert {line["id"] for line in source.provenance()} == corpus.held_out[group]


def test_every_document_has_its_provenance(ready):
    store = prepare(ready).store
    for name in ("math", "stats", "general"):
        for line, ids in zip(store.training[name].provenance(), documents_of(store.training[name]), strict=True):
            raw = (Path(ready.data.data_dir) / name / line["origin"]).read_bytes()
            begin, end = line["bytes"]
            assert raw[begin:end].decode() == Tokenizer.load(RunFiles.of(ready).tokenizer).decode(ids)
            assert line["source"] == name


def test_the_manifest_adds_up(config, data):
    (data / "math" / "again.txt").write_bytes((data / "math" / "00.txt").read_bytes())
    store, corpus = prepare(config).store, collect_corpus(config)
    for name, source in store.training.items():
        documents, record = documents_of(source), source.record
        assert record.documents == len(documents) == record.ledger["kept"] == sum(record.licences.values())
        assert record.tokens == sum(len(ids) for ids in documents)
        ledger = next(ledger for ledger in corpus.ledgers if ledger.name == name)
        assert record.ledger["kept"] + record.ledger["held_out"] == ledger.kept
        assert record.ledger["duplicates"] == ledger.duplicates == (1 if name == "math" else 0)
    manifest = store.manifest
    assert manifest["tokenizer"] == Tokenizer.load(RunFiles.of(config).tokenizer).fingerprint()
    assert (manifest["dtype"], manifest["dummy"], manifest["missing_groups"]) == ("uint16", False, [])
    assert manifest["ratios"] == {"domain": 0.6, "general": 0.3, "dialog": 0.1}


def test_the_held_out_text_is_there_too(ready):
    store, corpus = prepare(ready).store, collect_corpus(ready)
    for group, ids in corpus.held_out.items():
        packed = (store.folder / "validation" / f"{group}.jsonl.zst").read_bytes()
        lines = io.TextIOWrapper(io.BytesIO(zstandard.ZstdDecompressor().decompress(packed)), "utf-8", newline="\n")
        values = [json.loads(line) for line in lines]
        assert {value["id"] for value in values} == ids
        for value in values:
            documents = dict(corpus.documents(value["source"]))
            found = value.get("text") or "\n".join(content for _, content in value["messages"])
            assert found == document_text(documents[value["id"]])


@pytest.mark.slow
def test_one_worker_and_two_give_the_same_bytes(config, data, tmp_path):
    for number in range(12):  # over a megabyte, or no second process is used
        text = (data / "math" / f"{number:02}.txt").read_text(encoding="utf-8")
        (data / "math" / f"long_{number}.txt").write_text(f"{number}\n" + text * 80, encoding="utf-8")
    corpus, folder = collect_corpus(config), RunFiles.of(config).tokenizer
    make_tokenizer(config, corpus, folder=folder)
    build_store(corpus, folder, folder=tmp_path / "one", num_workers=1)
    build_store(corpus, folder, folder=tmp_path / "two", num_workers=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_the_same_text_gives_the_same_bytes_elsewhere(config, tmp_path):
    prepare(config)
    prepare(config.model_copy(update={"run_dir": str(tmp_path / "other")}))
    assert bytes_of(RunFiles.of(config).store) == bytes_of(tmp_path / "other" / "store")


def test_it_is_built_again_only_if_text_settings_or_tokenizer_changed(config, data):
    files, first = RunFiles.of(config), prepare(config).store
    made = (files.store / "manifest.json").stat().st_mtime_ns
    assert prepare(config).store.id == first.id
    unrelated = {"learning_rate": 1e-4, "min_learning_rate": 1e-5, "seed": 7, "batch_size": 9}
    assert prepare(config.model_copy(update=unrelated)).store.id == first.id
    assert (files.store / "manifest.json").stat().st_mtime_ns == made
    assert is_current(files.store, store_key(collect_corpus(config).key, Tokenizer.load(files.tokenizer)))
    smaller = config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update={"vocab_size": 520})})
    second = prepare(smaller).store
    assert second.id != first.id
    assert second.manifest["tokenizer"] != first.manifest["tokenizer"]
    (data / "math" / "00.txt").write_text("something else " * 200)
    assert prepare(config).store.id not in {first.id, second.id}


def test_a_store_that_is_damaged_is_said_and_comes_back_after_it_was_deleted(config):
    store = prepare(config).store
    path = store.folder / "math" / "00000.tok"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum") as caught:
        prepare(config)
    assert f"Delete {store.folder}" in caught.value.remedy
    shutil.rmtree(store.folder)
    assert prepare(config).store.id == store.id


@pytest.mark.slow
def test_a_large_vocabulary_takes_four_bytes_a_token(config, tmp_path):
    corpus = collect_corpus(config)
    wide = config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": 70_000})})
    make_tokenizer(wide, corpus, folder=tmp_path / "t")
    store = build_store(corpus, tmp_path / "t", folder=tmp_path / "s", num_workers=1)
    assert store.dtype == np.dtype("<u4")
    assert isinstance(store, TokenStore)
    assert documents_of(store.training["math"])[0][0] == 0
