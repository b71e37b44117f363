"""`havoc run`: what is done is not done again, what has changed is."""

from __future__ import annotations

import hashlib
import json

import pytest


def contents(folder):
    """Path -> (time of the last change, hash) of every file."""
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file() and path.name != "havoc.lock"
    }


def stage_lines(said):
    return {
        line.split()[0]: line
        for line in said.out.splitlines()
        if line.startswith(("data ", "tokenizer ", "store ", "train ", "evaluate ", "report ")) and "…" not in line
    }


def test_every_stage_leaves_its_result(finished_run):
    for part in (
        "corpus",
        "tokenizer",
        "store",
        "checkpoints/checkpoint_step_6",
        "checkpoints/checkpoint_best",
        "logs",
    ):
        assert (finished_run / part).is_dir(), part
    for part in ("train.log", "metrics.jsonl", "evaluation.json", "samples.json", "report.html"):
        assert (finished_run / "logs" / part).stat().st_size > 0, part
    stages = json.loads((finished_run / "stages.json").read_text())
    assert list(stages) == sorted(["data", "tokenizer", "store", "train", "evaluate", "report"])
    assert all(entry["finished"] and entry["seconds"] >= 0 for entry in stages.values())


def test_a_second_call_redoes_nothing(havoc, config, run_copy):
    path = config()
    assert havoc("run", "--config", path).code == 0  # the folder has moved, so the config in the report's key has too
    before = contents(run_copy)
    said = havoc("run", "--config", path)
    assert said.code == 0
    assert contents(run_copy) == before
    assert all(line.endswith("done before") for line in stage_lines(said).values())
    assert list(stage_lines(said)) == ["data", "tokenizer", "store", "train", "evaluate", "report"]
    assert "\nA sample:\n    abc" in said.out
    assert f"Report: {run_copy}/logs/report.html" in said.out
    assert f"Talk to it: havoc chat {run_copy}" in said.out


def test_more_steps_are_trained_on_top_of_those_that_were_made(havoc, config, run_copy):
    said = havoc("run", "--config", config(), "--max-steps", "8")
    assert said.code == 0, said.err
    lines = stage_lines(said)
    assert all(lines[name].endswith("done before") for name in ("data", "tokenizer", "store"))
    assert not any(lines[name].endswith("done before") for name in ("train", "evaluate", "report"))
    assert "checkpoint_step_6." in said.out
    steps = [json.loads(line) for line in (run_copy / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["kind"] == "train"] == list(range(1, 9))


def test_a_lost_result_is_made_again_and_only_that(havoc, config, run_copy):
    path = config()
    assert havoc("run", "--config", path).code == 0
    report = run_copy / "logs" / "report.html"
    report.unlink()
    before = contents(run_copy / "checkpoints")
    said = havoc("run", "--config", path)
    assert said.code == 0
    assert report.stat().st_size > 0
    assert [name for name, line in stage_lines(said).items() if not line.endswith("done before")] == ["report"]
    assert contents(run_copy / "checkpoints") == before


def test_other_questions_are_asked_of_the_same_weights(havoc, config, run_copy):
    before = contents(run_copy / "checkpoints")
    said = havoc("run", "--config", config(), "--evaluation.sample-prompts", '["bcd", "e"]')
    assert said.code == 0
    assert [row["prompt"] for row in json.loads((run_copy / "logs" / "samples.json").read_text())] == ["bcd", "e"]
    assert contents(run_copy / "checkpoints") == before
    assert stage_lines(said)["train"].endswith("done before")


@pytest.mark.parametrize("settings", [{"resume_from_checkpoint": "somewhere"}, {}], ids=["file", "flag"])
def test_a_checkpoint_to_go_on_from_is_refused_because_it_finds_its_own(settings, havoc, config, here):
    flags = [] if settings else ["--resume-from-checkpoint", "somewhere"]
    said = havoc("run", "--config", config(**settings), *flags)
    assert said.code == 2
    assert (
        said.message == "ConfigError  resume_from_checkpoint: `havoc run` always goes on by itself. "
        "Leave it out, or use havoc train."
    )
    assert not (here / "run").exists()


def test_what_does_not_fit_is_said_before_any_work_is_done(havoc, config, here):
    said = havoc("run", "--config", config(model={"d_model": 400_000_000}))
    assert said.code == 3
    assert "PlanError  memory: this run needs" in said.message
    assert not (here / "run" / "corpus").exists()


def test_damaged_notes_about_the_stages_cost_time_and_nothing_else(havoc, config, run_copy):
    (run_copy / "stages.json").write_text("{ half")
    before = contents(run_copy / "checkpoints") | contents(run_copy / "store")
    said = havoc("run", "--config", config())
    assert said.code == 0, said.err
    assert contents(run_copy / "checkpoints") | contents(run_copy / "store") == before
    assert json.loads((run_copy / "stages.json").read_text())["train"]["finished"]
