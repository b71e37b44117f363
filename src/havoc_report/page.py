"""Frozen pieces -> one HTML file that needs nothing else: no script, no font, no image from outside.

A page is a title and sections; a section is a title and parts; a part is anything with an `html`
method. The simple parts are here, `Table` is in tables.py, charts for a `Figure` come from plots.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NewType, Protocol

from havoc_core.errors import HavocError
from havoc_report.escaping import escape
from havoc_report.stylesheet import CSS

Svg = NewType("Svg", str)
"""A whole <svg> element that plots.py drew: the only text that goes onto a page unescaped."""

# Second lock on the door: should a tag ever slip through, the browser still runs and loads nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Part(Protocol):
    """Something that can stand in a section."""

    def html(self) -> str:
        """The part as HTML with balanced tags; every text in it is escaped."""
        ...


@dataclass(frozen=True)
class Paragraph:
    """Plain text. `lead` sets it larger, for the one or two sentences that a hurried reader sees."""

    text: str
    lead: bool = False

    def html(self) -> str:
        """One <p>."""
        start = '<p class="lead">' if self.lead else "<p>"
        return f"{start}{escape(self.text)}</p>"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]

    def html(self) -> str:
        """One <ul>."""
        return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in self.items) + "</ul>"


@dataclass(frozen=True)
class Note:
    """A framed remark. A warning limits what the page means, a danger says that it means nothing."""

    text: str
    kind: Literal["info", "warning", "danger"] = "info"
    title: str = ""

    def html(self) -> str:
        """One <div role="note">."""
        title = f"<strong>{escape(self.title)}</strong>" if self.title else ""
        return f'<div class="note {self.kind}" role="note">{title}<p>{escape(self.text)}</p></div>'


@dataclass(frozen=True)
class Fact:
    """One tile: a label, a value, and a line of detail below it."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Facts:
    """Tiles side by side; `small` for long values such as names and hashes."""

    items: tuple[Fact, ...]
    small: bool = False

    def html(self) -> str:
        """One <dl>, a group a tile."""
        tiles = []
        for fact in self.items:
            detail = f'<dd class="detail">{escape(fact.detail)}</dd>' if fact.detail else ""
            tiles.append(f"<div><dt>{escape(fact.label)}</dt><dd>{escape(fact.value)}</dd>{detail}</div>")
        kind = "facts small" if self.small else "facts"
        return f'<dl class="{kind}">{"".join(tiles)}</dl>'


@dataclass(frozen=True)
class Figure:
    """A chart with a caption; `narrow` is the same chart drawn for a telephone, shown there instead."""

    svg: Svg
    caption: str = ""
    narrow: Svg | None = None

    def html(self) -> str:
        """One <figure>."""
        if self.narrow is None:
            charts = f"<div>{self.svg}</div>"
        else:
            charts = f'<div class="wide">{self.svg}</div><div class="narrow">{self.narrow}</div>'
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        return f"<figure>{charts}{caption}</figure>"


@dataclass(frozen=True)
class Pair:
    """Two small figures side by side, one above the other on a telephone."""

    left: Figure
    right: Figure

    def html(self) -> str:
        """One <div> with two <figure>."""
        return f'<div class="pair">{self.left.html()}{self.right.html()}</div>'


@dataclass(frozen=True)
class Code:
    """Preformatted text, such as a command."""

    text: str

    def html(self) -> str:
        """One <pre>."""
        # A browser drops a newline right after <pre>; this one is the one to drop.
        return f'<pre class="code">\n{escape(self.text)}</pre>'


@dataclass(frozen=True)
class Sample:
    """What a model wrote: the prompt it was given, and its text exactly as it came."""

    prompt: str
    text: str
    label: str = ""

    def html(self) -> str:
        """One <figure> with a <pre>; the reading direction of the text cannot leave it."""
        label = f"<figcaption>{escape(self.label)}</figcaption>" if self.label else ""
        prompt = f'<span class="prompt">{escape(self.prompt)}</span>'
        return f'<figure class="sample">{label}<pre>{prompt}<bdi>{escape(self.text)}</bdi></pre></figure>'


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Page:
    """A whole page.

    Args:
        title: the heading, and the title of the window.
        subtitle: one line below it.
        sections: in reading order; they also make the list of contents.
        kicker: a small line above the title: what kind of page this is.
        banners: notes above everything else, such as DUMMY DATA.
        footer: one small line at the end.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    kicker: str = "HAVOC"
    banners: tuple[Note, ...] = ()
    footer: str = ""


def render(page: Page) -> str:
    """The page as one HTML document; the same page gives the same text."""
    links = "".join(
        f'<li><a href="#s{number}">{escape(section.title)}</a></li>'
        for number, section in enumerate(page.sections, start=1)
    )
    contents = f'<nav aria-label="On this page"><ol>{links}</ol></nav>' if len(page.sections) > 1 else ""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{CSS}</style>\n</head>\n"
    )
    header = (
        f'<header>{"".join(note.html() for note in page.banners)}<p class="kicker">{escape(page.kicker)}</p>'
        f'<h1>{escape(page.title)}</h1><p class="subtitle">{escape(page.subtitle)}</p></header>'
    )
    footer = f"<footer><p>{escape(page.footer)}</p></footer>\n" if page.footer else ""
    sections = "\n".join(_section(section, number) for number, section in enumerate(page.sections, start=1))
    sheet = f'<div class="sheet">\n{header}\n{contents}\n<main>\n{sections}\n</main>\n{footer}</div>'
    return f"{head}<body>\n{sheet}\n</body>\n</html>\n"


def _section(section: Section, number: int) -> str:
    parts = "\n".join(part.html() for part in section.parts)
    return (
        f'<section id="s{number}" aria-labelledby="s{number}-title">'
        f'<h2 id="s{number}-title">{escape(section.title)}</h2>\n{parts}\n</section>'
    )


def write_page(path: Path, page: Page) -> None:
    """Writes the page as UTF-8: whole under its name, or not at all. Makes the folder if it is missing.

    Raises:
        HavocError: the file cannot be written; what stood under the name before is untouched.
    """
    content = render(page).encode("utf-8")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise HavocError(
            str(path),
            f"the page ({len(content):,} bytes) cannot be written: {reason}.",
            "Check that the folder exists, may be written and has room, or give another path.",
        ) from error
