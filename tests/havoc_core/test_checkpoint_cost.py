"""A checkpoint costs little: written in memory for one tensor, read through once in a process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from havoc_core import checkpoint
from havoc_core.errors import CheckpointError
from havoc_core.tensor_file import TensorSource

ALL = ["model.pt", "optimizer.pt", "training_state.json", "config.json", "tokenizer/tokenizer.json"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "checkpoint_step_3"
    with checkpoint.writing(folder) as inside:
        checkpoint.save_tensors(inside / "model.pt", {"w": torch.arange(6.0)})
        checkpoint.save_tensors(inside / "optimizer.pt", {"w": {"master": torch.arange(6.0)}})
        checkpoint.save_json(inside / "training_state.json", {"step": 3})
        (inside / "config.json").write_text("{}\n")
        (inside / "tokenizer").mkdir()
        (inside / "tokenizer" / "tokenizer.json").write_text("{}\n")
    return folder


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def refusal(folder, call=checkpoint.verify):
    with pytest.raises(CheckpointError) as caught:
        call(folder)
    assert caught.value.remedy
    return caught.value


def test_sources_are_written_where_they_stand_and_plain_values_as_torch_does(tmp_path):
    folder = tmp_path / "checkpoint_step_1"
    made = TensorSource((2, 2), torch.bfloat16, lambda out: out.copy_(torch.eye(2)))
    with checkpoint.writing(folder) as inside:
        checkpoint.save_tensors(inside / "model.pt", {"w": made})
        checkpoint.save_tensors(inside / "optimizer.pt", {"w": {"master": made, "step": torch.tensor(3.0), "n": 4}})
        checkpoint.save_tensors(inside / "scheduler.pt", {"step": 3, "rates": torch.ones(2)})
        checkpoint.save_json(inside / "training_state.json", {"step": 1})
        (inside / "config.json").write_text("{}")
    checkpoint.verify(folder)
    assert torch.equal(checkpoint.load_tensors(folder, "model.pt")["w"], torch.eye(2, dtype=torch.bfloat16))
    state = checkpoint.load_tensors(folder, "optimizer.pt")["w"]
    assert torch.equal(state["master"], torch.eye(2, dtype=torch.bfloat16))
    assert (state["step"].item(), state["n"]) == (3.0, 4)
    with (tmp_path / "as_torch.pt").open("wb") as file:
        torch.save({"step": 3, "rates": torch.ones(2)}, file)
    assert (folder / "scheduler.pt").read_bytes() == (tmp_path / "as_torch.pt").read_bytes()


@pytest.mark.parametrize(
    ("error", "becomes", "says"),
    [
        (OSError(28, "x"), CheckpointError, "No space left on device"),
        (RuntimeError("CUDA error: unknown"), CheckpointError, "CUDA error: unknown"),
        (KeyError("mine"), KeyError, "mine"),
        (KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
    ],
)
def test_a_source_that_fails_leaves_the_old_one_and_nothing_beside(folder, error, becomes, says):
    def fail(out):
        raise error

    with pytest.raises(becomes, match=says) as caught, checkpoint.writing(folder) as inside:
        checkpoint.save_tensors(inside / "model.pt", {"a": torch.ones(9), "b": TensorSource((3,), torch.float32, fail)})
    if becomes is CheckpointError:
        assert caught.value.where == str(folder)
        assert "Earlier checkpoints are untouched." in caught.value.remedy
    checkpoint.verify(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_disk_that_takes_no_more_while_sources_are_written_is_said(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(out):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with (
            pytest.raises(CheckpointError, match="cannot be written .File too large."),
            checkpoint.writing(folder) as inside,
        ):
            checkpoint.save_tensors(inside / "model.pt", {"w": TensorSource((100_000,), torch.float32, fill)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    checkpoint.verify(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_file_that_is_too_long_to_be_mapped_is_not_called_damaged(folder):
    """Regression: 80 GB of states on a machine with 64 GB. Here the process may not take another 2 GB of addresses."""
    with (folder / "optimizer.pt").open("wb") as file, torch.serialization.skip_data():
        torch.save([torch.empty(2**31, dtype=torch.int8)], file)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, hard))
    try:
        error = refusal(folder, lambda where: checkpoint.load_tensors(where, "optimizer.pt"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert error.where == str(folder / "optimizer.pt")
    assert "cannot be read (" in error.found
    assert "Cannot allocate memory" in error.found
    assert error.remedy.startswith("The system reserves memory for all of it: add swap, or set vm.overcommit_memory")


def test_a_file_that_changed_just_now_is_read_again_whatever_its_times_say(folder):
    """A change within one tick of the file system's clock, which goes in steps of milliseconds or more."""
    checkpoint.verify(folder)
    times = (folder / "model.pt").stat()
    flip(folder / "model.pt", -1)
    os.utime(folder / "model.pt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert refusal(folder).found == "its checksum is not the manifest's."


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_changed_after_it_was_verified_is_found(folder, name):
    def call(where):
        return checkpoint.verify(where, settled_s=-1.0)

    assert call(folder) == call(folder)
    flip(folder / name, -1)
    os.utime(folder / name, ns=(1, 1))
    assert refusal(folder, call).found == "its checksum is not the manifest's."
    assert refusal(folder, call).found == "its checksum is not the manifest's."
    flip(folder / name, -1)
    call(folder)


READS = """
import os, sys
from pathlib import Path
from havoc_core import checkpoint

folder = Path(sys.argv[1])
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)

def reads(**settled):
    opened.clear()
    checkpoint.verify(folder, **settled)
    return sum(name.endswith(".pt") for name in opened)

print(reads(settled_s=3600.0), reads(settled_s=3600.0), reads(settled_s=-1.0), reads(settled_s=-1.0), reads(settled_s=-1.0))
os.utime(folder / "model.pt", ns=(1, 1))
print(reads(settled_s=-1.0), reads(settled_s=-1.0))
os.chdir(folder.parent)
folder = Path(folder.name)
print(reads(settled_s=-1.0))
"""


def test_a_file_that_stays_as_it_is_is_read_once_in_a_process(folder):
    """Regression: `--resume auto` read every checkpoint three times. A new file is read until its times have settled."""
    done = subprocess.run([sys.executable, "-c", READS, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == [2, 2, 2, 0, 0, 1, 0, 0]
