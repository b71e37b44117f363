from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.readers.xml import Options, build


def read(folder: Path, contents: str | bytes) -> list[Document | Rejected]:
    path = folder / "a.xml"
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    reader, item = build(Options()), Input("a.xml", path)
    assert reader.units([item]) == [(item,)]
    found = list(reader.read((item,)))
    position = 0
    for each in found:  # the ranges lie side by side and cover the file
        assert each.start == position <= each.end
        position = each.end
    assert position == path.stat().st_size
    return found


def one(folder: Path, contents: str | bytes) -> Document:
    (document,) = read(folder, contents)
    assert isinstance(document, Document), document
    return document


def text(folder: Path, contents: str | bytes) -> str:
    return one(folder, contents).text


def refused(folder: Path, contents: str | bytes) -> Rejected:
    (rejected,) = read(folder, contents)
    assert isinstance(rejected, Rejected), rejected
    assert (rejected.start, rejected.bytes) == (0, (folder / "a.xml").stat().st_size)
    return rejected


# Books


def test_titles_of_divisions_become_headings_and_paragraphs_are_set_apart(tmp_path: Path) -> None:
    source = """<book><title>Book</title><chapter><title>Chapter <m>x</m></title><p>One
       two.</p><section><title>Section</title><p>Three.</p></section></chapter></book>"""
    assert text(tmp_path, source) == "# Book\n\n## Chapter $x$\n\nOne two.\n\n### Section\n\nThree."


def test_docbook_finds_its_titles_in_info_and_its_paragraphs_in_para(tmp_path: Path) -> None:
    source = """<article xmlns="http://docbook.org/ns/docbook"><info><title>On <emphasis>x</emphasis></title>
    <author><personname>A B</personname></author></info><sect1><title>S</title><para>P <quote>q</quote>.</para></sect1></article>"""
    assert text(tmp_path, source) == "# On x\n\nA B\n\n## S\n\nP “q”."


def test_theorems_and_proofs_say_what_they_are(tmp_path: Path) -> None:
    source = "<theorem acro='FS'><title>Four</title><statement><p>S.</p></statement><proof><p>P.</p></proof></theorem>"
    assert text(tmp_path, source) == "**Theorem FS. Four**\n\nS.\n\n**Proof**\n\nP."


def test_formulas_are_latex(tmp_path: Path) -> None:
    source = r"""<p>Let <m>x &lt; 1</m>, then <me>
        a \\
        b</me>. So <md><mrow>a &amp;= b</mrow><intertext>and <m>c</m></intertext><mrow>c &amp;= d</mrow><mrow>e</mrow></md></p>"""
    document = one(tmp_path, source)
    assert document.text == (
        "Let $x < 1$, then\n\\[a \\\\\nb\\].\nSo\n"
        "\\begin{align*}\na &= b\n\\intertext{and $c$}\nc &= d \\\\\ne\n\\end{align*}"
    )
    assert document.counts == (("formulas", 4),)


def test_a_comment_at_the_end_of_a_formula_does_not_swallow_what_closes_it(tmp_path: Path) -> None:
    assert text(tmp_path, "<p><m>a % b</m> <me>c % d</me> <m>5\\%</m></p>") == "$a % b\n$\n\\[c % d\n\\]\n$5\\%$"


def test_an_empty_formula_is_counted_as_lost(tmp_path: Path) -> None:
    source = "<p>A <m/> <me> </me> <m>x</m> <inlineequation><graphic fileref='a.png'/></inlineequation></p>"
    assert dict(one(tmp_path, source).counts) == {"formulas": 4, "formulas_lost": 3}


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("<inlineequation><alt>x^2</alt><graphic/></inlineequation>", "$x^2$"),
        ("<inlineequation><alt>$x^2$</alt><graphic/></inlineequation>", "$x^2$"),
        ("<inlineequation><mathphrase>E=mc<superscript>2</superscript></mathphrase></inlineequation>", "$E=mc^{2}$"),
        ("<equation><title>T</title><alt>a</alt><mediaobject/></equation>", "**T**\n\n\\[a\\]"),
        ("<inline-formula><alternatives><tex-math>\\documentclass{a}\\begin{document}$$b$$\\end{document}</tex-math>"
         "<mml:math xmlns:mml='m'><mml:mi>c</mml:mi></mml:math></alternatives></inline-formula>", "$b$"),
        ("<informalequation><math><mi>c</mi></math></informalequation>", "\\[c\\]"),
        ("<inlineequation>5 &lt; 6</inlineequation>", "5 < 6"),
    ],
)  # fmt: skip
def test_an_equation_gives_one_formula_in_its_best_form(tmp_path: Path, source: str, written: str) -> None:
    document = one(tmp_path, f"<article>{source}</article>")
    assert document.text == written
    assert document.counts == (("formulas", 1),)


MATHML = "http://www.w3.org/1998/Math/MathML"


@pytest.mark.parametrize(
    ("inside", "written"),
    [
        ("<mfrac><mi>a</mi><mn>2</mn></mfrac>", "\\frac{a}{2}"),
        ("<msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><msub><mi>y</mi><mi>i</mi></msub>", "x^{2}+y_{i}"),
        ("<msqrt><mi>a</mi><mo>+</mo><mi>b</mi></msqrt>", "\\sqrt{a+b}"),
        ("<mi>sin</mi><mi>x</mi>", "\\sin x"),
        ("<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn></mtd></mtr></mtable>",
         "\\begin{matrix} 1 & 2 \\\\ 3 \\end{matrix}"),
        ("<semantics><mi>x</mi><annotation encoding='application/x-tex'>\\xi</annotation></semantics>", "\\xi"),
    ],
)  # fmt: skip
def test_mathml_is_written_as_latex(tmp_path: Path, inside: str, written: str) -> None:
    prefixed = re.sub("(</?)", r"\1m:", inside)
    source = f"<p>Now <m:math xmlns:m='{MATHML}'>{prefixed}</m:math>.</p>"
    document = one(tmp_path, source)
    assert document.text == f"Now ${written}$."
    assert document.counts == (("formulas", 1),)


def test_mathml_that_says_nothing_is_counted_as_lost(tmp_path: Path) -> None:
    assert dict(one(tmp_path, "<p>A <math><mspace/></math>.</p>").counts) == {"formulas": 1, "formulas_lost": 1}


def test_lists_tables_and_code_keep_their_form(tmp_path: Path) -> None:
    source = """<section><p>See<ul><li><p>One</p><p>more</p></li><li>Two <c>a  b</c><ol><li>in</li></ol></li></ul></p>
    <tabular><row><cell>City</cell><cell>T <m>x</m></cell></row><row><cell>L A</cell><cell>77</cell></row></tabular>
    <program>
      if a:
          b  =  "```"
    </program><sage><input>1+1</input><output>2</output></sage><pre>x  y</pre></section>"""
    assert text(tmp_path, source) == (
        "See\n\n- One\n\n  more\n- Two `a  b`\n\n  - in\n\nCity | T $x$\nL A | 77\n\n"
        '````\nif a:\n    b  =  "```"\n````\n\n```python\n1+1\n```\n\n```\n2\n```\n\n```\nx  y\n```'
    )


def test_signs_references_notes_and_index_entries_are_written_out(tmp_path: Path) -> None:
    source = """<p>A<nbsp/>b<mdash/>c, <ie/> <q>d</q> of <xref ref="theorem-FS"/><fn>Or not.</fn> at <url href="http://x.y"/>
    <idx><h>matrix</h><h>notation</h></idx><idx>row</idx> 10<superscript>-3</superscript>.</p>"""
    assert text(tmp_path, source) == (
        "A b—c, i.e. “d” of Theorem FS (Or not.) at http://x.y 10^{-3}.\n\nIndex: matrix, notation; row"
    )


def test_comments_instructions_and_included_files_leave_no_text(tmp_path: Path) -> None:
    source = "<p xmlns:xi='x'>A<!-- no --><?no no?><xi:include href='b'><xi:fallback>no</xi:fallback></xi:include>b</p>"
    assert text(tmp_path, source) == "Ab"


def test_macros_keep_their_lines(tmp_path: Path) -> None:
    assert text(tmp_path, "<macros>\n % a\n \\newcommand{\\a}{b}\n</macros>") == "% a\n\\newcommand{\\a}{b}"


# Any XML


def test_unknown_elements_among_words_are_part_of_the_line_and_others_stand_alone(tmp_path: Path) -> None:
    source = "<r><z>One <x>two <y>three</y></x> four.</z><v><w>Five</w><w>Six</w></v></r>"
    assert text(tmp_path, source) == "One two three four.\n\nFive\n\nSix"


def test_character_data_is_text_also_in_cdata(tmp_path: Path) -> None:
    assert text(tmp_path, "<a>1 &lt; 2 &#228; <![CDATA[<b> &nbsp; x]]></a>") == "1 < 2 ä <b> &nbsp; x"


@pytest.mark.parametrize("head", ["", "<?xml version='1.0' standalone='yes'?>", "<!DOCTYPE a SYSTEM 'a.dtd'>"])
def test_named_entities_of_html_are_known_without_being_declared(tmp_path: Path, head: str) -> None:
    assert text(tmp_path, head + "<a b='&nbsp;'>x&nbsp;y &alpha;&hellip; &unheardof;</a>") == "x\u00a0y α… &unheardof;"


def test_a_fragment_with_several_roots_is_read(tmp_path: Path) -> None:
    assert text(tmp_path, "<?xml version='1.0'?>\n<p>A</p>\n<p>B</p>") == "A\n\nB"
    assert text(tmp_path, "Just text with <em>one</em> element") == "Just text with one element"


def test_the_encoding_that_a_file_declares_is_believed(tmp_path: Path) -> None:
    source = "<?xml version='1.0' encoding='koi8-r'?><p>Привет</p>"
    document = one(tmp_path, source.encode("koi8-r"))
    assert (document.text, document.counts) == ("Привет", (("decoded_from_koi8-r", 1),))
    assert text(tmp_path, source.replace("koi8-r", "no-such")) == "Привет"
    assert text(tmp_path, "<p>Größe</p>".encode("utf-16")) == "Größe"
    assert text(tmp_path, b"\xef\xbb\xbf<?xml version='1.1' encoding='UTF-8'?><p>a</p>") == "a"


def test_a_long_book_is_cut_at_its_headings_and_shares_out_its_bytes(tmp_path: Path) -> None:
    chapter = (
        "<chapter><title>Chapter</title>" + "<p>All happy families are alike.</p>" * 1000 + "<p><m>x</m></p></chapter>"
    )
    documents = read(tmp_path, f"<book>{chapter * 12}</book>")
    assert len(documents) == 6  # of two chapters each
    for ordinal, document in enumerate(documents):
        assert isinstance(document, Document)
        assert document.text.startswith("## Chapter\n")
        assert document.ordinal == ordinal
        assert (document.end - document.start) == pytest.approx(2 * len(chapter), abs=40)
    assert [each.counts for each in documents if isinstance(each, Document)] == [(("formulas", 12),), *[()] * 5]


# Bad files


def test_a_file_that_is_not_well_formed_is_rejected_with_the_place(tmp_path: Path) -> None:
    rejected = refused(tmp_path, "<a>\n<b></a>")
    assert rejected.rule == "unreadable"
    assert rejected.reason == "it is not well-formed XML: mismatched tag (line 2, column 6)"
    assert "line 2" in refused(tmp_path, "<a/>\n<b></c>").reason
    assert refused(tmp_path, "<a>x").rule == "unreadable"
    assert refused(tmp_path, "<a>x\0y</a>").rule == "unreadable"


@pytest.mark.parametrize("source", ["", "  \n", "<a/>", "<a><!-- x --> <b c='d'/></a>"])
def test_a_file_without_text_is_rejected_as_such(tmp_path: Path, source: str) -> None:
    assert refused(tmp_path, source).rule == "no_text"


BOMB = "<!DOCTYPE a [<!ENTITY b 'ha'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("bcdefghij", "cdefghijk", strict=True)
)


@pytest.mark.parametrize(
    "source",
    [
        BOMB + "]><a>&k;</a>",
        "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><a>&x;</a>",
        "<!DOCTYPE a [<!ENTITY % x SYSTEM 'http://example.org/x.dtd'> %x;]><a>y</a>",
    ],
    ids=["bomb", "file", "parameter"],
)
def test_entities_of_a_files_own_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match="it declares the entity '[bx]'"):
        read(tmp_path, source)


@pytest.mark.parametrize("tag", ["a", "p", "math", "li", "em", "section"])
def test_elements_nested_without_end_are_refused_quickly(tmp_path: Path, tag: str) -> None:
    with pytest.raises(InputError, match="nested more than 256 deep"):
        read(tmp_path, f"<{tag}>" * 100_000 + "x" + f"</{tag}>" * 100_000)


@pytest.mark.parametrize("tag", ["a", "p", "li", "em", "section", "title", "idx", "md", "q", "cell", "equation"])
def test_what_is_nested_as_deeply_as_is_allowed_is_read(tmp_path: Path, tag: str) -> None:
    assert "word" in text(tmp_path, f"<{tag}>" * 255 + "word" + f"</{tag}>" * 255)


@pytest.mark.parametrize(
    "source",
    [
        "<p>" + "<em>x</em> " * 50_000 + "</p>",
        "<p><idx>a</idx>" + "x<m>y</m>" * 30_000 + "</p>",
        "<r>" + "<a>" * 200 + "word " * 100_000 + "</a>" * 200 + "</r>",
        "<p>" + "&nbsp;" * 50_000 + "x</p>",
    ],
    ids=["inline", "aside", "deep", "entities"],
)
def test_long_files_take_linear_time(tmp_path: Path, source: str) -> None:
    assert read(tmp_path, source)


def test_a_file_is_never_cut_in_two(tmp_path: Path) -> None:
    assert build(Options()).boundary(Input("a.xml", tmp_path / "a.xml"), 1) is None


TAG_NAMES = """
    a p em m me md mrow title section theorem li ul row cell c pre sage input idx h q fn xref equation alt unknown other
    math mi mfrac line superscript macros info biblio intertext nbsp fillin program code
"""
TAGS = st.sampled_from(TAG_NAMES.split())
LEAVES = st.text("ab 1\n&<ü%`$", max_size=8).map(escape)
TREES = st.recursive(
    LEAVES,
    lambda inside: st.tuples(TAGS, st.lists(inside, max_size=4)).map(lambda t: f"<{t[0]}>{' '.join(t[1])}</{t[0]}>"),
)


@settings(max_examples=200, deadline=None)
@given(TREES)
@example("<a><title>1</title></a>")  # regression: a link that holds nothing but a title lost it
def test_no_word_of_any_tree_is_lost(tree: str) -> None:
    """Of a formula in several forms one is kept, and MathML has elements without words: such trees are only read."""
    source = f"<r>{tree}</r>"
    with tempfile.TemporaryDirectory() as folder:
        found = read(Path(folder), source)
    words = Counter(re.findall(r"[^\W_]+", " ".join(ElementTree.fromstring(source).itertext())))
    if "<equation>" in source or "<math>" in source:
        return
    written = "".join(each.text for each in found if isinstance(each, Document))
    for word in words:
        assert word in written
