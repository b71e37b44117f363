"""A part and what was decided about it -> its final ledger, and the documents as they are learnt."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from havoc_core.config import CleaningConfig
from havoc_core.errors import DataError
from havoc_data.document import Document, Rejected
from havoc_data.prepare.compare import Verdict
from havoc_data.prepare.duplicates import paragraphs
from havoc_data.prepare.examine import Examination, ExamineTask, examine
from havoc_data.prepare.ledger import DUPLICATE, HELD_OUT, KEPT, NEAR_DUPLICATE
from havoc_data.prepare.seal import is_sealed
from havoc_data.prepare.settle import NOTHING_SETTLED, CorpusShard, SettleTask, read_lines, settle

EXAMINATION = Examination(CleaningConfig(), "off", False, "off", None, "", 0.8)
LONG = "One sentence of a paragraph that is long enough to be compared with others, whatever it says. " * 3


class Fake:
    """A part made of given items."""

    def __init__(self, items):
        self.items, self.key = items, repr(items)

    def documents(self):
        return iter(self.items)

    def sizes(self):
        return {}


@pytest.fixture
def part(tmp_path):
    """Items -> the folder of an examined part in a corpus."""

    def make(items):
        folder = tmp_path / "corpus" / "parts"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / examine(ExamineTask(Fake(items), "math", "lab", EXAMINATION, folder))

    return make


def settled(part, fates, *, survivors=None, repeated=None, cut=False):
    count = int(np.load(part / "num_paragraphs.npy").sum())
    verdict = Verdict(
        np.array(fates, dtype=np.uint8),
        np.zeros((len(fates), 16), dtype=np.uint8) if survivors is None else survivors,
        np.zeros(count, dtype=bool) if repeated is None else np.array(repeated, dtype=bool),
    )
    folder = part.parents[1] / "settled"
    folder.mkdir(exist_ok=True)
    return CorpusShard(part, folder / settle(SettleTask(part, verdict, cut, folder)))


def five(part):
    """One document of each fate, and a reject between them."""
    items = [Document(str(i), f"text {i}", licence="MIT" if i < 2 else None) for i in range(4)]
    folder = part([*items[:2], Rejected("r", "broken", 9), *items[2:]])
    survivors = np.zeros((4, 16), dtype=np.uint8)
    survivors[2:] = 7
    return settled(folder, [KEPT, HELD_OUT, DUPLICATE, NEAR_DUPLICATE], survivors=survivors)


def test_every_line_of_the_ledger_has_its_fate(part):
    lines = list(five(part).ledger_lines())
    found = {line["spans"][0][0]: line for line in lines}
    assert {origin: line["fate"] for origin, line in found.items()} == {
        "0": "kept", "1": "held_out", "2": "duplicate", "3": "near_duplicate", "r": "unreadable"
    }  # fmt: skip
    assert found["2"]["like"] == found["3"]["like"] == "07" * 16
    assert "like" not in found["0"]
    assert found["r"]["reason"] == "broken"


def test_the_sums_are_those_of_the_lines_and_licences_those_of_what_is_learnt(part):
    values = json.loads((five(part).settled / "sums.json").read_text())
    assert values["sums"]["documents"] == {
        "kept": 1, "held_out": 1, "duplicate": 1, "near_duplicate": 1, "unreadable": 1
    }  # fmt: skip
    assert values["sums"]["input_bytes"] == {
        "kept": 6, "held_out": 6, "duplicate": 6, "near_duplicate": 6, "unreadable": 9
    }  # fmt: skip
    assert values["licences"] == {"MIT": 1}
    assert sum(values["lengths"].values()) == 2
    assert values.keys() == NOTHING_SETTLED.keys()


def test_documents_come_by_their_side(part):
    shard = five(part)
    sides = {side: [d.text for _, d in shard.documents(held_out=side)] for side in (None, True, False)}
    assert sides == {None: ["text 0", "text 1"], True: ["text 1"], False: ["text 0"]}


def test_a_document_comes_back_as_it_went_in(part):
    items = [
        Document("a.tex", "x\u2028y\x85 \x0b\x1c", ordinal=3, start=5, end=9, licence="MIT"),
        Document("b", messages=(("user", "q\u2029"), ("assistant", "a"))),
    ]
    assert [document for _, document in settled(part(items), [KEPT, KEPT]).documents()] == items


@pytest.mark.parametrize("cut", [True, False])
def test_repeated_paragraphs_are_cut_out_or_counted_and_the_rest_stays_as_it_was(part, cut):
    text = f"  Head\n\n{LONG}A\n\n  middle \n\n\n{LONG}B\n \n{LONG}C\ntail"
    shard = settled(part([Document("a", text)]), [KEPT], repeated=[True, False, True], cut=cut)
    found = next(document.text for _, document in shard.documents())
    assert found == (f"  Head\n\n\n\n  middle \n\n\n{LONG}B\n \n" if cut else text)
    values = json.loads((shard.settled / "sums.json").read_text())
    assert values["repeated_paragraphs"] == 2
    assert values["repeated_paragraph_bytes"] == len(f"{LONG}A{LONG}C\ntail")


PIECES = st.lists(st.sampled_from([LONG + "1", LONG + "2 é∑", "short", "", "  ", LONG + "\n3"]), max_size=6)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(PIECES, min_size=1, max_size=3), data=st.data())
def test_whatever_is_cut_all_else_stays_in_its_order(part, texts, data):
    texts = ["\n\n".join(pieces) for pieces in texts]
    places = [paragraphs(text) for text in texts]
    marks = [[data.draw(st.booleans()) for _ in each] for each in places]
    folder = part([Document(str(n), text, ordinal=n) for n, text in enumerate(texts)])
    shard = settled(folder, [KEPT] * len(texts), repeated=[*chain(*marks)], cut=True)
    for (_, document), text, where, marked in zip(shard.documents(), texts, places, marks, strict=True):
        left, position = "", 0
        for (start, end), is_cut in zip(where, marked, strict=True):
            left, position = left + text[position : start if is_cut else end], end
        left += text[position:]
        assert document.text == (left if left.strip() else text)


def test_a_document_of_which_nothing_would_be_left_stays_whole(part):
    """Regression: it was learnt as a beginning and an end without any text."""
    shard = settled(part([Document("a", LONG)]), [KEPT], repeated=[True], cut=True)
    assert [document.text for _, document in shard.documents()] == [LONG]


def test_a_part_is_settled_again_only_if_something_was_decided_otherwise(part):
    folder = part([Document("a", "one"), Document("b", "two")])
    first = settled(folder, [KEPT, KEPT])
    made = first.settled.stat().st_ino
    assert settled(folder, [KEPT, KEPT]) == first
    assert first.settled.stat().st_ino == made
    assert settled(folder, [KEPT, HELD_OUT]) != first
    assert settled(folder, [KEPT, KEPT], cut=True) != first
    survivors = np.ones((2, 16), dtype=np.uint8)
    assert settled(folder, [KEPT, KEPT], survivors=survivors) != first


def test_what_was_settled_and_is_damaged_is_settled_again(part, contents):
    folder = part([Document("a", LONG), Document("b", "two")])
    shard = settled(folder, [KEPT, HELD_OUT])
    good = contents(shard.settled)
    assert set(good) == {"fates.npy", "repeated.npy", "ledger.jsonl.zst", "sums.json", "seal.json"}
    for name in good:
        (shard.settled / name).write_bytes(good[name][:-1] + bytes([good[name][-1] ^ 1]))
        assert not is_sealed(shard.settled)
        settled(folder, [KEPT, HELD_OUT])
        assert contents(shard.settled) == good


def flipped(path, step):
    """Damage one bit here, then there."""
    good = path.read_bytes()
    for at in range(0, len(good), max(1, len(good) // step)):
        damaged = bytearray(good)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        yield at
    path.write_bytes(good)


@pytest.mark.parametrize("name", ["documents.jsonl.zst", "num_paragraphs.npy", "seal.json"])
def test_one_flipped_bit_in_a_part_is_refused_by_name(part, name):
    """Regression: other fates, other paragraphs or another text were learnt without a word."""
    folder = part([Document(str(i), LONG + str(i)) for i in range(5)])
    shard = settled(folder, [KEPT] * 5, repeated=[True, False, True, False, True], cut=True)
    for _ in flipped(folder / name, 25):
        with pytest.raises(DataError, match=r"is damaged \(") as caught:
            list(shard.documents())
        assert caught.value.where == str(folder / name)
        assert caught.value.remedy == f"Delete {folder.parents[1]}: the text is then collected again."
    assert len(list(shard.documents())) == 5


@pytest.mark.parametrize("name", ["fates.npy", "repeated.npy", "ledger.jsonl.zst", "seal.json"])
def test_one_flipped_bit_in_what_was_settled_is_refused_by_name(part, name):
    shard = settled(part([Document(str(i), LONG + str(i)) for i in range(5)]), [KEPT, HELD_OUT] * 2 + [KEPT])
    for _ in flipped(shard.settled / name, 25):
        with pytest.raises(DataError, match=r"is damaged \(") as caught:
            list(shard.ledger_lines() if name == "ledger.jsonl.zst" else shard.documents())
        assert caught.value.where == str(shard.settled / name)
        assert "the text is then collected again" in caught.value.remedy


def test_lines_that_are_no_lines_are_refused(part, tmp_path):
    path = tmp_path / "corpus" / "parts" / "x" / "lines.jsonl.zst"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no zstandard")
    with pytest.raises(DataError, match=r"lines.jsonl.zst: is damaged \(.* the text is then collected again"):
        list(read_lines(path))
    path.unlink()
    with pytest.raises(DataError, match=r"is damaged \(.*No such file"):
        list(read_lines(path))
