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
from havoc_core.tokenizer import NUM_SPECIAL, SPECIAL_TOKENS, Tokenizer
from havoc_data.document import document_text
from havoc_data.prepare.build import collect_corpus, prepare
from havoc_data.prepare.seal import is_sealed
from havoc_data.prepare.tokenize import TokenizeTask, build_store, is_current, store_key, tokenize
from havoc_data.prepare.train_tokenizer import make_tokenizer
from havoc_data.store import TokenStore
from havoc_eval.held_out_text import read_held_out


def documents_of(source):
    offsets = source.offsets()
    return [source.tokens(int(a), int(b)).tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def zstandard_lines(packed):
    stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True)
    return io.TextIOWrapper(stream, "utf-8", newline="\n")


def held_out_of(corpus, group):
    """Ids of the held-out documents of a group."""
    return {
        identity
        for source, of in corpus.groups.items()
        if of == group
        for identity, _ in corpus.documents(source, held_out=True)
    }


def test_a_stored_document_is_bos_text_eos(ready):
    prepared = prepare(ready)
    tokenizer, corpus = prepared.tokenizer, collect_corpus(ready)
    wanted = [
        [tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id]
        for _, document in corpus.documents("math", held_out=False)
    ]
    assert documents_of(prepared.store.training["math"]) == wanted
    dialogs = [render(tokenizer, document.messages).ids for _, document in corpus.documents("dialog", held_out=False)]
    assert documents_of(prepared.store.training["dialog"]) == dialogs


def test_the_two_sides_together_are_the_corpus_and_share_nothing(ready):
    store, corpus = prepare(ready).store, collect_corpus(ready)
    training = [line["id"] for source in store.training.values() for line in source.provenance()]
    held_out = [line["id"] for source in store.validation.values() for line in source.provenance()]
    assert set(training).isdisjoint(held_out)
    everything = [identity for source in corpus.groups for identity, _ in corpus.documents(source)]
    assert sorted(training + held_out) == sorted(everything)
    for group, source in store.validation.items():
        assert {line["id"] for line in source.provenance()} == held_out_of(corpus, group)


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
    (data / "math" / "zeros.txt").write_bytes(bytes(300))
    store, corpus = prepare(config).store, collect_corpus(config)
    for name, source in store.training.items():
        documents, record = documents_of(source), source.record
        assert record.documents == len(documents) == record.ledger["kept"] == sum(record.licences.values())
        assert record.tokens == sum(len(ids) for ids in documents)
        ledger = next(ledger for ledger in corpus.ledgers if ledger.name == name)
        assert record.ledger["kept"] + record.ledger["held_out"] == ledger.kept
        assert record.ledger["duplicate"] == ledger.duplicates == (1 if name == "math" else 0)
        assert (record.ledger["near_duplicate"], record.ledger["rejected"]) == (0, 1 if name == "math" else 0)
    manifest = store.manifest
    assert manifest["tokenizer"] == Tokenizer.load(RunFiles.of(config).tokenizer).fingerprint()
    assert (manifest["dtype"], manifest["dummy"], manifest["missing_groups"]) == ("uint16", False, [])
    assert manifest["ratios"] == {"domain": 0.6, "general": 0.3, "dialog": 0.1}


def test_the_held_out_text_is_there_too(ready):
    store, corpus = prepare(ready).store, collect_corpus(ready)
    for group in ("domain", "general", "dialog"):
        ids = held_out_of(corpus, group)
        packed = (store.folder / "validation" / f"{group}.jsonl.zst").read_bytes()
        values = [json.loads(line) for line in zstandard_lines(packed)]
        assert {value["id"] for value in values} == ids
        for value in values:
            documents = dict(corpus.documents(value["source"]))
            found = value.get("text") or "\n".join(content for _, content in value["messages"])
            assert found == document_text(documents[value["id"]])


def test_the_same_text_gives_the_same_bytes_elsewhere(config, changed, tmp_path, contents):
    prepare(config)
    prepare(changed(config, run_dir=str(tmp_path / "other")))
    assert contents(RunFiles.of(config).store) == contents(tmp_path / "other" / "store")


def test_nothing_is_left_beside_the_store(ready):
    folder = RunFiles.of(ready).store
    assert [each.name for each in folder.parent.iterdir() if each.name.startswith(".")] == []


def test_a_part_that_was_tokenized_is_left_as_it_is_unless_it_is_damaged(ready, tmp_path, contents):
    """Regression: tokens that a killed run had left were put into the store whatever had become of them."""
    corpus, tokenizer = collect_corpus(ready), RunFiles.of(ready).tokenizer
    fingerprint = Tokenizer.load(tokenizer).fingerprint()
    task = TokenizeTask("math", corpus.shards("math")[0], tokenizer, fingerprint, tmp_path)
    folder = tmp_path / tokenize(task)
    good, made = contents(folder), folder.stat().st_ino
    assert set(good) == {
        *(f"{split}/00000{suffix}" for split in ("training", "validation") for suffix in (".tok", ".doc", ".prov.zst")),
        "validation.jsonl.zst", "facts.json", "seal.json",
    }  # fmt: skip
    assert tmp_path / tokenize(task) == folder
    assert folder.stat().st_ino == made
    for name in good:
        damaged = bytearray(good[name])
        damaged[len(damaged) // 2] ^= 8
        (folder / name).write_bytes(damaged)
        assert not is_sealed(folder)
        tokenize(task)
        assert contents(folder) == good


def test_special_tokens_in_a_text_stay_text(config, data):
    spelt = "<|begin_of_text|> one <|end_of_text|> two <|user|> <|pad|> " + " ".join(SPECIAL_TOKENS[:8])
    for number in range(3):
        own = (data / "math" / f"{number:02}.txt").read_text(encoding="utf-8")[:400]
        (data / "math" / f"spelt{number}.txt").write_text(f"{own} {spelt} {own[200:]}", encoding="utf-8")
    messages = [{"role": "user", "content": spelt}, {"role": "assistant", "content": spelt}]
    (data / "dialog" / "spelt.jsonl").write_text(json.dumps({"messages": messages}))
    prepared = prepare(config)
    store, tokenizer, seen = prepared.store, prepared.tokenizer, 0
    for source in [*store.training.values(), *store.validation.values()]:
        for line, ids in zip(source.provenance(), documents_of(source), strict=True):
            if line["origin"].startswith("spelt") and line["source"] == "math":
                seen += 1
                assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
                assert min(ids[1:-1]) >= NUM_SPECIAL, "no special token inside"
                assert spelt in tokenizer.decode(ids)
            elif line["origin"].startswith("spelt"):
                seen += 1
                assert ids == render(tokenizer, (("user", spelt), ("assistant", spelt))).ids
                inside = sum(each < NUM_SPECIAL for each in ids)
                assert inside == sum(
                    each < NUM_SPECIAL for each in render(tokenizer, (("user", "a"), ("assistant", "b"))).ids
                )
    assert seen == 4


@pytest.mark.parametrize(
    "name", ["math/00000.tok", "math/00000.doc", "math/00000.prov.zst", "validation/domain/00000.tok"]
)
def test_one_flipped_bit_in_a_store_is_refused_by_name(ready, tmp_path, name):
    shutil.copytree(RunFiles.of(ready).store, tmp_path / "store")
    TokenStore(tmp_path / "store")
    path = tmp_path / "store" / name
    good = path.read_bytes()
    for at in range(0, len(good), max(1, len(good) // 8)):
        damaged = bytearray(good)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="its checksum is not the manifest's") as caught:
            TokenStore(tmp_path / "store")
        assert caught.value.where == str(path)
        assert caught.value.remedy == f"Delete {tmp_path / 'store'} and build it again: havoc data build."


def test_one_flipped_bit_in_the_held_out_text_is_refused_by_name(ready, tmp_path):
    """Regression: it had no checksum, and the evaluation measured another text."""
    path = tmp_path / "domain.jsonl.zst"
    good = (RunFiles.of(ready).store / "validation" / "domain.jsonl.zst").read_bytes()
    path.write_bytes(good)
    whole = list(read_held_out(path))
    places = [8 * at + at % 8 for at in range(0, len(good), len(good) // 60)]
    for bit in [*range(8 * 18), *places]:  # every bit of the header of the first frame
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert list(read_held_out(path)) == whole, f"bit {bit}"
        except DataError as error:
            assert error.where.startswith(str(path))


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
    store = build_store(corpus, tmp_path / "t", folder=tmp_path / "s", data=wide.data)
    assert store.dtype == np.dtype("<u4")
    assert isinstance(store, TokenStore)
    assert documents_of(store.training["math"])[0][0] == 0
