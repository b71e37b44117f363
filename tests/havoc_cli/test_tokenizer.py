"""`havoc tokenizer train | report`."""

from __future__ import annotations

import shutil

from havoc_core.tokenizer import Tokenizer


def test_train_learns_a_vocabulary_of_the_size_of_the_model(havoc, config, prepared):
    shutil.rmtree(prepared / "tokenizer")
    said = havoc("tokenizer", "train", "--config", config())
    assert said.code == 0, said.err
    assert f"{prepared}/tokenizer: 520 ids." in said.out
    assert Tokenizer.load(prepared / "tokenizer").vocab_size == 520


def test_report_measures_on_the_held_out_text_of_the_run(havoc, finished_run):
    said = havoc("tokenizer", "report", finished_run / "tokenizer", "--run-dir", finished_run)
    assert said.code == 0
    rows = {line.split()[0]: line for line in said.out.splitlines()}
    for group in ("domain", "general", "dialog"):
        assert rows[group].endswith("bytes per token")
        assert 1.0 < float(rows[group].split()[1]) < 3.0
    assert "∂²u/∂t² = c²∇²u" in said.out


def test_report_puts_tokenizers_side_by_side_on_a_text_of_the_users(havoc, finished_run, here):
    (here / "text.txt").write_text("abc abd " * 50)
    one, two = finished_run / "tokenizer", finished_run / "tokenizer" / "tokenizer.json"
    said = havoc("tokenizer", "report", one, two, "--text", "text.txt")
    assert said.code == 0
    row = next(line for line in said.out.splitlines() if line.startswith("text.txt")).split()
    assert row[1] == row[2]


def test_a_text_that_cannot_be_read_is_named(havoc, finished_run):
    said = havoc("tokenizer", "report", finished_run / "tokenizer", "--text", "nowhere.txt")
    assert said.code == 2
    assert "DataError  nowhere.txt: cannot be read (No such file or directory)." in said.message
    assert "Check the path given to --text." in said.message


def test_a_folder_without_held_out_text_is_named(havoc, finished_run, here):
    said = havoc("tokenizer", "report", finished_run / "tokenizer")
    assert said.code == 2
    assert "store/validation: holds no held-out text." in said.message
    assert "name a file: --text" in said.message


def test_a_tokenizer_that_is_not_there_is_named(havoc, here):
    (here / "text.txt").write_text("abc")
    said = havoc("tokenizer", "report", "nowhere", "--text", "text.txt")
    assert said.code == 2
    assert "nowhere: there is no such tokenizer. Train one: havoc tokenizer train." in said.message
