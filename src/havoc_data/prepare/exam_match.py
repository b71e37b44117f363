"""Whether the words of an examination question stand in the words of a text, as the rules in exams say."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher

import numpy as np
from numpy.typing import NDArray

from havoc_data.prepare.exam_words import LETTERS, NUMBER, Hashes, Words, words_of

GRAM, SHORT_GRAM = 8, 5
"""Words in an n-gram, and in that of a question which has fewer than eight."""
LONG = 20
"""Words from which a part of a question is enough."""
_ANSWER_WITHIN = 50
"""Words after a short question among which its answer must stand."""
_SHIFT = 2
"""Words by which changes may shift what follows them."""
_NUMBER_WORDS = (
    "zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million half third quarter twice "
    "thrice double triple dozen"
)
"""Words that say how many; not "one", which is a pronoun more often."""


@dataclass(frozen=True, eq=False)
class Question:
    """The words of a question that is looked for."""

    hashes: Hashes
    weights: NDArray[np.float64]
    """One a word; they add up to 1."""
    numbers: NDArray[np.bool_]
    """Which words must be held: numbers and their signs."""
    answer: Hashes
    """Needed after the question; empty: none is needed."""


@dataclass(frozen=True)
class Place:
    """Where a question lies in a text, in characters, and how much of it."""

    overlap: float
    start: int
    end: int


def make_question(words: Words, gram_weights: NDArray[np.float64], answer: Words) -> Question:
    """A question to look for.

    Args:
        words: of the question, at least five.
        gram_weights: of its n-grams in order, each above 0.
        answer: needed of a question of fewer than eight words.
    """
    length = len(words)
    weights = np.ones(length)
    if length >= GRAM:
        spread, covering = np.zeros(length), np.zeros(length)
        for step in range(GRAM):
            spread[step : step + len(gram_weights)] += gram_weights
            covering[step : step + len(gram_weights)] += 1
        weights = spread / covering
    needed = answer.hashes if length < GRAM else answer.hashes[:0]
    return Question(words.hashes, weights / weights.sum(), _numbers(words), needed)


def held_whole(question: Question, words: Words, places: Sequence[int]) -> Place | None:
    """The first of the places where every word of the question follows the one before, and then the answer if need be."""
    length = len(question.hashes)
    for place in places:
        end = place + length
        if not np.array_equal(words.hashes[place:end], question.hashes):
            continue
        if len(question.answer) == 0 or _follows(question.answer, words.hashes[end : end + _ANSWER_WITHIN]):
            return Place(1.0, int(words.starts[place]), int(words.ends[end - 1]))
    return None


def held_in_part(question: Question, words: Words, window: range) -> Place | None:
    """How much of a question stands in a window of the words, in order; None if it lacks one of the numbers."""
    there = words.hashes[window.start : window.stop]
    if not np.isin(question.hashes[question.numbers], there).all():
        return None
    matcher = SequenceMatcher(None, there.tolist(), question.hashes.tolist(), autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    held = np.zeros(len(question.hashes), np.bool_)
    in_place = held.copy()
    for block, is_in_place in zip(blocks, _in_place(blocks), strict=True):
        held[block.b : block.b + block.size] = True
        in_place[block.b : block.b + block.size] = is_in_place
    if not blocks or not in_place[question.numbers].all():
        return None
    first, last = window.start + blocks[0].a, window.start + blocks[-1].a + blocks[-1].size - 1
    overlap = 1.0 if held.all() else float(question.weights[held].sum())
    return Place(round(overlap, 4), int(words.starts[first]), int(words.ends[last]))


def _numbers(words: Words) -> NDArray[np.bool_]:
    """Which words are numbers, in digits or letters, or the sign before a number or a variable."""
    digits = words.kinds == NUMBER
    one_letter = (words.kinds == LETTERS) & (words.ends - words.starts == 1)
    term_follows = np.append((digits | one_letter)[1:], False)
    signs = np.isin(words.hashes, words_of("+ -").hashes) & term_follows
    numbers: NDArray[np.bool_] = digits | signs | np.isin(words.hashes, words_of(_NUMBER_WORDS).hashes)
    return numbers


def _follows(answer: Hashes, hashes: Hashes) -> bool:
    if len(answer) > len(hashes):
        return False
    windows = np.lib.stride_tricks.sliding_window_view(hashes, len(answer))
    return bool((windows == answer).all(axis=1).any())


def _in_place(blocks: Sequence[Match]) -> list[bool]:
    """Which blocks of words stand where they should: long ones, and those hardly shifted against the one beside.

    Without this, a number that the text lacks would be taken from the next sentence.
    """
    shifts = [block.a - block.b for block in blocks]
    near = [abs(after - before) <= _SHIFT for before, after in itertools.pairwise(shifts)]
    alone = len(blocks) == 1
    return [
        alone or block.size >= GRAM or before or after
        for block, before, after in zip(blocks, [False, *near], [*near, False], strict=True)
    ]
