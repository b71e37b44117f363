"""Sources -> corpus: every document once, its split decided by its hash, every loss accounted for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from havoc_core.errors import DataError
from havoc_data.document import Document
from havoc_data.prepare.build import collect_corpus
from havoc_data.prepare.collect import MIN_HELD_OUT_BYTES, collect, document_text, inputs_key, open_corpus, summary


def corpus_of(config, tmp_path):
    return collect(config.data, base=Path(), folder=tmp_path / "corpus")


def texts(corpus, source):
    return {identity: document_text(document) for identity, document in corpus.documents(source)}


def test_every_document_comes_once_with_its_origin(config, tmp_path, data):
    corpus = corpus_of(config, tmp_path)
    assert corpus.groups == {"dialog": "dialog", "general": "general", "math": "domain", "stats": "domain"}
    found = {document.origin: document.text for _, document in corpus.documents("math")}
    assert found == {f"{i:02}.txt": (data / "math" / f"{i:02}.txt").read_text(encoding="utf-8") for i in range(70)}
    assert len(texts(corpus, "dialog")) == 70
    assert all(document.messages for _, document in corpus.documents("dialog"))


def test_exact_duplicates_are_dropped_wherever_they_are_and_counted(config, tmp_path, data):
    """Regression: the first duplicate ended in a TypeError."""
    original = (data / "general" / "07.txt").read_text(encoding="utf-8")
    (data / "math" / "copy.txt").write_text(original, encoding="utf-8")
    (data / "stats" / "copy.txt").write_text(original, encoding="utf-8")
    (data / "stats" / "almost.txt").write_text(original + "!", encoding="utf-8")
    corpus = corpus_of(config, tmp_path)
    every = [identity for source in corpus.groups for identity in texts(corpus, source)]
    assert len(every) == len(set(every)) == 4 * 70 + 1
    counts = {ledger.name: (ledger.kept, ledger.duplicates, ledger.duplicate_bytes) for ledger in corpus.ledgers}
    size = len(original.encode())
    # general comes first, as sources are read by name
    assert counts == {"dialog": (70, 0, 0), "general": (70, 0, 0), "math": (70, 1, size), "stats": (71, 1, size)}


def test_the_ledger_adds_up(config, tmp_path, data):
    (data / "math" / "broken.txt").write_bytes(b"\x00\x01\x02\xff" * 30)
    (data / "math" / "again.txt").write_bytes((data / "math" / "00.txt").read_bytes())
    corpus = corpus_of(config, tmp_path)
    ledger = next(ledger for ledger in corpus.ledgers if ledger.name == "math")
    files = sorted((data / "math").iterdir())
    assert ledger.kept + ledger.duplicates + ledger.rejected == len(files)
    assert ledger.kept_bytes == sum(len(text.encode()) for text in texts(corpus, "math").values())
    assert ledger.kept_bytes + ledger.duplicate_bytes + ledger.rejected_bytes == sum(
        path.stat().st_size for path in files
    )
    assert len(ledger.examples) == 1
    assert "broken.txt: " in ledger.examples[0]
    assert summary(corpus)["math"]["rejected"] == 1


def test_the_held_out_documents_are_those_with_the_lowest_hashes(ready):
    corpus = collect_corpus(ready)
    for group in ("domain", "general", "dialog"):
        sizes = {
            identity: len(text.encode())
            for source, of in corpus.groups.items()
            if of == group
            for identity, text in texts(corpus, source).items()
        }
        in_order = sorted(sizes)
        held_out = sorted(corpus.held_out[group])
        assert held_out == in_order[: len(held_out)]
        taken = sum(sizes[identity] for identity in held_out)
        assert taken >= MIN_HELD_OUT_BYTES
        limit = int(0.05 * 2**128)
        assert all(identity in held_out for identity in in_order if int(identity, 16) < limit)
        assert int(held_out[-1], 16) < limit or taken - sizes[held_out[-1]] < MIN_HELD_OUT_BYTES


def test_a_document_is_never_on_both_sides(ready):
    corpus = collect_corpus(ready)
    for source, group in corpus.groups.items():
        sides = {identity: corpus.is_held_out(source, identity) for identity in texts(corpus, source)}
        assert {identity for identity, out in sides.items() if out} <= corpus.held_out[group]
    assert sum(len(ids) for ids in corpus.held_out.values()) == len(frozenset().union(*corpus.held_out.values()))


def test_a_document_keeps_its_side_when_others_come(config, tmp_path, data):
    before = corpus_of(config, tmp_path)
    (data / "math" / "zz.txt").write_text("a new one " * 300)
    after = corpus_of(config, tmp_path / "later")
    assert len(before.held_out["domain"] ^ after.held_out["domain"]) <= 2


def test_a_group_too_small_to_hold_anything_out_is_refused(config, tmp_path, data):
    for path in sorted((data / "general").iterdir())[5:]:
        path.unlink()
    with pytest.raises(
        DataError, match="group general: .* bytes in 5 documents are too little to hold 32,768"
    ) as caught:
        corpus_of(config, tmp_path)
    assert "Add text to the group" in caught.value.remedy


def test_one_large_document_cannot_be_held_out(config, tmp_path, data):
    for path in sorted((data / "general").iterdir())[1:]:
        path.unlink()
    (data / "general" / "00.txt").write_text("one long line without an end " * 2000)
    with pytest.raises(DataError, match="in 1 documents are too little"):
        corpus_of(config, tmp_path)


def test_a_source_of_which_nothing_is_left_is_refused_with_its_reasons(config, tmp_path, data):
    for path in (data / "math").iterdir():  # copies of what another source has, and a file that is no text
        path.write_bytes((data / "general" / path.name).read_bytes())
    (data / "math" / "broken.txt").write_bytes(b"\x00\x01\x02\xff" * 30)
    with pytest.raises(DataError, match="math: gave no text.") as caught:
        corpus_of(config, tmp_path)
    assert "broken.txt" in caught.value.found
    assert "leave the source out" in caught.value.remedy


def test_it_is_collected_again_only_if_an_input_or_a_setting_has_changed(config, tmp_path, data):
    first = corpus_of(config, tmp_path)
    made = (tmp_path / "corpus" / "manifest.json").stat().st_mtime_ns
    assert corpus_of(config, tmp_path).key == first.key == inputs_key(config.data, base=Path())
    assert (tmp_path / "corpus" / "manifest.json").stat().st_mtime_ns == made
    (data / "math" / "00.txt").touch()
    assert corpus_of(config, tmp_path).key == first.key  # contents count, not dates
    changed = config.model_copy(update={"data": config.data.model_copy(update={"validation_fraction": 0.1})})
    assert corpus_of(changed, tmp_path).key != first.key
    (data / "math" / "00.txt").write_text("something else " * 200)
    assert corpus_of(config, tmp_path).key != first.key


def test_equal_inputs_give_equal_bytes(config, tmp_path):
    corpus_of(config, tmp_path / "a")
    corpus_of(config, tmp_path / "b")
    for path in sorted((tmp_path / "a" / "corpus").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / "corpus" / path.name).read_bytes()


def test_a_corpus_that_is_not_whole_is_collected_again(config, tmp_path):
    corpus_of(config, tmp_path)
    (tmp_path / "corpus" / "math.jsonl.zst").unlink()
    assert open_corpus(tmp_path / "corpus") is None
    assert len(texts(corpus_of(config, tmp_path), "math")) == 70
    (tmp_path / "corpus" / "manifest.json").write_text("{")
    assert open_corpus(tmp_path / "corpus") is None
    (tmp_path / "corpus" / "manifest.json").write_text('{"version": 99}')
    assert open_corpus(tmp_path / "corpus") is None
    assert open_corpus(tmp_path / "nowhere") is None


def test_a_damaged_corpus_is_named(config, tmp_path):
    """Regression: a flipped bit gave other text, or an error of zstandard's."""
    corpus = corpus_of(config, tmp_path)
    path = tmp_path / "corpus" / "math.jsonl.zst"
    good = path.read_bytes()
    for at in range(20, len(good), len(good) // 12):
        damaged = bytearray(good)
        damaged[at] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"math.jsonl.zst: is damaged \(") as caught:
            texts(corpus, "math")
        assert f"Delete {corpus.folder}" in caught.value.remedy


def test_half_a_surrogate_pair_becomes_a_replacement_character(config, tmp_path, data):
    line = json.dumps({"text": "before \ud800 after " + "x" * 3000})
    (data / "general" / "odd.jsonl").write_text(line + "\n")
    corpus = corpus_of(config, tmp_path)
    assert any("before \ufffd after" in text for text in texts(corpus, "general").values())


def test_line_separators_inside_a_text_break_no_line(config, tmp_path, data):
    odd = "a\u2028b\x85c\u2029d\x0b\x0c\x1c" + "y" * 3000
    (data / "general" / "odd.txt").write_text(odd, encoding="utf-8")
    corpus = corpus_of(config, tmp_path)
    assert odd in texts(corpus, "general").values()


def test_the_text_of_a_dialog_is_its_contents():
    assert document_text(Document("x", messages=(("user", "a"), ("assistant", "b")))) == "a\nb"
    assert document_text(Document("x", "plain")) == "plain"


def test_a_file_whose_name_is_no_text_is_kept_or_named(config, tmp_path, data):
    (data / "math" / os.fsdecode(b"caf\xe9.txt")).write_text("a new text " * 300)
    corpus = corpus_of(config, tmp_path)
    assert len(texts(corpus, "math")) + len(next(x for x in corpus.ledgers if x.name == "math").examples) == 71


DAMAGE = {
    "nothing but a version": lambda values: {"version": 1},
    "a list": lambda values: [values],
    "a number": lambda values: 1,
    "another version": lambda values: values | {"version": 2},
    "a key that is a number": lambda values: values | {"key": 3},
    "ratios that are a list": lambda values: values | {"ratios": [1.0]},
    "a ratio that is a text": lambda values: values | {"ratios": {"domain": "all"}},
    "missing groups that are numbers": lambda values: values | {"missing_groups": [3]},
    "a flag that is a text": lambda values: values | {"dummy": "no"},
    "ledgers that are null": lambda values: values | {"ledgers": None},
    "a ledger that is a text": lambda values: values | {"ledgers": ["math"]},
    "a ledger with more": lambda values: values | {"ledgers": [values["ledgers"][0] | {"more": 1}]},
    "a count that is a text": lambda values: values | {"ledgers": [values["ledgers"][0] | {"kept": "70"}]},
    "a group that is a list": lambda values: values | {"ledgers": [values["ledgers"][0] | {"group": []}]},
    "a ledger without its group": lambda values: values | {"held_out": {}},
    "ids that are numbers": lambda values: values | {"held_out": {group: [7] for group in values["held_out"]}},
    "ids that are a text": lambda values: values | {"held_out": dict.fromkeys(values["held_out"], "abc")},
    "missing groups that are a text": lambda values: values | {"missing_groups": "dialog"},
    "a name that leads out": lambda values: values | {"ledgers": [values["ledgers"][0] | {"name": "../outside"}]},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_manifest_is_no_corpus(ready, tmp_path, damage):
    """Regression: a manifest that was JSON but not ours ended in a traceback."""
    good = collect_corpus(ready).folder
    folder = tmp_path / "corpus"
    folder.mkdir()
    for path in good.iterdir():
        (folder / path.name).symlink_to(path)
    (tmp_path / "outside.jsonl.zst").write_bytes(b"")
    values = json.loads((good / "manifest.json").read_text(encoding="utf-8"))
    assert open_corpus(folder) is not None
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(DAMAGE[damage](values)), encoding="utf-8")
    assert open_corpus(folder) is None


def test_a_corpus_with_a_damaged_manifest_is_collected_again(config, tmp_path):
    key = corpus_of(config, tmp_path).key
    (tmp_path / "corpus" / "manifest.json").write_text('{"version": 1}')
    assert corpus_of(config, tmp_path).key == key
    assert open_corpus(tmp_path / "corpus") is not None
