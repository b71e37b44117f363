r"""XML of books and papers: MathBook/PreTeXt, DocBook, JATS, and any other XML with prose in it.

The text becomes Markdown: titles of chapters and sections as headings, items of lists, rows of tables, code in fences.
Formulas stay or become LaTeX: $...$ in a line, \[...\] or align* on lines of their own; MathML gives its TeX annotation
or is written in one line. Counted are ("formulas", n) and, of these, ("formulas_lost", n) that gave nothing. Comments
and processing instructions leave no text, nor do included files: they are read themselves.

A file is refused that declares entities of its own (they can grow without bound, or name other files) or nests elements
deeper than any book does. HTML's named entities are known without being declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.entities import html5
from xml.parsers import expat

from havoc_core.config import Section
from havoc_data.document import Document, Rejected
from havoc_data.encoding import decode_whole
from havoc_data.inputs import Input, InputError
from havoc_data.readers._shares import share_out
from havoc_data.readers._xml_text import DEEPEST, XmlText
from havoc_data.sections import cut_into_sections

_DECLARATION = re.compile(r"\s*<\?xml\s[^>]*\?>")
_ENCODING = re.compile(rb"^\s*<\?xml\s[^>]*?\bencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")
_SYNTAX, _NO_ELEMENTS, _JUNK_AFTER = 2, 3, 9
"""Expat's codes for files that have not exactly one outermost element."""
_STEP = 2**20


class Options(Section):
    """This reader has no settings."""


def build(options: Options) -> XmlReader:
    """The reader of XML. Needs no package."""
    return XmlReader()


@dataclass(frozen=True)
class XmlReader:
    """Reads one file at a time, as a whole. A `Reader`."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """Every file alone: an included file is a text of its own."""
        return [(item,) for item in items]

    def boundary(self, item: Input, near: int) -> int | None:
        """None: what is a heading or a formula can only be told from all that stands around it."""
        return None

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """The file as one document, or as several if its text is long; they share out its bytes by their length.

        The counts are those of the whole file and stand on its first document.

        Raises:
            InputError: the file cannot be unpacked, is no text, is larger than `inputs.WHOLE_FILE_BYTES`, declares
                entities, or nests elements too deeply.
        """
        (item,) = unit
        raw = item.read_all()
        source, counts = _decoded(raw)
        try:
            written = _written(source)
        except expat.ExpatError as error:
            place = f"line {error.lineno}, column {error.offset + 1}"
            reason = f"it is not well-formed XML: {expat.ErrorString(error.code)} ({place})"
            yield Rejected(item.origin, reason, len(raw))
            return
        text = written.text
        if not text.strip():
            yield Rejected(item.origin, "there is no text in it", len(raw), rule="no_text")
            return
        found = (("formulas", written.formulas), ("formulas_lost", written.lost))
        counts = (*counts, *(each for each in found if each[1]))
        sections = cut_into_sections(text)
        shares = share_out(0, len(raw), [last - first for first, last in sections])
        for ordinal, ((first, last), (start, end)) in enumerate(zip(sections, shares, strict=True)):
            yield Document(item.origin, text[first:last], (), ordinal, start, end, counts=() if ordinal else counts)


def _decoded(raw: bytes) -> tuple[str, tuple[tuple[str, int], ...]]:
    """The source, in the encoding that it declares if the bytes agree, else in the one that is found.

    Raises:
        InputError: it is no text.
    """
    if not raw.strip():
        return "", ()
    declared = _ENCODING.match(raw)
    name = declared[1].decode("ascii").lower() if declared else "utf-8"
    if name not in ("utf-8", "utf8", "us-ascii", "ascii") and not name.startswith(("utf", "ucs", "iso-10646")):
        try:
            return raw.decode(name), ((f"decoded_from_{name}", 1),)
        except (LookupError, UnicodeError):
            pass  # it says what it is not
    return decode_whole(raw)


def _written(source: str) -> XmlText:
    """The text of a file; one without a single outermost element, such as a list of macros, is read as if it had one.

    Raises:
        ExpatError: it is not well-formed.
        InputError: it declares entities, or nests elements too deeply.
    """
    # The declaration says nothing that matters now, and standalone="yes" would forbid HTML's entities.
    declaration = _DECLARATION.match(source)
    if declaration:
        source = re.sub(r"[^\n]", " ", declaration[0]) + source[declaration.end() :]
    try:
        return _parsed(source, wrapped=False)
    except expat.ExpatError as error:
        if error.code not in (_SYNTAX, _NO_ELEMENTS, _JUNK_AFTER):
            raise
    if not source.strip():
        return XmlText()
    return _parsed(source, wrapped=True)


def _parsed(source: str, *, wrapped: bool) -> XmlText:
    written = XmlText()
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    # Without it an entity that is not declared would be an error.
    parser.UseForeignDTD(True)

    def start(name: str, attributes: Mapping[str, str]) -> None:
        if written.depth >= DEEPEST:
            raise InputError(f"its elements are nested more than {DEEPEST} deep (line {parser.CurrentLineNumber})")
        written.start(name, attributes)

    def skipped(name: str, is_parameter: bool) -> None:
        if not is_parameter:
            written.characters(html5.get(name + ";", f"&{name};"))

    def declared(name: str, *rest: object) -> None:
        raise InputError(
            f"it declares the entity '{name}'; entities of a file's own are not read, write out what they say"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = written.end
    parser.CharacterDataHandler = written.characters
    parser.SkippedEntityHandler = skipped
    parser.EntityDeclHandler = declared
    # On the same line as the text, so that the lines of errors are those of the file.
    if wrapped:
        parser.Parse("<fragment>", False)
    for position in range(0, len(source), _STEP):
        parser.Parse(source[position : position + _STEP].encode("utf-8", "replace"), False)
    parser.Parse("</fragment>" if wrapped else "", True)
    return written
