"""Whatever is wrong with the text: one message, the right exit code, and nothing lost that was there."""

from __future__ import annotations

import json

import pytest

from havoc_data.prepare.corpus import open_corpus


@pytest.fixture
def text(here, book):
    """A folder of text that is all right, for one group."""

    def make(subject="math", *, files=24, size=6000):
        folder = here / "data" / subject
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(files):
            (folder / f"{number}.txt").write_text(book(subject, size=size, seed=str(number)))
        return folder

    return make


def ledger(here, source="math"):
    return json.loads((here / "run" / "store" / "manifest.json").read_text())["sources"][source]["ledger"]


def refused_and_nothing_lost(here, havoc, config, contents, *wanted):
    """A run that was there before stays as it was."""
    before = contents(here / "run")
    said = havoc("data", "build", "--config", config())
    assert said.code == 2, said.out
    assert said.message.startswith("DataError  ")
    for words in wanted:
        assert words in said.message
    assert before.items() <= contents(here / "run").items()


@pytest.fixture
def built(text, havoc, config):
    """The run of a good folder, whose text may be spoilt now."""
    folder = text()
    assert havoc("data", "build", "--config", config()).code == 0
    return folder


def empty_data(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def empty_group(folder):
    for path in folder.iterdir():
        path.unlink()


def empty_files(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")


def no_text(folder):
    for path in folder.iterdir():
        path.write_bytes(bytes(range(256)) * 40)


def pdfs_under_another_name(folder):
    for path in folder.iterdir():
        path.write_bytes(b"%PDF-1.7\n" + b"text " * 900)


def another_kind(folder):
    for path in folder.iterdir():
        path.rename(path.with_suffix(".docx"))


def loose_file(folder):
    (folder.parent / "notes.txt").write_text("lost?")


def too_little(folder):
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()


SPOILT = {
    empty_data: ["data: the folder is empty.", "Put text into data/<group>/"],
    empty_group: ["math: the folder is empty.", "Put text into it (.txt, .md, .rst, .text, "],
    empty_files: ["0.txt", "it is empty"],
    no_text: ["math: ", "control characters: it is no text"],
    pdfs_under_another_name: ["math: ", "it is a PDF, whatever its name says; convert it to text"],
    another_kind: ["math: nothing in it is text; it holds 24 .docx.", "Convert these files to one of"],
    loose_file: ["data: files lie directly in it (notes.txt).", "Put them into data/<group>/"],
    too_little: ["group domain: ", "are too little to hold 32,768 of them out.", "Add text to the group"],
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_text_that_cannot_be_used_is_one_message_and_the_old_store_stays(spoil, built, here, havoc, config, contents):
    spoil(built)
    refused_and_nothing_lost(here, havoc, config, contents, *SPOILT[spoil])


def test_a_folder_that_is_named_and_not_there_is_never_replaced_by_random_words(here, havoc, config):
    said = havoc("data", "build", "--config", config(data={"data_dir": "texts"}))
    assert said.code == 2
    assert "texts: data.data_dir names it, and there is no such folder." in said.message
    assert not (here / "run" / "corpus").exists()


def test_text_in_another_encoding_is_read_in_it(text, here, havoc, config):
    folder = text()
    (folder / "latin.txt").write_bytes(("Die Größe der Fläche wächst über Nacht.\n" * 300).encode("latin-1"))
    said = havoc("data", "build", "--config", config())
    assert said.code == 0, said.err
    assert ledger(here)["rejected"] == 0
    corpus = open_corpus(here / "run" / "corpus")
    assert any("Die Größe der Fläche wächst" in document.text for _, document in corpus.documents("math"))


def test_a_file_of_zeros_is_left_out_and_named_and_a_few_zeros_are_kept(text, here, havoc, config):
    folder = text()
    (folder / "zeros.txt").write_bytes(b"\0" * 5000)
    (folder / "some.txt").write_bytes(b"a line with one \0 in it\n" * 50)
    said = havoc("data", "build", "--config", config())
    assert said.code == 0, said.err
    counts = ledger(here)
    assert (counts["kept"] + counts["held_out"], counts["rejected"]) == (25, 1)
    assert "left out of math: zeros.txt: " in havoc("data", "look", "--config", config(), "--rows", "0").out


def test_a_loop_of_links_and_a_link_out_of_the_folder_lead_nowhere(text, here, havoc, config):
    folder = text()
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "round.txt").symlink_to(folder / "round.txt")
    (here / "secret.txt").write_text("not for the model\n" * 100)
    (folder / "out.txt").symlink_to(here / "secret.txt")
    (folder / "gone.txt").symlink_to(folder / "nowhere.txt")
    said = havoc("data", "build", "--config", config())
    assert said.code == 0, said.err
    counts = ledger(here)
    assert counts["kept"] + counts["held_out"] == 24
    out = havoc("data", "look", "--config", config(), "--rows", "0").out
    assert "out.txt: a symbolic link that leaves the folder" in out
    assert "gone.txt: a symbolic link that leads nowhere" in out


def test_copies_are_learnt_from_once(text, here, havoc, config):
    folder = text()
    for number in range(5):
        (folder / f"copy_{number}.txt").write_bytes((folder / "0.txt").read_bytes())
    assert havoc("data", "build", "--config", config()).code == 0
    assert ledger(here)["duplicate"] == 5


def test_a_row_that_is_no_json_is_left_out_and_the_rows_around_it_are_kept(text, here, havoc, config, book):
    folder = here / "data" / "general"
    folder.mkdir(parents=True)
    rows = [json.dumps({"text": book("general", size=4000, seed=str(n))}) for n in range(30)]
    rows[7:7] = [
        "{ half",
        '{"no_text": 1}',
        '"just a string"',
        "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
    ]
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    said = havoc("data", "build", "--config", config())
    assert said.code == 0, said.err
    counts = ledger(here, "general")
    assert (counts["kept"] + counts["held_out"], counts["rejected"]) == (30, 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "no space at all"])
def test_one_line_of_20_mb_is_as_welcome_as_a_book(kind, here, havoc, config, book):
    folder = here / "data" / "math"
    folder.mkdir(parents=True)
    line = book("math", size=20_000_000, seed="line").replace("\n", " ")
    (folder / "line.txt").write_text(line if kind == "words" else line.replace(" ", ""))
    said = havoc("train", "--config", config(tokenizer={"sample_bytes": 1_000_000}, max_steps=2))
    assert said.code == 0, said.err
    source = json.loads((here / "run" / "store" / "manifest.json").read_text())["sources"]["math"]
    assert source["documents"] > 200
    assert source["bytes"] > 15_000_000
