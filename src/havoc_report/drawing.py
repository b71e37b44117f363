"""Marks on a sheet -> an SVG element that fits a light and a dark page.

Lengths are SVG units, which are CSS pixels as long as the chart is not scaled; x runs right, y runs
down. matplotlib writes the SVG; what it writes is then rid of everything a page does not need: ids
(so those of two charts cannot collide), metadata, style sheets, fixed sizes and fixed colours.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Transform

from havoc_report.escaping import one_line
from havoc_report.page import Svg
from havoc_report.stylesheet import SERIES_COLOURS

INK = -1
"""The tone of axes and text: the page's text colour. Tones from 0 are SERIES_COLOURS, round and round."""

_INK_COLOUR = "#010203"  # stands for currentColor until the SVG is written; no series has it
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "havoc", "path.simplify": True}
_SVG = "http://www.w3.org/2000/svg"
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


@dataclass(frozen=True)
class Stroke:
    """A line through points; NaN in x or y interrupts it."""

    x: Sequence[float]
    y: Sequence[float]
    tone: int = INK
    width: float = 1.0
    dashed: bool = False
    opacity: float = 1.0


@dataclass(frozen=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    tone: int
    radius: float = 2.6
    opacity: float = 1.0


@dataclass(frozen=True)
class Box:
    """A filled rectangle; (x, y) is its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    tone: int
    opacity: float = 1.0


@dataclass(frozen=True)
class Label:
    """One line of text; y is its base line."""

    x: float
    y: float
    text: str
    size: float = 12.0
    anchor: Literal["left", "center", "right"] = "left"
    bold: bool = False
    opacity: float = 1.0


Mark = Stroke | Dot | Box | Label


def text_width(text: str, *, size: float = 12.0) -> float:
    """About how wide a text is, in SVG units: the reader's font is not known, so this is on the wide side."""
    ems = sum(1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.56 for letter in text)
    return ems * size


def fit(text: str, width: float, *, size: float = 12.0) -> str:
    """`text` on one line, cut with an ellipsis where it would be wider than `width`."""
    line = one_line(text)
    if text_width(line, size=size) <= width:
        return line
    while line and text_width(line + "…", size=size) > width:
        line = line[:-1]
    return line.rstrip() + "…"


def draw(marks: Sequence[Mark], *, width: float, height: float, label: str) -> Svg:
    """The marks as one <svg> element of `width` x `height` units, named `label` for those who hear the page.

    The same marks give the same text. The settings of matplotlib are as they were afterwards.
    """
    # after_reset: a matplotlibrc of the user must not change what a report looks like.
    with matplotlib.style.context(_SETTINGS, after_reset=True), warnings.catch_warnings():
        # The text is written as text, in the reader's fonts: that our own lacks a glyph matters to nobody.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # 72 a inch: one point is one SVG unit
        figure.patch.set_visible(False)
        downwards = Affine2D().scale(1, -1).translate(0, height)
        for mark in marks:
            artist = _artist(mark, downwards)
            if artist is not None:
                figure.add_artist(artist)
        buffer = io.StringIO()
        FigureCanvasSVG(figure)  # becomes the figure's canvas
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _for_a_page(buffer.getvalue(), width=width, height=height, label=label)


def _artist(mark: Mark, transform: Transform) -> Artist | None:
    """None for a text of nothing, which matplotlib cannot place."""
    if isinstance(mark, Label):
        text = one_line(mark.text)
        font = FontProperties(family="DejaVu Sans", size=mark.size, weight="bold" if mark.bold else "normal")
        x, y = transform.transform((mark.x, mark.y))
        return (
            Text(
                x,
                y,
                text,
                color=_INK_COLOUR,
                alpha=mark.opacity,
                horizontalalignment=mark.anchor,
                verticalalignment="baseline",
                fontproperties=font,
                parse_math=False,
                transform=Affine2D(),
            )
            if text
            else None
        )
    colour = _INK_COLOUR if mark.tone == INK else SERIES_COLOURS[mark.tone % len(SERIES_COLOURS)][0]
    if isinstance(mark, Stroke):
        return Line2D(
            list(mark.x),
            list(mark.y),
            color=colour,
            linewidth=mark.width,
            alpha=mark.opacity,
            transform=transform,
            linestyle=(0, (3, 2)) if mark.dashed else "-",
            solid_capstyle="round",
            solid_joinstyle="round",
        )
    if isinstance(mark, Dot):
        return Circle(
            (mark.x, mark.y), mark.radius, facecolor=colour, edgecolor="none", alpha=mark.opacity, transform=transform
        )
    corner, (width, height) = (mark.x, mark.y), (mark.width, mark.height)
    return Rectangle(corner, width, height, facecolor=colour, edgecolor="none", alpha=mark.opacity, transform=transform)


def _for_a_page(written: str, *, width: float, height: float, label: str) -> Svg:
    root = ElementTree.fromstring(written)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "defs", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib.pop("id", None)
        if "style" in element.attrib:
            element.set("style", _style(element.attrib["style"]))
        for name in ("d", "transform", "x", "y"):
            if name in element.attrib:
                element.set(name, _LONG_NUMBER.sub(_shortened, " ".join(element.attrib[name].split())))
        element.tail = None  # white space between elements; a <text> has no children, so no text is lost
        if element.tag in ("svg", "g"):
            element.text = None
    root.attrib.clear()
    root.attrib.update(
        {"xmlns": _SVG, "viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": one_line(label)}
    )
    # Sizes in a style would be overruled by no one; as attributes they give way to the page's CSS.
    root.attrib.update({"width": f"{width:g}", "height": f"{height:g}", "font-family": "system-ui, sans-serif"})
    return Svg(ElementTree.tostring(root, encoding="unicode"))


def _shortened(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")


def _style(declarations: str) -> str:
    """One style attribute with the page's colours and the reader's fonts."""
    kept = []
    for declaration in declarations.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            kept += [f"font-size: {re.findall(r'[0-9.]+px', value)[0]}"] + ["font-weight: 600"] * ("bold" in value)
        elif name in ("fill", "stroke"):
            kept.append(f"{name}: {_page_colour(value)}")
        elif name:
            kept.append(f"{name}: {value}")
    return "; ".join(kept)


def _page_colour(colour: str) -> str:
    if colour == _INK_COLOUR:
        return "currentColor"
    for number, (light, _) in enumerate(SERIES_COLOURS):
        if colour == light:
            return f"var(--series-{number}, {light})"
    return colour
