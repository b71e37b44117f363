"""metrics.jsonl and the screen."""

from __future__ import annotations

import json
import logging
import math
import signal
import subprocess
import sys

import pytest

from havoc_core.log import LOGGER
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


def facts(first_step=0, *, dummy=False):
    return RunFacts(10, first_step, "what begins", {}, dummy)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def said():
    """What LOGGER says."""
    out = []
    handler = logging.Handler()
    handler.emit = lambda record: out.append(record.getMessage())
    before = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(handler)
    yield out
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(before)


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
    assert (second["kind"], second["bits_per_byte"], second["groups"]["domain"]["loss"]) == ("validation", 1.25, 2.0)


def test_lines_beyond_the_resumed_step_are_moved_aside(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in range(1, 6):
        metrics.stepped(stepped(step))
    metrics.validated(validated(5))
    metrics.started(facts(first_step=3))
    assert [line["step"] for line in lines(path)] == [1, 2, 3]
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl.1")] == [4, 5, 5]
    metrics.stepped(stepped(4))
    metrics.started(facts(first_step=2))
    assert [line["step"] for line in lines(path)] == [1, 2]
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl.2")] == [3, 4]
    metrics.started(facts(first_step=2))
    assert not (tmp_path / "metrics.jsonl.3").exists()


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
