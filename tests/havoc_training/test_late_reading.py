"""A GPU works on a step while the host reads the one before; the same order of events, made on a CPU."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from havoc_core import checkpoint
from havoc_core.errors import TrainingError
from havoc_core.layers.block import run_in_order
from havoc_training.checkpointing import find_newest


class Spoilt:
    """A way through the blocks that gives infinities in one micro-batch."""

    def __init__(self, number):
        self.number, self.seen = number, 0

    def __call__(self, blocks, x, rotary, sight):
        if torch.is_grad_enabled():
            self.seen += 1
        out = run_in_order(blocks, x, rotary, sight)
        return out * float("inf") if self.seen == self.number else out


def late(trainer):
    trainer.step_settings = replace(trainer.step_settings, reads_late=True)
    return trainer


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def losses(run):
    lines = [json.loads(line) for line in (run.folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] != "summary"]


def test_reading_late_changes_no_bit_and_loses_no_line(new_run):
    first, second = new_run("first"), new_run("second")
    at_once, trainer = first.trainer(max_steps=5), late(second.trainer(max_steps=5))
    at_once.fit()
    trainer.fit()
    assert losses(second) == losses(first)
    assert len(losses(first)) > 5
    assert all(torch.equal(value, weights(at_once)[name]) for name, value in weights(trainer).items())


def test_nothing_is_updated_after_a_gradient_that_was_not_finite(run):
    """Regression: the step asked for before the bad news came was made, and the wreck called consistent."""
    trainer = late(run.trainer(max_steps=6, gradient_accumulation_steps=1))
    trainer.model.run_blocks_with(Spoilt(3))
    with pytest.raises(TrainingError, match="The weights are those before this step"):
        trainer.fit()
    assert trainer.state.step == 2
    saved = find_newest(run.checkpoints)
    assert saved.name == "checkpoint_error"
    assert checkpoint.load_json(saved, "training_state.json")["step"] == 2
    remembered = checkpoint.load_tensors(saved, "optimizer.pt")
    assert {float(kept["step"]) for kept in remembered.values()} == {2.0}
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
