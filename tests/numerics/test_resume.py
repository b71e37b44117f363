"""A run that was stopped goes on to the same bits, or says why it does not."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from havoc_core import checkpoint
from havoc_core.config_files import to_json
from havoc_core.errors import CheckpointError, ConfigError
from havoc_data.store import checksum_of_manifest

TWELVE = {
    "max_steps": 12,
    "warmup_steps": 4,
    "save_every_n_steps": 100,
    "eval_every_n_steps": 4,
    "model": {"dropout": 0.1},
}


def metrics(run):
    """Lines of updates and validations, without what the clock and the machine have to say."""
    measured = {"seconds", "data_seconds", "tokens_per_s", "mfu_measured", "memory_bytes", "memory_used", "time"}
    lines = [json.loads(line) for line in (run.folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in measured}
        for line in lines
        if line["kind"] in {"train", "validation"}
    ]


def assert_equal_bits(one, other):
    """Every tensor of the two checkpoints has the same bytes, and the state the same numbers."""
    for name in ("model.pt", "optimizer.pt", "random_states.pt", "scheduler.pt"):
        compare(checkpoint.load_tensors(one, name), checkpoint.load_tensors(other, name), name)
    states = [json.loads((folder / "training_state.json").read_text()) for folder in (one, other)]
    for key in ("step", "next_slot", "chain", "scored_tokens", "best_loss", "best_step", "epoch"):
        assert states[0][key] == states[1][key], key


def compare(a, b, where):
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(
            a.contiguous().view(torch.uint8) if a.dim() else a, b.contiguous().view(torch.uint8) if b.dim() else b
        ), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            compare(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            compare(x, y, where)
    else:
        assert a == b, where


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [
        ("float32", "muon"),
        ("bfloat16", "adamw"),
        pytest.param("float32", "adamw", marks=pytest.mark.slow),
        pytest.param("bfloat16", "muon", marks=pytest.mark.slow),
        pytest.param("float16", "adamw", marks=pytest.mark.slow),
        pytest.param("float16", "muon", marks=pytest.mark.slow),
    ],
)
def test_five_steps_and_seven_more_are_twelve_steps_bit_for_bit(new_run, precision, optimizer):
    settings = {**TWELVE, "optimizer": optimizer, "use_amp": precision != "float32"}
    settings |= {"amp_dtype": precision} if precision != "float32" else {}
    straight, broken = new_run("straight"), new_run("broken")
    whole = straight.trainer(**settings).fit()
    broken.stopped_at(5, **settings)
    assert broken.names >= {"checkpoint_interrupted"}
    torch.manual_seed(99)  # whatever happened in between
    rest = broken.resumed(**settings).fit()
    assert rest.state.step == 12
    assert rest.state.chain == whole.state.chain
    assert_equal_bits(straight.checkpoints / "checkpoint_step_12", broken.checkpoints / "checkpoint_step_12")
    assert metrics(straight) == metrics(broken)


@pytest.mark.slow
def test_dropout_and_seed_do_decide_the_bits(new_run):
    """So that the test above can fail."""
    one, other, third = new_run("one"), new_run("other"), new_run("third")
    one.trainer(**TWELVE).fit()
    other.trainer(**{**TWELVE, "model": {"dropout": 0.0}}).fit()
    third.trainer(**TWELVE, seed=43).fit()
    for run in (other, third):
        with pytest.raises(AssertionError):
            assert_equal_bits(one.checkpoints / "checkpoint_step_12", run.checkpoints / "checkpoint_step_12")


def test_with_the_attention_kernel_of_the_machine_too(new_run):
    """compile: auto, and a shape that the kernel takes: rows of 64, heads of 32."""
    shape = {"model": {"dropout": 0.1, "attention": {"head_dim": 32}}, "compile": "auto", "use_amp": True}
    settings = {**TWELVE, **shape}
    straight, broken = new_run("straight"), new_run("broken")
    straight.trainer(**settings).fit()
    broken.stopped_at(5, **settings)
    broken.resumed(**settings).fit()
    assert_equal_bits(straight.checkpoints / "checkpoint_step_12", broken.checkpoints / "checkpoint_step_12")


@pytest.mark.slow
def test_validating_and_saving_more_often_changes_no_bit(new_run):
    one, other = new_run("one"), new_run("other")
    one.trainer(**TWELVE).fit()
    often = {
        **TWELVE,
        "eval_every_n_steps": 12,
        "save_every_n_steps": 2,
        "log_every_n_steps": 1,
        "keep_last_n_checkpoints": 1,
    }
    other.trainer(**often).fit()
    for name in ("model.pt", "optimizer.pt"):
        compare(
            checkpoint.load_tensors(one.checkpoints / "checkpoint_step_12", name),
            checkpoint.load_tensors(other.checkpoints / "checkpoint_step_12", name),
            name,
        )


@pytest.mark.slow
def test_an_earlier_checkpoint_leads_to_the_same_end(run):
    run.trainer(**{**TWELVE, "save_every_n_steps": 4}).fit()
    shutil.copytree(run.checkpoints / "checkpoint_step_12", run.folder / "first")
    before = metrics(run)
    trainer = run.resumed("checkpoint_step_8", **{**TWELVE, "save_every_n_steps": 4})
    assert (trainer.state.step, trainer.state.next_slot) == (8, 32)
    trainer.fit()
    assert_equal_bits(run.folder / "first", run.checkpoints / "checkpoint_step_12")
    assert metrics(run) == before
    aside = [json.loads(line) for line in (run.folder / "logs" / "metrics.jsonl.1").read_text().splitlines()]
    assert [line["step"] for line in aside if line["kind"] == "train"] == [9, 10, 11, 12]


def test_a_damaged_newest_checkpoint_is_passed_over_by_auto(run, said):
    run.trainer(max_steps=6).fit()
    path = run.checkpoints / "checkpoint_step_6" / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert run.resumed().state.step == 3
    assert any("Passed over" in line and "checkpoint_step_6" in line for line in said)


def test_a_finished_run_has_nothing_more_to_do(trained):
    trainer = trained.resumed(max_steps=3)
    result = trainer.fit()
    assert (result.state.step, result.stopped_by) == (3, None)
    assert result.checkpoint == trained.checkpoints / "checkpoint_step_3"


def test_a_run_can_be_made_longer(trained, said):
    trainer = trained.resumed(max_steps=5)
    assert "max_steps is 5 from here on; it was 3." in said
    assert trainer.fit().state.step == 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"learning_rate": 2e-3}, "learning_rate is 0.002 from here on; it was 0.001."),
        ({"lr_scheduler_type": "linear"}, "lr_scheduler_type is linear from here on; it was cosine."),
        ({"max_grad_norm": 0.5}, "max_grad_norm is 0.5 from here on; it was 1.0."),
        ({"weight_decay": 0.0}, "weight_decay is 0.0 from here on; it was 0.1."),
        ({"decay_embeddings": False}, "decay_embeddings is False from here on; it was True."),
        ({"rows_per_step": 8}, "rows_per_step is 8 from here on; it was None."),
        ({"model": {"dropout": 0.1}}, "model.dropout is 0.1 from here on; it was 0.0."),
        ({"use_amp": True}, "use_amp is True from here on; it was False."),
    ],
)
def test_what_may_change_is_announced_and_followed(trained, said, change, says):
    trainer = trained.resumed(**{"max_steps": 5, **change})
    assert says in said
    assert trainer.fit().state.step == 5


def test_a_new_learning_rate_is_followed(run):
    run.trainer(max_steps=3, lr_scheduler_type="constant").fit()
    run.resumed(max_steps=4, lr_scheduler_type="constant", learning_rate=5e-4).fit()
    assert [line["learning_rate"] for line in metrics(run) if line["kind"] == "train"][-1] == pytest.approx(5e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": {"num_layers": 3}}, "model.num_layers is 3, was 2"),
        ({"model": {"tie_embeddings": True}}, "model.tie_embeddings is True, was False"),
        ({"model": {"layer_norm_eps": 1e-5}}, "model.layer_norm_eps is 1e-05, was 1e-06"),
        ({"model": {"attention": {"rope_theta": 5e4}}}, "model.attention.rope_theta is 50000.0, was 10000.0"),
        ({"seed": 7}, "seed is 7, was 42"),
        ({"data": {"max_sequence_length": 32}}, "data.max_sequence_length is 32, was 64"),
        ({"data": {"packing": "concatenate"}}, "data mixture is"),
        ({"optimizer": "muon"}, "optimizer is muon, was adamw"),
        ({"tokenizer": {"vocab_size": 515}}, "tokenizer.vocab_size is 515, was None"),
    ],
)
def test_what_may_not_change_is_refused_with_both_values(trained, change, says):
    with pytest.raises(CheckpointError, match="belongs to another run") as caught:
        trained.resumed(max_steps=5, **change)
    assert caught.value.where == str(trained.checkpoints / "checkpoint_step_3")
    assert says in caught.value.found
    assert "--fine-tune --run-dir NEW" in caught.value.remedy


@pytest.mark.parametrize(
    "change", [{"data": {"domain_ratio": 0.5, "general_ratio": 0.4}}, {"data": {"validation_fraction": 0.1}}]
)
def test_other_data_is_refused(trained, change):
    with pytest.raises(
        CheckpointError, match="data: the text or its settings have changed since the checkpoint."
    ) as caught:
        trained.resumed(max_steps=5, **change)
    assert "--fine-tune" in caught.value.remedy


def test_another_store_is_refused(trained, new_run):
    manifest = trained.folder / "store" / "manifest.json"
    values = json.loads(manifest.read_text()) | {"dummy": False}
    manifest.write_text(json.dumps(values | {"checksum": checksum_of_manifest(values)}))
    with pytest.raises(CheckpointError, match="the token store is .*, the checkpoint was trained on"):
        trained.resumed(max_steps=5)


def test_rows_per_step_is_kept_with_another_batch_size(run, said):
    run.trainer(**TWELVE).fit()
    other = run.resumed(max_steps=14, batch_size=4, gradient_accumulation_steps=99, model={"dropout": 0.1})
    assert (other.plan.rows_per_step, other.plan.micro_batch_size, other.plan.micro_batches) == (4, 4, 1)
    assert "A step keeps its 4 rows; set rows_per_step to change that." in said
    assert other.fit().state.next_slot == 14 * 4


def test_other_rows_per_step_continue_at_the_same_slot(trained):
    trainer = trained.resumed(max_steps=5, rows_per_step=8)
    assert trainer.state.next_slot == 12
    assert trainer.fit().state.next_slot == 12 + 2 * 8


def test_rows_that_cannot_be_shared_are_refused(trained):
    with pytest.raises(ConfigError, match="batch_size: 4 rows a device and step are not a multiple of 3. Use"):
        trained.resumed(max_steps=5, batch_size=3)


def test_fine_tuning_takes_the_weights_only(run, new_run):
    run.trainer(max_steps=6).fit()
    source = run.checkpoints / "checkpoint_step_6"
    tuned = new_run("tuned").trainer(
        fine_tune=True, resume_from_checkpoint=str(source), learning_rate=1e-4, optimizer="muon", seed=8
    )
    assert (tuned.state.step, tuned.state.next_slot, tuned.state.best_loss) == (0, 0, None)
    saved = checkpoint.load_tensors(source, "model.pt")
    assert all(torch.equal(p, saved[name]) for name, p in tuned.model.named_parameters())
    assert all("exp_avg" not in state for state in tuned.optimizer.state_dict().values())
    assert tuned.fit().state.step == 6


def test_fine_tuning_from_bfloat16_starts_from_the_masters(run, new_run):
    run.trainer(max_steps=3, use_amp=True).fit()
    source = run.checkpoints / "checkpoint_step_3"
    tuned = new_run("tuned").trainer(fine_tune=True, resume_from_checkpoint=str(source))
    masters = checkpoint.load_tensors(source, "optimizer.pt")
    assert all(torch.equal(p, masters[name]["master"]) for name, p in tuned.model.named_parameters())


def test_fine_tuning_another_shape_is_refused(trained, new_run):
    source = trained.checkpoints / "checkpoint_step_3"
    with pytest.raises(
        CheckpointError, match=r"model\.layers\.0\.mlp\.down_proj\.weight is \(32, 48\) there and \(32, 64\)"
    ) as caught:
        new_run("tuned").trainer(fine_tune=True, resume_from_checkpoint=str(source), model={"mlp": {"hidden_dim": 64}})
    assert "leave --config out" in caught.value.remedy


def test_fine_tuning_into_the_same_folder_is_refused(trained):
    with pytest.raises(ConfigError, match="already holds checkpoints of a run"):
        trained.resumed("checkpoint_step_3", fine_tune=True)


def test_an_interrupted_run_counts_as_newest_and_is_replaced_whole(run):
    run.stopped_at(2)
    first = (run.checkpoints / "checkpoint_interrupted" / "manifest.json").read_bytes()
    trainer = run.resumed()
    assert trainer.state.step == 2
    trainer.fit()
    run.resumed(max_steps=9)
    assert (run.checkpoints / "checkpoint_interrupted" / "manifest.json").read_bytes() == first
    checkpoint.verify(run.checkpoints / "checkpoint_interrupted")


TRAIN = """
import sys
from pathlib import Path
from havoc_core.config_files import from_json
from havoc_core.log import to_screen
from havoc_training.build import build_trainer
from havoc_training.continuation import find_checkpoint

config = from_json(Path({path!r}).read_text(), where="config")
to_screen()
result = build_trainer(config, saved=find_checkpoint(config)).fit()
sys.exit(0 if result.stopped_by is None else 128 + result.stopped_by)
"""


@pytest.fixture
def start(forked, tmp_path):
    """Train in a process of its own."""
    running = []

    def with_settings(run, **settings):
        config = run.folder / "config.json"
        config.write_text(to_json(run.config(**settings)))
        running.append(forked(TRAIN.format(path=str(config))))
        return running[-1][0]

    yield with_settings
    for process, said in running:
        process.kill()
        process.join()
        said.close()


def exit_code(process):
    process.join(120)
    return process.exitcode


def wait_for_step(run, step, child):
    path = run.folder / "logs" / "metrics.jsonl"
    for _ in range(600):
        if path.exists() and path.read_text().count('"kind": "train"') >= step:
            return
        assert child.is_alive(), "the run ended too early"
        time.sleep(0.05)
    raise AssertionError("the run did not come that far")


@pytest.mark.slow
def test_sigterm_saves_an_interrupted_checkpoint_and_the_rest_gives_the_same_bits(new_run, start):
    settings = {**TWELVE, "max_steps": 60, "eval_every_n_steps": 25}
    straight, broken = new_run("straight"), new_run("broken")
    straight.trainer(**settings).fit()
    child = start(broken, **settings, resume_from_checkpoint="auto")
    wait_for_step(broken, 3, child)
    child.terminate()  # SIGTERM
    code = exit_code(child)
    if code == 0:
        pytest.skip("the run was faster than the signal")
    assert code == 128 + signal.SIGTERM
    assert "checkpoint_interrupted" in broken.names
    assert exit_code(start(broken, **settings, resume_from_checkpoint="auto")) == 0
    assert_equal_bits(straight.checkpoints / "checkpoint_step_60", broken.checkpoints / "checkpoint_step_60")


@pytest.mark.slow
def test_a_kill_without_warning_is_survived_with_the_same_bits(new_run, start):
    settings = {**TWELVE, "max_steps": 60, "save_every_n_steps": 2, "eval_every_n_steps": 25}
    straight, broken = new_run("straight"), new_run("broken")
    straight.trainer(**settings).fit()
    for step in (5, 17):
        child = start(broken, **settings, resume_from_checkpoint="auto")
        wait_for_step(broken, step, child)
        child.kill()
        child.join(60)
    assert exit_code(start(broken, **settings, resume_from_checkpoint="auto")) == 0
    assert_equal_bits(straight.checkpoints / "checkpoint_step_60", broken.checkpoints / "checkpoint_step_60")
    assert metrics(straight) == metrics(broken)


def test_the_folder_of_a_checkpoint_can_be_moved(trained, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.move(trained.checkpoints / "checkpoint_step_3", moved)
    trainer = trained.trainer(resume_from_checkpoint=str(moved), max_steps=5)
    assert trainer.state.step == 3
    assert isinstance(trainer.keeper.folder, Path)
