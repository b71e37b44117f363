"""What a run refuses before it does any work, so that nothing that was there is lost."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from havoc_core.errors import CheckpointError, ConfigError, DataError
from havoc_data.prepare.build import collect_corpus, prepare


@pytest.fixture
def finished(run):
    run.trainer(max_steps=3).fit()
    return run


def test_a_finished_run_is_not_reported_with_settings_it_was_not_trained_with(finished):
    """Regression: no update was made, and the report showed the new learning rate."""
    with pytest.raises(
        ConfigError,
        match=r"learning_rate: was changed, but the run has made its 3 steps and would end after 3\. Raise max_steps",
    ):
        finished.resumed(max_steps=3, learning_rate=5e-4)


def test_a_finished_run_that_is_called_again_as_it_was_has_nothing_to_do(finished):
    assert finished.resumed(max_steps=3).fit().state.step == 3


def test_checkpoints_that_are_all_damaged_are_not_answered_with_resume_auto(finished):
    for folder in finished.checkpoints.iterdir():
        (folder / "model.pt").write_bytes(b"damaged")
    with pytest.raises(
        CheckpointError,
        match=r"checkpoints: none of the checkpoints in it is whole\. Move them away, or start elsewhere",
    ):
        finished.resumed(max_steps=3)


def test_resuming_an_earlier_step_puts_the_later_ones_aside(run):
    """Regression: `auto` went back to the course that had been given up."""
    run.trainer(max_steps=4, save_every_n_steps=1, keep_last_n_checkpoints=9).fit()
    run.resumed("checkpoint_step_2", max_steps=3, save_every_n_steps=1, learning_rate=5e-4).fit()
    assert {"checkpoint_step_3", "checkpoint_step_3.abandoned", "checkpoint_step_4.abandoned"} <= run.names
    assert "checkpoint_step_4" not in run.names
    assert run.resumed(max_steps=3, learning_rate=5e-4).state.step == 3


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data": {"validation_fraction": 0.1}}, "the text or its settings have"),
        ({"tokenizer": {"vocab_size": 515}}, "the tokenizer's settings have"),
    ],
    ids=["text", "tokenizer"],
)
def test_what_checkpoints_were_trained_on_is_not_built_anew_under_them(finished, changes, what):
    """Regression: the store was replaced first, and only then was the resume refused."""
    before = (finished.folder / "store" / "manifest.json").read_bytes()
    for work in (collect_corpus, prepare):
        with pytest.raises(
            DataError,
            match=rf"data: {what} changed, and .*checkpoints holds checkpoints that were trained on them as they were\. "
            r"Start elsewhere: --run-dir NEW",
        ):
            work(finished.config(**changes))
    assert (finished.folder / "store" / "manifest.json").read_bytes() == before


def test_a_count_of_steps_goes_where_the_fused_kernel_reads_it(run):
    """Regression: on a GPU the count stayed on the CPU after a resume. Seen here by what torch itself keeps."""
    whole_masters = {"use_amp": True, "amp_dtype": "float16"}
    run.trainer(max_steps=1, **whole_masters).fit()
    again = run.resumed(max_steps=2, **whole_masters)
    assert again.optimizer.parts
    for part in again.optimizer.parts:
        for state in part.state.values():
            assert state["step"].device == torch.device("cpu")
            assert state["step"].dtype == torch.float32


def test_what_was_trained_on_is_named_in_the_checkpoint(finished):
    state = json.loads((finished.checkpoints / "checkpoint_step_3" / "training_state.json").read_text())
    store = (finished.folder / "store" / "manifest.json").read_bytes()
    assert state["identity"]["store_id"] == hashlib.sha256(store).hexdigest()
