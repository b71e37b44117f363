"""`havoc train`: what it starts from, where it refuses to, and what it says."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml


def weights(checkpoint):
    return torch.load(checkpoint / "model.pt", weights_only=True)


def state(checkpoint):
    return json.loads((checkpoint / "training_state.json").read_text())


def config_of(checkpoint):
    return json.loads((checkpoint / "config.json").read_text())


def test_it_trains_to_the_last_step_and_says_where_the_result_is(havoc, config, prepared):
    said = havoc("train", "--config", config())
    assert said.code == 0, said.err
    assert "Done: 6 steps, " in said.out
    assert str(prepared / "checkpoints" / "checkpoint_step_6") in said.out
    assert {path.name for path in (prepared / "checkpoints").iterdir()} == {
        "checkpoint_step_3", "checkpoint_step_6", "checkpoint_best",
    }  # fmt: skip
    lines = [json.loads(line) for line in (prepared / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert "step 6/6" in (prepared / "logs" / "train.log").read_text()


def test_dummy_data_is_named_on_every_line_of_progress(havoc, config, prepared):
    said = havoc("train", "--config", config())
    log = (prepared / "logs" / "train.log").read_text()
    for text in (said.out, log):
        progress = [line for line in text.splitlines() if "tokens/s" in line or "validation at step" in line]
        assert len(progress) >= 4
        assert all("DUMMY DATA" in line for line in progress)
        assert "DUMMY DATA: random words, good for testing only. Put real text into data/<group>/." in text


def test_every_founding_flag_does_what_it_says(havoc, config, prepared, here):
    said = havoc(
        "train", "--config", config(), "--batch-size", "4", "--learning-rate", "2e-4", "--max-steps", "2",
        "--device", "cpu",
    )  # fmt: skip
    assert said.code == 0, said.err
    saved = config_of(prepared / "checkpoints" / "checkpoint_step_2")
    names = ("batch_size", "learning_rate", "max_steps", "device", "warmup_steps")
    assert [saved[name] for name in names] == [4, 2e-4, 2, "cpu", 2]
    assert "2 steps of 4 rows x 64 tokens" in said.out


def test_cuda_where_there_is_none_is_one_message(havoc, config, prepared):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    said = havoc("train", "--config", config(), "--device", "cuda")
    assert said.code == 2
    assert "ConfigError  device: 'cuda' was asked for, but there is none here" in said.message
    assert "Use `--device auto` or `--device cpu`." in said.message
    assert not (prepared / "checkpoints").exists()


def test_a_model_that_does_not_fit_is_refused_before_anything_is_built(havoc, config, here):
    path = config(
        model={"size": "havoc_7b", "d_model": 400_000_000, "mlp": {"hidden_dim": 13056}}, data={"sources": None}
    )
    said = havoc("train", "--config", path, "--data.fallback", "dummy")
    assert said.code == 3
    assert said.message.startswith("PlanError  memory: this run needs ")
    assert "The largest named model that fits is" in said.message
    assert not (here / "run" / "corpus").exists()


def test_a_second_start_on_the_same_folder_is_refused(havoc, config, run_copy):
    before = {path: path.stat().st_mtime_ns for path in (run_copy / "checkpoints").rglob("*")}
    said = havoc("train", "--config", config())
    assert said.code == 2
    assert "already holds checkpoints of a run." in said.message
    assert "--resume auto" in said.message and "--run-dir NEW" in said.message
    assert before == {path: path.stat().st_mtime_ns for path in (run_copy / "checkpoints").rglob("*")}


def test_resume_auto_where_nothing_is_starts_fresh(havoc, config, prepared):
    said = havoc("train", "--config", config(), "--resume", "auto")
    assert said.code == 0
    assert "Nothing to resume: starting fresh." in said.out
    assert (prepared / "checkpoints" / "checkpoint_step_6").is_dir()


def test_resume_auto_goes_on_from_the_newest_with_the_settings_of_the_checkpoint(havoc, config, prepared, here):
    assert havoc("train", "--config", config(max_steps=3)).code == 0
    said = havoc("train", "--resume", "auto", "--run-dir", prepared, "--max-steps", "5")
    assert said.code == 0, said.err
    assert f"Resuming from {prepared}/checkpoints/checkpoint_step_3." in said.out
    assert "max_steps is 5 from here on; it was 3." in said.out
    assert config_of(prepared / "checkpoints" / "checkpoint_step_5")["model"]["d_model"] == 32


def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(havoc, config, prepared, finished_run):
    path = config()
    assert havoc("train", "--config", path).code == 0
    shutil.rmtree(prepared / "checkpoints" / "checkpoint_step_6")
    assert havoc("train", "--config", path, "--resume", "auto").code == 0
    here, there = (folder / "checkpoints" / "checkpoint_step_6" for folder in (prepared, finished_run))
    assert state(here)["chain"] == state(there)["chain"]
    assert all(torch.equal(a, weights(there)[name]) for name, a in weights(here).items())


@pytest.mark.parametrize("where", ["checkpoints/checkpoint_step_5000", "run"])
def test_a_checkpoint_that_is_none_is_refused(where, havoc, run_copy):
    said = havoc("train", "--resume", where)
    assert said.code == 1
    assert f"CheckpointError  {where}: is no checkpoint (no config.json)." in said.message
    assert "havoc checkpoint list" in said.message


def test_a_checkpoint_of_another_shape_is_refused_and_nothing_of_the_run_is_lost(havoc, config, run_copy):
    before = (run_copy / "checkpoints" / "checkpoint_step_6" / "manifest.json").read_bytes()
    said = havoc("train", "--config", config(model={"d_model": 64}, max_steps=9), "--resume", "auto")
    assert said.code == 1
    assert "belongs to another run: model.d_model is 64, was 32." in said.message
    assert "--fine-tune --run-dir NEW" in said.message
    assert (run_copy / "checkpoints" / "checkpoint_step_6" / "manifest.json").read_bytes() == before


def test_a_checkpoint_that_was_cut_off_while_it_was_replaced_is_resumed(havoc, config, run_copy):
    """Regression: of checkpoint_interrupted only the `.old` was there, and --resume auto ended in a traceback."""
    folder = run_copy / "checkpoints"
    (folder / "checkpoint_step_3").rename(folder / "checkpoint_interrupted.old")
    shutil.rmtree(folder / "checkpoint_step_6")
    said = havoc("train", "--resume", "auto", "--run-dir", run_copy)
    assert said.code == 0, said.err
    assert "Done: 6 steps" in said.out


def test_the_name_of_a_checkpoint_of_which_only_the_old_one_is_left_is_resumed(havoc, run_copy):
    """Regression: it was said to be no checkpoint."""
    folder = run_copy / "checkpoints"
    (folder / "checkpoint_step_3").rename(folder / "checkpoint_interrupted.old")
    shutil.rmtree(folder / "checkpoint_step_6")
    said = havoc("train", "--resume", folder / "checkpoint_interrupted", "--run-dir", run_copy)
    assert said.code == 0, said.err


@pytest.mark.parametrize("arguments", [[], ["--resume", "auto"]], ids=["no --resume", "auto"])
def test_fine_tuning_without_a_checkpoint_is_refused(arguments, havoc, config, prepared):
    said = havoc("train", "--config", config(), "--fine-tune", *arguments)
    assert said.code == 2
    assert said.message == "ConfigError  --fine-tune: needs a checkpoint to take weights from. Add --resume PATH."
    assert not (prepared / "checkpoints").exists()


def test_fine_tuning_starts_at_step_0_with_the_weights_and_the_tokenizer_of_the_checkpoint(havoc, run_copy, here):
    """Regression: without --config it wanted a 7B model, though the refusals all over name this very command."""
    source = run_copy / "checkpoints" / "checkpoint_step_6"
    said = havoc(
        "train", "--resume", source, "--fine-tune", "--run-dir", here / "tuned", "--max-steps", "1",
        "--learning-rate", "1e-9", "--min-learning-rate", "0", "--save-every-n-steps", "1",
    )  # fmt: skip
    assert said.code == 0, said.err
    tuned = here / "tuned" / "checkpoints" / "checkpoint_step_1"
    assert state(tuned)["step"] == 1
    assert (tuned / "tokenizer" / "tokenizer.json").read_bytes() == (
        source / "tokenizer" / "tokenizer.json"
    ).read_bytes()
    before = weights(source)
    for name, values in weights(tuned).items():
        # One update with a rate of 1e-9 moves nothing by more than that.
        assert torch.allclose(values, before[name], atol=1e-8, rtol=0), name


def test_fine_tuning_a_folder_that_holds_a_run_already_is_refused(havoc, run_copy):
    said = havoc(
        "train", "--resume", run_copy / "checkpoints" / "checkpoint_step_6", "--fine-tune", "--run-dir", run_copy
    )
    assert said.code == 2
    assert "already holds checkpoints of a run." in said.message


def test_fine_tuning_from_a_checkpoint_without_a_tokenizer_is_refused(havoc, run_copy, config):
    folder = run_copy / "checkpoints" / "checkpoint_step_6"
    shutil.rmtree(folder / "tokenizer")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: facts for name, facts in manifest["files"].items() if not name.startswith("tokenizer")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    said = havoc("train", "--config", config("tuned"), "--resume", folder, "--fine-tune")
    assert said.code == 1
    assert "holds no tokenizer." in said.message
    assert "Use another checkpoint: havoc checkpoint list." in said.message


def test_logs_that_cannot_be_written_are_one_message(havoc, config, prepared):
    (prepared / "logs").write_text("a file in the place of the folder")
    said = havoc("train", "--config", config())
    assert said.code == 2
    assert "ConfigError  log_dir: " in said.message
    assert "logs cannot be written to (" in said.message
    assert "Choose another: log_dir or --run-dir." in said.message
    assert (prepared / "logs").read_text() == "a file in the place of the folder"
    assert not (prepared / "checkpoints").exists()


def test_checkpoints_that_cannot_be_written_are_one_message_before_training(havoc, config, prepared):
    (prepared / "checkpoints").write_text("a file in the place of the folder")
    said = havoc("train", "--config", config())
    assert said.code == 1
    assert "checkpoints: cannot be written to (" in said.message
    assert "Choose another folder: checkpoint_dir or --run-dir." in said.message
    assert (prepared / "checkpoints").read_text() == "a file in the place of the folder"
    assert not (prepared / "logs" / "metrics.jsonl").exists()


def test_without_a_config_the_default_file_is_taken_and_flags_win_over_it(havoc, prepared, config, here):
    said = havoc("train", "--max-steps", "1", default_config=config())
    assert said.code == 0, said.err
    assert config_of(prepared / "checkpoints" / "checkpoint_step_1")["max_steps"] == 1


def test_without_a_config_the_file_of_this_folder_is_taken(havoc, prepared, config, here):
    (here / "configs" / "training").mkdir(parents=True)
    shutil.move(config(max_steps=1), here / "configs" / "training" / "default_training.yaml")
    assert havoc("train").code == 0
    assert (prepared / "checkpoints" / "checkpoint_step_1").is_dir()


def test_tokenizer_and_store_are_made_when_they_are_missing(havoc, config, here):
    said = havoc("train", "--config", config(max_steps=1))
    assert said.code == 0, said.err
    assert {path.name for path in (here / "run").iterdir()} >= {"corpus", "tokenizer", "store", "checkpoints", "logs"}


def test_the_settings_that_were_used_are_in_the_checkpoint_and_can_be_used_again(havoc, run_copy, here):
    values = config_of(run_copy / "checkpoints" / "checkpoint_step_6")
    (here / "again.yaml").write_text(yaml.safe_dump(values))
    assert havoc("config", "check", "--config", "again.yaml").code == 0
