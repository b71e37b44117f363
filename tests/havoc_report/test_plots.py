from __future__ import annotations

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_report.page import Svg
from havoc_report.plots import (
    NARROW_PX,
    Bar,
    Reference,
    Series,
    Share,
    axis_text,
    bar_chart,
    line_chart,
    stacked_bar,
)

NAN = math.nan


def lines(*series: Series, log_x: bool = False, width_px: int = 690) -> Svg:
    return line_chart(series, x_label="step", y_label="nats", title="Loss", log_x=log_x, width_px=width_px)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def strokes(svg: str, tone: int) -> list[str]:
    """Path data of what is stroked in the colour of a series."""
    paths = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    return [path.attrib["d"] for path in paths if f"stroke: var(--series-{tone}," in path.attrib.get("style", "")]


def fills(svg: str, tone: int) -> list[str]:
    paths = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    return [path.attrib["d"] for path in paths if f"fill: var(--series-{tone}," in path.attrib.get("style", "")]


def ends(path: str) -> tuple[float, float]:
    """Smallest and largest x of a path."""
    xs = [float(x) for x in re.findall(r"[ML] (-?[\d.]+) ", path)]
    return min(xs), max(xs)


CHARTS: list[Callable[[], Svg]] = [
    lambda: lines(Series("a", [0, 1, 2], [3.0, NAN, 1.0], markers=True), Series("b", [0, 1], [1, 2], dashed=True)),
    lambda: bar_chart([Bar("a", 0.5, 0.4, 0.6)], x_label="x", title="t", references=[Reference("guess", 0.25)]),
    lambda: stacked_bar([Share("a", 3), Share("b", 1)], title="t"),
    lambda: lines(),
]


@pytest.mark.parametrize("chart", CHARTS)
def test_the_same_figures_give_the_same_bytes(chart: Callable[[], Svg]) -> None:
    assert chart() == chart()


def test_no_chart_has_an_id_or_points_to_one_so_charts_on_a_page_cannot_collide() -> None:
    for chart in CHARTS:
        svg = chart()
        assert not re.search(r"\b(id|href)=|url\(", svg)


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_has_a_spoken_name_the_page_s_colours_and_no_address_but_its_namespace(
    chart: Callable[[], Svg],
) -> None:
    svg = chart()
    assert 'role="img" aria-label="' in svg
    assert "currentColor" in svg
    assert svg.replace("http://www.w3.org/2000/svg", "").count("://") == 0
    assert not re.search(r"#(?!0a6ca3|c4541a|0b8664)[0-9a-f]{6}", svg)
    assert "<style" not in svg and "<metadata" not in svg and "<!--" not in svg


def test_the_settings_of_matplotlib_are_left_as_they_were() -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31.0, "svg.fonttype": "path", "lines.scale_dashes": False}):
        strange = CHARTS[0]()
        assert mpl.rcParams["font.size"] == 31.0
    assert dict(mpl.rcParams) == before
    assert strange == CHARTS[0]()  # and those of the user do not show


def test_nan_and_infinity_are_gaps_in_a_line() -> None:
    [path] = strokes(lines(Series("a", range(7), [1, 2, NAN, 2, 3, math.inf, 4])), 0)
    assert path.count("M") == 3


def test_a_point_between_gaps_is_a_dot() -> None:
    svg = lines(Series("a", range(5), [1, NAN, 2, NAN, 3]))
    assert len(fills(svg, 0)) == 3


def test_a_line_of_markers_has_one_for_each_finite_point() -> None:
    assert len(fills(lines(Series("a", range(4), [1, 2, NAN, 3], markers=True)), 0)) == 3


@pytest.mark.parametrize("series", [(), (Series("a", [], []),), (Series("a", [1, 2], [NAN, NAN]),)])
def test_nothing_to_draw_is_said(series: tuple[Series, ...]) -> None:
    svg = lines(*series)
    assert "nothing to draw" in texts(svg)


def test_a_logarithmic_axis_leaves_out_zero_and_spaces_decades_evenly() -> None:
    svg = lines(Series("a", [0, 1, 10, 100], [9, 3, 2, 1], markers=True), log_x=True)
    [path] = strokes(svg, 0)
    xs = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)]
    assert len(xs) == 3
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02)  # coordinates are written to 0.01


def test_a_long_curve_is_thinned_but_keeps_its_spike() -> None:
    y = [1.0 + 0.01 * (n % 7) for n in range(100_000)]
    y[54_321] = 5.0
    svg = lines(Series("a", range(100_000), y))
    assert len(svg) < 60_000
    [path] = strokes(svg, 0)
    heights = [float(v) for v in re.findall(r"[ML] -?[\d.]+ (-?[\d.]+)", path)]
    assert min(heights) < min(heights[:100]) - 100  # y runs down: the spike stands high above the rest


def test_x_and_y_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="series 'a': 2 x for 1 y"):
        Series("a", [1, 2], [1])


def test_bars_are_as_long_as_their_values_and_none_is_a_dash() -> None:
    svg = bar_chart([Bar("a", 2.0), Bar("b", 1.0, tone=1), Bar("c", None)], x_label="x", title="t")
    [long], [short] = fills(svg, 0), fills(svg, 1)
    widths = [ends(path)[1] - ends(path)[0] for path in (long, short)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.03)
    assert "–" in texts(svg)


def test_an_interval_and_a_reference_stand_where_their_values_are() -> None:
    svg = bar_chart([Bar("a", 0.5, 0.25, 1.0)], x_label="x", title="t", references=[Reference("half", 0.5)])
    left, right = ends(fills(svg, 0)[0])
    ink = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    strokes_of_ink = [ends(p.attrib["d"]) for p in ink if "stroke: currentColor" in p.attrib["style"]]
    assert any(
        low == pytest.approx((left + right) / 2, abs=0.02)
        and high == pytest.approx(left + 2 * (right - left), abs=0.03)
        for low, high in strokes_of_ink
    )
    assert any(low == high == pytest.approx(right, abs=0.02) for low, high in strokes_of_ink)
    assert "a 0.5 (0.25 to 1)" in svg and "half 0.5" in svg


def test_groups_of_bars_are_named_once() -> None:
    bars = [Bar("model", 1, group="domain"), Bar("gzip", 2, group="domain"), Bar("model", 1, group="dialog")]
    found = texts(bar_chart(bars, x_label="x", title="t"))
    assert found.count("domain") == 1 and found.count("dialog") == 1


def test_a_long_name_is_cut_on_a_telephone_only_where_it_would_not_fit() -> None:
    bars = [Bar("two-level factorial designs", 0.1), Bar("x" * 200, 0.1)]
    found = texts(bar_chart(bars, x_label="x", title="t", width_px=NARROW_PX))
    assert "two-level factorial designs" in found
    assert any(text.startswith("xxx") and text.endswith("…") for text in found)


def test_shares_add_up_to_the_whole_width() -> None:
    svg = stacked_bar([Share("train", 75), Share("rest", 25)], title="t")
    widths = [ends(fills(svg, tone)[0]) for tone in (0, 1)]
    assert widths[0] == pytest.approx((0, 0.75 * 690 - 1), abs=0.02)
    assert widths[1] == pytest.approx((0.75 * 690, 690 - 1), abs=0.02)
    assert "75.0 %" in texts(svg) and "25.0 %" in texts(svg)


@pytest.mark.parametrize("shares", [[], [Share("a", 0.0)], [Share("a", NAN), Share("b", 1.0)]])
def test_shares_of_nothing_do_not_fail(shares: list[Share]) -> None:
    assert stacked_bar(shares, title="t").startswith("<svg")


@pytest.mark.parametrize(
    "name",
    ["$\\frac{1}{$", "</text><script>x</script>", "a\x00\ud800\u202e", 'id="x" url(#y)', "設計\n𝔘", "--> ]]>", ""],
)
def test_a_hostile_name_is_only_text(name: str) -> None:
    for svg in (
        lines(Series(name, [1, 2], [1, 2]), Series("b", [1], [1])),
        bar_chart([Bar(name, 1.0, group=name)], x_label=name, title=name),
        stacked_bar([Share(name, 1.0)], title=name),
    ):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
        assert tags <= {"svg", "g", "path", "text"}


# Up to 1e30: what is measured is far below, and matplotlib's axes overflow far above.
FLOATS = st.floats(-1e30, 1e30) | st.sampled_from([math.nan, math.inf, -math.inf])


@settings(max_examples=25, deadline=None)
@given(st.lists(FLOATS, max_size=6), st.booleans())
def test_any_values_make_a_whole_chart_without_nan_in_it(values: list[float], log_x: bool) -> None:
    for svg in (
        lines(Series("a", values and sorted(range(len(values))), values), log_x=log_x),
        bar_chart([Bar("a", value, value, value) for value in values], x_label="x", title="t"),
    ):
        paths = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
        assert not any(re.search("nan|inf", path.attrib["d"]) for path in paths)


def test_axis_numbers_are_short() -> None:
    assert [axis_text(v) for v in (0, 0.0003, 2.5, 1500, 20000, 1.5e6, 7e9, -3)] == [
        "0", "0.0003", "2.5", "1,500", "20k", "1.5M", "7G", "−3",
    ]  # fmt: skip
