"""Which examination questions a text holds.

A question counts as held when its words (see exam_words) stand in the text, in their order:

* 20 words and more: a share `overlap` of them within a window little longer than the question, rare ones counting more,
  and every one of its numbers and signs. The same question about other numbers is another question;
* 8 to 19 words: all of them, one after another;
* 5 to 7 words: the same, and within the next 50 words the answer, which must be of three characters or more;
* fewer, or without such an answer: it is not looked for. What is so short stands in many texts that hold no exam.

A question is looked for by its word 8-grams: an index says which questions have one. Where a question's n-grams weigh
log(1 + questions / questions that have it), those of a template weigh little, and only a question of whose weight the
text holds a good part is compared word for word. The weight of a word is the mean of its n-grams.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from havoc_data.prepare.exam_files import EXAM_SUITE, ExamItem, problem_items, read_exam
from havoc_data.prepare.exam_match import (
    GRAM,
    LONG,
    SHORT_GRAM,
    Place,
    Question,
    held_in_part,
    held_whole,
    make_question,
)
from havoc_data.prepare.exam_words import Hashes, Places, Words, eight_grams, five_grams, words_of

__all__ = [
    "EXAM_SUITE", "VERSION", "Contamination", "ExamIndex", "ExamItem", "Hit", "problem_items", "read_exam", "touched_items",
]  # fmt: skip

VERSION = 1
"""Raised whenever the same text and questions would give other hits."""

_ANSWER_CHARACTERS = 3
_SUSPECT_SHARE = 0.3
"""Share of a question's n-gram weight, times `overlap`, that the text must hold before words are compared. With one word in
twenty changed, two thirds of the weight are left; of another question from the same template, rarely as much as this."""
_MARGIN = 8
"""Words on either side of where a question should lie that are looked at too; and by which its n-grams may differ about
where it begins, or a quarter of its length if that is more: so much may have been put in or left out."""
_PLACES_TRIED = 4
_BATCH_CHARACTERS = 1 << 16
_SLOTS_PER_GRAM = 32
"""Places in the table that is asked first, for every n-gram in the index: one in 32 others gets past it."""


@dataclass(frozen=True)
class Hit:
    """A question that a text holds."""

    item: int
    """Its place in `ExamIndex.items`."""
    overlap: float
    """Share of its words that the text holds, by weight; 1.0 where it is held whole."""
    start: int
    """First character of the text where it lies."""
    end: int
    """One past the last character."""


@dataclass(frozen=True)
class Contamination:
    """A question that was found in a document while the corpus was made."""

    suite: str
    name: str
    """As in ExamItem."""
    overlap: float
    source: str
    origin: str
    """Of the document."""
    action: str
    """What was done about the document: drop or annotate."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Contamination:
        """What `to_dict` gave.

        Raises:
            TypeError: a value is missing, of another type, or too many.
        """
        found = cls(**values)
        if not all(isinstance(value, str | float) for value in astuple(found)) or not isinstance(found.overlap, float):
            raise TypeError(f"{values!r} is no record of a question that was found")
        return found


@dataclass(frozen=True, eq=False)
class ExamIndex:
    """Questions, ready to be looked for. It can be pickled, and is quickly made again: half a millisecond a question."""

    items: tuple[ExamItem, ...]
    overlap: float
    key: str
    """Hex digest of all that the hits depend on besides the text."""
    too_short: tuple[int, ...]
    """Items that are not looked for, since they are too short to be told from chance."""
    _questions: tuple[Question | None, ...]
    _grams: Hashes
    """[G], every n-gram of any question, ascending."""
    _weights: NDArray[np.float64]
    """[G]"""
    _bounds: Places
    """[G + 1], where the postings of an n-gram lie."""
    _posted_item: Places
    """[P], the item of a posting,"""
    _posted_offset: Places
    """[P], and the word of its question at which the n-gram begins."""
    _totals: NDArray[np.float64]
    """[items], weight of all postings of an item."""
    _table: NDArray[np.bool_]
    """Whether any n-gram of the index has these upper bits."""
    _any_short: bool
    """Whether any question is looked for by five words."""

    @classmethod
    def of(cls, items: Iterable[ExamItem], *, overlap: float) -> ExamIndex:
        """An index of these items.

        Args:
            items: in the order in which hits name them.
            overlap: in (0, 1], share of a long question's words that a text must hold.
        """
        items = tuple(items)
        words = [words_of(item.question) for item in items]
        answers = [words_of(item.answer) for item in items]
        sought = [_is_sought(w, a, item.answer) for w, a, item in zip(words, answers, items, strict=True)]
        seeds = [_seeds(w) if is_sought else _seeds(words_of("")) for w, is_sought in zip(words, sought, strict=True)]
        lengths = np.array([len(seed) for seed in seeds], np.int64)
        posted = np.concatenate([np.zeros(0, np.uint64), *seeds])
        of_item = np.repeat(np.arange(len(items)), lengths)
        offsets = np.concatenate([np.zeros(0, np.int64), *(np.arange(length) for length in lengths)])
        order = np.lexsort((offsets, of_item, posted))
        grams, firsts, inverse = np.unique(posted[order], return_index=True, return_inverse=True)
        pairs = np.unique(np.stack([inverse, of_item[order]]), axis=1)
        weights = np.log1p(len(items) / np.maximum(np.bincount(pairs[0], minlength=len(grams)), 1))
        posted_weight = np.zeros(len(order))
        posted_weight[order] = weights[inverse]
        ends = np.cumsum(lengths)
        questions = [
            make_question(w, posted_weight[end - length : end], a) if is_sought else None
            for w, a, is_sought, end, length in zip(words, answers, sought, ends, lengths, strict=True)
        ]
        bits = max(10, (_SLOTS_PER_GRAM * max(1, len(grams)) - 1).bit_length())
        table = np.zeros(1 << bits, np.bool_)
        table[grams >> np.uint64(64 - bits)] = True
        return cls(
            items=items,
            overlap=overlap,
            key=_key(items, overlap),
            too_short=tuple(i for i, is_sought in enumerate(sought) if not is_sought),
            _questions=tuple(questions),
            _grams=grams,
            _weights=weights,
            _bounds=np.append(firsts, len(posted)),
            _posted_item=of_item[order],
            _posted_offset=offsets[order],
            _totals=np.bincount(of_item, posted_weight, minlength=len(items)).astype(np.float64),
            _table=table,
            _any_short=any(question is not None and len(question.answer) for question in questions),
        )

    def find(self, text: str) -> tuple[Hit, ...]:
        """The questions that a text holds, each once, in the order of the items."""
        words = words_of(text)
        positions, grams = self._seeds_in(words.hashes)
        if len(positions) == 0:
            return ()
        counts = self._bounds[grams + 1] - self._bounds[grams]
        ends = np.cumsum(counts)
        postings = np.arange(ends[-1]) + np.repeat(self._bounds[grams] - (ends - counts), counts)
        places = np.repeat(positions, counts)
        once = np.unique(postings)
        of_once = self._posted_item[once]
        weight_of = self._weights[np.searchsorted(self._bounds, once, side="right") - 1]
        held = np.bincount(of_once, weight_of, minlength=len(self.items))
        suspects = np.flatnonzero(held >= _SUSPECT_SHARE * self.overlap * np.maximum(self._totals, 1e-12))
        of_posting = self._posted_item[postings]
        hits = []
        for item in suspects.tolist():
            mine = np.flatnonzero(of_posting == item)
            hit = self._confirm(item, words, places[mine], self._posted_offset[postings[mine]])
            if hit is not None:
                hits.append(hit)
        return tuple(hits)

    def find_each(self, texts: Sequence[str]) -> list[tuple[Hit, ...]]:
        """As `find` for every text, but much faster for many short ones: they are looked through together first."""
        found: list[tuple[Hit, ...]] = [()] * len(texts)
        for first, last in _batches(texts):
            words = words_of("\n\n".join(texts[first:last]))
            positions, _ = self._seeds_in(words.hashes)
            lengths = np.array([len(text) + 2 for text in texts[first:last]], np.int64)
            # What lies across two texts makes them suspects, and nothing more.
            for number in np.unique(
                np.searchsorted(np.cumsum(lengths), words.starts[positions], side="right")
            ).tolist():
                found[first + number] = self.find(texts[first + number])
        return found

    def _seeds_in(self, hashes: Hashes) -> tuple[Places, Places]:
        """(first word, n-gram) of every n-gram of the index in a text."""
        positions, grams = self._look_up(eight_grams(hashes))
        if self._any_short:
            short_positions, short_grams = self._look_up(five_grams(hashes))
            positions, grams = np.append(positions, short_positions), np.append(grams, short_grams)
        return positions, grams

    def _look_up(self, hashes: Hashes) -> tuple[Places, Places]:
        bits = len(self._table).bit_length() - 1
        positions = np.flatnonzero(self._table[hashes >> np.uint64(64 - bits)])
        if len(positions) == 0 or len(self._grams) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        places = np.minimum(np.searchsorted(self._grams, hashes[positions]), len(self._grams) - 1)
        known = self._grams[places] == hashes[positions]
        return positions[known], places[known]

    def _confirm(self, item: int, words: Words, places: Places, offsets: Places) -> Hit | None:
        """Compare a question with the text, where its n-grams were found."""
        question = self._questions[item]
        assert question is not None, "only questions that are looked for have n-grams"
        if len(question.hashes) < LONG:
            place = held_whole(question, words, places[offsets == 0].tolist())
        else:
            place = self._held_in_part(question, words, places, offsets)
        return None if place is None else Hit(item, place.overlap, place.start, place.end)

    def _held_in_part(self, question: Question, words: Words, places: Places, offsets: Places) -> Place | None:
        """Compare where most n-grams would have the question begin, then where most of the others would."""
        length = len(question.hashes)
        starts = np.sort(places - offsets)
        for _ in range(_PLACES_TRIED):
            if len(starts) == 0:
                break
            last = np.searchsorted(starts, starts + max(_MARGIN, length // 4), side="right")
            best = int(np.argmax(last - np.arange(len(starts))))
            together = np.arange(best, int(last[best]))
            low = max(0, int(starts[best]) - _MARGIN)
            high = min(len(words), int(starts[together[-1]]) + length + _MARGIN)
            place = held_in_part(question, words, range(low, high))
            if place is not None and place.overlap >= self.overlap:
                return place
            starts = np.delete(starts, together)
        return None


def touched_items(index: ExamIndex, texts: Iterable[str]) -> frozenset[int]:
    """Places in `index.items` of all questions that any of the texts holds; a batch of texts is held at a time."""
    touched: set[int] = set()
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            touched.update(hit.item for hits in index.find_each(batch) for hit in hits)
            batch, size = [], 0
    touched.update(hit.item for hits in index.find_each(batch) for hit in hits)
    return frozenset(touched)


def _key(items: Sequence[ExamItem], overlap: float) -> str:
    values = [VERSION, overlap, [astuple(item) for item in items]]
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(first, last) of texts that are looked through together."""
    first = size = 0
    for number, text in enumerate(texts):
        if size >= _BATCH_CHARACTERS:
            yield first, number
            first, size = number, 0
        size += len(text)
    if first < len(texts):
        yield first, len(texts)


def _is_sought(words: Words, answer: Words, text: str) -> bool:
    if len(words) >= GRAM:
        return True
    return len(words) >= SHORT_GRAM and len(answer) > 0 and len(text.strip()) >= _ANSWER_CHARACTERS


def _seeds(words: Words) -> Hashes:
    """The n-grams by which a question is found: all of its 8-grams, or its first five words."""
    return eight_grams(words.hashes) if len(words) >= GRAM else five_grams(words.hashes)[:1]
