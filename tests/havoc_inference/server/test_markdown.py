"""Whatever a model writes: HTML that is safe, in bounded time, with formulas as MathML."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest

pytest.importorskip("markdown_it", reason="the extra `serve` is not installed")

from hypothesis import example, given, settings
from hypothesis import strategies as st

from havoc_inference.server import markdown
from havoc_inference.server.markdown import render

TAGS = re.compile(
    "p|br|hr|h1|h2|h3|h4|h5|h6|strong|em|s|ul|ol|li|blockquote|pre|code|a|span|div|table|thead|tbody|tr|th|td"
)
FORMULA_TAGS = re.compile(
    "math|mrow|mi|mn|mo|ms|mtext|mspace|mfrac|msqrt|mroot|msub|msup|msubsup|munder|mover|munderover|mmultiscripts|"
    "mprescripts|none|mtable|mtr|mtd|mstyle|mpadded|mphantom|menclose"
)
ATTRIBUTES = {
    "a": {"href", "title", "target", "rel"},
    "div": {"class", "data-language", "tabindex"},
    "code": {"class"},
    "pre": {"class", "tabindex"},
    "span": {"class"},
    "th": {"class"},
    "td": {"class"},
    "ol": {"start"},
}


class Reader(HTMLParser):
    """Reads as a browser does, and finds what must not be there."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        assert TAGS.fullmatch(tag) or FORMULA_TAGS.fullmatch(tag), tag
        allowed = ATTRIBUTES.get(tag, set()) if TAGS.fullmatch(tag) else None
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("style", "src", "id"), name
            if allowed is None:
                assert name not in ("href", "class") and "script" not in (value or ""), name
            else:
                assert name in allowed, (tag, name)
            if name == "href":
                assert value.lower().startswith(("http:", "https:", "mailto:")), value
        if tag == "a":
            assert dict(attrs)["rel"] == "noopener noreferrer nofollow"
        self.seen.append((tag, dict(attrs)))
        if tag not in ("br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(data)

    handle_decl = handle_pi = handle_comment


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


MARKS = ["<script>", "</p>", "<img src=x onerror=y>", "[a](", "javascript:x", "https://x.y", ")", "![", "`", "```", "\n", "\n\n", "$", "$$",
         "\\(", "\\)", "\\[", "\\]", "\\begin{align}", "\\end{align}", "\\text{", "\\href{", "\\style{", "\\class{", "\\color{", "{", "}", "^",
         "_", "&", "\\\\", "|", "|-|-|\n", "- ", "> ", "# ", "*", "~~", '"', "'", "<!--", "&#60;", "&lt;b", "1. ", "\\frac", "\\left(", "\\def\\a{",
         "\\rule{", "\\sqrt[", "x", " ", "\ud800", "\x00"]  # fmt: skip


@settings(max_examples=400, deadline=None)  # a busy machine is no failure; time has a test of its own
@given(st.one_of(st.text(), st.lists(st.sampled_from(MARKS)).map("".join)))
@example("$\\text{<script>alert(1)</script>}$")
@example("$\\href{javascript:alert(1)}{x}$ $\\style{color:red}{x}$ $\\class{a}{x}$")
@example("$\\text{&lt;script&gt;}$")
@example('```"><script>\nx\n```')
@example("[a]() [b](<>)")  # regression: a link to the page itself
def test_any_text_becomes_tags_that_are_known_and_harmless(text):
    read(render(text))


@pytest.mark.parametrize(
    "text",
    [
        "The mean $\\bar{x}$ is",
        "The mean \\(\\bar{x}\\) is",
        "$$\n\\bar{x}\n$$",
        "The mean is $$\\bar{x}$$ here.",
        "\\[\n\\bar{x}\n\\]",
        "The mean is\n\\[ \\bar{x} \\]\nhere.",
        "- a list\n  \\[\n  \\bar{x}\n  \\]",
        "> a quotation\n> $$\n> \\bar{x}\n> $$",
        "\\begin{align}\n\\bar{x} &= 1 \\\\\ny &= 2\n\\end{align}",
        "\\begin{equation*} \\bar{x} \\end{equation*}",
    ],
)
def test_a_formula_is_mathml_in_whatever_it_stands(text):
    found = read(render(text))
    assert [tag for tag, _ in found.seen].count("math") == 1
    assert "mover" in [tag for tag, _ in found.seen]
    assert "$" not in found.text and "\\" not in found.text


@pytest.mark.parametrize("formula", ["\\frac{", "a_b_c", "{", "\\def\\a{\\a\\a}\\a"])
def test_a_formula_that_cannot_be_read_is_shown_as_it_was_written(formula):
    found = read(render(f"so ${formula}$."))
    assert ("code", {"class": "formula"}) in found.seen
    assert found.text.strip() == f"so {formula}."


def test_prices_and_code_are_no_formulas():
    found = read(render("It costs $5 and $6. `$x$`\n\n```\n$$y$$\n```\n"))
    assert "math" not in [tag for tag, _ in found.seen]
    assert found.text == "It costs $5 and $6. $x$\n$$y$$\n\n"


def test_limits_of_a_sum_stand_above_and_below_it_also_inside_brackets():
    tags = [tag for tag, _ in read(render("$$\\left[\\sum_{i=1}^n x\\right] \\int_0^1$$")).seen]
    assert "munderover" in tags
    assert "msubsup" in tags  # those of an integral stand beside it


def test_equations_one_under_the_other_carry_no_numbers():
    assert "(1)" not in read(render("\\begin{align}\na &= b \\\\\nc &= d\n\\end{align}")).text


def test_code_keeps_its_language_and_a_table_its_columns_of_numbers():
    seen = read(render("```python\nx\n```\n\n|a|b|\n|-|-:|\n|1|2|\n")).seen
    assert ("div", {"class": "code", "data-language": "python"}) in seen
    assert seen.count(("td", {"class": "right"})) == 1


def test_links_lead_to_the_web_and_pictures_are_named():
    found = read(render("[a](https://a.b/c) [b](javascript:x) [c](/d) [d](data:text/html,x) ![e](http://f/g.png)"))
    assert [attributes["href"] for tag, attributes in found.seen if tag == "a"] == ["https://a.b/c"]
    assert "e (http://f/g.png)" in found.text
    assert "[b](javascript:x)" in found.text


def test_a_text_that_is_too_long_is_shown_as_it_was_written():
    text = "*<b>* " * (markdown.MAX_CHARACTERS // 6 + 1)
    found = read(render(text))
    assert [tag for tag, _ in found.seen] == ["pre"]
    assert found.text == text


HOSTILE = {
    "brackets": "[" * 10**5,
    "pictures": "![" * 10**5,
    "quotations": "> " * 10**5,
    "lists": "- " * 10**5,
    "deep lists": "\n".join("  " * depth + "- a" for depth in range(300)),
    "stars": "*a " * 10**5,
    "backticks": "".join("`" * length + " " for length in range(440)),
    "table": "|".join("a" * 300) + "\n" + "|".join(["-"] * 300) + "\n" + "|\n" * 50_000,
    "dollars": "$a " * 10**5,
    "open dollars": "$$a b\n\n" * 10**5,
    "open dollars in lists": "- $$a b\n" * 10**5,
    "open brackets": "\\[ x\n" + "y\n" * 10**5,
    "open bracket after bracket": "\\[\n" * 10**5,
    "open environments": "\\begin{align}\n\\begin{gather}\n" * 10**5,
    "formulas": "$x$ " * 10**5,
    "long formulas": ("$" + "x_1^2+" * 600 + "y$ ") * 10,
    "matrices": ("$\\begin{matrix}" + "&" * 3_900 + "\\end{matrix}$ ") * 10,
    "deep formula": "$" + "\\sqrt{" * 600 + "}" * 600 + "$",
    "macros": "$\\def\\a{xx}" + "".join(f"\\def\\{b}{{\\{a}\\{a}}}" for a, b in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)) + "\\q$",
    "matrix": "$$\\begin{matrix}" + "&" * 3_900 + "\\end{matrix}$$",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_long(name):
    """A long table takes longest: 0.7 s. The limit leaves room for a busy machine."""
    began = time.process_time()
    render(HOSTILE[name][: markdown.MAX_CHARACTERS])
    assert time.process_time() - began < 6
