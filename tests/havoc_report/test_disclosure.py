from __future__ import annotations

from havoc_report.disclosure import Disclosure, Excerpt
from havoc_report.page import Paragraph


def test_a_disclosure_is_closed_and_holds_its_parts() -> None:
    found = Disclosure("a <b>", (Paragraph("inside"),), "x & y").html()
    assert found == (
        '<details><summary>a &lt;b&gt; <span class="aside">x &amp; y</span></summary>'
        '<div class="inside"><p>inside</p></div></details>'
    )


def test_an_excerpt_keeps_its_text_and_its_reading_direction_to_itself(hostile: str) -> None:
    found = Excerpt(hostile, "\n" + hostile, "(1, limit 2)").html()
    assert "<script" not in found and "\x00" not in found and "\u202e" not in found
    assert found.count("<bdi>") == found.count("</bdi>") == 2
    assert "<pre>\n<bdi>\n&lt;/pre&gt;" in found  # a browser drops the first newline of a <pre>, which is ours
    assert found.endswith("</bdi></pre></figure>") and "(1, limit 2)" in found
