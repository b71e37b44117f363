"""The checkpoint format: whole or not there, and every damage found."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch

from havoc_core import checkpoint
from havoc_core.errors import CheckpointError

FILES = {
    "model.pt": {"w": torch.arange(6.0)},
    "optimizer.pt": {"w": {"master": torch.arange(6.0), "step": torch.tensor(3.0)}},
    "scheduler.pt": {"step": 3},
    "random_states.pt": {"torch": torch.arange(16, dtype=torch.uint8)},
}
ALL = [*FILES, "training_state.json", "config.json", "tokenizer/tokenizer.json"]


def write(folder, *, step=3):
    with checkpoint.writing(folder) as inside:
        for name, values in FILES.items():
            checkpoint.save_tensors(inside / name, values)
        checkpoint.save_json(inside / "training_state.json", {"step": step})
        (inside / "config.json").write_text("{}\n")
        (inside / "tokenizer").mkdir()
        (inside / "tokenizer" / "tokenizer.json").write_text('{"π": 1}\n', encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "checkpoint_step_3")
    return tmp_path / "checkpoint_step_3"


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def refusal(folder, call=checkpoint.verify):
    with pytest.raises(CheckpointError) as caught:
        call(folder)
    assert caught.value.remedy
    return caught.value


def test_what_was_written_is_whole_and_can_be_read(folder):
    manifest = checkpoint.verify(folder)
    assert sorted(manifest.files) == sorted(ALL)
    assert torch.equal(checkpoint.load_tensors(folder, "model.pt")["w"], torch.arange(6.0))
    assert checkpoint.load_json(folder, "training_state.json") == {"step": 3}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_manifest_says_format_versions_sizes_and_sums(folder):
    values = json.loads((folder / "manifest.json").read_text())
    assert (values["format"], values["version"], values["config_version"]) == ("havoc-checkpoint", 1, 1)
    size, digest = values["files"]["model.pt"]
    assert size == (folder / "model.pt").stat().st_size
    assert len(digest) == 64


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("where", [0, 0.5, -1])
def test_one_flipped_bit_in_any_file_is_found(folder, name, where):
    path = folder / name
    flip(path, int(where * path.stat().st_size) if where == 0.5 else where)
    error = refusal(folder)
    assert error.where == str(path)
    assert "checksum" in error.found


def test_one_flipped_bit_anywhere_in_the_manifest_is_found(folder):
    """Regression: a damaged name of the list of files ended in a KeyError."""
    path = folder / "manifest.json"
    good = path.read_bytes()
    for at in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[at] ^= 1 << (at % 7)
        path.write_bytes(damaged)
        refusal(folder)
    path.write_bytes(good)
    checkpoint.verify(folder)


@pytest.mark.parametrize("files", [None, [], {"model.pt": 3}, {"model.pt": ["x", "y"]}, {"model.pt": [1]}])
def test_a_list_of_files_that_is_none_is_refused(folder, files):
    values = {**json.loads((folder / "manifest.json").read_text()), "files": files}
    (folder / "manifest.json").write_text(json.dumps(values))
    if files == []:
        values.pop("files")
        (folder / "manifest.json").write_text(json.dumps(values))
    assert "list of files is damaged" in refusal(folder, checkpoint.read_manifest).found


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_is_cut_short_is_found(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    error = refusal(folder)
    assert "bytes, the manifest says" in error.found
    assert error.where == str(path)


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_is_missing_is_found(folder, name):
    (folder / name).unlink()
    assert refusal(folder).found == "is missing."


def test_a_link_is_refused_even_if_its_target_is_right(folder, tmp_path):
    (folder / "model.pt").rename(tmp_path / "elsewhere.pt")
    (folder / "model.pt").symlink_to(tmp_path / "elsewhere.pt")
    assert "is a link" in refusal(folder).found


def test_a_linked_folder_inside_is_refused(folder, tmp_path):
    (folder / "tokenizer").rename(tmp_path / "elsewhere")
    (folder / "tokenizer").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refusal(folder).found


def test_a_name_that_leads_out_of_the_folder_is_refused(folder):
    (folder.parent / "secret").write_text("x")
    values = json.loads((folder / "manifest.json").read_text())
    values["files"]["../secret"] = [1, "0" * 64]
    (folder / "manifest.json").write_text(json.dumps(values))
    refusal(folder)


def list_files(folder, change):
    """Rewrite the manifest's list of files."""
    values = json.loads((folder / "manifest.json").read_text())
    change(values["files"])
    (folder / "manifest.json").write_text(json.dumps(values))


@pytest.mark.parametrize("name", ["model.pt", "training_state.json", "config.json"])
def test_a_manifest_that_lacks_what_every_checkpoint_has_is_refused(folder, name):
    (folder / name).unlink()
    list_files(folder, lambda files: files.pop(name))
    error = refusal(folder)
    assert error.where == str(folder / name)
    assert error.found == "belongs to every checkpoint, and the manifest lacks it."
    assert "It is damaged; use another checkpoint" in error.remedy


@pytest.mark.parametrize("name", ["scaler.pt", "tokenizer/tokenizer.model", "tokenizer/manifest.json", ".hidden"])
def test_a_file_that_the_manifest_does_not_list_is_refused(folder, name):
    (folder / name).write_bytes(b"x")
    error = refusal(folder)
    assert error.where == str(folder / name)
    assert error.found == "is not in the manifest, so nothing vouches for it."


def test_an_empty_list_of_files_is_refused(folder):
    """Regression: with `files: {}` nothing was compared, and any weights passed."""
    list_files(folder, dict.clear)
    assert "is not in the manifest" in refusal(folder).found


@pytest.mark.parametrize("name", ["scaler.pt", "tokenizer/more", "manifest.json"])
def test_a_link_that_the_manifest_does_not_list_is_refused(folder, tmp_path, name):
    if name == "manifest.json":
        (folder / name).rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").mkdir()
    (folder / name).symlink_to(tmp_path / "elsewhere")
    error = refusal(folder)
    assert (error.where, error.found) == (str(folder / name), "is a link, and a checkpoint follows none.")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    assert "there is no such folder" in refusal(tmp_path / "none", checkpoint.read_manifest).found
    assert "no manifest.json" in refusal(tmp_path, checkpoint.read_manifest).found
    (tmp_path / "manifest.json").write_text('{"format": "another"}')
    assert "is no checkpoint of HAVOC" in refusal(tmp_path, checkpoint.read_manifest).found
    (tmp_path / "manifest.json").write_text("[1]")
    assert "is no checkpoint of HAVOC" in refusal(tmp_path, checkpoint.read_manifest).found
    (tmp_path / "manifest.json").write_text("{")
    assert "cannot be read" in refusal(tmp_path, checkpoint.read_manifest).found


@pytest.mark.parametrize("key", ["version", "config_version"])
def test_another_version_is_refused_with_both_numbers(folder, key):
    values = {**json.loads((folder / "manifest.json").read_text()), key: 9}
    (folder / "manifest.json").write_text(json.dumps(values))
    error = refusal(folder)
    assert "version 9" in error.found
    assert "this HAVOC reads 1 and 1" in error.found
    assert "Use the HAVOC that wrote it." in error.remedy


def test_a_file_that_runs_code_is_never_run(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "went_off"),)

    torch.save({"w": Bomb()}, folder / "model.pt")
    error = refusal(folder, lambda where: checkpoint.load_tensors(where, "model.pt"))
    assert "cannot be read" in error.found
    (folder / "model.pt").write_bytes(pickle.dumps(Bomb()))
    refusal(folder, lambda where: checkpoint.load_tensors(where, "model.pt"))
    assert not (tmp_path / "went_off").exists()


def test_missing_and_damaged_tensors_and_json_are_named(folder):
    assert refusal(folder, lambda where: checkpoint.load_tensors(where, "scaler.pt")).found == "is missing."
    (folder / "model.pt").write_bytes(b"")
    assert "cannot be read" in refusal(folder, lambda where: checkpoint.load_tensors(where, "model.pt")).found
    (folder / "training_state.json").write_bytes(b"{\xff")
    assert "cannot be read" in refusal(folder, lambda where: checkpoint.load_json(where, "training_state.json")).found


def test_an_error_inside_the_block_leaves_the_old_one_whole(folder):
    with pytest.raises(KeyboardInterrupt), checkpoint.writing(folder) as inside:
        checkpoint.save_json(inside / "training_state.json", {"step": 99})
        raise KeyboardInterrupt
    checkpoint.verify(folder)
    assert checkpoint.load_json(folder, "training_state.json") == {"step": 3}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "error", [OSError(28, "x"), RuntimeError("enforce fail at inline_container.cc"), RuntimeError()]
)
def test_what_cannot_be_written_is_a_checkpoint_error_and_leaves_the_old_one(folder, error):
    with pytest.raises(CheckpointError, match="cannot be written") as caught, checkpoint.writing(folder):
        raise error
    assert caught.value.where == str(folder)
    assert "Earlier checkpoints are untouched." in caught.value.remedy
    if isinstance(error, OSError):
        assert "No space left" in caught.value.found
        assert "keep_last_n_checkpoints" in caught.value.remedy
    checkpoint.verify(folder)


def test_replacing_gives_the_new_one_and_leaves_nothing_beside(folder):
    write(folder, step=4)
    checkpoint.verify(folder)
    assert checkpoint.load_json(folder, "training_state.json") == {"step": 4}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_replacement_cut_off_between_two_renames_is_read_from_old(folder):
    folder.rename(folder.with_name(folder.name + ".old"))
    checkpoint.verify(folder)
    assert checkpoint.load_json(folder, "training_state.json") == {"step": 3}
    assert checkpoint.step_checkpoints(folder.parent) == [folder.with_name(folder.name + ".old")]
    write(folder, step=5)
    assert checkpoint.load_json(folder, "training_state.json") == {"step": 5}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_new_one_wins_over_what_an_old_crash_left(folder):
    write(folder.with_name(folder.name + ".old"), step=1)
    assert checkpoint.resolve(folder) == folder
    assert checkpoint.step_checkpoints(folder.parent) == [folder]


def test_remains_of_a_killed_writer_are_in_nobodys_way(folder):
    beside = folder.with_name(f".{folder.name}.writing")
    beside.mkdir()
    (beside / "half.pt").write_bytes(b"half")
    assert checkpoint.step_checkpoints(folder.parent) == [folder]
    write(folder, step=6)
    assert "half.pt" not in checkpoint.verify(folder).files
    assert not beside.exists()


def test_step_checkpoints_come_oldest_first_by_number(tmp_path):
    for name in (
        "checkpoint_step_10",
        "checkpoint_step_9",
        "checkpoint_best",
        "checkpoint_step_x",
        ".checkpoint_step_1.writing",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint_step_3").write_text("a file")
    assert [path.name for path in checkpoint.step_checkpoints(tmp_path)] == ["checkpoint_step_9", "checkpoint_step_10"]
    assert checkpoint.step_checkpoints(tmp_path / "none") == []
    assert checkpoint.step_of(tmp_path / "checkpoint_step_12.old") == 12
    assert checkpoint.step_of(tmp_path / "checkpoint_best") is None


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from havoc_core import checkpoint

base = Path(sys.argv[1])
folder = base / "checkpoint_best"

def write(step):
    with checkpoint.writing(folder) as inside:
        checkpoint.save_json(inside / "training_state.json", {"step": step})
        checkpoint.save_json(inside / "config.json", {})
        checkpoint.save_json(inside / "model.pt", {})

def die_at(moment):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event not in ("open", "os.rename", "shutil.rmtree", "os.remove", "os.rmdir", "os.mkdir"):
            return
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for moment in range(1, 90):
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    write(3)
    child = os.fork()
    if child == 0:
        die_at(moment)
        write(4)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    checkpoint.verify(folder)
    print(moment, checkpoint.load_json(folder, "training_state.json")["step"], status)
    if status == 0:
        break
"""


def test_a_kill_at_any_moment_leaves_one_whole_checkpoint(tmp_path):
    """The writer is killed at its first, second, third … file operation, until it comes through."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "a")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [tuple(int(part) for part in line.split()) for line in done.stdout.splitlines()]
    assert len(lines) > 10
    assert [status for *_, status in lines] == [signal.SIGKILL] * (len(lines) - 1) + [0]
    steps = [step for _, step, _ in lines]
    assert steps == sorted(steps)
    assert set(steps) == {3, 4}


FULL = """
import resource, sys
from pathlib import Path
import torch
from havoc_core import checkpoint
from havoc_core.errors import CheckpointError

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with checkpoint.writing(folder) as inside:
        checkpoint.save_tensors(inside / "model.pt", {"w": torch.zeros(100_000)})
except CheckpointError as error:
    print(error)
    sys.exit(7)
"""


def test_a_disk_that_takes_no_more_is_said_and_the_old_one_stays(folder):
    done = subprocess.run([sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "cannot be written" in done.stdout
    assert "Earlier checkpoints are untouched." in done.stdout
    checkpoint.verify(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_may_not_be_written_to_is_said(tmp_path):
    (tmp_path / "checkpoints").write_text("a file is in the way")
    with pytest.raises(CheckpointError, match="cannot be written") as caught:
        write(tmp_path / "checkpoints" / "checkpoint_step_1")
    assert "checkpoint_dir" in caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_missing_permission_is_said(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="Permission denied") as caught:
            write(tmp_path / "checkpoint_step_1")
        assert "Choose a folder that you may write to" in caught.value.remedy
    finally:
        tmp_path.chmod(0o700)
