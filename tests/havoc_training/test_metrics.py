"""Where the time of a run went, how fast it was, and what share of the device that is."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havoc_core.config import ModelConfig
from havoc_core.costs import hardware_flops_per_token, training_flops_per_token
from havoc_core.device import MemoryPeaks
from havoc_training.metrics import Clock, TimeLedger, Utilisation, Yardstick, redone_line, run_time

NO_YARDSTICK = Yardstick(1.0, 1.0, None, None)
PEAKS = MemoryPeaks(None, None, 2**30)


class Hands:
    """The hands of a clock, moved by the test."""

    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


def train(step, seconds=1.0, *, data_seconds=0.0, tokens=100):
    return {"kind": "train", "step": step, "seconds": seconds, "data_seconds": data_seconds, "tokens": tokens}


def validation(step, seconds):
    return {"kind": "validation", "step": step, "seconds": seconds}


def summary(first_step, step, **seconds):
    return {"kind": "summary", "first_step": first_step, "step": step, "seconds": TimeLedger(**seconds).seconds()}


def test_every_second_of_a_part_is_in_one_kind_and_the_rest_is_other():
    hands = Hands()
    clock = Clock(hands)
    clock.add_update(9.0, data_seconds=1.0, scored_tokens=100)  # 8 of work, 6 more than the median
    for _ in range(7):
        clock.add_update(3.0, data_seconds=1.0, scored_tokens=100)
    clock.add("validation", 4.0)
    clock.add("checkpoints", 2.0)
    hands.at += 50.0
    ledger = clock.ledger()
    assert ledger == TimeLedger(updates=16.0, data=8.0, compile=6.0, validation=4.0, checkpoints=2.0, other=14.0)
    assert ledger.total == 50.0
    assert ledger.goodput == 16 / 50


def test_what_lies_inside_something_else_counts_once_and_for_the_inner_one():
    """A validation that is the best so far saves a checkpoint."""
    hands = Hands()
    clock = Clock(hands)
    with clock.during("validation"):
        hands.at += 3.0
        with clock.during("checkpoints"):
            hands.at += 5.0
        hands.at += 1.0
    assert clock.ledger() == TimeLedger(validation=4.0, checkpoints=5.0)


def test_time_counts_though_an_error_ended_it():
    hands = Hands()
    clock = Clock(hands)
    with pytest.raises(OSError, match="disk full"), clock.during("checkpoints"):
        hands.at += 2.0
        raise OSError("disk full")
    assert clock.ledger().checkpoints == 2.0


def test_the_steady_speed_is_the_median_after_five_steps_and_the_overall_speed_counts_everything():
    hands = Hands()
    clock = Clock(hands)
    for seconds in (30.0, 8.0, 8.0, 8.0, 8.0, 2.0, 2.0, 50.0, 2.0, 2.0):
        clock.add_update(seconds, data_seconds=0.0, scored_tokens=100)
    hands.at += 200.0
    found = clock.summary(first_step=0, step=10, yardstick=NO_YARDSTICK, memory=PEAKS)
    assert (found.steady_tokens_per_s, found.overall_tokens_per_s) == (50.0, 5.0)
    assert (found.first_step, found.step, found.scored_tokens) == (0, 10, 1000)


def test_a_part_of_a_few_steps_is_steady_after_its_first():
    clock = Clock(Hands())
    clock.add_update(9.0, data_seconds=0.0, scored_tokens=100)
    assert clock.ledger() == TimeLedger(updates=9.0), "one step alone does not show what compiling took"
    clock.add_update(2.0, data_seconds=0.0, scored_tokens=100)
    assert clock.ledger() == TimeLedger(updates=4.0, compile=7.0)
    found = clock.summary(first_step=3, step=5, yardstick=NO_YARDSTICK, memory=PEAKS)
    assert found.steady_tokens_per_s == 50.0


def test_a_part_without_an_update_has_no_speed():
    found = Clock(Hands()).summary(first_step=3, step=3, yardstick=Yardstick(1.0, 1.0, 2.0, 2.0), memory=PEAKS)
    assert (found.steady_tokens_per_s, found.overall_tokens_per_s, found.time.goodput) == (None, None, None)
    assert found.utilisation == Utilisation()


def test_shares_of_the_device_by_hand():
    """0.5 and 0.8 FLOPs a token at 10 tokens/s on two devices of 20 (datasheet) and 10 (measured)."""
    share = Yardstick(0.5, 0.8, 20.0, 10.0, num_devices=2).utilisation(10.0)
    assert share == Utilisation(mfu=0.125, hfu=0.2, mfu_measured=0.25, hfu_measured=0.4)


def test_an_unknown_device_has_no_share_of_a_datasheet():
    share = Yardstick(0.5, 0.8, None, 10.0).utilisation(10.0)
    assert (share.mfu, share.hfu, share.mfu_measured) == (None, None, 0.5)
    assert Yardstick(0.5, 0.8, 20.0, None).utilisation(None) == Utilisation()


def test_a_yardstick_counts_by_both_conventions():
    model = ModelConfig.model_validate("nano")
    stick = Yardstick.of(
        model,
        sequence_length=256,
        recompute="full",
        datasheet_flops_per_s=1e12,
        measured_flops_per_s=5e11,
        num_devices=4,
    )
    assert stick.model_flops == training_flops_per_token(model, 256)
    assert stick.hardware_flops == hardware_flops_per_token(model, 256, "full") > stick.model_flops
    assert (stick.datasheet_flops_per_s, stick.measured_flops_per_s, stick.num_devices) == (1e12, 5e11, 4)


def test_a_summary_is_a_line_of_plain_values():
    clock = Clock(Hands())
    clock.add_update(2.0, data_seconds=0.5, scored_tokens=100)
    part = clock.summary(first_step=0, step=1, yardstick=Yardstick(1.0, 2.0, 400.0, None), memory=MemoryPeaks(1, 2, 3))
    line = part.to_json()
    assert (line["kind"], line["step"], line["first_step"], line["tokens"]) == ("summary", 1, 0, 100)
    assert line["seconds"] == {
        "updates": 1.5, "data": 0.5, "compile": 0.0, "validation": 0.0, "checkpoints": 0.0, "redone": 0.0, "other": 0.0,
    }  # fmt: skip
    assert (line["memory_allocated"], line["memory_reserved"], line["memory_used"]) == (1, 2, 3)
    assert (line["mfu_measured"], line["goodput"]) == (None, 0.75)
    assert (line["overall_tokens_per_s"], line["mfu"], line["hfu"]) == (50.0, 0.125, 0.25)


def test_a_run_of_two_parts_adds_up():
    lines = [
        *(train(step, 5.0 if step == 1 else 1.0) for step in range(1, 11)),
        summary(0, 10, updates=10.0, compile=4.0, checkpoints=6.0),
        *(train(step, 3.0 if step == 11 else 2.0) for step in range(11, 21)),
        summary(10, 20, updates=20.0, compile=1.0, validation=9.0),
    ]
    found = run_time(lines)
    assert found.ledger == TimeLedger(updates=30.0, compile=5.0, checkpoints=6.0, validation=9.0)
    assert found.overall_tokens_per_s == 2000 / 50
    assert found.steady_tokens_per_s == (100 + 50) / 2, "five steps of each part at 100 and at 50 tokens/s"
    assert (found.scored_tokens, found.num_parts) == (2000, 2)


def test_a_part_that_was_killed_is_known_by_its_own_lines():
    """Killed after step 13; the run went on from 12, which is why a line says that one step was lost."""
    lines = [
        *(train(step) for step in range(1, 9)),
        summary(0, 8, updates=8.0, other=2.0),
        train(9, 4.0, data_seconds=0.5), *(train(step, 1.0, data_seconds=0.5) for step in range(10, 13)),
        validation(12, 7.0),
        {"kind": "redone", "step": 12, "seconds": 1.5},
        train(13), train(14),
        summary(12, 14, updates=2.0, checkpoints=1.0),
    ]  # fmt: skip
    found = run_time(lines)
    # Of the killed part: 3.5 + 3 * 0.5 of work, 3 of it the first step's excess; 4 * 0.5 of waiting.
    killed = TimeLedger(updates=2.0, compile=3.0, data=2.0, validation=7.0, redone=1.5)
    assert found.ledger == TimeLedger(updates=8.0, other=2.0) + killed + TimeLedger(updates=2.0, checkpoints=1.0)
    assert found.num_parts == 3


def test_lines_of_older_versions_count_too():
    lines = [{"kind": "train", "step": 1, "seconds": 2.0, "tokens": 10}, {"step": 3}, validation(1, 1.0)]
    assert run_time(lines).ledger == TimeLedger(updates=2.0, validation=1.0)
    assert run_time([]).overall_tokens_per_s is None


def test_a_kind_of_time_that_is_not_known_is_other():
    assert TimeLedger.of({"updates": 1.0, "sleeping": 2.0, "other": 3.0}) == TimeLedger(updates=1.0, other=5.0)


def test_lost_work_is_what_was_moved_aside():
    later = [train(6, 3.0), train(7, 1.0, data_seconds=0.5), validation(7, 2.0), summary(0, 7, updates=500.0)]
    later.append({"kind": "redone", "step": 6, "seconds": 10.0})
    # The summary reaches back before step 5, and its lines say what of it is lost.
    assert redone_line(later, first_step=5) == {"kind": "redone", "step": 5, "seconds": 3.0 + 1.0 + 2.0 + 10.0}


def test_a_part_that_was_lost_whole_counts_whole():
    later = [train(6), summary(5, 6, updates=1.0, checkpoints=4.0)]
    assert redone_line(later, first_step=5) == {"kind": "redone", "step": 5, "seconds": 5.0}


def test_a_run_that_starts_afresh_has_lost_nothing():
    assert redone_line([train(1)], first_step=0) is None
    assert redone_line([], first_step=5) is None


@given(
    st.lists(st.lists(st.tuples(st.floats(0.01, 9.0), st.floats(0.0, 1.0)), min_size=1, max_size=8), max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_whether_its_parts_ended_or_were_killed_a_run_has_the_same_time(parts, killed):
    """Property: with nothing but updates, a part's summary says what its lines say."""
    lines, step = [], 0
    for steps, was_killed in zip(parts, killed, strict=False):
        clock, first = Clock(Hands()), step
        for seconds, waiting in steps:
            step += 1
            lines.append(train(step, seconds, data_seconds=seconds * waiting))
            clock.add_update(seconds, data_seconds=seconds * waiting, scored_tokens=100)
        if not was_killed:
            lines.append(summary(first, step, **clock.ledger().seconds()))
    found = run_time(lines).ledger
    assert found.total == pytest.approx(sum(s for part in parts[:4] for s, _ in part))
    assert found.data == pytest.approx(sum(s * w for part in parts[:4] for s, w in part))


def test_metrics_need_no_torch():
    code = "import sys, havoc_training.observers; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
