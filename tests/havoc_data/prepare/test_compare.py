"""What is decided about a document by all the others."""

from __future__ import annotations

import random

import numpy as np
import pytest

from havoc_core.config import CleaningConfig, DeduplicationConfig
from havoc_core.errors import DataError
from havoc_data.document import MIN_HELD_OUT_BYTES, Document
from havoc_data.prepare.compare import PartEntry, compare
from havoc_data.prepare.examine import Examination, ExamineTask, examine
from havoc_data.prepare.ledger import DUPLICATE, HELD_OUT, KEPT, NEAR_DUPLICATE

EXAMINATION = Examination(CleaningConfig(), "off", True, "off", None, "", 0.8)


class Fake:
    """A part without files, made of texts and dialogs."""

    def __init__(self, key, documents):
        self.key = key
        self._documents = documents

    def documents(self):
        return iter(self._documents)

    def sizes(self):
        return {}


def text(seed, words=400):
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(5000)}" for _ in range(words))


def changed(original, share, seed=0):
    """The text with a share of its words replaced."""
    draw, words = random.Random(seed), original.split()
    for place in draw.sample(range(len(words)), int(share * len(words))):
        words[place] = f"new{draw.randrange(10**9)}"
    return " ".join(words)


@pytest.fixture
def decide(tmp_path):
    """Parts as {(source, group): [documents or texts]} -> {source: [(fate, whom it is like)]}, with the ids."""

    def run(sources, *, fraction=None, **settings):
        entries = []
        for (source, group), texts in sources.items():
            documents = [t if isinstance(t, Document) else Document(f"{n}.txt", t) for n, t in enumerate(texts)]
            task = ExamineTask(Fake(f"{source} {documents}", documents), source, "lab", EXAMINATION, tmp_path)
            entries.append(PartEntry(source, group, examine(task)))
        return entries, compare(entries, tmp_path, deduplication=DeduplicationConfig(**settings), fraction=fraction)

    return run


def ids(tmp_path, entry, name="digests"):
    return [row.tobytes() for row in np.load(tmp_path / entry.key / f"{name}.npy")]


def fates(compared):
    return [verdict.fates.tolist() for verdict in compared.verdicts]


def test_of_equal_documents_in_any_source_and_group_the_smallest_stable_id_survives(decide, tmp_path):
    same, talk = text(1), Document("t", messages=(("user", text(1)),))
    entries, compared = decide(
        {("a", "domain"): [same, text(2)], ("b", "general"): [text(3), same], ("c", "dialog"): [talk, talk, same]}
    )
    copies = [(0, 0), (1, 1), (2, 2)]
    stable = {place: ids(tmp_path, entries[place[0]], "stable_ids")[place[1]] for place in copies}
    survivor = min(copies, key=stable.__getitem__)
    for part, number in copies:
        verdict = compared.verdicts[part]
        assert verdict.fates[number] == (KEPT if (part, number) == survivor else DUPLICATE)
        like = verdict.survivors[number].tobytes()
        assert like == (bytes(16) if (part, number) == survivor else ids(tmp_path, entries[0])[0])
    assert sorted(compared.verdicts[2].fates[:2].tolist()) == [KEPT, DUPLICATE], "a dialog is no copy of a text"
    assert sum(fate == KEPT for part in fates(compared) for fate in part) == 4


@pytest.mark.parametrize("action", ["drop", "annotate", "off"])
@pytest.mark.parametrize("group", ["domain", "general", "dialog"])
def test_near_duplicates_are_dropped_annotated_or_not_looked_for(decide, tmp_path, group, action):
    original = text(1)
    entries, compared = decide({("a", group): [original, changed(original, 0.02), text(2)]}, **{group: action})
    verdict = compared.verdicts[0]
    stable = ids(tmp_path, entries[0], "stable_ids")
    other = int(stable[1] > stable[0])  # the one of the two that does not survive
    expected = [KEPT] * 3
    expected[other] = NEAR_DUPLICATE if action == "drop" else KEPT
    assert verdict.fates.tolist() == expected
    named = [bytes(16)] * 3
    named[other] = bytes(16) if action == "off" else ids(tmp_path, entries[0])[1 - other]
    assert [row.tobytes() for row in verdict.survivors] == named


def test_by_default_dialogs_that_differ_in_their_numbers_are_all_kept(decide):
    original = text(1)
    both = [original, changed(original, 0.02)]
    _, compared = decide({("a", "domain"): both, ("b", "dialog"): [changed(each, 0.5, 7) for each in both]})
    assert sorted(compared.verdicts[0].fates.tolist()) == [KEPT, NEAR_DUPLICATE]


def test_texts_that_are_less_alike_than_asked_are_kept(decide):
    original = text(1)
    _, compared = decide({("a", "domain"): [original, changed(original, 0.02)]}, jaccard=0.99)
    assert fates(compared) == [[KEPT, KEPT]]


def test_whom_a_document_is_like_was_always_kept(decide, tmp_path):
    """Regression: a copy named the document it is equal to, even where that one was left out as near-duplicate of a third."""
    for seed in range(12):  # the order of the stable ids is that of a hash: both orders are met
        original = text(seed)
        near = changed(original, 0.02)
        sources = {(f"a{seed}", "domain"): [original, near], (f"b{seed}", "general"): [near, text(50 + seed), original]}
        entries, compared = decide(sources)
        kept, named = set(), set()
        for entry, verdict in zip(entries, compared.verdicts, strict=True):
            for identity, fate, like in zip(ids(tmp_path, entry), verdict.fates, verdict.survivors, strict=True):
                if fate <= HELD_OUT:
                    kept.add(identity)
                else:
                    named.add(like.tobytes())
        assert named <= kept
        assert bytes(16) not in named


def test_who_is_decided_about_does_not_depend_on_the_order_of_the_parts(decide, tmp_path):
    originals = [text(seed, 60) for seed in range(60)]
    pool = originals + [changed(each, 0.02) for each in originals[:20]] + originals[:15]
    sources = {("a", "domain"): pool[0::3], ("b", "general"): pool[1::3], ("c", "dialog"): pool[2::3]}

    def decided(names):
        entries, compared = decide({name: sources[name] for name in names}, paragraphs="drop")
        out = {}
        for entry, verdict in zip(entries, compared.verdicts, strict=True):
            out[entry.source] = (verdict.fates.tolist(), verdict.survivors.tolist(), verdict.repeated.tolist())
        return out

    assert decided(list(sources)) == decided(list(sources)[::-1])


@pytest.fixture
def large(decide):
    """Sixty documents of 2 kB in each of two groups."""

    def run(fraction):
        texts = {
            (name, group): [text(1000 * number + i, 360) for i in range(60)]
            for number, (name, group) in enumerate((("a", "domain"), ("b", "domain"), ("c", "general")))
        }
        return decide(texts, fraction=fraction)

    return run


@pytest.mark.parametrize("fraction", [0.01, 0.3])
def test_the_texts_with_the_lowest_hashes_are_held_out_at_least_32_kib_a_group(large, tmp_path, fraction):
    entries, compared = large(fraction)
    for group in ("domain", "general"):
        inside = [
            (identity, int(size), int(fate))
            for entry, verdict in zip(entries, compared.verdicts, strict=True)
            if entry.group == group
            for identity, size, fate in zip(
                ids(tmp_path, entry), np.load(tmp_path / entry.key / "text_bytes.npy"), verdict.fates, strict=True
            )
        ]
        in_order = sorted(inside)
        held_out = [each for each in in_order if each[2] == HELD_OUT]
        assert held_out == in_order[: len(held_out)]
        below = [each for each in in_order if int.from_bytes(each[0], "big") < int(fraction * 2**128)]
        taken = sum(size for _, size, _ in held_out)
        assert taken >= MIN_HELD_OUT_BYTES
        assert held_out == below or taken - held_out[-1][1] < MIN_HELD_OUT_BYTES


def test_nothing_is_held_out_where_that_is_not_wanted(large):
    _, compared = large(None)
    assert {fate for part in fates(compared) for fate in part} == {KEPT}


@pytest.mark.parametrize("number", [5, 30])
def test_a_group_too_small_to_hold_anything_out_is_refused(decide, number):
    """Five documents are less than 32 KiB; of thirty, more than half would be needed."""
    texts = [text(seed, 360) for seed in range(number)]
    size = sum(map(len, texts))
    with pytest.raises(DataError) as caught:
        decide({("a", "general"): texts}, fraction=0.02)
    assert caught.value.where == "group general"
    assert caught.value.found == f"{size:,} bytes in {number} documents are too little to hold 32,768 of them out."
    assert (
        caught.value.remedy
        == "Add text to the group, split its files if they are few and large, or leave the group out."
    )


def test_one_large_document_cannot_be_held_out(decide):
    with pytest.raises(DataError, match="in 1 documents are too little"):
        decide({("a", "general"): [text(1, 20_000)]}, fraction=0.02)


def test_a_group_of_which_all_are_duplicates_of_another_is_not_held_out_from(decide):
    """It has no text of its own; `collect` refuses a source that is empty."""
    texts = [text(seed, 360) for seed in range(60)]
    _, compared = decide({("a", "domain"): texts}, fraction=0.02)
    assert fates(compared)[0].count(HELD_OUT) >= 16


PARAGRAPH = "A paragraph that stands in several documents, such as a preface. " * 5


@pytest.mark.parametrize("action", ["annotate", "drop", "off"])
def test_a_paragraph_is_repeated_in_all_documents_but_that_with_the_smallest_stable_id(decide, tmp_path, action):
    texts = [f"{PARAGRAPH}\n\n{text(i, 80)}\n\n{PARAGRAPH}" for i in range(3)]
    entries, compared = decide({("a", "domain"): texts}, paragraphs=action)
    stable = ids(tmp_path, entries[0], "stable_ids")
    first = stable.index(min(stable))
    repeated = compared.verdicts[0].repeated.reshape(3, 3).tolist()
    wanted = [[number != first, False, number != first] for number in range(3)]
    assert repeated == (wanted if action != "off" else [[False] * 3] * 3)


def test_a_paragraph_is_not_repeated_because_a_document_that_was_left_out_has_it(decide):
    once = f"{PARAGRAPH}\n\n{text(1, 300)}"
    _, compared = decide({("a", "domain"): [once, once]}, paragraphs="drop")
    assert sorted(fates(compared)[0]) == [KEPT, DUPLICATE]
    assert not compared.verdicts[0].repeated.any()


def test_families_of_texts_that_differ_in_their_numbers_are_counted(decide):
    exercises = [f"Find the mean of {n}, {n + 3} and {7 * n}." for n in range(5)]
    _, compared = decide({("a", "domain"): [text(1)], ("b", "dialog"): exercises}, domain="off")
    assert [(part, count) for part, _, count in compared.families] == [(1, 5)]


def test_parts_without_documents_and_no_parts_at_all_are_compared(decide):
    _, compared = decide({("a", "domain"): [], ("b", "domain"): [text(1)], ("c", "general"): []}, paragraphs="drop")
    assert fates(compared) == [[], [KEPT], []]
    _, compared = decide({}, fraction=0.02)
    assert (compared.verdicts, compared.families) == ((), ())


def test_nothing_is_left_beside_the_parts(decide, tmp_path):
    entries, _ = decide({("a", "domain"): [text(1), text(2)]})
    assert {each.name for each in tmp_path.iterdir()} == {entry.key for entry in entries}
