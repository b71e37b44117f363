"""Which checkpoint, what may have changed, what may not be overwritten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.errors import CheckpointError, ConfigError
from havoc_training.batch_plan import BatchPlan
from havoc_training.checkpointing import Identity, SavedRun
from havoc_training.continuation import (
    announce_changes,
    find_checkpoint,
    put_later_ones_aside,
    refuse_another_run,
    refuse_to_do_nothing,
    refuse_to_overwrite,
)
from havoc_training.state import TrainState

WHO = Identity(
    store_id="s" * 64,
    plan_id="p" * 32,
    tokenizer="t" * 32,
    seed=42,
    row_length=64,
    model={"d_model": 32, "dropout": 0.0},
)


def config_of(folder, **values):
    return TrainingConfig.model_validate({"run_dir": str(folder), **values})


def saved_of(config, folder="checkpoints/checkpoint_step_3", identity=WHO):
    return SavedRun(Path(folder), {"identity": dict(vars(identity))}, config)


# Nothing is overwritten.


def test_a_fresh_start_makes_its_folder_and_leaves_nothing_in_it(tmp_path):
    refuse_to_overwrite(config_of(tmp_path), None)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("name", ["checkpoint_step_3", "checkpoint_interrupted", "checkpoint_best", "checkpoint_error"])
def test_a_fresh_start_on_checkpoints_is_refused(tmp_path, name):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        refuse_to_overwrite(config_of(tmp_path), None)
    error = caught.value
    assert (error.where, error.exit_code) == ("checkpoint_dir", 2)
    assert error.found == f"{tmp_path / 'checkpoints'} already holds checkpoints of a run."
    assert error.remedy == "Continue it with --resume auto, or start elsewhere with --run-dir NEW."


@pytest.mark.parametrize("name", ["checkpoint_step_3", "checkpoint_interrupted"])
def test_auto_that_found_none_whole_says_so(tmp_path, name):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    with pytest.raises(CheckpointError) as caught:
        refuse_to_overwrite(config_of(tmp_path, resume_from_checkpoint="auto"), None)
    error = caught.value
    assert error.where == str(tmp_path / "checkpoints")
    assert error.found == "none of the checkpoints in it is whole."
    assert error.remedy == "Move them away, or start elsewhere: --run-dir NEW."


@pytest.mark.parametrize("name", ["checkpoint_best", "checkpoint_error"])
def test_what_auto_cannot_go_on_from_is_no_reason_for_it_not_to_start(tmp_path, name):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    refuse_to_overwrite(config_of(tmp_path, resume_from_checkpoint="auto"), None)


def test_a_run_that_goes_on_may_have_checkpoints(tmp_path):
    (tmp_path / "checkpoints" / "checkpoint_step_3").mkdir(parents=True)
    config = config_of(tmp_path)
    refuse_to_overwrite(config, saved_of(config))


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError) as caught:
        refuse_to_overwrite(config_of(tmp_path), None)
    error = caught.value
    assert error.where == str(tmp_path / "checkpoints")
    assert error.found == "cannot be written to (File exists)."
    assert error.remedy == "Choose another folder: checkpoint_dir or --run-dir."


# A finished run.


PLAN = BatchPlan(rows_per_step=4, micro_batch_size=2, micro_batches=2, total_steps=3, warmup_steps=1)


def test_a_finished_run_with_other_settings_has_nothing_to_show_for_them(tmp_path):
    was, now = config_of(tmp_path), config_of(tmp_path, learning_rate=1e-3)
    with pytest.raises(ConfigError) as caught:
        refuse_to_do_nothing(now, saved_of(was), TrainState(step=3), PLAN)
    error = caught.value
    assert (error.where, error.exit_code) == ("learning_rate", 2)
    assert error.found == "was changed, but the run has made its 3 steps and would end after 3."
    assert error.remedy == "Raise max_steps to train on, or start elsewhere: --run-dir NEW."
    refuse_to_do_nothing(was, saved_of(was), TrainState(step=3), PLAN)
    refuse_to_do_nothing(now, saved_of(was), TrainState(step=2), PLAN)
    refuse_to_do_nothing(now, saved_of(was), TrainState(step=3), replace(PLAN, total_steps=4))


# Another run.


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({"store_id": "x" * 64}, "data (token store) is xxxxxxxxxxxx…, was ssssssssssss…"),
        ({"plan_id": "x" * 32}, "data mixture is xxxxxxxxxxxx…, was pppppppppppp…"),
        ({"tokenizer": "x" * 32}, "tokenizer is xxxxxxxxxxxx…, was tttttttttttt…"),
        ({"seed": 7}, "seed is 7, was 42"),
        ({"row_length": 32}, "data.max_sequence_length is 32, was 64"),
        ({"model": {"d_model": 64, "dropout": 0.0}}, "model.d_model is 64, was 32"),
    ],
)
def test_a_run_goes_on_with_its_own_model_text_and_seed(tmp_path, now, says):
    config = config_of(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        refuse_another_run(config, replace(WHO, **now), saved_of(config))
    error = caught.value
    assert error.where == str(Path("checkpoints/checkpoint_step_3"))
    assert error.found == f"belongs to another run: {says}."
    assert error.remedy == "Use the settings of the checkpoint, or take only its weights: --fine-tune --run-dir NEW."


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"optimizer": "muon"}, "optimizer is muon, was adamw"),
        ({"tokenizer": {"vocab_size": 999}}, "tokenizer.vocab_size is 999, was None"),
    ],
)
def test_and_with_its_own_optimizer_and_tokenizer(tmp_path, settings, says):
    with pytest.raises(CheckpointError, match="belongs to another run") as caught:
        refuse_another_run(config_of(tmp_path, **settings), WHO, saved_of(config_of(tmp_path)))
    assert says in caught.value.found


def test_every_difference_is_named_at_once(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        refuse_another_run(config, replace(WHO, seed=7, row_length=32), saved_of(config))
    assert caught.value.found.count(";") == 1
    assert "seed is 7" in caught.value.found
    assert "max_sequence_length is 32" in caught.value.found


def test_the_same_run_and_one_with_another_dropout_go_on(tmp_path):
    config = config_of(tmp_path)
    refuse_another_run(config, WHO, saved_of(config))
    refuse_another_run(config, replace(WHO, model={"d_model": 32, "dropout": 0.5}), saved_of(config))


def test_text_that_grows_may_be_another_store_and_nothing_else_may(tmp_path):
    config = config_of(tmp_path, data={"growing": True})
    refuse_another_run(config, replace(WHO, store_id="x" * 64, plan_id="x" * 32), saved_of(config))
    with pytest.raises(CheckpointError, match="tokenizer is"):
        refuse_another_run(config, replace(WHO, store_id="x" * 64, tokenizer="x" * 32), saved_of(config))


# What is said and what is put aside.


def test_changes_are_announced_with_both_values(tmp_path, said):
    was = config_of(tmp_path)
    announce_changes(config_of(tmp_path, max_grad_norm=0.5, model={"dropout": 0.1}), saved_of(was))
    assert said == [
        "max_grad_norm is 0.5 from here on; it was 1.0.",
        "model.dropout is 0.1 from here on; it was 0.0.",
    ]
    said.clear()
    announce_changes(was, saved_of(was))
    assert said == []


def test_later_checkpoints_are_put_aside_and_never_over_one_another(tmp_path):
    folder = tmp_path / "checkpoints"
    for name in ("checkpoint_step_2", "checkpoint_step_3", "checkpoint_step_4", "checkpoint_step_3.abandoned"):
        (folder / name).mkdir(parents=True)
    (folder / "checkpoint_step_3" / "mark").touch()
    put_later_ones_aside(config_of(tmp_path), TrainState(step=2))
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint_step_2", "checkpoint_step_3.abandoned", "checkpoint_step_3.abandoned2", "checkpoint_step_4.abandoned",
    }  # fmt: skip
    assert (folder / "checkpoint_step_3.abandoned2" / "mark").exists()


# Which checkpoint.


def test_without_a_wish_there_is_no_checkpoint(tmp_path):
    assert find_checkpoint(config_of(tmp_path)) is None


def test_auto_with_nothing_there_says_that_it_starts_fresh(tmp_path, said):
    assert find_checkpoint(config_of(tmp_path, resume_from_checkpoint="auto")) is None
    assert said == ["Nothing to resume: starting fresh."]


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(config_of(tmp_path, resume_from_checkpoint=str(missing)))
    assert str(missing) in caught.value.where
    assert caught.value.remedy


def test_auto_takes_the_newest_and_a_folder_is_taken_as_it_is_named(run, said):
    run.trainer(max_steps=3).fit()
    said.clear()
    newest = find_checkpoint(run.config(resume_from_checkpoint="auto"))
    assert newest.folder == run.checkpoints / "checkpoint_step_3"
    assert newest.state["step"] == 3
    assert said == [f"Resuming from {newest.folder}."]
    best = find_checkpoint(run.config(resume_from_checkpoint=str(run.checkpoints / "checkpoint_best")))
    assert best.folder.name == "checkpoint_best"
    assert best.config.max_steps == 3
