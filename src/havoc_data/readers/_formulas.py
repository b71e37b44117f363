r"""Formulas and code taken out of a page and put back: what the extraction of its text cannot harm.

Works on the tree of lxml in place. In the tree a word such as "qformula17q" stands for each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from havoc_data.readers._mathml import latex_of, local_name

_IN_TEXT = re.compile(
    r"\\\((.+?)\\\)"
    r"|\\\[(.+?)\\\]"
    r"|(?<![\\$])\$\$(?!\$)(.+?)(?<!\\)\$\$"
    r"|(\\begin\{(equation|align|gather|multline|eqnarray|alignat|flalign|displaymath|math)(\*?)\}.+?\\end\{\5\6\})",
    re.DOTALL,
)
_STYLE = re.compile(r"\{\s*\\(?:display|text)style\b\s*(.*)\}", re.DOTALL)
_DELIMITED = re.compile(r"(\$\$?|\\\(|\\\[)(.*?)(\$\$?|\\\)|\\\])", re.DOTALL)
_CDATA = re.compile(r"%?\s*<!\[CDATA\[|%?\s*\]\]>")
_RENDERED = re.compile(r"MathJax(?:_Preview|_Display|_SVG|_SVG_Display|_CHTML|_FullWidth)?|mjx-chtml|MJXc-display")
_PICTURE = re.compile(r"mwe-math-fallback-\S*|tex|latex|math-tex")
_WHOLE = re.compile(r"\s*(?:\$.+\$|\\\(.+\\\)|\\\[.+\\\])\s*", re.DOTALL)
_PASSED = frozenset({"script", "style", "template", "textarea", "svg", "iframe", "noscript"})
_SIGNS = "0123456789+-−=()"
_RAISED = str.maketrans(_SIGNS, "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾")
_LOWERED = str.maketrans(_SIGNS, "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
_LONGEST_INDEX = 24


@dataclass(frozen=True)
class Protected:
    """What was taken out of one page."""

    word: re.Pattern[str]
    """Matches the words that stand for something; group 1 is its number."""
    pieces: tuple[str, ...]
    """What goes where the word is."""
    is_formula: tuple[bool, ...]
    """For each piece; the others are code."""
    unreadable: int
    """Formulas of which the page has only the picture."""

    @classmethod
    def take_out(cls, tree: Any, source: str) -> Protected:
        """Exchange every formula and piece of code in the tree for a word that does not occur in `source`."""
        stem = "qformula"
        while stem in source:
            stem += "q"
        taker = _Taker(stem)
        taker.go_through(tree)
        pieces = tuple(taker.pieces)
        return cls(re.compile(rf"{stem}(\d+)q"), pieces, tuple(taker.is_formula), taker.unreadable)

    @property
    def formulas(self) -> int:
        """How many formulas the page has."""
        return sum(self.is_formula) + self.unreadable

    def lost(self, text: str) -> int:
        """How many of them are not in a text."""
        came = self._came_out(text)
        return self.unreadable + sum(formula and number not in came for number, formula in enumerate(self.is_formula))

    def characters(self, text: str) -> tuple[int, int]:
        """(characters of formulas and code that are in a text, of those that are not)."""
        came = self._came_out(text)
        kept = sum(len(self.pieces[number]) for number in came)
        return kept, sum(map(len, self.pieces)) - kept

    def put_back(self, text: str) -> str:
        """The text with everything in its place. A block of code stands on lines of its own."""
        text = self.word.sub(self._piece, text)
        return re.sub(r"\n{3,}(?=```)|(?<=```)\n{3,}", "\n\n", text).strip()

    def _piece(self, found: re.Match[str]) -> str:
        number = int(found[1])
        return self.pieces[number] if number < len(self.pieces) else found[0]

    def _came_out(self, text: str) -> set[int]:
        numbers = (int(found[1]) for found in self.word.finditer(text))
        return {number for number in numbers if number < len(self.pieces)}


class _Taker:
    """Goes through a tree and collects."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.pieces: list[str] = []
        self.is_formula: list[bool] = []
        self.unreadable = 0
        self.has_scripts = False

    def go_through(self, tree: Any) -> None:
        """In place; with a stack of its own, since a page may be nested deeper than Python may call."""
        self.has_scripts = any(_is_script(element) for element in tree.iter("script"))
        waiting = [tree]
        while waiting:
            element = waiting.pop()
            name = local_name(element)
            if element is not tree and self._taken(element, name):
                continue
            if not name or name in _PASSED:
                continue
            element.text = self._in_text(element.text)
            for child in element:
                child.tail = self._in_text(child.tail)
            waiting.extend(reversed(list(element)))

    def _taken(self, element: Any, name: str) -> bool:
        """Whether the element was exchanged for something else, or removed."""
        if name in ("pre", "code", "tt", "samp", "listing", "xmp"):
            self._take_code(element, name)
            return True
        if name in ("sup", "sub"):
            return _take_index(element, name)
        if self.has_scripts and _is_rendered(element, name):
            _exchange(element, "")  # the script is the formula
            return True
        for find in (_script, _katex, _mathjax, _mediawiki, _picture, _mathml):
            found = find(element, name)
            if found is not None:
                latex, display = found
                word = self._formula(latex, display)
                _exchange(element, f" {word} " if display else word)
                return True
        if name == "mjx-container" or "katex-html" in _classes(element):
            self.unreadable += 1
        return False

    def _formula(self, latex: str, display: bool) -> str:
        """The word for a formula; "" for an empty one."""
        latex = _tidy(latex)
        if not latex:
            return ""
        whole = latex.startswith(r"\begin{") and _IN_TEXT.fullmatch(latex)
        mark = "" if whole else "$$" if display else "$"
        # A new line is a space to TeX, unless a comment ends there.
        lines = latex if "%" in latex.replace(r"\%", "") or whole else " ".join(latex.split())
        return self._word(f"{mark}{lines}{mark}", formula=True)

    def _take_code(self, element: Any, name: str) -> None:
        for line in element.iter("br"):
            line.tail = "\n" + (line.tail or "")
        code = "".join(element.itertext()).replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip()
        if not code.strip():
            _exchange(element, code)
            return
        longest = max(map(len, re.findall("`+", code)), default=0)
        if "\n" in code or name in ("pre", "listing", "xmp"):
            fence = "`" * max(3, longest + 1)
            element.clear(keep_tail=True)
            element.tag = "p"
            element.text = self._word(f"\n{fence}\n{code}\n{fence}\n", formula=False)
            return
        fence = "`" * (longest + 1)
        inner = f" {code} " if longest else code.strip()
        _exchange(element, self._word(f"{fence}{inner}{fence}", formula=False))

    def _in_text(self, text: str | None) -> str | None:
        if not text or ("\\" not in text and "$$" not in text):
            return text
        return _IN_TEXT.sub(lambda found: self._formula(*_of_text(found)) or found[0], text)

    def _word(self, piece: str, *, formula: bool) -> str:
        self.pieces.append(piece)
        self.is_formula.append(formula)
        return f"{self.stem}{len(self.pieces) - 1}q"


def _of_text(found: re.Match[str]) -> tuple[str, bool]:
    inline, bracketed, dollars, environment = found[1], found[2], found[3], found[4]
    return (inline, False) if inline else (bracketed or dollars or environment, True)


_Found = tuple[str, bool] | None
"""(LaTeX, whether it stands on its own); ("", False) for what is only removed; None for what is no formula."""


def _is_script(element: Any) -> bool:
    return (element.get("type") or "").lower().startswith("math/")


def _script(element: Any, name: str) -> _Found:
    if name != "script" or not _is_script(element):
        return None
    kind, source = element.get("type").lower(), "".join(element.itertext())
    latex = _parsed(source) if kind.startswith("math/mml") else _CDATA.sub("", source)
    return latex, re.search(r"mode\s*=\s*display", kind) is not None


def _katex(element: Any, name: str) -> _Found:
    classes = _classes(element)
    if not classes & {"katex", "katex-display", "katex-mathml"}:
        return None
    math = _first_math(element)
    return None if math is None else (latex_of(math), "katex-display" in classes or _is_block(math))


def _is_rendered(element: Any, name: str) -> bool:
    """Whether MathJax wrote it, to be seen."""
    classes = _classes(element)
    return name == "mjx-container" or any(map(_RENDERED.fullmatch, classes))


def _mathjax(element: Any, name: str) -> _Found:
    if not _is_rendered(element, name):
        return None
    display = "display" in (element.get("class") or "").lower() or element.get("display") == "true"
    math = _first_math(element)
    if math is not None:
        return latex_of(math), display or _is_block(math)
    holder = next((each for each in element.iter() if local_name(each) and each.get("data-mathml")), None)
    return None if holder is None else (_parsed(holder.get("data-mathml")), display)


def _mediawiki(element: Any, name: str) -> _Found:
    if "mwe-math-element" not in _classes(element):
        return None
    math = _first_math(element)
    images = [each for each in element.iter("img") if each.get("alt")]
    latex = latex_of(math) if math is not None else images[0].get("alt") if images else ""
    display = any("display" in " ".join(_classes(each)) for each in element.iter() if local_name(each))
    return (latex, display or (math is not None and _is_block(math))) if latex else None


def _picture(element: Any, name: str) -> _Found:
    alternative = element.get("alt") or ""
    if name != "img" or not alternative.strip():
        return None
    classes = _classes(element)
    if any(map(_PICTURE.fullmatch, classes)) or _WHOLE.fullmatch(alternative):
        block = alternative.strip().startswith(("$$", r"\["))
        return alternative, block or "display" in " ".join(classes)
    return None


def _mathml(element: Any, name: str) -> _Found:
    return (latex_of(element), _is_block(element)) if name == "math" else None


def _is_block(math: Any) -> bool:
    return "block" in (math.get("display") or "") or math.get("mode") == "display"


def _first_math(element: Any) -> Any:
    return next((each for each in element.iter() if local_name(each) == "math"), None)


def _parsed(source: str) -> str:
    """LaTeX of MathML that is given as text; "" if it is none."""
    if "<!" in source:  # a document type, and with it entities of its own: nothing that MathJax writes
        return ""
    try:
        math = _first_math(ElementTree.fromstring(f"<div>{source}</div>"))
    except ElementTree.ParseError:
        return ""
    return "" if math is None else latex_of(math)


def _classes(element: Any) -> set[str]:
    return set((element.get("class") or "").split())


def _tidy(latex: str) -> str:
    r"""Without delimiters and without MediaWiki's {\displaystyle ...}."""
    latex = latex.strip()
    delimited = _DELIMITED.fullmatch(latex)
    if delimited and delimited[2].strip():
        latex = delimited[2].strip()
    styled = _STYLE.fullmatch(latex)
    if styled and _balanced(styled[1]):
        latex = styled[1].strip()
    return latex


def _balanced(latex: str) -> bool:
    """Whether no brace closes before it opens."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", latex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def _take_index(element: Any, name: str) -> bool:
    """Write x<sup>2</sup> as x²: an extraction that drops the tags would make it x2. Links are footnotes and stay."""
    text = " ".join("".join(element.itertext()).split())
    tags = {local_name(each) for each in element.iterdescendants()}
    if not text or len(text) > _LONGEST_INDEX or tags - {"i", "em", "b", "strong", "var", "span"} or "\\" in text:
        return False
    if text in ("st", "nd", "rd", "th", "TM", "®", "©"):
        _exchange(element, text)
        return True
    table, mark = (_RAISED, "^") if name == "sup" else (_LOWERED, "_")
    written = text.translate(table) if all(sign in _SIGNS for sign in text) else f"{mark}{{{text}}}"
    _exchange(element, f"{mark}{text}" if len(text) == 1 and text.isalpha() else written)
    return True


def _exchange(element: Any, text: str) -> None:
    """Put a text where an element was; what followed it follows still."""
    parent, before = element.getparent(), element.getprevious()
    text += element.tail or ""
    if before is None:
        parent.text = (parent.text or "") + text
    else:
        before.tail = (before.tail or "") + text
    element.tail = None
    parent.remove(element)
