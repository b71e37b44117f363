"""The log of stages."""

from __future__ import annotations

import json

import pytest

from havoc_cli.stages import StageLog, key_of


def test_a_stage_runs_once_for_a_key_and_again_for_another(tmp_path):
    path = tmp_path / "stages.json"
    done = []
    assert StageLog.open(path).do("data", "k1", lambda: done.append(1))
    assert not StageLog.open(path).do("data", "k1", lambda: done.append(2))
    assert StageLog.open(path).do("data", "k2", lambda: done.append(3))
    assert done == [1, 3]


def test_a_stage_whose_result_is_gone_runs_again(tmp_path):
    log = StageLog.open(tmp_path / "stages.json")
    log.do("data", "k", lambda: None)
    assert log.do("data", "k", lambda: None, is_there=False)


def test_a_stage_that_failed_is_not_finished_and_its_time_counts(tmp_path):
    path = tmp_path / "stages.json"

    def fail():
        raise ValueError("no text")

    with pytest.raises(ValueError, match="no text"):
        StageLog.open(path).do("data", "k", fail)
    first = StageLog.open(path)
    assert first.entries["data"]["finished"] is None
    spent = first.seconds()["data"]
    assert spent > 0
    assert first.do("data", "k", lambda: None)
    assert first.seconds()["data"] > spent


def test_the_time_of_other_inputs_does_not_count(tmp_path):
    path = tmp_path / "stages.json"
    path.write_text(json.dumps({"data": {"key": "old", "seconds": 1e6, "finished": "then"}}))
    log = StageLog.open(path)
    log.do("data", "new", lambda: None)
    assert log.seconds()["data"] < 1e5


@pytest.mark.parametrize("text", ["", "{ half", "[]", '"x"', '{"data": 7}'])
def test_damaged_notes_count_as_none(text, tmp_path):
    """Regression: JSON that is no log of stages ended in a traceback."""
    path = tmp_path / "stages.json"
    path.write_text(text)
    log = StageLog.open(path)
    assert log.do("data", "k", lambda: None)
    assert set(StageLog.open(path).seconds()) == {"data"}


def test_a_key_depends_on_every_input_and_on_no_order_of_keys():
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
    assert len({key_of("a", 1), key_of("a", 2), key_of("b", 1), key_of("a1"), key_of(["a", 1])}) == 5
