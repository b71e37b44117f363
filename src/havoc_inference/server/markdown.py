"""Markdown of an answer -> HTML that is safe to put on a page, its formulas as MathML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from havoc_inference.server import mathml

MAX_CHARACTERS = 20_000
"""A longer text is shown as it was written: some Markdown takes the square of its length. Open pictures: 0.6 s."""

_SCHEMES = ("http", "https", "mailto")
_MAX_NESTING = 30
_CLOSING = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_OPENING = re.compile(
    r"\$\$|\\\[|\\begin\{(?:equation|multline|gather|align|alignat|flalign|eqnarray|[pbBvV]?matrix|cases)\*?\}"
)


def render(text: str) -> str:
    """Markdown as HTML: no tag of the text's own, links only to the web and to mail, no picture is loaded.

    Formulas stand in `$...$`, `$$...$$`, `\\(...\\)`, `\\[...\\]` or an environment of amsmath. One that cannot be
    read is shown as it was written.
    """
    # A lone surrogate is no character, and no page can be encoded with it.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    if len(clean) > MAX_CHARACTERS:
        return f'<pre class="plain">{escape(clean)}</pre>'
    return str(_parser().render(clean))


class _Safe(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802
        """Whether a link may be one; otherwise its source is shown."""
        try:
            return urlsplit(url).scheme.lower() in _SCHEMES
        except ValueError:
            return False


class _Html(RendererHTML):
    """HTML without a `style` attribute, which the page's security policy would refuse."""

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """A link opens beside the chat, and the other side does not learn from where."""
        if not tokens[idx].attrGet("href"):  # [text]() leads nowhere: the page itself is no target
            tokens[idx].attrs.pop("href", None)
        tokens[idx].attrSet("target", "_blank")
        tokens[idx].attrSet("rel", "noopener noreferrer nofollow")
        return self.renderToken(tokens, idx, options, dict(env))

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """A picture is named, not loaded."""
        source = escape(str(tokens[idx].attrGet("src") or ""))
        return f'<span class="picture">{escape(tokens[idx].content)} ({source})</span>'

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """A block of code under the name of its language."""
        return _code(tokens[idx].content, language=tokens[idx].info.strip().split(" ")[0][:20])

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """Indented code."""
        return _code(tokens[idx].content, language="")

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """A wide table scrolls, not the page."""
        return '<div class="scroll" tabindex="0"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """The end of `table_open`."""
        return "</table></div>\n"

    def th_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """A cell of the head."""
        return _cell(tokens[idx])

    def td_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """A cell."""
        return _cell(tokens[idx])

    def formula(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Mapping[str, object]) -> str:
        """A formula, in the line or on its own."""
        source, display = tokens[idx].content.strip(), tokens[idx].type != "formula_inline"
        shown = mathml.from_latex(source, display=display)
        if shown is None:
            return f'<code class="formula">{escape(source)}</code>'
        return f'<div class="formula" tabindex="0">{shown}</div>' if tokens[idx].block else shown


def _code(content: str, *, language: str) -> str:
    name = f' data-language="{escape(language)}"' if language else ""
    return f'<div class="code"{name}><pre tabindex="0"><code>{escape(content)}</code></pre></div>\n'


def _cell(token: Token) -> str:
    right = "right" in str(token.attrGet("style") or "")
    return f'<{token.tag} class="right">' if right else f"<{token.tag}>"


def _parser() -> MarkdownIt:
    options = {"html": False, "linkify": False, "typographer": False, "breaks": True, "maxNesting": _MAX_NESTING}
    parser = _Safe("js-default", options, renderer_cls=_Html)
    # Before the backslash of `\(` is taken for an escape.
    parser.inline.ruler.before("escape", "formula", _formula_in_a_line)
    parser.block.ruler.before("fence", "formula", _formula_on_lines, {"alt": ["paragraph", "list"]})
    for name in ("formula_inline", "formula_display", "formula"):
        parser.add_render_rule(name, _Html.formula)
    return parser


def _formula_in_a_line(state: StateInline, silent: bool) -> bool:
    r"""`$...$`, `\(...\)`, and `$$...$$` and `\[...\]` inside a paragraph."""
    opening = next((mark for mark in _CLOSING if state.src.startswith(mark, state.pos)), None)
    if opening is None:
        return False
    start = state.pos + len(opening)
    # No further than a formula may reach: a page of open brackets would be searched to its end for each.
    end = state.src.find(_CLOSING[opening], start, start + mathml.MAX_CHARACTERS)
    inside = state.src[start:end]
    if end < 0 or not inside.strip() or (opening == "$" and not _is_formula(state.src, start, end)):
        return False
    if not silent:
        token = state.push("formula_inline" if opening in ("$", r"\(") else "formula_display", "math", 0)
        token.content, token.markup = inside, opening
    state.pos = end + len(_CLOSING[opening])
    return True


def _is_formula(text: str, start: int, end: int) -> bool:
    """Whether two dollars hold a formula: "$5 and $6" are prices, and so is a dollar before code that holds another."""
    inside, after = text[start:end], text[end + 1 : end + 2]
    return not (inside[0].isspace() or inside[-1].isspace() or inside[-1] == "\\" or "`" in inside or after.isdigit())


def _formula_on_lines(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    r"""Lines from `$$` to `$$`, from `\[` to `\]`, or from `\begin{align}` to `\end{align}`, without an empty one between."""
    first = _line(state, start_line).strip()
    if not (match := _OPENING.match(first)):
        return False
    opening, environment = match[0], match[0].startswith(r"\begin")
    closing = opening.replace("begin", "end", 1) if environment else _CLOSING[opening]
    lines, rest = [first], first.removeprefix(opening)
    # An opening that comes again ends the search: a page of them would be searched to its end for each.
    while closing not in rest:
        number = start_line + len(lines)
        inside = number < end_line and state.sCount[number] >= state.blkIndent
        rest = _line(state, number).strip() if inside else ""
        if not rest or (opening in rest and opening != closing):
            return False
        lines.append(rest)
    if not rest.endswith(closing) or rest.count(closing) > 1:
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.block, token.markup = True, opening
        whole = "\n".join(lines)
        token.content = whole if environment else whole.removeprefix(opening).removesuffix(closing)
        token.map = [start_line, start_line + len(lines)]
    state.line = start_line + len(lines)
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]
