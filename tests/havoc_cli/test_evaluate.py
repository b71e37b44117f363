"""`havoc evaluate`."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from havoc_eval.runner import from_json
from havoc_problems.catalog import exam_problems


def test_scores_are_printed_with_their_intervals_and_written(havoc, finished_run, here):
    said = havoc("evaluate", finished_run, "--exam-problems", "0", "--out", here / "new" / "scores.json")
    assert said.code == 0, said.err
    evaluation = from_json((here / "new" / "scores.json").read_text(), where="scores.json")
    result = evaluation.result("held_out")
    for group in ("domain", "general", "dialog"):
        score = next(score for score in result.scores if score.group == group)
        assert score.low < score.value < score.high
        assert f"{group:<24} {score.metric} {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]" in said.out
    assert said.out.rstrip().endswith("scores.json")
    assert any(score.compressor.startswith("xz") for score in evaluation.compression)


def test_an_exam_that_no_text_held_has_one_score_and_a_line_that_says_so(havoc, finished_run, here):
    said = havoc("evaluate", finished_run, "--exam-problems", "8", "--out", "scores.json")
    assert said.code == 0, said.err
    assert "exam       items not found in the training text: all 8\n" in said.out
    assert "all items:" not in said.out
    exam = from_json((here / "scores.json").read_text(), where="scores.json").result("exam")
    assert (exam.touched, exam.untouched) == ((), None)


@pytest.mark.parametrize(("action", "known"), [("drop", 8), ("annotate", 8), ("drop", 0)])
def test_planted_problems_are_found_and_the_exam_has_a_second_score_without_them(action, known, havoc, config, here):
    """Whether the corpus was made with this exam in view and left its problems out, or kept them, or knew nothing of it."""
    planted = [problem.statement for problem in exam_problems(8)[2:7:2]]
    draw, words = random.Random(0), "red blue tall stone river house runs walks the of and"
    texts = [" ".join(draw.choices(words.split(), k=200)) for _ in range(300)]
    texts[5] += "\n\n> " + planted[0].replace(" ", "\n")
    texts[9] += f" {planted[1]} "
    texts[12] += f"\n{planted[2]}\n{texts[13]}"
    (here / "leak.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    off = {"domain": "off", "general": "off", "dialog": "off"}
    dummy = [
        {"kind": "dummy", "name": group, "group": group, "options": {"documents": 150, "words": 100, "seed": seed}}
        for seed, group in enumerate(("general", "dialog"))
    ]
    data = {
        "sources": [{"kind": "jsonl", "name": "leak", "group": "domain", "path": str(here / "leak.jsonl")}, *dummy],
        "cleaning": off, "deduplication": off, "decontamination": {"action": action},
    }  # fmt: skip
    path = config(data=data, max_steps=1, evaluation={"exam_problems": known})
    assert havoc("train", "--config", path).code == 0
    said = havoc("evaluate", "run", "--exam-problems", "8", "--out", "scores.json")
    assert said.code == 0, said.err
    exam = from_json((here / "scores.json").read_text(), where="scores.json").result("exam")
    assert set(exam.touched) == set(planted)
    assert exam.untouched.counts == {"problems": 5, "correct": 0}
    assert "exam       all items: accuracy 0.0000  [0.0000, 0.3244]  0 of 8\n" in said.out
    assert "exam       items not found in the training text: accuracy 0.0000  [0.0000, 0.4345]  0 of 5\n" in said.out


def test_a_run_in_the_current_folder_needs_no_argument(havoc, run_copy, monkeypatch):
    monkeypatch.chdir(run_copy)
    (run_copy / "logs" / "evaluation.json").unlink()
    assert havoc("evaluate", "--exam-problems", "0").code == 0
    assert (run_copy / "logs" / "evaluation.json").is_file()


def test_the_same_weights_have_the_same_scores(havoc, finished_run, here):
    for name in ("a.json", "b.json"):
        assert havoc("evaluate", finished_run, "--exam-problems", "0", "--out", name).code == 0
    assert (here / "a.json").read_bytes() == (here / "b.json").read_bytes()


def test_a_file_that_cannot_be_written_is_named(havoc, finished_run, here):
    (here / "folder").mkdir()
    said = havoc("evaluate", finished_run, "--exam-problems", "0", "--out", "folder")
    assert said.code == 2
    assert "ConfigError  folder: cannot be written (Is a directory). Name another file: --out." in said.message


def test_a_negative_number_of_problems_is_refused_at_once(havoc):
    said = havoc("evaluate", "--exam-problems", "-1")
    assert said.code == 2
    assert said.message == "ConfigError  --exam-problems: -1 is below 0. Use 0 for no exam."


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_a_folder_without_a_checkpoint_is_named(place, havoc):
    said = havoc("evaluate", place)
    assert said.code == 1
    assert said.message.startswith("CheckpointError  ")


def test_a_damaged_checkpoint_is_refused_and_the_next_one_is_taken_from_a_folder(havoc, run_copy):
    newest = run_copy / "checkpoints" / "checkpoint_step_6"
    with (newest / "model.pt").open("r+b") as file:
        file.seek(200)
        file.write(b"\0\1\2\3")
    said = havoc("evaluate", newest, "--exam-problems", "0")
    assert said.code == 1
    assert "model.pt: its checksum is not the manifest's. It is damaged" in said.message
    said = havoc("evaluate", run_copy, "--exam-problems", "0")
    assert said.code == 0
    assert "Passed over: " in said.out


def test_without_a_store_there_is_nothing_held_out(havoc, run_copy, here):
    shutil.rmtree(run_copy / "store")
    assert havoc("evaluate", run_copy, "--exam-problems", "0", "--out", "scores.json").code == 0
    assert json.loads((here / "scores.json").read_text())["results"] == []


@pytest.mark.parametrize("content", [None, b"{ half", b"\xff\xfe"], ids=["missing", "cut short", "no text"])
def test_a_store_whose_manifest_is_damaged_is_named(content, havoc, run_copy):
    """Regression: it ended in a traceback."""
    manifest = run_copy / "store" / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    said = havoc("evaluate", run_copy, "--exam-problems", "0")
    assert said.code == 2
    assert said.message.startswith("DataError  ")
    assert "havoc data build" in said.message


def test_a_checkpoint_that_was_cut_off_while_it_was_replaced_is_measured(havoc, run_copy):
    """Regression: its config was looked for under the name that it did not have, which ended in a traceback."""
    folder = run_copy / "checkpoints"
    (folder / "checkpoint_step_6").rename(folder / "checkpoint_interrupted.old")
    assert havoc("evaluate", folder / "checkpoint_interrupted", "--exam-problems", "0").code == 0
