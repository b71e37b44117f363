from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havoc_report.escaping import clean, escape, one_line

ANY_TEXT = st.text(st.characters(codec=None, categories=None))  # also control characters and lone surrogates


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\" onload='x'", "&quot; onload=&#x27;x&#x27;"),
        ("a\x00b", "a⟨U+0000⟩b"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("\x85\x7f\ufffe", "⟨U+0085⟩⟨U+007F⟩⟨U+FFFE⟩"),
        ("a\r\nb\tc\rd", "a\nb\tc⟨U+000D⟩d"),
    ],
)
def test_hostile_text_is_shown_and_does_nothing(hostile: str, shown: str) -> None:
    assert escape(hostile) == shown


def test_harmless_text_of_any_script_stays_as_it_is() -> None:
    assert clean("σ² ≤ 3·10⁻⁴, 設計, שלום, 🙂") == "σ² ≤ 3·10⁻⁴, 設計, שלום, 🙂"


@given(ANY_TEXT)
def test_any_text_becomes_utf_8_without_a_tag_and_reads_back_as_cleaned(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("<>\"'")
    assert html.unescape(escaped.encode("utf-8").decode("utf-8")) == clean(text)


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def test_a_label_is_one_line() -> None:
    assert one_line("  two\n\twords \x00 ") == "two words ⟨U+0000⟩"
