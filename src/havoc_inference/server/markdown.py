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
from mdit_py_plugins.dollarmath import dollarmath_plugin

from havoc_inference.server import mathml

MAX_CHARACTERS = 30_000
"""A longer text is shown as it was written: some Markdown takes the square of its length. 30,000 open brackets: 1.4 s."""
MAX_FORMULAS = 20_000
"""Characters of formulas in one text that become MathML; what comes after them stays source."""

_SCHEMES = ("http", "https", "mailto")
_MAX_NESTING = 30
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
    return str(_parser().render(clean, {"formulas": 0}))


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

    def formula(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: dict[str, int]) -> str:
        """A formula, in the line or on its own."""
        source, display = tokens[idx].content.strip(), tokens[idx].type != "math_inline"
        env["formulas"] += len(source)
        shown = mathml.from_latex(source, display=display) if env["formulas"] <= MAX_FORMULAS else None
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
    dollarmath_plugin(
        parser,
        allow_labels=False,
        allow_space=False,  # "$5 and $6" are prices
        allow_digits=False,
        double_inline=True,
    )
    parser.disable("math_block")  # the plugin's takes the square of a text's length; ours is `_formula_on_lines`
    # Before the backslash of `\(` is taken for an escape.
    parser.inline.ruler.before("escape", "math_brackets", _brackets_in_a_line)
    parser.block.ruler.before("fence", "formula", _formula_on_lines, {"alt": ["paragraph", "list"]})
    for name in ("math_inline", "math_inline_double", "formula"):
        parser.add_render_rule(name, _Html.formula)
    return parser


def _brackets_in_a_line(state: StateInline, silent: bool) -> bool:
    r"""`\(...\)`, and `\[...\]` inside a paragraph."""
    opening = state.src[state.pos : state.pos + 2]
    closing = {r"\(": r"\)", r"\[": r"\]"}.get(opening)
    if closing is None:
        return False
    # No further than a formula may reach: a page of open brackets would be searched to its end for each.
    end = state.src.find(closing, state.pos + 2, state.pos + 2 + mathml.MAX_CHARACTERS)
    if end < 0:
        return False
    if not silent:
        token = state.push("math_inline" if closing == r"\)" else "math_inline_double", "math", 0)
        token.content, token.markup = state.src[state.pos + 2 : end], opening
    state.pos = end + 2
    return True


def _formula_on_lines(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    r"""Lines from `$$` to `$$`, from `\[` to `\]`, or from `\begin{align}` to `\end{align}`, without an empty one between."""
    first = _line(state, start_line).strip()
    if not (match := _OPENING.match(first)):
        return False
    opening, environment = match[0], match[0].startswith(r"\begin")
    closing = opening.replace("begin", "end", 1) if environment else {"$$": "$$", r"\[": r"\]"}[opening]
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
