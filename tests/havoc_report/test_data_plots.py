from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from havoc_report.data_plots import Columns, Kind, Layer, StackedRow, histogram, stacked_rows
from havoc_report.page import Svg
from havoc_report.plots import NARROW_PX, WIDE_PX

KINDS = (Kind("kept", 0), Kind("lost", 1), Kind("never met", 2))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def boxes(svg: str, tone: int) -> list[tuple[float, float, float, float]]:
    """Left, right, top and bottom of what is filled in the colour of a series."""
    found = []
    for path in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        if f"fill: var(--series-{tone}," in path.attrib.get("style", ""):
            points = [(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.attrib["d"])]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            found.append((min(xs), max(xs), min(ys), max(ys)))
    return found


def rows(*values: tuple[float, ...], width_px: int = WIDE_PX) -> Svg:
    bars = [StackedRow(f"row {number}", each) for number, each in enumerate(values)]
    return stacked_rows(bars, KINDS, title="Fates", width_px=width_px)


def test_the_pieces_of_a_bar_fill_it_in_their_shares() -> None:
    svg = rows((75.0, 25.0, 0.0))
    (kept,) = [box for box in boxes(svg, 0) if box[1] - box[0] > 10]
    (lost,) = [box for box in boxes(svg, 1) if box[1] - box[0] > 10]
    assert kept[:2] == (0.0, 0.75 * WIDE_PX - 1)  # one unit of air
    assert lost[:2] == (0.75 * WIDE_PX, WIDE_PX - 1)


def test_shares_stand_below_each_bar_and_what_no_row_has_is_not_in_the_legend() -> None:
    found = texts(rows((75.0, 25.0, 0.0), (0.0, 3.0, 0.0)))
    assert "75.0 % kept · 25.0 % lost" in found and "100.0 % lost" in found
    assert {"kept", "lost", "row 0", "row 1"} <= set(found) and "never met" not in found


def test_a_sliver_is_seen_and_never_reads_as_nothing() -> None:
    svg = rows((1e9, 1.0, 0.0))
    assert "over 99.9 % kept · under 0.1 % lost" in texts(svg)
    sliver = min(boxes(svg, 1), key=lambda box: box[1] - box[0])
    assert sliver[1] - sliver[0] == 1.0 and sliver[1] <= WIDE_PX


def test_shares_break_into_lines_on_a_telephone() -> None:
    many = [Kind(f"a rather long kind {number}", number) for number in range(5)]
    svg = stacked_rows([StackedRow("a", (1.0,) * 5)], many, title="t", width_px=NARROW_PX)
    assert sum("20.0 % a rather long kind" in text for text in texts(svg)) > 1


def test_a_row_of_zeros_and_no_row_at_all_are_drawn() -> None:
    assert "row 0" in texts(rows((0.0, 0.0, 0.0)))
    assert "nothing to draw" in texts(rows())


def test_a_row_with_other_values_than_kinds_is_refused() -> None:
    with pytest.raises(ValueError, match="row 'row 0': 1 values for 3 kinds"):
        rows((1.0,))


COLUMNS = Columns(("", "10", ""), "characters")


def bars_of(*layers: Layer) -> Svg:
    return histogram(layers, COLUMNS, y_label="documents", title="Length")


def test_columns_touch_and_layers_stand_on_each_other() -> None:
    svg = bars_of(Layer("a", (4, 0), 0), Layer("b", (4, 8), 1))
    (low,) = [box for box in boxes(svg, 0) if box[3] - box[2] > 11]
    above, alone = [box for box in boxes(svg, 1) if box[3] - box[2] > 11]
    assert low[2] == pytest.approx(above[3], abs=0.02)  # figures are written with two decimals
    assert alone[2] == pytest.approx(above[2], abs=0.02) and alone[3] == pytest.approx(low[3], abs=0.02)
    assert alone[0] == pytest.approx(low[1] + 1, abs=0.02)
    assert {"10", "a", "b", "characters", "documents"} <= set(texts(svg))


def test_one_layer_needs_no_legend_and_none_says_so() -> None:
    assert "a" not in texts(bars_of(Layer("a", (1, 2), 0)))
    assert "nothing to draw" in texts(bars_of(Layer("a", (0, 0), 0)))


def test_a_layer_with_other_counts_than_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="layer 'a': 3 counts for 2 columns"):
        bars_of(Layer("a", (1, 2, 3), 0))


def test_charts_are_the_same_each_time_and_have_a_spoken_name() -> None:
    assert rows((1.0, 2.0, 0.0)) == rows((1.0, 2.0, 0.0))
    assert 'aria-label="Fates. row 0 3: 33.3\u00a0% kept, 66.7\u00a0% lost"'.replace("\u00a0", " ") in rows(
        (1.0, 2.0, 0.0)
    )
    assert 'aria-label="Length. a: 3"' in bars_of(Layer("a", (1, 2), 0))
