"""Memory that runs out in a step: fewer rows at a time, the same step, and a run that says so and goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from havoc_core import checkpoint
from havoc_core.config_files import to_json
from havoc_core.distributed import World
from havoc_core.errors import PlanError
from havoc_core.layers.block import run_in_order
from havoc_training.checkpointing import find_newest
from havoc_training.step import HalfUpdateError

FOUR_ROWS = {"batch_size": 4, "gradient_accumulation_steps": 1, "eval_every_n_steps": 100, "save_every_n_steps": 100}
TWO_ROWS = {**FOUR_ROWS, "batch_size": 2, "gradient_accumulation_steps": 2, "eval_samples": 12}
"""The same steps, and as many held-out rows."""


class Narrow:
    """A way through the blocks on which no more than some rows fit."""

    def __init__(self, most, *, error=None):
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has")
        self.asked = []

    def __call__(self, blocks, x, rotary, sight):
        self.asked.append(len(x))
        if len(x) > self.most and torch.is_grad_enabled():
            raise self.error
        return run_in_order(blocks, x, rotary, sight)


class From:
    """An observer after whose step no more than some rows fit."""

    def __init__(self, trainer, step, most):
        self.trainer, self.step, self.most = trainer, step, most

    def started(self, facts): ...

    def validated(self, record): ...

    def summarized(self, summary): ...

    def closed(self): ...

    def stepped(self, record):
        if record.step == self.step:
            self.trainer.model.run_blocks_with(Narrow(self.most))


class FailingUpdate:
    """An updater that runs out of memory when some weights have moved."""

    def __init__(self, inner, *, at):
        self.inner, self.at, self.updates = inner, at, 0

    gradients = property(lambda self: self.inner.gradients)
    leaves_out = property(lambda self: self.inner.leaves_out)

    def param_groups(self):
        return self.inner.param_groups()

    def begin(self):
        self.inner.begin()

    def update(self, factor, *, left_out=None):
        self.updates += 1
        if self.updates == self.at:
            self.inner.update(factor)
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"
            )
        self.inner.update(factor)

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)


def updates(run):
    lines = [json.loads(line) for line in (run.folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    keys = ("step", "loss", "learning_rate", "grad_norm", "tokens", "batch_hash", "slots")
    return [{key: line[key] for key in keys} for line in lines if line["kind"] == "train"]


def resolved(run, name):
    return json.loads((run.checkpoints / name / "training_state.json").read_text())["resolved"]


def weights(run, name):
    return checkpoint.load_tensors(run.checkpoints / name, "model.pt")


def test_a_step_that_does_not_fit_is_made_with_half_the_rows_at_a_time(run, said):
    trainer = run.trainer(**FOUR_ROWS)
    narrow = Narrow(2)
    trainer.model.run_blocks_with(narrow)
    result = trainer.fit()
    assert (result.state.step, result.state.next_slot) == (6, 6 * 4), "the rows of a step stay the same"
    assert (trainer.plan.rows_per_step, trainer.plan.micro_batch_size, trainer.plan.micro_batches) == (4, 2, 2)
    assert narrow.asked[:5] == [4, 2, 2, 2, 2], "only the first step tries the whole"
    assert [line for line in said if "Out of memory" in line] == [
        "Out of memory at step 1 (CUDA out of memory. Tried to allocate 2.00 GiB.). Going on with 2 rows at a time instead of "
        "4; the tokens of a step stay the same, the last bits do not."
    ]


def test_from_then_on_losses_rows_and_weights_are_those_of_a_run_with_the_smaller_micro_batch(new_run):
    halved, small = new_run("halved"), new_run("small")
    trainer = halved.trainer(**FOUR_ROWS)
    trainer.model.run_blocks_with(Narrow(2))
    first = trainer.fit()
    second = small.trainer(**TWO_ROWS).fit()
    assert first.state.chain == second.state.chain
    assert updates(halved) == updates(small)
    one, other = weights(halved, "checkpoint_step_6"), weights(small, "checkpoint_step_6")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_in_the_middle_of_a_run_the_steps_before_are_untouched(new_run):
    """As if the run had been stopped there and gone on with by hand, with the smaller micro-batch."""
    halved, stopped = new_run("halved"), new_run("stopped")
    trainer = halved.trainer(**FOUR_ROWS)
    trainer.observers = [*trainer.observers, From(trainer, 3, 2)]
    first = trainer.fit()
    stopped.stopped_at(3, **FOUR_ROWS)
    second = stopped.resumed(**TWO_ROWS).fit()
    assert first.state.chain == second.state.chain
    assert updates(halved) == updates(stopped)
    one, other = weights(halved, "checkpoint_step_6"), weights(stopped, "checkpoint_step_6")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resolved(halved, "checkpoint_step_6")["halvings"] == [{"step": 4, "micro_batch_size": 2}]


def test_the_next_checkpoint_says_so_and_a_resume_starts_with_what_fits(run):
    trainer = run.trainer(**FOUR_ROWS, max_steps=3)
    assert trainer.plan.micro_batch_size == 4
    trainer.model.run_blocks_with(Narrow(2))
    trainer.fit()
    kept = resolved(run, "checkpoint_step_3")
    assert (kept["micro_batch_size"], kept["rows_per_step"]) == (2, 4)
    assert kept["halvings"] == [{"step": 1, "micro_batch_size": 2}]
    again = run.resumed(**FOUR_ROWS, max_steps=5)
    assert (again.plan.micro_batch_size, again.plan.micro_batches) == (2, 2)
    again.model.run_blocks_with(Narrow(1))
    again.fit()
    kept = resolved(run, "checkpoint_step_5")
    assert kept["micro_batch_size"] == 1
    assert kept["halvings"] == [{"step": 1, "micro_batch_size": 2}, {"step": 4, "micro_batch_size": 1}]


def test_settings_that_ask_for_more_rows_again_are_followed(run):
    trainer = run.trainer(**FOUR_ROWS, max_steps=3)
    trainer.model.run_blocks_with(Narrow(2))
    trainer.fit()
    again = run.resumed(**{**FOUR_ROWS, "gradient_accumulation_steps": 2, "rows_per_step": 4}, max_steps=5)
    assert again.plan.micro_batch_size == 4


def test_from_then_on_held_out_rows_go_through_fewer_at_a_time_too(new_run):
    """Regression: after a halving, as many rows as before without a backward pass could need more than was there."""
    run, small = new_run("halved"), new_run("small")
    trainer = run.trainer(**FOUR_ROWS, max_steps=2, eval_samples=12)
    narrow = Narrow(2)
    trainer.model.run_blocks_with(narrow)
    rows = {
        group: [row for batch in batches for row in batch.inputs] for group, batches in trainer.held_out.batches.items()
    }
    trainer.fit()
    assert max(narrow.asked[1:]) == 2
    after = trainer.held_out.batches
    assert all(
        len(batch.inputs) == len(batch.labels) == len(batch.lengths) for each in after.values() for batch in each
    )
    for group, batches in after.items():
        assert np.array_equal(np.concatenate([batch.inputs for batch in batches]), rows[group])
    small.trainer(**{**TWO_ROWS, "eval_samples": 24}, max_steps=2).fit()
    scores = [
        [json.loads(line) for line in (each.folder / "logs" / "metrics.jsonl").read_text().splitlines()]
        for each in (run, small)
    ]
    one, other = ([line["loss"] for line in lines if line["kind"] == "validation"] for lines in scores)
    assert one == other


def test_it_is_halved_as_often_as_needed_within_one_step(run):
    trainer = run.trainer(**FOUR_ROWS, max_steps=2)
    trainer.model.run_blocks_with(Narrow(1))
    assert trainer.fit().state.next_slot == 8
    halvings = resolved(run, "checkpoint_step_2")["halvings"]
    assert halvings == [{"step": 1, "micro_batch_size": 2}, {"step": 1, "micro_batch_size": 1}]


def test_a_backward_pass_that_runs_out_leaves_nothing_behind(new_run):
    """Gradients of the attempt that failed were summed already, in its first micro-batch."""

    class SecondMicroBatch(Narrow):
        def __call__(self, blocks, x, rotary, sight):
            self.asked.append(len(x))
            if len(self.asked) == 2:
                raise self.error
            return run_in_order(blocks, x, rotary, sight)

    halved, small = new_run("halved"), new_run("small")
    four = {**FOUR_ROWS, "batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 2}
    trainer = halved.trainer(**four)
    trainer.model.run_blocks_with(SecondMicroBatch(2))
    trainer.fit()
    small.trainer(**{**four, "batch_size": 1, "gradient_accumulation_steps": 4, "eval_samples": 12}).fit()
    assert updates(halved) == updates(small)


def test_one_row_that_does_not_fit_is_a_plan_that_cannot_work(run):
    trainer = run.trainer(**FOUR_ROWS)
    trainer.model.run_blocks_with(Narrow(0))
    with pytest.raises(PlanError) as caught:
        trainer.fit()
    error = caught.value
    assert (error.where, error.exit_code) == ("memory", 3)
    assert error.found == (
        "ran out at a micro-batch of 1 row, which cannot be halved (CUDA out of memory. Tried to allocate 2.00 GiB.)."
    )
    assert error.remedy == (
        "Use a preset that needs less (`havoc plan` shows them), `recompute: full`, or shorter rows."
    )
    # Nothing was updated: what was saved can be gone on from with a remedy.
    assert find_newest(run.checkpoints) == run.checkpoints / "checkpoint_error"
    again = run.resumed(**FOUR_ROWS, recompute="full")
    assert (again.state.step, again.plan.micro_batch_size) == (0, 4)


def test_where_ranks_share_a_step_one_of_them_cannot_halve_alone(run):
    trainer = run.trainer(**FOUR_ROWS)
    trainer.step_settings = replace(trainer.step_settings, world=World(rank=0, size=2))
    with pytest.raises(PlanError) as caught:
        trainer._halve("why")
    assert str(caught.value) == (
        "memory: ran out at a micro-batch of 4 rows (why), and devices that train together do not halve it by themselves. "
        "Lower batch_size and raise gradient_accumulation_steps by the same factor."
    )


def test_an_error_that_is_no_lack_of_memory_is_not_answered_with_fewer_rows(run):
    trainer = run.trainer(**FOUR_ROWS)
    narrow = Narrow(2, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    trainer.model.run_blocks_with(narrow)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trainer.fit()
    assert narrow.asked == [4]


def test_an_update_that_was_cut_in_two_is_not_tried_again(run):
    """Regression: it was repeated with half the rows, on top of the weights that had moved already."""
    trainer = run.trainer(**FOUR_ROWS, max_steps=5)
    failing = FailingUpdate(trainer.optimizer, at=2)
    trainer.optimizer = failing
    with pytest.raises(PlanError) as caught:
        trainer.fit()
    error = caught.value
    assert (error.where, error.exit_code) == ("memory", 3)
    assert error.found.startswith(
        "ran out while the weights were updated, which fewer rows at a time do not help ([enforce fail at alloc_cpu.cpp:127]"
    )
    assert error.remedy == "Use a preset that needs less (`havoc plan` shows them), and go on from the last checkpoint."
    assert isinstance(error.__cause__, HalfUpdateError)
    assert failing.updates == 2
    state = json.loads((run.checkpoints / "checkpoint_error" / "training_state.json").read_text())
    assert state["consistent"] is False
    assert find_newest(run.checkpoints) is None


LIMITED = """
import re, resource, sys
from pathlib import Path
from havoc_core.config_files import from_json
from havoc_core.log import to_screen
from havoc_training.build import build_trainer

to_screen()
trainer = build_trainer(from_json(Path(sys.argv[1]).read_text(), where="config"))
size = int(re.search(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
limit = size + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
result = trainer.fit()
print("ended at step", result.state.step, "slot", result.state.next_slot, "with", trainer.plan.micro_batch_size, "rows")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the system for a limit that only Linux keeps")
def test_a_machine_that_really_has_no_more_memory_goes_on_with_fewer_rows(run):
    """64 rows keep some 400 MB for the backward pass; the process may take 160 MB more than it has when it begins."""
    config = run.folder / "config.json"
    wide = {
        "batch_size": 64, "gradient_accumulation_steps": 1, "max_steps": 2, "eval_samples": 1, "eval_every_n_steps": 100,
        "save_every_n_steps": 100, "model": {"mlp": {"hidden_dim": 2048}},
    }  # fmt: skip
    config.write_text(to_json(run.config(**wide)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    child = subprocess.run(
        [sys.executable, "-c", LIMITED, str(config), "160"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert child.returncode == 0, child.stderr
    ended = re.search(r"ended at step 2 slot 128 with (\d+) rows", child.stdout)
    assert ended, child.stdout
    assert int(ended[1]) < 64
    assert "can't allocate memory" in child.stdout + child.stderr
    assert resolved(run, "checkpoint_step_2")["micro_batch_size"] == int(ended[1])
