from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.readers.tex import Options, build

Item = Document | Rejected


def inputs(folder: Path, files: Mapping[str, str | bytes]) -> list[Input]:
    """Files written to a folder, in the order given. In "a.zip!/b.tex" the archive is a folder: only names count here."""
    items = []
    for name, contents in files.items():
        path = folder / name.replace("!", "_")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        items.append(Input(name, path))
    return items


def items_of(folder: Path, files: Mapping[str, str | bytes], **options: bool) -> list[Item]:
    reader = build(Options(**options))
    items = inputs(folder, files)
    found = [item for unit in reader.units(items) for item in reader.read(unit)]
    assert_tiled(items, found)
    return found


def one(folder: Path, contents: str | bytes, **options: bool) -> Document:
    (document,) = items_of(folder, {"a.tex": contents}, **options)
    assert isinstance(document, Document)
    return document


def assert_tiled(items: Sequence[Input], found: Iterable[Item]) -> None:
    """Documents, what they include, and rejects lie side by side and cover every file."""
    ranges: dict[str, list[tuple[int, int]]] = {item.origin: [] for item in items}
    for each in found:
        if isinstance(each, Document):
            for span in each.spans:
                ranges[span.origin].append((span.start, span.end))
        else:
            ranges[each.origin].append((each.start, each.end))
    for item in items:
        position = 0
        for start, end in sorted(ranges[item.origin]):
            assert start == position <= end
            position = end
        assert ranges[item.origin]
        assert position == item.path.stat().st_size


def is_subsequence(short: str, long: str) -> bool:
    rest = iter(long)
    return all(character in rest for character in short)


# Comments


def test_a_comment_after_text_goes_and_the_line_end_stays(tmp_path: Path) -> None:
    document = one(tmp_path, "one % two\nthree\n")
    assert document.text == "one \nthree\n"
    assert dict(document.counts) == {"comment_bytes": 5}


def test_a_line_that_is_only_a_comment_vanishes_with_its_line_end(tmp_path: Path) -> None:
    assert one(tmp_path, "one\n  % two\n%\nthree\n% four").text == "one\nthree\n"


def test_an_escaped_percent_sign_is_text_and_one_after_a_line_break_is_a_comment(tmp_path: Path) -> None:
    assert one(tmp_path, "5\\% of\\\\% of what\n\\\\\\% x\n").text == "5\\% of\\\\\n\\\\\\% x\n"


@pytest.mark.parametrize(
    "source",
    [
        "\\begin{verbatim}\na % b\n% c\n\\end{verbatim}\n",
        "\\begin{Verbatim*}[x]\n% c\n\\end{Verbatim*}\n",
        '\\begin{lstlisting}[language=C]\nprintf("%d");\n\\end{lstlisting}\n',
        "\\begin{minted}{python}\n5 % 3\n\\end{minted}\n",
        "\\verb|%| and \\verb*+a % b+ and \\Verb!%! end\n",
        "\\lstinline[language=C]{a % b} \\lstinline|%| \\mintinline{c}{a % b} \\mintinline{c}|%| end\n",
        "\\url{http://a.b/c%20d} \\href{http://a.b/%7Ec{%}}{name} \\path{50%} end\n",
    ],
)
def test_a_percent_sign_in_verbatim_text_and_addresses_is_no_comment(tmp_path: Path, source: str) -> None:
    document = one(tmp_path, source + "after % gone\n")
    assert document.text == source + "after \n"


def test_a_verb_without_its_end_on_the_line_hides_no_comment(tmp_path: Path) -> None:
    assert one(tmp_path, "\\verb|a\nb % c\n|").text == "\\verb|a\nb \n|"


def test_a_verbatim_environment_in_a_definition_does_not_swallow_the_file(tmp_path: Path) -> None:
    text = one(tmp_path, "\\newenvironment{v}{\\begin{verbatim}}{}\nb % c\n").text
    assert text == "\\newenvironment{v}{\\begin{verbatim}}{}\nb \n"


def test_a_verbatim_environment_without_an_end_keeps_the_rest_as_it_is(tmp_path: Path) -> None:
    source = "a\n\\begin{verbatim}\n5 % 3\n"
    assert one(tmp_path, source).text == source


def test_the_comment_environment_goes(tmp_path: Path) -> None:
    source = "one\n\\begin{comment}\n$x$ two\n\\end{comment}\nthree \\begin{comment}x\\end{comment} four\n"
    document = one(tmp_path, source)
    assert document.text == "one\nthree  four\n"
    assert dict(document.counts) == {"comment_bytes": len(source) - len(document.text)}
    assert one(tmp_path, "a \\begin{comment} b").text == "a \\begin{comment} b"


def test_comments_are_kept_on_request(tmp_path: Path) -> None:
    source = "one % two\n\\begin{comment}\nthree\n\\end{comment}\n"
    document = one(tmp_path, source, comments=True)
    assert (document.text, document.counts) == (source, ())


# Preamble

WHOLE = "\\documentclass{article}\n% c\n\\newcommand{\\R}{x}\n\\begin{document}\nText.\n\\end{document}\nNotes % d\n"


def test_what_stands_outside_the_document_goes_and_is_counted(tmp_path: Path) -> None:
    document = one(tmp_path, WHOLE)
    assert document.text == "\nText.\n"
    assert dict(document.counts) == {"preamble_bytes": len(WHOLE) - 7}
    assert (document.start, document.end) == (0, len(WHOLE))


def test_the_preamble_is_kept_on_request(tmp_path: Path) -> None:
    document = one(tmp_path, WHOLE, preamble=True)
    assert document.text == WHOLE.replace("% c\n", "").replace("% d", "")
    assert dict(document.counts) == {"comment_bytes": 7}


def test_a_begin_in_verbatim_text_or_a_comment_begins_no_document(tmp_path: Path) -> None:
    source = "How to:\n\\begin{verbatim}\n\\begin{document}\n\\end{verbatim}\n% \\begin{document}\n"
    assert one(tmp_path, source).text == source[: source.index("% ")]


def test_a_style_file_is_text(tmp_path: Path) -> None:
    assert one(tmp_path, "\\newcommand{\\R}{\\mathbb{R}}\n").text == "\\newcommand{\\R}{\\mathbb{R}}\n"


def test_a_file_without_text_is_rejected_with_all_its_bytes(tmp_path: Path) -> None:
    (rejected,) = items_of(tmp_path, {"a.tex": "% only\n  % this\n\n"})
    assert isinstance(rejected, Rejected)
    assert (rejected.rule, rejected.bytes) == ("no_text", 17)
    assert "nothing in it" in rejected.reason
    (empty,) = items_of(tmp_path, {"e.tex": ""})
    assert isinstance(empty, Rejected)
    assert (empty.rule, empty.bytes) == ("no_text", 0)


# Formulas


@pytest.mark.parametrize(
    ("source", "formulas"),
    [
        ("$a$ and $b$ but \\$3", 2),
        ("$$a$$ \\[ b \\] \\( c \\)", 3),
        ("$a$$b$", 2),
        ("\\\\[2mm] no formula \\\\(", 0),
        ("\\begin{align*} a &= b \\text{ if $x$} \\end{align*}", 1),
        ("\\begin{equation}a\\end{equation}\\begin{gather}b\\end{gather}\\begin{multline*}c\\end{multline*}", 3),
        ("\\begin{eqnarray} a \\end{eqnarray}", 1),
        ("It costs 5$.\n\nThen $x$ follows.", 1),
        ("A lone $ and\n\\begin{align}\nx\n\\end{align}\n", 1),
        ("\\verb|$| costs $x$ % and $y$", 1),
        ("\\[ a \\text{ for } $b$ \\]", 1),
        ("no mathematics", 0),
    ],
)
def test_formulas_are_counted(tmp_path: Path, source: str, formulas: int) -> None:
    assert dict(one(tmp_path, source).counts).get("formulas", 0) == formulas


# Bytes


def test_a_long_book_is_cut_at_its_sections_and_every_byte_has_one_owner(tmp_path: Path) -> None:
    prose = "Größe matters. % not this\n" * 1000
    chapters = {f"c{number}.tex": f"\\chapter{{Nr {number}}}\n{prose}$x$\n" for number in range(20)}
    main = "% head\nIntro.\n" + "".join(f"\\input{{c{number}}}\nBetween {number}.\n" for number in range(20))
    found = items_of(tmp_path, {"main.tex": main, **chapters})
    documents = [item for item in found if isinstance(item, Document)]
    assert len(documents) == len(found) > 5
    assert all(len(document.text.encode()) <= 65_536 for document in documents)
    assert all(document.text.startswith(("Intro", "\\chapter")) for document in documents)
    assert sum(dict(document.counts)["formulas"] for document in documents) == 20
    assert sum(dict(document.counts)["comment_bytes"] for document in documents) == 20 * 1000 * 10 + 7
    for origin in ("main.tex", "c3.tex"):
        ordinals = [document.ordinal for document in documents if document.origin == origin]
        assert ordinals == list(range(len(ordinals)))


def test_a_section_owns_exactly_the_bytes_of_its_characters(tmp_path: Path) -> None:
    source = "".join(f"Übung {number} % x\r\n" for number in range(20_000))
    documents = items_of(tmp_path, {"a.tex": b"\xef\xbb\xbf" + source.encode()})
    raw = (tmp_path / "a.tex").read_bytes()
    assert len(documents) > 3
    for document in documents:
        assert isinstance(document, Document)
        own = raw[document.start : document.end].decode("utf-8-sig")
        assert own.replace("% x\r\n", "\n") == document.text


def test_other_encodings_are_read_and_their_bytes_accounted_for(tmp_path: Path) -> None:
    latin = "Über die Größe der Menge, für die Öffentlichkeit. % weg ä\n" * 50
    document = one(tmp_path, latin.encode("latin-1"))
    assert document.text == latin.replace("% weg ä", "")
    assert dict(document.counts)["comment_bytes"] == 7 * 50
    assert one(tmp_path, latin.encode("utf-16")).text == latin.replace("% weg ä", "")


WORDS = st.sampled_from(
    [
        "a", " ", "\n", "\r\n", "%", "\\%", "\\\\", "$", "$$", "\\[", "\\]", "\\(", "\\)", "{", "}", "|", "ü", "é€😀", "\\verb|",
        "\\verb", "\\begin{verbatim}", "\\end{verbatim}", "\\begin{comment}", "\\end{comment}", "\\begin{align}", "\\url{",
        "\\end{align}", "\\begin{document}", "\\end{document}", "\\input{a}", "\\input{b}", "\\input{c}", "\\input a ", "\x00",
        "\\lstinline", "\\import{.}{b}", "\t", "\\section{x}\n", "\r",
    ]
)  # fmt: skip
SOURCES = st.lists(WORDS, max_size=30).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(SOURCES, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_every_byte_of_any_files_belongs_to_one_document_or_reject(
    sources: list[str], preamble: bool, comments: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {f"{name}.tex": source for name, source in zip("abc", sources, strict=False)}
        reader = build(Options(preamble=preamble, comments=comments))
        items = inputs(Path(folder), files)
        for unit in reader.units(items):
            try:
                found = list(reader.read(unit))
            except InputError:  # too many NUL bytes to be text
                assert any("\0" in files[item.origin] for item in unit)
                continue
            assert_tiled(unit, found)


@settings(max_examples=150, deadline=None)
@given(SOURCES)
def test_the_text_of_a_file_is_a_subsequence_of_its_source(source: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (item,) = inputs(Path(folder), {"x.tex": "x" + source.replace("\0", "")})
        for each in build(Options()).read((item,)):
            assert isinstance(each, Document) or "\\begin{document}" in source or "comment}" in source
            if isinstance(each, Document):
                assert is_subsequence(each.text, "x" + source.replace("\r\n", "\n").replace("\r", "\n"))


@settings(max_examples=100, deadline=None)
@given(SOURCES.filter(lambda source: "\\end{verbatim}" not in source), st.text("ab %\\$\n", max_size=20))
def test_nothing_inside_a_verbatim_environment_is_altered(inside: str, before: str) -> None:
    inside = "\n" + inside.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    verbatim = f"\\begin{{verbatim}}{inside}\\end{{verbatim}}"
    with tempfile.TemporaryDirectory() as folder:
        (item,) = inputs(Path(folder), {"x.tex": f"{before}\n\n{verbatim} % gone"})
        (document,) = build(Options()).read((item,))
    assert isinstance(document, Document)
    assert document.text.endswith(verbatim + " ")


# Hostile files


@pytest.mark.parametrize(
    "source",
    [
        "%" * 5_000_000,
        "x" + "\\begin{verbatim}}" * 100_000,
        "x" + "\\begin{comment}" * 100_000,
        "x" + "\\begin{comment}\\end{comment}" * 50_000,
        "x" + "{" * 1_000_000,
        "x" + "$" * 500_001,
        "x" + "\\begin{align}" * 100_000,
        "x" + "\\verb|" * 200_001,
        "x" + "\\url{" * 200_000,
        "x" + "\\lstinline{" * 30_000,
        "x" + "\\input{" * 100_000,
        "x" + "\\import{a}" * 100_000,
        "x" + "\n \t" * 300_000,
        "x" + "\r" * 500_000 + "%",
    ],
    ids=lambda source: source[:20].strip(),
)  # fmt: skip
def test_hostile_text_takes_linear_time(tmp_path: Path, source: str) -> None:
    """Each takes under two seconds on a slow machine, and would take minutes if time grew with the square of length."""
    assert items_of(tmp_path, {"a.tex": source})


def test_nul_bytes_in_text_are_kept_for_the_cleaning_to_see(tmp_path: Path) -> None:
    assert one(tmp_path, "a" * 100 + "\0b").text == "a" * 100 + "\0b"
