r"""XML of books as text: told of every start, text and end in turn, it writes Markdown with LaTeX.

Built from the inside out: when an element ends, its contents become pieces of the element that holds it. A piece is part
of a line or stands for itself. What an unknown element is, its surroundings tell: among words it is part of the line,
among elements only it stands for itself. There is no recursion. Of a formula
that is there in several forms one is taken; no other text is dropped.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from xml.etree import ElementTree

from havoc_data.readers import _xml_names as names
from havoc_data.readers._mathml import latex_of
from havoc_data.readers._xml_pieces import BLANKS, Piece, blocks_of, in_line, line_of, lines_of, longest_run, without

DEEPEST = 256
"""Deepest nesting of elements that can be written; books have a dozen levels."""
_DEEPEST_INDENT = 8
_LINE_EDGE = re.compile(r"[ \t]*\n\s*")
_BETWEEN = r"\intertext{"
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"))


class _Frame:
    """An element that is open."""

    def __init__(self, tag: str, attributes: Mapping[str, str], formulas: int, lost: int) -> None:
        self.tag = tag
        self.attributes = attributes
        self.pieces: list[Piece] = []
        self.title: str | None = None
        self.formulas = formulas
        self.lost = lost

    def raw(self) -> str:
        """All its text as it stands."""
        return "".join(part.text for part in in_line(self.pieces))

    def has_words(self) -> bool:
        """Whether text stands in it directly."""
        return any(piece.kind in ("words", "exact", "display") and piece.text.strip() for piece in self.pieces)


class XmlText:
    """Writes the text of one XML file. Give it every event in the order of the file, then ask for `text`."""

    def __init__(self) -> None:
        self.formulas = 0
        """Formulas so far, those that gave nothing included."""
        self.lost = 0
        """Formulas that gave nothing."""
        self._stack = [_Frame("", {}, 0, 0)]
        self._tree: ElementTree.TreeBuilder | None = None  # of the MathML that is open
        self._tree_depth = 0
        self._skipped = 0

    @property
    def depth(self) -> int:
        """How many elements are open."""
        return len(self._stack) - 1 + self._tree_depth + self._skipped

    @property
    def text(self) -> str:
        """All that was written, at the end."""
        return "\n\n".join(blocks_of(self._stack[0].pieces))

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins; `name` may have a prefix."""
        tag = name.rsplit(":", 1)[-1].lower()
        if self._skipped or name == "xi:include":
            self._skipped += 1
        elif self._tree is not None or tag == "math":
            self._tree = self._tree or ElementTree.TreeBuilder()
            self._tree.start(tag, dict(attributes))
            self._tree_depth += 1
        else:
            self._stack.append(_Frame(tag, attributes, self.formulas, self.lost))

    def characters(self, data: str) -> None:
        """Text inside the element that is open."""
        if self._skipped:
            return
        if self._tree is not None:
            self._tree.data(data)
        else:
            self._stack[-1].pieces.append(Piece("words", data))

    def end(self, name: str) -> None:
        """The element that is open ends."""
        if self._skipped:
            self._skipped -= 1
        elif self._tree is not None:
            self._tree.end(name.rsplit(":", 1)[-1].lower())
            self._tree_depth -= 1
            if not self._tree_depth:
                math, self._tree = self._tree.close(), None
                block = "block" in (math.get("display") or math.get("mode") or "")
                self._stack[-1].pieces += self._formula(latex_of(math), block or self._in_display())
        else:
            frame = self._stack.pop()
            write = _WRITERS.get(frame.tag, XmlText._unknown)
            asides = []
            if write not in _PARAGRAPH_WRITERS:  # entries of the index wait for the end of the paragraph
                asides = [piece for piece in frame.pieces if piece.kind == "aside"]
                frame.pieces = without(frame.pieces, "aside")
            self._stack[-1].pieces += [*write(self, frame), *asides]

    def _formula(self, latex: str, display: bool) -> list[Piece]:
        self.formulas += 1
        latex = latex.strip()
        for opening, closing in _DELIMITERS:
            if latex.startswith(opening) and latex.endswith(closing) and len(latex) > len(opening + closing):
                latex = latex[len(opening) : -len(closing)].strip()
                break
        if not latex:
            self.lost += 1
            return []
        lines = _LINE_EDGE.sub("\n", latex)
        # To TeX the end of a line is a space, unless a comment ends there.
        has_comment = re.search(r"(?<!\\)%", lines) is not None
        end = "\n" if has_comment else ""
        if display:
            return [Piece("display", lines if lines.startswith(r"\begin{align") else rf"\[{lines}{end}\]")]
        return [Piece("exact", f"${lines}{end}$" if has_comment else f"${lines.replace(chr(10), ' ')}$")]

    def _in_display(self) -> bool:
        around = next((frame.tag for frame in reversed(self._stack) if frame.tag in names.EQUATIONS), None)
        return around is not None and around not in names.INLINE_EQUATIONS

    def _within(self, tags: frozenset[str]) -> bool:
        return any(frame.tag in tags for frame in self._stack)

    def _titled(self, frame: _Frame, blocks: list[str]) -> list[Piece]:
        """Blocks, under the title of the element if it has one."""
        if frame.title:
            if frame.tag in names.DIVISIONS:
                level = 1 + sum(each.tag in names.DIVISIONS for each in self._stack)
                blocks = ["#" * min(level, 6) + " " + frame.title, *blocks]
            elif frame.tag not in names.LABELLED:
                blocks = [f"**{frame.title}**", *blocks]
        if frame.tag in names.LABELLED and (blocks or frame.title):
            word = " ".join(filter(None, (frame.tag.capitalize(), frame.attributes.get("acro"))))
            blocks = [f"**{'. '.join(filter(None, (word, frame.title)))}**", *blocks]
        return [Piece("block", block) for block in blocks]

    def _unknown(self, frame: _Frame) -> list[Piece]:
        said = [piece for piece in frame.pieces if piece.kind != "words" or piece.text.strip()]
        if len(said) == 1 and said[0].kind == "either" and not frame.title:
            return said  # what is wrapped in many elements is not put together anew for each
        if frame.title or any(piece.kind in ("block", "item") for piece in frame.pieces):
            return self._container(frame)
        rest = [piece for piece in frame.pieces if piece.kind in _FOR_OTHERS]
        own = without(frame.pieces, *_FOR_OTHERS)
        return [Piece("either", "\n\n".join(blocks_of(own)), in_line(own)), *rest]

    def _container(self, frame: _Frame) -> list[Piece]:
        return self._titled(frame, blocks_of(frame.pieces))

    def _paragraph(self, frame: _Frame) -> list[Piece]:
        blocks = blocks_of(frame.pieces, among_words=True)
        if frame.tag in names.CELLS and self._stack[-1].tag in names.ROWS:
            return [Piece("cell", BLANKS.sub(" ", " ".join(blocks)))]
        return self._titled(frame, blocks)

    def _inline(self, frame: _Frame) -> list[Piece]:
        if frame.tag in names.REFERENCES and not frame.title and not frame.raw().strip():
            keys = names.REFERENCES[frame.tag]
            target = next((frame.attributes[key] for key in keys if frame.attributes.get(key)), "")
            kind, dash, name = target.partition("-")
            if dash and kind in names.DIVISIONS | names.LABELLED:  # printed as "Theorem FS"
                target = f"{kind.capitalize()} {name}"
            return [Piece("words", target)]
        return [*in_line(frame.pieces)] if not frame.title else self._container(frame)

    def _title(self, frame: _Frame) -> list[Piece]:
        holder = next(each for each in reversed(self._stack) if each.tag not in names.INFO | names.INDEX)
        is_held = holder.tag != "" and _WRITERS.get(holder.tag, XmlText._unknown) in _HOLDERS
        if not is_held or holder.title is not None or holder.has_words() or self._within(names.SOURCES):
            return self._unknown(frame)
        holder.title = BLANKS.sub(" ", " ".join(blocks_of(frame.pieces, among_words=True)))
        return []

    def _item(self, frame: _Frame) -> list[Piece]:
        blocks = [*([frame.title] if frame.title else []), *blocks_of(frame.pieces)]
        deep = sum(each.tag in names.ITEMS for each in self._stack) >= _DEEPEST_INDENT
        text = "\n\n".join(blocks)
        return [Piece("item", "- " + (text if deep else re.sub(r"\n(?=[^\n])", "\n  ", text)))] if text else []

    def _row(self, frame: _Frame) -> list[Piece]:
        cells = [piece.text for piece in frame.pieces if piece.kind == "cell"]
        rest = without(frame.pieces, "cell")
        if not cells:
            return self._unknown(frame)
        return [Piece("item", " | ".join(cells)), *(Piece("block", block) for block in blocks_of(rest))]

    def _line(self, frame: _Frame) -> list[Piece]:
        return [Piece("item", block) for block in blocks_of(frame.pieces, among_words=True)]

    def _code(self, frame: _Frame) -> list[Piece]:
        code = frame.raw()
        if frame.tag == "code" and self._stack[-1].tag in ("program", "listing"):
            return self._code_block(frame)
        fence = "`" * (1 + longest_run(code))
        return [Piece("exact", f"{fence}{code}{fence}" if code.strip() else code)]

    def _code_block(self, frame: _Frame) -> list[Piece]:
        code = textwrap.dedent(frame.raw()).strip("\n").rstrip()
        if any(piece.kind in ("block", "item") for piece in frame.pieces) or not code.strip():
            return self._container(frame)
        fence = "`" * max(3, 1 + longest_run(code))
        language = "python" if self._stack[-1].tag == "sage" and frame.tag == "input" else ""
        return self._titled(frame, [f"{fence}{language}\n{code}\n{fence}"])

    def _shell(self, frame: _Frame) -> list[Piece]:
        return self._code_block(frame) if self._within(names.SHELLS) else self._unknown(frame)

    def _code_line(self, frame: _Frame) -> list[Piece]:
        return [Piece("words", frame.raw() + "\n")]

    def _macros(self, frame: _Frame) -> list[Piece]:
        macros = textwrap.dedent(frame.raw()).strip()
        return [Piece("block", macros)] if macros else []

    def _inline_math(self, frame: _Frame) -> list[Piece]:
        return self._formula(frame.raw(), self._in_display())

    def _display_math(self, frame: _Frame) -> list[Piece]:
        if all(piece.kind != "mrow" for piece in frame.pieces):
            if self._stack[-1].tag in names.DISPLAYS:  # meant as text between the rows of the one around it
                return self._between_rows(frame)
            return self._formula(frame.raw(), True)
        rows: list[str] = []
        for piece in frame.pieces:
            row = piece.text
            if piece.kind != "mrow":  # words between the rows
                row = _between(line_of([piece])) if row.strip() else ""
            if row and rows:
                rows.append("\n" if _BETWEEN in (row[: len(_BETWEEN)], rows[-1][: len(_BETWEEN)]) else " \\\\\n")
            rows += [row] if row else []
        return self._formula("\n".join((r"\begin{align*}", "".join(rows), r"\end{align*}")) if rows else "", True)

    def _math_row(self, frame: _Frame) -> list[Piece]:
        return [Piece("mrow", _LINE_EDGE.sub("\n", frame.raw().strip()))]

    def _between_rows(self, frame: _Frame) -> list[Piece]:
        return [Piece("mrow", _between(" ".join(blocks_of(frame.pieces, among_words=True))))]

    def _equation(self, frame: _Frame) -> list[Piece]:
        """One formula, in the best of the forms that are there: TeX, MathML, what its text says, nothing."""
        display = frame.tag not in names.INLINE_EQUATIONS
        kept = without(frame.pieces, "alt", "tex")
        found, lost = self.formulas - frame.formulas, self.lost - frame.lost
        source = next((piece.text for piece in frame.pieces if piece.kind == "tex" and piece.text), "")
        if not source and found == lost:
            source = next((piece.text for piece in frame.pieces if piece.kind == "alt" and piece.text), "")
        if source:
            self.formulas, self.lost = frame.formulas, frame.lost
            kept = [piece for piece in kept if piece.kind not in ("exact", "display", "either")]
            kept += self._formula(source, display)
        elif not found:
            said = "".join(part.text for part in in_line(kept)).strip()
            self.formulas, self.lost = self.formulas + 1, self.lost + (not said)
        return self._titled(frame, blocks_of(kept)) if frame.title else kept

    def _alternative(self, frame: _Frame) -> list[Piece]:
        if not self._within(names.EQUATIONS):
            return self._unknown(frame)
        source = frame.raw()
        inside = re.search(r"\\begin\{document\}(.*)\\end\{document\}", source, re.DOTALL)
        return [Piece("tex" if frame.tag == "tex-math" else "alt", (inside[1] if inside else source).strip())]

    def _script(self, frame: _Frame) -> list[Piece]:
        inside = in_line(frame.pieces)
        mark = names.SCRIPTS[frame.tag]
        return [Piece("words", mark + "{"), *inside, Piece("words", "}")] if frame.raw().strip() else [*inside]

    def _quote(self, frame: _Frame) -> list[Piece]:
        opening, closing = names.QUOTES[frame.tag]
        return [Piece("exact", opening), *in_line(frame.pieces), Piece("exact", closing)]

    def _note(self, frame: _Frame) -> list[Piece]:
        text = " ".join(blocks_of(frame.pieces, among_words=True))
        return [Piece("exact", f" ({text})")] if text else []

    def _index(self, frame: _Frame) -> list[Piece]:
        texts = (line_of([piece]) for piece in lines_of(frame.pieces))
        return [Piece("aside", ", ".join(filter(None, texts)))]

    def _sign(self, frame: _Frame) -> list[Piece]:
        if frame.pieces:
            return self._unknown(frame)
        in_math = self._within(names.FORMULAS | names.DISPLAYS)
        sign = r"\underline{\qquad}" if in_math and frame.tag == "fillin" else names.SIGNS[frame.tag]
        return [Piece("words", sign)]


def _between(text: str) -> str:
    return f"{_BETWEEN}{text}}}" if text else ""


def _table() -> dict[str, Callable[[XmlText, _Frame], list[Piece]]]:
    groups: tuple[tuple[Iterable[str], Callable[[XmlText, _Frame], list[Piece]]], ...] = (
        (names.DIVISIONS | names.LABELLED, XmlText._container),
        (names.INLINE, XmlText._inline),
        (names.PARAGRAPHS, XmlText._paragraph),
        (names.SIGNS, XmlText._sign),
        (names.ITEMS, XmlText._item),
        (names.ROWS, XmlText._row),
        (names.CODE, XmlText._code),
        (names.CODE_BLOCKS, XmlText._code_block),
        (("input", "output"), XmlText._shell),
        (names.MACROS, XmlText._macros),
        (names.FORMULAS, XmlText._inline_math),
        (names.DISPLAYS, XmlText._display_math),
        (names.EQUATIONS, XmlText._equation),
        (names.ALTERNATIVES, XmlText._alternative),
        (names.SCRIPTS, XmlText._script),
        (names.QUOTES, XmlText._quote),
        (names.NOTES, XmlText._note),
        (names.INDEX, XmlText._index),
        (("title", "article-title"), XmlText._title),
        (("line",), XmlText._line),
        (("cline",), XmlText._code_line),
        (("mrow",), XmlText._math_row),
        (("intertext",), XmlText._between_rows),
    )
    return {tag: write for tags, write in groups for tag in tags}


_WRITERS = _table()
_FOR_OTHERS = ("aside", "cell", "mrow", "alt", "tex")
"""Kinds of pieces that an unknown element hands on to the one around it."""
_PARAGRAPH_WRITERS = frozenset({XmlText._unknown, XmlText._container, XmlText._paragraph, XmlText._item, XmlText._line})
"""What puts the index entries that it holds after its paragraphs."""
_HOLDERS = frozenset({
    XmlText._unknown, XmlText._container, XmlText._inline, XmlText._paragraph, XmlText._item, XmlText._code_block,
    XmlText._equation,
})  # fmt: skip
"""What writes the title of an element over its text."""
