"""A run that is killed, stopped or broken off goes on, and ends with the bits of one that was left alone."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch

PLUG_IN = """
import json, signal
from pathlib import Path
from pydantic import BaseModel
from havoc_core.errors import TrainingError

class Options(BaseModel): ...

class Tracker:
    def started(self, facts): ...
    def validated(self, record): ...
    def summarized(self, summary): ...
    def closed(self): ...
    def stepped(self, record):
        for step, what in json.loads(Path(__file__).with_name("plan.json").read_text()):
            if step == record.step:
                if what == "bug": raise ZeroDivisionError("of our own")
                if what == "error": raise TrainingError("somewhere", "went wrong.", "Mend it.")
                signal.raise_signal(getattr(signal, what))

def build(settings, options): return Tracker()
"""


@pytest.fixture
def plan(here, monkeypatch):
    """A tracker that does something at given steps: a signal to this process, or an error."""
    name = f"mine_{uuid.uuid4().hex}"
    (here / name).mkdir()
    (here / name / "__init__.py").touch()
    (here / name / "tracker.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(here)

    def make(*events):
        (here / name / "plan.json").write_text(json.dumps(events))
        return {"trackers": [f"{name}.tracker"]}

    yield make
    for module in [each for each in sys.modules if each.startswith(name)]:
        del sys.modules[module]


@pytest.fixture
def settings(here, config, dummy_sources, copy_store):
    """A config whose text is ready, for runs in `run`."""
    copy_store(here / "run")
    return config(data={"sources": dummy_sources})


def ending(run, step):
    folder = Path(run) / "checkpoints" / f"checkpoint_step_{step}"
    state = json.loads((folder / "training_state.json").read_text())
    return state["chain"], torch.load(folder / "model.pt", weights_only=True)


def same(one, other):
    return one[0] == other[0] and all(torch.equal(values, other[1][name]) for name, values in one[1].items())


def steps_in(metrics):
    lines = [json.loads(line) for line in Path(metrics).read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "train"]


def with_tracker(here, path, tracking):
    (here / "tracked.yaml").write_text(
        (here / path).read_text().replace("trackers: []", f"trackers: {tracking['trackers']}")
    )
    return "tracked.yaml"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_says_how_to_go_on_and_going_on_gives_the_same_bits(name, here, havoc, settings, plan, finished):
    said = havoc("train", "--config", with_tracker(here, settings, plan([4, name])))
    assert said.code == {"SIGINT": 130, "SIGTERM": 143}[name]
    assert "Stopping after this step; saving checkpoint_interrupted. Ctrl+C again stops at once." in said.out
    assert "Saved run/checkpoints/checkpoint_interrupted after 4 steps. Continue with:" in said.out
    command = "python scripts/train.py --resume run/checkpoints/checkpoint_interrupted"
    assert f"    {command}\n" in said.out
    plan()  # nothing more happens
    assert havoc("train", *command.split()[2:]).code == 0
    assert same(ending("run", 6), ending(finished, 6))
    assert steps_in("run/logs/metrics.jsonl") == [1, 2, 3, 4, 5, 6]


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing(here, havoc, settings, plan, finished):
    said = havoc("train", "--config", with_tracker(here, settings, plan([4, "SIGINT"], [4, "SIGINT"])))
    assert said.code == 130
    assert said.err == "\nStopped.\n"
    assert {path.name for path in (here / "run" / "checkpoints").iterdir()} == {"checkpoint_step_3", "checkpoint_best"}
    assert havoc("train", "--config", settings, "--resume", "auto").code == 0
    assert same(ending("run", 6), ending(finished, 6))


def test_sigterm_twice_is_not_taken_for_impatience(here, havoc, settings, plan):
    said = havoc("train", "--config", with_tracker(here, settings, plan([4, "SIGTERM"], [4, "SIGTERM"])))
    assert said.code == 143
    assert (here / "run" / "checkpoints" / "checkpoint_interrupted").is_dir()


def test_an_error_between_updates_saves_checkpoint_error_shows_the_error_and_can_be_resumed(
    here, havoc, settings, plan, finished
):
    said = havoc("train", "--config", with_tracker(here, settings, plan([4, "error"])))
    assert said.code == 1
    assert said.message == "TrainingError  somewhere: went wrong. Mend it."
    assert "Saved run/checkpoints/checkpoint_error (after 4 steps)." in said.out
    said = havoc("train", "--config", settings, "--resume", "auto")
    assert "Resuming from run/checkpoints/checkpoint_error." in said.out
    assert same(ending("run", 6), ending(finished, 6))


def test_a_bug_saves_checkpoint_error_keeps_its_traceback_and_is_not_gone_on_from(
    here, havoc, settings, plan, finished
):
    with pytest.raises(ZeroDivisionError, match="of our own"):
        havoc("train", "--config", with_tracker(here, settings, plan([4, "bug"])))
    assert (here / "run" / "checkpoints" / "checkpoint_error" / "model.pt").is_file()
    said = havoc("train", "--config", settings, "--resume", "auto")
    assert "Resuming from run/checkpoints/checkpoint_step_3." in said.out
    assert same(ending("run", 6), ending(finished, 6))


def test_a_run_that_diverges_says_what_to_change(here, havoc, settings):
    said = havoc("train", "--config", settings, "--model.initializer-range", "1e30")
    assert said.code == 1
    assert said.message.startswith("TrainingError  loss: is ")
    assert "training has diverged." in said.message
    assert "Lower learning_rate, lengthen warmup_steps, or check the data." in said.message


def damage(folder):
    path = folder / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_newest_checkpoint_is_named_and_passed_over_by_auto_and_refused_by_name(
    here, havoc, settings, finished
):
    assert havoc("train", "--config", settings).code == 0
    newest = here / "run" / "checkpoints" / "checkpoint_step_6"
    damage(newest)
    said = havoc("train", "--config", settings, "--resume", newest)
    assert said.code == 1
    assert "optimizer.pt: its checksum is not the manifest's." in said.message
    said = havoc("train", "--config", settings, "--resume", "auto")
    assert said.code == 0, said.err
    assert "Passed over: run/checkpoints/checkpoint_step_6/optimizer.pt: its checksum" in said.out
    assert "Resuming from run/checkpoints/checkpoint_step_3." in said.out
    assert same(ending("run", 6), ending(finished, 6))


def test_where_every_checkpoint_is_damaged_nothing_is_overwritten(here, havoc, settings, contents):
    assert havoc("train", "--config", settings).code == 0
    for step in (3, 6):
        damage(here / "run" / "checkpoints" / f"checkpoint_step_{step}")
    before = contents(here / "run" / "checkpoints")
    said = havoc("train", "--config", settings, "--resume", "auto")
    assert said.code == 1
    assert "checkpoints: none of the checkpoints in it is whole." in said.message
    assert "--run-dir NEW" in said.message
    assert contents(here / "run" / "checkpoints") == before


def test_a_checkpoint_that_was_being_written_when_the_machine_stopped_is_passed_over_and_replaced(
    here, havoc, settings
):
    assert havoc("train", "--config", settings, "--max-steps", "3").code == 0
    folder = here / "run" / "checkpoints"
    for name in (".checkpoint_step_6.writing", ".checkpoint_interrupted.writing"):
        shutil.copytree(folder / "checkpoint_step_3", folder / name)
        (folder / name / "manifest.json").unlink()
    said = havoc("train", "--config", settings, "--resume", "auto")
    assert said.code == 0, said.err
    assert "Resuming from run/checkpoints/checkpoint_step_3." in said.out
    assert not (folder / ".checkpoint_step_6.writing").exists()


def test_no_room_for_a_checkpoint_ends_the_run_with_one_message_and_the_older_one_whole(
    here, havoc, settings, contents
):
    """A limit on the size of a file stands for the full disk: 100 kB is enough for metrics and too little for weights.

    Regression: every line for train.log that found no room put a traceback on the screen.
    """
    assert havoc("train", "--config", settings, "--max-steps", "3").code == 0
    older = here / "run" / "checkpoints" / "checkpoint_step_3"
    before = contents(older)
    with (here / "run" / "logs" / "train.log").open("a") as file:
        file.write("as full as the disk\n" * 5000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        said = havoc("train", "--config", settings, "--resume", "auto", "--eval-every-n-steps", "100")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said.code == 1
    assert said.message.startswith("CheckpointError  run/checkpoints/checkpoint_")
    assert "cannot be written (" in said.message
    assert "Earlier checkpoints are untouched." in said.message
    assert "checkpoint_error could not be saved: " in said.out
    assert contents(older) == before
    assert havoc("train", "--config", settings, "--resume", "auto").code == 0


def test_no_room_for_the_store_is_one_message_and_the_old_store_stays(here, havoc, settings, contents):
    """Regression: a full disk while the text was collected ended in a traceback."""
    before = contents(here / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        said = havoc("data", "build", "--config", settings, "--data.validation-fraction", "0.3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said.code == 1, said.out
    assert "Traceback" not in said.err
    assert "cannot be written (File too large). Free some disk and call it again." in said.err
    after = contents(here / "run")
    assert before.items() <= after.items(), "what was there is as it was"
    assert not [name for name in after if ".writing" in name], "nor is anything half-written left to fill the disk"
    assert havoc("data", "build", "--config", settings).code == 0


def read_to(out, step):
    """Read what a process says until it has made a step; gives what it said, and whether it still runs."""
    said = []
    for line in out:
        said.append(line)
        words = line.replace("DUMMY DATA", "").split()
        if words[:1] == ["step"] and int(words[1].split("/")[0]) >= step:
            return "".join(said), True
    return "".join(said), False


TRAIN = """
import os, sys
from havoc_cli.main import main
os.chdir({folder!r})
sys.exit(main(["train", *{arguments!r}]))
"""


@pytest.mark.slow
def test_killed_at_ten_random_moments_a_run_ends_with_the_bits_of_one_that_was_left_alone(
    here, havoc, settings, process, forked, copy_store
):
    draw = random.Random(20260731)
    flags = ["--max-steps", "160", "--save-every-n-steps", "7", "--eval-every-n-steps", "10"]
    copy_store(here / "whole")
    whole = havoc("train", "--config", settings, "--run-dir", "whole", *flags)
    assert whole.code == 0, whole.err
    resuming = ["--config", settings, "--resume", "auto", *flags]
    kills, step = 0, 0
    for attempt in range(10):
        if attempt % 5 == 4:  # while it starts, loads or has just begun
            run = process("train", *resuming)
            time.sleep(draw.uniform(0.2, 3.0))
            run.send_signal(signal.SIGKILL)
            run.communicate()
            code = run.returncode
        else:
            run, out = forked(TRAIN.format(folder=str(here), arguments=resuming))
            said, alive = read_to(out, step + draw.randint(1, 20))
            assert alive, said
            time.sleep(draw.uniform(0.0, 0.03))  # somewhere in a step, a validation or a checkpoint
            run.kill()
            run.join()
            out.close()
            code = run.exitcode
        assert code == -signal.SIGKILL
        kills += 1
        steps = sorted(
            int(path.name.rsplit("_", 1)[1]) for path in (here / "run" / "checkpoints").glob("checkpoint_step_*")
        )
        step = steps[-1] if steps else 0
        assert step < 140, "there is something left to be killed"
    last = havoc("train", *resuming)
    assert (kills, last.code) == (10, 0), last.err
    assert same(ending("run", 160), ending("whole", 160))
    assert steps_in("run/logs/metrics.jsonl") == list(range(1, 161))
    assert [path.name for path in (here / "run" / "checkpoints").iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_real_signals_to_a_real_process_give_its_exit_codes(here, settings, process):
    flags = ["--max-steps", "5000", "--save-every-n-steps", "5000", "--eval-every-n-steps", "5000"]
    step = 0
    for name, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        run = process("train", "--config", settings, "--resume", "auto", *flags)
        read_to(run.stdout, step + 3)
        run.send_signal(name)
        rest, _ = run.communicate()
        assert run.returncode == code, rest
        assert "Continue with:" in rest
        state = json.loads(
            (here / "run" / "checkpoints" / "checkpoint_interrupted" / "training_state.json").read_text()
        )
        assert state["step"] >= step + 3
        step = state["step"]
