"""A text as the set of its word 5-grams, each one a 64-bit hash: what two documents are compared by.

The hashes are a format of their own, frozen under VERSION: signatures and duplicates follow from them, on every
machine and in every process. All arithmetic is modulo 2^64.

* *Words.* A run of letters; a run of the digits 0-9, a point between two of them included (12, 13 and 1.3 differ);
  every other mark that carries meaning, alone: + - * / = < > ^ _ ( ) [ ] { } | & % # ! \\ and the symbols of
  mathematics, superscripts, currencies, emoji. Scripts without spaces (Han, kana, Thai, Lao, Khmer, Burmese) give one
  word a character. So "12+7=19" and "3-5=2" have no 5-gram in common.
* *Dropped*, because typesetting decides on them and not meaning: white space, control characters, . , ; : ? " ` and
  their typographic forms, bullets, invisible characters; ' between two letters (don't), while f' keeps its prime.
* *Folded*: letters below U+2000 to lower case, one character to one; hyphens, the en dash and the minus sign to "-".
* *Hash.* mix(x) is what SplitMix64 gives from the state x. A word of the code points c_0 ... c_n has the hash
  mix(sum of mix(c_j) * WORD_BASE^j); the 5-gram of the words w_0 ... w_4 has mix(sum of w_k * GRAM_BASE^k).
  A text of one to four words has one shingle, the same sum over the words that there are.
* A text longer than 65,536 characters is read in pieces of as many, each cut after its last blank or line feed; a
  word is cut in two only where a piece has neither.

One pass over the characters would take Python ten times as long as the rest of the work. Here it is a dozen array
operations on blocks of text that stay in the processor's cache; a word's hash is the difference of two prefix sums.

Broder 1997, "On the resemblance and containment of documents"; Steele, Lea & Flood 2014 for SplitMix64.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

VERSION = 1
"""Of the format above. It changes whenever any shingle of any text does."""
GRAM_WORDS = 5
WORD_BASE = 0x9FB21C651E98DF25
GRAM_BASE = 0xD6E8FEB86659FD93

_BLOCK = 65536
"""Characters that are worked on at once: what they need, about a megabyte, fits a core's cache."""
_TOP = 0x20000
"""Code points from here on, Han above all, are words of their own; the tables end here."""
_BLANK, _LETTER, _DIGIT, _SYMBOL = 0, 1, 2, 3
_POINT, _APOSTROPHE, _MINUS = 0x2E, 0x27, 0x2D

# Written down, not asked of unicodedata: its answers change with the version of Python. Later rows win.
_KINDS = (
    (0x00, 0x20, _BLANK),
    (0x21, 0x7E, _SYMBOL),
    (0x30, 0x39, _DIGIT),
    (0x41, 0x5A, _LETTER),
    (0x61, 0x7A, _LETTER),
    (0x7F, 0xA1, _BLANK),
    (0xA2, 0xB9, _SYMBOL),
    (0xAA, 0xAA, _LETTER),
    (0xB5, 0xB5, _LETTER),
    (0xBA, 0xBA, _LETTER),
    (0xBB, 0xBB, _BLANK),
    (0xBC, 0xBE, _SYMBOL),
    (0xBF, 0xBF, _BLANK),
    (0xD7, 0xD7, _SYMBOL),
    (0xF7, 0xF7, _SYMBOL),
    (0x0E00, 0x0EFF, _SYMBOL),  # Thai, Lao
    (0x1000, 0x109F, _SYMBOL),  # Burmese
    (0x1680, 0x1680, _BLANK),
    (0x1780, 0x17FF, _SYMBOL),  # Khmer
    (0x2000, 0x206F, _BLANK),
    (0x2010, 0x2013, _SYMBOL),  # hyphens and the en dash, which many texts use as a minus
    (0x2016, 0x2016, _SYMBOL),
    (0x2030, 0x2037, _SYMBOL),  # per mille, primes
    (0x2044, 0x2044, _SYMBOL),
    (0x2070, 0x20CF, _SYMBOL),  # superscripts, currencies
    (0x2100, 0x2BFF, _SYMBOL),  # letterlike, arrows, operators, shapes
    (0x2E00, 0x2E7F, _BLANK),
    (0x2E80, 0x9FFF, _SYMBOL),  # Han, kana
    (0x3000, 0x3003, _BLANK),
    (0x3008, 0x3020, _BLANK),
    (0x30FB, 0x30FB, _BLANK),
    (0xD800, 0xDFFF, _BLANK),
    (0xE000, 0xFAFF, _SYMBOL),  # private use: glyphs of formulas from PDF files
    (0xFE00, 0xFE6F, _BLANK),
    (0xFEFF, 0xFF20, _BLANK),
    (0xFF0B, 0xFF0B, _SYMBOL),
    (0xFF0D, 0xFF0D, _SYMBOL),
    (0xFF0F, 0xFF0F, _SYMBOL),
    (0xFF10, 0xFF19, _DIGIT),
    (0xFF1C, 0xFF1E, _SYMBOL),
    (0xFF5F, 0xFF65, _BLANK),
    (0xFF66, 0xFF9F, _SYMBOL),
    (0xFFF0, 0xFFFF, _BLANK),
    (0x1B000, 0x1B2FF, _SYMBOL),
    (0x1D000, 0x1FBFF, _SYMBOL),  # letters of mathematics, emoji
    (_TOP, _TOP, _SYMBOL),
)
_DROPPED = '.,;:?"`\xa8\xab\xad\xaf\xb4\xb6\xb8'
_HYPHENS = "\u2010\u2011\u2012\u2013\u2212\uff0d"


def shingles(text: str) -> np.ndarray:
    """The word 5-grams of one text.

    Returns:
        uint64, ascending, each hash once. Empty for a text without words.
    """
    return shingle_batch([text])[0]


def shingle_batch(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """The word 5-grams of many texts; faster than one by one, and the same.

    Args:
        texts: any; lone surrogates are passed over.

    Returns:
        All hashes one text after another, uint64, and offsets, int64 [n + 1]: those of text i are
        flat[offsets[i] : offsets[i + 1]], ascending, each once.
    """
    parts, counts = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    for block in _blocks(texts):
        flat, num_shingles = _grams(*_block_words(block))
        parts.append(flat)
        counts.append(num_shingles)
    return np.concatenate(parts), np.cumsum(np.concatenate(counts))


def mix(values: np.ndarray) -> np.ndarray:
    """The output of SplitMix64 for each state.

    Args:
        values: uint64, any shape; unchanged.
    """
    out = values + 0x9E3779B97F4A7C15
    out ^= out >> 30
    out *= 0xBF58476D1CE4E5B9
    out ^= out >> 27
    out *= 0x94D049BB133111EB
    out ^= out >> 31
    return out


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts that are worked on together: as many as fit, or a single longer one."""
    block: list[str] = []
    size = 1
    for text in texts:
        if block and size + len(text) + 1 > _BLOCK:
            yield block
            block, size = [], 1
        block.append(text)
        size += len(text) + 1
    if block:
        yield block


def _block_words(block: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the words of all texts, and how many each text has."""
    if len(block) == 1:
        words = np.concatenate([_words(f"\n{piece}\n")[0] for piece in _pieces(block[0])])
        return words, np.array([len(words)])
    words, starts = _words("\n".join(["", *block, ""]))
    bounds = np.cumsum([0, *(len(text) + 1 for text in block)])
    return words, np.diff(np.searchsorted(starts, bounds, side="right"))


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most a block, as the format says."""
    start = 0
    while len(text) - start > _BLOCK:
        end = start + _BLOCK
        cut = max(text.rfind(" ", start, end), text.rfind("\n", start, end)) + 1
        end = cut if cut > start else end
        yield text[start:end]
        start = end
    yield text[start:]


def _words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the words, uint64, and where each begins. The text begins and ends with a line feed."""
    kinds_of, values_of = _tables()
    if text.isascii():
        codes = np.frombuffer(text.encode("ascii"), np.uint8)
        kinds, values = kinds_of.take(codes), values_of.take(codes)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        places = np.minimum(codes, _TOP)
        kinds, values = kinds_of.take(places), values_of.take(places)
        beyond = np.flatnonzero(codes >= _TOP)
        values[beyond] = mix(codes[beyond].astype(np.uint64))
    points = np.flatnonzero(codes == _POINT)
    points = points[(kinds[points - 1] == _DIGIT) & (kinds[points + 1] == _DIGIT)]
    marks = np.flatnonzero(codes == _APOSTROPHE)
    kinds[marks[(kinds[marks - 1] == _LETTER) & (kinds[marks + 1] == _LETTER)]] = _BLANK
    kinds[points] = _DIGIT
    before, here = kinds[:-1], kinds[1:]
    edges = before != here
    starts = np.flatnonzero((edges | (here == _SYMBOL)) & (here != _BLANK)) + 1
    ends = np.flatnonzero((edges | (before == _SYMBOL)) & (before != _BLANK)) + 1
    powers, inverses = _powers()
    values *= powers[: len(values)]
    sums = np.cumsum(values, out=values)
    return mix((sums[ends - 1] - sums[starts - 1]) * inverses[starts]), starts


def _grams(words: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shingles of texts whose words lie side by side, and how many each text has; ascending and each once."""
    ends = np.cumsum(counts)
    num_grams = np.where(counts >= GRAM_WORDS, counts - (GRAM_WORDS - 1), counts > 0)
    bounds = np.concatenate([[0], np.cumsum(num_grams)])
    num_windows = max(len(words) - (GRAM_WORDS - 1), 0)
    within = np.ones(num_windows, bool)
    across = ends[:, None] - np.arange(1, GRAM_WORDS)  # these windows reach into the next text
    within[across[(across >= 0) & (across < num_windows)]] = False
    flat = _combined([words[k : k + num_windows] for k in range(GRAM_WORDS)])[within]
    short = np.flatnonzero((counts > 0) & (counts < GRAM_WORDS))
    if len(short):
        columns = (ends[short] - counts[short])[:, None] + np.arange(GRAM_WORDS)
        present = columns < ends[short][:, None]
        gathered = np.where(present, words[np.minimum(columns, len(words) - 1)], np.uint64(0))
        flat = np.insert(flat, bounds[short] - np.arange(len(short)), _combined(list(gathered.T)))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        flat[start:end].sort()
    first = np.ones(len(flat), bool)
    first[1:] = flat[1:] != flat[:-1]
    first[bounds[:-1][num_grams > 0]] = True
    return flat[first], np.diff(np.concatenate([[0], np.cumsum(first)])[bounds])


def _combined(columns: Sequence[np.ndarray]) -> np.ndarray:
    """The hash of each row of words; word k of all rows is columns[k]."""
    total = columns[-1].copy()
    for column in reversed(columns[:-1]):
        total *= GRAM_BASE
        total += column
    return mix(total)


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Of every code point up to _TOP: its kind, uint8, and the hash of what it is folded to, uint64."""
    kinds = np.full(_TOP + 1, _LETTER, np.uint8)
    for first, last, kind in _KINDS:
        kinds[first : last + 1] = kind
    kinds[[ord(mark) for mark in _DROPPED]] = _BLANK
    folded = np.arange(_TOP + 1, dtype=np.uint64)
    for code in range(0x2000):
        lower = chr(code).casefold()
        if len(lower) == 1:
            folded[code] = ord(lower)
    folded[[ord(mark) for mark in _HYPHENS]] = _MINUS
    return kinds, mix(folded)


@functools.cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """WORD_BASE to the power of every place in a block, and of minus every place; uint64."""
    powers, inverses = np.empty((2, _BLOCK + 2), np.uint64)
    for out, base in ((powers, WORD_BASE), (inverses, pow(WORD_BASE, -1, 2**64))):
        out[:] = base
        out[0] = 1
        np.multiply.accumulate(out, out=out)
    return powers, inverses
