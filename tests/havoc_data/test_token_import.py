"""Files of another stack become a store: every document, in order, checked."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from havoc_core.errors import DataError
from havoc_core.run_files import RunFiles
from havoc_core.tokenizer import Tokenizer
from havoc_data.document import MIN_HELD_OUT_BYTES
from havoc_data.prepare.train_tokenizer import train_bpe
from havoc_data.store import TokenStore
from havoc_data.token_export import export_store
from havoc_data.token_format import TOKEN_FORMATS, FoundDocument
from havoc_data.token_import import TokenImport, import_tokens
from havoc_eval.held_out_text import read_held_out

FORMATS = [("megatron", ".bin"), ("datatrove", ".ds"), ("olmo", ".npy")]
TEXTS = [f"Document {number}: " + f"σ² is no {number % 7} but {number} times √{number}. " * 10 for number in range(300)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train_bpe(iter(TEXTS[:20]), vocab_size=600))


def interchange(name):
    return TOKEN_FORMATS.module(name).build(TOKEN_FORMATS.options(name, {}))


def run_files(folder):
    return RunFiles(run_dir=folder, checkpoints=folder / "checkpoints", logs=folder / "logs")


def write_datatrove(folder, documents, name="web"):
    """A set of files by the published layout, without our writer."""
    folder.mkdir(exist_ok=True)
    ids = [token for document in documents for token in document]
    (folder / f"{name}.ds").write_bytes(struct.pack(f"<{len(ids)}H", *ids))
    ends = np.cumsum([len(document) for document in documents])
    (folder / f"{name}.ds.index").write_bytes(ends.astype("<u8").tobytes())
    return folder / f"{name}.ds"


def order_of(path, name="datatrove", **changes):
    return TokenImport(path=path, interchange=interchange(name), name="web", group="general", **changes)


def listed(source):
    offsets = source.offsets().tolist()
    return [source.tokens(a, b).tolist() for a, b in zip(offsets, offsets[1:], strict=False)]


def ended(tokenizer, texts=TEXTS):
    """Text and end, as other stacks keep it."""
    return [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]


def in_order(store):
    """All documents of a store of one source, by their number among the files."""
    sources = (store.training["web"], store.validation["general"])
    rows = [
        (line["origin"], line["ordinal"], ids)
        for source in sources
        for line, ids in zip(source.provenance(), listed(source), strict=True)
    ]
    return [ids for _, _, ids in sorted(rows)]


@pytest.fixture(scope="module")
def imported(tmp_path_factory, tokenizer) -> Path:
    """A run with a store that was imported. Not to be changed."""
    folder = tmp_path_factory.mktemp("imported")
    path = write_datatrove(folder / "in", ended(tokenizer))
    import_tokens(order_of(path, licence="CC0-1.0"), tokenizer, files=run_files(folder / "run"))
    return folder / "run"


def test_every_document_comes_in_with_beginning_and_end_on_one_of_the_two_sides(imported, tokenizer):
    store = TokenStore(imported / "store")
    assert in_order(store) == [[tokenizer.bos_id, *ids] for ids in ended(tokenizer)]
    for source in (store.training["web"], store.validation["general"]):
        ordinals = [line["ordinal"] for line in source.provenance()]
        assert ordinals == sorted(ordinals), "documents keep their order"


def test_who_is_held_out_hangs_on_the_hash_of_the_tokens_alone(imported, tokenizer):
    store = TokenStore(imported / "store")
    held_out = {line["id"] for line in store.validation["general"].provenance()}
    every = []
    for text, ids in zip(TEXTS, ended(tokenizer), strict=True):
        packed = np.array([tokenizer.bos_id, *ids], dtype="<u4").tobytes()
        every.append((hashlib.blake2b(packed, digest_size=16).hexdigest(), len(text.encode())))
    wanted, size = set(), 0
    for identity, length in sorted(every):
        if int(identity, 16) >= 0.02 * 2**128 and size >= MIN_HELD_OUT_BYTES:
            break
        wanted.add(identity)
        size += length
    assert held_out == wanted
    assert len(wanted) > 0.02 * len(TEXTS), "the text is small: 32 KiB are more than a fiftieth"


def test_a_fraction_of_many_documents_is_held_out(tmp_path, tokenizer):
    path = write_datatrove(tmp_path / "in", ended(tokenizer))
    store = import_tokens(order_of(path, validation_fraction=0.4), tokenizer, files=run_files(tmp_path / "run"))
    held_out = [line["id"] for line in store.validation["general"].provenance()]
    assert all(int(identity, 16) < 0.4 * 2**128 for identity in held_out)
    assert all(int(line["id"], 16) >= 0.4 * 2**128 for line in store.training["web"].provenance())
    assert 80 < len(held_out) < 160


def test_the_manifest_is_that_of_a_store_to_train_on(imported, tokenizer):
    store = TokenStore(imported / "store")
    assert {key: store.manifest[key] for key in ("dtype", "tokenizer", "ratios", "missing_groups", "dummy")} == {
        "dtype": "uint16",
        "tokenizer": tokenizer.fingerprint(),
        "ratios": {"general": 1.0},
        "missing_groups": ["domain", "dialog"],
        "dummy": False,
    }
    training, held_out = store.training["web"].record, store.validation["general"].record
    assert training.ledger == {
        "kept": training.documents, "held_out": held_out.documents, "duplicates": 0, "rejected": 0,
    }  # fmt: skip
    assert training.documents + held_out.documents == len(TEXTS)
    assert training.bytes + held_out.bytes == sum(len(text.encode()) for text in TEXTS)
    assert training.licences == {"CC0-1.0": training.documents}
    assert training.tokens == sum(map(len, listed(store.training["web"])))


def test_the_held_out_text_can_be_read_without_tokens(imported):
    documents = list(read_held_out(imported / "store" / "validation" / "general.jsonl.zst"))
    held_out = list(TokenStore(imported / "store").validation["general"].provenance())
    assert [(one.id, one.source) for one in documents] == [(line["id"], "web") for line in held_out]
    assert [one.text for one in documents] == [TEXTS[line["ordinal"]] for line in held_out]


def test_the_provenance_leads_back_to_the_bytes(imported, tokenizer):
    raw = (imported.parent / "in" / "web.ds").read_bytes()
    source = TokenStore(imported / "store").training["web"]
    for line, ids in zip(source.provenance(), listed(source), strict=True):
        begin, end = line["bytes"]
        assert [tokenizer.bos_id, *np.frombuffer(raw[begin:end], "<u2").tolist()] == ids
        assert (line["origin"], line["licence"], line["source"]) == ("web.ds", "CC0-1.0", "web")


def test_the_run_has_the_tokenizer(imported, tokenizer):
    assert Tokenizer.load(imported / "tokenizer").fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize(("name", "suffix"), FORMATS)
@pytest.mark.parametrize("bos", [False, True])
def test_a_store_that_goes_out_and_comes_back_holds_the_same_documents(
    imported, tmp_path, tokenizer, name, suffix, bos
):
    store = TokenStore(imported / "store")
    export_store(store, tokenizer, folder=tmp_path / "out", interchange=interchange(name), bos=bos)
    order = order_of(tmp_path / "out" / f"web{suffix}", name, validation_fraction=0.1)
    again = import_tokens(order, Tokenizer.load(tmp_path / "out" / "tokenizer"), files=run_files(tmp_path / "run"))
    assert in_order(again) == listed(store.training["web"])


def test_the_same_documents_give_the_same_store_from_any_format(imported, tmp_path, tokenizer):
    store, ids = TokenStore(imported / "store"), set()
    for name, suffix in FORMATS:
        export_store(store, tokenizer, folder=tmp_path / name, interchange=interchange(name))
        order = order_of(tmp_path / name / f"web{suffix}", name)
        ids.add(import_tokens(order, tokenizer, files=run_files(tmp_path / f"run_{name}")).manifest["inputs_key"])
    assert len(ids) == 1


def test_files_of_a_folder_are_joined_in_the_order_of_their_names(tmp_path, tokenizer):
    documents = ended(tokenizer)
    write_datatrove(tmp_path / "in", documents[200:], "b")
    write_datatrove(tmp_path / "in", documents[:200], "a")
    (tmp_path / "in" / "readme.txt").write_text("mine")
    store = import_tokens(order_of(tmp_path / "in"), tokenizer, files=run_files(tmp_path / "run"))
    assert in_order(store) == [[tokenizer.bos_id, *ids] for ids in documents]
    assert {line["origin"] for line in store.training["web"].provenance()} == {"a.ds", "b.ds"}


def test_megatrons_name_without_an_ending_is_understood(imported, tmp_path, tokenizer):
    store = TokenStore(imported / "store")
    export_store(store, tokenizer, folder=tmp_path / "out", interchange=interchange("megatron"))
    order = order_of(tmp_path / "out" / "web", "megatron")
    assert len(in_order(import_tokens(order, tokenizer, files=run_files(tmp_path / "run")))) > 100


def test_documents_can_be_left_as_they_are(tmp_path, tokenizer):
    documents = ended(tokenizer)
    documents[3] = documents[3][:-1]
    path = write_datatrove(tmp_path / "in", documents)
    assert in_order(import_tokens(order_of(path, as_is=True), tokenizer, files=run_files(tmp_path / "a"))) == documents
    complete = in_order(import_tokens(order_of(path), tokenizer, files=run_files(tmp_path / "b")))
    assert complete == [[tokenizer.bos_id, *ids] for ids in ended(tokenizer)], "what is missing is added, once"


@pytest.mark.parametrize("empty", [[], [1], [0, 1], [0]])
def test_a_document_without_text_stops_the_import_unless_it_may_be_left_out(tmp_path, tokenizer, empty):
    documents = ended(tokenizer)
    path = write_datatrove(tmp_path / "in", [*documents[:5], empty, *documents[5:]])
    with pytest.raises(DataError, match=r"document 5, at byte [\d,]+, has no text") as caught:
        import_tokens(order_of(path), tokenizer, files=run_files(tmp_path / "run"))
    assert caught.value.where == str(path)
    assert caught.value.remedy == "Leave such documents out: --drop-empty."
    assert not (tmp_path / "run").exists()
    store = import_tokens(order_of(path, drop_empty=True), tokenizer, files=run_files(tmp_path / "run"))
    assert store.training["web"].record.ledger["rejected"] == 1
    assert in_order(store) == [[tokenizer.bos_id, *ids] for ids in documents]


def test_an_id_beyond_the_vocabulary_is_refused_with_its_document(tmp_path, tokenizer):
    documents = ended(tokenizer)
    documents[7][2] = tokenizer.vocab_size
    path = write_datatrove(tmp_path / "in", documents)
    with pytest.raises(DataError, match="holds id 600, and the tokenizer has ids from 0 to 599") as caught:
        import_tokens(order_of(path), tokenizer, files=run_files(tmp_path / "run"))
    assert caught.value.where == f"{path}: document 7"
    assert "Name the tokenizer that wrote it: --tokenizer" in caught.value.remedy


def test_a_negative_id_is_refused(tmp_path, tokenizer):
    (tmp_path / "a.bin").write_bytes(struct.pack("<3i", 300, -5, 1))
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, 1, 2)
    (tmp_path / "a.idx").write_bytes(header + struct.pack("<iqqq", 3, 0, 0, 1))
    with pytest.raises(DataError, match="document 0: holds id -5, and the tokenizer has ids from 0"):
        import_tokens(order_of(tmp_path / "a.bin", "megatron"), tokenizer, files=run_files(tmp_path / "run"))


@pytest.mark.parametrize("texts", [TEXTS[:3], ["σ" * 100_000], ["σ" * 100_000] * 3])
def test_too_little_text_to_hold_any_out_is_refused(tmp_path, tokenizer, texts):
    """One document cannot be on both sides, and neither can its copies be on different ones."""
    path = write_datatrove(tmp_path / "in", ended(tokenizer, texts))
    with pytest.raises(DataError, match=r"documents: 32,768 of them cannot be held out, with as much left") as caught:
        import_tokens(order_of(path), tokenizer, files=run_files(tmp_path / "run"))
    assert caught.value.where == "group general"
    assert caught.value.remedy == "Import more files at once: name their folder."
    assert not (tmp_path / "run").exists()


def test_copies_of_a_document_stay_on_one_side(tmp_path, tokenizer):
    path = write_datatrove(tmp_path / "in", ended(tokenizer) * 2)
    store = import_tokens(order_of(path), tokenizer, files=run_files(tmp_path / "run"))
    held_out = {line["id"] for line in store.validation["general"].provenance()}
    assert held_out.isdisjoint(line["id"] for line in store.training["web"].provenance())
    assert store.validation["general"].record.documents == 2 * len(held_out)


def test_a_run_that_has_a_store_keeps_it(imported, tokenizer):
    before = (imported / "store" / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="store: is a token store already") as caught:
        import_tokens(order_of(imported.parent / "in"), tokenizer, files=run_files(imported))
    assert caught.value.remedy == "Import into another run: --run-dir NEW."
    assert (imported / "store" / "manifest.json").read_bytes() == before


def test_a_run_that_has_another_tokenizer_keeps_it(imported, tmp_path, tokenizer):
    other = Tokenizer(train_bpe(iter(["something else"]), vocab_size=520))
    other.save(tmp_path / "run" / "tokenizer")
    order = order_of(imported.parent / "in")
    with pytest.raises(DataError, match="is another tokenizer than that of the files"):
        import_tokens(order, tokenizer, files=run_files(tmp_path / "run"))
    tokenizer.save(tmp_path / "same" / "tokenizer")
    assert import_tokens(order, tokenizer, files=run_files(tmp_path / "same")).training


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "validation"])
def test_a_name_that_is_none_of_a_folder_is_refused(imported, tmp_path, tokenizer, name):
    order = replace(order_of(imported.parent / "in"), name=name)
    with pytest.raises(DataError, match="cannot be the name of a folder in a store") as caught:
        import_tokens(order, tokenizer, files=run_files(tmp_path / "run"))
    assert caught.value.where == "name"


def test_files_that_are_not_there_are_named(tmp_path, tokenizer):
    with pytest.raises(DataError, match="holds no file that ends in .ds") as caught:
        import_tokens(order_of(tmp_path), tokenizer, files=run_files(tmp_path / "run"))
    assert caught.value.where == str(tmp_path)
    with pytest.raises(DataError, match="gone.ds: there is no such file of tokens. Name a file that ends in .ds"):
        import_tokens(order_of(tmp_path / "gone"), tokenizer, files=run_files(tmp_path / "run"))


class Faulty:
    """A format whose files fail, or are others when they are read again."""

    suffix = ".ds"

    def __init__(self, documents, *, breaks=False):
        self.documents, self.breaks, self.times = documents, breaks, 0

    def write(self, documents, path, vocabulary):
        raise NotImplementedError

    def read(self, path, vocabulary):
        self.times += 1
        for number, ids in enumerate(self.documents):
            if self.breaks and number == 9:
                raise OSError(5, "Input/output error")
            yield FoundDocument(np.array(ids[self.times :]), 0, 0)


def test_files_that_change_while_they_are_read_are_refused(imported, tmp_path, tokenizer):
    order = replace(order_of(imported.parent / "in"), interchange=Faulty(ended(tokenizer)))
    with pytest.raises(DataError, match="in: changed while it was read") as caught:
        import_tokens(order, tokenizer, files=run_files(tmp_path / "run"))
    assert caught.value.remedy == "Import it again when nothing writes to it."
    assert list((tmp_path / "run").iterdir()) == [], "nothing half-written is left"


def test_a_disk_that_fails_is_one_message(imported, tmp_path, tokenizer):
    order = replace(order_of(imported.parent / "in"), interchange=Faulty(ended(tokenizer), breaks=True))
    with pytest.raises(DataError, match=r"web.ds: cannot be read \(Input/output error\). Check its permissions"):
        import_tokens(order, tokenizer, files=run_files(tmp_path / "run"))
