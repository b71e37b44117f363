"""`havoc data card`, and the card that `havoc data build` writes."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def folder(tmp_path):
    """Two sources: exercises that differ in their numbers, and notes with a copy, a broken line and a licence."""
    exercises = tmp_path / "text" / "exercises"
    exercises.mkdir(parents=True)
    for number in range(12):
        text = (
            f"Exercise. A beam of {number + 3} m carries {17 * number + 5} N at its end. Find the moment at the wall. "
        )
        (exercises / f"{number:02}.txt").write_text(text + f"Answer: {(number + 3) * (17 * number + 5)} Nm.\n")
    notes = tmp_path / "text" / "notes"
    notes.mkdir()
    proof = (
        "Let $x_i$ be the observations. The mean is unbiased, since expectation is linear, whatever the spread. " * 3
    )
    (notes / "proof.md").write_text(proof)
    (notes / "proof copy.md").write_text(proof)
    (notes / "rows.jsonl").write_text(json.dumps({"text": "A row of text. " * 20}) + "\n{broken\n")
    (notes / "LICENSE").write_text("SPDX-License-Identifier: CC-BY-4.0\n")
    return tmp_path / "text"


def test_a_folder_is_told_in_figures_and_on_a_page_before_anything_is_trained(havoc, folder, tmp_path):
    page = tmp_path / "page.html"
    said = havoc("data", "card", folder, "--out", page, "--evaluation.exam-problems", "0")
    assert said.code == 0
    assert "exercises" in said.out and "notes" in said.out and "The ledger closes" in said.out
    html = page.read_text(encoding="utf-8")
    assert "CC-BY-4.0" in html and "proof copy.md" in html and "rows.jsonl" in html
    assert "A beam of" in html, "the family of exercises that differ in their numbers"
    assert not (tmp_path / "corpus").exists(), "nothing is left but the page"


def test_settings_rule_the_card_too(havoc, folder, tmp_path):
    page = tmp_path / "page.html"
    flags = (
        "--evaluation.exam-problems",
        "0",
        "--data.cleaning.domain",
        "drop",
        "--data.cleaning.rules.too_short",
        "200",
    )
    said = havoc("data", "card", folder / "exercises", "--out", page, *flags)
    assert said.code == 2 and "exercises: gave no text." in said.err and "12 by the rule too_short" in said.err


def test_a_folder_that_is_not_there_and_a_page_that_cannot_be_are_refused(havoc, folder, tmp_path):
    said = havoc("data", "card", tmp_path / "nowhere")
    assert said.code == 2 and "nowhere: there is no such file or folder. Check the path." in said.err
    said = havoc("data", "card", folder, "--out", tmp_path / "no" / "page.html")
    assert said.code == 2 and "--out: there is no folder" in said.err and "Create it, or name another file." in said.err
    said = havoc("data", "card", folder / "notes", folder / "notes")
    assert said.code == 2 and "two of the folders are called 'notes'. Name them one at a time." in said.err
