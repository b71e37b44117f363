"""Two processes learn what one learns."""

from __future__ import annotations

import json
import socket

import pytest
import torch

from havoc_core import checkpoint
from havoc_core.config_files import to_json

pytestmark = pytest.mark.slow

RANK = """
import os
from pathlib import Path
from havoc_core.config_files import from_json
from havoc_training.build import build_trainer
from havoc_training.continuation import find_checkpoint

os.environ.update({environment!r})
config = from_json(Path({path!r}).read_text(), where="config")
trainer = build_trainer(config, saved=find_checkpoint(config))
trainer.fit()
trainer.world.close()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def run_ranks(forked):
    """Train on several ranks, each a process of its own."""

    def start(run, number, **settings):
        config = run.folder / "config.json"
        config.write_text(to_json(run.config(**settings)))
        shared = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        children = [
            forked(RANK.format(path=str(config), environment={**shared, "RANK": str(rank)})) for rank in range(number)
        ]
        for process, _ in children:
            process.join(150)
            process.kill()
        said = []
        for _, out in children:
            said.append(out.read())
            out.close()
        assert [process.exitcode for process, _ in children] == [0] * number, said

    return start


def steps(run):
    lines = [json.loads(line) for line in (run.folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"], [line for line in lines if line["kind"] == "validation"]


def test_two_ranks_see_the_same_rows_and_learn_the_same_to_rounding(new_run, run_ranks):
    one, two = new_run("one"), new_run("two")
    one.trainer(max_steps=4, batch_size=2, gradient_accumulation_steps=4).fit()
    run_ranks(two, 2, max_steps=4, batch_size=2, gradient_accumulation_steps=2)
    (alone, alone_valid), (together, together_valid) = steps(one), steps(two)
    assert [line["batch_hash"] for line in together] == [line["batch_hash"] for line in alone]
    assert [line["tokens"] for line in together] == [line["tokens"] for line in alone]
    for a, b in zip(alone, together, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
    assert [line["loss"] for line in together_valid] == pytest.approx([line["loss"] for line in alone_valid], rel=1e-5)
    states = [json.loads((r.checkpoints / "checkpoint_step_4" / "training_state.json").read_text()) for r in (one, two)]
    assert states[0]["chain"] == states[1]["chain"]


def test_a_run_of_two_ranks_is_gone_on_with_by_one(new_run, run_ranks):
    run = new_run("two")
    run_ranks(run, 2, max_steps=3, batch_size=2, gradient_accumulation_steps=2)
    trainer = run.resumed(max_steps=5)
    assert trainer.plan.rows_per_step == 8
    assert trainer.fit().state.next_slot == 40
    model = checkpoint.load_tensors(run.checkpoints / "checkpoint_step_5", "model.pt")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.values())
