"""Long texts are cut into sections, so that one book is many documents and not one.

A text of up to 256 KiB stays whole. A longer one is cut into sections of at most 64 KiB: before a heading
where there is one, else after a blank line, a line, a space, or between any two characters. Nothing is
lost, added or moved. Works on UTF-8 bytes and on a stream of blocks, in memory that does not grow with the
text and in time that grows linearly, whatever the text is: one line of 100 MB is as welcome as a book.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

WHOLE_BYTES = 256 * 1024
"""Longest text that stays in one piece, in UTF-8 bytes."""
SECTION_BYTES = 64 * 1024
"""Longest section of a longer text."""
_LEAST_BYTES = SECTION_BYTES // 4
"""Shortest section: a heading nearer than this to the last cut is passed over for a paragraph farther on."""
_BLOCK_BYTES = 1024 * 1024

_CARRIAGE_RETURN, _LINE_FEED = 13, 10
# Every pattern begins with a literal line feed and has no nested repeats, so that a search is one pass.
_HEADING = re.compile(rb"\n(?:#{1,6}[ \t]|[ \t]*\\(?:part|chapter|(?:sub){0,2}section)\*?[ \t]*[\[{])")
_UNDERLINE = re.compile(rb"\n(?:={3,}|-{3,}|~{3,}|\*{3,}|\^{3,}|\"{3,})[ \t]*\r?\n")
_PARAGRAPH = re.compile(rb"\n[ \t]*\r?\n")
_TITLE_BYTES = 200
"""Longest line that counts as the title above an underline."""


def cut_into_sections(text: str) -> list[tuple[int, int]]:
    """Where the sections of a text are.

    Args:
        text: any text; lone surrogates count three bytes.

    Returns:
        (start, end) in characters, in order and without gaps: joined, the slices are the text. Empty for "".
    """
    ranges, position = [], 0
    for section in sections_of([text.encode("utf-8", "surrogatepass")]):
        length = len(section.decode("utf-8", "surrogatepass"))
        ranges.append((position, position + length))
        position += length
    return ranges


def cut_bytes_into_sections(data: bytes) -> list[tuple[int, int]]:
    """As `cut_into_sections`, for UTF-8 bytes, valid or not; (start, end) are in bytes."""
    ranges, position = [], 0
    for section in sections_of([data]):
        ranges.append((position, position + len(section)))
        position += len(section)
    return ranges


def sections_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The sections of a text that arrives in blocks; joined, they are the blocks joined.

    Args:
        blocks: UTF-8 bytes, valid or not, cut anywhere. How they are cut does not alter the sections.
    """
    source = iter(_small(blocks))
    waiting, ended = bytearray(), False
    while not ended and len(waiting) <= WHOLE_BYTES:
        block = next(source, None)
        ended = block is None
        waiting += block or b""
    if len(waiting) <= WHOLE_BYTES:
        if waiting:
            yield bytes(waiting)
        return
    while waiting:
        position = 0
        # One byte more than a cut looks at, so that a cut never depends on where a block ended.
        while len(waiting) - position > (0 if ended else SECTION_BYTES + _LEAST_BYTES):
            end = _next_cut(waiting, position)
            yield bytes(waiting[position:end])
            position = end
        del waiting[:position]
        while not ended and len(waiting) <= _BLOCK_BYTES:
            block = next(source, None)
            ended = block is None
            waiting += block or b""


def _small(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks in pieces of bounded size, so that what waits stays small even if a block is huge."""
    for block in blocks:
        for start in range(0, len(block), _BLOCK_BYTES):
            yield block[start : start + _BLOCK_BYTES]


def _next_cut(data: bytearray, start: int) -> int:
    """Where the section that begins at `start` ends."""
    left = len(data) - start
    if left <= SECTION_BYTES:
        return len(data)
    # The last section is not left with a few words: what remains after this cut is no shorter than the least.
    limit = start + min(SECTION_BYTES, left - _LEAST_BYTES)
    least = start + _LEAST_BYTES
    for find in (_last_heading, _last_paragraph, _last_line, _last_space):
        cut = find(data, least, limit)
        if cut > least:
            return cut
    return _between_characters(data, limit)


def _last_heading(data: bytearray, least: int, limit: int) -> int:
    """Start of the last heading that begins in [least, limit], or -1."""
    best = -1
    for found in _HEADING.finditer(data, least, limit):
        best = found.start() + 1
    for found in _UNDERLINE.finditer(data, least, limit):
        title = data.rfind(b"\n", least, found.start()) + 1
        line = data[title : found.start()] if title else b""
        if len(line) <= _TITLE_BYTES and line.strip() and title > best:
            best = title
    return best


def _last_paragraph(data: bytearray, least: int, limit: int) -> int:
    """End of the last blank line in the range, or -1."""
    best = -1
    for found in _PARAGRAPH.finditer(data, least, limit):
        best = found.end()
    return best


def _last_line(data: bytearray, least: int, limit: int) -> int:
    """End of the last line in the range, or -1; a lone carriage return ends a line too."""
    feed = data.rfind(b"\n", least, limit)
    if feed >= 0:
        return feed + 1
    carriage = data.rfind(b"\r", least, limit)
    if carriage < 0 or data[carriage + 1] == _LINE_FEED:
        return -1
    return carriage + 1


def _last_space(data: bytearray, least: int, limit: int) -> int:
    """End of the last run of blanks in the range, or -1."""
    return max(data.rfind(b" ", least, limit), data.rfind(b"\t", least, limit)) + 1


def _between_characters(data: bytearray, limit: int) -> int:
    """`limit`, or up to three bytes before it, so that no UTF-8 character and no line end is cut in two."""
    for back in range(4):
        if data[limit - back] & 0xC0 != 0x80:
            limit -= back
            break
    if data[limit - 1] == _CARRIAGE_RETURN and data[limit] == _LINE_FEED:
        limit -= 1
    return limit
