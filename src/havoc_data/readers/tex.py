r"""LaTeX: .tex and .latex files. The source stays as it is, mathematics, macros and environments included.

Left out are comments (\% and what stands in verbatim environments, in \verb|..| and in addresses of links is none) and
what lies outside \begin{document} .. \end{document}; both are counted in bytes: ("comment_bytes", n), ("preamble_bytes",
n). Formulas are counted too: ("formulas", n). Files that read one another by \input, \include, \subfile or \import and
its like become one text in the order of reading. A command whose file is not there, or was read before, stays in the
text, so that a circle ends.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from havoc_core.config import Section
from havoc_data.document import Document, Rejected, Span
from havoc_data.encoding import decode_whole, mark_of
from havoc_data.inputs import Input, InputError
from havoc_data.readers._tex_source import MENTIONS_FILES, Include, Scan, byte_offsets, scan
from havoc_data.readers._tex_tree import Index, folder_of, group
from havoc_data.sections import cut_into_sections

_Account = tuple[Span, Counter[str]]
_LINE_END = re.compile(r"\r\n?")


class Options(Section):
    """Settings of the reader of LaTeX."""

    preamble: bool = False
    r"""Keep what stands before \begin{document} and after \end{document}. A style or macro file, which has neither, is kept
    in any case; one that is read only in a preamble is then a text of its own."""
    comments: bool = False
    """Keep comments, among them whatever an author wanted nobody to read."""


def build(options: Options) -> TexReader:
    """The reader of LaTeX. Needs no package."""
    return TexReader(options.preamble, options.comments)


@dataclass(frozen=True)
class TexReader:
    """Reads files together with those that they include. A `Reader`."""

    preamble: bool
    """As in Options."""
    comments: bool
    """As in Options."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """A file that no other includes, with all that it includes, in the order of reading; each file once.

        Of files that include one another in a circle the first is the root. A file that several roots include belongs
        to the first of them. Reads every file; one that cannot be read stands alone.
        """
        includes = [self._includes(item) for item in items]
        return [tuple(items[number] for number in numbers) for numbers in group(items, includes)]

    def boundary(self, item: Input, near: int) -> int | None:
        """None: where the document begins, and what is a comment, can only be told from all of the file."""
        return None

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """The files as one text, or as its sections if it is long, and each file without text as a reject.

        A section knows its bytes in every file that it is made from; what was taken out belongs to the section in
        which the file's text before it ends, what stands at the beginning to the one in which its text begins.

        Raises:
            InputError: one of the files cannot be unpacked, is no text, or is larger than `inputs.WHOLE_FILE_BYTES`.
        """
        files = [self._load(item) for item in unit]
        book = _Book(files)
        sections = cut_into_sections(book.text) or [(0, 0)]
        ordinals: Counter[str] = Counter()
        missing = Counter({"missing_includes": book.num_missing} if book.num_missing else {})
        for (start, end), accounts in zip(sections, book.accounts([end for _, end in sections]), strict=True):
            text = _LINE_END.sub("\n", book.text[start:end])
            if not text.strip():
                yield from (_no_text(span) for span, _ in accounts)
                continue
            first, *others = [span for span, _ in accounts]
            counts = sum((counted for _, counted in accounts), missing)
            missing = Counter()
            document = Document(first.origin, text, (), ordinals[first.origin], first.start, first.end)
            yield replace(document, includes=tuple(others), counts=tuple(sorted(counts.items())))
            ordinals[first.origin] += 1
        yield from (_no_text(Span(file.item.origin, 0, len(file.raw))) for file in files if file.is_blank)

    def _includes(self, item: Input) -> tuple[Include, ...]:
        try:
            raw = item.read_all()
            if mark_of(raw)[1] == "utf-8" and not MENTIONS_FILES.search(raw):
                return ()
            return scan(decode_whole(raw)[0], preamble=self.preamble).includes
        except InputError:
            return ()

    def _load(self, item: Input) -> _File:
        raw = item.read_all()
        text, counts = decode_whole(raw) if raw else ("", ())
        found = scan(text, preamble=self.preamble)
        if self.comments:
            found = replace(found, comments=())
        kept = tuple(_between(sorted((*found.comments, *found.frame)), len(text)))
        return _File(item, raw, text, counts, found, kept)


@dataclass(frozen=True)
class _File:
    """One file of a unit."""

    item: Input
    raw: bytes
    text: str
    counts: tuple[tuple[str, int], ...]
    scan: Scan
    """Without its comments where they are kept."""
    kept: tuple[tuple[int, int], ...]
    """Characters that are neither comment nor preamble."""

    @property
    def is_blank(self) -> bool:
        """Whether nothing but white space is kept."""
        return not any(self.text[start:end].strip() for start, end in self.kept)

    def steps(self) -> Iterator[tuple[int, int, Include | None]]:
        """What is to be read in order: (start, end, None) is text, (start, end, include) is a command."""
        includes = iter((*self.scan.includes, None))
        include = next(includes)
        for start, end in self.kept:
            while include and include.start < end:
                yield start, include.start, None
                yield include.start, include.end, include
                start, include = include.end, next(includes)
            yield start, end, None

    def account(self, firsts: Sequence[int]) -> list[_Account]:
        """The bytes of the file and what was counted in them, for each section that takes from it.

        Args:
            firsts: first character of each section in this file, ascending, at least one. The first section takes what
                stands before it too.
        """
        out = (*self.scan.comments, *self.scan.frame)
        places = sorted({0, len(self.text), *firsts, *(edge for each in out for edge in each)})
        at = dict(zip(places, byte_offsets(self.raw, self.text, places), strict=True))
        starts = firsts[1:]
        counts = [Counter(dict(self.counts)), *(Counter[str]() for _ in starts)]
        for name, ranges in (("preamble_bytes", self.scan.frame), ("comment_bytes", self.scan.comments)):
            for start, end in ranges:
                counts[bisect_right(starts, start)][name] += at[end] - at[start]
        for start in self.scan.formulas:
            counts[bisect_right(starts, start)]["formulas"] += 1
        edges = [0, *(at[start] for start in starts), len(self.raw)]
        return [(Span(self.item.origin, *edge), counted) for edge, counted in zip(pairwise(edges), counts, strict=True)]


@dataclass(frozen=True)
class _Piece:
    """Some characters of a file that stand in the text; none where an included file begins."""

    file: int
    start: int
    end: int
    at: int
    """Where they begin in the text."""


class _Book:
    """The files of a unit put together. `text` has the line ends of the files."""

    def __init__(self, files: Sequence[_File]) -> None:
        self._files = files
        self._index = Index([file.item for file in files])
        self._folders = [folder_of(file.item) for file in files]
        self._parts: list[str] = []
        self._pieces: list[_Piece] = []
        self._length = 0
        self._used: set[int] = set()
        self._file_ended = False
        self.num_missing = 0
        """Commands that read a file which is not there."""
        for number in range(len(files)):  # those after the first are all read by it, unless they changed since
            if number not in self._used:
                self._read_from(number)
        self.text = "".join(self._parts)

    def accounts(self, ends: Sequence[int]) -> list[list[_Account]]:
        """What every section takes from every file, in the order in which the files begin in the section.

        Args:
            ends: where the sections end in the text.
        """
        firsts: dict[int, dict[int, int]] = {}  # file -> section -> first character of the file in it
        order: list[list[int]] = [[] for _ in ends]
        for piece in self._pieces:
            start, at = piece.start, piece.at
            section = min(bisect_right(ends, at), len(ends) - 1)
            while True:
                if section not in firsts.setdefault(piece.file, {}):
                    firsts[piece.file][section] = start
                    order[section].append(piece.file)
                if at + piece.end - start <= ends[section]:
                    break
                start, at, section = start + ends[section] - at, ends[section], section + 1
        given = {file: iter(self._files[file].account(list(each.values()))) for file, each in firsts.items()}
        return [[next(given[file]) for file in files] for files in order]

    def _read_from(self, root: int) -> None:
        """Append a file and what it includes. No recursion: a chain of files may be long."""
        waiting = [(root, self._open(root))]
        while waiting:
            number, steps = waiting[-1]
            step = next(steps, None)
            if step is None:
                waiting.pop()
                self._file_ended = True
                continue
            start, end, include = step
            target = self._index.find(include, self._folders[root], self._folders[number]) if include else None
            self.num_missing += include is not None and target is None
            if target is None or target in self._used:
                self._append(number, start, end)
            else:
                self._append(number, start, start)
                waiting.append((target, self._open(target)))

    def _open(self, number: int) -> Iterator[tuple[int, int, Include | None]]:
        self._used.add(number)
        return iter(()) if self._files[number].is_blank else self._files[number].steps()

    def _append(self, number: int, start: int, end: int) -> None:
        text = self._files[number].text[start:end]
        if self._file_ended and self._parts and text and not (self._parts[-1][-1].isspace() or text[0].isspace()):
            # The end of a file is the end of a line to TeX: words do not join.
            self._parts.append("\n")
            self._length += 1
        self._pieces.append(_Piece(number, start, end, self._length))
        if text:
            self._file_ended = False
            self._parts.append(text)
            self._length += len(text)


def _between(out: Sequence[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """What is left of [0, length) when some ranges, in order, are taken out."""
    position = 0
    for start, end in out:
        if start > position:
            yield position, start
        position = max(position, end)
    if position < length:
        yield position, length


def _no_text(span: Span) -> Rejected:
    reason = "there is nothing in it but blanks, comments and preamble"
    return Rejected(span.origin, reason, span.end - span.start, span.start, "no_text")
