"""A corpus on disk: what is not whole is none, and a manifest is only text."""

from __future__ import annotations

import json

import pytest

from havoc_core.errors import DataError
from havoc_data.prepare.build import collect_corpus, collecting
from havoc_data.prepare.collect import collect
from havoc_data.prepare.corpus import VERSION, manifest_of, open_corpus
from havoc_data.prepare.exams import Contamination
from havoc_data.prepare.seal import checksum_of


def test_a_corpus_that_is_opened_is_the_one_that_was_collected(ready):
    corpus = collect_corpus(ready)
    opened = open_corpus(corpus.folder)
    assert opened == corpus
    assert json.dumps(manifest_of(opened)) == json.dumps(manifest_of(corpus))


def test_the_sources_of_a_corpus_have_groups_ledgers_parts_and_facts(ready):
    corpus = collect_corpus(ready)
    assert corpus.groups == {"dialog": "dialog", "general": "general", "math": "domain", "stats": "domain"}
    assert corpus.parts.keys() == corpus.facts.keys() == corpus.groups.keys()
    assert corpus.contamination == ()
    lines = list(corpus.ledger_lines("math"))
    assert len(lines) == 70
    assert {line["fate"] for line in lines} == {"kept", "held_out"}


def test_questions_that_were_found_are_records(config, changed, data):
    question = (
        "A lorry of three tons brakes from ninety kilometres an hour to rest in forty metres; how large is the force?"
    )
    exam = data.parent / "finals.json"
    exam.write_text(json.dumps([{"id": "q7", "question": question}]))
    (data / "math" / "leak.txt").write_text("Some words before it. " * 5 + question + " And some words after it." * 5)
    looked_for = {"decontamination": {"exams": [str(exam)], "action": "annotate"}}
    corpus = collect(collecting(changed(config, looked_for)))
    assert corpus.contamination == (Contamination("finals", "q7", 1.0, "math", "leak.txt", "annotate"),)
    assert open_corpus(corpus.folder).contamination == corpus.contamination
    assert corpus.questions == {"finals": 1}


DAMAGE = {
    "nothing but a version": lambda values: {"version": VERSION},
    "another version": lambda values: values | {"version": VERSION + 1},
    "a key that is a number": lambda values: values | {"key": 3},
    "ratios that are a list": lambda values: values | {"ratios": [1.0]},
    "a ratio that is a text": lambda values: values | {"ratios": {"domain": "all"}},
    "missing groups that are numbers": lambda values: values | {"missing_groups": [3]},
    "ledgers that are null": lambda values: values | {"ledgers": None},
    "a ledger that is a text": lambda values: values | {"ledgers": ["math"]},
    "a ledger too few": lambda values: values | {"ledgers": values["ledgers"][1:]},
    "a ledger with more in its sums": lambda values: (
        values | {"ledgers": [values["ledgers"][0] | {"sums": {"more": {}}}, *values["ledgers"][1:]]}
    ),
    "facts of other sources": lambda values: values | {"facts": {"elsewhere": {}}},
    "facts that are a number": lambda values: values | {"facts": 3},
    "parts that are a list": lambda values: values | {"parts": []},
    "a part that is a number": lambda values: values | {"parts": values["parts"] | {"math": [3]}},
    "a part with three names": lambda values: values | {"parts": values["parts"] | {"math": [["a" * 32] * 3]}},
    "a name that leads out": lambda values: values | {"parts": values["parts"] | {"math": [["../../" + "a" * 26] * 2]}},
    "a name that is no hash": lambda values: values | {"parts": values["parts"] | {"math": [["A" * 32] * 2]}},
    "lines of files not read that lead out": lambda values: values | {"unread": values["unread"] | {"math": "../../x"}},
    "lines of files not read that are not there": lambda values: (
        values | {"unread": values["unread"] | {"math": "a" * 32}}
    ),
    "lines of files not read of other sources": lambda values: values | {"unread": {}},
    "a part that is not there": lambda values: values | {"parts": values["parts"] | {"math": [["a" * 32] * 2]}},
    "families that are numbers": lambda values: values | {"families": [1]},
    "questions that are a list": lambda values: values | {"questions": ["exam"]},
}


@pytest.fixture
def linked(ready, tmp_path):
    """The values of the manifest of a good corpus, and a folder in which all of it is but the manifest."""
    good = collect_corpus(ready).folder
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("parts", "settled", "unread"):
        (folder / name).symlink_to(good / name)
    return json.loads((good / "manifest.json").read_text(encoding="utf-8")), folder


def write(folder, values, *, checksum=True):
    if checksum:
        values = {name: value for name, value in values.items() if name != "checksum"}
        values["checksum"] = checksum_of(values)
    (folder / "manifest.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_manifest_that_is_not_ours_is_no_corpus(linked, damage):
    """Regression: a manifest that was JSON but not ours ended in a traceback. Here its checksum fits."""
    values, folder = linked
    write(folder, values)
    assert open_corpus(folder) is not None
    write(folder, DAMAGE[damage](values))
    assert open_corpus(folder) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '"text"', '{"version": 99}', '{"version": 3}', "{}"])
def test_what_is_no_manifest_is_no_corpus(linked, content):
    _, folder = linked
    (folder / "manifest.json").write_text(content)
    assert open_corpus(folder) is None
    assert open_corpus(folder / "nowhere") is None


def test_a_value_that_was_changed_without_its_checksum_is_no_corpus(linked):
    """Regression: a flipped digit in a ratio was taken for the truth."""
    values, folder = linked
    assert values["ratios"]["domain"] == 0.6
    write(folder, values | {"ratios": values["ratios"] | {"domain": 0.7}}, checksum=False)
    assert open_corpus(folder) is None


def test_one_flipped_bit_anywhere_in_the_manifest_is_no_corpus(linked):
    values, folder = linked
    write(folder, values)
    good = (folder / "manifest.json").read_bytes()
    for at in range(0, len(good), len(good) // 150):
        damaged = bytearray(good)
        damaged[at] ^= 1 << at % 8
        (folder / "manifest.json").write_bytes(damaged)
        found = open_corpus(folder)
        # A bit may make a blank of JSON another blank: then it says the same.
        assert found is None or json.loads(damaged) == json.loads(good), at


def test_files_that_no_reader_takes_have_their_lines_and_a_flipped_bit_in_them_is_refused(config, data):
    for number in range(60):
        (data / "math" / f"picture{number}.png").write_bytes(b"\x89PNG" * number)
    corpus = collect_corpus(config)
    lines = [line for line in corpus.ledger_lines("math") if line["fate"] == "no_reader"]
    assert {line["spans"][0][0] for line in lines} == {f"picture{number}.png" for number in range(60)}
    assert sum(line["bytes"] for line in lines) == 4 * sum(range(60))
    path = corpus.folder / "unread" / corpus.unread["math"]
    good = path.read_bytes()
    for bit in [*range(8 * 12), *range(8 * 12, 8 * len(good), 101)]:
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert [line for line in corpus.ledger_lines("math") if line["fate"] == "no_reader"] == lines
        except DataError as error:
            assert error.where == str(path)
            assert error.found == "is damaged (its contents are not what its name says)."
            assert error.remedy == f"Delete {corpus.folder}: the text is then collected again."
    path.unlink()
    assert open_corpus(corpus.folder) is None


def test_a_corpus_of_which_a_part_is_missing_is_none(config):
    corpus = collect_corpus(config)
    for shard in corpus.shards("math"):
        for folder in (shard.part, shard.settled):
            path = folder / "seal.json"
            content = path.read_bytes()
            path.unlink()
            assert open_corpus(corpus.folder) is None
            path.write_bytes(content)
    assert open_corpus(corpus.folder) is not None


def test_files_that_no_reader_takes_have_their_lines_in_the_ledger(config, data):
    """Regression: only the first fifty of a source were named anywhere."""
    for number in range(80):
        (data / "math" / f"{number}.png").write_bytes(b"x" * (number + 1))
    corpus = collect_corpus(config)
    lines = [line for line in corpus.ledger_lines("math") if line["fate"] == "no_reader"]
    assert sorted(line["bytes"] for line in lines) == list(range(1, 81))
    assert all(line["spans"][0][0].endswith(".png") and line["reason"] for line in lines)
    assert corpus.facts["math"]["endings"] == {".png": 80}
