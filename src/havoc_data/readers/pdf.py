"""PDF: the text of its pages, through pypdfium2.

Pages whose formulas were lost are found by the signs in `_page_signs`, counted, and by default left out and named, page by
page. Pages that are pictures are named too. Lines that stand at the top or bottom of most pages are taken out, and words
that were divided at the end of a line are joined.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal

from havoc_core.config import Section
from havoc_core.errors import MissingPackageError
from havoc_data.document import Document, Rejected
from havoc_data.inputs import WHOLE_FILE_BYTES, Input
from havoc_data.readers._page_signs import Glyph, sign_of_loss
from havoc_data.readers._shares import share_out
from havoc_data.sections import SECTION_BYTES, cut_into_sections

PICTURE_CHARACTERS = 2000
"""What a page without text counts when the pages share out the bytes of the file: about a page of print."""
_PASSWORD, _SECURITY = 4, 5
"""FPDF_ERR_PASSWORD and FPDF_ERR_SECURITY of pdfium's fpdfview.h."""
_NUMBER = re.compile(r"\d+|\b[ivxlc]+\b", re.IGNORECASE)
_DIVIDED = re.compile(r"(\w)(?:-\n|[\x02\ufffe]\n?)(\w)")


class Options(Section):
    """Settings of the reader of PDF."""

    lost_formulas: Literal["quarantine", "keep"] = "quarantine"
    """What to do with pages whose formulas were lost: leave them out and name them, or keep what can be read. They are
    counted either way."""


def build(options: Options) -> PdfReader:
    """The reader of PDF.

    Raises:
        MissingPackageError: pypdfium2 is not installed.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise MissingPackageError(
            "reading .pdf files",
            f"pypdfium2 cannot be imported ({error}).",
            "Install it: pip install 'havoc[formats]'.",
        ) from None
    del pypdfium2
    return PdfReader(options.lost_formulas)


@dataclass(frozen=True)
class PdfReader:
    """Reads one PDF at a time. A `Reader`. pdfium must not be used by two threads of a process."""

    lost_formulas: str
    """As in Options."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """Every file alone."""
        return [(item,) for item in items]

    def boundary(self, item: Input, near: int) -> int | None:
        """None: a PDF is found from its end, and its pages lie anywhere in it."""
        return None

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """The text of runs of pages, up to 64 KiB each, and the pages that are not read.

        The pages share out the bytes of the file by the length of their text, as what is in a PDF has no order. Counts
        are those of the whole file and stand on its first document: pages, pages_with_lost_formulas, header_lines.

        Raises:
            InputError: the file cannot be unpacked or read.
        """
        (item,) = unit
        with item.open_seekable() as file:
            size = file.seek(0, 2)
            file.seek(0)
            if not size:
                yield Rejected(item.origin, "it is empty", rule="no_text")
                return
            pages = _pages_of(file)
        if isinstance(pages, Rejected):
            yield replace(pages, origin=item.origin, bytes=size)
            return
        yield from self._documents(item.origin, pages, size)

    def _documents(self, origin: str, pages: list[_Page], size: int) -> Iterator[Document | Rejected]:
        pages, header_lines = without_headers(pages)
        lost = sum(page.sign is not None for page in pages)
        counts = (("pages", len(pages)), ("pages_with_lost_formulas", lost), ("header_lines", header_lines))
        if not any(page.text.strip() for page in pages):
            pictures = any(page.is_picture for page in pages)
            reason = "no text could be read (scanned pages?). Run OCR first" if pictures else "its pages are empty"
            failed = next((page.failure for page in pages if page.failure), "")
            rule = "scanned" if pictures else "unreadable" if failed else "no_text"
            yield Rejected(origin, reason if pictures else failed or reason, size, rule=rule)
            return
        ordinal = 0
        places = share_out(0, size, [page.weight for page in pages])
        for run in _runs(pages, quarantine=self.lost_formulas == "quarantine"):
            start, end = places[run[0].number - 1][0], places[run[-1].number - 1][1]
            first = run[0]
            rejected = self._rejected(first)
            text = join_words("\n".join(page.text for page in run))
            if rejected is not None or not text.strip():
                rejected = rejected or Rejected("", f"page {first.number}: it is empty", rule="no_text")
                yield replace(rejected, origin=origin, start=start, bytes=end - start)
                continue
            sections = cut_into_sections(text)
            shares = share_out(start, end, [last - begin for begin, last in sections])
            for (begin, last), (low, high) in zip(sections, shares, strict=True):
                counted = () if ordinal else counts
                yield Document(origin, text[begin:last], ordinal=ordinal, start=low, end=high, counts=counted)
                ordinal += 1

    def _rejected(self, page: _Page) -> Rejected | None:
        """Why a page is left out, or None."""
        if page.failure:
            return Rejected("", f"page {page.number}: {page.failure}")
        if page.is_picture:
            reason = f"page {page.number}: no text could be read (a scanned page?). Run OCR first"
            return Rejected("", reason, rule="scanned")
        if page.sign and self.lost_formulas == "quarantine":
            return Rejected("", f"page {page.number}: its formulas were lost: {page.sign}", rule="lost_formulas")
        return None


@dataclass(frozen=True)
class _Page:
    number: int
    """From 1."""
    text: str = ""
    has_image: bool = False
    sign: str | None = None
    """Why its formulas are taken for lost."""
    failure: str = ""
    """Why it could not be read."""

    @property
    def is_picture(self) -> bool:
        return self.has_image and not self.text.strip()

    @property
    def weight(self) -> int:
        """Its part in the bytes of the file."""
        return PICTURE_CHARACTERS if self.is_picture or self.failure else len(self.text)


def _pages_of(file: BinaryIO) -> list[_Page] | Rejected:
    """Every page of a PDF, or why it cannot be opened."""
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        document = PdfDocument(file)
    except PdfiumError as error:
        code = error.err_code
        if code in (_PASSWORD, _SECURITY):
            return Rejected("", "it is encrypted: save it without a password first")
        return Rejected("", f"it is no PDF, or damaged ({error})")
    try:
        pages, characters = [], 0
        for index in range(len(document)):
            page = _page_of(document, index)
            characters += len(page.text)
            if characters > WHOLE_FILE_BYTES:
                return Rejected("", f"its text has more than {WHOLE_FILE_BYTES:,} characters")
            pages.append(page)
        return pages
    finally:
        document.close()


def _page_of(document: Any, index: int) -> _Page:
    from pypdfium2 import PdfiumError
    from pypdfium2.raw import FPDF_PAGEOBJ_IMAGE

    try:
        page = document[index]
    except PdfiumError as error:
        return _Page(index + 1, failure=f"it cannot be read ({error})")
    try:
        text_page = page.get_textpage()
        try:
            # Not get_text_range, which cuts 𝑥 and its like, beyond U+FFFF, in two.
            text = text_page.get_text_bounded().replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
            sign = sign_of_loss(text, _glyphs(text_page))
        finally:
            text_page.close()
        has_image = not text.strip() and next(page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE]), None) is not None
        return _Page(index + 1, text, has_image, sign)
    except PdfiumError as error:
        return _Page(index + 1, failure=f"it cannot be read ({error})")
    finally:
        page.close()


def _glyphs(text_page: Any) -> list[Glyph]:
    from pypdfium2 import raw

    name = ctypes.create_string_buffer(256)
    flags, box = ctypes.c_int(), raw.FS_RECTF()
    glyphs = []
    for index in range(text_page.count_chars()):
        if raw.FPDFText_IsGenerated(text_page, index) == 1:
            continue
        code = raw.FPDFText_GetUnicode(text_page, index)
        length = raw.FPDFText_GetFontInfo(text_page, index, name, len(name), ctypes.byref(flags))
        font = name.raw[: length - 1].decode("utf-8", "replace") if 0 < length <= len(name) else ""
        known = raw.FPDFText_GetLooseCharBox(text_page, index, box)
        unmapped = raw.FPDFText_HasUnicodeMapError(text_page, index) == 1
        glyphs.append(Glyph(chr(code), font, box.top - box.bottom if known else 0.0, unmapped))
    return glyphs


def _runs(pages: Sequence[_Page], *, quarantine: bool) -> Iterator[list[_Page]]:
    """Pages that are read together: neighbours of up to 64 KiB. A page that is left out is alone; an empty one goes along."""
    run: list[_Page] = []
    length = 0
    for page in pages:
        alone = bool(page.failure) or page.is_picture or (quarantine and page.sign is not None)
        size = len(page.text.encode())
        if run and (alone or length + size > SECTION_BYTES):
            yield run
            run, length = [], 0
        if alone:
            yield [page]
        else:
            run.append(page)
            length += size
    if run:
        yield run


def without_headers(pages: Sequence[_Page]) -> tuple[list[_Page], int]:
    """The pages without running heads and feet, and how many lines that were.

    A running head is a line among the first two or last two of a page that stands there on more than half of all pages, or
    of all left or all right ones, whatever numbers are in it; on three at least.
    """
    frequent: set[tuple[int, str, str]] = set()
    for parity in (0, 1, 2):
        members = [page for page in pages if page.text.strip() and parity in (2, page.number % 2)]
        seen = Counter(key for page in members for key in {(side, line) for side, line, _ in _edges(page.text)})
        frequent |= {(parity, *key) for key, count in seen.items() if count >= 3 and 2 * count > len(members)}
    kept, removed = [], 0
    for page in pages:
        lines = page.text.split("\n")
        heads = [
            index
            for side, line, index in _edges(page.text)
            if (2, side, line) in frequent or (page.number % 2, side, line) in frequent
        ]
        for index in sorted(set(heads), reverse=True):
            del lines[index]
        removed += len(set(heads))
        kept.append(replace(page, text="\n".join(lines)) if heads else page)
    return kept, removed


def _edges(text: str) -> list[tuple[str, str, int]]:
    """(side, line with its numbers masked, its number) of the first two and last two lines that are not blank."""
    lines = text.split("\n")
    filled = [index for index, line in enumerate(lines) if line.strip()]
    sides = [("top", index) for index in filled[:2]] + [("bottom", index) for index in filled[-2:]]
    masked = [(side, _NUMBER.sub("#", " ".join(lines[index].split())), index) for side, index in sides]
    # Several numbers and no word are a row of a table, which looks the same on every page.
    return [edge for edge in masked if edge[1].count("#") < 2 or re.search(r"[^\W\d_]", edge[1])]


def join_words(text: str) -> str:
    """Words that were divided at the end of a line, joined: only between two lower-case letters, so that Gram-Schmidt stays.

    pdfium writes U+0002 or U+FFFE for a hyphen at the end of a line, with or without the line end.
    """

    def joined(found: re.Match[str]) -> str:
        before, after = found[1], found[2]
        return before + after if before.islower() and after.islower() else f"{before}-{after}"

    return re.sub("[\x02\ufffe]", "-", _DIVIDED.sub(joined, text))
