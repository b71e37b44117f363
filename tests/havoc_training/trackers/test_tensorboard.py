"""TensorBoard can read what was written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from havoc_core.device import MemoryPeaks
from havoc_training.metrics import PartSummary, TimeLedger, Utilisation
from havoc_training.observers import RunFacts, StepRecord, ValidationRecord
from havoc_training.shelves import TRACKERS
from havoc_training.tracker import TrackerSettings
from havoc_training.trackers import tensorboard


def stepped(step):
    return StepRecord(step, 3.0 - step / 10, 1e-3, 0.5, 1000, 0.5, 2**30, 0.1, "ab", (0, 4), 0, False)


def tracker(folder):
    return tensorboard.build(TrackerSettings(folder, "my_run", 2), tensorboard.Options())


def scalars(folder, tag):
    events = EventAccumulator(str(folder / "tensorboard" / "my_run"))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]


def test_scalars_can_be_read_back_every_interval(tmp_path):
    writer = tracker(tmp_path)
    writer.started(RunFacts(10, 0, "", {}, False))
    for step in range(1, 6):
        writer.stepped(stepped(step))
    groups = {"domain": {"loss": 2.0, "perplexity": 7.4, "bits_per_byte": 1.25}}
    writer.validated(ValidationRecord(5, 2.5, 12.2, 1.5, groups, 0.1, True))
    writer.closed()
    assert scalars(tmp_path, "train/loss") == [(2, 2.8), (4, 2.6)]
    assert scalars(tmp_path, "train/learning_rate") == [(2, 0.001), (4, 0.001)]
    assert scalars(tmp_path, "validation/bits_per_byte") == [(5, 1.5)]
    assert scalars(tmp_path, "validation/domain/loss") == [(5, 2.0)]


def test_what_is_not_known_has_no_point_and_the_end_has_its_own(tmp_path):
    writer = tracker(tmp_path)
    time = TimeLedger(updates=3.0, validation=1.0)
    summary = PartSummary(0, 4, 100, time, 50.0, None, Utilisation(), MemoryPeaks(None, None, 1))
    writer.summarized(summary)  # before it has begun: nobody to tell
    writer.started(RunFacts(10, 0, "", {}, False))
    writer.stepped(replace(stepped(2), mfu=0.5))
    writer.summarized(summary)
    writer.closed()
    assert scalars(tmp_path, "train/mfu") == [(2, 0.5)]
    assert scalars(tmp_path, "train/data_seconds") == [(2, 0.0)]
    assert scalars(tmp_path, "summary/goodput") == [(4, 0.75)]
    assert scalars(tmp_path, "summary/seconds/validation") == [(4, 1.0)]
    for tag in ("train/mfu_measured", "train/memory_allocated", "summary/overall_tokens_per_s"):
        with pytest.raises(KeyError, match=tag):
            scalars(tmp_path, tag)


def test_a_resumed_run_hides_the_points_that_are_made_again(tmp_path):
    for first, steps in ((0, range(1, 9)), (4, range(5, 7))):
        writer = tracker(tmp_path)
        writer.started(RunFacts(10, first, "", {}, False))
        for step in steps:
            writer.stepped(stepped(step))
        writer.closed()
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == [2, 4, 6]


def test_it_has_no_settings_of_its_own():
    assert TRACKERS.names() == ["tensorboard"]
    with pytest.raises(ValidationError):
        tensorboard.Options(folder="x")
