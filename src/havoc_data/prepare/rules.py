"""Rules that tell junk from text without taking mathematics for junk.

After Gopher (Rae et al. 2021, arXiv:2112.11446), C4 (Raffel et al. 2020, arXiv:1910.10683) and FineWeb (Penedo et al. 2024,
arXiv:2406.17557). Their rules on letters, braces, stop words and repetition throw out four in ten pages of exercises; here
numbers, operators, LaTeX, code and tables never speak against a text, and exercises that differ in their numbers alone are
no repetition. A word is what stands between blanks, a line is counted without the blanks around it, an empty line is
no line, and capitals are not told from small letters.
Every rule takes time in proportion to the text; the costly ones first ask whether they can fire at all.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from havoc_core.config import RulesConfig
from havoc_data.prepare.rule_words import FILLER, STOP_WORDS, TELLTALES

_ASCII_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz")
_UNSPACED = frozenset((0xE0, 0xE1, *range(0xE3, 0xEA)))
"""First bytes of characters of scripts that put no blanks between words: Thai, Chinese, Japanese and their neighbours."""
_LETTERS = _ASCII_LETTERS | (frozenset(range(0xC3, 0xF5)) - _UNSPACED - {0xE2})
"""First bytes of letters in UTF-8; 0xE2 begins punctuation, arrows and operators."""
_CONTINUATION = bytes(range(0x80, 0xC0))
_ANY_LETTER = bytes(97 if b in _LETTERS else 99 if b in _UNSPACED else 32 for b in range(256))
_RUN = bytes(97 if b in b"abcdefghijklmnopqrstuvwxyz0123456789+/=-" or b >= 0x80 else 32 for b in range(256))
_LATIN = bytes(97 if b in _ASCII_LETTERS else 32 if b <= 32 else 0 for b in range(256))
_NO_SIGN = bytes(b for b in range(256) if b < 33 or 48 <= b < 58 or 97 <= b < 123 or b >= 0x80)

_LATIN_WORDS = 60
"""Different words of Latin letters in a text that must hold stop words; exercises have few."""
_BULLETS = frozenset(f"{mark} " for mark in "-*•‣▪●◦·–—►✓")
_PIECES = re.compile(r"\n|[.!?][ \n]| [|•·»›] ")
_ITEM_MARKS = "|•·»›>"
_ITEM = re.compile(r"[^\W\d_]+(?:[ &'/-]{1,3}[^\W\d_]+){0,3}")
_ITEM_CHARACTERS = 32
_HASHTAG = re.compile(r"(?<=[^\n#\\&])#(?=[^\W\d])")
_ELLIPSIS = re.compile(r"[^\W\d_] ?(?:\.{3,}|…)")
_CUT_WORD = re.compile(r"[^\W\d_](?: ?\.{3}| ?…| ?\[(?:\.{3}|…)\])$")
_NUMBER_OR_SIGN = re.compile(r"[\d=+^\\_{}$<>|&*#~/]")
_NUMBERS = re.compile(r"[\d=+^\\_{}$<>|&*#~/]+")
_LETTER = re.compile(r"[^\W\d_]")
_ADDRESS = re.compile(r"://[^\s<>\"'()\[\]{}]+")
_MACHINE = re.compile(
    r"[\[<(]?\d{4}[-/.]\d\d[-/.]\d\d[t ,_]{1,2}\d\d:\d\d[\w.,:+-]{0,24}[\]>)]?[ \t|:;,-]{0,8}[a-z\[\"{(/*]"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec) [ \d]\d \d\d:\d\d:\d\d "
    r"|\d{1,3}(?:\.\d{1,3}){3} \S{1,64} \S{1,64} \["
    r"|\[?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\]?[ \t]{1,4}[\[a-z]"
    r"|\[(?:info|debug|warn|warning|error|trace|fatal|notice|critical)\]"
    r"|(?:info|debug|warn|warning|error|trace|fatal|notice|critical):[\w.]{1,64}:"
    r"|at [\w$.<>]{3,200}\([\w .]{0,80}:\d{1,6}\)"
    # A row of a hex dump: an address, then groups of hex digits, with a letter among them; rows of numbers have none.
    r"|(?=[0-9a-fx: \t]{6,80}?[a-f])(?:0x)?[0-9a-f]{4,16}:?[ \t]{1,4}(?:[0-9a-f]{2,8}[ \t]{1,4}){4}"
)
_ENCODED_RUN = re.compile(r"[a-z0-9+/=]{32,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ENCODED_WORD = 32
_LETTER_THEN_DIGIT = re.compile(r"[a-z][0-9]")
_PHRASE = 10
_STRETCH = 64
"""Words after which a long line is cut."""


@dataclass(frozen=True)
class Finding:
    """One rule that fired."""

    rule: str
    """Name of the field of RulesConfig."""
    value: float
    """What was measured, in the unit of the limit."""
    limit: float
    """What the settings allow."""


def judge(text: str, rules: RulesConfig) -> tuple[Finding, ...]:
    """Every rule that fires on a text, in the order of the fields of RulesConfig; a rule whose limit is None is off.

    Depends on nothing but the text and the limits. A stricter limit never takes a finding away.

    Args:
        text: one document; any text, lone surrogates and control characters included.
        rules: the limits.
    """
    view, findings = _View(text), []
    for name, rule in _RULES.items():
        limit = getattr(rules, name)
        if limit is None:
            continue
        value = rule.measure(view, limit)
        if value is not None and (value < limit if rule.at_least else value > limit):
            findings.append(Finding(name, value, limit))
    return tuple(findings)


def describe(rule: str) -> str:
    """One sentence on what a text looks like on which the rule fires.

    Raises:
        KeyError: there is no such rule.
    """
    return _RULES[rule].sentence


class _View:
    """A text seen as words, lines and classes of bytes, each made once and only when a rule asks for it."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def lower(self) -> str:
        return self.text.lower()

    @cached_property
    def data(self) -> bytes:
        return self.lower.encode("utf-8", "surrogatepass")

    @cached_property
    def words(self) -> list[str]:
        return self.lower.split()

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(self.words)

    @cached_property
    def characters(self) -> int:
        """Characters that are no blanks."""
        return len("".join(self.words))

    @cached_property
    def lines(self) -> list[str]:
        return [line for line in map(str.strip, self.lower.split("\n")) if line]

    @cached_property
    def plain_words(self) -> list[str]:
        """The words without those of lines that bring new numbers, such as the next exercise of a list or row of a table.

        A line is passed over if it holds no letter, or if its numbers and signs in their order have not been seen
        before; in its place stands a word that no text holds and that comes once. Lines of more than `_STRETCH` words
        are cut and the order in them is not looked at, so that one number does not excuse a text without line ends.
        """
        words: list[str] = []
        seen: set[Hashable] = set()
        for line in self.lines:
            long = line.count(" ") >= _STRETCH
            for part in _parts_of(line) if long else [line]:
                found = _NUMBERS.findall(part)
                numbers = frozenset(found) if long else tuple(found)
                if (numbers and numbers not in seen) or not _LETTER.search(part):
                    seen.add(numbers)
                    words.append(f"\n{len(words)}")
                else:
                    words += part.split()
        return words


def _parts_of(line: str) -> list[str]:
    words = line.split()
    return [" ".join(words[start : start + _STRETCH]) for start in range(0, len(words), _STRETCH)]


def _too_short(view: _View, limit: float) -> float | None:
    return len(view.text.strip())


def _long_words(view: _View, limit: float) -> float | None:
    data = view.data
    if b"a" * (int(limit) + 1) not in data.translate(_RUN):  # no run is longer, so the mean is not
        return None
    classes = b" " + data.translate(_ANY_LETTER, _CONTINUATION)
    alone = classes.count(b"c")
    words = classes.count(b" a") + classes.count(b"ca") + alone
    return (classes.count(b"a") + alone) / words if words else None


def _few_letters(view: _View, limit: float) -> float | None:
    signs = len(view.data.translate(None, _NO_SIGN))
    if signs * 2 <= view.characters:  # a text of words and formulas
        return None
    jumbles = sum(1 for word in view.words if len(word) > 3 and word.isascii() and _is_jumble(word))
    return 1.0 - jumbles / len(view.words)


def _is_jumble(word: str) -> bool:
    """No letter, no digit, and three or more different signs; rules of tables have one or two."""
    return not any(map(str.isalnum, word)) and len(set(word)) > 2


def _few_stop_words(view: _View, limit: float) -> float | None:
    found = 0
    for word in STOP_WORDS:
        found += word in view.counts
        if found >= limit:
            return None
    different = " ".join(("", *view.counts)).encode("utf-8", "surrogatepass")
    return found if different.translate(_LATIN).count(b" aa") >= _LATIN_WORDS else None


def _hash_marks(view: _View, limit: float) -> float | None:
    lower, words = view.lower, len(view.words)
    if lower.count("#") + lower.count("...") + lower.count("…") <= limit * words:
        return None
    return (len(_HASHTAG.findall(lower)) + len(_ELLIPSIS.findall(lower))) / words


def _bullet_lines(view: _View, limit: float) -> float | None:
    if len(view.lines) < 5:
        return None
    marked = [line for line in view.lines if line[:2] in _BULLETS and line[2:3] not in "+-*0123456789"]
    return len(marked) / len(view.lines)


def _ellipsis_lines(view: _View, limit: float) -> float | None:
    ends = [line for line in view.lines if line.endswith(("...", "…", "...]", "…]"))]
    return sum(1 for line in ends if _CUT_WORD.search(line, max(0, len(line) - 8))) / len(view.lines) if ends else None


def _unfinished_lines(view: _View, limit: float) -> float | None:
    ended = 0
    for line in view.lines:
        if not line[-1].isalnum() and line.count(" ") >= 5 and not _NUMBER_OR_SIGN.search(line):
            ended += 1
            if ended >= limit * len(view.lines):
                return None
    prose = sum(1 for line in view.lines if line.count(" ") >= 5 and not _NUMBER_OR_SIGN.search(line))
    return ended / prose if prose >= 15 else None


def _repeated_lines(view: _View, limit: float) -> float | None:
    return _repeated_share(view.lines)


def _repeated_paragraphs(view: _View, limit: float) -> float | None:
    return _repeated_share([piece.strip() for piece in view.lower.split("\n\n")])


def _repeated_share(pieces: Sequence[str]) -> float | None:
    """Share of the characters in pieces that occurred before; those without a letter never count as repeated."""
    if len(set(pieces)) == len(pieces):
        return None
    repeated = sum(
        (count - 1) * len(piece)
        for piece, count in Counter(pieces).items()
        if count > 1 and len(piece) > 3 and _LETTER.search(piece)
    )
    return repeated / (sum(map(len, pieces)) or 1)


def _repeated_phrases(view: _View, limit: float) -> float | None:
    words = view.words
    # Every word, and every three words, of a phrase that occurred before occurred before: this clears most texts.
    if len(words) - len(view.counts) <= limit * len(words):
        return None
    triples = len(words) - len(set(zip(words, words[1:], words[2:], strict=False)))
    if triples * _PHRASE / (_PHRASE - 2) <= limit * len(words):
        return None
    return _repeated_words(view.plain_words) / len(words)


def _repeated_words(words: Sequence[str]) -> int:
    """Words in sequences of `_PHRASE` words that occurred before; each word counts once."""
    half = _PHRASE // 2
    halves = _first_places(zip(*(words[i:] for i in range(half)), strict=False))
    places = _first_places(zip(halves, halves[half:], strict=False))
    repeated = end = 0
    for start in [start for start, first in enumerate(places) if start != first]:
        repeated += start + _PHRASE - max(end, start)
        end = start + _PHRASE
    return repeated


def _first_places(pieces: Iterable[object]) -> list[int]:
    """For each piece the place at which an equal one came first."""
    table: dict[object, int] = {}
    return list(map(table.setdefault, pieces, itertools.count()))


def _frequent_phrase(view: _View, limit: float) -> float | None:
    # No phrase takes more room than the three words that take the most.
    room = sorted(count * len(word) for word, count in view.counts.items() if count > 2)
    if sum(room[-3:]) <= limit * view.characters:
        return None
    words = view.plain_words
    phrases = Counter(zip(words, words[1:], words[2:], strict=False))
    sizes = (
        min(
            count * sum(map(len, phrase)), sum(view.counts[word] * len(word) for word in set(phrase))
        )  # they may overlap
        for phrase, count in phrases.items()
        if count > 2 and all(map(_LETTER.search, phrase))
    )
    return max(sizes, default=0) / view.characters


def _menu_lines(view: _View, limit: float) -> float | None:
    lower = view.lower
    for mark in _ITEM_MARKS:
        lower = lower.replace(mark, "\n")
    items = view.lines if lower == view.lower else [item for item in map(str.strip, lower.split("\n")) if item]
    short = [item for item in items if len(item) <= _ITEM_CHARACTERS]
    if len(items) < 10 or len(short) <= limit * len(items):
        return None
    return sum(1 for item in short if _ITEM.fullmatch(item)) / len(items)


def _boilerplate(view: _View, limit: float) -> float | None:
    lower = view.lower
    if "ipsum" in view.counts:
        words = [word.strip(".,;:!?") for word in view.words]
        filler = sum(map(FILLER.__contains__, words)) / len(words)
        if filler > limit:
            return filler
    found = view.counts.keys() & TELLTALES.keys()
    phrases = {phrase for word in found for phrase in TELLTALES[word] if phrase in lower}
    if not phrases:
        return None
    pieces = [piece for piece in _PIECES.split(lower) if piece and not piece.isspace()]
    return sum(1 for piece in pieces if any(phrase in piece for phrase in phrases)) / len(pieces)


def _links(view: _View, limit: float) -> float | None:
    if "://" not in view.lower and "www." not in view.lower:
        return None
    bare = sum(len(word) for word in view.words if word.startswith("www."))
    return (bare + sum(map(len, _ADDRESS.findall(view.lower)))) / view.characters


def _machine_lines(view: _View, limit: float) -> float | None:
    lines = view.lines
    if len(lines) < 5:
        return None
    half = len(lines) // 2  # where none of the first half is one, the others need not be looked at
    found = sum(1 for line in lines[:half] if _MACHINE.match(line))
    if found + len(lines) - half <= limit * len(lines):
        return None
    return (found + sum(1 for line in lines[half:] if _MACHINE.match(line))) / len(lines)


def _encoded(view: _View, limit: float) -> float | None:
    if b"a" * _ENCODED_WORD not in view.data.translate(_RUN):
        return None
    long = (word for word in view.words if len(word) >= _ENCODED_WORD)
    return sum(map(_encoded_characters, long)) / view.characters


def _encoded_characters(word: str) -> int:
    """Characters in runs that mix letters and digits as base64, hashes and identifiers do; a formula has more operators."""
    return sum(
        len(run)
        for run in _ENCODED_RUN.findall(word)
        if sum(map(run.count, "+/=")) * 10 <= len(run) and len(_LETTER_THEN_DIGIT.findall(run)) >= 3
    )


@dataclass(frozen=True)
class _Rule:
    measure: Callable[[_View, float], float | None]
    """The value; None where the rule has nothing to say, or cannot fire at this limit."""
    sentence: str
    at_least: bool = False
    """Whether the limit is the smallest value allowed; else the largest."""


_RULES: Mapping[str, _Rule] = {
    "too_short": _Rule(_too_short, "It is too short to teach anything.", at_least=True),
    "long_words": _Rule(_long_words, "Its words are longer than in any language, as where blanks were lost."),
    "few_letters": _Rule(_few_letters, "Many of its words are jumbles of signs, and no formulas.", at_least=True),
    "few_stop_words": _Rule(
        _few_stop_words,
        'It has none of the words that every longer text has, such as "the" or "und".',
        at_least=True,
    ),
    "hash_marks": _Rule(_hash_marks, "It is full of hashtags or of dots in place of text."),
    "bullet_lines": _Rule(_bullet_lines, "Nearly every line is a bullet point."),
    "ellipsis_lines": _Rule(_ellipsis_lines, "Many lines break off with dots, as teasers of articles do."),
    "unfinished_lines": _Rule(
        _unfinished_lines, "Its lines of prose end without punctuation, as lists of headlines do.", at_least=True
    ),
    "repeated_lines": _Rule(_repeated_lines, "The same lines come again and again."),
    "repeated_paragraphs": _Rule(_repeated_paragraphs, "The same paragraphs come again and again."),
    "repeated_phrases": _Rule(
        _repeated_phrases, "The same ten words come again and again, and no new numbers with them."
    ),
    "frequent_phrase": _Rule(
        _frequent_phrase, "One phrase of three words, put there for search engines, makes up much of it."
    ),
    "menu_lines": _Rule(_menu_lines, "Nearly every line is a name of a few words, as in the menu of a web page."),
    "boilerplate": _Rule(
        _boilerplate, "Much of it speaks of cookies, logins or rights, or it is filler such as lorem ipsum."
    ),
    "links": _Rule(_links, "Much of it is addresses of web pages."),
    "machine_lines": _Rule(_machine_lines, "Many lines were written by machines: logs, stack traces, hex dumps."),
    "encoded": _Rule(_encoded, "Much of it is encoded bytes, hashes or identifiers."),
}
"""In the order of the fields of RulesConfig."""
