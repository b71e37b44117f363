from __future__ import annotations

import codecs
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.encoding import MARKS, decode, decode_whole, detect, lines_not_utf8, magic_of, mark_of, mend, packages
from havoc_data.inputs import InputError

POLISH = "Twierdzenie mówi, że każda funkcja ciągła osiąga swoje kresy na przedziale domkniętym."
FRENCH = "La théorie des probabilités étudie les phénomènes aléatoires, où l'été est agréable."
GERMAN = "Die Größe der Stichprobe und die Länge über alle Maßen prüfen wir später."
CZECH = "Věta říká, že každá spojitá funkce na uzavřeném intervalu nabývá svého maxima."
TURKISH = "Bu teorem kapalı aralıkta sürekli her fonksiyonun en büyük değerini aldığını söyler, ışık."
GREEK = "Η γρήγορη καφέ αλεπού πηδάει πάνω από το σκυλί."
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH, "cp1252"),
        (GERMAN, "cp1252"),
        ("El niño comió mañana en España; la función es continua. ¿Qué pasó?", "cp1252"),
        ("The café is open and much more text in plain English follows here.", "cp1252"),
        ("The error is ± 0.5 µm at 20 °C, with x² and ½ of it, as Poincaré “showed”.", "cp1252"),
        (POLISH, "cp1250"),
        (CZECH, "cp1250"),
        (TURKISH, "cp1254"),
        (FRENCH, "mac_roman"),
        (GERMAN, "cp850"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (GREEK, "cp1253"),
        ("これは日本語の文章です。数学と統計を学びます。", "shift_jis"),
        ("これは日本語の文章です。数学と統計を学びます。", "euc_jp"),
        ("这是一个中文句子。我们学习数学和统计学。", "gb18030"),
        ("這是一個中文句子。我們學習數學和統計學。", "big5"),
        ("이것은 한국어 문장입니다. 우리는 수학을 배웁니다.", "euc_kr"),
    ],
)
@pytest.mark.parametrize("times", [1, 50])
def test_text_in_the_encoding_of_an_older_system_is_read_as_it_was_written(
    text: str, encoding: str, times: int
) -> None:
    whole = f"{text}\n" * times
    assert decode_whole(whole.encode(encoding)) == (whole, ((f"decoded_from_{encoding}", 1),))


@settings(deadline=None)
@given(st.text())
def test_what_is_utf8_is_read_as_it_stands(text: str) -> None:
    raw = text.encode("utf-8", "replace")
    assert decode(raw, "cp1251") == (raw.decode(), 0, 0)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    text, invalid, _ = decode(raw)
    assert text == raw.decode("utf-8", "replace")
    assert (invalid > 0) == (lines_not_utf8(raw) != b"")
    try:
        text, counts = decode_whole(raw)
    except InputError as error:
        assert error.reason
    else:
        assert text.encode("utf-8") or raw in (b"", *(mark for mark, _ in MARKS))
        assert all(count > 0 for _, count in counts)


def test_random_bytes_are_no_text_in_any_encoding() -> None:
    for seed in range(5):
        raw = random.Random(seed).randbytes(20_000)
        assert detect(raw) is None
        with pytest.raises(InputError, match="of its bytes are"):
            decode_whole(raw)


def test_each_line_is_read_in_its_own_encoding() -> None:
    raw = f"{RUSSIAN}\n".encode() + f"{RUSSIAN}\n".encode("cp1251") + b"ASCII.\r\n"
    assert decode(raw, "cp1251") == (f"{RUSSIAN}\n{RUSSIAN}\nASCII.\r\n", 0, len(RUSSIAN) + 1)


def test_a_line_most_of_which_is_utf8_is_damaged_and_in_no_other_encoding() -> None:
    assert decode("äöü".encode() + b"\xff", "cp1252") == ("äöü\ufffd", 1, 0)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_names_the_encoding(encoding: str) -> None:
    assert decode_whole("Größe\r\n".encode(encoding)) == ("Größe\r\n", ())


def test_marks_and_magic_numbers_are_told_apart() -> None:
    assert mark_of(codecs.BOM_UTF32_LE + b"a\0\0\0") == (codecs.BOM_UTF32_LE, "utf-32-le")
    assert mark_of(codecs.BOM_UTF16_LE + b"a\0") == (codecs.BOM_UTF16_LE, "utf-16-le")
    assert mark_of(b"plain") == (b"", "utf-8")
    assert magic_of(b"plain") is None
    with pytest.raises(InputError, match="it is a JPEG image, whatever its name says; convert it to text"):
        decode_whole(b"\xff\xd8\xff\xe0 JFIF")


def test_mending_can_be_left_off() -> None:
    assert decode_whole("cafÃ©".encode(), mend_encoding=False) == ("cafÃ©", ())
    raw = GERMAN.encode("latin-1")
    text, counts = decode_whole(raw, mend_encoding=False)
    assert (text.count("\ufffd"), counts) == (7, (("invalid_bytes", 7),))


@pytest.mark.parametrize(
    ("broken", "whole", "replaced"),
    [
        ("cafÃ©", "café", 2),
        ("isnâ€™t", "isn’t", 3),
        ("Î± â‰¤ Î²", "α ≤ β", 7),
        ("20 Â°C Â± 0.5", "20 °C ± 0.5", 2),
        ("РџСЂРёРІРµС‚", "Привет", 12),
        ("isn\x92t", "isn’t", 1),
    ],
)
def test_mojibake_is_mended_and_what_was_replaced_is_counted(broken: str, whole: str, replaced: int) -> None:
    assert mend(broken) == (whole, replaced)


@pytest.mark.parametrize(
    "text",
    [
        "10⁻³ and x², ½, ﬁ, Å, Ω, 𝒩(μ, σ²)",
        "∂²u/∂x² ‖·‖ ≈ ½ ∈ ℝⁿ × ℂ ⊕ ∅",
        "e\u0301 is two characters, é is one",
        "α ≤ β × γ, â ∈ Â, ã × b̃, x̄ ± s",
        "„Größe“ «été» “naïve” … – —",
        "“straight” and \u00a0 spaces\u2009here, zero\u200bwidth",
        "这是一个中文句子。",
        "Let Ã be a matrix, and à la carte Â too.",
        "где π — отношение; Οὐ φροντὶς Ἱπποκλείδῃ",
        "&amp; &lt;b&gt; \x1b[0m",
    ],
)
def test_mending_changes_no_mathematics_and_normalises_nothing(text: str) -> None:
    assert mend(text) == (text, 0)


def test_only_the_broken_lines_of_a_text_are_touched() -> None:
    assert mend("x² ≤ 10⁻³ e\u0301 ﬁ\ncafÃ©\n‖x‖\n") == ("x² ≤ 10⁻³ e\u0301 ﬁ\ncafé\n‖x‖\n", 2)


def without(*names: str) -> str:
    """What the functions do where packages are missing, run by a Python of its own."""
    script = f"""
import sys
for name in {names!r}:
    sys.modules[name] = None
from havoc_data.encoding import decode_whole, mend
from havoc_data.inputs import InputError
print(ascii(mend("caf\\u00c3\\u00a9")), ascii(decode_whole({GERMAN.encode("latin-1")!r})))
try:
    decode_whole({RUSSIAN.encode("cp1251")!r})
except InputError as error:
    print(error.reason)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_without_the_packages_few_odd_bytes_become_gaps_and_many_are_refused_with_the_command() -> None:
    said = without("charset_normalizer", "ftfy")
    assert "('caf\\xc3\\xa9', 0)" in said
    assert "('invalid_bytes', 7)" in said
    assert "or pip install 'havoc[formats]', which finds encodings" in said


def test_the_packages_are_named_with_their_versions_for_whatever_is_kept_from_before() -> None:
    assert "charset-normalizer 3" in packages()
    assert "ftfy 6" in packages()
