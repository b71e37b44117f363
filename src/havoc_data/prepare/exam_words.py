"""Text -> the words by which examination questions are compared: 64-bit hashes and their places.

A word is a run of letters in one case, a number with its decimals, or one operator. White space, punctuation and markup
only separate words, so that a question is the same words however its lines are broken and its formulas are set:

* 80,000 is 80000; x^2, x_2 and x² are the words x and 2; signs of multiplication are left out, as they often are;
* a hyphen between words, a bullet or > at the start of a line, rows of one operator (--, ===) are no operators;
* commands of LaTeX that only arrange (\\quad, \\left, \\text, ...) are left out; other commands are their names.

Nothing else is dropped and the order counts: other numbers are other words. The hashes depend on the characters
alone: not on the process, the platform, or what stands around a word beyond what is said above.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_GAP, LETTERS, NUMBER, _RAISED, _OPERATOR = range(5)
_PLAIN_OPERATORS = "+-=<>/%"
_DASHES = "\u2010\u2011\u2012\u2013\u2212"
"""Written for a hyphen or a minus; the em dash is punctuation."""
_UNWRITTEN = "*\u00d7\u00b7\u2217\u2219\u22c5^|~"
"""Multiplication, which is often left out; the caret, whose exponent is raised elsewhere; lines and blanks."""
_ARRANGING = (
    "quad qquad left right text textbf textit textrm mathrm mathbf mathit displaystyle limits nolimits big Big bigl bigr "
    "Bigl Bigr hspace vspace times cdot noindent newline par"
)

_TABLE_SIZE = 0x20000
"""Characters that are told apart: beyond lie rare ideographs, which count as gaps."""
_SLICE = 1 << 15
"""Characters that are worked on at a time: their arrays fit into a core's cache, and memory stays bounded."""
_BASE = 0x9E3779B97F4A7C15
_SALT = 0x5851F42D4C957F2D
_PAIR, _FOUR, _FIVE, _EIGHT = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F
"""Odd multipliers: words two, four, one and four apart."""
_BLANK, _TAB, _LINE_FEED, _BACKSLASH, _FULL_STOP, _COMMA = b" \t\n\\.,"


@dataclass(frozen=True, eq=False)
class Words:
    """The words of a text, in order; all arrays are as long as there are words."""

    hashes: Hashes
    starts: Places
    """First character."""
    ends: Places
    """One past the last character."""
    kinds: NDArray[np.uint8]
    """LETTERS, NUMBER, or something else."""

    def __len__(self) -> int:
        return len(self.hashes)


def words_of(text: str) -> Words:
    """The words of a text."""
    parts, position = [], 0
    while position < len(text):
        end = _slice_end(text, position)
        parts.append(_words_of_slice(text[position:end], position))
        position = end
    if len(parts) == 1:
        return parts[0]
    none: list[Words] = [Words(_zeros(), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
    parts = parts or none
    return Words(
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.ends for part in parts]),
        np.concatenate([part.kinds for part in parts]),
    )


def five_grams(hashes: Hashes) -> Hashes:
    """Hash of every five words in a row; [n] -> [max(0, n - 4)]."""
    if len(hashes) < 5:
        return _zeros()
    return _mixed(_fours(hashes)[:-1] * np.uint64(_FIVE) + hashes[4:])


def eight_grams(hashes: Hashes) -> Hashes:
    """Hash of every eight words in a row; [n] -> [max(0, n - 7)]."""
    if len(hashes) < 8:
        return _zeros()
    fours = _fours(hashes)
    return _mixed(fours[:-4] * np.uint64(_EIGHT) + fours[4:])


def _fours(hashes: Hashes) -> Hashes:
    pairs: Hashes = hashes[:-1] * np.uint64(_PAIR) + hashes[1:]
    fours: Hashes = pairs[:-2] * np.uint64(_FOUR) + pairs[2:]
    return fours


def _zeros() -> Hashes:
    return np.zeros(0, np.uint64)


def _slice_end(text: str, start: int) -> int:
    """Where to cut: after white space where there is some, so that no word is cut in two."""
    limit = start + _SLICE
    if limit >= len(text):
        return len(text)
    cut = max(text.rfind(" ", start, limit), text.rfind("\n", start, limit))
    return cut + 1 if cut >= 0 else limit


def _words_of_slice(text: str, offset: int) -> Words:
    codes = _codes(text)
    kind_of, hash_of = _tables(128 if codes.dtype == np.uint8 else _TABLE_SIZE)
    kinds = kind_of[codes]
    _join_decimals(codes, kinds)
    places = _without_thousands_commas(codes, kinds)
    if places is not None:
        codes, kinds = codes[places], kinds[places]
    changes = np.empty(len(kinds), np.bool_)
    changes[0] = True
    np.not_equal(kinds[1:], kinds[:-1], out=changes[1:])
    changes |= kinds == _OPERATOR
    edges = np.flatnonzero(changes)
    of_word = kinds[edges] != _GAP
    starts, ends = edges[of_word], np.append(edges[1:], len(kinds))[of_word]
    powers, inverses = _powers()
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(hash_of[codes] * powers[: len(codes)], out=sums[1:])
    hashes = _mixed((sums[ends] - sums[starts]) * inverses[starts])
    kept = _kept(codes, kinds[starts], starts, ends)
    if "\\" in text:
        commands = np.flatnonzero((starts > 0) & (codes[starts - 1] == _BACKSLASH))
        known = _arranging()
        nearest = known[np.minimum(np.searchsorted(known, hashes[commands]), len(known) - 1)]
        kept[commands[nearest == hashes[commands]]] = False
    hashes, starts, ends = hashes[kept], starts[kept], ends[kept]
    word_kinds = kinds[starts]
    if places is not None:
        starts, ends = places[starts], places[ends - 1] + 1
    return Words(hashes, starts + offset, ends + offset, word_kinds)


def _codes(text: str) -> NDArray[np.uint8] | NDArray[np.uint32]:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    wide = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    return np.minimum(wide, _TABLE_SIZE - 1).astype(np.uint32, copy=False)


def _join_decimals(codes: NDArray[np.uint8] | NDArray[np.uint32], kinds: NDArray[np.uint8]) -> None:
    """A point between two digits belongs to their number."""
    points = np.flatnonzero(codes == _FULL_STOP)
    points = points[(points > 0) & (points < len(codes) - 1)]
    kinds[points[(kinds[points - 1] == NUMBER) & (kinds[points + 1] == NUMBER)]] = NUMBER


def _without_thousands_commas(codes: NDArray[np.uint8] | NDArray[np.uint32], kinds: NDArray[np.uint8]) -> Places | None:
    """Places of all characters but the commas in numbers like 80,000; None: there are no such commas.

    A comma that is not followed by exactly three digits separates the numbers of a list.
    """
    commas = np.flatnonzero(codes == _COMMA)
    commas = commas[(commas > 0) & (commas < len(codes) - 3)]
    for step in (-1, 1, 2, 3):
        commas = commas[kinds[commas + step] == NUMBER]
    behind = np.minimum(commas + 4, len(codes) - 1)
    commas = commas[(kinds[behind] != NUMBER) | (behind < commas + 4) | (codes[behind] == _FULL_STOP)]
    if len(commas) == 0:
        return None
    stays = np.ones(len(codes), np.bool_)
    stays[commas] = False
    return np.flatnonzero(stays)


def _kept(
    codes: NDArray[np.uint8] | NDArray[np.uint32], kinds: NDArray[np.uint8], starts: Places, ends: Places
) -> NDArray[np.bool_]:
    """False for operators that are markup or hyphens. Codes are a character each, the others a word each."""
    kept = np.ones(len(kinds), np.bool_)
    which = np.flatnonzero(kinds == _OPERATOR)
    if len(which) == 0:
        return kept
    at = starts[which]
    sign = codes[at]
    in_row = (np.diff(at) == 1) & (sign[1:] == sign[:-1])
    drop = np.append(in_row, False) | np.append(False, in_row)
    last = len(kinds) - 1
    before, after = np.maximum(which - 1, 0), np.minimum(which + 1, last)
    lengths = ends - starts
    words_follow = (which < last) & (kinds[after] == LETTERS)
    long_follows = words_follow & (lengths[after] > 1)
    touches_before = (which > 0) & (ends[before] == at) & ((kinds[before] == LETTERS) | (kinds[before] == NUMBER))
    touches_after = words_follow & (starts[after] == at + 1)
    # x-y is a difference and x-axis a word: one of the two sides must have more than one letter.
    long_side = long_follows | ((kinds[before] == LETTERS) & (lengths[before] > 1))
    minus = sign == ord("-")
    drop |= minus & touches_before & touches_after & long_side
    lines = np.flatnonzero(codes == _LINE_FEED)
    first = (which == 0) | (np.searchsorted(lines, at) > np.searchsorted(lines, ends[before]))
    # "- 3" at the start of a line may be the rest of "5 - 3"; "- Ann has" is an entry of a list.
    following = codes[np.minimum(at + 1, len(codes) - 1)]
    blank_follows = (following == _BLANK) | (following == _TAB)
    bullet = (minus | (sign == ord("+"))) & long_follows & blank_follows
    drop |= first & (bullet | (sign == ord(">")))
    kept[which[drop]] = False
    return kept


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64's last steps: every bit depends on every bit. Steele, Lea & Flood 2014, OOPSLA."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_PAIR)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_FOUR)
    return values ^ (values >> np.uint64(31))


@functools.cache
def _powers() -> tuple[Hashes, Hashes]:
    """Of the base and of its inverse modulo 2^64, from the zeroth on; as many as a slice has characters."""
    out = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        factors = np.full(_SLICE, base, np.uint64)
        factors[0] = 1
        out.append(np.multiply.accumulate(factors))
    return out[0], out[1]


@functools.cache
def _tables(size: int) -> tuple[NDArray[np.uint8], Hashes]:
    """Code of a character -> its kind, and the hash of what it is folded to; for the first `size` codes."""
    folded = [_fold(chr(code)) for code in range(size)]
    kinds = np.array([kind for kind, _ in folded], np.uint8)
    codes = np.array([ord(char) for _, char in folded], np.uint64)
    return kinds, _mixed((codes + np.uint64(1)) * np.uint64(_SALT))


def _fold(char: str) -> tuple[int, str]:
    """Kind of a character, and the character that it counts as."""
    if char in _UNWRITTEN:
        return _GAP, char
    if char in _PLAIN_OPERATORS:
        return _OPERATOR, char
    if char in _DASHES:
        return _OPERATOR, "-"
    if char.isdigit():
        return (NUMBER if char.isdecimal() else _RAISED), str(unicodedata.digit(char))
    compatible = unicodedata.normalize("NFKC", char)
    if char.isalpha():
        small = compatible.casefold()
        return LETTERS, small if len(small) == 1 else char
    if unicodedata.category(char) == "Sm":
        return _OPERATOR, compatible if len(compatible) == 1 else char
    return _GAP, char


@functools.cache
def _arranging() -> Hashes:
    """Hashes of the commands that only arrange, ascending; a word's hash is that of the word by itself."""
    return np.sort(words_of(_ARRANGING).hashes)
