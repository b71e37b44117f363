"""Fine-tuning: the weights and the tokenizer of one run, the text of another."""

from __future__ import annotations

import json
import shutil

import pytest
import torch


def load(folder, name="model.pt"):
    return torch.load(folder / name, weights_only=True)


@pytest.fixture
def base(here, finished):
    """A finished run."""
    shutil.copytree(finished, here / "base")
    return here / "base"


@pytest.fixture
def other_text(here, book):
    """A folder that has nothing in common with random words."""
    for subject in ("math", "general"):
        (here / "texts" / subject).mkdir(parents=True)
        for number in range(16):
            (here / "texts" / subject / f"{number}.txt").write_text(book(subject, size=6000, seed=str(number)))
    return "texts"


def test_weights_and_tokenizer_come_along_and_step_text_and_optimizer_are_new(here, havoc, config, base, other_text):
    source = base / "checkpoints" / "checkpoint_step_6"
    path = config("tuned", data={"data_dir": other_text})
    said = havoc("train", "--config", path, "--resume", source, "--fine-tune", "--max-steps", "2")
    assert said.code == 0, said.err
    assert "step 1/2" in said.out
    tuned = here / "tuned" / "checkpoints" / "checkpoint_step_2"
    state = json.loads((tuned / "training_state.json").read_text())
    assert state["step"] == 2
    assert (
        state["identity"]["tokenizer"]
        == json.loads((source / "training_state.json").read_text())["identity"]["tokenizer"]
    )
    assert set(json.loads((here / "tuned" / "store" / "manifest.json").read_text())["sources"]) == {"math", "general"}
    assert state["dummy_data"] is False
    before, after = load(source), load(tuned)
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 0.02, "two updates from where the other run ended, not from new weights"
    steps = [json.loads(line) for line in (here / "tuned" / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["kind"] == "train"] == [1, 2]


def test_a_tuned_run_goes_on_when_the_run_it_came_from_is_gone(here, havoc, config, base, other_text):
    source = base / "checkpoints" / "checkpoint_step_6"
    path = config("tuned", data={"data_dir": other_text})
    assert havoc("train", "--config", path, "--resume", source, "--fine-tune", "--max-steps", "3").code == 0
    shutil.rmtree(base)
    said = havoc("train", "--resume", "auto", "--run-dir", "tuned", "--max-steps", "5")
    assert said.code == 0, said.err
    assert (here / "tuned" / "checkpoints" / "checkpoint_step_5").is_dir()


def test_another_shape_is_refused_with_the_first_tensor_that_differs(here, havoc, config, base, other_text):
    source = base / "checkpoints" / "checkpoint_step_6"
    path = config("tuned", data={"data_dir": other_text}, model={"d_model": 64})
    said = havoc("train", "--config", path, "--resume", source, "--fine-tune")
    assert said.code == 1
    assert "is (" in said.message and "there and (" in said.message and "in this model." in said.message
    assert "Use the checkpoint's own model settings: leave --config out." in said.message
    # The remedy works.
    said = havoc(
        "train", "--resume", source, "--fine-tune", "--run-dir", "again", "--data.sources", "null",
        "--data.data-dir", other_text, "--max-steps", "1",
    )  # fmt: skip
    assert said.code == 0, said.err
