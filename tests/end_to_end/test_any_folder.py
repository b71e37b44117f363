"""A deliberately messy folder: every format, every defect. Every file is named, and the ledger closes to the byte."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow
import pytest
import zstandard
from matplotlib.backends.backend_pdf import FigureCanvasPdf, PdfPages
from matplotlib.figure import Figure
from pyarrow import parquet

from havoc_core.config import TrainingConfig
from havoc_core.errors import DataError
from havoc_core.tokenizer import NUM_SPECIAL
from havoc_data.prepare.build import collect_corpus, collecting, prepare
from havoc_data.prepare.card import data_card
from havoc_data.prepare.collect import collect
from havoc_report.data_page import data_page
from havoc_report.page import render

pytestmark = pytest.mark.slow
SPELT = "<|begin_of_text|> a text may spell <|end_of_text|> and <|user|> and <|pad|> out"
BOMB_BYTES = 65 * 2**20


def pdf(*pages: str) -> bytes:
    """A PDF: of each page its text, "formula" for mathematics drawn by matplotlib, or "picture" for a scan."""
    out = io.BytesIO()
    with PdfPages(out, metadata={"CreationDate": None}) as book:
        for page in pages:
            figure = Figure(figsize=(6, 8))
            FigureCanvasPdf(figure)
            if page == "picture":
                figure.figimage([[0.0, 1.0], [1.0, 0.0]], resize=False)
            elif page == "formula":
                for number in range(8):
                    figure.text(
                        0.1, 0.9 - 0.1 * number, rf"so that $\sum_{{i=1}}^{{n}} x_i^2 / \sqrt{{{number}}}$ holds"
                    )
            else:
                for number, line in enumerate(page.splitlines()):
                    figure.text(0.1, 0.95 - 0.02 * number, line, size=8)
            book.savefig(figure)
    return out.getvalue()


def write_formats(folder: Path, text) -> None:
    """Every format, packed and not."""
    (folder / "plain.txt").write_text(text(1), encoding="utf-8")
    (folder / "wide.txt").write_bytes(text(2).replace("value", "größte Länge").encode("utf-16"))
    (folder / "windows.txt").write_bytes(text(3).replace("value", "größe “quoted” – für Ärzte").encode("cp1252"))
    (folder / "notes.md").write_text(f"# Title\n\n{text(4)}\n")
    (folder / "spelt.txt").write_text(f"{text(70)}\n\n{SPELT}\n")
    (folder / "manual.rst").write_text(f"Title\n=====\n\n{text(5)}")
    (folder / "book").mkdir()
    chapter = "\\chapter{{One}} % a comment\nLet $x_{{i}}^2$ be. \\input{{book/part}}\n{}\n"
    (folder / "book" / "main.tex").write_text(
        "\\documentclass{book}\n\\begin{document}\n\\input{chapter}\n" + text(6) + "\n\\end{document}\n"
    )
    (folder / "book" / "chapter.tex").write_text(chapter.format(text(7)).replace("book/part", "part"))
    (folder / "book" / "part.tex").write_text("\\section{Part}\n" + text(8))
    (folder / "mathbook.xml").write_text(
        f"<mathbook><book><chapter><title>Sets</title><p>{text(9)} <m>x \\in A</m></p></chapter></book></mathbook>"
    )
    page = f"<html><body><article><h1>Means</h1><p>{text(10)}</p><p>Then <math><mi>x</mi><mo>=</mo><mn>2</mn></math>"
    (folder / "page.html").write_text(page + f" and \\(y^2\\) follow.</p><p>{text(11)}</p></article></body></html>")
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Head\n", text(12)]},
        {"cell_type": "code", "metadata": {}, "source": "mean = sum(x) / len(x)", "outputs": [], "execution_count": 1},
    ]
    (folder / "note.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    rows = [json.dumps({"text": text(number)}) for number in range(20, 26)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(json.dumps({"text": text(26)}).encode() + b"\n"))
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([n, text(30 + n)] for n in range(3))])
    (folder / "table.tsv").write_text(
        "id\ttext\n" + "".join(f"{n}\t{text(40 + n).replace(chr(10), ' ')}\n" for n in (1, 2))
    )
    (folder / "packed.txt.gz").write_bytes(gzip.compress(text(50).encode(), mtime=0))
    with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/one.txt", text(51))
        archive.writestr("inner/two.md", text(52))
    with tarfile.open(folder / "archive.tar.gz", "w:gz") as archive:
        for name, number in (("deep/three.txt", 53), ("deep/rows.jsonl", 54)):
            raw = (text(number) if name.endswith("txt") else json.dumps({"text": text(number)})).encode()
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    (folder / "prose.pdf").write_bytes(pdf(text(55)))
    (folder / "formulas.pdf").write_bytes(pdf(text(56), "formula"))
    parquet.write_table(pyarrow.table({"text": [text(57), text(58)]}), folder / "good.parquet")
    parquet.write_table(pyarrow.table({"numbers": [1, 2, 3]}), folder / "no_column.parquet")


def write_defects(folder: Path, text) -> None:
    """Every defect that a folder may have by itself."""
    packed = gzip.compress((text(60) * 40).encode(), mtime=0)
    (folder / "truncated.txt.gz").write_bytes(packed[: len(packed) // 2])
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", bytes(BOMB_BYTES))
    (folder / "bomb.txt.gz").write_bytes(gzip.compress(bytes(BOMB_BYTES), mtime=0))
    with zipfile.ZipFile(folder / "escape.zip", "w") as archive:
        archive.writestr("../../outside.txt", text(61))
        archive.writestr("inside.txt", text(62))
    (folder.parent.parent / "secret.txt").write_text("not for the model " * 50)
    (folder / "out.txt").symlink_to(folder.parent.parent / "secret.txt")
    (folder / "again.txt").symlink_to(folder / "plain.txt")
    (folder / "nowhere.txt").symlink_to(folder / "gone.txt")
    (folder / "scans.pdf").write_bytes(pdf("picture", "picture"))
    (folder / "no.pdf").write_bytes(b"%PDF-1.7 and nothing that follows from it")
    lines = ["id,text", f"1,{text(63)[:300].replace(',', ' ')!r}", "2", "3,a,b,c", '4,"never closed']
    (folder / "ragged.csv").write_text("\n".join(lines))
    rows = [
        json.dumps({"text": text(64)}),
        "{broken",
        "[1, 2]",
        '{"other": 3}',
        json.dumps({"text": text(65)}),
        '{"text": "',
    ]
    (folder / "broken.jsonl").write_text("\n".join(rows))
    mixed = [text(66).encode(), "größer für Ärzte ".encode("cp1252") * 20, text(67).replace("value", "länge").encode()]
    (folder / "mixed.txt").write_bytes(b"\n".join(mixed))
    (folder / "zeros.txt").write_bytes(bytes(4000))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "picture.png").write_bytes(b"\x89PNG" * 99)
    (folder / "no_end").write_bytes(b"what is it")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.txt").write_text("hidden")
    (folder / "copy.txt").write_text(text(1))
    (folder / "near.txt").write_text(text(4) + " And one word more.")
    (folder / "LICENSE").write_text("SPDX-License-Identifier: CC-BY-4.0\n")
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text(text(68))


@pytest.fixture(scope="module")
def messy(tmp_path_factory, book):
    """A run whose one source is that folder, with enough of other text beside it to hold some out."""
    top = tmp_path_factory.mktemp("any")
    folder = top / "data" / "messy"
    folder.mkdir(parents=True)

    def text(number):
        return book("stats", size=900, seed=f"messy {number}").replace(" is ", " is the value ")

    for number in range(60):
        (folder / f"many{number}.txt").write_text(book("math", size=1600, seed=str(number)))
    write_formats(folder, text)
    write_defects(folder, text)
    return config_of(top)


def config_of(top: Path, run: str = "run", **data) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "run_dir": str(top / run),
            "model": {"size": "nano", "vocab_size": 600},
            "data": {"data_dir": str(top / "data"), "max_sequence_length": 64, "runner": "inline", **data},
            "evaluation": {"exam_problems": 0},
        }
    )


@pytest.fixture(scope="module")
def corpus(messy):
    """What was collected from it."""
    return collect_corpus(messy)


def recounted(folder: Path) -> dict[str, int]:
    """Origin -> bytes of every file, unpacked, without any code of ours."""
    sizes: dict[str, int] = {}
    for top, folders, names in os.walk(folder):
        for name in names:
            path = Path(top, name)
            origin = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
            if path.is_symlink():
                continue
            if name.endswith(".zip"):
                with zipfile.ZipFile(path) as archive:
                    members = {f"{origin}!/{info.filename}": info.file_size for info in archive.infolist()}
                sizes |= members if sum(members.values()) < BOMB_BYTES else {origin: path.stat().st_size}
            elif name.endswith(".tar.gz"):
                with tarfile.open(path) as archive:
                    sizes |= {f"{origin}!/{info.name}": info.size for info in archive if info.isreg()}
            elif name.endswith(".gz"):
                sizes[origin] = min(64 * 2**20, len(zlib.decompressobj(31).decompress(path.read_bytes())))
            elif name.endswith(".zst"):
                sizes[origin] = len(zstandard.decompress(path.read_bytes()))
            else:
                sizes[origin] = path.stat().st_size
        assert ".hidden" not in folders or top == str(folder)
    return sizes


def test_the_ledger_closes_to_the_byte(messy, corpus):
    sizes = recounted(Path(messy.data.data_dir) / "messy")
    accounted: dict[str, list[tuple[int, int]]] = {}
    for line in corpus.ledger_lines("messy"):
        for origin, start, end in line["spans"]:
            accounted.setdefault(origin, []).append((start, end))
    hidden = {origin: size for origin, size in sizes.items() if origin.startswith(".hidden/")}
    found = {origin: sum(end - start for start, end in spans) for origin, spans in accounted.items()}
    assert found.pop(".hidden") == sum(hidden.values())
    for origin in ("out.txt", "nowhere.txt"):
        assert found.pop(origin) == 0, "a link that is not followed has no bytes"
    assert found == {origin: size for origin, size in sizes.items() if origin not in hidden}
    assert sum(corpus.ledgers[0].sums.input_bytes.values()) == sum(sizes.values())
    for origin, spans in accounted.items():
        ends = [0, *(end for _, end in sorted(spans))]
        starts = [start for start, _ in sorted(spans)]
        assert all(start == end for start, end in zip(starts, ends, strict=False)), origin


FATES = {
    "truncated.txt.gz": {"kept", "held_out", "unreadable"},
    "bomb.zip": {"unreadable"},
    "bomb.txt.gz": {"unreadable"},
    "escape.zip!/../../outside.txt": {"unreadable"},
    "out.txt": {"unreadable"},
    "nowhere.txt": {"unreadable"},
    "no.pdf": {"unreadable"},
    "no_column.parquet": {"unreadable"},
    "zeros.txt": {"unreadable"},
    "empty.txt": {"empty"},
    "picture.png": {"no_reader"},
    "no_end": {"no_reader"},
    ".hidden": {"hidden"},
    "LICENSE": {"licence_file"},
}
SAID = {
    "bomb.zip": "decompression bomb",
    "truncated.txt.gz": "break off",
    "escape.zip!/../../outside.txt": "its path leads out of the archive",
    "out.txt": "leaves the folder",
    "nowhere.txt": "leads nowhere",
    "picture.png": "files that end in .png are not read",
}


def by_origin(corpus):
    lines: dict[str, list[dict]] = {}
    for line in corpus.ledger_lines("messy"):
        for origin in {span[0] for span in line["spans"]}:
            lines.setdefault(origin, []).append(line)
    return lines


def test_every_defect_is_named_with_its_reason(corpus):
    lines = by_origin(corpus)
    for origin, fates in FATES.items():
        assert {line["fate"] for line in lines[origin]} <= fates, origin
    for origin, words in SAID.items():
        assert any(words in line["reason"] for line in lines[origin]), (origin, lines[origin])
    assert all(line["reason"] for of in lines.values() for line in of if "id" not in line)
    for origin in ("ragged.csv", "broken.jsonl"):  # the good rows are kept, the others named
        assert {line["fate"] for line in lines[origin]} >= {"unreadable"}
    assert sum(line["fate"] in {"kept", "held_out"} for line in lines["broken.jsonl"]) == 2
    assert {line["fate"] for line in lines["scans.pdf"]}.isdisjoint({"kept", "held_out"})
    assert {line["fate"] for line in lines["formulas.pdf"]} & {"lost_formulas", "unreadable"}


def test_every_good_file_is_kept(corpus):
    lines = by_origin(corpus)
    good = ["wide.txt", "windows.txt", "manual.rst", "book/main.tex", "mathbook.xml", "page.html", "note.ipynb"]
    good += ["rows.jsonl", "rows.jsonl.zst", "table.csv", "table.tsv", "good.parquet", "packed.txt.gz", "prose.pdf"]
    good += ["archive.zip!/inner/one.txt", "archive.zip!/inner/two.md", "archive.tar.gz!/deep/three.txt"]
    good += ["archive.tar.gz!/deep/rows.jsonl", "escape.zip!/inside.txt", "mixed.txt", "caf\\xe9.txt"]
    for origin in good:
        assert {line["fate"] for line in lines[origin]} & {"kept", "held_out"}, (origin, lines[origin])
    for one, other, fate in (("plain.txt", "copy.txt", "duplicate"), ("notes.md", "near.txt", "near_duplicate")):
        assert sorted(lines[name][0]["fate"] == fate for name in (one, other)) == [False, True]
    assert "book/part.tex" in lines and "book/chapter.tex" in lines
    assert corpus.ledgers[0].licences.keys() == {"CC-BY-4.0"}


def test_what_was_written_is_what_is_read(corpus):
    texts = {document.origin: document.text for _, document in corpus.documents("messy")}
    assert "größte Länge" in texts["wide.txt"]
    assert "größe “quoted” – für Ärzte" in texts["windows.txt"]
    assert "$x_{i}^2$" in texts["book/main.tex"] and "a comment" not in texts["book/main.tex"]
    assert "x \\in A" in texts["mathbook.xml"]
    assert "y^2" in texts["page.html"]
    assert "sum(x) / len(x)" in texts["note.ipynb"]
    assert "größer für Ärzte" in texts["mixed.txt"] and "länge" in texts["mixed.txt"]
    assert not any("not for the model" in text for text in texts.values())


def test_strings_that_look_like_special_tokens_stay_text(messy, corpus):
    prepared = prepare(messy)
    found = 0
    for source in (*prepared.store.training.values(), *prepared.store.validation.values()):
        ends = source.offsets()
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            inside = source.tokens(int(start), int(end))[1:-1]
            assert inside.min() >= NUM_SPECIAL
            found += SPELT in prepared.tokenizer.decode(inside.tolist())
    assert found == 1


def test_the_card_of_it_names_what_was_left_out_and_its_page_renders(messy, corpus):
    card = data_card(corpus, messy.data, title="messy", made_from="data")
    named = {each.origin for each in card.sources[0].unreadable}
    assert named >= {origin for origin, fates in FATES.items() if "unreadable" in fates}
    assert sum(fate.bytes for fate in card.sources[0].fates) == card.sources[0].input_bytes
    page = render(data_page(card))
    for words in ("CC-BY-4.0", "parquet", "notebook", "unreadable", "messy"):
        assert words in page, words


def test_processes_give_the_same_corpus(messy, corpus):
    other = config_of(Path(messy.run_dir).parent, "other", runner="processes", num_workers=3)
    again = collect_corpus(other)
    for path in sorted(corpus.folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.folder / path.relative_to(corpus.folder)).read_bytes(), path


def test_nothing_of_the_folder_was_changed(messy, corpus, book):
    """Reading is all that is done to it."""
    folder = Path(messy.data.data_dir) / "messy"
    assert (folder / "many0.txt").read_text() == book("math", size=1600, seed="0")
    assert not any(path.name.endswith(".writing") for path in folder.rglob("*"))
    with pytest.raises(DataError, match="there is no such file or folder"):
        collect(collecting(config_of(folder, sources=[{"kind": "files", "path": str(folder / "gone")}])))
    shutil.rmtree(folder / "run", ignore_errors=True)
