import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from havoc_core.errors import MissingPackageError
from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input
from havoc_data.readers._page_signs import Glyph, sign_of_loss
from havoc_data.readers.pdf import Options, build, join_words

PROSE = [
    f"Line {word} of a page of prose that says what a basis is." for word in ("one", "two", "three", "four", "five")
]
PICTURE = "picture"


def read(path, content, **options):
    """All that the reader makes of a PDF; the ranges are checked on the way."""
    file = Path(path) / "a.pdf"
    file.write_bytes(content)
    items = list(build(Options(**options)).read((Input(origin="a.pdf", path=file),)))
    place = 0
    for item in items:
        assert item.origin == "a.pdf" and item.start == place <= item.end
        place = item.end
    assert place == len(content)
    documents = [item for item in items if isinstance(item, Document)]
    assert [document.ordinal for document in documents] == list(range(len(documents)))
    return items


def pdf(*pages, font="Helvetica", encrypt=False):
    """A PDF written by hand: of each page the lines of its text, from the top down, or PICTURE."""
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    bodies.append(f"<< /Type /Font /Subtype /Type1 /BaseFont /{font} /Encoding /WinAnsiEncoding >>")
    image = (
        "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 1 >>"
    )
    bodies.append(f"{image}\nstream\nx\nendstream")
    kids = []
    for page in pages:
        if page == PICTURE:
            stream = "600 0 0 800 0 0 cm /I Do"
        else:
            shown = (line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)") for line in page)
            stream = "BT /F 12 Tf 14 TL 50 800 Td " + " ".join(f"({line}) Tj T*" for line in shown) + " ET"
        resources = "<< /Font << /F 3 0 R >> /XObject << /I 4 0 R >> >>"
        kids.append(f"{len(bodies) + 1} 0 R")
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 842] /Resources {resources} /Contents {len(bodies) + 2} 0 R >>"
        )
        bodies.append(f"<< /Length {len(stream.encode('cp1252'))} >>\nstream\n{stream}\nendstream")
    bodies[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    lock = "/Encrypt << /Filter /Strange /V 9 >> /ID [<00> <00>]" if encrypt else ""
    trailer = f"trailer << /Size {len(bodies) + 1} /Root 1 0 R {lock} >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n{table}{trailer}".encode()


def drawn(*texts):
    """A PDF page on which matplotlib wrote, mathematics too."""
    figure = Figure(figsize=(6, 8))
    for number, text in enumerate(texts):
        figure.text(0.1, 0.95 - 0.08 * number, text)
    file = io.BytesIO()
    FigureCanvasPdf(figure).print_pdf(file, metadata={"CreationDate": None})
    return file.getvalue()


def test_pages_of_prose_become_one_document(tmp_path):
    (document,) = read(tmp_path, pdf(PROSE, [line.upper() for line in PROSE]))
    assert document.text.split("\n") == [*PROSE, *(line.upper() for line in PROSE)]
    assert dict(document.counts) == {"pages": 2, "pages_with_lost_formulas": 0, "header_lines": 0}


def test_a_long_book_is_several_documents_that_share_its_bytes(tmp_path):
    # Every page is its own, or its first lines would be running heads.
    pages = [[f"{chr(97 + page)}{chr(97 + line)}{PROSE[0] * 2}" for line in range(26)] for page in range(26)] * 2
    items = read(tmp_path, pdf(*pages))
    assert len(items) >= 2 and all(isinstance(item, Document) for item in items)
    assert all(len(item.text.encode()) <= 64 * 1024 for item in items)
    assert "\n".join(item.text for item in items).count("Line one") == 2 * 26 * 26 * 2
    assert items[0].counts and not items[1].counts


def test_words_divided_at_the_end_of_a_line_are_joined(tmp_path):
    (document,) = read(
        tmp_path, pdf(["Every finite-dimen-", "sional space has a Gram-", "Schmidt basis, as is well-known to all."])
    )
    assert document.text == "Every finite-dimensional space has a Gram-Schmidt basis, as is well-known to all."
    assert join_words("writ\x02ten, writ\ufffe\nten, Gram\x02\nSchmidt, end-\nless, x-\n1") == (
        "written, written, Gram-Schmidt, endless, x-1"
    )


def test_running_heads_and_page_numbers_are_taken_out_and_counted(tmp_path):
    pages = [
        [f"{number + 1} Linear Algebra", *(f"{chr(97 + number)} {line}" for line in PROSE), f"page {number + 1} of 6"]
        for number in range(6)
    ]
    (document,) = read(tmp_path, pdf(*pages))
    assert "Linear Algebra" not in document.text and "of 6" not in document.text
    assert document.text.count("Line") == 30 and dict(document.counts)["header_lines"] == 12


def test_heads_that_differ_left_and_right_are_taken_out(tmp_path):
    heads = ("Linear Algebra", "Vector spaces")
    pages = [[heads[number % 2], *(f"{chr(97 + number)} {line}" for line in PROSE)] for number in range(8)]
    (document,) = read(tmp_path, pdf(*pages))
    assert dict(document.counts)["header_lines"] == 8 and document.text.startswith("a Line one")


def test_rows_of_numbers_that_look_alike_are_no_heads(tmp_path):
    pages = [[f"{page}.{row} {page + row} 0.5" for row in range(9)] for page in range(5)]
    (document,) = read(tmp_path, pdf(*pages))
    assert dict(document.counts)["header_lines"] == 0 and len(document.text.split("\n")) == 45


def test_a_line_that_stands_on_two_pages_only_stays(tmp_path):
    (document,) = read(tmp_path, pdf(["Exercises", *PROSE], ["Exercises", *reversed(PROSE)]))
    assert document.text.count("Exercises") == 2


@pytest.mark.parametrize("formula", [r"$\frac{a}{b^2}+\sum_{i=1}^{n} x_i^2 = \sqrt{y_{j}}$ and $\int_0^1 \frac{f}{g}$"])
def test_a_page_of_typeset_mathematics_is_left_out_and_named(formula, tmp_path):
    content = drawn("Ordinary words about something.", formula, "More words.", formula)
    (item,) = read(tmp_path, content)
    assert isinstance(item, Rejected) and item.rule == "lost_formulas"
    assert item.reason.startswith("page 1: its formulas were lost: ") and item.bytes == len(content)


def test_on_request_such_a_page_is_kept_and_still_counted(tmp_path):
    (item,) = read(
        tmp_path, drawn("Ordinary words.", r"$\frac{a}{b^2}+\sum_{i=1}^{n} x_i^2+\frac{c}{d}$"), lost_formulas="keep"
    )
    assert isinstance(item, Document) and dict(item.counts)["pages_with_lost_formulas"] == 1


def test_a_page_in_fonts_of_mathematics_is_left_out(tmp_path):
    (item,) = read(tmp_path, pdf(PROSE, font="ABCDEF+CMMI10"))
    assert item.rule == "lost_formulas" and "of its characters are in fonts of mathematics" in item.reason


def test_the_pages_around_one_of_mathematics_are_kept(tmp_path):
    letters = [*PROSE, "a", "b", "n", "=", "x", "2", "+"]
    first, lost, last = read(tmp_path, pdf(PROSE, letters, PROSE[::-1]))
    assert first.text == "\n".join(PROSE) and last.text == "\n".join(PROSE[::-1])
    assert dict(first.counts)["pages_with_lost_formulas"] == 1
    assert lost.reason == "page 2: its formulas were lost: 7 of its 12 lines are fragments of one to three characters"
    assert lost.bytes > first.end - first.start


def test_scanned_pages_are_named(tmp_path):
    (item,) = read(tmp_path, pdf(PICTURE, PICTURE))
    assert item.rule == "scanned" and item.reason == "no text could be read (scanned pages?). Run OCR first"


def test_a_scanned_page_among_others_is_named_with_its_number(tmp_path):
    first, picture, last = read(tmp_path, pdf(PROSE, PICTURE, PROSE))
    assert first.text == last.text == "\n".join(PROSE)
    assert (
        picture.rule == "scanned" and picture.reason.startswith("page 2: no text could be read") and picture.bytes > 0
    )


def test_empty_pages_are_named(tmp_path):
    (item,) = read(tmp_path, pdf([], []))
    assert item.rule == "no_text" and item.reason == "its pages are empty"


def test_an_encrypted_file_is_named(tmp_path):
    (item,) = read(tmp_path, pdf(PROSE, encrypt=True))
    assert item.rule == "unreadable" and "it is encrypted" in item.reason


@pytest.mark.parametrize("content", [b"%PDF-1.4\nnothing else", b"plain words", pdf(PROSE)[:120]])
def test_a_damaged_file_is_named_with_what_pdfium_says(content, tmp_path):
    (item,) = read(tmp_path, content)
    assert item.rule == "unreadable" and "it is no PDF, or damaged (Failed to load document" in item.reason


def test_an_empty_file_is_named(tmp_path):
    (item,) = read(tmp_path, b"")
    assert item.rule == "no_text" and item.reason == "it is empty"


def glyphs(text, font="CMR10", height=10.0, unmapped=False):
    return [Glyph(character, font, height, unmapped) for character in text]


def test_prose_with_a_variable_in_every_line_passes():
    line = (
        glyphs("we take any vector ")
        + glyphs("v", "XYZABC+CMMI10")
        + glyphs(" of the space and its norm, which is positive ")
    )
    assert sign_of_loss("we take any vector v of the space\n" * 20, line * 20) is None


def test_bullets_and_leaders_in_fonts_of_mathematics_pass():
    line = glyphs("•", "CMSY10") + glyphs("An item of the table of contents ") + glyphs("." * 30, "CMMI10")
    assert sign_of_loss("\n".join(["An item ......"] * 20), line * 20) is None


def test_characters_without_a_meaning_are_a_sign():
    some = glyphs("a" * 97) + glyphs("\ufffd\ue001\x0f")
    assert sign_of_loss("x", some) == "3.0% of its characters have no meaning"
    assert "have no meaning" in str(sign_of_loss("x", glyphs("a" * 90) + glyphs("bcd", unmapped=True)))
    assert sign_of_loss("x", glyphs("a" * 98) + glyphs("\ufffd\ufffd")) is None


def test_indices_that_lost_their_place_are_a_sign():
    square = glyphs("the sum x") + glyphs("2", height=7.0) + glyphs(" is taken ")
    note = glyphs("as somebody") + glyphs("2", height=7.0) + glyphs(" wrote ")
    assert "4 indices lost their place" in str(sign_of_loss("words", square * 4))
    assert sign_of_loss("words", square * 3) is None and sign_of_loss("words", note * 20) is None


def test_lines_of_single_letters_are_a_sign_and_numbers_of_a_table_are_none():
    prose = ["a line of ordinary prose"] * 10
    assert "6 of its 16 lines are fragments" in str(sign_of_loss("\n".join([*prose, *"ab∑n=i"]), glyphs("abc")))
    assert sign_of_loss("\n".join([*prose, "12", "(13)", "a)", "iv.", "•", "20%", "A"] * 3), glyphs("abc")) is None


def test_without_pypdfium2_the_install_command_is_given():
    """Where the extra is not installed; simulated in a process of its own."""
    program = (
        "import sys; sys.modules['pypdfium2'] = None\n"
        "from havoc_data.readers import pdf\n"
        "try: pdf.build(pdf.Options())\n"
        "except Exception as error: print(type(error).__name__, error.where, error.found, error.remedy, sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True
    )
    kind, where, found, remedy = done.stdout.strip().split("|")
    assert kind == MissingPackageError.__name__ and where == "reading .pdf files"
    assert "pypdfium2 cannot be imported" in found and remedy == "Install it: pip install 'havoc[formats]'."


def test_a_pdf_is_never_cut(tmp_path):
    item = Input(origin="a.pdf", path=tmp_path / "a.pdf")
    reader = build(Options())
    assert reader.boundary(item, 10) is None and reader.units([item, item]) == [(item,), (item,)]


@given(
    st.lists(
        st.one_of(st.just(PICTURE), st.lists(st.text("ab -xé1.", max_size=12), max_size=6)), min_size=1, max_size=5
    ),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_pdf_is_accounted_for_whole_or_damaged(tmp_path_factory, pages, data):
    content = bytearray(pdf(*pages))
    read(tmp_path_factory.mktemp("any"), bytes(content))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place : place + 20] = data.draw(st.binary(max_size=20))
    read(tmp_path_factory.mktemp("any"), bytes(content))
