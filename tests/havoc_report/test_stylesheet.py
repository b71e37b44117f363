from __future__ import annotations

import re

import pytest

from havoc_report.stylesheet import CSS, SERIES_COLOURS


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, from 0 to 1; WCAG 2.2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def variables(scheme: int) -> dict[str, str]:
    """Colours by name; 0 is light, 1 is dark."""
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", CSS.split(":root {")[1 + scheme].split("}")[0]))


@pytest.mark.parametrize("scheme", [0, 1])
def test_every_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    colours = variables(scheme)
    for text in ("ink", "muted", "accent"):
        for behind in ("paper", "card"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)  # WCAG 2.2, 1.4.3
    for behind in ("info", "warning", "danger"):
        assert contrast(colours["ink"], colours[behind]) >= 7.0, behind


@pytest.mark.parametrize("scheme", [0, 1])
def test_every_series_stands_out_from_the_page(scheme: int) -> None:
    for number, pair in enumerate(SERIES_COLOURS):
        assert contrast(pair[scheme], variables(scheme)["paper"]) >= 3.0, number  # WCAG 2.2, 1.4.11
        assert variables(scheme)[f"series-{number}"] == pair[scheme]


def test_no_two_series_share_a_colour() -> None:
    assert len({colour for pair in SERIES_COLOURS for colour in pair}) == 2 * len(SERIES_COLOURS)
