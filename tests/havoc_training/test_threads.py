"""Threads: as set, one for every core, or measured where a core runs two."""

from __future__ import annotations

import pytest
import torch

from havoc_training.threads import choose_threads, count_cores, faster_of, seconds_with


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def processors(*ids):
    return "\n\n".join(f"processor : {n}\nphysical id : {s}\ncore id : {c}\n" for n, (s, c) in enumerate(ids))


def test_a_number_that_is_set_is_taken():
    assert choose_threads(1) == torch.get_num_threads() == 1


def test_two_threads_of_one_core_are_one_core(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(processors((0, 0), (0, 1), (0, 0), (0, 1)))
    assert count_cores(file) == 2
    file.write_text(processors((0, 0), (1, 0)))  # two sockets
    assert count_cores(file) == 2


def test_where_linux_does_not_say_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert count_cores(tmp_path / "missing") is None
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    assert count_cores(tmp_path / "cpuinfo") is None
    assert choose_threads(None, cpuinfo=tmp_path / "cpuinfo") >= 1


def test_more_threads_than_cores_must_be_clearly_faster():
    assert faster_of(4, 8, {4: 1.0, 8: 0.8}.get) == 8
    assert faster_of(4, 8, {4: 1.0, 8: 0.95}.get) == 4
    assert faster_of(4, 8, {4: 1.0, 8: 1.5}.get) == 4


def test_the_measurement_sets_the_threads_that_it_measures():
    assert seconds_with(1) > 0.0
    assert torch.get_num_threads() == 1


def test_where_cores_run_two_threads_both_are_measured(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    logical = choose_threads(None, cpuinfo=tmp_path / "missing")
    if logical < 2:
        pytest.skip("one core has nothing to choose from")
    (tmp_path / "cpuinfo").write_text(processors(*((0, n // 2) for n in range(logical))))
    assert choose_threads(None, cpuinfo=tmp_path / "cpuinfo") in {-(-logical // 2), logical}
