"""`havoc checkpoint list | verify`."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize("part", ["", "checkpoints"])
def test_list_shows_every_checkpoint_of_a_run_with_step_size_and_score(part, havoc, finished_run):
    said = havoc("checkpoint", "list", finished_run / part)
    assert said.code == 0
    rows = said.out.splitlines()
    assert [row.split()[0].rsplit("/", 1)[1] for row in rows] == [
        "checkpoint_step_3", "checkpoint_step_6", "checkpoint_best",
    ]  # fmt: skip
    for row, step in zip(rows, (3, 6), strict=False):
        assert f"step {step}  " in row
        assert "MiB" in row and "best validation loss" in row


@pytest.mark.parametrize(
    "content", [b"{ half", b"{}", b"[]", b'{"step": null, "best_loss": null}', b'{"step": "x"}', b"\xff"]
)
def test_list_names_a_damaged_checkpoint_and_goes_on(content, havoc, run_copy):
    """Regression: a state that is JSON, but not ours, ended in a traceback."""
    (run_copy / "checkpoints" / "checkpoint_step_3" / "training_state.json").write_bytes(content)
    said = havoc("checkpoint", "list", run_copy)
    assert said.code == 0
    rows = {row.split()[0].rsplit("/", 1)[1]: row for row in said.out.splitlines()}
    assert "  damaged: " in rows["checkpoint_step_3"]
    assert "step 6  " in rows["checkpoint_step_6"]


def test_list_passes_over_what_was_being_written_when_the_machine_stopped(havoc, run_copy):
    (run_copy / "checkpoints" / ".checkpoint_step_9.writing").mkdir()
    said = havoc("checkpoint", "list", run_copy)
    assert (said.code, len(said.out.splitlines())) == (0, 3)


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_without_checkpoints_is_named(folder, havoc):
    said = havoc("checkpoint", "list", folder)
    assert said.code == 1
    assert said.message == f"CheckpointError  {folder}: holds no checkpoints. Train first: havoc run, or havoc train."


def test_verify_counts_the_files_that_are_as_they_were_written(havoc, finished_run):
    folder = finished_run / "checkpoints" / "checkpoint_step_6"
    said = havoc("checkpoint", "verify", folder)
    files = len(json.loads((folder / "manifest.json").read_text())["files"])
    assert (said.code, said.out) == (0, f"{folder}: {files} files, all as they were written.\n")


def test_verify_names_the_file_in_which_a_single_bit_has_changed(havoc, run_copy):
    path = run_copy / "checkpoints" / "checkpoint_step_6" / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = havoc("checkpoint", "verify", path.parent)
    assert said.code == 1
    assert "optimizer.pt: its checksum is not the manifest's." in said.message
    assert "use another checkpoint: havoc checkpoint list" in said.message
