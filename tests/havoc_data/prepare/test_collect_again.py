"""What is done again when texts or settings change, when a corpus is damaged, and when a process dies."""

from __future__ import annotations

import json
import shutil

import pytest

from havoc_core.errors import DataError
from havoc_data.document import document_text
from havoc_data.prepare.build import collecting
from havoc_data.prepare.collect import collect, inputs_key
from havoc_data.prepare.corpus import open_corpus
from havoc_data.prepare.seal import is_sealed

QUESTION = (
    "A lorry of three tons brakes evenly from ninety kilometres an hour to rest within forty metres; how large is the "
    "force on it, in newtons?"
)


def corpus_of(config):
    return collect(collecting(config))


def texts(corpus, source, **side):
    return {identity: document_text(document) for identity, document in corpus.documents(source, **side)}


def test_it_is_collected_again_only_if_an_input_or_a_setting_has_changed(config, data, changed):
    first = corpus_of(config)
    made = (first.folder / "manifest.json").stat().st_mtime_ns
    assert corpus_of(config).key == first.key == inputs_key(collecting(config))
    assert (first.folder / "manifest.json").stat().st_mtime_ns == made
    (data / "math" / "00.txt").touch()
    assert corpus_of(config).key == first.key  # contents count, not dates
    for settings in (
        {"validation_fraction": 0.1},
        {"domain_ratio": 0.5, "general_ratio": 0.4},
        {"deduplication": {"jaccard": 0.9}},
        {"deduplication": {"paragraphs": "drop"}},
        {"cleaning": {"rules": {"too_short": 3}}},
        {"cleaning": {"personal_data": "mask"}},
    ):
        assert inputs_key(collecting(changed(config, settings))) != first.key
    for settings in ({"num_workers": 3}, {"runner": "inline"}, {"packing": "concatenate"}, {"allow_repeats": True}):
        assert inputs_key(collecting(changed(config, settings))) == first.key
    (data / "math" / "00.txt").write_text("something else " * 200)
    assert corpus_of(config).key != first.key


def test_what_is_looked_for_belongs_to_the_inputs(config, tmp_path, changed):
    exam = tmp_path / "finals.json"
    exam.write_text(json.dumps([{"question": QUESTION}]))
    without = inputs_key(collecting(config))
    looked_for = changed(config, {"decontamination": {"exams": [str(exam)]}})
    key = inputs_key(collecting(looked_for))
    assert key != without
    assert inputs_key(collecting(changed(looked_for, {"decontamination": {"action": "off"}}))) == without
    assert inputs_key(collecting(changed(looked_for, {"decontamination": {"overlap": 0.9}}))) != key
    exam.write_text(json.dumps([{"question": QUESTION + " Explain."}]))
    assert inputs_key(collecting(looked_for)) != key


def test_equal_inputs_give_equal_bytes(config, changed, tmp_path, contents):
    one = corpus_of(config)
    two = corpus_of(changed(config, run_dir=str(tmp_path / "other")))
    assert contents(one.folder) == contents(two.folder)


def test_a_corpus_that_is_not_whole_is_collected_again_from_what_is_left(config, contents):
    corpus = corpus_of(config)
    good = contents(corpus.folder)
    for shard in corpus.shards("math"):
        (shard.part / "seal.json").unlink()
    assert open_corpus(corpus.folder) is None
    assert len(texts(corpus_of(config), "math")) == 70
    for content in ("{", '{"version": 99}', '{"version": 1}'):
        (corpus.folder / "manifest.json").write_text(content)
        assert open_corpus(corpus.folder) is None
        corpus_of(config)
        assert contents(corpus.folder) == good


def test_a_damaged_corpus_is_named(config):
    """Regression: a flipped bit gave other text, or an error of zstandard's."""
    corpus = corpus_of(config)
    path = corpus.shards("math")[0].part / "documents.jsonl.zst"
    good = path.read_bytes()
    for at in range(0, len(good), len(good) // 12):
        damaged = bytearray(good)
        damaged[at] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"documents.jsonl.zst: is damaged \(") as caught:
            texts(corpus, "math")
        assert f"Delete {corpus.folder}" in caught.value.remedy


def test_arrays_that_are_damaged_do_not_decide_about_the_next_corpus(config, data, contents, changed, tmp_path):
    """Regression: a part that was examined before was compared as it lay there, whatever had become of it."""
    corpus = corpus_of(config)
    for shard in corpus.shards("math"):
        for name in ("digests.npy", "signatures.npy", "facts.json"):
            raw = bytearray((shard.part / name).read_bytes())
            raw[-3] ^= 1
            (shard.part / name).write_bytes(raw)
    (data / "stats" / "new.txt").write_text("something new " * 200)
    again = corpus_of(config)
    fresh = corpus_of(changed(config, run_dir=str(tmp_path / "fresh")))
    assert contents(again.folder) == contents(fresh.folder)


def test_a_file_that_comes_is_read_with_nothing_else(lab, lab_config, contents):
    config = lab_config()
    corpus = corpus_of(config)
    assert lab.read() == [f"{number}.txt" for number in range(5)]
    (lab.folder / "new.txt").write_text("A text that has come later and is like no other of them. " * 20)
    later = corpus_of(config)
    assert lab.read() == ["new.txt"]
    assert {part for part, _ in corpus.parts["lab"]} < {part for part, _ in later.parts["lab"]}
    (lab.folder / "1.txt").write_text("Another text in the place of the old one, and a longer one at that. " * 20)
    corpus_of(config)
    assert lab.read() == ["1.txt"]


def test_what_is_no_longer_needed_is_swept_away(lab, lab_config):
    config = lab_config()
    corpus_of(config)
    (lab.folder / "0.txt").write_bytes((lab.folder / "0.txt").read_bytes() + (lab.folder / "4.txt").read_bytes())
    (lab.folder / "4.txt").unlink()
    corpus = corpus_of(config)
    for place, number in (("parts", 0), ("settled", 1)):
        found = {each.name for each in (corpus.folder / place).iterdir()}
        assert found == {pair[number] for pair in corpus.parts["lab"]}
        assert all(is_sealed(corpus.folder / place / name) for name in found)
    assert len(corpus.parts["lab"]) == 4


def test_a_source_that_was_taken_out_leaves_nothing(config, data):
    corpus_of(config)
    shutil.rmtree(data / "stats")
    corpus = corpus_of(config)
    assert "stats" not in corpus.groups
    parts = {part for pairs in corpus.parts.values() for part, _ in pairs}
    assert {each.name for each in (corpus.folder / "parts").iterdir()} == parts


@pytest.mark.parametrize(
    ("settings", "read_again"),
    [
        ({"cleaning": {"rules": {"too_short": 3}}}, True),
        ({"cleaning": {"domain": "drop"}}, True),
        ({"cleaning": {"personal_data": "mask"}}, True),
        ({"deduplication": {"jaccard": 0.9}}, False),
        ({"deduplication": {"paragraphs": "drop"}}, False),
        ({"deduplication": {"domain": "annotate"}}, False),
        ({"validation_fraction": 0.1}, False),
    ],
)
def test_only_what_a_setting_touches_is_done_again(lab, lab_config, contents, settings, read_again):
    before = corpus_of(lab_config())
    lab.read()
    after = corpus_of(lab_config(data=settings))
    assert after.key != before.key
    assert lab.read() == ([f"{number}.txt" for number in range(5)] if read_again else [])
    assert contents(after.folder) == contents(corpus_of(lab_config("fresh", data=settings)).folder)


def test_what_is_done_to_another_group_touches_nothing(lab_config):
    key = inputs_key(collecting(lab_config()))
    assert inputs_key(collecting(lab_config(data={"cleaning": {"general": "annotate"}}))) == key


def test_a_folder_that_is_named_twice_is_read_once_and_its_copies_are_duplicates(lab, lab_config):
    """Regression: two processes wrote into the same folder, and removed what the other one was writing."""
    config = lab_config(data={"sources": [lab.source(), lab.source()], "num_workers": 2})
    corpus = corpus_of(config)
    assert lab.read() == [f"{number}.txt" for number in range(5)]
    sums = corpus.ledgers[0].sums.documents
    assert sums["kept"] + sums["held_out"] == sums["duplicate"] == 150
    assert len(corpus.parts["lab"]) == 10


def test_a_worker_that_is_killed_is_an_error_and_what_was_finished_is_kept(lab, lab_config, contents, undisturbed):
    """The file that kills who reads it is the last: the others are finished, or were at work."""
    config = lab_config(data={"num_workers": 2})
    lab.trap("4.txt", 20)
    with pytest.raises(DataError, match="data.runner: a process that worked on the text died") as caught:
        corpus_of(config)
    assert "What was finished is kept; call it again to go on." in caught.value.remedy
    folder = collecting(config).folder
    finished = [each for each in (folder / "parts").iterdir() if not each.name.startswith(".")]
    assert all(map(is_sealed, finished))
    assert open_corpus(folder) is None
    lab.read()
    corpus_of(config)
    assert len(lab.read()) == 5 - len(finished)
    assert contents(folder) == contents(undisturbed / "corpus")
