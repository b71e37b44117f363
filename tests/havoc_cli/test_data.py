"""`havoc data sample | build | look`."""

from __future__ import annotations

import hashlib
import json

import pytest

FILES = ("math/math.jsonl", "stats/stats.jsonl", "engineering/engineering.jsonl", "general/general.jsonl")


def test_build_says_what_became_of_every_source_and_what_is_held_out(havoc, config, here):
    said = havoc("data", "build", "--config", config())
    assert said.code == 0, said.err
    for group in ("domain", "general", "dialog"):
        assert f"{group} ({group}): " in said.out
        assert f"held out of {group}: " in said.out
    assert "kept " in said.out and "duplicate 0" in said.out and "rejected 0" in said.out
    manifest = (here / "run" / "store" / "manifest.json").read_bytes()
    assert f"store {hashlib.sha256(manifest).hexdigest()}\n" in said.out
    card = here / "run" / "logs" / "card.html"
    assert said.out.endswith(f"data card {card}\n") and "readings" in card.read_text(encoding="utf-8").lower()


def test_build_again_leaves_the_store_as_it_is(havoc, config, here):
    path = config()
    first = havoc("data", "build", "--config", path)
    before = {p: p.stat().st_mtime_ns for p in (here / "run" / "store").rglob("*")}
    second = havoc("data", "build", "--config", path)
    assert second.out == first.out
    assert before == {p: p.stat().st_mtime_ns for p in (here / "run" / "store").rglob("*")}


def test_look_shows_rows_of_every_source_with_the_tokens_set_apart(havoc, config, prepared):
    said = havoc("data", "look", "--config", config(), "--rows", "1")
    assert said.code == 0
    assert said.out.count("=== ") == 3
    assert said.out.count("--- row 0: ") == 3
    assert "<|bos|>│" in said.out
    assert "\x1b[" not in said.out, "no colours where the output is no terminal"


def test_look_names_what_was_left_out_and_shows_controls_as_escapes(havoc, config, here):
    for number in range(60):
        folder = here / "text" / "math"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text("".join(f"line {number} {n} \x1b[31m\n" for n in range(120)))
    (here / "text" / "math" / "empty.txt").write_text("")
    sources = {"sources": None, "data_dir": "text", "domain_ratio": 1.0, "general_ratio": 0.0, "dialog_ratio": 0.0}
    path = config(data=sources)
    assert havoc("data", "build", "--config", path).code == 0
    said = havoc("data", "look", "--config", path, "--rows", "1")
    assert said.code == 0, said.err
    assert "left out of math: empty.txt: it is empty" in said.out
    assert "\\x1b" in said.out and "\x1b" not in said.out


def test_sample_refuses_a_folder_that_is_there(havoc, here):
    (here / "data").mkdir()
    said = havoc("data", "sample")
    assert said.code == 2
    assert said.message == "DataError  data: is there already. Name a folder that does not exist yet."
    assert list((here / "data").iterdir()) == []


def test_sample_that_cannot_be_written_is_one_message(havoc, here):
    """Regression: a file on the way to the folder ended in a traceback."""
    (here / "file").write_text("mine")
    said = havoc("data", "sample", "file/data")
    assert said.code == 2
    assert "file/data: cannot be created (" in said.message
    assert "Name a folder that you may write to." in said.message


@pytest.mark.slow
def test_sample_writes_the_tree_of_the_first_run_under_any_name(havoc, here):
    """Regression: any other name than data was refused because data.data_dir named a folder that is not there."""
    said = havoc("data", "sample", "texts")
    assert said.code == 0, said.err
    for name in (*FILES, "dialog/dialog.jsonl"):
        lines = (here / "texts" / name).read_text(encoding="utf-8").splitlines()
        assert len(lines) > 100, name
        first = json.loads(lines[0])
        assert ("messages" in first) == name.startswith("dialog")
    for group in ("math", "stats", "engineering", "general", "dialog"):
        assert f"texts/{group}  " in said.out
