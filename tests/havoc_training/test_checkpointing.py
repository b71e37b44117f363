"""When to save, what to keep, which one to go on from."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from havoc_core import checkpoint
from havoc_core.config import TrainingConfig
from havoc_core.errors import CheckpointError, ConfigError
from havoc_core.tensor_file import TensorSource
from havoc_training.checkpointing import (
    CheckpointKeeper,
    Identity,
    SavedRun,
    find_newest,
    random_states,
    set_random_states,
)
from havoc_training.state import TrainState

WHO = {"store_id": "s" * 64, "plan_id": "p" * 32, "tokenizer": "t" * 32, "seed": 42, "row_length": 64,
       "model": {"d_model": 32, "size": "nano", "dropout": 0.0, "attention": {"num_heads": 2}}}  # fmt: skip


def write(folder, *, step, **state):
    with checkpoint.writing(folder) as inside:
        checkpoint.save_json(inside / "training_state.json", {"step": step, "consistent": True, **state})
        (inside / "config.json").write_text("{}")
        (inside / "model.pt").write_bytes(b"")
    return folder


def damage(folder, name="training_state.json"):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-3] + b"x" + content[-2:])


def test_the_same_run_has_no_differences():
    assert Identity(**WHO).differences(json.loads(json.dumps(WHO))) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"store_id": "x" * 64}, "data (token store) is xxxxxxxxxxxx…, was ssssssssssss…"),
        ({"plan_id": "x" * 32}, "data mixture is"),
        ({"tokenizer": "x" * 32}, "tokenizer is"),
        ({"seed": 7}, "seed is 7, was 42"),
        ({"row_length": 128}, "data.max_sequence_length is 128, was 64"),
        ({"model": {**WHO["model"], "d_model": 64}}, "model.d_model is 64, was 32"),
        ({"model": {**WHO["model"], "attention": {"num_heads": 4}}}, "model.attention.num_heads is 4, was 2"),
    ],
)
def test_what_may_not_change_is_named_with_both_values(change, says):
    found = Identity(**{**WHO, **change}).differences(WHO)
    assert len(found) == 1
    assert found[0].startswith(says)


def test_a_name_and_dropout_are_no_part_of_a_shape():
    assert Identity(**{**WHO, "model": {**WHO["model"], "size": "1b", "dropout": 0.1}}).differences(WHO) == []


def test_the_newest_is_the_highest_step_among_step_and_interrupted(tmp_path):
    assert find_newest(tmp_path) is None
    assert find_newest(tmp_path / "nowhere") is None
    write(tmp_path / "checkpoint_step_9", step=9)
    newest = write(tmp_path / "checkpoint_step_10", step=10)
    write(tmp_path / "checkpoint_best", step=99)
    assert find_newest(tmp_path) == newest
    interrupted = write(tmp_path / "checkpoint_interrupted", step=12)
    assert find_newest(tmp_path) == interrupted
    write(tmp_path / "checkpoint_interrupted", step=8)
    assert find_newest(tmp_path) == newest


def test_an_error_checkpoint_counts_only_if_it_is_consistent(tmp_path):
    step = write(tmp_path / "checkpoint_step_5", step=5)
    error = write(tmp_path / "checkpoint_error", step=7, consistent=False)
    assert find_newest(tmp_path) == step
    write(error, step=7)
    assert find_newest(tmp_path) == error


@pytest.mark.parametrize("name", ["training_state.json", "manifest.json", "config.json"])
def test_a_damaged_newest_one_is_passed_over(tmp_path, name):
    good = write(tmp_path / "checkpoint_step_5", step=5)
    damage(write(tmp_path / "checkpoint_step_10", step=10), name)
    assert find_newest(tmp_path) == good


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"step": null}', '{"step": "x"}', "{}"])
@pytest.mark.parametrize("name", ["checkpoint_step_9", "checkpoint_error"])
def test_a_state_that_is_none_is_passed_over(tmp_path, name, content):
    """Regression: a checkpoint_error whose state is a list ended in an AttributeError."""
    good = write(tmp_path / "checkpoint_step_5", step=5)
    write(tmp_path / name, step=9)
    (tmp_path / name / "training_state.json").write_text(content)
    assert find_newest(tmp_path) == good


def test_one_that_was_put_aside_by_a_crash_is_found(tmp_path):
    write(tmp_path / "checkpoint_interrupted", step=4).rename(tmp_path / "checkpoint_interrupted.old")
    found = find_newest(tmp_path)
    assert found == tmp_path / "checkpoint_interrupted"
    assert SavedRun.open(found).state["step"] == 4


def test_folders_that_are_no_checkpoints_are_in_nobodys_way(tmp_path):
    (tmp_path / "checkpoint_step_7").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert find_newest(tmp_path) is None


def test_opening_a_damaged_one_is_refused(tmp_path):
    folder = write(tmp_path / "checkpoint_step_5", step=5)
    damage(folder)
    with pytest.raises(CheckpointError, match="its checksum is not the manifest's"):
        SavedRun.open(folder)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        SavedRun.open(tmp_path / "none")


def test_a_config_of_another_program_is_refused(tmp_path):
    with checkpoint.writing(tmp_path / "c") as inside:
        (inside / "config.json").write_text('{"learning_rat": 1}')
        (inside / "model.pt").write_bytes(b"")
        checkpoint.save_json(inside / "training_state.json", {"step": 1})
    with pytest.raises(ConfigError, match="learning_rat"):
        SavedRun.open(tmp_path / "c")


def test_random_states_survive_the_disk(tmp_path):
    np.random.normal()  # leaves a second normal number cached
    random.gauss(0, 1)
    torch.save(random_states(), tmp_path / "states.pt")

    def draws():
        numpy = np.random.normal(), np.random.random()
        return random.gauss(0, 1), random.random(), *numpy, torch.rand(3).tolist()

    wanted = draws()
    draws()
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draws() == wanted


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.matrices = torch.nn.Parameter(torch.arange(24.0).view(2, 3, 4))
        self.first = torch.nn.Parameter(self.matrices.detach()[0].to(torch.bfloat16))
        self.head = self.first
        self.register_buffer("view", self.matrices.detach()[1, :, 1])


class SourcesForStates:
    def state_dict(self):
        master = TensorSource((3, 4), torch.float32, lambda out: out.copy_(torch.arange(12.0).view(3, 4)))
        return {"first": {"master": master, "step": torch.tensor(2.0)}}

    def param_groups(self):
        return [{"lr": 0.5}]


class NoTokenizer:
    def save(self, folder):
        folder.mkdir()
        (folder / "tokenizer.json").write_text("{}")


def test_weights_are_saved_one_by_one_and_states_wherever_they_come_from(tmp_path):
    """Regression: all weights were cloned at once, a second copy of the model."""
    model = Tied()
    keeper = CheckpointKeeper(
        tmp_path, keep_last=1, config=TrainingConfig(), tokenizer=NoTokenizer(), identity=Identity(**WHO),
        resolved={}, dummy_data=False, rows_per_epoch=5,
    )  # fmt: skip
    folder = keeper.save("checkpoint_step_2", model, SourcesForStates(), TrainState(step=2), scales_loss=False)
    checkpoint.verify(folder)
    weights = checkpoint.load_tensors(folder, "model.pt")
    assert list(weights) == list(model.state_dict())
    for name, weight in model.state_dict().items():
        assert weights[name].dtype == weight.dtype
        assert torch.equal(weights[name], weight)
        assert weights[name].untyped_storage().nbytes() == weight.numel() * weight.element_size()
        assert not weights[name].requires_grad
    assert len({weight.untyped_storage().data_ptr() for weight in weights.values()}) == len(weights) == 4
    states = checkpoint.load_tensors(folder, "optimizer.pt")
    assert torch.equal(states["first"]["master"], torch.arange(12.0).view(3, 4))
    assert states["first"]["step"] == 2
