"""`havoc report`, and the facts that it gathers."""

from __future__ import annotations

import shutil

import pytest

from havoc_cli.run_facts import read_metrics
from havoc_core.errors import DataError


def test_the_page_is_written_and_names_what_the_run_was(havoc, run_copy):
    page = run_copy / "logs" / "report.html"
    page.unlink()
    said = havoc("report", run_copy)
    assert (said.code, said.out) == (0, f"{page}\n")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") or text.startswith("<!doctype html>")
    assert "DUMMY DATA" in text
    assert "bits per byte" in text.lower()
    assert "xz" in text
    assert "<script" not in text and "<link" not in text and "default-src 'none'" in text, (
        "it needs nothing from outside"
    )
    assert "abc" in text, "the sample's beginning"


def test_a_run_that_was_only_trained_has_a_page_too(havoc, run_copy):
    for name in ("evaluation.json", "samples.json", "report.html"):
        (run_copy / "logs" / name).unlink()
    (run_copy / "stages.json").unlink()
    assert havoc("report", run_copy).code == 0
    assert (run_copy / "logs" / "report.html").stat().st_size > 0


def test_a_run_that_was_stopped_says_so_on_its_page(havoc, run_copy):
    shutil.rmtree(run_copy / "checkpoints" / "checkpoint_step_6")
    assert havoc("report", run_copy).code == 0
    assert "stopped after 3 of 6 steps" in (run_copy / "logs" / "report.html").read_text(encoding="utf-8")


def test_of_a_checkpoint_that_was_cut_off_while_it_was_replaced_there_is_a_page(havoc, run_copy):
    """Regression: of checkpoint_interrupted only the `.old` was there, and the report ended in a traceback."""
    folder = run_copy / "checkpoints"
    (folder / "checkpoint_step_6").rename(folder / "checkpoint_interrupted.old")
    assert havoc("report", run_copy).code == 0


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_without_a_run_is_named(folder, havoc):
    said = havoc("report", folder)
    assert said.code == 1
    assert "holds no checkpoints. Train first: havoc run, or havoc train." in said.message


def test_a_run_whose_numbers_are_gone_is_named(havoc, run_copy):
    (run_copy / "logs" / "metrics.jsonl").unlink()
    said = havoc("report", run_copy)
    assert said.code == 2
    assert "metrics.jsonl: cannot be read (No such file or directory). Train first: havoc run" in said.message


def test_a_damaged_evaluation_is_named(havoc, run_copy):
    (run_copy / "logs" / "evaluation.json").write_text("{ half")
    said = havoc("report", run_copy)
    assert said.code == 2
    assert "evaluation.json: is no evaluation" in said.message
    assert "Evaluate again: havoc evaluate." in said.message


def test_a_line_of_numbers_that_a_kill_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n\xff\n{"kind": "train", "st')
    assert read_metrics(path) == [{"kind": "train", "step": 1}]


def test_numbers_that_are_nowhere_are_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")
