"""A folder of text that grows under a run."""

from __future__ import annotations

import json
import signal

import pytest
import torch


@pytest.fixture
def text(here, book):
    """Puts files into the folder of a group."""

    def add(first, last):
        folder = here / "data" / "math"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, last):
            (folder / f"{number:03}.txt").write_text(book("math", size=6000, seed=str(number)))

    return add


def state(run, step):
    folder = run / "checkpoints" / f"checkpoint_step_{step}"
    return json.loads((folder / "training_state.json").read_text())


def weights(run, step):
    return torch.load(run / "checkpoints" / f"checkpoint_step_{step}" / "model.pt", weights_only=True)


def test_text_that_is_added_is_refused_or_learnt_from_and_the_tokenizer_stays(here, havoc, config, text, contents):
    text(0, 24)
    path = config(max_steps=4, save_every_n_steps=4, eval_every_n_steps=4)
    assert havoc("train", "--config", path).code == 0
    tokenizer = contents(here / "run" / "tokenizer")
    first = state(here / "run", 4)
    text(24, 30)

    said = havoc("train", "--config", path, "--resume", "auto", "--max-steps", 8)
    assert said.code == 1
    assert said.message.startswith("CheckpointError  data: the text or its settings have changed since the checkpoint.")
    assert "--data.growing true" in said.message
    assert state(here / "run", 4) == first

    said = havoc("train", "--config", path, "--resume", "auto", "--max-steps", 8, "--data.growing", "true")
    assert said.code == 0, said.err
    assert "The text has changed: from row 8 on the run learns from store " in said.out
    stages = state(here / "run", 8)["resolved"]["data_stages"]
    assert [each["from_slot"] for each in stages] == [0, 8]
    assert stages[0] == first["resolved"]["data_stages"][0]
    assert stages[1]["store_id"] != stages[0]["store_id"]
    assert contents(here / "run" / "tokenizer") == tokenizer
    lines = [json.loads(line) for line in (here / "run" / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))


@pytest.mark.slow
def test_killed_in_its_second_stage_a_run_ends_with_the_bits_of_one_that_was_left_alone(
    here, havoc, config, text, process
):
    text(0, 24)
    path = config(max_steps=4, save_every_n_steps=4, eval_every_n_steps=40)
    flags = ["--resume", "auto", "--max-steps", "60", "--data.growing", "true"]
    for name in ("whole", "run"):
        assert havoc("train", "--config", path, "--run-dir", name).code == 0
    text(24, 30)
    assert havoc("train", "--config", path, "--run-dir", "whole", *flags).code == 0
    killed = process("train", "--config", path, "--run-dir", "run", *flags)
    for line in killed.stdout:
        if line.strip().startswith("step ") and int(line.split()[1].split("/")[0]) >= 22:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert killed.returncode == -signal.SIGKILL
    assert havoc("train", "--config", path, "--run-dir", "run", *flags).code == 0
    one, other = state(here / "run", 60), state(here / "whole", 60)
    assert (one["chain"], one["resolved"]["data_stages"]) == (other["chain"], other["resolved"]["data_stages"])
    assert len(one["resolved"]["data_stages"]) == 2
    assert all(
        torch.equal(values, weights(here / "whole", 60)[name]) for name, values in weights(here / "run", 60).items()
    )
