"""metrics.jsonl and the screen."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys

import pytest

from havoc_core.device import MemoryPeaks
from havoc_training.metrics import PartSummary, TimeLedger, Utilisation
from havoc_training.observers import MetricsFile, RunFacts, Screen, StepRecord, ValidationRecord


def stepped(step, **changes):
    values = {
        "step": step, "loss": 2.5, "learning_rate": 1e-3, "grad_norm": 0.5, "scored_tokens": 1000, "seconds": 0.5,
        "memory_bytes": 2**30, "epoch": 0.25, "batch_hash": "ab", "slots": (8, 12), "first_slot": 4,
        "overflow": False,
    }  # fmt: skip
    return StepRecord(**{**values, **changes})


def validated(step):
    groups = {"domain": {"loss": 2.0, "perplexity": 7.4, "bits_per_byte": 1.25}}
    return ValidationRecord(step, 2.0, 7.4, 1.25, groups, 0.1, True)


def summarized(**changes):
    values = {
        "first_step": 4, "step": 10, "scored_tokens": 6000,
        "time": TimeLedger(updates=3000.0, data=2.0, compile=40.0, validation=300.0, checkpoints=0.1, other=57.9),
        "steady_tokens_per_s": 31_900.0, "overall_tokens_per_s": 29_800.0,
        "utilisation": Utilisation(mfu=0.412, hfu=0.521, mfu_measured=0.6, hfu_measured=0.75),
        "memory": MemoryPeaks(3 * 2**30, 4 * 2**30, 5 * 2**30),
    }  # fmt: skip
    return PartSummary(**{**values, **changes})


def facts(first_step=0, *, dummy=False):
    return RunFacts(10, first_step, "what begins", {}, dummy)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_step_and_validation_has_a_line_at_once(tmp_path):
    path = tmp_path / "logs" / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.started(facts())
    metrics.stepped(stepped(1))
    assert len(lines(path)) == 1
    metrics.validated(validated(1))
    metrics.closed()
    first, second = lines(path)
    assert (first["kind"], first["step"], first["tokens"], first["tokens_per_s"]) == ("train", 1, 1000, 2000.0)
    assert {"loss", "learning_rate", "grad_norm", "memory_bytes", "epoch", "batch_hash", "overflow", "time"} <= set(
        first
    )
    assert (first["slots"], first["first_slot"]) == ([8, 12], 4)
    assert (first["data_seconds"], first["mfu"], first["memory_used"]) == (0.0, None, None)
    assert (second["kind"], second["bits_per_byte"], second["groups"]["domain"]["loss"]) == ("validation", 1.25, 2.0)


def test_lines_beyond_the_resumed_step_are_moved_aside(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in range(1, 6):
        metrics.stepped(stepped(step))
    metrics.validated(validated(5))
    metrics.started(facts(first_step=3))
    assert [line["step"] for line in lines(path)] == [1, 2, 3, 3]
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl.1")] == [4, 5, 5]
    metrics.stepped(stepped(4))
    metrics.started(facts(first_step=2))
    assert [line["step"] for line in lines(path)] == [1, 2, 2]
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl.2")] == [3, 3, 4]
    metrics.started(facts(first_step=2))
    assert not (tmp_path / "metrics.jsonl.3").exists()


def test_the_time_that_was_lost_by_a_kill_is_written_down_and_added_up(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in range(1, 6):
        metrics.stepped(stepped(step, seconds=0.5))
    metrics.validated(validated(5))
    metrics.started(facts(first_step=3))
    assert lines(path)[-1] == {"kind": "redone", "step": 3, "seconds": pytest.approx(2 * 0.5 + 0.1)}
    metrics.stepped(stepped(4, seconds=0.5))
    metrics.started(facts(first_step=2))  # back once more: what was lost the first time stays lost
    assert lines(path)[-1] == {"kind": "redone", "step": 2, "seconds": pytest.approx(1.1 + 2 * 0.5)}


def test_a_fresh_start_moves_everything_aside(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.stepped(stepped(1))
    metrics.started(facts())
    assert lines(tmp_path / "metrics.jsonl") == []
    assert len(lines(tmp_path / "metrics.jsonl.1")) == 1


def test_a_line_that_a_kill_cut_short_is_moved_aside_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.stepped(stepped(1))
    with path.open("a") as file:
        file.write('{"kind": "train", "step": 1, "lo')
    metrics.started(facts(first_step=1))
    assert [line["step"] for line in lines(path)] == [1]
    assert (tmp_path / "metrics.jsonl.1").read_text().startswith('{"kind": "train", "step": 1, "lo')


def test_numbers_that_are_not_finite_are_null(tmp_path):
    """Regression: a gradient norm of inf was written as Infinity, which is no JSON."""
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.stepped(stepped(1, grad_norm=math.inf, loss=math.nan, overflow=True))
    groups = {"domain": {"loss": 900.0, "perplexity": math.inf, "bits_per_byte": -math.inf}}
    metrics.validated(ValidationRecord(1, 900.0, math.inf, 1.0, groups, 0.1, False))
    assert not any(word in path.read_text() for word in ("Infinity", "NaN"))
    first, second = lines(path)
    assert (first["grad_norm"], first["loss"], first["learning_rate"]) == (None, None, 1e-3)
    assert second["perplexity"] is None
    assert second["groups"] == {"domain": {"loss": 900.0, "perplexity": None, "bits_per_byte": None}}


def test_what_is_known_of_speed_and_memory_is_in_the_line_of_a_step(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    known = {
        "data_seconds": 0.1, "mfu": 0.4, "mfu_measured": 0.6, "memory_allocated": 1, "memory_reserved": 2, "memory_used": 3,
    }  # fmt: skip
    metrics.stepped(stepped(1, **known))
    assert known.items() <= lines(tmp_path / "metrics.jsonl")[0].items()


def test_the_end_of_a_part_is_a_line(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.summarized(summarized())
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert (line["kind"], line["first_step"], line["step"], line["tokens"]) == ("summary", 4, 10, 6000)
    assert (line["steady_tokens_per_s"], line["seconds"]["validation"], line["hfu"]) == (31_900.0, 300.0, 0.521)
    assert line["goodput"] == pytest.approx(3000 / 3400)
    assert (line["memory_allocated"], line["memory_reserved"], line["memory_used"]) == (3 * 2**30, 4 * 2**30, 5 * 2**30)


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from havoc_training.observers import MetricsFile, RunFacts

base = Path(sys.argv[1])
path = base / "metrics.jsonl"

def die_at(moment):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event not in ("open", "os.rename"):
            return
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for moment in range(1, 40):
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    path.write_text("".join(json.dumps({"step": step}) + chr(10) for step in range(1, 6)))
    child = os.fork()
    if child == 0:
        die_at(moment)
        MetricsFile(path).started(RunFacts(9, 3, "", {}, False))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = {json.loads(line)["step"] for each in base.glob("metrics.jsonl*") for line in each.read_text().splitlines()}
    print(status, *sorted(found))
    if status == 0:
        break
"""


def test_a_kill_at_any_moment_loses_no_line(tmp_path):
    """Regression: both files were written over in place. Killed at the first, second, third … file operation."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "a")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    statuses, found = zip(*(line.split(maxsplit=1) for line in done.stdout.splitlines()), strict=True)
    assert len(statuses) > 6
    assert statuses == (str(int(signal.SIGKILL)),) * (len(statuses) - 1) + ("0",)
    assert set(found) == {"1 2 3 4 5"}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["metrics.jsonl", "metrics.jsonl.1"]


def test_the_screen_speaks_every_interval_and_at_the_end(said):
    screen = Screen(4)
    screen.started(facts(dummy=True))
    for step in range(1, 11):
        screen.stepped(stepped(step))
    screen.validated(validated(10))
    screen.closed()
    assert said[0] == "what begins"
    assert [line.split()[3] for line in said[1:4]] == ["4/10", "8/10", "10/10"]
    assert "loss 2.5000  lr 1.00e-03  grad norm 0.50  2,000 tokens/s  ETA 0m03s  memory 1.00 GiB" in said[1]
    assert "bits per byte 1.2500 (domain 1.250)  best so far" in said[4]
    assert all(line.startswith("DUMMY DATA") for line in said[1:])


def test_an_overflow_is_said(said):
    screen = Screen(1)
    screen.started(facts())
    screen.stepped(stepped(1, overflow=True))
    assert "overflow: step left out" in said[-1]
    assert "DUMMY" not in said[-1]


def test_a_share_of_the_device_is_shown_only_where_it_is_known(said):
    screen = Screen(1)
    screen.started(facts())
    screen.stepped(stepped(1))
    assert "MFU" not in said[-1] and "matmul" not in said[-1]
    screen.stepped(stepped(2, mfu=0.4123, mfu_measured=0.6))
    assert "tokens/s  MFU 41.2%  ETA" in said[-1]
    screen.stepped(stepped(3, mfu_measured=0.6))
    assert "tokens/s  60% of the matmul rate  ETA" in said[-1]
    assert "MFU" not in said[-1], "of an unknown device there is no MFU"


def test_the_end_is_said_in_two_lines(said):
    screen = Screen(1)
    screen.started(facts(dummy=True))
    screen.summarized(summarized())
    assert said[1:] == [
        "DUMMY DATA  Speed: 31,900 tokens/s in the steady state, 29,800 overall; goodput 88.2%; MFU 41.2% of the datasheet's "
        "peak, 52.1% with recompute; MFU 60.0% of the measured matmul rate, 75.0% with recompute; peak memory 3.00 GiB.",
        "DUMMY DATA  Time: 56m40s, of which updates 50m00s, data 0m02s, compile 0m40s, validation 5m00s, other 0m57s.",
    ]


def test_the_end_of_a_run_on_a_cpu_names_what_the_process_held_and_no_datasheet(said):
    screen = Screen(1)
    screen.started(facts())
    share = Utilisation(mfu_measured=0.25, hfu_measured=0.25)
    screen.summarized(summarized(utilisation=share, memory=MemoryPeaks(None, None, 2**30)))
    assert "goodput 88.2%; MFU 25.0% of the measured matmul rate; peak memory 1.00 GiB." in said[1]


def test_a_run_that_ended_before_its_first_step_has_no_speed_to_tell(said):
    screen = Screen(1)
    screen.started(facts())
    nothing = {
        "steady_tokens_per_s": None,
        "overall_tokens_per_s": None,
        "utilisation": Utilisation(),
        "time": TimeLedger(),
    }
    screen.summarized(summarized(**nothing))
    assert said[1] == "Speed: not measured; peak memory 3.00 GiB."
    assert said[2] == "Time: 0m00s."
