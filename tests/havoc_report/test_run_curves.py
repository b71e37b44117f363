from __future__ import annotations

import math

from havoc_report.run_curves import moving_mean, smoothed


def test_a_moving_mean_leaves_out_what_is_not_finite() -> None:
    assert moving_mean([1.0, 2.0, math.nan, 6.0], 1) == (1.5, 1.5, 4.0, 6.0)
    assert math.isnan(moving_mean([math.nan, math.inf], 1)[0])


def test_few_steps_are_one_line_and_many_have_their_mean_too() -> None:
    assert [line.name for line in smoothed(range(99), [1.0] * 99, tone=0)] == ["each step"]
    faint, mean = smoothed(range(300), [2.0] * 300, tone=1)
    assert (faint.faint, mean.name, tuple(mean.y)) == (True, "mean of 7 steps", (2.0,) * 300)
