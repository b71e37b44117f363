"""The loop: events in order, files on disk, stopping, failing."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import dataclass, field

import pytest
import torch

from havoc_core import checkpoint
from havoc_core.errors import CheckpointError, ConfigError, PlanError, TrainingError
from havoc_training.checkpointing import find_newest


@dataclass
class Witness:
    """Writes down what it was told; may poison a weight after a step."""

    poison: object = None
    at: int = -1
    heard: list = field(default_factory=list)

    def started(self, facts):
        self.heard.append(("started", facts.first_step))

    def stepped(self, record):
        self.heard.append(("stepped", record.step))
        if record.step == self.at:
            with torch.no_grad():
                self.poison.fill_(math.nan)

    def validated(self, record):
        self.heard.append(("validated", record.step))

    def summarized(self, summary):
        self.heard.append(("summarized", summary.first_step, summary.step))

    def closed(self):
        self.heard.append(("closed",))


def lines(run):
    return [json.loads(line) for line in (run.folder / "logs" / "metrics.jsonl").read_text().splitlines()]


def state_of(run, name):
    return json.loads((run.checkpoints / name / "training_state.json").read_text())


def test_a_run_goes_to_its_last_step_and_leaves_what_was_promised(run):
    trainer = run.trainer()
    witness = Witness()
    trainer.observers = [*trainer.observers, witness]
    result = trainer.fit()
    assert (result.state.step, result.stopped_by) == (6, None)
    assert result.checkpoint == run.checkpoints / "checkpoint_step_6"
    assert run.names == {"checkpoint_step_3", "checkpoint_step_6", "checkpoint_best"}
    assert witness.heard == [
        ("started", 0), ("stepped", 1), ("stepped", 2), ("stepped", 3), ("validated", 3), ("stepped", 4), ("stepped", 5),
        ("stepped", 6), ("validated", 6), ("summarized", 0, 6), ("closed",),
    ]  # fmt: skip
    steps = [line for line in lines(run) if line["kind"] == "train"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert all(line["tokens"] == 4 * 64 or line["tokens"] < 4 * 64 for line in steps)
    assert steps[0]["learning_rate"] == pytest.approx(0.5e-3)  # (0 + 1) / 2 of the peak
    assert steps[1]["learning_rate"] == pytest.approx(1e-3)
    assert steps[2]["learning_rate"] == pytest.approx(1e-3)  # (2 - 2) / (6 - 2) of the way down
    assert steps[4]["learning_rate"] == pytest.approx(3e-5 + (1e-3 - 3e-5) / 2)  # half way of a cosine


def test_a_checkpoint_holds_what_the_founding_document_lists(run):
    run.trainer(max_steps=3).fit()
    folder = run.checkpoints / "checkpoint_step_3"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "model.pt", "optimizer.pt", "scheduler.pt", "random_states.pt", "training_state.json", "config.json", "manifest.json",
        "tokenizer/tokenizer.json", "tokenizer/special_tokens.json", "tokenizer/chat_template.jinja",
    } <= files  # fmt: skip
    assert "scaler.pt" not in files
    checkpoint.verify(folder)
    model = checkpoint.load_tensors(folder, "model.pt")
    assert all(tensor.untyped_storage().nbytes() == tensor.numel() * 4 for tensor in model.values())


def test_training_state_says_step_epoch_and_best_validation_loss(run):
    """Regression: the epoch was the number of rows."""
    trainer = run.trainer(max_steps=3)
    trainer.fit()
    state = state_of(run, "checkpoint_step_3")
    assert (state["step"], state["global_step"], state["next_slot"]) == (3, 3, 12)
    assert state["epoch"] == 12 / trainer.loader.rows_per_epoch < 1
    best = min(line["loss"] for line in lines(run) if line["kind"] == "validation")
    assert state["best_val_loss"] == state["best_loss"] == best
    assert state["dummy_data"] is True
    assert state["resolved"]["rows_per_step"] == 4


def test_the_chain_hash_is_that_of_the_rows(run):
    from havoc_data.loading.ledger import EMPTY_CHAIN, batch_hash, extend_chain

    trainer = run.trainer(max_steps=3)
    chain = EMPTY_CHAIN
    hashes = []
    for first in (0, 4, 8):
        hashes.append(batch_hash([row.hash() for row in trainer.loader.rows(range(first, first + 4))]))
        chain = extend_chain(chain, hashes[-1])
    assert trainer.fit().state.chain == chain
    assert [line["batch_hash"] for line in lines(run) if line["kind"] == "train"] == [each.hex() for each in hashes]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves_interrupted(run, number):
    trainer = run.trainer()

    class Stop(Witness):
        def stepped(self, record):
            super().stepped(record)
            if record.step == 2:
                signal.raise_signal(number)

    trainer.observers = [*trainer.observers, Stop()]
    result = trainer.fit()
    assert (result.state.step, result.stopped_by) == (2, number)
    assert result.checkpoint == run.checkpoints / "checkpoint_interrupted"
    assert state_of(run, "checkpoint_interrupted")["step"] == 2
    assert run.names == {"checkpoint_interrupted"}
    checkpoint.verify(result.checkpoint)


def test_fit_can_be_called_again_after_a_stop(run):
    trainer = run.stopped_at(2)
    trainer.observers = trainer.observers[:-1]
    assert trainer.fit().state.step == 6


def test_an_error_saves_checkpoint_error_and_closes_the_observers(run):
    trainer = run.trainer()
    witness = Witness()

    class Broken(Witness):
        def stepped(self, record):
            if record.step == 4:
                raise ZeroDivisionError("an observer of somebody")

    trainer.observers = [*trainer.observers, witness, Broken()]
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert witness.heard[-1] == ("closed",)
    state = state_of(run, "checkpoint_error")
    assert (state["step"], state["consistent"]) == (4, False)
    assert find_newest(run.checkpoints).name == "checkpoint_step_3"


def test_divergence_saves_checkpoint_error_which_is_not_gone_on_from(run):
    trainer = run.trainer()
    trainer.observers = [*trainer.observers, Witness(poison=trainer.model.model.norm.weight, at=4)]
    with pytest.raises(TrainingError, match="training has diverged"):
        trainer.fit()
    assert state_of(run, "checkpoint_error")["consistent"] is False  # its weights are not finite
    assert find_newest(run.checkpoints).name == "checkpoint_step_3"


def test_a_disk_that_takes_no_more_ends_the_run_with_a_checkpoint_error(run):
    trainer = run.trainer()
    run.checkpoints.rmdir()
    run.checkpoints.write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        trainer.fit()


def test_only_the_last_step_checkpoints_stay_and_best_and_interrupted_always(run):
    run.stopped_at(5, save_every_n_steps=1, keep_last_n_checkpoints=2)
    assert run.names == {"checkpoint_step_4", "checkpoint_step_5", "checkpoint_best", "checkpoint_interrupted"}
    run.resumed(save_every_n_steps=1, keep_last_n_checkpoints=2).fit()
    assert run.names == {"checkpoint_step_5", "checkpoint_step_6", "checkpoint_best", "checkpoint_interrupted"}


def test_the_checkpoint_just_written_stays_though_others_have_a_higher_step(run):
    """Regression: going on from an early checkpoint, every new one was deleted at once in favour of the later old ones."""
    run.trainer(save_every_n_steps=1, max_steps=6, keep_last_n_checkpoints=9).fit()
    trainer = run.resumed("checkpoint_step_1", save_every_n_steps=2, keep_last_n_checkpoints=2)
    trainer.observers = [*trainer.observers, Kept(run)]
    trainer.fit()
    kept = {name for name in run.names if "abandoned" not in name}
    assert kept == {"checkpoint_step_4", "checkpoint_step_6", "checkpoint_best"}


@dataclass
class Kept(Witness):
    """Sees that the checkpoint of step 2 is there in step 3."""

    run: object = None

    def __init__(self, run):
        super().__init__()
        self.run = run

    def stepped(self, record):
        if record.step == 3:
            assert "checkpoint_step_2" in self.run.names
            assert len([name for name in self.run.names if name.startswith("checkpoint_step") and "." not in name]) == 2


def test_best_is_the_checkpoint_of_the_lowest_validation_loss(run):
    run.trainer(max_steps=6, eval_every_n_steps=2).fit()
    validations = {line["step"]: line["loss"] for line in lines(run) if line["kind"] == "validation"}
    state = state_of(run, "checkpoint_best")
    assert validations[state["step"]] == min(validations.values()) == state["best_loss"]


@pytest.mark.parametrize("name", ["checkpoint_step_3", "checkpoint_interrupted", "checkpoint_best", "checkpoint_error"])
def test_a_fresh_start_on_a_folder_with_checkpoints_is_refused(run, name):
    """Regression: only step checkpoints were looked for."""
    run.trainer(max_steps=3).fit()
    (run.checkpoints / "checkpoint_step_3").rename(run.folder / "kept")
    for path in run.checkpoints.iterdir():
        path.rename(run.folder / path.name)
    (run.folder / "kept").rename(run.checkpoints / name)
    with pytest.raises(ConfigError, match="checkpoint_dir: .* already holds checkpoints of a run.") as caught:
        run.trainer()
    assert "--resume auto" in caught.value.remedy
    assert "--run-dir" in caught.value.remedy


def test_auto_with_nothing_there_starts_fresh(run):
    assert run.resumed().state.step == 0


def test_auto_after_an_error_before_the_first_save_starts_fresh(run):
    trainer = run.trainer()

    class Broken(Witness):
        def stepped(self, record):
            raise ZeroDivisionError

    trainer.observers = [Broken()]
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert run.names == {"checkpoint_error"}
    assert run.resumed().state.step == 0


def test_checkpoints_that_cannot_be_written_to_are_refused_before_training(run):
    run.checkpoints.write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written to") as caught:
        run.trainer()
    assert "checkpoint_dir" in caught.value.remedy


def test_a_run_that_cannot_fit_is_refused_before_anything_is_built(run):
    with pytest.raises(
        PlanError,
        match=r"memory: this run needs [\d,.]+ GiB of memory; the machine has [\d,.]+ GiB available.* that fits is '\w+'",
    ):
        run.trainer(model={"num_layers": 100_000, "d_model": 4096})
    assert not run.checkpoints.exists()


def test_float16_keeps_its_scale_in_scaler_pt(run):
    trainer = run.trainer(use_amp=True, amp_dtype="float16", max_steps=3)
    trainer.fit()
    folder = run.checkpoints / "checkpoint_step_3"
    saved = checkpoint.load_tensors(folder, "scaler.pt")
    assert (saved["scale"], saved["good_steps"]) == (trainer.state.scale.scale, trainer.state.scale.good_steps)
    resumed = run.resumed(use_amp=True, amp_dtype="float16", max_steps=5)
    assert resumed.state.scale == trainer.state.scale
    assert resumed.fit().state.step == 5


def test_float16_that_can_never_go_well_ends_in_an_error(run):
    trainer = run.trainer(use_amp=True, amp_dtype="float16", max_steps=100, eval_every_n_steps=1000)
    with torch.no_grad():
        trainer.model.model.norm.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match="diverged"):
        trainer.fit()
    assert trainer.state.step == 16  # 65,536 was halved to 1
    assert [line["overflow"] for line in lines(run)] == [True] * 16


def test_a_step_that_learns_lowers_the_loss(run):
    run.trainer(max_steps=40, learning_rate=5e-3, eval_every_n_steps=20, save_every_n_steps=100).fit()
    losses = [line["loss"] for line in lines(run) if line["kind"] == "train"]
    assert losses[0] == pytest.approx(math.log(520), rel=0.01)
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5


def test_validation_rows_are_shared_by_the_mixture(run):
    trainer = run.trainer(eval_samples=10)  # 10 x 2 rows
    rows = {group: sum(len(b.inputs) for b in batches) for group, batches in trainer.held_out.batches.items()}
    assert rows == {"domain": 12, "general": 6, "dialog": 2}


def test_tensorboard_and_metrics_are_written_by_a_run(run):
    run.trainer(tracking={"trackers": ["tensorboard"], "run_name": "mine"}, max_steps=2).fit()
    assert list((run.folder / "logs" / "tensorboard" / "mine").glob("events.*"))


def test_what_begins_is_described(run):
    description = run.trainer(warmup_steps=2000).facts.description
    assert description.startswith("DUMMY DATA")
    assert "6 steps of 4 rows x 64 tokens" in description
    assert "The warm-up of 2000 steps was cut to 1" in description
    assert "Epochs: domain" in description or "Epochs: " in description
