"""One task after another in this process."""

from __future__ import annotations

import pytest

from havoc_data.runners.inline import Options, build


def test_tasks_are_done_in_their_order_when_asked_for():
    done = []
    found = build(None, Options()).map(lambda task: done.append(task) or 2 * task, [3, 1, 2])
    assert (next(iter(found)), done) == (6, [3])
    assert (list(found), done) == ([2, 4], [3, 1, 2])


def test_what_a_task_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(build(4, Options()).map(lambda task: 1 // task, [1, 0]))
