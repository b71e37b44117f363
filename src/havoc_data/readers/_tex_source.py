r"""What stands where in a LaTeX file: comments, preamble, verbatim text, formulas, commands that read another file.

One pass over the characters, in time that grows linearly with them, whatever they are. Nothing is expanded: a macro
is not followed, and what TeX would do with changed category codes (`\DefineShortVerb` and the like) is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_VERBATIM = frozenset({"verbatim", "Verbatim", "BVerbatim", "LVerbatim", "SaveVerbatim", "lstlisting", "minted", "alltt",
                       "filecontents"})  # fmt: skip
_DISPLAYS = frozenset({"equation", "align", "gather", "multline", "eqnarray", "displaymath", "math", "flalign",
                       "alignat", "xalignat", "dmath"})  # fmt: skip
_CLOSES = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_READS = "inputfrom|input|includefrom|include|subfileinclude|subfile|import|subimport|subinputfrom|subincludefrom"
_TWO_ARGUMENTS = frozenset({"import", "subimport", "inputfrom", "includefrom", "subinputfrom", "subincludefrom"})
_TOKEN = re.compile(
    r"%[^\r\n]*+"
    r"|\\(?:"
    r"[^A-Za-z]"  # \% and \\ and \$, so that the second character is not taken for itself
    r"|(?P<edge>begin|end)[ \t]*+\{(?P<environment>[A-Za-z]++\*?)\}"
    rf"|(?P<reads>{_READS})(?![A-Za-z@])"
    r"|(?P<verb>verb|Verb|lstinline|mintinline)(?![A-Za-z@])"
    r"|(?:url|nolinkurl|path|href)(?![A-Za-z@])[ \t]*+(?:\[[^]\r\n]{0,500}\][ \t]*+)?"
    r"(?P<address>\{(?:[^{}\r\n]++|\{[^{}\r\n]*+\})*+\})?"
    r")"
    r"|\$\$?+"
    r"|(?P<blank>\n[ \t\r]*+(?=\n))"
)
# Bounded, so that many of them without an end on one long line do not take time that grows with its square.
_VERB = re.compile(r"\*?([^A-Za-z\s*\\{}])[^\r\n]{0,2000}?\1")
_LISTING = re.compile(r"(?:\[[^]\r\n]{0,500}\])?(?:\{[^{}\r\n]{0,50}\}(?=[^A-Za-z\s]))?(?:([^\w\s*\\{}])[^\r\n]{0,2000}?\1|"
                      r"\{(?:[^{}\r\n]|\{[^{}\r\n]{0,500}\}){0,2000}\})")  # fmt: skip
_NAME = re.compile(r"\*?[ \t]*+\{([^{}%\\#\r\n]{1,300})\}")
_BARE_NAME = re.compile(r"[ \t]++([\w./+-]{1,300})")
MENTIONS_FILES = re.compile(rf"\\(?:{_READS})(?![A-Za-z@])".encode())
"""Whether bytes may hold a command that reads another file; quicker than a scan."""

Range = tuple[int, int]
"""(start, end) in characters."""


@dataclass(frozen=True)
class Include:
    r"""A command that reads another file, such as \input{chapters/one}."""

    start: int
    """Its first character."""
    end: int
    """One past its last character."""
    name: str
    """The file, as it is written there."""
    folder: str = ""
    r"""First argument of \import and its like."""
    beside: bool = False
    """Whether the file is looked for beside this one before it is looked for beside the root."""


@dataclass(frozen=True)
class Scan:
    """What stands where in one file. All lists are in the order of the file, and no two ranges overlap."""

    comments: tuple[Range, ...]
    """Comments; of a line that holds nothing else, the whole line with its end."""
    frame: tuple[Range, ...]
    r"""What lies outside the document: up to \begin{document}, and from \end{document} on."""
    includes: tuple[Include, ...]
    """Commands inside the document that read other files."""
    formulas: tuple[int, ...]
    """Where formulas of the document begin."""


def scan(text: str, *, preamble: bool = False) -> Scan:
    """What stands where in a LaTeX text, with any line ends.

    Args:
        text: the file.
        preamble: whether what lies outside the document counts as part of it.
    """
    scanner, position = _Scanner(text), 0
    while found := _TOKEN.search(text, position):
        position = scanner.take(found)
    begin, end = scanner.begin, scanner.end
    frame: tuple[Range, ...] = ()
    first, last = 0, len(text)
    if begin and not preamble:
        first, last = begin[1], end[0] if end else len(text)
        frame = ((0, first), (last, len(text))) if last < len(text) else ((0, first),)
    return Scan(
        tuple(each for each in scanner.comments if first <= each[0] and each[1] <= last),
        frame,
        tuple(each for each in scanner.includes if first <= each.start < last),
        tuple(each for each in scanner.formulas if first <= each < last),
    )


class _Scanner:
    """What was found so far. `take` is told every token and says where to go on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.comments: list[Range] = []
        self.includes: list[Include] = []
        self.formulas: list[int] = []
        self.begin: Range | None = None
        self.end: Range | None = None
        self._closed_by = ""  # what ends the formula that is open, "" if none is
        self._opened = 0
        self._comment_ends = True  # False once no \end{comment} is left

    def take(self, found: re.Match[str]) -> int:
        """Note one token; returns the position after it, or after what it encloses."""
        token = found[0]
        if token[0] == "%":
            self._comment(found.start(), found.end())
        elif found["edge"]:
            return self._edge(found["edge"], found["environment"], found)
        elif found["reads"]:
            return self._include(found["reads"], found)
        elif found["verb"]:
            pattern = _VERB if found["verb"] in ("verb", "Verb") else _LISTING
            inside = pattern.match(self.text, found.end())
            return inside.end() if inside else found.end()
        elif found["blank"]:
            self._closed_by = ""  # a formula never goes over the end of a paragraph
        else:
            self._formula(token, found.start())
        return found.end()

    def _comment(self, start: int, end: int) -> None:
        alone, line = self._alone_from(start)
        self.comments.append((line, self._after_line_end(end)) if alone else (start, end))

    def _alone_from(self, start: int) -> tuple[bool, int]:
        """Whether only blanks stand before `start` on its line, and where the line begins."""
        # Not looked for before the last comment: a long line of many would take time that grows with its square.
        least = max(0, self.comments[-1][1] - 1) if self.comments else 0
        line = max(self.text.rfind("\n", least, start), self.text.rfind("\r", least, start)) + 1
        if not line and least:
            return False, start
        return not self.text[line:start].strip(" \t"), line

    def _after_line_end(self, end: int) -> int:
        return end + (2 if self.text.startswith("\r\n", end) else self.text[end : end + 1] in ("\r", "\n"))

    def _edge(self, edge: str, name: str, found: re.Match[str]) -> int:
        plain = name.removesuffix("*")
        if name == "document":
            self._document(edge, (found.start(), found.end()))
        elif edge == "begin" and name == "comment":
            return self._comment_environment(found)
        elif edge == "begin" and plain in _VERBATIM and not self.text.startswith("}", found.end()):
            end = self.text.find(f"\\end{{{name}}}", found.end())
            return end if end >= 0 else len(self.text)
        elif plain in _DISPLAYS:
            if edge == "begin" and self._closed_by in ("", "$", r"\)"):  # a lone dollar sign before it does not hide it
                self._closed_by = name
                self.formulas.append(found.start())
            elif edge == "end" and self._closed_by == name:
                self._closed_by = ""
        return found.end()

    def _document(self, edge: str, place: Range) -> None:
        if edge == "begin" and self.begin is None:
            self.begin, self._closed_by = place, ""
        elif edge == "end" and self.begin is not None and self.end is None:
            self.end, self._closed_by = place, ""

    def _comment_environment(self, found: re.Match[str]) -> int:
        closing = r"\end{comment}"
        end = self.text.find(closing, found.end()) if self._comment_ends else -1
        if end < 0:
            self._comment_ends = False
            return found.end()
        start, end = found.start(), end + len(closing)
        alone, line = self._alone_from(start)
        after = re.compile(r"[ \t]*+(?=[\r\n]|\Z)").match(self.text, end)
        if alone and after:
            start, end = line, self._after_line_end(after.end())
        self.comments.append((start, end))
        return end

    def _include(self, command: str, found: re.Match[str]) -> int:
        first = _NAME.match(self.text, found.end())
        last = first
        if command in _TWO_ARGUMENTS:
            last = first and _NAME.match(self.text, first.end())
        elif first is None and command == "input":
            last = _BARE_NAME.match(self.text, found.end())
        if last is None:
            return found.end()
        folder = first[1].strip().strip('"') if first and command in _TWO_ARGUMENTS else ""
        name = last[1].strip().strip('"')
        self.includes.append(
            Include(found.start(), last.end(), name, folder, command.startswith("sub") and folder != "")
        )
        return last.end()

    def _formula(self, token: str, start: int) -> None:
        if not self._closed_by:
            if token in _CLOSES:
                self._closed_by, self._opened = _CLOSES[token], start
        elif token == self._closed_by:
            self.formulas.append(self._opened)
            self._closed_by = ""
        elif token == "$$" and self._closed_by == "$":  # $a$$b$: one ends, the next begins
            self.formulas.append(self._opened)
            self._opened = start + 1


def byte_offsets(raw: bytes, text: str, places: Sequence[int]) -> list[int]:
    """Where characters of a file are among its bytes.

    Exact for each line that is UTF-8 or has a byte for every character; inside other lines, and where the lines of
    text and bytes do not match at all, in proportion.

    Args:
        raw: the file, with or without a byte order mark.
        text: what was read from it, line ends as they were.
        places: character offsets in ascending order, from 0 to len(text).

    Returns:
        One byte offset for each, ascending; 0 for 0 and len(raw) for len(text).
    """
    if len(raw) == len(text) or raw.count(b"\n") != text.count("\n") or raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return [place * len(raw) // (len(text) or 1) for place in places]
    mark = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    result: list[int] = []
    wanted = iter(places)
    place = next(wanted, None)
    line_start, byte_start = 0, mark
    while place is not None:
        line_end = text.find("\n", line_start) + 1 or len(text)
        byte_end = raw.find(b"\n", byte_start) + 1 or len(raw)
        here = place < line_end or line_end == len(text)
        line, data = (text[line_start:line_end], raw[byte_start:byte_end]) if here else ("", b"")
        exact = line.encode("utf-8", "surrogatepass") == data
        done, at = 0, 0
        while place is not None and (place < line_end or line_end == len(text)):
            column = place - line_start
            if exact:
                at += len(line[done:column].encode("utf-8", "surrogatepass"))
                done = column
            else:
                at = column * len(data) // (len(line) or 1)
            result.append(byte_start + at if place else 0)
            place = next(wanted, None)
        line_start, byte_start = line_end, byte_end
    return result
