"""Jupyter notebooks: .ipynb of nbformat 3 and 4.

Cells follow one another as Markdown: text as it is, code in fences with its language, and under it what it printed. Of
outputs only text is kept, at most 2,000 characters each; pictures, HTML and other forms that say nothing in words are
counted: ("outputs_left_out", n), texts that were cut short: ("outputs_cut", n), pictures inside text as base64:
("images_left_out", n). Attachments of cells are never read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from havoc_core.config import Section
from havoc_data.document import Document, Rejected
from havoc_data.encoding import decode_whole
from havoc_data.inputs import Input
from havoc_data.readers._shares import share_out
from havoc_data.sections import cut_into_sections

OUTPUT_CHARACTERS = 2000
"""Longest text of one output."""
_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,20}")
_PICTURE = re.compile(r"data:[\w.+-]{1,50}/[\w.+-]{1,50}(?:;[\w=-]{1,50}){0,4};base64,[A-Za-z0-9+/=%]*+")
_COLOURS = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_MIMES_OF_3 = {"text": "text/plain", "html": "text/html", "png": "image/png", "jpeg": "image/jpeg", "svg": "image/svg+xml",
               "latex": "text/latex", "javascript": "application/javascript", "json": "application/json"}  # fmt: skip


class Options(Section):
    """This reader has no settings."""


def build(options: Options) -> NotebookReader:
    """The reader of notebooks. Needs no package."""
    return NotebookReader()


@dataclass(frozen=True)
class NotebookReader:
    """Reads one notebook at a time, as a whole. A `Reader`."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """Every notebook alone."""
        return [(item,) for item in items]

    def boundary(self, item: Input, near: int) -> int | None:
        """None: a notebook is one JSON value."""
        return None

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """The notebook as one document, or as several if its text is long; they share out its bytes by their length.

        The counts are those of the whole notebook and stand on its first document.

        Raises:
            InputError: the file cannot be unpacked, is no text, or is larger than `inputs.WHOLE_FILE_BYTES`.
        """
        (item,) = unit
        raw = item.read_all()
        source, counts = decode_whole(raw) if raw else ("", ())
        book = _parsed(source)
        cells = [] if isinstance(book, str) else _cells(book)
        if isinstance(book, str) or cells is None:
            reason = book if isinstance(book, str) else "it is JSON, but no notebook: it has no list of cells"
            yield Rejected(item.origin, reason, len(raw))
            return
        writer = _Writer(_language(book))
        text = "\n\n".join(filter(None, map(writer.cell, cells)))
        if not text.strip():
            reason = "there is no text in its cells" if cells else "it has no cells"
            yield Rejected(item.origin, reason, len(raw), rule="no_text")
            return
        counts = (*counts, *sorted(writer.counts.items()))
        sections = cut_into_sections(text)
        shares = share_out(0, len(raw), [last - first for first, last in sections])
        for ordinal, ((first, last), (start, end)) in enumerate(zip(sections, shares, strict=True)):
            yield Document(item.origin, text[first:last], (), ordinal, start, end, counts=() if ordinal else counts)


def _parsed(source: str) -> dict[str, Any] | str:
    """The notebook, or why it is none."""
    try:
        book = json.loads(source)
    except json.JSONDecodeError as error:
        return f"it is no valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    except ValueError as error:  # a number with more digits than Python reads
        return f"it is no valid JSON: {error}"
    except RecursionError:
        return "it is no valid JSON: its values are nested too deeply"
    return book if isinstance(book, dict) else "it is JSON, but no notebook: it is no object with cells"


def _cells(book: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The cells in order; of nbformat 3, those of its worksheets. None if there is no list of them."""
    if isinstance(book.get("cells"), list):
        found = book["cells"]
    elif isinstance(book.get("worksheets"), list):
        sheets = [sheet.get("cells") for sheet in book["worksheets"] if isinstance(sheet, dict)]
        found = [cell for cells in sheets if isinstance(cells, list) for cell in cells]
    else:
        return None
    return [cell for cell in found if isinstance(cell, dict)]


def _language(book: dict[str, Any]) -> str:
    """What its code is written in; python where it does not say."""
    about = _object(book.get("metadata"))
    for place, key in (("language_info", "name"), ("kernelspec", "language")):
        name = _object(about.get(place)).get(key)
        if isinstance(name, str) and _LANGUAGE.fullmatch(name):
            return name
    return "python"


class _Writer:
    """Writes cells and counts what it leaves out."""

    def __init__(self, language: str) -> None:
        self.counts: Counter[str] = Counter()
        self._language = language

    def cell(self, cell: dict[str, Any]) -> str:
        """The text of one cell; "" if it has none."""
        kind = cell.get("cell_type")
        if kind != "code":
            text = self._clean(_text(cell.get("source"))).strip("\n")
            if kind == "heading" and text.strip():  # nbformat 3
                level = cell.get("level")
                return "#" * (min(max(level, 1), 6) if isinstance(level, int) else 1) + " " + " ".join(text.split())
            return text if text.strip() else ""
        code = self._clean(_text(cell.get("source", cell.get("input")))).strip("\n")
        language = cell.get("language")
        known = isinstance(language, str) and _LANGUAGE.fullmatch(language)
        outputs = cell.get("outputs")
        texts = map(self._output, outputs if isinstance(outputs, list) else ())
        printed = "\n".join(text.strip("\n").rstrip() for text in texts if text.strip())
        blocks = ((code, str(language) if known else self._language), (printed, ""))
        return "\n\n".join(_fenced(text, name) for text, name in blocks if text.strip())

    def _output(self, output: Any) -> str:
        """What an output says in words."""
        output = _object(output)
        kind = output.get("output_type")
        if kind == "stream":
            return self._short(_text(output.get("text")))
        if kind in ("error", "pyerr"):
            return self._short(": ".join(filter(None, (_text(output.get("ename")), _text(output.get("evalue"))))))
        forms = _object(output.get("data")) or {mime: output[key] for key, mime in _MIMES_OF_3.items() if key in output}
        plain = _text(forms.get("text/plain"))
        pictures = any(mime.startswith(("image/", "video/", "audio/")) for mime in forms)
        if pictures or any(mime != "text/plain" for mime in forms):
            self.counts["outputs_left_out"] += 1
        return "" if pictures else self._short(plain)  # beside a picture stands only what Python calls it

    def _short(self, text: str) -> str:
        text = _COLOURS.sub("", self._clean(text))
        if len(text) > OUTPUT_CHARACTERS:
            self.counts["outputs_cut"] += 1
        return text[:OUTPUT_CHARACTERS]

    def _clean(self, text: str) -> str:
        text, pictures = _PICTURE.subn("", _SURROGATES.sub("\ufffd", text))
        if pictures:
            self.counts["images_left_out"] += pictures
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """A text, which a notebook may write as a list of its lines; "" for anything else."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""


def _fenced(text: str, language: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
