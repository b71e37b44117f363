r"""HTML pages: the main content as Markdown, every formula as LaTeX.

What is content and what is menu, advertisement or footer is trafilatura's judgement. Its Markdown would escape LaTeX and
it drops formulas that it does not know, so formulas and code never pass through it: they are taken out of the tree first,
a made-up word stands in for each, and afterwards the word is exchanged for $...$, $$...$$ or the code as it was. Words
that did not come out again are counted: ("formulas", found), ("formulas_lost", not in the text). A page in which
trafilatura finds nothing, or loses a tenth of the formulas, is read as its plain body text: ("fallback", 1).

Formulas are looked for as MathML (TeX annotation, alttext, or the tree itself), as MathJax's scripts, KaTeX's and MathJax's
output, as images whose alternative text is TeX (MediaWiki, latex2html), and as \(..\), \[..\], $$..$$ and
\begin{equation}..\end{equation} in the text; $..$ needs no protection. Indices (<sup>, <sub>) are kept: 10⁻³, x_i.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from havoc_core.config import Section
from havoc_core.errors import MissingPackageError
from havoc_data.document import Document, Rejected
from havoc_data.encoding import decode_whole
from havoc_data.inputs import Input, InputError
from havoc_data.readers._formulas import Protected
from havoc_data.readers._mathml import local_name
from havoc_data.readers._shares import share_out
from havoc_data.sections import cut_into_sections

LARGEST_PAGE = 8 * 2**20
"""Longest page, in characters of its source, that trafilatura is asked about: its time grows faster than the page: 1 s for
1 MB, 6 to 9 s for 6 MB. A longer one (a printed manual, a dump) is read as its plain body text."""
WORST_LOSS = 0.1
"""Share of a page's formulas that trafilatura may leave out before the page is read as its plain body text."""
_DECLARED = re.compile(
    rb"<(?:meta[^>]*?\bcharset|\?xml[^>]*?\bencoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", re.IGNORECASE
)
_WINDOWS = {"iso-8859-1": "cp1252", "latin-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252"}
"""What browsers take these names for: encoding.spec.whatwg.org, section 4.2."""
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_ESCAPED = re.compile(r"(\\+)([_*\[\]<>`~|])")
_ESCAPED_START = re.compile(r"^([ \t]*(?:[-+] |\d+[.)] )?(?:\d+)?)\\([#>+\-=.)])", re.MULTILINE)
_UNSEEN = frozenset({
    "script", "style", "template", "head", "noscript", "iframe", "object", "embed", "svg", "canvas", "audio", "video",
    "select", "option", "button", "input", "textarea", "nav",
})  # fmt: skip
_BLOCKS = re.compile(
    r"address|article|aside|blockquote|body|caption|center|d[dlt]|details|div|fieldset|fig(?:caption|ure)|footer|form|"
    r"h[1-6]|header|hr|legend|li|main|ol|p|pre|section|summary|table|tbody|tfoot|thead|tr|ul"
)


class Options(Section):
    """Settings of the reader of HTML."""

    favor: Literal["balanced", "precision", "recall"] = "recall"
    """What to do where trafilatura is in doubt. recall loses least: of the formulas of a linear algebra book, as 1,644 pages
    in three layouts, it lost 0.6 %, balanced 2.0 %, precision 3.9 %. The price is a menu or a footer here and
    there, which the cleaning rules see too. precision also leaves out comments."""


def build(options: Options) -> HtmlReader:
    """The reader of HTML.

    Raises:
        MissingPackageError: trafilatura, or something that it needs, is not installed.
    """
    try:
        import trafilatura
    except ImportError as error:
        raise MissingPackageError(
            "reading .html files",
            f"trafilatura cannot be imported ({error}).".replace("\n", " "),
            "Install it: pip install 'havoc[formats]'.",
        ) from None
    del trafilatura
    return HtmlReader(options.favor)


@dataclass(frozen=True)
class HtmlReader:
    """Reads one page at a time, as a whole. A `Reader`."""

    favor: str
    """As in Options."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """Every page alone."""
        return [(item,) for item in items]

    def boundary(self, item: Input, near: int) -> int | None:
        """None: a page is a tree, and what is content can only be told from all of it."""
        return None

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """The page as one document, or as several if its text is long; they share out its bytes by their length.

        The counts are those of the whole page and stand on its first document.

        Raises:
            InputError: the file cannot be unpacked, or is larger than `inputs.WHOLE_FILE_BYTES`.
        """
        (item,) = unit
        raw = item.read_all()
        size = len(raw)
        made = self._page(raw) if raw.strip() else Rejected("", "it is empty", rule="no_text")
        if isinstance(made, Rejected):
            yield replace(made, origin=item.origin, bytes=size)
            return
        sections = cut_into_sections(made.text)
        shares = share_out(0, size, [end - start for start, end in sections])
        for ordinal, ((first, last), (start, end)) in enumerate(zip(sections, shares, strict=True)):
            counts = () if ordinal else made.counts
            yield Document(item.origin, made.text[first:last], ordinal=ordinal, start=start, end=end, counts=counts)

    def _page(self, raw: bytes) -> Document | Rejected:
        """The page without its place, or why it is none."""
        from lxml import etree, html

        try:
            source, counts = _decoded(raw)
        except InputError as error:
            return Rejected("", error.reason)
        # huge_tree lifts libxml2's limits from 256 to 2,048 levels and from 10 MB to 1 GB a node. Where they are passed it
        # leaves out the rest without a word, but for this log.
        parser = html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
        try:
            tree = html.document_fromstring(_CONTROLS.sub("", source).encode(), parser=parser)
        except (etree.LxmlError, AssertionError) as error:  # the assertion: a page with nothing but a comment
            return Rejected("", f"there is no text in it ({error or 'no element'})", rule="no_text")
        passed = [entry.message for entry in parser.error_log if entry.type_name == "ERR_RESOURCE_LIMIT"]
        if passed:
            return Rejected("", f"its elements are nested too deeply to be read ({passed[0].strip()})")
        protected = Protected.take_out(tree, source)
        _wrap_loose_text(tree, protected.word)
        text, fallback = self._text(tree, protected, len(source))
        if not text.strip():
            return Rejected("", "there is no text in it", rule="no_text")
        found = ("formulas", protected.formulas), ("formulas_lost", protected.lost(text))
        return Document(
            "", protected.put_back(text), counts=(*counts, *found, *([("fallback", 1)] if fallback else []))
        )

    def _text(self, tree: Any, protected: Protected, length: int) -> tuple[str, bool]:
        """(text with the words that stand for formulas, whether it is the plain body text)."""
        text = _main_content(tree, self.favor) if length <= LARGEST_PAGE else ""
        kept, lost = protected.characters(text)
        missed = protected.lost(text) - protected.unreadable
        careless = lost > kept + len(text) or (self.favor == "recall" and missed > WORST_LOSS * protected.formulas)
        if text.strip() and not careless:
            return text, False
        plain = body_text(tree)
        return (plain, True) if plain.strip() else (text, False)


def _decoded(raw: bytes) -> tuple[str, tuple[tuple[str, int], ...]]:
    """The page's source: in the encoding that it declares if it is not UTF-8 and the bytes agree, else in the one found.

    Raises:
        InputError: it is no text.
    """
    declared = _DECLARED.search(raw, 0, 4096)
    if declared:
        name = declared[1].decode("ascii").lower()
        try:
            raw.decode()
        except UnicodeDecodeError:
            try:
                encoding = _WINDOWS.get(name, name)
                return raw.decode(encoding), ((f"decoded_from_{encoding}", 1),)
            except (LookupError, UnicodeError):
                pass  # it says what it is not
    return decode_whole(raw)


def _wrap_loose_text(tree: Any, word: re.Pattern[str]) -> None:
    """Put text that stands loose in a <div> beside a formula into a <p>.

    A displayed formula ends the paragraph around it, and what follows hangs in the <div> above; trafilatura takes that
    for decoration. Of the formulas of a linear algebra book, as pages of one section, it lost 30 % for this reason.
    """
    for container in list(tree.iter("body", "div", "section", "article", "main", "center", "figure")):
        blocks = [child for child in container if _BLOCKS.fullmatch(local_name(child))]
        loose = [container.text, *(child.tail for child in container)]
        if not any(text and word.search(text) for text in (*loose, *(block.text for block in blocks))):
            continue
        if not blocks and container.tag == "div":
            container.tag = "p"
            continue
        paragraph, children, container_text = container.makeelement("p"), list(container), container.text
        paragraph.text, container.text = container_text, None
        rest: list[Any] = [paragraph]
        for child in children:
            if _BLOCKS.fullmatch(local_name(child)):
                paragraph = container.makeelement("p")
                paragraph.text, child.tail = child.tail, None
                rest += [child, paragraph]
            else:
                paragraph.append(child)
        container[:] = [each for each in rest if each.tag != "p" or len(each) or (each.text or "").strip()]


def _main_content(tree: Any, favor: str) -> str:
    """What trafilatura takes for the content, as Markdown without its escapes; "" if it finds nothing or fails."""
    from trafilatura import bare_extraction

    try:
        found = bare_extraction(
            tree,
            favor_precision=favor == "precision",
            favor_recall=favor == "recall",
            include_comments=favor != "precision",
            include_tables=True,
            include_formatting=True,
            deduplicate=False,
            with_metadata=False,
        )
    except Exception:  # anything, such as a RecursionError: one strange page must not end the build; it is read plainly
        return ""
    if found is None or isinstance(found, dict):
        return ""
    text = "\n\n".join(part.strip() for part in (found.text, found.comments) if part and part.strip())
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return unescape(text)


def unescape(text: str) -> str:
    r"""Undo the backslashes that Markdown puts before signs, as in a\_1: a model learns text, and 1 \< 2 is none.

    A run of n backslashes before a sign had become 2n + 1.
    """
    text = _ESCAPED.sub(lambda found: "\\" * (len(found[1]) // 2) + found[2], text)
    return _ESCAPED_START.sub(r"\1\2", text)


def body_text(tree: Any) -> str:
    """All that a reader would see on the page, menus left out: a line for each block, # before headings, - before items."""
    pieces: list[str] = []
    # Written with a stack of its own: a page may be nested deeper than Python may call.
    waiting: list[Any] = [tree]
    while waiting:
        piece = waiting.pop()
        if isinstance(piece, str):
            pieces.append(piece)
            continue
        waiting.append(_words(piece.tail))
        name = local_name(piece)
        if name and name not in _UNSEEN:
            before, after = _marks_of(name)
            pieces.append(before + _words(piece.text))
            waiting.append(after)
            waiting.extend(reversed(list(piece)))
    lines = (" ".join(line.split(" ")).strip() for line in "".join(pieces).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" {2,}", " ", "\n".join(lines))).strip()


def _marks_of(name: str) -> tuple[str, str]:
    """What stands before and after the content of an element."""
    if re.fullmatch("h[1-6]", name):
        return f"\n\n{'#' * int(name[1])} ", "\n\n"
    if name in ("td", "th"):
        return "", " | "
    if name == "li":
        return "\n- ", "\n"
    if name == "br":
        return "\n", ""
    if name in ("tr", "dt", "dd", "div"):
        return "\n", "\n"
    return ("\n\n", "\n\n") if _BLOCKS.fullmatch(name) else ("", "")


def _words(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")
