import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import MissingPackageError
from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input
from havoc_data.readers._shares import share_out
from havoc_data.readers.html import LARGEST_PAGE, Options, body_text, build, unescape

SENTENCE = "The proof uses that every basis of a finite-dimensional space has the same number of elements. "
PAGE = (
    "<html><head><title>Spaces</title><script>var secret = 1;</script><style>p { color: red }</style></head><body>"
    "<nav><a href='/'>Home</a> <a href='/all'>All pages</a></nav>"
    f"<article><h1>Vector spaces</h1><p>{SENTENCE * 3}</p>%s<p>{SENTENCE * 2}</p></article></body></html>"
)


def read(path, content, **options):
    """All that the reader makes of a page; the ranges are checked on the way."""
    file = Path(path) / "page.html"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    items = list(build(Options(**options)).read((Input(origin="page.html", path=file),)))
    place = 0
    for item in items:
        assert item.origin == "page.html" and item.start == place <= item.end
        place = item.end
    assert place == file.stat().st_size
    return items


def text_of(path, inside, **options):
    (document,) = read(path, PAGE % inside, **options)
    assert isinstance(document, Document), document
    return document.text


@pytest.mark.parametrize(
    ("source", "latex"),
    [
        (
            '<math><semantics><mi>q</mi><annotation encoding="application/x-tex">a_{1} * b_{2}</annotation></semantics></math>',
            "$a_{1} * b_{2}$",
        ),
        ('<math display="block" alttext="\\int_0^1 f"><mi>q</mi></math>', "$$\\int_0^1 f$$"),
        ("<math><mfrac><mi>a</mi><msup><mi>b</mi><mn>2</mn></msup></mfrac></math>", "$\\frac{a}{b^{2}}$"),
        ('<script type="math/tex">x_1 * y_2 < 3</script>', "$x_1 * y_2 < 3$"),
        ('<script type="math/tex; mode=display">% <![CDATA[\n x_1 %]]></script>', "$$x_1$$"),
        (
            '<span class="MathJax_Preview">x1p</span><span class="MathJax">x1r</span><script type="math/tex">x_1</script>',
            "$x_1$",
        ),
        (
            '<mjx-container class="MathJax" display="true"><svg><text>no</text></svg><mjx-assistive-mml><math>'
            "<msqrt><mi>x</mi><mo>+</mo><mn>1</mn></msqrt></math></mjx-assistive-mml></mjx-container>",
            "$$\\sqrt{x+1}$$",
        ),
        (
            '<span class="MathJax" data-mathml="&lt;math&gt;&lt;msub&gt;&lt;mi&gt;x&lt;/mi&gt;&lt;mn&gt;1&lt;/mn&gt;'
            '&lt;/msub&gt;&lt;/math&gt;">x1r</span>',
            "$x_{1}$",
        ),
        (
            '<span class="katex-display"><span class="katex"><span class="katex-mathml"><math><semantics><mi>k</mi>'
            '<annotation encoding="application/x-tex">k_1</annotation></semantics></math></span>'
            '<span class="katex-html" aria-hidden="true">k1r</span></span></span>',
            "$$k_1$$",
        ),
        (
            '<span class="mwe-math-element"><span class="mwe-math-mathml-inline"><math alttext="{\\displaystyle E=mc^{2}}">'
            '</math></span><img class="mwe-math-fallback-image-inline" alt="{\\displaystyle E=mc^{2}}"></span>',
            "$E=mc^{2}$",
        ),
        ('<img class="mwe-math-fallback-image-display" alt="{\\displaystyle E=mc^{3}}">', "$$E=mc^{3}$$"),
        ('<img src="img7.gif" alt="$x^*_1$">', "$x^*_1$"),
        ("\\(a_1*b_2*c_3\\)", "$a_1*b_2*c_3$"),
        (
            "\\[ \\begin{pmatrix} 1 &amp; 2 \\\\ 3 &amp; 4 \\end{pmatrix} \\]",
            "$$\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}$$",
        ),
        ("$$x^*_1 &lt; [y]$$", "$$x^*_1 < [y]$$"),
        (
            "\\begin{align} a &amp;= b_1 \\\\ c &amp;= d_1 \\end{align}",
            "\\begin{align} a &= b_1 \\\\ c &= d_1 \\end{align}",
        ),
    ],
)
def test_a_formula_in_any_form_comes_out_once_as_latex(source, latex, tmp_path):
    (document,) = read(tmp_path, PAGE % f"<p>Now {source} holds for all of them.</p>")
    assert f"Now {latex} holds for all of them." in " ".join(document.text.split())
    assert dict(document.counts) == {"formulas": 1, "formulas_lost": 0}


@pytest.mark.parametrize(
    ("mathml", "latex"),
    [
        ("<mi>sin</mi><mo>&#x2061;</mo><mi>x</mi>", r"\sin x"),
        ("<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>", "x_{i}^{2}"),
        ("<mroot><mn>2</mn><mn>3</mn></mroot>", r"\sqrt[3]{2}"),
        ("<munderover><mo>∑</mo><mi>i</mi><mi>n</mi></munderover>", "∑_{i}^{n}"),
        ("<mover><mi>x</mi><mo>¯</mo></mover><munder><mi>lim</mi><mi>n</mi></munder>", r"\overline{x}\lim_{n}"),
        ("<mover><mi>f</mi><mi>a</mi></mover><munder><mi>f</mi><mi>a</mi></munder>", r"\overset{a}{f}\underset{a}{f}"),
        (
            "<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn></mtd></mtr></mtable>",
            r"\begin{matrix} 1 & 2 \\ 3 \end{matrix}",
        ),
        ("<mfrac linethickness='0'><mi>n</mi><mi>k</mi></mfrac>", r"{n \atop k}"),
        ("<mfenced open='[' separators=';'><mi>a</mi><mi>b</mi></mfenced>", "[a;b)"),
        ("<mmultiscripts><mi>F</mi><mn>1</mn><none/><mprescripts/><mn>2</mn><none/></mmultiscripts>", "{}_{2}F_{1}"),
        ("<mi mathvariant='double-struck'>R</mi><mo>{</mo><mtext>50 %</mtext>", r"\mathbb{R}\{\text{50 \%}"),
        ("<msup><mrow><mo>(</mo><mi>a</mi><mo>)</mo></mrow><mn>2</mn></msup>", "{(a)}^{2}"),
    ],
)
def test_bare_mathml_is_written_in_one_line(mathml, latex, tmp_path):
    assert f"Now ${latex}$ holds." in text_of(tmp_path, f"<p>Now <math>{mathml}</math> holds.</p>")


def test_headings_lists_tables_and_code_keep_their_form(tmp_path):
    inside = (
        "<h2>Rules</h2><ul><li>first a_1</li><li>second *b*</li></ul>"
        "<table><tr><th>name</th><th>value</th></tr><tr><td>one \\(x_1\\)</td><td>1 &lt; 2</td></tr></table>"
        "<pre>def f(x_1):\n    return x_1 ** 2\n\n    # done</pre><p>Call <code>f(a_b) * `c`</code> then.</p>"
    )
    text = text_of(tmp_path, inside)
    assert "# Vector spaces\n" in text and "\n## Rules\n" in text
    assert "\n- first a_1\n- second *b*\n" in text
    assert "| one $x_1$ | 1 < 2 |" in text
    assert "\n```\ndef f(x_1):\n    return x_1 ** 2\n\n    # done\n```\n" in text
    assert "Call `` f(a_b) * `c` `` then." in text


def test_indices_keep_their_place(tmp_path):
    text = text_of(
        tmp_path, "<p>10<sup>-3</sup> of x<sub>i</sub> and y<sub>10</sub>, z<sup>a+b</sup>, the n<sup>th</sup> one.</p>"
    )
    assert "10⁻³ of x_i and y₁₀, z^{a+b}, the nth one." in text


def test_scripts_styles_and_menus_are_not_text(tmp_path):
    text = text_of(tmp_path, "<p>More.</p><script>alert('boo')</script>")
    assert not any(word in text for word in ("secret", "color: red", "boo", "All pages"))


def test_text_beside_a_displayed_formula_stays(tmp_path):
    """Regression: the formula ends the paragraph, and trafilatura dropped what hung loose after it."""
    inside = f"<div class='proof'><p>{SENTENCE}<div>\\[x_1\\]</div> where loose words with \\(y\\) follow.</p></div>"
    (document,) = read(tmp_path, PAGE % inside)
    assert "$$x_1$$" in document.text and "where loose words with $y$ follow." in document.text
    assert dict(document.counts) == {"formulas": 2, "formulas_lost": 0}


def test_formulas_that_do_not_come_out_are_counted(tmp_path):
    footer = "<footer><p>Imprint \\(z\\)</p></footer>"
    body = "".join(f"<p>{SENTENCE} \\(x_{{{number}}}\\)</p>" for number in range(30))
    (document,) = read(tmp_path, (PAGE % body).replace("</body>", f"{footer}</body>"))
    assert dict(document.counts) == {"formulas": 31, "formulas_lost": 1}
    assert "Imprint" not in document.text


def test_a_formula_of_which_only_the_picture_is_left_counts_as_lost(tmp_path):
    (document,) = read(tmp_path, PAGE % "<p>Now <mjx-container><mjx-math></mjx-math></mjx-container>.</p>")
    assert dict(document.counts) == {"formulas": 1, "formulas_lost": 1}


def test_a_page_of_which_trafilatura_loses_the_formulas_is_read_plainly(tmp_path):
    links = "".join(f"<footer>see \\(x_{{{number}}}\\)</footer>" for number in range(20))
    (document,) = read(tmp_path, PAGE % links)
    assert dict(document.counts) == {"formulas": 20, "formulas_lost": 0, "fallback": 1}
    assert "see $x_{19}$" in document.text and "# Vector spaces" in document.text


def test_words_that_look_like_our_own_marks_are_left_alone(tmp_path):
    text = text_of(tmp_path, "<p>The word qformula0q and qformulaq1q beside \\(x\\).</p>")
    assert "The word qformula0q and qformulaq1q beside $x$." in text


@pytest.mark.parametrize("content", [b"", b"  \n", b"<html><body><script>x()</script></body></html>", b"<!-- c -->"])
def test_a_page_without_text_is_named(content, tmp_path):
    (item,) = read(tmp_path, content)
    assert isinstance(item, Rejected) and item.rule == "no_text"


def test_bytes_that_are_no_text_are_named(tmp_path):
    (item,) = read(tmp_path, b"%PDF-1.4 whatever")
    assert isinstance(item, Rejected) and item.rule == "unreadable" and "a PDF" in item.reason


def test_the_declared_encoding_is_believed_where_the_bytes_agree(tmp_path):
    page = (PAGE % "<p>Теорема о базисе пространства.</p>").replace("<head>", '<head><meta charset="windows-1251">')
    (document,) = read(tmp_path, page.encode("cp1251"))
    assert "Теорема о базисе пространства." in document.text
    assert dict(document.counts)["decoded_from_windows-1251"] == 1
    (document,) = read(tmp_path, page.encode())  # UTF-8, whatever it says
    assert "Теорема о базисе пространства." in document.text


@pytest.mark.parametrize("depth", [1200, 1900])
def test_a_deeply_nested_page_is_read(depth, tmp_path):
    inside = "<b>" * depth + "the deepest word" + "</b>" * depth
    (document,) = read(tmp_path, PAGE % inside)
    assert isinstance(document, Document) and "the deepest word" in document.text


def test_a_page_nested_deeper_than_the_parser_goes_is_named_and_not_cut(tmp_path):
    (item,) = read(tmp_path, PAGE % ("<div>" * 100_000 + "the deepest word"))
    assert isinstance(item, Rejected) and "nested too deeply" in item.reason and item.rule == "unreadable"


def test_deep_mathml_is_read_to_its_characters(tmp_path):
    inside = "<math>" + "<mrow>" * 1500 + "<mi>x</mi>" + "</mrow>" * 1500 + "</math>"
    assert "$x$" in text_of(tmp_path, f"<p>Now {inside}.</p>")


def test_a_long_page_shares_its_bytes_out_among_sections(tmp_path):
    body = "".join(f"<h2>Part {number}</h2><p>{SENTENCE * 20}</p>" for number in range(200))
    items = read(tmp_path, PAGE % body)
    assert len(items) > 3 and all(isinstance(item, Document) for item in items)
    assert [item.ordinal for item in items] == list(range(len(items)))
    assert all(len(item.text.encode()) <= 64 * 1024 for item in items)
    assert items[0].counts and not any(item.counts for item in items[1:])


def test_a_page_too_large_for_trafilatura_is_read_plainly(tmp_path):
    items = read(
        tmp_path,
        "<html><body><h1>Dump</h1>" + f"<p>a line {SENTENCE * 100}</p>" * (LARGEST_PAGE // 9000) + "</body></html>",
    )
    assert dict(items[0].counts)["fallback"] == 1 and items[0].text.startswith("# Dump\n\na line The proof")


def test_the_same_page_gives_the_same_text_with_any_hash_seed(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(PAGE % "<p>Short \\(x\\) and <code>y</code></p><ul><li>one</li></ul>", encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; from havoc_data.inputs import Input; from havoc_data.readers import html;"
        "print(list(html.build(html.Options()).read((Input(origin='p', path=Path(sys.argv[1])),))))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, str(file)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_without_trafilatura_the_install_command_is_given():
    """Where the extra is not installed; simulated in a process of its own."""
    program = (
        "import sys; sys.modules['trafilatura'] = None\n"
        "from havoc_data.readers import html\n"
        "try: html.build(html.Options())\n"
        "except Exception as error: print(type(error).__name__, error.where, error.found, error.remedy, sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True
    )
    kind, where, found, remedy = done.stdout.strip().split("|")
    assert kind == MissingPackageError.__name__ and where == "reading .html files"
    assert "trafilatura cannot be imported" in found and remedy == "Install it: pip install 'havoc[formats]'."


def test_a_page_is_never_cut(tmp_path):
    item = Input(origin="page.html", path=tmp_path / "page.html")
    reader = build(Options())
    assert reader.boundary(item, 10) is None and reader.units([item, item]) == [(item,), (item,)]


def test_markdown_escapes_are_undone():
    assert unescape("a\\_1 \\* \\[x\\] \\\\\\_ 1 \\< 2") == "a_1 * [x] \\_ 1 < 2"
    assert unescape("1\\. one\n\\# two\n- \\- three\nx\\. y") == "1. one\n# two\n- - three\nx\\. y"


def test_the_plain_text_has_a_line_for_each_block():
    from lxml import html

    tree = html.document_fromstring(
        "<body><h2>A</h2><p>b <i>c</i><br>d</p><ul><li>e</li></ul><nav>menu</nav><div>f</div>g</body>"
    )
    assert body_text(tree) == "## A\n\nb c\nd\n\n- e\n\nf\ng"


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_accounted_for(tmp_path_factory, content):
    read(tmp_path_factory.mktemp("any"), content)


@given(st.text(alphabet="<>/=\"' $\\()[]abdivpremathscode&;1\n", max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_markup_is_accounted_for(tmp_path_factory, content):
    read(tmp_path_factory.mktemp("any"), content)


@given(st.integers(0, 1000), st.integers(0, 1000), st.lists(st.integers(0, 50), min_size=1))
def test_shares_lie_side_by_side_and_cover_the_range(start, length, lengths):
    shares = share_out(start, start + length, lengths)
    assert len(shares) == len(lengths) and shares[0][0] == start and shares[-1][1] == start + length
    assert all(one[1] == two[0] for one, two in zip(shares[:-1], shares[1:], strict=True))
    assert all(first <= last for first, last in shares)
