"""Parts of a page that a reader opens: no script, the browser does it."""

from __future__ import annotations

from dataclasses import dataclass

from havoc_report.escaping import escape
from havoc_report.page import Part


@dataclass(frozen=True)
class Disclosure:
    """A line that opens to show more; `aside` is the quieter half of the line."""

    summary: str
    parts: tuple[Part, ...]
    aside: str = ""

    def html(self) -> str:
        """One <details>, closed."""
        aside = f' <span class="aside">{escape(self.aside)}</span>' if self.aside else ""
        inside = "".join(part.html() for part in self.parts)
        return f'<details><summary>{escape(self.summary)}{aside}</summary><div class="inside">{inside}</div></details>'


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a document, exactly as it came, below where it came from and what is to be said of it."""

    origin: str
    text: str
    remark: str = ""

    def html(self) -> str:
        """One <figure> with a <pre>; the reading direction of the text cannot leave it."""
        remark = f" {escape(self.remark)}" if self.remark else ""
        caption = f"<figcaption><bdi>{escape(self.origin)}</bdi>{remark}</figcaption>"
        return f'<figure class="excerpt">{caption}<pre>\n<bdi>{escape(self.text)}</bdi></pre></figure>'
